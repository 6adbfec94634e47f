#define GOLF_ISA_NS avx512
#include "norm/norm_body.h"

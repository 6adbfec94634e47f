#define GOLF_ISA_NS avx2
#include "norm/norm_body.h"

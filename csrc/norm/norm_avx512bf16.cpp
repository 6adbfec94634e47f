#define GOLF_ISA_NS avx512bf16
#include "norm/norm_body.h"

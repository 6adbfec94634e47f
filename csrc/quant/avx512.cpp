#define GOLF_ISA_NS avx512
#include "quant/body.h"

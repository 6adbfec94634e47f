#define GOLF_ISA_NS avx512
#include "quant/quant_body.h"

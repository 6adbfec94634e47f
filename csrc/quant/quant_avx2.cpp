#define GOLF_ISA_NS avx2
#include "quant/quant_body.h"

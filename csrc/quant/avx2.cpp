#define GOLF_ISA_NS avx2
#include "quant/body.h"

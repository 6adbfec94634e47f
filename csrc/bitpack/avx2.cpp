#define GOLF_ISA_NS avx2
#include "bitpack/body.h"

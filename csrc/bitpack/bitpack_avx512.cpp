#define GOLF_ISA_NS avx512
#include "bitpack/bitpack_body.h"

#define GOLF_ISA_NS avx2
#include "bitpack/bitpack_body.h"

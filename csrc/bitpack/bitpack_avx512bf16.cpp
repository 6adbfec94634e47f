#define GOLF_ISA_NS avx512bf16
#include "bitpack/bitpack_body.h"

#define GOLF_ISA_NS neonbf16
#define GOLF_NEON
#include "bitpack/bitpack_body.h"

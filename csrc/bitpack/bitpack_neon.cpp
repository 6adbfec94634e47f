#define GOLF_ISA_NS neon
#define GOLF_NEON
#include "bitpack/bitpack_body.h"

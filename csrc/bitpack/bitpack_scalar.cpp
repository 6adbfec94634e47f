#define GOLF_ISA_NS scalar
#include "bitpack/bitpack_body.h"

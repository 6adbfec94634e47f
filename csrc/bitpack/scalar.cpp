#define GOLF_ISA_NS scalar
#include "bitpack/body.h"

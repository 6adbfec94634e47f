#define GOLF_ISA_NS avx2
#include "norm/body.h"

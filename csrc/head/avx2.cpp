#define GOLF_ISA_NS avx2
#include "head/body.h"

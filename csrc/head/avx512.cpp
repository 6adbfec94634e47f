#define GOLF_ISA_NS avx512
#include "head/body.h"

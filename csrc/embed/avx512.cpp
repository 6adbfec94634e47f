#define GOLF_ISA_NS avx512
#include "embed/body.h"

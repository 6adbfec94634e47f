#define GOLF_ISA_NS avx2
#include "embed/body.h"

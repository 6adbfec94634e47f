#define GOLF_ISA_NS avx2
#include "attention/body.h"

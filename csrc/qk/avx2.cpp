#define GOLF_ISA_NS avx2
#include "qk/body.h"

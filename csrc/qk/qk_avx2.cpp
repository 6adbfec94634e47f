#define GOLF_ISA_NS avx2
#include "qk/qk_body.h"

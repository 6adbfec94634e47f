#define GOLF_ISA_NS avx512
#include "qk/qk_body.h"

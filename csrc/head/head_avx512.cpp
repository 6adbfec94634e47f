#define GOLF_ISA_NS avx512
#include "head/head_body.h"

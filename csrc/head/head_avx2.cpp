#define GOLF_ISA_NS avx2
#include "head/head_body.h"

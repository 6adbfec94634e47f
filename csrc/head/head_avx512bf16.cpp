#define GOLF_ISA_NS avx512bf16
#include "head/head_body.h"

#define GOLF_ISA_NS avx512bf16
#include "qk/qk_body.h"

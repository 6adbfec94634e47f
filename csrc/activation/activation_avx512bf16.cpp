#define GOLF_ISA_NS avx512bf16
#include "activation/activation_body.h"

#define GOLF_ISA_NS avx512
#include "activation/activation_body.h"

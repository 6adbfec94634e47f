#define GOLF_ISA_NS avx2
#include "activation/activation_body.h"

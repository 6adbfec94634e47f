#define GOLF_ISA_NS avx512bf16
#include "optim/optim_body.h"

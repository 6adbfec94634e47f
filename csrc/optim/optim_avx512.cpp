#define GOLF_ISA_NS avx512
#include "optim/optim_body.h"

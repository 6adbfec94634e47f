#define GOLF_ISA_NS avx2
#include "optim/optim_body.h"

#define GOLF_ISA_NS neonbf16
#define GOLF_NEON
#include "optim/optim_body.h"

#define GOLF_ISA_NS neon
#define GOLF_NEON
#include "optim/optim_body.h"

#define GOLF_ISA_NS scalar
#include "optim/optim_body.h"

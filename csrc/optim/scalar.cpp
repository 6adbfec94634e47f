#define GOLF_ISA_NS scalar
#include "optim/body.h"

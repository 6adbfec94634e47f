#define GOLF_ISA_NS scalar
#include "norm/body.h"

#define GOLF_ISA_NS scalar
#include "activation/body.h"

#define GOLF_ISA_NS scalar
#include "quant/body.h"

#define GOLF_ISA_NS scalar
#include "quant/quant_body.h"

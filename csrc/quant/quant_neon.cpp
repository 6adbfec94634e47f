#define GOLF_ISA_NS neon
#define GOLF_NEON
#include "quant/quant_body.h"

#define GOLF_ISA_NS neonbf16
#define GOLF_NEON
#include "activation/activation_body.h"

#define GOLF_ISA_NS neon
#define GOLF_NEON
#include "activation/activation_body.h"

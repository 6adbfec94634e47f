#define GOLF_ISA_NS neonbf16
#define GOLF_NEON
#include "norm/norm_body.h"

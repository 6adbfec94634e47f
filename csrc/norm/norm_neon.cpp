#define GOLF_ISA_NS neon
#define GOLF_NEON
#include "norm/norm_body.h"

#define GOLF_ISA_NS neonbf16
#define GOLF_NEON
#include "head/head_body.h"

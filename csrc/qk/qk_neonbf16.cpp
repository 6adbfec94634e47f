#define GOLF_ISA_NS neonbf16
#define GOLF_NEON
#include "qk/qk_body.h"

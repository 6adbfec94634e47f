#define GOLF_ISA_NS neon
#define GOLF_NEON
#include "qk/qk_body.h"

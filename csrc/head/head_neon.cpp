#define GOLF_ISA_NS neon
#define GOLF_NEON
#include "head/head_body.h"

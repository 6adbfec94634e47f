#define GOLF_ISA_NS neonbf16
#define GOLF_NEON
#include "attention/attention_body.h"

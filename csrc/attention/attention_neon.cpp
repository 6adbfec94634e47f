#define GOLF_ISA_NS neon
#define GOLF_NEON
#include "attention/attention_body.h"

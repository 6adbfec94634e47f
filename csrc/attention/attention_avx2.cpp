#define GOLF_ISA_NS avx2
#include "attention/attention_body.h"

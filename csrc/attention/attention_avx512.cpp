#define GOLF_ISA_NS avx512
#include "attention/attention_body.h"

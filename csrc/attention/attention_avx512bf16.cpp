#define GOLF_ISA_NS avx512bf16
#include "attention/attention_body.h"

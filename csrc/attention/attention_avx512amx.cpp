#define GOLF_ISA_NS avx512amx
#include "attention/attention_body.h"

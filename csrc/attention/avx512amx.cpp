#define GOLF_ISA_NS avx512amx
#include "attention/body.h"

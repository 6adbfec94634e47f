#define GOLF_ISA_NS avx512
#include "embed/embed_body.h"

#define GOLF_ISA_NS avx2
#include "embed/embed_body.h"

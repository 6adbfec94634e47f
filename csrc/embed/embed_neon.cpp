#define GOLF_ISA_NS neon
#define GOLF_NEON
#include "embed/embed_body.h"

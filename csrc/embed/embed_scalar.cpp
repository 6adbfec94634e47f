#define GOLF_ISA_NS scalar
#include "embed/embed_body.h"

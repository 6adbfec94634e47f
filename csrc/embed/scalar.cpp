#define GOLF_ISA_NS scalar
#include "embed/body.h"

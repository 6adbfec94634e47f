#define GOLF_ISA_NS scalar
#include "norm/norm_body.h"

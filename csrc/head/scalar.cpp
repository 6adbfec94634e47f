#define GOLF_ISA_NS scalar
#include "head/body.h"

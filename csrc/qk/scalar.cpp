#define GOLF_ISA_NS scalar
#include "qk/body.h"

#define GOLF_ISA_NS scalar
#include "qk/qk_body.h"

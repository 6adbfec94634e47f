#define GOLF_ISA_NS scalar
#include "head/head_body.h"

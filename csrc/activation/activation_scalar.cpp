#define GOLF_ISA_NS scalar
#include "activation/activation_body.h"

#include <immintrin.h>

#define SEC_STEPS sec_steps_avx2
#define SEC_BYTES 32
#include "steps_body.h"

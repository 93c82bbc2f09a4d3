#include <immintrin.h>

#define SEC_STEPS sec_steps_avx512
#define SEC_BYTES 64
#include "steps_body.h"

#if defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#define SEC_STEPS sec_steps_portable
#define SEC_BYTES 16
#include "steps_body.h"

#if defined(__x86_64__)
extern const sec_steps sec_steps_avx2, sec_steps_avx512;
#endif

const sec_steps *sec_steps_for(const char *isa) {
#if defined(__x86_64__)
    /* Those with bfloat16 products have AVX-512 too. */
    if (!strncmp(isa, "avx512", 6)) return &sec_steps_avx512;
    if (!strcmp(isa, "avx2")) return &sec_steps_avx2;
#endif
    return &sec_steps_portable;
}

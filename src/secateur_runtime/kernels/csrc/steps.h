/* What a decoder computes between its matrix products, on float32 vectors of any length. */
#ifndef SECATEUR_STEPS_H
#define SECATEUR_STEPS_H

#include <stdint.h>

enum { SEC_HEAD_DIM_MAX = 512 };

/* Keys of one head lie in blocks of 16 positions, [position / 16][head_dim][16]; values in rows,
 * [position][stride]. */
typedef struct {
    const void *keys, *values;
    int64_t stride;    /* numbers from one row of values to the next, a multiple of 16 */
    int64_t first;     /* first position that is seen */
    int64_t end;       /* one after the last */
    int32_t head_dim;
    int32_t half;      /* float16 instead of float32 */
} sec_past;

typedef struct {
    /* y = x / rms(x) * weight */
    void (*norm)(const float *x, const float *weight, float eps, int64_t n, float *y);
    /* x = silu(x) * up */
    void (*gate)(float *x, const float *up, int64_t n);
    void (*add)(float *x, const float *y, int64_t n);
    /* out = softmax(query . keys * scale) . values */
    void (*attend)(const float *query, float scale, const sec_past *past, float *out);
    void (*store)(const float *x, int64_t n, int64_t step, void *to, int32_t half);
} sec_steps;

/* The steps for one of the instruction sets that sec_isa names. */
const sec_steps *sec_steps_for(const char *isa);

#endif

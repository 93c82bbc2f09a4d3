/* Preparing inputs, in plain C: each instruction set includes it, so that the compiler makes the most of its flags. */
#ifndef SECATEUR_PREPARE_H
#define SECATEUR_PREPARE_H

#include <math.h>

#include "internal.h"

static void quantise_chunk(const float *x, int8_t *codes, float *scale) {
    float top = 0;
    for (int j = 0; j < SEC_CHUNK; j++) {
        float size = fabsf(x[j]);
        top = size > top ? size : top;
    }
    /* Below this the reciprocal is infinite; such a chunk is zero for every purpose. */
    float inverse = top > 1e-36f ? 127.0f / top : 0.0f;
    *scale = top > 1e-36f ? top / 127.0f : 0.0f;
    /* Adding and taking away 1.5 * 2^23 rounds to nearest even without a call. */
    for (int j = 0; j < SEC_CHUNK; j++) codes[j] = (int8_t)((x[j] * inverse + 12582912.0f) - 12582912.0f);
}

static void sum_fours(const int8_t *codes, int32_t *above) {
    for (int j = 0; j < SEC_CHUNK / 4; j++) above[j] = -128 * (codes[4 * j] + codes[4 * j + 1] + codes[4 * j + 2] + codes[4 * j + 3]);
}

static void prepare_chunk(sec_input *in, const float *x, int64_t at) {
    if (in->plain) memcpy(in->plain + at * SEC_CHUNK, x, SEC_CHUNK * sizeof(float));
    if (in->split) {
        float *split = in->split + at * SEC_CHUNK;
        for (int j = 0; j < SEC_CHUNK / 2; j++) {
            split[j] = x[2 * j];
            split[SEC_CHUNK / 2 + j] = x[2 * j + 1];
        }
    }
    if (in->bf16) {
        uint16_t *bf16 = in->bf16 + at * SEC_CHUNK;
        for (int j = 0; j < SEC_CHUNK; j++) bf16[j] = sec_to_bf16(x[j]);
    }
    if (in->codes) quantise_chunk(x, in->codes + at * SEC_CHUNK, in->scales + at);
    if (in->above) sum_fours(in->codes + at * SEC_CHUNK, in->above + at * SEC_CHUNK / 4);
}

static void prepare(sec_input *in, const float *x, int64_t stride) {
    for (int64_t i = 0; i < in->n; i++) {
        const float *row = x + i * stride;
        for (int64_t c = 0; c < in->chunks; c++) {
            int64_t left = in->cols - c * SEC_CHUNK;
            float last[SEC_CHUNK] = {0};
            if (left < SEC_CHUNK) memcpy(last, row + c * SEC_CHUNK, (size_t)left * sizeof(float));
            prepare_chunk(in, left < SEC_CHUNK ? last : row + c * SEC_CHUNK, c * in->n + i);
        }
    }
}

#endif

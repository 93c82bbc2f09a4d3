/* Preparing inputs, in plain C: each instruction set includes it, so that the compiler makes the most of its
 * flags. */
#ifndef SECATEUR_PREPARE_H
#define SECATEUR_PREPARE_H

#include <math.h>

#include "internal.h"

static void quantize_chunk(const float *x, int16_t *codes, float *scale) {
    /* Sizes compare like the integers that their bits are, and compilers make vectors of these only. */
    uint32_t most = 0;
    for (int j = 0; j < SEC_CHUNK; j++) {
        uint32_t size = sec_bits(x[j]) & 0x7fffffffu;
        most = size > most ? size : most;
    }
    /* Below this the reciprocal is infinite; such a chunk is zero for every purpose. */
    float top = sec_f32(most), inverse = top > 1e-33f ? SEC_INPUT_TOP / top : 0.0f;
    *scale = top > 1e-33f ? top / SEC_INPUT_TOP : 0.0f;
    /* Adding and taking away 1.5 * 2^23 rounds to nearest even without a call. */
    for (int j = 0; j < SEC_CHUNK; j++) codes[j] = (int16_t)((x[j] * inverse + 12582912.0f) - 12582912.0f);
}

static void split_codes(const int16_t *codes, int8_t *bytes) {
    for (int j = 0; j < SEC_CHUNK; j++) {
        bytes[j] = (int8_t)codes[j];
        bytes[SEC_CHUNK + j] = (int8_t)((codes[j] + 128) >> 8);
    }
}

static float sum_half(const int16_t *codes) {
    int32_t sum = 0;
    for (int j = 0; j < SEC_CHUNK / 2; j++) sum += codes[j];
    return -128.0f * (float)sum;
}

static void prepare_codes(sec_input *in, const float *x, int64_t at) {
    int16_t own[SEC_CHUNK], *codes = in->codes ? in->codes + at * SEC_CHUNK : own;
    quantize_chunk(x, codes, in->scales + at);
    if (in->bytes) split_codes(codes, in->bytes + at * 2 * SEC_CHUNK);
    for (int half = 0; in->above && half < 2; half++)
        in->above[2 * at + half] = sum_half(codes + half * SEC_CHUNK / 2);
}

/* Chunk c of input i. */
static void prepare_chunk(sec_input *in, const float *x, int64_t c, int64_t i) {
    int64_t at = c * in->n + i;
    if (in->plain) memcpy(in->plain + at * SEC_CHUNK, x, SEC_CHUNK * sizeof(float));
    if (in->split) {
        float *split = in->split + at * SEC_CHUNK;
        for (int j = 0; j < SEC_CHUNK / 2; j++) {
            split[j] = x[2 * j];
            split[SEC_CHUNK / 2 + j] = x[2 * j + 1];
        }
    }
    if (in->bf16) {
        uint16_t *bf16 = in->bf16 + at * 2 * SEC_CHUNK;
        for (int j = 0; j < SEC_CHUNK; j++) {
            bf16[j] = sec_to_bf16(x[j]);
            bf16[SEC_CHUNK + j] = sec_to_bf16(x[j] - sec_from_bf16(bf16[j]));
        }
    }
    if (in->scales) prepare_codes(in, x, c * in->slots + i);
}

static void prepare_nothing(sec_input *in) {
    const float nothing[SEC_CHUNK] = {0};
    for (int64_t c = 0; in->scales && c < in->chunks; c++)
        for (int64_t i = in->n; i < in->slots; i++) prepare_codes(in, nothing, c * in->slots + i);
}

static void prepare(sec_input *in, const float *x, int64_t stride) {
    prepare_nothing(in);
    for (int64_t i = 0; i < in->n; i++) {
        const float *row = x + i * stride;
        for (int64_t c = 0; c < in->chunks; c++) {
            int64_t left = in->cols - c * SEC_CHUNK;
            float last[SEC_CHUNK] = {0};
            if (left < SEC_CHUNK) memcpy(last, row + c * SEC_CHUNK, (size_t)left * sizeof(float));
            prepare_chunk(in, left < SEC_CHUNK ? last : row + c * SEC_CHUNK, c, i);
        }
    }
}

#endif

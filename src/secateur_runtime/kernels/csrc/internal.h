/* What the files of this folder share and callers do not see. */
#ifndef SECATEUR_INTERNAL_H
#define SECATEUR_INTERNAL_H

#include <string.h>

#include "kernels.h"

typedef void (*sec_rows_fn)(const sec_matrix *w, const sec_input *x, float *y, int64_t stride, int64_t row0,
                            int64_t row1);

/* One instruction set. bf16: its bf16 kinds read sec_input.bf16 instead of split. bytes: its int kinds read
 * sec_input.bytes instead of codes; above: and sec_input.above. */
typedef struct {
    const char *name;
    int (*usable)(void);
    int bf16, bytes, above;
    void (*prepare)(sec_input *in, const float *x, int64_t stride);
    sec_rows_fn rows[SEC_KINDS];
} sec_ops;

extern const sec_ops sec_portable, sec_emulated_bf16;
#if defined(__x86_64__)
extern const sec_ops sec_avx2, sec_avx512, sec_avx512bf16;
/* For sec_avx512bf16, which differs in bf16 only. */
sec_rows_fn sec_avx512_rows(int kind);
int sec_avx512_usable(void);
#elif defined(__aarch64__)
extern const sec_ops sec_neon;
#endif

/* Shuffles that move what the bits of a byte keep to its place, among 8 bytes or 8 pairs of bytes; 0xff for
 * holes. */
extern uint8_t sec_spread8[256][8], sec_spread16[256][16];

static inline float sec_f32(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t sec_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float sec_from_bf16(uint16_t half) { return sec_f32((uint32_t)half << 16); }

/* To nearest, ties to even; inputs are finite. */
static inline uint16_t sec_to_bf16(float value) {
    uint32_t bits = sec_bits(value);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

/* Scales are never infinite nor NaN, so the exponent needs no special case but the one of subnormal numbers,
 * which 2^112 covers. */
static inline float sec_from_f16(uint16_t half) {
    return sec_f32((uint32_t)(half & 0x8000u) << 16 |
                   sec_bits(sec_f32((uint32_t)(half & 0x7fffu) << 13) * 0x1p112f));
}

static inline int64_t sec_chunks(int64_t cols) { return (cols + SEC_CHUNK - 1) / SEC_CHUNK; }

static inline int64_t sec_groups(const sec_matrix *w) {
    return w->group ? (w->cols + w->group - 1) / w->group : 1;
}

/* Scale of columns [column, column + 32) of a row. */
static inline float sec_scale(const sec_matrix *w, int64_t row, int64_t column) {
    return sec_from_f16(w->scales[row * sec_groups(w) + (w->group ? column / w->group : 0)]);
}

static inline uint64_t sec_mask(const sec_matrix *w, int64_t row, int64_t chunk) {
    uint64_t word;
    memcpy(&word, w->mask + (row * sec_chunks(w->cols) + chunk) * 8, 8);
    return word;
}

#endif

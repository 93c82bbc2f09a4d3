/* As rows_avx512.c, where the processor also multiplies pairs of bfloat16: an input is the sum of two of
 * these, which is exact to 16 bits. Rounded to one, inputs cost more divergence than the type may have. Not
 * chosen by itself: measured, it decodes slower than rows_avx512.c. */
#include <immintrin.h>

#include "batch.h"
#include "prepare.h"

enum { DENSE, SPARSE, AHEAD = 2048 };

static int usable(void) { return sec_avx512_usable() && __builtin_cpu_supports("avx512bf16"); }

INLINE void row_bf16(const sec_matrix *w, const sec_input *x, int64_t r, int n, float *y, int sparse) {
    const uint16_t *values = (const uint16_t *)w->values + (sparse ? w->offsets[r] : r * w->cols);
    __m512 sums[2 * SEC_BATCH];
    for (int i = 0; i < 2 * n; i++) sums[i] = _mm512_setzero_ps();
    for (int64_t c = 0; c < x->chunks; c++) {
        __m512i low, high;
        _mm_prefetch((const char *)values + AHEAD, _MM_HINT_T0);
        if (sparse) {
            uint64_t have = sec_mask(w, r, c);
            low = _mm512_maskz_expandloadu_epi16((__mmask32)have, values);
            high = _mm512_maskz_expandloadu_epi16((__mmask32)(have >> 32),
                                                  values + _mm_popcnt_u32((uint32_t)have));
            values += _mm_popcnt_u64(have);
        } else {
            int64_t left = w->cols - c * SEC_CHUNK;
            uint64_t have = left >= 64 ? ~0ull : (1ull << left) - 1;
            _mm_prefetch((const char *)values + AHEAD + 64, _MM_HINT_T0);
            low = _mm512_maskz_loadu_epi16((__mmask32)have, values);
            high = _mm512_maskz_loadu_epi16((__mmask32)(have >> 32), values + 32);
            values += SEC_CHUNK;
        }
        for (int i = 0; i < n; i++) {
            const uint16_t *in = x->bf16 + (c * x->n + INPUT(i)) * 2 * SEC_CHUNK;
            for (int part = 0; part < 2; part++, in += SEC_CHUNK) {
                sums[2 * i] = _mm512_dpbf16_ps(sums[2 * i], (__m512bh)low, (__m512bh)_mm512_load_si512(in));
                sums[2 * i + 1] = _mm512_dpbf16_ps(sums[2 * i + 1], (__m512bh)high,
                                                   (__m512bh)_mm512_load_si512(in + 32));
            }
        }
    }
    for (int i = 0; i < n; i++) y[i] = _mm512_reduce_add_ps(_mm512_add_ps(sums[2 * i], sums[2 * i + 1]));
}

ROWS(rows_bf16, row_bf16, DENSE)
ROWS(rows_bf16_sparse, row_bf16, SPARSE)

/* Defines a function that leaves a kind to rows_avx512.c. */
#define SAME(name, kind)                                                                              \
    static void name(const sec_matrix *w, const sec_input *x, float *y, int64_t stride, int64_t row0, \
                     int64_t row1) {                                                                  \
        sec_avx512_rows(kind)(w, x, y, stride, row0, row1);                                           \
    }
SAME(rows_f32, SEC_F32)
SAME(rows_int8, SEC_INT8)
SAME(rows_int4, SEC_INT4)
SAME(rows_int8_sparse, SEC_INT8_SPARSE)
SAME(rows_int4_sparse, SEC_INT4_SPARSE)

const sec_ops sec_avx512bf16 = {
    "avx512bf16",
    usable,
    1,
    1,
    1,
    prepare,
    {rows_f32, rows_bf16, rows_int8, rows_int4, rows_bf16_sparse, rows_int8_sparse, rows_int4_sparse},
};

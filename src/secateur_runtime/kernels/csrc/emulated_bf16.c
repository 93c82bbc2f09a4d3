/* The arithmetic of rows_avx512bf16.c in plain C, for processors that do not multiply bfloat16: only tests
 * ask for it, by its name. */
#include "chunk.h"
#include "prepare.h"

enum { LANES = 16 };

static int always(void) { return 1; }

/* sum[j] += a[2j + 1] * b[2j + 1], then a[2j] * b[2j], as one instruction for pairs of bfloat16 does it. */
static void add_pairs(float *sum, const uint16_t *a, const uint16_t *b) {
    for (int j = 0; j < LANES; j++) {
        sum[j] = fmaf(sec_from_bf16(a[2 * j + 1]), sec_from_bf16(b[2 * j + 1]), sum[j]);
        sum[j] = fmaf(sec_from_bf16(a[2 * j]), sec_from_bf16(b[2 * j]), sum[j]);
    }
}

static void rows_bf16(const sec_matrix *w, const sec_input *x, float *y, int64_t stride, int64_t row0,
                      int64_t row1) {
    for (int64_t r = row0; r < row1; r++) {
        float sums[SEC_BATCH][LANES] = {{0}};
        const uint16_t *values = (const uint16_t *)w->values + (w->mask ? w->offsets[r] : r * w->cols);
        for (int64_t c = 0; c < x->chunks; c++) {
            uint16_t weights[SEC_CHUNK];
            values = chunk_bf16(w, r, c, values, weights);
            for (int64_t i = 0; i < x->n; i++) {
                const uint16_t *in = x->bf16 + (c * x->n + i) * 2 * SEC_CHUNK;
                for (int part = 0; part < 2; part++) {
                    add_pairs(sums[i], weights, in + part * SEC_CHUNK);
                    add_pairs(sums[i], weights + SEC_CHUNK / 2, in + part * SEC_CHUNK + SEC_CHUNK / 2);
                }
            }
        }
        for (int64_t i = 0; i < x->n; i++) {
            y[i * stride + r] = 0;
            for (int j = 0; j < LANES; j++) y[i * stride + r] += sums[i][j];
        }
    }
}

/* Defines a function that leaves a kind to portable.c. */
#define SAME(name, kind)                                                                              \
    static void name(const sec_matrix *w, const sec_input *x, float *y, int64_t stride, int64_t row0, \
                     int64_t row1) {                                                                  \
        sec_portable.rows[kind](w, x, y, stride, row0, row1);                                         \
    }
SAME(rows_f32, SEC_F32)
SAME(rows_codes, SEC_INT8)

const sec_ops sec_emulated_bf16 = {
    "emulated-bf16",
    always,
    1,
    0,
    0,
    prepare,
    {rows_f32, rows_bf16, rows_codes, rows_codes, rows_bf16, rows_codes, rows_codes},
};

/* Plain C: what every processor runs, and what the other files are compared with. One row of one chunk is
 * made dense, then used. */
#include "chunk.h"
#include "prepare.h"

static int always(void) { return 1; }

static void dense_f32(const sec_matrix *w, int64_t row, int64_t chunk, float *out) {
    int64_t first = chunk * SEC_CHUNK, left = w->cols - first;
    memcpy(out, (const float *)w->values + row * w->cols + first,
           (size_t)(left < SEC_CHUNK ? left : SEC_CHUNK) * sizeof(float));
}

static void rows_f32(const sec_matrix *w, const sec_input *x, float *y, int64_t stride, int64_t row0,
                     int64_t row1) {
    for (int64_t r = row0; r < row1; r++) {
        float sums[SEC_BATCH] = {0};
        for (int64_t c = 0; c < x->chunks; c++) {
            float weights[SEC_CHUNK] = {0};
            dense_f32(w, r, c, weights);
            for (int64_t i = 0; i < x->n; i++) {
                const float *in = x->plain + (c * x->n + i) * SEC_CHUNK;
                for (int j = 0; j < SEC_CHUNK; j++) sums[i] += weights[j] * in[j];
            }
        }
        for (int64_t i = 0; i < x->n; i++) y[i * stride + r] = sums[i];
    }
}

static void rows_bf16(const sec_matrix *w, const sec_input *x, float *y, int64_t stride, int64_t row0,
                      int64_t row1) {
    for (int64_t r = row0; r < row1; r++) {
        float sums[SEC_BATCH] = {0};
        const uint16_t *values = (const uint16_t *)w->values + (w->mask ? w->offsets[r] : r * w->cols);
        for (int64_t c = 0; c < x->chunks; c++) {
            uint16_t weights[SEC_CHUNK];
            values = chunk_bf16(w, r, c, values, weights);
            for (int64_t i = 0; i < x->n; i++) {
                const float *in = x->split + (c * x->n + i) * SEC_CHUNK;
                for (int j = 0; j < 32; j++)
                    sums[i] += sec_from_bf16(weights[2 * j]) * in[j] +
                               sec_from_bf16(weights[2 * j + 1]) * in[32 + j];
            }
        }
        for (int64_t i = 0; i < x->n; i++) y[i * stride + r] = sums[i];
    }
}

static float dot_codes(const int8_t *weights, const int16_t *in) {
    int32_t sum = 0;
    for (int j = 0; j < 32; j++) sum += weights[j] * in[j];
    return (float)sum;
}

static void rows_codes(const sec_matrix *w, const sec_input *x, float *y, int64_t stride, int64_t row0,
                       int64_t row1) {
    for (int64_t r = row0; r < row1; r++) {
        float sums[SEC_BATCH] = {0};
        int64_t place = 0;
        for (int64_t c = 0; c < x->chunks; c++) {
            int8_t weights[SEC_CHUNK];
            chunk_codes(w, r, c, &place, weights);
            /* A last chunk of 32 columns or fewer has no second half, and no scale for it. */
            int halves = w->cols - c * SEC_CHUNK > 32 ? 2 : 1;
            for (int half = 0; half < halves; half++) {
                float scale = sec_scale(w, r, c * SEC_CHUNK + 32 * half);
                for (int64_t i = 0; i < x->n; i++) {
                    int64_t at = c * x->slots + i;
                    sums[i] += scale * x->scales[at] *
                               dot_codes(weights + 32 * half, x->codes + at * SEC_CHUNK + 32 * half);
                }
            }
        }
        for (int64_t i = 0; i < x->n; i++) y[i * stride + r] = sums[i];
    }
}

const sec_ops sec_portable = {
    "portable",
    always,
    0,
    0,
    0,
    prepare,
    {rows_f32, rows_bf16, rows_codes, rows_codes, rows_bf16, rows_codes, rows_codes}};

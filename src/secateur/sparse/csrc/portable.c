/* Plain C: what every processor runs, and what the other files are compared with. One row of one chunk is made dense, then used. */
#include "prepare.h"

static int always(void) { return 1; }

static void dense_f32(const sec_matrix *w, int64_t row, int64_t chunk, float *out) {
    int64_t first = chunk * SEC_CHUNK, left = w->cols - first;
    memcpy(out, (const float *)w->values + row * w->cols + first, (size_t)(left < SEC_CHUNK ? left : SEC_CHUNK) * sizeof(float));
}

static void rows_f32(const sec_matrix *w, const sec_input *x, float *y, int64_t stride, int64_t row0, int64_t row1) {
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

/* Fill out[64] with one chunk of a row of bf16 weights; return the values after those used. */
static const uint16_t *chunk_bf16(const sec_matrix *w, int64_t row, int64_t chunk, const uint16_t *values, uint16_t *out) {
    memset(out, 0, SEC_CHUNK * sizeof *out);
    if (!w->mask) {
        int64_t left = w->cols - chunk * SEC_CHUNK, count = left < SEC_CHUNK ? left : SEC_CHUNK;
        memcpy(out, values, (size_t)count * sizeof *out);
        return values + count;
    }
    for (uint64_t mask = sec_mask(w, row, chunk); mask; mask &= mask - 1) out[__builtin_ctzll(mask)] = *values++;
    return values;
}

static void rows_bf16(const sec_matrix *w, const sec_input *x, float *y, int64_t stride, int64_t row0, int64_t row1) {
    for (int64_t r = row0; r < row1; r++) {
        float sums[SEC_BATCH] = {0};
        const uint16_t *values = (const uint16_t *)w->values + (w->mask ? w->offsets[r] : r * w->cols);
        for (int64_t c = 0; c < x->chunks; c++) {
            uint16_t weights[SEC_CHUNK];
            values = chunk_bf16(w, r, c, values, weights);
            for (int64_t i = 0; i < x->n; i++) {
                const float *in = x->split + (c * x->n + i) * SEC_CHUNK;
                for (int j = 0; j < 32; j++) sums[i] += sec_from_bf16(weights[2 * j]) * in[j] + sec_from_bf16(weights[2 * j + 1]) * in[32 + j];
            }
        }
        for (int64_t i = 0; i < x->n; i++) y[i * stride + r] = sums[i];
    }
}

/* Fill out[64] with the codes of one chunk of a row; place counts the weights of the row that were used. */
static void chunk_codes(const sec_matrix *w, int64_t row, int64_t chunk, int64_t *place, int8_t *out) {
    const uint8_t *values = w->values;
    memset(out, 0, SEC_CHUNK);
    if (w->kind == SEC_INT8) {
        int64_t first = chunk * SEC_CHUNK, left = w->cols - first;
        for (int64_t j = 0; j < (left < SEC_CHUNK ? left : SEC_CHUNK); j++) out[j] = (int8_t)(values[row * w->cols + first + j] - 128);
    } else if (w->kind == SEC_INT4) {
        const uint8_t *packed = values + (row * sec_chunks(w->cols) + chunk) * 32;
        for (int j = 0; j < 32; j++) {
            out[j] = (int8_t)((packed[j] & 15) - 8);
            out[32 + j] = (int8_t)((packed[j] >> 4) - 8);
        }
    } else {
        for (uint64_t mask = sec_mask(w, row, chunk); mask; mask &= mask - 1, ++*place) {
            int64_t at = w->offsets[row] + *place;
            int code = w->kind == SEC_INT8_SPARSE ? values[at] - 128 : (values[at >> 1] >> 4 * (at & 1) & 15) - 8;
            out[__builtin_ctzll(mask)] = (int8_t)code;
        }
    }
}

static float dot_codes(const int8_t *weights, const int8_t *in) {
    int32_t sum = 0;
    for (int j = 0; j < 32; j++) sum += weights[j] * in[j];
    return (float)sum;
}

static void rows_codes(const sec_matrix *w, const sec_input *x, float *y, int64_t stride, int64_t row0, int64_t row1) {
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
                    int64_t at = c * x->n + i;
                    sums[i] += scale * x->scales[at] * dot_codes(weights + 32 * half, x->codes + at * SEC_CHUNK + 32 * half);
                }
            }
        }
        for (int64_t i = 0; i < x->n; i++) y[i * stride + r] = sums[i];
    }
}

const sec_ops sec_portable = {"portable", always, 0, 0, prepare, {rows_f32, rows_bf16, rows_codes, rows_codes, rows_bf16, rows_codes, rows_codes}};

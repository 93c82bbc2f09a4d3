/* One chunk of a row made dense by plain C: for the portable path, and for what is not worth instructions of
 * its own. */
#ifndef SECATEUR_CHUNK_H
#define SECATEUR_CHUNK_H

#include "internal.h"

/* Fill out[64] with one chunk of a row of bf16 weights; return the values after those used. */
static inline const uint16_t *chunk_bf16(const sec_matrix *w, int64_t row, int64_t chunk,
                                         const uint16_t *values, uint16_t *out) {
    memset(out, 0, SEC_CHUNK * sizeof *out);
    if (!w->mask) {
        int64_t left = w->cols - chunk * SEC_CHUNK, count = left < SEC_CHUNK ? left : SEC_CHUNK;
        memcpy(out, values, (size_t)count * sizeof *out);
        return values + count;
    }
    for (uint64_t mask = sec_mask(w, row, chunk); mask; mask &= mask - 1)
        out[__builtin_ctzll(mask)] = *values++;
    return values;
}

/* Fill out[64] with the codes of one chunk of a row; place counts the weights of the row that were used. */
static inline void chunk_codes(const sec_matrix *w, int64_t row, int64_t chunk, int64_t *place, int8_t *out) {
    const uint8_t *values = w->values;
    memset(out, 0, SEC_CHUNK);
    if (w->kind == SEC_INT8) {
        int64_t first = chunk * SEC_CHUNK, left = w->cols - first;
        for (int64_t j = 0; j < (left < SEC_CHUNK ? left : SEC_CHUNK); j++)
            out[j] = (int8_t)(values[row * w->cols + first + j] - 128);
    } else if (w->kind == SEC_INT4) {
        const uint8_t *packed = values + (row * sec_chunks(w->cols) + chunk) * 32;
        for (int j = 0; j < 32; j++) {
            out[j] = (int8_t)((packed[j] & 15) - 8);
            out[32 + j] = (int8_t)((packed[j] >> 4) - 8);
        }
    } else {
        for (uint64_t mask = sec_mask(w, row, chunk); mask; mask &= mask - 1, ++*place) {
            int64_t at = w->offsets[row] + *place;
            int code = w->kind == SEC_INT8_SPARSE ? values[at] - 128
                                                  : (values[at >> 1] >> 4 * (at & 1) & 15) - 8;
            out[__builtin_ctzll(mask)] = (int8_t)code;
        }
    }
}

#endif

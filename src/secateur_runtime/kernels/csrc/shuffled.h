/* What rows_avx2.c and rows_neon.c share, which expand values by a table of shuffles: the forms that a row
 * has, how it is read where memory ends, and the functions of every kind. */
#ifndef SECATEUR_SHUFFLED_H
#define SECATEUR_SHUFFLED_H

#include "batch.h"
#include "chunk.h"
#include "prepare.h"

enum { DENSE, SPARSE };
enum { BYTES, BYTES_SPARSE, NIBBLES, NIBBLES_SPARSE };

/* Loads reach beyond what the mask keeps, so the last values and the last columns are read from a copy:
 * each of these returns where to read a chunk, `last` where it had to be copied there. */
INLINE const float *f32_at(const float *values, int64_t left, float last[SEC_CHUNK]) {
    if (left >= SEC_CHUNK) return values;
    memset(last, 0, SEC_CHUNK * sizeof *last);
    return memcpy(last, values, (size_t)left * sizeof *last);
}

INLINE const uint16_t *bf16_at(const uint16_t *values, int64_t left, int sparse,
                               uint16_t last[SEC_CHUNK + 8]) {
    if (left >= SEC_CHUNK + (sparse ? 8 : 0)) return values;
    memset(last, 0, (SEC_CHUNK + 8) * sizeof *last);
    return memcpy(last, values, (size_t)left * sizeof *last);
}

/* place: values of the row used so far. form: BYTES or BYTES_SPARSE. */
INLINE const uint8_t *bytes_at(const sec_matrix *w, int64_t r, int64_t c, int form, int64_t place,
                               uint8_t last[SEC_CHUNK + 8]) {
    const uint8_t *from = (const uint8_t *)w->values + (form == BYTES ? r * w->cols : w->offsets[r]) + place;
    int64_t left = form == BYTES ? w->cols - c * SEC_CHUNK : w->offsets[w->rows] - w->offsets[r] - place;
    if (left >= SEC_CHUNK + (form == BYTES ? 0 : 8)) return from;
    memset(last, 0x80, SEC_CHUNK + 8);
    return memcpy(last, from, (size_t)left);
}

/* Defines `const sec_ops variable` from row_f32, row_bf16 and row_codes; bytes: whether row_codes reads
 * sec_input.bytes. */
#define SHUFFLED_OPS(variable, name, usable, bytes)  \
    ROWS(rows_f32, row_f32, 0)                       \
    ROWS(rows_bf16, row_bf16, DENSE)                 \
    ROWS(rows_bf16_sparse, row_bf16, SPARSE)         \
    ROWS(rows_int8, row_codes, BYTES)                \
    ROWS(rows_int8_sparse, row_codes, BYTES_SPARSE)  \
    ROWS(rows_int4, row_codes, NIBBLES)              \
    ROWS(rows_int4_sparse, row_codes, NIBBLES_SPARSE) \
    const sec_ops variable = {                       \
        name,                                        \
        usable,                                      \
        0,                                           \
        bytes,                                       \
        0,                                           \
        prepare,                                     \
        {rows_f32, rows_bf16, rows_int8, rows_int4, rows_bf16_sparse, rows_int8_sparse, rows_int4_sparse}};

#endif

/* A loop over rows for a number of inputs that the compiler knows, so that their sums stay in registers. */
#ifndef SECATEUR_BATCH_H
#define SECATEUR_BATCH_H

#define INLINE static inline __attribute__((always_inline))

/* Which input sum i is of: those beyond the last one repeat it and are not written. */
#define INPUT(i) ((i) < x->n ? (i) : x->n - 1)

/* Defines `name`, a sec_rows_fn, from `row(w, x, r, N, y, ...)`, which writes row r for N inputs to
 * y[0 .. N - 1]; N is 1, 2, 4 or 8. */
#define ROWS_LOOP(N, row, ...)                                          \
    for (int64_t r = row0; r < row1; r++) {                             \
        float sums[N];                                                  \
        row(w, x, r, N, sums, __VA_ARGS__);                             \
        for (int i = 0; i < N && i < x->n; i++) y[i * stride + r] = sums[i]; \
    }
#define ROWS(name, row, ...)                                                                          \
    static void name(const sec_matrix *w, const sec_input *x, float *y, int64_t stride, int64_t row0, \
                     int64_t row1) {                                                                  \
        if (x->n == 1) {                                                                              \
            ROWS_LOOP(1, row, __VA_ARGS__)                                                            \
        } else if (x->n == 2) {                                                                       \
            ROWS_LOOP(2, row, __VA_ARGS__)                                                            \
        } else if (x->n <= 4) {                                                                       \
            ROWS_LOOP(4, row, __VA_ARGS__)                                                            \
        } else {                                                                                      \
            ROWS_LOOP(8, row, __VA_ARGS__)                                                            \
        }                                                                                             \
    }

#endif

/* A loop over rows for a number of inputs that the compiler knows, so that their sums stay in registers. */
#ifndef SECATEUR_BATCH_H
#define SECATEUR_BATCH_H

#define INLINE static inline __attribute__((always_inline))

/* Defines `name`, a sec_rows_fn, from `row(w, x, r, N, y, ...)`, which writes row r for N inputs to y[0 .. N - 1]. */
#define ROWS_CASE(N, row, ...)                                     \
    case N:                                                        \
        for (int64_t r = row0; r < row1; r++) {                    \
            float sums[N];                                         \
            row(w, x, r, N, sums, __VA_ARGS__);                    \
            for (int i = 0; i < N; i++) y[i * stride + r] = sums[i]; \
        }                                                          \
        break;
#define ROWS(name, row, ...)                                                                                              \
    static void name(const sec_matrix *w, const sec_input *x, float *y, int64_t stride, int64_t row0, int64_t row1) {     \
        switch (x->n) {                                                                                                   \
            ROWS_CASE(1, row, __VA_ARGS__)                                                                                \
            ROWS_CASE(2, row, __VA_ARGS__)                                                                                \
            ROWS_CASE(3, row, __VA_ARGS__)                                                                                \
            ROWS_CASE(4, row, __VA_ARGS__)                                                                                \
            ROWS_CASE(5, row, __VA_ARGS__)                                                                                \
            ROWS_CASE(6, row, __VA_ARGS__)                                                                                \
            ROWS_CASE(7, row, __VA_ARGS__)                                                                                \
            ROWS_CASE(8, row, __VA_ARGS__)                                                                                \
        }                                                                                                                 \
    }

#endif

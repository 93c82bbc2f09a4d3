/* Products of dense and sparse weights with few inputs: y = W x for up to 8 inputs at once.
 *
 * A row is worked through in chunks of 64 columns. Inputs are prepared once by sec_prepare and then serve
 * every weight of as many columns. Nothing here allocates but sec_pool_new, and nothing checks: callers hand
 * over what secateur_runtime.kernels has checked. */
#ifndef SECATEUR_KERNELS_H
#define SECATEUR_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#define SEC_ABI 1
#define SEC_CHUNK 64
#define SEC_BATCH 8
/* The largest code of an input: its two bytes lie between -128 and 127. */
#define SEC_INPUT_TOP 32512

enum { SEC_F32, SEC_BF16, SEC_INT8, SEC_INT4, SEC_BF16_SPARSE, SEC_INT8_SPARSE, SEC_INT4_SPARSE, SEC_KINDS };

/* One weight [rows, cols].
 *
 * int8: byte = code + 128. int4: nibble = code + 8. A weight is code * scale, and pruned weights are code 0.
 * Dense f32, bf16, int8: row-major, no padding between rows. Dense int4: a row is ceil(cols / 64) chunks of
 * 32 bytes; byte j of a chunk holds column j in its low and column j + 32 in its high nibble; columns beyond
 * the last hold code 0. Sparse: what the mask keeps, in column order, row after row. Sparse int4: two codes a
 * byte, low nibble first; each row begins with a byte, so that offsets are even there. */
typedef struct {
    int32_t kind;
    int32_t group; /* int kinds: inputs that share a scale, a multiple of 32; 0: the whole row */
    int64_t rows, cols;
    const void *values;
    const uint8_t *
        mask; /* sparse: bit j % 8 of byte j / 8 of a row is column j; rows padded to 64 columns; else NULL */
    const int64_t
        *offsets; /* sparse: rows + 1 offsets into values, in weights, holes of int4 rows included */
    const uint16_t *scales; /* int kinds: float16, [rows, ceil(cols / group)] or [rows] */
} sec_matrix;

/* Up to 8 inputs of as many columns, in the forms that some kinds of weights need; filled by sec_prepare,
 * only read later, so that threads share it. Arrays lie in the caller's scratch, chunk by chunk, input by
 * input within; columns beyond the last are zero. */
typedef struct {
    int64_t n, cols, chunks;
    int64_t slots;  /* n rounded up to 1, 2, 4 or 8: what codes have room for; those beyond n are zero */
    float *plain;   /* [chunks][n][64] as they are: SEC_F32 */
    float *split;   /* [chunks][n][64] the 32 even columns, then the 32 odd ones: bf16 kinds */
    uint16_t *bf16; /* [chunks][n][2][64] the nearest bfloat16, then what is left of it: bf16 kinds, where
                       pairs of these are multiplied */
    int16_t *codes; /* [chunks][slots][64] rounded to -SEC_INPUT_TOP .. SEC_INPUT_TOP: int kinds */
    int8_t *bytes;  /* [chunks][slots][2][64] those codes as low and high bytes, both with a sign: instead,
                       where the processor multiplies bytes */
    float *scales;  /* [chunks][slots] of those codes */
    float *above;   /* [chunks][slots][2] -128 times the sum of 32 codes each: where bytes are multiplied as
                       they are stored */
} sec_input;

/* Bytes of scratch for n inputs of cols columns and the kinds given as a set of bits, 1 << kind. */
size_t sec_scratch(int64_t n, int64_t cols, uint32_t kinds);

/* Prepare x[i * stride + column], i < n <= 8; scratch holds sec_scratch(n, cols, kinds) bytes and outlives
 * the input. */
void sec_prepare(sec_input *input, void *scratch, uint32_t kinds, const float *x, int64_t stride, int64_t n,
                 int64_t cols);

/* y[i * stride + r] = row r of the weight times input i, for row0 <= r < row1: what a thread of a pool is
 * handed. */
void sec_rows(const sec_matrix *weight, const sec_input *input, float *y, int64_t stride, int64_t row0,
              int64_t row1);

/* Choose the instructions: portable, avx2, avx512, avx512bf16, neon, emulated-bf16; NULL for the best. 0:
 * done; -1: no such name in this build; -2: the processor lacks them. Not while anything runs. Inputs
 * prepared before must be prepared again. */
int sec_select(const char *isa);
const char *sec_isa(void);

/* A pool whose threads spin for a while and then sleep. The caller works too: threads == 1 starts none. It
 * never has more threads than cores this process may run on. Calls on one pool come from one thread at a
 * time. */
typedef struct sec_pool sec_pool;
typedef void (*sec_part)(void *arg, int64_t part);
sec_pool *sec_pool_new(int threads); /* NULL: no memory or no threads to be had */
int sec_pool_threads(const sec_pool *pool);
void sec_pool_run(sec_pool *pool, sec_part fn, void *arg,
                  int64_t parts); /* fn(arg, 0 .. parts - 1), in any order; then returns */
void sec_pool_free(sec_pool *pool);

/* Prepare x and multiply, all rows, on a pool (NULL: the caller alone). */
void sec_product(sec_pool *pool, const sec_matrix *weight, void *scratch, const float *x, int64_t xstride,
                 int64_t n, float *y, int64_t ystride);

/* Read all bytes once; returns a sum, so that no compiler can leave it out. */
uint64_t sec_stream(sec_pool *pool, const void *data, int64_t bytes);

int sec_abi(void);
const char *sec_source(void); /* digest of the sources this was built from */

#endif

/* Decoder blocks of the Llama family: tokens in, logits out, in one call. */
#ifndef SECATEUR_DECODE_H
#define SECATEUR_DECODE_H

#include "kernels.h"

enum { SEC_ROWS_MAX = 64 };  /* tokens in a call */

/* A sub-block (attention or FFN) that is not there has no heads, or no inner width. Norms and biases are
 * float32; NULL where there is none. */
typedef struct {
    int32_t n_heads, n_kv_heads, head_dim, inner;
    int32_t turns;   /* whether positions turn queries and keys */
    int32_t window;  /* positions that are seen, the own one included; 0 for all */
    const float *attn_norm, *ffn_norm, *q_norm, *k_norm;
    sec_matrix q, k, v, o, gate, up, down;
    const float *q_bias, *k_bias, *v_bias, *o_bias, *gate_bias, *up_bias, *down_bias;
} sec_block;

typedef struct {
    int64_t hidden, vocab, blocks;
    float epsilon;
    float turn_scale;          /* of cosines and sines */
    int64_t turned;            /* pairs of numbers in a head that are turned */
    const float *frequencies;  /* [turned] */
    const sec_block *block;
    const float *final_norm;
    sec_matrix embed, head;
} sec_decoder;

/* Keys and values of one sequence, for each block: see steps.h. A head has room for `capacity` rows of
 * head_dim rounded up to 16. */
typedef struct {
    int64_t capacity;  /* positions, a multiple of 64 */
    int32_t half;
    void *const *keys, *const *values;
    /* How many key-value heads the sequence has in each block, the first ones; the others answer with zeros,
       and without any there is no output bias either. NULL: all. */
    const int32_t *groups;
} sec_cache;

/* A token of one sequence: its number, its position, and where keys and values lie. */
typedef struct {
    int64_t token, position;
    const sec_cache *cache;
} sec_token;

/* Bytes that a call for `rows` tokens works in; they begin at a multiple of 64. */
int64_t sec_decode_bytes(const sec_decoder *model, int64_t rows);

/* Runs `rows` tokens (at most SEC_ROWS_MAX) and writes logits [rows - first][vocab] of those from `first` on.
   Tokens of one sequence come in the order of their positions. */
void sec_decode(const sec_decoder *model, sec_pool *pool, int64_t rows, const sec_token *tokens,
                int64_t first, void *scratch, float *logits);

#endif

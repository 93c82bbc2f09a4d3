#include <math.h>

#include "decode.h"
#include "internal.h"
#include "steps.h"

enum { GROUPS = SEC_ROWS_MAX / SEC_BATCH, BAND = 64, ALIGN = 64 };

/* What a call works in. Rows of `hidden` or of the widest half lie one after another. */
typedef struct {
    const sec_decoder *model;
    sec_pool *pool;
    const sec_steps *steps;
    const sec_token *tokens;
    int64_t rows;
    float *x, *normed, *q, *k, *v, *mixed, *inner, *up, *turns;
    sec_input input[GROUPS];
    char *room[GROUPS];
} call;

/* Matrices that share their input: rows of all of them are shared out among the threads. */
typedef struct {
    const call *c;
    const sec_matrix *matrix[3];
    const float *bias[3];
    float *to[3];
    int64_t count, first, parts;
    int32_t gated;
} product;

/* One layer's attention. */
typedef struct {
    const call *c;
    const sec_block *block;
    int64_t index;
} attention;

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* Rows [from, to) of matrix `i`, for every token; of a band at a time, so that it stays in the cache for all
 * of them. */
static void multiply(const product *p, int64_t i, int64_t from, int64_t to) {
    const call *c = p->c;
    const sec_matrix *w = p->matrix[i];
    for (int64_t first = p->first; first < c->rows; first += SEC_BATCH) {
        const int64_t n = least(SEC_BATCH, c->rows - first);
        float *y = p->to[i] + (first - p->first) * w->rows;
        sec_rows(w, &c->input[first / SEC_BATCH], y, w->rows, from, to);
        for (int64_t t = 0; p->bias[i] && t < n; t++)
            c->steps->add(y + t * w->rows + from, p->bias[i] + from, to - from);
    }
}

static void product_part(void *argument, int64_t part) {
    const product *p = argument;
    for (int64_t i = 0; i < p->count; i++) {
        const int64_t rows = p->matrix[i]->rows, bands = (rows + BAND - 1) / BAND;
        const int64_t last = least(rows, bands * (part + 1) / p->parts * BAND);
        const int64_t step = p->c->rows - p->first > SEC_BATCH || p->gated ? BAND : rows;
        for (int64_t from = bands * part / p->parts * BAND; from < last; from += step) {
            const int64_t to = least(last, from + step);
            multiply(p, i, from, to);
            if (!p->gated)
                continue;
            multiply(p, i + 1, from, to);
            for (int64_t t = 0; t < p->c->rows; t++)
                p->c->steps->gate(p->to[i] + t * rows + from, p->to[i + 1] + t * rows + from, to - from);
        }
        i += p->gated;
    }
}

/* A few parts a thread, so that one that is held up does not hold up all. */
static void run_product(product *p) {
    const int threads = sec_pool_threads(p->c->pool);
    p->parts = threads > 1 ? 4 * threads : 1;
    sec_pool_run(p->c->pool, product_part, p, p->parts);
}

/* Makes `x`, rows of `cols`, ready for what `p` multiplies. */
static void prepare(call *c, const float *x, int64_t cols, const product *p) {
    uint32_t kinds = 0;
    for (int64_t i = 0; i < p->count; i++)
        kinds |= 1u << p->matrix[i]->kind;
    for (int64_t t = p->first; t < c->rows; t += SEC_BATCH)
        sec_prepare(&c->input[t / SEC_BATCH], c->room[t / SEC_BATCH], kinds, x + t * cols, cols,
                    least(SEC_BATCH, c->rows - t), cols);
}

static void normed(call *c, const float *x, const float *weight, int64_t first) {
    const int64_t hidden = c->model->hidden;
    for (int64_t t = first; t < c->rows; t++)
        c->steps->norm(x + t * hidden, weight, c->model->epsilon, hidden, c->normed + t * hidden);
}

/* Turns pairs (x[i], x[i + turned]) by the angle of the position (arXiv:2104.09864). */
static void turn(float *x, const float *cosines, const float *sines, int64_t turned) {
    for (int64_t i = 0; i < turned; i++) {
        const float a = x[i], b = x[i + turned];
        x[i] = a * cosines[i] - b * sines[i];
        x[i + turned] = b * cosines[i] + a * sines[i];
    }
}

static void angles(call *c) {
    const int64_t turned = c->model->turned;
    for (int64_t t = 0; t < c->rows; t++) {
        float *cosines = c->turns + 2 * t * turned, *sines = cosines + turned;
        for (int64_t i = 0; i < turned; i++) {
            const float angle = (float)c->tokens[t].position * c->model->frequencies[i];
            cosines[i] = cosf(angle) * c->model->turn_scale;
            sines[i] = sinf(angle) * c->model->turn_scale;
        }
    }
}

static void place(const call *c, const sec_block *b, float *head, const float *weight, int64_t token) {
    const float *cosines = c->turns + 2 * token * c->model->turned;
    if (weight)
        c->steps->norm(head, weight, c->model->epsilon, b->head_dim, head);
    if (b->turns)
        turn(head, cosines, cosines + c->model->turned, c->model->turned);
}

/* Key-value heads of a block that a token's sequence has. */
static int64_t groups_of(const sec_token *token, const sec_block *b, int64_t index) {
    return token->cache->groups ? token->cache->groups[index] : b->n_kv_heads;
}

/* Writes keys and values of the tokens into their caches, and makes queries ready. */
static void remember(const call *c, const sec_block *b, int64_t index) {
    const int64_t d = b->head_dim, stride = (d + 15) / 16 * 16;
    for (int64_t t = 0; t < c->rows; t++) {
        const sec_cache *cache = c->tokens[t].cache;
        const int64_t groups = groups_of(&c->tokens[t], b, index);
        const int64_t at = c->tokens[t].position, size = cache->half ? 2 : 4;
        float *k = c->k + t * b->n_kv_heads * d, *v = c->v + t * b->n_kv_heads * d,
              *q = c->q + t * b->n_heads * d;
        for (int64_t h = 0; h < b->n_heads; h++)
            place(c, b, q + h * d, b->q_norm, t);
        for (int64_t h = 0; h < groups; h++) {
            char *keys = (char *)cache->keys[index] +
                         (h * cache->capacity * stride + at / 16 * 16 * d + at % 16) * size;
            char *values = (char *)cache->values[index] + (h * cache->capacity + at) * stride * size;
            place(c, b, k + h * d, b->k_norm, t);
            c->steps->store(k + h * d, d, 16, keys, cache->half);
            c->steps->store(v + h * d, d, 1, values, cache->half);
        }
    }
}

/* One key-value head of one token, with the query heads that it serves. */
static void attention_part(void *argument, int64_t part) {
    const attention *a = argument;
    const sec_block *b = a->block;
    const int64_t t = part / b->n_kv_heads, h = part % b->n_kv_heads, d = b->head_dim,
                  served = b->n_heads / b->n_kv_heads;
    const sec_token *token = &a->c->tokens[t];
    const sec_cache *cache = token->cache;
    const int64_t stride = (d + 15) / 16 * 16, size = cache->half ? 2 : 4, end = token->position + 1;
    sec_past past = {
        .keys = (const char *)cache->keys[a->index] + h * cache->capacity * stride * size,
        .values = (const char *)cache->values[a->index] + h * cache->capacity * stride * size,
        .stride = stride,
        .first = b->window && end > b->window ? end - b->window : 0,
        .end = end,
        .head_dim = b->head_dim,
        .half = cache->half,
    };
    if (h >= groups_of(token, b, a->index)) {
        memset(a->c->mixed + (t * b->n_heads + h * served) * d, 0, (size_t)(served * d) * sizeof(float));
        return;
    }
    for (int64_t i = h * served; i < (h + 1) * served; i++) {
        const int64_t at = (t * b->n_heads + i) * d;
        a->c->steps->attend(a->c->q + at, 1.0f / sqrtf((float)d), &past, a->c->mixed + at);
    }
}

/* Leaves what `x` says in `normed`, to be added to the states. */
static void output(call *c, const sec_matrix *w, const float *bias, const float *x) {
    product p = {.c = c, .matrix = {w}, .bias = {bias}, .to = {c->normed}, .count = 1};
    prepare(c, x, w->cols, &p);
    run_product(&p);
}

static void attend(call *c, const sec_block *b, int64_t index) {
    product p = {.c = c,
                 .matrix = {&b->q, &b->k, &b->v},
                 .bias = {b->q_bias, b->k_bias, b->v_bias},
                 .to = {c->q, c->k, c->v},
                 .count = 3};
    attention a = {c, b, index};
    normed(c, c->x, b->attn_norm, 0);
    prepare(c, c->normed, c->model->hidden, &p);
    run_product(&p);
    remember(c, b, index);
    sec_pool_run(c->pool, attention_part, &a, c->rows * b->n_kv_heads);
    output(c, &b->o, b->o_bias, c->mixed);
    const int64_t hidden = c->model->hidden;
    for (int64_t t = 0; t < c->rows; t++)
        if (groups_of(&c->tokens[t], b, index))
            c->steps->add(c->x + t * hidden, c->normed + t * hidden, hidden);
}

static void feed_forward(call *c, const sec_block *b) {
    product p = {.c = c,
                 .matrix = {&b->gate, &b->up},
                 .bias = {b->gate_bias, b->up_bias},
                 .to = {c->inner, c->up},
                 .count = 2,
                 .gated = 1};
    normed(c, c->x, b->ffn_norm, 0);
    prepare(c, c->normed, c->model->hidden, &p);
    run_product(&p);
    output(c, &b->down, b->down_bias, c->inner);
    c->steps->add(c->x, c->normed, c->rows * c->model->hidden);
}

static int64_t padded(int64_t bytes) {
    return (bytes + ALIGN - 1) / ALIGN * ALIGN;
}

typedef struct {
    int64_t queries, keys, inner, widest;
    uint32_t kinds;
} widths;

static int64_t most(int64_t a, int64_t b) {
    return a > b ? a : b;
}

static widths widths_of(const sec_decoder *model) {
    widths w = {0, 0, 0, model->hidden, 1u << model->head.kind};
    for (int64_t i = 0; i < model->blocks; i++) {
        const sec_block *b = &model->block[i];
        w.queries = most(w.queries, (int64_t)b->n_heads * b->head_dim);
        w.keys = most(w.keys, (int64_t)b->n_kv_heads * b->head_dim);
        w.inner = most(w.inner, b->inner);
        const sec_matrix *each[] = {&b->q, &b->k, &b->v, &b->o, &b->gate, &b->up, &b->down};
        for (int j = 0; j < 7; j++)
            w.kinds |= each[j]->rows ? 1u << each[j]->kind : 0;
    }
    w.widest = most(w.widest, most(w.queries, w.inner));
    return w;
}

/* Cuts the scratch memory into pieces, or with none only measures it. */
static int64_t cut(call *c, char *scratch) {
    const widths w = widths_of(c->model);
    const int64_t size[] = {c->model->hidden, c->model->hidden, w.queries,
                            w.keys,           w.keys,           w.queries,
                            w.inner,          w.inner,          2 * c->model->turned};
    float **piece[] = {&c->x, &c->normed, &c->q, &c->k, &c->v, &c->mixed, &c->inner, &c->up, &c->turns};
    int64_t used = 0;
    for (int i = 0; i < 9; i++) {
        *piece[i] = scratch ? (float *)(scratch + used) : NULL;
        used += padded(size[i] * c->rows * (int64_t)sizeof(float));
    }
    for (int64_t t = 0; t < c->rows; t += SEC_BATCH) {
        c->room[t / SEC_BATCH] = scratch ? scratch + used : NULL;
        used += padded((int64_t)sec_scratch(least(SEC_BATCH, c->rows - t), w.widest, w.kinds));
    }
    return used;
}

/* One row of a dense matrix in float32. */
static void look_up(const sec_matrix *w, int64_t row, float *to) {
    const int64_t at = row * w->cols;
    for (int64_t i = 0; i < w->cols; i++) {
        if (w->kind == SEC_F32) {
            to[i] = ((const float *)w->values)[at + i];
        } else if (w->kind == SEC_BF16) {
            to[i] = sec_from_bf16(((const uint16_t *)w->values)[at + i]);
        } else if (w->kind == SEC_INT8) {
            to[i] = (float)(((const uint8_t *)w->values)[at + i] - 128) * sec_scale(w, row, i);
        } else {
            const uint8_t *chunk = (const uint8_t *)w->values +
                                   (row * sec_chunks(w->cols) + i / SEC_CHUNK) * SEC_CHUNK / 2;
            to[i] = (float)((chunk[i % 32] >> (i % SEC_CHUNK < 32 ? 0 : 4) & 15) - 8) * sec_scale(w, row, i);
        }
    }
}

int64_t sec_decode_bytes(const sec_decoder *model, int64_t rows) {
    call c = {.model = model, .rows = rows};
    return cut(&c, NULL);
}

void sec_decode(const sec_decoder *model, sec_pool *pool, int64_t rows, const sec_token *tokens,
                int64_t first, void *scratch, float *logits) {
    call c = {
        .model = model, .pool = pool, .steps = sec_steps_for(sec_isa()), .tokens = tokens, .rows = rows};
    const int64_t hidden = model->hidden;
    cut(&c, scratch);
    for (int64_t t = 0; t < rows; t++)
        look_up(&model->embed, tokens[t].token, c.x + t * hidden);
    angles(&c);
    for (int64_t i = 0; i < model->blocks; i++) {
        if (model->block[i].n_heads)
            attend(&c, &model->block[i], i);
        if (model->block[i].inner)
            feed_forward(&c, &model->block[i]);
    }
    if (first >= rows)
        return;
    product p = {.c = &c, .matrix = {&model->head}, .to = {logits}, .count = 1, .first = first};
    normed(&c, c.x, model->final_norm, first);
    prepare(&c, c.normed, hidden, &p);
    run_product(&p);
}

/* Which instructions run: chosen once, by what the processor says it has. */
#include <stdatomic.h>

#include "internal.h"

/* Best first. */
static const sec_ops *const all[] = {
#if defined(__x86_64__)
    &sec_avx512, &sec_avx2,
#elif defined(__aarch64__)
    &sec_neon,
#endif
    &sec_portable,
    /* Run only where they are asked for by name. */
#if defined(__x86_64__)
    &sec_avx512bf16,
#endif
    &sec_emulated_bf16,
};

static _Atomic(const sec_ops *) chosen;

#ifndef SEC_SOURCE
#define SEC_SOURCE ""
#endif

int sec_abi(void) { return SEC_ABI; }

const char *sec_source(void) { return SEC_SOURCE; }

uint8_t sec_spread8[256][8], sec_spread16[256][16];

static void fill_spreads(void) {
    for (int mask = 0; mask < 256; mask++)
        for (int j = 0, next = 0; j < 8; j++) {
            int kept = mask >> j & 1;
            sec_spread8[mask][j] = (uint8_t)(kept ? next : 0xff);
            sec_spread16[mask][2 * j] = (uint8_t)(kept ? 2 * next : 0xff);
            sec_spread16[mask][2 * j + 1] = (uint8_t)(kept ? 2 * next + 1 : 0xff);
            next += kept;
        }
}

int sec_select(const char *isa) {
    int known = 0;
    fill_spreads();
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (isa && strcmp(isa, all[i]->name)) continue;
        known = 1;
        if (!all[i]->usable()) continue;
        atomic_store(&chosen, all[i]);
        return 0;
    }
    return known ? -2 : -1;
}

static const sec_ops *ops(void) {
    const sec_ops *now = atomic_load_explicit(&chosen, memory_order_acquire);
    if (now) return now;
    sec_select(NULL);
    return atomic_load(&chosen);
}

const char *sec_isa(void) { return ops()->name; }

enum {
    BF16_KINDS = 1 << SEC_BF16 | 1 << SEC_BF16_SPARSE,
    INT_KINDS = 1 << SEC_INT8 | 1 << SEC_INT4 | 1 << SEC_INT8_SPARSE | 1 << SEC_INT4_SPARSE
};

/* Next `bytes` of the scratch, on a cache line; NULL where the array is not wanted. With base NULL it only
 * counts. */
static void *take(char *base, size_t *used, size_t bytes, int wanted) {
    if (!wanted) return NULL;
    size_t at = *used;
    *used += (bytes + 63) & ~(size_t)63;
    return base ? base + at : NULL;
}

static size_t lay_out(sec_input *in, char *base, uint32_t kinds) {
    const sec_ops *now = ops();
    in->slots = in->n > 4 ? 8 : in->n > 2 ? 4 : in->n;
    size_t used = 0, chunks = (size_t)(in->chunks * in->n), slots = (size_t)(in->chunks * in->slots);
    int wide = now->bf16, ints = (kinds & INT_KINDS) != 0;
    in->plain = take(base, &used, chunks * SEC_CHUNK * sizeof(float), (kinds >> SEC_F32 & 1) != 0);
    in->split = take(base, &used, chunks * SEC_CHUNK * sizeof(float), (kinds & BF16_KINDS) && !wide);
    in->bf16 = take(base, &used, chunks * 2 * SEC_CHUNK * sizeof(uint16_t), (kinds & BF16_KINDS) && wide);
    in->codes = take(base, &used, slots * SEC_CHUNK * sizeof(int16_t), ints && !now->bytes);
    in->bytes = take(base, &used, slots * SEC_CHUNK * 2, ints && now->bytes);
    in->scales = take(base, &used, slots * sizeof(float), ints);
    in->above = take(base, &used, slots * 2 * sizeof(float), ints && now->above);
    return used;
}

size_t sec_scratch(int64_t n, int64_t cols, uint32_t kinds) {
    sec_input in = {.n = n, .cols = cols, .chunks = sec_chunks(cols)};
    return lay_out(&in, NULL, kinds) + 64;
}

void sec_prepare(sec_input *in, void *scratch, uint32_t kinds, const float *x, int64_t stride, int64_t n,
                 int64_t cols) {
    in->n = n;
    in->cols = cols;
    in->chunks = sec_chunks(cols);
    lay_out(in, (char *)(((uintptr_t)scratch + 63) & ~(uintptr_t)63), kinds);
    ops()->prepare(in, x, stride);
}

void sec_rows(const sec_matrix *w, const sec_input *x, float *y, int64_t stride, int64_t row0, int64_t row1) {
    ops()->rows[w->kind](w, x, y, stride, row0, row1);
}

typedef struct {
    const sec_matrix *weight;
    const sec_input *input;
    float *y;
    int64_t stride, step;
} product;

static void product_part(void *arg, int64_t part) {
    const product *p = arg;
    int64_t row0 = part * p->step, row1 = row0 + p->step;
    sec_rows(p->weight, p->input, p->y, p->stride, row0, row1 < p->weight->rows ? row1 : p->weight->rows);
}

void sec_product(sec_pool *pool, const sec_matrix *w, void *scratch, const float *x, int64_t xstride,
                 int64_t n, float *y, int64_t ystride) {
    sec_input in;
    sec_prepare(&in, scratch, 1u << w->kind, x, xstride, n, w->cols);
    int threads = pool ? sec_pool_threads(pool) : 1;
    if (threads == 1) {
        sec_rows(w, &in, y, ystride, 0, w->rows);
        return;
    }
    /* A few parts a thread, so that one that is held up does not hold up all; few, as each is a new stream of
     * memory. */
    int64_t parts = 4 * threads, step = (w->rows + parts - 1) / parts;
    product p = {w, &in, y, ystride, step};
    sec_pool_run(pool, product_part, &p, (w->rows + step - 1) / step);
}

/* Every kind of weight in memory of exactly its size, multiplied by the instructions named, against sums in
 * double precision. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels.h"

enum { ROWS = 5 };

typedef struct {
    sec_matrix m;
    double *dense, *above; /* weights; how far above zero the codes of a row stand, as a number */
    void *values;
    uint8_t *mask;
    int64_t *offsets;
    uint16_t *scales;
} weight;

static uint64_t state = 1;

static uint32_t draw(void) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(state >> 33);
}

static float bf16(uint16_t half) {
    uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

/* A float16 between 1/64 and 1/32, and what it is. */
static uint16_t draw_scale(double *value) {
    uint16_t mantissa = (uint16_t)(draw() & 1023);
    *value = (1 + mantissa / 1024.0) / 64;
    return (uint16_t)((15 - 6) << 10 | mantissa);
}

static int is_sparse(int kind) { return kind >= SEC_BF16_SPARSE; }
static int is_int4(int kind) { return kind == SEC_INT4 || kind == SEC_INT4_SPARSE; }
static int is_int(int kind) { return kind == SEC_INT8 || kind == SEC_INT8_SPARSE || is_int4(kind); }

static void put(weight *w, int64_t r, int64_t c, int64_t at, double scale) {
    int code = (int)(draw() % (is_int4(w->m.kind) ? 16 : 256)), zero = is_int4(w->m.kind) ? 8 : 128;
    double *out = w->dense + r * w->m.cols + c;
    if (w->m.kind == SEC_F32) {
        ((float *)w->values)[at] = (float)(*out = (float)((int)draw() % 1000) / 37.0f);
    } else if (!is_int(w->m.kind)) {
        uint16_t bits = (uint16_t)((draw() & 1) << 15 | (110 + draw() % 30) << 7 | (draw() & 127));
        ((uint16_t *)w->values)[at] = bits;
        *out = bf16(bits);
    } else {
        *out = (code - zero) * scale;
        if (is_int4(w->m.kind))
            ((uint8_t *)w->values)[at >> 1] =
                (uint8_t)((((uint8_t *)w->values)[at >> 1] & (at & 1 ? 15 : 240)) | code << 4 * (at & 1));
        else
            ((uint8_t *)w->values)[at] = (uint8_t)code;
    }
}

/* Where column c of a row of a dense weight lies; nibbles in chunks of 32 bytes, columns 32 apart sharing
 * one. */
static int64_t place(const weight *w, int64_t r, int64_t c) {
    if (w->m.kind != SEC_INT4) return r * w->m.cols + c;
    return 2 * ((r * ((w->m.cols + 63) / 64) + c / 64) * 32 + c % 32) + c / 32 % 2;
}

static void fill(weight *w, double share) {
    int64_t cols = w->m.cols, width = (cols + 63) / 64 * 8,
            groups = w->m.group ? (cols + w->m.group - 1) / w->m.group : 1, at = 0;
    for (int64_t r = 0; r < ROWS; r++) {
        w->offsets[r] = at;
        w->above[r] = 0;
        for (int64_t c = 0; c < cols; c++) {
            double scale = 1;
            if (is_int(w->m.kind) && (c == 0 || (w->m.group && c % w->m.group == 0))) {
                w->scales[r * groups + (w->m.group ? c / w->m.group : 0)] = draw_scale(&scale);
                w->above[r] = 128 / 32.0;
            }
            if (is_int(w->m.kind))
                scale =
                    (1 + (w->scales[r * groups + (w->m.group ? c / w->m.group : 0)] & 1023) / 1024.0) / 64;
            int keep = r == ROWS - 1 || (r && draw() % 1000 >= share * 1000);
            if (is_sparse(w->m.kind) && !keep) continue;
            if (is_sparse(w->m.kind)) w->mask[r * width + c / 8] |= (uint8_t)(1 << c % 8);
            put(w, r, c, is_sparse(w->m.kind) ? at++ : place(w, r, c), scale);
        }
        if (w->m.kind == SEC_INT4_SPARSE) at += at & 1;
    }
    w->offsets[ROWS] = at;
}

static weight make(int kind, int64_t cols, int group, double share) {
    weight w = {.m = {.kind = kind, .group = group, .rows = ROWS, .cols = cols}};
    int64_t chunks = (cols + 63) / 64, groups = group ? (cols + group - 1) / group : 1;
    size_t bytes = kind == SEC_F32    ? ROWS * cols * 4
                   : kind == SEC_INT4 ? ROWS * chunks * 32
                   : is_int(kind)     ? ROWS * cols
                                      : ROWS * cols * 2;
    w.values = calloc(1, bytes + 1);
    if (kind == SEC_INT4) memset(w.values, 0x88, bytes);
    w.mask = calloc(1, (size_t)(ROWS * chunks * 8));
    w.offsets = calloc(ROWS + 1, sizeof *w.offsets);
    w.scales = calloc((size_t)(ROWS * groups), sizeof *w.scales);
    w.dense = calloc((size_t)(ROWS * cols), sizeof *w.dense);
    w.above = calloc(ROWS, sizeof *w.above);
    fill(&w, share);
    if (is_sparse(kind)) {
        /* No byte more than what is kept, so that a sanitizer sees every read beyond it. */
        size_t held =
            (size_t)w.offsets[ROWS] * (kind == SEC_BF16_SPARSE ? 2 : 1) / (kind == SEC_INT4_SPARSE ? 2 : 1);
        void *tight = malloc(held ? held : 1);
        memcpy(tight, w.values, held);
        free(w.values);
        w.values = tight;
    }
    w.m.values = w.values;
    w.m.mask = is_sparse(kind) ? w.mask : NULL;
    w.m.offsets = is_sparse(kind) ? w.offsets : NULL;
    w.m.scales = is_int(kind) ? w.scales : NULL;
    return w;
}

static void drop(weight *w) {
    free(w->values), free(w->mask), free(w->offsets), free(w->scales), free(w->dense), free(w->above);
}

/* What input i really is at a column: as it came, or rounded. */
static double used(const sec_input *in, const weight *w, const float *x, int64_t i, int64_t c) {
    int64_t slot = c / 64 * in->slots + i;
    const int8_t *bytes = in->bytes ? in->bytes + slot * 128 + c % 64 : NULL;
    if (is_int(w->m.kind))
        return (bytes ? bytes[0] + 256.0 * bytes[64] : in->codes[slot * 64 + c % 64]) * in->scales[slot];
    if (!in->bf16 || w->m.kind == SEC_F32) return x[i * w->m.cols + c];
    const uint16_t *parts = in->bf16 + (c / 64 * in->n + i) * 128 + c % 64;
    return (double)bf16(parts[0]) + bf16(parts[64]);
}

static int check(const weight *w, int64_t n, sec_pool *pool) {
    int64_t cols = w->m.cols;
    float *x = malloc((size_t)(n * cols) * sizeof *x), *y = malloc((size_t)n * ROWS * sizeof *y),
          *z = malloc((size_t)n * ROWS * sizeof *z);
    for (int64_t k = 0; k < n * cols; k++) x[k] = ((int)(draw() % 2001) - 1000) / 300.0f * (k % 61 ? 1 : 20);
    void *scratch = malloc(sec_scratch(n, cols, 1u << w->m.kind));
    sec_input in;
    sec_prepare(&in, scratch, 1u << w->m.kind, x, cols, n, cols);
    sec_rows(&w->m, &in, y, ROWS, 0, 2);
    sec_rows(&w->m, &in, y, ROWS, 2, ROWS);
    int bad = 0;
    for (int64_t i = 0; i < n; i++)
        for (int64_t r = 0; r < ROWS; r++) {
            double sum = 0, size = 0;
            for (int64_t c = 0; c < cols; c++) {
                double in_c = used(&in, w, x, i, c), weight_c = w->dense[r * cols + c];
                double off = fabs(in_c - x[i * cols + c]);
                if (is_int(w->m.kind) && off > 0.51 * in.scales[c / 64 * in.slots + i]) bad++;
                if (!is_int(w->m.kind) && off > fabs(x[i * cols + c]) / 65536) bad++;
                sum += in_c * weight_c;
                size += fabs(in_c) * (fabs(weight_c) + w->above[r]);
            }
            if (!(fabs(y[i * ROWS + r] - sum) <= 2e-6 * size + 1e-30)) bad++;
        }
    sec_product(pool, &w->m, scratch, x, cols, n, z, ROWS);
    if (memcmp(y, z, (size_t)n * ROWS * sizeof *y)) bad++;
    if (bad)
        printf("kind %d, %ld columns, group %d, %ld inputs: %d wrong\n", w->m.kind, (long)cols, w->m.group,
               (long)n, bad);
    free(x), free(y), free(z), free(scratch);
    return bad;
}

int main(int argc, char **argv) {
    static const int64_t widths[] = {1, 7, 31, 32, 33, 63, 64, 65, 95, 96, 128, 160, 200, 576, 1100};
    static const double shares[] = {0, 0.5, 0.9, 1};
    int bad = 0, code = sec_select(argc > 1 ? argv[1] : NULL);
    if (code) {
        printf("%s: %d\n", argc > 1 ? argv[1] : "best", code);
        return 77;
    }
    sec_pool *pool = sec_pool_new(2);
    for (int kind = 0; kind < SEC_KINDS; kind++)
        for (size_t k = 0; k < sizeof widths / sizeof *widths; k++)
            for (int group = 0; group <= (is_int(kind) ? 128 : 0); group += 32)
                for (size_t s = 0; s < sizeof shares / sizeof *shares; s++) {
                    weight w = make(kind, widths[k], group, shares[s]);
                    for (int64_t n = 1; n <= 8; n += s == 1 ? 1 : 4) bad += check(&w, n, pool);
                    drop(&w);
                }
    uint8_t bytes[100] = {1, [99] = 2};
    bad += sec_stream(pool, bytes, 100) != 1;
    sec_pool_free(pool);
    printf("%s: %d wrong\n", sec_isa(), bad);
    return bad != 0;
}

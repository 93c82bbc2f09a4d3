/* Included once for each instruction set, with SEC_STEPS naming the table and SEC_BYTES the width of its
 * vectors. */

#include <math.h>
#include <string.h>

#include "steps.h"

#define INLINE static inline __attribute__((always_inline))

enum { LANES = SEC_BYTES / 4 };

typedef float vf __attribute__((vector_size(SEC_BYTES), aligned(4), may_alias));
typedef int32_t vi __attribute__((vector_size(SEC_BYTES), aligned(4), may_alias));
typedef uint16_t vh __attribute__((vector_size(SEC_BYTES / 2), aligned(2), may_alias));

INLINE vf splat(float x) {
    return x - (vf){0};
}

INLINE vf choose(vi mask, vf yes, vf no) {
    return (vf)((mask & (vi)yes) | (~mask & (vi)no));
}

INLINE float sum(vf x) {
    float total = 0;
    for (int i = 0; i < LANES; i++)
        total += x[i];
    return total;
}

INLINE float largest(vf x) {
    float most = x[0];
    for (int i = 1; i < LANES; i++)
        most = x[i] > most ? x[i] : most;
    return most;
}

/* Relative error below 2e-7 between -87 and 88; what is outside counts as the nearer end. */
INLINE vf exponential(vf x) {
    const vf magic = splat(12582912.0f), low = splat(-87.0f), high = splat(88.0f);
    x = choose(x < low, low, x);
    x = choose(x > high, high, x);
    vf shifted = x * 1.44269504f + magic;
    vf whole = shifted - magic;
    vf rest = x - whole * 0.693145752f - whole * 1.42860677e-6f;
    vf p = splat(1.0f / 720);
    p = p * rest + 1.0f / 120;
    p = p * rest + 1.0f / 24;
    p = p * rest + 1.0f / 6;
    p = p * rest + 0.5f;
    p = p * rest + 1.0f;
    p = p * rest + 1.0f;
    return (vf)((vi)p + ((vi)shifted << 23));
}

INLINE vf from_half(const uint16_t *from) {
#if SEC_BYTES == 64
    return (vf)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)from));
#elif SEC_BYTES == 32
    return (vf)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)from));
#elif defined(__ARM_NEON)
    return (vf)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from)));
#else
    vi bits = __builtin_convertvector(*(const vh *)from, vi);
    /* The exponent grows by 112; a product does that for subnormal numbers too. */
    vf size = (vf)((bits & 0x7fff) << 13) * 0x1p112f;
    return (vf)((vi)size | ((bits & 0x8000) << 16));
#endif
}

/* Rounds to nearest, ties to even; what is too large becomes the largest. */
INLINE uint16_t to_half(float x) {
    union { float f; uint32_t u; } bits = {x};
    uint32_t sign = bits.u >> 16 & 0x8000;
    bits.u &= 0x7fffffff;
    if (!(bits.f < 65520.0f))
        return (uint16_t)(sign | 0x7bff);
    if (bits.f < 0x1p-14f) {
        /* Adding 0.5 leaves the last bit of a subnormal number where that of the sum is. */
        bits.f += 0.5f;
        return (uint16_t)(sign | (bits.u - 0x3f000000));
    }
    return (uint16_t)(sign | ((bits.u - 0x38000000 + 0xfff + (bits.u >> 13 & 1)) >> 13));
}

static void norm(const float *x, const float *weight, float eps, int64_t n, float *y) {
    vf squares = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        squares += *(const vf *)(x + i) * *(const vf *)(x + i);
    float total = sum(squares);
    for (; i < n; i++)
        total += x[i] * x[i];
    float scale = 1.0f / sqrtf(total / (float)n + eps);
    for (i = 0; i < n; i++)
        y[i] = x[i] * scale * weight[i];
}

static void add(float *x, const float *y, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        x[i] += y[i];
}

static void gate(float *x, const float *up, int64_t n) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        vf value = *(const vf *)(x + i);
        *(vf *)(x + i) = value / (1.0f + exponential(-value)) * *(const vf *)(up + i);
    }
    for (; i < n; i++)
        x[i] = x[i] / (1.0f + expf(-x[i])) * up[i];
}

static void store(const float *x, int64_t n, int64_t step, void *to, int32_t half) {
    if (half)
        for (int64_t i = 0; i < n; i++)
            ((uint16_t *)to)[i * step] = to_half(x[i]);
    else
        for (int64_t i = 0; i < n; i++)
            ((float *)to)[i * step] = x[i];
}

INLINE vf loaded(const void *from, int64_t at, int32_t half) {
    return half ? from_half((const uint16_t *)from + at) : *(const vf *)((const float *)from + at);
}

/* Scores of 64 positions from `start` on, as far as blocks of 16 before `end` are stored. */
INLINE void scores_of(const float *query, const sec_past *past, int64_t start, int64_t end, int32_t half,
                      float *scores) {
    const int64_t d = past->head_dim;
    for (int64_t group = 0; group < 64; group += 4 * LANES) {
        int64_t at[4];
        vf sums[4] = {{0}, {0}, {0}, {0}};
        for (int i = 0; i < 4; i++) {
            /* What lies behind the last block is computed like the first, and masked by the caller. */
            const int64_t position = start + group + i * LANES, there = position < end ? position : start;
            at[i] = there / 16 * 16 * d + there % 16;
        }
        for (int64_t k = 0; k < d; k++)
            for (int i = 0; i < 4; i++)
                sums[i] += query[k] * loaded(past->keys, at[i] + k * 16, half);
        for (int i = 0; i < 4; i++)
            *(vf *)(scores + group + i * LANES) = sums[i];
    }
}

/* Adds `count` vectors of the values of positions `from` to `to`, each times its weight. */
INLINE void add_columns(const sec_past *past, const float *weights, int64_t from, int64_t to, int64_t column,
                        int count, int32_t half, float *out) {
    vf sums[4];
    for (int i = 0; i < count; i++)
        sums[i] = *(vf *)(out + column + i * LANES);
    for (int64_t t = from; t < to; t++)
        for (int i = 0; i < count; i++)
            sums[i] += weights[t - from] * loaded(past->values, t * past->stride + column + i * LANES, half);
    for (int i = 0; i < count; i++)
        *(vf *)(out + column + i * LANES) = sums[i];
}

INLINE void add_values(const sec_past *past, const float *weights, int64_t from, int64_t to, int32_t half,
                       float *out) {
    int64_t column = 0;
    for (; column + 4 * LANES <= past->stride; column += 4 * LANES)
        add_columns(past, weights, from, to, column, 4, half, out);
    for (; column < past->stride; column += LANES)
        add_columns(past, weights, from, to, column, 1, half, out);
}

/* Turns scores into weights, and returns their sum. */
INLINE float weigh(float *scores, float most) {
    vf added = {0};
    for (int i = 0; i < 64; i += LANES) {
        vf weights = exponential(*(vf *)(scores + i) - most);
        *(vf *)(scores + i) = weights;
        added += weights;
    }
    return sum(added);
}

INLINE float scaled(float *scores, float scale) {
    vf high = splat(-INFINITY);
    for (int i = 0; i < 64; i += LANES) {
        vf here = *(vf *)(scores + i) * scale;
        *(vf *)(scores + i) = here;
        high = choose(here > high, here, high);
    }
    return largest(high);
}

/* Softmax in one pass (arXiv:1805.02867): what was added up shrinks whenever a larger score comes. */
INLINE void attend_to(const float *query, float scale, const sec_past *past, int32_t half, float *out) {
    float total = 0, most = -INFINITY, summed[SEC_HEAD_DIM_MAX], scores[64];
    memset(summed, 0, sizeof(float) * (size_t)past->stride);
    for (int64_t start = past->first / 64 * 64; start < past->end; start += 64) {
        const int64_t from = start > past->first ? start : past->first,
                      to = start + 64 < past->end ? start + 64 : past->end;
        scores_of(query, past, start, past->end, half, scores);
        for (int64_t t = 0; t < 64; t++)
            if (t < from - start || t >= to - start)
                scores[t] = -INFINITY;
        const float before = most, now = scaled(scores, scale);
        most = now > before ? now : before;
        const float shrink = expf(before - most);
        total = total * shrink + weigh(scores, most);
        for (int64_t i = 0; shrink != 1.0f && i < past->stride; i++)
            summed[i] *= shrink;
        add_values(past, scores + (from - start), from, to, half, summed);
    }
    for (int32_t i = 0; i < past->head_dim; i++)
        out[i] = summed[i] / total;
}

static void attend(const float *query, float scale, const sec_past *past, float *out) {
    if (past->half)
        attend_to(query, scale, past, 1, out);
    else
        attend_to(query, scale, past, 0, out);
}

const sec_steps SEC_STEPS = {norm, gate, add, attend, store};

/* NEON with products of bytes (sdot): expansion by a table of shuffles. Codes are multiplied as numbers from
 * -128 to 127, holes being zero. */
#include <arm_neon.h>
#include <sys/auxv.h>

#include "shuffled.h"

#ifndef HWCAP_ASIMDDP
#define HWCAP_ASIMDDP (1 << 20)
#endif

enum { AHEAD = 1024 };

static int usable(void) { return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0; }

/* Where each byte of a mask finds its values: byte k holds how many bits the bytes before it have. */
INLINE uint64_t counts_before(uint64_t mask, int *all) {
    uint64_t counts = vget_lane_u64(vreinterpret_u64_u8(vcnt_u8(vcreate_u8(mask))), 0) *
                      0x0101010101010101ull;
    *all = (int)(counts >> 56);
    return counts << 8;
}

INLINE void row_f32(const sec_matrix *w, const sec_input *x, int64_t r, int n, float *y, int unused) {
    (void)unused;
    const float *values = (const float *)w->values + r * w->cols;
    float32x4_t sums[SEC_BATCH];
    for (int i = 0; i < n; i++) sums[i] = vdupq_n_f32(0);
    for (int64_t c = 0; c < x->chunks; c++, values += SEC_CHUNK) {
        float last[SEC_CHUNK];
        const float *from = f32_at(values, w->cols - c * SEC_CHUNK, last);
        for (int k = 0; k < 16; k++) {
            float32x4_t weights = vld1q_f32(from + 4 * k);
            for (int i = 0; i < n; i++)
                sums[i] = vfmaq_f32(sums[i], weights,
                                    vld1q_f32(x->plain + (c * x->n + INPUT(i)) * SEC_CHUNK + 4 * k));
        }
    }
    for (int i = 0; i < n; i++) y[i] = vaddvq_f32(sums[i]);
}

INLINE uint32x4_t spread_8_bf16(uint8_t mask, const uint16_t *values) {
    return vreinterpretq_u32_u8(
        vqtbl1q_u8(vreinterpretq_u8_u16(vld1q_u16(values)), vld1q_u8(sec_spread16[mask])));
}

INLINE void row_bf16(const sec_matrix *w, const sec_input *x, int64_t r, int n, float *y, int sparse) {
    const uint16_t *values = (const uint16_t *)w->values + (sparse ? w->offsets[r] : r * w->cols);
    const uint16_t *end = sparse ? (const uint16_t *)w->values + w->offsets[w->rows] : NULL;
    const uint32x4_t high = vdupq_n_u32(0xffff0000u);
    float32x4_t sums[2 * SEC_BATCH];
    for (int i = 0; i < 2 * n; i++) sums[i] = vdupq_n_f32(0);
    for (int64_t c = 0; c < x->chunks; c++) {
        uint64_t mask = sparse ? sec_mask(w, r, c) : 0;
        uint16_t last[SEC_CHUNK + 8];
        int64_t left = sparse ? end - values : w->cols - c * SEC_CHUNK;
        const uint16_t *from = bf16_at(values, left, sparse, last);
        int all = SEC_CHUNK;
        uint64_t before = sparse ? counts_before(mask, &all) : 0;
        values += all;
        __builtin_prefetch((const char *)values + AHEAD);
        for (int k = 0; k < 8; k++, mask >>= 8, before >>= 8) {
            uint32x4_t weights = sparse ? spread_8_bf16((uint8_t)mask, from + (before & 255))
                                        : vreinterpretq_u32_u16(vld1q_u16(from + 8 * k));
            float32x4_t even = vreinterpretq_f32_u32(vshlq_n_u32(weights, 16)),
                        odd = vreinterpretq_f32_u32(vandq_u32(weights, high));
            for (int i = 0; i < n; i++) {
                const float *in = x->split + (c * x->n + INPUT(i)) * SEC_CHUNK + 4 * k;
                sums[2 * i] = vfmaq_f32(sums[2 * i], even, vld1q_f32(in));
                sums[2 * i + 1] = vfmaq_f32(sums[2 * i + 1], odd, vld1q_f32(in + 32));
            }
        }
    }
    for (int i = 0; i < n; i++) y[i] = vaddvq_f32(vaddq_f32(sums[2 * i], sums[2 * i + 1]));
}

INLINE int8x16_t spread_16_codes(uint16_t mask, const uint8_t *values, uint64_t before) {
    const uint8x8_t sign = vdup_n_u8(0x80);
    uint8x8_t low = vtbl1_u8(veor_u8(vld1_u8(values + (before & 255)), sign),
                             vld1_u8(sec_spread8[mask & 255]));
    uint8x8_t high = vtbl1_u8(veor_u8(vld1_u8(values + (before >> 8 & 255)), sign),
                              vld1_u8(sec_spread8[mask >> 8]));
    return vreinterpretq_s8_u8(vcombine_u8(low, high));
}

/* The codes of chunk c, 16 columns each. place: values (nibbles: codes) of the row used so far. */
INLINE void next_codes(const sec_matrix *w, int64_t r, int64_t c, int form, int64_t *place,
                       int8x16_t codes[4]) {
    const uint8_t *values = w->values;
    uint8_t last[SEC_CHUNK + 8];
    if (form == NIBBLES) {
        const uint8_t *from = values + (r * sec_chunks(w->cols) + c) * 32;
        for (int k = 0; k < 2; k++) {
            uint8x16_t both = vld1q_u8(from + 16 * k);
            codes[k] = vsubq_s8(vreinterpretq_s8_u8(vandq_u8(both, vdupq_n_u8(15))), vdupq_n_s8(8));
            codes[2 + k] = vsubq_s8(vreinterpretq_s8_u8(vshrq_n_u8(both, 4)), vdupq_n_s8(8));
        }
        return;
    }
    if (form == NIBBLES_SPARSE) {
        chunk_codes(w, r, c, place, (int8_t *)last);
        for (int k = 0; k < 4; k++) codes[k] = vld1q_s8((int8_t *)last + 16 * k);
        return;
    }
    const uint8_t *from = bytes_at(w, r, c, form, *place, last);
    __builtin_prefetch(from + AHEAD);
    if (form == BYTES) {
        for (int k = 0; k < 4; k++)
            codes[k] = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(from + 16 * k), vdupq_n_u8(0x80)));
        *place += SEC_CHUNK;
    } else {
        int all;
        uint64_t mask = sec_mask(w, r, c), before = counts_before(mask, &all);
        for (int k = 0; k < 4; k++)
            codes[k] = spread_16_codes((uint16_t)(mask >> 16 * k), from, before >> 16 * k);
        *place += all;
    }
}

/* Four sums of eight products. */
INLINE int32x4_t dot_codes(const int8x16_t *codes, const int8_t *in) {
    return vdotq_s32(vdotq_s32(vdupq_n_s32(0), codes[0], vld1q_s8(in)), codes[1], vld1q_s8(in + 16));
}

INLINE void row_codes(const sec_matrix *w, const sec_input *x, int64_t r, int n, float *y, int form) {
    int64_t place = 0, groups = sec_groups(w);
    const uint16_t *scales = w->scales + r * groups;
    float32x4_t sums[SEC_BATCH];
    for (int i = 0; i < n; i++) sums[i] = vdupq_n_f32(0);
    for (int64_t c = 0; c < x->chunks; c++) {
        int8x16_t codes[4];
        next_codes(w, r, c, form, &place, codes);
        for (int half = 0; half < 2; half++) {
            int64_t group = w->group == 0 ? 0 : (c * SEC_CHUNK + 32 * half) / w->group;
            /* Columns beyond the last have no scale, and inputs of zero. */
            float scale = w->group == 0 ? 1.0f : group < groups ? sec_from_f16(scales[group]) : 0.0f;
            for (int i = 0; i < n; i++) {
                int64_t k = c * x->slots + i;
                const int8_t *in = x->bytes + k * 2 * SEC_CHUNK + 32 * half;
                int32x4_t dots = vshlq_n_s32(dot_codes(codes + 2 * half, in + SEC_CHUNK), 8);
                dots = vaddq_s32(dots, dot_codes(codes + 2 * half, in));
                sums[i] = vfmaq_n_f32(sums[i], vcvtq_f32_s32(dots), scale * x->scales[k]);
            }
        }
    }
    float factor = w->group == 0 ? sec_from_f16(scales[0]) : 1.0f;
    for (int i = 0; i < n; i++) y[i] = factor * vaddvq_f32(sums[i]);
}

SHUFFLED_OPS(sec_neon, "neon", usable, 1)

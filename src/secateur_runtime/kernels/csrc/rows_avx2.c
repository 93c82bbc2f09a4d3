/* AVX2 with FMA: expansion by a table of shuffles. Codes are multiplied as numbers from -128 to 127, holes
 * being zero. */
#include <immintrin.h>

#include "shuffled.h"

enum { AHEAD = 2048 };

static int usable(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("f16c") && __builtin_cpu_supports("popcnt");
}

INLINE float sum_floats(__m256 v) {
    __m128 sum = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
    return _mm_cvtss_f32(_mm_add_ss(sum, _mm_shuffle_ps(sum, sum, 1)));
}

INLINE void row_f32(const sec_matrix *w, const sec_input *x, int64_t r, int n, float *y, int unused) {
    (void)unused;
    const float *values = (const float *)w->values + r * w->cols;
    __m256 sums[SEC_BATCH];
    for (int i = 0; i < n; i++) sums[i] = _mm256_setzero_ps();
    for (int64_t c = 0; c < x->chunks; c++, values += SEC_CHUNK) {
        float last[SEC_CHUNK];
        const float *from = f32_at(values, w->cols - c * SEC_CHUNK, last);
        for (int k = 0; k < 8; k++) {
            __m256 weights = _mm256_loadu_ps(from + 8 * k);
            for (int i = 0; i < n; i++)
                sums[i] = _mm256_fmadd_ps(
                    weights, _mm256_loadu_ps(x->plain + (c * x->n + INPUT(i)) * SEC_CHUNK + 8 * k), sums[i]);
        }
    }
    for (int i = 0; i < n; i++) y[i] = sum_floats(sums[i]);
}

INLINE __m128i spread_8_bf16(uint8_t mask, const uint16_t **values) {
    __m128i kept = _mm_loadu_si128((const __m128i *)*values);
    *values += _mm_popcnt_u32(mask);
    return _mm_shuffle_epi8(kept, _mm_loadu_si128((const __m128i *)sec_spread16[mask]));
}

INLINE __m256i spread_16_bf16(uint16_t mask, const uint16_t **values) {
    __m128i low = spread_8_bf16((uint8_t)mask, values);
    return _mm256_inserti128_si256(_mm256_castsi128_si256(low), spread_8_bf16((uint8_t)(mask >> 8), values),
                                   1);
}

INLINE void row_bf16(const sec_matrix *w, const sec_input *x, int64_t r, int n, float *y, int sparse) {
    const uint16_t *values = (const uint16_t *)w->values + (sparse ? w->offsets[r] : r * w->cols);
    const uint16_t *end = sparse ? (const uint16_t *)w->values + w->offsets[w->rows] : NULL;
    const __m256i high = _mm256_set1_epi32((int)0xffff0000u);
    __m256 sums[2 * SEC_BATCH];
    for (int i = 0; i < 2 * n; i++) sums[i] = _mm256_setzero_ps();
    for (int64_t c = 0; c < x->chunks; c++) {
        uint64_t mask = sparse ? sec_mask(w, r, c) : 0;
        uint16_t last[SEC_CHUNK + 8];
        int64_t left = sparse ? end - values : w->cols - c * SEC_CHUNK;
        const uint16_t *from = bf16_at(values, left, sparse, last);
        values += sparse ? _mm_popcnt_u64(mask) : SEC_CHUNK;
        _mm_prefetch((const char *)values + AHEAD, _MM_HINT_T0);
        for (int k = 0; k < 4; k++, mask >>= 16) {
            __m256i weights = sparse ? spread_16_bf16((uint16_t)mask, &from)
                                     : _mm256_loadu_si256((const __m256i *)(from + 16 * k));
            __m256 even = _mm256_castsi256_ps(_mm256_slli_epi32(weights, 16)),
                   odd = _mm256_castsi256_ps(_mm256_and_si256(weights, high));
            for (int i = 0; i < n; i++) {
                const float *in = x->split + (c * x->n + INPUT(i)) * SEC_CHUNK + 8 * k;
                sums[2 * i] = _mm256_fmadd_ps(even, _mm256_loadu_ps(in), sums[2 * i]);
                sums[2 * i + 1] = _mm256_fmadd_ps(odd, _mm256_loadu_ps(in + 32), sums[2 * i + 1]);
            }
        }
    }
    for (int i = 0; i < n; i++) y[i] = sum_floats(_mm256_add_ps(sums[2 * i], sums[2 * i + 1]));
}

INLINE __m128i spread_16_codes(uint16_t mask, const uint8_t **values) {
    const __m128i sign = _mm_set1_epi8((char)0x80);
    __m128i low = _mm_loadl_epi64((const __m128i *)*values);
    low = _mm_shuffle_epi8(_mm_xor_si128(low, sign),
                           _mm_loadl_epi64((const __m128i *)sec_spread8[mask & 255]));
    *values += _mm_popcnt_u32(mask & 255);
    __m128i high = _mm_loadl_epi64((const __m128i *)*values);
    high = _mm_shuffle_epi8(_mm_xor_si128(high, sign),
                            _mm_loadl_epi64((const __m128i *)sec_spread8[mask >> 8]));
    *values += _mm_popcnt_u32(mask >> 8);
    return _mm_unpacklo_epi64(low, high);
}

INLINE __m256i spread_32_codes(uint32_t mask, const uint8_t **values) {
    __m128i low = spread_16_codes((uint16_t)mask, values);
    return _mm256_inserti128_si256(_mm256_castsi128_si256(low),
                                   spread_16_codes((uint16_t)(mask >> 16), values), 1);
}

/* The codes of chunk c, columns 0 to 31 and 32 to 63. place: values (nibbles: codes) of the row used so far.
 */
INLINE void next_codes(const sec_matrix *w, int64_t r, int64_t c, int form, int64_t *place,
                       __m256i codes[2]) {
    const uint8_t *values = w->values;
    uint8_t last[SEC_CHUNK + 8];
    const __m256i low_half = _mm256_set1_epi8(15), eight = _mm256_set1_epi8(8),
                  sign = _mm256_set1_epi8((char)0x80);
    if (form == NIBBLES) {
        __m256i both = _mm256_loadu_si256((const __m256i *)(values + (r * sec_chunks(w->cols) + c) * 32));
        codes[0] = _mm256_sub_epi8(_mm256_and_si256(both, low_half), eight);
        codes[1] = _mm256_sub_epi8(_mm256_and_si256(_mm256_srli_epi16(both, 4), low_half), eight);
        return;
    }
    if (form == NIBBLES_SPARSE) {
        chunk_codes(w, r, c, place, (int8_t *)last);
        codes[0] = _mm256_loadu_si256((const __m256i *)last);
        codes[1] = _mm256_loadu_si256((const __m256i *)(last + 32));
        return;
    }
    const uint8_t *from = bytes_at(w, r, c, form, *place, last);
    _mm_prefetch((const char *)from + AHEAD, _MM_HINT_T0);
    if (form == BYTES) {
        codes[0] = _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)from), sign);
        codes[1] = _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)(from + 32)), sign);
        *place += SEC_CHUNK;
    } else {
        uint64_t mask = sec_mask(w, r, c);
        codes[0] = spread_32_codes((uint32_t)mask, &from);
        codes[1] = spread_32_codes((uint32_t)(mask >> 32), &from);
        *place += _mm_popcnt_u64(mask);
    }
}

/* Eight sums of four products. */
INLINE __m256 dot_codes(__m256i codes, const int16_t *in) {
    __m256i low = _mm256_cvtepi8_epi16(_mm256_castsi256_si128(codes)),
            high = _mm256_cvtepi8_epi16(_mm256_extracti128_si256(codes, 1));
    low = _mm256_madd_epi16(low, _mm256_loadu_si256((const __m256i *)in));
    high = _mm256_madd_epi16(high, _mm256_loadu_si256((const __m256i *)(in + 16)));
    return _mm256_cvtepi32_ps(_mm256_add_epi32(low, high));
}

INLINE void row_codes(const sec_matrix *w, const sec_input *x, int64_t r, int n, float *y, int form) {
    int64_t place = 0, groups = sec_groups(w);
    const uint16_t *scales = w->scales + r * groups;
    __m256 sums[SEC_BATCH];
    for (int i = 0; i < n; i++) sums[i] = _mm256_setzero_ps();
    for (int64_t c = 0; c < x->chunks; c++) {
        __m256i codes[2];
        next_codes(w, r, c, form, &place, codes);
        for (int half = 0; half < 2; half++) {
            int64_t group = w->group == 0 ? 0 : (c * SEC_CHUNK + 32 * half) / w->group;
            /* Columns beyond the last have no scale, and inputs of zero. */
            float scale = w->group == 0 ? 1.0f : group < groups ? _cvtsh_ss(scales[group]) : 0.0f;
            for (int i = 0; i < n; i++) {
                int64_t k = c * x->slots + i;
                __m256 dots = dot_codes(codes[half], x->codes + k * SEC_CHUNK + 32 * half);
                sums[i] = _mm256_fmadd_ps(dots, _mm256_set1_ps(scale * x->scales[k]), sums[i]);
            }
        }
    }
    float factor = w->group == 0 ? _cvtsh_ss(scales[0]) : 1.0f;
    for (int i = 0; i < n; i++) y[i] = factor * sum_floats(sums[i]);
}

SHUFFLED_OPS(sec_avx2, "avx2", usable, 0)

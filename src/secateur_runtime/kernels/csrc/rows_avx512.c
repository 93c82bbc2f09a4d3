/* AVX-512 with VBMI2 (expansion by mask) and VNNI (products of bytes). Loads by mask never touch memory
 * beyond what the mask keeps. */
#include <immintrin.h>

#include "batch.h"
#include "prepare.h"

enum { DENSE, SPARSE };
/* How far ahead memory is asked for: without it a core waits at every new page. */
enum { AHEAD = 2048 };

int sec_avx512_usable(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vbmi2") && __builtin_cpu_supports("avx512vnni") &&
           __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt") &&
           __builtin_cpu_supports("fma");
}

INLINE uint64_t first_bits(int64_t count) { return count >= 64 ? ~0ull : (1ull << count) - 1; }

INLINE void row_f32(const sec_matrix *w, const sec_input *x, int64_t r, int n, float *y, int unused) {
    (void)unused;
    const float *values = (const float *)w->values + r * w->cols;
    __m512 sums[SEC_BATCH];
    for (int i = 0; i < n; i++) sums[i] = _mm512_setzero_ps();
    for (int64_t c = 0; c < x->chunks; c++, values += SEC_CHUNK) {
        uint64_t have = first_bits(w->cols - c * SEC_CHUNK);
        for (int k = 0; k < 4; k++) {
            __m512 weights = _mm512_maskz_loadu_ps((__mmask16)(have >> 16 * k), values + 16 * k);
            for (int i = 0; i < n; i++)
                sums[i] = _mm512_fmadd_ps(
                    weights, _mm512_load_ps(x->plain + (c * x->n + INPUT(i)) * SEC_CHUNK + 16 * k), sums[i]);
        }
    }
    for (int i = 0; i < n; i++) y[i] = _mm512_reduce_add_ps(sums[i]);
}

/* sums[2i], sums[2i + 1] += 32 bf16 weights times input i; half: which 32 columns of the chunk. */
INLINE void add_bf16(__m512i weights, const sec_input *x, int64_t c, int half, int n, __m512 *sums) {
    __m512 even = _mm512_castsi512_ps(_mm512_slli_epi32(weights, 16));
    __m512 odd = _mm512_castsi512_ps(_mm512_and_si512(weights, _mm512_set1_epi32((int)0xffff0000u)));
    for (int i = 0; i < n; i++) {
        const float *in = x->split + (c * x->n + INPUT(i)) * SEC_CHUNK + 16 * half;
        sums[2 * i] = _mm512_fmadd_ps(even, _mm512_load_ps(in), sums[2 * i]);
        sums[2 * i + 1] = _mm512_fmadd_ps(odd, _mm512_load_ps(in + 32), sums[2 * i + 1]);
    }
}

/* The next 32 of bf16 weights, of which so many are left. */
INLINE __m512i dense_32(const uint16_t *values, int64_t left) {
    return left < 32 ? _mm512_maskz_loadu_epi16((__mmask32)first_bits(left < 0 ? 0 : left), values)
                     : _mm512_loadu_si512(values);
}

INLINE void row_bf16(const sec_matrix *w, const sec_input *x, int64_t r, int n, float *y, int sparse) {
    const uint16_t *values = (const uint16_t *)w->values + (sparse ? w->offsets[r] : r * w->cols);
    const uint8_t *mask = sparse ? w->mask + r * x->chunks * 8 : NULL;
    /* One input has too few sums to hide how long an addition takes, so its halves get their own. */
    __m512 sums[2 * SEC_BATCH], more[2];
    for (int i = 0; i < 2 * n; i++) sums[i] = _mm512_setzero_ps();
    more[0] = more[1] = _mm512_setzero_ps();
    for (int64_t c = 0; c < x->chunks; c++) {
        uint64_t have;
        __m512i low, high;
        _mm_prefetch((const char *)values + AHEAD, _MM_HINT_T0);
        if (sparse) {
            memcpy(&have, mask + 8 * c, 8);
            low = _mm512_maskz_expandloadu_epi16((__mmask32)have, values);
            high = _mm512_maskz_expandloadu_epi16((__mmask32)(have >> 32),
                                                  values + _mm_popcnt_u32((uint32_t)have));
            values += _mm_popcnt_u64(have);
        } else {
            _mm_prefetch((const char *)values + AHEAD + 64, _MM_HINT_T0);
            low = dense_32(values, w->cols - c * SEC_CHUNK);
            high = dense_32(values + 32, w->cols - c * SEC_CHUNK - 32);
            values += SEC_CHUNK;
        }
        add_bf16(low, x, c, 0, n, sums);
        add_bf16(high, x, c, 1, n, n == 1 ? more : sums);
    }
    if (n == 1) sums[0] = _mm512_add_ps(sums[0], more[0]), sums[1] = _mm512_add_ps(sums[1], more[1]);
    for (int i = 0; i < n; i++) y[i] = _mm512_reduce_add_ps(_mm512_add_ps(sums[2 * i], sums[2 * i + 1]));
}

/* Where the codes of a row come from, and what they share a scale with: a row, chunks of 64 columns, or
 * halves of these. */
enum { BYTES, BYTES_SPARSE, NIBBLES, NIBBLES_SPARSE };
enum { BY_ROW, BY_CHUNK, BY_HALF };

typedef struct {
    const uint8_t *values, *mask;
    int64_t place; /* of the next nibble */
} cursor;

INLINE cursor begin(const sec_matrix *w, int64_t r, int form) {
    const uint8_t *values = w->values;
    int64_t chunks = sec_chunks(w->cols);
    if (form == BYTES) return (cursor){values + r * w->cols, NULL, 0};
    if (form == NIBBLES) return (cursor){values + r * chunks * 32, NULL, 0};
    if (form == BYTES_SPARSE) return (cursor){values + w->offsets[r], w->mask + r * chunks * 8, 0};
    return (cursor){values, w->mask + r * chunks * 8, w->offsets[r]};
}

/* The next `count` nibbles, each in the high half of a byte. */
INLINE __m512i nibbles_at(const uint8_t *values, int64_t place, int count) {
    int odd = (int)(place & 1);
    const uint8_t *from = values + (place >> 1);
    __m256i bytes = _mm256_maskz_loadu_epi8((__mmask32)first_bits((count + odd + 1) / 2), from);
    __m512i wide = _mm512_cvtepu8_epi16(bytes);
    __m512i even = _mm512_or_si512(_mm512_slli_epi16(wide, 4), _mm512_slli_epi16(wide, 8));
    if (!odd) return _mm512_and_si512(even, _mm512_set1_epi8((char)0xf0));
    /* Nibble 1 of each byte, then nibble 0 of the next. */
    __m256i next = _mm256_maskz_loadu_epi8((__mmask32)first_bits(count / 2), from + 1);
    __m512i shifted = _mm512_or_si512(wide, _mm512_slli_epi16(_mm512_cvtepu8_epi16(next), 12));
    return _mm512_and_si512(shifted, _mm512_set1_epi8((char)0xf0));
}

/* 64 codes standing 128 above zero; those of four bits are sixteen times as large. */
INLINE __m512i next_codes(cursor *at, int form, int64_t left) {
    const __m512i zero = _mm512_set1_epi8((char)0x80);
    uint64_t have;
    __m512i codes;
    if (form == BYTES) {
        codes = left < SEC_CHUNK ? _mm512_maskz_loadu_epi8(first_bits(left), at->values)
                                 : _mm512_loadu_si512(at->values);
        at->values += SEC_CHUNK;
    } else if (form == NIBBLES) {
        __m512i both = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)at->values));
        const __m512i shifts = _mm512_inserti64x4(_mm512_set1_epi16(4), _mm256_setzero_si256(), 1);
        codes = _mm512_and_si512(_mm512_sllv_epi16(both, shifts), _mm512_set1_epi8((char)0xf0));
        at->values += 32;
    } else {
        memcpy(&have, at->mask, 8);
        at->mask += 8;
        int count = (int)_mm_popcnt_u64(have);
        if (form == BYTES_SPARSE) {
            codes = _mm512_mask_expandloadu_epi8(zero, have, at->values);
            at->values += count;
        } else {
            codes = _mm512_mask_expand_epi8(zero, have, nibbles_at(at->values, at->place, count));
            at->place += count;
        }
    }
    return codes;
}

/* A row is worked through in steps of eight pairs of chunk and input: eight chunks of one input, four of two,
 * and so on. What scales the products of a pair is two numbers, one for each half of the chunk. */
#define PAIRS 8

/* The scales of the halves of the chunks that one step works through, each as often as there are inputs. */
INLINE __m512 weight_scales(const sec_matrix *w, int64_t r, int64_t c, int n, int by) {
    const __m512i places = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    int64_t groups = sec_groups(w), span = by == BY_CHUNK ? 64 : 32,
            count = (by == BY_CHUNK ? 1 : 2) * PAIRS / n;
    const uint16_t *scales = w->scales + r * groups;
    _Alignas(64) float found[16] = {0};
    __m512 all;
    if (w->group == span) {
        int64_t first = c * SEC_CHUNK / span, left = groups - first;
        all = _mm512_cvtph_ps(
            _mm256_maskz_loadu_epi16((__mmask16)first_bits(left < count ? left : count), scales + first));
    } else {
        for (int64_t k = 0; k < count; k++) {
            int64_t group = (c * SEC_CHUNK + k * span) / w->group;
            found[k] = group < groups ? _cvtsh_ss(scales[group]) : 0.0f;
        }
        all = _mm512_load_ps(found);
    }
    __m512i chunk = _mm512_srli_epi32(places, n == 1   ? 1
                                              : n == 2 ? 2
                                              : n == 4 ? 3
                                                       : 4),
            half = _mm512_and_si512(places, _mm512_set1_epi32(1));
    return _mm512_permutexvar_ps(by == BY_CHUNK ? chunk : _mm512_or_si512(_mm512_slli_epi32(chunk, 1), half),
                                 all);
}

/* What products are scaled by, two numbers for each pair from chunk c on. */
INLINE __m512 factors_at(const sec_matrix *w, const sec_input *x, int64_t r, int64_t c, int64_t pairs, int n,
                         int by) {
    const __m512i twice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    __m256 inputs = pairs < PAIRS ? _mm256_maskz_loadu_ps((__mmask8)first_bits(pairs), x->scales + c * n)
                                  : _mm256_loadu_ps(x->scales + c * n);
    __m512 factors = _mm512_permutexvar_ps(twice, _mm512_castps256_ps512(inputs));
    return by == BY_ROW ? factors : _mm512_mul_ps(factors, weight_scales(w, r, c, n, by));
}

/* Sums of four products each of codes that stand 128 above zero; two bytes make an input. */
INLINE __m512 dot_codes(__m512i codes, const int8_t *in) {
    __m512i high = _mm512_dpbusd_epi32(_mm512_setzero_si512(), codes, _mm512_load_si512(in + SEC_CHUNK));
    return _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(_mm512_slli_epi32(high, 8), codes, _mm512_load_si512(in)));
}

/* The factors of one pair: its own where halves of chunks have scales. */
INLINE __m512 factor_of(const float *factors, int64_t pair, int by) {
    if (by != BY_HALF) return _mm512_set1_ps(factors[2 * pair]);
    return _mm512_mask_broadcastss_ps(_mm512_set1_ps(factors[2 * pair]), 0xff00,
                                      _mm_load_ss(factors + 2 * pair + 1));
}

INLINE void row_codes(const sec_matrix *w, const sec_input *x, int64_t r, int n, float *y, int form, int by) {
    cursor at = begin(w, r, form);
    _Alignas(64) float factors[2 * PAIRS];
    /* One input has too few sums to hide how long an addition takes, so it gets two. */
    __m512 sums[SEC_BATCH + 1], above = _mm512_setzero_ps();
    for (int i = 0; i <= n; i++) sums[i] = _mm512_setzero_ps();
    for (int64_t c = 0; c < x->chunks; c += PAIRS / n) {
        int64_t pairs = (x->chunks - c) * n < PAIRS ? (x->chunks - c) * n : PAIRS;
        __m512 all = factors_at(w, x, r, c, pairs, n, by);
        _mm512_store_ps(factors, all);
        above = _mm512_fmadd_ps(
            all, _mm512_maskz_loadu_ps((__mmask16)first_bits(2 * pairs), x->above + 2 * c * n), above);
#pragma GCC unroll 2
        for (int64_t pair = 0; pair < pairs; pair += n) {
            _mm_prefetch((const char *)at.values + AHEAD, _MM_HINT_T0);
            __m512i codes = next_codes(&at, form, w->cols - (c + pair / n) * SEC_CHUNK);
            const int8_t *in = x->bytes + (c * n + pair) * 2 * SEC_CHUNK;
            for (int i = 0; i < n; i++) {
                __m512 sum = _mm512_fmadd_ps(dot_codes(codes, in + i * 2 * SEC_CHUNK),
                                             factor_of(factors, pair + i, by), sums[n == 1 ? 1 : i]);
                if (n == 1) sums[1] = sums[0];
                sums[n == 1 ? 0 : i] = sum;
            }
        }
    }
    if (n == 1) sums[0] = _mm512_add_ps(sums[0], sums[1]);
    float factor = (by == BY_ROW ? _cvtsh_ss(w->scales[r]) : 1.0f) *
                   (form == NIBBLES || form == NIBBLES_SPARSE ? 0.0625f : 1.0f);
    _mm512_store_ps(factors, above);
    for (int i = 0; i < n; i++) {
        float off = 0;
        for (int pair = i; pair < PAIRS; pair += n) off += factors[2 * pair] + factors[2 * pair + 1];
        y[i] = factor * (_mm512_reduce_add_ps(sums[i]) + off);
    }
}

ROWS(rows_f32, row_f32, 0)
ROWS(rows_bf16, row_bf16, DENSE)
ROWS(rows_bf16_sparse, row_bf16, SPARSE)

/* Defines rows_FORM, which tells by the group of a weight which scales it has; `chunk` is what it does for
 * multiples of 64. */
#define ROWS_CODES(form, chunk)                                                                              \
    ROWS(form##_by_row, row_codes, form, BY_ROW)                                                             \
    ROWS(form##_by_half, row_codes, form, BY_HALF)                                                           \
    static void rows_##form(const sec_matrix *w, const sec_input *x, float *y, int64_t stride, int64_t row0, \
                            int64_t row1) {                                                                  \
        (w->group == 0   ? form##_by_row                                                                     \
         : w->group % 64 ? form##_by_half                                                                    \
                         : chunk)(w, x, y, stride, row0, row1);                                              \
    }
ROWS(BYTES_by_chunk, row_codes, BYTES, BY_CHUNK)
ROWS(BYTES_SPARSE_by_chunk, row_codes, BYTES_SPARSE, BY_CHUNK)
ROWS_CODES(BYTES, BYTES_by_chunk)
ROWS_CODES(BYTES_SPARSE, BYTES_SPARSE_by_chunk)
ROWS_CODES(NIBBLES, NIBBLES_by_half)
ROWS_CODES(NIBBLES_SPARSE, NIBBLES_SPARSE_by_half)

const sec_ops sec_avx512 = {
    "avx512",
    sec_avx512_usable,
    0,
    1,
    1,
    prepare,
    {rows_f32, rows_bf16, rows_BYTES, rows_NIBBLES, rows_bf16_sparse, rows_BYTES_SPARSE, rows_NIBBLES_SPARSE},
};

sec_rows_fn sec_avx512_rows(int kind) { return sec_avx512.rows[kind]; }

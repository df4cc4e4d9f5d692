/* Vectors of floats in plain C (GCC and Clang). Everything is computed in float; bfloat16 exists
   in memory only. */
#ifndef VECTOR_H
#define VECTOR_H
#ifdef __AVX512F__
#include <immintrin.h>
#endif
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef __AVX512F__
#define W 16 /* floats in a vector */
#else
#define W 8
#endif

typedef float vec __attribute__((vector_size(4 * W), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(4 * W), aligned(4), may_alias));
typedef uint32_t uvec __attribute__((vector_size(4 * W), aligned(4), may_alias));
typedef uint16_t hvec __attribute__((vector_size(2 * W), aligned(2), may_alias));
typedef uint16_t bf16;

#define INLINE static inline __attribute__((always_inline))

INLINE vec all(float x) { return x - (vec){0}; }
INLINE vec choose(ivec yes, vec a, vec b) { return (vec)((yes & (ivec)a) | (~yes & (ivec)b)); }
INLINE vec larger(vec a, vec b) { return choose(a > b, a, b); }

INLINE vec fused(vec a, vec b, vec c) { /* a b + c, rounded once */
#ifdef __AVX512F__
    return (vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#endif
    for (int i = 0; i < W; i++) c[i] = fmaf(a[i], b[i], c[i]);
    return c;
}
INLINE float sum(vec x) {
    float s = 0;
    for (int i = 0; i < W; i++) s += x[i];
    return s;
}
INLINE float total(vec x) { /* as sum, by halves */
#ifdef __AVX512F__
    return _mm512_reduce_add_ps((__m512)x);
#endif
    return sum(x);
}
INLINE void totals(float *to, vec a, vec b, vec c, vec d) { /* four, in a third of the time */
#ifdef __AVX512F__
    __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps((__m512)a, (__m512)b), _mm512_unpackhi_ps((__m512)a, (__m512)b));
    __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps((__m512)c, (__m512)d), _mm512_unpackhi_ps((__m512)c, (__m512)d));
    __m512d low = _mm512_unpacklo_pd((__m512d)ab, (__m512d)cd), high = _mm512_unpackhi_pd((__m512d)ab, (__m512d)cd);
    __m512 all = _mm512_add_ps((__m512)low, (__m512)high); /* each quarter: a, b, c, d */
    __m256 half = _mm256_add_ps(_mm512_castps512_ps256(all),
                                _mm256_castpd_ps(_mm512_extractf64x4_pd((__m512d)all, 1)));
    _mm_storeu_ps(to, _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
#else
    to[0] = sum(a), to[1] = sum(b), to[2] = sum(c), to[3] = sum(d);
#endif
}
INLINE float largest(vec x) {
#ifdef __AVX512F__
    return _mm512_reduce_max_ps((__m512)x);
#endif
    float m = x[0];
    for (int i = 1; i < W; i++) m = x[i] > m ? x[i] : m;
    return m;
}

INLINE float widen(bf16 x) {
    uint32_t bits = (uint32_t)x << 16;
    float y;
    memcpy(&y, &bits, 4);
    return y;
}
INLINE bf16 narrow(float x) { /* to the nearest, ties to even */
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return x != x ? 0x7fc0 : (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}
INLINE vec load(const void *x, long i, int half) {
    if (!half) return *(const vec *)((const float *)x + i);
#ifdef __AVX512F__
    __m256i bits;
    memcpy(&bits, (const bf16 *)x + i, 32);
    return (vec)_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16);
#endif
    return (vec)(__builtin_convertvector(*(const hvec *)((const bf16 *)x + i), uvec) << 16);
}
INLINE void store(void *x, long i, vec y, int half) {
    if (!half) {
        *(vec *)((float *)x + i) = y;
    } else {
#ifdef __AVX512BF16__
        __m256bh narrow = _mm512_cvtneps_pbh((__m512)y);
        memcpy((bf16 *)x + i, &narrow, 32);
        return;
#endif
        uvec bits = (uvec)y, up = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
        bits = (uvec)choose(y == y, (vec)up, (vec)(0x7fc0 - (uvec){0}));
        *(hvec *)((bf16 *)x + i) = __builtin_convertvector(bits, hvec);
    }
}
INLINE float load1(const void *x, long i, int half) {
    return half ? widen(((const bf16 *)x)[i]) : ((const float *)x)[i];
}
INLINE void store1(void *x, long i, float y, int half) {
    if (half) ((bf16 *)x)[i] = narrow(y);
    else ((float *)x)[i] = y;
}

/* e^x for x <= 88: 2^n times a polynomial on |r| <= ln 2 / 2; 0 below -87.3; NaN stays NaN. */
INLINE vec exponential(vec x) {
    const vec shift = all(12582912.0f); /* 1.5 * 2^23: adding it rounds to a whole number */
    vec y = choose(x < -87.3f, all(-88.03f), x);
    vec n = (y * 1.44269504f + shift) - shift;
    vec r = y - n * 0.693359375f + n * 2.12194440e-4f;
    vec p = all(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    ivec power = (__builtin_convertvector(choose(x == x, n, all(0)), ivec) + 127) << 23;
    return p * (vec)power;
}
#endif

/* Vectors of floats in plain C (GCC and Clang), and the one small matrix product that the kernels
   share. Everything is computed in float; bfloat16 exists in memory only. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef __AVX512F__
#define W 16    /* floats in a vector */
#define PANEL 4 /* vectors across one step of the product: ROWS * PANEL sums stay in registers */
#else
#define W 8
#define PANEL 2
#endif
#define ROWS 6

typedef float vec __attribute__((vector_size(4 * W), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(4 * W), aligned(4), may_alias));
typedef uint32_t uvec __attribute__((vector_size(4 * W), aligned(4), may_alias));
typedef uint16_t hvec __attribute__((vector_size(2 * W), aligned(2), may_alias));
typedef uint16_t bf16;

#define INLINE static inline __attribute__((always_inline))

INLINE vec all(float x) { return x - (vec){0}; }
INLINE vec choose(ivec yes, vec a, vec b) { return (vec)((yes & (ivec)a) | (~yes & (ivec)b)); }
INLINE vec larger(vec a, vec b) { return choose(a > b, a, b); }

INLINE float sum(vec x) {
    float s = 0;
    for (int i = 0; i < W; i++) s += x[i];
    return s;
}
INLINE float largest(vec x) {
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
    return (vec)(__builtin_convertvector(*(const hvec *)((const bf16 *)x + i), uvec) << 16);
}
INLINE void store(void *x, long i, vec y, int half) {
    if (!half) {
        *(vec *)((float *)x + i) = y;
    } else {
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

/* C (M, n vectors) = [C +] A B. A's element (m, l) lies at A[m * rs + l * cs]; B and C by rows. */
INLINE void step(const int n, long L, const float *A, long rs, long cs, const float *B, long ldb,
                 float *C, long ldc, int add) {
    vec c[ROWS][PANEL];
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 8
        for (int i = 0; i < n; i++) c[r][i] = add ? *(vec *)(C + r * ldc + i * W) : (vec){0};
    for (long l = 0; l < L; l++) {
        vec b[PANEL];
#pragma GCC unroll 8
        for (int i = 0; i < n; i++) b[i] = *(const vec *)(B + l * ldb + i * W);
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r++) {
            vec a = all(A[r * rs + l * cs]);
#pragma GCC unroll 8
            for (int i = 0; i < n; i++) c[r][i] += a * b[i];
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 8
        for (int i = 0; i < n; i++) *(vec *)(C + r * ldc + i * W) = c[r][i];
}

/* M is rounded up to a multiple of ROWS: A and C have so many rows. N is a multiple of W. */
static void product(long M, long N, long L, const float *A, long rs, long cs, const float *B,
                    long ldb, float *C, long ldc, int add) {
    for (long j = 0; j < N; j += PANEL * W)
        for (long i = 0; i < M; i += ROWS) {
            const float *a = A + i * rs, *b = B + j;
            float *c = C + i * ldc + j;
            long n = (N - j) / W;
            if (n >= PANEL) step(PANEL, L, a, rs, cs, b, ldb, c, ldc, add);
#if PANEL > 2
            else if (n == 3) step(3, L, a, rs, cs, b, ldb, c, ldc, add);
            else if (n == 2) step(2, L, a, rs, cs, b, ldb, c, ldc, add);
#endif
            else step(1, L, a, rs, cs, b, ldb, c, ldc, add);
        }
}

INLINE long up(long n, long to) { return (n + to - 1) / to * to; }

/* A thread's own scratch of so many floats, kept between calls. */
static float *scratch(size_t floats) {
    static __thread float *kept;
    static __thread size_t held;
    if (floats > held) {
        free(kept);
        held = floats;
        if (posix_memalign((void **)&kept, 64, 4 * floats)) abort();
    }
    return kept;
}

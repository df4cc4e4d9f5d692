/* A small matrix product whose operands lie in the cache, and a thread's own memory for them. */
#include "vector.h"

#ifdef __AVX512F__
#define PANEL 4 /* vectors across one step: ROWS * PANEL sums stay in registers */
#else
#define PANEL 2
#endif
#define ROWS 6

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

/* A thread's own scratch of so many floats, kept between calls; NULL where there is no memory. */
static float *scratch(size_t floats) {
    static __thread float *kept;
    static __thread size_t held;
    if (floats > held) {
        free(kept);
        if (posix_memalign((void **)&kept, 64, 4 * floats)) kept = NULL;
        held = kept ? floats : 0;
    }
    return kept;
}

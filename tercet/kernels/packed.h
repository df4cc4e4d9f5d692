/* Weights in panels: floats as they are; of 8 and 4 bits, for rows of 8: whole-number products, by
   the processor's dot products where it has them.

   Weights lie in panels of WIDE outputs. In a panel the inputs follow each other, four of each
   output together: one row reads the memory from end to end, and many rows find a panel in the
   cache.
     float  as they are, in panels of W outputs: sums stand side by side in a vector
     int8   u8 = round(w / scale) + 128; a float scale an output
     int4   u4 = round(w / scale) + 8; a bfloat16 scale for GROUP inputs of an output. The low
            halves of 4 WIDE bytes are four inputs, the high halves the four that stand 16 behind.
   A row of x is int8 with one scale; sum (u - 128) x = sum u x - 128 sum x. Whole sums are the same
   in any order: neither threads nor neighbours change a row. */
#ifndef PACKED_H
#define PACKED_H
#include "vector.h"
/* what should be unrolled says so, and -O3 doubles the time of compiling; sums are fused where it is
   said, for a row must not change with the number of its neighbours */
#pragma GCC optimize("O2", "fp-contract=off")

#define WIDE 64
#define VECTORS (WIDE / W)
#define ROWS 12 /* of x at a time, at the most */
#define MANY 6  /* that registers hold */
#ifdef __AVX512F__
#define PAIRED 12 /* the same, beside two panels of floats */
#else
#define PAIRED 6
#endif
#define GROUP 32

enum kind { FLOAT32, BFLOAT16, FLOAT_PANELS, INT8, INT4 };

struct weights {
    const void *data;   /* (outputs, inputs), or panels: (outputs / WIDE, inputs, WIDE), with W for
                           WIDE where they are float */
    const void *scales; /* int8: (outputs); int4: (outputs / WIDE, inputs / GROUP, WIDE); panels of
                           floats: the matrix that they are a copy of */
    const float *bias;  /* or NULL */
    int64_t inputs, outputs; /* of panels multiples of WIDE, of 8 and 4 bits also of GROUP */
    int32_t kind;
};

typedef int8_t bytevec __attribute__((vector_size(W), aligned(1), may_alias));

/* Rows as bytes. sums: of each GROUP, behind them of the row. */
struct bytes {
    int8_t *x;
    int32_t *sums;
    float *scales;
};

INLINE long groups_of(long inputs) { return inputs / GROUP; }

/* A row of n numbers as `inputs` bytes. */
static void quantise(struct bytes to, long row, const float *from, long n, long inputs) {
    long groups = groups_of(inputs), d = 0;
    int8_t *x = to.x + row * inputs;
    int32_t *sums = to.sums + row * (groups + 1);
    vec m = all(0), wrong = all(0); /* NaN where a number is none or has no end: so is the row then */
    for (; d + W <= n; d += W) {
        m = larger(m, (vec)(*(const ivec *)(from + d) & 0x7fffffff));
        wrong += *(const vec *)(from + d) - *(const vec *)(from + d);
    }
    float most = largest(m), bad = total(wrong);
    for (; d < n; d++) most = fmaxf(most, fabsf(from[d])), bad += from[d] - from[d];
    to.scales[row] = most / 127 + bad;
    float inverse = most > 0 ? 127 / most : 0;
    const vec shift = all(12582912.0f); /* 1.5 * 2^23: the last bits hold the whole number */
    for (d = 0; d + W <= n; d += W) {
        ivec whole = (ivec)(*(const vec *)(from + d) * inverse + shift) - (ivec)shift;
        *(bytevec *)(x + d) = __builtin_convertvector(whole, bytevec);
    }
    for (; d < n; d++) x[d] = (int8_t)lrintf(from[d] * inverse);
    for (; d < inputs; d++) x[d] = 0;
    sums[groups] = 0;
    for (long g = 0; g < groups; g++) {
        int32_t s = 0;
#pragma omp simd reduction(+ : s)
        for (long i = 0; i < GROUP; i++) s += x[g * GROUP + i];
        sums[g] = s;
        sums[groups] += sums[g];
    }
}

/* c += the dot products of 4 W weight bytes with the same four of x again and again */
INLINE ivec four(ivec c, const uint8_t *w, int shift, const int8_t *x) {
#ifdef __AVX512VNNI__
    int32_t bits;
    memcpy(&bits, x, 4);
    __m512i u = _mm512_loadu_si512(w);
    if (shift >= 0) u = _mm512_and_si512(_mm512_srli_epi16(u, shift), _mm512_set1_epi8(15));
    return (ivec)_mm512_dpbusd_epi32((__m512i)c, u, _mm512_set1_epi32(bits));
#else
    for (int i = 0; i < W; i++)
        for (int j = 0; j < 4; j++) {
            int u = w[4 * i + j];
            c[i] += (shift < 0 ? u : (u >> shift) & 15) * x[j];
        }
    return c;
#endif
}

INLINE void int8_tile(const int R, struct bytes q, long row, const uint8_t *w, long inputs,
                      vec y[ROWS][VECTORS]) {
    long groups = groups_of(inputs);
    ivec c[R][VECTORS];
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
#pragma GCC unroll 8
        for (int p = 0; p < VECTORS; p++)
            c[r][p] = (ivec){0} - 128 * q.sums[(row + r) * (groups + 1) + groups];
    for (long i = 0; i < inputs; i += 4)
#pragma GCC unroll 8
        for (int r = 0; r < R; r++)
#pragma GCC unroll 8
            for (int p = 0; p < VECTORS; p++)
                c[r][p] = four(c[r][p], w + i * WIDE + 4 * W * p, -1, q.x + (row + r) * inputs + i);
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
#pragma GCC unroll 8
        for (int p = 0; p < VECTORS; p++)
            y[r][p] = __builtin_convertvector(c[r][p], vec) * q.scales[row + r];
}

INLINE void int4_tile(const int R, struct bytes q, long row, const uint8_t *w, const bf16 *scales,
                      long inputs, vec y[ROWS][VECTORS]) {
    long groups = groups_of(inputs);
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
#pragma GCC unroll 8
        for (int p = 0; p < VECTORS; p++) y[r][p] = all(0);
    for (long g = 0; g < groups; g++) {
        ivec c[R][VECTORS];
#pragma GCC unroll 8
        for (int r = 0; r < R; r++)
#pragma GCC unroll 8
            for (int p = 0; p < VECTORS; p++)
                c[r][p] = (ivec){0} - 8 * q.sums[(row + r) * (groups + 1) + g];
        for (long j = 0; j < 4; j++)
#pragma GCC unroll 8
            for (int r = 0; r < R; r++) {
                const int8_t *x = q.x + (row + r) * inputs + g * GROUP + 4 * j;
#pragma GCC unroll 8
                for (int p = 0; p < VECTORS; p++) {
                    const uint8_t *at = w + (g * 4 + j) * 4 * WIDE + 4 * W * p;
                    c[r][p] = four(four(c[r][p], at, 0, x), at, 4, x + 16);
                }
            }
#pragma GCC unroll 8
        for (int p = 0; p < VECTORS; p++) {
            vec s = load(scales, g * WIDE + p * W, 1);
#pragma GCC unroll 8
            for (int r = 0; r < R; r++)
                y[r][p] = fused(s, __builtin_convertvector(c[r][p], vec), y[r][p]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
#pragma GCC unroll 8
        for (int p = 0; p < VECTORS; p++) y[r][p] *= q.scales[row + r];
}
#endif

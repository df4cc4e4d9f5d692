/* A few rows times weights that are read once: what one thread does of it. */
#ifndef ROWS_H
#define ROWS_H
#include "activation.h"
#include "packed.h"
#include <pthread.h>

struct norm {
    const float *weight, *bias; /* or NULL */
    float eps;
    int32_t kind; /* 0: none, 1: layer, 2: root mean square */
};

/* One of a product's matrices. Two of a gated one: act(first) second. */
struct part {
    struct weights w;
    int64_t outputs; /* those that count */
};

struct product {
    const float *x, *residual; /* residual: added to y, or NULL */
    float *y;
    int64_t x_step, y_step, inputs;
    struct part parts[3]; /* side by side in y; as many as have data */
    struct norm norm;     /* of x */
    int32_t activation;   /* -1: none */
    int32_t gated;
};

/* A thread's own memory, kept between calls and freed at its end; NULL where there is none. */
static __thread void *kept[3];
static pthread_key_t ending;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void free_all(void *ignored) {
    for (int i = 0; i < 3; i++) free(kept[i]);
}
static void make_key(void) { pthread_key_create(&ending, free_all); }

static void *room(int which, size_t bytes) {
    static __thread size_t held[3];
    if (bytes > held[which]) {
        pthread_once(&once, make_key);
        pthread_setspecific(ending, kept); /* anything but NULL: the thread has something to free */
        free(kept[which]);
        if (posix_memalign(&kept[which], 64, bytes)) kept[which] = NULL;
        held[which] = kept[which] ? bytes : 0;
    }
    return kept[which];
}

static void normed(float *y, const float *x, long n, const struct norm *norm) {
    float mean = 0, square;
    long d = 0;
    vec s = all(0);
    if (norm->kind == 1) {
        for (; d + W <= n; d += W) s += *(const vec *)(x + d);
        mean = total(s);
        for (; d < n; d++) mean += x[d];
        mean /= n;
    }
    s = all(0);
    for (d = 0; d + W <= n; d += W) {
        vec a = *(const vec *)(x + d) - mean;
        s = fused(a, a, s);
    }
    square = total(s);
    for (; d < n; d++) square += (x[d] - mean) * (x[d] - mean);
    float r = 1 / sqrtf(square / n + norm->eps);
    for (d = 0; d + W <= n; d += W) {
        vec a = (*(const vec *)(x + d) - mean) * r;
        if (norm->weight) a *= *(const vec *)(norm->weight + d);
        if (norm->bias) a += *(const vec *)(norm->bias + d);
        *(vec *)(y + d) = a;
    }
    for (; d < n; d++) {
        y[d] = (x[d] - mean) * r * (norm->weight ? norm->weight[d] : 1);
        if (norm->bias) y[d] += norm->bias[d];
    }
}

/* Rows as the weights want them. */
struct ready {
    const void *x;
    long step; /* elements */
    struct bytes q;
};

static int prepared(const struct product *op, long rows, struct ready *to) {
    int kind = op->parts[0].w.kind;
    long D = op->inputs, wide = (D + GROUP - 1) / GROUP * GROUP;
    *to = (struct ready){op->x, op->x_step, {0}};
    if (op->norm.kind) {
        float *y = room(0, sizeof(float) * rows * wide);
        if (!y) return 0;
        for (long r = 0; r < rows; r++) normed(y + r * wide, op->x + r * op->x_step, D, &op->norm);
        to->x = y, to->step = wide;
    }
    const float *x = to->x;
    if (kind == BFLOAT16) {
        bf16 *y = room(1, sizeof(bf16) * rows * wide);
        if (!y) return 0;
        for (long r = 0; r < rows; r++) {
            long d = 0;
            for (; d + W <= D; d += W) store(y, r * wide + d, *(const vec *)(x + r * to->step + d), 1);
            for (; d < D; d++) y[r * wide + d] = narrow(x[r * to->step + d]);
        }
        to->x = y, to->step = wide;
    } else if (kind >= INT8) {
        size_t sums = sizeof(int32_t) * (groups_of(wide) + 1) * rows;
        char *kept = room(1, rows * wide + sums + sizeof(float) * rows);
        if (!kept) return 0;
        to->q = (struct bytes){(int8_t *)kept, (int32_t *)(kept + rows * wide), (float *)(kept + rows * wide + sums)};
        for (long r = 0; r < rows; r++) quantise(to->q, r, x + r * to->step, D, wide);
    }
    return 1;
}

/* R rows times an output of each of VECTORS streams of weights that lie row by row */
INLINE void dot_tile(const int R, const int half, const void *x, long x_step, const void *const *w,
                     long D, float *y) {
    vec c[R][VECTORS];
    long d = 0;
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
#pragma GCC unroll 8
        for (int p = 0; p < VECTORS; p++) c[r][p] = all(0);
#ifdef __AVX512BF16__
    if (half)
        for (; d + 32 <= D; d += 32)
#pragma GCC unroll 8
            for (int r = 0; r < R; r++) {
                __m512bh a = (__m512bh)_mm512_loadu_ps((const bf16 *)x + r * x_step + d);
#pragma GCC unroll 8
                for (int p = 0; p < VECTORS; p++) {
                    __m512bh b = (__m512bh)_mm512_loadu_ps((const bf16 *)w[p] + d);
                    c[r][p] = (vec)_mm512_dpbf16_ps((__m512)c[r][p], b, a);
                }
            }
#endif
    for (; d + W <= D; d += W) {
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
            vec a = load(x, r * x_step + d, half);
#pragma GCC unroll 8
            for (int p = 0; p < VECTORS; p++) c[r][p] = fused(a, load(w[p], d, half), c[r][p]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
        float sums[VECTORS];
        for (int p = 0; p < VECTORS; p += 4) totals(sums + p, c[r][p], c[r][p + 1], c[r][p + 2], c[r][p + 3]);
        for (long e = d; e < D; e++)
            for (int p = 0; p < VECTORS; p++)
                sums[p] += load1(x, r * x_step + e, half) * load1(w[p], e, half);
        for (int p = 0; p < VECTORS; p++) y[r * WIDE + p * W] = sums[p];
    }
}

/* n rows times W outputs from each of m on. The rows beyond what registers hold find the weights in
   the nearest cache. */
INLINE void dots(const int half, const struct part *part, const struct ready *x, long row, long n,
                 const long *m, float *y) {
    long D = part->w.inputs, size = half ? 2 : 4, tiles = (n + MANY - 1) / MANY;
    const char *rows = (const char *)x->x + row * x->step * size;
    for (long j = 0; j < W; j++) {
        const void *w[VECTORS];
        for (int p = 0; p < VECTORS; p++) {
            long o = m[p] + j < part->outputs ? m[p] + j : part->outputs - 1; /* nobody looks */
            w[p] = (const char *)part->w.data + o * D * size;
        }
        for (long t = 0; t < tiles; t++) {
            long r = n * t / tiles, R = n * (t + 1) / tiles - r;
            const void *from = rows + r * x->step * size;
            float *to = y + r * WIDE + j;
            if (R == 1) dot_tile(1, half, from, x->step, w, D, to);
            if (R == 2) dot_tile(2, half, from, x->step, w, D, to);
            if (R == 3) dot_tile(3, half, from, x->step, w, D, to);
            if (R == 4) dot_tile(4, half, from, x->step, w, D, to);
            if (R == 5) dot_tile(5, half, from, x->step, w, D, to);
            if (R == 6) dot_tile(6, half, from, x->step, w, D, to);
        }
    }
}

/* R rows times the outputs of two panels */
INLINE void pair_tile(const int R, const float *x, long x_step, const float *a, const float *b, long D, float *y) {
    vec c[R][2];
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) c[r][0] = c[r][1] = all(0);
    for (long d = 0; d < D; d++) {
        vec first = *(const vec *)(a + d * W), second = *(const vec *)(b + d * W);
#pragma GCC unroll 16
        for (int r = 0; r < R; r++) {
            vec s = all(x[r * x_step + d]);
            c[r][0] = fused(s, first, c[r][0]);
            c[r][1] = fused(s, second, c[r][1]);
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) *(vec *)(y + r * WIDE) = c[r][0], *(vec *)(y + r * WIDE + W) = c[r][1];
}

/* As dots, of panels of floats: no sum across a vector, which is a fifth of the time of 384 inputs. */
INLINE void pairs(const struct part *part, const struct ready *x, long row, long n, const long *m, float *y) {
    long D = part->w.inputs, tiles = (n + PAIRED - 1) / PAIRED;
    const float *rows = (const float *)x->x + row * x->step, *w[VECTORS];
    for (int p = 0; p < VECTORS; p++) /* beyond the last one nobody looks */
        w[p] = (const float *)part->w.data + (m[p] < part->w.outputs ? m[p] : part->w.outputs - W) * D;
    for (int p = 0; p < VECTORS; p += 2)
        for (long t = 0; t < tiles; t++) {
            long r = n * t / tiles, R = n * (t + 1) / tiles - r;
            const float *from = rows + r * x->step;
            float *to = y + r * WIDE + p * W;
            switch (R) {
#define PAIR(R) case R: pair_tile(R, from, x->step, w[p], w[p + 1], D, to); break;
                PAIR(1) PAIR(2) PAIR(3) PAIR(4) PAIR(5) PAIR(6)
#if PAIRED > 6
                PAIR(7) PAIR(8) PAIR(9) PAIR(10) PAIR(11) PAIR(12)
#endif
#undef PAIR
            }
        }
}

static vec activated(int kind, vec x) {
    vec slope;
    switch (kind) {
    case RELU: return act(RELU, x, &slope);
    case GELU: return act(GELU, x, &slope);
    case GELU_TANH: return act(GELU_TANH, x, &slope);
    case SILU: return act(SILU, x, &slope);
    case TANH: return act(TANH, x, &slope);
    }
    return x;
}

/* R rows times the outputs from each of m on, with scales and bias. */
INLINE void outputs_of(const int R, const struct part *part, const struct ready *x, long row, long n,
                       const long *m, vec y[ROWS][VECTORS]) {
    const struct weights *w = &part->w;
    const uint8_t *data = (const uint8_t *)w->data;
    const bf16 *scales = (const bf16 *)w->scales;
    long D = w->inputs;
    if (w->kind == INT8) int8_tile(R, x->q, row, data + m[0] * D, D, y);
    else if (w->kind == INT4)
        int4_tile(R, x->q, row, data + m[0] * D / 2, scales + m[0] * groups_of(D), D, y);
    else if (w->kind == FLOAT_PANELS) pairs(part, x, row, n, m, (float *)y);
    else if (w->kind == BFLOAT16) dots(1, part, x, row, n, m, (float *)y);
    else dots(0, part, x, row, n, m, (float *)y);
    for (int p = 0; p < VECTORS; p++) {
        long left = part->outputs - m[p];
        vec s = all(1), b = all(0);
        if (w->kind == INT8) s = load(w->scales, m[p], 0);
        if (w->bias && left >= W) b = load(w->bias, m[p], 0);
        else if (w->bias)
            for (long i = 0; i < left; i++) b[i] = w->bias[m[p] + i];
        for (int r = 0; r < n; r++) y[r][p] = y[r][p] * s + b;
    }
}

INLINE void put(const struct product *op, const struct part *part, long at, long m, vec y) {
    float *to = op->y + at + m;
    const float *more = op->residual ? op->residual + at + m : NULL;
    if (m + W <= part->outputs) {
        if (more) y += *(const vec *)more;
        *(vec *)to = y;
    } else
        for (long i = 0; i < part->outputs - m; i++) to[i] = y[i] + (more ? more[i] : 0);
}

/* n rows (R of packed weights) times the outputs from each of m on; `at`: where the part begins in
   y; `end`: none from there on counts */
INLINE void tile(const int R, const struct product *op, const struct part *part, long at,
                 const struct ready *x, long row, long n, const long *m, long end) {
    vec y[ROWS][VECTORS], up[ROWS][VECTORS];
    outputs_of(R, part, x, row, n, m, y);
    if (op->gated) outputs_of(R, part + 1, x, row, n, m, up);
    for (int r = 0; r < n; r++)
        for (int p = 0; p < VECTORS && m[p] < end; p++) {
            vec c = activated(op->activation, y[r][p]);
            if (op->gated) c *= up[r][p];
            put(op, part, (row + r) * op->y_step + at, m[p], c);
        }
}

/* Panels of packed weights: a thread's own. */
static void panels(const struct product *op, const struct part *part, long at, const struct ready *x,
                   long rows, int me, int threads) {
    long count = (part->outputs + WIDE - 1) / WIDE;
    for (long panel = count * me / threads; panel < count * (me + 1) / threads; panel++) {
        long m[VECTORS];
        for (int p = 0; p < VECTORS; p++) m[p] = panel * WIDE + p * W;
        for (long row = 0, left; (left = rows - row) > 0;) {
            if (left >= 6 && part->w.kind == INT8) tile(6, op, part, at, x, row, 6, m, part->outputs), row += 6;
            else if (left >= 4 && part->w.kind == INT8) tile(4, op, part, at, x, row, 4, m, part->outputs), row += 4;
            else if (left >= 2) tile(2, op, part, at, x, row, 2, m, part->outputs), row += 2;
            else tile(1, op, part, at, x, row, 1, m, part->outputs), row += 1;
        }
    }
}

/* Weights of floats: a thread's own outputs, in VECTORS stretches that are read side by side. */
static void stretches(const struct product *op, const struct part *part, long at, const struct ready *x,
                      long rows, int me, int threads) {
    long count = (part->outputs + W - 1) / W, from = count * me / threads, to = count * (me + 1) / threads;
    long each = (to - from + VECTORS - 1) / VECTORS, m[VECTORS];
    for (long i = 0; i < each; i++) {
        for (int p = 0; p < VECTORS; p++) m[p] = (from + p * each + i) * W;
        for (long row = 0; row < rows; row += ROWS)
            tile(0, op, part, at, x, row, rows - row < ROWS ? rows - row : ROWS, m, to * W);
    }
}

/* This thread's outputs. 0 where there was no memory. */
static int product(const struct product *op, long rows, int me, int threads) {
    struct ready x;
    if (!prepared(op, rows, &x)) return 0;
    long at = 0;
    for (int i = 0; i < (op->gated ? 1 : 3) && op->parts[i].w.data; i++) {
        const struct part *part = op->parts + i;
        if (part->w.kind < INT8) stretches(op, part, at, &x, rows, me, threads);
        else panels(op, part, at, &x, rows, me, threads);
        at += part->outputs;
    }
    return 1;
}
#endif

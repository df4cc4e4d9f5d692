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

/* R rows times O outputs whose weights lie row by row */
INLINE void dot_tile(const int R, const int O, const int half, const void *x, long x_step,
                     const void *w, long D, float *y, long y_step) {
    vec c[R][O];
    long d = 0;
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
#pragma GCC unroll 8
        for (int o = 0; o < O; o++) c[r][o] = all(0);
#ifdef __AVX512BF16__
    if (half)
        for (; d + 32 <= D; d += 32)
#pragma GCC unroll 8
            for (int r = 0; r < R; r++) {
                __m512bh a = (__m512bh)_mm512_loadu_ps((const bf16 *)x + r * x_step + d);
#pragma GCC unroll 8
                for (int o = 0; o < O; o++) {
                    __m512bh b = (__m512bh)_mm512_loadu_ps((const bf16 *)w + o * D + d);
                    c[r][o] = (vec)_mm512_dpbf16_ps((__m512)c[r][o], b, a);
                }
            }
#endif
    for (; d + W <= D; d += W) {
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
            vec a = load(x, r * x_step + d, half);
#pragma GCC unroll 8
            for (int o = 0; o < O; o++) c[r][o] = fused(a, load(w, o * D + d, half), c[r][o]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
        float *to = y + r * y_step;
        if (O == 4) totals(to, c[r][0], c[r][1 % O], c[r][2 % O], c[r][3 % O]);
        else
#pragma GCC unroll 8
            for (int o = 0; o < O; o++) to[o] = total(c[r][o]);
        for (long e = d; e < D; e++)
            for (int o = 0; o < O; o++)
                to[o] += load1(x, r * x_step + e, half) * load1(w, o * D + e, half);
    }
}

INLINE void dots(const int R, const struct part *part, const struct ready *x, long row, long m,
                 long outputs, float *y) {
    long D = part->w.inputs, o = 0, half = part->w.kind == BFLOAT16, size = half ? 2 : 4;
    const char *w = (const char *)part->w.data + m * D * size, *from = (const char *)x->x + row * x->step * size;
    if (part->outputs - m < outputs) outputs = part->outputs - m;
    for (; o + 4 <= outputs; o += 4) {
        if (half) dot_tile(R, 4, 1, from, x->step, w + o * D * 2, D, y + o, WIDE);
        else dot_tile(R, 4, 0, from, x->step, w + o * D * 4, D, y + o, WIDE);
    }
    for (; o < outputs; o++) {
        if (half) dot_tile(R, 1, 1, from, x->step, w + o * D * 2, D, y + o, WIDE);
        else dot_tile(R, 1, 0, from, x->step, w + o * D * 4, D, y + o, WIDE);
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

/* R rows times a panel of a part, with scales and bias. */
INLINE void panel_of(const int R, const struct part *part, const struct ready *x, long row,
                     long panel, vec y[ROWS][VECTORS]) {
    const struct weights *w = &part->w;
    const uint8_t *data = (const uint8_t *)w->data;
    const bf16 *scales = (const bf16 *)w->scales;
    long D = w->inputs, first = panel * WIDE;
    if (w->kind == INT8) int8_tile(R, x->q, row, data + first * D, D, y);
    else if (w->kind == INT4)
        int4_tile(R, x->q, row, data + first * D / 2, scales + first * groups_of(D), D, y);
    else dots(R, part, x, row, first, WIDE, (float *)y);
    for (int p = 0; p < VECTORS; p++) {
        long m = first + p * W, left = part->outputs - m;
        vec s = all(1), b = all(0);
        if (w->kind == INT8) s = load(w->scales, m, 0);
        if (w->bias && left >= W) b = load(w->bias, m, 0);
        else if (w->bias)
            for (long i = 0; i < left; i++) b[i] = w->bias[m + i];
        for (int r = 0; r < R; r++) y[r][p] = y[r][p] * s + b;
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

/* R rows times a panel; `at`: where the part begins in y */
INLINE void tile(const int R, const struct product *op, const struct part *part, long at,
                 const struct ready *x, long row, long panel) {
    vec y[ROWS][VECTORS], up[ROWS][VECTORS];
    panel_of(R, part, x, row, panel, y);
    if (op->gated) panel_of(R, part + 1, x, row, panel, up);
    for (int r = 0; r < R; r++)
        for (int p = 0; p < VECTORS; p++) {
            vec c = activated(op->activation, y[r][p]);
            if (op->gated) c *= up[r][p];
            put(op, part, (row + r) * op->y_step + at, panel * WIDE + p * W, c);
        }
}

/* This thread's panels. 0 where there was no memory. */
static int product(const struct product *op, long rows, int me, int threads) {
    struct ready x;
    if (!prepared(op, rows, &x)) return 0;
    long at = 0;
    for (int i = 0; i < (op->gated ? 1 : 3) && op->parts[i].w.data; i++) {
        const struct part *part = op->parts + i;
        long panels = (part->outputs + WIDE - 1) / WIDE;
        for (long panel = panels * me / threads; panel < panels * (me + 1) / threads; panel++)
            for (long row = 0, left; (left = rows - row) > 0;) {
                if (left >= 6 && part->w.kind != INT4) tile(6, op, part, at, &x, row, panel), row += 6;
                else if (left >= 4 && part->w.kind != INT4) tile(4, op, part, at, &x, row, panel), row += 4;
                else if (left >= 2) tile(2, op, part, at, &x, row, panel), row += 2;
                else tile(1, op, part, at, &x, row, panel), row += 1;
            }
        at += part->outputs;
    }
    return 1;
}
#endif

/* y = act(h), or act(h) u where a feed-forward is gated; and all that its backward wants at once. */
#include "vector.h"

enum kind { RELU, GELU, GELU_TANH, SILU, TANH };

INLINE vec magnitude(vec x) { return (vec)((ivec)x & 0x7fffffff); }
INLINE vec sigmoid(vec x) {
    vec e = exponential(-magnitude(x)), s = 1 / (1 + e);
    return choose(x < 0, e * s, s);
}

/* y and, in `slope`, its derivative */
INLINE vec act(const int kind, vec x, vec *slope) {
    if (kind == RELU) {
        *slope = choose(x > 0, all(1), all(0));
        return choose(x < 0, all(0), x);
    }
    if (kind == SILU) {
        vec s = sigmoid(x), y = x * s;
        *slope = s + y * (1 - s);
        return y;
    }
    if (kind == TANH) {
        vec y = 2 * sigmoid(2 * x) - 1;
        vec small = x * (1 - x * x * (1 / 3.f)); /* the difference loses all bits near 0 */
        y = choose(magnitude(x) < 0.02f, small, y);
        *slope = 1 - y * y;
        return y;
    }
    if (kind == GELU_TANH) { /* 0.5 x (1 + tanh(u)) = x sigmoid(2 u) */
        const float c = 1.5957691216f, cubic = 0.044715f;
        vec xx = x * x, s = sigmoid(c * (x + cubic * xx * x)), y = x * s;
        *slope = s + y * (1 - s) * c * (1 + 3 * cubic * xx);
        return y;
    }
    /* x P(x), P the normal distribution (Abramowitz & Stegun 7.1.26: |error| < 1.5e-7) */
    vec z = magnitude(x) * 0.70710678118f, t = 1 / (1 + 0.3275911f * z), e = exponential(-z * z);
    vec tail = t * (0.127414796f + t * (-0.142248368f + t * (0.7107068705f +
               t * (-0.7265760135f + t * 0.5307027145f)))) * e;
    vec p = choose(x < 0, tail, 1 - tail);
    *slope = p + x * e * 0.3989422804f;
    return x * p;
}

INLINE void forward(const int kind, const void *h, const void *u, void *y, long i, long n,
                    const int half) {
    vec none, x, r;
    float edge[3][W] = {0};
    if (i + W <= n) {
        x = act(kind, load(h, i, half), &none);
        if (u) x *= load(u, i, half);
        store(y, i, x, half);
        return;
    }
    for (long j = i; j < n; j++) edge[0][j - i] = load1(h, j, half);
    r = act(kind, *(vec *)edge[0], &none);
    for (long j = i; j < n; j++) store1(y, j, r[j - i] * (u ? load1(u, j, half) : 1), half);
}

INLINE void backward(const int kind, const void *h, const void *u, const void *dy, void *y,
                     void *dh, void *du, long i, long n, const int half) {
    vec slope, a;
    if (i + W <= n) {
        vec d = load(dy, i, half), gate = all(1);
        if (u) gate = load(u, i, half);
        a = act(kind, load(h, i, half), &slope);
        store(y, i, a * gate, half);
        store(dh, i, d * slope * gate, half);
        if (u) store(du, i, d * a, half);
        return;
    }
    float edge[W] = {0};
    for (long j = i; j < n; j++) edge[j - i] = load1(h, j, half);
    a = act(kind, *(vec *)edge, &slope);
    for (long j = i; j < n; j++) {
        float d = load1(dy, j, half), gate = u ? load1(u, j, half) : 1;
        store1(y, j, a[j - i] * gate, half);
        store1(dh, j, d * slope[j - i] * gate, half);
        if (u) store1(du, j, d * a[j - i], half);
    }
}

#define EACH_KIND(CALL)                                     \
    switch (kind * 2 + half) {                              \
    case 0: CALL(RELU, 0); break; case 1: CALL(RELU, 1); break;           \
    case 2: CALL(GELU, 0); break; case 3: CALL(GELU, 1); break;           \
    case 4: CALL(GELU_TANH, 0); break; case 5: CALL(GELU_TANH, 1); break; \
    case 6: CALL(SILU, 0); break; case 7: CALL(SILU, 1); break;           \
    case 8: CALL(TANH, 0); break; default: CALL(TANH, 1);                 \
    }

void activation_forward(int kind, const void *h, const void *u, void *y, int64_t n, int half,
                        int threads) {
#define CALL(KIND, HALF) \
    _Pragma("omp parallel for num_threads(threads)") \
    for (int64_t i = 0; i < n; i += W) forward(KIND, h, u, y, i, n, HALF)
    EACH_KIND(CALL)
#undef CALL
}

void activation_backward(int kind, const void *h, const void *u, const void *dy, void *y, void *dh,
                         void *du, int64_t n, int half, int threads) {
#define CALL(KIND, HALF) \
    _Pragma("omp parallel for num_threads(threads)") \
    for (int64_t i = 0; i < n; i += W) backward(KIND, h, u, dy, y, dh, du, i, n, HALF)
    EACH_KIND(CALL)
#undef CALL
}

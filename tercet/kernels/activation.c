/* y = act(h), or act(h) u where a feed-forward is gated; and all that its backward wants at once. */
#include "activation.h"

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

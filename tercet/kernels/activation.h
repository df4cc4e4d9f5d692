/* Activations of a vector, and their derivatives. */
#ifndef ACTIVATION_H
#define ACTIVATION_H
#include "vector.h"

enum activation { RELU, GELU, GELU_TANH, SILU, TANH };

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
#endif

/* Cross-entropy of rows of logits with label smoothing, and its gradient in the logits' place. */
#include "vector.h"

/* logits (n, V), rows `step` elements apart. losses[i] = -(1 - s) log p[target] - s mean(log p);
   with `gradient` each row becomes softmax - (1 - s) onehot - s / V. */
INLINE void one_row(void *row, long V, long target, float smoothing, double *loss, int gradient,
                    const int half) {
    long whole = V / W * W;
    vec most = all(-INFINITY), plain = {0};
    float m = -INFINITY, rest = 0;
    for (long j = 0; j < whole; j += W) {
        vec x = load(row, j, half);
        most = larger(x, most);
        plain += x;
    }
    m = largest(most);
    for (long j = whole; j < V; j++) {
        float x = load1(row, j, half);
        m = x > m ? x : m;
        rest += x;
    }
    double mean = ((double)sum(plain) + rest) / V, picked = load1(row, target, half);
    vec part = {0};
    float total = 0;
    for (long j = 0; j < whole; j += W) part += exponential(load(row, j, half) - m);
    total = sum(part);
    for (long j = whole; j < V; j++) total += expf(load1(row, j, half) - m);
    double log = m + (double)logf(total);
    *loss = log - (1 - (double)smoothing) * picked - smoothing * mean;
    if (!gradient) return;
    float each = 1 / total, even = smoothing / V;
    float at = expf((float)picked - m) * each - even - (1 - smoothing);
    for (long j = 0; j < whole; j += W)
        store(row, j, exponential(load(row, j, half) - m) * each - even, half);
    for (long j = whole; j < V; j++)
        store1(row, j, expf(load1(row, j, half) - m) * each - even, half);
    store1(row, target, at, half);
}

void cross_entropy(void *logits, const int64_t *targets, double *losses, int64_t n, int64_t V,
                   int64_t step, float smoothing, int gradient, int half, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t i = 0; i < n; i++)
        if (half) one_row((bf16 *)logits + i * step, V, targets[i], smoothing, losses + i, gradient, 1);
        else one_row((float *)logits + i * step, V, targets[i], smoothing, losses + i, gradient, 0);
}

/* The k largest of each row, and the logarithm of each row's sum of exponentials. */
#include "vector.h"

#define BLOCK (4 * W) /* numbers that are looked at together, and mostly are all too small */

INLINE vec real(vec x) { return choose(x == x, x, all(-INFINITY)); }

/* values[k] falling, equals in the order of their places; -inf and NaN are none of them: a value of
   -inf at place 0 stands for nothing. */
INLINE void largest_of(const void *row, long V, long k, float *values, int64_t *places, const int half) {
    for (long i = 0; i < k; i++) values[i] = -INFINITY, places[i] = 0;
    float least = -INFINITY;
    for (long from = 0; from < V; from += BLOCK) {
        long to = from + BLOCK < V ? from + BLOCK : V;
        if (to - from == BLOCK) {
            vec a = larger(real(load(row, from, half)), real(load(row, from + W, half)));
            vec b = larger(real(load(row, from + 2 * W, half)), real(load(row, from + 3 * W, half)));
            if (!(largest(larger(a, b)) > least)) continue;
        }
        for (long j = from; j < to; j++) {
            float x = load1(row, j, half);
            if (!(x > least)) continue;
            long i = k - 1;
            for (; i > 0 && values[i - 1] < x; i--) values[i] = values[i - 1], places[i] = places[i - 1];
            values[i] = x, places[i] = j;
            least = values[k - 1];
        }
    }
}

INLINE float log_sum(const void *row, long V, const int half) {
    long whole = V / W * W;
    vec most = all(-INFINITY), part = {0};
    for (long j = 0; j < whole; j += W) most = larger(load(row, j, half), most);
    float m = largest(most), s;
    for (long j = whole; j < V; j++) m = fmaxf(m, load1(row, j, half));
    if (isinf(m)) return m;
    for (long j = 0; j < whole; j += W) part += exponential(load(row, j, half) - m);
    s = total(part);
    for (long j = whole; j < V; j++) s += expf(load1(row, j, half) - m);
    return m + logf(s);
}

/* x: (n, V), rows `step` elements apart; values, places: (n, k). */
void best_of_rows(const void *x, float *values, int64_t *places, int64_t n, int64_t V, int64_t step,
                  int64_t k, int half, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t i = 0; i < n; i++)
        if (half) largest_of((const bf16 *)x + i * step, V, k, values + i * k, places + i * k, 1);
        else largest_of((const float *)x + i * step, V, k, values + i * k, places + i * k, 0);
}

void log_sums_of_rows(const void *x, float *sums, int64_t n, int64_t V, int64_t step, int half, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t i = 0; i < n; i++)
        sums[i] = half ? log_sum((const bf16 *)x + i * step, V, 1) : log_sum((const float *)x + i * step, V, 0);
}

/* Attention over sequences of any lengths that lie end to end (Dao et al. 2022, without tiling of
   the softmax: a block of queries keeps its whole row of scores, which fits in the cache).

   q, out, d_out, d_q: (N, H, K); k, v, d_k, d_v: (M, G, K), a token's heads side by side, tokens
   `*_step` elements apart. starts: B + 1 rows. logs: (H, N), the logarithm of each softmax's sum, or NULL.
   Query i of T sees key j of S: j <= i + S - T where causal, |i + S - T - j| < window if window.
   Dropout (Srivastava et al. 2014) of the softmax: what stays is a function of seed, head, query and key
   alone, so the way back finds it again and nothing is kept of it.
   One task is one sequence and one key head; nothing is added by two threads, so results are exact
   to the bit whatever the number of threads. */
#include "draws.h"
#include "product.h"

#define BLOCK 24 /* queries at a time */

struct task {
    const void *q, *k, *v;
    const int64_t *q_starts, *k_starts;
    int64_t q_step, k_step, v_step, n_sequences, heads, key_heads, width, causal, window;
    uint64_t seed;
    float scale;
    int32_t half;  /* elements are bfloat16 */
    uint32_t drop; /* of 2^32 draws, how many drop a key; 0: no dropout */
    float kept;    /* what the others are multiplied by */
};

/* rows of `width` at x -> (rows, wide) floats, the rest zero */
INLINE void rows_of(float *to, long rows, long wide, const void *x, long step, long n, long width,
                    float scale, int half) {
    for (long i = 0; i < rows; i++) {
        long d = 0;
        float *row = to + i * wide;
        if (i < n)
            for (; d + W <= width; d += W)
                *(vec *)(row + d) = load(x, i * step + d, half) * scale;
        if (i < n)
            for (; d < width; d++) row[d] = load1(x, i * step + d, half) * scale;
        for (; d < wide; d++) row[d] = 0;
    }
}
/* the same, transposed: (width, long) */
INLINE void columns_of(float *to, long length, const void *x, long step, long n, long width,
                       int half) {
    for (long j = 0; j < length; j += W)
        for (long d = 0; d < width; d++)
#pragma GCC unroll 16
            for (long i = j; i < j + W; i++)
                to[d * length + i] = i < n ? load1(x, i * step + d, half) : 0;
}

struct span { long from, to; };
INLINE struct span visible(const struct task *t, long i, long S, long T) {
    long at = i + S - T;
    struct span s = {0, S};
    if (t->window) {
        s.from = at - t->window + 1 > 0 ? at - t->window + 1 : 0;
        if (at + t->window < S) s.to = at + t->window;
    }
    if (t->causal && at + 1 < S) s.to = at + 1;
    return s;
}
/* the keys that a block of queries sees, widened to whole vectors */
INLINE struct span reach(const struct task *t, long i, long rows, long S, long T) {
    struct span a = visible(t, i, S, T), b = visible(t, i + rows - 1, S, T);
    return (struct span){a.from / W * W, up(b.to, W)};
}
INLINE void hide(float *row, struct span all_of_it, struct span seen) {
    for (long j = all_of_it.from; j < seen.from; j++) row[j] = -INFINITY;
    for (long j = seen.to; j < all_of_it.to; j++) row[j] = -INFINITY;
}
INLINE uint64_t draws_of(const struct task *t, long h, long query) {
    return t->drop ? mixed(t->seed + mixed(query * t->heads + h)) : 0;
}
INLINE const void *at(const void *x, long i, int half) { return (const char *)x + i * (half ? 2 : 4); }

/* Both say whether they had memory. */
INLINE int forward_task(const struct task *t, void *out, float *logs, long task, const int half) {
    long b = task / t->key_heads, g = task % t->key_heads, group = t->heads / t->key_heads;
    long T = t->q_starts[b + 1] - t->q_starts[b], S = t->k_starts[b + 1] - t->k_starts[b];
    long K = t->width, wide = up(K, W), length = up(S, W), N = t->q_starts[t->n_sequences];
    float *keys = scratch((K + BLOCK) * length + (length + 2 * BLOCK) * wide);
    if (!keys) return 0;
    float *values = keys + K * length, *queries = values + length * wide;
    float *sums = queries + BLOCK * wide, *scores = sums + BLOCK * wide;
    columns_of(keys, length, at(t->k, t->k_starts[b] * t->k_step + g * K, half), t->k_step, S, K, half);
    rows_of(values, length, wide, at(t->v, t->k_starts[b] * t->v_step + g * K, half), t->v_step, S, K, 1, half);
    for (long h = g * group; h < (g + 1) * group; h++)
        for (long i = 0; i < T; i += BLOCK) {
            long first = t->q_starts[b] + i, n = T - i < BLOCK ? T - i : BLOCK;
            struct span s = reach(t, i, n, S, T);
            rows_of(queries, BLOCK, wide, at(t->q, first * t->q_step + h * K, half), t->q_step, n, K, t->scale, half);
            product(n, s.to - s.from, K, queries, wide, 1, keys + s.from, length, scores + s.from, length, 0);
            float sums_of[BLOCK];
            for (long r = 0; r < n; r++) {
                float *row = scores + r * length;
                hide(row, s, visible(t, i + r, S, T));
                vec most = all(-INFINITY), add = {0};
                for (long j = s.from; j < s.to; j += W) most = larger(*(vec *)(row + j), most);
                float m = largest(most);
                for (long j = s.from; j < s.to; j += W)
                    add += *(vec *)(row + j) = exponential(*(vec *)(row + j) - m);
                sums_of[r] = total(add);
                if (t->drop) {
                    uint64_t draws = draws_of(t, h, first + r);
                    for (long j = s.from; j < s.to; j += W) *(vec *)(row + j) *= remaining(draws, j, t->drop, t->kept);
                }
                if (logs) logs[h * N + first + r] = m + logf(sums_of[r]);
            }
            product(n, wide, s.to - s.from, scores + s.from, length, 1, values + s.from * wide, wide, sums, wide, 0);
            for (long r = 0; r < n; r++) {
                long to = ((first + r) * t->heads + h) * K, d = 0;
                float each = 1 / sums_of[r];
                for (; d + W <= K; d += W) store(out, to + d, *(vec *)(sums + r * wide + d) * each, half);
                for (; d < K; d++) store1(out, to + d, sums[r * wide + d] * each, half);
            }
        }
    return 1;
}

INLINE int backward_task(const struct task *t, const void *out, const float *logs,
                          const void *d_out, void *d_q, void *d_k, void *d_v, long task,
                          const int half) {
    long b = task / t->key_heads, g = task % t->key_heads, group = t->heads / t->key_heads;
    long T = t->q_starts[b + 1] - t->q_starts[b], S = t->k_starts[b + 1] - t->k_starts[b];
    long K = t->width, wide = up(K, W), length = up(S, W), N = t->q_starts[t->n_sequences];
    long line = length + W, tall = length + W; /* room behind the last row and column */
    float *keys = scratch(2 * K * length + 3 * tall * wide + 3 * BLOCK * wide + 2 * BLOCK * line);
    if (!keys) return 0;
    float *values = keys + K * length, *key_rows = values + K * length;
    float *dk = key_rows + tall * wide, *dv = dk + tall * wide, *queries = dv + tall * wide;
    float *outs = queries + BLOCK * wide, *dq = outs + BLOCK * wide;
    float *p = dq + BLOCK * wide, *ds = p + BLOCK * line;
    const void *k = at(t->k, t->k_starts[b] * t->k_step + g * K, half);
    const void *v = at(t->v, t->k_starts[b] * t->v_step + g * K, half);
    columns_of(keys, length, k, t->k_step, S, K, half);
    columns_of(values, length, v, t->v_step, S, K, half);
    rows_of(key_rows, length, wide, k, t->k_step, S, K, 1, half);
    memset(dk, 0, 8 * tall * wide); /* both */
    for (long h = g * group; h < (g + 1) * group; h++)
        for (long i = 0; i < T; i += BLOCK) {
            long first = t->q_starts[b] + i, n = T - i < BLOCK ? T - i : BLOCK;
            long flat = first * t->heads * K + h * K, step = t->heads * K; /* out's rows */
            struct span s = reach(t, i, n, S, T);
            rows_of(queries, BLOCK, wide, at(t->q, first * t->q_step + h * K, half), t->q_step, n, K, t->scale, half);
            rows_of(outs, BLOCK, wide, at(d_out, flat, half), step, n, K, 1, half);
            product(n, s.to - s.from, K, queries, wide, 1, keys + s.from, length, p + s.from, line, 0);
            product(n, s.to - s.from, K, outs, wide, 1, values + s.from, length, ds + s.from, line, 0);
            for (long r = 0; r < n; r++) {
                float *prow = p + r * line, *row = ds + r * line, log = logs[h * N + first + r], dot = 0;
                memset(prow + s.to, 0, 4 * W);
                memset(row + s.to, 0, 4 * W);
                hide(prow, s, visible(t, i + r, S, T));
                for (long d = 0; d < K; d++) dot += outs[r * wide + d] * load1(out, flat + r * step + d, half);
                uint64_t draws = draws_of(t, h, first + r);
                for (long j = s.from; j < s.to; j += W) {
                    vec e = exponential(*(vec *)(prow + j) - log), x = *(vec *)(row + j);
                    vec left = t->drop ? remaining(draws, j, t->drop, t->kept) : all(1);
                    *(vec *)(prow + j) = e * left;
                    *(vec *)(row + j) = e * (x * left - dot);
                }
            }
            product(n, wide, s.to - s.from, ds + s.from, line, 1, key_rows + s.from * wide, wide, dq, wide, 0);
            product(s.to - s.from, wide, n, ds + s.from, 1, line, queries, wide, dk + s.from * wide, wide, 1);
            product(s.to - s.from, wide, n, p + s.from, 1, line, outs, wide, dv + s.from * wide, wide, 1);
            for (long r = 0; r < n; r++)
                for (long d = 0; d < K; d++) store1(d_q, flat + r * step + d, dq[r * wide + d] * t->scale, half);
        }
    for (long j = 0; j < S; j++)
        for (long d = 0; d < K; d++) {
            long to = ((t->k_starts[b] + j) * t->key_heads + g) * K + d;
            store1(d_k, to, dk[j * wide + d], half);
            store1(d_v, to, dv[j * wide + d], half);
        }
    return 1;
}

/* 0 where a thread had no memory. */
int attention_forward(const struct task *t, void *out, float *logs, int threads) {
    long n = t->n_sequences * t->key_heads;
    int done = 1;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) reduction(& : done)
    for (long i = 0; i < n; i++)
        done &= t->half ? forward_task(t, out, logs, i, 1) : forward_task(t, out, logs, i, 0);
    return done;
}

int attention_backward(const struct task *t, const void *out, const float *logs,
                       const void *d_out, void *d_q, void *d_k, void *d_v, int threads) {
    long n = t->n_sequences * t->key_heads;
    int done = 1;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) reduction(& : done)
    for (long i = 0; i < n; i++)
        done &= t->half ? backward_task(t, out, logs, d_out, d_q, d_k, d_v, i, 1)
                        : backward_task(t, out, logs, d_out, d_q, d_k, d_v, i, 0);
    return done;
}

/* y = x without a share of its numbers, the others scaled up; and the same of a gradient. */
#include "draws.h"

#define BLOCK 4096 /* numbers that share a key */

void dropout(const void *x, void *y, int64_t n, uint64_t seed, uint32_t drop, float kept, int half,
             int threads) {
#pragma omp parallel for num_threads(threads)
    for (int64_t from = 0; from < n; from += BLOCK) {
        uint64_t key = mixed(seed + mixed(from));
        int64_t to = from + BLOCK < n ? from + BLOCK : n, i = from;
        for (; i + W <= to; i += W)
            store(y, i, load(x, i, half) * remaining(key, i - from, drop, kept), half);
        vec left = remaining(key, i - from, drop, kept);
        for (int64_t j = i; j < to; j++) store1(y, j, load1(x, j, half) * left[j - i], half);
    }
}

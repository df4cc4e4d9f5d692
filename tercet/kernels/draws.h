/* Random numbers that are a function of where they are wanted, so that none is kept for the way back. */
#ifndef DRAWS_H
#define DRAWS_H
#include "vector.h"

INLINE uint64_t mixed(uint64_t x) { /* splitmix64's (Steele et al. 2014) */
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}
/* `kept` where one of W draws, of the places from `from` on, is not among the `drop` of 2^32 that drop;
   else 0 */
INLINE vec remaining(uint64_t key, uint32_t from, uint32_t drop, float kept) {
    uvec x;
    for (int i = 0; i < W; i++) x[i] = i;
    x = (x + from) * 0x9e3779b9u + (uint32_t)key;
    x = ((x ^ x >> 16) * 0x7feb352du) ^ (uint32_t)(key >> 32);
    x = (x ^ x >> 15) * 0x846ca68bu;
    return choose((ivec)((x ^ x >> 16) >= drop), all(kept), all(0));
}
#endif

/* A few rows through many operations in one call: all threads run the list together and wait for
   each other after each entry. What an operation reads, none of its threads writes. */
#include "rows.h"
#include <omp.h>
#include <sched.h>

#define WIDEST 256 /* numbers of a head */

/* x holds a row's queries, keys and values, (H + 2 G) K; only queries where nothing is appended. */
struct attention {
    const float *x;
    float *y;
    int64_t x_step, y_step, heads, key_heads, width;
    void *k, *v;          /* (pages, G, page, K) */
    int64_t page;         /* tokens of a page */
    const int64_t *pages; /* those of all texts, one text behind the other */
    const float *turn;   /* (positions, K): cosines, then sines of rotary angles; or NULL */
    const float *bias;   /* (H, 2 span - 1), of key - query + span - 1; or NULL */
    const int64_t *text, *from, *to; /* of each row: its text's first place in pages; keys it sees */
    struct norm q_norm, k_norm;
    int64_t span;
    float scale;
    int32_t append, half; /* half: keys and values are bfloat16 */
};

/* Rows of tables, added; those of the first scaled. */
struct table {
    const void *data;     /* (count, width); NULL: none, and none behind it */
    const int64_t *index; /* of each row; NULL: 0 */
    int64_t count, half;  /* half: bfloat16 */
};

struct lookup {
    float *y;
    int64_t y_step, width;
    struct table tables[3];
    float scale;
};

struct op {
    int64_t what; /* 0: product, 1: attention, 2: the norm of a product's x alone, 3: lookup */
    struct product product;
    struct attention attention;
    struct lookup lookup;
};

struct tape {
    const struct op *ops;
    int64_t n_ops, rows;
    const int64_t *position; /* of each row */
};

/* A meeting of all threads */
struct meeting { int here, round; };

static void meet(struct meeting *m, int threads) {
    int round = __atomic_load_n(&m->round, __ATOMIC_ACQUIRE);
    if (__atomic_add_fetch(&m->here, 1, __ATOMIC_ACQ_REL) == threads) {
        __atomic_store_n(&m->here, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&m->round, round + 1, __ATOMIC_RELEASE);
        return;
    }
    for (long spins = 0; __atomic_load_n(&m->round, __ATOMIC_ACQUIRE) == round; spins++)
        if (spins > 20000) sched_yield(); /* somebody else wants the core */
}

/* A head of a row, normed and turned. */
static void head_of(float *to, const float *x, const struct attention *t, const struct norm *norm,
                    long position) {
    long K = t->width, half = K / 2;
    float own[WIDEST];
    if (norm->kind) {
        normed(own, x, K, norm);
        x = own;
    }
    if (!t->turn) {
        memcpy(to, x, sizeof(float) * K);
        return;
    }
    const float *cosine = t->turn + position * K, *sine = cosine + half;
    for (long d = 0; d < half; d++) {
        float a = x[d], b = x[d + half];
        to[d] = a * cosine[d] - b * sine[d];
        to[d + half] = b * cosine[d] + a * sine[d];
    }
}

static void write_head(void *to, long at, const float *x, long n, int half) {
    long d = 0;
    for (; d + W <= n; d += W) store(to, at + d, *(const vec *)(x + d), half);
    for (; d < n; d++) store1(to, at + d, x[d], half);
}

/* Where the key of a row's text at some position lies. */
INLINE long key_of(const struct attention *t, long row, long g, long position) {
    long page = t->pages[t->text[row] + position / t->page];
    return ((page * t->key_heads + g) * t->page + position % t->page) * t->width;
}

static void append(const struct attention *t, const struct tape *tape, int me, int threads) {
    long K = t->width, G = t->key_heads, n = tape->rows * G;
    for (long i = n * me / threads; i < n * (me + 1) / threads; i++) {
        long row = i / G, g = i % G, position = tape->position[row];
        const float *k = t->x + row * t->x_step + (t->heads + g) * K;
        long at = key_of(t, row, g, position);
        float turned[WIDEST];
        head_of(turned, k, t, &t->k_norm, position);
        write_head(t->k, at, turned, K, t->half);
        write_head(t->v, at, k + G * K, K, t->half);
    }
}

INLINE void one_head(const struct attention *t, const struct tape *tape, float *scores, long row,
                     long h, const int half) {
    long K = t->width, G = t->key_heads, g = h / (t->heads / G), whole = K / W * W;
    long from = t->from[row], n = t->to[row] - from, position = tape->position[row];
    const float *bias = t->bias ? t->bias + h * (2 * t->span - 1) + t->span - 1 - position + from : NULL;
    float q[WIDEST], most = -INFINITY, *out = t->y + row * t->y_step + h * K;
    vec sums = all(0);
    head_of(q, t->x + row * t->x_step + h * K, t, &t->q_norm, position);
    for (long d = 0; d < K; d++) q[d] *= t->scale;
    for (long j = 0, here; j < n; j += here) { /* a page after the other */
        here = t->page - (from + j) % t->page < n - j ? t->page - (from + j) % t->page : n - j;
        long base = key_of(t, row, g, from + j);
        for (long i = 0; i < here; i++) {
            vec s = all(0);
            for (long d = 0; d < whole; d += W) s = fused(*(vec *)(q + d), load(t->k, base + i * K + d, half), s);
            float dot = total(s);
            for (long d = whole; d < K; d++) dot += q[d] * load1(t->k, base + i * K + d, half);
            scores[j + i] = dot + (bias ? bias[j + i] : 0);
            most = fmaxf(most, scores[j + i]);
        }
    }
    for (long j = n; j < n + W; j++) scores[j] = -INFINITY;
    for (long j = 0; j < n; j += W) {
        vec e = exponential(*(vec *)(scores + j) - most);
        *(vec *)(scores + j) = e;
        sums += e;
    }
    float inverse = 1 / total(sums), own[WIDEST] = {0};
    for (long j = 0, here; j < n; j += here) {
        here = t->page - (from + j) % t->page < n - j ? t->page - (from + j) % t->page : n - j;
        long base = key_of(t, row, g, from + j);
        for (long d = 0; d < whole; d += W) {
            vec s = *(vec *)(own + d);
            for (long i = 0; i < here; i++) s = fused(all(scores[j + i]), load(t->v, base + i * K + d, half), s);
            *(vec *)(own + d) = s;
        }
        for (long d = whole; d < K; d++)
            for (long i = 0; i < here; i++) own[d] += scores[j + i] * load1(t->v, base + i * K + d, half);
    }
    for (long d = 0; d < K; d++) out[d] = own[d] * inverse;
}

static int attend(const struct attention *t, const struct tape *tape, int me, int threads) {
    long n = tape->rows * t->heads, longest = 0;
    for (long r = 0; r < tape->rows; r++)
        if (t->to[r] - t->from[r] > longest) longest = t->to[r] - t->from[r];
    float *scores = room(2, sizeof(float) * (longest + 2 * W));
    if (!scores) return 0;
    for (long i = n * me / threads; i < n * (me + 1) / threads; i++) {
        if (t->half) one_head(t, tape, scores, i / t->heads, i % t->heads, 1);
        else one_head(t, tape, scores, i / t->heads, i % t->heads, 0);
    }
    return 1;
}

static void look_up(const struct lookup *l, long rows, int me, int threads) {
    for (long r = rows * me / threads; r < rows * (me + 1) / threads; r++)
        for (int i = 0; i < 3 && l->tables[i].data; i++) {
            const struct table *t = l->tables + i;
            float *y = l->y + r * l->y_step, scale = i ? 1 : l->scale;
            long from = (t->index ? t->index[r] : 0) * l->width, d = 0;
            for (; d + W <= l->width; d += W)
                *(vec *)(y + d) = load(t->data, from + d, t->half) * scale + (i ? *(vec *)(y + d) : all(0));
            for (; d < l->width; d++) y[d] = load1(t->data, from + d, t->half) * scale + (i ? y[d] : 0);
        }
}

/* Whether every table has the rows that are asked of it. */
static int holds(const struct lookup *l, long rows) {
    for (int i = 0; i < 3 && l->tables[i].data; i++)
        for (long r = 0; r < rows && l->tables[i].index; r++)
            if (l->tables[i].index[r] < 0 || l->tables[i].index[r] >= l->tables[i].count) return 0;
    return 1;
}

/* Whether panels of floats hold what their matrix does: a number of each panel is looked at, each
   further to the right. */
int tape_current(const struct op *ops, int64_t n_ops) {
    for (long i = 0; i < n_ops; i++)
        for (int j = 0; ops[i].what == 0 && j < 3 && ops[i].product.parts[j].w.data; j++) {
            const struct part *part = ops[i].product.parts + j;
            if (part->w.kind != FLOAT_PANELS) continue;
            const float *panels = part->w.data, *matrix = part->w.scales;
            long D = part->w.inputs, M = part->outputs;
            for (long m = 0; m < M; m += W) {
                long d = m * D / M;
                if (memcmp(panels + m * D + d * W, matrix + m * D + d, sizeof *matrix)) return 0;
            }
        }
    return 1;
}

/* 0 where a thread had no memory, -1 where a table has no such row. */
int tape_run(const struct tape *tape, int threads) {
    struct meeting m = {0, 0};
    int done = 1;
    for (long i = 0; i < tape->n_ops; i++)
        if (tape->ops[i].what == 3 && !holds(&tape->ops[i].lookup, tape->rows)) return -1;
#pragma omp parallel num_threads(threads) reduction(& : done)
    {
        int me = omp_get_thread_num(), all_of_us = omp_get_num_threads();
        for (long i = 0; i < tape->n_ops; i++) {
            const struct op *op = tape->ops + i;
            const struct product *p = &op->product;
            if (op->what == 0) done &= product(p, tape->rows, me, all_of_us);
            if (op->what == 1 && op->attention.append) {
                append(&op->attention, tape, me, all_of_us);
                meet(&m, all_of_us);
            }
            if (op->what == 1) done &= attend(&op->attention, tape, me, all_of_us);
            if (op->what == 2)
                for (long r = tape->rows * me / all_of_us; r < tape->rows * (me + 1) / all_of_us; r++)
                    normed(p->y + r * p->y_step, p->x + r * p->x_step, p->inputs, &p->norm);
            if (op->what == 3) look_up(&op->lookup, tape->rows, me, all_of_us);
            meet(&m, all_of_us);
        }
    }
    return done;
}

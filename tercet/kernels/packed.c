/* Weights packed into panels, and their products with any number of rows. */
#include "rows.h"
#include <omp.h>

#define FEW 64    /* rows that every thread takes all of, each its part of the panels */
#define BLOCK 192 /* rows at most that pass a panel while it is near */

/* 0 where a thread had no memory. */
int packed_product(const struct product *op, int64_t rows, int threads) {
    int done = 1;
    if (rows <= FEW) {
#pragma omp parallel num_threads(threads) reduction(& : done)
        done &= product(op, rows, omp_get_thread_num(), omp_get_num_threads());
        return done;
    }
    long parts = (rows + BLOCK * threads - 1) / (BLOCK * threads) * threads;
    long size = ((rows + parts - 1) / parts + ROWS - 1) / ROWS * ROWS;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) reduction(& : done)
    for (long row = 0; row < rows; row += size) {
        struct product own = *op;
        own.x += row * op->x_step;
        own.y += row * op->y_step;
        if (op->residual) own.residual += row * op->y_step;
        done &= product(&own, rows - row < size ? rows - row : size, 0, 1);
    }
    return done;
}

static uint8_t nearest(float x, float scale, int least, int most) {
    long whole = lrintf(x / scale);
    return (whole < least ? least : whole > most ? most : whole) - least;
}

/* One output of a panel: `o` of WIDE, `row` of D numbers or NULL for a filler. */
static void pack_int8(const float *row, long D, long wide, uint8_t *data, float *scale, long o) {
    float most = 0;
    for (long d = 0; row && d < D; d++) most = fmaxf(most, fabsf(row[d]));
    *scale = most > 0 ? most / 127 : 1;
    for (long d = 0; d < wide; d++)
        data[d / 4 * 4 * WIDE + o * 4 + d % 4] =
            nearest(row && d < D ? row[d] : 0, *scale, -128, 127);
}

static void pack_int4(const float *row, long D, long wide, uint8_t *data, bf16 *scales, long o) {
    for (long g = 0; g < groups_of(wide); g++) {
        float peak = 0; /* what is furthest from zero becomes -8: of both ends the longer one */
        long from = g * GROUP, to = from + GROUP < D ? from + GROUP : D;
        for (long d = from; row && d < to; d++)
            if (fabsf(row[d]) > fabsf(peak)) peak = row[d];
        bf16 kept = narrow(peak != 0 ? peak / -8 : 1);
        scales[g * WIDE + o] = kept;
        for (long i = 0; i < GROUP; i++) {
            float x = row && from + i < D ? row[from + i] : 0;
            uint8_t *at = data + (g * 4 + i / 4 % 4) * 4 * WIDE + o * 4 + i % 4;
            *at |= nearest(x, widen(kept), -8, 7) << (i < 16 ? 0 : 4);
        }
    }
}

static float *panelled(const struct weights *w, long m, long d) {
    return (float *)w->data + m / W * W * w->inputs + d * W + m % W;
}

/* A (outputs, inputs) float32 matrix into `data` and, of a few bits, `scales`, which hold zeros. */
void packed_pack(const float *from, int64_t outputs, int64_t inputs, const struct weights *w) {
    long wide = w->inputs;
#pragma omp parallel for
    for (long m = 0; m < w->outputs; m++) {
        const float *row = m < outputs ? from + m * inputs : NULL;
        if (w->kind == FLOAT_PANELS) {
            for (long d = 0; row && d < inputs; d++) *panelled(w, m, d) = row[d];
            continue;
        }
        long first = m / WIDE * WIDE;
        uint8_t *data = (uint8_t *)w->data + first * wide / (w->kind == INT4 ? 2 : 1);
        if (w->kind == INT8)
            pack_int8(row, inputs, wide, data, (float *)w->scales + m, m % WIDE);
        else
            pack_int4(row, inputs, wide, data, (bf16 *)w->scales + first * groups_of(wide), m % WIDE);
    }
}

/* What is packed, as the (outputs, inputs) float32 matrix that it stands for. */
void packed_unpack(float *to, int64_t outputs, int64_t inputs, const struct weights *w) {
    long wide = w->inputs;
    for (long m = 0; m < outputs; m++) {
        long first = m / WIDE * WIDE, o = m % WIDE;
        for (long d = 0; d < inputs; d++) {
            if (w->kind == FLOAT_PANELS) {
                to[m * inputs + d] = *panelled(w, m, d);
                continue;
            }
            const uint8_t *data = (const uint8_t *)w->data + first * wide / (w->kind == INT4 ? 2 : 1);
            if (w->kind == INT8) {
                float scale = ((const float *)w->scales)[m];
                to[m * inputs + d] = scale * (data[d / 4 * 4 * WIDE + o * 4 + d % 4] - 128);
            } else {
                long g = d / GROUP, i = d % GROUP;
                float scale = widen(((const bf16 *)w->scales)[first * groups_of(wide) + g * WIDE + o]);
                int byte = data[(g * 4 + i / 4 % 4) * 4 * WIDE + o * 4 + i % 4];
                to[m * inputs + d] = scale * ((i < 16 ? byte & 15 : byte >> 4) - 8);
            }
        }
    }
}

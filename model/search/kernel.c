/* The search's inner loops: ids to rows, the best of scores, parts of coarse cells against the targets that want them.

   A plain shared library, without Python in it: model/search/kernel.py calls it, and has the same functions in numba for
   machines without a C compiler. Letters as there. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define TILE 64
#define LINE 16 /* floats of a cache line */

typedef float V4 __attribute__((vector_size(16)));

typedef struct {
    float *scores;          /* [t, slots] */
    int32_t *places;        /* [t, slots] */
    int64_t *fill;          /* [t] */
    float *least;           /* [t] */
    const int64_t *starts;  /* [u + 1] */
    const int32_t *order;   /* [l] */
    const float *bias;      /* [l] */
    const float *ceiling;   /* [u] */
    const int32_t *column;  /* [l] */
    const float *queries;   /* [t, columns] */
    const float *room;      /* [t] */
    int64_t slots, k, columns;
} Best;

static float cut(float *scores, int32_t *places, long n, long k);

#define W 4
#define V V4
#define TARGET
#define NAME(x) x##_4
#include "kernel_tile.h"
#undef W
#undef V
#undef TARGET
#undef NAME

#if defined(__x86_64__)
typedef float V8 __attribute__((vector_size(32)));
typedef float V16 __attribute__((vector_size(64)));
#define W 8
#define V V8
#define TARGET __attribute__((target("avx2,fma")))
#define NAME(x) x##_8
#include "kernel_tile.h"
#undef W
#undef V
#undef TARGET
#undef NAME
#define W 16
#define V V16
#define TARGET __attribute__((target("avx512f,avx512vl,avx512dq,fma")))
#define NAME(x) x##_16
#include "kernel_tile.h"
#endif

/* What the processor has: 16, 8 or 4 floats in a vector. */
static int lanes(void) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) return 16;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 8;
#endif
    return 4;
}

typedef void (*Tile)(const float *const *, long, const float *const *, long, long, float *, const float *const *, long);

static Tile best_tile(void) {
#if defined(__x86_64__)
    if (lanes() == 16) return tile_16;
    if (lanes() == 8) return tile_8;
#endif
    return tile_4;
}

/* Offer all targets every stride-th behaviour of n units from `first` on. Targets lie side by side: own [n, padded] are the
   units' scores, queries [columns, padded] those of queries, least [padded] the thresholds, infinite beyond the targets. */
void select_all(const Best *best, const float *own, long first, long n, const float *queries, long padded, float *least,
                long offset, long stride) {
#if defined(__x86_64__)
    if (lanes() == 16) return select_16(best, own, first, n, queries, padded, least, offset, stride);
    if (lanes() == 8) return select_8(best, own, first, n, queries, padded, least, offset, stride);
#endif
    select_4(best, own, first, n, queries, padded, least, offset, stride);
}

/* Rows of ids: 0 for id 0, -1 for an unknown one. `starts` holds where ids of each prefix begin in the sorted ids. */
void rows(const uint64_t *ids, const int32_t *starts, long shift, const char *wanted, long stride, long n, int32_t *out) {
    uint64_t id, later;
    for (long e = 0; e < n; e++) {
        if (e + 16 < n) {
            memcpy(&later, wanted + (e + 16) * stride, 8);
            __builtin_prefetch(starts + (later >> shift));
        }
        if (e + 8 < n) {
            memcpy(&later, wanted + (e + 8) * stride, 8);
            __builtin_prefetch(ids + starts[later >> shift]);
        }
        memcpy(&id, wanted + e * stride, 8);
        long at = starts[id >> shift], end = starts[(id >> shift) + 1];
        while (at < end && ids[at] < id) at++;
        out[e] = id == 0 ? 0 : at < end && ids[at] == id ? at + 1 : -1;
    }
}

/* Move what exceeds the pivot (or equals it, too) to the front, without a branch to mispredict; where the rest begins. */
static long divide(float *scores, int32_t *places, long low, long high, float pivot, int equal) {
    long front = low;
    for (long i = low; i < high; i++) {
        float score = scores[i];
        int32_t place = places[i];
        scores[i] = scores[front], places[i] = places[front];
        scores[front] = score, places[front] = place;
        front += equal ? score >= pivot : score > pivot;
    }
    return front;
}

/* The k best of n come first; returns the least of them (quickselect, median of three). */
static float cut(float *scores, int32_t *places, long n, long k) {
    long low = 0, high = n;
    float pivot;
    while (1) {
        float a = scores[low], b = scores[(low + high) / 2], c = scores[high - 1];
        float least = MIN(a, b), most = a > b ? a : b, middle = MIN(most, c);
        pivot = least > middle ? least : middle;
        long front = divide(scores, places, low, high, pivot, 0);
        if (k <= front) {
            high = front;
            continue;
        }
        front = divide(scores, places, front, high, pivot, 1);
        if (k <= front) return pivot;
        low = front;
    }
}

/* Offer target t the behaviours of n units whose own scores are `own`. */
static void offer(const Best *best, long t, const float *own, long first, long n) {
    const float *ceiling = best->ceiling + first, *queries = best->queries + t * best->columns;
    float least = best->least[t], bar = least - best->room[t];
    int hot = 0;
    for (long i = 0; i < n; i++) hot |= own[i] + ceiling[i] > bar;
    if (!hot) return;
    float *scores = best->scores + t * best->slots;
    int32_t *places = best->places + t * best->slots;
    long fill = best->fill[t];
    for (long i = 0; i < n; i++) {
        if (!(own[i] + ceiling[i] > bar)) continue;
        for (long e = best->starts[first + i]; e < best->starts[first + i + 1]; e++) {
            float score = own[i] + queries[best->column[e]] + best->bias[e];
            if (!(score > least)) continue;
            scores[fill] = score, places[fill++] = best->order[e];
            if (fill == best->slots) {
                least = cut(scores, places, fill, best->k), bar = least - best->room[t];
                fill = best->k;
            }
        }
    }
    best->fill[t] = fill, best->least[t] = least;
}

/* Offer all targets the units `first` and on, whose own scores are scores [t, n]. */
void offer_all(const Best *best, const float *scores, long targets, long first, long n) {
    for (long t = 0; t < targets; t++)
        for (long i = 0; i < n; i += TILE) offer(best, t, scores + t * n + i, first + i, MIN(TILE, n - i));
}

void finish(const Best *best, long targets) {
    for (long t = 0; t < targets; t++)
        if (best->fill[t] > best->k) cut(best->scores + t * best->slots, best->places + t * best->slots, best->fill[t], best->k);
}

static const float *part(const float *table, long size, const float *more, long width, long row) {
    return row < size ? table + row * width : more + (row - size) * width;
}

/* Score the units of every cell for the targets whose mean [cells, t] is not below their floor [t]. 0, or -1: no memory. */
int scan(const Best *best, const float *folded, long targets, long width, const float *means, const float *floor, long cells,
         const int64_t *cell_starts, const float *table, long size, const float *more, const int32_t *rows) {
    Tile tile = best_tile();
    const float **q = malloc(targets * sizeof *q);
    long *active = malloc(targets * sizeof *active);
    float *out = malloc((targets + 2) * TILE * sizeof *out);
    if (!q || !active || !out) return free(q), free(active), free(out), -1;
    for (long cell = 0; cell < cells; cell++) {
        long first = cell_starts[cell], end = cell_starts[cell + 1], wanted = 0;
        if (first == end) continue;
        for (long t = 0; t < targets; t++)
            if (means[cell * targets + t] >= floor[t]) q[wanted] = folded + t * width, active[wanted++] = t;
        if (!wanted) continue;
        for (long start = first; start < end; start += TILE) {
            const float *x[TILE], *next[TILE];
            long n = MIN(TILE, end - start), stop = start + n < end ? end : cell_starts[MIN(cell + 2, cells)];
            long ahead = MIN(TILE, stop - start - n); /* the next tile: most often it will be wanted, too */
            for (long i = 0; i < n; i++) x[i] = part(table, size, more, width, rows[start + i]);
            for (long i = 0; i < ahead; i++) next[i] = part(table, size, more, width, rows[start + n + i]);
            tile(q, wanted, x, n, width, out, next, ahead);
            for (long a = 0; a < wanted; a++) offer(best, active[a], out + a * TILE, start, n);
        }
    }
    free(q), free(active), free(out);
    return 0;
}

/* Target attention over chosen places, and its gradient: what model/nn/attend.py calls, letters as there.

   A plain shared library, without Python in it; model/nn/attend_portable.py has the same in numba for machines without a C
   compiler. Vectors hold heads innermost (element i h + head), so that a lane of a register belongs to one head and a logit
   is a sum of few lanes; h is 1, 2, 4 or 8, d a multiple of 8 up to 256. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define LANES 8
#define MOST 32 /* registers' worth of a vector: d is at most 256 */
#define INLINE static inline __attribute__((always_inline))
#if defined(__x86_64__)
#define WIDE __attribute__((target("avx2,fma")))
#define HAS_WIDE (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
#else
#define WIDE
#define HAS_WIDE 1
#endif
#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLE(a, ...) __builtin_shufflevector(a, a, __VA_ARGS__)
#else
#define SHUFFLE(a, ...) __builtin_shuffle(a, (I8){__VA_ARGS__})
#endif

typedef float V8 __attribute__((vector_size(32), aligned(4)));
typedef int32_t I8 __attribute__((vector_size(32), aligned(4)));

typedef struct {
    const float *q, *keys, *values; /* [n, d], [l, d], [l, d] */
    const float *bias;              /* [codes, 8]: lane x is that of head x % h */
    const int64_t *time, *kind;     /* [l] */
    const int64_t *now;             /* [t] */
    const int64_t *edges;           /* [b - 1] */
    const int32_t *places;          /* [m, k], -1: none from here on */
    uint8_t *codes;                 /* [m, k] */
    float *out, *mass, *weights;    /* [n, d], [n, h], [n, k, h] */
    const float *d_out, *d_mass;    /* [n, d], [n, h] */
    float *d_q, *d_keys, *d_values, *d_bias;
    int64_t b, kinds, l, c, k, share, d, h;
} Work;

INLINE V8 load(const float *x) { return *(const V8 *)x; }

INLINE V8 larger(V8 a, V8 b) {
    I8 above = a > b;
    return (V8)(((I8)a & above) | ((I8)b & ~above));
}

/* Each lane: the sum over the lanes of its head. */
INLINE V8 by_head(V8 a, const int h) {
    if (h <= 4) a += SHUFFLE(a, 4, 5, 6, 7, 0, 1, 2, 3);
    if (h <= 2) a += SHUFFLE(a, 2, 3, 0, 1, 6, 7, 4, 5);
    if (h <= 1) a += SHUFFLE(a, 1, 0, 3, 2, 5, 4, 7, 6);
    return a;
}

/* Values of heads [h], each in the lanes of its head. */
INLINE V8 spread(const float *x, const int h) {
    V8 found;
    for (int lane = 0; lane < LANES; lane++) found[lane] = x[lane % h];
    return found;
}

/* exp of x <= 0 to 2e-7, relative (Cephes). */
INLINE V8 exp8(V8 x) {
    x = larger(x, (V8){} - 87.0f);
    V8 y = x * 1.4426950408889634f + 0.5f;
    I8 i = __builtin_convertvector(y, I8);
    i += __builtin_convertvector(i, V8) > y; /* rounded towards zero: one less below it */
    V8 f = __builtin_convertvector(i, V8), r = x - f * 0.693359375f + f * 2.12194440e-4f;
    V8 p = (V8){} + 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return p * (V8)((i + 127) << 23);
}

INLINE V8 dot(const V8 *a, const float *b, const int groups, const int h) {
    V8 even = {}, odd = {};
    int g = 0;
    for (; g + 1 < groups; g += 2) {
        even += a[g] * load(b + LANES * g);
        odd += a[g + 1] * load(b + LANES * g + LANES);
    }
    if (g < groups) even += a[g] * load(b + LANES * g);
    return by_head(even + odd, h);
}

/* Codes of the places of a moment's rows: gap bucket and kind. Gaps shrink along the history, so buckets are walked once. */
static void encode(const Work *w, int64_t now, long first, long last, uint8_t *table) {
    int64_t low = w->l, high = 0;
    for (long e = first * w->k; e < last * w->k; e++) {
        int64_t p = w->places[e];
        if (p < 0) continue;
        if (p < low) low = p;
        if (p >= high) high = p + 1;
    }
    int64_t bucket = w->b - 1;
    for (int64_t p = low; p < high; p++) {
        while (bucket > 0 && w->edges[bucket - 1] >= now - w->time[p]) bucket--;
        table[p] = (uint8_t)(bucket * w->kinds + w->kind[p]);
    }
    for (long e = first * w->k; e < last * w->k; e++)
        if (w->places[e] >= 0) w->codes[e] = table[w->places[e]];
}

INLINE void forward(const Work *w, long first, long last, uint8_t *table, float *logits, const int groups, const int h) {
    const long k = w->k, d = LANES * groups;
    for (long n = first; n < last; n++) {
        if (n == first || n % w->c == 0) {
            long end = (n / w->c + 1) * w->c;
            end = end < last ? end : last;
            encode(w, w->now[n / w->c], n / w->share, (end - 1) / w->share + 1, table);
        }
        const int32_t *row = w->places + n / w->share * k;
        const uint8_t *codes = w->codes + n / w->share * k;
        float *weights = w->weights + n * k * h;
        V8 target[MOST], mixed[MOST], top = {};
        for (int g = 0; g < groups; g++) target[g] = load(w->q + n * d + LANES * g), mixed[g] = (V8){};
        long found = 0;
        for (; found < k && row[found] >= 0; found++) {
            V8 s = dot(target, w->keys + row[found] * d, groups, h) + load(w->bias + LANES * codes[found]);
            *(V8 *)(logits + LANES * found) = s;
            top = larger(top, s);
        }
        V8 total = exp8(-top);
        for (long j = 0; j < found; j++) {
            V8 share = exp8(load(logits + LANES * j) - top);
            *(V8 *)(logits + LANES * j) = share;
            total += share;
            const float *value = w->values + row[j] * d;
            for (int g = 0; g < groups; g++) mixed[g] += share * load(value + LANES * g);
        }
        V8 scale = 1.0f / total;
        for (int g = 0; g < groups; g++) *(V8 *)(w->out + n * d + LANES * g) = mixed[g] * scale;
        for (int head = 0; head < h; head++) w->mass[n * h + head] = top[head] + logf(total[head]);
        for (long j = 0; j < found; j++) {
            V8 share = load(logits + LANES * j) * scale;
            memcpy(weights + j * h, &share, sizeof(float) * h);
        }
        memset(weights + found * h, 0, sizeof(float) * (k - found) * h);
    }
}

INLINE void backward(const Work *w, long first, long last, float *slopes, const int groups, const int h) {
    const long k = w->k, d = LANES * groups;
    for (long n = first; n < last; n++) {
        const int32_t *row = w->places + n / w->share * k;
        const uint8_t *codes = w->codes + n / w->share * k;
        const float *weights = w->weights + n * k * h;
        V8 target[MOST], slope[MOST], sums[MOST], mean = -spread(w->d_mass + n * h, h);
        for (int g = 0; g < groups; g++) {
            target[g] = load(w->q + n * d + LANES * g);
            slope[g] = load(w->d_out + n * d + LANES * g);
            sums[g] = (V8){};
        }
        long found = 0;
        for (; found < k && row[found] >= 0; found++) {
            V8 share = spread(weights + found * h, h), s = dot(slope, w->values + row[found] * d, groups, h);
            *(V8 *)(slopes + LANES * found) = s;
            mean += share * s;
            float *to = w->d_values + row[found] * d;
            for (int g = 0; g < groups; g++) *(V8 *)(to + LANES * g) += share * slope[g];
        }
        for (long j = 0; j < found; j++) {
            V8 s = spread(weights + j * h, h) * (load(slopes + LANES * j) - mean);
            *(V8 *)(w->d_bias + LANES * codes[j]) += s;
            const float *key = w->keys + row[j] * d;
            float *to = w->d_keys + row[j] * d;
            for (int g = 0; g < groups; g++) {
                sums[g] += s * load(key + LANES * g);
                *(V8 *)(to + LANES * g) += s * target[g];
            }
        }
        for (int g = 0; g < groups; g++) *(V8 *)(w->d_q + n * d + LANES * g) = sums[g];
    }
}

/* Widths and heads that the compiler knows keep sums in registers: those of the paper, and any. */
#define EACH(call, ...)                                                               \
    if (w->d == 64 && w->h == 4) call(w, first, last, __VA_ARGS__, 8, 4);             \
    else if (w->h == 1) call(w, first, last, __VA_ARGS__, (int)(w->d / LANES), 1);    \
    else if (w->h == 2) call(w, first, last, __VA_ARGS__, (int)(w->d / LANES), 2);    \
    else if (w->h == 4) call(w, first, last, __VA_ARGS__, (int)(w->d / LANES), 4);    \
    else call(w, first, last, __VA_ARGS__, (int)(w->d / LANES), 8);

WIDE static void forward_wide(const Work *w, long first, long last, uint8_t *table, float *logits) {
    EACH(forward, table, logits)
}

static void forward_plain(const Work *w, long first, long last, uint8_t *table, float *logits) {
    EACH(forward, table, logits)
}

WIDE static void backward_wide(const Work *w, long first, long last, float *slopes) { EACH(backward, slopes) }

static void backward_plain(const Work *w, long first, long last, float *slopes) { EACH(backward, slopes) }

/* Targets first to last; returns 1 where there is no memory. */
int attend(const Work *w, long first, long last) {
    uint8_t *table = malloc(w->l + 1);
    float *logits = malloc(sizeof(float) * LANES * (w->k + 1));
    if (table && logits) (HAS_WIDE ? forward_wide : forward_plain)(w, first, last, table, logits);
    free(table);
    free(logits);
    return !table || !logits;
}

/* Adds to d_keys, d_values and d_bias, which no other call may share meanwhile, and fills d_q; returns 1 likewise. */
int attend_backward(const Work *w, long first, long last) {
    float *slopes = malloc(sizeof(float) * LANES * (w->k + 1));
    if (slopes) (HAS_WIDE ? backward_wide : backward_plain)(w, first, last, slopes);
    free(slopes);
    return !slopes;
}

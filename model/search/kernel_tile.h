/* Inner products of W-wide vectors; included once a vector width. Needs W, V (the vector type), NAME(x). */

static inline TARGET void NAME(quad)(V a, V b, V c, V d, float *out) {
#if W == 16
    typedef float V8 __attribute__((vector_size(32)));
    V8 a8 = __builtin_shufflevector(a, a, 0, 1, 2, 3, 4, 5, 6, 7) + __builtin_shufflevector(a, a, 8, 9, 10, 11, 12, 13, 14, 15);
    V8 b8 = __builtin_shufflevector(b, b, 0, 1, 2, 3, 4, 5, 6, 7) + __builtin_shufflevector(b, b, 8, 9, 10, 11, 12, 13, 14, 15);
    V8 c8 = __builtin_shufflevector(c, c, 0, 1, 2, 3, 4, 5, 6, 7) + __builtin_shufflevector(c, c, 8, 9, 10, 11, 12, 13, 14, 15);
    V8 d8 = __builtin_shufflevector(d, d, 0, 1, 2, 3, 4, 5, 6, 7) + __builtin_shufflevector(d, d, 8, 9, 10, 11, 12, 13, 14, 15);
#elif W == 8
    V a8 = a, b8 = b, c8 = c, d8 = d;
#endif
#if W == 4
    V4 ab = __builtin_shufflevector(a, b, 0, 4, 2, 6) + __builtin_shufflevector(a, b, 1, 5, 3, 7);
    V4 cd = __builtin_shufflevector(c, d, 0, 4, 2, 6) + __builtin_shufflevector(c, d, 1, 5, 3, 7);
#else
    V4 a4 = __builtin_shufflevector(a8, a8, 0, 1, 2, 3) + __builtin_shufflevector(a8, a8, 4, 5, 6, 7);
    V4 b4 = __builtin_shufflevector(b8, b8, 0, 1, 2, 3) + __builtin_shufflevector(b8, b8, 4, 5, 6, 7);
    V4 c4 = __builtin_shufflevector(c8, c8, 0, 1, 2, 3) + __builtin_shufflevector(c8, c8, 4, 5, 6, 7);
    V4 d4 = __builtin_shufflevector(d8, d8, 0, 1, 2, 3) + __builtin_shufflevector(d8, d8, 4, 5, 6, 7);
    V4 ab = __builtin_shufflevector(a4, b4, 0, 4, 2, 6) + __builtin_shufflevector(a4, b4, 1, 5, 3, 7);
    V4 cd = __builtin_shufflevector(c4, d4, 0, 4, 2, 6) + __builtin_shufflevector(c4, d4, 1, 5, 3, 7);
#endif
    V4 sum = __builtin_shufflevector(ab, cd, 0, 1, 4, 5) + __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
    memcpy(out, &sum, sizeof sum);
}

/* out[a][i] = <q[a], x[i]>: three targets and four parts at a time, whose sums stay in registers. The parts that come
   next lie far apart in memory: they are asked for, a few lines a step, while these are worked on. */
static TARGET void NAME(tile)(const float *const *q, long targets, const float *const *x, long n, long width, float *out,
                              const float *const *next, long ahead) {
    long whole = width - width % W, asked = 0, line = 0;
    long quota = ahead * (width / LINE + 1) / (((targets + 2) / 3) * ((n + 3) / 4)) + 1;
    for (long a = 0; a < targets; a += 3) {
        const float *q0 = q[a], *q1 = q[MIN(a + 1, targets - 1)], *q2 = q[MIN(a + 2, targets - 1)];
        float *o0 = out + a * TILE, *o1 = o0 + TILE, *o2 = o1 + TILE;
        for (long i = 0; i < n; i += 4) {
            const float *x0 = x[i], *x1 = x[MIN(i + 1, n - 1)], *x2 = x[MIN(i + 2, n - 1)], *x3 = x[MIN(i + 3, n - 1)];
            for (long step = 0; step < quota && asked < ahead; step++) {
                __builtin_prefetch(next[asked] + line, 0, 2);
                if ((line += LINE) >= width) line = 0, asked++;
            }
            V s00 = {0}, s01 = {0}, s02 = {0}, s03 = {0}, s10 = {0}, s11 = {0}, s12 = {0}, s13 = {0};
            V s20 = {0}, s21 = {0}, s22 = {0}, s23 = {0};
            for (long j = 0; j < whole; j += W) {
                V y0, y1, y2, y3, p;
                memcpy(&y0, x0 + j, sizeof y0), memcpy(&y1, x1 + j, sizeof y1);
                memcpy(&y2, x2 + j, sizeof y2), memcpy(&y3, x3 + j, sizeof y3);
                memcpy(&p, q0 + j, sizeof p), s00 += p * y0, s01 += p * y1, s02 += p * y2, s03 += p * y3;
                memcpy(&p, q1 + j, sizeof p), s10 += p * y0, s11 += p * y1, s12 += p * y2, s13 += p * y3;
                memcpy(&p, q2 + j, sizeof p), s20 += p * y0, s21 += p * y1, s22 += p * y2, s23 += p * y3;
            }
            NAME(quad)(s00, s01, s02, s03, o0 + i);
            NAME(quad)(s10, s11, s12, s13, o1 + i);
            NAME(quad)(s20, s21, s22, s23, o2 + i);
            for (long j = whole; j < width; j++) {
                o0[i] += q0[j] * x0[j], o0[i + 1] += q0[j] * x1[j], o0[i + 2] += q0[j] * x2[j], o0[i + 3] += q0[j] * x3[j];
                o1[i] += q1[j] * x0[j], o1[i + 1] += q1[j] * x1[j], o1[i + 2] += q1[j] * x2[j], o1[i + 3] += q1[j] * x3[j];
                o2[i] += q2[j] * x0[j], o2[i + 1] += q2[j] * x1[j], o2[i + 2] += q2[j] * x2[j], o2[i + 3] += q2[j] * x3[j];
            }
        }
    }
}

/* A bit for each score that exceeds its threshold. */
static inline TARGET unsigned NAME(above)(V score, V least) {
#if W == 16
    return _mm512_cmp_ps_mask((__m512)score, (__m512)least, _CMP_GT_OQ);
#elif W == 8
    return (unsigned)_mm256_movemask_ps(_mm256_cmp_ps((__m256)score, (__m256)least, _CMP_GT_OQ));
#else
    unsigned hits = 0;
    for (int lane = 0; lane < W; lane++) hits |= (unsigned)(score[lane] > least[lane]) << lane;
    return hits;
#endif
}

/* select_all (kernel.c): a behaviour's scores for all targets at once; what exceeds a target's threshold goes to its buffer. */
static TARGET void NAME(select)(const Best *best, const float *own, long first, long n, const float *queries, long padded,
                                float *least, long offset, long stride) {
    const int64_t *starts = best->starts + first;
    long unit = 0;
    for (long e = starts[0] + offset; e < starts[n]; e += stride) {
        while (starts[unit + 1] <= e) unit++;
        const float *row = own + unit * padded, *words = queries + best->column[e] * padded;
        float bias = best->bias[e];
        for (long t = 0; t < padded; t += W) {
            V a, b, bar;
            memcpy(&a, row + t, sizeof a), memcpy(&b, words + t, sizeof b), memcpy(&bar, least + t, sizeof bar);
            V score = a + b + bias;
            for (unsigned hits = NAME(above)(score, bar); hits; hits &= hits - 1) {
                long lane = __builtin_ctz(hits), target = t + lane, fill = best->fill[target];
                float *scores = best->scores + target * best->slots;
                int32_t *places = best->places + target * best->slots;
                scores[fill] = score[lane], places[fill++] = best->order[e];
                if (fill == best->slots) least[target] = cut(scores, places, fill, best->k), fill = best->k;
                best->fill[target] = fill;
            }
        }
    }
}

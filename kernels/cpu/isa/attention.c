/* Attention of the query heads that share one key/value head, over a paged cache. Positions count
 * from the first span on into the second; every sum runs over them, or over head_dim, in that
 * order, so pages and spans leave no trace in the bits. */
#include "kernels/cpu/isa/vector.h"

/* Heads and pages, or heads and vectors of head_dim, that one tile holds in registers. */
#if defined(__AVX512F__)
enum { TILE_HEADS = 4, TILE_PAGES = 4, TILE_VECTORS = 4 };
#elif defined(__AVX2__)
enum { TILE_HEADS = 3, TILE_PAGES = 2, TILE_VECTORS = 4 };
#else
enum { TILE_HEADS = 2, TILE_PAGES = 1, TILE_VECTORS = 4 };
#endif

typedef struct score_tile {
  const float *keys[TILE_PAGES]; /* each [head_dim, PAGE_TOKENS] */
  const float *q;                /* [heads, head_dim] */
  int32_t head_dim;
  float scale;
  float *scores; /* of the first head and position; pages follow one another */
  int64_t stride;
} score_tile;

/* Scores of H heads with the positions of P pages: dot products from the first feature on. */
INLINE void score(const score_tile *t, const int H, const int P) {
  enum { MAX = TILE_HEADS * TILE_PAGES * SUBS };
  vec sums[MAX] = {0};
  const int N = P * SUBS;
  for (int32_t d = 0; d < t->head_dim; d++) {
    vec k[TILE_PAGES * SUBS];
#pragma GCC unroll 16
    for (int n = 0; n < N; n++)
      k[n] = load(t->keys[n / SUBS] + (int64_t)d * PDT_PAGE_TOKENS + n % SUBS * LANES);
#pragma GCC unroll 4
    for (int h = 0; h < H; h++) {
      vec q = splat(t->q[(int64_t)h * t->head_dim + d]);
#pragma GCC unroll 16
      for (int n = 0; n < N; n++) sums[h * N + n] = madd(k[n], q, sums[h * N + n]);
    }
  }
  for (int h = 0; h < H; h++)
    for (int n = 0; n < N; n++)
      store(t->scores + h * t->stride + n * LANES, sums[h * N + n] * splat(t->scale));
}

static void score_heads(const score_tile *t, int heads, bool all_pages) {
  switch (heads) {
  case 1:
    all_pages ? score(t, 1, TILE_PAGES) : score(t, 1, 1);
    break;
  case 2:
    all_pages ? score(t, 2, TILE_PAGES) : score(t, 2, 1);
    break;
#if defined(__AVX2__)
  case 3:
    all_pages ? score(t, 3, TILE_PAGES) : score(t, 3, 1);
    break;
#endif
#if defined(__AVX512F__)
  case 4:
    all_pages ? score(t, 4, TILE_PAGES) : score(t, 4, 1);
    break;
#endif
  }
}

/* Scores of one span, the first of its positions at *scores. Pages are computed whole: the places
 * that the first one skips are written before *scores, those past the span's end behind its last,
 * where the next span overwrites them or nobody reads. */
static void score_span(const pdt_kv_view *kv, const pdt_kv_span *span, const float *q,
                       int32_t n_heads, float *scores, int64_t stride) {
  score_tile t = {
      .head_dim = kv->head_dim, .scale = 1.0f / sqrtf((float)kv->head_dim), .stride = stride};
  int32_t end = span->skip + span->tokens;
  int32_t n_pages = end / PDT_PAGE_TOKENS + (end % PDT_PAGE_TOKENS != 0);
  for (int32_t page = 0; page < n_pages;) {
    int count = n_pages - page >= TILE_PAGES ? TILE_PAGES : 1;
    for (int p = 0; p < count; p++) t.keys[p] = kv->base + span->pages[page + p] * kv->page_elems;
    for (int32_t h = 0; h < n_heads; h += TILE_HEADS) {
      t.q = q + (int64_t)h * kv->head_dim;
      t.scores = scores + h * stride + (int64_t)page * PDT_PAGE_TOKENS - span->skip;
      score_heads(&t, n_heads - h < TILE_HEADS ? n_heads - h : TILE_HEADS, count == TILE_PAGES);
    }
    page += count;
  }
}

typedef struct mix_tile {
  const pdt_kv_view *kv;
  const float *weights; /* of the first head; a head every `stride` */
  int64_t stride;
  int32_t feature; /* first of head_dim in this tile */
  float *out;      /* [heads, head_dim], the first head's */
} mix_tile;

/* out[h] = sum over positions of weight[h] * value, features `feature` .. + N * LANES, cut at
 * head_dim (cut: N = 1, and fewer than LANES features are left). */
INLINE void mix(const mix_tile *t, const int H, const int N, const bool cut) {
  const pdt_kv_view *kv = t->kv;
  vec sums[TILE_HEADS * TILE_VECTORS] = {0};
  const float *weights = t->weights;
  int32_t left = kv->head_dim - t->feature;
  for (int s = 0; s < 2; s++) {
    const pdt_kv_span *span = &kv->spans[s];
    uint32_t first = (uint32_t)span->skip, end = first + (uint32_t)span->tokens;
    for (uint32_t i = first; i < end; i++, weights++) {
      const float *value = kv->base + span->pages[i / PDT_PAGE_TOKENS] * kv->page_elems +
                           (int64_t)(PDT_PAGE_TOKENS + i % PDT_PAGE_TOKENS) * kv->head_dim +
                           t->feature;
      vec v[TILE_VECTORS];
#pragma GCC unroll 4
      for (int n = 0; n < N; n++)
        v[n] = cut ? load_first(value + n * LANES, left, 0) : load(value + n * LANES);
#pragma GCC unroll 4
      for (int h = 0; h < H; h++) {
        vec weight = splat(weights[h * t->stride]);
#pragma GCC unroll 4
        for (int n = 0; n < N; n++) sums[h * N + n] = madd(v[n], weight, sums[h * N + n]);
      }
    }
  }
  for (int h = 0; h < H; h++)
    for (int n = 0; n < N; n++)
      store_first(t->out + (int64_t)h * kv->head_dim + t->feature + n * LANES, sums[h * N + n],
                  cut ? left : LANES);
}

INLINE void mix_vectors(const mix_tile *t, const int H, int vectors) {
  if (vectors == TILE_VECTORS)
    mix(t, H, TILE_VECTORS, false);
  else
    vectors == 1 ? mix(t, H, 1, false) : mix(t, H, 1, true);
}

/* vectors: TILE_VECTORS, 1, or 0 for a tile that is cut. */
static void mix_heads(const mix_tile *t, int heads, int vectors) {
  switch (heads) {
  case 1:
    mix_vectors(t, 1, vectors);
    break;
  case 2:
    mix_vectors(t, 2, vectors);
    break;
#if defined(__AVX2__)
  case 3:
    mix_vectors(t, 3, vectors);
    break;
#endif
#if defined(__AVX512F__)
  case 4:
    mix_vectors(t, 4, vectors);
    break;
#endif
  }
}

void PDT_ISA_NAME(attention)(const pdt_kv_view *kv, const float *q, int32_t n_heads, float *out,
                             float *scratch) {
  int64_t stride = 0, tokens = 0, skip = 0;
  for (int s = 0; s < 2; s++) {
    int64_t n = kv->spans[s].tokens, places = kv->spans[s].skip + n;
    tokens += n;
    skip += kv->spans[s].skip;
    stride += (places + PDT_PAGE_TOKENS - 1) / PDT_PAGE_TOKENS * PDT_PAGE_TOKENS;
  }
  /* A head's scores end as many places before the next head's as the first page skips. */
  float *scores = scratch + skip;
  score_span(kv, &kv->spans[0], q, n_heads, scores, stride);
  score_span(kv, &kv->spans[1], q, n_heads, scores + kv->spans[0].tokens, stride);
  for (int32_t h = 0; h < n_heads; h++) PDT_ISA_NAME(softmax)(scores + h * stride, tokens);
  for (int32_t h = 0; h < n_heads; h += TILE_HEADS) {
    mix_tile t = {.kv = kv,
                  .weights = scores + h * stride,
                  .stride = stride,
                  .out = out + (int64_t)h * kv->head_dim};
    while (t.feature < kv->head_dim) {
      int32_t left = kv->head_dim - t.feature;
      int vectors = left >= TILE_VECTORS * LANES ? TILE_VECTORS : left >= LANES ? 1 : 0;
      mix_heads(&t, n_heads - h < TILE_HEADS ? n_heads - h : TILE_HEADS, vectors);
      t.feature += (vectors ? vectors : 1) * LANES;
    }
  }
}

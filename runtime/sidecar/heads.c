/* The heads that close a block (3.6, 3.7). One thread works on one block. */
#include <math.h>
#include <string.h>

#include "sidecar/internal.h"

static float sigmoid(float x) {
  return (float)(1.0 / (1.0 + exp(-(double)x)));
}

static double dot(const float *a, const float *b, int32_t n) {
  double sum = 0;
  for (int32_t i = 0; i < n; i++) sum += (double)a[i] * b[i];
  return sum;
}

/* y += W x for one row; room holds W's outputs. */
static void add_product(const pdt_sidecar *s, const pdt_matrix *w, const float *x, float *room,
                        float *y) {
  s->kernels->matmul(w, x, w->in, 1, room, w->out, 1);
  for (int32_t i = 0; i < w->out; i++) y[i] += room[i];
}

/* Where the pieces of a block's scratch lie. */
typedef struct block_room {
  float *pooled; /* [p] */
  float *mixed;  /* [d] */
  float *scores; /* [tau] or [B] */
  float *heads;  /* [tau, ph] */
  float *wide;   /* [2, widest product] */
  float *sum;    /* [da], and the slots' probabilities [S] behind it */
} block_room;

static int32_t largest(int32_t a, int32_t b) {
  return a > b ? a : b;
}

static int32_t widest_product(const pdt_sidecar_config *c) {
  int32_t wide = largest(c->notes_dim, c->speculation_hidden);
  return largest(largest(wide, c->coverage_dim), c->agree_dim);
}

int64_t pdt_sidecar_block_elems(const pdt_sidecar *s, int32_t block_tokens, int32_t budget) {
  const pdt_sidecar_config *c = &s->config;
  return (int64_t)pdt_sidecar_pooled(c) + c->hidden_size + largest(block_tokens, budget) +
         (int64_t)block_tokens * largest(c->pool_heads, 1) + 2 * (int64_t)widest_product(c) +
         c->agree_dim + c->plan_slots;
}

static block_room lay_out(const pdt_sidecar *s, float *scratch, int32_t n, int32_t budget) {
  const pdt_sidecar_config *c = &s->config;
  block_room room;
  room.pooled = scratch;
  room.mixed = room.pooled + pdt_sidecar_pooled(c);
  room.scores = room.mixed + c->hidden_size;
  room.heads = room.scores + largest(n, budget);
  room.wide = room.heads + (int64_t)n * largest(c->pool_heads, 1);
  room.sum = room.wide + 2 * widest_product(c);
  return room;
}

/* Summary of a block from its states [n, d]. */
static void pool(const pdt_sidecar *s, const float *states, int32_t n, const block_room *room) {
  int32_t d = s->config.hidden_size, ph = s->config.pool_heads, pd = s->config.pool_dim;
  if (s->config.pool == PDT_POOL_LAST) {
    memcpy(room->pooled, states + (int64_t)(n - 1) * d, (size_t)d * sizeof *states);
    return;
  }
  s->kernels->matmul(&s->pool_query, states, d, n, room->heads, ph, 1);
  float scale = (float)(1.0 / sqrt((double)d));
  for (int32_t j = 0; j < ph; j++) {
    for (int32_t u = 0; u < n; u++) room->scores[u] = room->heads[(int64_t)u * ph + j] * scale;
    s->kernels->softmax(room->scores, n);
    memset(room->mixed, 0, (size_t)d * sizeof *room->mixed);
    for (int32_t u = 0; u < n; u++)
      for (int32_t i = 0; i < d; i++)
        room->mixed[i] += room->scores[u] * states[(int64_t)u * d + i];
    s->kernels->matmul(&s->pool_value[j], room->mixed, d, 1, room->pooled + (int64_t)j * pd, pd, 1);
  }
}

/* The provisional note (eq. 8). */
static void speculate(const pdt_sidecar *s, const block_room *room, float *note) {
  int32_t dn = s->config.notes_dim, h = s->config.speculation_hidden;
  memcpy(note, s->speculation_bias, (size_t)dn * sizeof *note);
  add_product(s, &s->speculation, room->pooled, room->wide, note);
  if (h > 0) {
    float *hidden = room->wide + widest_product(&s->config);
    memcpy(hidden, s->hidden_bias, (size_t)h * sizeof *hidden);
    add_product(s, &s->hidden, room->pooled, room->wide, hidden);
    s->kernels->gelu(hidden, h);
    add_product(s, &s->hidden_out, hidden, room->wide, note);
  }
  s->kernels->rms_norm(note, NULL, 1e-6f, dn, note);
}

/* Logit per plan slot (eq. 9), 0 for empty ones. */
static void cover(const pdt_sidecar *s, const pdt_plan *plan, const block_room *room,
                  float *coverage) {
  int32_t dc = s->config.coverage_dim;
  s->kernels->matmul(&s->coverage_block, room->pooled, s->coverage_block.in, 1, room->wide, dc, 1);
  for (int32_t i = 0; i < s->config.plan_slots; i++) {
    double logit = dot(plan->items + (int64_t)i * dc, room->wide, dc) / sqrt((double)dc);
    coverage[i] = plan->ids[i] != 0 ? (float)(logit + (double)s->coverage_bias) : 0;
  }
}

/* Attention of the last state over the window, added to the readiness sum. */
static void add_window(const pdt_sidecar *s, const float *last, const pdt_window *w,
                       const block_room *room) {
  int32_t da = s->config.agree_dim;
  if (w->n == 0) return;
  s->kernels->matmul(&s->agree_query, last, s->agree_query.in, 1, room->wide, da, 1);
  for (int32_t i = 0; i < w->n; i++)
    room->scores[i] =
        (float)(dot(room->wide, w->agree_keys + (int64_t)i * da, da) / sqrt((double)da));
  s->kernels->softmax(room->scores, w->n);
  for (int32_t i = 0; i < w->n; i++)
    for (int32_t j = 0; j < da; j++)
      room->sum[j] += room->scores[i] * w->agree_values[(int64_t)i * da + j];
}

/* Readiness (eq. 10); NaN where its logit is no finite number, which a sigmoid would hide. */
static float agree(const pdt_sidecar *s, const float *last, const pdt_window *window,
                   const pdt_plan *plan, const float *coverage, const float *note,
                   const block_room *room) {
  int32_t da = s->config.agree_dim, S = s->config.plan_slots;
  float *covered = room->sum + da;
  for (int32_t i = 0; i < S; i++) covered[i] = plan->ids[i] != 0 ? sigmoid(coverage[i]) : 0;
  memcpy(room->sum, s->agree_bias, (size_t)da * sizeof *room->sum);
  add_product(s, &s->agree_hidden, last, room->wide, room->sum);
  add_product(s, &s->agree_pool, room->pooled, room->wide, room->sum);
  add_product(s, &s->agree_note, note, room->wide, room->sum);
  add_product(s, &s->agree_coverage, covered, room->wide, room->sum);
  add_window(s, last, window, room);
  s->kernels->gelu(room->sum, da);
  float logit = (float)(dot(s->agree_out, room->sum, da) + (double)s->agree_out_bias);
  return isfinite(logit) ? sigmoid(logit) : NAN;
}

void pdt_sidecar_close_block(const pdt_sidecar *s, const float *states, int32_t n,
                             const pdt_window *window, const pdt_plan *plan, float *scratch,
                             float *note, float *coverage, float *readiness) {
  block_room room = lay_out(s, scratch, n, window->budget);
  const float *last = states + (int64_t)(n - 1) * s->config.hidden_size;
  pool(s, states, n, &room);
  speculate(s, &room, note);
  cover(s, plan, &room, coverage);
  *readiness = agree(s, last, window, plan, coverage, note, &room);
}

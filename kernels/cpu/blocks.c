/* The heads that close a block (3.6, 3.7), one thread a block, and what a planner reads. */
#include <math.h>
#include <string.h>

#include "kernels/cpu/operations.h"

static float sigmoid(float x) {
  return (float)(1.0 / (1.0 + exp(-(double)x)));
}

static double dot(const float *a, const float *b, int32_t n) {
  double sum = 0;
  for (int32_t i = 0; i < n; i++) sum += (double)a[i] * b[i];
  return sum;
}

/* What closing one block works with, and where the pieces of its scratch lie. */
typedef struct closing {
  const pdt_cpu_primitives *k;
  const pdt_block_heads *heads;
  const pdt_block *block;
  const float *last; /* [d] the last state */
  float *summary;    /* [p] */
  float *mixed;      /* [d] */
  float *scores;     /* [n_states] or [n_notes] */
  float *pool;       /* [n_states, pool_heads] */
  float *wide;       /* [2, widest product] */
  float *sum;        /* [da], and the slots' probabilities [S] behind it */
} closing;

static int32_t largest(int32_t a, int32_t b) {
  return a > b ? a : b;
}

/* p: the width of a block's summary. */
static int32_t summary_width(const pdt_block_heads *h) {
  return h->pool_heads > 0 ? h->pool_heads * h->pool_dim : h->width;
}

static int32_t widest_product(const pdt_block_heads *h) {
  int32_t wide = largest(h->notes_dim, h->hidden_dim);
  return largest(largest(wide, h->coverage_dim), h->agree_dim);
}

int64_t pdt_cpu_block_elems(const pdt_room *most) {
  const pdt_block_heads *h = most->block_heads;
  if (most->blocks == 0) return 0;
  return (int64_t)summary_width(h) + h->width + largest(most->block_tokens, most->block_notes) +
         (int64_t)most->block_tokens * largest(h->pool_heads, 1) + 2 * (int64_t)widest_product(h) +
         h->agree_dim + h->slots;
}

static closing lay_out(const pdt_device *dev, const pdt_block_heads *h, const pdt_block *block) {
  closing c = {.k = pdt_cpu_of(dev), .heads = h, .block = block};
  c.last = block->states.at + (int64_t)(block->n_states - 1) * h->width;
  c.summary = pdt_cpu_scratch(dev);
  c.mixed = c.summary + summary_width(h);
  c.scores = c.mixed + h->width;
  c.pool = c.scores + largest(block->n_states, block->n_notes);
  c.wide = c.pool + (int64_t)block->n_states * largest(h->pool_heads, 1);
  c.sum = c.wide + 2 * widest_product(h);
  return c;
}

/* y += W x for one row; wide takes W's outputs. */
static void add_product(const closing *c, const pdt_matrix *w, const float *x, float *y) {
  c->k->matmul(w, x, w->in, 1, c->wide, w->out, 1);
  for (int32_t i = 0; i < w->out; i++) y[i] += c->wide[i];
}

/* Summary of a block from what its pool reads [n, d], and from what its last heads copy. */
static void summarize(const closing *c) {
  const pdt_block_heads *h = c->heads;
  const float *states = c->block->pooled.at ? c->block->pooled.at : c->block->states.at;
  int32_t d = h->width, ph = h->pool_heads, pd = h->pool_dim, n = c->block->n_states;
  if (ph == 0) {
    memcpy(c->summary, c->last, (size_t)d * sizeof *states);
    return;
  }
  c->k->matmul(&h->pool_query, states, d, n, c->pool, ph, 1);
  float scale = (float)(1.0 / sqrt((double)d));
  for (int32_t j = 0; j < ph; j++) {
    const float *from = j < ph - h->pool_copies ? states : c->block->embedded.at;
    for (int32_t u = 0; u < n; u++) c->scores[u] = c->pool[(int64_t)u * ph + j] * scale;
    c->k->softmax(c->scores, n);
    memset(c->mixed, 0, (size_t)d * sizeof *c->mixed);
    for (int32_t u = 0; u < n; u++)
      for (int32_t i = 0; i < d; i++) c->mixed[i] += c->scores[u] * from[(int64_t)u * d + i];
    c->k->matmul(&h->pool_value[j], c->mixed, d, 1, c->summary + (int64_t)j * pd, pd, 1);
  }
}

/* The provisional note (eq. 8). */
static void speculate(const closing *c) {
  const pdt_block_heads *h = c->heads;
  float *note = c->block->note;
  memcpy(note, h->speculation_bias.at, (size_t)h->notes_dim * sizeof *note);
  add_product(c, &h->speculation, c->summary, note);
  if (h->hidden_dim > 0) {
    float *hidden = c->wide + widest_product(h);
    memcpy(hidden, h->hidden_bias.at, (size_t)h->hidden_dim * sizeof *hidden);
    add_product(c, &h->hidden, c->summary, hidden);
    c->k->gelu(hidden, h->hidden_dim);
    add_product(c, &h->hidden_out, hidden, note);
  }
  c->k->rms_norm(note, NULL, 1e-6f, h->notes_dim, note);
}

/* Logit per plan slot (eq. 9), 0 for empty ones. */
static void cover(const closing *c) {
  const pdt_block_heads *h = c->heads;
  const pdt_block *b = c->block;
  int32_t dc = h->coverage_dim;
  c->k->matmul(&h->coverage_block, c->summary, h->coverage_block.in, 1, c->wide, dc, 1);
  for (int32_t i = 0; i < h->slots; i++) {
    double logit = dot(b->plan_items.at + (int64_t)i * dc, c->wide, dc) / sqrt((double)dc);
    b->coverage[i] = b->plan_ids[i] != 0 ? (float)(logit + (double)h->coverage_bias) : 0;
  }
}

/* Attention of the last state, and of the note where it asks too, over the window, added to the
 * readiness sum. */
static void add_window(const closing *c) {
  const pdt_block *b = c->block;
  int32_t da = c->heads->agree_dim;
  if (b->n_notes == 0) return;
  float *query = c->wide + widest_product(c->heads);
  c->k->matmul(&c->heads->agree_query, c->last, c->heads->width, 1, query, da, 1);
  if (c->heads->note_query) add_product(c, &c->heads->agree_note_query, b->note, query);
  for (int32_t i = 0; i < b->n_notes; i++)
    c->scores[i] = (float)(dot(query, b->agree_keys.at + (int64_t)i * da, da) / sqrt((double)da));
  c->k->softmax(c->scores, b->n_notes);
  for (int32_t i = 0; i < b->n_notes; i++)
    for (int32_t j = 0; j < da; j++)
      c->sum[j] += c->scores[i] * b->agree_values.at[(int64_t)i * da + j];
}

/* Readiness (eq. 10); NaN where its logit is no finite number, which a sigmoid would hide. */
static float agree(const closing *c) {
  const pdt_block_heads *h = c->heads;
  const pdt_block *b = c->block;
  int32_t da = h->agree_dim;
  float *covered = c->sum + da;
  for (int32_t i = 0; i < h->slots; i++)
    covered[i] = b->plan_ids[i] != 0 ? sigmoid(b->coverage[i]) : 0;
  memcpy(c->sum, h->agree_bias.at, (size_t)da * sizeof *c->sum);
  add_product(c, &h->agree_hidden, c->last, c->sum);
  add_product(c, &h->agree_pool, c->summary, c->sum);
  add_product(c, &h->agree_note, b->note, c->sum);
  add_product(c, &h->agree_coverage, covered, c->sum);
  add_window(c);
  c->k->gelu(c->sum, da);
  float logit = (float)(dot(h->agree_out.at, c->sum, da) + (double)h->agree_out_bias);
  return isfinite(logit) ? sigmoid(logit) : NAN;
}

void pdt_cpu_close_blocks(pdt_device *dev, const pdt_block_heads *heads, const pdt_block *blocks,
                          int32_t n) {
#pragma omp parallel for num_threads(dev->threads) if (dev->threads > 1 && n > 1)
  for (int32_t i = 0; i < n; i++) {
    closing c = lay_out(dev, heads, &blocks[i]);
    summarize(&c);
    speculate(&c);
    cover(&c);
    *blocks[i].readiness = agree(&c);
  }
}

/* How much a token is marked of which this is read. */
static double mark_of(const pdt_plan_places *places, const float *read) {
  double square = 0, dot = 0;
  for (int64_t j = 0; j < places->width; j++) {
    square += (double)read[j] * (double)read[j];
    dot += (double)places->mark.at[j] * (double)read[j];
  }
  double mark = (double)places->mark_bias + dot / sqrt(square / places->width + 1e-6) + 0.5;
  return mark > 0 ? (mark < 1 ? mark : 1) : 0;
}

/* What slot i gives to a token that takes up [begin, end) of the line of marks. */
static double order_weight(const pdt_plan_places *places, int64_t i, double begin, double end) {
  double weight = 0;
  for (int64_t r = (int64_t)begin; r < places->n_orders && (double)r < end; r++) {
    double from = begin > (double)r ? begin : (double)r;
    double to = end < (double)(r + 1) ? end : (double)(r + 1);
    weight += (double)places->orders.at[i * places->n_orders + r] * (to - from);
  }
  return weight;
}

/* sum [d] += weight x. */
static void add_weighted(double *sum, double weight, const float *x, int64_t d) {
  for (int64_t j = 0; j < d; j++) sum[j] += weight * (double)x[j];
}

void pdt_cpu_plan_read(pdt_device *dev, const pdt_plan_places *places, pdt_array states,
                       pdt_array read, int32_t n, int32_t first, double *sums) {
  (void)dev;
  int64_t d = places->width, P = places->n_places, R = places->n_orders;
  double *marks = sums + (1 + places->slots) * d;
  for (int32_t r = 0; r < n; r++) {
    const float *state = states.at + r * d, *marked = R > 0 ? read.at + r * d : NULL;
    int32_t token = first + r;
    double begin = R > 0 ? *marks : 0, end = R > 0 ? begin + mark_of(places, marked) : 0;
    add_weighted(sums, 1, state, d);
    for (int64_t i = 0; token < P && i < places->slots; i++)
      add_weighted(sums + (1 + i) * d, (double)places->weights.at[i * P + token], state, d);
    for (int64_t i = 0; begin < end && begin < (double)R && i < places->slots; i++)
      add_weighted(sums + (1 + i) * d, order_weight(places, i, begin, end), marked, d);
    if (R > 0) *marks = end;
  }
}

#include "train/nn/heads.h"

#include <math.h>
#include <string.h>

static const double eps = 1e-6; /* of Norm */

/* ---- pool ---- */

/* Softmax of every head's scores over the rows of a block [steps, heads], in place. */
static void softmax_columns(pdt_real *x, int64_t steps, int64_t heads) {
  for (int64_t h = 0; h < heads; h++) {
    pdt_real most = x[h];
    for (int64_t u = 1; u < steps; u++) most = x[u * heads + h] > most ? x[u * heads + h] : most;
    pdt_real sum = 0;
    for (int64_t u = 0; u < steps; u++)
      sum += x[u * heads + h] = pdt_nn_exp(x[u * heads + h] - most);
    for (int64_t u = 0; u < steps; u++) x[u * heads + h] /= sum;
  }
}

/* From probabilities p and their gradient dp to the scores', times scale, in place. */
static void softmax_columns_back(const pdt_real *p, int64_t steps, int64_t heads, pdt_real scale,
                                 pdt_real *dp) {
  for (int64_t h = 0; h < heads; h++) {
    pdt_real mean = 0;
    for (int64_t u = 0; u < steps; u++) mean += p[u * heads + h] * dp[u * heads + h];
    for (int64_t u = 0; u < steps; u++)
      dp[u * heads + h] = scale * p[u * heads + h] * (dp[u * heads + h] - mean);
  }
}

/* mixed[heads, d] = p^T x over the steps of a block; p has rows of `stride`. */
static void mix(const pdt_real *p, int64_t stride, int64_t heads, const pdt_real *x, int64_t steps,
                int64_t d, pdt_real *mixed) {
  pdt_nn_gemm(PDT_NN_TN, heads, d, steps, 1, p, stride, x, d, 0, mixed, d);
}

int pdt_nn_pool(const pdt_nn_sidecar *s, const pdt_nn_blocks *blocks, const pdt_nn_pool_input *in,
                int64_t rows, pdt_nn_pool_pass *pass, pdt_arena *arena, pdt_error *err) {
  const pdt_sidecar_config *c = &s->config;
  int64_t d = c->hidden_size, ph = c->pool_heads, pd = c->pool_dim, n = blocks->n;
  int64_t readers = ph - c->pool_copies; /* heads that mix what they read */
  const pdt_real *states = in->states;
  *pass = (pdt_nn_pool_pass){0};
  if (PDT_TAKE(arena, &pass->pooled, n * pdt_sidecar_pooled(c), err)) return -1;
  if (c->pool == PDT_POOL_LAST) {
    for (int32_t i = 0; i < n; i++)
      memcpy(pass->pooled + i * d, states + (blocks->begin[i] + blocks->steps[i] - 1) * d,
             (size_t)d * sizeof *states);
    return 0;
  }
  if (PDT_TAKE(arena, &pass->p, rows * ph, err) || PDT_TAKE(arena, &pass->mixed, n * ph * d, err))
    return -1;
  pdt_real scale = (pdt_real)(1 / sqrt((double)d));
  pdt_nn_gemm(PDT_NN_NT, rows, ph, d, scale, states, d, s->pool_query.w.w, d, 0, pass->p, ph);
  for (int32_t i = 0; i < n; i++) {
    pdt_real *p = pass->p + blocks->begin[i] * ph;
    softmax_columns(p, blocks->steps[i], ph);
    mix(p, ph, readers, states + blocks->begin[i] * d, blocks->steps[i], d,
        pass->mixed + i * ph * d);
    if (readers < ph)
      mix(p + readers, ph, ph - readers, in->embedded + blocks->begin[i] * d, blocks->steps[i], d,
          pass->mixed + (i * ph + readers) * d);
  }
  for (int64_t h = 0; h < ph; h++)
    pdt_nn_gemm(PDT_NN_NT, n, pd, d, 1, pass->mixed + h * d, ph * d, s->pool_value.w + h * pd * d,
                d, 0, pass->pooled + h * pd, ph * pd);
  return 0;
}

static int attention_pool_back(const pdt_nn_sidecar *s, const pdt_nn_blocks *blocks,
                               const pdt_nn_pool_input *in, int64_t rows,
                               const pdt_nn_pool_pass *pass, const pdt_real *dpooled,
                               pdt_real *dstates, pdt_arena *arena, pdt_error *err) {
  const pdt_sidecar_config *c = &s->config;
  int64_t d = c->hidden_size, ph = c->pool_heads, pd = c->pool_dim, n = blocks->n;
  int64_t readers = ph - c->pool_copies;
  const pdt_real *states = in->states;
  pdt_real scale = (pdt_real)(1 / sqrt((double)d)), *dmixed, *dp;
  if (PDT_TAKE(arena, &dmixed, n * ph * d, err) || PDT_TAKE_ZEROS(arena, &dp, rows * ph, err))
    return -1;
  for (int64_t h = 0; h < ph; h++) {
    pdt_nn_weight value = pdt_nn_weight_at(s->pool_value, h * pd * d);
    const pdt_real *dy = dpooled + h * pd;
    pdt_nn_gemm(PDT_NN_NN, n, d, pd, 1, dy, ph * pd, value.w, d, 0, dmixed + h * d, ph * d);
    if (value.g)
      pdt_nn_gemm(PDT_NN_TN, pd, d, n, 1, dy, ph * pd, pass->mixed + h * d, ph * d, 1, value.g, d);
  }
  for (int32_t i = 0; i < n; i++) {
    int64_t first = blocks->begin[i], steps = blocks->steps[i];
    const pdt_real *dm = dmixed + i * ph * d, *p = pass->p + first * ph;
    pdt_nn_gemm(PDT_NN_NT, steps, readers, d, 1, states + first * d, d, dm, d, 0, dp + first * ph,
                ph);
    if (readers < ph) /* embeddings do not learn here */
      pdt_nn_gemm(PDT_NN_NT, steps, ph - readers, d, 1, in->embedded + first * d, d,
                  dm + readers * d, d, 0, dp + first * ph + readers, ph);
    softmax_columns_back(p, steps, ph, scale, dp + first * ph);
    if (dstates)
      pdt_nn_gemm(PDT_NN_NN, steps, d, readers, 1, p, ph, dm, d, 1, dstates + first * d, d);
  }
  pdt_nn_linear_back(&s->pool_query, states, rows, dp, true, dstates);
  return 0;
}

int pdt_nn_pool_back(const pdt_nn_sidecar *s, const pdt_nn_blocks *blocks,
                     const pdt_nn_pool_input *in, int64_t rows, const pdt_nn_pool_pass *pass,
                     const pdt_real *dpooled, pdt_real *dstates, pdt_arena *arena, pdt_error *err) {
  int64_t d = s->config.hidden_size;
  if (s->config.pool != PDT_POOL_LAST)
    return attention_pool_back(s, blocks, in, rows, pass, dpooled, dstates, arena, err);
  for (int32_t i = 0; i < blocks->n && dstates; i++)
    pdt_nn_axpy(1, dpooled + i * d, d, dstates + (blocks->begin[i] + blocks->steps[i] - 1) * d);
  return 0;
}

/* ---- notes ---- */

static int note_forward(int64_t n, const pdt_real *pooled, pdt_nn_note_pass *pass, pdt_arena *arena,
                        pdt_error *err) {
  int64_t dn = pass->linear->out, h = pass->hidden ? pass->hidden->out : 0;
  if (PDT_TAKE(arena, &pass->raw, n * dn, err) || PDT_TAKE(arena, &pass->note, n * dn, err) ||
      PDT_TAKE(arena, &pass->inner, n * h, err) || PDT_TAKE(arena, &pass->active, n * h, err))
    return -1;
  pdt_nn_linear(pass->linear, pooled, n, false, pass->raw);
  if (h > 0) {
    pdt_nn_linear(pass->hidden, pooled, n, false, pass->inner);
    pdt_nn_gelu(pass->inner, n * h, pass->active);
    pdt_nn_linear(pass->out, pass->active, n, true, pass->raw);
  }
  pdt_nn_rms_norm((pdt_nn_weight){0}, eps, dn, pass->raw, n, pass->note);
  return 0;
}

int pdt_nn_speculate(const pdt_nn_sidecar *s, int64_t n, const pdt_real *pooled,
                     pdt_nn_note_pass *pass, pdt_arena *arena, pdt_error *err) {
  *pass = (pdt_nn_note_pass){.linear = &s->speculation};
  if (s->hidden.w.w) {
    pass->hidden = &s->hidden;
    pass->out = &s->hidden_out;
  }
  return note_forward(n, pooled, pass, arena, err);
}

int pdt_nn_notes(const pdt_nn_sidecar *s, int64_t n, const pdt_real *pooled, pdt_nn_note_pass *pass,
                 pdt_arena *arena, pdt_error *err) {
  *pass = (pdt_nn_note_pass){.linear = &s->notes};
  return note_forward(n, pooled, pass, arena, err);
}

int pdt_nn_note_back(int64_t n, const pdt_real *pooled, const pdt_nn_note_pass *pass,
                     const pdt_real *dnote, pdt_real *dpooled, pdt_arena *arena, pdt_error *err) {
  int64_t dn = pass->linear->out, h = pass->hidden ? pass->hidden->out : 0;
  pdt_real *draw, *dactive;
  if (PDT_TAKE_ZEROS(arena, &draw, n * dn, err) || PDT_TAKE(arena, &dactive, n * h, err)) return -1;
  pdt_nn_rms_norm_back((pdt_nn_weight){0}, eps, dn, pass->raw, n, dnote, draw);
  pdt_nn_linear_back(pass->linear, pooled, n, draw, true, dpooled);
  if (h == 0) return 0;
  pdt_nn_linear_back(pass->out, pass->active, n, draw, false, dactive);
  pdt_nn_gelu_back(pass->inner, n * h, dactive, dactive);
  pdt_nn_linear_back(pass->hidden, pooled, n, dactive, true, dpooled);
  return 0;
}

/* ---- coverage ---- */

int pdt_nn_coverage(const pdt_nn_sidecar *s, const pdt_nn_blocks *blocks, const pdt_nn_plans *plans,
                    const pdt_real *pooled, pdt_nn_coverage_pass *pass, pdt_arena *arena,
                    pdt_error *err) {
  const pdt_sidecar_config *c = &s->config;
  int64_t S = c->plan_slots, dc = c->coverage_dim, n = blocks->n, items = plans->n * S;
  double scale = 1 / sqrt((double)dc);
  if (PDT_TAKE(arena, &pass->embedded, items * c->plan_dim, err) ||
      PDT_TAKE(arena, &pass->item, items * dc, err) || PDT_TAKE(arena, &pass->block, n * dc, err) ||
      PDT_TAKE(arena, &pass->logits, n * S, err))
    return -1;
  pdt_nn_gather(s->plan_embedding.w, plans->ids, items, c->plan_dim, pass->embedded);
  pdt_nn_linear(&s->coverage_item, pass->embedded, items, false, pass->item);
  pdt_nn_linear(&s->coverage_block, pooled, n, false, pass->block);
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < S; j++) {
      int64_t item = blocks->entry[i] * S + j;
      double dot = pdt_nn_dot(pass->item + item * dc, pass->block + i * dc, dc);
      pass->logits[i * S + j] =
          plans->ids[item] != 0 ? (pdt_real)(dot * scale) + *s->coverage_bias.w : 0;
    }
  return 0;
}

int pdt_nn_coverage_back(const pdt_nn_sidecar *s, const pdt_nn_blocks *blocks,
                         const pdt_nn_plans *plans, const pdt_real *pooled,
                         const pdt_nn_coverage_pass *pass, const pdt_real *dlogits,
                         pdt_real *dpooled, pdt_arena *arena, pdt_error *err) {
  const pdt_sidecar_config *c = &s->config;
  int64_t S = c->plan_slots, dc = c->coverage_dim, n = blocks->n, items = plans->n * S;
  pdt_real scale = (pdt_real)(1 / sqrt((double)dc)), *ditem, *dblock, *dembedded;
  if (PDT_TAKE_ZEROS(arena, &ditem, items * dc, err) ||
      PDT_TAKE_ZEROS(arena, &dblock, n * dc, err) ||
      PDT_TAKE(arena, &dembedded, items * c->plan_dim, err))
    return -1;
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < S; j++) {
      int64_t item = blocks->entry[i] * S + j;
      pdt_real g = dlogits[i * S + j];
      if (plans->ids[item] == 0 || g == 0) continue;
      if (s->coverage_bias.g) *s->coverage_bias.g += g;
      pdt_nn_axpy(g * scale, pass->item + item * dc, dc, dblock + i * dc);
      pdt_nn_axpy(g * scale, pass->block + i * dc, dc, ditem + item * dc);
    }
  pdt_nn_linear_back(&s->coverage_block, pooled, n, dblock, true, dpooled);
  pdt_nn_linear_back(&s->coverage_item, pass->embedded, items, ditem, false, dembedded);
  if (s->plan_embedding.g)
    pdt_nn_scatter_add(1, dembedded, plans->ids, items, c->plan_dim, s->plan_embedding.g);
  return 0;
}

/* ---- readiness ---- */

static int agree_room(const pdt_nn_sidecar *s, const pdt_nn_agree_input *in,
                      pdt_nn_agree_pass *pass, pdt_arena *arena, pdt_error *err) {
  const pdt_sidecar_config *c = &s->config;
  int64_t n = in->blocks->n, da = c->agree_dim;
  return PDT_TAKE(arena, &pass->last, n, err) || PDT_TAKE(arena, &pass->each, n + 1, err) ||
                 PDT_TAKE(arena, &pass->state, n * c->hidden_size, err) ||
                 PDT_TAKE(arena, &pass->covered, n * c->plan_slots, err) ||
                 PDT_TAKE(arena, &pass->query, n * da, err) ||
                 PDT_TAKE(arena, &pass->key, in->n_notes * da, err) ||
                 PDT_TAKE(arena, &pass->value, in->n_notes * da, err) ||
                 PDT_TAKE(arena, &pass->context, n * da, err) ||
                 PDT_TAKE(arena, &pass->sum, n * da, err) ||
                 PDT_TAKE(arena, &pass->active, n * da, err) ||
                 PDT_TAKE(arena, &pass->logits, n, err)
             ? -1
             : 0;
}

/* The windows with one row each: a block. */
static pdt_nn_windows block_windows(const pdt_nn_agree_input *in, const pdt_nn_agree_pass *pass) {
  return (pdt_nn_windows){in->blocks->n, pass->each, in->windows->first, in->windows->items};
}

static void fill_inputs(const pdt_nn_sidecar *s, const pdt_nn_agree_input *in,
                        pdt_nn_agree_pass *pass) {
  int64_t S = s->config.plan_slots;
  const pdt_nn_blocks *b = in->blocks;
  for (int32_t i = 0; i < b->n; i++) {
    pass->last[i] = b->begin[i] + b->steps[i] - 1;
    pass->each[i] = i;
    for (int64_t j = 0; j < S; j++) {
      bool filled = in->plans->ids[b->entry[i] * S + j] != 0;
      pass->covered[i * S + j] = filled ? pdt_nn_sigmoid(in->coverage[i * S + j]) : 0;
    }
  }
  pass->each[b->n] = b->n;
  pdt_nn_gather(in->states, pass->last, b->n, s->config.hidden_size, pass->state);
}

int pdt_nn_agree(const pdt_nn_sidecar *s, const pdt_nn_agree_input *in, pdt_nn_agree_pass *pass,
                 pdt_arena *arena, pdt_error *err) {
  int64_t n = in->blocks->n, da = s->config.agree_dim;
  if (agree_room(s, in, pass, arena, err)) return -1;
  fill_inputs(s, in, pass);
  pdt_nn_linear(&s->agree_query, pass->state, n, false, pass->query);
  if (s->config.note_query) pdt_nn_linear(&s->agree_note_query, in->note, n, true, pass->query);
  pdt_nn_linear(&s->agree_key, in->notes, in->n_notes, false, pass->key);
  pdt_nn_linear(&s->agree_value, in->notes, in->n_notes, false, pass->value);
  pdt_nn_windows windows = block_windows(in, pass);
  if (pdt_nn_window_attention(&windows, 1, (int32_t)da, pass->query, pass->key, pass->value,
                              pass->context, arena, err))
    return -1;
  memcpy(pass->sum, pass->context, (size_t)(n * da) * sizeof *pass->sum);
  pdt_nn_linear(&s->agree_hidden, pass->state, n, true, pass->sum);
  pdt_nn_linear(&s->agree_pool, in->pooled, n, true, pass->sum);
  pdt_nn_linear(&s->agree_note, in->note, n, true, pass->sum);
  pdt_nn_linear(&s->agree_coverage, pass->covered, n, true, pass->sum);
  for (int64_t i = 0; i < n; i++) pdt_nn_axpy(1, s->agree_bias.w, da, pass->sum + i * da);
  pdt_nn_gelu(pass->sum, n * da, pass->active);
  pdt_nn_linear(&s->agree_out, pass->active, n, false, pass->logits);
  return 0;
}

/* From the gradient of the attention's output: of the last states (added) and of the notes. */
static int agree_window_back(const pdt_nn_sidecar *s, const pdt_nn_agree_input *in,
                             const pdt_nn_agree_pass *pass, const pdt_real *dcontext,
                             pdt_real *dstate, pdt_arena *arena, pdt_error *err) {
  int64_t n = in->blocks->n, da = s->config.agree_dim;
  pdt_real *dquery, *dkey, *dvalue;
  if (PDT_TAKE(arena, &dquery, n * da, err) ||
      PDT_TAKE_ZEROS(arena, &dkey, in->n_notes * da, err) ||
      PDT_TAKE_ZEROS(arena, &dvalue, in->n_notes * da, err))
    return -1;
  pdt_nn_windows windows = block_windows(in, pass);
  if (pdt_nn_window_attention_back(&windows, 1, (int32_t)da, pass->query, pass->key, pass->value,
                                   dcontext, dquery, dkey, dvalue, arena, err))
    return -1;
  pdt_nn_linear_back(&s->agree_query, pass->state, n, dquery, true, dstate);
  if (s->config.note_query)
    pdt_nn_linear_back(&s->agree_note_query, in->note, n, dquery, true, in->dnote);
  pdt_nn_linear_back(&s->agree_key, in->notes, in->n_notes, dkey, true, in->dnotes);
  pdt_nn_linear_back(&s->agree_value, in->notes, in->n_notes, dvalue, true, in->dnotes);
  return 0;
}

int pdt_nn_agree_back(const pdt_nn_sidecar *s, const pdt_nn_agree_input *in,
                      const pdt_nn_agree_pass *pass, const pdt_real *dlogits, pdt_arena *arena,
                      pdt_error *err) {
  const pdt_sidecar_config *c = &s->config;
  int64_t n = in->blocks->n, da = c->agree_dim, d = c->hidden_size, S = c->plan_slots;
  pdt_real *dsum, *dstate, *dcovered;
  if (PDT_TAKE(arena, &dsum, n * da, err) || PDT_TAKE_ZEROS(arena, &dstate, n * d, err) ||
      PDT_TAKE(arena, &dcovered, n * S, err))
    return -1;
  pdt_nn_linear_back(&s->agree_out, pass->active, n, dlogits, false, dsum);
  pdt_nn_gelu_back(pass->sum, n * da, dsum, dsum);
  if (s->agree_bias.g)
    for (int64_t i = 0; i < n; i++) pdt_nn_axpy(1, dsum + i * da, da, s->agree_bias.g);
  pdt_nn_linear_back(&s->agree_hidden, pass->state, n, dsum, true, dstate);
  pdt_nn_linear_back(&s->agree_pool, in->pooled, n, dsum, true, in->dpooled);
  pdt_nn_linear_back(&s->agree_note, in->note, n, dsum, true, in->dnote);
  pdt_nn_linear_back(&s->agree_coverage, pass->covered, n, dsum, false, dcovered);
  if (agree_window_back(s, in, pass, dsum, dstate, arena, err)) return -1;
  if (in->dcoverage) /* empty slots have covered == 0, and so no gradient */
    for (int64_t i = 0; i < n * S; i++)
      in->dcoverage[i] += dcovered[i] * pass->covered[i] * (1 - pass->covered[i]);
  if (in->dstates) pdt_nn_scatter_add(1, dstate, pass->last, n, d, in->dstates);
  return 0;
}

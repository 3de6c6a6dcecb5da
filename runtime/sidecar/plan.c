/* The planner, and what a plan's slots become (3.2). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "sidecar/internal.h"

enum { CHUNK_ROWS = 1024 }; /* of a matrix between two looks at the best */

int pdt_plan_new(pdt_plan *plan, const pdt_sidecar *s, pdt_error *err) {
  int32_t S = s->config.plan_slots;
  *plan = (pdt_plan){0};
  if (PDT_NEW(&plan->ids, S, "plan", err) ||
      PDT_NEW(&plan->note, s->config.notes_dim, "plan", err) ||
      PDT_NEW(&plan->items, (int64_t)S * s->config.coverage_dim, "plan", err)) {
    pdt_plan_free(plan);
    return -1;
  }
  return 0;
}

void pdt_plan_free(pdt_plan *plan) {
  free(plan->ids);
  free(plan->note);
  free(plan->items);
  *plan = (pdt_plan){0};
}

/* y[0..n) = rows [first, first + n) of a matrix times x. */
static void product(const pdt_sidecar *s, const pdt_row_share *rows, int64_t first, int32_t n,
                    const float *x, float *y) {
  int32_t in = (int32_t)rows->width;
  s->kernels->matvec_unpacked(rows->dtype, pdt_row_at(rows, first), in, n, in, x, y, s->threads);
}

/* Lets the better of a vote and n logits, whose ids start at first_id, win. */
static void vote_for_best(pdt_plan_vote *vote, const float *logits, int32_t n, int32_t first_id) {
  for (int32_t i = 0; i < n && vote->id != -2; i++) {
    if (!isfinite(logits[i]))
      vote->id = -2;
    else if (vote->id == -1 || logits[i] > vote->logit)
      *vote = (pdt_plan_vote){logits[i], first_id + i};
  }
}

int32_t pdt_plan_inputs(const pdt_sidecar *s) {
  return s->planner_place ? s->config.plan_slots : 1;
}

int32_t pdt_plan_sums(const pdt_sidecar *s) {
  return s->planner_place ? 1 + s->config.plan_slots : 1;
}

void pdt_plan_read(const pdt_sidecar *s, int32_t place, const float *state, double *sums) {
  int64_t d = s->config.hidden_size, P = s->config.plan_places;
  for (int64_t j = 0; j < d; j++) sums[j] += (double)state[j];
  for (int64_t i = 0; place < P && i < s->config.plan_slots; i++) {
    double weight = (double)s->planner_place[i * P + place];
    for (int64_t j = 0; j < d; j++) sums[(1 + i) * d + j] += weight * (double)state[j];
  }
}

void pdt_plan_finish(const pdt_sidecar *s, const double *sums, int32_t n_prompt, float *inputs) {
  int64_t d = s->config.hidden_size;
  for (int64_t i = 0; i < pdt_plan_inputs(s); i++)
    for (int64_t j = 0; j < d; j++) {
      double mean = sums[j] / n_prompt;
      inputs[i * d + j] = (float)(s->planner_place ? mean + sums[(1 + i) * d + j] : mean);
    }
}

/* What slot i reads. */
static const float *input_of(const pdt_sidecar *s, const float *inputs, int64_t slot) {
  return s->planner_place ? inputs + slot * s->config.hidden_size : inputs;
}

/* Rows [begin, end) of [S Vp, d], each a slot's vocabulary entry. */
static void vote_full(const pdt_sidecar *s, const float *inputs, float *logits,
                      pdt_plan_vote *votes) {
  int64_t Vp = s->config.plan_vocab_size, begin = s->planner.begin, end = s->planner.end;
  while (begin < end) {
    int64_t slot = begin / Vp, slot_end = (slot + 1) * Vp < end ? (slot + 1) * Vp : end;
    int32_t n = slot_end - begin < CHUNK_ROWS ? (int32_t)(slot_end - begin) : CHUNK_ROWS;
    product(s, &s->planner, begin, n, input_of(s, inputs, slot), logits);
    vote_for_best(&votes[slot], logits, n, (int32_t)(begin % Vp));
    begin += n;
  }
}

/* Slot vectors, whole on every rank, against this rank's part of the plan embedding. The scale
 * 1 / sqrt(de) does not move the largest. */
static void vote_tied(const pdt_sidecar *s, const float *inputs, float *slots, float *logits,
                      pdt_plan_vote *votes) {
  int32_t S = s->config.plan_slots, de = s->config.plan_dim;
  for (int32_t i = 0; i < S; i++)
    product(s, &s->planner, (int64_t)i * de, de, input_of(s, inputs, i), slots + i * de);
  for (int32_t i = 0; i < S * de; i++) slots[i] += s->planner_bias[i];
  int64_t begin = s->plan_embedding.begin, end = s->plan_embedding.end;
  for (; begin < end; begin += CHUNK_ROWS) {
    int32_t n = end - begin < CHUNK_ROWS ? (int32_t)(end - begin) : CHUNK_ROWS;
    for (int32_t slot = 0; slot < S; slot++) {
      product(s, &s->plan_embedding, begin, n, slots + (int64_t)slot * de, logits);
      vote_for_best(&votes[slot], logits, n, (int32_t)begin);
    }
  }
}

int pdt_plan_vote_share(const pdt_sidecar *s, const float *inputs, pdt_plan_vote *votes,
                        pdt_error *err) {
  int32_t S = s->config.plan_slots;
  float *logits, *slots;
  for (int32_t i = 0; i < S; i++) votes[i] = (pdt_plan_vote){-INFINITY, -1};
  if (PDT_NEW(&logits, CHUNK_ROWS, "planner", err)) return -1;
  if (PDT_NEW(&slots, (int64_t)S * s->config.plan_dim, "planner", err)) {
    free(logits);
    return -1;
  }
  if (s->config.planner == PDT_PLANNER_FULL)
    vote_full(s, inputs, logits, votes);
  else
    vote_tied(s, inputs, slots, logits, votes);
  free(logits);
  free(slots);
  return 0;
}

int pdt_plan_count(const pdt_plan_vote *votes, pdt_rank size, int32_t slots, int32_t *ids,
                   pdt_error *err) {
  for (int32_t i = 0; i < slots; i++) {
    pdt_plan_vote best = {-INFINITY, -1};
    for (pdt_rank r = 0; r < size && best.id != -2; r++) { /* ids ascend with ranks */
      pdt_plan_vote vote = votes[(int64_t)r * slots + i];
      if (vote.id == -2 || (vote.id >= 0 && (best.id < 0 || vote.logit > best.logit))) best = vote;
    }
    if (best.id < 0)
      return pdt_fail(
          err, PDT_ERROR_RUNTIME,
          "planner: slot %d: a logit is not a finite number (hint: does the sidecar belong to "
          "this model?)",
          i);
    ids[i] = best.id;
  }
  return 0;
}

pdt_rank pdt_plan_owner(const pdt_sidecar *s, int32_t id) {
  return (pdt_rank)(((id + (int64_t)1) * s->size - 1) / s->config.plan_vocab_size);
}

int32_t pdt_plan_own_rows(const pdt_sidecar *s, const int32_t *ids, float *rows) {
  int32_t n = 0, de = s->config.plan_dim;
  for (int32_t i = 0; i < s->config.plan_slots; i++)
    if (pdt_plan_owner(s, ids[i]) == s->rank)
      pdt_to_float(s->plan_embedding.dtype, pdt_row_at(&s->plan_embedding, ids[i]), de,
                   rows + (int64_t)n++ * de);
  return n;
}

int pdt_plan_embed(pdt_plan *plan, const pdt_sidecar *s, const float *embedded, pdt_error *err) {
  const pdt_sidecar_config *c = &s->config;
  float *projected;
  if (PDT_NEW(&projected, (int64_t)c->plan_slots * c->notes_dim, "plan", err)) return -1;
  s->kernels->matmul(&s->coverage_item, embedded, c->plan_dim, c->plan_slots, plan->items,
                     c->coverage_dim, 1);
  s->kernels->matmul(&s->plan_to_notes, embedded, c->plan_dim, c->plan_slots, projected,
                     c->notes_dim, 1);
  memset(plan->note, 0, (size_t)c->notes_dim * sizeof *plan->note);
  int32_t used = 0;
  for (int32_t i = 0; i < c->plan_slots; i++) {
    if (plan->ids[i] == 0) continue;
    used++;
    for (int32_t j = 0; j < c->notes_dim; j++)
      plan->note[j] += projected[(int64_t)i * c->notes_dim + j];
  }
  for (int32_t j = 0; j < c->notes_dim && used > 0; j++) plan->note[j] /= (float)used;
  if (used > 0) s->kernels->rms_norm(plan->note, NULL, 1e-6f, c->notes_dim, plan->note);
  free(projected);
  return 0;
}

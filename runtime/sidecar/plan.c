/* The planner, and what a plan's slots become (3.2). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/finite.h"
#include "base/memory.h"
#include "sidecar/internal.h"

enum { CHUNK_ROWS = 1024 }; /* of a matrix between two looks at the best */

int pdt_plan_new(pdt_plan *plan, const pdt_sidecar *s, pdt_error *err) {
  int32_t S = s->config.plan_slots;
  pdt_device *dev = s->device;
  *plan = (pdt_plan){.device = dev};
  if (PDT_NEW(&plan->ids, S, "plan", err) ||
      PDT_NEW(&plan->note, s->config.notes_dim, "plan", err) ||
      dev->ops->alloc(dev, (int64_t)S * s->config.coverage_dim, "plan", &plan->items, err)) {
    pdt_plan_free(plan);
    return -1;
  }
  return 0;
}

void pdt_plan_free(pdt_plan *plan) {
  free(plan->ids);
  free(plan->note);
  if (plan->device) plan->device->ops->release(plan->device, plan->items);
  *plan = (pdt_plan){0};
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

/* Does every slot read something of its own? */
static bool read_apart(const pdt_sidecar *s) {
  return s->places.n_places > 0 || s->places.n_orders > 0;
}

int32_t pdt_plan_inputs(const pdt_sidecar *s) {
  return read_apart(s) ? s->config.plan_slots : 1;
}

int64_t pdt_plan_sums(const pdt_sidecar *s) {
  int64_t rows = read_apart(s) ? 1 + s->config.plan_slots : 1;
  return rows * s->config.hidden_size + (s->places.n_orders > 0 ? 1 : 0);
}

void pdt_plan_read(const pdt_sidecar *s, pdt_array states, pdt_array read, int32_t n, int32_t first,
                   double *sums) {
  s->device->ops->plan_read(s->device, &s->places, states, read, n, first, sums);
}

void pdt_plan_finish(const pdt_sidecar *s, const double *sums, int32_t n_prompt, float *inputs) {
  int64_t d = s->config.hidden_size;
  for (int64_t i = 0; i < pdt_plan_inputs(s); i++)
    for (int64_t j = 0; j < d; j++) {
      double mean = sums[j] / n_prompt;
      inputs[i * d + j] = (float)(read_apart(s) ? mean + sums[(1 + i) * d + j] : mean);
    }
}

/* What voting works with. */
typedef struct voting {
  const pdt_sidecar *s;
  pdt_device *dev;
  pdt_array inputs; /* [pdt_plan_inputs, d] */
  pdt_array slots;  /* tied: [S, de] */
  pdt_array logits; /* [CHUNK_ROWS] */
  float *found;     /* [CHUNK_ROWS] the same, on the host */
  pdt_plan_vote *votes;
} voting;

/* What slot i reads. */
static pdt_array input_of(const voting *v, int64_t slot) {
  return read_apart(v->s) ? pdt_array_at(v->inputs, slot * v->s->config.hidden_size) : v->inputs;
}

/* A slot's vote among rows [first, first + n) of a share, whose ids start at first_id. */
static void vote_among(const voting *v, const pdt_row_share *share, int64_t first, int32_t n,
                       pdt_array x, pdt_plan_vote *vote, int32_t first_id) {
  v->dev->ops->rows_product(v->dev, &share->rows, first - share->begin, n, x, v->logits);
  v->dev->ops->download(v->dev, v->found, v->logits, n);
  vote_for_best(vote, v->found, n, first_id);
}

/* Rows [begin, end) of [S Vp, d], each a slot's vocabulary entry. */
static void vote_full(const voting *v) {
  const pdt_row_share *share = &v->s->planner;
  int64_t Vp = v->s->config.plan_vocab_size, begin = share->begin, end = share->end;
  while (begin < end) {
    int64_t slot = begin / Vp, slot_end = (slot + 1) * Vp < end ? (slot + 1) * Vp : end;
    int32_t n = slot_end - begin < CHUNK_ROWS ? (int32_t)(slot_end - begin) : CHUNK_ROWS;
    vote_among(v, share, begin, n, input_of(v, slot), &v->votes[slot], (int32_t)(begin % Vp));
    begin += n;
  }
}

/* Slot vectors, whole on every rank, against this rank's part of the plan embedding. The scale
 * 1 / sqrt(de) does not move the largest. */
static void vote_tied(const voting *v) {
  const pdt_sidecar *s = v->s;
  const pdt_kernels *k = v->dev->ops;
  int32_t S = s->config.plan_slots, de = s->config.plan_dim;
  for (int64_t i = 0; i < S; i++)
    k->rows_product(v->dev, &s->planner.rows, i * de, de, input_of(v, i),
                    pdt_array_at(v->slots, i * de));
  k->add(v->dev, v->slots, s->planner_bias, (int64_t)S * de);
  int64_t begin = s->plan_embedding.begin, end = s->plan_embedding.end;
  for (; begin < end; begin += CHUNK_ROWS) {
    int32_t n = end - begin < CHUNK_ROWS ? (int32_t)(end - begin) : CHUNK_ROWS;
    for (int64_t slot = 0; slot < S; slot++)
      vote_among(v, &s->plan_embedding, begin, n, pdt_array_at(v->slots, slot * de),
                 &v->votes[slot], (int32_t)begin);
  }
}

int pdt_plan_vote_share(const pdt_sidecar *s, const float *inputs, pdt_plan_vote *votes,
                        pdt_error *err) {
  int32_t S = s->config.plan_slots;
  int64_t read = (int64_t)pdt_plan_inputs(s) * s->config.hidden_size;
  voting v = {.s = s, .dev = s->device, .votes = votes};
  const pdt_kernels *k = v.dev->ops;
  for (int32_t i = 0; i < S; i++) votes[i] = (pdt_plan_vote){-INFINITY, -1};
  int status = PDT_NEW(&v.found, CHUNK_ROWS, "planner", err) ||
               k->alloc(v.dev, read, "planner", &v.inputs, err) ||
               k->alloc(v.dev, CHUNK_ROWS, "planner", &v.logits, err) ||
               k->alloc(v.dev, (int64_t)S * s->config.plan_dim, "planner", &v.slots, err);
  if (!status) {
    k->upload(v.dev, v.inputs, inputs, read);
    if (s->config.planner == PDT_PLANNER_FULL)
      vote_full(&v);
    else
      vote_tied(&v);
  }
  k->release(v.dev, v.inputs);
  k->release(v.dev, v.logits);
  k->release(v.dev, v.slots);
  free(v.found);
  return status ? -1 : 0;
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
      s->device->ops->rows_read(s->device, &s->plan_embedding.rows,
                                ids[i] - s->plan_embedding.begin, rows + (int64_t)n++ * de);
  return n;
}

/* The mean of the projected embeddings [S, dn] of slots that are not empty; how many they are. */
static int32_t mean_of_used(const pdt_plan *plan, const pdt_sidecar_config *c,
                            const float *projected) {
  int32_t used = 0;
  memset(plan->note, 0, (size_t)c->notes_dim * sizeof *plan->note);
  for (int32_t i = 0; i < c->plan_slots; i++) {
    if (plan->ids[i] == 0) continue;
    used++;
    for (int32_t j = 0; j < c->notes_dim; j++)
      plan->note[j] += projected[(int64_t)i * c->notes_dim + j];
  }
  for (int32_t j = 0; j < c->notes_dim && used > 0; j++) plan->note[j] /= (float)used;
  return used;
}

int pdt_plan_embed(pdt_plan *plan, const pdt_sidecar *s, const float *embedded, pdt_error *err) {
  const pdt_sidecar_config *c = &s->config;
  pdt_device *dev = s->device;
  const pdt_kernels *k = dev->ops;
  int64_t dn = c->notes_dim, S = c->plan_slots, de = c->plan_dim;
  pdt_array slots = {0}, projected = {0};
  float *found = NULL;
  int status = PDT_NEW(&found, S * dn, "plan", err) || k->alloc(dev, S * de, "plan", &slots, err) ||
               k->alloc(dev, S * dn, "plan", &projected, err);
  if (!status) {
    k->upload(dev, slots, embedded, S * de);
    k->matmul(dev, &s->coverage_item, slots, de, (int32_t)S, plan->items);
    k->matmul(dev, &s->plan_to_notes, slots, de, (int32_t)S, projected);
    k->download(dev, found, projected, S * dn);
    if (mean_of_used(plan, c, found) > 0) {
      k->upload(dev, projected, plan->note, dn);
      k->norm_rows(dev, projected, (pdt_array){0}, 1e-6f, 1, c->notes_dim, projected);
      k->download(dev, plan->note, projected, dn);
    }
  }
  k->release(dev, slots);
  k->release(dev, projected);
  free(found);
  if (status) return -1;
  if (pdt_all_finite(PDT_F32, plan->note, dn)) return 0;
  return pdt_fail(err, PDT_ERROR_RUNTIME,
                  "plan: its note: expected finite numbers, found NaN or infinity (hint: do the "
                  "plan's embeddings overflow?)");
}

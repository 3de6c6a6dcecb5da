#include "train/nn/planner.h"

#include <math.h>
#include <string.h>

static const double eps = 1e-6; /* of Norm */

/* Does every slot read something of its own? */
static bool read_apart(const pdt_nn_sidecar *s) {
  return s->planner_place.w || s->planner_order.w;
}

/* What the slots read: [n, S, d]. */
static int slot_inputs(const pdt_nn_sidecar *s, const pdt_nn_prompts *prompts,
                       pdt_nn_planner_pass *pass, pdt_arena *arena, pdt_error *err) {
  const pdt_sidecar_config *c = &s->config;
  int64_t S = c->plan_slots, d = c->hidden_size, P = c->plan_places;
  if (PDT_TAKE(arena, &pass->inputs, prompts->n * S * d, err)) return -1;
  for (int64_t i = 0; i < prompts->n; i++) {
    pdt_real *x = pass->inputs + i * S * d;
    for (int64_t j = 0; j < S; j++) memcpy(x + j * d, prompts->mean + i * d, (size_t)d * sizeof *x);
    if (P > 0)
      pdt_nn_gemm(PDT_NN_NN, S, d, P, 1, s->planner_place.w, P, prompts->places + i * P * d, d, 1,
                  x, d);
  }
  if (!s->planner_order.w) return 0;
  if (PDT_TAKE_ZEROS(arena, &pass->dmarks, prompts->begin[prompts->n], err)) return -1;
  return pdt_nn_orders(s, prompts, &pass->orders, pass->inputs, arena, err);
}

/* The share of the planner's map that slot j has. */
static pdt_nn_affine map_of_slot(const pdt_nn_sidecar *s, int64_t j) {
  int64_t out = s->planner.out / s->config.plan_slots, in = s->planner.in;
  pdt_nn_affine map = {.w = pdt_nn_weight_at(s->planner.w, j * out * in), .in = in, .out = out};
  if (s->planner.b.w) map.b = pdt_nn_weight_at(s->planner.b, j * out);
  return map;
}

/* What the planner's map gives of all slots: y [n, S * width], width de or Vp. */
static int map_slots(const pdt_nn_sidecar *s, const pdt_nn_prompts *prompts,
                     pdt_nn_planner_pass *pass, pdt_real *y, pdt_arena *arena, pdt_error *err) {
  int64_t n = prompts->n, S = s->config.plan_slots, d = s->config.hidden_size;
  int64_t width = s->planner.out / S;
  pdt_real *x, *out;
  if (!read_apart(s)) {
    pdt_nn_linear(&s->planner, prompts->mean, n, false, y);
    return 0;
  }
  if (slot_inputs(s, prompts, pass, arena, err) || PDT_TAKE(arena, &x, n * d, err) ||
      PDT_TAKE(arena, &out, n * width, err))
    return -1;
  for (int64_t j = 0; j < S; j++) {
    pdt_nn_affine map = map_of_slot(s, j);
    for (int64_t i = 0; i < n; i++)
      memcpy(x + i * d, pass->inputs + (i * S + j) * d, (size_t)d * sizeof *x);
    pdt_nn_linear(&map, x, n, false, out);
    for (int64_t i = 0; i < n; i++)
      memcpy(y + (i * S + j) * width, out + i * width, (size_t)width * sizeof *y);
  }
  return 0;
}

static int map_slots_back(const pdt_nn_sidecar *s, const pdt_nn_prompts *prompts,
                          const pdt_nn_planner_pass *pass, const pdt_real *dy, pdt_arena *arena,
                          pdt_error *err) {
  int64_t n = prompts->n, S = s->config.plan_slots, d = s->config.hidden_size;
  int64_t P = s->config.plan_places, width = s->planner.out / S;
  pdt_real *dx;
  if (!read_apart(s)) {
    pdt_nn_linear_back(&s->planner, prompts->mean, n, dy, false, NULL);
    return 0;
  }
  if (PDT_TAKE(arena, &dx, n * S * d, err)) return -1;
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < S; j++) {
      pdt_nn_affine map = map_of_slot(s, j);
      int64_t at = i * S + j;
      pdt_nn_linear_back(&map, pass->inputs + at * d, 1, dy + at * width, false, dx + at * d);
      for (int64_t t = 0; t < P && s->planner_place.g; t++)
        s->planner_place.g[j * P + t] +=
            (pdt_real)pdt_nn_dot(dx + at * d, prompts->places + (i * P + t) * d, d);
    }
  if (!s->planner_order.w) return 0;
  return pdt_nn_orders_back(s, prompts, &pass->orders, dx, pass->dmarks, arena, err);
}

int pdt_nn_planner(const pdt_nn_sidecar *s, const pdt_nn_prompts *prompts,
                   pdt_nn_planner_pass *pass, pdt_arena *arena, pdt_error *err) {
  const pdt_sidecar_config *c = &s->config;
  int64_t n = prompts->n, S = c->plan_slots, Vp = c->plan_vocab_size, de = c->plan_dim;
  *pass = (pdt_nn_planner_pass){0};
  if (PDT_TAKE(arena, &pass->logits, n * S * Vp, err)) return -1;
  if (c->planner == PDT_PLANNER_FULL) return map_slots(s, prompts, pass, pass->logits, arena, err);
  if (PDT_TAKE(arena, &pass->slots, n * S * de, err) ||
      map_slots(s, prompts, pass, pass->slots, arena, err))
    return -1;
  pdt_nn_gemm(PDT_NN_NT, n * S, Vp, de, (pdt_real)(1 / sqrt((double)de)), pass->slots, de,
              s->plan_embedding.w, de, 0, pass->logits, Vp);
  return 0;
}

int pdt_nn_planner_back(const pdt_nn_sidecar *s, const pdt_nn_prompts *prompts,
                        const pdt_nn_planner_pass *pass, const pdt_real *dlogits, pdt_arena *arena,
                        pdt_error *err) {
  const pdt_sidecar_config *c = &s->config;
  int64_t n = prompts->n, S = c->plan_slots, Vp = c->plan_vocab_size, de = c->plan_dim;
  if (c->planner == PDT_PLANNER_FULL) return map_slots_back(s, prompts, pass, dlogits, arena, err);
  pdt_real scale = (pdt_real)(1 / sqrt((double)de)), *dslots;
  if (PDT_TAKE(arena, &dslots, n * S * de, err)) return -1;
  pdt_nn_gemm(PDT_NN_NN, n * S, de, Vp, scale, dlogits, Vp, s->plan_embedding.w, de, 0, dslots, de);
  if (s->plan_embedding.g)
    pdt_nn_gemm(PDT_NN_TN, Vp, de, n * S, scale, dlogits, Vp, pass->slots, de, 1,
                s->plan_embedding.g, de);
  return map_slots_back(s, prompts, pass, dslots, arena, err);
}

int pdt_nn_plan_notes(const pdt_nn_sidecar *s, const pdt_nn_plans *plans,
                      pdt_nn_plan_note_pass *pass, pdt_real *notes, pdt_arena *arena,
                      pdt_error *err) {
  const pdt_sidecar_config *c = &s->config;
  int64_t S = c->plan_slots, de = c->plan_dim;
  if (PDT_TAKE(arena, &pass->filled, plans->n, err) ||
      PDT_TAKE(arena, &pass->mean, plans->n * de, err) ||
      PDT_TAKE(arena, &pass->raw, (int64_t)plans->n * c->notes_dim, err))
    return -1;
  memset(pass->mean, 0, (size_t)(plans->n * de) * sizeof *pass->mean);
  for (int32_t i = 0; i < plans->n; i++) {
    const int32_t *ids = plans->ids + i * S;
    pass->filled[i] = 0;
    for (int64_t j = 0; j < S; j++) pass->filled[i] += ids[j] != 0;
    for (int64_t j = 0; j < S; j++)
      if (ids[j] != 0)
        pdt_nn_axpy((pdt_real)1 / (pdt_real)pass->filled[i], s->plan_embedding.w + ids[j] * de, de,
                    pass->mean + i * de);
  }
  pdt_nn_linear(&s->plan_to_notes, pass->mean, plans->n, false, pass->raw);
  pdt_nn_rms_norm((pdt_nn_weight){0}, eps, c->notes_dim, pass->raw, plans->n, notes);
  return 0;
}

int pdt_nn_plan_notes_back(const pdt_nn_sidecar *s, const pdt_nn_plans *plans,
                           const pdt_nn_plan_note_pass *pass, const pdt_real *dnotes,
                           pdt_arena *arena, pdt_error *err) {
  const pdt_sidecar_config *c = &s->config;
  int64_t S = c->plan_slots, de = c->plan_dim, dn = c->notes_dim;
  pdt_real *draw, *dmean;
  if (PDT_TAKE(arena, &draw, plans->n * dn, err) || PDT_TAKE(arena, &dmean, plans->n * de, err))
    return -1;
  memset(draw, 0, (size_t)(plans->n * dn) * sizeof *draw);
  pdt_nn_rms_norm_back((pdt_nn_weight){0}, eps, dn, pass->raw, plans->n, dnotes, draw);
  pdt_nn_linear_back(&s->plan_to_notes, pass->mean, plans->n, draw, false, dmean);
  if (!s->plan_embedding.g) return 0;
  for (int32_t i = 0; i < plans->n; i++)
    for (int64_t j = 0; j < S; j++) {
      int64_t id = plans->ids[i * S + j];
      if (id != 0)
        pdt_nn_axpy((pdt_real)1 / (pdt_real)pass->filled[i], dmean + i * de, de,
                    s->plan_embedding.g + id * de);
    }
  return 0;
}

#include "train/nn/orders.h"

#include <math.h>

#include "train/nn/losses.h"

static const double eps = 1e-6; /* of Norm */

static double mark_of(pdt_real logit) {
  double mark = (double)logit + 0.5;
  return mark > 0 ? (mark < 1 ? mark : 1) : 0;
}

/* How much of [begin, end) is [r, r + 1), for every r < R. */
static void overlap(double begin, double end, int64_t R, pdt_real *out) {
  for (int64_t r = 0; r < R; r++) {
    double part = fmin(end, (double)(r + 1)) - fmax(begin, (double)r);
    out[r] = (pdt_real)(part > 0 ? part : 0);
  }
}

int pdt_nn_orders(const pdt_nn_sidecar *s, const pdt_nn_prompts *prompts, pdt_nn_orders_pass *pass,
                  pdt_real *x, pdt_arena *arena, pdt_error *err) {
  int64_t S = s->config.plan_slots, d = s->config.hidden_size, R = s->config.plan_orders;
  int64_t T = prompts->begin[prompts->n];
  if (PDT_TAKE(arena, &pass->norm, T * d, err) || PDT_TAKE(arena, &pass->logits, T, err) ||
      PDT_TAKE(arena, &pass->overlaps, T * R, err) || PDT_TAKE(arena, &pass->weights, T * S, err))
    return -1;
  pdt_nn_rms_norm((pdt_nn_weight){0}, eps, d, prompts->read, T, pass->norm);
  for (int64_t i = 0; i < prompts->n; i++) {
    double end = 0;
    for (int64_t t = prompts->begin[i]; t < prompts->begin[i + 1]; t++) {
      double begin = end, logit = pdt_nn_dot(s->planner_mark.w, pass->norm + t * d, d);
      pass->logits[t] = (pdt_real)(logit + (double)s->planner_mark_bias.w[0]);
      end += mark_of(pass->logits[t]);
      overlap(begin, end, R, pass->overlaps + t * R);
    }
  }
  pdt_nn_gemm(PDT_NN_NT, T, S, R, 1, pass->overlaps, R, s->planner_order.w, R, 0, pass->weights, S);
  for (int64_t i = 0; i < prompts->n; i++) {
    int64_t first = prompts->begin[i], n = prompts->begin[i + 1] - first;
    pdt_nn_gemm(PDT_NN_TN, S, d, n, 1, pass->weights + first * S, S, prompts->read + first * d, d,
                1, x + i * S * d, d);
  }
  return 0;
}

double pdt_nn_marks_loss(const pdt_nn_prompts *prompts, const pdt_nn_orders_pass *pass,
                         pdt_real *dlogits) {
  return pdt_nn_bce(pass->logits, prompts->mark_target, prompts->mark_weight,
                    prompts->begin[prompts->n], dlogits);
}

/* From the gradient of a prompt's overlaps [n, R] to that of its marks' logits: where a token's
 * mark ends, so do all that come behind it. */
static void marks_back(const pdt_real *logits, int64_t n, int64_t R, const pdt_real *doverlaps,
                       pdt_real *dlogits) {
  double end = 0, behind = 0;
  for (int64_t t = 0; t < n; t++) end += mark_of(logits[t]);
  for (int64_t t = n - 1; t >= 0; t--) {
    double mark = mark_of(logits[t]), begin = end - mark;
    int64_t last = (int64_t)ceil(end) - 1, first = (int64_t)floor(begin);
    if (mark > 0 && last < R) behind += (double)doverlaps[t * R + last];
    if (mark > 0 && mark < 1) dlogits[t] += (pdt_real)behind;
    if (mark > 0 && first < R) behind -= (double)doverlaps[t * R + first];
    end = begin;
  }
}

int pdt_nn_orders_back(const pdt_nn_sidecar *s, const pdt_nn_prompts *prompts,
                       const pdt_nn_orders_pass *pass, const pdt_real *dx, pdt_real *dlogits,
                       pdt_arena *arena, pdt_error *err) {
  int64_t S = s->config.plan_slots, d = s->config.hidden_size, R = s->config.plan_orders;
  int64_t T = prompts->begin[prompts->n];
  pdt_real *dweights, *doverlaps;
  if (!s->planner_order.g) return 0;
  if (PDT_TAKE(arena, &dweights, T * S, err) || PDT_TAKE(arena, &doverlaps, T * R, err)) return -1;
  for (int64_t i = 0; i < prompts->n; i++) {
    int64_t first = prompts->begin[i], n = prompts->begin[i + 1] - first;
    pdt_nn_gemm(PDT_NN_NT, n, S, d, 1, prompts->read + first * d, d, dx + i * S * d, d, 0,
                dweights + first * S, S);
  }
  pdt_nn_gemm(PDT_NN_TN, S, R, T, 1, dweights, S, pass->overlaps, R, 1, s->planner_order.g, R);
  pdt_nn_gemm(PDT_NN_NN, T, R, S, 1, dweights, S, s->planner_order.w, R, 0, doverlaps, R);
  for (int64_t i = 0; i < prompts->n; i++) {
    int64_t first = prompts->begin[i], n = prompts->begin[i + 1] - first;
    marks_back(pass->logits + first, n, R, doverlaps + first * R, dlogits + first);
  }
  for (int64_t t = 0; t < T; t++) {
    pdt_nn_axpy(dlogits[t], pass->norm + t * d, d, s->planner_mark.g);
    s->planner_mark_bias.g[0] += dlogits[t];
  }
  return 0;
}

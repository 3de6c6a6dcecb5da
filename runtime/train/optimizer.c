#include "train/optimizer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

pdt_adamw_settings pdt_adamw_defaults(void) {
  return (pdt_adamw_settings){
      .beta1 = 0.9, .beta2 = 0.98, .epsilon = 1e-8, .weight_decay = 0.01, .clip = 1};
}

int pdt_adamw_new(pdt_adamw *a, const pdt_adamw_settings *settings, const pdt_nn_parameters *p,
                  pdt_error *err) {
  *a = (pdt_adamw){.settings = *settings};
  if (PDT_NEW(&a->m, p->n_elems, "optimizer", err) ||
      PDT_NEW(&a->v, p->n_elems, "optimizer", err)) {
    pdt_adamw_free(a);
    return -1;
  }
  return 0;
}

void pdt_adamw_free(pdt_adamw *a) {
  free(a->m);
  free(a->v);
  *a = (pdt_adamw){0};
}

/* What one step does to one parameter. */
typedef struct update {
  float beta1, beta2, scale; /* scale: clips the gradient */
  float rate, decay;         /* with bias correction of m in the rate */
  float v_correction, epsilon;
} update;

PDT_NN_VECTOR
static void apply(const update *u, int64_t n, float *value, float *grad, float *m, float *v) {
  float b1 = u->beta1, b2 = u->beta2, scale = u->scale, rate = u->rate, decay = u->decay;
  float correction = u->v_correction, epsilon = u->epsilon;
  for (int64_t i = 0; i < n; i++) {
    float g = grad[i] * scale;
    m[i] = b1 * m[i] + (1 - b1) * g;
    v[i] = b2 * v[i] + (1 - b2) * g * g;
    value[i] -= rate * m[i] / (sqrtf(v[i] * correction) + epsilon) + decay * value[i];
    grad[i] = 0;
  }
}

/* The rate of a parameter; 0 where it is at rest, as all are when there are no gradients. */
static double rate_of(const pdt_nn_parameters *p, int32_t index,
                      const double rates[PDT_TRAIN_GROUPS]) {
  int32_t group = p->items[index].group;
  return p->grad && group >= 0 ? rates[group] : 0;
}

int pdt_adamw_step(pdt_adamw *a, pdt_nn_parameters *p, const double rates[PDT_TRAIN_GROUPS],
                   double *norm, pdt_error *err) {
  const pdt_adamw_settings *s = &a->settings;
  double square = 0;
  for (int32_t i = 0; i < p->n; i++)
    if (rate_of(p, i, rates) != 0)
      square += pdt_nn_dot(p->grad + p->items[i].offset, p->grad + p->items[i].offset,
                           p->items[i].n_elems);
  *norm = sqrt(square);
  if (!isfinite(square))
    return pdt_fail(err, PDT_ERROR_RUNTIME,
                    "step %lld: a gradient is not a finite number (hint: a lower rate, or a longer "
                    "warm-up)",
                    (long long)a->step);
  a->step++;
  double m_correction = 1 / (1 - pow(s->beta1, (double)a->step));
  update u = {.beta1 = (float)s->beta1,
              .beta2 = (float)s->beta2,
              .scale = s->clip > 0 && *norm > s->clip ? (float)(s->clip / *norm) : 1,
              .v_correction = (float)(1 / (1 - pow(s->beta2, (double)a->step))),
              .epsilon = (float)s->epsilon};
  for (int32_t i = 0; i < p->n; i++) {
    const pdt_nn_parameter *item = &p->items[i];
    double rate = rate_of(p, i, rates);
    if (rate == 0) continue;
    u.rate = (float)(rate * m_correction);
    u.decay = item->decays ? (float)(rate * s->weight_decay) : 0;
    apply(&u, item->n_elems, p->value + item->offset, p->grad + item->offset, a->m + item->offset,
          a->v + item->offset);
  }
  if (p->grad)
    memset(p->grad, 0, (size_t)p->n_elems * sizeof *p->grad); /* of groups at rest, too */
  return 0;
}

double pdt_rate_at(int64_t step, int64_t warmup, int64_t total, double floor) {
  if (step < warmup) return (double)(step + 1) / (double)warmup;
  if (step >= total || total <= warmup) return floor;
  double done = (double)(step - warmup) / (double)(total - warmup);
  return floor + (1 - floor) * 0.5 * (1 + cos(M_PI * done));
}

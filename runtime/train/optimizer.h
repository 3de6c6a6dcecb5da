/* AdamW over all parameters of a model, with gradient clipping and a rate for every group. */
#ifndef PDT_TRAIN_OPTIMIZER_H
#define PDT_TRAIN_OPTIMIZER_H

#include "train/nn/parameters.h"

enum { PDT_TRAIN_GROUPS = 8 }; /* most optimizer groups of a model */

typedef struct pdt_adamw_settings {
  double beta1, beta2, epsilon;
  double weight_decay; /* of parameters that decay, per step times the rate */
  double clip;         /* largest norm of all gradients together; 0: no limit */
} pdt_adamw_settings;

/* 0.9, 0.98, 1e-8, 0.01, 1 */
pdt_adamw_settings pdt_adamw_defaults(void);

typedef struct pdt_adamw {
  pdt_adamw_settings settings;
  int64_t step; /* steps made */
  float *m, *v; /* moments, laid out as the parameters */
} pdt_adamw;

/* Zeroed moments. Errors: MEMORY. */
int pdt_adamw_new(pdt_adamw *a, const pdt_adamw_settings *settings, const pdt_nn_parameters *p,
                  pdt_error *err);
void pdt_adamw_free(pdt_adamw *a);

/* One step from the gradients in p, which are zeroed. A group of rate 0 is left as it is, its
 * moments too, and does not count in the norm; where p has no gradients, everything is, and the
 * step is only counted. *norm: of the gradients before clipping. Errors:
 * RUNTIME when a gradient is not finite; then nothing was changed. */
int pdt_adamw_step(pdt_adamw *a, pdt_nn_parameters *p, const double rates[PDT_TRAIN_GROUPS],
                   double *norm, pdt_error *err);

/* Share of the full rate at step `step` (from 0) of `total`: linear from 1/warmup to 1 over the
 * first `warmup` steps, then a half cosine down to `floor`. Pure. */
double pdt_rate_at(int64_t step, int64_t warmup, int64_t total, double floor);

#endif

#include "eval/ratio.h"

#include <math.h>

static const double normal_975 = 1.959964; /* quantile of the normal distribution */

void pdt_ratio_add(pdt_ratio_sums *s, double y, double x) {
  s->n++;
  s->y += y;
  s->x += x;
  s->yy += y * y;
  s->yx += y * x;
  s->xx += x * x;
}

/* A standard error from the sum of squared residuals of n entries. */
static double error_of(double squares, int64_t n) {
  return n < 2 ? NAN : sqrt((double)n / (double)(n - 1) * fmax(squares, 0));
}

double pdt_ratio_error(const pdt_ratio_sums *s) {
  if (s->x == 0) return NAN;
  double share = s->y / s->x;
  double squares = (s->yy - 2 * share * s->yx + share * share * s->xx) / (s->x * s->x);
  return error_of(squares, s->n);
}

pdt_ratio pdt_ratio_of(const pdt_ratio_sums *s) {
  if (s->x == 0) return (pdt_ratio){NAN, NAN};
  return (pdt_ratio){s->y / s->x, normal_975 * pdt_ratio_error(s)};
}

pdt_ratio pdt_ratio_difference(const double *y, const double *x, const double *y0, const double *x0,
                               int64_t n) {
  pdt_ratio_sums a = {0}, b = {0};
  for (int64_t i = 0; i < n; i++) {
    pdt_ratio_add(&a, y[i], x[i]);
    pdt_ratio_add(&b, y0[i], x0[i]);
  }
  if (a.x == 0 || b.x == 0) return (pdt_ratio){NAN, NAN};
  double share = a.y / a.x, share0 = b.y / b.x, squares = 0;
  for (int64_t i = 0; i < n; i++) {
    double residual = (y[i] - share * x[i]) / a.x - (y0[i] - share0 * x0[i]) / b.x;
    squares += residual * residual;
  }
  return (pdt_ratio){share - share0, normal_975 * error_of(squares, n)};
}

/* A ratio of two sums over entries, with its interval. */
#ifndef PDT_EVAL_RATIO_H
#define PDT_EVAL_RATIO_H

#include "base/types.h"

/* Sums over entries of y, x and their products. A zeroed one is empty. */
typedef struct pdt_ratio_sums {
  int64_t n;
  double y, x, yy, yx, xx;
} pdt_ratio_sums;

void pdt_ratio_add(pdt_ratio_sums *s, double y, double x);

/* Sum of y by sum of x, and half the width of its 95% interval: that of a ratio of sums over
 * independent entries, of which the parts of one do not count as independent (delta method,
 * residuals by entry). NaN where x sums to nothing; half is NaN with fewer than two entries. */
typedef struct pdt_ratio {
  double share, half;
} pdt_ratio;
pdt_ratio pdt_ratio_of(const pdt_ratio_sums *s);

/* The standard error of that share: half its interval in units of the normal distribution. NaN
 * alike. Pure. */
double pdt_ratio_error(const pdt_ratio_sums *s);

/* The difference of two ratios over the same n entries, y[i] of x[i] less y0[i] of x0[i], and half
 * its 95% interval, residuals paired by entry. NaN as above. Pure. */
pdt_ratio pdt_ratio_difference(const double *y, const double *x, const double *y0, const double *x0,
                               int64_t n);

#endif

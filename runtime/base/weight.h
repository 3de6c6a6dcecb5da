/* The weight of a logit in a draw: exp((logit - highest) / temperature) as a whole number of
 * 2^-PDT_WEIGHT_BITS. Sums of whole numbers are exact, so no order of adding up and no device makes
 * another token of the same logits; and a device may find a token without sorting them. Arithmetic
 * is that of IEEE doubles, one operation at a time: to be compiled without contraction
 * (-fmad=false, -ffp-contract=off), for processors and GPUs alike. */
#ifndef PDT_BASE_WEIGHT_H
#define PDT_BASE_WEIGHT_H

#include <stdint.h>

#ifdef __CUDACC__
#define PDT_WEIGHT_FUNCTION __host__ __device__ static inline
#else
#define PDT_WEIGHT_FUNCTION static inline
#endif

/* Below a double's last digit even when 2^20 of them are added; four digits of 19 bits. */
enum { PDT_WEIGHT_BITS = 76 };
typedef unsigned __int128 pdt_weight;

/* exp(r) 2^53, |r| <= ln(2) / 2 and a rounding error more. */
PDT_WEIGHT_FUNCTION uint64_t pdt_weight_exp(double r) {
  const double taylor[] = {1.0 / 6227020800,
                           1.0 / 479001600,
                           1.0 / 39916800,
                           1.0 / 3628800,
                           1.0 / 362880,
                           1.0 / 40320,
                           1.0 / 5040,
                           1.0 / 720,
                           1.0 / 120,
                           1.0 / 24,
                           1.0 / 6,
                           0.5,
                           1.0,
                           1.0};
  double sum = taylor[0];
  for (int i = 1; i < 14; i++) sum = sum * r + taylor[i];
  return (uint64_t)(sum * 0x1p53); /* whole, as sum > 1/2 */
}

/* Of a logit that is not above the highest, which is finite: 2^PDT_WEIGHT_BITS at the highest, 0
 * where it is less than 1. temperature > 0. */
PDT_WEIGHT_FUNCTION pdt_weight pdt_weight_of(float logit, float highest, double temperature) {
  const double log2_e = 0x1.71547652b82fep+0;
  const double ln2_high = 0x1.62e42feep-1, ln2_low = 0x1.a39ef35793c76p-33;
  /* The difference first: at a tiny temperature the quotients alone would overflow. */
  double x = ((double)logit - (double)highest) / temperature;
  if (!(x > -53)) return 0;
  int n = (int)(0.5 - x * log2_e); /* to the nearest: x <= 0 */
  uint64_t exp_r = pdt_weight_exp((x + n * ln2_high) + n * ln2_low);
  int shift = PDT_WEIGHT_BITS - 53 - n;
  return shift >= 0 ? (pdt_weight)exp_r << shift : (pdt_weight)(exp_r >> -shift);
}

/* The largest whole number that is no larger than `part` of a total below 2^127; part is in [0, 1].
 */
PDT_WEIGHT_FUNCTION pdt_weight pdt_weight_part(pdt_weight total, double part) {
  double whole = (double)(uint64_t)(total >> 64) * 0x1p64 + (double)(uint64_t)total;
  double x = whole * part;
  uint64_t high = (uint64_t)(x * 0x1p-64);
  pdt_weight floor = (pdt_weight)high << 64 | (uint64_t)(x - (double)high * 0x1p64);
  return floor < total ? floor : total;
}

/* Candidates in order are added up until their sum exceeds a goal, below the total of all. These
 * are the goals of the shortest list that reaches top_p of the total, and of the token that u in
 * (0, 1] selects: none whose weight is 0. */
PDT_WEIGHT_FUNCTION pdt_weight pdt_weight_goal_of_list(pdt_weight total, double top_p) {
  pdt_weight reached = pdt_weight_part(total, top_p);
  return reached > 0 ? reached - 1 : 0;
}

PDT_WEIGHT_FUNCTION pdt_weight pdt_weight_goal_of_draw(pdt_weight total, double u) {
  pdt_weight goal = pdt_weight_part(total, u);
  return goal < total ? goal : total - 1;
}

#endif

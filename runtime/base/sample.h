/* Choice of one token from logits (PROTOCOL.md, "Randomness"). */
#ifndef PDT_BASE_SAMPLE_H
#define PDT_BASE_SAMPLE_H

#include "base/types.h"
#include "base/weight.h"

typedef struct pdt_sampling {
  double temperature; /* 0: the largest logit */
  int32_t top_k;      /* 0: off */
  double top_p;       /* 1: off */
} pdt_sampling;

/* One candidate; the caller lends an array of n to pdt_sample. */
typedef struct pdt_candidate {
  float logit;
  pdt_token id;
} pdt_candidate;

/* Index of the largest of n >= 1 logits, the lowest on ties; -1 when one is NaN. Pure. */
pdt_token pdt_argmax(const float *logits, int32_t n);

/* The token that u in (0, 1) selects: filters in the order temperature, top-k, top-p; candidates by
 * logit descending, id ascending; the first whose cumulative probability exceeds u * total, which
 * are sums of whole numbers (weight.h). scratch [n] is overwritten. -1 when a logit is NaN or none
 * is finite. Pure. */
pdt_token pdt_sample(const float *logits, int32_t n, const pdt_sampling *how, double u,
                     pdt_candidate *scratch);

/* How likely a token is: the logarithm of its share in the softmax of all logits. */
typedef struct pdt_logprob {
  pdt_token token;
  float value;
} pdt_logprob;

enum { PDT_MOST_LOGPROBS = 20 }; /* of a row, beside the one of its token */

/* out[0]: that of a token of n >= 1 logits, as they are: before temperature, top-k and top-p.
 * out[1 .. top]: those of the likeliest, best first, the lower id on ties; 0 <= top <= n. The sum
 * under them is one of whole numbers (weight.h), so no order of adding up makes another. What they
 * are of logits of which one is NaN, or none is finite, is not said. Pure. */
void pdt_logprobs(const float *logits, int32_t n, pdt_token token, int32_t top, pdt_logprob *out);

/* The same from its parts, for whoever has found them: the token and its logit; the best
 * candidates in that order, [top], but one where top is 0; the weights of all logits beside the
 * best one's at temperature 1, added up. Pure. */
void pdt_logprobs_of(pdt_candidate token, const pdt_candidate *best, int32_t top, pdt_weight total,
                     pdt_logprob *out);

#endif

#include "base/sample.h"

#include <math.h>

enum { LANES = 16 };

pdt_token pdt_argmax(const float *logits, int32_t n) {
  /* the largest first, in lanes that the compiler turns into vectors, then where it stands */
  float best[LANES];
  int32_t not_a_number = 0, whole = n / LANES * LANES;
  for (int32_t l = 0; l < LANES; l++) best[l] = logits[0];
  for (int32_t i = 0; i < whole; i += LANES)
    for (int32_t l = 0; l < LANES; l++) {
      float x = logits[i + l];
      best[l] = x > best[l] ? x : best[l];
      not_a_number |= x != x;
    }
  for (int32_t i = whole; i < n; i++) {
    best[0] = logits[i] > best[0] ? logits[i] : best[0];
    not_a_number |= isnan(logits[i]);
  }
  if (not_a_number) return -1;
  for (int32_t l = 1; l < LANES; l++) best[0] = best[l] > best[0] ? best[l] : best[0];
  for (int32_t i = 0; i < n; i++)
    if (logits[i] == best[0]) return i;
  return -1;
}

/* Candidates live in a binary heap, so that only those that are looked at get sorted. */
typedef struct candidate_heap {
  pdt_candidate *item;
  int32_t size;
} candidate_heap;

static bool before(pdt_candidate a, pdt_candidate b) {
  return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

static void sift_down(candidate_heap *heap, int32_t at) {
  pdt_candidate moving = heap->item[at];
  for (;;) {
    int32_t child = 2 * at + 1;
    if (child >= heap->size) break;
    if (child + 1 < heap->size && before(heap->item[child + 1], heap->item[child])) child++;
    if (!before(heap->item[child], moving)) break;
    heap->item[at] = heap->item[child];
    at = child;
  }
  heap->item[at] = moving;
}

/* Takes the best candidate out and parks it in the place that the heap gives up: after m pops the
 * m best stand at the end of the array, best last. */
static pdt_candidate pop(candidate_heap *heap) {
  pdt_candidate best = heap->item[0];
  heap->item[0] = heap->item[--heap->size];
  heap->item[heap->size] = best;
  sift_down(heap, 0);
  return best;
}

/* What weights are reckoned by, and the candidates that have not been looked at yet. */
typedef struct drawing {
  candidate_heap heap;
  int32_t n; /* of all candidates */
  float highest;
  double temperature;
} drawing;

static pdt_weight weight_of(const drawing *d, float logit) {
  return pdt_weight_of(logit, d->highest, d->temperature);
}

/* The i-th best, after those before it. */
static pdt_candidate ranked(drawing *d, int32_t i) {
  return d->n - d->heap.size <= i ? pop(&d->heap) : d->heap.item[d->n - 1 - i];
}

/* The first candidate at which the sum from the best on exceeds the goal; *sum is that. */
static pdt_token seek(drawing *d, pdt_weight goal, pdt_weight *sum) {
  *sum = 0;
  for (int32_t i = 0;; i++) {
    pdt_candidate c = ranked(d, i);
    *sum += weight_of(d, c.logit);
    if (*sum > goal) return c.id;
  }
}

pdt_token pdt_sample(const float *logits, int32_t n, const pdt_sampling *how, double u,
                     pdt_candidate *scratch) {
  pdt_token top = pdt_argmax(logits, n);
  if (top < 0 || !isfinite(logits[top])) return -1;
  if (how->temperature == 0) return top;

  drawing d = {{scratch, n}, n, logits[top], how->temperature};
  for (int32_t i = 0; i < n; i++) scratch[i] = (pdt_candidate){logits[i], i};
  for (int32_t i = n / 2 - 1; i >= 0; i--) sift_down(&d.heap, i);
  pdt_weight total = 0, sum;
  if (how->top_k > 0 && how->top_k < n)
    for (int32_t i = 0; i < how->top_k; i++) total += weight_of(&d, ranked(&d, i).logit);
  else
    for (int32_t i = 0; i < n; i++) total += weight_of(&d, logits[i]);
  if (how->top_p < 1) { /* the shortest list that reaches top_p of what is left */
    seek(&d, pdt_weight_goal_of_list(total, how->top_p), &sum);
    total = sum;
  }
  return seek(&d, pdt_weight_goal_of_draw(total, u), &sum);
}

/* ---- how likely tokens are ---- */

/* Puts a candidate into the list of the best, [*n] of at most `room`. */
static void keep_best(pdt_candidate *best, int32_t *n, int32_t room, pdt_candidate c) {
  int32_t at = *n < room ? (*n)++ : room - 1;
  for (; at > 0 && before(c, best[at - 1]); at--) best[at] = best[at - 1];
  best[at] = c;
}

/* The logarithm of a weight: that of the highest logit is 0. */
static double log_of(pdt_weight weight) {
  double whole = (double)(uint64_t)(weight >> 64) * 0x1p64 + (double)(uint64_t)weight;
  return log(whole) - PDT_WEIGHT_BITS * 0.69314718055994530942;
}

void pdt_logprobs_of(pdt_candidate token, const pdt_candidate *best, int32_t top, pdt_weight total,
                     pdt_logprob *out) {
  double highest = best[0].logit, log_sum = log_of(total);
  out[0] = (pdt_logprob){token.id, (float)((double)token.logit - highest - log_sum)};
  for (int32_t i = 0; i < top; i++)
    out[1 + i] = (pdt_logprob){best[i].id, (float)((double)best[i].logit - highest - log_sum)};
}

void pdt_logprobs(const float *logits, int32_t n, pdt_token token, int32_t top, pdt_logprob *out) {
  pdt_candidate best[PDT_MOST_LOGPROBS + 1] = {{logits[0], 0}};
  pdt_weight total = 0;
  int32_t n_best = 0, room = top > 0 ? top : 1;
  for (int32_t i = 0; i < n; i++) {
    const pdt_candidate c = {logits[i], i};
    if (n_best < room || before(c, best[room - 1])) keep_best(best, &n_best, room, c);
  }
  for (int32_t i = 0; i < n; i++) total += pdt_weight_of(logits[i], best[0].logit, 1);
  pdt_logprobs_of((pdt_candidate){logits[token], token}, best, top, total, out);
}

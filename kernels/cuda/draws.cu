/* Tokens drawn from logits, as pdt_sample (base/sample.h) draws them. Nothing is sorted: weights
 * are whole numbers, so a histogram of a row by the leading bits of its logits says in which bin
 * the sum from the largest logit on exceeds a goal, and two more, each of one bin of the one
 * before, which logit that is. Of equal logits, ids tell the token. A row looks so for up to three
 * goals, one after the other: its k-th best, the end of the top-p list, and its token; the first
 * histogram serves them all. Compiled without contraction (weight.h). */
#include <math.h>

#include "base/weight.h"
#include "kernels/cuda/instructions.cuh"
#include "kernels/cuda/keys.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/sums.cuh"

namespace {

enum {
  THREADS = 256,
  PART = 4096, /* logits that one block looks at */
  BINS = 2048,
  DIGITS = 3, /* of a logit's 32 bits: 11, 11 and 10 of them */
  /* A weight's sum in 32-bit words, of PART weights at most: */
  WORDS = 4,
  WORD_BITS = PDT_WEIGHT_BITS / WORDS,
  PER_THREAD = BINS / THREADS,
  GROUP = 16 /* threads */
};
static_assert(WORDS * WORD_BITS == PDT_WEIGHT_BITS && PART <= 1 << (31 - WORD_BITS),
              "the highest weight in every place of a part fits");

/* What a row looks for now: one of the goals, the id of a logit that it has found, nothing. */
enum search { KTH_BEST, LIST_END, TOKEN, ID, NOTHING };

/* Sums over some candidates; their weight is high 2^38 + low. */
struct sums {
  unsigned long long high, low, count;
};

/* A row on its way to its token. Bins and `arrived` are zero between calls. */
struct row_state {
  pdt_weight total;               /* of the candidates that are left; 0: not known yet */
  pdt_weight goal;                /* of a sum of weights, or for KTH_BEST of candidates */
  pdt_weight above, above_weight; /* that sum, and the weights, of what is in higher bins */
  pdt_cuda_draw draw;
  float highest;
  search looks_for;
  int digit;          /* the next */
  unsigned key;       /* digits of the logit that are known */
  unsigned tie;       /* how many candidates with this logit come before the token */
  unsigned arrived;   /* blocks that have come to their end */
  sums bins[2][BINS]; /* of the first digit, and of the one that is looked at */
};

__device__ inline int shift_of(int digit) {
  return digit == 0 ? 21 : digit == 1 ? 10 : 0;
}

__device__ inline pdt_weight weight_of(const sums *s) {
  return ((pdt_weight)s->high << (2 * WORD_BITS)) + s->low;
}

__device__ inline void add_to(sums *to, const sums *s) {
  to->high += s->high;
  to->low += s->low;
  to->count += s->count;
}

/* What other blocks have added up. */
__device__ inline sums load(const sums *s) {
  return {__ldcg(&s->high), __ldcg(&s->low), __ldcg(&s->count)};
}

/* Is this the last block of its row to come here? It sees what the others have done. */
__device__ bool last_block(row_state *r) {
  SHARED_ARRAY(unsigned, last, 1);
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    last[0] = atomicAdd(&r->arrived, 1u) == gridDim.x - 1;
    if (last[0]) r->arrived = 0;
  }
  __syncthreads();
  if (last[0]) __threadfence();
  return last[0];
}

__device__ void tell(const row_state *r, int32_t id, int32_t *ids, int32_t *told) {
  told[r->draw.to] = id;
  if (ids) ids[r->draw.to] = id;
}

/* ---- goals ---- */

__device__ void look_for(row_state *r, search what, pdt_weight goal) {
  r->looks_for = what;
  r->goal = goal;
  r->digit = 0;
  r->key = 0;
  r->above = r->above_weight = 0;
}

/* The first goal of a row whose best logit is known, or its token. */
__global__ void begin_draws(const pdt_cuda_best *best, const pdt_cuda_draw *draws, int32_t n,
                            int32_t width, row_state *rows, int32_t *ids, int32_t *told) {
  grid_release();
  grid_wait();
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  row_state *r = &rows[i];
  bool numbers = best[i].id >= 0 && isfinite(best[i].logit);
  r->draw = draws[i];
  r->highest = best[i].logit;
  r->total = 0;
  if (numbers && r->draw.temperature != 0) {
    bool cut = r->draw.top_k > 0 && r->draw.top_k < width;
    look_for(r,
             cut                 ? KTH_BEST
             : r->draw.top_p < 1 ? LIST_END
                                 : TOKEN,
             cut ? (pdt_weight)(r->draw.top_k - 1) : 0);
    return;
  }
  r->looks_for = NOTHING;
  tell(r, numbers ? best[i].id : -1, ids, told);
}

/* The weight of all candidates, or of those that a goal has left: what the next goal is a part of.
 */
__device__ void set_total(row_state *r, pdt_weight total) {
  r->total = total;
  if (r->looks_for == LIST_END) r->goal = pdt_weight_goal_of_list(total, r->draw.top_p);
  if (r->looks_for == TOKEN) r->goal = pdt_weight_goal_of_draw(total, r->draw.u);
}

/* All digits of the logit are known. Candidates that have it weigh the same. */
__device__ void reach(row_state *r) {
  pdt_weight weight = pdt_weight_of(logit_of(r->key), r->highest, r->draw.temperature);
  pdt_weight left = r->goal - r->above, tie = r->looks_for == KTH_BEST ? left : left / weight;
  if (r->looks_for == TOKEN) {
    r->tie = (unsigned)tie;
    r->looks_for = ID;
    return;
  }
  pdt_weight total = r->above_weight + (tie + 1) * weight;
  look_for(r, r->looks_for == KTH_BEST && r->draw.top_p < 1 ? LIST_END : TOKEN, 0);
  set_total(r, total);
}

/* ---- histograms ---- */

/* Adds up a block's part of a row, by the row's next digit. words: shared [WORDS + 1, BINS]. */
__device__ void weigh_part(const float *logits, int32_t width, const row_state *r,
                           unsigned *words) {
  const float *row = logits + (int64_t)r->draw.row * width, highest = r->highest;
  const double temperature = r->draw.temperature;
  const unsigned known = r->key, word_mask = (1u << WORD_BITS) - 1;
  int begin = blockIdx.x * PART, end = min(begin + PART, width);
  int digit = r->digit, shift = shift_of(digit), bits = digit == 2 ? 10 : 11;
  for (int i = threadIdx.x; i < BINS * (WORDS + 1); i += THREADS) words[i] = 0;
  __syncthreads();
  for (int i = begin + threadIdx.x; i < end; i += THREADS) {
    unsigned key = key_of(row[i]), *bin = words + (key >> shift & ((1u << bits) - 1));
    if (digit > 0 && (key ^ known) >> (shift + bits)) continue;
    pdt_weight weight = pdt_weight_of(row[i], highest, temperature);
    atomicAdd(&bin[WORDS * BINS], 1u);
    for (int w = 0; w < WORDS; w++) {
      unsigned word = (unsigned)(weight >> (w * WORD_BITS));
      atomicAdd(&bin[w * BINS], w < WORDS - 1 ? word & word_mask : word);
    }
  }
  __syncthreads();
}

/* A block's sums into its row's. */
__device__ void add_part(const unsigned *words, sums *bins) {
  for (int b = threadIdx.x; b < BINS; b += THREADS) {
    unsigned long long of[WORDS + 1];
    for (int w = 0; w <= WORDS; w++) of[w] = words[w * BINS + b];
    if (of[WORDS] == 0) continue;
    atomicAdd(&bins[b].low, of[0] + (of[1] << WORD_BITS));
    atomicAdd(&bins[b].high, of[2] + (of[3] << WORD_BITS));
    atomicAdd(&bins[b].count, of[WORDS]);
  }
}

/* Sums of the bins of each thread, from the highest bin on, and of groups of threads. */
__device__ void add_bins(const sums *bins, sums *of_thread, sums *of_group) {
  sums s = {0, 0, 0};
  for (int i = 0; i < PER_THREAD; i++) {
    sums more = load(&bins[BINS - 1 - (threadIdx.x * PER_THREAD + i)]);
    add_to(&s, &more);
  }
  of_thread[threadIdx.x] = s;
  __syncthreads();
  if (threadIdx.x < THREADS / GROUP) {
    sums g = {0, 0, 0};
    for (int i = 0; i < GROUP; i++) add_to(&g, &of_thread[threadIdx.x * GROUP + i]);
    of_group[threadIdx.x] = g;
  }
  __syncthreads();
}

/* The first of some sums at which the goal is exceeded; those before it are above then. There is
 * one. */
__device__ int pass(row_state *r, const sums *s) {
  for (int i = 0;; i++) {
    pdt_weight weight = weight_of(&s[i]);
    pdt_weight sum = r->above + (r->looks_for == KTH_BEST ? (pdt_weight)s[i].count : weight);
    if (sum > r->goal) return i;
    r->above = sum;
    r->above_weight += weight;
  }
}

/* One thread: the next digit of the logit at which the goal is exceeded. */
__device__ void choose_bin(row_state *r, const sums *of_thread, const sums *of_group) {
  sums bins[PER_THREAD];
  if (r->total == 0) {
    pdt_weight total = 0;
    for (int g = 0; g < THREADS / GROUP; g++) total += weight_of(&of_group[g]);
    set_total(r, total);
  }
  int at = pass(r, of_group) * GROUP;
  at = (at + pass(r, of_thread + at)) * PER_THREAD;
  for (int i = 0; i < PER_THREAD; i++) bins[i] = load(&r->bins[r->digit > 0][BINS - 1 - at - i]);
  at += pass(r, bins);
  r->key |= (unsigned)(BINS - 1 - at) << shift_of(r->digit);
  if (++r->digit == DIGITS) reach(r);
}

/* The last block: goes on as long as the bins that there are tell more. */
__device__ void advance(row_state *r) {
  SHARED_ARRAY(sums, of_thread, THREADS);
  SHARED_ARRAY(sums, of_group, THREADS / GROUP);
  const sums none = {0, 0, 0};
  int digit = r->digit;
  do {
    add_bins(r->bins[r->digit > 0], of_thread, of_group);
    if (threadIdx.x == 0) choose_bin(r, of_thread, of_group);
    __syncthreads();
  } while (r->looks_for != ID && r->digit == 0);
  for (int b = threadIdx.x; b < BINS; b += THREADS) {
    if (digit > 0) r->bins[1][b] = none;
    if (r->looks_for == ID) r->bins[0][b] = none;
  }
}

/* Block (part, row): one more digit. */
__global__ void __launch_bounds__(THREADS)
    weigh(const float *logits, int32_t width, row_state *rows) {
  SHARED_ARRAY(unsigned, words, (WORDS + 1) * BINS);
  grid_release();
  grid_wait();
  row_state *r = &rows[blockIdx.y];
  if (r->looks_for >= ID) return;
  weigh_part(logits, width, r, words);
  add_part(words, r->bins[r->digit > 0]);
  if (last_block(r)) advance(r);
}

/* ---- ids ---- */

/* Of n places with counts, the one that has number *number; *number is that within it then. Both
 * are one thread's; all threads get the place. room: shared [THREADS + 1]. */
template <class Count> __device__ int place_of(Count count, int n, unsigned *number, int *room) {
  int per_thread = (n + THREADS - 1) / THREADS, sum = 0;
  for (int i = threadIdx.x * per_thread; i < min((int)(threadIdx.x + 1) * per_thread, n); i++)
    sum += count(i);
  __syncthreads(); /* the room may hold an earlier place */
  room[threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    int t = 0;
    for (; *number >= (unsigned)room[t]; t++) *number -= (unsigned)room[t];
    int i = t * per_thread;
    for (; *number >= (unsigned)count(i); i++) *number -= (unsigned)count(i);
    room[THREADS] = i;
  }
  __syncthreads();
  return room[THREADS];
}

/* Block (part, row): of the candidates with the found logit, the one that is meant. ties [rows,
 * parts]. */
__global__ void __launch_bounds__(THREADS)
    find_ids(const float *logits, int32_t width, row_state *rows, int32_t *ties, int32_t *ids,
             int32_t *told) {
  SHARED_ARRAY(int, room, THREADS + 1);
  grid_release();
  grid_wait();
  row_state *r = &rows[blockIdx.y];
  if (r->looks_for != ID) return;
  const float *row = logits + (int64_t)r->draw.row * width;
  const unsigned key = r->key;
  int begin = blockIdx.x * PART, end = min(begin + PART, width), n = 0;
  for (int i = begin + threadIdx.x; i < end; i += THREADS) n += key_of(row[i]) == key;
  n = block_sum(n, room);
  ties += (int64_t)blockIdx.y * gridDim.x;
  if (threadIdx.x == 0) ties[blockIdx.x] = n;
  if (!last_block(r)) return;
  unsigned tie = r->tie;
  begin = PART * place_of([=](int i) { return __ldcg(&ties[i]); }, gridDim.x, &tie, room);
  int at = place_of([=](int i) { return (int)(key_of(row[begin + i]) == key); },
                    min(PART, width - begin), &tie, room);
  if (threadIdx.x != 0) return;
  r->looks_for = NOTHING;
  tell(r, begin + at, ids, told);
}

} // namespace

int64_t pdt_cuda_draw_bytes(void) {
  return sizeof(row_state);
}

int32_t pdt_cuda_draw_parts(int32_t width) {
  return (width + PART - 1) / PART;
}

cudaError_t pdt_launch_draws(const float *logits, int32_t width, const pdt_cuda_draw *draws,
                             int32_t n, int32_t goals, const pdt_cuda_draw_room *room,
                             const pdt_cuda_drawn *to, pdt_cuda_queue *queue) {
  row_state *rows = static_cast<row_state *>(room->rows);
  dim3 grid(pdt_cuda_draw_parts(width), n);
  cudaError_t code = launch_ahead(begin_draws, dim3((n + THREADS - 1) / THREADS), dim3(THREADS), 0,
                                  queue, room->best, draws, n, width, rows, to->ids, to->told);
  for (int i = 0; i < 1 + (DIGITS - 1) * goals && goals > 0 && code == cudaSuccess; i++)
    code = launch_ahead(weigh, grid, dim3(THREADS), 0, queue, logits, width, rows);
  if (goals < 1 || code != cudaSuccess) return code;
  return launch_ahead(find_ids, grid, dim3(THREADS), 0, queue, logits, width, rows, room->ties,
                      to->ids, to->told);
}

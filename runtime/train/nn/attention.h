/* Rotary embedding and attention, forward and backward, over whole sequences. Heads lie side by
 * side in a row: q [rows, heads * head_dim]; k, v [rows, kv_heads * head_dim]; query head h reads
 * kv head h / (heads / kv_heads). */
#ifndef PDT_TRAIN_NN_ATTENTION_H
#define PDT_TRAIN_NN_ATTENTION_H

#include "base/arena.h"
#include "train/nn/real.h"

/* Sequences of a batch, one after another: rows begin[i] .. begin[i+1]-1 are sequence i, at
 * positions 0, 1, 2 ... No padding. */
typedef struct pdt_nn_sequences {
  int32_t n;
  const int32_t *begin; /* [n+1], ascending from 0 */
} pdt_nn_sequences;

/* Rows of the longest sequence. */
int32_t pdt_nn_longest(const pdt_nn_sequences *s);

/* Rotates every head of x [rows, heads * head_dim] (rotate-half) by its row's position in its
 * sequence; sign -1 rotates back, which turns gradients of the output into those of the input.
 * angles: [longest, head_dim], head_dim/2 cosines and as many sines a position. */
void pdt_nn_rope(const pdt_nn_sequences *s, int32_t heads, int32_t head_dim, const pdt_real *angles,
                 int sign, pdt_real *x);

/* Fills angles [n, head_dim] for positions 0 .. n-1 from inv_freq [head_dim/2]: cosines, then
 * sines, times `scale`. */
void pdt_nn_rope_angles(const double *inv_freq, double scale, int32_t head_dim, int32_t n,
                        pdt_real *angles);

typedef struct pdt_nn_heads {
  int32_t heads, kv_heads, head_dim;
  int32_t window; /* row i of a sequence reads rows j <= i with i - j < window; 0: all j <= i */
} pdt_nn_heads;

/* out [rows, heads * head_dim] = causal attention within each sequence, scale 1/sqrt(head_dim).
 * lse [rows, heads]: log of each row's sum of e^score, which backward needs. Errors: MEMORY. */
int pdt_nn_causal(const pdt_nn_sequences *s, pdt_nn_heads n, const pdt_real *q, const pdt_real *k,
                  const pdt_real *v, pdt_real *out, pdt_real *lse, pdt_arena *arena,
                  pdt_error *err);

/* Writes dq, dk, dv (shapes of q, k, v) from dout. Scores are computed anew, a block of queries at
 * a time: nothing of the size rows^2 is kept. Errors: MEMORY. */
int pdt_nn_causal_back(const pdt_nn_sequences *s, pdt_nn_heads n, const pdt_real *q,
                       const pdt_real *k, const pdt_real *v, const pdt_real *out,
                       const pdt_real *lse, const pdt_real *dout, pdt_real *dq, pdt_real *dk,
                       pdt_real *dv, pdt_arena *arena, pdt_error *err);

/* What rows may read of a common set of notes: rows begin[w] .. begin[w+1]-1 of the conditioned
 * rows read notes items[first[w]] .. items[first[w+1]-1], none included. */
typedef struct pdt_nn_windows {
  int32_t n;
  const int32_t *begin; /* [n+1] over rows, ascending from 0 */
  const int32_t *first; /* [n+1] over items, ascending from 0 */
  const int32_t *items; /* [first[n]] indices of notes */
} pdt_nn_windows;

/* Notes of the widest window. */
int32_t pdt_nn_widest(const pdt_nn_windows *w);

/* Attention of rows' heads over their window: q, out [rows, heads * head_dim]; k, v [notes, the
 * same]. A row without notes gets zeros. Errors: MEMORY. */
int pdt_nn_window_attention(const pdt_nn_windows *w, int32_t heads, int32_t head_dim,
                            const pdt_real *q, const pdt_real *k, const pdt_real *v, pdt_real *out,
                            pdt_arena *arena, pdt_error *err);

/* Writes dq, adds to dk and dv [notes, heads * head_dim]. Errors: MEMORY. */
int pdt_nn_window_attention_back(const pdt_nn_windows *w, int32_t heads, int32_t head_dim,
                                 const pdt_real *q, const pdt_real *k, const pdt_real *v,
                                 const pdt_real *dout, pdt_real *dq, pdt_real *dk, pdt_real *dv,
                                 pdt_arena *arena, pdt_error *err);

#endif

/* The one table through which everything is computed: operations on batches, over memory that a
 * device owns. A backend (cpu/, cuda/, reference.c) fills a pdt_kernels and makes a pdt_device; the
 * trunk and the sidecar hold the order of operations and never look behind a pdt_array.
 *
 * What every backend but the reference promises: each output element is accumulated in an order
 * that depends on the shapes of the weights and on the positions or notes that a row attends to,
 * never on how many rows are in the batch, which rows stand beside it, how many threads work, or
 * how the cache is cut into pages. So the same row gives the same bits in every layout.
 *
 * Order and time. Operations of one device happen in the order of the calls, but a call may return
 * before its operation is done. Host memory that is handed in is read before the call returns; host
 * memory that results go to is written before the call returns (those operations say "blocking").
 * A device that failed does nothing any more: what it should have written to the host becomes zero,
 * and sync tells the error. A device is used by one thread of its rank at a time.
 *
 * Shapes are row-major and dense unless a stride, in elements, is named. Counts of rows may be 0.
 * Where not said otherwise, what is written must not overlap what is read. */
#ifndef PDT_KERNELS_H
#define PDT_KERNELS_H

#include "base/dtype.h"
#include "base/error.h"
#include "base/sample.h"
#include "base/types.h"
#include "kernels/array.h"
#include "kernels/sum_tree.h"

/* Output features that ranks share are shared in whole panels of this many. */
enum { PDT_PANEL = 16 };
/* Positions of one page of keys and values. */
enum { PDT_PAGE_TOKENS = 16 };

typedef struct pdt_kernels pdt_kernels;

/* One rank's backend. Made by a backend's own function (below), ended by ops->close. Devices that
 * share a name give the same bits. */
typedef struct pdt_device {
  const pdt_kernels *ops;
  const char *name; /* of the instruction set, or "reference", "cuda sm_90"; with " bf16" behind
                       it where it rounds rows; the device's own */
  int threads;      /* of the host that work on one operation */
  bool host_memory; /* arrays are ordinary memory of this process */
  bool runs_ahead; /* calls return before they are done: it pays to ask for a step before the tokens
                      of the last one are read */
  /* Rows of a batch, beyond which one costs no less in matmul_bulk: its best use. */
  int32_t bulk_rows;
  /* Set by who made the device, before it has matrices, where the backend would quantize rows:
   * products of quantized weights take them as they are. May be cleared again. */
  bool full_rows;
  /* Bit t: before matmul_bulk, and on CPUs matmul, multiply rows with weights of dtype t they round
   * them to bf16, once, to the nearest, ties to even. Set by pdt_cpu_round_rows and
   * pdt_cuda_round_rows; 0: rows are taken as they are. */
  uint32_t rounds;
  /* Devices of the group that this one exchanges with, itself among them; 0: none. */
  int32_t joined;
  void *state; /* the backend's own */
} pdt_device;

/* ---- weights ---- */

/* A matrix [out, in] in its file's precision, in the layout of the backend that made it.
 *
 * Of a quantized type `in` is a multiple of its block, and leaves of its tree are of 32. The CPU's
 * products with one quantize the rows that they multiply, unless the device has full_rows: every 32
 * inputs of a row to whole numbers of 8 bits, of which the largest magnitude is 127. What comes out
 * differs from the product with the row by what rounding the row does. Only matmul, matmul_bulk and
 * gather_rows take such a matrix. CUDA has none. */
typedef struct pdt_matrix {
  int32_t out, in;
  pdt_dtype dtype;
  pdt_sum_tree tree; /* order of accumulation over `in` */
  pdt_bytes bytes;   /* of weights that one product reads */
  void *data;        /* the backend's own; NULL: there is no such matrix */
} pdt_matrix;

/* Rows of a matrix [n, width] that is read once a session rather than once a token (planner, plan
 * embedding), in their file's precision. */
typedef struct pdt_rows {
  int64_t n;
  int32_t width;
  pdt_dtype dtype;
  void *data; /* the backend's own; NULL: none */
} pdt_rows;

/* ---- sequences ---- */

/* What stands in one page of keys and values. */
typedef struct pdt_kv_shape {
  int32_t layers, heads, head_dim; /* heads: of keys and values, on this rank, may be 0 */
} pdt_kv_shape;

/* Pages of keys and values. Page p begins at element p * pdt_kv_page_elems of data; what stands
 * where within it is the backend's affair. */
typedef struct pdt_kv_pool {
  pdt_kv_shape shape;
  pdt_array data;
} pdt_kv_pool;

/* Floats of one page: for every layer and head a key and a value of each position. */
static inline int64_t pdt_kv_page_elems(const pdt_kv_shape *s) {
  return (int64_t)2 * PDT_PAGE_TOKENS * s->layers * s->heads * s->head_dim;
}

/* Where one row of a batch stands: at a position of its sequence, whose positions 0 ..
 * shared_tokens - 1 lie in shared_pages and whose later ones, counted from there, lie in pages.
 * Rows that share a prompt have the same pointer shared_pages. The page lists cover the position
 * itself, and stay as they are until the batch is set anew. position >= shared_tokens. */
typedef struct pdt_row_place {
  int32_t position, shared_tokens;
  const int32_t *shared_pages, *pages;
} pdt_row_place;

/* What a backend makes of a batch's places, once a forward pass: opaque. */
typedef struct pdt_batch pdt_batch;

/* The rotary embedding of a model: angle j of a position is position * inv_freq[j]; cosines and
 * sines are multiplied by scale. Angles, cosines and sines are worked out in double. */
typedef struct pdt_rotary {
  const double *inv_freq; /* [head_dim / 2], host */
  double scale;
} pdt_rotary;

/* Attention of one layer on this rank: n_heads query heads, of which head h reads the kv head
 * (first + h) / per_kv of the pool's. */
typedef struct pdt_attention {
  int32_t n_heads, per_kv, first;
  pdt_array q_norm, k_norm; /* [head_dim]: RMS norms of every head before it is rotated, or none */
  float eps;                /* of them */
  int32_t window;           /* a row sees this many positions, its own among them; 0: all */
} pdt_attention;

/* ---- conditioning ---- */

/* What conditions one row: the notes of its session's window, and its stream. Note i stands at
 * position i of the pool, whose pages 0, 1, 2 .. are in order. */
typedef struct pdt_row_condition {
  pdt_array notes; /* a pool's data */
  int32_t n_notes; /* 0: the row sees none */
  pdt_stream stream;
} pdt_row_condition;

/* What a backend makes of the conditions of a batch, once a forward pass: opaque. */
typedef struct pdt_conditions pdt_conditions;

/* A bottleneck adapter of one stream: up(gelu(down(x) + down_bias)) + up_bias. */
typedef struct pdt_adapter {
  pdt_matrix down, up;          /* [a, d], [d, a]; data == NULL for streams that live elsewhere */
  pdt_array down_bias, up_bias; /* [a], [d] */
} pdt_adapter;

/* Those of one layer. */
typedef struct pdt_adapters {
  const pdt_adapter *by_stream; /* host array [n_streams] */
  int32_t n_streams;
  float gate;
  int32_t width, dim; /* d, a */
} pdt_adapters;

/* ---- the heads that close a block ---- */

/* Their weights. d: width of the states; p: of a block's summary, d or pool_heads * pool_dim. */
typedef struct pdt_block_heads {
  int32_t width, notes_dim, slots, coverage_dim, agree_dim; /* d, dn, S, dc, da */
  int32_t pool_heads, pool_dim;  /* 0: the summary is the last state, p = d */
  int32_t pool_copies;           /* of the heads the last ones, which mix what was embedded */
  int32_t hidden_dim;            /* h, of the speculation's hidden layer; 0: there is none */
  bool note_query;               /* is there agree_note_query? */
  pdt_matrix pool_query;         /* [pool_heads, d] */
  pdt_matrix *pool_value;        /* host array [pool_heads] of [pool_dim, d] */
  pdt_matrix speculation;        /* [dn, p] */
  pdt_array speculation_bias;    /* [dn] */
  pdt_matrix hidden, hidden_out; /* [h, p], [dn, h] */
  pdt_array hidden_bias;         /* [h] */
  pdt_matrix coverage_block;     /* [dc, p] */
  float coverage_bias;
  pdt_matrix agree_hidden, agree_pool, agree_note, agree_coverage; /* [da, d|p|dn|S] */
  pdt_matrix agree_query, agree_note_query;                        /* [da, d|dn] */
  pdt_array agree_bias, agree_out;                                 /* [da] */
  float agree_out_bias;
} pdt_block_heads;

/* One block to close, and where its results go. */
typedef struct pdt_block {
  pdt_array states;   /* [n_states, d]: final-norm states of the steps that emitted it */
  pdt_array pooled;   /* [n_states, d]: what the pool heads read in their place; none: the states */
  pdt_array embedded; /* [n_states, d]: what the last pool_copies heads mix, weighed by what they
                         read of pooled; none where there are no such heads */
  int32_t n_states;   /* >= 1 */
  int32_t n_notes;    /* of its window, may be 0 */
  pdt_array agree_keys, agree_values; /* [n_notes, da] of the window's notes */
  const int32_t *plan_ids;            /* host [S], 0: an empty slot */
  pdt_array plan_items;               /* [S, dc] */
  float *note;                        /* host [dn] */
  float *coverage;                    /* host [S], 0 for empty slots */
  float *readiness;                   /* host; NaN when its logit is not finite */
} pdt_block;

/* What a planner reads of a prompt beside its mean: slot i weighs the state of prompt token t by
 * weights[i, t] where t < n_places, and what is read of the tokens that are marked, beside their
 * states, by their order. Token t is marked by m = mark_bias + mark . Norm(read) + 1/2, cut to 0 to
 * 1, and takes up [c, c + m) of a line, c the marks before it; slot i weighs its read by orders[i,
 * r] times as much of that as lies in [r, r + 1), summed over r < n_orders. */
typedef struct pdt_plan_places {
  int32_t width, slots, n_places, n_orders; /* d, S, P, R; P == R == 0: nothing but the mean */
  pdt_array weights;                        /* [S, P], or none */
  pdt_array mark, orders;                   /* [d], [S, R], or none */
  float mark_bias;
} pdt_plan_places;

/* ---- choice ---- */

/* How one row's token is drawn (sample.h). */
typedef struct pdt_row_draw {
  pdt_sampling how;
  double u; /* in (0, 1) */
} pdt_row_draw;

/* Places for tokens that were chosen and stay on the device, where the next step reads them; the
 * host asks for them when it likes: opaque. */
typedef struct pdt_chosen pdt_chosen;

/* ---- exchanges ---- */

/* What one device of a group makes, and all of them join by. Opaque. */
typedef struct pdt_exchange_id {
  unsigned char bytes[128];
} pdt_exchange_id;

/* A group of devices, one of each rank. */
typedef struct pdt_exchange_group {
  pdt_exchange_id id;
  pdt_rank rank, size;
  double patience; /* seconds until what does not end is an error, > 0 */
  char who[128];   /* this rank and its machine, for messages: "rank 3 on node7" */
} pdt_exchange_group;

/* ---- what is to come ---- */

/* The most that later calls will be given, by kind; 0: nothing of the kind. */
typedef struct pdt_room {
  int32_t heads, positions; /* of attention: query heads of a kv head; positions of a row */
  int32_t rows, all_heads, head_dim;         /* of attention: of a batch; of this rank's queries */
  int32_t adapted_rows;                      /* of adapt */
  const pdt_adapters *adapters;              /* with adapted_rows > 0 */
  int32_t notes;                             /* of note_attention: notes of a window */
  int32_t sampled_rows, sampled_width;       /* of sample_rows, choose_rows */
  int32_t blocks, block_tokens, block_notes; /* of close_blocks: blocks of one call; states
                                                of a block, and notes of its window */
  const pdt_block_heads *block_heads;        /* with blocks > 0 */
} pdt_room;

/* ---- the table ---- */

struct pdt_kernels {
  /* -- the device -- */

  /* Ends a device and frees what is its own. Arrays, matrices, rows, batches and conditions must
   * have been freed. Safe on a device whose making failed, and on a zeroed one's copy of ops. */
  void (*close)(pdt_device *dev);

  /* Waits until everything called before is done. Errors: what went wrong with any of it, once;
   * RUNTIME, MEMORY. */
  int (*sync)(pdt_device *dev, pdt_error *err);

  /* Bytes that this device can still give when `sharing` >= 1 ranks of this machine, which use it
   * or its like, take as much each. */
  pdt_bytes (*available)(pdt_device *dev, int32_t sharing);

  /* Makes the backend's own room for calls as large as `most`; room that is there already stays.
   * To be called before them. Errors: MEMORY. */
  int (*reserve)(pdt_device *dev, const pdt_room *most, pdt_error *err);

  /* -- memory -- */

  /* A zeroed array of elems >= 0 floats, aligned to 64 bytes; not none, even of 0 elements. `what`
   * names it in the error. Errors: MEMORY. */
  int (*alloc)(pdt_device *dev, int64_t elems, const char *what, pdt_array *out, pdt_error *err);

  /* Frees what alloc gave; none: nothing. */
  void (*release)(pdt_device *dev, pdt_array a);

  /* dst[0 .. elems) = host. */
  void (*upload)(pdt_device *dev, pdt_array dst, const float *host, int64_t elems);

  /* host = src[0 .. elems). Blocking. */
  void (*download)(pdt_device *dev, float *host, pdt_array src, int64_t elems);

  /* dst[r, 0 .. width) = src[r, 0 .. width) for r < rows, with a stride each. */
  void (*copy_rows)(pdt_device *dev, pdt_array dst, int64_t dst_stride, pdt_array src,
                    int64_t src_stride, int32_t rows, int32_t width);

  /* Row to[i] of dst [.., width] = row from[i] of src [.., width] for i < n; a list that is NULL
   * counts 0, 1, 2 .. No row is written twice. to, from: host. */
  void (*move_rows)(pdt_device *dev, pdt_array dst, const int32_t *to, pdt_array src,
                    const int32_t *from, int32_t n, int32_t width);

  /* -- weights -- */

  /* Room for a matrix [out, in], all zero. leaf_width: features of one leaf of the sum over `in`
   * (sum_tree.h); >= in for a plain sum from first to last. Errors: RUNTIME for a shape below
   * [1, 1], MEMORY; *m is zeroed then. */
  int (*matrix_new)(pdt_device *dev, pdt_matrix *m, int32_t out, int32_t in, pdt_dtype dtype,
                    int32_t leaf_width, pdt_error *err);
  /* Safe on a zeroed matrix. */
  void (*matrix_free)(pdt_device *dev, pdt_matrix *m);

  /* Puts n_rows rows of a row-major host array into rows first_out .. of m: row j, feature i comes
   * from element j * src_stride + i, i < in. src holds m's dtype at any alignment. */
  void (*matrix_pack)(pdt_device *dev, pdt_matrix *m, int32_t first_out, int32_t n_rows,
                      const void *src, int64_t src_stride);

  /* Room for rows [n, width], all zero. n >= 0, width >= 1. Errors: MEMORY; *rows is zeroed then.
   */
  int (*rows_new)(pdt_device *dev, pdt_rows *rows, int64_t n, int32_t width, pdt_dtype dtype,
                  pdt_error *err);
  /* Safe on zeroed rows. */
  void (*rows_free)(pdt_device *dev, pdt_rows *rows);

  /* Puts n dense rows of a host array of the rows' dtype, at any alignment, into rows first .. */
  void (*rows_write)(pdt_device *dev, pdt_rows *rows, int64_t first, int64_t n, const void *src);

  /* Row `row` widened to host [width]. Blocking. */
  void (*rows_read)(pdt_device *dev, const pdt_rows *rows, int64_t row, float *host);

  /* -- products -- */

  /* y[r, o] = sum over i of w[o, i] x[r, i], in the order of w->tree: leaves from first to last
   * feature. x [rows, in] with its stride, y [rows, out]. */
  void (*matmul)(pdt_device *dev, const pdt_matrix *w, pdt_array x, int64_t x_stride, int32_t rows,
                 pdt_array y);

  /* The same for rows that come by the hundred, as those of a prompt. It may sum in another order
   * than matmul, which again is a row's own: who wants the same bits asks in the same way. */
  void (*matmul_bulk)(pdt_device *dev, const pdt_matrix *w, pdt_array x, int64_t x_stride,
                      int32_t rows, pdt_array y);

  /* y[r, i] = w[ids[r], i], widened: y [n, in]. ids: host [n], 0 <= id < out. */
  void (*gather_rows)(pdt_device *dev, const pdt_matrix *w, const int32_t *ids, int32_t n,
                      pdt_array y);

  /* y[j] = sum over i of rows[first + j, i] x[i], j < n: x [width], y [n]. */
  void (*rows_product)(pdt_device *dev, const pdt_rows *rows, int64_t first, int32_t n, pdt_array x,
                       pdt_array y);

  /* -- element by element, row by row -- */

  /* y[r] = x[r] / sqrt(mean(x[r]^2) + eps), times weight [width] unless none. y may be x. */
  void (*norm_rows)(pdt_device *dev, pdt_array x, pdt_array weight, float eps, int32_t rows,
                    int32_t width, pdt_array y);

  /* y[r, i] += bias[i]: y [rows, width]. */
  void (*add_bias)(pdt_device *dev, pdt_array y, int32_t rows, int32_t width, pdt_array bias);

  /* y[i] += x[i], i < n. */
  void (*add)(pdt_device *dev, pdt_array y, pdt_array x, int64_t n);

  /* out[i] = the sum of the parts[t][i] of T ranks, i < n, in the order of pdt_sum_shares
   * (sum_tree.h): a part that is none is left out. out may be any parts[t]. parts: host [T]. */
  void (*sum_shares)(pdt_device *dev, const pdt_array *parts, int32_t T, int64_t n, pdt_array out);

  /* gate[r, i] = silu(gate[r, i]) * up[r, i] in place: gate_up [rows, 2 width] has a row's gates,
   * then its ups, which may be lost. silu(z) = z / (1 + exp(-z)). */
  void (*swiglu)(pdt_device *dev, pdt_array gate_up, int32_t rows, int32_t width);

  /* -- sequences -- */

  /* Room for batches of up to max_rows rows, each at a position below max_positions, of heads of
   * head_dim, which is even. Sets *out. Errors: MEMORY. */
  int (*batch_new)(pdt_device *dev, int32_t max_rows, int32_t max_positions, int32_t head_dim,
                   const pdt_rotary *rotary, pdt_batch **out, pdt_error *err);
  /* Safe on NULL. */
  void (*batch_free)(pdt_device *dev, pdt_batch *batch);

  /* The rows of the batch of one forward pass, host [n], for the operations that follow. */
  void (*batch_set)(pdt_device *dev, pdt_batch *batch, const pdt_row_place *rows, int32_t n);

  /* For every row of the batch and qkv [rows, (n_heads + 2 kv) head_dim], which has its query
   * heads, key heads and value heads: norms each query and key head where the layer has norms,
   * rotates them in place (element j pairs with j + head_dim / 2), and stores keys and values at
   * the row's position in its pages. Rows have positions of their own. */
  void (*rotate_and_store)(pdt_device *dev, const pdt_batch *batch, const pdt_kv_pool *kv,
                           pdt_layer layer, const pdt_attention *a, pdt_array qkv);

  /* out[r, h] = softmax(q . K / sqrt(head_dim)) V for every row and query head, over the positions
   * that the row sees in the pages: up to its own, those of the same batch included. Reads the
   * query heads of qkv, as rotate_and_store left them; out [rows, n_heads head_dim]. Scores are
   * sums over head_dim from the first element on, results over positions from the first on. Pages
   * that lie before the layer's window are not read. */
  void (*attention)(pdt_device *dev, const pdt_batch *batch, const pdt_kv_pool *kv, pdt_layer layer,
                    const pdt_attention *a, pdt_array qkv, pdt_array out);

  /* -- conditioning: the rows are those that this rank owns -- */

  /* Room for up to max_rows rows. Sets *out. Errors: MEMORY. */
  int (*conditions_new)(pdt_device *dev, int32_t max_rows, pdt_conditions **out, pdt_error *err);
  /* Safe on NULL. */
  void (*conditions_free)(pdt_device *dev, pdt_conditions *conditions);

  /* The rows of one forward pass, host [n], for the operations that follow. Rows of one stream that
   * stand side by side are worked on together. */
  void (*conditions_set)(pdt_device *dev, pdt_conditions *conditions, const pdt_row_condition *rows,
                         int32_t n);

  /* Puts the keys and values [n, heads head_dim] of notes 0 .. n-1 at positions 0 .. n-1 of a layer
   * of a window's pool. */
  void (*store_notes)(pdt_device *dev, const pdt_kv_pool *window, pdt_layer layer, pdt_array keys,
                      pdt_array values, int32_t n);

  /* out[r, h] = softmax(query[r, h] . K / sqrt(head_dim)) V over the notes of row r's window, for
   * each of the shape's heads: query, out [rows, heads head_dim]. Rows without notes are left as
   * they are. Sums as in attention. */
  void (*note_attention)(pdt_device *dev, const pdt_conditions *conditions,
                         const pdt_kv_shape *shape, pdt_layer layer, pdt_array query,
                         pdt_array out);

  /* h[r, i] += gate * delta[r, i] for the rows that see notes: h, delta [rows, width]. */
  void (*add_noted)(pdt_device *dev, const pdt_conditions *conditions, pdt_array h, pdt_array delta,
                    float gate, int32_t width);

  /* h[r] += gate * the adapter of row r's stream on normed[r]: h, normed [rows, d]. scratch [rows,
   * a + d] is overwritten. gelu(x) = x/2 (1 + erf(x / sqrt 2)), the exact one. */
  void (*adapt)(pdt_device *dev, const pdt_conditions *conditions, const pdt_adapters *adapters,
                pdt_array normed, pdt_array scratch, pdt_array h);

  /* -- blocks and plans -- */

  /* Closes n blocks (PROTOCOL.md; 3.6, 3.7). With u what the pool reads of a block
   * and `last` the last of its states:
   *   summary  last; or of pool head j: pool_value[j] (sum over u of softmax(pool_query[j] . u /
   *            sqrt(d)) u), one head behind the other
   *   note     Norm(speculation summary + bias [+ hidden_out gelu(hidden summary + bias)]), eps
   * 1e-6 coverage items[i] . (coverage_block summary) / sqrt(dc) + bias of slots that are not empty
   *   ready    sigmoid(agree_out . gelu(agree_bias + agree_hidden last + agree_pool summary +
   *            agree_note note + agree_coverage sigmoid(coverage) + attended) + bias), with 0 for
   *            sigmoid(coverage) of empty slots, and attended = the sum over the window's notes of
   *            softmax((agree_query last [+ agree_note_query note]) . agree_keys / sqrt(da))
   *            agree_values
   * Blocking. */
  void (*close_blocks)(pdt_device *dev, const pdt_block_heads *heads, const pdt_block *blocks,
                       int32_t n);

  /* Adds states [n, d] of prompt tokens first .. first+n-1 to what the planner reads: sums, host [1
   * + S, d] with places or orders and [1, d] without. Row 0: each state; row 1 + i: what slot i
   * weighs of it and of read [n, d], which is there with orders. With orders one number more stands
   * behind the rows: the marks so far. In double, token by token. Blocking. */
  void (*plan_read)(pdt_device *dev, const pdt_plan_places *places, pdt_array states,
                    pdt_array read, int32_t n, int32_t first, double *sums);

  /* -- choice -- */

  /* best[i] = the largest of row rows[i] of logits [.., width] and its id, first_id + column, the
   * lowest on ties; {0, -1} when one is NaN. rows: host [n], NULL counts 0, 1, 2 ..; best: host.
   * width >= 1. Blocking. */
  void (*argmax_rows)(pdt_device *dev, pdt_array logits, int32_t width, const int32_t *rows,
                      int32_t n, int32_t first_id, pdt_candidate *best);

  /* tokens[i] = what pdt_sample (sample.h) says of row rows[i] of logits [.., width] and draws[i].
   * rows, draws, tokens: host [n]; rows NULL counts 0, 1, 2 .. Blocking. */
  void (*sample_rows)(pdt_device *dev, pdt_array logits, int32_t width, const int32_t *rows,
                      int32_t n, const pdt_row_draw *draws, pdt_token *tokens);

  /* out[i] = what pdt_logprobs (sample.h) says of row i of logits [.., width]: of tokens[i], and of
   * the `top` likeliest, as many for every row. tokens [n], out [n, 1 + top]: host. 0 <= top <=
   * PDT_MOST_LOGPROBS and width. The same bits on every backend. Blocking. */
  void (*logprobs_rows)(pdt_device *dev, pdt_array logits, int32_t width, int32_t n,
                        const pdt_token *tokens, int32_t top, pdt_logprob *out);

  /* n >= 0 places. Sets *out. Errors: MEMORY. */
  int (*chosen_new)(pdt_device *dev, int32_t n, pdt_chosen **out, pdt_error *err);
  /* Safe on NULL. */
  void (*chosen_free)(pdt_device *dev, pdt_chosen *chosen);

  /* As sample_rows of rows 0 .. n-1, but the token of row i goes to place to[i], another for each:
   * to, draws: host [n]. */
  void (*choose_rows)(pdt_device *dev, pdt_array logits, int32_t width, int32_t n,
                      const pdt_row_draw *draws, const int32_t *to, pdt_chosen *chosen);

  /* As gather_rows of the tokens at places from[i], other ones each, and row 0 where there is none,
   * -1: from: host [n]. */
  void (*gather_chosen)(pdt_device *dev, const pdt_matrix *w, const pdt_chosen *chosen,
                        const int32_t *from, int32_t n, pdt_array y);

  /* tokens[i] = the token at place from[i], which the last call of choose_rows gave or, with
   * `but_last`, one before it: from, tokens: host [n]. Blocking until that call is done, but for
   * nothing that was called since. */
  void (*chosen_read)(pdt_device *dev, pdt_chosen *chosen, const int32_t *from, int32_t n,
                      bool but_last, pdt_token *tokens);

  /* -- exchanges from device to device: all NULL where a backend has none, and what devices send
   * each other goes through the host (comm/link.h) --
   *
   * exchange_join, all_gather and all_to_all are called by all devices of a group, in the same
   * order. Counts and places are in floats, and what one sends another is as much as that one
   * receives. None waits for the data: like other operations they are done in their turn. What
   * does not end within the group's patience, or fails on another rank, is this device's failure,
   * with the rank, its machine, the device and the operation in the message. */

  /* A new id, made by one device of a group for all. Not collective. Errors: RUNTIME. */
  int (*exchange_id)(pdt_device *dev, pdt_exchange_id *id, pdt_error *err);

  /* Joins the group, once a device: dev->joined is its size then. Every device is a GPU of its own.
   * Blocking. Errors: RUNTIME, on this rank perhaps alone; close is all that may follow. */
  int (*exchange_join)(pdt_device *dev, const pdt_exchange_group *group, pdt_error *err);

  /* recv = everybody's elems[rank] floats, one behind the other by rank. send may stand in its
   * place in recv already. elems: host [size], the same on all. */
  void (*all_gather)(pdt_device *dev, pdt_array send, pdt_array recv, const int64_t *elems);

  /* out_elems[q] floats at out_at[q] of send go to rank q, and in_elems[q] come from it to in_at[q]
   * of recv. All: host [size]. */
  void (*all_to_all)(pdt_device *dev, pdt_array send, const int64_t *out_elems,
                     const int64_t *out_at, pdt_array recv, const int64_t *in_elems,
                     const int64_t *in_at);
};

/* ---- backends ---- */

/* Instruction sets from least to most: the order is that of speed. */
typedef enum pdt_cpu_isa {
  PDT_CPU_PORTABLE,
  PDT_CPU_AVX2,
  PDT_CPU_AVX512,
  PDT_CPU_AMX,
  PDT_CPU_ISAS
} pdt_cpu_isa;

/* The best instruction set that this machine runs and this build holds. */
pdt_cpu_isa pdt_cpu_best_isa(void);

/* Does this build hold it, and does this machine run it, for this process? */
bool pdt_cpu_has(pdt_cpu_isa isa);

/* "portable", "avx2", "avx512", "amx", and back; false when unknown. */
const char *pdt_cpu_isa_name(pdt_cpu_isa isa);
bool pdt_cpu_isa_parse(const char *name, pdt_cpu_isa *out);

/* A device of this process's processors, with `threads` >= 1 OpenMP threads. Errors: RUNTIME for an
 * instruction set that is not here, MEMORY. */
int pdt_cpu_device_new(pdt_device *dev, pdt_cpu_isa isa, int threads, pdt_error *err);

/* Should matmul and matmul_bulk round rows to bf16 where weights are of BF16, as PyTorch does? That
 * halves the arithmetic of AMX tiles, and is of no use elsewhere but to get what they give. What
 * comes out is the product of rounded rows, summed as ever. Adapters and the heads that close
 * blocks take rows as they are. To be called before the device has matrices; after that it may be
 * taken back, and asked for again. The device's name tells. */
void pdt_cpu_round_rows(pdt_device *dev, bool rounds);

/* Plain versions of every operation, to be read and to be compared with: they compute in double, in
 * the simplest order, so that results agree with another backend's within rounding, not in every
 * bit. One thread, slow. Errors: MEMORY. */
int pdt_reference_device_new(pdt_device *dev, pdt_error *err);

#endif

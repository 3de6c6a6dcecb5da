/* The kernels of the CUDA backend, as functions that launch them: asynchronous on the queue, and
 * what they return is what the launch says. What goes to them by value has no gaps: launches are
 * compared byte by byte. Pointers are to memory that the device reaches, strides
 * in elements; with a count of 0 nothing is launched. */
#ifndef PDT_KERNELS_CUDA_LAUNCH_H
#define PDT_KERNELS_CUDA_LAUNCH_H

#include "kernels/cuda/products.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- rows.cu ---- */

/* dst[to[r] or r, i] = src[from[r] or r, i] for r < rows, i < width. to, from may be NULL. */
cudaError_t pdt_launch_copy(float *dst, int64_t dst_stride, const int32_t *to, const float *src,
                            int64_t src_stride, const int32_t *from, int32_t rows, int32_t width,
                            pdt_cuda_queue *queue);

/* A row's window of notes: pages in order, as the shape has them. */
typedef struct pdt_cuda_condition {
  const float *notes;
  int32_t n_notes;
} pdt_cuda_condition;

/* With `added`: first x += gate * added, for all rows or for those of `noted` that see notes. Then
 * y = x / rms(x) * weight (NULL: 1), row by row: x, added, y [rows, width]. */
typedef struct pdt_cuda_norm {
  float *x;
  const float *added;
  const pdt_cuda_condition *noted; /* NULL: all rows */
  const float *weight;
  float *y; /* may be x */
  float gate, eps;
  int32_t rows, width;
} pdt_cuda_norm;

/* y goes to prepared rows, too, when there are any. */
cudaError_t pdt_launch_norm(const pdt_cuda_norm *n, const pdt_cuda_prepared *prepared,
                            pdt_cuda_queue *queue);

/* y[r, i] += scale * x[r * x_stride + i] + bias[i]; x, bias may be NULL (nothing). */
cudaError_t pdt_launch_add(float *y, const float *x, int64_t x_stride, const float *bias,
                           float scale, int32_t rows, int64_t width, pdt_cuda_queue *queue);

/* The parts of a sum over ranks, and after which of them how many of the topmost partial sums are
 * merged. */
enum { PDT_CUDA_PARTS = 256, PDT_CUDA_SUM_DEPTH = 12 };
typedef struct pdt_cuda_parts {
  const float *part[PDT_CUDA_PARTS]; /* NULL: left out */
  unsigned char merges[PDT_CUDA_PARTS];
  int64_t n;
} pdt_cuda_parts;
cudaError_t pdt_launch_sum_shares(const pdt_cuda_parts *parts, int64_t n, float *out,
                                  pdt_cuda_queue *queue);

/* What becomes of the gates goes to prepared rows, too, when there are any. */
cudaError_t pdt_launch_swiglu(float *gate_up, int32_t rows, int32_t width,
                              const pdt_cuda_prepared *prepared, pdt_cuda_queue *queue);

/* Rows of a dense source [n_rows, in] into weights, from output first_out on. */
cudaError_t pdt_launch_pack(const pdt_cuda_weights *w, int32_t first_out, int32_t n_rows,
                            const void *src, pdt_cuda_queue *queue);

/* y[r, i] = weight (ids[from[r] or r], i), widened; of id 0 where there is none, -1. */
cudaError_t pdt_launch_gather(const pdt_cuda_weights *w, const int32_t *ids, const int32_t *from,
                              int32_t n, float *y, pdt_cuda_queue *queue);

/* y[j] = sum over i of rows[j, i] x[i] for dense rows. */
cudaError_t pdt_launch_rows_product(const void *rows, pdt_dtype dtype, int32_t n, int32_t width,
                                    const float *x, float *y, pdt_cuda_queue *queue);

/* ---- bulk.cu ---- */

/* Inputs of a row of weights or of x, with zeros up to a whole step. */
static inline int32_t pdt_cuda_padded(pdt_dtype dtype, int32_t in) {
  int32_t step = dtype == PDT_F32 ? 8 : 16;
  return (in + step - 1) / step * step;
}

/* Groups first_group .. of weights in plain order: high [32 n_groups, pdt_cuda_padded(in)], zero
 * where it passes the edges, of the weights' type. low: NULL; with F16 weights a matrix like it,
 * and a weight is then the sum of two bf16 numbers, exactly. 16-byte aligned. */
cudaError_t pdt_launch_unpack(const pdt_cuda_weights *w, int32_t first_group, int32_t n_groups,
                              void *high, void *low, pdt_cuda_queue *queue);

/* Rows of x for weights of a type, [rows, pdt_cuda_padded(in)] with zeros: floats for F32, else
 * bf16: high the nearest, low, unless NULL, the nearest to what is left. 16-byte aligned. */
cudaError_t pdt_launch_spread(pdt_dtype dtype, const float *x, int64_t x_stride, int32_t rows,
                              int32_t in, void *high, void *low, pdt_cuda_queue *queue);

/* ---- sequences.cu ---- */

/* One layer's and call's place in pages of keys and values: head j of it at elements base + j *
 * head_elems of a page; there [PAGE_TOKENS, head_dim] of keys, then of values. */
typedef struct pdt_cuda_pages {
  float *base;
  int64_t page_elems, head_elems;
  int32_t heads, head_dim;
} pdt_cuda_pages;

/* Rows of a batch, in device memory. */
typedef struct pdt_cuda_rows {
  const int32_t *position, *page, *lane; /* [n]: position; where its own key and value go */
  const float *rope;                     /* [n, head_dim]: cosines, then sines, of every row */
  int64_t n;
} pdt_cuda_rows;

/* rope as above, from positions, in double. */
cudaError_t pdt_launch_rope(const int32_t *position, int32_t n, const double *inv_freq,
                            int32_t half, double scale, float *rope, pdt_cuda_queue *queue);

typedef struct pdt_cuda_heads {
  const float *q_norm, *k_norm; /* NULL: none */
  int32_t n_heads, per_kv, first;
  float eps;
} pdt_cuda_heads;

cudaError_t pdt_launch_rotate_and_store(const pdt_cuda_rows *rows, const pdt_cuda_pages *pages,
                                        const pdt_cuda_heads *heads, float *qkv,
                                        pdt_cuda_queue *queue);

/* Positions of one page list that some rows see are read in pieces of PDT_CUDA_PIECE, for up to
 * PDT_CUDA_TILE rows at a time. What a row gets of its pieces is added up one after another, from
 * the first on: by those that read them, or afterwards. */
enum { PDT_CUDA_PIECE = 128, PDT_CUDA_TILE = 64, PDT_CUDA_MOST_HEAD = 512 };
typedef struct pdt_cuda_piece {
  int32_t pages;             /* where its page list begins in the batch's */
  int32_t begin, end;        /* positions within the list; end: that any of the rows sees */
  int32_t first_row, n_rows; /* in the list of seen rows; no rows: nothing is to be done */
  int32_t low;               /* the least that any of the rows sees, its own position included */
  int32_t settled;           /* no row of the batch is stored in it */
  int32_t whole; /* all that its rows see: all pieces up to `end`, and the results are final */
} pdt_cuda_piece;

/* A row as one page list has it: it sees positions below `seen` of the list. Its result of the
 * piece that begins at position p goes to place `place` + p / PIECE. */
typedef struct pdt_cuda_seen {
  int32_t row, seen, place;
  int32_t before; /* positions of the sequence before the list */
} pdt_cuda_seen;

typedef struct pdt_cuda_attention {
  const pdt_cuda_piece *pieces; /* [n_pieces] */
  const pdt_cuda_seen *seen;
  const int32_t *page_lists;
  const int32_t *places; /* [rows of the batch, 2]: where each row's results begin and end */
  int32_t n_pieces, n_large, window;
  int32_t queries;           /* pdt_cuda_attention_queries of the largest tile */
  int32_t passes;            /* blocks that share the queries of each of the first n_large */
  int32_t whole;             /* are any of the pieces? */
  int32_t first_row, n_rows; /* whose results these pieces are */
  float *room; /* [places, n_heads, 2 + head_dim]: largest exponent (of 2), sum, weighted values;
                  NULL: every piece is whole */
} pdt_cuda_attention;

/* Queries that a block works on at a time, where a tile has so many rows. */
int32_t pdt_cuda_attention_queries(int32_t rows, int32_t per_kv);

/* Bytes of shared memory that attention takes at a head size; the device may refuse it. */
int64_t pdt_cuda_attention_shared(int32_t head_dim, int32_t queries, bool whole);

/* What the rows get of each piece, into room, of which the next makes results; of whole ones into
 * out. */
cudaError_t pdt_launch_attend(const pdt_cuda_attention *a, const pdt_cuda_rows *rows,
                              const pdt_cuda_pages *pages, const pdt_cuda_heads *heads,
                              const float *qkv, float *out, pdt_cuda_queue *queue);

/* out [rows of the batch, n_heads * head_dim] of the rows of `a` from their pieces; to prepared
 * rows, too, when there are any. */
cudaError_t pdt_launch_merge(const pdt_cuda_attention *a, int32_t n_heads, int32_t head_dim,
                             float *out, const pdt_cuda_prepared *prepared, pdt_cuda_queue *queue);

/* ---- conditions.cu ---- */

cudaError_t pdt_launch_store_notes(const pdt_cuda_pages *pages, const float *keys,
                                   const float *values, int32_t n, pdt_cuda_queue *queue);

/* The windows' pages are as `pages` says, but for its base: this layer's is layer_at elements into
 * each window. most_notes: the largest n_notes. */
cudaError_t pdt_launch_note_attention(const pdt_cuda_condition *rows, int32_t n, int32_t most_notes,
                                      const pdt_cuda_pages *pages, int64_t layer_at,
                                      const float *query, float *out, pdt_cuda_queue *queue);
cudaError_t pdt_launch_add_noted(const pdt_cuda_condition *rows, int32_t n, float *h,
                                 const float *delta, float gate, int32_t width,
                                 pdt_cuda_queue *queue);

/* A bias for each of some rows. */
enum { PDT_CUDA_BIASES = 64 };
typedef struct pdt_cuda_biases {
  const float *of[PDT_CUDA_BIASES];
} pdt_cuda_biases;

/* x[r, i] = gelu(x[r, i] + bias.of[r][i]); rows <= PDT_CUDA_BIASES. */
cudaError_t pdt_launch_gelu(float *x, const pdt_cuda_biases *bias, int32_t rows, int32_t width,
                            pdt_cuda_queue *queue);

/* to[r, i] += gate * (x[r, i] + bias.of[r][i]); rows <= PDT_CUDA_BIASES. */
cudaError_t pdt_launch_add_gated(float *to, float *x, const pdt_cuda_biases *bias, float gate,
                                 int32_t rows, int32_t width, pdt_cuda_queue *queue);

/* ---- blocks.cu ---- */

/* One block to close, as the kernels read it. */
typedef struct pdt_cuda_block {
  const float *states, *pooled; /* [n_states, d]; what the pool reads may be the states */
  const float *embedded;        /* [n_states, d]: what the pool copies; there with pool_copies */
  const float *agree_keys, *agree_values, *plan_items;
  int32_t n_states, n_notes, first; /* first: of its states among those of all blocks */
} pdt_cuda_block;

/* What the pool reads of all blocks one behind the other, and the last state of each: all [n_all,
 * d], last [n, d]. all may be NULL. */
cudaError_t pdt_launch_block_states(const pdt_cuda_block *blocks, int32_t n, int32_t most_states,
                                    int32_t width, float *all, float *last, pdt_cuda_queue *queue);

/* mixed[j, block] = the sum over the block's states of softmax(scores[.., j] / sqrt(width)) y, y
 * what the pool reads of them or, for the last pool_copies heads, what was embedded: scores [n_all,
 * pool_heads], mixed [pool_heads, n, width]. */
cudaError_t pdt_launch_pool(const pdt_cuda_block *blocks, int32_t n, int32_t most_states,
                            int32_t pool_heads, int32_t pool_copies, int32_t width,
                            const float *scores, float *mixed, pdt_cuda_queue *queue);

/* x = gelu(x), n floats. */
cudaError_t pdt_launch_plain_gelu(float *x, int64_t n, pdt_cuda_queue *queue);

/* coverage[block, i] = items[i] . projected[block] / sqrt(dim) + bias for slots in use, 0 for empty
 * ones; covered: its sigmoid, 0 for empty ones. ids [n, slots]. */
cudaError_t pdt_launch_cover(const pdt_cuda_block *blocks, const int32_t *ids, int32_t n,
                             int32_t slots, int32_t dim, const float *projected, float bias,
                             float *coverage, float *covered, pdt_cuda_queue *queue);

/* readiness[block] from parts [5, n, dim]: what is said by the last state, the summary, the note,
 * the coverage, and the query to the window's notes. */
cudaError_t pdt_launch_agree(const pdt_cuda_block *blocks, int32_t n, int32_t most_notes,
                             int32_t dim, const float *parts, const float *bias, const float *out,
                             float out_bias, float *readiness, pdt_cuda_queue *queue);

/* What slots weigh prompt tokens by (kernels.h). */
typedef struct pdt_cuda_places {
  int32_t width, slots, places, orders; /* slots: 0 where there is nothing but the mean */
  const float *weights;                 /* [slots, places] */
  const float *mark, *order_weights;    /* [width], [slots, orders] */
  float mark_bias;
} pdt_cuda_places;

/* Where the marks of n tokens end, one after the other: line[r + 1], with line[0] the marks before
 * them. In double. line [1 + n]. */
cudaError_t pdt_launch_plan_line(const pdt_cuda_places *places, const float *read, int32_t n,
                                 double *line, pdt_cuda_queue *queue);

/* sums[0, j] += each of n states; sums[1 + i, j] += what slot i weighs of token first + r: in
 * double, in order. sums [1 + slots, width]; read and line are there with orders. */
cudaError_t pdt_launch_plan_read(const pdt_cuda_places *places, const float *states,
                                 const float *read, int32_t n, int32_t first, const double *line,
                                 double *sums, pdt_cuda_queue *queue);

/* ---- choice.cu ---- */

/* The largest of each row and the lowest id of it; id -1 when one is NaN. logits [.., width], rows
 * [n] or NULL; room: pdt_cuda_argmax_parts(width) * n of them; best [n] in host memory. */
typedef struct pdt_cuda_best {
  float logit;
  int32_t id;
} pdt_cuda_best;
int32_t pdt_cuda_argmax_parts(int32_t width);
cudaError_t pdt_launch_argmax(const float *logits, int32_t width, const int32_t *rows, int32_t n,
                              int32_t first_id, pdt_cuda_best *room, pdt_cuda_best *best,
                              pdt_cuda_queue *queue);

/* ---- draws.cu ---- */

/* How one row's token is drawn (sample.h), and where its id goes. */
typedef struct pdt_cuda_draw {
  double temperature, top_p, u;
  int32_t top_k, row, to, pad;
} pdt_cuda_draw;

/* What draws of n rows work with: states of pdt_cuda_draw_bytes each, zeroed when they are new; the
 * best of every row, as pdt_launch_argmax gives it; pdt_cuda_draw_parts(width) * n numbers. */
typedef struct pdt_cuda_draw_room {
  void *rows;
  const pdt_cuda_best *best;
  int32_t *ties;
} pdt_cuda_draw_room;
int64_t pdt_cuda_draw_bytes(void);
int32_t pdt_cuda_draw_parts(int32_t width);

/* Where ids go, each to place `to` of its draw: in device memory, NULL: nowhere; and in the host's.
 */
typedef struct pdt_cuda_drawn {
  int32_t *ids, *told;
} pdt_cuda_drawn;

/* The token that pdt_sample gives of each row draws[i].row of logits [.., width]. goals: the most
 * that a row looks for, one at a time (see the source); 0: all rows take their best. */
cudaError_t pdt_launch_draws(const float *logits, int32_t width, const pdt_cuda_draw *draws,
                             int32_t n, int32_t goals, const pdt_cuda_draw_room *room,
                             const pdt_cuda_drawn *to, pdt_cuda_queue *queue);

/* ---- logprobs.cu ---- */

/* The weights of a part of a row, added up: high 2^(PDT_WEIGHT_BITS / 2) + low. */
typedef struct pdt_cuda_weight {
  unsigned long long high, low;
} pdt_cuda_weight;

/* How likely the tokens of n rows are. All in host memory that the device reaches. */
typedef struct pdt_cuda_likely {
  const int32_t *tokens; /* [n] */
  float *own;            /* [n]: their logits */
  pdt_cuda_best *best;   /* [n, few]: each row's best logits, the lower id first on ties */
  pdt_cuda_weight *sums; /* [n, pdt_cuda_likely_parts]: beside the best one's, at temperature 1 */
} pdt_cuda_likely;
int32_t pdt_cuda_likely_parts(int32_t width);

/* Bytes of the room that the launch works with, aligned to 8. */
int64_t pdt_cuda_likely_bytes(int32_t width, int32_t n, int32_t few);

/* What pdt_logprobs_of needs of rows 0 .. n-1 of logits [.., width], 1 <= few <= width. */
cudaError_t pdt_launch_logprobs(const float *logits, int32_t width, int32_t n, int32_t few,
                                void *room, const pdt_cuda_likely *told, pdt_cuda_queue *queue);

#ifdef __cplusplus
}
#endif
#endif

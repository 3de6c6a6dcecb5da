/* What the files of the CUDA backend share. Host code is C; kernels are in the .cu files, and each
 * file's launch functions are declared in launch.h. */
#ifndef PDT_KERNELS_CUDA_BACKEND_H
#define PDT_KERNELS_CUDA_BACKEND_H

#include <cuda_runtime_api.h>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/products.h"
#include "kernels/kernels.h"

/* Device memory that grows with what is asked of it. */
typedef struct pdt_cuda_buffer {
  void *at;
  pdt_bytes bytes;
} pdt_cuda_buffer;

/* Host memory that the device reads: what is handed in waits there until the device has had it. */
typedef struct pdt_cuda_stage {
  unsigned char *at; /* pinned */
  pdt_bytes bytes;
  cudaEvent_t done; /* of everything that read it */
  bool waiting;     /* done was recorded */
} pdt_cuda_stage;

enum { PDT_CUDA_STAGES = 4, PDT_CUDA_STAGE_BYTES = 4 << 20, PDT_CUDA_HELD_BYTES = 256 << 10 };

/* An operation that was called, but not yet launched (pending.c). The result of all but the sum is
 * rows at norm.y: rows, width. */
typedef enum pdt_cuda_work {
  PDT_CUDA_NOTHING,
  PDT_CUDA_SUM,    /* norm.x += norm.added, n elements, or rows as a norm has them when `noted` */
  PDT_CUDA_NORM,   /* norm */
  PDT_CUDA_SWIGLU, /* in place */
  PDT_CUDA_MERGE   /* of attention's pieces */
} pdt_cuda_work;
typedef struct pdt_cuda_pending {
  pdt_cuda_work what;
  int32_t head_dim; /* of a merge */
  int64_t n;        /* elements of a sum */
  int64_t stride;   /* between rows of the result */
  pdt_cuda_norm norm;
  pdt_cuda_attention merge;
} pdt_cuda_pending;

/* Rows of an x. Those of the last product are there as prepared, until another operation begins: no
 * product writes its own x. */
typedef struct pdt_cuda_x {
  const float *at; /* NULL: none */
  int64_t stride;
  int32_t rows, width, step; /* step: what they are prepared for, pdt_cuda_step of the weights */
} pdt_cuda_x;

/* What products of many rows have (bulk.c). */
typedef struct pdt_cuda_bulk pdt_cuda_bulk;

/* What this device exchanges with others: exchange.c. */
typedef struct pdt_cuda_exchange pdt_cuda_exchange;

typedef struct pdt_cuda {
  int index;     /* of the device */
  bool clusters; /* of blocks, are there */
  char name[32];
  pdt_cuda_queue queue;
  pdt_error failure; /* the first; nothing more is done then */
  pdt_cuda_stage stages[PDT_CUDA_STAGES];
  int stage;        /* the one in use */
  pdt_bytes staged; /* bytes of it that are taken */
  /* The same for launches that are held back: from its beginning for each sequence of them, so that
   * a sequence that comes again reads from the same places. Two in turn: one may still be read
   * while the next sequence is made. */
  pdt_cuda_stage held[2];
  int holding; /* the one in use */
  pdt_bytes held_used;
  unsigned char *results; /* pinned: what the device writes to the host */
  pdt_bytes results_bytes;
  pdt_bytes largest_prepared, largest_partial, largest_arrived; /* of products of PDT_CUDA_ROWS */
  pdt_cuda_buffer packing, prepared, partial, arrived, attention, choice, draws, blocks;
  pdt_cuda_pending pending;
  pdt_cuda_x x; /* what `prepared` holds */
  pdt_cuda_bulk *bulk;
  pdt_cuda_exchange *exchange; /* with the GPUs of other ranks; NULL: none */
} pdt_cuda;

static inline pdt_cuda *pdt_cuda_of(const pdt_device *dev) {
  return (pdt_cuda *)dev->state;
}

/* Keeps what went wrong, if something did; true when nothing ever has. */
bool pdt_cuda_ok(pdt_cuda *c, cudaError_t code, const char *what);

/* May an operation begin? Does what is pending first. All but products begin so. */
bool pdt_cuda_begin(pdt_device *dev);

/* The same for a product that prepares rows of x by pdt_cuda_prepare_x first of all: x that is
 * pending stays so. */
bool pdt_cuda_begin_product(pdt_device *dev, const pdt_cuda_x *x);

/* Brings x into the form that products with weights of a type read, unless it is there: with what
 * is pending, when that is x. False on failure. */
bool pdt_cuda_prepare_x(pdt_cuda *c, pdt_dtype dtype, const pdt_cuda_x *x, void *prepared);

/* Holds launches back from here on, as the steps of a decode are made: all of them until something
 * else has to be done. */
void pdt_cuda_hold(pdt_cuda *c);

/* `bytes` of host memory, aligned to 256, that the host fills and what is launched next may read.
 * One piece at a time: the launch comes before the next call. NULL when the device has failed. */
void *pdt_cuda_lend(pdt_cuda *c, pdt_bytes bytes);

/* New device memory, as it comes. Errors: MEMORY, saying what it is for, how much is needed and how
 * much is free; RUNTIME, a device that has failed. */
int pdt_cuda_take(pdt_cuda *c, void **at, pdt_bytes bytes, const char *what, pdt_error *err);

/* At least so many bytes of device memory; what was there may be lost. NULL on failure. */
void *pdt_cuda_grow(pdt_cuda *c, pdt_cuda_buffer *buffer, pdt_bytes bytes, const char *what);

/* The same, zeroed when it grows. */
void *pdt_cuda_grow_zeroed(pdt_cuda *c, pdt_cuda_buffer *buffer, pdt_bytes bytes, const char *what);

/* `bytes` of host memory that the device writes. Valid until the next call. NULL on failure. */
void *pdt_cuda_results(pdt_cuda *c, pdt_bytes bytes);

/* Copies between host and device, after everything before; what the copy says. */
cudaError_t pdt_cuda_transfer(pdt_cuda *c, void *to, const void *from, size_t bytes,
                              enum cudaMemcpyKind kind);

/* Frees device memory that launches may still use. NULL: nothing. */
void pdt_cuda_free(pdt_device *dev, void *p);

/* Waits for everything before. */
bool pdt_cuda_wait(pdt_cuda *c, const char *what);

/* Waits for an event, or with NULL for everything on the stream; where there are exchanges, no
 * longer than their group's patience, and not beyond an error of theirs. */
bool pdt_cuda_await(pdt_cuda *c, cudaEvent_t event, const char *what);

/* Gives exchanges up, also those that are under way: others wait no longer than they must, and
 * nothing on the stream waits for them. Safe without any. */
void pdt_cuda_exchange_abort(pdt_cuda *c);

/* Ends them when all is done, or gives them up after a failure; frees what is theirs. */
void pdt_cuda_exchange_close(pdt_cuda *c);

/* The product of weights with rows, through the device's room. */
void pdt_cuda_multiply(pdt_cuda *c, const pdt_cuda_weights *w, const float *x, int64_t x_stride,
                       int32_t rows, float *y, int64_t y_stride);

/* The products of n runs of rows, each with weights of its own, which share a shape and a type. */
void pdt_cuda_multiply_runs(pdt_cuda *c, const pdt_cuda_weights *w, const pdt_cuda_run *runs,
                            int32_t n, const float *x, float *y);

/* Make the rooms of their operations as large as they will have to be: of products for weights that
 * are there by now. */
void pdt_cuda_reserve_products(pdt_cuda *c, const pdt_room *most);
void pdt_cuda_reserve_attention(pdt_cuda *c, const pdt_room *most);
void pdt_cuda_reserve_blocks(pdt_cuda *c, const pdt_room *most);
void pdt_cuda_reserve_choice(pdt_cuda *c, const pdt_room *most);

static inline const pdt_cuda_weights *pdt_cuda_weights_of(const pdt_matrix *m) {
  return (const pdt_cuda_weights *)m->data;
}

/* Where a layer lies in pages of a shape. */
pdt_cuda_pages pdt_cuda_pages_at(const pdt_kv_shape *shape, float *data, pdt_layer layer);

/* The operations of kernels.h, by the file they are in. */
/* memory.c */
int pdt_cuda_alloc(pdt_device *dev, int64_t elems, const char *what, pdt_array *out,
                   pdt_error *err);
void pdt_cuda_release(pdt_device *dev, pdt_array a);
void pdt_cuda_upload(pdt_device *dev, pdt_array dst, const float *host, int64_t elems);
void pdt_cuda_download(pdt_device *dev, float *host, pdt_array src, int64_t elems);
void pdt_cuda_copy_rows(pdt_device *dev, pdt_array dst, int64_t dst_stride, pdt_array src,
                        int64_t src_stride, int32_t rows, int32_t width);
void pdt_cuda_move_rows(pdt_device *dev, pdt_array dst, const int32_t *to, pdt_array src,
                        const int32_t *from, int32_t n, int32_t width);
/* weights.c */
int pdt_cuda_matrix_new(pdt_device *dev, pdt_matrix *m, int32_t out, int32_t in, pdt_dtype dtype,
                        int32_t leaf_width, pdt_error *err);
void pdt_cuda_matrix_free(pdt_device *dev, pdt_matrix *m);
void pdt_cuda_matrix_pack(pdt_device *dev, pdt_matrix *m, int32_t first_out, int32_t n_rows,
                          const void *src, int64_t src_stride);
int pdt_cuda_rows_new(pdt_device *dev, pdt_rows *rows, int64_t n, int32_t width, pdt_dtype dtype,
                      pdt_error *err);
void pdt_cuda_rows_free(pdt_device *dev, pdt_rows *rows);
void pdt_cuda_rows_write(pdt_device *dev, pdt_rows *rows, int64_t first, int64_t n,
                         const void *src);
void pdt_cuda_rows_read(pdt_device *dev, const pdt_rows *rows, int64_t row, float *host);
void pdt_cuda_matmul(pdt_device *dev, const pdt_matrix *w, pdt_array x, int64_t x_stride,
                     int32_t rows, pdt_array y);
void pdt_cuda_gather_rows(pdt_device *dev, const pdt_matrix *w, const int32_t *ids, int32_t n,
                          pdt_array y);
void pdt_cuda_rows_product(pdt_device *dev, const pdt_rows *rows, int64_t first, int32_t n,
                           pdt_array x, pdt_array y);
/* bulk.c */
void pdt_cuda_matmul_bulk(pdt_device *dev, const pdt_matrix *w, pdt_array x, int64_t x_stride,
                          int32_t rows, pdt_array y);
/* rows.c */
void pdt_cuda_norm_rows(pdt_device *dev, pdt_array x, pdt_array weight, float eps, int32_t rows,
                        int32_t width, pdt_array y);
void pdt_cuda_add_bias(pdt_device *dev, pdt_array y, int32_t rows, int32_t width, pdt_array bias);
void pdt_cuda_add(pdt_device *dev, pdt_array y, pdt_array x, int64_t n);
void pdt_cuda_sum_shares(pdt_device *dev, const pdt_array *parts, int32_t T, int64_t n,
                         pdt_array out);
void pdt_cuda_swiglu(pdt_device *dev, pdt_array gate_up, int32_t rows, int32_t width);
/* sequences.c */
int pdt_cuda_batch_new(pdt_device *dev, int32_t max_rows, int32_t max_positions, int32_t head_dim,
                       const pdt_rotary *rotary, pdt_batch **out, pdt_error *err);
void pdt_cuda_batch_free(pdt_device *dev, pdt_batch *batch);
void pdt_cuda_batch_set(pdt_device *dev, pdt_batch *batch, const pdt_row_place *rows, int32_t n);
void pdt_cuda_rotate_and_store(pdt_device *dev, const pdt_batch *batch, const pdt_kv_pool *kv,
                               pdt_layer layer, const pdt_attention *a, pdt_array qkv);
void pdt_cuda_attend(pdt_device *dev, const pdt_batch *batch, const pdt_kv_pool *kv,
                     pdt_layer layer, const pdt_attention *a, pdt_array qkv, pdt_array out);
/* conditions.c */
int pdt_cuda_conditions_new(pdt_device *dev, int32_t max_rows, pdt_conditions **out,
                            pdt_error *err);
void pdt_cuda_conditions_free(pdt_device *dev, pdt_conditions *conditions);
void pdt_cuda_conditions_set(pdt_device *dev, pdt_conditions *conditions,
                             const pdt_row_condition *rows, int32_t n);
void pdt_cuda_store_notes(pdt_device *dev, const pdt_kv_pool *window, pdt_layer layer,
                          pdt_array keys, pdt_array values, int32_t n);
void pdt_cuda_note_attention(pdt_device *dev, const pdt_conditions *conditions,
                             const pdt_kv_shape *shape, pdt_layer layer, pdt_array query,
                             pdt_array out);
void pdt_cuda_add_noted(pdt_device *dev, const pdt_conditions *conditions, pdt_array h,
                        pdt_array delta, float gate, int32_t width);
void pdt_cuda_adapt(pdt_device *dev, const pdt_conditions *conditions, const pdt_adapters *adapters,
                    pdt_array normed, pdt_array scratch, pdt_array h);
/* blocks.c */
void pdt_cuda_close_blocks(pdt_device *dev, const pdt_block_heads *heads, const pdt_block *blocks,
                           int32_t n);
void pdt_cuda_plan_read(pdt_device *dev, const pdt_plan_places *places, pdt_array states,
                        pdt_array read, int32_t n, int32_t first, double *sums);
/* choice.c */
void pdt_cuda_argmax_rows(pdt_device *dev, pdt_array logits, int32_t width, const int32_t *rows,
                          int32_t n, int32_t first_id, pdt_candidate *best);
void pdt_cuda_sample_rows(pdt_device *dev, pdt_array logits, int32_t width, const int32_t *rows,
                          int32_t n, const pdt_row_draw *draws, pdt_token *tokens);
void pdt_cuda_logprobs_rows(pdt_device *dev, pdt_array logits, int32_t width, int32_t n,
                            const pdt_token *tokens, int32_t top, pdt_logprob *out);
int pdt_cuda_chosen_new(pdt_device *dev, int32_t n, pdt_chosen **out, pdt_error *err);
void pdt_cuda_chosen_free(pdt_device *dev, pdt_chosen *chosen);
void pdt_cuda_choose_rows(pdt_device *dev, pdt_array logits, int32_t width, int32_t n,
                          const pdt_row_draw *draws, const int32_t *to, pdt_chosen *chosen);
void pdt_cuda_gather_chosen(pdt_device *dev, const pdt_matrix *w, const pdt_chosen *chosen,
                            const int32_t *from, int32_t n, pdt_array y);
void pdt_cuda_chosen_read(pdt_device *dev, pdt_chosen *chosen, const int32_t *from, int32_t n,
                          bool but_last, pdt_token *tokens);
/* exchange.c */
int pdt_cuda_exchange_id(pdt_device *dev, pdt_exchange_id *id, pdt_error *err);
int pdt_cuda_exchange_join(pdt_device *dev, const pdt_exchange_group *group, pdt_error *err);
void pdt_cuda_all_gather(pdt_device *dev, pdt_array send, pdt_array recv, const int64_t *elems);
void pdt_cuda_all_to_all(pdt_device *dev, pdt_array send, const int64_t *out_elems,
                         const int64_t *out_at, pdt_array recv, const int64_t *in_elems,
                         const int64_t *in_at);

#endif

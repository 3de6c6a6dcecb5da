/* The CPU backend's operations, which kernels.h describes, and its device. Results have the same
 * bits however many threads there are: threads share rows, blocks or outputs, never a sum. */
#ifndef PDT_KERNELS_CPU_OPERATIONS_H
#define PDT_KERNELS_CPU_OPERATIONS_H

#include "kernels/cpu/primitives.h"
#include "kernels/cpu/quantized.h"
#include "kernels/cpu/rounded.h"
#include "kernels/cpu/slabs.h"

/* What a device's state points to. */
typedef struct pdt_cpu {
  const pdt_cpu_primitives *primitives;
  const pdt_cpu_quantized *quantized;
  pdt_cpu_quantized_room quantized_room;
  pdt_cpu_rounded_room rounded_room;
  char name[32];  /* of the device, where it rounds rows */
  float *scratch; /* [threads, scratch_elems], used within one call */
  int64_t scratch_elems;
  int32_t *in_order; /* [n_in_order] 0, 1, 2 ..: the pages of a window of notes */
  int32_t n_in_order;
  pdt_cpu_slab *slabs; /* where weights stand */
} pdt_cpu;

static inline const pdt_cpu_primitives *pdt_cpu_of(const pdt_device *dev) {
  return ((const pdt_cpu *)dev->state)->primitives;
}

/* The scratch of the calling thread. */
float *pdt_cpu_scratch(const pdt_device *dev);

/* Floats of scratch for a call of attention and of note_attention as large as `most`. */
int64_t pdt_cpu_attention_elems(const pdt_room *most);
/* For a call of close_blocks. */
int64_t pdt_cpu_block_elems(const pdt_room *most);

/* matrix.c */
int pdt_cpu_matrix_new(pdt_device *dev, pdt_matrix *m, int32_t out, int32_t in, pdt_dtype dtype,
                       int32_t leaf_width, pdt_error *err);
void pdt_cpu_matrix_free(pdt_device *dev, pdt_matrix *m);
void pdt_cpu_matrix_pack(pdt_device *dev, pdt_matrix *m, int32_t first_out, int32_t n_rows,
                         const void *src, int64_t src_stride);
void pdt_cpu_gather_rows(pdt_device *dev, const pdt_matrix *w, const int32_t *ids, int32_t n,
                         pdt_array y);

/* rows.c */
void pdt_cpu_matmul(pdt_device *dev, const pdt_matrix *w, pdt_array x, int64_t x_stride,
                    int32_t rows, pdt_array y);
void pdt_cpu_rows_product(pdt_device *dev, const pdt_rows *rows, int64_t first, int32_t n,
                          pdt_array x, pdt_array y);
void pdt_cpu_norm_rows(pdt_device *dev, pdt_array x, pdt_array weight, float eps, int32_t rows,
                       int32_t width, pdt_array y);
void pdt_cpu_add_bias(pdt_device *dev, pdt_array y, int32_t rows, int32_t width, pdt_array bias);
void pdt_cpu_add(pdt_device *dev, pdt_array y, pdt_array x, int64_t n);
void pdt_cpu_sum_shares(pdt_device *dev, const pdt_array *parts, int32_t T, int64_t n,
                        pdt_array out);
void pdt_cpu_swiglu(pdt_device *dev, pdt_array gate_up, int32_t rows, int32_t width);

/* sequences.c */
int pdt_cpu_batch_new(pdt_device *dev, int32_t max_rows, int32_t max_positions, int32_t head_dim,
                      const pdt_rotary *rotary, pdt_batch **out, pdt_error *err);
void pdt_cpu_batch_free(pdt_device *dev, pdt_batch *batch);
void pdt_cpu_batch_set(pdt_device *dev, pdt_batch *batch, const pdt_row_place *rows, int32_t n);
void pdt_cpu_rotate_and_store(pdt_device *dev, const pdt_batch *batch, const pdt_kv_pool *kv,
                              pdt_layer layer, const pdt_attention *a, pdt_array qkv);
void pdt_cpu_attention(pdt_device *dev, const pdt_batch *batch, const pdt_kv_pool *kv,
                       pdt_layer layer, const pdt_attention *a, pdt_array qkv, pdt_array out);

/* notes.c */
int pdt_cpu_conditions_new(pdt_device *dev, int32_t max_rows, pdt_conditions **out, pdt_error *err);
void pdt_cpu_conditions_free(pdt_device *dev, pdt_conditions *conditions);
void pdt_cpu_conditions_set(pdt_device *dev, pdt_conditions *conditions,
                            const pdt_row_condition *rows, int32_t n);
void pdt_cpu_store_notes(pdt_device *dev, const pdt_kv_pool *window, pdt_layer layer,
                         pdt_array keys, pdt_array values, int32_t n);
void pdt_cpu_note_attention(pdt_device *dev, const pdt_conditions *conditions,
                            const pdt_kv_shape *shape, pdt_layer layer, pdt_array query,
                            pdt_array out);
void pdt_cpu_add_noted(pdt_device *dev, const pdt_conditions *conditions, pdt_array h,
                       pdt_array delta, float gate, int32_t width);
void pdt_cpu_adapt(pdt_device *dev, const pdt_conditions *conditions, const pdt_adapters *adapters,
                   pdt_array normed, pdt_array scratch, pdt_array h);

/* blocks.c */
void pdt_cpu_close_blocks(pdt_device *dev, const pdt_block_heads *heads, const pdt_block *blocks,
                          int32_t n);
void pdt_cpu_plan_read(pdt_device *dev, const pdt_plan_places *places, pdt_array states,
                       pdt_array read, int32_t n, int32_t first, double *sums);

/* choice.c */
void pdt_cpu_argmax_rows(pdt_device *dev, pdt_array logits, int32_t width, const int32_t *rows,
                         int32_t n, int32_t first_id, pdt_candidate *best);
void pdt_cpu_sample_rows(pdt_device *dev, pdt_array logits, int32_t width, const int32_t *rows,
                         int32_t n, const pdt_row_draw *draws, pdt_token *tokens);
void pdt_cpu_logprobs_rows(pdt_device *dev, pdt_array logits, int32_t width, int32_t n,
                           const pdt_token *tokens, int32_t top, pdt_logprob *out);

#endif

/* A device whose memory the host cannot touch, as a GPU's: linked into pdt in place of the CPU's
 * (ld --wrap=pdt_cpu_device_new and pdt_cpu_round_rows), it computes with the CPU's operations, but
 * every address that it gives out lies FAR from where the floats are, where no address of a process
 * is. Whoever reads or writes them without the device ends by a signal; exchanges go through
 * downloads and uploads. With it pdt gives the bits that it gives without: nothing but kernels
 * looks behind a pdt_array. Steps run ahead of their tokens, as on a GPU. */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "kernels/kernels.h"

static const uintptr_t FAR = (uintptr_t)1 << 62;

void __real_pdt_cpu_round_rows(pdt_device *dev, bool rounds);
void __wrap_pdt_cpu_round_rows(pdt_device *dev, bool rounds);
int __real_pdt_cpu_device_new(pdt_device *dev, pdt_cpu_isa isa, int threads, pdt_error *err);
int __wrap_pdt_cpu_device_new(pdt_device *dev, pdt_cpu_isa isa, int threads, pdt_error *err);

/* ---- from far to near ---- */

static pdt_device *near_device(const pdt_device *dev) {
  return dev->state;
}

/* The operations behind it. */
static const pdt_kernels *ops(const pdt_device *dev) {
  return near_device(dev)->ops;
}

static void *moved(void *p, uintptr_t by) {
  return p ? (void *)((uintptr_t)p + by) : NULL;
}

static pdt_array near(pdt_array a) {
  return (pdt_array){moved(a.at, -FAR)};
}

static pdt_matrix near_matrix(const pdt_matrix *m) {
  pdt_matrix n = *m;
  n.data = moved(m->data, -FAR);
  return n;
}

static pdt_rows near_rows(const pdt_rows *rows) {
  pdt_rows n = *rows;
  n.data = moved(rows->data, -FAR);
  return n;
}

static pdt_kv_pool near_pool(const pdt_kv_pool *kv) {
  return (pdt_kv_pool){kv->shape, near(kv->data)};
}

static pdt_attention near_attention(const pdt_attention *a) {
  pdt_attention n = *a;
  n.q_norm = near(a->q_norm);
  n.k_norm = near(a->k_norm);
  return n;
}

/* Room of one call; a test that has no memory ends. */
static void *room_of(int64_t count, size_t size) {
  void *room;
  if (pdt_new(&room, count, size, "a distant device", NULL)) abort();
  return room;
}

/* ---- the device and its memory ---- */

static void close_distant(pdt_device *dev) {
  ops(dev)->close(near_device(dev));
  free(dev->state);
  *dev = (pdt_device){0};
}

static int sync_distant(pdt_device *dev, pdt_error *err) {
  return ops(dev)->sync(near_device(dev), err);
}

static pdt_bytes available(pdt_device *dev, int32_t sharing) {
  return ops(dev)->available(near_device(dev), sharing);
}

static int reserve(pdt_device *dev, const pdt_room *most, pdt_error *err) {
  return ops(dev)->reserve(near_device(dev), most, err);
}

static int alloc(pdt_device *dev, int64_t elems, const char *what, pdt_array *out, pdt_error *err) {
  if (ops(dev)->alloc(near_device(dev), elems, what, out, err)) return -1;
  out->at = moved(out->at, FAR);
  return 0;
}

static void release(pdt_device *dev, pdt_array a) {
  ops(dev)->release(near_device(dev), near(a));
}

static void upload(pdt_device *dev, pdt_array dst, const float *host, int64_t elems) {
  ops(dev)->upload(near_device(dev), near(dst), host, elems);
}

static void download(pdt_device *dev, float *host, pdt_array src, int64_t elems) {
  ops(dev)->download(near_device(dev), host, near(src), elems);
}

static void copy_rows(pdt_device *dev, pdt_array dst, int64_t dst_stride, pdt_array src,
                      int64_t src_stride, int32_t rows, int32_t width) {
  ops(dev)->copy_rows(near_device(dev), near(dst), dst_stride, near(src), src_stride, rows, width);
}

static void move_rows(pdt_device *dev, pdt_array dst, const int32_t *to, pdt_array src,
                      const int32_t *from, int32_t n, int32_t width) {
  ops(dev)->move_rows(near_device(dev), near(dst), to, near(src), from, n, width);
}

/* ---- weights and products ---- */

static int matrix_new(pdt_device *dev, pdt_matrix *m, int32_t out, int32_t in, pdt_dtype dtype,
                      int32_t leaf_width, pdt_error *err) {
  if (ops(dev)->matrix_new(near_device(dev), m, out, in, dtype, leaf_width, err)) return -1;
  m->data = moved(m->data, FAR);
  return 0;
}

static void matrix_free(pdt_device *dev, pdt_matrix *m) {
  m->data = moved(m->data, -FAR);
  ops(dev)->matrix_free(near_device(dev), m);
}

static void matrix_pack(pdt_device *dev, pdt_matrix *m, int32_t first_out, int32_t n_rows,
                        const void *src, int64_t src_stride) {
  pdt_matrix n = near_matrix(m);
  ops(dev)->matrix_pack(near_device(dev), &n, first_out, n_rows, src, src_stride);
}

static int rows_new(pdt_device *dev, pdt_rows *rows, int64_t n, int32_t width, pdt_dtype dtype,
                    pdt_error *err) {
  if (ops(dev)->rows_new(near_device(dev), rows, n, width, dtype, err)) return -1;
  rows->data = moved(rows->data, FAR);
  return 0;
}

static void rows_free(pdt_device *dev, pdt_rows *rows) {
  rows->data = moved(rows->data, -FAR);
  ops(dev)->rows_free(near_device(dev), rows);
}

static void rows_write(pdt_device *dev, pdt_rows *rows, int64_t first, int64_t n, const void *src) {
  pdt_rows own = near_rows(rows);
  ops(dev)->rows_write(near_device(dev), &own, first, n, src);
}

static void rows_read(pdt_device *dev, const pdt_rows *rows, int64_t row, float *host) {
  pdt_rows n = near_rows(rows);
  ops(dev)->rows_read(near_device(dev), &n, row, host);
}

static void matmul(pdt_device *dev, const pdt_matrix *w, pdt_array x, int64_t x_stride,
                   int32_t rows, pdt_array y) {
  pdt_matrix n = near_matrix(w);
  ops(dev)->matmul(near_device(dev), &n, near(x), x_stride, rows, near(y));
}

static void matmul_bulk(pdt_device *dev, const pdt_matrix *w, pdt_array x, int64_t x_stride,
                        int32_t rows, pdt_array y) {
  pdt_matrix n = near_matrix(w);
  ops(dev)->matmul_bulk(near_device(dev), &n, near(x), x_stride, rows, near(y));
}

static void gather_rows(pdt_device *dev, const pdt_matrix *w, const int32_t *ids, int32_t n,
                        pdt_array y) {
  pdt_matrix own = near_matrix(w);
  ops(dev)->gather_rows(near_device(dev), &own, ids, n, near(y));
}

static void rows_product(pdt_device *dev, const pdt_rows *rows, int64_t first, int32_t n,
                         pdt_array x, pdt_array y) {
  pdt_rows own = near_rows(rows);
  ops(dev)->rows_product(near_device(dev), &own, first, n, near(x), near(y));
}

/* ---- rows and elements ---- */

static void norm_rows(pdt_device *dev, pdt_array x, pdt_array weight, float eps, int32_t rows,
                      int32_t width, pdt_array y) {
  ops(dev)->norm_rows(near_device(dev), near(x), near(weight), eps, rows, width, near(y));
}

static void add_bias(pdt_device *dev, pdt_array y, int32_t rows, int32_t width, pdt_array bias) {
  ops(dev)->add_bias(near_device(dev), near(y), rows, width, near(bias));
}

static void add(pdt_device *dev, pdt_array y, pdt_array x, int64_t n) {
  ops(dev)->add(near_device(dev), near(y), near(x), n);
}

static void sum_shares(pdt_device *dev, const pdt_array *parts, int32_t T, int64_t n,
                       pdt_array out) {
  pdt_array *own = room_of(T, sizeof *own);
  for (int32_t t = 0; t < T; t++) own[t] = near(parts[t]);
  ops(dev)->sum_shares(near_device(dev), own, T, n, near(out));
  free(own);
}

static void swiglu(pdt_device *dev, pdt_array gate_up, int32_t rows, int32_t width) {
  ops(dev)->swiglu(near_device(dev), near(gate_up), rows, width);
}

/* ---- sequences and conditioning ---- */

static int batch_new(pdt_device *dev, int32_t max_rows, int32_t max_positions, int32_t head_dim,
                     const pdt_rotary *rotary, pdt_batch **out, pdt_error *err) {
  return ops(dev)->batch_new(near_device(dev), max_rows, max_positions, head_dim, rotary, out, err);
}

static void batch_free(pdt_device *dev, pdt_batch *batch) {
  ops(dev)->batch_free(near_device(dev), batch);
}

static void batch_set(pdt_device *dev, pdt_batch *batch, const pdt_row_place *rows, int32_t n) {
  ops(dev)->batch_set(near_device(dev), batch, rows, n);
}

static void rotate_and_store(pdt_device *dev, const pdt_batch *batch, const pdt_kv_pool *kv,
                             pdt_layer layer, const pdt_attention *a, pdt_array qkv) {
  pdt_kv_pool pool = near_pool(kv);
  pdt_attention n = near_attention(a);
  ops(dev)->rotate_and_store(near_device(dev), batch, &pool, layer, &n, near(qkv));
}

static void attention(pdt_device *dev, const pdt_batch *batch, const pdt_kv_pool *kv,
                      pdt_layer layer, const pdt_attention *a, pdt_array qkv, pdt_array out) {
  pdt_kv_pool pool = near_pool(kv);
  pdt_attention n = near_attention(a);
  ops(dev)->attention(near_device(dev), batch, &pool, layer, &n, near(qkv), near(out));
}

static int conditions_new(pdt_device *dev, int32_t max_rows, pdt_conditions **out, pdt_error *err) {
  return ops(dev)->conditions_new(near_device(dev), max_rows, out, err);
}

static void conditions_free(pdt_device *dev, pdt_conditions *conditions) {
  ops(dev)->conditions_free(near_device(dev), conditions);
}

static void conditions_set(pdt_device *dev, pdt_conditions *conditions,
                           const pdt_row_condition *rows, int32_t n) {
  pdt_row_condition *own = room_of(n, sizeof *own);
  for (int32_t r = 0; r < n; r++) {
    own[r] = rows[r];
    own[r].notes = near(rows[r].notes);
  }
  ops(dev)->conditions_set(near_device(dev), conditions, own, n);
  free(own);
}

static void store_notes(pdt_device *dev, const pdt_kv_pool *window, pdt_layer layer, pdt_array keys,
                        pdt_array values, int32_t n) {
  pdt_kv_pool pool = near_pool(window);
  ops(dev)->store_notes(near_device(dev), &pool, layer, near(keys), near(values), n);
}

static void note_attention(pdt_device *dev, const pdt_conditions *conditions,
                           const pdt_kv_shape *shape, pdt_layer layer, pdt_array query,
                           pdt_array out) {
  ops(dev)->note_attention(near_device(dev), conditions, shape, layer, near(query), near(out));
}

static void add_noted(pdt_device *dev, const pdt_conditions *conditions, pdt_array h,
                      pdt_array delta, float gate, int32_t width) {
  ops(dev)->add_noted(near_device(dev), conditions, near(h), near(delta), gate, width);
}

static void adapt(pdt_device *dev, const pdt_conditions *conditions, const pdt_adapters *adapters,
                  pdt_array normed, pdt_array scratch, pdt_array h) {
  pdt_adapter *own = room_of(adapters->n_streams, sizeof *own);
  for (int32_t k = 0; k < adapters->n_streams; k++) {
    const pdt_adapter *a = &adapters->by_stream[k];
    own[k] = (pdt_adapter){near_matrix(&a->down), near_matrix(&a->up), near(a->down_bias),
                           near(a->up_bias)};
  }
  pdt_adapters n = *adapters;
  n.by_stream = own;
  ops(dev)->adapt(near_device(dev), conditions, &n, near(normed), near(scratch), near(h));
  free(own);
}

/* ---- blocks, plans, choice ---- */

static pdt_block_heads near_heads(const pdt_block_heads *heads, pdt_matrix *pool_value) {
  pdt_block_heads h = *heads;
  pdt_matrix *matrices[] = {&h.pool_query,     &h.speculation,  &h.hidden,          &h.hidden_out,
                            &h.coverage_block, &h.agree_hidden, &h.agree_pool,      &h.agree_note,
                            &h.agree_coverage, &h.agree_query,  &h.agree_note_query};
  pdt_array *arrays[] = {&h.speculation_bias, &h.hidden_bias, &h.agree_bias, &h.agree_out};
  for (size_t i = 0; i < sizeof matrices / sizeof *matrices; i++)
    *matrices[i] = near_matrix(matrices[i]);
  for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) *arrays[i] = near(*arrays[i]);
  for (int32_t j = 0; j < h.pool_heads; j++) pool_value[j] = near_matrix(&heads->pool_value[j]);
  h.pool_value = pool_value;
  return h;
}

static void close_blocks(pdt_device *dev, const pdt_block_heads *heads, const pdt_block *blocks,
                         int32_t n) {
  pdt_matrix *pool_value = room_of(heads->pool_heads, sizeof *pool_value);
  pdt_block *own = room_of(n, sizeof *own);
  pdt_block_heads h = near_heads(heads, pool_value);
  for (int32_t i = 0; i < n; i++) {
    own[i] = blocks[i];
    own[i].states = near(blocks[i].states);
    own[i].pooled = near(blocks[i].pooled);
    own[i].embedded = near(blocks[i].embedded);
    own[i].agree_keys = near(blocks[i].agree_keys);
    own[i].agree_values = near(blocks[i].agree_values);
    own[i].plan_items = near(blocks[i].plan_items);
  }
  ops(dev)->close_blocks(near_device(dev), &h, own, n);
  free(pool_value);
  free(own);
}

static void plan_read(pdt_device *dev, const pdt_plan_places *places, pdt_array states,
                      pdt_array read, int32_t n, int32_t first, double *sums) {
  pdt_plan_places own = *places;
  own.weights = near(places->weights);
  own.mark = near(places->mark);
  own.orders = near(places->orders);
  ops(dev)->plan_read(near_device(dev), &own, near(states), near(read), n, first, sums);
}

static void argmax_rows(pdt_device *dev, pdt_array logits, int32_t width, const int32_t *rows,
                        int32_t n, int32_t first_id, pdt_candidate *best) {
  ops(dev)->argmax_rows(near_device(dev), near(logits), width, rows, n, first_id, best);
}

static void sample_rows(pdt_device *dev, pdt_array logits, int32_t width, const int32_t *rows,
                        int32_t n, const pdt_row_draw *draws, pdt_token *tokens) {
  ops(dev)->sample_rows(near_device(dev), near(logits), width, rows, n, draws, tokens);
}

static void logprobs_rows(pdt_device *dev, pdt_array logits, int32_t width, int32_t n,
                          const pdt_token *tokens, int32_t top, pdt_logprob *out) {
  ops(dev)->logprobs_rows(near_device(dev), near(logits), width, n, tokens, top, out);
}

static int chosen_new(pdt_device *dev, int32_t n, pdt_chosen **out, pdt_error *err) {
  return ops(dev)->chosen_new(near_device(dev), n, out, err);
}

static void chosen_free(pdt_device *dev, pdt_chosen *chosen) {
  ops(dev)->chosen_free(near_device(dev), chosen);
}

static void choose_rows(pdt_device *dev, pdt_array logits, int32_t width, int32_t n,
                        const pdt_row_draw *draws, const int32_t *to, pdt_chosen *chosen) {
  ops(dev)->choose_rows(near_device(dev), near(logits), width, n, draws, to, chosen);
}

static void gather_chosen(pdt_device *dev, const pdt_matrix *w, const pdt_chosen *chosen,
                          const int32_t *from, int32_t n, pdt_array y) {
  pdt_matrix own = near_matrix(w);
  ops(dev)->gather_chosen(near_device(dev), &own, chosen, from, n, near(y));
}

static void chosen_read(pdt_device *dev, pdt_chosen *chosen, const int32_t *from, int32_t n,
                        bool but_last, pdt_token *tokens) {
  ops(dev)->chosen_read(near_device(dev), chosen, from, n, but_last, tokens);
}

static const pdt_kernels operations = {
    .close = close_distant,
    .sync = sync_distant,
    .available = available,
    .reserve = reserve,
    .alloc = alloc,
    .release = release,
    .upload = upload,
    .download = download,
    .copy_rows = copy_rows,
    .move_rows = move_rows,
    .matrix_new = matrix_new,
    .matrix_free = matrix_free,
    .matrix_pack = matrix_pack,
    .rows_new = rows_new,
    .rows_free = rows_free,
    .rows_write = rows_write,
    .rows_read = rows_read,
    .matmul = matmul,
    .matmul_bulk = matmul_bulk,
    .gather_rows = gather_rows,
    .rows_product = rows_product,
    .norm_rows = norm_rows,
    .add_bias = add_bias,
    .add = add,
    .sum_shares = sum_shares,
    .swiglu = swiglu,
    .batch_new = batch_new,
    .batch_free = batch_free,
    .batch_set = batch_set,
    .rotate_and_store = rotate_and_store,
    .attention = attention,
    .conditions_new = conditions_new,
    .conditions_free = conditions_free,
    .conditions_set = conditions_set,
    .store_notes = store_notes,
    .note_attention = note_attention,
    .add_noted = add_noted,
    .adapt = adapt,
    .close_blocks = close_blocks,
    .plan_read = plan_read,
    .argmax_rows = argmax_rows,
    .sample_rows = sample_rows,
    .logprobs_rows = logprobs_rows,
    .chosen_new = chosen_new,
    .chosen_free = chosen_free,
    .choose_rows = choose_rows,
    .gather_chosen = gather_chosen,
    .chosen_read = chosen_read,
};

int __wrap_pdt_cpu_device_new(pdt_device *dev, pdt_cpu_isa isa, int threads, pdt_error *err) {
  pdt_device *behind;
  *dev = (pdt_device){0};
  if (PDT_NEW(&behind, 1, "a distant device", err)) return -1;
  if (__real_pdt_cpu_device_new(behind, isa, threads, err)) {
    free(behind);
    return -1;
  }
  *dev = (pdt_device){.ops = &operations,
                      .name = "distant",
                      .threads = threads,
                      .host_memory = false,
                      .runs_ahead = true,
                      .bulk_rows = behind->bulk_rows,
                      .state = behind};
  return 0;
}

void __wrap_pdt_cpu_round_rows(pdt_device *dev, bool rounds) {
  __real_pdt_cpu_round_rows(near_device(dev), rounds);
  dev->rounds = near_device(dev)->rounds;
}

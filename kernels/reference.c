/* Every operation of kernels.h in its plainest form, to be read and to be compared with: in double,
 * from first to last, rounded to float where a result is stored. Arrays are ordinary memory. A
 * matrix is [out, in] floats, widened; a page of keys and values is [layers, heads, 2, PAGE_TOKENS,
 * head_dim], keys before values. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "kernels/host_memory.h"
#include "kernels/kernels.h"

/* ---- the device ---- */

typedef struct reference {
  double *room; /* for sums of one call */
  int64_t n_room;
  pdt_error failure; /* told by sync */
} reference;

/* n doubles, zeroed; NULL, with the failure kept, without memory. */
static double *take(pdt_device *dev, int64_t n) {
  reference *state = dev->state;
  if (n > state->n_room) {
    free(state->room);
    state->n_room = 0;
    if (PDT_NEW(&state->room, n, "reference kernels", &state->failure)) return NULL;
    state->n_room = n;
  }
  memset(state->room, 0, (size_t)n * sizeof *state->room);
  return state->room;
}

static void close_device(pdt_device *dev) {
  reference *state = dev->state;
  if (state) free(state->room);
  free(state);
  *dev = (pdt_device){0};
}

static int sync_device(pdt_device *dev, pdt_error *err) {
  reference *state = dev->state;
  if (state->failure.code == PDT_ERROR_NONE) return 0;
  if (err) *err = state->failure;
  state->failure = (pdt_error){0};
  return -1;
}

static int reserve(pdt_device *dev, const pdt_room *most, pdt_error *err) {
  (void)dev, (void)most, (void)err;
  return 0;
}

/* ---- weights and products ---- */

static int matrix_new(pdt_device *dev, pdt_matrix *m, int32_t out, int32_t in, pdt_dtype dtype,
                      int32_t leaf_width, pdt_error *err) {
  (void)dev;
  *m = (pdt_matrix){0};
  if (out < 1 || in < 1)
    return pdt_fail(err, PDT_ERROR_RUNTIME,
                    "weight matrix: expected a shape of at least [1, 1], found [%d, %d]", out, in);
  pdt_matrix made = {.out = out, .in = in, .dtype = dtype};
  made.bytes = (int64_t)out * in * (pdt_bytes)sizeof(float);
  if (pdt_new(&made.data, (int64_t)out * in, sizeof(float), "weight matrix", err)) return -1;
  if (pdt_sum_tree_new(&made.tree, in, leaf_width, err)) {
    free(made.data);
    return -1;
  }
  *m = made;
  return 0;
}

static void matrix_free(pdt_device *dev, pdt_matrix *m) {
  (void)dev;
  free(m->data);
  pdt_sum_tree_free(&m->tree);
  *m = (pdt_matrix){0};
}

static void matrix_pack(pdt_device *dev, pdt_matrix *m, int32_t first_out, int32_t n_rows,
                        const void *src, int64_t src_stride) {
  (void)dev;
  for (int32_t j = 0; j < n_rows; j++)
    pdt_to_float(m->dtype, (const char *)src + pdt_dtype_row_bytes(m->dtype, j * src_stride), m->in,
                 (float *)m->data + (int64_t)(first_out + j) * m->in);
}

static const float *row_of(const pdt_matrix *m, int64_t o) {
  return (const float *)m->data + o * m->in;
}

/* The dot product of two vectors of n. */
static double dot(const float *a, const float *b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++) sum += (double)a[i] * (double)b[i];
  return sum;
}

static void matmul(pdt_device *dev, const pdt_matrix *w, pdt_array x, int64_t x_stride,
                   int32_t rows, pdt_array y) {
  (void)dev;
  for (int64_t r = 0; r < rows; r++)
    for (int64_t o = 0; o < w->out; o++)
      y.at[r * w->out + o] = (float)dot(row_of(w, o), x.at + r * x_stride, w->in);
}

static void gather_rows(pdt_device *dev, const pdt_matrix *w, const int32_t *ids, int32_t n,
                        pdt_array y) {
  (void)dev;
  for (int64_t r = 0; r < n; r++)
    memcpy(y.at + r * w->in, row_of(w, ids[r]), (size_t)w->in * sizeof(float));
}

static void rows_product(pdt_device *dev, const pdt_rows *rows, int64_t first, int32_t n,
                         pdt_array x, pdt_array y) {
  (void)dev;
  const int32_t step = pdt_dtype_block_of(rows->dtype).elems;
  float block[256]; /* the largest */
  for (int32_t j = 0; j < n; j++) {
    const char *row = pdt_host_row(rows, first + j);
    double sum = 0;
    for (int32_t i = 0; i < rows->width; i += step) {
      pdt_to_float(rows->dtype, row + pdt_dtype_row_bytes(rows->dtype, i), step, block);
      for (int32_t k = 0; k < step; k++) sum += (double)block[k] * (double)x.at[i + k];
    }
    y.at[j] = (float)sum;
  }
}

/* ---- rows and elements ---- */

static void norm(const float *x, const float *weight, double eps, int64_t width, float *y) {
  double scale = 1 / sqrt(dot(x, x, width) / (double)width + eps);
  for (int64_t i = 0; i < width; i++)
    y[i] = (float)((double)x[i] * scale * (weight ? (double)weight[i] : 1));
}

static void norm_rows(pdt_device *dev, pdt_array x, pdt_array weight, float eps, int32_t rows,
                      int32_t width, pdt_array y) {
  (void)dev;
  for (int64_t r = 0; r < rows; r++)
    norm(x.at + r * width, weight.at, (double)eps, width, y.at + r * width);
}

static void add_bias(pdt_device *dev, pdt_array y, int32_t rows, int32_t width, pdt_array bias) {
  (void)dev;
  for (int64_t r = 0; r < rows; r++)
    for (int64_t i = 0; i < width; i++) y.at[r * width + i] += bias.at[i];
}

static void add(pdt_device *dev, pdt_array y, pdt_array x, int64_t n) {
  (void)dev;
  for (int64_t i = 0; i < n; i++) y.at[i] += x.at[i];
}

static void sum_shares(pdt_device *dev, const pdt_array *parts, int32_t T, int64_t n,
                       pdt_array out) {
  (void)dev;
  for (int64_t i = 0; i < n; i++) {
    double sum = 0;
    for (int32_t t = 0; t < T; t++)
      if (parts[t].at) sum += (double)parts[t].at[i];
    out.at[i] = (float)sum;
  }
}

static void swiglu(pdt_device *dev, pdt_array gate_up, int32_t rows, int32_t width) {
  (void)dev;
  for (int64_t r = 0; r < rows; r++) {
    float *gate = gate_up.at + r * 2 * width;
    for (int32_t i = 0; i < width; i++) {
      double z = (double)gate[i];
      gate[i] = (float)(z / (1 + exp(-z)) * (double)gate[width + i]);
    }
  }
}

static double gelu(double x) {
  return x / 2 * erfc(-x / sqrt(2));
}

static double sigmoid(double x) {
  return 1 / (1 + exp(-x));
}

/* x = softmax(x). */
static void softmax(double *x, int64_t n) {
  double top = -INFINITY, sum = 0;
  for (int64_t i = 0; i < n; i++) top = fmax(top, x[i]);
  for (int64_t i = 0; i < n; i++) sum += exp(x[i] - top);
  for (int64_t i = 0; i < n; i++) x[i] = exp(x[i] - top) / sum;
}

/* ---- sequences ---- */

struct pdt_batch {
  int32_t head_dim, n;
  double scale;
  double *inv_freq;
  pdt_row_place *rows;
};

static void batch_free(pdt_device *dev, pdt_batch *batch) {
  (void)dev;
  if (!batch) return;
  free(batch->inv_freq);
  free(batch->rows);
  free(batch);
}

static int batch_new(pdt_device *dev, int32_t max_rows, int32_t max_positions, int32_t head_dim,
                     const pdt_rotary *rotary, pdt_batch **out, pdt_error *err) {
  pdt_batch *b;
  (void)max_positions;
  *out = NULL;
  if (PDT_NEW(&b, 1, "batch", err)) return -1;
  if (PDT_NEW(&b->inv_freq, head_dim / 2, "batch", err) ||
      PDT_NEW(&b->rows, max_rows, "batch", err)) {
    batch_free(dev, b);
    return -1;
  }
  b->head_dim = head_dim;
  b->scale = rotary->scale;
  for (int32_t j = 0; j < head_dim / 2; j++) b->inv_freq[j] = rotary->inv_freq[j];
  *out = b;
  return 0;
}

static void batch_set(pdt_device *dev, pdt_batch *batch, const pdt_row_place *rows, int32_t n) {
  (void)dev;
  batch->n = n;
  for (int32_t r = 0; r < n; r++) batch->rows[r] = rows[r];
}

/* The key (or with `value` the value) of a head at place `lane` of a page. */
static float *cached(const pdt_kv_pool *kv, int64_t page, int32_t lane, pdt_layer layer,
                     int32_t head, bool value) {
  const pdt_kv_shape *s = &kv->shape;
  int64_t at = page;
  at = at * s->layers + layer;
  at = at * s->heads + head;
  at = at * 2 + value;
  at = at * PDT_PAGE_TOKENS + lane;
  return kv->data.at + at * s->head_dim;
}

/* The page and the place in it of one position that a row sees. */
static int32_t page_of(const pdt_row_place *row, int32_t position, int32_t *lane) {
  bool shared = position < row->shared_tokens;
  int32_t at = shared ? position : position - row->shared_tokens;
  *lane = at % PDT_PAGE_TOKENS;
  return (shared ? row->shared_pages : row->pages)[at / PDT_PAGE_TOKENS];
}

static void rotate(const pdt_batch *b, int32_t position, float *x) {
  int32_t half = b->head_dim / 2;
  for (int32_t j = 0; j < half; j++) {
    double angle = position * b->inv_freq[j];
    double cosine = cos(angle) * b->scale, sine = sin(angle) * b->scale;
    double u = (double)x[j], v = (double)x[half + j];
    x[j] = (float)(u * cosine - v * sine);
    x[half + j] = (float)(v * cosine + u * sine);
  }
}

static void rotate_and_store(pdt_device *dev, const pdt_batch *batch, const pdt_kv_pool *kv,
                             pdt_layer layer, const pdt_attention *a, pdt_array qkv) {
  (void)dev;
  int64_t hd = batch->head_dim, h = a->n_heads, n_kv = kv->shape.heads;
  for (int32_t r = 0; r < batch->n; r++) {
    float *heads = qkv.at + r * (h + 2 * n_kv) * hd;
    const pdt_row_place *row = &batch->rows[r];
    for (int64_t i = 0; i < h + n_kv; i++) {
      const float *weight = i < h ? a->q_norm.at : a->k_norm.at;
      if (weight) norm(heads + i * hd, weight, (double)a->eps, hd, heads + i * hd);
      rotate(batch, row->position, heads + i * hd);
    }
    int32_t lane, page = page_of(row, row->position, &lane);
    for (int32_t j = 0; j < n_kv; j++) {
      memcpy(cached(kv, page, lane, layer, j, false), heads + (h + j) * hd,
             (size_t)hd * sizeof(float));
      memcpy(cached(kv, page, lane, layer, j, true), heads + (h + n_kv + j) * hd,
             (size_t)hd * sizeof(float));
    }
  }
}

/* Where one query head finds what it attends to: positions first .. end-1 of a row's sequence, or
 * of a window of notes whose pages are in order. */
typedef struct sight {
  const pdt_kv_pool *kv;
  const pdt_row_place *row; /* NULL: a window */
  pdt_layer layer;
  int32_t head, first, end;
} sight;

static const float *seen(const sight *s, int32_t position, bool value) {
  int32_t lane = position % PDT_PAGE_TOKENS, page = position / PDT_PAGE_TOKENS;
  if (s->row) page = page_of(s->row, position, &lane);
  return cached(s->kv, page, lane, s->layer, s->head, value);
}

/* out = softmax(q . K / sqrt(head_dim)) V. */
static void attend(pdt_device *dev, const sight *s, const float *q, float *out) {
  int32_t hd = s->kv->shape.head_dim;
  double *weights = take(dev, s->end - s->first);
  if (!weights) return;
  for (int32_t i = s->first; i < s->end; i++)
    weights[i - s->first] = dot(q, seen(s, i, false), hd) / sqrt(hd);
  softmax(weights, s->end - s->first);
  for (int32_t d = 0; d < hd; d++) {
    double sum = 0;
    for (int32_t i = s->first; i < s->end; i++)
      sum += weights[i - s->first] * (double)seen(s, i, true)[d];
    out[d] = (float)sum;
  }
}

static void attention(pdt_device *dev, const pdt_batch *batch, const pdt_kv_pool *kv,
                      pdt_layer layer, const pdt_attention *a, pdt_array qkv, pdt_array out) {
  int64_t hd = batch->head_dim, h = a->n_heads, n_kv = kv->shape.heads;
  for (int64_t r = 0; r < batch->n; r++)
    for (int32_t i = 0; i < h; i++) {
      const pdt_row_place *row = &batch->rows[r];
      int32_t end = row->position + 1;
      int32_t first = a->window && end > a->window ? end - a->window : 0;
      const sight s = {kv, row, layer, (a->first + i) / a->per_kv, first, end};
      attend(dev, &s, qkv.at + (r * (h + 2 * n_kv) + i) * hd, out.at + (r * h + i) * hd);
    }
}

/* ---- conditioning ---- */

struct pdt_conditions {
  int32_t n;
  pdt_row_condition *rows;
};

static int conditions_new(pdt_device *dev, int32_t max_rows, pdt_conditions **out, pdt_error *err) {
  pdt_conditions *c;
  (void)dev;
  *out = NULL;
  if (PDT_NEW(&c, 1, "conditions", err)) return -1;
  if (PDT_NEW(&c->rows, max_rows, "conditions", err)) {
    free(c);
    return -1;
  }
  *out = c;
  return 0;
}

static void conditions_free(pdt_device *dev, pdt_conditions *conditions) {
  (void)dev;
  if (conditions) free(conditions->rows);
  free(conditions);
}

static void conditions_set(pdt_device *dev, pdt_conditions *conditions,
                           const pdt_row_condition *rows, int32_t n) {
  (void)dev;
  conditions->n = n;
  for (int32_t r = 0; r < n; r++) conditions->rows[r] = rows[r];
}

static void store_notes(pdt_device *dev, const pdt_kv_pool *window, pdt_layer layer, pdt_array keys,
                        pdt_array values, int32_t n) {
  (void)dev;
  int64_t heads = window->shape.heads, hd = window->shape.head_dim;
  for (int32_t i = 0; i < n; i++)
    for (int32_t j = 0; j < heads; j++) {
      int32_t page = i / PDT_PAGE_TOKENS, lane = i % PDT_PAGE_TOKENS;
      memcpy(cached(window, page, lane, layer, j, false), keys.at + (i * heads + j) * hd,
             (size_t)hd * sizeof(float));
      memcpy(cached(window, page, lane, layer, j, true), values.at + (i * heads + j) * hd,
             (size_t)hd * sizeof(float));
    }
}

static void note_attention(pdt_device *dev, const pdt_conditions *conditions,
                           const pdt_kv_shape *shape, pdt_layer layer, pdt_array query,
                           pdt_array out) {
  int64_t heads = shape->heads, hd = shape->head_dim;
  for (int64_t r = 0; r < conditions->n; r++)
    for (int32_t j = 0; j < heads && conditions->rows[r].n_notes > 0; j++) {
      const pdt_kv_pool window = {*shape, conditions->rows[r].notes};
      const sight s = {&window, NULL, layer, j, 0, conditions->rows[r].n_notes};
      attend(dev, &s, query.at + (r * heads + j) * hd, out.at + (r * heads + j) * hd);
    }
}

static void add_noted(pdt_device *dev, const pdt_conditions *conditions, pdt_array h,
                      pdt_array delta, float gate, int32_t width) {
  (void)dev;
  for (int64_t r = 0; r < conditions->n; r++)
    for (int64_t i = r * width; i < (r + 1) * width && conditions->rows[r].n_notes > 0; i++)
      h.at[i] = (float)((double)h.at[i] + (double)gate * (double)delta.at[i]);
}

static void adapt(pdt_device *dev, const pdt_conditions *conditions, const pdt_adapters *adapters,
                  pdt_array normed, pdt_array scratch, pdt_array h) {
  int64_t d = adapters->width, a = adapters->dim;
  double *hidden = take(dev, a);
  (void)scratch;
  for (int64_t r = 0; r < conditions->n && hidden; r++) {
    const pdt_adapter *own = &adapters->by_stream[conditions->rows[r].stream];
    for (int64_t j = 0; j < a; j++)
      hidden[j] =
          gelu(dot(row_of(&own->down, j), normed.at + r * d, d) + (double)own->down_bias.at[j]);
    for (int64_t i = 0; i < d; i++) {
      double sum = (double)own->up_bias.at[i];
      for (int64_t j = 0; j < a; j++) sum += (double)row_of(&own->up, i)[j] * hidden[j];
      h.at[r * d + i] = (float)((double)h.at[r * d + i] + (double)adapters->gate * sum);
    }
  }
}

/* ---- blocks and plans ---- */

/* What closing one block works out on its way. */
typedef struct closing {
  const pdt_block_heads *heads;
  const pdt_block *block;
  double *summary, *last, *note; /* [p], [d], [dn] */
  double *covered;               /* [S] probabilities */
  double *scores;                /* [n_states] or [n_notes] */
  double *hidden;                /* the widest of what stands between two products */
} closing;

/* (W x + y)[o] of a vector in double. */
static double product(const pdt_matrix *w, int64_t o, const double *x) {
  double sum = 0;
  for (int64_t i = 0; i < w->in; i++) sum += (double)row_of(w, o)[i] * x[i];
  return sum;
}

static void summarize(const closing *c) {
  const pdt_block_heads *h = c->heads;
  const float *last = c->block->states.at, *states = c->block->pooled.at;
  int64_t d = h->width, n = c->block->n_states;
  if (!states) states = last;
  for (int64_t i = 0; i < d; i++) c->last[i] = (double)last[(n - 1) * d + i];
  if (h->pool_heads == 0)
    for (int64_t i = 0; i < d; i++) c->summary[i] = c->last[i];
  for (int32_t j = 0; j < h->pool_heads; j++) {
    const float *from = j < h->pool_heads - h->pool_copies ? states : c->block->embedded.at;
    for (int64_t u = 0; u < n; u++)
      c->scores[u] = dot(row_of(&h->pool_query, j), states + u * d, d) / sqrt((double)d);
    softmax(c->scores, n);
    for (int64_t i = 0; i < d; i++) {
      c->hidden[i] = 0;
      for (int64_t u = 0; u < n; u++) c->hidden[i] += c->scores[u] * (double)from[u * d + i];
    }
    for (int64_t o = 0; o < h->pool_dim; o++)
      c->summary[j * h->pool_dim + o] = product(&h->pool_value[j], o, c->hidden);
  }
}

static void speculate(const closing *c) {
  const pdt_block_heads *h = c->heads;
  double squares = 0;
  for (int64_t j = 0; j < h->hidden_dim; j++)
    c->hidden[j] = gelu(product(&h->hidden, j, c->summary) + (double)h->hidden_bias.at[j]);
  for (int64_t o = 0; o < h->notes_dim; o++) {
    c->note[o] = product(&h->speculation, o, c->summary) + (double)h->speculation_bias.at[o];
    if (h->hidden_dim > 0) c->note[o] += product(&h->hidden_out, o, c->hidden);
    squares += c->note[o] * c->note[o];
  }
  for (int64_t o = 0; o < h->notes_dim; o++) {
    c->note[o] /= sqrt(squares / h->notes_dim + (double)1e-6f);
    c->block->note[o] = (float)c->note[o];
  }
}

static void cover(const closing *c) {
  const pdt_block_heads *h = c->heads;
  const pdt_block *b = c->block;
  int64_t dc = h->coverage_dim;
  for (int64_t o = 0; o < dc; o++) c->hidden[o] = product(&h->coverage_block, o, c->summary);
  for (int64_t i = 0; i < h->slots; i++) {
    double logit = 0;
    for (int64_t o = 0; o < dc; o++) logit += (double)b->plan_items.at[i * dc + o] * c->hidden[o];
    logit = logit / sqrt((double)dc) + (double)h->coverage_bias;
    bool used = b->plan_ids[i] != 0;
    c->covered[i] = used ? sigmoid(logit) : 0;
    b->coverage[i] = used ? (float)logit : 0;
  }
}

/* Element o of the last state's attention to the window; weights in c->scores. */
static double attended(const closing *c, int64_t o) {
  double sum = 0;
  for (int64_t i = 0; i < c->block->n_notes; i++)
    sum += c->scores[i] * (double)c->block->agree_values.at[i * c->heads->agree_dim + o];
  return sum;
}

/* Element o of what is asked of the window. */
static double asked(const closing *c, int64_t o) {
  const pdt_block_heads *h = c->heads;
  double sum = product(&h->agree_query, o, c->last);
  return h->note_query ? sum + product(&h->agree_note_query, o, c->note) : sum;
}

static double agree(const closing *c) {
  const pdt_block_heads *h = c->heads;
  const pdt_block *b = c->block;
  int64_t da = h->agree_dim;
  double logit = (double)h->agree_out_bias;
  for (int64_t i = 0; i < b->n_notes; i++) {
    c->scores[i] = 0;
    for (int64_t o = 0; o < da; o++)
      c->scores[i] += asked(c, o) * (double)b->agree_keys.at[i * da + o];
    c->scores[i] /= sqrt((double)da);
  }
  softmax(c->scores, b->n_notes);
  for (int64_t o = 0; o < da; o++) {
    double sum = (double)h->agree_bias.at[o] + product(&h->agree_hidden, o, c->last) +
                 product(&h->agree_pool, o, c->summary) + product(&h->agree_note, o, c->note) +
                 product(&h->agree_coverage, o, c->covered) + attended(c, o);
    logit += (double)h->agree_out.at[o] * gelu(sum);
  }
  return isfinite(logit) ? sigmoid(logit) : (double)NAN;
}

static void close_blocks(pdt_device *dev, const pdt_block_heads *heads, const pdt_block *blocks,
                         int32_t n) {
  int64_t p = heads->pool_heads > 0 ? heads->pool_heads * heads->pool_dim : heads->width;
  int64_t between = heads->width + heads->hidden_dim + heads->coverage_dim;
  for (int32_t i = 0; i < n; i++) {
    const pdt_block *b = &blocks[i];
    closing c = {.heads = heads, .block = b};
    c.summary = take(dev, p + heads->width + heads->notes_dim + heads->slots + b->n_states +
                              b->n_notes + between);
    if (!c.summary) return;
    c.last = c.summary + p;
    c.note = c.last + heads->width;
    c.covered = c.note + heads->notes_dim;
    c.scores = c.covered + heads->slots;
    c.hidden = c.scores + b->n_states + b->n_notes;
    summarize(&c);
    speculate(&c);
    cover(&c);
    *b->readiness = (float)agree(&c);
  }
}

static double mark_of(const pdt_plan_places *places, const float *read) {
  double square = 0, logit = (double)places->mark_bias, d = places->width;
  for (int64_t j = 0; j < places->width; j++) square += (double)read[j] * (double)read[j];
  for (int64_t j = 0; j < places->width; j++)
    logit += (double)places->mark.at[j] * (double)read[j] / sqrt(square / d + 1e-6);
  return fmin(1, fmax(0, logit + 0.5));
}

/* What slot i weighs a token's read by whose marks are [begin, end). */
static double order_weight(const pdt_plan_places *places, int64_t i, double begin, double end) {
  double weight = 0;
  for (int64_t r = 0; r < places->n_orders; r++)
    weight += (double)places->orders.at[i * places->n_orders + r] *
              fmax(0, fmin(end, (double)(r + 1)) - fmax(begin, (double)r));
  return weight;
}

static void plan_read(pdt_device *dev, const pdt_plan_places *places, pdt_array states,
                      pdt_array read, int32_t n, int32_t first, double *sums) {
  (void)dev;
  int64_t d = places->width, P = places->n_places, end = (1 + places->slots) * d;
  for (int64_t r = 0; r < n; r++) {
    for (int64_t j = 0; j < d; j++) sums[j] += (double)states.at[r * d + j];
    for (int64_t i = 0; i < places->slots && first + r < P; i++)
      for (int64_t j = 0; j < d; j++)
        sums[(1 + i) * d + j] +=
            (double)places->weights.at[i * P + first + r] * (double)states.at[r * d + j];
    if (places->n_orders == 0) continue;
    double mark = mark_of(places, read.at + r * d);
    for (int64_t i = 0; i < places->slots; i++)
      for (int64_t j = 0; j < d; j++)
        sums[(1 + i) * d + j] +=
            order_weight(places, i, sums[end], sums[end] + mark) * (double)read.at[r * d + j];
    sums[end] += mark;
  }
}

/* ---- choice ---- */

static void argmax_rows(pdt_device *dev, pdt_array logits, int32_t width, const int32_t *rows,
                        int32_t n, int32_t first_id, pdt_candidate *best) {
  (void)dev;
  for (int32_t i = 0; i < n; i++) {
    const float *row = logits.at + (int64_t)(rows ? rows[i] : i) * width;
    best[i] = (pdt_candidate){row[0], first_id};
    for (int32_t j = 0; j < width && best[i].id >= 0; j++) {
      if (row[j] > best[i].logit) best[i] = (pdt_candidate){row[j], first_id + j};
      if (isnan(row[j])) best[i] = (pdt_candidate){0, -1};
    }
  }
}

static void sample_rows(pdt_device *dev, pdt_array logits, int32_t width, const int32_t *rows,
                        int32_t n, const pdt_row_draw *draws, pdt_token *tokens) {
  pdt_candidate *scratch = (pdt_candidate *)(void *)take(dev, width);
  for (int32_t i = 0; i < n; i++)
    tokens[i] = scratch ? pdt_sample(logits.at + (int64_t)(rows ? rows[i] : i) * width, width,
                                     &draws[i].how, draws[i].u, scratch)
                        : 0;
}

static void logprobs_rows(pdt_device *dev, pdt_array logits, int32_t width, int32_t n,
                          const pdt_token *tokens, int32_t top, pdt_logprob *out) {
  (void)dev;
  for (int32_t i = 0; i < n; i++)
    pdt_logprobs(logits.at + (int64_t)i * width, width, tokens[i], top,
                 out + (int64_t)i * (1 + top));
}

static const pdt_kernels operations = {
    .close = close_device,
    .sync = sync_device,
    .available = pdt_host_available,
    .reserve = reserve,
    .alloc = pdt_host_alloc,
    .release = pdt_host_release,
    .upload = pdt_host_upload,
    .download = pdt_host_download,
    .copy_rows = pdt_host_copy_rows,
    .move_rows = pdt_host_move_rows,
    .matrix_new = matrix_new,
    .matrix_free = matrix_free,
    .matrix_pack = matrix_pack,
    .rows_new = pdt_host_rows_new,
    .rows_free = pdt_host_rows_free,
    .rows_write = pdt_host_rows_write,
    .rows_read = pdt_host_rows_read,
    .matmul = matmul,
    .matmul_bulk = matmul,
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
    .chosen_new = pdt_host_chosen_new,
    .chosen_free = pdt_host_chosen_free,
    .choose_rows = pdt_host_choose_rows,
    .gather_chosen = pdt_host_gather_chosen,
    .chosen_read = pdt_host_chosen_read,
};

int pdt_reference_device_new(pdt_device *dev, pdt_error *err) {
  reference *state;
  *dev = (pdt_device){0};
  if (PDT_NEW(&state, 1, "kernels", err)) return -1;
  *dev = (pdt_device){.ops = &operations,
                      .name = "reference",
                      .threads = 1,
                      .host_memory = true,
                      .bulk_rows = 128,
                      .state = state};
  return 0;
}

#include "trunk/internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/memory.h"

static int32_t width_of(pdt_range range) {
  return range.end - range.begin;
}

/* Query heads of this rank that read its local kv head j, as local indices. */
static pdt_range heads_of_kv(const pdt_trunk_weights *w, int32_t j) {
  int32_t per_kv = w->config.heads / w->config.kv_heads, kv = w->shard.kv_heads.begin + j;
  int32_t begin = kv * per_kv, end = begin + per_kv;
  if (begin < w->shard.heads.begin) begin = w->shard.heads.begin;
  if (end > w->shard.heads.end) end = w->shard.heads.end;
  return (pdt_range){begin - w->shard.heads.begin, end - w->shard.heads.begin};
}

/* Floats that one call of the attention kernel may need: a kv head's query heads over a longest
 * sequence, whose two spans are each rounded up to a page. */
static int64_t attention_elems(const pdt_trunk_weights *w, int32_t max_tokens) {
  int64_t tokens = (int64_t)(pdt_kv_pages(max_tokens) + 2) * PDT_PAGE_TOKENS;
  return tokens * (w->config.heads / w->config.kv_heads);
}

/* Sizes in floats of the scratch buffers, in the order of the struct. */
enum { BUFFERS = 12 };
static void buffer_elems(const pdt_trunk_weights *w, pdt_rank T, const pdt_trunk_limits *limits,
                         int64_t elems[BUFFERS]) {
  int64_t d = w->config.hidden_size, hd = w->config.head_dim, vocab = w->config.vocab_size;
  int64_t M = limits->max_rows, R = limits->max_logit_rows;
  int64_t h = width_of(w->shard.heads), kv = width_of(w->shard.kv_heads);
  int64_t sizes[BUFFERS] = {M * d,
                            M * d,
                            M * (h + 2 * kv) * hd,
                            M * h * hd,
                            M * 2 * width_of(w->shard.ffn),
                            M * d,
                            T > 1 ? T * M * d : 0,
                            M * hd,
                            limits->threads * attention_elems(w, limits->max_tokens),
                            R * width_of(w->shard.vocab),
                            T > 1 ? R * vocab : 0,
                            T > 1 ? R * vocab : 0};
  memcpy(elems, sizes, sizeof sizes);
}

static int scratch_new(pdt_trunk *t, pdt_error *err) {
  pdt_rank T = t->group->size;
  if (PDT_NEW(&t->scratch, 1, "trunk buffers", err)) return -1;
  pdt_trunk_scratch *s = t->scratch;
  float **buffers[BUFFERS] = {&s->residual,  &s->gathered, &s->qkv,      &s->attended,
                              &s->gate_up,   &s->partial,  &s->received, &s->rope,
                              &s->attention, &s->logits,   &s->arrived,  &s->whole};
  int64_t elems[BUFFERS];
  buffer_elems(t->weights, T, &t->limits, elems);
  for (int i = 0; i < BUFFERS; i++)
    if (PDT_NEW(buffers[i], elems[i], "trunk buffers", err)) return -1;
  s->attention_elems = attention_elems(t->weights, t->limits.max_tokens);
  if (PDT_NEW(&s->parts, T, "trunk buffers", err) ||
      PDT_NEW(&s->send_bytes, T, "trunk buffers", err) ||
      PDT_NEW(&s->send_at, T, "trunk buffers", err) ||
      PDT_NEW(&s->recv_bytes, T, "trunk buffers", err) ||
      PDT_NEW(&s->recv_at, T, "trunk buffers", err) ||
      PDT_NEW(&s->row_bytes, T, "trunk buffers", err) ||
      PDT_NEW(&s->best, t->limits.max_logit_rows, "trunk buffers", err) ||
      PDT_NEW(&s->best_arrived, (int64_t)T * t->limits.max_logit_rows, "trunk buffers", err))
    return -1;
  return 0;
}

int pdt_trunk_new(pdt_trunk *trunk, const pdt_trunk_weights *weights, const pdt_kernels *kernels,
                  const pdt_comm *group, pdt_kv_cache *kv, const pdt_trunk_limits *limits,
                  pdt_error *err) {
  *trunk = (pdt_trunk){
      .weights = weights, .kernels = kernels, .group = group, .kv = kv, .limits = *limits};
  if (PDT_NEW(&trunk->inv_freq, weights->config.head_dim / 2, "rotary frequencies", err) ||
      scratch_new(trunk, err)) {
    pdt_trunk_free(trunk);
    return -1;
  }
  pdt_rope_frequencies(&weights->config.rope, weights->config.head_dim, trunk->inv_freq);
  return 0;
}

void pdt_trunk_free(pdt_trunk *trunk) {
  free(trunk->inv_freq);
  pdt_trunk_scratch *s = trunk->scratch;
  if (s) {
    float *buffers[BUFFERS] = {s->residual,  s->gathered, s->qkv,      s->attended,
                               s->gate_up,   s->partial,  s->received, s->rope,
                               s->attention, s->logits,   s->arrived,  s->whole};
    for (int i = 0; i < BUFFERS; i++) free(buffers[i]);
    free(s->parts);
    free(s->send_bytes);
    free(s->send_at);
    free(s->recv_bytes);
    free(s->recv_at);
    free(s->row_bytes);
    free(s->best);
    free(s->best_arrived);
    free(s);
  }
  *trunk = (pdt_trunk){0};
}

/* The state of one batch on its way through the layers. */
typedef struct pass {
  pdt_trunk *t;
  const pdt_trunk_weights *w;
  pdt_trunk_scratch *s;
  const pdt_trunk_batch *batch;
  int32_t rows;      /* of the whole batch */
  int32_t own_begin; /* of this rank's rows */
  int32_t own_rows;
  int32_t d;
} pass;

static int32_t rows_of(const pass *p, pdt_rank rank) {
  return p->batch->begin[rank + 1] - p->batch->begin[rank];
}

/* Adds a bias [width] to each of n rows. */
static void add_bias(float *y, int64_t stride, int32_t rows, const float *bias, int32_t width) {
  if (!bias) return;
  for (int32_t r = 0; r < rows; r++)
    for (int32_t i = 0; i < width; i++) y[r * stride + i] += bias[i];
}

/* The normed rows of all owners, in the place where the products read them. */
static void norm_and_gather(const pass *p, const float *weight) {
  const pdt_trunk *t = p->t;
  float *own = p->s->gathered + (int64_t)p->own_begin * p->d;
#pragma omp parallel for num_threads(t->limits.threads) if (t->limits.threads > 1 &&               \
                                                            p->own_rows >= 16)
  for (int32_t r = 0; r < p->own_rows; r++)
    t->kernels->rms_norm(p->s->residual + (int64_t)r * p->d, weight,
                         (float)p->w->config.rms_norm_eps, p->d, own + (int64_t)r * p->d);
  if (t->group->size == 1) return;
  double start = pdt_seconds();
  for (pdt_rank r = 0; r < t->group->size; r++)
    p->s->recv_bytes[r] = (pdt_bytes)rows_of(p, r) * p->d * (pdt_bytes)sizeof(float);
  pdt_comm_all_gather(t->group, own, p->s->gathered, p->s->recv_bytes);
  p->t->clock.exchange += pdt_seconds() - start;
}

/* Sends each owner this rank's partial sums of its rows (a rank without a share sends nothing),
 * adds up what arrives in the order of the sum tree, and adds that and the bias to the residual. */
static void reduce_to_owners(const pass *p,
                             bool (*has_share)(const pdt_model_config *, pdt_rank, pdt_rank),
                             const float *bias) {
  pdt_trunk_scratch *s = p->s;
  const pdt_comm *group = p->t->group;
  pdt_bytes row_bytes = (pdt_bytes)p->d * (pdt_bytes)sizeof(float);
  int64_t own_elems = (int64_t)p->own_rows * p->d;
  bool share = has_share(&p->w->config, group->rank, group->size);
  for (pdt_rank r = 0; r < group->size; r++) {
    bool self = r == group->rank, sender = has_share(&p->w->config, r, group->size);
    s->send_bytes[r] = share && !self ? rows_of(p, r) * row_bytes : 0;
    s->send_at[r] = p->batch->begin[r] * row_bytes;
    s->recv_bytes[r] = sender && !self ? p->own_rows * row_bytes : 0;
    s->recv_at[r] = (pdt_bytes)r * own_elems * (pdt_bytes)sizeof(float);
    s->parts[r] = !sender ? NULL
                  : self  ? s->partial + (int64_t)p->own_begin * p->d
                          : s->received + r * own_elems;
  }
  float *sum = s->partial + (int64_t)p->own_begin * p->d;
  if (group->size > 1) {
    double start = pdt_seconds();
    pdt_comm_all_to_all(group, s->partial, s->send_bytes, s->send_at, s->received, s->recv_bytes,
                        s->recv_at);
    p->t->clock.exchange += pdt_seconds() - start;
    pdt_sum_shares(s->parts, group->size, own_elems, sum);
  }
  add_bias(sum, p->d, p->own_rows, bias, p->d);
  for (int64_t i = 0; i < own_elems; i++) s->residual[i] += sum[i];
}

/* Token embeddings: whoever holds a token's row sends it to the owner of the batch's row. */
static void embed(const pass *p) {
  pdt_trunk_scratch *s = p->s;
  const pdt_comm *group = p->t->group;
  pdt_range vocab = p->w->shard.vocab;
  pdt_bytes row_bytes = (pdt_bytes)p->d * (pdt_bytes)sizeof(float), sent = 0, received = 0;
  for (pdt_rank r = 0; r < group->size; r++) {
    s->send_at[r] = sent;
    for (int32_t i = p->batch->begin[r]; i < p->batch->begin[r + 1]; i++) {
      pdt_token token = p->batch->rows[i].token;
      if (token < vocab.begin || token >= vocab.end) continue;
      pdt_matrix_row(&p->w->embedding, token - vocab.begin, s->partial + sent / row_bytes * p->d);
      sent += row_bytes;
    }
    s->send_bytes[r] = sent - s->send_at[r];
    pdt_range theirs = pdt_shard_of(&p->w->config, r, group->size).vocab;
    s->recv_at[r] = received;
    for (int32_t i = p->own_begin; i < p->own_begin + p->own_rows; i++) {
      pdt_token token = p->batch->rows[i].token;
      if (token >= theirs.begin && token < theirs.end) received += row_bytes;
    }
    s->recv_bytes[r] = received - s->recv_at[r];
  }
  float *arrived = group->size > 1 ? s->received : s->gathered;
  pdt_comm_all_to_all(group, s->partial, s->send_bytes, s->send_at, arrived, s->recv_bytes,
                      s->recv_at);
  for (pdt_rank r = 0; r < group->size; r++) { /* each sender's rows came in the batch's order */
    pdt_range theirs = pdt_shard_of(&p->w->config, r, group->size).vocab;
    const float *row = arrived + s->recv_at[r] / (pdt_bytes)sizeof(float);
    for (int32_t i = 0; i < p->own_rows; i++) {
      pdt_token token = p->batch->rows[p->own_begin + i].token;
      if (token < theirs.begin || token >= theirs.end) continue;
      memcpy(s->residual + (int64_t)i * p->d, row, (size_t)row_bytes);
      row += p->d;
    }
  }
}

/* Cosines and sines of every row's position, used by all layers. */
static void rotary_tables(const pass *p) {
  int32_t half = p->w->config.head_dim / 2;
  double scale = p->w->config.rope.scale;
  for (int32_t r = 0; r < p->rows; r++) {
    float *cosine = p->s->rope + (int64_t)r * 2 * half, *sine = cosine + half;
    for (int32_t j = 0; j < half; j++) {
      double angle = p->batch->rows[r].position * p->t->inv_freq[j];
      cosine[j] = (float)(cos(angle) * scale);
      sine[j] = (float)(sin(angle) * scale);
    }
  }
}

/* Norms and rotates one head of a row in place. */
static void prepare_head(const pass *p, int32_t row, float *head, const float *norm) {
  int32_t hd = p->w->config.head_dim;
  const float *cosine = p->s->rope + (int64_t)row * hd;
  if (norm) p->t->kernels->rms_norm(head, norm, (float)p->w->config.rms_norm_eps, hd, head);
  p->t->kernels->rope(head, cosine, cosine + hd / 2, hd);
}

/* Stores the row's key and value of local kv head j in its page. */
static void store_kv(const pass *p, pdt_layer l, int32_t row, int32_t j, float *key,
                     const float *value) {
  int32_t hd = p->w->config.head_dim;
  const pdt_trunk_row *where = &p->batch->rows[row];
  float *key_at, *value_at;
  prepare_head(p, row, key, p->w->layers[l].k_norm);
  pdt_kv_slot(p->t->kv, where->sequence, where->position, l, j, &key_at, &value_at);
  for (int32_t i = 0; i < hd; i++) key_at[(int64_t)i * PDT_PAGE_TOKENS] = key[i];
  memcpy(value_at, value, (size_t)hd * sizeof *value);
}

/* The first position that a row's attention reads in a layer. */
static int32_t first_position(const pass *p, pdt_layer l, int32_t position) {
  int32_t window = pdt_model_window(&p->w->config, l);
  return window && position >= window ? position - window + 1 : 0;
}

/* Attention of every row over its sequence, for this rank's heads. Keys and values of all rows are
 * stored first, so that later rows of a sequence see earlier ones of the same batch. */
static void attend(const pass *p, pdt_layer l) {
  const pdt_trunk_weights *w = p->w;
  int64_t hd = w->config.head_dim, h = width_of(w->shard.heads), kv = width_of(w->shard.kv_heads);
  int64_t stride = (h + 2 * kv) * hd;
  int threads = p->t->limits.threads;
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    float *scratch = p->s->attention + pdt_thread() * p->s->attention_elems;
#pragma omp for collapse(2)
    for (int32_t r = 0; r < p->rows; r++)
      for (int32_t j = 0; j < kv; j++) {
        float *row = p->s->qkv + r * stride;
        store_kv(p, l, r, j, row + (h + j) * hd, row + (h + kv + j) * hd);
      }
#pragma omp for collapse(2) schedule(dynamic)
    for (int32_t r = 0; r < p->rows; r++)
      for (int32_t j = 0; j < kv; j++) {
        pdt_range heads = heads_of_kv(w, j);
        float *q = p->s->qkv + r * stride + heads.begin * hd;
        for (int32_t i = 0; i < width_of(heads); i++)
          prepare_head(p, r, q + i * hd, w->layers[l].q_norm);
        const pdt_trunk_row *row = &p->batch->rows[r];
        int32_t first = first_position(p, l, row->position);
        pdt_kv_view view = pdt_kv_look(p->t->kv, row->sequence, first, row->position + 1, l, j);
        p->t->kernels->attention(&view, q, width_of(heads),
                                 p->s->attended + r * h * hd + heads.begin * hd, scratch);
      }
  }
}

static void attention_block(const pass *p, pdt_layer l) {
  const pdt_layer_weights *layer = &p->w->layers[l];
  const pdt_matrix *qkv = &layer->qkv, *out = &layer->attention_out;
  const pdt_trunk *t = p->t;
  norm_and_gather(p, layer->attention_norm);
  if (qkv->data) {
    t->kernels->matmul(qkv, p->s->gathered, p->d, p->rows, p->s->qkv, qkv->out, t->limits.threads);
    add_bias(p->s->qkv, qkv->out, p->rows, layer->qkv_bias, qkv->out);
    attend(p, l);
    t->kernels->matmul(out, p->s->attended, out->in, p->rows, p->s->partial, p->d,
                       t->limits.threads);
  }
  reduce_to_owners(p, pdt_shard_has_heads, layer->attention_out_bias);
}

static void ffn_block(const pass *p, pdt_layer l) {
  const pdt_layer_weights *layer = &p->w->layers[l];
  const pdt_matrix *gate_up = &layer->gate_up, *down = &layer->down;
  const pdt_trunk *t = p->t;
  norm_and_gather(p, layer->ffn_norm);
  if (gate_up->data) {
    t->kernels->matmul(gate_up, p->s->gathered, p->d, p->rows, p->s->gate_up, gate_up->out,
                       t->limits.threads);
    add_bias(p->s->gate_up, gate_up->out, p->rows, layer->gate_up_bias, gate_up->out);
#pragma omp parallel for num_threads(t->limits.threads) if (t->limits.threads > 1 && p->rows > 1)
    for (int32_t r = 0; r < p->rows; r++) {
      float *gate = p->s->gate_up + (int64_t)r * gate_up->out;
      t->kernels->silu_mul(gate, gate + down->in, down->in, gate);
    }
    t->kernels->matmul(down, p->s->gate_up, gate_up->out, p->rows, p->s->partial, p->d,
                       t->limits.threads);
  }
  reduce_to_owners(p, pdt_shard_has_ffn, layer->down_bias);
}

/* In builds that check: all ranks of the group have the same batch, and sound page tables. */
static void check_batch(const pass *p) {
#ifdef PDT_CHECKS
  XXH64_hash_t hash =
      XXH3_64bits(p->batch->begin, (size_t)(p->t->group->size + 1) * sizeof(int32_t));
  for (int32_t r = 0; r < p->rows; r++) {
    const pdt_trunk_row *row = &p->batch->rows[r];
    const int32_t words[] = {row->position, row->token, pdt_kv_length(row->sequence)};
    hash = XXH3_64bits_withSeed(words, sizeof words, hash);
    PDT_INVARIANT(pdt_kv_sequence_is_valid(row->sequence, p->t->kv));
  }
  PDT_CHECK_SAME(p->t->group, hash);
#else
  (void)p;
#endif
}

/* Takes pages for every row before anything is computed: all ranks succeed or fail alike. */
static int extend_sequences(const pass *p, pdt_error *err) {
  if (p->rows > p->t->limits.max_rows)
    return pdt_fail(err, PDT_ERROR_RUNTIME, "a batch of %d rows; buffers hold %d", p->rows,
                    p->t->limits.max_rows);
  for (int32_t r = 0; r < p->rows; r++) {
    const pdt_trunk_row *row = &p->batch->rows[r];
    if (pdt_kv_extend(row->sequence, p->t->kv, row->position + 1, err)) return -1;
  }
  return 0;
}

static void run_hook(pass *p, void (*hook)(void *, pdt_layer, float *, int32_t), void *context,
                     pdt_layer l) {
  if (!hook || p->own_rows == 0) return;
  double start = pdt_seconds();
  hook(context, l, p->s->residual, p->own_rows);
  p->t->clock.hooks += pdt_seconds() - start;
}

int pdt_trunk_forward(pdt_trunk *trunk, const pdt_trunk_batch *batch, const pdt_trunk_hooks *hooks,
                      float *hidden, pdt_error *err) {
  static const pdt_trunk_hooks none = {0};
  const pdt_trunk_weights *w = trunk->weights;
  pass p = {.t = trunk,
            .w = w,
            .s = trunk->scratch,
            .batch = batch,
            .rows = batch->begin[trunk->group->size],
            .own_begin = batch->begin[trunk->group->rank],
            .d = w->config.hidden_size};
  p.own_rows = rows_of(&p, trunk->group->rank);
  if (!hooks) hooks = &none;
  check_batch(&p);
  if (extend_sequences(&p, err)) return -1;
  double start = pdt_seconds(), elsewhere = trunk->clock.exchange + trunk->clock.hooks;
  embed(&p);
  rotary_tables(&p);
  for (pdt_layer l = 0; l < w->config.layers; l++) {
    attention_block(&p, l);
    run_hook(&p, hooks->after_attention, hooks->context, l);
    ffn_block(&p, l);
    run_hook(&p, hooks->after_ffn, hooks->context, l);
  }
  for (int32_t r = 0; r < p.own_rows; r++)
    trunk->kernels->rms_norm(p.s->residual + (int64_t)r * p.d, w->final_norm,
                             (float)w->config.rms_norm_eps, p.d, hidden + (int64_t)r * p.d);
  elsewhere = trunk->clock.exchange + trunk->clock.hooks - elsewhere;
  trunk->clock.compute += pdt_seconds() - start - elsewhere;
  return 0;
}

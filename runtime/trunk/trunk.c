#include "trunk/trunk.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/memory.h"
#include "trunk/internal.h"

static int32_t width_of(pdt_range range) {
  return range.end - range.begin;
}

/* ---- buffers ---- */

/* The arrays of the scratch, and their sizes in floats. */
enum { ARRAYS = 11 };
typedef struct array_size {
  pdt_array *array;
  int64_t elems;
} array_size;

/* The widest product whose rows are but a part of a fused one's: 0 where there is none. */
static int64_t widest_aside(const pdt_trunk_weights *w) {
  int64_t widest = 0;
  for (pdt_layer l = 0; l < w->config.layers; l++) {
    const pdt_layer_weights *layer = &w->layers[l];
    const pdt_matrix *qkv[] = {&layer->qkv_rest[0], &layer->qkv_rest[1], &layer->qkv};
    const pdt_matrix *gate_up[] = {&layer->gate_up_rest[0], &layer->gate_up};
    for (int i = 0; i < 3 && qkv[0]->data; i++)
      widest = qkv[i]->out > widest ? qkv[i]->out : widest;
    for (int i = 0; i < 2 && gate_up[0]->data; i++)
      widest = gate_up[i]->out > widest ? gate_up[i]->out : widest;
  }
  return widest;
}

static void array_sizes(const pdt_trunk *t, array_size sizes[ARRAYS]) {
  const pdt_trunk_weights *w = t->weights;
  pdt_trunk_scratch *s = t->scratch;
  int64_t d = w->config.hidden_size, hd = w->config.head_dim, vocab = w->config.vocab_size;
  int64_t M = t->limits.max_rows, R = t->limits.max_logit_rows, T = t->group->size;
  int64_t h = width_of(w->shard.heads), kv = width_of(w->shard.kv_heads);
  const array_size all[ARRAYS] = {{&s->residual, M * d},
                                  {&s->gathered, M * d},
                                  {&s->qkv, M * (h + 2 * kv) * hd},
                                  {&s->attended, M * h * hd},
                                  {&s->gate_up, M * 2 * width_of(w->shard.ffn)},
                                  {&s->aside, M * widest_aside(w)},
                                  {&s->partial, M * d},
                                  {&s->received, T > 1 ? T * M * d : 0},
                                  {&s->logits, R * width_of(w->shard.vocab)},
                                  {&s->arrived, T > 1 ? R * vocab : 0},
                                  {&s->whole, T > 1 ? R * vocab : 0}};
  memcpy(sizes, all, sizeof all);
}

/* What the device needs for itself. */
static int reserve(pdt_trunk *t, pdt_error *err) {
  const pdt_model_config *c = &t->weights->config;
  const pdt_rotary rotary = {t->scratch->inv_freq, c->rope.scale};
  const pdt_room most = {.heads = c->heads / c->kv_heads,
                         .positions = t->limits.max_tokens,
                         .rows = t->limits.max_rows,
                         .all_heads = width_of(t->weights->shard.heads),
                         .head_dim = c->head_dim,
                         .sampled_rows = t->limits.max_logit_rows,
                         .sampled_width = c->vocab_size};
  pdt_rope_frequencies(&c->rope, c->head_dim, t->scratch->inv_freq);
  return t->device->ops->reserve(t->device, &most, err) ||
         t->device->ops->batch_new(t->device, t->limits.max_rows, t->limits.max_tokens, c->head_dim,
                                   &rotary, &t->scratch->batch, err);
}

static int new_lists(pdt_trunk *t, pdt_error *err) {
  pdt_trunk_scratch *s = t->scratch;
  int64_t M = t->limits.max_rows, R = t->limits.max_logit_rows, T = t->group->size;
  return PDT_NEW(&s->places, M, "trunk buffers", err) ||
         PDT_NEW(&s->inv_freq, t->weights->config.head_dim / 2, "trunk buffers", err) ||
         PDT_NEW(&s->ids, M, "trunk buffers", err) ||
         PDT_NEW(&s->holders, M, "trunk buffers", err) ||
         PDT_NEW(&s->parts, T, "trunk buffers", err) ||
         PDT_NEW(&s->vocab, T, "trunk buffers", err) ||
         PDT_NEW(&s->out.elems, T, "trunk buffers", err) ||
         PDT_NEW(&s->out.at, T, "trunk buffers", err) ||
         PDT_NEW(&s->in.elems, T, "trunk buffers", err) ||
         PDT_NEW(&s->in.at, T, "trunk buffers", err) ||
         PDT_NEW(&s->next, T, "trunk buffers", err) ||
         PDT_NEW(&s->picked, R, "trunk buffers", err) ||
         PDT_NEW(&s->counts, T + 1, "trunk buffers", err) ||
         PDT_NEW(&s->best, R, "trunk buffers", err) ||
         PDT_NEW(&s->best_arrived, T * R, "trunk buffers", err) ||
         PDT_NEW(&s->bytes, 4 * T, "trunk buffers", err) ||
         PDT_NEW(&s->draws, R, "trunk buffers", err) ||
         PDT_NEW(&s->tokens, R, "trunk buffers", err);
}

static int scratch_new(pdt_trunk *t, pdt_error *err) {
  array_size sizes[ARRAYS];
  int64_t most = 0;
  if (PDT_NEW(&t->scratch, 1, "trunk buffers", err)) return -1;
  array_sizes(t, sizes);
  for (int i = 0; i < ARRAYS; i++) {
    if (sizes[i].elems > most) most = sizes[i].elems;
    if (t->device->ops->alloc(t->device, sizes[i].elems, "trunk buffers", sizes[i].array, err))
      return -1;
  }
  if (new_lists(t, err) || reserve(t, err)) return -1;
  for (pdt_rank r = 0; r < t->group->size; r++)
    t->scratch->vocab[r] = pdt_shard_of(&t->weights->config, r, t->group->size).vocab;
  return pdt_link_new(&t->link, t->group, t->device, most, most, err);
}

int pdt_trunk_new(pdt_trunk *trunk, const pdt_trunk_weights *weights, const pdt_comm *group,
                  pdt_kv_cache *kv, const pdt_trunk_limits *limits, pdt_error *err) {
  *trunk = (pdt_trunk){
      .weights = weights, .device = weights->device, .group = group, .kv = kv, .limits = *limits};
  if (scratch_new(trunk, err)) {
    pdt_trunk_free(trunk);
    return -1;
  }
  return 0;
}

void pdt_trunk_free(pdt_trunk *trunk) {
  pdt_trunk_scratch *s = trunk->scratch;
  pdt_device *dev = trunk->device;
  pdt_link_free(&trunk->link);
  if (s) {
    array_size sizes[ARRAYS];
    array_sizes(trunk, sizes);
    for (int i = 0; i < ARRAYS; i++) dev->ops->release(dev, *sizes[i].array);
    dev->ops->batch_free(dev, s->batch);
    void *lists[] = {s->places,    s->inv_freq, s->ids,          s->holders, s->parts, s->vocab,
                     s->out.elems, s->out.at,   s->in.elems,     s->in.at,   s->next,  s->picked,
                     s->counts,    s->best,     s->best_arrived, s->bytes,   s->draws, s->tokens};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) free(lists[i]);
    free(s);
  }
  *trunk = (pdt_trunk){0};
}

/* ---- the layers ---- */

/* The state of one batch on its way through the layers. */
typedef struct pass {
  pdt_trunk *t;
  pdt_device *dev;
  const pdt_kernels *k;
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

/* The normed rows of all owners, in the place where the products read them. */
static void norm_and_gather(const pass *p, pdt_array weight) {
  const pdt_trunk *t = p->t;
  pdt_array own = pdt_array_at(p->s->gathered, (int64_t)p->own_begin * p->d);
  p->k->norm_rows(p->dev, p->s->residual, weight, (float)p->w->config.rms_norm_eps, p->own_rows,
                  p->d, own);
  if (t->group->size == 1) return;
  double start = pdt_seconds();
  for (pdt_rank r = 0; r < t->group->size; r++) p->s->in.elems[r] = (int64_t)rows_of(p, r) * p->d;
  pdt_link_all_gather(&t->link, own, p->s->gathered, p->s->in.elems);
  p->t->clock.exchange += pdt_seconds() - start;
}

/* Sends each owner this rank's partial sums of its rows (a rank without a share sends nothing),
 * and adds up what arrives in the order of the sum tree. */
static void add_up_shares(const pass *p,
                          bool (*has_share)(const pdt_model_config *, pdt_rank, pdt_rank)) {
  pdt_trunk_scratch *s = p->s;
  const pdt_comm *group = p->t->group;
  int64_t own_elems = (int64_t)p->own_rows * p->d;
  bool share = has_share(&p->w->config, group->rank, group->size);
  pdt_array none = {0}, sum = pdt_array_at(s->partial, (int64_t)p->own_begin * p->d);
  for (pdt_rank r = 0; r < group->size; r++) {
    bool self = r == group->rank, sender = has_share(&p->w->config, r, group->size);
    s->out.elems[r] = share && !self ? (int64_t)rows_of(p, r) * p->d : 0;
    s->out.at[r] = (int64_t)p->batch->begin[r] * p->d;
    s->in.elems[r] = sender && !self ? own_elems : 0;
    s->in.at[r] = r * own_elems;
    s->parts[r] = !sender ? none : self ? sum : pdt_array_at(s->received, s->in.at[r]);
  }
  double start = pdt_seconds();
  pdt_link_all_to_all(&p->t->link, s->partial, &s->out, s->received, &s->in);
  p->t->clock.exchange += pdt_seconds() - start;
  p->k->sum_shares(p->dev, s->parts, group->size, own_elems, sum);
}

/* Adds the sums of own rows, over all ranks, and the bias to the residual. */
static void reduce_to_owners(const pass *p,
                             bool (*has_share)(const pdt_model_config *, pdt_rank, pdt_rank),
                             pdt_array bias) {
  pdt_array sum = pdt_array_at(p->s->partial, (int64_t)p->own_begin * p->d);
  if (p->t->group->size > 1) add_up_shares(p, has_share);
  if (bias.at) p->k->add_bias(p->dev, sum, p->own_rows, p->d, bias);
  p->k->add(p->dev, p->s->residual, sum, (int64_t)p->own_rows * p->d);
}

/* y = W x for the rows of the whole batch. */
static void multiply(const pass *p, const pdt_matrix *w, pdt_array x, int64_t x_stride,
                     pdt_array y) {
  (p->batch->bulk ? p->k->matmul_bulk : p->k->matmul)(p->dev, w, x, x_stride, p->rows, y);
}

/* The same of a fused product: y [rows, width] of w's rows and those of n rest. */
static void multiply_fused(const pass *p, const pdt_matrix *w, const pdt_matrix *rest, int32_t n,
                           pdt_array x, int32_t width, pdt_array y) {
  if (!rest[0].data) {
    multiply(p, w, x, p->d, y);
    return;
  }
  for (int32_t i = -1, begin = 0; i < n; i++) {
    const pdt_matrix *part = i < 0 ? w : &rest[i];
    if (!part->data) continue;
    multiply(p, part, x, p->d, p->s->aside);
    p->k->copy_rows(p->dev, pdt_array_at(y, begin), width, p->s->aside, part->out, p->rows,
                    part->out);
    begin += part->out;
  }
}

static void attention_block(const pass *p, pdt_layer l) {
  const pdt_layer_weights *layer = &p->w->layers[l];
  const pdt_matrix *qkv = &layer->qkv, *out = &layer->attention_out;
  const pdt_model_config *c = &p->w->config;
  const pdt_kv_pool *kv = &p->t->kv->pool;
  int32_t per_kv = c->heads / c->kv_heads;
  int32_t width = (width_of(p->w->shard.heads) + 2 * width_of(p->w->shard.kv_heads)) * c->head_dim;
  const pdt_attention a = {.n_heads = width_of(p->w->shard.heads),
                           .per_kv = per_kv,
                           .first = p->w->shard.heads.begin % per_kv,
                           .q_norm = layer->q_norm,
                           .k_norm = layer->k_norm,
                           .eps = (float)c->rms_norm_eps,
                           .window = pdt_model_window(c, l)};
  norm_and_gather(p, layer->attention_norm);
  if (qkv->data) {
    multiply_fused(p, qkv, layer->qkv_rest, 2, p->s->gathered, width, p->s->qkv);
    if (layer->qkv_bias.at) p->k->add_bias(p->dev, p->s->qkv, p->rows, width, layer->qkv_bias);
    p->k->rotate_and_store(p->dev, p->s->batch, kv, l, &a, p->s->qkv);
    p->k->attention(p->dev, p->s->batch, kv, l, &a, p->s->qkv, p->s->attended);
    multiply(p, out, p->s->attended, out->in, p->s->partial);
  }
  reduce_to_owners(p, pdt_shard_has_heads, layer->attention_out_bias);
}

static void ffn_block(const pass *p, pdt_layer l) {
  const pdt_layer_weights *layer = &p->w->layers[l];
  const pdt_matrix *gate_up = &layer->gate_up, *down = &layer->down;
  norm_and_gather(p, layer->ffn_norm);
  if (gate_up->data) {
    int32_t width = 2 * down->in;
    multiply_fused(p, gate_up, layer->gate_up_rest, 1, p->s->gathered, width, p->s->gate_up);
    if (layer->gate_up_bias.at)
      p->k->add_bias(p->dev, p->s->gate_up, p->rows, width, layer->gate_up_bias);
    p->k->swiglu(p->dev, p->s->gate_up, p->rows, down->in);
    multiply(p, down, p->s->gate_up, width, p->s->partial);
  }
  reduce_to_owners(p, pdt_shard_has_ffn, layer->down_bias);
}

/* In builds that check: all ranks of the group have the same batch, and sound page tables. */
static void check_batch(const pass *p) {
#ifdef PDT_CHECKS
  XXH64_hash_t hash =
      XXH3_64bits(p->batch->begin, (size_t)(p->t->group->size + 1) * sizeof(int32_t));
  hash = XXH3_64bits_withSeed(&p->batch->bulk, sizeof p->batch->bulk, hash);
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

/* ---- the way in and out ---- */

/* The rank that has a token's row of the embedding. */
static pdt_rank holder_of(const pass *p, pdt_token token) {
  pdt_rank r = 0;
  while (token < p->s->vocab[r].begin || token >= p->s->vocab[r].end) r++;
  return r;
}

/* Works out which embedding rows this rank sends to whom (s->ids, s->out) and who sends it which of
 * its own (s->holders, s->in): the rank that holds a token's vector sends it to the rank that owns
 * the batch's row. Vectors arrive in the order of the batch, so no indices travel. Returns how many
 * it sends. */
static int32_t plan_embedding(const pass *p) {
  pdt_trunk_scratch *s = p->s;
  pdt_rank T = p->t->group->size, self = p->t->group->rank;
  int32_t n = 0;
  memset(s->in.elems, 0, (size_t)T * sizeof *s->in.elems);
  for (pdt_rank r = 0; r < T; r++) {
    s->out.at[r] = (int64_t)n * p->d;
    for (int32_t i = p->batch->begin[r]; i < p->batch->begin[r + 1]; i++) {
      pdt_rank holder = holder_of(p, p->batch->rows[i].token);
      if (holder == self) s->ids[n++] = p->batch->rows[i].token - s->vocab[self].begin;
      if (r != self) continue;
      s->holders[i - p->own_begin] = holder;
      s->in.elems[holder] += p->d;
    }
    s->out.elems[r] = (int64_t)n * p->d - s->out.at[r];
  }
  for (pdt_rank r = 0; r < T; r++) s->in.at[r] = r == 0 ? 0 : s->in.at[r - 1] + s->in.elems[r - 1];
  return n;
}

/* Token embeddings of own rows into the residual. */
static void embed(const pass *p) {
  pdt_trunk_scratch *s = p->s;
  pdt_rank T = p->t->group->size;
  if (p->batch->chosen) {
    p->k->gather_chosen(p->dev, &p->w->embedding, p->batch->chosen, p->batch->from, p->own_rows,
                        s->residual);
    return;
  }
  int32_t n = plan_embedding(p);
  p->k->gather_rows(p->dev, &p->w->embedding, s->ids, n, T > 1 ? s->partial : s->residual);
  if (T == 1) return;
  double start = pdt_seconds();
  pdt_link_all_to_all(&p->t->link, s->partial, &s->out, s->received, &s->in);
  p->t->clock.exchange += pdt_seconds() - start;
  for (pdt_rank r = 0; r < T; r++) s->next[r] = s->in.at[r] / p->d;
  for (int32_t i = 0; i < p->own_rows; i++) s->ids[i] = (int32_t)s->next[s->holders[i]]++;
  p->k->move_rows(p->dev, s->residual, NULL, s->received, s->ids, p->own_rows, p->d);
}

/* Takes pages for every row before anything is computed: all ranks succeed or fail alike. */
static int extend_sequences(const pass *p, pdt_error *err) {
  if (p->rows > p->t->limits.max_rows)
    return pdt_fail(err, PDT_ERROR_RUNTIME, "a batch of %d rows; buffers hold %d", p->rows,
                    p->t->limits.max_rows);
  for (int32_t r = 0; r < p->rows; r++) {
    const pdt_trunk_row *row = &p->batch->rows[r];
    if (pdt_kv_extend(row->sequence, p->t->kv, row->position + 1, err)) return -1;
    p->s->places[r] = pdt_kv_place(row->sequence, row->position);
  }
  return 0;
}

static void run_hook(pass *p, void (*hook)(void *, pdt_layer, pdt_array, int32_t), void *context,
                     pdt_layer l) {
  if (!hook || p->own_rows == 0) return;
  double start = pdt_seconds();
  hook(context, l, p->s->residual, p->own_rows);
  p->t->clock.hooks += pdt_seconds() - start;
}

int pdt_trunk_forward(pdt_trunk *trunk, const pdt_trunk_batch *batch, const pdt_trunk_hooks *hooks,
                      pdt_array hidden, pdt_error *err) {
  static const pdt_trunk_hooks none = {0};
  const pdt_trunk_weights *w = trunk->weights;
  pass p = {.t = trunk,
            .dev = trunk->device,
            .k = trunk->device->ops,
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
  run_hook(&p, hooks->after_embedding, hooks->context, -1);
  p.k->batch_set(p.dev, p.s->batch, p.s->places, p.rows);
  for (pdt_layer l = 0; l < w->config.layers; l++) {
    attention_block(&p, l);
    run_hook(&p, hooks->after_attention, hooks->context, l);
    ffn_block(&p, l);
    run_hook(&p, hooks->after_ffn, hooks->context, l);
  }
  if (hidden.at)
    p.k->norm_rows(p.dev, p.s->residual, w->final_norm, (float)w->config.rms_norm_eps, p.own_rows,
                   p.d, hidden);
  elsewhere = trunk->clock.exchange + trunk->clock.hooks - elsewhere;
  trunk->clock.compute += pdt_seconds() - start - elsewhere;
  return 0;
}

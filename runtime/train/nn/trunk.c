#include "train/nn/trunk.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/names.h"
#include "model/normal.h"
#include "model/tensors.h"

/* ---- parameters ---- */

static int add_parameters(pdt_nn_trunk *trunk, const pdt_checkpoint *from, bool frozen,
                          pdt_error *err) {
  int32_t n = pdt_model_tensor_count(&trunk->config);
  for (int32_t i = 0; i < n; i++) {
    pdt_wanted_tensor t;
    pdt_model_tensor_at(&trunk->config, i, &t);
    bool is_head = strcmp(t.name, PDT_TENSOR_HEAD) == 0;
    if (is_head && trunk->config.tie_word_embeddings) continue;
    bool present = t.need == PDT_REQUIRED || (from && pdt_checkpoint_find(from, t.name));
    if (present && pdt_nn_parameters_add(&trunk->parameters, t.name, t.n_dims, t.shape,
                                         frozen ? -1 : PDT_NN_TRUNK_GROUP, t.n_dims > 1, err))
      return -1;
  }
  return 0;
}

static pdt_nn_weight layer_weight(const pdt_nn_trunk *trunk, pdt_layer l, const char *suffix) {
  char name[PDT_TENSOR_NAME_BYTES];
  pdt_layer_tensor_name(name, l, suffix);
  return pdt_nn_parameters_bind(&trunk->parameters, name);
}

static pdt_nn_affine layer_affine(const pdt_nn_trunk *trunk, pdt_layer l, const char *suffix) {
  char name[PDT_TENSOR_NAME_BYTES];
  pdt_layer_tensor_name(name, l, suffix);
  return pdt_nn_parameters_affine(&trunk->parameters, name);
}

static void bind(pdt_nn_trunk *trunk) {
  for (pdt_layer l = 0; l < trunk->config.layers; l++)
    trunk->layers[l] = (pdt_nn_layer){
        .attention_norm = layer_weight(trunk, l, "input_layernorm.weight"),
        .ffn_norm = layer_weight(trunk, l, "post_attention_layernorm.weight"),
        .q_norm = layer_weight(trunk, l, "self_attn.q_norm.weight"),
        .k_norm = layer_weight(trunk, l, "self_attn.k_norm.weight"),
        .q = layer_affine(trunk, l, "self_attn.q_proj"),
        .k = layer_affine(trunk, l, "self_attn.k_proj"),
        .v = layer_affine(trunk, l, "self_attn.v_proj"),
        .attention_out = layer_affine(trunk, l, "self_attn.o_proj"),
        .gate = layer_affine(trunk, l, "mlp.gate_proj"),
        .up = layer_affine(trunk, l, "mlp.up_proj"),
        .down = layer_affine(trunk, l, "mlp.down_proj"),
    };
  trunk->embedding = pdt_nn_parameters_bind(&trunk->parameters, PDT_TENSOR_EMBEDDING);
  trunk->final_norm = pdt_nn_parameters_bind(&trunk->parameters, PDT_TENSOR_FINAL_NORM);
  trunk->head = pdt_nn_parameters_bind(&trunk->parameters, PDT_TENSOR_HEAD);
  if (!trunk->head.w) trunk->head = trunk->embedding;
}

static int read_weights(pdt_nn_trunk *trunk, const pdt_checkpoint *from, pdt_error *err) {
  for (int32_t i = 0; i < trunk->parameters.n; i++) {
    const pdt_nn_parameter *p = &trunk->parameters.items[i];
    const pdt_tensor *tensor = pdt_model_tensor_find(&trunk->config, from, p->name);
    if (!tensor)
      return pdt_fail(err, PDT_ERROR_INPUT, "%s: tensor '%s' is missing", from->directory, p->name);
    if (pdt_nn_parameters_read(&trunk->parameters, p, tensor, err)) return -1;
  }
  return 0;
}

int pdt_nn_trunk_new(pdt_nn_trunk *trunk, const pdt_model_config *config,
                     const pdt_checkpoint *checkpoint, bool frozen, pdt_error *err) {
  *trunk = (pdt_nn_trunk){.config = *config};
  if (PDT_NEW(&trunk->layers, config->layers, "layers", err) ||
      PDT_NEW(&trunk->inv_freq, config->head_dim / 2, "rotary embedding", err) ||
      add_parameters(trunk, checkpoint, frozen, err) ||
      pdt_nn_parameters_allocate(&trunk->parameters, !frozen, err) ||
      (checkpoint && read_weights(trunk, checkpoint, err))) {
    pdt_nn_trunk_free(trunk);
    return -1;
  }
  pdt_rope_frequencies(&config->rope, config->head_dim, trunk->inv_freq);
  bind(trunk);
  return 0;
}

void pdt_nn_trunk_free(pdt_nn_trunk *trunk) {
  pdt_nn_parameters_free(&trunk->parameters);
  free(trunk->layers);
  free(trunk->inv_freq);
  *trunk = (pdt_nn_trunk){0};
}

/* Fills a parameter with normal numbers, a piece at a time. */
static void fill(pdt_nn_parameters *p, const pdt_nn_parameter *item, uint64_t seed,
                 double deviation) {
  float room[1024];
  for (int64_t at = 0; at < item->n_elems; at += 1024) {
    int64_t n = item->n_elems - at < 1024 ? item->n_elems - at : 1024;
    pdt_normal_fill(seed, item->name, at, n, 0, (float)deviation, room);
    for (int64_t i = 0; i < n; i++) p->value[item->offset + at + i] = room[i];
  }
}

void pdt_nn_trunk_init(pdt_nn_trunk *trunk, uint64_t seed) {
  pdt_nn_parameters *p = &trunk->parameters;
  for (int32_t i = 0; i < p->n; i++) {
    const pdt_nn_parameter *item = &p->items[i];
    if (item->n_dims == 1) {
      pdt_real value = pdt_ends_with(item->name, "norm.weight") ? 1 : 0;
      for (int64_t j = 0; j < item->n_elems; j++) p->value[item->offset + j] = value;
      continue;
    }
    double deviation = 1 / sqrt((double)item->shape[1]);
    if (strcmp(item->name, PDT_TENSOR_EMBEDDING) == 0 || strcmp(item->name, PDT_TENSOR_HEAD) == 0)
      deviation = 0.02;
    else if (pdt_ends_with(item->name, "o_proj.weight") ||
             pdt_ends_with(item->name, "down_proj.weight"))
      deviation /= sqrt(2.0 * trunk->config.layers);
    fill(p, item, seed, deviation);
  }
}

/* ---- forward ---- */

/* What backward needs of a layer. Layers that it does not reach share one. */
typedef struct pdt_nn_saved {
  pdt_real *x;             /* [R, d] coming in */
  pdt_real *normed;        /* [R, d] into attention */
  pdt_real *q_raw, *k_raw; /* before the q/k norms; NULL without */
  pdt_real *q, *k, *v;     /* [R, heads hd], [R, kv hd] twice; rotated */
  pdt_real *lse;           /* [R, heads] */
  pdt_real *attended;      /* [R, heads hd] */
  pdt_real *mid;           /* [R, d] after attention and its hook */
  pdt_real *ffn_normed;    /* [R, d] */
  pdt_real *gate, *up;     /* [R, f] */
  pdt_real *active;        /* [R, f] silu(gate) * up */
} pdt_nn_saved;

static int saved_new(const pdt_nn_trunk *trunk, int64_t rows, pdt_nn_saved *s, pdt_arena *arena,
                     pdt_error *err) {
  const pdt_model_config *c = &trunk->config;
  int64_t d = rows * c->hidden_size, f = rows * c->intermediate_size;
  int64_t q = rows * c->heads * c->head_dim, kv = rows * c->kv_heads * c->head_dim;
  *s = (pdt_nn_saved){0};
  if (trunk->layers[0].q_norm.w &&
      (PDT_TAKE(arena, &s->q_raw, q, err) || PDT_TAKE(arena, &s->k_raw, kv, err)))
    return -1;
  if (PDT_TAKE(arena, &s->x, d, err) || PDT_TAKE(arena, &s->normed, d, err) ||
      PDT_TAKE(arena, &s->q, q, err) || PDT_TAKE(arena, &s->k, kv, err) ||
      PDT_TAKE(arena, &s->v, kv, err) || PDT_TAKE(arena, &s->lse, rows * c->heads, err) ||
      PDT_TAKE(arena, &s->attended, q, err) || PDT_TAKE(arena, &s->mid, d, err) ||
      PDT_TAKE(arena, &s->ffn_normed, d, err) || PDT_TAKE(arena, &s->gate, f, err) ||
      PDT_TAKE(arena, &s->up, f, err) || PDT_TAKE(arena, &s->active, f, err))
    return -1;
  return 0;
}

/* Buffers of the pass: layers below `kept` share one set. */
static int pass_room(const pdt_nn_trunk *trunk, pdt_nn_pass *pass, pdt_layer kept, pdt_arena *arena,
                     pdt_error *err) {
  const pdt_model_config *c = &trunk->config;
  pdt_layer from = pass->hooks && pass->hooks->x ? pass->hooks->first : 0;
  int64_t rows = pass->rows, d = rows * c->hidden_size;
  int32_t longest = pdt_nn_longest(&pass->sequences);
  if (PDT_TAKE(arena, &pass->layers, c->layers, err) ||
      PDT_TAKE(arena, &pass->angles, (int64_t)longest * c->head_dim, err) ||
      PDT_TAKE(arena, &pass->last, d, err) || PDT_TAKE(arena, &pass->hidden, d, err))
    return -1;
  if (pass->hooks && pass->hooks->inner > 0 && PDT_TAKE(arena, &pass->inner, d, err)) return -1;
  for (pdt_layer l = from; l < c->layers; l++) {
    if (l > from && l < kept)
      pass->layers[l] = pass->layers[from];
    else if (saved_new(trunk, rows, &pass->layers[l], arena, err))
      return -1;
  }
  pdt_nn_rope_angles(trunk->inv_freq, c->rope.scale, c->head_dim, longest, pass->angles);
  return 0;
}

/* Norms heads where the layer does so, and rotates them. */
static void place_heads(const pdt_nn_trunk *trunk, const pdt_nn_pass *pass, pdt_nn_weight norm,
                        int32_t heads, pdt_real *raw, pdt_real *x) {
  int32_t hd = trunk->config.head_dim;
  if (norm.w)
    pdt_nn_rms_norm(norm, trunk->config.rms_norm_eps, hd, raw, (int64_t)pass->rows * heads, x);
  pdt_nn_rope(&pass->sequences, heads, hd, pass->angles, 1, x);
}

static pdt_nn_heads heads_of(const pdt_model_config *c, pdt_layer l) {
  return (pdt_nn_heads){c->heads, c->kv_heads, c->head_dim, pdt_model_window(c, l)};
}

/* mid = x + Attention(RMSNorm(x)) */
static int attention_forward(const pdt_nn_trunk *trunk, const pdt_nn_pass *pass, pdt_layer l,
                             pdt_arena *arena, pdt_error *err) {
  const pdt_model_config *c = &trunk->config;
  const pdt_nn_layer *w = &trunk->layers[l];
  const pdt_nn_saved *s = &pass->layers[l];
  int64_t rows = pass->rows;
  pdt_nn_rms_norm(w->attention_norm, c->rms_norm_eps, c->hidden_size, s->x, rows, s->normed);
  pdt_nn_linear(&w->q, s->normed, rows, false, w->q_norm.w ? s->q_raw : s->q);
  pdt_nn_linear(&w->k, s->normed, rows, false, w->k_norm.w ? s->k_raw : s->k);
  pdt_nn_linear(&w->v, s->normed, rows, false, s->v);
  place_heads(trunk, pass, w->q_norm, c->heads, s->q_raw, s->q);
  place_heads(trunk, pass, w->k_norm, c->kv_heads, s->k_raw, s->k);
  if (pdt_nn_causal(&pass->sequences, heads_of(c, l), s->q, s->k, s->v, s->attended, s->lse, arena,
                    err))
    return -1;
  memcpy(s->mid, s->x, (size_t)(rows * c->hidden_size) * sizeof *s->x);
  pdt_nn_linear(&w->attention_out, s->attended, rows, true, s->mid);
  return 0;
}

/* out = mid + FFN(RMSNorm(mid)); out may be the layer's own x. */
static void ffn_forward(const pdt_nn_trunk *trunk, const pdt_nn_pass *pass, pdt_layer l,
                        pdt_real *out) {
  const pdt_model_config *c = &trunk->config;
  const pdt_nn_layer *w = &trunk->layers[l];
  const pdt_nn_saved *s = &pass->layers[l];
  int64_t rows = pass->rows;
  pdt_nn_rms_norm(w->ffn_norm, c->rms_norm_eps, c->hidden_size, s->mid, rows, s->ffn_normed);
  pdt_nn_linear(&w->gate, s->ffn_normed, rows, false, s->gate);
  pdt_nn_linear(&w->up, s->ffn_normed, rows, false, s->up);
  pdt_nn_swiglu(s->gate, s->up, rows * c->intermediate_size, s->active);
  memcpy(out, s->mid, (size_t)(rows * c->hidden_size) * sizeof *out);
  pdt_nn_linear(&w->down, s->active, rows, true, out);
}

/* Layer l of the pass, with its hooks; what it gives goes to out. */
static int layer_forward(const pdt_nn_trunk *trunk, const pdt_nn_pass *pass, pdt_layer l,
                         pdt_real *out, pdt_arena *arena, pdt_error *err) {
  const pdt_nn_hooks *hooks = pass->hooks;
  if (attention_forward(trunk, pass, l, arena, err) ||
      (hooks && hooks->after_attention(hooks->context, l, pass->layers[l].mid, err)))
    return -1;
  ffn_forward(trunk, pass, l, out);
  if (hooks && hooks->after_ffn(hooks->context, l, out, err)) return -1;
  if (hooks && l + 1 == hooks->inner)
    memcpy(pass->inner, out,
           (size_t)((int64_t)pass->rows * trunk->config.hidden_size) * sizeof *out);
  return 0;
}

int pdt_nn_trunk_forward(const pdt_nn_trunk *trunk, pdt_nn_pass *pass,
                         const pdt_nn_sequences *sequences, const pdt_token *tokens,
                         const pdt_nn_hooks *hooks, bool keep, pdt_arena *arena, pdt_error *err) {
  const pdt_model_config *c = &trunk->config;
  bool frozen = !trunk->parameters.grad;
  *pass = (pdt_nn_pass){.sequences = *sequences,
                        .tokens = tokens,
                        .hooks = hooks,
                        .rows = sequences->begin[sequences->n],
                        .lowest = !frozen ? -1
                                  : hooks ? hooks->lowest
                                          : c->layers};
  if (pass_room(trunk, pass, keep ? pass->lowest : c->layers, arena, err)) return -1;
  pdt_layer from = hooks && hooks->x ? hooks->first : 0;
  if (hooks && hooks->x)
    memcpy(pass->layers[from].x, hooks->x,
           (size_t)((int64_t)pass->rows * c->hidden_size) * sizeof *hooks->x);
  else
    pdt_nn_gather(trunk->embedding.w, tokens, pass->rows, c->hidden_size, pass->layers[0].x);
  for (pdt_layer l = from; l < c->layers; l++)
    if (layer_forward(trunk, pass, l, l + 1 < c->layers ? pass->layers[l + 1].x : pass->last, arena,
                      err))
      return -1;
  pdt_nn_rms_norm(trunk->final_norm, c->rms_norm_eps, c->hidden_size, pass->last, pass->rows,
                  pass->hidden);
  return 0;
}

int pdt_nn_trunk_lower(const pdt_nn_trunk *trunk, const pdt_nn_sequences *sequences,
                       const pdt_token *tokens, int32_t layers, pdt_real *x, pdt_arena *arena,
                       pdt_error *err) {
  const pdt_model_config *c = &trunk->config;
  pdt_nn_pass pass = {
      .sequences = *sequences, .tokens = tokens, .rows = sequences->begin[sequences->n]};
  if (pass_room(trunk, &pass, c->layers, arena, err)) return -1;
  pdt_nn_gather(trunk->embedding.w, tokens, pass.rows, c->hidden_size, pass.layers[0].x);
  for (pdt_layer l = 0; l < layers; l++)
    if (layer_forward(trunk, &pass, l, l + 1 < layers ? pass.layers[l + 1].x : x, arena, err))
      return -1;
  return 0;
}

/* ---- backward ---- */

/* Gradients of one layer's inner values; all layers use the same. */
typedef struct layer_gradients {
  pdt_real *normed;               /* [R, d] */
  pdt_real *attended, *q, *k, *v; /* [R, heads hd] twice, [R, kv hd] twice */
  pdt_real *raw;                  /* [R, heads hd] before a q/k norm */
  pdt_real *gate, *up;            /* [R, f] */
} layer_gradients;

static int gradients_new(const pdt_nn_trunk *trunk, int64_t rows, layer_gradients *g,
                         pdt_arena *arena, pdt_error *err) {
  const pdt_model_config *c = &trunk->config;
  int64_t q = rows * c->heads * c->head_dim, kv = rows * c->kv_heads * c->head_dim;
  int64_t f = rows * c->intermediate_size;
  return PDT_TAKE(arena, &g->normed, rows * c->hidden_size, err) ||
                 PDT_TAKE(arena, &g->attended, q, err) || PDT_TAKE(arena, &g->q, q, err) ||
                 PDT_TAKE(arena, &g->k, kv, err) || PDT_TAKE(arena, &g->v, kv, err) ||
                 PDT_TAKE(arena, &g->raw, q, err) || PDT_TAKE(arena, &g->gate, f, err) ||
                 PDT_TAKE(arena, &g->up, f, err)
             ? -1
             : 0;
}

/* dx: gradient of what the layer gave, to that of mid. */
static void ffn_backward(const pdt_nn_trunk *trunk, const pdt_nn_pass *pass, pdt_layer l,
                         const layer_gradients *g, pdt_real *dx) {
  const pdt_model_config *c = &trunk->config;
  const pdt_nn_layer *w = &trunk->layers[l];
  const pdt_nn_saved *s = &pass->layers[l];
  int64_t rows = pass->rows;
  pdt_nn_linear_back(&w->down, s->active, rows, dx, false, g->up);
  pdt_nn_swiglu_back(s->gate, s->up, rows * c->intermediate_size, g->up, g->gate, g->up);
  pdt_nn_linear_back(&w->gate, s->ffn_normed, rows, g->gate, false, g->normed);
  pdt_nn_linear_back(&w->up, s->ffn_normed, rows, g->up, true, g->normed);
  pdt_nn_rms_norm_back(w->ffn_norm, c->rms_norm_eps, c->hidden_size, s->mid, rows, g->normed, dx);
}

/* Gradient of heads as attention read them to that of the projection's output; returns where. */
static pdt_real *unplace_heads(const pdt_nn_trunk *trunk, const pdt_nn_pass *pass,
                               pdt_nn_weight norm, int32_t heads, const pdt_real *raw, pdt_real *dx,
                               pdt_real *room) {
  int32_t hd = trunk->config.head_dim;
  int64_t n = (int64_t)pass->rows * heads;
  pdt_nn_rope(&pass->sequences, heads, hd, pass->angles, -1, dx);
  if (!norm.w) return dx;
  memset(room, 0, (size_t)(n * hd) * sizeof *room);
  pdt_nn_rms_norm_back(norm, trunk->config.rms_norm_eps, hd, raw, n, dx, room);
  return room;
}

/* dx: gradient of mid, to that of what the layer got. */
static int attention_backward(const pdt_nn_trunk *trunk, const pdt_nn_pass *pass, pdt_layer l,
                              const layer_gradients *g, pdt_real *dx, pdt_arena *arena,
                              pdt_error *err) {
  const pdt_model_config *c = &trunk->config;
  const pdt_nn_layer *w = &trunk->layers[l];
  const pdt_nn_saved *s = &pass->layers[l];
  int64_t rows = pass->rows;
  pdt_nn_linear_back(&w->attention_out, s->attended, rows, dx, false, g->attended);
  if (pdt_nn_causal_back(&pass->sequences, heads_of(c, l), s->q, s->k, s->v, s->attended, s->lse,
                         g->attended, g->q, g->k, g->v, arena, err))
    return -1;
  pdt_real *dq = unplace_heads(trunk, pass, w->q_norm, c->heads, s->q_raw, g->q, g->raw);
  pdt_nn_linear_back(&w->q, s->normed, rows, dq, false, g->normed);
  pdt_real *dk = unplace_heads(trunk, pass, w->k_norm, c->kv_heads, s->k_raw, g->k, g->raw);
  pdt_nn_linear_back(&w->k, s->normed, rows, dk, true, g->normed);
  pdt_nn_linear_back(&w->v, s->normed, rows, g->v, true, g->normed);
  pdt_nn_rms_norm_back(w->attention_norm, c->rms_norm_eps, c->hidden_size, s->x, rows, g->normed,
                       dx);
  return 0;
}

int pdt_nn_trunk_backward(const pdt_nn_trunk *trunk, const pdt_nn_pass *pass,
                          const pdt_real *dhidden, pdt_arena *arena, pdt_error *err) {
  const pdt_model_config *c = &trunk->config;
  const pdt_nn_hooks *hooks = pass->hooks;
  int64_t rows = pass->rows, d = c->hidden_size;
  pdt_real *dx;
  layer_gradients g;
  if (pass->lowest >= c->layers) return 0; /* nothing below learns */
  if (PDT_TAKE(arena, &dx, rows * d, err) || gradients_new(trunk, rows, &g, arena, err)) return -1;
  memset(dx, 0, (size_t)(rows * d) * sizeof *dx);
  pdt_nn_rms_norm_back(trunk->final_norm, c->rms_norm_eps, d, pass->last, rows, dhidden, dx);
  for (pdt_layer l = c->layers - 1; l >= 0 && l >= pass->lowest; l--) {
    if (pass->dinner && l + 1 == hooks->inner) pdt_nn_axpy(1, pass->dinner, rows * d, dx);
    if (hooks && hooks->after_ffn_back(hooks->context, l, dx, err)) return -1;
    ffn_backward(trunk, pass, l, &g, dx);
    if (hooks && hooks->after_attention_back(hooks->context, l, dx, err)) return -1;
    if (l == pass->lowest) return 0;
    if (attention_backward(trunk, pass, l, &g, dx, arena, err)) return -1;
  }
  if (trunk->embedding.g) pdt_nn_scatter_add(1, dx, pass->tokens, rows, d, trunk->embedding.g);
  return 0;
}

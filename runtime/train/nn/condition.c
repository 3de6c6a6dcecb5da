#include "train/nn/condition.h"

#include <string.h>

/* eps of every norm in the sidecar. */
static const double eps = 1e-6;

/* What backward needs of one instrumented layer; Rc conditioned rows, N notes. */
typedef struct pdt_nn_conditioned {
  pdt_real *snc_x, *snc_normed;         /* [Rc, d] */
  pdt_real *query, *context;            /* [Rc, q] */
  pdt_real *key, *value;                /* [N, q] */
  pdt_real *snc_delta;                  /* [Rc, d] */
  pdt_real *adapter_x, *adapter_normed; /* [Rc, d] */
  pdt_real *down, *active;              /* [Rc, a] */
  pdt_real *adapter_delta;              /* [Rc, d] */
} pdt_nn_conditioned;

static int saved_new(const pdt_nn_condition *c, pdt_nn_conditioned *s, pdt_error *err) {
  const pdt_sidecar_config *config = &c->sidecar->config;
  pdt_arena *arena = c->arena;
  int64_t q = pdt_sidecar_snc_width(config), rows = c->what->n_rows, notes = c->what->n_notes;
  int64_t d = rows * config->hidden_size, a = rows * config->adapter_dim;
  return PDT_TAKE(arena, &s->snc_x, d, err) || PDT_TAKE(arena, &s->snc_normed, d, err) ||
                 PDT_TAKE(arena, &s->query, rows * q, err) ||
                 PDT_TAKE(arena, &s->context, rows * q, err) ||
                 PDT_TAKE(arena, &s->key, notes * q, err) ||
                 PDT_TAKE(arena, &s->value, notes * q, err) ||
                 PDT_TAKE(arena, &s->snc_delta, d, err) || PDT_TAKE(arena, &s->adapter_x, d, err) ||
                 PDT_TAKE(arena, &s->adapter_normed, d, err) || PDT_TAKE(arena, &s->down, a, err) ||
                 PDT_TAKE(arena, &s->active, a, err) || PDT_TAKE(arena, &s->adapter_delta, d, err)
             ? -1
             : 0;
}

/* What a layer's outputs are multiplied by beside their gates. */
static pdt_real scale_of(const pdt_nn_condition *c, int32_t at) {
  return (pdt_real)pdt_sidecar_layer_scale(&c->sidecar->config, at);
}

/* h[rows] += (SNC of h[rows] over their windows) * sigmoid(gate) * scale. */
static int snc_forward(void *context, pdt_layer layer, pdt_real *h, pdt_error *err) {
  pdt_nn_condition *c = context;
  const pdt_sidecar_config *config = &c->sidecar->config;
  int32_t at = pdt_sidecar_instrumented_index(config, layer);
  if (at < 0) return 0;
  const pdt_nn_instrument *w = &c->sidecar->layers[at];
  pdt_nn_conditioned *s = &c->saved[at];
  int64_t rows = c->what->n_rows, d = config->hidden_size, notes = c->what->n_notes;
  if (saved_new(c, s, err)) return -1;
  pdt_nn_gather(h, c->what->rows, rows, d, s->snc_x);
  pdt_nn_rms_norm(w->snc_norm, eps, d, s->snc_x, rows, s->snc_normed);
  pdt_nn_linear(&w->snc_q, s->snc_normed, rows, false, s->query);
  pdt_nn_linear(&w->snc_k, c->notes, notes, false, s->key);
  pdt_nn_linear(&w->snc_v, c->notes, notes, false, s->value);
  if (pdt_nn_window_attention(&c->what->windows, config->snc_heads, config->snc_head_dim, s->query,
                              s->key, s->value, s->context, c->arena, err))
    return -1;
  pdt_nn_linear(&w->snc_out, s->context, rows, false, s->snc_delta);
  pdt_nn_scatter_add(scale_of(c, at) * pdt_nn_sigmoid(*w->snc_gate.w), s->snc_delta, c->what->rows,
                     rows, d, h);
  return 0;
}

/* The adapter of the stream of a run. */
static pdt_nn_affine of_stream(const pdt_nn_affine *all, int32_t streams, pdt_stream k) {
  int64_t out = all->out / streams;
  return (pdt_nn_affine){pdt_nn_weight_at(all->w, k * out * all->in),
                         pdt_nn_weight_at(all->b, k * out), all->in, out};
}

/* h[rows] += (adapter of h[rows] of their stream) * sigmoid(gate) * scale. */
static int adapter_forward(void *context, pdt_layer layer, pdt_real *h, pdt_error *err) {
  pdt_nn_condition *c = context;
  const pdt_sidecar_config *config = &c->sidecar->config;
  int32_t at = pdt_sidecar_instrumented_index(config, layer);
  (void)err;
  if (at < 0) return 0;
  const pdt_nn_instrument *w = &c->sidecar->layers[at];
  const pdt_nn_conditioning *what = c->what;
  pdt_nn_conditioned *s = &c->saved[at];
  int64_t d = config->hidden_size, a = config->adapter_dim;
  pdt_nn_gather(h, what->rows, what->n_rows, d, s->adapter_x);
  pdt_nn_rms_norm(w->adapter_norm, eps, d, s->adapter_x, what->n_rows, s->adapter_normed);
  for (int32_t i = 0; i < what->n_runs; i++) {
    int64_t first = what->run_begin[i], n = what->run_begin[i + 1] - first;
    pdt_nn_affine down = of_stream(&w->adapter_down, config->streams, what->run_stream[i]);
    pdt_nn_affine up = of_stream(&w->adapter_up, config->streams, what->run_stream[i]);
    pdt_nn_linear(&down, s->adapter_normed + first * d, n, false, s->down + first * a);
    pdt_nn_gelu(s->down + first * a, n * a, s->active + first * a);
    pdt_nn_linear(&up, s->active + first * a, n, false, s->adapter_delta + first * d);
  }
  pdt_nn_scatter_add(scale_of(c, at) * pdt_nn_sigmoid(*w->adapter_gate.w), s->adapter_delta,
                     what->rows, what->n_rows, d, h);
  return 0;
}

/* From g, the gradient of h + scale sigmoid(gate) delta: the gate's gradient; g becomes delta's. */
static void gate_back(pdt_nn_weight gate, pdt_real scale, const pdt_real *delta, int64_t n,
                      pdt_real *g) {
  pdt_real open = pdt_nn_sigmoid(*gate.w);
  if (gate.g) *gate.g += scale * open * (1 - open) * (pdt_real)pdt_nn_dot(g, delta, n);
  for (int64_t i = 0; i < n; i++) g[i] *= scale * open;
}

/* g: gradient of the delta [Rc, d], overwritten by that of what the SNC read. */
static int snc_back_rows(pdt_nn_condition *c, int32_t at, pdt_real *g, pdt_error *err) {
  const pdt_sidecar_config *config = &c->sidecar->config;
  const pdt_nn_instrument *w = &c->sidecar->layers[at];
  const pdt_nn_conditioned *s = &c->saved[at];
  int64_t rows = c->what->n_rows, notes = c->what->n_notes, d = config->hidden_size;
  int64_t q = pdt_sidecar_snc_width(config);
  pdt_real *dcontext, *dquery, *dkey, *dvalue, *dnormed;
  if (PDT_TAKE(c->arena, &dcontext, rows * q, err) || PDT_TAKE(c->arena, &dquery, rows * q, err) ||
      PDT_TAKE(c->arena, &dkey, notes * q, err) || PDT_TAKE(c->arena, &dvalue, notes * q, err) ||
      PDT_TAKE(c->arena, &dnormed, rows * d, err))
    return -1;
  memset(dkey, 0, (size_t)(notes * q) * sizeof *dkey);
  memset(dvalue, 0, (size_t)(notes * q) * sizeof *dvalue);
  pdt_nn_linear_back(&w->snc_out, s->context, rows, g, false, dcontext);
  if (pdt_nn_window_attention_back(&c->what->windows, config->snc_heads, config->snc_head_dim,
                                   s->query, s->key, s->value, dcontext, dquery, dkey, dvalue,
                                   c->arena, err))
    return -1;
  pdt_nn_linear_back(&w->snc_k, c->notes, notes, dkey, true, c->dnotes);
  pdt_nn_linear_back(&w->snc_v, c->notes, notes, dvalue, true, c->dnotes);
  pdt_nn_linear_back(&w->snc_q, s->snc_normed, rows, dquery, false, dnormed);
  memset(g, 0, (size_t)(rows * d) * sizeof *g);
  pdt_nn_rms_norm_back(w->snc_norm, eps, d, s->snc_x, rows, dnormed, g);
  return 0;
}

static int snc_backward(void *context, pdt_layer layer, pdt_real *dh, pdt_error *err) {
  pdt_nn_condition *c = context;
  int32_t at = pdt_sidecar_instrumented_index(&c->sidecar->config, layer);
  if (at < 0) return 0;
  int64_t rows = c->what->n_rows, d = c->sidecar->config.hidden_size;
  pdt_real *g;
  if (PDT_TAKE(c->arena, &g, rows * d, err)) return -1;
  pdt_nn_gather(dh, c->what->rows, rows, d, g);
  gate_back(c->sidecar->layers[at].snc_gate, scale_of(c, at), c->saved[at].snc_delta, rows * d, g);
  if (snc_back_rows(c, at, g, err)) return -1;
  pdt_nn_scatter_add(1, g, c->what->rows, rows, d, dh);
  return 0;
}

static int adapter_backward(void *context, pdt_layer layer, pdt_real *dh, pdt_error *err) {
  pdt_nn_condition *c = context;
  const pdt_sidecar_config *config = &c->sidecar->config;
  const pdt_nn_conditioning *what = c->what;
  int32_t at = pdt_sidecar_instrumented_index(config, layer);
  if (at < 0) return 0;
  const pdt_nn_instrument *w = &c->sidecar->layers[at];
  const pdt_nn_conditioned *s = &c->saved[at];
  int64_t rows = what->n_rows, d = config->hidden_size, a = config->adapter_dim;
  pdt_real *g, *dactive, *dnormed;
  if (PDT_TAKE(c->arena, &g, rows * d, err) || PDT_TAKE(c->arena, &dactive, rows * a, err) ||
      PDT_TAKE(c->arena, &dnormed, rows * d, err))
    return -1;
  pdt_nn_gather(dh, what->rows, rows, d, g);
  gate_back(w->adapter_gate, scale_of(c, at), s->adapter_delta, rows * d, g);
  for (int32_t i = 0; i < what->n_runs; i++) {
    int64_t first = what->run_begin[i], n = what->run_begin[i + 1] - first;
    pdt_nn_affine down = of_stream(&w->adapter_down, config->streams, what->run_stream[i]);
    pdt_nn_affine up = of_stream(&w->adapter_up, config->streams, what->run_stream[i]);
    pdt_real *da = dactive + first * a;
    pdt_nn_linear_back(&up, s->active + first * a, n, g + first * d, false, da);
    pdt_nn_gelu_back(s->down + first * a, n * a, da, da);
    pdt_nn_linear_back(&down, s->adapter_normed + first * d, n, da, false, dnormed + first * d);
  }
  memset(g, 0, (size_t)(rows * d) * sizeof *g);
  pdt_nn_rms_norm_back(w->adapter_norm, eps, d, s->adapter_x, rows, dnormed, g);
  pdt_nn_scatter_add(1, g, what->rows, rows, d, dh);
  return 0;
}

int pdt_nn_condition_begin(pdt_nn_condition *c, const pdt_nn_sidecar *sidecar,
                           const pdt_nn_conditioning *what, const pdt_real *notes, pdt_arena *arena,
                           pdt_error *err) {
  *c = (pdt_nn_condition){
      .sidecar = sidecar,
      .what = what,
      .notes = notes,
      .arena = arena,
      .hooks = {.context = c,
                .after_attention = snc_forward,
                .after_ffn = adapter_forward,
                .after_attention_back = snc_backward,
                .after_ffn_back = adapter_backward,
                .lowest = sidecar->config.instrumented[0],
                /* Below all that is conditioned, what the pool reads is known without the pass. */
                .inner = sidecar->config.pool_layers > sidecar->config.instrumented[0]
                             ? sidecar->config.pool_layers
                             : 0},
  };
  return PDT_TAKE(arena, &c->saved, sidecar->config.n_instrumented, err);
}

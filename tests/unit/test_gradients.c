/* Every gradient of the trainer against finite differences, in double.
 *
 * Central differences with step h = 1e-5: their own error is h^2 f'''/6, about 1e-10 for values of
 * order 1 as here, and eps |f| / h, about 1e-10 for |f| of order 10. TOLERANCE leaves three orders
 * for larger third derivatives; a wrong term in a gradient is larger by six. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "protocol/philox.h"
#include "train/nn/attention.h"
#include "train/nn/losses.h"
#include "train/nn/step.h"
#include "train/nn/trunk.h"

static const double STEP = 1e-5, TOLERANCE = 1e-7;
enum { MOST_PROBES = 40 };

typedef struct fixture {
  pdt_arena arena;
  uint32_t drawn;
  int probes; /* done so far */
} fixture;

/* Uniform in (-1, 1), the same at every run. */
static double draw(fixture *f) {
  return 2 * pdt_uniform(1, f->drawn++, 0, 0, 0) - 1;
}

static double *random_array(fixture *f, int64_t n, double scale) {
  double *x = malloc((size_t)(n > 0 ? n : 1) * sizeof *x);
  assert_non_null(x);
  for (int64_t i = 0; i < n; i++) x[i] = scale * draw(f);
  return x;
}

static double *zeros(int64_t n) {
  double *x = calloc((size_t)(n > 0 ? n : 1), sizeof *x);
  assert_non_null(x);
  return x;
}

typedef double (*loss_function)(void *context);

/* g against differences of loss by x: every element of small arrays, evenly spaced ones of others.
 */
static void check(fixture *f, const char *what, loss_function loss, void *context, double *x,
                  const double *g, int64_t n) {
  int64_t stride = n > MOST_PROBES ? n / MOST_PROBES : 1;
  for (int64_t i = 0; i < n; i += stride) {
    double kept = x[i];
    x[i] = kept + STEP;
    double above = loss(context);
    x[i] = kept - STEP;
    double below = loss(context);
    x[i] = kept;
    double difference = (above - below) / (2 * STEP);
    double size = fabs(difference) > 1 ? fabs(difference) : 1;
    if (!(fabs(difference - g[i]) <= TOLERANCE * size))
      fail_msg("%s: element %lld: gradient %.12g, difference %.12g", what, (long long)i, g[i],
               difference);
    f->probes++;
  }
}

/* ---- simple modules ---- */

enum { ROWS = 5, IN = 7, OUT = 6 };

typedef struct simple {
  pdt_nn_affine map;
  double *x, *y, *c; /* loss: sum of c * y */
} simple;

static double linear_loss(void *context) {
  simple *s = context;
  pdt_nn_linear(&s->map, s->x, ROWS, false, s->y);
  return pdt_nn_dot(s->c, s->y, (int64_t)ROWS * OUT);
}

static void test_linear(void **state) {
  fixture *f = *state;
  double *w = random_array(f, OUT * IN, 1), *b = random_array(f, OUT, 1);
  double *dw = zeros(OUT * IN), *db = zeros(OUT), *dx = zeros(ROWS * IN);
  simple s = {{{w, dw}, {b, db}, IN, OUT},
              random_array(f, ROWS * IN, 1),
              zeros(ROWS * OUT),
              random_array(f, ROWS * OUT, 1)};
  pdt_nn_linear_back(&s.map, s.x, ROWS, s.c, true, dx);
  check(f, "linear: x", linear_loss, &s, s.x, dx, (int64_t)ROWS * IN);
  check(f, "linear: weight", linear_loss, &s, w, dw, (int64_t)OUT * IN);
  check(f, "linear: bias", linear_loss, &s, b, db, OUT);
  double *all[] = {w, b, dw, db, dx, s.x, s.y, s.c};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

static double norm_loss(void *context) {
  simple *s = context;
  pdt_nn_rms_norm(s->map.w, 1e-3, IN, s->x, ROWS, s->y);
  return pdt_nn_dot(s->c, s->y, (int64_t)ROWS * IN);
}

static void test_rms_norm(void **state) {
  fixture *f = *state;
  for (int weighted = 0; weighted < 2; weighted++) {
    double *w = random_array(f, IN, 1), *dw = zeros(IN), *dx = zeros(ROWS * IN);
    simple s = {{.w = {weighted ? w : NULL, weighted ? dw : NULL}},
                random_array(f, ROWS * IN, 1),
                zeros(ROWS * IN),
                random_array(f, ROWS * IN, 1)};
    pdt_nn_rms_norm_back(s.map.w, 1e-3, IN, s.x, ROWS, s.c, dx);
    check(f, "norm: x", norm_loss, &s, s.x, dx, (int64_t)ROWS * IN);
    if (weighted) check(f, "norm: weight", norm_loss, &s, w, dw, IN);
    double *all[] = {w, dw, dx, s.x, s.y, s.c};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
  }
}

enum { N = ROWS * IN };

static double swiglu_loss(void *context) {
  simple *s = context; /* x: gate, then up */
  pdt_nn_swiglu(s->x, s->x + N, N, s->y);
  return pdt_nn_dot(s->c, s->y, N);
}

static double gelu_loss(void *context) {
  simple *s = context;
  pdt_nn_gelu(s->x, N, s->y);
  return pdt_nn_dot(s->c, s->y, N);
}

static void test_activations(void **state) {
  fixture *f = *state;
  simple s = {.x = random_array(f, 2 * N, 3), .y = zeros(N), .c = random_array(f, N, 1)};
  double *dx = zeros(2 * N);
  pdt_nn_swiglu_back(s.x, s.x + N, N, s.c, dx, dx + N);
  check(f, "swiglu", swiglu_loss, &s, s.x, dx, 2 * N);
  pdt_nn_gelu_back(s.x, N, s.c, dx);
  check(f, "gelu", gelu_loss, &s, s.x, dx, N);
  free(s.x);
  free(s.y);
  free(s.c);
  free(dx);
}

/* ---- attention ---- */

/* Sequences of one row, of a few, and of more than one block of queries. */
static const int32_t sequence_begin[] = {0, 1, 5, 75};
static const pdt_nn_sequences sequences = {3, sequence_begin};
enum { TOKENS = 75, HD = 4, HEADS = 4, KV = 2, MOST_TOKENS = 70 };

typedef struct attending {
  fixture *f;
  pdt_nn_heads heads;
  double *qkv, *rotated; /* q, then k, then v */
  double *out, *lse, *c, *angles;
} attending;

enum { Q_ELEMS = TOKENS * HEADS * HD, KV_ELEMS = TOKENS * KV * HD };

/* Rotation and attention together. */
static double causal_loss(void *context) {
  attending *a = context;
  pdt_error err = {0};
  double *q = a->rotated, *k = q + Q_ELEMS, *v = k + KV_ELEMS;
  memcpy(q, a->qkv, (Q_ELEMS + 2 * KV_ELEMS) * sizeof *q);
  pdt_nn_rope(&sequences, HEADS, HD, a->angles, 1, q);
  pdt_nn_rope(&sequences, KV, HD, a->angles, 1, k);
  pdt_arena_reset(&a->f->arena);
  if (pdt_nn_causal(&sequences, a->heads, q, k, v, a->out, a->lse, &a->f->arena, &err))
    fail_msg("%s", err.message);
  return pdt_nn_dot(a->c, a->out, Q_ELEMS);
}

/* window: of a row, in rows; 0: none */
static void causal_attention(fixture *f, int32_t window) {
  pdt_error err = {0};
  const double inv_freq[] = {1, 0.1};
  attending a = {f,
                 {HEADS, KV, HD, window},
                 random_array(f, Q_ELEMS + 2 * KV_ELEMS, 1.5),
                 zeros(Q_ELEMS + 2 * KV_ELEMS),
                 zeros(Q_ELEMS),
                 zeros(TOKENS * HEADS),
                 random_array(f, Q_ELEMS, 1),
                 zeros(MOST_TOKENS * HD)};
  double *d = zeros(Q_ELEMS + 2 * KV_ELEMS), *dk = d + Q_ELEMS, *dv = dk + KV_ELEMS;
  pdt_nn_rope_angles(inv_freq, 1.25, HD, MOST_TOKENS, a.angles);
  causal_loss(&a);
  double *q = a.rotated, *k = q + Q_ELEMS, *v = k + KV_ELEMS;
  if (pdt_nn_causal_back(&sequences, a.heads, q, k, v, a.out, a.lse, a.c, d, dk, dv, &f->arena,
                         &err))
    fail_msg("%s", err.message);
  pdt_nn_rope(&sequences, HEADS, HD, a.angles, -1, d);
  pdt_nn_rope(&sequences, KV, HD, a.angles, -1, dk);
  check(f, "attention: q", causal_loss, &a, a.qkv, d, Q_ELEMS);
  check(f, "attention: k", causal_loss, &a, a.qkv + Q_ELEMS, dk, KV_ELEMS);
  check(f, "attention: v", causal_loss, &a, a.qkv + Q_ELEMS + KV_ELEMS, dv, KV_ELEMS);
  double *all[] = {a.qkv, a.rotated, a.out, a.lse, a.c, a.angles, d};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

static void test_causal_attention(void **state) {
  causal_attention(*state, 0);
}

/* Windows of one row, of a few, and that begin in an earlier block of queries. */
static void test_sliding_attention(void **state) {
  static const int32_t lengths[] = {1, 3, 66};
  for (int i = 0; i < 3; i++) causal_attention(*state, lengths[i]);
}

/* Two rows without a note, three that share notes with the last. */
static const int32_t window_begin[] = {0, 2, 5, 6}, window_first[] = {0, 0, 3, 5},
                     window_items[] = {0, 3, 2, 2, 1};
static const pdt_nn_windows windows = {3, window_begin, window_first, window_items};
enum { W_ROWS = 6, NOTES = 4, WIDTH = HEADS * HD };

typedef struct reading {
  fixture *f;
  double *q, *k, *v, *out, *c;
} reading;

static double window_loss(void *context) {
  reading *r = context;
  pdt_error err = {0};
  pdt_arena_reset(&r->f->arena);
  if (pdt_nn_window_attention(&windows, HEADS, HD, r->q, r->k, r->v, r->out, &r->f->arena, &err))
    fail_msg("%s", err.message);
  return pdt_nn_dot(r->c, r->out, W_ROWS * WIDTH);
}

static void test_window_attention(void **state) {
  fixture *f = *state;
  pdt_error err = {0};
  reading r = {f,
               random_array(f, W_ROWS * WIDTH, 1.5),
               random_array(f, NOTES * WIDTH, 1.5),
               random_array(f, NOTES * WIDTH, 1.5),
               random_array(f, W_ROWS * WIDTH, 1),
               random_array(f, W_ROWS * WIDTH, 1)};
  double *dq = zeros(W_ROWS * WIDTH), *dk = zeros(NOTES * WIDTH), *dv = zeros(NOTES * WIDTH);
  window_loss(&r);
  for (int i = 0; i < 2 * WIDTH; i++) assert_true(r.out[i] == 0);
  if (pdt_nn_window_attention_back(&windows, HEADS, HD, r.q, r.k, r.v, r.c, dq, dk, dv, &f->arena,
                                   &err))
    fail_msg("%s", err.message);
  check(f, "window: q", window_loss, &r, r.q, dq, W_ROWS * WIDTH);
  check(f, "window: k", window_loss, &r, r.k, dk, NOTES * WIDTH);
  check(f, "window: v", window_loss, &r, r.v, dv, NOTES * WIDTH);
  double *all[] = {r.q, r.k, r.v, r.out, r.c, dq, dk, dv};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

/* ---- losses ---- */

static double plain_losses(void *context) {
  simple *s = context; /* x: logits; y: targets in (0, 1); c: weights, some 0 */
  return pdt_nn_mse(s->x, s->y, s->c, ROWS, IN, NULL) + pdt_nn_bce(s->x, s->y, s->c, N, NULL);
}

static const int32_t slot_targets[ROWS] = {3, -1, 0, 6, 2};

static double slot_loss(void *context) {
  simple *s = context;
  double copy[N];
  memcpy(copy, s->x, sizeof copy);
  return pdt_nn_softmax_ce(copy, slot_targets, ROWS, IN, 0.7, false, NULL);
}

static void test_plain_losses(void **state) {
  fixture *f = *state;
  simple s = {.x = random_array(f, N, 2), .y = random_array(f, N, 1), .c = random_array(f, N, 1)};
  double *dx = zeros(N);
  for (int i = 0; i < N; i++) s.y[i] = fabs(s.y[i]);
  s.c[1] = s.c[9] = 0;
  pdt_nn_mse(s.x, s.y, s.c, ROWS, IN, dx);
  pdt_nn_bce(s.x, s.y, s.c, N, dx);
  check(f, "MSE and BCE", plain_losses, &s, s.x, dx, N);
  memcpy(dx, s.x, N * sizeof *dx);
  int64_t right = 0;
  pdt_nn_softmax_ce(dx, slot_targets, ROWS, IN, 0.7, true, &right);
  check(f, "slots", slot_loss, &s, s.x, dx, N);
  for (int i = IN; i < 2 * IN; i++) assert_true(dx[i] == 0); /* the ignored slot */
  free(s.x);
  free(s.y);
  free(s.c);
  free(dx);
}

enum { VOCAB = 11, STATES = 6, WANTED = 5 };

typedef struct heading {
  fixture *f;
  double *w, *hidden;
  pdt_nn_targets targets;
} heading;

static double head_loss(void *context) {
  heading *h = context;
  pdt_error err = {0};
  pdt_nn_head_sums sums;
  pdt_arena_reset(&h->f->arena);
  if (pdt_nn_head_loss((pdt_nn_weight){h->w, NULL}, VOCAB, IN, h->hidden, &h->targets, NULL, &sums,
                       &h->f->arena, &err))
    fail_msg("%s", err.message);
  return sums.ce + sums.kd;
}

/* The teacher reads through the same head but is no function of it: so the gradient by the head is
 * checked without distillation. */
static void test_head(void **state) {
  fixture *f = *state;
  static const int32_t rows[WANTED] = {5, 0, 2, 2, 3};
  static const pdt_token tokens[WANTED] = {1, 10, 4, 0, 7};
  heading h = {f, random_array(f, VOCAB * IN, 1), random_array(f, STATES * IN, 2), {0}};
  double *ce = random_array(f, WANTED, 1), *kd = random_array(f, WANTED, 1);
  double *teacher = random_array(f, WANTED * IN, 2);
  ce[1] = 0;
  for (int distilled = 0; distilled < 2; distilled++) {
    double *dw = zeros(VOCAB * IN), *dh = zeros(STATES * IN);
    pdt_error err = {0};
    pdt_nn_head_sums sums;
    h.targets = (pdt_nn_targets){
        WANTED, rows, tokens, ce, distilled ? kd : NULL, distilled ? teacher : NULL, NULL, NULL};
    if (pdt_nn_head_loss((pdt_nn_weight){h.w, dw}, VOCAB, IN, h.hidden, &h.targets, dh, &sums,
                         &f->arena, &err))
      fail_msg("%s", err.message);
    assert_true(distilled == (sums.kd != 0));
    check(f, "head: states", head_loss, &h, h.hidden, dh, STATES * IN);
    if (!distilled) check(f, "head: weight", head_loss, &h, h.w, dw, VOCAB * IN);
    free(dw);
    free(dh);
  }
  /* A teacher with the student's own states has nothing to say. */
  double own[WANTED * IN], dh[STATES * IN] = {0};
  pdt_error err = {0};
  pdt_nn_head_sums sums;
  pdt_nn_gather(h.hidden, rows, WANTED, IN, own);
  memset(ce, 0, WANTED * sizeof *ce);
  h.targets.teacher = own;
  assert_int_equal(pdt_nn_head_loss((pdt_nn_weight){h.w, NULL}, VOCAB, IN, h.hidden, &h.targets, dh,
                                    &sums, &f->arena, &err),
                   0);
  assert_true(fabs(sums.kd) < 1e-14);
  for (int i = 0; i < STATES * IN; i++) assert_true(fabs(dh[i]) < 1e-14);
  /* Over a part of the vocabulary, some of whose ids stand for more. */
  static const int32_t ids[] = {10, 1, 4, 0, 7, 3},
                       place[VOCAB] = {3, 1, -1, 5, 2, -1, -1, 4, -1, -1, 0};
  const double shift[] = {0, 0, 0, 0, 0, 1.7};
  const pdt_nn_subset subset = {6, ids, shift, place};
  double *dpart = zeros(STATES * IN);
  for (int i = 0; i < WANTED; i++) ce[i] = draw(f); /* zeroed above */
  h.targets = (pdt_nn_targets){WANTED, rows, tokens, ce, NULL, NULL, NULL, &subset};
  pdt_nn_head_sums part;
  pdt_error failure = {0};
  if (pdt_nn_head_loss((pdt_nn_weight){h.w, NULL}, VOCAB, IN, h.hidden, &h.targets, dpart, &part,
                       &f->arena, &failure))
    fail_msg("%s", failure.message);
  check(f, "head: states, a part of the vocabulary", head_loss, &h, h.hidden, dpart, STATES * IN);
  free(dpart);
  double *all[] = {h.w, h.hidden, ce, kd, teacher};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

/* ---- the trunk as a whole ---- */

static pdt_model_config trunk_config(pdt_family family, bool tied) {
  return (pdt_model_config){.family = family,
                            .hidden_size = 12,
                            .intermediate_size = 10,
                            .layers = 2,
                            .heads = 4,
                            .kv_heads = 2,
                            .head_dim = 4,
                            .vocab_size = VOCAB,
                            .max_positions = 100,
                            .rms_norm_eps = 1e-5,
                            .tie_word_embeddings = tied,
                            .rope = {.type = PDT_ROPE_DEFAULT, .theta = 100, .scale = 1.25}};
}

enum { T_ROWS = 9 };
static const int32_t trunk_begin[] = {0, 4, T_ROWS};
static const pdt_nn_sequences trunk_sequences = {2, trunk_begin};
static const pdt_token trunk_tokens[T_ROWS] = {1, 5, 5, 0, 10, 3, 1, 2, 9};

typedef struct whole {
  fixture *f;
  pdt_nn_trunk trunk;
  pdt_nn_targets targets;
} whole;

static double trunk_loss(void *context) {
  whole *w = context;
  pdt_error err = {0};
  pdt_nn_pass pass;
  pdt_nn_head_sums sums;
  pdt_nn_weight head = {w->trunk.head.w, NULL};
  pdt_arena_reset(&w->f->arena);
  if (pdt_nn_trunk_forward(&w->trunk, &pass, &trunk_sequences, trunk_tokens, NULL, false,
                           &w->f->arena, &err) ||
      pdt_nn_head_loss(head, VOCAB, w->trunk.config.hidden_size, pass.hidden, &w->targets, NULL,
                       &sums, &w->f->arena, &err))
    fail_msg("%s", err.message);
  return sums.ce;
}

static void trunk_gradients(whole *w) {
  pdt_error err = {0};
  pdt_nn_pass pass;
  pdt_nn_head_sums sums;
  double dhidden[T_ROWS * 12] = {0};
  pdt_arena_reset(&w->f->arena);
  if (pdt_nn_trunk_forward(&w->trunk, &pass, &trunk_sequences, trunk_tokens, NULL, true,
                           &w->f->arena, &err) ||
      pdt_nn_head_loss(w->trunk.head, VOCAB, 12, pass.hidden, &w->targets, dhidden, &sums,
                       &w->f->arena, &err) ||
      pdt_nn_trunk_backward(&w->trunk, &pass, dhidden, &w->f->arena, &err))
    fail_msg("%s", err.message);
}

/* Every parameter of three families: with biases, with q/k norms, tied and not, with a window in
 * the second layer. */
static void test_trunk(void **state) {
  fixture *f = *state;
  static const int32_t rows[] = {0, 1, 2, 4, 6, 7, 8};
  static const pdt_token tokens[] = {5, 5, 0, 3, 2, 9, 1};
  static const double weights[] = {1, 0.3, 3, 1, 1, 0.5, 1};
  static const pdt_family families[] = {PDT_FAMILY_LLAMA, PDT_FAMILY_QWEN2, PDT_FAMILY_QWEN3};
  for (int i = 0; i < 3; i++) {
    pdt_model_config config = trunk_config(families[i], i == 0);
    if (families[i] == PDT_FAMILY_QWEN3) config.window = 2, config.slides[0] = 2;
    pdt_error err = {0};
    whole w = {.f = f, .targets = {7, rows, tokens, weights, NULL, NULL}};
    if (pdt_nn_trunk_new(&w.trunk, &config, NULL, false, &err)) fail_msg("%s", err.message);
    pdt_nn_parameters *p = &w.trunk.parameters;
    for (int64_t j = 0; j < p->n_elems; j++) p->value[j] = 0.5 * draw(f);
    trunk_gradients(&w);
    for (int32_t j = 0; j < p->n; j++)
      check(f, p->items[j].name, trunk_loss, &w, p->value + p->items[j].offset,
            p->grad + p->items[j].offset, p->items[j].n_elems);
    pdt_nn_trunk_free(&w.trunk);
  }
}

/* ---- the sidecar ---- */

/* Three sequences of two entries: entry 0 has streams 0 and 2, entry 1 has stream 1. Prompts of 2
 * and 3 tokens, a prefix of one token in the first sequence. */
enum { S_ROWS = 21, S_COND = 17, S_BLOCKS = 6, S_ENTRIES = 2, S_NOTES = S_ENTRIES + S_BLOCKS };
static const int32_t s_begin[] = {0, 8, 14, S_ROWS};
static const pdt_token s_tokens[S_ROWS] = {1, 2, 7, 3, 3, 8, 10, 4, 1, 2, 5,
                                           6, 9, 0, 4, 4, 2, 7,  7, 1, 10};
/* rows 1..7 (last prompt token, prefix, blocks 2..4 and 5..7), 9..13, 16..20 */
static const int32_t s_rows[S_COND] = {1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 16, 17, 18, 19, 20};
static const int32_t s_run_begin[] = {0, 7, 12, S_COND};
static const pdt_stream s_run_stream[] = {0, 2, 1};
static const int32_t s_block_begin[S_BLOCKS] = {2, 5, 9, 12, 16, 19},
                     s_block_steps[S_BLOCKS] = {3, 3, 3, 2, 3, 2},
                     s_block_entry[S_BLOCKS] = {0, 0, 0, 0, 1, 1};
static const int32_t s_window_begin[] = {0, 4, 7, 10, 12, 15, S_COND};
/* Block 0 reads nothing; block 3 reads the second note of its sibling. */
static const int32_t s_first[] = {0, 0, 3, 4, 8, 9, 11};
static const int32_t s_items[] = {0, 4, 2, 0, 0, 3, 2, 4, 1, 1, 6};
enum { SLOTS = 3, PLAN_VOCAB = 5, PLACES = 4, ORDERS = 2, S_PROMPTS = 11 };
static const int32_t s_plan_ids[S_ENTRIES * SLOTS] = {2, 0, 4, 4, 4, 1};
static const int32_t s_slot_targets[S_ENTRIES * SLOTS] = {2, -1, 4, 0, 4, 1};
static pdt_layer s_instrumented[] = {1, 2};

static const pdt_nn_blocks s_blocks = {S_BLOCKS, s_block_begin, s_block_steps, s_block_entry};
static const pdt_nn_plans s_plans = {S_ENTRIES, s_plan_ids};
static const pdt_nn_windows s_windows = {S_BLOCKS, s_window_begin, s_first, s_items};

static pdt_sidecar_config sidecar_config(bool rich) {
  return (pdt_sidecar_config){.hidden_size = 12,
                              .streams = 3,
                              .notes_dim = 6,
                              .snc_heads = 2,
                              .snc_head_dim = 3,
                              .n_instrumented = 2,
                              .instrumented = s_instrumented,
                              .adapter_dim = 4,
                              .planner = rich ? PDT_PLANNER_TIED : PDT_PLANNER_FULL,
                              .plan_slots = SLOTS,
                              .plan_vocab_size = PLAN_VOCAB,
                              .plan_dim = 4,
                              .pool = rich ? PDT_POOL_ATTENTION : PDT_POOL_LAST,
                              .pool_heads = rich ? 2 : 0,
                              .pool_dim = rich ? 5 : 0,
                              .coverage_dim = 4,
                              .agree_dim = 5,
                              .speculation_hidden = rich ? 7 : 0,
                              .plan_places = rich ? PLACES : 0,
                              .plan_orders = rich ? ORDERS : 0,
                              .pool_copies = rich ? 1 : 0,
                              .note_query = rich};
}

/* Arrays that modules read, each with its gradient behind it. */
typedef struct inputs {
  double *states, *pooled, *note, *coverage, *notes, *mean, *places, *read, *marks;
} inputs;

typedef struct side {
  fixture *f;
  pdt_nn_sidecar sidecar;
  inputs x, d;
  double *c;        /* weights of a module's outputs */
  double *embedded; /* what the pool's copies mix */
} side;

static void side_new(side *s, fixture *f, bool rich) {
  pdt_error err = {0};
  pdt_sidecar_config config = sidecar_config(rich);
  *s = (side){.f = f};
  if (pdt_nn_sidecar_zero(&s->sidecar, &config, (1u << PDT_NN_PARTS) - 1, &err))
    fail_msg("%s", err.message);
  for (int64_t i = 0; i < s->sidecar.parameters.n_elems; i++)
    s->sidecar.parameters.value[i] = 0.6 * draw(f);
  s->c = random_array(f, 400, 1);
  s->embedded = random_array(f, S_ROWS * 12, 1);
  inputs *both[] = {&s->x, &s->d};
  for (int i = 0; i < 2; i++) {
    double scale = i == 0 ? 1 : 0;
    *both[i] = (inputs){random_array(f, S_ROWS * 12, scale),
                        random_array(f, S_BLOCKS * 12, scale),
                        random_array(f, S_BLOCKS * 6, scale),
                        random_array(f, S_BLOCKS * SLOTS, scale),
                        random_array(f, S_NOTES * 6, scale),
                        random_array(f, S_ENTRIES * 12, scale),
                        random_array(f, S_ENTRIES * PLACES * 12, scale),
                        random_array(f, S_PROMPTS * 12, scale),
                        random_array(f, 2 * S_PROMPTS, scale)};
  }
}

static void side_free(side *s) {
  inputs *both[] = {&s->x, &s->d};
  for (int i = 0; i < 2; i++) {
    double *all[] = {both[i]->states,   both[i]->pooled, both[i]->note,
                     both[i]->coverage, both[i]->notes,  both[i]->mean,
                     both[i]->places,   both[i]->read,   both[i]->marks};
    for (size_t j = 0; j < sizeof all / sizeof *all; j++) free(all[j]);
  }
  free(s->c);
  free(s->embedded);
  pdt_nn_sidecar_free(&s->sidecar);
}

/* A module: forward returns sum of c * output; with `back` set, gradients are added too. */
typedef int (*module_function)(side *s, bool back, double *loss, pdt_error *err);

static int pool_module(side *s, bool back, double *loss, pdt_error *err) {
  pdt_nn_pool_pass pass;
  const pdt_nn_pool_input in = {s->x.states, s->embedded};
  if (pdt_nn_pool(&s->sidecar, &s_blocks, &in, S_ROWS, &pass, &s->f->arena, err)) return -1;
  *loss = pdt_nn_dot(s->c, pass.pooled, (int64_t)S_BLOCKS * pdt_sidecar_pooled(&s->sidecar.config));
  return back ? pdt_nn_pool_back(&s->sidecar, &s_blocks, &in, S_ROWS, &pass, s->c, s->d.states,
                                 &s->f->arena, err)
              : 0;
}

static int note_module(side *s, bool back, double *loss, pdt_error *err) {
  pdt_nn_note_pass a, b;
  if (pdt_nn_speculate(&s->sidecar, S_BLOCKS, s->x.pooled, &a, &s->f->arena, err) ||
      pdt_nn_notes(&s->sidecar, S_BLOCKS, s->x.pooled, &b, &s->f->arena, err))
    return -1;
  *loss = pdt_nn_dot(s->c, a.note, S_BLOCKS * 6) + pdt_nn_dot(s->c + 50, b.note, S_BLOCKS * 6);
  if (!back) return 0;
  return pdt_nn_note_back(S_BLOCKS, s->x.pooled, &a, s->c, s->d.pooled, &s->f->arena, err) ||
                 pdt_nn_note_back(S_BLOCKS, s->x.pooled, &b, s->c + 50, s->d.pooled, &s->f->arena,
                                  err)
             ? -1
             : 0;
}

static int coverage_module(side *s, bool back, double *loss, pdt_error *err) {
  pdt_nn_coverage_pass pass;
  if (pdt_nn_coverage(&s->sidecar, &s_blocks, &s_plans, s->x.pooled, &pass, &s->f->arena, err))
    return -1;
  *loss = pdt_nn_dot(s->c, pass.logits, S_BLOCKS * SLOTS);
  for (int i = 0; i < S_BLOCKS; i++) /* slots of plan 0: the second is empty */
    if (s_block_entry[i] == 0) assert_true(pass.logits[i * SLOTS + 1] == 0);
  return back ? pdt_nn_coverage_back(&s->sidecar, &s_blocks, &s_plans, s->x.pooled, &pass, s->c,
                                     s->d.pooled, &s->f->arena, err)
              : 0;
}

static int agree_module(side *s, bool back, double *loss, pdt_error *err) {
  pdt_nn_agree_pass pass;
  pdt_nn_agree_input in = {.blocks = &s_blocks,
                           .plans = &s_plans,
                           .windows = &s_windows,
                           .states = s->x.states,
                           .pooled = s->x.pooled,
                           .note = s->x.note,
                           .coverage = s->x.coverage,
                           .notes = s->x.notes,
                           .n_notes = S_NOTES,
                           .dstates = s->d.states,
                           .dpooled = s->d.pooled,
                           .dnote = s->d.note,
                           .dcoverage = s->d.coverage,
                           .dnotes = s->d.notes};
  if (pdt_nn_agree(&s->sidecar, &in, &pass, &s->f->arena, err)) return -1;
  *loss = pdt_nn_dot(s->c, pass.logits, S_BLOCKS);
  return back ? pdt_nn_agree_back(&s->sidecar, &in, &pass, s->c, &s->f->arena, err) : 0;
}

/* Prompts of the batch, the first longer than the other; which tokens are to be marked. */
static const int32_t s_prompt_begin[] = {0, 7, S_PROMPTS};

static pdt_nn_prompts s_prompts(const side *s) {
  return (pdt_nn_prompts){.n = S_ENTRIES,
                          .mean = s->x.mean,
                          .places = s->x.places,
                          .begin = s_prompt_begin,
                          .read = s->x.read,
                          .mark_target = s->x.marks,
                          .mark_weight = s->x.marks + S_PROMPTS};
}

/* Are there marks of every kind: none, part, whole, behind the last order? */
static void check_marks(const pdt_nn_planner_pass *pass) {
  int kinds[3] = {0};
  double end = 0;
  for (int t = 0; t < s_prompt_begin[1]; t++) {
    double z = pass->orders.logits[t] + 0.5;
    kinds[z <= 0 ? 0 : z < 1 ? 1 : 2]++;
    end += z <= 0 ? 0 : z < 1 ? z : 1;
  }
  assert_true(kinds[0] > 0 && kinds[1] > 0 && kinds[2] > 0 && end > ORDERS);
}

static int planner_module(side *s, bool back, double *loss, pdt_error *err) {
  pdt_nn_planner_pass pass;
  const pdt_nn_prompts prompts = s_prompts(s);
  if (pdt_nn_planner(&s->sidecar, &prompts, &pass, &s->f->arena, err)) return -1;
  *loss = pdt_nn_dot(s->c, pass.logits, S_ENTRIES * SLOTS * PLAN_VOCAB);
  if (s->sidecar.planner_order.w) {
    *loss += pdt_nn_marks_loss(&prompts, &pass.orders, pass.dmarks);
    check_marks(&pass);
  }
  return back ? pdt_nn_planner_back(&s->sidecar, &prompts, &pass, s->c, &s->f->arena, err) : 0;
}

static int plan_note_module(side *s, bool back, double *loss, pdt_error *err) {
  pdt_nn_plan_note_pass pass;
  double notes[S_ENTRIES * 6];
  if (pdt_nn_plan_notes(&s->sidecar, &s_plans, &pass, notes, &s->f->arena, err)) return -1;
  *loss = pdt_nn_dot(s->c, notes, S_ENTRIES * 6);
  return back ? pdt_nn_plan_notes_back(&s->sidecar, &s_plans, &pass, s->c, &s->f->arena, err) : 0;
}

typedef struct module_call {
  side *s;
  module_function run;
} module_call;

static double module_loss(void *context) {
  module_call *call = context;
  pdt_error err = {0};
  double loss = 0;
  pdt_arena_reset(&call->s->f->arena);
  if (call->run(call->s, false, &loss, &err)) fail_msg("%s", err.message);
  return loss;
}

/* A module's gradients by all its inputs and by every parameter: those it does not use must get
 * none. */
static void check_module(side *s, const char *name, module_function run, int expected_parameters) {
  pdt_error err = {0};
  double loss;
  module_call call = {s, run};
  pdt_nn_parameters *p = &s->sidecar.parameters;
  const struct {
    double *x, *d;
    int64_t n;
  } arrays[] = {
      {s->x.states, s->d.states, S_ROWS * 12},
      {s->x.pooled, s->d.pooled, (int64_t)S_BLOCKS * pdt_sidecar_pooled(&s->sidecar.config)},
      {s->x.note, s->d.note, S_BLOCKS * 6},
      {s->x.coverage, s->d.coverage, S_BLOCKS * SLOTS},
      {s->x.notes, s->d.notes, S_NOTES * 6}};
  memset(p->grad, 0, (size_t)p->n_elems * sizeof *p->grad);
  for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
    memset(arrays[i].d, 0, (size_t)arrays[i].n * sizeof(double));
  if (run(s, true, &loss, &err)) fail_msg("%s", err.message);
  for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
    check(s->f, name, module_loss, &call, arrays[i].x, arrays[i].d, arrays[i].n);
  int used = 0;
  for (int32_t i = 0; i < p->n; i++) {
    const pdt_nn_parameter *item = &p->items[i];
    char what[160];
    snprintf(what, sizeof what, "%s: %s", name, item->name);
    check(s->f, what, module_loss, &call, p->value + item->offset, p->grad + item->offset,
          item->n_elems);
    used += pdt_nn_dot(p->grad + item->offset, p->grad + item->offset, item->n_elems) > 0;
  }
  if (used != expected_parameters)
    fail_msg("%s: gradients in %d parameters, expected %d", name, used, expected_parameters);
}

static void test_heads(void **state) {
  for (int rich = 0; rich < 2; rich++) {
    side s;
    side_new(&s, *state, rich);
    check_module(&s, "pool", pool_module, rich ? 2 : 0);
    check_module(&s, "notes", note_module, rich ? 7 : 4);
    check_module(&s, "coverage", coverage_module, 4);
    check_module(&s, "agreement", agree_module, rich ? 11 : 10);
    check_module(&s, "planner", planner_module, rich ? 7 : 1);
    check_module(&s, "plan notes", plan_note_module, 2);
    side_free(&s);
  }
}

/* ---- end to end ---- */

typedef struct end_to_end {
  side s;
  pdt_nn_trunk trunk;
  pdt_nn_sidecar_batch batch;
  pdt_nn_step_options options;
} end_to_end;

static double step_sum(const pdt_nn_step_sums *s) {
  return s->plan + s->notes + s->speculation + s->ce + s->kd + s->coverage + s->ready;
}

static double step_loss(void *context) {
  end_to_end *e = context;
  pdt_error err = {0};
  pdt_nn_step_sums sums;
  pdt_arena_reset(&e->s.f->arena);
  if (pdt_nn_sidecar_step(&e->trunk, &e->s.sidecar, &e->batch, &e->options, false, &sums, NULL,
                          &e->s.f->arena, &err))
    fail_msg("%s", err.message);
  return step_sum(&sums);
}

/* Arrays of the batch's losses. */
typedef struct labels {
  double *teacher_notes, *note_weight, *ce, *kd, *teacher, *coverage, *coverage_weight, *ready,
      *ready_weight;
} labels;

static const int32_t s_target_rows[] = {2, 3, 4, 5, 6, 9, 10, 11, 12, 16, 17, 18, 19};
static const pdt_token s_target_tokens[] = {3, 3, 8, 10, 4, 5, 6, 9, 0, 7, 7, 1, 10};
enum { S_TARGETS = 13 };

static labels labels_new(fixture *f) {
  labels l = {random_array(f, S_BLOCKS * 6, 1),     random_array(f, S_BLOCKS, 1),
              random_array(f, S_TARGETS, 1),        random_array(f, S_TARGETS, 1),
              random_array(f, S_TARGETS * 12, 1),   random_array(f, S_BLOCKS * SLOTS, 1),
              random_array(f, S_BLOCKS * SLOTS, 1), random_array(f, S_BLOCKS, 1),
              random_array(f, S_BLOCKS, 1)};
  for (int i = 0; i < S_BLOCKS * SLOTS; i++) l.coverage[i] = l.coverage[i] > 0;
  for (int i = 0; i < S_BLOCKS; i++) l.ready[i] = l.ready[i] > 0;
  return l;
}

static void labels_free(labels *l) {
  double *all[] = {l->teacher_notes, l->note_weight,     l->ce,    l->kd,          l->teacher,
                   l->coverage,      l->coverage_weight, l->ready, l->ready_weight};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

static void end_to_end_new(end_to_end *e, fixture *f, bool rich, bool student, int32_t pool_layers,
                           const labels *l) {
  pdt_error err = {0};
  pdt_model_config config = trunk_config(PDT_FAMILY_LLAMA, true);
  config.layers = 4;
  side_new(&e->s, f, rich);
  e->s.sidecar.config.pool_layers = pool_layers;
  if (pool_layers > 0) { /* and layers have scales */
    double *scales = e->s.sidecar.config.layer_scales = zeros(2);
    scales[0] = 1.5, scales[1] = 0.4;
  }
  if (pdt_nn_trunk_new(&e->trunk, &config, NULL, true, &err)) fail_msg("%s", err.message);
  for (int64_t i = 0; i < e->trunk.parameters.n_elems; i++)
    e->trunk.parameters.value[i] = 0.5 * draw(f);
  e->options =
      (pdt_nn_step_options){.student_notes = student, .through_trunk = true, .close_reaches = true};
  e->batch = (pdt_nn_sidecar_batch){
      .sequences = {3, s_begin},
      .tokens = s_tokens,
      .conditioning = {S_COND, s_rows, 3, s_run_begin, s_run_stream, s_windows, S_NOTES},
      .blocks = s_blocks,
      .plans = s_plans,
      .prompts = s_prompts(&e->s),
      .slot_targets = s_slot_targets,
      .slot_weight = 0.2,
      .teacher_notes = l->teacher_notes,
      .notes_weight = l->note_weight,
      .spec_weight = l->note_weight,
      .targets = {S_TARGETS, s_target_rows, s_target_tokens, l->ce, l->kd, l->teacher, NULL, NULL},
      .coverage_target = l->coverage,
      .coverage_weight = l->coverage_weight,
      .ready_target = l->ready,
      .ready_weight = l->ready_weight};
}

/* Where lower states are known, a step is the same as where they are not. */
static void check_lower(end_to_end *e, double loss) {
  pdt_error err = {0};
  double *x = zeros(S_ROWS * 12);
  if (pdt_nn_trunk_lower(&e->trunk, &e->batch.sequences, e->batch.tokens,
                         pdt_nn_lower_layers(&e->s.sidecar.config), x, &e->s.f->arena, &err))
    fail_msg("%s", err.message);
  e->batch.lower = x;
  assert_true(step_loss(e) == loss);
  e->batch.lower = NULL;
  free(x);
}

/* What siblings read of notes: half of each. */
static void halve(void *context, const double *notes, double *altered) {
  (void)context;
  for (int i = 0; i < S_BLOCKS * 6; i++) altered[i] = notes[i] / 2;
}

/* Zeros, which are constants, as what siblings read is to gradients. */
static void erase(void *context, const double *notes, double *altered) {
  (void)notes;
  assert_null(context);
  memset(altered, 0, S_BLOCKS * 6 * sizeof *altered);
}

/* Siblings' notes numbered as those that are altered. */
static const int32_t s_altered_items[] = {
    0, 4 + S_BLOCKS, 2, 0, 0, 3 + S_BLOCKS, 2 + S_BLOCKS, 4, 1, 1, 6};

static void alter_notes(end_to_end *e, void (*alter)(void *, const pdt_real *, pdt_real *)) {
  e->batch.conditioning.windows.items = s_altered_items;
  e->batch.conditioning.n_notes += S_BLOCKS;
  e->options.alter = alter;
  e->options.alter_always = true;
}

/* Altered notes reach siblings: half of a note is another loss than nothing. */
static void check_altered(end_to_end *e, double loss) {
  e->options.alter = halve;
  assert_true(step_loss(e) != loss);
  e->options.alter = erase;
  assert_true(step_loss(e) == loss);
}

/* Every parameter of the sidecar through all losses, the trunk, and both passes; the pool reads the
 * final states, those below all that is conditioned, and those amid; at last siblings read nothing.
 */
static void test_end_to_end(void **state) {
  fixture *f = *state;
  labels l = labels_new(f);
  static const int32_t pools[] = {0, 0, 0, 0, 1, 1, 3, 3, 0, 1, 0};
  for (int i = 0; i < 11; i++) {
    end_to_end e;
    pdt_error err = {0};
    pdt_nn_step_sums sums;
    bool alters = i >= 8, student = alters ? i < 10 : i & 2 || (pools[i] && i & 1);
    end_to_end_new(&e, f, i & 1 || pools[i], student, pools[i], &l);
    if (alters) alter_notes(&e, erase);
    pdt_arena_reset(&f->arena);
    if (pdt_nn_sidecar_step(&e.trunk, &e.s.sidecar, &e.batch, &e.options, true, &sums, NULL,
                            &f->arena, &err))
      fail_msg("%s", err.message);
    assert_true(step_sum(&sums) == step_loss(&e));
    check_lower(&e, step_sum(&sums));
    if (alters) check_altered(&e, step_sum(&sums));
    const pdt_nn_parameters *p = &e.s.sidecar.parameters;
    int untouched = 0;
    for (int32_t j = 0; j < p->n; j++) {
      const pdt_nn_parameter *item = &p->items[j];
      char what[160];
      snprintf(what, sizeof what, "end to end, case %d: %s", i, item->name);
      if (item->group < 0) {
        untouched++;
        continue;
      }
      check(f, what, step_loss, &e, p->value + item->offset, p->grad + item->offset, item->n_elems);
      assert_true(pdt_nn_dot(p->grad + item->offset, p->grad + item->offset, item->n_elems) > 0);
    }
    assert_int_equal(untouched, 2); /* the stream classifier, which no loss reaches */
    pdt_nn_trunk_free(&e.trunk);
    side_free(&e.s);
  }
  labels_free(&l);
}

/* Stages that train heads alone leave everything else without a gradient, and do not go through
 * the trunk; what is frozen stays out of the backward pass. */
static void test_heads_alone(void **state) {
  fixture *f = *state;
  labels l = labels_new(f);
  end_to_end e;
  pdt_error err = {0};
  pdt_nn_step_sums sums;
  end_to_end_new(&e, f, true, true, 0, &l);
  e.options = (pdt_nn_step_options){.student_notes = true};
  e.batch.slot_weight = 0;
  e.batch.notes_weight = e.batch.spec_weight = NULL;
  pdt_arena_reset(&f->arena);
  if (pdt_nn_sidecar_step(&e.trunk, &e.s.sidecar, &e.batch, &e.options, true, &sums, NULL,
                          &f->arena, &err))
    fail_msg("%s", err.message);
  const pdt_nn_parameters *p = &e.s.sidecar.parameters;
  for (int32_t j = 0; j < p->n; j++) {
    const pdt_nn_parameter *item = &p->items[j];
    double *g = p->grad + item->offset;
    bool has = pdt_nn_dot(g, g, item->n_elems) > 0;
    bool embedding = strcmp(item->name, "plan.embedding.weight") == 0; /* coverage reads it */
    assert_true(has == (item->group == PDT_NN_CLOSE || embedding));
    if (item->group == PDT_NN_CLOSE && strncmp(item->name, "agree.", 6) == 0)
      check(f, item->name, step_loss, &e, p->value + item->offset, g, item->n_elems);
  }
  pdt_nn_trunk_free(&e.trunk);
  side_free(&e.s);
  labels_free(&l);
}

static int setup(void **state) {
  *state = calloc(1, sizeof(fixture));
  return *state ? 0 : -1;
}

static int teardown(void **state) {
  fixture *f = *state;
  print_message("%d elements compared\n", f->probes);
  pdt_arena_free(&f->arena);
  free(f);
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_linear, setup, teardown),
      cmocka_unit_test_setup_teardown(test_rms_norm, setup, teardown),
      cmocka_unit_test_setup_teardown(test_activations, setup, teardown),
      cmocka_unit_test_setup_teardown(test_causal_attention, setup, teardown),
      cmocka_unit_test_setup_teardown(test_sliding_attention, setup, teardown),
      cmocka_unit_test_setup_teardown(test_window_attention, setup, teardown),
      cmocka_unit_test_setup_teardown(test_plain_losses, setup, teardown),
      cmocka_unit_test_setup_teardown(test_head, setup, teardown),
      cmocka_unit_test_setup_teardown(test_trunk, setup, teardown),
      cmocka_unit_test_setup_teardown(test_heads, setup, teardown),
      cmocka_unit_test_setup_teardown(test_end_to_end, setup, teardown),
      cmocka_unit_test_setup_teardown(test_heads_alone, setup, teardown),
  };
  return cmocka_run_group_tests_name("gradients", tests, NULL, NULL);
}

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
#include "train/nn/trunk.h"

static const double STEP = 1e-5, TOLERANCE = 1e-7;
enum { MOST_PROBES = 40 };

typedef struct fixture {
  pdt_nn_arena arena;
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
  pdt_nn_arena_reset(&a->f->arena);
  if (pdt_nn_causal(&sequences, (pdt_nn_heads){HEADS, KV, HD}, q, k, v, a->out, a->lse,
                    &a->f->arena, &err))
    fail_msg("%s", err.message);
  return pdt_nn_dot(a->c, a->out, Q_ELEMS);
}

static void test_causal_attention(void **state) {
  fixture *f = *state;
  pdt_error err = {0};
  const double inv_freq[] = {1, 0.1};
  attending a = {f,
                 random_array(f, Q_ELEMS + 2 * KV_ELEMS, 1.5),
                 zeros(Q_ELEMS + 2 * KV_ELEMS),
                 zeros(Q_ELEMS),
                 zeros(TOKENS * HEADS),
                 random_array(f, Q_ELEMS, 1),
                 zeros(MOST_TOKENS * HD)};
  double *d = zeros(Q_ELEMS + 2 * KV_ELEMS), *dk = d + Q_ELEMS, *dv = dk + KV_ELEMS;
  pdt_nn_rope_angles(inv_freq, HD, MOST_TOKENS, a.angles);
  causal_loss(&a);
  double *q = a.rotated, *k = q + Q_ELEMS, *v = k + KV_ELEMS;
  if (pdt_nn_causal_back(&sequences, (pdt_nn_heads){HEADS, KV, HD}, q, k, v, a.out, a.lse, a.c, d,
                         dk, dv, &f->arena, &err))
    fail_msg("%s", err.message);
  pdt_nn_rope(&sequences, HEADS, HD, a.angles, -1, d);
  pdt_nn_rope(&sequences, KV, HD, a.angles, -1, dk);
  check(f, "attention: q", causal_loss, &a, a.qkv, d, Q_ELEMS);
  check(f, "attention: k", causal_loss, &a, a.qkv + Q_ELEMS, dk, KV_ELEMS);
  check(f, "attention: v", causal_loss, &a, a.qkv + Q_ELEMS + KV_ELEMS, dv, KV_ELEMS);
  double *all[] = {a.qkv, a.rotated, a.out, a.lse, a.c, a.angles, d};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
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
  pdt_nn_arena_reset(&r->f->arena);
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
  pdt_nn_arena_reset(&h->f->arena);
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
        WANTED, rows, tokens, ce, distilled ? kd : NULL, distilled ? teacher : NULL};
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
                            .rope = {.type = PDT_ROPE_DEFAULT, .theta = 100}};
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
  pdt_nn_arena_reset(&w->f->arena);
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
  pdt_nn_arena_reset(&w->f->arena);
  if (pdt_nn_trunk_forward(&w->trunk, &pass, &trunk_sequences, trunk_tokens, NULL, true,
                           &w->f->arena, &err) ||
      pdt_nn_head_loss(w->trunk.head, VOCAB, 12, pass.hidden, &w->targets, dhidden, &sums,
                       &w->f->arena, &err) ||
      pdt_nn_trunk_backward(&w->trunk, &pass, dhidden, &w->f->arena, &err))
    fail_msg("%s", err.message);
}

/* Every parameter of three families: with biases, with q/k norms, tied and not. */
static void test_trunk(void **state) {
  fixture *f = *state;
  static const int32_t rows[] = {0, 1, 2, 4, 6, 7, 8};
  static const pdt_token tokens[] = {5, 5, 0, 3, 2, 9, 1};
  static const double weights[] = {1, 0.3, 3, 1, 1, 0.5, 1};
  static const pdt_family families[] = {PDT_FAMILY_LLAMA, PDT_FAMILY_QWEN2, PDT_FAMILY_QWEN3};
  for (int i = 0; i < 3; i++) {
    pdt_model_config config = trunk_config(families[i], i == 0);
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

static int setup(void **state) {
  *state = calloc(1, sizeof(fixture));
  return *state ? 0 : -1;
}

static int teardown(void **state) {
  fixture *f = *state;
  print_message("%d elements compared\n", f->probes);
  pdt_nn_arena_free(&f->arena);
  free(f);
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_linear, setup, teardown),
      cmocka_unit_test_setup_teardown(test_rms_norm, setup, teardown),
      cmocka_unit_test_setup_teardown(test_activations, setup, teardown),
      cmocka_unit_test_setup_teardown(test_causal_attention, setup, teardown),
      cmocka_unit_test_setup_teardown(test_window_attention, setup, teardown),
      cmocka_unit_test_setup_teardown(test_plain_losses, setup, teardown),
      cmocka_unit_test_setup_teardown(test_head, setup, teardown),
      cmocka_unit_test_setup_teardown(test_trunk, setup, teardown),
  };
  return cmocka_run_group_tests_name("gradients", tests, NULL, NULL);
}

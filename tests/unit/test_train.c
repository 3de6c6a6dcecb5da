/* The trainer around its gradients: optimizer, schedule, corpus, state, and a run that stops and
 * goes on. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "scratch.h"
#include "train/order.h"
#include "train/pretrain.h"

#define OK(call)                                                                                   \
  do {                                                                                             \
    if (call) fail_msg("%s", err.message);                                                         \
  } while (0)

/* ---- optimizer ---- */

enum { ELEMS = 5, STEPS = 7 };

/* Two parameters, of which the first decays and has group 0, the second group 1. */
static void two_parameters(pdt_nn_parameters *p) {
  pdt_error err = {0};
  const int64_t shape[] = {ELEMS};
  *p = (pdt_nn_parameters){0};
  OK(pdt_nn_parameters_add(p, "a", 1, shape, 0, true, &err));
  OK(pdt_nn_parameters_add(p, "b", 1, shape, 1, false, &err));
  assert_int_equal(pdt_nn_parameters_add(p, "a", 1, shape, 0, true, &err), -1);
  OK(pdt_nn_parameters_allocate(p, true, &err));
  for (int i = 0; i < ELEMS; i++) {
    p->value[p->items[0].offset + i] = 0.5f * (float)i - 1;
    p->value[p->items[1].offset + i] = 1 - 0.3f * (float)i;
  }
}

static float gradient_of(int step, int parameter, int i) {
  return sinf((float)(step * 13 + parameter * 5 + i)) * (step == 3 ? 40.0f : 0.2f);
}

/* AdamW as its paper writes it, in double, with clipping by the norm of everything. */
static void reference(double value[2][ELEMS], const pdt_adamw_settings *s, const double rates[2]) {
  double m[2][ELEMS] = {{0}}, v[2][ELEMS] = {{0}};
  for (int t = 1; t <= STEPS; t++) {
    double square = 0;
    for (int p = 0; p < 2; p++)
      for (int i = 0; i < ELEMS; i++) square += pow((double)gradient_of(t, p, i), 2);
    double scale = sqrt(square) > s->clip ? s->clip / sqrt(square) : 1;
    for (int p = 0; p < 2; p++)
      for (int i = 0; i < ELEMS; i++) {
        double g = scale * (double)gradient_of(t, p, i);
        m[p][i] = s->beta1 * m[p][i] + (1 - s->beta1) * g;
        v[p][i] = s->beta2 * v[p][i] + (1 - s->beta2) * g * g;
        double mean = m[p][i] / (1 - pow(s->beta1, t)),
               square_mean = v[p][i] / (1 - pow(s->beta2, t));
        double decay = p == 0 ? s->weight_decay : 0;
        value[p][i] -= rates[p] * (mean / (sqrt(square_mean) + s->epsilon) + decay * value[p][i]);
      }
  }
}

static void test_adamw(void **state) {
  (void)state;
  pdt_error err = {0};
  pdt_nn_parameters p;
  pdt_adamw a;
  pdt_adamw_settings settings = pdt_adamw_defaults();
  settings.weight_decay = 0.1;
  const double rates[PDT_TRAIN_GROUPS] = {0.01, 0.003};
  double expected[2][ELEMS], norm;
  two_parameters(&p);
  for (int j = 0; j < 2; j++)
    for (int i = 0; i < ELEMS; i++) expected[j][i] = (double)p.value[p.items[j].offset + i];
  reference(expected, &settings, rates);
  OK(pdt_adamw_new(&a, &settings, &p, &err));
  for (int t = 1; t <= STEPS; t++) {
    for (int j = 0; j < 2; j++)
      for (int i = 0; i < ELEMS; i++) p.grad[p.items[j].offset + i] = gradient_of(t, j, i);
    OK(pdt_adamw_step(&a, &p, rates, &norm, &err));
    assert_true(t != 3 || norm > 40);
    for (int64_t i = 0; i < p.n_elems; i++) assert_true(p.grad[i] == 0);
  }
  for (int j = 0; j < 2; j++) /* a few roundings of float a step */
    for (int i = 0; i < ELEMS; i++)
      assert_true(fabs((double)p.value[p.items[j].offset + i] - expected[j][i]) < 2e-6);
  pdt_adamw_free(&a);
  pdt_nn_parameters_free(&p);
}

/* A gradient that is no number changes nothing; a group at rest stays as it is. */
static void test_adamw_refuses(void **state) {
  (void)state;
  pdt_error err = {0};
  pdt_nn_parameters p;
  pdt_adamw a;
  const pdt_adamw_settings settings = pdt_adamw_defaults();
  const double rates[PDT_TRAIN_GROUPS] = {0.01};
  double norm;
  two_parameters(&p);
  OK(pdt_adamw_new(&a, &settings, &p, &err));
  for (int64_t i = 0; i < p.n_elems; i++) p.grad[i] = 1;
  float before[64];
  memcpy(before, p.value, (size_t)p.n_elems * sizeof *before);
  p.grad[p.items[0].offset + 2] = NAN;
  assert_int_equal(pdt_adamw_step(&a, &p, rates, &norm, &err), -1);
  assert_int_equal(err.code, PDT_ERROR_RUNTIME);
  assert_int_equal(a.step, 0);
  assert_memory_equal(before, p.value, (size_t)p.n_elems * sizeof *before);
  p.grad[p.items[0].offset + 2] = 1;
  OK(pdt_adamw_step(&a, &p, rates, &norm, &err));
  assert_memory_equal(before + p.items[1].offset, p.value + p.items[1].offset,
                      ELEMS * sizeof *before);
  assert_true(a.m[p.items[1].offset] == 0);
  assert_true(p.value[0] != before[0]);
  pdt_adamw_free(&a);
  pdt_nn_parameters_free(&p);
}

/* Where nothing learns there are no gradients: a step is only counted. */
static void test_adamw_at_rest(void **state) {
  (void)state;
  pdt_error err = {0};
  pdt_nn_parameters p;
  pdt_adamw a;
  const pdt_adamw_settings settings = pdt_adamw_defaults();
  const double rates[PDT_TRAIN_GROUPS] = {0.01};
  double norm = -1;
  two_parameters(&p);
  float before[64];
  memcpy(before, p.value, (size_t)p.n_elems * sizeof *before);
  free(p.grad);
  p.grad = NULL;
  OK(pdt_adamw_new(&a, &settings, &p, &err));
  OK(pdt_adamw_step(&a, &p, rates, &norm, &err));
  assert_true(norm == 0);
  assert_int_equal(a.step, 1);
  assert_memory_equal(before, p.value, (size_t)p.n_elems * sizeof *before);
  pdt_adamw_free(&a);
  pdt_nn_parameters_free(&p);
}

static void test_rate(void **state) {
  (void)state;
  assert_true(pdt_rate_at(0, 4, 104, 0.1) == 0.25);
  assert_true(pdt_rate_at(3, 4, 104, 0.1) == 1);
  assert_true(fabs(pdt_rate_at(54, 4, 104, 0.1) - 0.55) < 1e-12); /* half way */
  assert_true(pdt_rate_at(104, 4, 104, 0.1) == 0.1);
  assert_true(pdt_rate_at(0, 0, 10, 0.1) == 1);
  for (int i = 5; i < 104; i++)
    assert_true(pdt_rate_at(i, 4, 104, 0.1) < pdt_rate_at(i - 1, 4, 104, 0.1));
}

/* ---- corpus ---- */

static pdt_model_config small_config(void) {
  return (pdt_model_config){.family = PDT_FAMILY_LLAMA,
                            .hidden_size = 16,
                            .intermediate_size = 24,
                            .layers = 2,
                            .heads = 2,
                            .kv_heads = 1,
                            .head_dim = 8,
                            .vocab_size = 20,
                            .max_positions = 64,
                            .rms_norm_eps = 1e-5,
                            .tie_word_embeddings = true,
                            .bos = -1,
                            .rope = {.type = PDT_ROPE_DEFAULT, .theta = 10000, .scale = 1}};
}

static void test_corpus(void **state) {
  scratch *s = *state;
  pdt_error err = {0};
  pdt_corpus c;
  const pdt_model_config config = small_config();
  scratch_text(s, "c",
               "{\"format\":\"pdt-data\"}\n{\"ids\":[1,2,3,4,5,6,7,8]}\n\n"
               "{\"ids\":[9,10],\"weights\":[1,0.5],\"more\":0}");
  OK(pdt_corpus_load(&c, scratch_path(s, "c"), NULL, &config, 3, &err));
  assert_int_equal(c.n_documents, 2);
  assert_int_equal(c.n_tokens, 10);
  assert_int_equal(c.n_pieces, 4); /* 7 predictions in 3, 3 and 1; 1 */
  const int64_t firsts[] = {0, 3, 6, 8}, rows[] = {3, 3, 1, 1};
  for (int i = 0; i < 4; i++) {
    assert_int_equal(c.pieces[i].first, firsts[i]);
    assert_int_equal(c.pieces[i].rows, rows[i]);
  }
  assert_true(c.weights[9] == 0.5f && c.weights[8] == 1);
  pdt_corpus_free(&c);
}

static void test_bad_corpora(void **state) {
  scratch *s = *state;
  static const struct {
    const char *text, *fragment;
  } cases[] = {
      {"", "expected one document a line"},
      {"{\"format\":\"x\"}\n", "expected one document a line"},
      {"{\"ids\":[1,2]}\n{\"ids\":[1,20]}\n", "line 2: 'ids'"},
      {"{\"ids\":[1,-1]}\n", "line 1: 'ids'"},
      {"{\"ids\":[1,2.5]}\n", "line 1: 'ids'"},
      {"{\"ids\":[1]}\n", "at least 2 tokens, found 1"},
      {"{\"ids\":[]}\n", "at least 2 tokens, found 0"},
      {"{\"ids\":\"1\"}\n", "'ids'"},
      {"{\"ids\":[1,2],\"weights\":[1]}\n", "expected 2 numbers as in 'ids', found 1"},
      {"{\"ids\":[1,2],\"weights\":[1,-1]}\n", "'weights': element 1"},
      {"{\"ids\":[1,2],\"weights\":[1,\"a\"]}\n", "'weights': element 1"},
      {"{\"text\":\"a\"}\n", "no tokenizer"},
      {"{\"text\":7}\n", "found integer"},
      {"{}\n", "found neither"},
      {"[1]\n", "line 1"},
      {"{\"ids\":[1,2]\n", "line 1"},
  };
  const pdt_model_config config = small_config();
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    pdt_error err = {0};
    pdt_corpus c;
    scratch_text(s, "bad", cases[i].text);
    assert_int_equal(pdt_corpus_load(&c, scratch_path(s, "bad"), NULL, &config, 3, &err), -1);
    if (!strstr(err.message, cases[i].fragment))
      fail_msg("'%s': expected '%s' in '%s'", cases[i].text, cases[i].fragment, err.message);
    pdt_corpus_free(&c);
  }
}

/* Every epoch is a permutation, and another one. */
static void test_shuffle(void **state) {
  (void)state;
  enum { N = 1000 };
  pdt_train_order o;
  pdt_error err = {0};
  int64_t order[N], other[N];
  int seen[N] = {0}, fixed = 0, equal = 0;
  OK(pdt_train_order_new(&o, N, 7, &err));
  for (int i = 0; i < N; i++) order[i] = pdt_train_order_at(&o, i);
  for (int i = 0; i < N; i++) other[i] = pdt_train_order_at(&o, N + i);
  for (int i = 0; i < N; i++) {
    seen[order[i]]++;
    fixed += order[i] == i;
    equal += order[i] == other[i];
  }
  for (int i = 0; i < N; i++) assert_int_equal(seen[i], 1);
  assert_true(fixed < 10 && equal < 10); /* one each is expected; ten has a chance of 1e-7 */
  for (int i = 0; i < N; i++) assert_int_equal(pdt_train_order_at(&o, i), order[i]);
  pdt_train_order_free(&o);
}

/* ---- a run ---- */

typedef struct seen {
  double first, last, valid;
  int64_t begun;
} seen;

static int see_report(void *context, const void *report, pdt_error *err) {
  seen *s = context;
  const pdt_pretrain_report *r = report;
  (void)err;
  if (s->first == 0) s->first = r->loss;
  s->last = r->loss;
  if (!isnan(r->valid_loss)) s->valid = r->valid_loss;
  return 0;
}

static int see_begin(void *context, int64_t step, pdt_error *err) {
  (void)err;
  ((seen *)context)->begun = step;
  return 0;
}

typedef struct running {
  pdt_corpus corpus;
  pdt_nn_trunk trunk;
  char state[300], model[300];
  pdt_pretrain_options options;
  seen seen;
} running;

static void running_new(running *r, scratch *s, const char *name) {
  pdt_error err = {0};
  const pdt_model_config config = small_config();
  *r = (running){.options = {.schedule = {.seed = 3,
                                          .steps = 24,
                                          .warmup = 4,
                                          .floor = 0.1,
                                          .adamw = pdt_adamw_defaults(),
                                          .batch = 3,
                                          .log_every = 4},
                             .rate = 0.02,
                             .context = 32,
                             .threads = 1}};
  /* Seven documents: batches of three go over the ends of epochs. */
  char text[1024];
  int at = 0;
  for (int i = 0; i < 7; i++)
    at += snprintf(text + at, sizeof text - (size_t)at, "{\"ids\":[%d,%d,%d,%d,1,2,3,4,5,6]}\n", i,
                   i + 7, i, 19 - i);
  scratch_text(s, "corpus", text);
  OK(pdt_corpus_load(&r->corpus, scratch_path(s, "corpus"), NULL, &config, 32, &err));
  OK(pdt_nn_trunk_new(&r->trunk, &config, NULL, false, &err));
  pdt_nn_trunk_init(&r->trunk, 5);
  snprintf(r->state, sizeof r->state, "%s/%s.state", s->folder, name);
  snprintf(r->model, sizeof r->model, "%s/%s.model", s->folder, name);
  r->options.schedule.state = r->state;
  r->options.model = r->model;
}

static int run_it(running *r, pdt_error *err) {
  const pdt_comm alone = {.rank = 0, .size = 1};
  const pdt_train_observer observer = {&r->seen, see_begin, see_report};
  return pdt_pretrain(&r->trunk, &r->corpus, &r->corpus, &r->options, &alone, &observer, err);
}

static void running_free(running *r) {
  pdt_corpus_free(&r->corpus);
  pdt_nn_trunk_free(&r->trunk);
}

static void copy_file(const char *from, const char *to) {
  char command[700];
  snprintf(command, sizeof command, "cp '%s' '%s'", from, to);
  assert_int_equal(system(command), 0);
}

/* It learns; a fresh run may be told to resume; a checkpoint of another run is refused. */
static void test_run(void **state) {
  scratch *s = *state;
  pdt_error err = {0};
  running r;
  running_new(&r, s, "run");
  r.options.schedule.resume = true; /* nothing to go on from yet */
  OK(run_it(&r, &err));
  assert_int_equal(r.seen.begun, 0);
  assert_true(r.seen.last < 0.5 * r.seen.first); /* seven lines by heart */
  assert_true(r.seen.valid < 0.5 * r.seen.first);
  OK(run_it(&r, &err)); /* at its end already */
  assert_int_equal(r.seen.begun, 24);
  r.options.rate = 0.03;
  assert_int_equal(run_it(&r, &err), -1);
  assert_non_null(strstr(err.message, "settings"));
  running_free(&r);
}

/* Keeps the checkpoint of a run's middle, while it goes on. */
typedef struct taker {
  const char *state, *kept;
  int64_t at;
} taker;

static int take_state(void *context, const void *report, pdt_error *err) {
  const taker *t = context;
  const pdt_pretrain_report *r = report;
  (void)err;
  if (r->step == t->at + 1) copy_file(t->state, t->kept); /* written after step `at` */
  return 0;
}

static int ignore_begin(void *context, int64_t step, pdt_error *err) {
  (void)context;
  (void)step;
  (void)err;
  return 0;
}

/* A run that goes on from a checkpoint in its middle ends in the same bits as one without a stop.
 */
static void test_resume(void **state) {
  scratch *s = *state;
  pdt_error err = {0};
  running whole, rest;
  const pdt_comm alone = {.rank = 0, .size = 1};
  char kept[300];
  snprintf(kept, sizeof kept, "%s/rest.state", s->folder);
  running_new(&whole, s, "whole");
  whole.options.schedule.checkpoint_every = 10;
  whole.options.schedule.log_every = 1;
  taker t = {whole.state, kept, 10};
  const pdt_train_observer observer = {&t, ignore_begin, take_state};
  OK(pdt_pretrain(&whole.trunk, &whole.corpus, NULL, &whole.options, &alone, &observer, &err));

  running_new(&rest, s, "rest");
  rest.options.schedule.checkpoint_every = 10;
  rest.options.schedule.resume = true;
  /* Other first weights: everything must come from the file. */
  pdt_nn_trunk_init(&rest.trunk, 99);
  OK(run_it(&rest, &err));
  assert_int_equal(rest.seen.begun, 10);
  assert_memory_equal(whole.trunk.parameters.value, rest.trunk.parameters.value,
                      (size_t)whole.trunk.parameters.n_elems * sizeof(float));
  running_free(&whole);
  running_free(&rest);
}

/* A rate that blows up ends the run with an error and leaves the last checkpoint. */
static void test_not_a_number(void **state) {
  scratch *s = *state;
  pdt_error err = {0};
  running r;
  running_new(&r, s, "bad");
  r.options.schedule.checkpoint_every = 2;
  OK(run_it(&r, &err));
  char kept[300];
  snprintf(kept, sizeof kept, "%s/kept", s->folder);
  copy_file(r.state, kept);
  r.trunk.parameters.value[3] = NAN;
  assert_int_equal(run_it(&r, &err), -1);
  assert_int_equal(err.code, PDT_ERROR_RUNTIME);
  assert_non_null(strstr(err.message, "not a finite number"));
  char compare[700];
  snprintf(compare, sizeof compare, "cmp '%s' '%s'", kept, r.state);
  assert_int_equal(system(compare), 0);
  running_free(&r);
}

/* Items go where there is least to do: each to one rank, and no rank waits for another longer than
 * an item takes. */
static void test_deal(void **state) {
  (void)state;
  pdt_error err = {0};
  enum { ITEMS = 6, RANKS = 4 };
  const int64_t work[ITEMS] = {5, 9, 1, 7, 7, 0};
  const pdt_rank owners[RANKS][ITEMS] = {
      {0}, {0, 0, 0, 1, 1, 1}, {1, 0, 2, 1, 2, 2}, {3, 0, 3, 1, 2, 3}};
  for (int n = 1; n <= RANKS; n++)
    for (pdt_rank q = 0; q < n; q++) {
      const pdt_comm world = {.rank = q, .size = n};
      const pdt_train_schedule schedule = {.batch = ITEMS};
      pdt_train_loop loop = {.schedule = &schedule, .world = &world};
      bool *mine;
      OK(pdt_train_deal(&loop, work, &mine, &err));
      for (int i = 0; i < ITEMS; i++) assert_int_equal(mine[i], owners[n - 1][i] == q);
      pdt_arena_free(&loop.arena);
    }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_adamw),
      cmocka_unit_test(test_adamw_refuses),
      cmocka_unit_test(test_adamw_at_rest),
      cmocka_unit_test(test_rate),
      cmocka_unit_test_setup_teardown(test_corpus, scratch_setup, scratch_teardown),
      cmocka_unit_test_setup_teardown(test_bad_corpora, scratch_setup, scratch_teardown),
      cmocka_unit_test(test_shuffle),
      cmocka_unit_test(test_deal),
      cmocka_unit_test_setup_teardown(test_run, scratch_setup, scratch_teardown),
      cmocka_unit_test_setup_teardown(test_resume, scratch_setup, scratch_teardown),
      cmocka_unit_test_setup_teardown(test_not_a_number, scratch_setup, scratch_teardown),
  };
  return cmocka_run_group_tests_name("training", tests, NULL, NULL);
}

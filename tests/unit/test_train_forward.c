/* The trainer computes what decoding computes: the same states, notes, coverage and readiness from
 * the same files, within 1e-4 of their size. Both work in float and sum in other orders; a layer's
 * sums of some dozen terms differ in the last two or three bits, some 1e-6 of a state, and a gate
 * of readiness or a norm does not magnify that beyond a factor of ten. A missing term is of the
 * size of the state itself. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "model/tensors.h"
#include "protocol/philox.h"
#include "scratch.h"
#include "sidecar/init.h"
#include "sidecar/sidecar.h"
#include "train/nn/step.h"
#include "trunk/trunk.h"

static const double TOLERANCE = 1e-4;
enum { TOKENS = 19, PROMPT = 5, NOTES = 4, BLOCKS = 3, STREAM = 1 };

/* Blocks of 5, 5 and 4 rows from the last prompt row on: the first also holds a prefix token. */
static const int32_t block_begin[BLOCKS] = {5, 10, 15}, block_steps[BLOCKS] = {5, 5, 4};
static const int32_t window_begin[] = {0, 6, 11, 15}; /* over the conditioned rows, 4 .. 18 */
static const int32_t window_first[] = {0, 1, 4, 7}, window_items[] = {0, 0, 3, 1, 0, 2, 1};

/* One model and sidecar, as decoding holds them and as training does. */
typedef struct pair {
  pdt_model_config config;
  pdt_checkpoint *checkpoint;
  pdt_safetensors *file;
  pdt_sidecar_config sidecar_config;
  pdt_comm comm;
  pdt_device device;
  pdt_trunk_weights weights;
  pdt_kv_cache kv;
  pdt_trunk trunk;
  pdt_sidecar sidecar, whole; /* of the rank that has the stream; of one rank alone */
  pdt_nn_trunk nn_trunk;
  pdt_nn_sidecar nn_sidecar;
  pdt_arena arena;
  pdt_token tokens[TOKENS];
  float notes[NOTES * 64];
  pdt_array there; /* [TOKENS, d] decoding's states */
  float *states;   /* the same: the device's memory is ours */
} pair;

#define OK(call)                                                                                   \
  do {                                                                                             \
    if (call) fail_msg("%s", err.message);                                                         \
  } while (0)

static void open_trunk(pair *p, const char *directory) {
  pdt_error err = {0};
  p->comm = (pdt_comm){.rank = 0, .size = 1};
  OK(pdt_cpu_device_new(&p->device, pdt_cpu_best_isa(), 1, &err));
  OK(pdt_model_config_load(&p->config, directory, NULL, &err));
  OK(pdt_checkpoint_open(&p->checkpoint, directory, NULL, &err));
  OK(pdt_model_tensors_check(&p->config, p->checkpoint, NULL, &err));
  OK(pdt_trunk_weights_load(&p->weights, &p->device, &p->config, p->checkpoint,
                            &(pdt_trunk_load){.size = 1}, &err));
  const pdt_kv_shape shape = {p->config.layers, p->config.kv_heads, p->config.head_dim};
  OK(pdt_kv_new(&p->kv, &p->device, &shape, 8, &err));
  const pdt_trunk_limits limits = {TOKENS, 1, 2 * TOKENS};
  OK(pdt_trunk_new(&p->trunk, &p->weights, &p->comm, &p->kv, &limits, &err));
  OK(pdt_nn_trunk_new(&p->nn_trunk, &p->config, p->checkpoint, true, &err));
  OK(p->device.ops->alloc(&p->device, (int64_t)TOKENS * p->config.hidden_size, "states", &p->there,
                          &err));
  p->states = p->there.at;
  for (uint32_t i = 0; i < TOKENS; i++)
    p->tokens[i] = (pdt_token)(pdt_uniform(3, i, 0, 0, 0) * p->config.vocab_size);
  for (uint32_t i = 0; i < NOTES * 64; i++)
    p->notes[i] = (float)(2 * pdt_uniform(4, i, 0, 0, 0) - 1);
}

static void open_sidecar(pair *p, const char *path) {
  pdt_error err = {0};
  OK(pdt_safetensors_open(&p->file, path, &err));
  OK(pdt_sidecar_config_load(&p->sidecar_config, p->file, &p->config, &err));
  OK(pdt_sidecar_load(&p->sidecar, &p->device, p->file, &p->config, STREAM, STREAM + 1, &err));
  OK(pdt_sidecar_load(&p->whole, &p->device, p->file, &p->config, 0, 1, &err));
  const pdt_sidecar_limits limits = {TOKENS, BLOCKS, 5, NOTES};
  OK(pdt_sidecar_reserve(&p->sidecar, &limits, &err));
  OK(pdt_nn_sidecar_new(&p->nn_sidecar, &p->sidecar_config, p->file, 0, &err));
}

static void close_pair(pair *p) {
  if (p->file) {
    pdt_sidecar_free(&p->sidecar);
    pdt_sidecar_free(&p->whole);
    pdt_nn_sidecar_free(&p->nn_sidecar);
    pdt_sidecar_config_free(&p->sidecar_config);
    pdt_safetensors_close(p->file);
  }
  pdt_arena_free(&p->arena);
  pdt_nn_trunk_free(&p->nn_trunk);
  pdt_trunk_free(&p->trunk);
  pdt_kv_free(&p->kv);
  pdt_trunk_weights_free(&p->weights);
  pdt_checkpoint_close(p->checkpoint);
  p->device.ops->release(&p->device, p->there);
  p->device.ops->close(&p->device);
}

/* Rows [first, end) of the sequence through decoding's trunk. */
static void decode_rows(pair *p, pdt_kv_sequence *sequence, int32_t first, int32_t end,
                        const pdt_trunk_hooks *hooks) {
  pdt_error err = {0};
  pdt_trunk_row rows[TOKENS];
  const int32_t begin[] = {0, end - first};
  for (int32_t i = first; i < end; i++)
    rows[i - first] = (pdt_trunk_row){sequence, i, p->tokens[i]};
  const pdt_trunk_batch batch = {.rows = rows, .begin = begin};
  OK(pdt_trunk_forward(&p->trunk, &batch, hooks,
                       pdt_array_at(p->there, (int64_t)first * p->config.hidden_size), &err));
}

static void compare(const char *what, const float *expected, const float *found, int64_t n) {
  double size = 1e-3;
  for (int64_t i = 0; i < n; i++) size = fmax(size, fabs((double)expected[i]));
  for (int64_t i = 0; i < n; i++)
    if (!(fabs((double)expected[i] - (double)found[i]) <= TOLERANCE * size))
      fail_msg("%s: element %lld: decoding %.8g, training %.8g", what, (long long)i,
               (double)expected[i], (double)found[i]);
}

/* Plain trunks of every family there is a recorded model of. */
static void test_families(void **state) {
  (void)state;
  static const char *const names[] = {"llama-2",        "llama-3",       "llama-biases", "mistral",
                                      "qwen2",          "qwen3",         "sharded",      "smollm2",
                                      "mistral-window", "mistral-mixed", "qwen2-window"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    char directory[128];
    pair p = {0};
    pdt_error err = {0};
    pdt_kv_sequence sequence;
    pdt_nn_pass pass;
    const int32_t begin[] = {0, TOKENS};
    const pdt_nn_sequences sequences = {1, begin};
    snprintf(directory, sizeof directory, "tests/data/hf/%s", names[i]);
    open_trunk(&p, directory);
    OK(pdt_kv_sequence_new(&sequence, &p.kv, NULL, 0, TOKENS, &err));
    decode_rows(&p, &sequence, 0, TOKENS, NULL);
    OK(pdt_nn_trunk_forward(&p.nn_trunk, &pass, &sequences, p.tokens, NULL, false, &p.arena, &err));
    compare(names[i], p.states, pass.hidden, (int64_t)TOKENS * p.config.hidden_size);
    pdt_kv_sequence_free(&sequence, &p.kv);
    close_pair(&p);
  }
}

/* Decoding's side of a conditioned stream. */
typedef struct decoded {
  pair *p;
  pdt_window windows[BLOCKS];
  pdt_conditioning rows[TOKENS];
  pdt_plan plan;
  pdt_array read; /* [TOKENS - PROMPT + 1, d] what the pool reads where that is not the states */
  pdt_array embedded;             /* the same of what its copies mix */
  float *note, *coverage, *ready; /* [BLOCKS, dn], [BLOCKS, S], [BLOCKS] */
} decoded;

static void hook_embedded(void *context, pdt_layer layer, pdt_array h, int32_t rows) {
  decoded *d = context;
  (void)layer;
  d->p->device.ops->norm_rows(&d->p->device, h, (pdt_array){0}, 1e-6f, rows,
                              d->p->sidecar_config.hidden_size, d->embedded);
}

static void hook_snc(void *context, pdt_layer layer, pdt_array h, int32_t rows) {
  (void)rows;
  pdt_sidecar_snc(&((decoded *)context)->p->sidecar, layer, h);
}

static void hook_adapter(void *context, pdt_layer layer, pdt_array h, int32_t rows) {
  decoded *d = context;
  pdt_sidecar_adapter(&d->p->sidecar, layer, h);
  if (layer + 1 == d->p->sidecar_config.pool_layers)
    d->p->device.ops->norm_rows(&d->p->device, h, (pdt_array){0}, 1e-6f, rows,
                                d->p->sidecar_config.hidden_size, d->read);
}

/* Notes of the windows: the plan's, then ours. */
static void fill_windows(decoded *d) {
  pdt_error err = {0};
  pair *p = d->p;
  int32_t dn = p->sidecar_config.notes_dim;
  for (int32_t w = 0; w < BLOCKS; w++) {
    int32_t n = window_first[w + 1] - window_first[w];
    OK(pdt_window_new(&d->windows[w], &p->sidecar, NOTES, &err));
    for (int32_t i = 0; i < n; i++) {
      int32_t note = window_items[window_first[w] + i];
      memcpy(d->windows[w].notes + i * dn, note == 0 ? d->plan.note : p->notes + (note - 1) * dn,
             (size_t)dn * sizeof(float));
    }
    pdt_window_project(&d->windows[w], &p->sidecar, n);
    for (int32_t r = window_begin[w]; r < window_begin[w + 1]; r++)
      d->rows[r] = (pdt_conditioning){&d->windows[w], STREAM};
  }
}

static void decode_stream(decoded *d, const int32_t *plan_ids) {
  pdt_error err = {0};
  pair *p = d->p;
  const pdt_sidecar_config *c = &p->sidecar_config;
  int32_t S = c->plan_slots, dn = c->notes_dim, hidden = c->hidden_size;
  pdt_kv_sequence sequence;
  OK(pdt_plan_new(&d->plan, &p->sidecar, &err));
  memcpy(d->plan.ids, plan_ids, (size_t)S * sizeof *plan_ids);
  float embedded[1024];
  assert_true(S * c->plan_dim <= 1024);
  assert_int_equal(pdt_plan_own_rows(&p->whole, plan_ids, embedded), S);
  OK(pdt_plan_embed(&d->plan, &p->sidecar, embedded, &err));
  fill_windows(d);
  OK(pdt_kv_sequence_new(&sequence, &p->kv, NULL, 0, TOKENS, &err));
  decode_rows(p, &sequence, 0, PROMPT - 1, NULL);
  if (c->pool_layers > 0)
    OK(p->device.ops->alloc(&p->device, (int64_t)(TOKENS - PROMPT + 1) * hidden, "pool", &d->read,
                            &err));
  if (c->pool_copies > 0)
    OK(p->device.ops->alloc(&p->device, (int64_t)(TOKENS - PROMPT + 1) * hidden, "pool",
                            &d->embedded, &err));
  const pdt_trunk_hooks hooks = {d, c->pool_copies > 0 ? hook_embedded : NULL, hook_snc,
                                 hook_adapter};
  pdt_sidecar_condition(&p->sidecar, d->rows, TOKENS - PROMPT + 1);
  decode_rows(p, &sequence, PROMPT - 1, TOKENS, &hooks);
  pdt_kv_sequence_free(&sequence, &p->kv);
  OK(PDT_NEW(&d->note, BLOCKS * dn, "notes", &err));
  OK(PDT_NEW(&d->coverage, BLOCKS * S, "coverage", &err));
  OK(PDT_NEW(&d->ready, BLOCKS, "readiness", &err));
  pdt_block blocks[BLOCKS];
  for (int32_t b = 0; b < BLOCKS; b++) {
    blocks[b] = pdt_sidecar_block(&d->windows[b], &d->plan);
    blocks[b].states = pdt_array_at(p->there, (int64_t)block_begin[b] * hidden);
    if (d->read.at)
      blocks[b].pooled = pdt_array_at(d->read, (int64_t)(block_begin[b] - PROMPT + 1) * hidden);
    if (d->embedded.at)
      blocks[b].embedded =
          pdt_array_at(d->embedded, (int64_t)(block_begin[b] - PROMPT + 1) * hidden);
    blocks[b].n_states = block_steps[b];
    blocks[b].note = d->note + b * dn;
    blocks[b].coverage = d->coverage + b * S;
    blocks[b].readiness = d->ready + b;
  }
  pdt_sidecar_close_blocks(&p->sidecar, blocks, BLOCKS);
}

/* The trainer's side: entry 0's plan note is note 0, blocks' notes are 1, 2, 3. */
static void compare_step(decoded *d, const int32_t *plan_ids) {
  pdt_error err = {0};
  pair *p = d->p;
  const pdt_sidecar_config *c = &p->sidecar_config;
  const int32_t begin[] = {0, TOKENS}, run_begin[] = {0, TOKENS - PROMPT + 1};
  const pdt_stream stream = STREAM;
  static const int32_t entry[BLOCKS] = {0};
  static const float ones[BLOCKS] = {1, 1, 1};
  int32_t rows[TOKENS];
  for (int32_t i = 0; i < TOKENS; i++) rows[i] = PROMPT - 1 + i;
  const pdt_nn_sidecar_batch batch = {
      .sequences = {1, begin},
      .tokens = p->tokens,
      .conditioning = {.n_rows = TOKENS - PROMPT + 1,
                       .rows = rows,
                       .n_runs = 1,
                       .run_begin = run_begin,
                       .run_stream = &stream,
                       .windows = {BLOCKS, window_begin, window_first, window_items},
                       .n_notes = 1 + BLOCKS},
      .blocks = {BLOCKS, block_begin, block_steps, entry},
      .plans = {1, plan_ids},
      .teacher_notes = p->notes,
      .ready_target = ones,
      .ready_weight = ones};
  const pdt_nn_step_options options = {0};
  pdt_nn_step_sums sums;
  pdt_nn_step_results r;
  OK(pdt_nn_sidecar_step(&p->nn_trunk, &p->nn_sidecar, &batch, &options, false, &sums, &r,
                         &p->arena, &err));
  float ready[BLOCKS];
  for (int32_t b = 0; b < BLOCKS; b++) ready[b] = pdt_nn_sigmoid(r.ready[b]);
  compare("states", p->states, r.states, (int64_t)TOKENS * c->hidden_size);
  compare("notes", d->note, r.note, BLOCKS * c->notes_dim);
  compare("coverage", d->coverage, r.coverage, BLOCKS * c->plan_slots);
  compare("readiness", d->ready, ready, BLOCKS);
}

/* What both planners read of a prompt of the first n states: decoding's inputs, the trainer's mean
 * and places, with zeros behind the prompt's end, and what it reads in order. */
static void read_prompt(pair *p, int32_t n, float *inputs, float *mean, float *places,
                        float *read) {
  pdt_error err = {0};
  int64_t d = p->sidecar_config.hidden_size, P = p->sidecar_config.plan_places;
  double *sums;
  pdt_array inner = pdt_array_at(p->there, d); /* any states will do */
  OK(PDT_NEW(&sums, pdt_plan_sums(&p->sidecar), "sums", &err));
  pdt_plan_read(&p->sidecar, p->there, inner, n, 0, sums);
  pdt_plan_finish(&p->sidecar, sums, n, inputs);
  for (int64_t j = 0; j < d; j++) mean[j] = (float)(sums[j] / n);
  for (int64_t i = 0; i < P * d; i++) places[i] = i < n * d ? p->states[i] : 0;
  memcpy(read, p->states + d, (size_t)(n * d) * sizeof *read);
  free(sums);
}

/* The same slot ids from the same prompt. Decoding's votes leave out the tied planner's
 * 1/sqrt(de), which does not move the largest. */
static void compare_planners(pair *p) {
  pdt_error err = {0};
  int32_t S = p->sidecar_config.plan_slots, Vp = p->sidecar_config.plan_vocab_size;
  pdt_plan_vote *votes;
  int32_t *ids;
  pdt_nn_planner_pass pass;
  enum { N_PROMPT = 3 };
  static const int32_t begin[] = {0, N_PROMPT};
  float inputs[512], mean[64], places[512], read[N_PROMPT * 64];
  assert_true(p->sidecar_config.hidden_size <= 64 && p->sidecar_config.plan_places <= 8);
  assert_true(pdt_plan_inputs(&p->sidecar) * p->sidecar_config.hidden_size <= 512);
  OK(PDT_NEW(&votes, S, "votes", &err));
  OK(PDT_NEW(&ids, S, "ids", &err));
  read_prompt(p, N_PROMPT, inputs, mean, places, read);
  OK(pdt_plan_vote_share(&p->whole, inputs, votes, &err));
  OK(pdt_plan_count(votes, 1, S, ids, &err));
  const pdt_nn_prompts prompts = {
      .n = 1, .mean = mean, .places = places, .begin = begin, .read = read};
  OK(pdt_nn_planner(&p->nn_sidecar, &prompts, &pass, &p->arena, &err));
  bool tied = p->sidecar_config.planner == PDT_PLANNER_TIED;
  float scale = tied ? 1 / sqrtf((float)p->sidecar_config.plan_dim) : 1;
  for (int32_t i = 0; i < S; i++) {
    const float *row = pass.logits + (int64_t)i * Vp;
    float logit = votes[i].logit * scale, room = (float)TOLERANCE * (fabsf(logit) + 1);
    assert_true(fabsf(row[ids[i]] - logit) <= room);
    for (int32_t j = 0; j < Vp; j++) assert_true(row[j] <= logit + room);
  }
  free(votes);
  free(ids);
}

static void compare_case(const char *model, const char *sidecar) {
  pair p = {0};
  decoded d = {.p = &p};
  open_trunk(&p, model);
  open_sidecar(&p, sidecar);
  int32_t S = p.sidecar_config.plan_slots, plan_ids[64] = {0};
  assert_true(S <= 64 && p.sidecar_config.notes_dim <= 64);
  for (int32_t i = 0; i < S; i++)
    plan_ids[i] = i % 3 == 1 ? 0 : (7 * i + 5) % p.sidecar_config.plan_vocab_size;
  decode_stream(&d, plan_ids);
  compare_step(&d, plan_ids);
  compare_planners(&p);
  for (int32_t w = 0; w < BLOCKS; w++) pdt_window_free(&d.windows[w]);
  pdt_plan_free(&d.plan);
  p.device.ops->release(&p.device, d.read);
  p.device.ops->release(&p.device, d.embedded);
  free(d.note);
  free(d.coverage);
  free(d.ready);
  close_pair(&p);
}

/* Sidecars of both planners and both pools, which read the final states or a layer's, in float and
 * bf16, beside odd numbers of heads and beside a sliding window. */
static void test_cases(void **state) {
  (void)state;
  static const char *const names[] = {"bf16",        "given-plan-and-prefixes",
                                      "odd-heads",   "tied-planner-last-pool",
                                      "pool-below",  "pool-amid",
                                      "pool-copies", "short-window"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    char model[128], sidecar[128];
    snprintf(model, sizeof model, "tests/data/cases/%s/model", names[i]);
    snprintf(sidecar, sizeof sidecar, "tests/data/cases/%s/sidecar.safetensors", names[i]);
    compare_case(model, sidecar);
  }
}

/* The hidden layer of the speculation head and the planner's places and orders, which the cases
 * lack. */
static void test_hidden_layer(void **state) {
  scratch *s = *state;
  static pdt_layer instrumented[] = {0, 1};
  pdt_error err = {0};
  const pdt_sidecar_config config = {.hidden_size = 24,
                                     .streams = 3,
                                     .notes_dim = 20,
                                     .snc_heads = 2,
                                     .snc_head_dim = 6,
                                     .n_instrumented = 2,
                                     .instrumented = instrumented,
                                     .adapter_dim = 7,
                                     .planner = PDT_PLANNER_TIED,
                                     .plan_slots = 5,
                                     .plan_vocab_size = 50,
                                     .plan_dim = 9,
                                     .plan_hash_salt = "s",
                                     .pool = PDT_POOL_ATTENTION,
                                     .pool_heads = 3,
                                     .pool_dim = 11,
                                     .coverage_dim = 8,
                                     .agree_dim = 10,
                                     .speculation_hidden = 13,
                                     .plan_places = 5,
                                     .note_query = true,
                                     .plan_orders = 2,
                                     .defaults = {4, 1, 9, 8, 0, 0.3}};
  const pdt_sidecar_init_options options = {
      .dtype = PDT_F32, .seed = 5, .gate = 0.5, .start = PDT_SIDECAR_RANDOM};
  const char *path = scratch_path(s, "hidden.safetensors");
  OK(pdt_sidecar_init(path, &config, &options, NULL, NULL, &err));
  compare_case("tests/data/cases/tied-planner-last-pool/model", path);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_families),
      cmocka_unit_test(test_cases),
      cmocka_unit_test_setup_teardown(test_hidden_layer, scratch_setup, scratch_teardown),
  };
  return cmocka_run_group_tests_name("training's forward pass", tests, NULL, NULL);
}

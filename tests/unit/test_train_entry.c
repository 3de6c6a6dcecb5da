/* Batches of teacher-forced entries: windows are those of the bus, rows and labels are where
 * decoding has them, and a sidecar learns from them. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "protocol/bus.h"
#include "protocol/philox.h"
#include "scratch.h"
#include "sidecar/init.h"
#include "train/curriculum.h"

#define OK(call)                                                                                   \
  do {                                                                                             \
    if (call) fail_msg("%s", err.message);                                                         \
  } while (0)

enum { SLOTS = 4, DN = 6, D = 16, VOCAB = 24, TAU = 3, MOST_BLOCKS = 16 };

static const pdt_token prompt[] = {3, 4, 5}, prefix[] = {6, 7};
static const pdt_token first[] = {8, 9, 10, 11, 12, 13, 0}, second[] = {14, 15, 16, 0},
                       third[] = {17, 18, 19, 20, 21, 22, 23, 0};
static const int32_t plan_ids[SLOTS] = {5, 0, 9, 2};
static const pdt_train_need needs[] = {{4, 0}, {1, 5}};
/* Two tokens of stream 1's output that the note of stream 0's first block tells, the second of them
 * one block later; one of stream 0's that the first note of stream 3 tells; and of stream 3's, in a
 * sentence of four tokens, two that the note of stream 2's first block tells too late. */
static const pdt_train_use uses[] = {{PDT_SIBLINGS_FACT, 1, 2, 2, 0, 1, 4},
                                     {PDT_SIBLINGS_FACT, 0, 4, 1, 5, 3, 6},
                                     {PDT_SIBLINGS_FACT, 2, 1, 2, 3, 0, 4}};

/* Three streams of 3, 2 and 3 blocks; stream 1 has adapter 2. */
static const pdt_train_stream streams[] = {
    {0, 2, 7, prefix, first, NULL}, {2, 0, 4, NULL, second, NULL}, {3, 1, 8, prefix, third, NULL}};

typedef struct fixture {
  float mean_state[D], teacher[MOST_BLOCKS * DN], coverage[MOST_BLOCKS * SLOTS];
  pdt_train_entry entry;
  pdt_arena arena;
} fixture;

static int setup(void **state) {
  fixture *f = calloc(1, sizeof *f);
  if (!f) return -1;
  for (uint32_t i = 0; i < D; i++) f->mean_state[i] = (float)pdt_uniform(1, i, 0, 0, 0) - 0.5f;
  for (uint32_t i = 0; i < MOST_BLOCKS * DN; i++)
    f->teacher[i] = 2 * (float)pdt_uniform(2, i, 0, 0, 0) - 1;
  for (uint32_t i = 0; i < MOST_BLOCKS * SLOTS; i++)
    f->coverage[i] = pdt_uniform(3, i, 0, 0, 0) < 0.3;
  f->entry = (pdt_train_entry){.n_prompt = 3,
                               .n_streams = 3,
                               .prompt = prompt,
                               .streams = streams,
                               .plan_ids = plan_ids,
                               .mean_state = f->mean_state,
                               .teacher_notes = f->teacher,
                               .coverage = f->coverage,
                               .n_needs = 2,
                               .needs = needs,
                               .n_uses = 3,
                               .uses = uses};
  *state = f;
  return 0;
}

static int teardown(void **state) {
  fixture *f = *state;
  pdt_arena_free(&f->arena);
  free(f);
  return 0;
}

static pdt_layer instrumented[] = {0, 1};

static pdt_sidecar_config sidecar_config(void) {
  return (pdt_sidecar_config){.hidden_size = D,
                              .streams = 4,
                              .notes_dim = DN,
                              .snc_heads = 2,
                              .snc_head_dim = 4,
                              .n_instrumented = 2,
                              .instrumented = instrumented,
                              .adapter_dim = 4,
                              .planner = PDT_PLANNER_TIED,
                              .plan_slots = SLOTS,
                              .plan_vocab_size = 12,
                              .plan_dim = 5,
                              .plan_hash_salt = "s",
                              .pool = PDT_POOL_ATTENTION,
                              .pool_heads = 2,
                              .pool_dim = 4,
                              .coverage_dim = 4,
                              .agree_dim = 6,
                              .speculation_hidden = 8,
                              .defaults = {TAU, 1, 9, 8, 0, 0.3}};
}

static const pdt_train_losses losses = {.plan = 1,
                                        .notes = 1,
                                        .speculation = 0.5,
                                        .ce = 1,
                                        .coverage = 1,
                                        .ready = 1,
                                        .use = 3,
                                        .later = 5,
                                        .unseen = 0.5,
                                        .quiet = 0.25};

static void lay_out(fixture *f, const pdt_train_rounds *rules, pdt_nn_sidecar_batch *batch,
                    const uint64_t number[2]) {
  pdt_error err = {0};
  const pdt_sidecar_config config = sidecar_config();
  const pdt_train_entry *entries[] = {&f->entry, &f->entry};
  pdt_train_totals totals = {0};
  for (int i = 0; i < 2; i++) pdt_train_count(entries[i], TAU, SLOTS, &losses, &totals);
  assert_true(totals.tokens == 38 && totals.blocks == 16 && totals.slots == 6);
  assert_int_equal(totals.coverage, 48);
  pdt_arena_reset(&f->arena);
  OK(pdt_train_batch(batch, entries, number, 2, &config, rules, &losses, &totals, &f->arena, &err));
}

/* In lockstep, where a note is seen one block later: the tokens of both entries are of these kinds
 * (0-6 are the first stream's, 7-10 the second's), and weigh what the losses say; by half in the
 * sentences [begin, end) that tell what is not seen. */
static void expect_kinds(fixture *f, const pdt_nn_kind kinds[19], int begin, int end) {
  pdt_nn_sidecar_batch b;
  const pdt_train_rounds rules = {TAU, 1, 99, 1, 0, 1};
  const uint64_t number[] = {0, 1};
  lay_out(f, &rules, &b, number);
  for (int i = 0; i < 38; i++) {
    int at = i % 19;
    float weight = (kinds[at] == PDT_NN_USE ? 3.0f : kinds[at] == PDT_NN_LATER ? 5.0f : 1.0f) / 38;
    if (at >= begin && at < end) weight /= 2;
    assert_int_equal(b.targets.kinds[i], kinds[at]);
    assert_true(fabsf(b.targets.ce_weight[i] - weight) < 1e-6f);
  }
}

/* Tokens of names are told apart by whether their note is in the window of their own block. */
static void test_kinds(void **state) {
  const pdt_nn_kind kinds[19] = {[4] = PDT_NN_USE,
                                 [9] = PDT_NN_UNSEEN,
                                 [10] = PDT_NN_LATER,
                                 [12] = PDT_NN_UNSEEN,
                                 [13] = PDT_NN_UNSEEN};
  assert_int_equal(PDT_NN_OTHER, 0);
  expect_kinds(*state, kinds, 8, 15); /* the second stream's sentence, and the third's */
}

/* A stream's own statement counts as a use where a sibling's note has told it already, and else as
 * any other token: tokens 5 and 6 of stream 3 are told by the note of stream 0's first block, which
 * both see; token 1 and 2 of stream 0 by stream 2's second, which nobody sees in time. */
static void test_told(void **state) {
  fixture *f = *state;
  static const pdt_train_use told[] = {{PDT_OWN_FACT, 2, 5, 2, 4, 0, 0},
                                       {PDT_OWN_FACT, 2, 5, 2, 0, 0, 0},
                                       {PDT_OWN_FACT, 0, 1, 2, 4, 0, 0}};
  const pdt_nn_kind kinds[19] = {[16] = PDT_NN_USE, [17] = PDT_NN_LATER};
  f->entry.uses = told;
  expect_kinds(f, kinds, 0, 0);
}

/* Where an entry brings its own readiness labels, they are the targets. */
static void test_given_labels(void **state) {
  fixture *f = *state;
  pdt_nn_sidecar_batch b;
  const pdt_train_rounds rules = {TAU, 1, 99, 1, 0, 1};
  const uint64_t number[] = {0, 1};
  static const float labels[] = {1, 0, 1, 1, 0, 0, 1, 0};
  f->entry.ready = labels;
  f->entry.n_needs = 0;
  lay_out(f, &rules, &b, number);
  assert_memory_equal(b.ready_target, labels, sizeof labels);
  assert_memory_equal(b.ready_target + 8, labels, sizeof labels);
}

/* L_spec asks `quiet` of a block whose note tells nothing, and 1 of the rest; all together are 1.
 */
static void test_quiet(void **state) {
  fixture *f = *state;
  pdt_nn_sidecar_batch b;
  const pdt_train_rounds rules = {TAU, 1, 99, 1, 0, 1};
  const uint64_t number[] = {0, 1};
  static const bool quiet[8] = {false, true, true, false, true, false, true, true};
  f->entry.quiet = quiet; /* of 8 blocks 3 tell something, and 5 weigh a quarter: 4.25 an entry */
  lay_out(f, &rules, &b, number);
  for (int i = 0; i < 16; i++)
    assert_true(fabsf(b.spec_weight[i] - 0.5f * (quiet[i % 8] ? 0.25f : 1) / 8.5f) < 1e-6f);
  for (int i = 0; i < 16; i++) assert_true(fabsf(b.notes_weight[i] - 1.0f / 16) < 1e-6f);
}

static void test_rows(void **state) {
  fixture *f = *state;
  pdt_nn_sidecar_batch b;
  const pdt_train_rounds rules = {TAU, 1, 99, 1, 0, 1};
  const uint64_t number[] = {0, 1};
  lay_out(f, &rules, &b, number);
  /* prompt 3 + prefix + section, without the token that is predicted last */
  static const int32_t begin[] = {0, 11, 17, 28, 39, 45, 56};
  static const pdt_token whole[] = {3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 3, 4, 5, 14, 15, 16};
  assert_int_equal(b.sequences.n, 6);
  assert_memory_equal(b.sequences.begin, begin, sizeof begin);
  assert_memory_equal(b.tokens, whole, sizeof whole);
  assert_int_equal(b.conditioning.n_rows, 2 * (9 + 4 + 9));
  assert_int_equal(b.conditioning.rows[0], 2); /* the last prompt token */
  assert_int_equal(b.conditioning.rows[9], 13);
  assert_int_equal(b.conditioning.run_stream[1], 2);
  static const int32_t block_begin[] = {4, 7, 10, 13, 16, 20, 23, 26, 32},
                       steps[] = {3, 3, 1, 3, 1, 3};
  assert_memory_equal(b.blocks.begin, block_begin, sizeof block_begin);
  assert_memory_equal(b.blocks.steps, steps, sizeof steps);
  assert_int_equal(b.targets.n, 38);
  for (int i = 0; i < b.targets.n; i++) { /* a row predicts what the next row reads */
    int32_t row = b.targets.rows[i];
    bool ends = b.targets.tokens[i] == 0;
    assert_true(ends || b.tokens[row + 1] == b.targets.tokens[i]);
  }
  /* Rows of a block read its window; the prompt's last and the prefix that of the first. */
  for (int i = 0; i < b.blocks.n; i++) {
    int32_t at = b.conditioning.windows.begin[i], end = b.conditioning.windows.begin[i + 1];
    assert_int_equal(b.conditioning.rows[end - 1], b.blocks.begin[i] + b.blocks.steps[i] - 1);
    assert_true(end - at >= b.blocks.steps[i]);
  }
}

/* The bus's window for every block of an entry, whose blocks are numbered from base. */
static void compare_with_bus(const fixture *f, const pdt_nn_sidecar_batch *b,
                             const pdt_train_rounds *rules, int32_t e, const int32_t *rounds) {
  pdt_error err = {0};
  pdt_bus bus;
  int32_t window[MOST_BLOCKS + 1], base = e * 8, last = 0, starts[] = {0, 3, 5, 8};
  OK(pdt_bus_new(&bus, DN, (pdt_window_rule){rules->reveal_delay, rules->window}, MOST_BLOCKS + 1,
                 &err));
  for (int i = 0; i < 8; i++) last = rounds[i] > last ? rounds[i] : last;
  OK(pdt_bus_publish(&bus, 0, PDT_PLANNER, &err));
  int32_t block_of[MOST_BLOCKS + 1] = {-1}, n = 1;
  for (int32_t round = 1; round <= last; round++) {
    for (int s = 0; s < 3; s++) /* what this round emits reads the window before its own notes */
      for (int i = starts[s]; i < starts[s + 1]; i++) {
        if (rounds[i] != round) continue;
        int32_t count = pdt_bus_window(&bus, round, window);
        const pdt_nn_windows *w = &b->conditioning.windows;
        assert_int_equal(w->first[base + i + 1] - w->first[base + i], count);
        for (int32_t j = 0; j < count; j++) {
          int32_t block = block_of[window[j]];
          assert_int_equal(w->items[w->first[base + i] + j], block < 0 ? e : 2 + base + block);
        }
      }
    for (int s = 0; s < 3; s++)
      for (int i = starts[s]; i < starts[s + 1]; i++)
        if (rounds[i] == round) {
          OK(pdt_bus_publish(&bus, round, f->entry.streams[s].stream, &err));
          block_of[n++] = i;
        }
  }
  pdt_bus_free(&bus);
}

static void test_windows(void **state) {
  fixture *f = *state;
  int unready = 0, ready = 0;
  for (uint64_t trial = 0; trial < 200; trial++) {
    const pdt_train_rounds rules = {
        TAU, 1 + (int32_t)(trial % 3), 1 + (int32_t)(trial % 10), 0.3, 0.3, trial};
    const uint64_t number[] = {2 * trial, 2 * trial + 1};
    pdt_nn_sidecar_batch b;
    lay_out(f, &rules, &b, number);
    for (int32_t e = 0; e < 2; e++) {
      int32_t rounds[MOST_BLOCKS];
      pdt_train_draw_rounds(&f->entry, &rules, number[e], rounds);
      compare_with_bus(f, &b, &rules, e, rounds);
    }
    for (int i = 0; i < b.blocks.n; i++) {
      bool needy = i % 8 == 4 || i % 8 == 1;
      assert_true(needy || b.ready_target[i] == 1);
      if (needy) {
        int32_t note = 2 + i / 8 * 8 + (i % 8 == 4 ? 0 : 5);
        bool seen = false;
        for (int32_t j = b.conditioning.windows.first[i]; j < b.conditioning.windows.first[i + 1];
             j++)
          seen = seen || b.conditioning.windows.items[j] == note;
        assert_true(b.ready_target[i] == (seen ? 1 : 0));
        unready += !seen;
        ready += seen;
      }
    }
  }
  assert_true(unready > 20 && ready > 20); /* both happen */
}

/* A fresh sidecar on a random frozen trunk, whose head is large enough for states to choose tokens.
 */
static void small_models(pdt_nn_trunk *trunk, pdt_nn_sidecar *sidecar) {
  pdt_error err = {0};
  const pdt_sidecar_config config = sidecar_config();
  const pdt_model_config model = {.family = PDT_FAMILY_LLAMA,
                                  .hidden_size = D,
                                  .intermediate_size = 24,
                                  .layers = 2,
                                  .heads = 2,
                                  .kv_heads = 2,
                                  .head_dim = 8,
                                  .vocab_size = VOCAB,
                                  .max_positions = 64,
                                  .rms_norm_eps = 1e-5,
                                  .rope = {.type = PDT_ROPE_DEFAULT, .theta = 10000, .scale = 1}};
  char path[] = "/tmp/pdt-test-entry-XXXXXX";
  int fd = mkstemp(path);
  assert_true(fd >= 0);
  close(fd);
  const pdt_sidecar_init_options options = {
      .dtype = PDT_F32, .seed = 5, .start = PDT_SIDECAR_FRESH};
  OK(pdt_sidecar_init(path, &config, &options, NULL, NULL, &err));
  pdt_safetensors *file;
  OK(pdt_safetensors_open(&file, path, &err));
  OK(pdt_nn_sidecar_new(sidecar, &config, file, (1u << PDT_NN_PARTS) - 1, &err));
  pdt_safetensors_close(file);
  remove(path);
  OK(pdt_nn_trunk_new(trunk, &model, NULL, true, &err));
  pdt_nn_trunk_init(trunk, 3);
  float *head = trunk->parameters.value +
                pdt_nn_parameters_find(&trunk->parameters, "lm_head.weight")->offset;
  for (int i = 0; i < VOCAB * D; i++) head[i] *= 20;
}

/* Two entries by heart: every loss falls, in one pass and in two, and the trunk stays as it was. */
static void test_learns(void **state) {
  fixture *f = *state;
  pdt_error err = {0};
  pdt_nn_trunk trunk;
  pdt_nn_sidecar sidecar;
  pdt_adamw adamw;
  small_models(&trunk, &sidecar);
  const int64_t trunk_bytes = trunk.parameters.n_elems * (int64_t)sizeof(float);
  float *before = malloc((size_t)trunk_bytes);
  assert_non_null(before);
  memcpy(before, trunk.parameters.value, (size_t)trunk_bytes);
  const pdt_adamw_settings settings = pdt_adamw_defaults();
  const double rates[PDT_TRAIN_GROUPS] = {0.01, 0.01, 0.01, 0.01, 0.01};
  const pdt_train_rounds rules = {TAU, 1, 99, 1, 0, 1};
  const uint64_t number[] = {0, 1};
  OK(pdt_adamw_new(&adamw, &settings, &sidecar.parameters, &err));
  pdt_nn_step_sums first_sums = {0}, sums = {0};
  for (int step = 0; step < 300; step++) {
    const pdt_nn_step_options how = {.student_notes = step >= 150, .through_trunk = true};
    pdt_nn_sidecar_batch b;
    double norm;
    lay_out(f, &rules, &b, number);
    OK(pdt_nn_sidecar_step(&trunk, &sidecar, &b, &how, true, &sums, NULL, &f->arena, &err));
    if (step == 0) first_sums = sums;
    OK(pdt_adamw_step(&adamw, &sidecar.parameters, rates, &norm, &err));
  }
  print_message("plan %.3f -> %.3f, notes %.3f -> %.3f, speculation %.3f -> %.3f, tokens %.3f -> "
                "%.3f, coverage %.3f -> %.3f, ready %.3f -> %.3f\n",
                first_sums.plan, sums.plan, first_sums.notes, sums.notes, first_sums.speculation,
                sums.speculation, first_sums.ce, sums.ce, first_sums.coverage, sums.coverage,
                first_sums.ready, sums.ready);
  assert_true(sums.plan < 0.1 * first_sums.plan);
  assert_true(sums.notes < 0.5 * first_sums.notes);
  assert_true(sums.speculation < 0.5 * first_sums.speculation);
  assert_true(sums.ce < 0.5 * first_sums.ce);
  assert_true(sums.coverage < 0.5 * first_sums.coverage);
  assert_true(sums.ready < 0.5 * first_sums.ready);
  assert_memory_equal(before, trunk.parameters.value, (size_t)trunk_bytes);
  free(before);
  pdt_adamw_free(&adamw);
  pdt_nn_sidecar_free(&sidecar);
  pdt_nn_trunk_free(&trunk);
}

/* ---- stages ---- */

typedef struct watcher {
  const char *state, *kept; /* the checkpoint of step 10 is kept */
  pdt_curriculum_report first, last;
} watcher;

static int ignore_begin(void *context, int64_t step, pdt_error *err) {
  (void)context;
  (void)step;
  (void)err;
  return 0;
}

static int watch(void *context, const void *report, pdt_error *err) {
  watcher *w = context;
  const pdt_curriculum_report *r = report;
  (void)err;
  if (w->first.step == 0) w->first = *r;
  w->last = *r;
  if (!w->kept || r->step != 11) return 0;
  char command[700];
  snprintf(command, sizeof command, "cp '%s' '%s'", w->state, w->kept);
  assert_int_equal(system(command), 0);
  return 0;
}

static pdt_curriculum_options options_of(int32_t stage, int64_t steps, const char *state,
                                         const char *sidecar) {
  return (pdt_curriculum_options){.schedule = {.seed = 7,
                                               .steps = steps,
                                               .warmup = 5,
                                               .floor = 0.1,
                                               .adamw = pdt_adamw_defaults(),
                                               .batch = 3,
                                               .log_every = 1,
                                               .checkpoint_every = 10,
                                               .state = state},
                                  .stage = pdt_train_stage_of(stage, 0.01),
                                  .rounds = {TAU, 1, 99, 0.5, 0.2, 7},
                                  .threads = 1,
                                  .sidecar = sidecar,
                                  .data = 77};
}

/* The four stages one after another: each lowers its own losses and leaves other parts alone; what
 * is written is a sidecar. */
static void test_stages(void **state) {
  fixture *f = *state;
  pdt_nn_trunk trunk;
  pdt_nn_sidecar sidecar;
  const pdt_comm alone = {.rank = 0, .size = 1};
  const pdt_train_entry *entries[] = {&f->entry, &f->entry};
  char path[] = "/tmp/pdt-test-stage-XXXXXX";
  int fd = mkstemp(path);
  assert_true(fd >= 0);
  close(fd);
  char state_path[64];
  snprintf(state_path, sizeof state_path, "%s.state", path);
  small_models(&trunk, &sidecar);
  pdt_nn_parameters *p = &sidecar.parameters;
  for (int32_t stage = 0; stage < PDT_TRAIN_STAGES; stage++) {
    pdt_error err = {0};
    watcher w = {0};
    const pdt_train_observer observer = {&w, ignore_begin, watch};
    pdt_curriculum_options o = options_of(stage, 60, state_path, path);
    float *before = malloc((size_t)p->n_elems * sizeof *before);
    assert_non_null(before);
    memcpy(before, p->value, (size_t)p->n_elems * sizeof *before);
    OK(pdt_curriculum(&trunk, &sidecar, entries, 2, &o, &alone, &observer, &err));
    const pdt_nn_step_sums *a = &w.first.losses, *b = &w.last.losses;
    assert_true(w.last.step == 60);
    assert_true(stage == 3 ? b->coverage < a->coverage : b->notes < a->notes);
    assert_true(stage == 0 || stage == 3 || b->ce < a->ce);
    assert_true(stage != 2 || b->speculation < a->speculation);
    assert_true(stage != 2 || w.last.slot_accuracy == 1);
    for (int32_t i = 0; i < p->n; i++) {
      const pdt_nn_parameter *item = &p->items[i];
      bool moved = memcmp(before + item->offset, p->value + item->offset,
                          (size_t)item->n_elems * sizeof *before) != 0;
      bool trained = item->group >= 0 && o.stage.rates[item->group] > 0;
      if (!trained) assert_false(moved);
    }
    free(before);
    pdt_safetensors *file;
    pdt_sidecar_config config;
    OK(pdt_safetensors_open(&file, path, &err));
    OK(pdt_sidecar_config_load(&config, file, &trunk.config, &err));
    assert_int_equal(config.speculation_hidden, 8);
    pdt_sidecar_config_free(&config);
    pdt_safetensors_close(file);
  }
  remove(path);
  remove(state_path);
  pdt_nn_sidecar_free(&sidecar);
  pdt_nn_trunk_free(&trunk);
}

/* A stage that goes on from its middle ends in the same bits; one with other rates is refused. */
static void test_stage_resumes(void **state) {
  fixture *f = *state;
  pdt_error err = {0};
  pdt_nn_trunk trunk;
  pdt_nn_sidecar whole, rest;
  const pdt_comm alone = {.rank = 0, .size = 1};
  const pdt_train_entry *entries[] = {&f->entry, &f->entry};
  char folder[] = "/tmp/pdt-test-resume-XXXXXX", a[64], kept[64], sidecar[64];
  assert_non_null(mkdtemp(folder));
  snprintf(a, sizeof a, "%s/a", folder);
  snprintf(kept, sizeof kept, "%s/kept", folder);
  snprintf(sidecar, sizeof sidecar, "%s/sidecar", folder);
  small_models(&trunk, &whole);
  pdt_nn_trunk_free(&trunk);
  small_models(&trunk, &rest);
  watcher w = {.state = a, .kept = kept};
  const pdt_train_observer observer = {&w, ignore_begin, watch};
  pdt_curriculum_options o = options_of(2, 25, a, sidecar);
  OK(pdt_curriculum(&trunk, &whole, entries, 2, &o, &alone, &observer, &err));
  o.schedule.state = kept;
  o.schedule.resume = true;
  w = (watcher){0};
  OK(pdt_curriculum(&trunk, &rest, entries, 2, &o, &alone, &observer, &err));
  assert_int_equal(w.first.step, 11);
  assert_memory_equal(whole.parameters.value, rest.parameters.value,
                      (size_t)whole.parameters.n_elems * sizeof(float));
  o.stage.rates[PDT_NN_POOL] = 0.02;
  assert_int_equal(pdt_curriculum(&trunk, &rest, entries, 2, &o, &alone, &observer, &err), -1);
  assert_non_null(strstr(err.message, "settings"));
  remove(a);
  remove(kept);
  remove(sidecar);
  remove(folder);
  pdt_nn_sidecar_free(&whole);
  pdt_nn_sidecar_free(&rest);
  pdt_nn_trunk_free(&trunk);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_rows, setup, teardown),
      cmocka_unit_test_setup_teardown(test_kinds, setup, teardown),
      cmocka_unit_test_setup_teardown(test_told, setup, teardown),
      cmocka_unit_test_setup_teardown(test_given_labels, setup, teardown),
      cmocka_unit_test_setup_teardown(test_quiet, setup, teardown),
      cmocka_unit_test_setup_teardown(test_windows, setup, teardown),
      cmocka_unit_test_setup_teardown(test_learns, setup, teardown),
      cmocka_unit_test_setup_teardown(test_stages, setup, teardown),
      cmocka_unit_test_setup_teardown(test_stage_resumes, setup, teardown),
  };
  return cmocka_run_group_tests_name("entries", tests, NULL, NULL);
}

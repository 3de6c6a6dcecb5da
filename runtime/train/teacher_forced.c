#include "train/teacher_forced.h"

#include <math.h>
#include <stdlib.h>

#include "base/memory.h"
#include "train/dataset.h"

enum { BATCH = 4 };

/* Everything a reading holds. */
typedef struct lesson {
  const pdt_teacher_forced_use *use;
  pdt_teacher_forced *out;
  pdt_nn_trunk trunk;
  pdt_nn_sidecar sidecar;
  pdt_dataset data;
  pdt_arena arena;
  pdt_judge_scores scores;
} lesson;

/* As the stages of training draw them: some entries in lockstep as the file's labels have it, most
 * with streams that wait, as gates make them. */
static pdt_train_rounds rounds_of(const lesson *l) {
  const pdt_data_rounds *r = &l->data.rounds;
  return (pdt_train_rounds){.block_tokens = r->block_tokens,
                            .reveal_delay = r->reveal_delay,
                            .window = r->window > 0 ? r->window : 1 << 20,
                            .lockstep = 0.3,
                            .wait = 0.12,
                            .seed = l->use->seed};
}

static int count_blocks(lesson *l, const pdt_nn_sidecar_batch *batch,
                        const pdt_nn_step_results *results, pdt_error *err) {
  int64_t S = l->use->config->plan_slots;
  for (int32_t b = 0; b < batch->blocks.n; b++) {
    bool ready = batch->ready_target[b] > 0;
    const pdt_judge_score score = {(float)results->ready[b], ready, ready};
    if (pdt_judge_add_score(&l->scores, score, err)) return -1;
    l->out->blocks++;
    l->out->ready += ready;
    for (int64_t i = b * S; i < (b + 1) * S; i++) {
      if (batch->coverage_weight[i] == 0) continue; /* an empty slot */
      bool found = results->coverage[i] > 0, target = batch->coverage_target[i] > 0;
      l->out->coverage.hit += found && target;
      l->out->coverage.wrong += found && !target;
      l->out->coverage.missed += !found && target;
    }
  }
  return 0;
}

/* Entries [first, first + n) as one batch. */
static int read_batch(lesson *l, int64_t first, int32_t n, pdt_error *err) {
  static const pdt_train_losses losses = {
      .plan = 1, .ce = 1, .coverage = 1, .ready = 1, .use = 1, .later = 1, .unseen = 1};
  static const pdt_nn_step_options options = {.student_notes = true};
  const pdt_train_rounds rounds = rounds_of(l);
  uint64_t number[BATCH];
  pdt_train_totals totals = {0};
  pdt_nn_sidecar_batch batch;
  pdt_nn_step_sums sums;
  pdt_nn_step_results results;
  for (int32_t i = 0; i < n; i++) {
    number[i] = (uint64_t)(first + i);
    pdt_train_count(l->data.entries[first + i], rounds.block_tokens, l->use->config->plan_slots,
                    &losses, &totals);
  }
  pdt_arena_reset(&l->arena);
  if (pdt_train_batch(&batch, l->data.entries + first, number, n, l->use->config, &rounds, &losses,
                      &totals, &l->arena, err) ||
      pdt_nn_sidecar_step(&l->trunk, &l->sidecar, &batch, &options, false, &sums, &results,
                          &l->arena, err))
    return -1;
  l->out->entries += n;
  l->out->slots += totals.slots;
  l->out->slots_right += sums.slots_right;
  for (int i = 0; i < PDT_NN_KINDS; i++) {
    l->out->tokens[i] += sums.tokens[i];
    l->out->right[i] += sums.right[i];
  }
  return count_blocks(l, &batch, &results, err);
}

/* The first n entries once more under altered notes, one by one. */
static int read_altered(lesson *l, int64_t n, pdt_error *err) {
  const pdt_teacher_forced_use *use = l->use;
  pdt_alter_facts *facts = NULL;
  pdt_altered_nats *plain = NULL;
  const pdt_train_rounds rounds = rounds_of(l);
  int rc = PDT_NEW(&facts, n, "facts", err) || PDT_NEW(&plain, n, "entries", err);
  for (int64_t i = 0; i < n && !rc; i++)
    facts[i] = pdt_alter_facts_of_entry(use->world, &use->entries->entries[i]);
  const pdt_alter_entries entries = {n, use->entries->owners, facts};
  const pdt_altered_use altered = {&l->trunk, &l->sidecar, &l->data, n,
                                   &rounds,   &entries,    use->seed};
  if (!rc) rc = pdt_altered_plain(&altered, plain, &l->arena, err);
  for (int mode = 0; mode < PDT_ALTER_MODES && !rc; mode++)
    if (use->altered[mode])
      rc = pdt_altered_read(&altered, (pdt_alter_mode)mode, plain, &l->out->altered[mode],
                            &l->arena, err);
  free(facts);
  free(plain);
  return rc ? -1 : 0;
}

static bool wants_altered(const pdt_teacher_forced_use *use) {
  bool wanted = false;
  for (int mode = 0; mode < PDT_ALTER_MODES; mode++) wanted = wanted || use->altered[mode];
  return wanted;
}

static int read_all(lesson *l, pdt_error *err) {
  const pdt_teacher_forced_use *use = l->use;
  const pdt_dataset_use dataset = {
      .trunk = &l->trunk,
      .tokenizer = use->tokenizer,
      .config = use->config,
      .teacher = {PDT_CODES_EMBEDDING, 0}, /* the second pass reads none */
      .stated = 1};
  pdt_nn_set_threads(use->threads);
  if (pdt_nn_trunk_new(&l->trunk, use->model, use->checkpoint, true, err) ||
      pdt_nn_sidecar_new(&l->sidecar, use->config, use->sidecar, 0, err) ||
      pdt_dataset_load(&l->data, &use->data, 1, &dataset, err))
    return -1;
  int64_t n = l->data.n < use->most ? l->data.n : use->most;
  for (int64_t i = 0; i < n; i += BATCH)
    if (read_batch(l, i, (int32_t)(n - i < BATCH ? n - i : BATCH), err)) return -1;
  return wants_altered(l->use) ? read_altered(l, n, err) : 0;
}

int pdt_teacher_forced_read(const pdt_teacher_forced_use *use, pdt_teacher_forced *out,
                            pdt_error *err) {
  lesson l = {.use = use, .out = out};
  *out = (pdt_teacher_forced){.auc = NAN};
  int rc = read_all(&l, err);
  if (!rc) out->auc = pdt_judge_auc(&l.scores, false);
  pdt_judge_scores_free(&l.scores);
  pdt_arena_free(&l.arena);
  pdt_dataset_free(&l.data);
  pdt_nn_sidecar_free(&l.sidecar);
  pdt_nn_trunk_free(&l.trunk);
  return rc;
}

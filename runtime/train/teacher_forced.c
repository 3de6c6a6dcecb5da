#include "train/teacher_forced.h"

#include <math.h>
#include <stdlib.h>

#include "base/memory.h"
#include "train/dataset.h"

enum { BATCH = 4 };

/* Everything a reading holds. */
typedef struct lesson {
  const pdt_comm *comm;
  const pdt_teacher_forced_use *use;
  pdt_teacher_forced *out;
  pdt_nn_trunk trunk;
  pdt_nn_sidecar sidecar;
  pdt_dataset data;
  pdt_arena arena, states; /* of a batch; of prompts */
  bool *complete;          /* [n] entries whose prompt was read */
  pdt_judge_scores scores;
  int64_t n, begin, end; /* entries of all ranks, and this one's */
  pdt_bytes *counts;     /* [size] bytes of each rank, when they gather */
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

/* Reads the prompt of entry i, unless that is done. */
static int complete(lesson *l, int64_t i, pdt_error *err) {
  const pdt_sidecar_config *config = l->use->config;
  float *states;
  if (l->complete[i]) return 0;
  pdt_arena_reset(&l->arena);
  if (PDT_TAKE(&l->states, &states, pdt_train_prompt_floats(config, l->data.entries[i]), err) ||
      pdt_train_prompt_states(&l->trunk, config, l->data.entries[i], states, &l->arena, err))
    return -1;
  pdt_dataset_complete(&l->data, i, config, states, NULL);
  l->complete[i] = true;
  return 0;
}

/* Entries go to ranks by whole batches, in order. */
static int64_t first_of(const lesson *l, pdt_rank rank) {
  int64_t batches = (l->n + BATCH - 1) / BATCH, first = batches * rank / l->comm->size * BATCH;
  return first < l->n ? first : l->n;
}

static int load(lesson *l, pdt_error *err) {
  const pdt_teacher_forced_use *use = l->use;
  const pdt_dataset_use dataset = {
      .trunk = &l->trunk,
      .tokenizer = use->tokenizer,
      .config = use->config,
      .teacher = {PDT_CODES_EMBEDDING, 0}, /* the second pass reads none */
      .stated = 1,
      .heading = 1,
      .without_states = true};
  pdt_nn_set_threads(use->threads);
  if (pdt_nn_trunk_new(&l->trunk, use->model, use->checkpoint, true, err) ||
      pdt_nn_sidecar_new(&l->sidecar, use->config, use->sidecar, 0, err) ||
      pdt_dataset_load(&l->data, &use->data, 1, &dataset, err) ||
      PDT_NEW(&l->complete, l->data.n, "entries", err) ||
      PDT_NEW(&l->counts, l->comm->size, "counts", err))
    return -1;
  l->n = l->data.n < use->most ? l->data.n : use->most;
  l->begin = first_of(l, l->comm->rank);
  l->end = first_of(l, l->comm->rank + 1);
  return 0;
}

/* This rank's entries. */
static int read_share(lesson *l, pdt_error *err) {
  for (int64_t i = l->begin; i < l->end; i++)
    if (complete(l, i, err)) return -1;
  for (int64_t i = l->begin; i < l->end; i += BATCH)
    if (read_batch(l, i, (int32_t)(l->end - i < BATCH ? l->end - i : BATCH), err)) return -1;
  return 0;
}

/* Everybody's counts. */
static void add_up(lesson *l) {
  pdt_teacher_forced *o = l->out;
  int64_t *counts[] = {&o->entries,        &o->blocks,          &o->ready, &o->coverage.hit,
                       &o->coverage.wrong, &o->coverage.missed, &o->slots, &o->slots_right};
  enum { COUNTS = sizeof counts / sizeof *counts };
  int64_t sums[COUNTS];
  for (int i = 0; i < COUNTS; i++) sums[i] = *counts[i];
  pdt_comm_all_reduce_i64(l->comm, sums, COUNTS, PDT_COMM_SUM);
  for (int i = 0; i < COUNTS; i++) *counts[i] = sums[i];
  pdt_comm_all_reduce_i64(l->comm, o->tokens, PDT_NN_KINDS, PDT_COMM_SUM);
  pdt_comm_all_reduce_i64(l->comm, o->right, PDT_NN_KINDS, PDT_COMM_SUM);
}

/* Everybody's scores of readiness, one a block, in order of entries. */
static int gather_scores(lesson *l, pdt_error *err) {
  pdt_judge_scores all = {.n = (size_t)l->out->blocks};
  int32_t tau = l->data.rounds.block_tokens;
  for (pdt_rank q = 0; q < l->comm->size; q++) {
    l->counts[q] = 0;
    for (int64_t i = first_of(l, q); i < first_of(l, q + 1); i++)
      l->counts[q] +=
          pdt_train_entry_blocks(l->data.entries[i], tau) * (pdt_bytes)sizeof *all.items;
  }
  (void)PDT_NEW(&all.items, l->out->blocks, "scores", err);
  int rc = pdt_comm_agree(l->comm, err);
  if (!rc) {
    pdt_comm_all_gather(l->comm, l->scores.items, all.items, l->counts);
    l->out->auc = pdt_judge_auc(&all, false);
  }
  pdt_judge_scores_free(&all);
  return rc;
}

/* Everybody's nats in a mode, in order of entries, into nats[n]. */
static int read_mode(lesson *l, const pdt_altered_use *altered, pdt_alter_mode mode,
                     pdt_altered_nats *nats, pdt_error *err) {
  int rc = 0;
  for (int64_t i = l->begin; i < l->end && !rc; i++) {
    int64_t donor = pdt_altered_donor(altered, mode, i);
    if (donor >= 0) rc = complete(l, donor, err);
  }
  if (!rc) pdt_altered_read(altered, mode, l->begin, l->end, nats, &l->arena, err);
  if (pdt_comm_agree(l->comm, err)) return -1;
  for (pdt_rank q = 0; q < l->comm->size; q++)
    l->counts[q] = (first_of(l, q + 1) - first_of(l, q)) * (pdt_bytes)sizeof *nats;
  pdt_comm_all_gather(l->comm, nats + l->begin, nats, l->counts);
  return 0;
}

/* The entries once more under altered notes, one by one. */
static int read_altered(lesson *l, pdt_error *err) {
  const pdt_teacher_forced_use *use = l->use;
  const pdt_train_rounds rounds = rounds_of(l);
  pdt_alter_facts *facts = NULL;
  pdt_altered_nats *plain = NULL, *nats = NULL;
  int rc = PDT_NEW(&facts, l->n, "facts", err) || PDT_NEW(&plain, l->n, "entries", err) ||
           PDT_NEW(&nats, l->n, "entries", err);
  for (int64_t i = 0; i < l->n && !rc; i++)
    facts[i] = pdt_alter_facts_of_entry(use->world, &use->entries->entries[i]);
  rc = pdt_comm_agree(l->comm, err);
  const pdt_alter_entries entries = {l->n, use->entries->owners, facts};
  const pdt_altered_use altered = {&l->trunk, &l->sidecar, &l->data, l->n,
                                   &rounds,   &entries,    use->seed};
  if (!rc) rc = read_mode(l, &altered, PDT_ALTER_NONE, plain, err);
  for (int mode = 0; mode < PDT_ALTER_MODES && !rc; mode++) {
    if (!use->altered[mode]) continue;
    rc = read_mode(l, &altered, (pdt_alter_mode)mode, nats, err);
    if (!rc)
      l->out->altered[mode] = pdt_altered_compare(&altered, (pdt_alter_mode)mode, plain, nats);
  }
  free(facts);
  free(plain);
  free(nats);
  return rc;
}

static bool wants_altered(const pdt_teacher_forced_use *use) {
  bool wanted = false;
  for (int mode = 0; mode < PDT_ALTER_MODES; mode++) wanted = wanted || use->altered[mode];
  return wanted;
}

static int read_all(lesson *l, pdt_error *err) {
  if (!load(l, err)) read_share(l, err);
  if (pdt_comm_agree(l->comm, err)) return -1;
  add_up(l);
  if (gather_scores(l, err)) return -1;
  return wants_altered(l->use) ? read_altered(l, err) : 0;
}

int pdt_teacher_forced_read(const pdt_comm *comm, const pdt_teacher_forced_use *use,
                            pdt_teacher_forced *out, pdt_error *err) {
  lesson l = {.comm = comm, .use = use, .out = out};
  *out = (pdt_teacher_forced){.auc = NAN};
  int rc = read_all(&l, err);
  pdt_judge_scores_free(&l.scores);
  pdt_arena_free(&l.arena);
  pdt_arena_free(&l.states);
  free(l.complete);
  free(l.counts);
  pdt_dataset_free(&l.data);
  pdt_nn_sidecar_free(&l.sidecar);
  pdt_nn_trunk_free(&l.trunk);
  return rc;
}

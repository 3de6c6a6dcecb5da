#include "train/score.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "eval/ratio.h"
#include "train/dataset.h"

/* An entry's sums. */
typedef struct sums {
  int64_t tokens;
  double loss[PDT_SCORE_ARMS];
  int64_t right[PDT_SCORE_ARMS];
} sums;

typedef struct scoring {
  const pdt_score_use *use;
  pdt_dataset data;
  pdt_arena arena;
  sums *entries; /* [n, PDT_SCORE_KINDS] */
  int64_t n;
} scoring;

/* Notes of a window in an arm. */
static int32_t window_of(const scoring *s, pdt_score_arm arm) {
  int32_t window = s->data.rounds.window;
  return arm == PDT_SCORE_BLIND ? 0 : arm == PDT_SCORE_PLAN ? 1 : window > 0 ? window : 1 << 20;
}

static int make_batch(scoring *s, int64_t i, pdt_score_arm arm, pdt_nn_sidecar_batch *batch,
                      pdt_error *err) {
  static const pdt_train_losses losses = {.ce = 1, .use = 1, .later = 1, .unseen = 1};
  const pdt_data_rounds *r = &s->data.rounds;
  const pdt_train_rounds rounds = {.block_tokens = r->block_tokens,
                                   .reveal_delay = r->reveal_delay,
                                   .window = window_of(s, arm),
                                   .lockstep = 1};
  const uint64_t number = (uint64_t)i;
  const pdt_train_totals totals = {.tokens = 1};
  return pdt_train_batch(batch, s->data.entries + i, &number, 1, &s->use->sidecar->config, &rounds,
                         &losses, &totals, &s->arena, err);
}

/* Has the stream named the same before, token by token? */
static bool is_repeated(const pdt_train_entry *e, const pdt_train_use *use) {
  const pdt_token *tokens = e->streams[use->stream].tokens;
  for (int32_t u = 0; u < e->n_uses; u++) {
    const pdt_train_use *before = &e->uses[u];
    if (before->stream == use->stream && before->first < use->first && before->n == use->n &&
        memcmp(tokens + before->first, tokens + use->first, (size_t)use->n * sizeof *tokens) == 0)
      return true;
  }
  return false;
}

/* Kinds of all tokens that a batch of this one entry predicts: stream after stream. */
static void classify(const pdt_train_entry *e, const pdt_nn_targets *targets, uint8_t *kinds) {
  for (int32_t t = 0; t < targets->n; t++) {
    pdt_nn_kind kind = targets->kinds[t];
    kinds[t] = kind == PDT_NN_OTHER    ? PDT_SCORE_OTHER
               : kind == PDT_NN_UNSEEN ? PDT_SCORE_UNTOLD
                                       : PDT_SCORE_TOLD;
  }
  for (int32_t u = 0; u < e->n_uses; u++) {
    const pdt_train_use *use = &e->uses[u];
    int32_t begin = use->first;
    if (!is_repeated(e, use)) continue;
    for (int32_t i = 0; i < use->stream; i++) begin += e->streams[i].n_tokens;
    memset(kinds + begin, PDT_SCORE_AGAIN, (size_t)use->n);
  }
}

/* The targets of one kind, each of weight 1. */
static int take_kind(scoring *s, const pdt_nn_targets *all, const uint8_t *kinds,
                     pdt_score_kind kind, pdt_nn_targets *out, pdt_error *err) {
  int32_t *rows;
  pdt_token *tokens;
  pdt_real *weight;
  if (PDT_TAKE(&s->arena, &rows, all->n, err) || PDT_TAKE(&s->arena, &tokens, all->n, err) ||
      PDT_TAKE(&s->arena, &weight, all->n, err))
    return -1;
  *out = (pdt_nn_targets){.rows = rows, .tokens = tokens, .ce_weight = weight};
  for (int32_t t = 0; t < all->n; t++) {
    if (kinds[t] != kind) continue;
    rows[out->n] = all->rows[t];
    tokens[out->n] = all->tokens[t];
    weight[out->n++] = 1;
  }
  return 0;
}

/* Reads the entry once more, and adds what its tokens cost there. */
static int score_arm(scoring *s, int64_t i, pdt_score_arm arm, const uint8_t *kinds,
                     pdt_nn_sidecar_batch *batch, pdt_error *err) {
  static const pdt_nn_step_options options = {.student_notes = true};
  const pdt_nn_trunk *trunk = s->use->trunk;
  const pdt_nn_targets all = batch->targets;
  pdt_nn_step_sums unused;
  pdt_nn_step_results results;
  batch->targets.n = 1; /* a step reads the text for a loss alone: the smallest */
  if (pdt_nn_sidecar_step(trunk, s->use->sidecar, batch, &options, false, &unused, &results,
                          &s->arena, err))
    return -1;
  for (int kind = 0; kind < PDT_SCORE_KINDS; kind++) {
    sums *to = &s->entries[i * PDT_SCORE_KINDS + kind];
    pdt_nn_targets some;
    pdt_nn_head_sums got;
    if (take_kind(s, &all, kinds, kind, &some, err) ||
        pdt_nn_head_loss(trunk->head, trunk->config.vocab_size, trunk->config.hidden_size,
                         results.states, &some, NULL, &got, &s->arena, err))
      return -1;
    to->tokens = some.n;
    to->loss[arm] = got.ce;
    to->right[arm] = got.right[PDT_NN_OTHER];
  }
  return 0;
}

/* What tokens are is what they are under all notes, whatever they are read under. */
static int score_entry(scoring *s, int64_t i, pdt_error *err) {
  pdt_nn_sidecar_batch batch;
  uint8_t *kinds = NULL;
  pdt_arena_reset(&s->arena);
  for (int arm = 0; arm < PDT_SCORE_ARMS; arm++) {
    if (make_batch(s, i, arm, &batch, err)) return -1;
    if (!kinds) {
      if (PDT_TAKE(&s->arena, &kinds, batch.targets.n, err)) return -1;
      classify(s->data.entries[i], &batch.targets, kinds);
    }
    if (score_arm(s, i, arm, kinds, &batch, err)) return -1;
  }
  return 0;
}

/* The sums of kinds [first, end) of one entry. */
static sums add_kinds(const scoring *s, int64_t i, int first, int end) {
  sums all = {0};
  for (int kind = first; kind < end; kind++) {
    const sums *one = &s->entries[i * PDT_SCORE_KINDS + kind];
    all.tokens += one->tokens;
    for (int arm = 0; arm < PDT_SCORE_ARMS; arm++) {
      all.loss[arm] += one->loss[arm];
      all.right[arm] += one->right[arm];
    }
  }
  return all;
}

/* Figures over all entries. */
static pdt_score_figures figures_of(const scoring *s, int first, int end) {
  pdt_score_figures f = {0};
  pdt_ratio_sums saved[PDT_SCORE_ARMS] = {{0}};
  for (int64_t i = 0; i < s->n; i++) {
    sums one = add_kinds(s, i, first, end);
    f.tokens += one.tokens;
    for (int arm = 0; arm < PDT_SCORE_ARMS; arm++) {
      f.loss[arm] += one.loss[arm];
      f.right[arm] += one.right[arm];
      pdt_ratio_add(&saved[arm], one.loss[arm] - one.loss[PDT_SCORE_NOTES], (double)one.tokens);
    }
  }
  if (f.tokens == 0) return f;
  for (int arm = 0; arm < PDT_SCORE_ARMS; arm++) f.loss[arm] /= (double)f.tokens;
  for (int arm = 0; arm < PDT_SCORE_ARMS; arm++) {
    f.saved[arm] = f.loss[arm] - f.loss[PDT_SCORE_NOTES];
    f.error[arm] = s->n > 1 ? pdt_ratio_error(&saved[arm]) : 0;
  }
  return f;
}

static int score_all(scoring *s, pdt_error *err) {
  const pdt_score_use *use = s->use;
  const pdt_dataset_use dataset = {
      .trunk = use->trunk,
      .tokenizer = use->tokenizer,
      .config = &use->sidecar->config,
      .teacher = {PDT_CODES_EMBEDDING, 0}, /* the last pass reads none */
      .stated = 1,
      .heading = 1};
  pdt_nn_set_threads(use->threads);
  if (pdt_dataset_load(&s->data, &use->data, 1, &dataset, err)) return -1;
  s->n = s->data.n < use->most ? s->data.n : use->most;
  if (PDT_NEW(&s->entries, s->n * PDT_SCORE_KINDS, "scores", err)) return -1;
  for (int64_t i = 0; i < s->n; i++) {
    if (score_entry(s, i, err)) return -1;
    if (use->shown) use->shown(use->context, i + 1, s->n);
  }
  return 0;
}

int pdt_score_read(const pdt_score_use *use, pdt_score *out, pdt_error *err) {
  scoring s = {.use = use};
  *out = (pdt_score){0};
  int rc = score_all(&s, err);
  if (!rc) {
    out->entries = s.n;
    for (int kind = 0; kind < PDT_SCORE_KINDS; kind++)
      out->kinds[kind] = figures_of(&s, kind, kind + 1);
    out->all = figures_of(&s, 0, PDT_SCORE_KINDS);
  }
  free(s.entries);
  pdt_arena_free(&s.arena);
  pdt_dataset_free(&s.data);
  return rc;
}

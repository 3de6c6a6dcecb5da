#include "train/distill.h"

#include <string.h>

/* The sequential texts of a batch, and which of their rows predicts which of its targets. */
typedef struct texts {
  int32_t *begin;        /* [n + 1] */
  pdt_token *tokens;     /* [rows] */
  int32_t *row;          /* [targets]: row that predicts it, -1 behind the trunk's positions */
  int32_t rows, targets; /* so far */
} texts;

static int take(texts *t, const pdt_train_entry *const *entries, int32_t n, pdt_arena *arena,
                pdt_error *err) {
  int64_t rows = 0, targets = 0;
  for (int32_t e = 0; e < n; e++) {
    rows += entries[e]->n_prompt;
    for (int32_t i = 0; i < entries[e]->n_streams; i++) {
      rows += entries[e]->streams[i].n_prefix + entries[e]->streams[i].n_tokens;
      targets += entries[e]->streams[i].n_tokens;
    }
  }
  return PDT_TAKE(arena, &t->begin, n + 1, err) || PDT_TAKE(arena, &t->tokens, rows, err) ||
                 PDT_TAKE(arena, &t->row, targets, err)
             ? -1
             : 0;
}

/* Adds tokens to a text that began at row `begin`, as far as there are positions. */
static void put(texts *t, const pdt_token *tokens, int32_t n, int32_t begin, int32_t positions) {
  for (int32_t j = 0; j < n && t->rows - begin < positions; j++) t->tokens[t->rows++] = tokens[j];
}

static void add_entry(texts *t, const pdt_train_entry *entry, int32_t positions) {
  int32_t begin = t->rows;
  put(t, entry->prompt, entry->n_prompt, begin, positions);
  for (int32_t i = 0; i < entry->n_streams; i++) {
    const pdt_train_stream *s = &entry->streams[i];
    put(t, s->prefix, s->n_prefix, begin, positions);
    for (int32_t j = 0; j < s->n_tokens; j++) {
      bool full = t->rows - begin >= positions;
      t->row[t->targets++] = full ? -1 : t->rows - 1;
      put(t, s->tokens + j, 1, begin, positions);
    }
  }
}

int pdt_train_distill(const pdt_nn_trunk *trunk, const pdt_train_entry *const *entries, int32_t n,
                      double share, const pdt_train_totals *totals, pdt_nn_sidecar_batch *batch,
                      pdt_arena *arena, pdt_error *err) {
  texts t = {0};
  pdt_nn_pass pass;
  int64_t d = trunk->config.hidden_size;
  float *teacher, *weight;
  if (take(&t, entries, n, arena, err)) return -1;
  for (int32_t e = 0; e < n; e++) {
    t.begin[e] = t.rows;
    add_entry(&t, entries[e], trunk->config.max_positions);
  }
  t.begin[n] = t.rows;
  if (t.targets != batch->targets.n)
    return pdt_fail(err, PDT_ERROR_RUNTIME, "distillation: %d tokens, the batch has %d targets",
                    t.targets, batch->targets.n);
  const pdt_nn_sequences sequences = {n, t.begin};
  if (pdt_nn_trunk_forward(trunk, &pass, &sequences, t.tokens, NULL, false, arena, err) ||
      PDT_TAKE(arena, &teacher, t.targets * d, err) || PDT_TAKE(arena, &weight, t.targets, err))
    return -1;
  for (int32_t i = 0; i < t.targets; i++) {
    int32_t row = t.row[i] < 0 ? 0 : t.row[i];
    memcpy(teacher + i * d, pass.hidden + row * d, (size_t)d * sizeof *teacher);
    weight[i] = t.row[i] < 0 || totals->tokens <= 0 ? 0 : (float)(share / totals->tokens);
  }
  batch->targets.teacher = teacher;
  batch->targets.kd_weight = weight;
  return 0;
}

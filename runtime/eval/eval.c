#include "eval/eval.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "eval/internal.h"

/* ---- what rank 0 sees ---- */

static int on_start(void *context, const pdt_running *running, pdt_error *err) {
  pdt_eval_trial *t = context;
  return t->rules->one_stream ? 0 : pdt_eval_session_begin(t, running->index, err);
}

static int on_block(void *context, const pdt_running *running, const pdt_block_report *block,
                    float *readiness, pdt_error *err) {
  pdt_eval_trial *t = context;
  float said = *readiness;
  if (t->rules->no_gate) *readiness = 1;
  if (t->rules->one_stream) return 0;
  const pdt_model_config *model = &pdt_engine_loaded(t->eval->engine)->model;
  const pdt_rollout_emission emission = {
      .stream = block->stream,
      .round = running->session.round,
      .tokens = block->tokens,
      .n = block->n_tokens,
      .ended = pdt_model_is_eos(model, block->tokens[block->n_tokens - 1]),
      .window = running->window_names,
      .n_window = running->n_window};
  if (pdt_eval_session_block(t, running->index, &emission, said, block->coverage, err)) return -1;
  const pdt_rollout_block *label = &t->sessions[running->index].blocks[block->stream];
  if (t->rules->parser_gate)
    *readiness = label->ready && (label->agrees || !t->rules->agree_gate) ? 1 : 0;
  return 0;
}

/* Tells the listener of a block. */
static int tell(const pdt_eval_trial *t, const pdt_running *running, const pdt_block_report *report,
                const pdt_rollout_block *block, pdt_error *err) {
  const pdt_eval *eval = t->eval;
  int32_t entry = t->entries[running->index];
  const pdt_eval_heard heard = {&eval->data->entries[entry], &eval->data->owners[entry], running,
                                report, block};
  return eval->listen ? eval->listen(eval->context, &heard, err) : 0;
}

static int on_round(void *context, const pdt_round_report *report, pdt_error *err) {
  pdt_eval_trial *t = context;
  if (t->rules->one_stream) return 0;
  pdt_eval_session *s = &t->sessions[report->running->index];
  for (pdt_stream k = 0, i = 0; k < s->rollout.owners.streams; k++) {
    const pdt_block_report *block = &report->blocks[i];
    bool emitted = i < report->n_blocks && block->stream == k;
    if (emitted && tell(t, report->running, block, &s->blocks[k], err)) return -1;
    const pdt_stream_state *stream = &report->running->session.streams[k];
    const pdt_rollout_output output = {stream->tokens, stream->n_tokens, stream->n_committed};
    if (pdt_rollout_follow(&s->rollout, k, &output, emitted ? &s->blocks[k] : NULL, err)) return -1;
    i += emitted;
  }
  return 0;
}

static int on_end(void *context, const pdt_running *running, pdt_error *err) {
  pdt_eval_trial *t = context;
  const pdt_stream_state *first = &running->session.streams[0];
  if (t->rules->one_stream)
    return pdt_eval_judge_sequence(t, running->index, first->tokens, first->n_tokens, first->ended,
                                   err);
  bool *ended;
  int32_t K = running->request->settings.streams;
  if (PDT_NEW(&ended, K, "streams", err)) return -1;
  for (pdt_stream k = 0; k < K; k++) ended[k] = running->session.streams[k].ended;
  int rc = pdt_eval_session_end(t, running->index, ended,
                                t->rules->no_plan ? NULL : running->plan.ids, err);
  free(ended);
  return rc;
}

/* ---- a run ---- */

static int run_engine(pdt_eval_trial *t, pdt_error *err) {
  const pdt_observer observer = {.context = t,
                                 .session_started = on_start,
                                 .assess = on_block,
                                 .round_done = on_round,
                                 .session_ended = on_end};
  pdt_run_stats stats;
  int rc = pdt_engine_run_list(t->eval->engine, t->requests, t->n, &observer, &stats, err);
  pdt_eval_add_stats(&t->figures->stats, &stats);
  t->figures->rounds += stats.rounds;
  return rc;
}

/* What the engine does otherwise. A text of all sections goes on behind the token that ends one:
 * of the model's ends, only the last one ends it. */
static void vary(const pdt_eval_trial *t) {
  const pdt_model_config *model = &pdt_engine_loaded(t->eval->engine)->model;
  pdt_engine_variant variant = {.plain = t->rules->plain, .no_snc = t->rules->no_snc};
  if (t->rules->one_stream && model->n_eos > 0) {
    variant.n_ends = 1;
    variant.ends[0] = model->eos[model->n_eos - 1];
  }
  if (t->alteration) {
    variant.alter = t->recording ? pdt_alteration_record : pdt_alteration_act;
    variant.alter_context = t->alteration;
  }
  pdt_engine_vary(t->eval->engine, &variant);
}

/* The same run once more, with nothing altered and nobody told: what its streams write is lent. */
static int record(const pdt_eval_trial *t, pdt_error *err) {
  pdt_eval_figures unread = {0};
  pdt_eval silent = *t->eval;
  pdt_eval_trial first = *t;
  silent.listen = NULL;
  silent.written = NULL;
  first.eval = &silent;
  first.figures = &unread;
  first.recording = true;
  vary(&first);
  int rc = run_engine(&first, err);
  pdt_eval_figures_free(&unread);
  if (rc) return -1;
  pdt_alteration_pair(t->alteration, err);
  return pdt_comm_agree(t->eval->world, err);
}

/* Runs the arm, whose notes are altered. */
static int run_altered(pdt_eval_trial *t, pdt_error *err) {
  pdt_alteration alteration;
  pdt_alteration_new(&alteration, t, err);
  int rc = pdt_comm_agree(t->eval->world, err);
  t->alteration = &alteration;
  if (!rc && pdt_alter_borrows(alteration.mode)) rc = record(t, err);
  vary(t);
  if (!rc) rc = run_engine(t, err);
  t->alteration = NULL;
  pdt_alteration_free(&alteration);
  return rc;
}

static int run_arm(pdt_eval_trial *t, pdt_error *err) {
  if (t->setup->alter != PDT_ALTER_NONE) return run_altered(t, err);
  vary(t);
  return t->setup->arm == PDT_EVAL_TEXT_BUS ? pdt_eval_run_text_bus(t, err) : run_engine(t, err);
}

/* All entries once. */
static int run_seed(const pdt_eval *eval, const pdt_eval_setup *setup, int32_t seed,
                    pdt_eval_figures *out, pdt_error *err) {
  static const pdt_engine_variant as_ever = {0};
  pdt_eval_trial t = {.eval = eval,
                      .setup = setup,
                      .rules = pdt_eval_rules_of(setup->arm),
                      .seed = seed,
                      .figures = out};
  pdt_eval_make_requests(&t, err);
  int rc = pdt_comm_agree(eval->world, err);
  if (!rc && seed == 0) out->settings = t.requests[0].settings;
  if (!rc) rc = run_arm(&t, err);
  pdt_engine_vary(eval->engine, &as_ever);
  pdt_eval_free_requests(&t);
  return rc;
}

int pdt_eval_run(const pdt_eval *eval, const pdt_eval_setup *setup, pdt_eval_figures *out,
                 pdt_error *err) {
  int64_t n = eval->data->n;
  PDT_CHECK_SAME(eval->world, setup->arm);
  PDT_CHECK_SAME(eval->world, setup->streams);
  PDT_CHECK_SAME(eval->world, setup->alter);
  PDT_CHECK_SAME(eval->world, setup->seeds);
  *out = (pdt_eval_figures){.auc = NAN, .auc_agrees = NAN};
  (void)PDT_NEW(&out->tally, n, "entries", err);
  int rc = pdt_comm_agree(eval->world, err);
  for (int32_t seed = 0; (seed == 0 || seed < setup->seeds) && !rc; seed++)
    rc = run_seed(eval, setup, seed, out, err);
  if (rc) return -1;
  out->counts.contradicted = (pdt_ratio_sums){0};
  for (int64_t i = 0; i < n; i++)
    if (out->tally[i].taken)
      pdt_ratio_add(&out->counts.contradicted, out->tally[i].contradictions, out->tally[i].uses);
  out->coverage_auc = pdt_judge_auc(&out->block_scores, false);
  out->coverage_precision = pdt_judge_average_precision(&out->block_scores);
  if (pdt_eval_rules_of(setup->arm)->plain) return 0;
  out->auc = pdt_judge_auc(&out->readiness, false);
  out->auc_agrees = pdt_judge_auc(&out->readiness, true);
  return 0;
}

/* ---- figures ---- */

void pdt_eval_figures_free(pdt_eval_figures *f) {
  free(f->tally);
  pdt_judge_scores_free(&f->readiness);
  pdt_judge_scores_free(&f->block_scores);
  pdt_judge_scores_free(&f->slot_scores);
  *f = (pdt_eval_figures){0};
}

int pdt_eval_difference(const pdt_eval_figures *a, const pdt_eval_figures *b, int64_t n,
                        pdt_ratio *out, pdt_error *err) {
  double *x;
  int64_t m = 0;
  if (PDT_NEW(&x, 4 * n, "differences", err)) return -1;
  for (int64_t i = 0; i < n; i++) {
    if (!a->tally[i].taken || !b->tally[i].taken) continue;
    x[m] = a->tally[i].contradictions;
    x[n + m] = a->tally[i].uses;
    x[2 * n + m] = b->tally[i].contradictions;
    x[3 * n + m] = b->tally[i].uses;
    m++;
  }
  *out = pdt_ratio_difference(x, x + n, x + 2 * n, x + 3 * n, m);
  free(x);
  return 0;
}

void pdt_eval_add_stats(pdt_run_stats *sum, const pdt_run_stats *s) {
  sum->boundaries += s->boundaries;
  sum->rounds += s->rounds;
  sum->commits += s->commits;
  sum->holds += s->holds;
  sum->rollbacks += s->rollbacks;
  sum->forced += s->forced;
  sum->stalls += s->stalls;
  sum->out_of_rounds += s->out_of_rounds;
  sum->stopped += s->stopped;
  sum->failed += s->failed;
  sum->committed_tokens += s->committed_tokens;
  sum->emitted_tokens += s->emitted_tokens;
  sum->prompt_tokens += s->prompt_tokens;
  sum->draft_steps += s->draft_steps;
  sum->drafted += s->drafted;
  sum->drafts_right += s->drafts_right;
  sum->seconds += s->seconds;
  sum->prompt_seconds += s->prompt_seconds;
  sum->round_seconds += s->round_seconds;
  sum->trunk_seconds += s->trunk_seconds;
  sum->draft_seconds += s->draft_seconds;
  sum->sidecar_seconds += s->sidecar_seconds;
  sum->exchange_seconds += s->exchange_seconds;
  sum->boundary_seconds += s->boundary_seconds;
}

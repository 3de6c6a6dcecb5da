#include "run/eval_output.h"

#include <math.h>
#include <stdlib.h>

#include "base/json.h"
#include "base/text_safe.h"
#include "request/setting_table.h"

/* A row's label, the first column of every table. */
#define LABEL "%-28s"

static double share(int64_t some, int64_t all) {
  return all > 0 ? (double)some / (double)all : NAN;
}

/* A number in a column of `width`, "-" where there is none. */
static void cell(FILE *out, int width, int decimals, double value) {
  if (isfinite(value))
    fprintf(out, " %*.*f", width, decimals, value);
  else
    fprintf(out, " %*s", width, "-");
}

static int64_t blocks_of(const pdt_run_stats *s) {
  return s->commits + s->holds + s->rollbacks + s->forced;
}

void pdt_eval_print_head(FILE *out, const pdt_eval_entries *data, const pdt_eval_options *options) {
  pdt_say(out,
          "# %s: %lld entries%s%s%s; %%: contradictions of uses (95%% interval), facts missing, "
          "sentences malformed, entries with anything wrong, blocks rolled back, held, forced; "
          "stream-rounds stalled a block",
          options->data, (long long)data->n, data->header.split ? ", split " : "",
          data->header.split ? data->header.split : "", data->header.hard ? ", hard" : "");
  fprintf(out, LABEL " %7s %5s %6s %6s %5s %6s %6s %5s %5s %5s %6s %6s %6s %6s %6s %6s %6s %8s\n",
          "#arm", "contra%", "+-", "uses", "miss%", "dup", "malf%", "wrong%", "covP", "covR",
          "covF1", "aucRun", "aucTF", "slots%", "roll%", "hold%", "stall%", "force%", "tok/s");
}

void pdt_eval_print_row(FILE *out, const pdt_eval_row *row) {
  const pdt_eval_figures *f = &row->figures;
  const pdt_judge_counts *c = &f->counts;
  const pdt_run_stats *s = &f->stats;
  const pdt_ratio contradictions = pdt_judge_contradictions(c);
  int64_t blocks = blocks_of(s);
  fprintf(out, LABEL, row->options->label);
  cell(out, 7, 2, 100 * contradictions.share);
  cell(out, 5, 2, 100 * contradictions.half);
  fprintf(out, " %6lld", (long long)c->uses);
  cell(out, 6, 2, 100 * share(c->missing, c->facts));
  fprintf(out, " %5lld", (long long)c->duplicates);
  cell(out, 6, 2, 100 * share(c->malformed, c->sentences));
  cell(out, 6, 2, 100 * share(c->flawed, c->entries));
  cell(out, 5, 3, pdt_judge_precision(&f->block_coverage));
  cell(out, 5, 3, pdt_judge_recall(&f->block_coverage));
  cell(out, 5, 3, pdt_judge_f1(&f->block_coverage));
  cell(out, 6, 4, f->auc);
  cell(out, 6, 4, row->teacher ? row->teacher->auc : NAN);
  cell(out, 6, 2, 100 * share(f->right_slots, f->true_slots));
  cell(out, 6, 2, 100 * share(s->rollbacks, blocks));
  cell(out, 6, 2, 100 * share(s->holds, blocks));
  cell(out, 6, 2, 100 * share(s->stalls, blocks));
  cell(out, 6, 2, 100 * share(s->forced, blocks));
  cell(out, 8, 1, (double)s->committed_tokens / (s->seconds > 0 ? s->seconds : 1));
  fputc('\n', out);
}

void pdt_eval_print_causes(FILE *out, const pdt_eval_row *rows, int32_t n) {
  fprintf(out, "# why contradictions came about: no statement's note was visible at the name's "
               "first token (in one text, none was written yet); it was withdrawn later; its block "
               "states two facts; the stated name was split over two blocks; first token right, a "
               "later one wrong; another name of the type; none of its names; mistaken: all that "
               "tell another name of the type\n");
  fprintf(out, LABEL " %7s", "#arm", "all");
  for (int i = 0; i < PDT_JUDGE_CAUSES; i++)
    fprintf(out, " %9s", pdt_judge_cause_name((pdt_judge_cause)i));
  fprintf(out, " %9s\n", "mistaken");
  for (int32_t r = 0; r < n; r++) {
    const pdt_judge_counts *c = &rows[r].figures.counts;
    fprintf(out, LABEL " %7lld", rows[r].options->label, (long long)c->contradictions);
    for (int i = 0; i < PDT_JUDGE_CAUSES; i++) fprintf(out, " %9lld", (long long)c->causes[i]);
    fprintf(out, " %9lld\n", (long long)c->mistaken);
  }
}

/* The figures of names in the file's own text, which are the same for all rows that have them. */
static void print_read_names(FILE *out, const pdt_eval_row *rows, int32_t n) {
  const pdt_teacher_forced *t = NULL;
  for (int32_t r = 0; r < n && !t; r++) t = rows[r].teacher;
  if (!t || t->tokens[PDT_NN_USE] == 0) return;
  fprintf(out, "# the file's own names, under the notes that the sidecar writes: of %lld uses",
          (long long)t->tokens[PDT_NN_USE]);
  cell(out, 1, 2, 100 * share(t->right[PDT_NN_USE], t->tokens[PDT_NN_USE]));
  fprintf(out, "%% begin right");
  if (t->tokens[PDT_NN_LATER] > 0) {
    fprintf(out, ", of %lld later tokens", (long long)t->tokens[PDT_NN_LATER]);
    cell(out, 1, 2, 100 * share(t->right[PDT_NN_LATER], t->tokens[PDT_NN_LATER]));
    fprintf(out, "%% are");
  }
  fputc('\n', out);
}

void pdt_eval_print_names(FILE *out, const pdt_eval_row *rows, int32_t n) {
  fprintf(out, "# uses by the name that the fact's own section states, and what part of them is "
               "contradicted: names of training; names held out of it; names that no list has\n");
  fprintf(out, LABEL " %8s %7s %8s %7s %8s %7s\n", "#arm", "seen", "%", "held-out", "%", "unlisted",
          "%");
  for (int32_t r = 0; r < n; r++) {
    const pdt_judge_counts *c = &rows[r].figures.counts;
    const int64_t bad[] = {c->contradictions - c->held_out_contradictions -
                               c->unlisted_contradictions,
                           c->held_out_contradictions, c->unlisted_contradictions};
    const int64_t uses[] = {c->uses - c->held_out_uses - c->unlisted_uses, c->held_out_uses,
                            c->unlisted_uses};
    fprintf(out, LABEL, rows[r].options->label);
    for (int i = 0; i < 3; i++) {
      fprintf(out, " %8lld", (long long)uses[i]);
      cell(out, 7, 2, 100 * share(bad[i], uses[i]));
    }
    fputc('\n', out);
  }
  print_read_names(out, rows, n);
}

/* What an altered row's notes did to the file's own text; NULL: not known. */
static const pdt_altered *altered_of(const pdt_eval_row *row) {
  pdt_alter_mode mode = row->options->setup.alter;
  return row->teacher && mode != PDT_ALTER_NONE ? &row->teacher->altered[mode] : NULL;
}

/* A change with its interval, and what it left. */
static void print_tokens(FILE *out, const pdt_altered_tokens *t) {
  const pdt_ratio none = {NAN, NAN}, change = t ? pdt_ratio_of(&t->change) : none;
  cell(out, 8, 3, change.share);
  cell(out, 6, 3, change.half);
  cell(out, 6, 3, t ? pdt_ratio_of(&t->under).share : NAN);
}

static void print_altered(FILE *out, const pdt_eval_row *row) {
  const pdt_judge_counts *c = &row->figures.counts;
  const pdt_ratio contradictions = pdt_judge_contradictions(c);
  const pdt_altered *a = altered_of(row);
  fprintf(out, LABEL, row->options->label);
  cell(out, 7, 2, 100 * contradictions.share);
  cell(out, 5, 2, 100 * contradictions.half);
  print_tokens(out, a ? &a->siblings : NULL);
  print_tokens(out, a ? &a->elsewhere : NULL);
  fprintf(out, " %6lld", (long long)c->lent_uses);
  cell(out, 6, 2, 100 * share(c->lent_own, c->lent_uses));
  cell(out, 6, 2, 100 * share(c->lent_followed, c->lent_uses));
  fputc('\n', out);
}

/* What its streams told each other, if what they told were their notes; their tokens; or these
 * tokens' keys and values: bytes an entry. */
typedef struct told_bytes {
  double notes, tokens, keys_values;
} told_bytes;

static told_bytes told_of(const pdt_eval_row *row) {
  const pdt_eval_figures *f = &row->figures;
  double entries = (double)f->counts.entries, tokens = (double)f->stats.committed_tokens / entries;
  double notes = pdt_eval_arm_has_notes(row->options->setup.arm)
                     ? (double)blocks_of(&f->stats) / entries
                     : NAN; /* none was written */
  return (told_bytes){notes * (double)row->note_bytes, tokens * (double)sizeof(pdt_token),
                      tokens * (double)row->kv_bytes};
}

void pdt_eval_print_bus(FILE *out, const pdt_eval_row *rows, int32_t n) {
  bool any = false;
  for (int32_t r = 0; r < n; r++) any = any || rows[r].options->setup.alter != PDT_ALTER_NONE;
  if (!any) return;
  fprintf(out,
          "# what notes carry: contradictions; change of cross-entropy on the file's own text, and "
          "what it is then, nats a token, of tokens that depend on siblings (facts that their "
          "notes have told) and of all others; of uses of facts that were lent, those that tell "
          "the owner's value, and those that follow the notes. The author's marks: zero 0.75 or "
          "more on dependent tokens, 0.25 or less elsewhere; swap: the receiver follows\n");
  fprintf(out, LABEL " %7s %5s %8s %6s %6s %8s %6s %6s %6s %6s %6s\n", "#arm", "contra%", "+-",
          "siblings", "+-", "nats", "others", "+-", "nats", "lent", "own%", "swap%");
  for (int32_t r = 0; r < n; r++) print_altered(out, &rows[r]);
  fprintf(out, "# bytes an entry, if what siblings are told were\n");
  fprintf(out, LABEL " %7s %8s %8s %10s\n", "#arm", "contra%", "notes", "tokens", "their-k/v");
  for (int32_t r = 0; r < n; r++) {
    if (rows[r].options->setup.alter != PDT_ALTER_NONE) continue;
    const told_bytes told = told_of(&rows[r]);
    fprintf(out, LABEL, rows[r].options->label);
    cell(out, 7, 2, 100 * pdt_judge_contradictions(&rows[r].figures.counts).share);
    cell(out, 8, 0, told.notes);
    cell(out, 8, 0, told.tokens);
    cell(out, 10, 0, told.keys_values);
    fputc('\n', out);
  }
}

void pdt_eval_print_differences(FILE *out, const pdt_eval_row *rows, int32_t n) {
  if (n < 2) return;
  fprintf(out, "# contradictions less those of %s, points, paired by entry (95%% interval)\n",
          rows[0].options->label);
  fprintf(out, LABEL " %7s %5s\n", "#arm", "points", "+-");
  for (int32_t r = 1; r < n; r++) {
    fprintf(out, LABEL, rows[r].options->label);
    cell(out, 7, 2, 100 * rows[r].difference.share);
    cell(out, 5, 2, 100 * rows[r].difference.half);
    fputc('\n', out);
  }
}

/* Where curves have their points: chances, of coverage those of its logits. */
static const double thresholds[] = {0.01, 0.05, 0.1, 0.2, 0.3,  0.4,  0.5,
                                    0.6,  0.7,  0.8, 0.9, 0.95, 0.99, 0.999};
enum { THRESHOLDS = sizeof thresholds / sizeof *thresholds };

/* A threshold's point on the curve of coverage. */
typedef struct coverage_point {
  pdt_judge_retrieval blocks;
  int64_t slots, missing, twice;
} coverage_point;

/* Over a plan's slots: where slots that no block is said to cover were asked for again, and the
 * others not, so many facts would stay missing, and so many come twice. */
static coverage_point coverage_at(const pdt_eval_figures *f, double chance) {
  double logit = log(chance / (1 - chance));
  const pdt_judge_cut b = pdt_judge_cut_at(&f->block_scores, logit, false);
  const pdt_judge_cut s = pdt_judge_cut_at(&f->slot_scores, logit, false);
  return (coverage_point){{b.true_above, b.false_above, b.true_below},
                          (int64_t)f->slot_scores.n,
                          s.false_above,
                          s.true_below};
}

void pdt_eval_print_curves(FILE *out, const pdt_eval_row *row) {
  const pdt_eval_figures *f = &row->figures;
  if (f->block_scores.n > 0) {
    fprintf(out,
            "# %s: coverage over its threshold: of blocks; and of the plan's slots, facts that "
            "would stay missing or come twice, if those that no block covers were asked for "
            "again, and only those (average precision %.4f, AUC %.4f)\n",
            row->options->label, f->coverage_precision, f->coverage_auc);
    fprintf(out, "%-10s %9s %9s %9s %9s\n", "#threshold", "precision", "recall", "missing%",
            "twice%");
    for (int i = 0; i < THRESHOLDS; i++) {
      const coverage_point p = coverage_at(f, thresholds[i]);
      fprintf(out, "%-10g", thresholds[i]);
      cell(out, 9, 4, pdt_judge_precision(&p.blocks));
      cell(out, 9, 4, pdt_judge_recall(&p.blocks));
      cell(out, 9, 3, 100 * share(p.missing, p.slots));
      cell(out, 9, 3, 100 * share(p.twice, p.slots));
      fputc('\n', out);
    }
  }
  if (!pdt_eval_arm_has_notes(row->options->setup.arm)) return;
  fprintf(out,
          "# %s: of blocks that are not ready, or contradict what is visible, those that a gate "
          "at gamma catches; of the others, those that it rejects\n",
          row->options->label);
  fprintf(out, "%-10s %9s %9s\n", "#gamma", "caught%", "rejected%");
  for (int i = 0; i < THRESHOLDS; i++) {
    const pdt_judge_cut c = pdt_judge_cut_at(&f->readiness, thresholds[i], true);
    fprintf(out, "%-10g", thresholds[i]);
    cell(out, 9, 2, 100 * share(c.false_below, c.false_below + c.false_above));
    cell(out, 9, 2, 100 * share(c.true_below, c.true_below + c.true_above));
    fputc('\n', out);
  }
}

int pdt_eval_print_text(FILE *out, const char *row, const pdt_eval_written *w, pdt_error *err) {
  json_t *sections = json_array();
  for (int32_t k = 0; k < w->entry->n_sections; k++) {
    const pdt_judge_section *s = &w->sections[k];
    const pdt_buffer *text = &s->text->text;
    json_array_append_new(sections, json_pack("{s:s,s:s%,s:b}", "name", w->entry->sections[k].name,
                                              "text", text->data ? text->data : "",
                                              (size_t)text->bytes, "finished", !s->unfinished));
  }
  json_t *json = json_pack("{s:s,s:s,s:o,s:I,s:I,s:o}", "row", row, "entry", w->entry->id, "seed",
                           pdt_json_u64(w->seed), "uses", (json_int_t)w->uses, "contradictions",
                           (json_int_t)w->contradictions, "sections", sections);
  bool whole = json && json_array_size(sections) == (size_t)w->entry->n_sections;
  int bad = !whole || pdt_json_print(json, out, JSON_COMPACT);
  json_decref(json);
  if (bad) return pdt_fail(err, PDT_ERROR_MEMORY, "%s: no memory", w->entry->id);
  fputc('\n', out);
  return 0;
}

void pdt_eval_print_work(FILE *out, const pdt_eval_row *rows, int32_t n) {
  fprintf(out,
          "# tokens emitted, committed, and read as prompts (a text bus reads everything again "
          "in every round); rounds of an entry; of a section, coverage over all its blocks; "
          "aucAgr: label is ready, and agrees with what was visible; of sections whose heading "
          "is left to their stream, those that it calls as planned\n");
  fprintf(out, LABEL " %8s %8s %8s %7s %8s %5s %5s %6s %8s %8s %7s\n", "#arm", "emitted", "commit",
          "read", "rounds", "seconds", "secP", "secR", "aucAgr", "unstated", "unfin", "titled%");
  for (int32_t r = 0; r < n; r++) {
    const pdt_eval_figures *f = &rows[r].figures;
    fprintf(out, LABEL " %8lld %8lld %8lld", rows[r].options->label,
            (long long)f->stats.emitted_tokens, (long long)f->stats.committed_tokens,
            (long long)f->stats.prompt_tokens);
    cell(out, 7, 2, share(f->rounds, f->counts.entries));
    cell(out, 8, 2, f->stats.seconds);
    cell(out, 5, 3, pdt_judge_precision(&f->section_coverage));
    cell(out, 5, 3, pdt_judge_recall(&f->section_coverage));
    cell(out, 6, 4, f->auc_agrees);
    fprintf(out, " %8lld %8lld", (long long)f->counts.unstated, (long long)f->counts.unfinished);
    cell(out, 7, 2, 100 * share(f->counts.titled, f->counts.untitled));
    fputc('\n', out);
  }
}

static json_t *retrieval_json(const pdt_judge_retrieval *r) {
  return json_pack(
      "{s:o,s:o,s:o,s:I,s:I,s:I}", "precision", pdt_json_number(pdt_judge_precision(r)), "recall",
      pdt_json_number(pdt_judge_recall(r)), "f1", pdt_json_number(pdt_judge_f1(r)), "hit",
      (json_int_t)r->hit, "wrong", (json_int_t)r->wrong, "missed", (json_int_t)r->missed);
}

/* Uses, of them contradictions, and their share. */
static json_t *uses_json(int64_t uses, int64_t contradictions) {
  return json_pack("{s:I,s:I,s:o}", "uses", (json_int_t)uses, "contradictions",
                   (json_int_t)contradictions, "contradiction",
                   pdt_json_number(share(contradictions, uses)));
}

/* By what the owner states. */
static json_t *names_json(const pdt_judge_counts *c) {
  int64_t uses = c->uses - c->held_out_uses - c->unlisted_uses;
  int64_t bad = c->contradictions - c->held_out_contradictions - c->unlisted_contradictions;
  return json_pack("{s:o,s:o,s:o}", "seen", uses_json(uses, bad), "held_out",
                   uses_json(c->held_out_uses, c->held_out_contradictions), "unlisted",
                   uses_json(c->unlisted_uses, c->unlisted_contradictions));
}

static json_t *judged_json(const pdt_judge_counts *c) {
  const pdt_ratio share = pdt_judge_contradictions(c);
  json_t *causes = json_object();
  for (int i = 0; i < PDT_JUDGE_CAUSES; i++)
    json_object_set_new(causes, pdt_judge_cause_name((pdt_judge_cause)i),
                        json_integer(c->causes[i]));
  return json_pack(
      "{s:o,s:o,s:I,s:I,s:I,s:o,s:o,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}",
      "contradiction", pdt_json_number(share.share), "half_95", pdt_json_number(share.half), "uses",
      (json_int_t)c->uses, "contradictions", (json_int_t)c->contradictions, "mistaken",
      (json_int_t)c->mistaken, "causes", causes, "names", names_json(c), "facts",
      (json_int_t)c->facts, "missing", (json_int_t)c->missing, "duplicates",
      (json_int_t)c->duplicates, "sentences", (json_int_t)c->sentences, "malformed",
      (json_int_t)c->malformed, "strays", (json_int_t)c->strays, "unstated",
      (json_int_t)c->unstated, "ownerless", (json_int_t)c->ownerless, "sections",
      (json_int_t)c->sections, "unfinished", (json_int_t)c->unfinished, "untitled",
      (json_int_t)c->untitled, "titled", (json_int_t)c->titled, "flawed_entries",
      (json_int_t)c->flawed);
}

/* What the run did; shares are of blocks emitted. */
static json_t *run_json(const pdt_eval_figures *f) {
  const pdt_run_stats *s = &f->stats;
  int64_t blocks = blocks_of(s);
  double seconds = s->seconds > 0 ? s->seconds : 1;
  return json_pack(
      "{s:I,s:o,s:o,s:o,s:o,s:o,s:I,s:I,s:I,s:o,s:f,s:f,s:f}", "blocks", (json_int_t)blocks,
      "commit", pdt_json_number(share(s->commits, blocks)), "rollback",
      pdt_json_number(share(s->rollbacks, blocks)), "hold",
      pdt_json_number(share(s->holds, blocks)), "stall", pdt_json_number(share(s->stalls, blocks)),
      "forced", pdt_json_number(share(s->forced, blocks)), "tokens_emitted",
      (json_int_t)s->emitted_tokens, "tokens_committed", (json_int_t)s->committed_tokens,
      "tokens_read", (json_int_t)s->prompt_tokens, "rounds_per_entry",
      pdt_json_number(share(f->rounds, f->counts.entries)), "seconds", s->seconds, "tokens_per_s",
      (double)s->committed_tokens / seconds, "read_per_s", (double)s->prompt_tokens / seconds);
}

static json_t *readiness_json(const pdt_eval_figures *f) {
  return json_pack("{s:o,s:o,s:I,s:I}", "auc", pdt_json_number(f->auc), "auc_agrees",
                   pdt_json_number(f->auc_agrees), "blocks", (json_int_t)f->labelled, "ready",
                   (json_int_t)f->ready);
}

static json_t *teacher_json(const pdt_teacher_forced *t) {
  if (!t) return json_null();
  int64_t tokens = 0, right = 0;
  for (int i = 0; i < PDT_NN_KINDS; i++) {
    tokens += t->tokens[i];
    right += t->right[i];
  }
  return json_pack(
      "{s:o,s:I,s:I,s:o,s:o,s:o,s:o,s:o,s:I}", "auc", pdt_json_number(t->auc), "blocks",
      (json_int_t)t->blocks, "ready", (json_int_t)t->ready, "coverage",
      retrieval_json(&t->coverage), "slots", pdt_json_number(share(t->slots_right, t->slots)),
      "tokens_right", pdt_json_number(share(right, tokens)), "uses_right",
      pdt_json_number(share(t->right[PDT_NN_USE], t->tokens[PDT_NN_USE])), "later_right",
      pdt_json_number(share(t->right[PDT_NN_LATER], t->tokens[PDT_NN_LATER])), "entries",
      (json_int_t)t->entries);
}

static json_t *change_json(const pdt_altered_tokens *t) {
  const pdt_ratio change = pdt_ratio_of(&t->change);
  return json_pack("{s:o,s:o,s:o,s:I}", "nats", pdt_json_number(change.share), "half_95",
                   pdt_json_number(change.half), "under",
                   pdt_json_number(pdt_ratio_of(&t->under).share), "tokens",
                   (json_int_t)t->change.x);
}

/* What was done to notes; null where they are as they were written. */
static json_t *bus_json(const pdt_eval_row *row) {
  const pdt_judge_counts *c = &row->figures.counts;
  const pdt_altered *a = altered_of(row);
  if (row->options->setup.alter == PDT_ALTER_NONE) return json_null();
  json_t *change = a ? json_pack("{s:I,s:o,s:o}", "entries", (json_int_t)a->entries, "siblings",
                                 change_json(&a->siblings), "others", change_json(&a->elsewhere))
                     : json_null();
  return json_pack("{s:s,s:o,s:I,s:I,s:I}", "mode", pdt_alter_name(row->options->setup.alter),
                   "change", change, "lent_uses", (json_int_t)c->lent_uses, "own",
                   (json_int_t)c->lent_own, "followed", (json_int_t)c->lent_followed);
}

static json_t *told_json(const pdt_eval_row *row) {
  const told_bytes told = told_of(row);
  return json_pack("{s:o,s:o,s:o}", "notes", pdt_json_number(told.notes), "tokens",
                   pdt_json_number(told.tokens), "keys_values", pdt_json_number(told.keys_values));
}

static json_t *coverage_curve_json(const pdt_eval_figures *f) {
  json_t *points = json_array();
  if (f->block_scores.n == 0) {
    json_decref(points);
    return json_null();
  }
  for (int i = 0; i < THRESHOLDS; i++) {
    const coverage_point p = coverage_at(f, thresholds[i]);
    json_array_append_new(points,
                          json_pack("{s:f,s:o,s:o,s:I,s:I,s:I}", "threshold", thresholds[i],
                                    "precision", pdt_json_number(pdt_judge_precision(&p.blocks)),
                                    "recall", pdt_json_number(pdt_judge_recall(&p.blocks)), "slots",
                                    (json_int_t)p.slots, "missing", (json_int_t)p.missing, "twice",
                                    (json_int_t)p.twice));
  }
  return json_pack("{s:o,s:o,s:o}", "average_precision", pdt_json_number(f->coverage_precision),
                   "auc", pdt_json_number(f->coverage_auc), "points", points);
}

static json_t *gate_curve_json(const pdt_eval_figures *f) {
  json_t *points = json_array();
  for (int i = 0; i < THRESHOLDS; i++) {
    const pdt_judge_cut c = pdt_judge_cut_at(&f->readiness, thresholds[i], true);
    json_array_append_new(points, json_pack("{s:f,s:I,s:I,s:I,s:I}", "gamma", thresholds[i], "bad",
                                            (json_int_t)(c.false_below + c.false_above), "caught",
                                            (json_int_t)c.false_below, "good",
                                            (json_int_t)(c.true_below + c.true_above), "rejected",
                                            (json_int_t)c.true_below));
  }
  return points;
}

static json_t *difference_json(const pdt_eval_row *row) {
  if (!isfinite(row->difference.share)) return json_null();
  return json_pack("{s:f,s:o}", "share", row->difference.share, "half_95",
                   pdt_json_number(row->difference.half));
}

/* Those of every entry alike: how many streams there are, its sections say. */
static json_t *settings_json(const pdt_settings *s) {
  json_t *json = pdt_settings_json(s);
  (void)json_object_del(json, "streams");
  return json;
}

int pdt_eval_print_json(FILE *out, const pdt_eval_row *row, bool curves, pdt_error *err) {
  const pdt_eval_figures *f = &row->figures;
  json_t *json = json_pack(
      "{s:s,s:s,s:I,s:o,s:o,s:o,s:{s:o,s:o},s:o,s:o,s:o,s:o,s:o,s:o}", "row", row->options->label,
      "arm", pdt_eval_arm_name(row->options->setup.arm), "entries", (json_int_t)f->counts.entries,
      "settings", settings_json(&f->settings), "judged", judged_json(&f->counts), "readiness",
      readiness_json(f), "coverage", "blocks", retrieval_json(&f->block_coverage), "sections",
      retrieval_json(&f->section_coverage), "slots",
      pdt_json_number(share(f->right_slots, f->true_slots)), "run", run_json(f), "teacher_forced",
      teacher_json(row->teacher), "bus", bus_json(row), "bytes_per_entry", told_json(row),
      "difference", difference_json(row));
  if (json && curves) {
    json_object_set_new(json, "coverage_curve", coverage_curve_json(f));
    json_object_set_new(json, "gate_curve", gate_curve_json(f));
  }
  int bad = !json || pdt_json_print(json, out, JSON_COMPACT | JSON_REAL_PRECISION(9));
  json_decref(json);
  if (bad) return pdt_fail(err, PDT_ERROR_MEMORY, "%s: no memory", row->options->label);
  fputc('\n', out);
  return 0;
}

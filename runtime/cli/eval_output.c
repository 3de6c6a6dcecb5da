#include "cli/eval_output.h"

#include <math.h>
#include <stdlib.h>

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
  fprintf(out,
          "# %s: %lld entries%s%s%s; %%: contradictions of uses (95%% interval), facts missing, "
          "sentences malformed, blocks rolled back, held, forced; stream-rounds stalled a block\n",
          options->data, (long long)data->n, data->header.split ? ", split " : "",
          data->header.split ? data->header.split : "", data->header.hard ? ", hard" : "");
  fprintf(out, "%-22s %7s %5s %6s %6s %5s %6s %5s %5s %5s %6s %6s %6s %6s %6s %6s %6s %8s\n",
          "#arm", "contra%", "+-", "uses", "miss%", "dup", "malf%", "covP", "covR", "covF1",
          "aucRun", "aucTF", "slots%", "roll%", "hold%", "stall%", "force%", "tok/s");
}

void pdt_eval_print_row(FILE *out, const pdt_eval_row *row) {
  const pdt_eval_figures *f = &row->figures;
  const pdt_judge_counts *c = &f->counts;
  const pdt_run_stats *s = &f->stats;
  const pdt_judge_share contradictions = pdt_judge_contradictions(c);
  int64_t blocks = blocks_of(s);
  fprintf(out, "%-22s", row->options->label);
  cell(out, 7, 2, 100 * contradictions.share);
  cell(out, 5, 2, 100 * contradictions.half);
  fprintf(out, " %6lld", (long long)c->uses);
  cell(out, 6, 2, 100 * share(c->missing, c->facts));
  fprintf(out, " %5lld", (long long)c->duplicates);
  cell(out, 6, 2, 100 * share(c->malformed, c->sentences));
  cell(out, 5, 3, pdt_judge_precision(&f->block_coverage));
  cell(out, 5, 3, pdt_judge_recall(&f->block_coverage));
  cell(out, 5, 3, pdt_judge_f1(&f->block_coverage));
  cell(out, 6, 4, f->auc);
  cell(out, 6, 4, NAN);
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
               "first token; it was withdrawn later; its block states two facts; the stated name "
               "was split over two blocks; first token right, a later one wrong; other\n");
  fprintf(out, "%-22s %7s", "#arm", "all");
  for (int i = 0; i < PDT_JUDGE_CAUSES; i++)
    fprintf(out, " %9s", pdt_judge_cause_name((pdt_judge_cause)i));
  fputc('\n', out);
  for (int32_t r = 0; r < n; r++) {
    const pdt_judge_counts *c = &rows[r].figures.counts;
    fprintf(out, "%-22s %7lld", rows[r].options->label, (long long)c->contradictions);
    for (int i = 0; i < PDT_JUDGE_CAUSES; i++) fprintf(out, " %9lld", (long long)c->causes[i]);
    fputc('\n', out);
  }
}

int pdt_eval_print_json(FILE *out, const pdt_eval_row *row, pdt_error *err) {
  (void)out;
  (void)row;
  (void)err;
  return 0;
}

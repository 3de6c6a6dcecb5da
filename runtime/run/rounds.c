#include "run/rounds.h"

#include <stdlib.h>
#include <string.h>

#include "base/text_safe.h"

static const char *const actions[] = {[PDT_ACTION_NONE] = "",
                                      [PDT_ACTION_COMMIT] = "commit",
                                      [PDT_ACTION_HOLD] = "hold",
                                      [PDT_ACTION_ROLLBACK] = "roll back",
                                      [PDT_ACTION_FORCE] = "force"};

static int print_text(FILE *out, const pdt_block_report *b, const pdt_tokenizer *tokenizer,
                      pdt_error *err) {
  char *text;
  size_t bytes;
  if (!tokenizer) {
    for (int32_t i = 0; i < b->n_tokens; i++) fprintf(out, " %d", b->tokens[i]);
    return 0;
  }
  if (pdt_tokenizer_decode(tokenizer, b->tokens, b->n_tokens, false, &text, &bytes, err)) return -1;
  for (size_t i = 0; i < bytes; i++)
    if (text[i] == '\n' || text[i] == '\t') text[i] = ' ';
  pdt_put_shown(out, text, bytes);
  free(text);
  return 0;
}

int pdt_rounds_print(FILE *out, const pdt_round_report *report, bool many,
                     const pdt_tokenizer *tokenizer, pdt_error *err) {
  const pdt_running *s = report->running;
  fprintf(out, "session %llu", (unsigned long long)s->request->session);
  if (many) fprintf(out, " (request %d)", s->index);
  fprintf(out, ", round %d: %d notes in the window, gate %s\n", report->round, s->n_window,
          report->gate ? "passed" : "failed");
  for (int32_t i = 0; i < report->n_blocks; i++) {
    const pdt_block_report *b = &report->blocks[i];
    fprintf(out, "  stream %d  %-9s  readiness %.3f ", b->stream, actions[b->action],
            (double)b->readiness);
    if (print_text(out, b, tokenizer, err)) return -1;
    if (b->attempt > 0) fprintf(out, "  (attempt %d)", b->attempt + 1);
    fputc('\n', out);
  }
  return 0;
}

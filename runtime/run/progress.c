#include "run/progress.h"

#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "run/terminal.h"

enum { MAX_LINES = 24 };

void pdt_progress_start(pdt_progress *p, bool wanted, int32_t n_requests) {
  *p = (pdt_progress){.on = wanted && pdt_on_terminal(STDERR_FILENO), .n_requests = n_requests};
  p->started = pdt_seconds();
}

void pdt_progress_stop(pdt_progress *p) {
  if (!p->on || p->lines == 0) return;
  fprintf(stderr, "\033[%dA\033[J", p->lines);
  fflush(stderr);
  p->lines = 0;
}

void pdt_progress_session_ended(pdt_progress *p) {
  p->ended++;
}

/* What happened to a stream in this round. */
static const pdt_block_report *block_of(const pdt_round_report *report, pdt_stream k) {
  for (int32_t i = 0; i < report->n_blocks; i++)
    if (report->blocks[i].stream == k) return &report->blocks[i];
  return NULL;
}

/* A bar of `width` characters: committed tokens, then pending ones. */
static void draw_bar(int32_t committed, int32_t pending, int32_t most, int width) {
  int full = (int)((int64_t)committed * width / most);
  int held = (int)((int64_t)(committed + pending) * width / most) - full;
  for (int i = 0; i < width; i++) fputs(i < full ? "#" : i < full + held ? "+" : ".", stderr);
}

static void draw_stream(const pdt_round_report *report, pdt_stream k, int columns) {
  const pdt_stream_state *s = &report->running->session.streams[k];
  const pdt_block_report *block = block_of(report, k);
  int width = columns > 76 ? columns - 60 : 16;
  fprintf(stderr, "  %3d ", k);
  draw_bar(s->n_committed, s->n_tokens - s->n_committed,
           report->running->request->settings.limits.max_tokens, width > 40 ? 40 : width);
  fprintf(stderr, " %5d committed %4d pending", s->n_committed, s->n_tokens - s->n_committed);
  if (block)
    fprintf(stderr, "  r %.3f %s", (double)block->readiness, pdt_action_name(block->action));
  fputs(s->done ? "  done\033[K\n" : "\033[K\n", stderr);
}

void pdt_progress_round(pdt_progress *p, const pdt_round_report *report) {
  double now = pdt_seconds();
  const pdt_running *s = report->running;
  if (!p->on) return;
  if (now - p->drawn < 0.1) return;
  p->drawn = now;
  pdt_progress_stop(p);
  double rate = (double)report->committed_tokens / (now - p->started);
  int32_t K = s->request->settings.streams;
  if (p->n_requests == 1)
    fprintf(stderr, "round %d  gate %s  %.1f tokens/s\033[K\n", report->round,
            report->gate ? "open" : "shut", rate);
  else
    fprintf(stderr, "%d of %d sessions done  session %llu round %d  %.1f tokens/s\033[K\n",
            p->ended, p->n_requests, (unsigned long long)s->request->session, report->round, rate);
  p->lines = 1;
  int columns = pdt_terminal_columns();
  for (pdt_stream k = 0; p->n_requests == 1 && k < K && k < MAX_LINES; k++, p->lines++)
    draw_stream(report, k, columns);
  fflush(stderr);
}

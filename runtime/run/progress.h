/* Live progress on a terminal, and nothing elsewhere: one line a stream for a single session, one
 * line in all for many. */
#ifndef PDT_RUN_PROGRESS_H
#define PDT_RUN_PROGRESS_H

#include "engine/engine.h"

typedef struct pdt_progress {
  bool on;
  int32_t n_requests, ended;
  int lines;             /* on the screen now, to be drawn over */
  double started, drawn; /* seconds */
} pdt_progress;

void pdt_progress_start(pdt_progress *p, bool wanted, int32_t n_requests);
void pdt_progress_round(pdt_progress *p, const pdt_round_report *report);
void pdt_progress_session_ended(pdt_progress *p);

/* Takes the lines away. */
void pdt_progress_stop(pdt_progress *p);

#endif

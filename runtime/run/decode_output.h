/* What rank 0 does with what happens: trace, journal, artifacts and answers, progress. */
#ifndef PDT_RUN_DECODE_OUTPUT_H
#define PDT_RUN_DECODE_OUTPUT_H

#include "journal/journal.h"
#include "journal/output.h"
#include "journal/trace.h"
#include "journal/turns.h"
#include "run/decode_input.h"
#include "run/decode_journal.h"
#include "run/decode_resume.h"
#include "run/progress.h"

typedef struct pdt_decode_output {
  const pdt_decode_options *options; /* borrowed, as all below */
  pdt_decode_input *input;
  pdt_trace *trace;
  const pdt_engine *engine; /* NULL before begin, as world */
  const pdt_comm *world;
  pdt_journal journal;
  pdt_journal_order order;
  bool journals, begun; /* begun: the journal's header is written */
  pdt_decode_resume resume;
  pdt_request_source requests; /* all of them; */
  int32_t n_taken;             /* of them */
  int32_t n_failed;            /* requests that are not served, those of earlier runs included */
  const char *name;            /* what messages call the program */
  pdt_output *output;
  pdt_turns *answers; /* printed; NULL: they are not */
  pdt_progress progress;
} pdt_decode_output;

/* Opens what the options name, and reads the journal that is to go on. On rank 0 only. Errors:
 * USAGE, INPUT, IO, MEMORY; then close it. */
int pdt_decode_output_open(pdt_decode_output *o, const pdt_decode_options *options,
                           pdt_decode_input *input, pdt_error *err);

/* The engine, which it borrows, is about to run, or nothing is left to compute (NULL): what a
 * journal has kept is written. Errors: as the observer's. */
int pdt_decode_output_begin(pdt_decode_output *o, const pdt_engine *engine, const pdt_comm *world,
                            const char *name, pdt_error *err);

/* The requests of the input that are left to be served; it tells of those that are not. */
pdt_request_source pdt_decode_output_source(pdt_decode_output *o);

/* The observer that feeds it. */
pdt_observer pdt_decode_output_observer(pdt_decode_output *o);

/* Ends it. With keep, files get their names; without, no half-written one stays (the journal does:
 * it says what was decided). Frees everything. Errors: IO. */
int pdt_decode_output_close(pdt_decode_output *o, bool keep, pdt_error *err);

#endif

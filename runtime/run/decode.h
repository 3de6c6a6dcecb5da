/* Decoding from files to files: requests are read and resolved, models loaded, outputs written. */
#ifndef PDT_RUN_DECODE_H
#define PDT_RUN_DECODE_H

#include <jansson.h>

#include "comm/comm.h"
#include "engine/engine.h"
#include "journal/journal.h"
#include "request/chat.h"

typedef struct pdt_decode_options {
  pdt_engine_options engine;
  const char *request, *requests,
      *prompt;                       /* exactly one is not NULL; requests "-": standard input */
  const char *plan;                  /* file, or NULL */
  pdt_chat_flags chat;               /* conversations */
  json_t *sections;                  /* list of texts, or NULL */
  json_t *settings;                  /* those that flags override; never NULL */
  int64_t session;                   /* -1: not given */
  const char *trace, *out, *journal; /* files, or NULL */
  pdt_journal_sync journal_sync;
  bool resume;      /* goes on from the journal */
  bool skip_errors; /* requests that cannot be served are told in the output, the others are served
                     */
  bool json, overwrite, quiet, verbose, rounds;
} pdt_decode_options;

/* Decodes what the given options name, which rank 0 writes and tells on standard error; `name` is
 * what messages call the program. Collective over world, blocking; all ranks fail alike. Errors:
 * USAGE (an output that would cost an input; a setting), INPUT, IO, MEMORY, RUNTIME, STOPPED (by a
 * signal: half-written outputs are gone, the journal is whole). */
int pdt_decode_run(const pdt_comm *world, const char *name, const pdt_decode_options *given,
                   pdt_error *err);

#endif

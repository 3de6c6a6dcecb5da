/* What a journal or an output file holds, for people (aligned tables) or machines (JSON lines). */
#ifndef PDT_JOURNAL_INSPECT_H
#define PDT_JOURNAL_INSPECT_H

#include <stdio.h>

#include "base/error.h"
#include "base/types.h"

/* Prints the journal at path to out: its header; a line for each round of a session (boundary,
 * request, session, round, gate, tokens emitted, least readiness, an action letter a stream: C
 * commit, H hold, R rollback, F forced, '.' nothing emitted) and for each session's start and end;
 * totals; the state of the file's end. With json, objects with "type" "header", "start", "round",
 * "end", "error" in the order of the file, last "totals". Every entry is checked
 * (journal/replay.h): what comes before a bad one is printed, then the error returned. A torn end
 * is told, not an error. Errors: IO (out included), INPUT, MEMORY. */
int pdt_inspect_journal(const char *path, bool json, FILE *out, pdt_error *err);

/* Prints the output file (delimited form) at path to out: a table of artifacts with an excerpt of
 * their text, then each answer; with json, the objects that --json would have written. Errors: as
 * above. */
int pdt_inspect_output(const char *path, bool json, FILE *out, pdt_error *err);

#endif

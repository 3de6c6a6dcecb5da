/* Rounds as a person reads them. */
#ifndef PDT_RUN_ROUNDS_H
#define PDT_RUN_ROUNDS_H

#include <stdio.h>

#include "engine/engine.h"
#include "text/tokenizer.h"

/* Prints a round: its session's number, in a run of many requests also the request's index (two
 * requests may name one session), its gate, how many notes its window has, and a line for every
 * block with what was decided, readiness, and the text that was emitted (token ids without a
 * tokenizer), control characters made visible. Errors: those of pdt_tokenizer_decode. */
int pdt_rounds_print(FILE *out, const pdt_round_report *report, bool many,
                     const pdt_tokenizer *tokenizer, pdt_error *err);

#endif

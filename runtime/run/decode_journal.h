/* What decoding puts into its journal beside the decisions, which are appended as they were
 * broadcast. On rank 0 only. */
#ifndef PDT_RUN_DECODE_JOURNAL_H
#define PDT_RUN_DECODE_JOURNAL_H

#include "base/largest.h"
#include "journal/journal.h"
#include "run/decode_input.h"

/* Is there room in a journal's entries for request `index`, and for every decision of so many
 * requests together as `decisions` adds up? It is told of all, one by one, before anything is
 * loaded; of `input`, the configs are there. Errors: USAGE, which names the request; MEMORY. */
int pdt_decode_journal_check(const pdt_decode_input *input, const pdt_request *r, int32_t index,
                             pdt_largest *decisions, pdt_error *err);

/* The first entry: what runs, on what. Errors: those of an append, and IO of the files whose
 * fingerprints it takes. */
int pdt_decode_journal_header(pdt_journal *j, const pdt_decode_input *input,
                              const pdt_engine *engine, const pdt_comm *world, pdt_error *err);

/* Starts and failures of requests come in the journal in the order of requests, whenever they
 * happen: failures wait here for those before them. Zeroed, it is that of a new journal. */
typedef struct pdt_journal_order {
  int32_t next; /* the request that comes next */
  size_t n, room;
  Pdt__RequestFailure *waiting; /* [n], by request; own errors */
} pdt_journal_order;

void pdt_journal_order_free(pdt_journal_order *order);

/* A session joined, with its request; or left; or a request is not served, which is copied where it
 * has to wait. Errors: those of an append, MEMORY. */
int pdt_decode_journal_start(pdt_journal *j, pdt_journal_order *order, const pdt_running *s,
                             const pdt_sidecar_config *sidecar, pdt_error *err);
int pdt_decode_journal_end(pdt_journal *j, const pdt_request *r, int32_t index, bool complete,
                           pdt_error *err);
int pdt_decode_journal_failure(pdt_journal *j, pdt_journal_order *order,
                               const Pdt__RequestFailure *failure, pdt_error *err);

#endif

/* The engine's side of the hub: requests go in, what happens to them comes out, and into the
 * journal where there is one. All of it on rank 0, in the thread that runs the engine. */
#ifndef PDT_SERVE_FEED_H
#define PDT_SERVE_FEED_H

#include "engine/engine.h"
#include "run/decode_journal.h"
#include "serve/hub.h"

typedef struct pdt_feed {
  pdt_hub *hub; /* borrowed, as the next four */
  const pdt_sidecar_config *sidecar;
  const pdt_engine *engine;
  const pdt_comm *world;
  pdt_journal *journal; /* NULL: there is none; its header is written with the first session */
  pdt_spread spread;
  pdt_journal_order order; /* of the journal */
  bool begun;              /* it has its header */
  const char *name;        /* what warnings call the program; borrowed */
  uint32_t told;           /* kinds of warnings (request/familiar.h) that were given */
} pdt_feed;

/* Requests of the hub, first come first; the wait for one takes no processor's time. It ends when
 * the hub drains and none is left. */
pdt_request_source pdt_feed_source(pdt_feed *feed);

/* Tells the hub's jobs what becomes of them. */
pdt_observer pdt_feed_observer(pdt_feed *feed);

/* The engine has done a step. */
void pdt_feed_stepped(pdt_feed *feed);

void pdt_feed_free(pdt_feed *feed);

#endif

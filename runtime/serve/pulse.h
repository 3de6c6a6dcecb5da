/* A thread beside that of HTTP, which looks ten times a second: has the client of a request that
 * waits gone, has one taken too long, has a stream of chunks been silent; and has a signal asked
 * for the server's end. */
#ifndef PDT_SERVE_PULSE_H
#define PDT_SERVE_PULSE_H

#include "serve/http.h"

typedef struct pdt_pulse {
  pdt_http *http; /* borrowed */
  pthread_t thread;
  bool runs;
  atomic_bool ends; /* the thread is to */
  double drained;   /* seconds: since when the hub drains; 0: it does not yet */
  bool late;        /* what still ran has been withdrawn */
} pdt_pulse;

/* Errors: RUNTIME (no thread can be had). */
int pdt_pulse_start(pdt_pulse *pulse, pdt_http *http, pdt_error *err);

/* Ends the thread; safe on a zeroed one. */
void pdt_pulse_stop(pdt_pulse *pulse);

#endif

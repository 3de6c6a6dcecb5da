/* The server's HTTP: one thread of libmicrohttpd's that reads requests, judges them, puts them into
 * the hub and writes what comes of them, and one (pulse.h) that looks after those that wait. */
#ifndef PDT_SERVE_HTTP_H
#define PDT_SERVE_HTTP_H

#include <stdatomic.h>

#include "engine/capacity.h"
#include "serve/exchange.h"
#include "serve/live_page.h"
#include "serve/options.h"

enum { PDT_KEY_BYTES = 32 }; /* of its SHA-256 */

typedef struct pdt_http {
  const pdt_serve_options *options; /* borrowed, as the hub */
  pdt_hub *hub;
  struct MHD_Daemon *daemon;
  char *certificate, *private_key; /* their texts, owned; NULL: no TLS */
  bool has_key;                    /* requests must have it */
  uint8_t key[PDT_KEY_BYTES];
  int64_t started; /* seconds since 1970 */
  pdt_live_page page;
  /* set before the hub serves: */
  pdt_ask_context context;
  pdt_capacity capacity;
  pdt_spread spread;
  /* with the hub's lock: */
  struct pdt_exchange *exchanges; /* all that are under way */
  int32_t n_exchanges;
  /* of the thread of HTTP alone: */
  uint64_t n_asked;
  pdt_bytes body_bytes; /* of requests that are being read */
} pdt_http;

/* Listens, and answers what can be answered before the hub serves. `name` is the model's. Errors:
 * USAGE, IO (the address), INPUT (a key), MEMORY. */
int pdt_http_start(pdt_http *http, const pdt_serve_options *options, pdt_hub *hub, const char *name,
                   pdt_error *err);

/* The port it listens at. */
int pdt_http_port(const pdt_http *http);

/* Ends it; answers that are under way are cut off. Safe on a zeroed one. */
void pdt_http_stop(pdt_http *http);

/* Writes what the server counts, as Prometheus reads it. */
void pdt_metrics_put(FILE *out, pdt_hub *hub, const pdt_capacity *capacity);

#endif

/* What pdt serve is told. */
#ifndef PDT_SERVE_OPTIONS_H
#define PDT_SERVE_OPTIONS_H

#include "engine/engine.h"
#include "journal/journal.h"

typedef struct pdt_serve_options {
  pdt_engine_options engine;
  const char *host;         /* address to listen at */
  int32_t port;             /* 0: any that is free */
  const char *name;         /* the model's; NULL: its path's last part */
  const char *api_key_file; /* NULL: PDT_API_KEY of the environment, or no key is asked for */
  const char *certificate, *private_key; /* files in PEM; NULL: no TLS */
  int32_t max_positions;    /* of a stream's longest sequence; 0: the model's, at most 4096 */
  int32_t max_block_tokens; /* 0: twice the sidecar's usual number, at least 32 */
  int32_t max_window;       /* 0: twice the sidecar's usual number, at least 64 */
  int64_t cache_positions;  /* of a shard group's key/value cache; 0: max_sessions times
                               max_positions */
  int32_t max_queue, max_connections;
  pdt_bytes max_body;
  double request_seconds;  /* of a request, its wait included; 0: no limit */
  double shutdown_seconds; /* in which what runs may finish */
  double ping_seconds;     /* of silence in a stream of chunks */
  double stuck_seconds;    /* without a round that ends, after which the server is not well */
  const char *journal;     /* NULL: none */
  pdt_journal_sync journal_sync;
  bool overwrite, quiet, verbose;
} pdt_serve_options;

#endif

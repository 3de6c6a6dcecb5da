/* A fresh sidecar. */
#ifndef PDT_SIDECAR_INIT_H
#define PDT_SIDECAR_INIT_H

#include "sidecar/config.h"

typedef enum pdt_sidecar_start {
  PDT_SIDECAR_FRESH,  /* to be trained: see below */
  PDT_SIDECAR_RANDOM, /* every matrix random and open gates: for tests and measurements */
} pdt_sidecar_start;

typedef struct pdt_sidecar_init_options {
  pdt_dtype dtype;
  uint64_t seed;
  double gate;     /* value of every gate before the sigmoid */
  bool snc_closed; /* SNC's gates stand at -100 instead: closed, and no gradient opens them */
  pdt_sidecar_start start;
  /* [notes_dim, hidden_size] or NULL: a fresh sidecar's SNC in the last n_readers instrumented
   * layers begins with reading x P^T out of a note x (v_proj: as it is; o_proj: `reader` transposed
   * times PDT_READER_SHARE), as far as its heads have room. Then it adds something from the start.
   */
  const float *reader;
  int32_t n_readers;
} pdt_sidecar_init_options;

/* What an average note adds is then a tenth of what it is added to, at gates of 0 and with layer
 * scales. */
#define PDT_READER_SHARE 0.3

/* Writes a sidecar of that config. A fresh one changes nothing: what the SNC and the adapters add
 * is zero (o_proj, up), readiness is sigmoid(2) whatever it sees (agree.out), so every block is
 * committed under the usual gamma; everything before these last matrices is random, deviation
 * 1/sqrt(inputs), so that training moves it. The bytes depend on config and options alone.
 * parameters, bytes (may be NULL): what was written. Errors: IO, MEMORY. */
int pdt_sidecar_init(const char *path, const pdt_sidecar_config *config,
                     const pdt_sidecar_init_options *options, int64_t *parameters, pdt_bytes *bytes,
                     pdt_error *err);

#endif

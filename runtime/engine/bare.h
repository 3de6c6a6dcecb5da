/* A trunk by itself, without a sidecar: what drafts, and what is read by it alone. */
#ifndef PDT_ENGINE_BARE_H
#define PDT_ENGINE_BARE_H

#include "base/notices.h"
#include "engine/machine.h"
#include "trunk/weights.h"

/* This rank's share, cut as the machine's shard groups are. */
typedef struct pdt_bare_model {
  pdt_model_config config;
  pdt_trunk_weights weights;
  uint64_t fingerprint; /* a quick one (safetensors.h) */
} pdt_bare_model;

/* Loads a model; vocabulary: of another one that it must have in common with it, 0: there is none.
 * quantize as in weights.h. Notices may be NULL. Not collective; safe to free whatever it returns.
 * Errors: INPUT, IO, MEMORY. */
int pdt_bare_model_load(pdt_bare_model *m, pdt_machine *machine, const char *path,
                        int32_t vocabulary, pdt_dtype quantize, pdt_notices *notices,
                        pdt_error *err);
void pdt_bare_model_free(pdt_bare_model *m);

/* Of its cache, on this rank. Pure. */
pdt_kv_shape pdt_bare_kv_shape(const pdt_bare_model *m);

#endif

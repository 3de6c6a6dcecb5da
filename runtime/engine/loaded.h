/* A trunk and its sidecar, as an engine has loaded them: what does not change from run to run. */
#ifndef PDT_ENGINE_LOADED_H
#define PDT_ENGINE_LOADED_H

#include "base/notices.h"
#include "engine/bare.h"
#include "engine/machine.h"
#include "sidecar/sidecar.h"
#include "store/checkpoint.h"
#include "trunk/weights.h"

/* Of what was loaded: quick fingerprints (safetensors.h), and the model's config.json by itself. */
typedef struct pdt_engine_fingerprints {
  uint64_t model, sidecar, config;
} pdt_engine_fingerprints;

typedef struct pdt_loaded {
  pdt_model_config model;
  pdt_checkpoint *checkpoint;
  pdt_safetensors *sidecar_file;
  pdt_engine_fingerprints fingerprints;
  pdt_trunk_weights weights; /* this rank's share */
  double weights_seconds;    /* from the file to the device */
  pdt_sidecar sidecar;       /* likewise */
  bool drafts;               /* is there a draft model: */
  pdt_bare_model draft;      /* likewise */
} pdt_loaded;

/* Of an engine: directories of models and a file. */
typedef struct pdt_loaded_files {
  const char *model, *sidecar;
  const char *draft;  /* NULL: none */
  pdt_dtype quantize; /* of both models' weights, as in weights.h */
} pdt_loaded_files;

/* Opens the models' directories and the sidecar's file, and loads this rank's shares: nothing of
 * the files is read any more. Files that are written to meanwhile, or that are not the same on all
 * ranks, are refused. Notices may be NULL. Collective over the world, blocking; all ranks fail
 * alike; l is then to be freed too. Errors: USAGE, INPUT, IO, MEMORY. */
int pdt_loaded_new(pdt_loaded *l, pdt_machine *machine, const pdt_loaded_files *files,
                   pdt_notices *notices, pdt_error *err);
void pdt_loaded_free(pdt_loaded *l);

/* For who has read from the two files after it: fails when one was written to since. Not
 * collective. Errors: IO. */
int pdt_loaded_unchanged(const pdt_loaded *l, pdt_error *err);

#endif

#include "sidecar/init.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/names.h"
#include "model/normal.h"

typedef struct writer {
  const pdt_sidecar_config *config;
  const pdt_sidecar_init_options *options;
  pdt_wanted_tensor *tensors;
  float *scratch; /* one chunk */
} writer;

/* The last matrix of a path that must add nothing at first. */
static bool is_last(const char *name) {
  return pdt_ends_with(name, ".o_proj.weight") || pdt_ends_with(name, ".up.weight") ||
         strcmp(name, "speculation.out.weight") == 0 || strcmp(name, "agree.out.weight") == 0 ||
         strcmp(name, "agree.note_query.weight") == 0;
}

/* Mean and deviation of a tensor's elements. */
static void distribution(const pdt_sidecar_init_options *options, const pdt_wanted_tensor *t,
                         double *mean, double *deviation) {
  bool random = options->start == PDT_SIDECAR_RANDOM;
  *mean = 0;
  *deviation = 0;
  switch (t->role) {
  case PDT_ROLE_NORM:
    *mean = 1;
    *deviation = random ? 0.1 : 0;
    break;
  case PDT_ROLE_GATE:
    *mean = options->snc_closed && strncmp(t->name, "snc.", 4) == 0 ? -100 : options->gate;
    break;
  case PDT_ROLE_BIAS:
    *deviation = random ? 0.1 : 0;
    if (!random && strcmp(t->name, "agree.out.bias") == 0) *mean = 2;
    /* What no prompt of training has is not marked. */
    if (!random && strcmp(t->name, "planner.mark.bias") == 0) *mean = -3;
    break;
  case PDT_ROLE_EMBEDDING:
    *deviation = 1;
    break;
  case PDT_ROLE_MATRIX:
    if (random || !is_last(t->name))
      *deviation = (random ? 1.5 : 1) / sqrt((double)t->shape[t->n_dims - 1]);
  }
}

/* Is it the tensor `suffix` of a layer whose SNC begins as a reader? */
static bool begins_reading(const writer *w, const char *name, const char *suffix) {
  const pdt_sidecar_config *c = w->config;
  if (!w->options->reader || !pdt_ends_with(name, suffix)) return false;
  for (int32_t i = c->n_instrumented - w->options->n_readers; i < c->n_instrumented; i++) {
    char layer[64];
    snprintf(layer, sizeof layer, "snc.%d.", c->instrumented[i]);
    if (i >= 0 && strncmp(name, layer, strlen(layer)) == 0) return true;
  }
  return false;
}

/* Elements of v_proj [q, dn] and o_proj [d, q] of such a layer, over what is there. */
static void read_codes(const writer *w, const pdt_wanted_tensor *t, int64_t first, int64_t n) {
  int64_t d = w->config->hidden_size, dn = w->config->notes_dim, columns = t->shape[1];
  bool values = begins_reading(w, t->name, ".v_proj.weight");
  if (!values && !begins_reading(w, t->name, ".o_proj.weight")) return;
  for (int64_t i = 0; i < n; i++) {
    int64_t row = (first + i) / columns, column = (first + i) % columns;
    if (values && row < dn) w->scratch[i] = row == column ? 1 : 0;
    if (!values && column < dn)
      w->scratch[i] = (float)PDT_READER_SHARE * w->options->reader[column * d + row];
  }
}

static int fill_chunk(void *context, int32_t index, int64_t first, int64_t n_elems, void *chunk,
                      pdt_error *err) {
  (void)err;
  const writer *w = context;
  const pdt_wanted_tensor *t = &w->tensors[index];
  double mean, deviation;
  distribution(w->options, t, &mean, &deviation);
  if (deviation > 0) {
    pdt_normal_fill(w->options->seed, t->name, first, n_elems, (float)mean, (float)deviation,
                    w->scratch);
  } else {
    for (int64_t i = 0; i < n_elems; i++) w->scratch[i] = (float)mean;
  }
  read_codes(w, t, first, n_elems);
  pdt_from_float(w->options->dtype, w->scratch, n_elems, chunk);
  return 0;
}

static int write_file(const char *path, const pdt_sidecar_config *config, writer *w,
                      const pdt_tensor_spec *specs, int32_t n, pdt_error *err) {
  char *text = pdt_sidecar_config_text(config);
  if (!text) return pdt_fail(err, PDT_ERROR_MEMORY, "%.200s: config: no memory", path);
  const pdt_metadata metadata = {"config", text};
  int rc = pdt_safetensors_write(path, specs, n, &metadata, 1, fill_chunk, w, err);
  free(text);
  return rc;
}

int pdt_sidecar_init(const char *path, const pdt_sidecar_config *config,
                     const pdt_sidecar_init_options *options, int64_t *parameters, pdt_bytes *bytes,
                     pdt_error *err) {
  writer w = {.config = config, .options = options};
  pdt_tensor_spec *specs = NULL;
  int32_t n = pdt_sidecar_tensor_count(config);
  int64_t total = 0;
  int rc = PDT_NEW(&w.tensors, n, "list of tensors", err);
  if (!rc) rc = PDT_NEW(&specs, n, "list of tensors", err);
  if (!rc) rc = PDT_NEW(&w.scratch, PDT_WRITE_CHUNK_ELEMS, "chunk", err);
  for (int32_t i = 0; !rc && i < n; i++) {
    pdt_wanted_tensor *t = &w.tensors[i];
    pdt_sidecar_tensor_at(config, i, t);
    specs[i] = pdt_wanted_spec(t, options->dtype);
    total += pdt_tensor_spec_elems(&specs[i]);
  }
  if (!rc) rc = write_file(path, config, &w, specs, n, err);
  if (parameters) *parameters = total;
  if (bytes) *bytes = total * (pdt_bytes)pdt_dtype_bytes(options->dtype);
  free(w.tensors);
  free(w.scratch);
  free(specs);
  return rc;
}

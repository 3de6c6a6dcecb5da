#include "run/fresh_sidecar.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/memory.h"
#include "base/text_safe.h"
#include "journal/sink.h"
#include "run/outputs.h"

/* "8,10,12": ascending layers of the model. */
static int parse_layers(pdt_sidecar_config *c, const char *text, pdt_layer n_layers,
                        pdt_error *err) {
  const char *at = text;
  int64_t last = -1;
  for (;;) {
    char *end;
    errno = 0;
    long long layer = strtoll(at, &end, 10);
    if (end == at || errno || layer <= last || layer >= n_layers || (*end && *end != ','))
      return pdt_fail(err, PDT_ERROR_USAGE,
                      "--layers: expected ascending layers from 0 to %d with commas between, found "
                      "'%.200s'",
                      n_layers - 1, text);
    c->instrumented[c->n_instrumented++] = (pdt_layer)layer;
    last = layer;
    if (!*end) return 0;
    at = end + 1;
  }
}

/* Four layers, the last among them, evenly down to the middle of the stack. */
static void default_layers(pdt_sidecar_config *c, pdt_layer n_layers) {
  int32_t n = n_layers < 4 ? n_layers : 4, step = n_layers / 2 / n;
  if (step < 1) step = 1;
  for (int32_t i = 0; i < n; i++) c->instrumented[i] = n_layers - 1 - (n - 1 - i) * step;
  c->n_instrumented = n;
}

/* What depends on the model or on other options. */
static int complete(pdt_fresh_sidecar *a, pdt_error *err) {
  pdt_model_config model;
  pdt_sidecar_config *c = &a->config;
  pdt_sidecar_defaults *d = &c->defaults;
  if (pdt_model_config_load(&model, a->model, NULL, err)) return -1;
  c->hidden_size = model.hidden_size;
  if (!d->window) d->window = 1 + 8 * c->streams;
  if (!d->horizon) d->horizon = d->block_tokens < INT32_MAX / 4 ? 4 * d->block_tokens : INT32_MAX;
  if (d->horizon < d->block_tokens)
    return pdt_fail(err, PDT_ERROR_USAGE,
                    "--horizon: expected at least the %d tokens of a block, found %d",
                    d->block_tokens, d->horizon);
  if (a->init.start == PDT_SIDECAR_RANDOM && !a->gate_given) a->init.gate = 0;
  if (PDT_NEW(&c->instrumented, model.layers, "list of layers", err)) return -1;
  if (a->layers) return parse_layers(c, a->layers, model.layers, err);
  default_layers(c, model.layers);
  return 0;
}

/* A sidecar takes long to train: none is replaced unasked. */
static int check_output(const pdt_fresh_sidecar *a, pdt_error *err) {
  pdt_named_files outputs = {0}, inputs = {0};
  pdt_files_add(&outputs, "--out", a->out);
  pdt_files_add_model(&inputs, "--model", a->model);
  if (pdt_outputs_check(&outputs, &inputs, err)) return -1;
  if (pdt_sink_descriptor(a->out) >= 0)
    return pdt_fail(err, PDT_ERROR_USAGE, "--out: expected the name of a file, found '%s'", a->out);
  return pdt_output_may_replace("--out", a->out, PDT_KIND_SIDECAR, a->overwrite, err);
}

int pdt_fresh_sidecar_write(pdt_fresh_sidecar *sidecar, pdt_error *err) {
  int64_t parameters;
  pdt_bytes bytes;
  int rc = check_output(sidecar, err);
  if (!rc) rc = complete(sidecar, err);
  if (!rc && sidecar->init.start == PDT_SIDECAR_FRESH) { /* says of itself that it is untrained */
    sidecar->config.trained = json_object();
    if (!sidecar->config.trained)
      rc = pdt_fail(err, PDT_ERROR_MEMORY, "%s: no memory", sidecar->out);
  }
  if (!rc)
    rc = pdt_sidecar_init(sidecar->out, &sidecar->config, &sidecar->init, &parameters, &bytes, err);
  if (!rc)
    pdt_say(stdout, "%s: %.1f million parameters, %s, %.1f MB, for %d streams", sidecar->out,
            (double)parameters * 1e-6, pdt_dtype_name(sidecar->init.dtype), (double)bytes * 1e-6,
            sidecar->config.streams);
  return rc;
}

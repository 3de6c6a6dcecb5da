#include "run/fresh_sidecar.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/arena.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/text_safe.h"
#include "journal/sink.h"
#include "model/tensors.h"
#include "run/outputs.h"
#include "text/tokenizer.h"
#include "train/codes.h"

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

static int by_size(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* The median over rows of the root mean square of x [rows, d]. room [rows]. */
static double median_size(const float *x, int32_t rows, int32_t d, double *room) {
  for (int32_t r = 0; r < rows; r++) {
    double sum = 0;
    for (int32_t i = 0; i < d; i++) sum += pow((double)x[(int64_t)r * d + i], 2);
    room[r] = sqrt(sum / d);
  }
  qsort(room, (size_t)rows, sizeof *room, by_size);
  return room[rows / 2];
}

/* How large the residual stream is behind every instrumented layer, on some tokens. */
static int measure_layers(pdt_sidecar_config *c, const pdt_nn_trunk *trunk, const pdt_token *tokens,
                          int32_t n, pdt_error *err) {
  const int32_t begin[] = {0, n};
  const pdt_nn_sequences sequences = {1, begin};
  pdt_arena arena = {0};
  float *x;
  double *room;
  int rc = PDT_NEW(&c->layer_scales, c->n_instrumented, "scales of layers", err);
  for (int32_t i = 0; !rc && i < c->n_instrumented; i++) {
    pdt_arena_reset(&arena);
    rc = PDT_TAKE(&arena, &x, (int64_t)n * c->hidden_size, err) ||
                 PDT_TAKE(&arena, &room, n, err) ||
                 pdt_nn_trunk_lower(trunk, &sequences, tokens, c->instrumented[i] + 1, x, &arena,
                                    err)
             ? -1
             : 0;
    if (!rc) c->layer_scales[i] = median_size(x, n, c->hidden_size, room);
  }
  pdt_arena_free(&arena);
  return rc;
}

/* The first tokens of the text, freed by the caller. */
static int read_tokens(const pdt_fresh_sidecar *a, const pdt_model_config *model,
                       pdt_token **tokens, int32_t *n, pdt_error *err) {
  enum { MOST = 512, MOST_BYTES = 1 << 20 };
  pdt_tokenizer *tokenizer;
  char *text;
  pdt_bytes bytes;
  if (pdt_tokenizer_load_folder(&tokenizer, a->model, NULL, err)) return -1;
  int rc = pdt_file_read(&text, &bytes, a->scale_text, MOST_BYTES, err);
  if (!rc) {
    rc = bytes < 1 ? pdt_fail(err, PDT_ERROR_INPUT, "no text")
                   : pdt_tokenizer_encode(tokenizer, text, (size_t)bytes, true, tokens, n, err);
    if (rc) pdt_fail_in(err, "%.200s", a->scale_text);
    free(text);
  }
  pdt_tokenizer_free(tokenizer);
  if (rc) return -1;
  if (*n > MOST) *n = MOST;
  if (*n > model->max_positions) *n = (int32_t)model->max_positions;
  if (*n < 1) rc = pdt_fail(err, PDT_ERROR_INPUT, "%s: no tokens in the text", a->scale_text);
  for (int32_t i = 0; i < *n; i++)
    if ((*tokens)[i] >= model->vocab_size)
      rc = pdt_fail(err, PDT_ERROR_INPUT, "%s: token %d is not in the model's vocabulary of %d",
                    a->scale_text, (*tokens)[i], model->vocab_size);
  if (rc) free(*tokens);
  return rc;
}

static int measure_scales(pdt_fresh_sidecar *a, pdt_model_config *model, pdt_error *err) {
  pdt_checkpoint *checkpoint = NULL;
  pdt_nn_trunk trunk = {0};
  pdt_token *tokens;
  int32_t n;
  if (!a->scale_text) return 0;
  if (read_tokens(a, model, &tokens, &n, err)) return -1;
  int rc = pdt_checkpoint_open(&checkpoint, a->model, NULL, err) ||
                   pdt_model_tensors_check(model, checkpoint, NULL, err) ||
                   pdt_nn_trunk_new(&trunk, model, checkpoint, true, err) ||
                   measure_layers(&a->config, &trunk, tokens, n, err)
               ? -1
               : 0;
  pdt_nn_trunk_free(&trunk);
  pdt_checkpoint_close(checkpoint);
  free(tokens);
  return rc;
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
  if (a->pool_layer >= model.layers)
    return pdt_fail(err, PDT_ERROR_USAGE,
                    "--pool-layer: expected a layer of the model from 0 to %d, found %d",
                    model.layers - 1, a->pool_layer);
  c->pool_layers = a->pool_layer + 1;
  if (c->plan_layer >= model.layers)
    return pdt_fail(err, PDT_ERROR_USAGE,
                    "--plan-layer: expected a layer of the model from 0 to %d, found %d",
                    model.layers - 1, c->plan_layer);
  if (!a->layers) default_layers(c, model.layers);
  if (a->layers && parse_layers(c, a->layers, model.layers, err)) return -1;
  return measure_scales(a, &model, err);
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

/* What the SNC of the last layers begins with, freed by the caller. */
static int take_reader(pdt_fresh_sidecar *a, float **reader, pdt_error *err) {
  const pdt_sidecar_config *c = &a->config;
  *reader = NULL;
  if (a->read_codes == 0) return 0;
  if (a->read_codes > c->n_instrumented)
    return pdt_fail(err, PDT_ERROR_USAGE,
                    "--read-codes: expected at most the %d instrumented layers, found %d",
                    c->n_instrumented, a->read_codes);
  if (PDT_NEW(reader, (int64_t)c->notes_dim * c->hidden_size, "projection of codes", err))
    return -1;
  pdt_coder_projection(c->notes_dim, c->hidden_size, *reader);
  a->init.reader = *reader;
  a->init.n_readers = a->read_codes;
  return 0;
}

int pdt_fresh_sidecar_write(pdt_fresh_sidecar *sidecar, pdt_error *err) {
  int64_t parameters;
  pdt_bytes bytes;
  float *reader = NULL;
  int rc = check_output(sidecar, err);
  if (!rc) rc = complete(sidecar, err);
  if (!rc) rc = take_reader(sidecar, &reader, err);
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
  free(reader);
  sidecar->init.reader = NULL;
  return rc;
}

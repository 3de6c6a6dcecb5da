#include "train/state.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

enum { KINDS = 3, NAME_BYTES = PDT_NN_NAME_BYTES + 8, SINCE_BYTES = 1024 };
static const char *const kinds[KINDS] = {"value", "adam.m", "adam.v"};

/* Where the numbers of a tensor of the file are; all parameters of one kind, then of the next. */
typedef struct source {
  const pdt_nn_parameters *p;
  const float *arrays[KINDS];
  pdt_dtype dtype;
} source;

static int fill_chunk(void *context, int32_t index, int64_t first, int64_t n_elems, void *chunk,
                      pdt_error *err) {
  (void)err;
  const source *s = context;
  const pdt_nn_parameter *item = &s->p->items[index % s->p->n];
  pdt_from_float(s->dtype, s->arrays[index / s->p->n] + item->offset + first, n_elems, chunk);
  return 0;
}

static void spec_of(const pdt_nn_parameter *item, const char *name, pdt_dtype dtype,
                    pdt_tensor_spec *spec) {
  *spec = (pdt_tensor_spec){.name = name, .dtype = dtype, .n_dims = item->n_dims};
  memcpy(spec->shape, item->shape, (size_t)item->n_dims * sizeof *item->shape);
}

static void state_name(int kind, const pdt_nn_parameter *item, char name[NAME_BYTES]) {
  snprintf(name, NAME_BYTES, "%s/%s", kinds[kind], item->name);
}

/* Every bit of the sums, as text. */
static void put_since(const pdt_train_run *run, char text[SINCE_BYTES]) {
  size_t at = 0;
  text[0] = '\0';
  for (int32_t i = 0; i < run->n_since && at < SINCE_BYTES; i++)
    at += (size_t)snprintf(text + at, SINCE_BYTES - at, "%s%a", i ? " " : "", run->since[i]);
}

int pdt_train_state_write(const char *path, const pdt_train_identity *identity,
                          const pdt_train_run *run, pdt_error *err) {
  const pdt_nn_parameters *p = run->parameters;
  const pdt_adamw *a = run->adamw;
  source s = {p, {p->value, a->m, a->v}, PDT_F32};
  char step[32], data[32], since[SINCE_BYTES], (*names)[NAME_BYTES];
  pdt_tensor_spec *specs = NULL;
  snprintf(step, sizeof step, "%" PRId64, a->step);
  snprintf(data, sizeof data, "%016" PRIx64, identity->data);
  put_since(run, since);
  const pdt_metadata metadata[] = {{"format", "pdt-train-1"},
                                   {"stage", identity->stage},
                                   {"settings", identity->settings},
                                   {"data", data},
                                   {"step", step},
                                   {"since", since}};
  int rc = PDT_NEW(&names, KINDS * p->n, "names of tensors", err);
  if (!rc) rc = PDT_NEW(&specs, KINDS * p->n, "list of tensors", err);
  for (int32_t i = 0; !rc && i < KINDS * p->n; i++) {
    state_name(i / p->n, &p->items[i % p->n], names[i]);
    spec_of(&p->items[i % p->n], names[i], PDT_F32, &specs[i]);
  }
  if (!rc)
    rc = pdt_safetensors_write(path, specs, KINDS * p->n, metadata,
                               sizeof metadata / sizeof *metadata, fill_chunk, &s, err);
  free(names);
  free(specs);
  return rc;
}

/* Where two lists with commas begin to differ: behind the last comma that both have before that. */
static size_t first_difference(const char *a, const char *b) {
  size_t item = 0;
  for (size_t i = 0; a[i] && a[i] == b[i]; i++)
    if (a[i] == ',') item = i + 1;
  while (a[item] == ' ' && b[item] == ' ') item++;
  return item;
}

static int expect_text(const pdt_safetensors *file, const char *key, const char *expected,
                       pdt_error *err) {
  const char *found = pdt_safetensors_metadata(file, key);
  if (found && strcmp(found, expected) == 0) return 0;
  size_t from = found ? first_difference(expected, found) : 0;
  return pdt_fail(err, PDT_ERROR_INPUT,
                  "%.200s: %s: this run has %s'%.100s', the checkpoint %s'%.100s' (hint: resume "
                  "with the options and data it was started with)",
                  file->path, key, from ? "... " : "", expected + from, from ? "... " : "",
                  found ? found + from : "none");
}

static int read_step(const pdt_safetensors *file, int64_t *step, pdt_error *err) {
  const char *text = pdt_safetensors_metadata(file, "step");
  char *end = NULL;
  long long value = text ? strtoll(text, &end, 10) : -1;
  if (value < 0 || !end || *end || end == text)
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: 'step': expected a number, found '%s'", file->path,
                    text ? text : "none");
  *step = value;
  return 0;
}

/* A checkpoint without sums was made right behind a report, or before there were any. */
static int read_since(const pdt_safetensors *file, const pdt_train_run *run, pdt_error *err) {
  const char *text = pdt_safetensors_metadata(file, "since");
  char *end;
  for (int32_t i = 0; i < run->n_since; i++) {
    run->since[i] = text ? strtod(text, &end) : 0;
    if (text && (end == text || !isfinite(run->since[i])))
      return pdt_fail(err, PDT_ERROR_INPUT, "%s: 'since': expected %d numbers, found '%.100s'",
                      file->path, run->n_since, pdt_safetensors_metadata(file, "since"));
    if (text) text = end;
  }
  return 0;
}

/* One kind of numbers, into an array laid out as the parameters. */
static int read_kind(const pdt_safetensors *file, int kind, const pdt_nn_parameters *p,
                     float *array, pdt_error *err) {
  pdt_nn_parameters view = *p; /* the same places in another array */
  view.value = array;
  for (int32_t i = 0; i < p->n; i++) {
    char name[NAME_BYTES];
    state_name(kind, &p->items[i], name);
    const pdt_tensor *tensor = pdt_safetensors_find(file, name);
    if (!tensor)
      return pdt_fail(err, PDT_ERROR_INPUT, "%s: tensor '%s' is missing", file->path, name);
    if (pdt_nn_parameters_read(&view, &p->items[i], tensor, err)) return -1;
  }
  return 0;
}

static int read_file(const pdt_safetensors *file, const pdt_train_identity *identity,
                     const pdt_train_run *run, pdt_error *err) {
  pdt_nn_parameters *p = run->parameters;
  pdt_adamw *a = run->adamw;
  char data[32];
  snprintf(data, sizeof data, "%016" PRIx64, identity->data);
  if (expect_text(file, "format", "pdt-train-1", err) ||
      expect_text(file, "stage", identity->stage, err) ||
      expect_text(file, "settings", identity->settings, err) ||
      expect_text(file, "data", data, err))
    return -1;
  float *arrays[KINDS] = {p->value, a->m, a->v};
  for (int kind = 0; kind < KINDS; kind++)
    if (read_kind(file, kind, p, arrays[kind], err)) return -1;
  return read_since(file, run, err) || read_step(file, &a->step, err) ? -1 : 0;
}

int pdt_train_state_read(const char *path, const pdt_train_identity *identity,
                         const pdt_train_run *run, pdt_error *err) {
  pdt_safetensors *file;
  if (pdt_safetensors_open(&file, path, err)) return -1;
  int rc = read_file(file, identity, run, err);
  if (!rc) rc = pdt_safetensors_unchanged(file, err);
  pdt_safetensors_close(file);
  return rc;
}

int pdt_train_export(const char *path, const pdt_nn_parameters *p, pdt_dtype dtype,
                     const pdt_metadata *metadata, int32_t n_metadata, pdt_error *err) {
  source s = {p, {p->value, NULL, NULL}, dtype};
  pdt_tensor_spec *specs;
  if (PDT_NEW(&specs, p->n, "list of tensors", err)) return -1;
  for (int32_t i = 0; i < p->n; i++) spec_of(&p->items[i], p->items[i].name, dtype, &specs[i]);
  int rc = pdt_safetensors_write(path, specs, p->n, metadata, n_metadata, fill_chunk, &s, err);
  free(specs);
  return rc;
}

int pdt_train_export_sidecar(const char *path, const pdt_nn_sidecar *sidecar, pdt_dtype dtype,
                             pdt_error *err) {
  char *config = pdt_sidecar_config_text(&sidecar->config);
  const pdt_metadata metadata = {"config", config};
  int rc = config ? pdt_train_export(path, &sidecar->parameters, dtype, &metadata, 1, err)
                  : pdt_fail(err, PDT_ERROR_MEMORY, "%s: config: no memory", path);
  free(config);
  return rc;
}

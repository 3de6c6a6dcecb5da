#include "run/describe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/text_safe.h"
#include "data/lessons.h"
#include "journal/sink.h"
#include "run/outputs.h"

/* Everything a run holds. */
typedef struct describing {
  const pdt_describe_options *options;
  pdt_model_config trunk;
  pdt_tokenizer *tokenizer;
  pdt_safetensors *file;
  pdt_sidecar_config config;
  pdt_lessons lessons;
} describing;

/* ---- what it was trained with ---- */

/* Adds what was gathered for each of the stages. */
static int add_stages(const describing *d, json_t *trained, const json_t *said, pdt_error *err) {
  static const char *const known[] = {"0", "1", "2", "3", "all", "rollouts"};
  char *text = strdup(d->options->stages), *rest = NULL;
  int rc = text ? 0 : pdt_fail(err, PDT_ERROR_MEMORY, "--stages: no memory");
  for (char *name = text ? strtok_r(text, ",", &rest) : NULL; name && !rc;
       name = strtok_r(NULL, ",", &rest)) {
    bool found = false;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
      found = found || strcmp(name, known[i]) == 0;
    rc = found ? pdt_trained_add_stage(trained, said, name, err)
               : pdt_fail(err, PDT_ERROR_USAGE,
                          "--stages: expected some of 0, 1, 2, 3, all and rollouts, found '%s'",
                          name);
  }
  free(text);
  if (rc || json_object_size(trained) > 0) return rc;
  return pdt_fail(err, PDT_ERROR_USAGE, "--stages: expected at least one, found '%s'",
                  d->options->stages);
}

static int read_data(describing *d, const char *path, pdt_error *err) {
  pdt_data_reader reader;
  int rc = pdt_data_open(&reader, path, err);
  if (!rc) rc = pdt_data_header_fits(&reader.header, path, &d->config, err);
  for (int more = !rc; more;) {
    pdt_data_entry e;
    more = pdt_data_next(&reader, &e, err);
    if (more < 0) rc = -1;
    if (more <= 0) break;
    if (pdt_lessons_add(&d->lessons, &reader.header, &e, err)) {
      rc = pdt_fail_in(err, "%s: line %lld", path, (long long)reader.lines.number);
      more = 0;
    }
    pdt_data_entry_free(&e);
  }
  pdt_data_close(&reader);
  return rc;
}

/* Puts it, and the settings, into the config, in place of what was there. */
static int gather(describing *d, pdt_error *err) {
  if (d->options->gamma >= 0) d->config.defaults.gamma = d->options->gamma;
  if (d->options->part_slots >= 0) d->config.defaults.part_slots = d->options->part_slots;
  if (d->options->n_data == 0) return 0;
  if (pdt_lessons_new(&d->lessons, d->tokenizer, d->config.plan_vocab_size, d->trunk.vocab_size,
                      err))
    return -1;
  for (int32_t i = 0; i < d->options->n_data; i++)
    if (read_data(d, d->options->data[i], err)) return -1;
  json_t *said = pdt_lessons_take(&d->lessons, err);
  if (!said) return -1;
  json_decref(d->config.trained);
  d->config.trained = json_object();
  if (d->options->temperature >= 0)
    json_object_set_new(said, "temperature", json_real(d->options->temperature));
  int rc = d->config.trained ? add_stages(d, d->config.trained, said, err)
                             : pdt_fail(err, PDT_ERROR_MEMORY, "%s: no memory", d->options->out);
  json_decref(said);
  return rc;
}

/* ---- the file ---- */

/* The tensors in the order of the file, which are copied byte by byte. */
typedef struct copy {
  const pdt_tensor **tensors;
  pdt_tensor_spec *specs;
} copy;

static int by_place(const void *a, const void *b) {
  pdt_bytes x = (*(const pdt_tensor *const *)a)->at, y = (*(const pdt_tensor *const *)b)->at;
  return x < y ? -1 : x > y;
}

static int copy_chunk(void *context, int32_t index, int64_t first, int64_t n_elems, void *chunk,
                      pdt_error *err) {
  const pdt_tensor *t = ((const copy *)context)->tensors[index];
  return pdt_tensor_read(t, first, n_elems, chunk, err) || pdt_safetensors_unchanged(t->file, err)
             ? -1
             : 0;
}

static int list_tensors(const describing *d, copy *c, pdt_error *err) {
  int32_t n = d->file->n_tensors;
  if (PDT_NEW(&c->tensors, n, "list of tensors", err) ||
      PDT_NEW(&c->specs, n, "list of tensors", err))
    return -1;
  for (int32_t i = 0; i < n; i++) c->tensors[i] = &d->file->tensors[i];
  qsort((void *)c->tensors, (size_t)n, sizeof *c->tensors, by_place);
  for (int32_t i = 0; i < n; i++) {
    const pdt_tensor *t = c->tensors[i];
    if (!t->is_float)
      return pdt_fail(err, PDT_ERROR_INPUT, "%s: tensor '%s': expected F32, F16 or BF16, found %s",
                      d->file->path, t->name, t->dtype_name);
    c->specs[i] = (pdt_tensor_spec){.name = t->name, .dtype = t->dtype, .n_dims = t->n_dims};
    memcpy(c->specs[i].shape, t->shape, sizeof t->shape);
  }
  return 0;
}

/* The file's metadata, with another config. */
static int write_file(const describing *d, copy *c, pdt_error *err) {
  const json_t *own = json_object_get(d->file->header, "__metadata__");
  char *text = pdt_sidecar_config_text(&d->config);
  pdt_metadata *metadata = NULL;
  const char *key;
  json_t *value;
  int32_t n = 0;
  int rc = text ? PDT_NEW(&metadata, json_object_size(own), "metadata", err)
                : pdt_fail(err, PDT_ERROR_MEMORY, "%s: no memory", d->options->out);
  if (!rc)
    json_object_foreach((json_t *)(uintptr_t)own, key, value) metadata[n++] =
        (pdt_metadata){key, strcmp(key, "config") == 0 ? text : json_string_value(value)};
  if (!rc)
    rc = pdt_safetensors_write(d->options->out, c->specs, d->file->n_tensors, metadata, n,
                               copy_chunk, c, err);
  free(metadata);
  free(text);
  return rc;
}

static int check_output(const describing *d, pdt_error *err) {
  pdt_named_files outputs = {0}, inputs = {0};
  pdt_files_add(&outputs, "--out", d->options->out);
  pdt_files_add_model(&inputs, "--model", d->options->model);
  pdt_files_add(&inputs, "--sidecar", d->options->sidecar);
  for (int32_t i = 0; i < d->options->n_data; i++)
    pdt_files_add(&inputs, "--data", d->options->data[i]);
  if (pdt_outputs_check(&outputs, &inputs, err)) return -1;
  if (pdt_sink_descriptor(d->options->out) >= 0)
    return pdt_fail(err, PDT_ERROR_USAGE, "--out: expected the name of a file, found '%s'",
                    d->options->out);
  return pdt_output_may_replace("--out", d->options->out, PDT_KIND_SIDECAR, d->options->overwrite,
                                err);
}

static int load(describing *d, pdt_error *err) {
  return pdt_model_config_load(&d->trunk, d->options->model, NULL, err) ||
                 pdt_tokenizer_load_folder(&d->tokenizer, d->options->model, NULL, err) ||
                 pdt_safetensors_open(&d->file, d->options->sidecar, err) ||
                 pdt_sidecar_config_load(&d->config, d->file, &d->trunk, err)
             ? -1
             : 0;
}

int pdt_describe(const pdt_describe_options *options, pdt_error *err) {
  describing d = {.options = options};
  copy c = {NULL, NULL};
  int rc = check_output(&d, err) || load(&d, err) || gather(&d, err) || list_tensors(&d, &c, err) ||
           write_file(&d, &c, err);
  if (!rc) pdt_say(stdout, "%s: %d tensors as they were", options->out, d.file->n_tensors);
  free((void *)c.tensors);
  free(c.specs);
  pdt_lessons_free(&d.lessons);
  pdt_sidecar_config_free(&d.config);
  pdt_safetensors_close(d.file);
  pdt_tokenizer_free(d.tokenizer);
  return rc ? -1 : 0;
}

#include "model/random.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "model/normal.h"
#include "model/tensors.h"

/* What a file of the model needs: its tensors are specs[first..first + n). */
typedef struct shard {
  int32_t first, n;
} shard;

typedef struct random_model {
  const pdt_model_config *config;
  const pdt_random_options *options;
  int32_t n;
  pdt_wanted_tensor *tensors; /* those the model gets */
  pdt_tensor_spec *specs;     /* the same, as they are written */
  shard *shards;
  int32_t n_shards;
  float *scratch; /* one chunk */
  int32_t first;  /* of the shard being written */
} random_model;

static void choose_tensors(random_model *m) {
  int32_t count = pdt_model_tensor_count(m->config);
  for (int32_t i = 0; i < count; i++) {
    pdt_wanted_tensor *t = &m->tensors[m->n];
    pdt_model_tensor_at(m->config, i, t);
    if (t->need == PDT_OPTIONAL) continue;
    pdt_tensor_spec *spec = &m->specs[m->n++];
    *spec = pdt_wanted_spec(t, m->options->dtype);
  }
}

static pdt_bytes bytes_of(const pdt_tensor_spec *spec) {
  return pdt_dtype_row_bytes(spec->dtype, pdt_tensor_spec_elems(spec));
}

/* Fills files in order, each up to the limit, at least one tensor in each. */
static void cut_shards(random_model *m, pdt_random_summary *summary) {
  pdt_bytes limit = m->options->shard_bytes, used = 0;
  for (int32_t i = 0; i < m->n; i++) {
    pdt_bytes bytes = bytes_of(&m->specs[i]);
    summary->parameters += pdt_tensor_spec_elems(&m->specs[i]);
    summary->bytes += bytes;
    if (i == 0 || (limit > 0 && used + bytes > limit)) {
      m->shards[m->n_shards++] = (shard){.first = i};
      used = 0;
    }
    m->shards[m->n_shards - 1].n++;
    used += bytes;
  }
  summary->files = m->n_shards;
}

static int fill_chunk(void *context, int32_t index, int64_t first, int64_t n_elems, void *chunk,
                      pdt_error *err) {
  (void)err;
  const random_model *m = context;
  const pdt_wanted_tensor *t = &m->tensors[m->first + index];
  double mean = 0, deviation, inputs = (double)t->shape[t->n_dims - 1];
  bool is_embedding = strcmp(t->name, PDT_TENSOR_EMBEDDING) == 0;
  if (t->n_dims == 1) {
    mean = t->role == PDT_ROLE_NORM ? 1 : 0;
    deviation = mean > 0 ? 0.1 : 0.3;
  } else if (strcmp(t->name, PDT_TENSOR_HEAD) == 0 ||
             (is_embedding && m->config->tie_word_embeddings)) {
    deviation = 4 / sqrt(inputs);
  } else {
    deviation = is_embedding ? 1 : m->options->scale / sqrt(inputs);
  }
  pdt_normal_fill(m->options->seed, t->name, first, n_elems, (float)mean, (float)deviation,
                  m->scratch);
  pdt_from_float(m->options->dtype, m->scratch, n_elems, chunk);
  return 0;
}

static void shard_name(const pdt_random_options *options, int32_t i, int32_t n, char name[64]) {
  if (options->shard_bytes > 0)
    snprintf(name, 64, "model-%05d-of-%05d.safetensors", i + 1, n);
  else
    snprintf(name, 64, "model.safetensors");
}

static int write_shard(random_model *m, int32_t i, const char *directory, pdt_error *err) {
  char name[64], *path;
  shard_name(m->options, i, m->n_shards, name);
  if (pdt_path_join(&path, directory, name, err)) return -1;
  const pdt_metadata metadata = {"format", "pt"};
  m->first = m->shards[i].first;
  int rc = pdt_safetensors_write(path, &m->specs[m->first], m->shards[i].n, &metadata, 1,
                                 fill_chunk, m, err);
  free(path);
  return rc;
}

static int write_index(const random_model *m, const char *directory, pdt_bytes total,
                       pdt_error *err) {
  json_t *map = json_object();
  for (int32_t i = 0; i < m->n_shards; i++)
    for (int32_t j = 0; j < m->shards[i].n; j++) {
      char name[64];
      shard_name(m->options, i, m->n_shards, name);
      json_object_set_new(map, m->specs[m->shards[i].first + j].name, json_string(name));
    }
  bool whole = json_object_size(map) == (size_t)m->n;
  json_t *index =
      json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)total, "weight_map", map);
  char *text = index && whole ? json_dumps(index, JSON_INDENT(1)) : NULL, *path = NULL;
  json_decref(index);
  int rc = text ? pdt_path_join(&path, directory, "model.safetensors.index.json", err)
                : pdt_fail(err, PDT_ERROR_MEMORY, "%.200s: index: no memory", directory);
  if (!rc) rc = pdt_file_write_text(path, text, err);
  free(path);
  free(text);
  return rc;
}

static void remove_from(const char *directory, const char *name) {
  char *path;
  if (pdt_path_join(&path, directory, name, NULL)) return;
  unlink(path);
  free(path);
}

void pdt_model_random_remove(const pdt_random_options *options, const char *directory,
                             const pdt_random_summary *summary) {
  for (int32_t i = 0; i < summary->files; i++) {
    char name[64];
    shard_name(options, i, summary->files, name);
    remove_from(directory, name);
  }
  if (options->shard_bytes > 0) remove_from(directory, "model.safetensors.index.json");
}

int pdt_model_random(const pdt_model_config *config, const pdt_random_options *options,
                     const char *directory, pdt_random_summary *summary, pdt_error *err) {
  random_model m = {.config = config, .options = options};
  int32_t count = pdt_model_tensor_count(config);
  *summary = (pdt_random_summary){0};
  int rc = PDT_NEW(&m.tensors, count, "list of tensors", err);
  if (!rc) rc = PDT_NEW(&m.specs, count, "list of tensors", err);
  if (!rc) rc = PDT_NEW(&m.shards, count, "list of files", err);
  if (!rc) rc = PDT_NEW(&m.scratch, PDT_WRITE_CHUNK_ELEMS, "chunk", err);
  if (!rc) {
    choose_tensors(&m);
    cut_shards(&m, summary);
  }
  for (int32_t i = 0; !rc && i < m.n_shards; i++) rc = write_shard(&m, i, directory, err);
  if (!rc && options->shard_bytes > 0) rc = write_index(&m, directory, summary->bytes, err);
  free(m.tensors);
  free(m.specs);
  free(m.shards);
  free(m.scratch);
  return rc;
}

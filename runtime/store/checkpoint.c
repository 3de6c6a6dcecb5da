#include "store/checkpoint.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"

static const pdt_bytes max_index_bytes = 64 << 20;
static const pdt_bytes max_config_bytes = 1 << 20;
enum { MAX_FILES = 10000 };

static int by_name(const void *a, const void *b) {
  const pdt_tensor *const *x = a, *const *y = b;
  return strcmp((*x)->name, (*y)->name);
}

/* A name that cannot leave the model's directory. */
static bool is_plain_name(const char *name) {
  return *name && *name != '.' && !strchr(name, '/') && strlen(name) < 256;
}

static int by_text(const void *a, const void *b) {
  const char *const *x = a, *const *y = b;
  return strcmp(*x, *y);
}

static int open_one(pdt_checkpoint *c, const char *name, pdt_error *err) {
  char *path;
  if (pdt_path_join(&path, c->directory, name, err)) return -1;
  int rc = pdt_safetensors_open(&c->files[c->n_files], path, err);
  free(path);
  if (!rc) c->n_files++;
  return rc;
}

static int open_single(pdt_checkpoint *c, pdt_error *err) {
  if (PDT_NEW(&c->files, 1, "list of files", err) || open_one(c, "model.safetensors", err))
    return -1;
  const pdt_safetensors *file = c->files[0];
  if (PDT_NEW(&c->tensors, file->n_tensors, "list of tensors", err)) return -1;
  for (int32_t i = 0; i < file->n_tensors; i++) c->tensors[i] = &file->tensors[i];
  c->n_tensors = file->n_tensors;
  return 0;
}

/* The names of the shards, each once, ascending; the strings stay the map's. */
static int shard_names(const char ***out, int32_t *n_out, const json_t *map, const char *where,
                       pdt_error *err) {
  const char **names;
  if (PDT_NEW(&names, json_object_size(map), "list of shards", err)) return -1;
  size_t n = 0, unique = 0;
  const char *key;
  const json_t *value;
  int rc = 0;
  json_object_foreach((json_t *)(uintptr_t)map, key, value) {
    const char *name = json_string_value(value);
    if (!name || !is_plain_name(name)) {
      rc = pdt_fail(err, PDT_ERROR_INPUT,
                    "%s: weight_map: '%.120s': expected the name of a file in the same folder, "
                    "found '%.120s'",
                    where, key, name ? name : pdt_json_type_name(value));
      break;
    }
    names[n++] = name;
  }
  qsort(names, n, sizeof *names, by_text);
  for (size_t i = 0; i < n; i++)
    if (i == 0 || strcmp(names[i], names[i - 1]) != 0) names[unique++] = names[i];
  if (!rc && unique > MAX_FILES)
    rc = pdt_fail(err, PDT_ERROR_INPUT, "%s: weight_map: expected at most %d files, found %zu",
                  where, MAX_FILES, unique);
  *out = names;
  *n_out = (int32_t)unique;
  if (!rc) return 0;
  free(names);
  *out = NULL;
  return -1;
}

static const pdt_safetensors *file_of(const pdt_checkpoint *c, const char *const *names,
                                      const char *name) {
  const char *const *found = bsearch(&name, names, (size_t)c->n_files, sizeof *names, by_text);
  return c->files[found - names];
}

/* Opens the shards of a weight_map and finds each tensor where the map says. */
static int open_shards(pdt_checkpoint *c, const json_t *map, const char *const *names,
                       int32_t n_names, const char *where, pdt_error *err) {
  if (PDT_NEW(&c->files, n_names, "list of files", err) ||
      PDT_NEW(&c->tensors, json_object_size(map), "list of tensors", err))
    return -1;
  for (int32_t i = 0; i < n_names; i++)
    if (open_one(c, names[i], err)) return -1;
  const char *key;
  const json_t *value;
  json_object_foreach((json_t *)(uintptr_t)map, key, value) {
    const pdt_safetensors *file = file_of(c, names, json_string_value(value));
    const pdt_tensor *tensor = pdt_safetensors_find(file, key);
    if (!tensor)
      return pdt_fail(err, PDT_ERROR_INPUT, "%s: weight_map: tensor '%.200s' is not in '%s'", where,
                      key, json_string_value(value));
    c->tensors[c->n_tensors++] = tensor;
  }
  return 0;
}

static int open_index(pdt_checkpoint *c, const char *path, pdt_error *err) {
  json_t *index;
  const json_t *map;
  if (pdt_json_load(&index, path, max_index_bytes, err)) return -1;
  const char **names = NULL;
  int32_t n_names;
  int rc = pdt_json_expect_object(index, path, err);
  if (!rc) rc = pdt_json_object(index, path, "weight_map", &map, err);
  if (!rc) rc = shard_names(&names, &n_names, map, path, err);
  if (!rc) rc = open_shards(c, map, names, n_names, path, err);
  free(names);
  json_decref(index);
  return rc;
}

static int open_files(pdt_checkpoint *c, pdt_error *err) {
  char *single, *index = NULL;
  if (pdt_path_join(&single, c->directory, "model.safetensors", err) ||
      pdt_path_join(&index, c->directory, "model.safetensors.index.json", err)) {
    free(single);
    return -1;
  }
  int rc;
  if (access(single, F_OK) == 0)
    rc = open_single(c, err);
  else if (access(index, F_OK) == 0)
    rc = open_index(c, index, err);
  else
    rc = pdt_fail(err, PDT_ERROR_IO,
                  "%s: found neither model.safetensors nor model.safetensors.index.json: %s",
                  c->directory, strerror(errno));
  free(single);
  free(index);
  return rc;
}

int pdt_checkpoint_open(pdt_checkpoint **out, const char *directory, pdt_notices *notices,
                        pdt_error *err) {
  (void)notices;
  *out = NULL;
  pdt_checkpoint *c;
  if (PDT_NEW(&c, 1, "checkpoint", err)) return -1;
  c->directory = strdup(directory);
  int rc = c->directory ? open_files(c, err)
                        : pdt_fail(err, PDT_ERROR_MEMORY, "%s: no memory", directory);
  if (rc) {
    pdt_checkpoint_close(c);
    return -1;
  }
  qsort((void *)c->tensors, (size_t)c->n_tensors, sizeof *c->tensors, by_name);
  *out = c;
  return 0;
}

void pdt_checkpoint_close(pdt_checkpoint *checkpoint) {
  if (!checkpoint) return;
  for (int32_t i = 0; i < checkpoint->n_files; i++) pdt_safetensors_close(checkpoint->files[i]);
  free(checkpoint->files);
  free((void *)checkpoint->tensors);
  free(checkpoint->directory);
  free(checkpoint);
}

const pdt_tensor *pdt_checkpoint_find(const pdt_checkpoint *checkpoint, const char *name) {
  const pdt_tensor key = {.name = name}, *at = &key;
  const pdt_tensor *const *found =
      bsearch(&at, checkpoint->tensors, (size_t)checkpoint->n_tensors, sizeof at, by_name);
  return found ? *found : NULL;
}

int pdt_checkpoint_expect(const pdt_checkpoint *checkpoint, const char *name, int32_t n_dims,
                          const int64_t *shape, const pdt_tensor **out, pdt_error *err) {
  *out = NULL;
  const pdt_tensor *tensor = pdt_checkpoint_find(checkpoint, name);
  if (!tensor)
    return pdt_fail(err, PDT_ERROR_INPUT,
                    "%s: tensor '%s' is missing (hint: is config.json of another model?)",
                    checkpoint->directory, name);
  if (pdt_tensor_expect(tensor, n_dims, shape, err)) return -1;
  *out = tensor;
  return 0;
}

int pdt_checkpoint_unchanged(const pdt_checkpoint *checkpoint, pdt_error *err) {
  for (int32_t i = 0; i < checkpoint->n_files; i++)
    if (pdt_safetensors_unchanged(checkpoint->files[i], err)) return -1;
  return 0;
}

int pdt_config_hash(const char *directory, uint64_t *out, pdt_error *err) {
  char *path, *text;
  pdt_bytes length;
  if (pdt_path_join(&path, directory, "config.json", err)) return -1;
  int rc = pdt_file_read(&text, &length, path, max_config_bytes, err);
  free(path);
  if (rc) return -1;
  *out = XXH3_64bits(text, (size_t)length);
  free(text);
  return 0;
}

int pdt_checkpoint_fingerprint(const pdt_checkpoint *checkpoint, pdt_fingerprint_mode mode,
                               uint64_t *out, pdt_error *err) {
  uint64_t hash;
  if (pdt_config_hash(checkpoint->directory, &hash, err)) return -1;
  for (int32_t i = 0; i < checkpoint->n_files; i++) {
    uint64_t file;
    if (pdt_safetensors_fingerprint(checkpoint->files[i], mode, &file, err)) return -1;
    hash = XXH3_64bits_withSeed(&file, sizeof file, hash);
  }
  *out = hash;
  return 0;
}

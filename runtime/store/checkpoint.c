#include "store/checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "store/gguf_model.h"

static const pdt_bytes max_index_bytes = 64 << 20;
static const pdt_bytes max_config_bytes = 1 << 20;
enum { MAX_FILES = 10000 };

/* By name; of one name, in the order of their files. */
static int by_name(const void *a, const void *b) {
  const pdt_tensor *const *x = a, *const *y = b;
  int order = strcmp((*x)->name, (*y)->name);
  return order ? order : strcmp((*x)->file->path, (*y)->file->path);
}

static int by_text(const void *a, const void *b) {
  const char *const *x = a, *const *y = b;
  return strcmp(*x, *y);
}

/* A file's name in an index, as it is counted: "./a//b" is "a/b". NULL where it does not stay in
 * the model's folder, or without memory; freed by the caller. */
static char *plain_name(const char *name) {
  char *out = *name == '/' ? NULL : strdup(name), *to = out;
  while (out && *name) {
    size_t n = strcspn(name, "/");
    bool is_up = n == 2 && name[0] == '.' && name[1] == '.';
    bool is_here = n == 0 || (n == 1 && name[0] == '.');
    if (is_up || n > 255) {
      free(out);
      return NULL;
    }
    if (!is_here) {
      if (to > out) *to++ = '/';
      memmove(to, name, n);
      to += n;
    }
    name += n + (name[n] == '/');
  }
  if (out && to == out) {
    free(out);
    return NULL;
  }
  if (out) *to = '\0';
  return out;
}

static int open_one(pdt_checkpoint *c, const char *name, pdt_error *err) {
  char *path;
  if (pdt_path_join(&path, c->directory, name, err)) return -1;
  int rc = pdt_safetensors_open(&c->files[c->n_files], path, err);
  free(path);
  if (!rc) c->n_files++;
  return rc;
}

/* ---- an index ---- */

/* The files of a weight_map, each once, ascending. */
typedef struct shard_names {
  char **names;
  int32_t n;
} shard_names;

static void free_names(shard_names *s) {
  for (int32_t i = 0; i < s->n; i++) free(s->names[i]);
  free(s->names);
}

static int read_names(shard_names *s, const json_t *map, const char *where, pdt_error *err) {
  if (PDT_NEW(&s->names, json_object_size(map), "list of shards", err)) return -1;
  const char *key;
  const json_t *value;
  json_object_foreach((json_t *)(uintptr_t)map, key, value) {
    const char *text = json_string_value(value);
    s->names[s->n] = text ? plain_name(text) : NULL;
    if (!s->names[s->n])
      return pdt_fail(err, PDT_ERROR_INPUT,
                      "%s: weight_map: '%.120s': expected a file in the model's folder, found "
                      "'%.120s'",
                      where, key, text ? text : pdt_json_type_name(value));
    s->n++;
  }
  qsort(s->names, (size_t)s->n, sizeof *s->names, by_text);
  int32_t unique = 0;
  for (int32_t i = 0; i < s->n; i++) {
    if (unique > 0 && strcmp(s->names[i], s->names[unique - 1]) == 0)
      free(s->names[i]);
    else
      s->names[unique++] = s->names[i];
  }
  s->n = unique;
  if (unique <= MAX_FILES) return 0;
  return pdt_fail(err, PDT_ERROR_INPUT, "%s: weight_map: expected at most %d files, found %d",
                  where, MAX_FILES, unique);
}

/* Is the tensor in the file that the index has it in? */
static bool is_listed(const pdt_checkpoint *c, const pdt_tensor *tensor) {
  const char *listed = json_string_value(json_object_get(c->map, tensor->name));
  char *name = listed ? plain_name(listed) : NULL, *path = NULL;
  bool same = name && !pdt_path_join(&path, c->directory, name, NULL) &&
              strcmp(path, tensor->file->path) == 0;
  free(name);
  free(path);
  return same;
}

/* Lists the tensors of all files, each name once: where several have it, the file that the index
 * says, or else the last one. */
static int list_tensors(pdt_checkpoint *c, pdt_error *err) {
  int64_t total = 0;
  for (int32_t i = 0; i < c->n_files; i++) total += c->files[i]->n_tensors;
  if (total > INT32_MAX)
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: more tensors than can be counted", c->directory);
  if (PDT_NEW(&c->tensors, total, "list of tensors", err)) return -1;
  const pdt_tensor **all = c->tensors;
  int32_t n = 0;
  for (int32_t i = 0; i < c->n_files; i++)
    for (int32_t t = 0; t < c->files[i]->n_tensors; t++) all[n++] = &c->files[i]->tensors[t];
  qsort((void *)all, (size_t)n, sizeof *all, by_name);
  for (int32_t i = 0; i < n; i++) {
    bool repeated = c->n_tensors > 0 && strcmp(all[c->n_tensors - 1]->name, all[i]->name) == 0;
    if (!repeated)
      all[c->n_tensors++] = all[i];
    else if (!is_listed(c, all[c->n_tensors - 1]))
      all[c->n_tensors - 1] = all[i];
  }
  return 0;
}

/* Opens the shards that are there. One that is not may hold what nobody needs: whoever asks for
 * one of its tensors hears of it. */
static int open_shards(pdt_checkpoint *c, const shard_names *s, pdt_notices *notices,
                       pdt_error *err) {
  int32_t n_absent = 0;
  if (PDT_NEW(&c->files, s->n, "list of files", err)) return -1;
  for (int32_t i = 0; i < s->n; i++) {
    char *path;
    if (pdt_path_join(&path, c->directory, s->names[i], err)) return -1;
    bool there = pdt_path_is_there(path);
    free(path);
    if (there && open_one(c, s->names[i], err)) return -1;
    if (!there && n_absent++ == 0 && !(c->absent = strdup(s->names[i])))
      return pdt_fail(err, PDT_ERROR_MEMORY, "%s: no memory", c->directory);
  }
  if (n_absent)
    pdt_notice(notices, PDT_NOTICE_DETAIL,
               "%s: of the files in model.safetensors.index.json %d are not there, as '%.200s'",
               c->directory, n_absent, c->absent);
  return list_tensors(c, err);
}

static int open_index(pdt_checkpoint *c, const char *path, pdt_notices *notices, pdt_error *err) {
  const json_t *map;
  shard_names s = {0};
  if (pdt_json_load_python(&c->index, path, max_index_bytes, err)) return -1;
  int rc = pdt_json_expect_object(c->index, path, err);
  if (!rc) rc = pdt_json_object(c->index, path, "weight_map", &map, err);
  if (!rc) c->map = map;
  if (!rc) rc = read_names(&s, map, path, err);
  if (!rc) rc = open_shards(c, &s, notices, err);
  free_names(&s);
  return rc;
}

static int open_single(pdt_checkpoint *c, pdt_error *err) {
  if (PDT_NEW(&c->files, 1, "list of files", err) || open_one(c, "model.safetensors", err))
    return -1;
  return list_tensors(c, err);
}

/* The file, or the parts, of a model in GGUF. */
static int open_gguf(pdt_checkpoint *c, pdt_error *err) {
  pdt_gguf_model *m;
  int64_t n = 0;
  if (pdt_gguf_model_open(&m, c->directory, err)) return -1;
  int rc = PDT_NEW(&c->files, m->n_parts, "list of files", err);
  for (int32_t i = 0; i < m->n_parts && !rc; i++) {
    rc = pdt_gguf_part_tensors(&c->files[i], m, i, err);
    if (!rc) c->n_files++;
  }
  pdt_gguf_model_close(m);
  if (rc || list_tensors(c, err)) return -1;
  for (int32_t i = 0; i < c->n_files; i++) n += c->files[i]->n_tensors;
  if (n == c->n_tensors) return 0;
  return pdt_fail(err, PDT_ERROR_INPUT, "%s: expected each tensor in one part, found one in two",
                  c->directory);
}

static int open_files(pdt_checkpoint *c, pdt_notices *notices, pdt_error *err) {
  if (pdt_is_gguf(c->directory)) return open_gguf(c, err);
  char *single, *index = NULL;
  if (pdt_path_join(&single, c->directory, "model.safetensors", err) ||
      pdt_path_join(&index, c->directory, "model.safetensors.index.json", err)) {
    free(single);
    return -1;
  }
  int rc;
  bool has_index = pdt_path_is_there(index);
  if (pdt_path_is_there(single)) {
    c->passed_over = has_index;
    rc = open_single(c, err);
  } else if (has_index) {
    rc = open_index(c, index, notices, err);
  } else {
    rc = pdt_fail(err, PDT_ERROR_IO,
                  "%s: found neither model.safetensors nor model.safetensors.index.json",
                  c->directory);
  }
  free(single);
  free(index);
  return rc;
}

int pdt_checkpoint_open(pdt_checkpoint **out, const char *directory, pdt_notices *notices,
                        pdt_error *err) {
  *out = NULL;
  pdt_checkpoint *c;
  if (PDT_NEW(&c, 1, "checkpoint", err)) return -1;
  c->directory = strdup(directory);
  int rc = c->directory ? open_files(c, notices, err)
                        : pdt_fail(err, PDT_ERROR_MEMORY, "%s: no memory", directory);
  if (rc) {
    pdt_checkpoint_close(c);
    return -1;
  }
  *out = c;
  return 0;
}

void pdt_checkpoint_close(pdt_checkpoint *checkpoint) {
  if (!checkpoint) return;
  for (int32_t i = 0; i < checkpoint->n_files; i++) pdt_safetensors_close(checkpoint->files[i]);
  free(checkpoint->files);
  free((void *)checkpoint->tensors);
  json_decref(checkpoint->index);
  free(checkpoint->absent);
  free(checkpoint->directory);
  free(checkpoint);
}

static int by_name_alone(const void *key, const void *element) {
  return strcmp(key, (*(const pdt_tensor *const *)element)->name);
}

static const pdt_tensor *find_exactly(const pdt_checkpoint *c, const char *name) {
  const pdt_tensor *const *found =
      bsearch(name, c->tensors, (size_t)c->n_tensors, sizeof *c->tensors, by_name_alone);
  return found ? *found : NULL;
}

/* The tensors that are read under a name, in the order of their own names: with a "model." less, as
 * it is, and with one more. Returns how many there are. */
static int find_all(const pdt_checkpoint *c, const char *name, const pdt_tensor *found[3]) {
  static const char prefix[] = "model.";
  const size_t length = sizeof prefix - 1;
  char longer[512];
  bool fits = snprintf(longer, sizeof longer, "%s%s", prefix, name) < (int)sizeof longer;
  const char *names[] = {strncmp(name, prefix, length) == 0 ? name + length : NULL, name,
                         fits ? longer : NULL};
  int n = 0;
  for (int i = 0; i < 3; i++) {
    const pdt_tensor *tensor = names[i] ? find_exactly(c, names[i]) : NULL;
    if (!tensor) continue;
    int at = n++;
    for (; at > 0 && strcmp(found[at - 1]->name, tensor->name) > 0; at--) found[at] = found[at - 1];
    found[at] = tensor;
  }
  return n;
}

const pdt_tensor *pdt_checkpoint_find(const pdt_checkpoint *checkpoint, const char *name) {
  const pdt_tensor *found[3];
  return find_all(checkpoint, name, found) ? found[0] : NULL;
}

const pdt_tensor *pdt_checkpoint_find_second(const pdt_checkpoint *checkpoint, const char *name) {
  const pdt_tensor *found[3];
  return find_all(checkpoint, name, found) > 1 ? found[1] : NULL;
}

int pdt_checkpoint_missing(const pdt_checkpoint *checkpoint, const char *name, pdt_error *err) {
  const char *listed = json_string_value(json_object_get(checkpoint->map, name));
  if (!listed && checkpoint->absent)
    return pdt_fail(
        err, PDT_ERROR_IO,
        "%s: tensor '%s' is missing, and so is '%.200s' of model.safetensors.index.json",
        checkpoint->directory, name, checkpoint->absent);
  if (!listed)
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: tensor '%s' is missing", checkpoint->directory,
                    name);
  char *plain = plain_name(listed), *path = NULL;
  bool there =
      plain && !pdt_path_join(&path, checkpoint->directory, plain, NULL) && pdt_path_is_there(path);
  free(plain);
  free(path);
  return pdt_fail(err, there ? PDT_ERROR_INPUT : PDT_ERROR_IO,
                  "%s: tensor '%s' is missing: model.safetensors.index.json has it in '%.200s', "
                  "which %s",
                  checkpoint->directory, name, listed, there ? "does not have it" : "is not there");
}

int pdt_checkpoint_unchanged(const pdt_checkpoint *checkpoint, pdt_error *err) {
  for (int32_t i = 0; i < checkpoint->n_files; i++)
    if (pdt_safetensors_unchanged(checkpoint->files[i], err)) return -1;
  return 0;
}

/* The same of a GGUF file: of all that stands before its data. */
static int hash_gguf(const char *path, uint64_t *out, pdt_error *err) {
  pdt_gguf *g;
  if (pdt_gguf_open(&g, path, err)) return -1;
  pdt_bytes most = (pdt_bytes)g->header.bytes;
  *out = XXH3_64bits(g->header.data, (size_t)(most < g->data_offset ? most : g->data_offset));
  pdt_gguf_close(g);
  return 0;
}

int pdt_config_hash(const char *directory, uint64_t *out, pdt_error *err) {
  char *path, *text;
  pdt_bytes length;
  if (pdt_is_gguf(directory)) return hash_gguf(directory, out, err);
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

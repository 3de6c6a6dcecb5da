#include "run/outputs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/json.h"
#include "base/path.h"
#include "journal/journal.h"
#include "journal/sink.h"
#include "store/gguf_model.h"

static const pdt_bytes max_index_bytes = 64 << 20;

void pdt_files_add(pdt_named_files *f, const char *flag, const char *path) {
  if (!path) return;
  struct pdt_named_file *files = realloc(f->files, ((size_t)f->n + 1) * sizeof *files);
  char *copy = files ? strdup(path) : NULL;
  if (files) f->files = files;
  if (copy) f->files[f->n++] = (struct pdt_named_file){flag, copy};
  f->no_memory = f->no_memory || !copy;
}

void pdt_files_add_in(pdt_named_files *f, const char *flag, const char *folder, const char *name) {
  char *path = NULL;
  if (!folder || !*folder) return; /* the reader tells */
  if (pdt_path_join(&path, folder, name, NULL)) f->no_memory = true;
  pdt_files_add(f, flag, path);
  free(path);
}

/* The shards of an index; one that is not sound is told where it is read. */
static void add_shards(pdt_named_files *f, const char *flag, const char *folder) {
  char *path;
  json_t *index = NULL;
  const char *key;
  json_t *value;
  pdt_error err = {0};
  if (!pdt_path_join(&path, folder, "model.safetensors.index.json", &err) &&
      access(path, F_OK) == 0)
    (void)pdt_json_load_python(&index, path, max_index_bytes, &err);
  f->no_memory = f->no_memory || err.code == PDT_ERROR_MEMORY;
  free(path);
  const char *last = "";
  json_object_foreach(json_object_get(index, "weight_map"), key, value) {
    const char *name = json_string_value(value);
    if (!name || strcmp(name, last) == 0) continue;
    pdt_files_add_in(f, flag, folder, name);
    last = name;
  }
  json_decref(index);
}

/* By its first bytes; a sidecar by its metadata. */
static pdt_file_kind kind_of(const char *path) {
  static const char data[] = "{\"format\":\"pdt-data\"";
  char head[sizeof data] = "";
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  ssize_t n = fd < 0 ? -1 : read(fd, head, sizeof data - 1);
  if (fd >= 0) close(fd);
  if (pdt_is_journal(path)) return PDT_KIND_JOURNAL;
  if (n == (ssize_t)sizeof data - 1 && strcmp(head, data) == 0) return PDT_KIND_DATA;
  pdt_safetensors *file;
  if (n >= 4 && memcmp(head, "GGUF", 4) == 0) return PDT_KIND_TENSORS;
  if (n < 9 || head[8] != '{' || memcmp(head + 4, "\0\0\0\0", 4) != 0) return PDT_KIND_OTHER;
  if (pdt_safetensors_open(&file, path, NULL)) return PDT_KIND_TENSORS; /* a damaged one */
  bool sidecar = pdt_safetensors_metadata(file, "config") != NULL;
  pdt_safetensors_close(file);
  return sidecar ? PDT_KIND_SIDECAR : PDT_KIND_TENSORS;
}

/* Every file of weights in the folder; a sidecar that is kept there is none of the model's. */
static void add_weights(pdt_named_files *f, const char *flag, const char *folder) {
  DIR *list = opendir(folder);
  if (!list && errno == ENOMEM) f->no_memory = true; /* the reader tells of everything else */
  for (const struct dirent *e; list && (e = readdir(list));) {
    const char *end = strrchr(e->d_name, '.');
    char *path = NULL;
    if (!end || strcmp(end, ".safetensors") != 0) continue;
    if (pdt_path_join(&path, folder, e->d_name, NULL)) f->no_memory = true;
    if (path && kind_of(path) != PDT_KIND_SIDECAR) pdt_files_add(f, flag, path);
    free(path);
  }
  if (list) closedir(list);
}

/* A model in GGUF, with the other parts of it; one that is not sound is told where it is read. */
static void add_gguf(pdt_named_files *f, const char *flag, const char *path) {
  pdt_gguf_model *m;
  pdt_files_add(f, flag, path);
  if (pdt_gguf_model_open(&m, path, NULL)) return;
  for (int32_t i = 1; i < m->n_parts; i++) pdt_files_add(f, flag, m->parts[i]->path);
  pdt_gguf_model_close(m);
}

void pdt_files_add_model(pdt_named_files *f, const char *flag, const char *folder) {
  if (folder && pdt_is_gguf(folder)) {
    add_gguf(f, flag, folder);
    return;
  }
  static const char *const names[] = {"config.json",
                                      "generation_config.json",
                                      "tokenizer.json",
                                      "tokenizer_config.json",
                                      "special_tokens_map.json",
                                      "added_tokens.json",
                                      "tokenizer.model",
                                      "vocab.json",
                                      "merges.txt",
                                      "chat_template.jinja",
                                      "model.safetensors",
                                      "model.safetensors.index.json"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    pdt_files_add_in(f, flag, folder, names[i]);
  if (!folder) return;
  add_weights(f, flag, folder);
  add_shards(f, flag, folder);
}

static void free_files(pdt_named_files *f) {
  for (int32_t i = 0; i < f->n; i++) free(f->files[i].path);
  free(f->files);
  *f = (pdt_named_files){0};
}

/* What a path's file is now; false when there is none. */
static bool status_of(const char *path, struct stat *status) {
  int own = pdt_sink_descriptor(path);
  return (own < 0 ? stat(path, status) : fstat(own, status)) == 0;
}

static bool is_same(const char *a, const char *b, pdt_error *err) {
  struct stat x, y;
  int own_a = pdt_sink_descriptor(a), own_b = pdt_sink_descriptor(b);
  if (own_a >= 0 && own_a == own_b) return true;
  bool has_a = status_of(a, &x), has_b = status_of(b, &y);
  if (!has_a && !has_b) return own_a < 0 && own_b < 0 && pdt_same_file(a, b, err);
  return has_a && has_b && x.st_dev == y.st_dev && x.st_ino == y.st_ino &&
         (!S_ISCHR(x.st_mode) || isatty(own_a < 0 ? own_b : own_a));
}

/* Is this the regular file behind one of the standard descriptors, though not named as such? */
static bool is_behind(int descriptor, const char *path) {
  struct stat x, y;
  return pdt_sink_descriptor(path) < 0 && stat(path, &x) == 0 && fstat(descriptor, &y) == 0 &&
         S_ISREG(x.st_mode) && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static int check_one(const pdt_named_files *outputs, int32_t i, const pdt_named_files *inputs,
                     pdt_error *err) {
  const struct pdt_named_file *o = &outputs->files[i];
  if (!*o->path)
    return pdt_fail(err, PDT_ERROR_USAGE, "%s: expected the name of a file, found ''", o->flag);
  for (int32_t k = 0; k < inputs->n; k++)
    if (is_same(o->path, inputs->files[k].path, err))
      return pdt_fail(err, PDT_ERROR_USAGE,
                      "%s: '%s' is the file '%s' of %s, which would be lost (hint: name another "
                      "file)",
                      o->flag, o->path, inputs->files[k].path, inputs->files[k].flag);
  for (int32_t k = 0; k < i; k++)
    if (is_same(o->path, outputs->files[k].path, err))
      return pdt_fail(err, PDT_ERROR_USAGE,
                      "%s: '%s' is also the file of %s; one of them would be lost (hint: name "
                      "another file)",
                      o->flag, o->path, outputs->files[k].flag);
  bool out = is_behind(STDOUT_FILENO, o->path);
  if (out || is_behind(STDERR_FILENO, o->path))
    return pdt_fail(err, PDT_ERROR_USAGE,
                    "%s: '%s' is also where standard %s goes (hint: name another file)", o->flag,
                    o->path, out ? "output" : "error");
  return err->code == PDT_ERROR_NONE ? 0 : -1; /* of a comparison without memory */
}

int pdt_outputs_check(pdt_named_files *outputs, pdt_named_files *inputs, pdt_error *err) {
  int rc = outputs->no_memory || inputs->no_memory
               ? pdt_fail(err, PDT_ERROR_MEMORY, "names of files: no memory")
               : 0;
  for (int32_t i = 0; i < outputs->n && !rc; i++) rc = check_one(outputs, i, inputs, err);
  free_files(outputs);
  free_files(inputs);
  return rc;
}

int pdt_output_may_replace(const char *flag, const char *path, pdt_file_kind own, bool overwrite,
                           pdt_error *err) {
  static const char *const names[] = {"a file", "a journal", "a sidecar",
                                      "a file of weights or of training", "a file of data"};
  struct stat status;
  if (pdt_sink_descriptor(path) >= 0 || stat(path, &status) || !S_ISREG(status.st_mode) ||
      status.st_size == 0)
    return 0;
  pdt_file_kind kind = kind_of(path);
  if (kind != own && kind != PDT_KIND_OTHER)
    return pdt_fail(err, PDT_ERROR_USAGE,
                    "%s: '%s' holds %s, which is not replaced by another kind of file (hint: name "
                    "another file, or remove it)",
                    flag, path, names[kind]);
  if (overwrite) return 0;
  return pdt_fail(err, PDT_ERROR_USAGE,
                  "%s: '%s' is there already (hint: --overwrite replaces it; or name another file)",
                  flag, path);
}

int pdt_output_folder_check(const char *flag, const char *path, pdt_error *err) {
  if (*path && strcmp(path, "-") != 0) return 0;
  return pdt_fail(err, PDT_ERROR_USAGE, "%s: expected the name of a folder, found '%s'%s", flag,
                  path, *path ? " (hint: ./- for one of that name)" : "");
}

int pdt_output_folder_make(const char *path, bool *made, pdt_error *err) {
  bool new = mkdir(path, 0777) == 0;
  if (made) *made = new;
  if (new || errno == EEXIST) return 0;
  return pdt_fail(err, PDT_ERROR_IO, "%s: cannot make the directory: %s", path, strerror(errno));
}

int pdt_run_same_data(const pdt_comm *world, const char *path, uint64_t fingerprint,
                      pdt_error *err) {
  if (pdt_comm_is_same(world, fingerprint)) return 0;
  return pdt_fail(err, PDT_ERROR_INPUT, "%s: is not the same on every rank's machine", path);
}

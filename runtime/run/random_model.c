#include "run/random_model.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "base/text_safe.h"
#include "model/preset.h"
#include "run/outputs.h"

static const pdt_bytes max_config_bytes = 1 << 20;
static const pdt_bytes max_tokenizer_bytes = 256 << 20;

/* Is there a shard that no index tells of any more? */
static bool has_shard(const char *directory) {
  bool found = false;
  int number, of, end;
  DIR *list = opendir(directory);
  for (const struct dirent *e; list && !found && (e = readdir(list)); found = end > 0) {
    end = 0;
    (void)sscanf(e->d_name, "model-%d-of-%d.safetensors%n", &number, &of, &end);
  }
  if (list) closedir(list);
  return found;
}

/* Makes the directory; refuses one that a model is in. *made: it was not there. */
static int make_directory(const char *directory, bool *made, pdt_error *err) {
  static const char *const names[] = {"config.json", "model.safetensors",
                                      "model.safetensors.index.json", "tokenizer.json"};
  const char *taken = NULL;
  if (pdt_output_folder_make(directory, made, err)) return -1;
  for (size_t i = 0; i < sizeof names / sizeof *names && !taken; i++) {
    char *path;
    if (pdt_path_join(&path, directory, names[i], err)) return -1;
    if (access(path, F_OK) == 0) taken = names[i];
    free(path);
  }
  if (!taken && has_shard(directory)) taken = "shard of a model";
  return taken ? pdt_fail(err, PDT_ERROR_IO,
                          "%s: has a %s already (hint: remove it, or choose another directory)",
                          directory, taken)
               : 0;
}

/* The config's text and what it says. */
static int read_config(const pdt_random_model *a, pdt_model_config *config, char **text,
                       pdt_error *err) {
  pdt_bytes length;
  json_t *object;
  const char *where = a->config ? a->config : a->preset;
  if (a->config ? pdt_file_read(text, &length, a->config, max_config_bytes, err)
                : pdt_model_preset(a->preset, text, err))
    return -1;
  if (pdt_json_parse_python(&object, *text, strlen(*text), where, err)) return -1;
  int rc = pdt_model_config_parse(config, object, NULL, where, NULL, err);
  json_decref(object);
  return rc;
}

static int write_into(const char *directory, const char *name, const char *text, pdt_error *err) {
  char *path;
  if (pdt_path_join(&path, directory, name, err)) return -1;
  int rc = pdt_file_write_text(path, text, err);
  free(path);
  return rc;
}

/* The tokenizer given, or one made for the config; *text NULL when its vocabulary is too small. */
static int get_tokenizer(const pdt_random_model *a, const pdt_model_config *config, char **text,
                         pdt_error *err) {
  pdt_bytes length;
  if (!a->tokenizer) return pdt_random_tokenizer(config, text, err);
  return pdt_file_read(text, &length, a->tokenizer, max_tokenizer_bytes, err);
}

/* Nothing of a model that failed stays. */
static void remove_made(const pdt_random_model *a, const pdt_random_summary *summary, bool made) {
  char *path;
  pdt_model_random_remove(&a->random, a->out, summary);
  if (pdt_path_join(&path, a->out, "tokenizer.json", NULL) == 0) {
    unlink(path);
    free(path);
  }
  if (made) rmdir(a->out);
}

static void print_summary(const pdt_random_model *a, const pdt_random_summary *summary) {
  pdt_say(stdout, "%s: %.1f million random parameters, %s, %.1f MB in %d file%s", a->out,
          (double)summary->parameters * 1e-6, pdt_dtype_name(a->random.dtype),
          (double)summary->bytes * 1e-6, summary->files, summary->files == 1 ? "" : "s");
}

/* config.json comes last: a directory that has one is whole. */
static int write_model(const pdt_random_model *a, const pdt_model_config *config,
                       const char *config_text, pdt_error *err) {
  char *tokenizer = NULL;
  bool made = false;
  pdt_random_summary summary = {0};
  int rc = get_tokenizer(a, config, &tokenizer, err);
  if (!rc) rc = pdt_output_folder_check("--out", a->out, err);
  if (!rc) rc = make_directory(a->out, &made, err);
  if (!rc) {
    rc = pdt_model_random(config, &a->random, a->out, &summary, err);
    if (!rc && tokenizer) rc = write_into(a->out, "tokenizer.json", tokenizer, err);
    if (!rc) rc = write_into(a->out, "config.json", config_text, err);
    if (rc) remove_made(a, &summary, made);
  }
  if (!rc) {
    print_summary(a, &summary);
    if (!tokenizer)
      pdt_say(stdout,
              "%s: no tokenizer.json: %d ids have no room for 256 bytes and the special tokens",
              a->out, config->vocab_size);
  }
  free(tokenizer);
  return rc;
}

int pdt_random_model_write(const pdt_random_model *model, pdt_error *err) {
  pdt_model_config config;
  char *text = NULL;
  int rc = read_config(model, &config, &text, err);
  if (!rc) rc = write_model(model, &config, text, err);
  free(text);
  return rc;
}

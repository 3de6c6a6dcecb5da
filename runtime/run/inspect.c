#include "run/inspect.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/finite.h"
#include "base/memory.h"
#include "base/text_safe.h"
#include "journal/bytes.h"
#include "journal/inspect.h"
#include "journal/output.h"
#include "model/tensors.h"
#include "run/answers.h"
#include "run/inspect_gguf.h"
#include "run/outputs.h"
#include "run/terminal.h"
#include "sidecar/config.h"
#include "store/gguf.h"

/* A report is one JSON object; a table is the same with a line a value, long lists counted. */
static void print_value(const char *key, const json_t *value) {
  enum { LONG_LIST = 16 };
  if (json_array_size(value) > LONG_LIST) {
    printf("%-28s [%zu values]\n", key, json_array_size(value));
    return;
  }
  char *text = json_is_string(value)
                   ? strdup(json_string_value(value))
                   : json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
  pdt_say(stdout, "%-28s %s", key, text ? text : "(no memory)");
  free(text);
}

static void print_tensors(const json_t *list) {
  size_t i;
  const json_t *t;
  printf("\n%-56s %-8s %16s  %s\n", "tensor", "dtype", "bytes", "shape");
  json_array_foreach(list, i, t) {
    char *shape = json_dumps(json_object_get(t, "shape"), JSON_COMPACT);
    pdt_say(stdout, "%-56s %-8s %16lld  %s", json_string_value(json_object_get(t, "name")),
            json_string_value(json_object_get(t, "dtype")),
            (long long)json_integer_value(json_object_get(t, "bytes")), shape ? shape : "");
    free(shape);
  }
}

static void print_table(const json_t *report) {
  const char *key, *inner;
  const json_t *value, *part;
  json_object_foreach((json_t *)(uintptr_t)report, key, value) {
    if (strcmp(key, "tensor_list") == 0) continue;
    if (!json_is_object(value)) {
      print_value(key, value);
      continue;
    }
    json_object_foreach((json_t *)(uintptr_t)value, inner, part) {
      char name[160];
      snprintf(name, sizeof name, "%s.%s", key, inner);
      print_value(name, part);
    }
  }
  const json_t *list = json_object_get(report, "tensor_list");
  if (list) print_tensors(list);
}

/* Prints and drops the report. */
static int print_report(const pdt_inspect_options *a, json_t *report, pdt_error *err) {
  if (!report) return pdt_fail(err, PDT_ERROR_MEMORY, "%s: no memory", a->path);
  if (a->json) {
    pdt_json_print(report, stdout, JSON_COMPACT | JSON_REAL_PRECISION(17));
    putchar('\n');
  } else {
    print_table(report);
  }
  json_decref(report);
  if (fflush(stdout) || ferror(stdout))
    return pdt_fail(err, PDT_ERROR_IO, "standard output: %s", strerror(errno));
  return 0;
}

static json_t *tensor_entry(const pdt_tensor *t) {
  json_t *shape = json_array();
  for (int32_t i = 0; i < t->n_dims; i++) json_array_append_new(shape, json_integer(t->shape[i]));
  return json_pack("{s:s, s:s, s:o, s:I}", "name", t->name, "dtype", t->dtype_name, "shape", shape,
                   "bytes", (json_int_t)t->bytes);
}

/* Adds number, elements and bytes of n tensors, and with --tensors their list. */
static void add_tensors(json_t *report, const pdt_inspect_options *a,
                        const pdt_tensor *const *tensors, int32_t n) {
  json_t *by_dtype = json_object(), *list = json_array();
  int64_t elems = 0;
  for (int32_t i = 0; i < n; i++) {
    const pdt_tensor *t = tensors[i];
    json_int_t bytes = json_integer_value(json_object_get(by_dtype, t->dtype_name));
    json_object_set_new(by_dtype, t->dtype_name, json_integer(bytes + t->bytes));
    elems += t->n_elems;
    if (a->tensors) json_array_append_new(list, tensor_entry(t));
  }
  json_object_set_new(report, "tensors", json_integer(n));
  json_object_set_new(report, "parameters", json_integer(elems));
  json_object_set_new(report, "bytes", by_dtype);
  if (a->tensors)
    json_object_set_new(report, "tensor_list", list);
  else
    json_decref(list);
}

static void add_fingerprint(json_t *report, const pdt_inspect_options *a, uint64_t value) {
  char text[24];
  snprintf(text, sizeof text, "%016llx", (unsigned long long)value);
  json_object_set_new(report, a->full ? "fingerprint_full" : "fingerprint_quick",
                      json_string(text));
}

static pdt_fingerprint_mode mode_of(const pdt_inspect_options *a) {
  return a->full ? PDT_FINGERPRINT_FULL : PDT_FINGERPRINT_QUICK;
}

/* Looks at every weight, a bounded piece of the file in memory at a time. */
static int check_values(const pdt_tensor *const *tensors, int32_t n, pdt_error *err) {
  enum { PIECE = 1 << 18 };
  float *room; /* of PIECE elements of any type */
  int rc = PDT_NEW(&room, PIECE, "weights", err);
  for (int32_t i = 0; i < n && !rc; i++) {
    const pdt_tensor *t = tensors[i];
    for (int64_t at = 0; t->is_float && at < t->n_elems && !rc; at += PIECE) {
      int64_t m = t->n_elems - at < PIECE ? t->n_elems - at : PIECE;
      rc = pdt_tensor_read(t, at, m, room, err);
      int64_t bad = rc ? -1 : pdt_first_not_finite(t->dtype, room, m);
      if (bad >= 0)
        rc = pdt_fail(err, PDT_ERROR_INPUT, "%s: tensor '%s': element %lld is not finite",
                      t->file->path, t->name, (long long)(at + bad));
    }
  }
  free(room);
  return rc;
}

static json_t *rope_report(const pdt_model_config *c) {
  const pdt_rope *r = &c->rope;
  json_t *report = json_pack("{s:s, s:f}", "type", pdt_rope_type_name(r->type), "theta", r->theta);
  if (!report || r->type == PDT_ROPE_DEFAULT) return report;
  json_object_set_new(report, "factor", json_real(r->factor));
  if (r->type == PDT_ROPE_LINEAR) return report;
  json_object_set_new(report, "original_positions", json_real(r->original_positions));
  bool is_yarn = r->type == PDT_ROPE_YARN;
  json_t *more = is_yarn ? json_pack("{s:f, s:f, s:b, s:f}", "beta_fast", r->beta_fast, "beta_slow",
                                     r->beta_slow, "truncate", r->truncate, "scale", r->scale)
                         : json_pack("{s:f, s:f}", "low_freq_factor", r->low_freq_factor,
                                     "high_freq_factor", r->high_freq_factor);
  json_object_update(report, more);
  json_decref(more);
  return report;
}

/* The sliding window and the layers that have it; null when none has. */
static json_t *window_report(const pdt_model_config *c) {
  if (!c->window) return json_null();
  json_t *layers = json_array();
  for (pdt_layer l = 0; l < c->layers; l++)
    if (pdt_model_window(c, l)) json_array_append_new(layers, json_integer(l));
  return json_pack("{s:i, s:o}", "tokens", c->window, "layers", layers);
}

static json_t *model_report(const pdt_inspect_options *a, const pdt_model_config *c,
                            const pdt_checkpoint *checkpoint) {
  json_t *eos = json_array();
  for (int32_t i = 0; i < c->n_eos; i++) json_array_append_new(eos, json_integer(c->eos[i]));
  json_t *report = json_pack(
      "{s:s, s:s, s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:o, s:f, s:b, s:o, s:i, s:o, s:i}",
      "kind", "model", "path", a->path, "family", pdt_family_name(c->family), "layers", c->layers,
      "hidden_size", c->hidden_size, "intermediate_size", c->intermediate_size, "heads", c->heads,
      "kv_heads", c->kv_heads, "head_dim", c->head_dim, "vocab_size", c->vocab_size,
      "max_positions", c->max_positions, "window", window_report(c), "rms_norm_eps",
      c->rms_norm_eps, "tied_head", c->tie_word_embeddings, "rope", rope_report(c), "bos", c->bos,
      "eos", eos, "files", checkpoint->n_files);
  if (report) add_tensors(report, a, checkpoint->tensors, checkpoint->n_tensors);
  return report;
}

/* Lists the tensors whose names are no keys of `known`, which it drops. */
static void add_unused(json_t *report, json_t *known, const pdt_tensor *const *tensors, int32_t n) {
  json_t *unused = json_array();
  for (int32_t i = 0; i < n; i++)
    if (!json_object_get(known, tensors[i]->name))
      json_array_append_new(unused, json_string(tensors[i]->name));
  if (json_array_size(unused) > 0) json_object_set(report, "unused_tensors", unused);
  json_decref(unused);
  json_decref(known);
}

/* Of the tensors that are used, as the files have them. */
static json_t *names_of_model(const pdt_model_config *c, const pdt_checkpoint *checkpoint) {
  json_t *names = json_object();
  pdt_wanted_tensor t;
  for (int32_t i = 0; i < pdt_model_tensor_count(c); i++) {
    pdt_model_tensor_at(c, i, &t);
    const pdt_tensor *found = pdt_model_tensor_find(c, checkpoint, t.name);
    bool is_copy = found && c->tie_word_embeddings && strcmp(t.name, PDT_TENSOR_HEAD) == 0;
    if (found && !is_copy) json_object_set_new(names, found->name, json_true());
  }
  return names;
}

static json_t *names_of_sidecar(const pdt_sidecar_config *c) {
  json_t *names = json_object();
  pdt_wanted_tensor t;
  for (int32_t i = 0; i < pdt_sidecar_tensor_count(c); i++) {
    pdt_sidecar_tensor_at(c, i, &t);
    json_object_set_new(names, t.name, json_true());
  }
  return names;
}

/* A model that is not sound is shown all the same. */
static int inspect_checkpoint(const pdt_inspect_options *a, pdt_model_config *c,
                              const pdt_checkpoint *checkpoint, pdt_notices *notices,
                              pdt_error *err) {
  uint64_t fingerprint;
  if (pdt_checkpoint_fingerprint(checkpoint, mode_of(a), &fingerprint, err)) return -1;
  pdt_error unsound;
  int rc = pdt_model_tensors_check(c, checkpoint, notices, &unsound);
  json_t *report = model_report(a, c, checkpoint);
  if (report)
    add_unused(report, names_of_model(c, checkpoint), checkpoint->tensors, checkpoint->n_tensors);
  if (report) add_fingerprint(report, a, fingerprint);
  if (report && pdt_is_gguf(a->path) && pdt_inspect_add_gguf(report, a->path, err)) {
    json_decref(report);
    return -1;
  }
  if (print_report(a, report, err)) return -1;
  if (rc) {
    *err = unsound;
    return -1;
  }
  if (a->full && check_values(checkpoint->tensors, checkpoint->n_tensors, err)) return -1;
  return pdt_checkpoint_unchanged(checkpoint, err);
}

/* Who looks at a model wants all that there is to say about it. */
static int inspect_model(const pdt_inspect_options *a, pdt_error *err) {
  pdt_model_config config;
  pdt_checkpoint *checkpoint;
  pdt_notices notices = {0};
  if (pdt_model_config_load(&config, a->path, &notices, err) ||
      pdt_checkpoint_open(&checkpoint, a->path, &notices, err))
    return -1;
  int rc = inspect_checkpoint(a, &config, checkpoint, &notices, err);
  pdt_notices_print(&notices, stderr, "pdt inspect", true);
  pdt_checkpoint_close(checkpoint);
  return rc;
}

/* The sidecar's config as it stands, under "config", what it was trained with under "trained". */
static void add_config(json_t *report, const pdt_sidecar_config *c) {
  char *text = pdt_sidecar_config_text(c);
  json_t *config = text ? json_loads(text, 0, NULL) : NULL;
  if (config) {
    json_object_set_new(config, "speculation_hidden", json_integer(c->speculation_hidden));
    if (c->note_query) json_object_set_new(config, "note_query", json_true());
    if (c->plan_places) json_object_set_new(config, "plan_places", json_integer(c->plan_places));
    if (c->plan_orders) json_object_set_new(config, "plan_orders", json_integer(c->plan_orders));
    json_object_set_new(report, "config", config);
    if (c->trained) json_object_set(report, "trained", json_object_get(config, "trained"));
    json_object_del(config, "trained");
  }
  free(text);
}

static int inspect_tensors(const pdt_inspect_options *a, const pdt_safetensors *file,
                           const pdt_tensor *const *tensors, pdt_error *err) {
  pdt_model_config trunk;
  pdt_sidecar_config config = {0};
  bool is_sidecar = pdt_safetensors_metadata(file, "config") != NULL;
  uint64_t fingerprint;
  if (pdt_safetensors_fingerprint(file, mode_of(a), &fingerprint, err)) return -1;
  if (a->model && pdt_model_config_load(&trunk, a->model, NULL, err)) return -1;
  if (is_sidecar && pdt_sidecar_config_load(&config, file, a->model ? &trunk : NULL, err))
    return -1;
  json_t *report =
      json_pack("{s:s, s:s}", "kind", is_sidecar ? "sidecar" : "safetensors", "path", a->path);
  if (report && is_sidecar) {
    add_config(report, &config);
    add_unused(report, names_of_sidecar(&config), tensors, file->n_tensors);
  }
  if (report) add_tensors(report, a, tensors, file->n_tensors);
  if (report) add_fingerprint(report, a, fingerprint);
  pdt_sidecar_config_free(&config);
  if (print_report(a, report, err)) return -1;
  if (a->full && check_values(tensors, file->n_tensors, err)) return -1;
  return pdt_safetensors_unchanged(file, err);
}

static int inspect_safetensors(const pdt_inspect_options *a, pdt_error *err) {
  pdt_safetensors *file;
  if (pdt_safetensors_open(&file, a->path, err)) return -1;
  const pdt_tensor **tensors = calloc((size_t)file->n_tensors + 1, sizeof *tensors);
  int rc = -1;
  if (tensors) {
    for (int32_t i = 0; i < file->n_tensors; i++) tensors[i] = &file->tensors[i];
    rc = inspect_tensors(a, file, tensors, err);
  } else {
    pdt_fail(err, PDT_ERROR_MEMORY, "%s: no memory", a->path);
  }
  free((void *)tensors);
  pdt_safetensors_close(file);
  return rc;
}

/* Answers of a journal, to --out or standard output, where a person gets no protobuf. */
static int write_answers(const pdt_inspect_options *a, pdt_error *err) {
  const pdt_answers_options answers = {
      .journal = a->path, .model = a->model, .out = a->out ? a->out : "-", .json = a->json};
  pdt_named_files outputs = {0}, inputs = {0};
  pdt_files_add(&outputs, "--out", answers.out);
  pdt_files_add(&inputs, "PATH", a->path);
  if (a->model) pdt_files_add_model(&inputs, "--model", a->model);
  if (pdt_outputs_check(&outputs, &inputs, err)) return -1;
  if (!a->out && !a->json && pdt_on_terminal(STDOUT_FILENO))
    return pdt_fail(err, PDT_ERROR_USAGE,
                    "--answers: protobuf is not for a terminal (hint: --json, or --out FILE)");
  return pdt_answers_write(&answers, err);
}

/* By content: what a file is called says nothing. */
static int inspect_file(const pdt_inspect_options *a, pdt_error *err) {
  unsigned char head[9] = {0};
  FILE *f = fopen(a->path, "rb");
  if (!f) return pdt_fail(err, PDT_ERROR_IO, "%s: cannot open: %s", a->path, strerror(errno));
  size_t n = fread(head, 1, sizeof head, f);
  fclose(f);
  const size_t magic = strlen(PDT_JOURNAL_MAGIC);
  if (n >= magic && memcmp(head, PDT_JOURNAL_MAGIC, magic) == 0)
    return a->answers ? write_answers(a, err) : pdt_inspect_journal(a->path, a->json, stdout, err);
  if (a->answers)
    return pdt_fail(err, PDT_ERROR_USAGE, "--answers: expected a journal, found %s to be none",
                    a->path);
  const char *dot = strrchr(a->path, '.');
  bool has_header = n == sizeof head && head[8] == '{' && memcmp(head + 4, "\0\0\0\0", 4) == 0;
  if (has_header || (dot && strcmp(dot, ".safetensors") == 0)) return inspect_safetensors(a, err);
  if (pdt_is_gguf(a->path)) return inspect_model(a, err);
  if (pdt_is_output(a->path)) return pdt_inspect_output(a->path, a->json, stdout, err);
  return pdt_fail(
      err, PDT_ERROR_INPUT,
      "%s: expected a model directory, a GGUF file, a sidecar, a journal or the output of "
      "decode --out, found none of them",
      a->path);
}

int pdt_inspect(const pdt_inspect_options *options, pdt_error *err) {
  struct stat status;
  if (stat(options->path, &status))
    return pdt_fail(err, PDT_ERROR_IO, "%s: %s", options->path, strerror(errno));
  if (S_ISDIR(status.st_mode) && !options->answers) return inspect_model(options, err);
  if (!S_ISREG(status.st_mode))
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: expected a file or a directory, found another kind",
                    options->path);
  return inspect_file(options, err);
}

/* Any bytes as a GGUF file: what is accepted lies inside the bytes, every value can be asked for,
 * and config, tokenizer and tensors of it keep their promises. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "model/gguf_config.h"
#include "text/gguf_tokenizer.h"
#include "text/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* An error has a message. */
static void check_error(int rc, const pdt_error *err) {
  if (rc && (err->code == PDT_ERROR_NONE || !*err->message)) abort();
}

static void check_values(const pdt_gguf *g) {
  for (size_t i = 0; i < g->n_entries; i++) {
    pdt_gguf_text key = pdt_gguf_key(g, &g->entries[i]), text = {"", 0}, *texts;
    char *name = strndup(key.text, key.bytes);
    int64_t integer;
    double real;
    bool is;
    int32_t *integers;
    float *floats;
    size_t n;
    if (!name) return;
    if (pdt_gguf_find(g, name) != &g->entries[i]) abort();
    (void)pdt_gguf_integer(g, name, INT64_MIN, INT64_MAX, &integer, NULL, NULL);
    (void)pdt_gguf_real(g, name, &real, NULL, NULL);
    (void)pdt_gguf_bool(g, name, &is, NULL, NULL);
    if (!pdt_gguf_string(g, name, &text, NULL, NULL) && text.bytes > g->header.bytes) abort();
    if (!pdt_gguf_strings(g, name, &texts, &n, NULL)) {
      for (size_t k = 0; k < n; k++)
        if (texts[k].text + texts[k].bytes > g->header.data + g->header.bytes) abort();
      free(texts);
    }
    if (!pdt_gguf_integers(g, name, &integers, &n, NULL)) free(integers);
    if (!pdt_gguf_floats(g, name, &floats, &n, NULL)) free(floats);
    free(name);
  }
}

static void check_tensors(const pdt_gguf_model *m) {
  const pdt_gguf *g = m->parts[0];
  pdt_safetensors *file;
  pdt_error err = {0};
  for (size_t i = 0; i < g->n_tensors; i++)
    if (g->tensors[i].at < g->data_offset || g->tensors[i].bytes > g->file_bytes - g->tensors[i].at)
      abort();
  int rc = pdt_gguf_part_tensors(&file, m, 0, &err);
  check_error(rc, &err);
  if (rc) return;
  for (int32_t i = 0; i < file->n_tensors; i++) {
    const pdt_tensor *t = &file->tensors[i];
    if (!t->is_float) continue;
    char *raw = malloc((size_t)t->bytes + 1);
    float *wide = malloc((size_t)t->n_elems * sizeof *wide);
    if (raw && wide) {
      if (pdt_tensor_read(t, 0, t->n_elems, raw, &err)) abort();
      pdt_to_float(t->dtype, raw, t->n_elems, wide);
    }
    free(wide);
    free(raw);
  }
  pdt_safetensors_close(file);
}

static void check_config(const pdt_gguf_model *m) {
  json_t *json;
  pdt_model_config config;
  pdt_error err = {0};
  int rc = pdt_gguf_config(&json, m, &err);
  check_error(rc, &err);
  if (!rc) check_error(pdt_model_config_parse(&config, json, NULL, "fuzz", NULL, &err), &err);
  if (!rc) json_decref(json);
}

static void check_tokenizer(const pdt_gguf *g) {
  static const char sample[] = "hello <s> 12\xc3\xa9\n";
  json_t *json;
  char *text, *back = NULL;
  size_t bytes;
  pdt_tokenizer *t = NULL;
  pdt_token *ids;
  int32_t n;
  pdt_error err = {0};
  int rc = pdt_gguf_tokenizer(&json, &text, g, &err);
  check_error(rc, &err);
  if (rc) return;
  (void)pdt_gguf_pre_of(json);
  rc = pdt_tokenizer_parse(&t, text, strlen(text), "fuzz", &err);
  check_error(rc, &err);
  if (!rc && !pdt_tokenizer_encode(t, sample, sizeof sample - 1, true, &ids, &n, &err)) {
    for (int32_t i = 0; i < n; i++)
      if (ids[i] < 0 || ids[i] >= pdt_tokenizer_size(t)) abort();
    (void)pdt_tokenizer_decode(t, ids, n, false, &back, &bytes, &err);
    free(back);
    free(ids);
  }
  pdt_tokenizer_free(t);
  free(text);
  json_decref(json);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  uint8_t *bytes = malloc(size ? size : 1); /* of exact size, so that reading past it is caught */
  pdt_gguf *g;
  pdt_error err = {0};
  if (!bytes) return 0;
  memcpy(bytes, data, size);
  int rc = pdt_gguf_open_memory(&g, bytes, (pdt_bytes)size, "fuzz", &err);
  check_error(rc, &err);
  if (!rc) {
    const pdt_gguf_model m = {1, &g};
    check_values(g);
    check_tensors(&m);
    check_config(&m);
    check_tokenizer(g);
    pdt_gguf_close(g);
  }
  free(bytes);
  return 0;
}

#include "run/inspect_gguf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "store/gguf_model.h"

enum { LONG_TEXT = 120 };

/* A plain value. The file was checked, so that its kind is the one that it is asked for as. */
static json_t *plain_value(const pdt_gguf *g, const char *key, pdt_gguf_kind kind) {
  int64_t integer = 0;
  double real = 0;
  bool is = false;
  pdt_gguf_text text = {"", 0};
  char count[48];
  switch (kind) {
  case PDT_GGUF_STRING:
    (void)pdt_gguf_string(g, key, &text, NULL, NULL);
    snprintf(count, sizeof count, "[%zu bytes]", text.bytes);
    json_t *value = text.bytes > LONG_TEXT ? NULL : json_stringn(text.text, text.bytes);
    return value ? value : json_string(count);
  case PDT_GGUF_BOOL:
    return pdt_gguf_bool(g, key, &is, NULL, NULL) ? json_null() : json_boolean(is);
  case PDT_GGUF_F32:
  case PDT_GGUF_F64:
    return pdt_gguf_real(g, key, &real, NULL, NULL) ? json_null() : json_real(real);
  default:
    return pdt_gguf_integer(g, key, INT64_MIN, INT64_MAX, &integer, NULL, NULL)
               ? json_null()
               : json_integer(integer);
  }
}

static json_t *value_of(const pdt_gguf *g, const char *key, const pdt_gguf_entry *e) {
  char count[64];
  if (!e->is_array) return plain_value(g, key, e->kind);
  snprintf(count, sizeof count, "[%llu of %s]", (unsigned long long)e->n,
           pdt_gguf_kind_name(e->kind));
  return json_string(count);
}

/* By key, as sorted as the file's entries are. */
static json_t *metadata_of(const pdt_gguf *g) {
  json_t *out = json_object();
  for (size_t i = 0; i < g->n_entries; i++) {
    pdt_gguf_text key = pdt_gguf_key(g, &g->entries[i]);
    char *name = strndup(key.text, key.bytes);
    if (name) json_object_set_new(out, name, value_of(g, name, &g->entries[i]));
    free(name);
  }
  return out;
}

int pdt_inspect_add_gguf(json_t *report, const char *path, pdt_error *err) {
  pdt_gguf_model *m;
  if (pdt_gguf_model_open(&m, path, err)) return -1;
  const pdt_gguf *g = m->parts[0];
  json_t *about = json_pack("{s:i, s:i, s:b}", "version", (int)g->version, "parts", m->n_parts,
                            "chat_template", pdt_gguf_find(g, "tokenizer.chat_template") != NULL);
  int rc = json_object_set_new(report, "gguf", about) ||
                   json_object_set_new(report, "metadata", metadata_of(g))
               ? pdt_fail(err, PDT_ERROR_MEMORY, "%s: no memory", path)
               : 0;
  pdt_gguf_model_close(m);
  return rc;
}

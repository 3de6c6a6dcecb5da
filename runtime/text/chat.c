#include "text/chat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/path.h"
#include "store/gguf.h"
#include "text/jinja/jinja.h"

#define MAX_CONFIG_BYTES ((pdt_bytes)512 << 20)

struct pdt_chat_template {
  pdt_jinja *jinja;
  json_t *tokens; /* special ones by name */
};

int pdt_chat_template_parse(pdt_chat_template **out, const char *text, size_t bytes,
                            const char *name, const json_t *tokens, pdt_error *err) {
  pdt_chat_template *t;
  *out = NULL;
  if (PDT_NEW(&t, 1, "chat template", err)) return -1;
  t->tokens = tokens ? json_deep_copy(tokens) : json_object();
  int rc = t->tokens ? pdt_jinja_parse(&t->jinja, text, bytes, name, err)
                     : pdt_fail(err, PDT_ERROR_MEMORY, "%s: no memory", name);
  if (rc) {
    pdt_chat_template_free(t);
    return -1;
  }
  *out = t;
  return 0;
}

void pdt_chat_template_free(pdt_chat_template *t) {
  if (!t) return;
  pdt_jinja_free(t->jinja);
  json_decref(t->tokens);
  free(t);
}

/* ---- of a folder ---- */

typedef struct folder {
  const char *directory;
  char *config_path;
  json_t *config, *map, *tokens;
  pdt_error *err;
} folder;

static int no_template(const char *model, pdt_error *err) {
  return pdt_fail(err, PDT_ERROR_INPUT,
                  "%s: the model has no chat template (hint: it may be a base model; without chat, "
                  "prompts are read as they stand)",
                  model);
}

/* A JSON object in a file of the folder; NULL where there is none. */
static int read_object(folder *f, const char *name, char **path, json_t **out) {
  if (pdt_path_join(path, f->directory, name, f->err)) return -1;
  if (!pdt_path_is_there(*path)) return 0;
  return pdt_json_load_python(out, *path, MAX_CONFIG_BYTES, f->err) ||
                 pdt_json_expect_object(*out, *path, f->err)
             ? -1
             : 0;
}

/* A token of a file: a text, or an object with flags. NULL: none. */
static const char *token_of(const json_t *file, const char *name) {
  const json_t *value = pdt_json_get(file, name);
  return json_string_value(json_is_object(value) ? json_object_get(value, "content") : value);
}

/* As text/folder.c reads them: special_tokens_map.json goes before tokenizer_config.json, unless
 * that has an added_tokens_decoder. */
static int collect_tokens(folder *f) {
  static const char *const names[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                      "pad_token", "cls_token", "mask_token"};
  const json_t *map = pdt_json_get(f->config, "added_tokens_decoder") ? NULL : f->map;
  f->tokens = json_object();
  int bad = !f->tokens;
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    const char *of_map = token_of(map, names[i]);
    const char *token = of_map ? of_map : token_of(f->config, names[i]);
    if (token) bad |= json_object_set_new(f->tokens, names[i], json_string(token));
  }
  return bad ? pdt_fail(f->err, PDT_ERROR_MEMORY, "%s: no memory", f->directory) : 0;
}

/* The template called "default" of a list of {"name", "template"}, or of an object; NULL: none. */
static const char *default_of(const json_t *templates) {
  size_t i;
  const json_t *entry;
  const char *found = json_string_value(json_object_get(templates, "default"));
  json_array_foreach(templates, i, entry) {
    const char *name = json_string_value(json_object_get(entry, "name"));
    if (name && strcmp(name, "default") == 0)
      found = json_string_value(json_object_get(entry, "template"));
  }
  return found;
}

static int load_configured(pdt_chat_template **out, folder *f) {
  char where[600];
  const json_t *value = pdt_json_get(f->config, "chat_template");
  snprintf(where, sizeof where, "%.400s: chat_template", f->config_path);
  if (!value) return no_template(f->directory, f->err);
  if (pdt_json_unusable(value) || !(json_is_string(value) || default_of(value)))
    return pdt_fail(f->err, PDT_ERROR_INPUT,
                    "%s: expected a text, or several of which one is called 'default', found %s",
                    where, pdt_json_type_name(value));
  const char *text = json_is_string(value) ? json_string_value(value) : default_of(value);
  return pdt_chat_template_parse(out, text, strlen(text), where, f->tokens, f->err);
}

/* chat_template.jinja, which goes before tokenizer_config.json. */
static int load_file(pdt_chat_template **out, folder *f, const char *path) {
  char *text = NULL;
  pdt_bytes bytes;
  if (pdt_file_read(&text, &bytes, path, PDT_JINJA_SOURCE_BYTES, f->err)) return -1;
  int rc = pdt_chat_template_parse(out, text, (size_t)bytes, path, f->tokens, f->err);
  free(text);
  return rc;
}

static int load_folder(pdt_chat_template **out, const char *model, pdt_error *err) {
  folder f = {.directory = model, .err = err};
  char *map_path = NULL, *path = NULL;
  int rc = read_object(&f, "tokenizer_config.json", &f.config_path, &f.config) ||
           read_object(&f, "special_tokens_map.json", &map_path, &f.map) || collect_tokens(&f) ||
           pdt_path_join(&path, model, "chat_template.jinja", err);
  if (!rc) rc = pdt_path_is_there(path) ? load_file(out, &f, path) : load_configured(out, &f);
  json_decref(f.config);
  json_decref(f.map);
  json_decref(f.tokens);
  free(f.config_path);
  free(map_path);
  free(path);
  return rc ? -1 : 0;
}

/* ---- of a GGUF file ---- */

/* The texts of the tokens that the metadata names by id. */
static int collect_gguf_tokens(const pdt_gguf *g, json_t *tokens, pdt_error *err) {
  static const char *const names[][2] = {
      {"bos_token", "tokenizer.ggml.bos_token_id"},
      {"eos_token", "tokenizer.ggml.eos_token_id"},
      {"unk_token", "tokenizer.ggml.unknown_token_id"},
      {"sep_token", "tokenizer.ggml.seperator_token_id"}, /* as the format spells it */
      {"pad_token", "tokenizer.ggml.padding_token_id"},
      {"cls_token", "tokenizer.ggml.cls_token_id"},
      {"mask_token", "tokenizer.ggml.mask_token_id"}};
  pdt_gguf_text *texts;
  size_t n;
  int rc = pdt_gguf_strings(g, "tokenizer.ggml.tokens", &texts, &n, err);
  for (size_t i = 0; !rc && n > 0 && i < sizeof names / sizeof *names; i++) {
    int64_t id;
    bool found;
    rc = pdt_gguf_integer(g, names[i][1], 0, (int64_t)n - 1, &id, &found, err);
    if (rc || !found) continue;
    json_t *token = json_stringn(texts[id].text, texts[id].bytes);
    if (!token || json_object_set_new(tokens, names[i][0], token))
      rc = pdt_fail(err, PDT_ERROR_INPUT, "%s: '%s': expected a token that is UTF-8", g->path,
                    names[i][1]);
  }
  free(texts);
  return rc;
}

static int load_gguf(pdt_chat_template **out, const char *path, pdt_error *err) {
  static const char key[] = "tokenizer.chat_template";
  pdt_gguf *g;
  pdt_gguf_text text;
  char where[512];
  bool found;
  if (pdt_gguf_open(&g, path, err)) return -1;
  json_t *tokens = json_object();
  snprintf(where, sizeof where, "%.400s: %s", path, key);
  int rc = tokens ? pdt_gguf_string(g, key, &text, &found, err)
                  : pdt_fail(err, PDT_ERROR_MEMORY, "%s: no memory", path);
  if (!rc && !found) rc = no_template(path, err);
  if (!rc) rc = collect_gguf_tokens(g, tokens, err);
  if (!rc) rc = pdt_chat_template_parse(out, text.text, text.bytes, where, tokens, err);
  json_decref(tokens);
  pdt_gguf_close(g);
  return rc;
}

int pdt_chat_template_load(pdt_chat_template **out, const char *model, pdt_error *err) {
  *out = NULL;
  return pdt_is_gguf(model) ? load_gguf(out, model, err) : load_folder(out, model, err);
}

/* ---- rendering ---- */

/* A message as the template sees it: without keys that are null; with what was thought under both
 * of the names that templates ask for, whatever its own. NULL without memory. */
static json_t *plain_message(const json_t *message) {
  static const char *const thoughts[] = {"reasoning_content", "thinking", "reasoning"};
  const json_t *thought = NULL;
  const char *key;
  json_t *value, *out = json_object();
  int bad = !out;
  for (int i = 0; i < 3 && !thought; i++) thought = pdt_json_get(message, thoughts[i]);
  if (thought) bad |= json_object_set(out, "thinking", (json_t *)(uintptr_t)thought);
  json_object_foreach((json_t *)(uintptr_t)message, key, value) {
    if (!json_is_null(value)) bad |= json_object_set(out, key, value);
  }
  if (thought) bad |= json_object_set(out, "reasoning_content", (json_t *)(uintptr_t)thought);
  if (!bad) return out;
  json_decref(out);
  return NULL;
}

static int check_message(const json_t *message, size_t i, pdt_error *err) {
  char where[64];
  const char *role;
  snprintf(where, sizeof where, "messages[%zu]", i);
  if (pdt_json_expect_object(message, where, err) ||
      pdt_json_string(message, where, "role", &role, err))
    return -1;
  const json_t *content = pdt_json_get(message, "content");
  if (!content || json_is_string(content) || json_is_array(content)) return 0;
  return pdt_fail(err, PDT_ERROR_INPUT, "%s: 'content': expected a string or an array, found %s",
                  where, pdt_json_type_name(content));
}

static int plain_messages(const json_t *messages, json_t **out, pdt_error *err) {
  size_t i;
  const json_t *message;
  *out = NULL;
  if (pdt_json_unusable(messages) || !json_is_array(messages) || json_array_size(messages) == 0)
    return pdt_fail(err, PDT_ERROR_INPUT,
                    "messages: expected a list of at least one message, found %s",
                    json_is_array(messages) ? "none" : pdt_json_type_name(messages));
  *out = json_array();
  json_array_foreach(messages, i, message) {
    if (check_message(message, i, err)) return -1;
    if (json_array_append_new(*out, plain_message(message)))
      return pdt_fail(err, PDT_ERROR_MEMORY, "messages: no memory");
  }
  return 0;
}

static int render(const pdt_chat_template *t, json_t *messages, const pdt_chat_options *o,
                  char **text, size_t *bytes, pdt_error *err) {
  struct tm now;
  json_t *variables = json_copy(t->tokens);
  if (o->now)
    now = *o->now;
  else if (pdt_chat_date(&now, NULL, err))
    return -1;
  int bad = o->variables ? json_object_update(variables, (json_t *)(uintptr_t)o->variables) : 0;
  bad |= json_object_set(variables, "messages", messages) |
         json_object_set_new(variables, "add_generation_prompt", json_boolean(!o->continues)) |
         json_object_set_new(variables, "tools", json_null()) |
         json_object_set_new(variables, "documents", json_null());
  int rc = bad ? pdt_fail(err, PDT_ERROR_MEMORY, "messages: no memory")
               : pdt_jinja_render(t->jinja, variables, &now, text, bytes, err);
  json_decref(variables);
  return rc;
}

int pdt_chat_render(const pdt_chat_template *t, const json_t *messages,
                    const pdt_chat_options *options, char **text, size_t *bytes, pdt_error *err) {
  static const pdt_chat_options usual = {0};
  json_t *plain;
  *text = NULL;
  *bytes = 0;
  int rc = plain_messages(messages, &plain, err) ||
           render(t, plain, options ? options : &usual, text, bytes, err);
  json_decref(plain);
  return rc ? -1 : 0;
}

/* ---- as a prompt ---- */

typedef struct ids {
  pdt_token *items;
  int32_t n;
} ids;

static int encode(const pdt_tokenizer *t, const char *text, size_t bytes, bool special, ids *out,
                  pdt_error *err) {
  return pdt_tokenizer_encode(t, text, bytes, special, &out->items, &out->n, err);
}

/* Has the text, read with special tokens, these ids? */
static int has_ids(const pdt_tokenizer *t, const char *text, size_t bytes, const ids *wanted,
                   bool *same, pdt_error *err) {
  ids found;
  if (encode(t, text, bytes, true, &found, err)) return -1;
  *same = found.n == wanted->n &&
          memcmp(found.items, wanted->items, (size_t)found.n * sizeof *found.items) == 0;
  free(found.items);
  return 0;
}

/* How much at the beginning of the text the tokenizer would put there itself. */
static int own_prefix(const pdt_tokenizer *t, const char *text, size_t bytes, size_t *cut,
                      pdt_error *err) {
  ids around;
  *cut = 0;
  if (encode(t, "", 0, true, &around, err)) return -1;
  size_t n = 0;
  const char *first = around.n > 0 ? pdt_tokenizer_added(t, around.items[0], &n) : NULL;
  if (first && n <= bytes && memcmp(text, first, n) == 0) *cut = n;
  free(around.items);
  return 0;
}

static json_t *ids_json(const ids *list) {
  json_t *out = json_array();
  for (int32_t i = 0; i < list->n; i++) json_array_append_new(out, json_integer(list->items[i]));
  if (json_array_size(out) == (size_t)list->n) return out;
  json_decref(out);
  return NULL;
}

static int as_prompt(const pdt_tokenizer *t, const char *text, size_t bytes, const ids *wanted,
                     json_t **out, pdt_error *err) {
  size_t cut;
  bool same;
  if (own_prefix(t, text, bytes, &cut, err) ||
      has_ids(t, text + cut, bytes - cut, wanted, &same, err))
    return -1;
  if (!same) cut = 0;
  if (!same && has_ids(t, text, bytes, wanted, &same, err)) return -1;
  *out = same ? json_stringn(text + cut, bytes - cut) : ids_json(wanted);
  return *out ? 0 : pdt_fail(err, PDT_ERROR_MEMORY, "messages: no memory");
}

int pdt_chat_prompt(const pdt_chat_template *t, const pdt_tokenizer *tokenizer,
                    const json_t *messages, const pdt_chat_options *options, json_t **out,
                    pdt_error *err) {
  ids wanted = {0};
  char *text;
  size_t bytes;
  *out = NULL;
  if (pdt_chat_render(t, messages, options, &text, &bytes, err)) return -1;
  int rc = encode(tokenizer, text, bytes, false, &wanted, err) ||
           as_prompt(tokenizer, text, bytes, &wanted, out, err);
  free(wanted.items);
  free(text);
  return rc ? -1 : 0;
}

json_t *pdt_chat_messages(const char *system, const char *user) {
  json_t *said = json_pack("{s:s, s:s}", "role", "user", "content", user);
  if (!system) return json_pack("[o]", said);
  return json_pack("[{s:s, s:s}, o]", "role", "system", "content", system, said);
}

int pdt_chat_date(struct tm *out, const char *text, pdt_error *err) {
  time_t now = time(NULL);
  if (!text) {
    localtime_r(&now, out);
    return 0;
  }
  struct tm day = {.tm_hour = 12, .tm_isdst = -1};
  const char *end = strptime(text, "%Y-%m-%d", &day);
  struct tm same = day;
  if (!end || *end || mktime(&same) == -1 || same.tm_mday != day.tm_mday)
    return pdt_fail(err, PDT_ERROR_USAGE, "expected a date as in 2026-07-31, found '%.40s'", text);
  *out = same;
  return 0;
}

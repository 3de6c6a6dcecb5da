/* The files of a model's folder that tell of tokens, as transformers (5) reads them for a tokenizer
 * that is one of `tokenizers`:
 *
 * - tokenizer_config.json names special tokens ("pad_token" and other keys that end in _token),
 *   more of them in "extra_special_tokens" (formerly "additional_special_tokens"), and tokens of
 * any kind in "added_tokens_decoder".
 * - Only where it has no added_tokens_decoder, special_tokens_map.json counts, whose keys go before
 *   those of tokenizer_config.json, and added_tokens.json, {content: index}.
 *
 * All of them are added to those of tokenizer.json: tokens by index, then special tokens by name,
 * then extra ones. The ids that the files say are not used: a token that is not in the vocabulary
 * gets the next free id. Where tokenizer.json is there, add_bos_token and add_eos_token change
 * nothing. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/path.h"
#include "text/component.h"
#include "text/gguf_tokenizer.h"
#include "text/internal.h"

#define MAX_FILE_BYTES ((pdt_bytes)512 << 20)

/* The special tokens that transformers knows by name, in its order. */
static const char *const names[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                    "pad_token", "cls_token", "mask_token"};
enum { N_NAMES = sizeof names / sizeof *names };

/* A token of a file, which need not say whether it is normalized: one that is special is not. */
typedef struct token {
  pdt_added_spec spec;
  bool says_normalized;
} token;

/* A token at an index. */
typedef struct indexed {
  int64_t index;
  size_t order;
  token token;
} indexed;

typedef struct folder {
  const char *directory;
  char *where[4];                             /* paths of the files below */
  json_t *tokenizer, *config, *map, *indices; /* NULL: not there */
  indexed *decoder;                           /* [n_decoder] */
  size_t n_decoder, room_decoder;
  json_t *special, *listed; /* sets of contents: special ones; those with an index */
  pdt_tokenizer_extras extras;
  pdt_error *err;
} folder;

enum { CONFIG, MAP, INDICES, TOKENIZER };

const char *const pdt_token_files[PDT_TOKEN_FILES] = {
    [CONFIG] = "tokenizer_config.json",
    [MAP] = "special_tokens_map.json",
    [INDICES] = "added_tokens.json",
};

/* ---- one token ---- */

static int read_flag(folder *f, const json_t *object, const char *where, const char *key,
                     bool *flag) {
  return pdt_json_bool_or(object, where, key, flag, f->err);
}

/* A token with its flags. */
static int read_flags(folder *f, const json_t *object, const char *where, bool special,
                      token *out) {
  *out = (token){.spec.special = special};
  pdt_added_spec *spec = &out->spec;
  if (pdt_json_string(object, where, "content", &spec->content, f->err) ||
      read_flag(f, object, where, "single_word", &spec->single_word) ||
      read_flag(f, object, where, "lstrip", &spec->lstrip) ||
      read_flag(f, object, where, "rstrip", &spec->rstrip) ||
      read_flag(f, object, where, "normalized", &spec->normalized) ||
      (!special && read_flag(f, object, where, "special", &spec->special)))
    return -1;
  spec->bytes = strlen(spec->content);
  out->says_normalized = pdt_json_get(object, "normalized");
  return 0;
}

/* A special token: a text, or an object with flags. */
static int read_special(folder *f, const json_t *value, const char *where, bool special,
                        token *out) {
  if (!json_is_string(value))
    return pdt_json_expect_object(value, where, f->err) || read_flags(f, value, where, special, out)
               ? -1
               : 0;
  *out = (token){.spec = {.content = json_string_value(value), .special = true}};
  out->spec.bytes = strlen(out->spec.content);
  return 0;
}

/* ---- which tokens are special ---- */

static const json_t *named_value(const folder *f, const char *name) {
  const json_t *of_map = pdt_json_get(f->map, name);
  return of_map ? of_map : pdt_json_get(f->config, name);
}

/* The further special tokens of tokenizer_config.json, a list or an object; NULL without. */
static const json_t *extra_of_config(const folder *f) {
  const json_t *extra = pdt_json_get(f->config, "extra_special_tokens");
  const json_t *old = pdt_json_get(f->config, "additional_special_tokens");
  size_t n = json_is_array(extra) ? json_array_size(extra) : json_object_size(extra);
  return n || !old ? extra : old;
}

/* Those of special_tokens_map.json, whose old name counts only where nobody uses the new one. */
static const json_t *extra_of_map(const folder *f) {
  const json_t *extra = pdt_json_get(f->map, "extra_special_tokens"), *first = extra_of_config(f);
  if (extra || (first && !json_is_object(first))) return extra;
  return pdt_json_get(f->map, "additional_special_tokens");
}

/* Another name of a special token: a key that ends in _token. */
static bool is_other_name(const char *key) {
  static const char end[] = "_token";
  size_t bytes = strlen(key), tail = sizeof end - 1;
  for (int i = 0; i < N_NAMES; i++)
    if (strcmp(key, names[i]) == 0) return false;
  return bytes >= tail && strcmp(key + bytes - tail, end) == 0;
}

/* Adds the content of a token, in whatever form it stands, to a set. */
static int put_content(folder *f, json_t *set, const json_t *value) {
  const char *text =
      json_string_value(json_is_object(value) ? json_object_get(value, "content") : value);
  if (!text || !json_object_set_new(set, text, json_true())) return 0;
  return pdt_fail(f->err, PDT_ERROR_MEMORY, "%s: no memory", f->directory);
}

/* The special tokens that added_tokens.json is read with: those of the seven names, and lists. Of
 * tokenizer_config.json, those that stand there as plain texts. */
static int collect_for_indices(folder *f) {
  const json_t *lists[] = {pdt_json_get(f->map, "extra_special_tokens"), extra_of_config(f)};
  for (int i = 0; i < N_NAMES; i++) {
    const json_t *value = named_value(f, names[i]);
    if (!json_is_string(value) && !pdt_json_get(f->map, names[i])) continue;
    if (put_content(f, f->special, value)) return -1;
  }
  for (int k = 0; k < 2; k++)
    for (size_t i = 0; json_is_array(lists[k]) && i < json_array_size(lists[k]); i++) {
      const json_t *value = json_array_get(lists[k], i);
      if ((json_is_string(value) || k == 0) && put_content(f, f->special, value)) return -1;
    }
  return 0;
}

/* All special tokens that have a name. */
static int collect_named(folder *f) {
  json_t *files[] = {f->config, f->map};
  const json_t *extras[] = {extra_of_config(f), extra_of_map(f)};
  const char *key;
  const json_t *value;
  json_object_clear(f->special);
  for (int i = 0; i < N_NAMES; i++)
    if (put_content(f, f->special, named_value(f, names[i]))) return -1;
  for (int k = 0; k < 2; k++) {
    json_object_foreach(files[k], key, value) {
      if (is_other_name(key) && put_content(f, f->special, value)) return -1;
    }
    json_object_foreach((json_t *)(uintptr_t)extras[k], key, value) {
      if (put_content(f, f->special, value)) return -1;
    }
  }
  return 0;
}

/* ---- tokens by index ---- */

/* Sets the token of an index; the last one of an index counts. */
static int put_indexed(folder *f, int64_t index, const token *t) {
  if (PDT_GROW(&f->decoder, f->n_decoder, &f->room_decoder, f->err)) return -1;
  f->decoder[f->n_decoder] = (indexed){index, f->n_decoder, *t};
  f->n_decoder++;
  return 0;
}

static int compare_indexed(const void *a, const void *b) {
  const indexed *x = a, *y = b;
  return x->index != y->index ? (x->index > y->index) - (x->index < y->index)
                              : (x->order > y->order) - (x->order < y->order);
}

static void sort_indexed(folder *f) {
  size_t n = 0;
  if (f->n_decoder) qsort(f->decoder, f->n_decoder, sizeof *f->decoder, compare_indexed);
  for (size_t i = 0; i < f->n_decoder; i++)
    if (i + 1 == f->n_decoder || f->decoder[i + 1].index != f->decoder[i].index)
      f->decoder[n++] = f->decoder[i];
  f->n_decoder = n;
}

static int read_added_tokens_decoder(folder *f, const json_t *decoder) {
  char where[600];
  const char *key;
  const json_t *value;
  snprintf(where, sizeof where, "%.400s: added_tokens_decoder", f->where[CONFIG]);
  if (pdt_json_expect_object(decoder, where, f->err)) return -1;
  json_object_foreach((json_t *)(uintptr_t)decoder, key, value) {
    token t;
    char *end;
    long long index = strtoll(key, &end, 10);
    if (!*key || *end)
      return pdt_fail(f->err, PDT_ERROR_INPUT,
                      "%.400s: added_tokens_decoder: expected ids as "
                      "keys, found '%.40s'",
                      f->where[CONFIG], key);
    snprintf(where, sizeof where, "%.400s: added_tokens_decoder: %lld", f->where[CONFIG], index);
    if (pdt_json_expect_object(value, where, f->err) || read_flags(f, value, where, false, &t) ||
        put_indexed(f, index, &t))
      return -1;
  }
  return 0;
}

/* The tokens of added_tokens.json. */
static int read_indices(folder *f) {
  const char *content;
  const json_t *value;
  json_object_foreach(f->indices, content, value) {
    int64_t index;
    if (pdt_json_integer(f->indices, f->where[INDICES], content, INT32_MIN, INT32_MAX, &index,
                         f->err))
      return -1;
    bool special = json_object_get(f->special, content);
    token t = {.spec = {.content = content, .normalized = !special, .special = special},
               .says_normalized = true};
    t.spec.bytes = strlen(content);
    if (put_indexed(f, index, &t)) return -1;
  }
  return 0;
}

/* Those of added_tokens.json, then those of tokenizer.json itself, of which one may take the index
 * of the former. */
static int read_legacy_tokens(folder *f) {
  if (read_indices(f)) return -1;
  const json_t *own = pdt_json_get(f->tokenizer, "added_tokens");
  for (size_t i = 0; json_is_array(own) && i < json_array_size(own); i++) {
    const json_t *object = json_array_get(own, i);
    token t;
    int64_t id = 0; /* what is wrong with these is told where the file is read */
    if (!json_is_string(pdt_json_get(object, "content"))) continue;
    if (read_flags(f, object, f->where[TOKENIZER], false, &t) ||
        pdt_json_integer_or(object, f->where[TOKENIZER], "id", 0, UINT32_MAX, &id, f->err) ||
        put_indexed(f, id, &t))
      return -1;
  }
  return 0;
}

/* ---- the list ---- */

static int add_extra(folder *f, token t) {
  if (PDT_GROW(&f->extras.tokens, f->extras.n, &f->extras.room, f->err)) return -1;
  if (!t.says_normalized) t.spec.normalized = !t.spec.special;
  f->extras.tokens[f->extras.n++] = t.spec;
  return 0;
}

/* Lists a special token, unless tokenizer.json or an index has it: then it stays as it is. Of one
 * with two names, the flags of the last one count. */
static int add_special(folder *f, const json_t *value, const char *file, const char *name,
                       bool named) {
  char where[600];
  token t;
  snprintf(where, sizeof where, "%.400s: %.100s", file, name);
  if (read_special(f, value, where, file == f->where[MAP], &t)) return -1;
  if (json_object_get(f->listed, t.spec.content)) return 0;
  t.spec.special = t.spec.special || named;
  return add_extra(f, t);
}

/* Other names of a file: of values that are texts, of those that are objects, or of both, where
 * `other`, which goes before it, has not the same name. */
static int add_other_names(folder *f, int which, bool texts, bool objects, const json_t *other) {
  const char *key;
  const json_t *value;
  json_object_foreach(which == MAP ? f->map : f->config, key, value) {
    bool is_token = (texts && json_is_string(value)) ||
                    (objects && json_is_string(json_object_get(value, "content")));
    if (!is_token || !is_other_name(key) || pdt_json_get(other, key)) continue;
    if (add_special(f, value, f->where[which], key, true)) return -1;
  }
  return 0;
}

/* A list or an object of further special tokens. */
static int add_more(folder *f, const json_t *list, const char *file) {
  const char *key;
  const json_t *value;
  if (!list) return 0;
  if (pdt_json_unusable(list) || (!json_is_array(list) && !json_is_object(list)))
    return pdt_fail(f->err, PDT_ERROR_INPUT,
                    "%s: extra_special_tokens: expected an array or an object, found %s", file,
                    pdt_json_type_name(list));
  for (size_t i = 0; json_is_array(list) && i < json_array_size(list); i++)
    if (add_special(f, json_array_get(list, i), file, "extra_special_tokens", false)) return -1;
  json_object_foreach((json_t *)(uintptr_t)list, key, value) {
    if (add_special(f, value, file, key, true)) return -1;
  }
  return 0;
}

/* Named ones, by transformers' order of names, other names, further ones. */
static int add_specials(folder *f) {
  const json_t *of_config = extra_of_config(f), *of_map = extra_of_map(f);
  for (int i = 0; i < N_NAMES; i++) {
    const json_t *value = named_value(f, names[i]);
    const char *file = f->where[pdt_json_get(f->map, names[i]) ? MAP : CONFIG];
    if (value && add_special(f, value, file, names[i], true)) return -1;
  }
  if (add_other_names(f, CONFIG, false, true, f->map) ||
      add_other_names(f, MAP, true, true, NULL) || add_other_names(f, CONFIG, true, false, f->map))
    return -1;
  if (json_is_object(of_config) && add_more(f, of_config, f->where[CONFIG])) return -1;
  if (json_is_object(of_map) && add_more(f, of_map, f->where[MAP])) return -1;
  if (!json_is_object(of_config) && add_more(f, of_config, f->where[CONFIG])) return -1;
  return json_is_object(of_map) ? 0 : add_more(f, of_map, f->where[MAP]);
}

static int list_tokens(folder *f) {
  const json_t *decoder = pdt_json_get(f->config, "added_tokens_decoder");
  if (decoder) {
    json_decref(f->map);
    f->map = NULL;
  }
  f->special = json_object();
  f->listed = json_object();
  if (!f->special || !f->listed)
    return pdt_fail(f->err, PDT_ERROR_MEMORY, "%s: no memory", f->directory);
  if (collect_for_indices(f) ||
      (decoder ? read_added_tokens_decoder(f, decoder) : read_legacy_tokens(f)) || collect_named(f))
    return -1;
  sort_indexed(f);
  for (size_t i = 0; i < f->n_decoder; i++) {
    token *t = &f->decoder[i].token;
    if (json_object_get(f->special, t->spec.content)) t->spec.special = true;
    if (add_extra(f, *t)) return -1;
    if (json_object_set_new(f->listed, t->spec.content, json_true()))
      return pdt_fail(f->err, PDT_ERROR_MEMORY, "%s: no memory", f->directory);
  }
  const json_t *own = pdt_json_get(f->tokenizer, "added_tokens");
  for (size_t i = 0; json_is_array(own) && i < json_array_size(own); i++)
    if (put_content(f, f->listed, json_array_get(own, i))) return -1;
  return add_specials(f);
}

/* ---- the files ---- */

/* A file of the folder as Python reads JSON, which must be an object; NULL where there is none. */
static int read_file(folder *f, int which, json_t **out) {
  if (pdt_path_join(&f->where[which], f->directory, pdt_token_files[which], f->err)) return -1;
  if (!pdt_path_is_there(f->where[which])) return 0;
  if (pdt_json_load_python(out, f->where[which], MAX_FILE_BYTES, f->err)) return -1;
  return pdt_json_expect_object(*out, f->where[which], f->err);
}

static int read_tokenizer(folder *f, uint64_t *fingerprint) {
  char *text = NULL;
  pdt_bytes bytes;
  if (pdt_path_join(&f->where[TOKENIZER], f->directory, "tokenizer.json", f->err) ||
      pdt_file_read(&text, &bytes, f->where[TOKENIZER], MAX_FILE_BYTES, f->err))
    return -1;
  *fingerprint = XXH3_64bits(text, (size_t)bytes);
  int rc = pdt_json_parse_serde(&f->tokenizer, text, (size_t)bytes, f->where[TOKENIZER], f->err);
  free(text);
  return rc ? -1 : pdt_json_expect_object(f->tokenizer, f->where[TOKENIZER], f->err);
}

/* Of a tokenizer whose tokens are not those of its tokenizer.json alone. */
static uint64_t mix(const pdt_tokenizer_extras *extras, uint64_t fingerprint) {
  for (size_t i = 0; i < extras->n; i++) {
    const pdt_added_spec *s = &extras->tokens[i];
    unsigned char flags = (unsigned char)(s->single_word | s->lstrip << 1 | s->rstrip << 2 |
                                          s->normalized << 3 | s->special << 4);
    fingerprint = XXH3_64bits_withSeed(s->content, s->bytes, fingerprint);
    fingerprint = XXH3_64bits_withSeed(&flags, 1, fingerprint);
  }
  return fingerprint + extras->split_special;
}

static void free_folder(folder *f) {
  json_decref(f->tokenizer);
  json_decref(f->config);
  json_decref(f->map);
  json_decref(f->indices);
  json_decref(f->special);
  json_decref(f->listed);
  for (int i = 0; i < 4; i++) free(f->where[i]);
  free(f->decoder);
  free(f->extras.tokens);
}

/* The tokenizer in a GGUF file, whose fingerprint is that of the tokenizer.json that it makes. */
static int load_gguf(pdt_tokenizer **out, const char *path, bool optional, uint64_t *fingerprint,
                     pdt_error *err) {
  pdt_gguf *g;
  json_t *root = NULL;
  char *text = NULL;
  if (pdt_gguf_open(&g, path, err)) return -1;
  bool none = optional && !pdt_gguf_has_tokenizer(g);
  int rc = none ? 0 : pdt_gguf_tokenizer(&root, fingerprint ? &text : NULL, g, err);
  if (!rc && !none) rc = pdt_tokenizer_build(out, root, path, NULL, NULL, err);
  if (text) *fingerprint = pdt_tokenizer_fingerprint(text, strlen(text));
  free(text);
  json_decref(root);
  pdt_gguf_close(g);
  return rc;
}

int pdt_tokenizer_load_folder(pdt_tokenizer **out, const char *directory, uint64_t *fingerprint,
                              pdt_error *err) {
  folder f = {.directory = directory, .err = err};
  uint64_t sum = 0;
  bool changed = false;
  *out = NULL;
  if (pdt_is_gguf(directory)) return load_gguf(out, directory, false, fingerprint, err);
  int rc = read_tokenizer(&f, &sum) || read_file(&f, CONFIG, &f.config) ||
           read_file(&f, MAP, &f.map) || read_file(&f, INDICES, &f.indices) || list_tokens(&f) ||
           pdt_json_bool_or(f.config, f.where[CONFIG], "split_special_tokens",
                            &f.extras.split_special, err) ||
           pdt_tokenizer_build(out, f.tokenizer, f.where[TOKENIZER], &f.extras, &changed, err);
  if (!rc && fingerprint) *fingerprint = changed ? mix(&f.extras, sum) : sum;
  free_folder(&f);
  return rc ? -1 : 0;
}

int pdt_tokenizer_load_if_any(pdt_tokenizer **out, const char *directory, pdt_error *err) {
  char *path;
  *out = NULL;
  if (pdt_is_gguf(directory)) return load_gguf(out, directory, true, NULL, err);
  if (pdt_path_join(&path, directory, "tokenizer.json", err)) return -1;
  int status = pdt_path_is_there(path) ? pdt_tokenizer_load_folder(out, directory, NULL, err) : 0;
  free(path);
  return status;
}

uint64_t pdt_tokenizer_fingerprint(const char *text, size_t bytes) {
  return XXH3_64bits(text, bytes);
}

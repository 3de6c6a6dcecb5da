#include "text/gguf_tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/utf8.h"
#include "text/gguf_merges.h"
#include "text/vocabulary.h"

enum { MAX_PATTERNS = 5 };

/* How texts are split before byte-level BPE. */
typedef struct split {
  const char *names[4];               /* of tokenizer.ggml.pre */
  const char *patterns[MAX_PATTERNS]; /* each splits the pieces that those before it left */
  bool digits;                        /* every digit by itself, before all else */
  bool gpt2;                          /* by GPT-2's pattern, behind all else */
  bool nfc;                           /* texts are normalized to NFC */
  bool ignore_merges;                 /* a piece that is a token is not put together by merges */
  bool add_bos;                       /* where the file does not say */
} split;

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)|"
#define REST         "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define LETTERS      "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
#define UPPER        "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER        "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define BEFORE       "[^\\r\\n\\p{L}\\p{N}]?"

static const split splits[] = {
    {.names = {"llama-bpe", "llama3", "llama-v3"},
     .patterns = {CONTRACTIONS LETTERS "\\p{N}{1,3}" REST},
     .ignore_merges = true,
     .add_bos = true},
    {.names = {"qwen2"}, .patterns = {CONTRACTIONS LETTERS "\\p{N}" REST}, .nfc = true},
    {.names = {"deepseek-r1-qwen"}, .patterns = {CONTRACTIONS LETTERS "\\p{N}" REST}},
    {.names = {"smollm", "starcoder", "refact"}, .digits = true, .gpt2 = true},
    {.names = {"gpt-2"}, .gpt2 = true},
    {.names = {"tekken"},
     .patterns = {BEFORE UPPER
                  "*" LOWER "+|" BEFORE UPPER "+" LOWER "*|"
                  "\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},
     .ignore_merges = true,
     .add_bos = true},
    {.names = {"deepseek-coder"},
     .patterns = {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+",
                  "[\xe4\xb8\x80-\xe9\xbe\xa5\xe0\xa0\x80-\xe4\xb8\x80\xea\xb0\x80-\xed\x9f\xbf]+",
                  "\\p{N}"}},
    {.names = {"default"},
     .patterns = {"[\\p{P}\\$\\+<=>\\^~\\|]+",
                  "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)",
                  "\\p{N}+", "[0-9][0-9][0-9]"}},
};
enum { N_SPLITS = sizeof splits / sizeof *splits };

/* The tokenizer that is being read. */
typedef struct source {
  const pdt_gguf *g;
  pdt_gguf_text *tokens; /* [n] */
  int32_t *types;        /* [n_types]: n, or none */
  size_t n, n_types;
  json_t *vocab, *out;
  pdt_error *err;
} source;

static int no_memory(const source *s) {
  return pdt_fail(s->err, PDT_ERROR_MEMORY, "%s: no memory for the tokenizer", s->g->path);
}

static int32_t type_of(const source *s, size_t id) {
  return s->n_types ? s->types[id] : PDT_GGUF_TOKEN_NORMAL;
}

/* ---- tokens ---- */

static int read_tokens(source *s) {
  if (pdt_gguf_strings(s->g, "tokenizer.ggml.tokens", &s->tokens, &s->n, s->err) ||
      pdt_gguf_integers(s->g, "tokenizer.ggml.token_type", &s->types, &s->n_types, s->err))
    return -1;
  if (s->n < 1 || s->n > (size_t)PDT_MAX_TOKEN_ID)
    return pdt_fail(s->err, PDT_ERROR_INPUT,
                    "%s: 'tokenizer.ggml.tokens': expected 1 to %d tokens, found %zu", s->g->path,
                    PDT_MAX_TOKEN_ID, s->n);
  if (s->n_types && s->n_types != s->n)
    return pdt_fail(
        s->err, PDT_ERROR_INPUT,
        "%s: 'tokenizer.ggml.token_type': expected a type for each of %zu tokens, found "
        "%zu",
        s->g->path, s->n, s->n_types);
  for (size_t i = 0; i < s->n; i++) {
    pdt_gguf_text t = s->tokens[i];
    if (!pdt_is_utf8(t.text, t.bytes) || memchr(t.text, 0, t.bytes))
      return pdt_fail(s->err, PDT_ERROR_INPUT,
                      "%s: 'tokenizer.ggml.tokens': element %zu: expected UTF-8 without U+0000, "
                      "found other bytes",
                      s->g->path, i);
    if (type_of(s, i) < PDT_GGUF_TOKEN_NORMAL || type_of(s, i) > PDT_GGUF_TOKEN_BYTE)
      return pdt_fail(s->err, PDT_ERROR_INPUT,
                      "%s: 'tokenizer.ggml.token_type': element %zu: expected 1 to 6, found %d",
                      s->g->path, i, type_of(s, i));
  }
  return 0;
}

static int fill_vocabulary(source *s) {
  s->vocab = json_object();
  for (size_t i = 0; s->vocab && i < s->n; i++) {
    char *token = strndup(s->tokens[i].text, s->tokens[i].bytes);
    const json_t *other = token ? json_object_get(s->vocab, token) : NULL;
    int rc = token && !other
                 ? json_object_set_new_nocheck(s->vocab, token, json_integer((json_int_t)i))
                 : -1;
    if (other)
      pdt_fail(s->err, PDT_ERROR_INPUT,
               "%s: 'tokenizer.ggml.tokens': elements %lld and %zu: both are '%.80s'", s->g->path,
               (long long)json_integer_value(other), i, token);
    free(token);
    if (rc) return other ? -1 : no_memory(s);
  }
  return s->vocab ? 0 : no_memory(s);
}

static json_t *text_json(pdt_gguf_text t) {
  return json_stringn_nocheck(t.text, t.bytes);
}

/* Control and user-defined tokens, which are found in a text as wholes. NULL without memory. */
static json_t *added_tokens(const source *s) {
  json_t *list = json_array();
  size_t n = 0;
  for (size_t i = 0; i < s->n; i++) {
    int32_t type = type_of(s, i);
    if (!s->tokens[i].bytes || (type != PDT_GGUF_TOKEN_CONTROL && type != PDT_GGUF_TOKEN_UNKNOWN &&
                                type != PDT_GGUF_TOKEN_USER_DEFINED))
      continue;
    json_array_append_new(list, json_pack("{s:I, s:o, s:b, s:b, s:b, s:b, s:b}", "id",
                                          (json_int_t)i, "content", text_json(s->tokens[i]),
                                          "single_word", 0, "lstrip", 0, "rstrip", 0, "normalized",
                                          0, "special", type != PDT_GGUF_TOKEN_USER_DEFINED));
    n++;
  }
  if (json_array_size(list) == n) return list;
  json_decref(list);
  return NULL;
}

/* ---- around a text ---- */

/* A special token's id, -1 when the file names none. */
static int special_id(const source *s, const char *key, int64_t *id) {
  bool found;
  *id = -1;
  return pdt_gguf_integer(s->g, key, 0, (int64_t)s->n - 1, id, &found, s->err);
}

/* An item of a template. */
static json_t *special_item(const source *s, int64_t id) {
  return json_pack("{s:{s:o, s:i}}", "SpecialToken", "id", text_json(s->tokens[id]), "type_id", 0);
}

/* What goes before and behind a text: NULL in *out when nothing does. */
static int make_template(const source *s, bool add_bos, json_t **out) {
  static const char *const ids[] = {"tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id"};
  static const char *const flags[] = {"tokenizer.ggml.add_bos_token",
                                      "tokenizer.ggml.add_eos_token"};
  bool add[2] = {add_bos, false}, found;
  int64_t id[2];
  json_t *single = json_array(), *tokens = json_object();
  *out = NULL;
  for (int i = 0; i < 2; i++) {
    if (special_id(s, ids[i], &id[i]) || pdt_gguf_bool(s->g, flags[i], &add[i], &found, s->err)) {
      json_decref(single);
      json_decref(tokens);
      return -1;
    }
    if (i == 1)
      json_array_append_new(single,
                            json_pack("{s:{s:s, s:i}}", "Sequence", "id", "A", "type_id", 0));
    if (!add[i] || id[i] < 0) continue;
    char *text = strndup(s->tokens[id[i]].text, s->tokens[id[i]].bytes);
    json_array_append_new(single, special_item(s, id[i]));
    if (text)
      json_object_set_new_nocheck(tokens, text,
                                  json_pack("{s:o, s:[I], s:[o]}", "id",
                                            text_json(s->tokens[id[i]]), "ids", (json_int_t)id[i],
                                            "tokens", text_json(s->tokens[id[i]])));
    free(text);
  }
  if (json_array_size(single) > 1)
    *out = json_pack("{s:s, s:O, s:[O, {s:{s:s, s:i}}], s:O}", "type", "TemplateProcessing",
                     "single", single, "pair", json_array_get(single, 0), "Sequence", "id", "B",
                     "type_id", 1, "special_tokens", tokens);
  json_decref(single);
  json_decref(tokens);
  return 0;
}

/* ---- byte-level ---- */

static const split *find_split(pdt_gguf_text name) {
  for (int i = 0; i < N_SPLITS; i++)
    for (int k = 0; k < 4 && splits[i].names[k]; k++)
      if (pdt_gguf_is(name, splits[i].names[k])) return &splits[i];
  return NULL;
}

static json_t *byte_level(bool use_regex) {
  return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0,
                   "trim_offsets", 1, "use_regex", use_regex);
}

static json_t *pre_tokenizer(const split *p) {
  json_t *steps = json_array();
  if (p->digits)
    json_array_append_new(steps, json_pack("{s:s, s:b}", "type", "Digits", "individual_digits", 1));
  for (int i = 0; i < MAX_PATTERNS && p->patterns[i]; i++)
    json_array_append_new(steps,
                          json_pack("{s:s, s:{s:s}, s:s, s:b}", "type", "Split", "pattern", "Regex",
                                    p->patterns[i], "behavior", "Isolated", "invert", 0));
  json_array_append_new(steps, byte_level(p->gpt2));
  if (json_array_size(steps) > 1)
    return json_pack("{s:s, s:o}", "type", "Sequence", "pretokenizers", steps);
  json_t *only = json_incref(json_array_get(steps, 0));
  json_decref(steps);
  return only;
}

/* What counts of a component, whatever a writer adds to it that changes no ids. */
static json_t *essence(const json_t *component) {
  json_t *copy = json_deep_copy(component);
  json_t *steps = json_object_get(copy, "pretokenizers"), *step;
  size_t i;
  json_object_del(copy, "trim_offsets");
  json_array_foreach(steps, i, step) {
    json_object_del(step, "trim_offsets");
  }
  return copy;
}

/* Is it nothing, or a sequence of nothing? */
static bool is_nothing(const json_t *component) {
  return !component || json_is_null(component) ||
         (json_is_array(json_object_get(component, "normalizers")) &&
          json_array_size(json_object_get(component, "normalizers")) == 0);
}

const char *pdt_gguf_pre_of(const json_t *tokenizer) {
  const json_t *normalizer = json_object_get(tokenizer, "normalizer");
  const char *form = json_string_value(json_object_get(normalizer, "type"));
  bool nfc = form && strcmp(form, "NFC") == 0;
  bool ignore = json_is_true(json_object_get(json_object_get(tokenizer, "model"), "ignore_merges"));
  json_t *own = essence(json_object_get(tokenizer, "pre_tokenizer"));
  const char *name = NULL;
  for (int i = 0; i < N_SPLITS && !name && (nfc || is_nothing(normalizer)); i++) {
    json_t *full = pre_tokenizer(&splits[i]), *other = essence(full);
    if (splits[i].nfc == nfc && splits[i].ignore_merges == ignore && json_equal(own, other))
      name = splits[i].names[0];
    json_decref(full);
    json_decref(other);
  }
  json_decref(own);
  return name;
}

/* NULL without memory. */
static json_t *merges_of(const pdt_gguf_text *merges, size_t n) {
  json_t *list = json_array();
  for (size_t i = 0; i < n; i++) json_array_append_new(list, text_json(merges[i]));
  if (json_array_size(list) == n) return list;
  json_decref(list);
  return NULL;
}

static int put_model(source *s, bool fallback, bool ignore_merges, json_t *unknown,
                     json_t *merges) {
  json_t *model = json_pack("{s:s, s:n, s:o, s:n, s:n, s:b, s:b, s:b, s:O, s:o}", "type", "BPE",
                            "dropout", "unk_token", unknown, "continuing_subword_prefix",
                            "end_of_word_suffix", "fuse_unk", fallback, "byte_fallback", fallback,
                            "ignore_merges", ignore_merges, "vocab", s->vocab, "merges", merges);
  return !model || json_object_set_new(s->out, "model", model) ? no_memory(s) : 0;
}

static int put(const source *s, const char *key, json_t *value) {
  return json_object_set_new(s->out, key, value) ? no_memory(s) : 0;
}

static int find_pre(const source *s, const split **p) {
  pdt_gguf_text pre;
  const char *key = "tokenizer.ggml.pre";
  if (pdt_gguf_string(s->g, key, &pre, NULL, s->err))
    return pdt_fail_hint(s->err, "files of before May 2024 do not say how texts are split: convert "
                                 "the model anew");
  *p = find_split(pre);
  if (*p) return 0;
  return pdt_fail(s->err, PDT_ERROR_INPUT,
                  "%s: '%s': expected llama-bpe, qwen2, deepseek-r1-qwen, smollm, starcoder, "
                  "refact, gpt-2, tekken, deepseek-coder or default, found '%.*s'",
                  s->g->path, key, pre.bytes < 80 ? (int)pre.bytes : 80, pre.text);
}

static int build_byte_level(source *s) {
  const split *p;
  pdt_gguf_text *merges;
  size_t n;
  json_t *template;
  if (find_pre(s, &p) || make_template(s, p->add_bos, &template)) return -1;
  json_t *after = template ? json_pack("{s:s, s:[o, o]}", "type", "Sequence", "processors",
                                       byte_level(true), template)
                           : byte_level(true);
  if (put(s, "normalizer", p->nfc ? json_pack("{s:s}", "type", "NFC") : json_null()) ||
      put(s, "pre_tokenizer", pre_tokenizer(p)) || put(s, "post_processor", after) ||
      put(s, "decoder", byte_level(true)) ||
      pdt_gguf_strings(s->g, "tokenizer.ggml.merges", &merges, &n, s->err))
    return -1;
  for (size_t i = 0; i < n; i++)
    if (!pdt_is_utf8(merges[i].text, merges[i].bytes)) {
      free(merges);
      return pdt_fail(s->err, PDT_ERROR_INPUT,
                      "%s: 'tokenizer.ggml.merges': element %zu: expected UTF-8", s->g->path, i);
    }
  int rc = put_model(s, false, p->ignore_merges, json_null(), merges_of(merges, n));
  free(merges);
  return rc;
}

/* ---- SentencePiece ---- */

/* Merges in the order of scores. */
static int merges_by_score(const source *s, json_t **merges) {
  float *scores;
  size_t n;
  *merges = NULL;
  if (pdt_gguf_floats(s->g, "tokenizer.ggml.scores", &scores, &n, s->err)) return -1;
  const pdt_gguf_pieces pieces = {s->tokens, s->n_types ? s->types : NULL, scores, s->n, s->vocab,
                                  s->g->path};
  int rc = n == s->n ? pdt_gguf_merges(merges, &pieces, s->err)
                     : pdt_fail(s->err, PDT_ERROR_INPUT,
                                "%s: 'tokenizer.ggml.scores': expected a score for each of %zu "
                                "tokens, found %zu",
                                s->g->path, s->n, n);
  free(scores);
  return rc;
}

#define SPACE "\xe2\x96\x81"

static json_t *space_normalizer(bool prefix) {
  json_t *replace = json_pack("{s:s, s:{s:s}, s:s}", "type", "Replace", "pattern", "String", " ",
                              "content", SPACE);
  if (!prefix) return replace;
  return json_pack("{s:s, s:[{s:s, s:s}, o]}", "type", "Sequence", "normalizers", "type", "Prepend",
                   "prepend", SPACE, replace);
}

static json_t *space_decoder(bool prefix) {
  json_t *steps =
      json_pack("[{s:s, s:{s:s}, s:s}, {s:s}, {s:s}]", "type", "Replace", "pattern", "String",
                SPACE, "content", " ", "type", "ByteFallback", "type", "Fuse");
  if (prefix)
    json_array_append_new(steps, json_pack("{s:s, s:s, s:i, s:i}", "type", "Strip", "content", " ",
                                           "start", 1, "stop", 0));
  return json_pack("{s:s, s:o}", "type", "Sequence", "decoders", steps);
}

bool pdt_gguf_is_sentencepiece(const json_t *tokenizer, bool *prefix) {
  const json_t *model = json_object_get(tokenizer, "model");
  const json_t *pre = json_object_get(tokenizer, "pre_tokenizer");
  if (!json_is_true(json_object_get(model, "byte_fallback")) || (pre && !json_is_null(pre)) ||
      json_is_true(json_object_get(model, "ignore_merges")))
    return false;
  bool same = false;
  for (int i = 0; i < 2 && !same; i++) {
    json_t *own = space_normalizer(i == 0);
    same = json_equal(own, json_object_get(tokenizer, "normalizer"));
    *prefix = i == 0;
    json_decref(own);
  }
  return same;
}

static int build_sentencepiece(source *s) {
  bool prefix = true, squeeze = false, found;
  int64_t unknown;
  json_t *merges, *template;
  if (pdt_gguf_bool(s->g, "tokenizer.ggml.add_space_prefix", &prefix, &found, s->err) ||
      pdt_gguf_bool(s->g, "tokenizer.ggml.remove_extra_whitespaces", &squeeze, &found, s->err) ||
      special_id(s, "tokenizer.ggml.unknown_token_id", &unknown))
    return -1;
  if (squeeze || pdt_gguf_find(s->g, "tokenizer.ggml.precompiled_charsmap"))
    return pdt_fail(s->err, PDT_ERROR_INPUT,
                    "%s: '%s': the tokenizer asks for what this runtime does not do", s->g->path,
                    squeeze ? "tokenizer.ggml.remove_extra_whitespaces"
                            : "tokenizer.ggml.precompiled_charsmap");
  if (make_template(s, true, &template)) return -1;
  if (put(s, "normalizer", space_normalizer(prefix)) || put(s, "pre_tokenizer", json_null()) ||
      put(s, "post_processor", template ? template : json_null()) ||
      put(s, "decoder", space_decoder(prefix)) || merges_by_score(s, &merges))
    return -1;
  return put_model(s, true, false, unknown < 0 ? json_null() : text_json(s->tokens[unknown]),
                   merges);
}

/* ---- both ---- */

static const char whole_file[] = "tokenizer.huggingface.json";

bool pdt_gguf_has_tokenizer(const pdt_gguf *g) {
  pdt_gguf_text model = {"", 0};
  bool found = false;
  if (pdt_gguf_find(g, whole_file)) return true;
  return !pdt_gguf_string(g, "tokenizer.ggml.model", &model, &found, NULL) && found &&
         !pdt_gguf_is(model, "none") && !pdt_gguf_is(model, "no_vocab");
}

static int build(source *s) {
  pdt_gguf_text model;
  if (pdt_gguf_string(s->g, "tokenizer.ggml.model", &model, NULL, s->err)) return -1;
  bool bytes = pdt_gguf_is(model, "gpt2");
  if (!bytes && !pdt_gguf_is(model, "llama"))
    return pdt_fail(s->err, PDT_ERROR_INPUT,
                    "%s: 'tokenizer.ggml.model': expected gpt2 or llama, found '%.*s'", s->g->path,
                    model.bytes < 80 ? (int)model.bytes : 80, model.text);
  if (read_tokens(s) || fill_vocabulary(s) || put(s, "version", json_string("1.0")) ||
      put(s, "truncation", json_null()) || put(s, "padding", json_null()) ||
      put(s, "added_tokens", added_tokens(s)))
    return -1;
  return bytes ? build_byte_level(s) : build_sentencepiece(s);
}

static int build_root(json_t **out, const pdt_gguf *g, pdt_error *err) {
  source s = {.g = g, .out = json_object(), .err = err};
  int rc = s.out ? build(&s) : no_memory(&s);
  free(s.tokens);
  free(s.types);
  json_decref(s.vocab);
  if (rc)
    json_decref(s.out);
  else
    *out = s.out;
  return rc;
}

int pdt_gguf_tokenizer(json_t **out, char **text, const pdt_gguf *g, pdt_error *err) {
  pdt_gguf_text file;
  char where[512];
  bool found;
  *out = NULL;
  if (text) *text = NULL;
  snprintf(where, sizeof where, "%.400s: %s", g->path, whole_file);
  if (pdt_gguf_string(g, whole_file, &file, &found, err)) return -1;
  if (found ? pdt_json_parse_serde(out, file.text, file.bytes, where, err) ||
                  pdt_json_expect_object(*out, where, err)
            : build_root(out, g, err)) {
    json_decref(*out);
    *out = NULL;
    return -1;
  }
  if (!text) return 0;
  *text = found ? strndup(file.text, file.bytes) : json_dumps(*out, JSON_COMPACT);
  if (*text) return 0;
  json_decref(*out);
  *out = NULL;
  return pdt_fail(err, PDT_ERROR_MEMORY, "%s: no memory", where);
}

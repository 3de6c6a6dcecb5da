#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "model/random.h"

enum { WORD_BYTES = 64 };

static bool is_special(const pdt_model_config *config, pdt_token id) {
  return id == config->bos || pdt_model_is_eos(config, id);
}

static void special_name(const pdt_model_config *config, pdt_token id, char name[WORD_BYTES]) {
  if (id == config->bos)
    snprintf(name, WORD_BYTES, "%s", pdt_model_is_eos(config, id) ? "<|endoftext|>" : "<|bos|>");
  else if (id == config->eos[0])
    snprintf(name, WORD_BYTES, "<|eos|>");
  else
    snprintf(name, WORD_BYTES, "<|eos-%d|>", id);
}

/* UTF-8 of a code point below 0x800. */
static size_t put_code_point(unsigned c, char *out) {
  if (c < 0x80) {
    out[0] = (char)c;
    return 1;
  }
  out[0] = (char)(0xC0 | c >> 6);
  out[1] = (char)(0x80 | (c & 0x3F));
  return 2;
}

/* The character that stands for a byte in byte-level vocabularies: itself when it prints, else the
 * next one from U+0100 on. */
static void byte_name(int byte, char name[WORD_BYTES]) {
  unsigned next = 0x100, c = 0;
  for (int b = 0; b <= byte; b++) {
    bool prints = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
    c = prints ? (unsigned)b : next++;
  }
  name[put_code_point(c, name)] = '\0';
}

/* A word of its own for every number: a space and syllables, at least two. */
static void word_name(int32_t number, char name[WORD_BYTES]) {
  static const char consonants[] = "bdfghklmnprstvz", vowels[] = "aeiou";
  const int32_t base = 15 * 5;
  size_t at = put_code_point(0x120, name); /* what stands for the space */
  for (int i = 0; i < 2 || number > 0; i++, number /= base) {
    name[at++] = consonants[number % base / 5];
    name[at++] = vowels[number % 5];
  }
  name[at] = '\0';
}

/* Names of all ids into vocabulary, the special ones into added too; 0 when all went in. */
static int fill_vocabulary(const pdt_model_config *config, json_t *vocabulary, json_t *added) {
  int bytes = 0;
  for (pdt_token id = 0; id < config->vocab_size; id++) {
    char name[WORD_BYTES];
    if (is_special(config, id)) {
      special_name(config, id, name);
      json_t *entry =
          json_pack("{s:i, s:s, s:b, s:b, s:b, s:b, s:b}", "id", id, "content", name, "single_word",
                    0, "lstrip", 0, "rstrip", 0, "normalized", 0, "special", 1);
      if (!entry || json_array_append_new(added, entry)) return -1;
    } else if (bytes < 256) {
      byte_name(bytes++, name);
    } else {
      word_name(id, name);
    }
    if (json_object_set_new(vocabulary, name, json_integer(id))) return -1;
  }
  return json_object_size(vocabulary) == (size_t)config->vocab_size ? 0 : -1;
}

/* Puts bos before a text, where the model has one that does not end texts as well. */
static json_t *post_processor(const pdt_model_config *config) {
  if (config->bos < 0 || pdt_model_is_eos(config, config->bos)) return json_null();
  char bos[WORD_BYTES];
  special_name(config, config->bos, bos);
  return json_pack("{s:s, s:[{s:{s:s, s:i}}, {s:{s:s, s:i}}],"
                   " s:[{s:{s:s, s:i}}, {s:{s:s, s:i}}, {s:{s:s, s:i}}, {s:{s:s, s:i}}],"
                   " s:{s:{s:s, s:[i], s:[s]}}}",
                   "type", "TemplateProcessing",                      /* */
                   "single", "SpecialToken", "id", bos, "type_id", 0, /* */
                   "Sequence", "id", "A", "type_id", 0,               /* */
                   "pair", "SpecialToken", "id", bos, "type_id", 0,   /* */
                   "Sequence", "id", "A", "type_id", 0,               /* */
                   "SpecialToken", "id", bos, "type_id", 1,           /* */
                   "Sequence", "id", "B", "type_id", 1,               /* */
                   "special_tokens", bos, "id", bos, "ids", config->bos, "tokens", bos);
}

static json_t *byte_level(void) {
  return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0,
                   "trim_offsets", 1, "use_regex", 0);
}

int pdt_random_tokenizer(const pdt_model_config *config, char **text, pdt_error *err) {
  *text = NULL;
  int32_t specials = config->n_eos + (config->bos >= 0 && !pdt_model_is_eos(config, config->bos));
  if (config->vocab_size < 256 + specials) return 0;
  json_t *vocabulary = json_object(), *added = json_array();
  int rc = fill_vocabulary(config, vocabulary, added);
  json_t *model =
      json_pack("{s:s, s:n, s:n, s:n, s:n, s:b, s:b, s:b, s:o, s:[]}", "type", "BPE", "dropout",
                "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", 0,
                "byte_fallback", 0, "ignore_merges", 0, "vocab", vocabulary, "merges");
  json_t *tokenizer =
      json_pack("{s:s, s:n, s:n, s:o, s:n, s:o, s:o, s:o, s:o}", "version", "1.0", "truncation",
                "padding", "added_tokens", added, "normalizer", "pre_tokenizer", byte_level(),
                "post_processor", post_processor(config), "decoder", byte_level(), "model", model);
  if (!rc && tokenizer) *text = json_dumps(tokenizer, JSON_INDENT(1));
  json_decref(tokenizer);
  return *text ? 0 : pdt_fail(err, PDT_ERROR_MEMORY, "tokenizer.json: no memory");
}

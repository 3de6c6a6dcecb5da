#include "atlas/vocabulary.h"

#include <ctype.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/unicode.h"

static const char *const specials[] = {PDT_ATLAS_BOS, PDT_ATLAS_END, PDT_ATLAS_EOS};

/* Gives a piece the next id, if it has none; 0 when all is well. */
static int add_piece(json_t *vocabulary, const char *piece) {
  if (json_object_get(vocabulary, piece)) return 0;
  return json_object_set_new(vocabulary, piece,
                             json_integer((json_int_t)json_object_size(vocabulary)));
}

/* A piece of text in the byte-level alphabet; text is ASCII. */
static int add_text(json_t *vocabulary, const char *text) {
  char piece[2 * PDT_ATLAS_NAME_BYTES + 8];
  size_t n = 0;
  for (; *text && n + 4 < sizeof piece; text++)
    n += pdt_utf8_encode(pdt_byte_to_char((unsigned char)*text), piece + n);
  piece[n] = '\0';
  return add_piece(vocabulary, piece);
}

static int add_word(json_t *vocabulary, const char *word) {
  char text[PDT_ATLAS_NAME_BYTES + 2];
  snprintf(text, sizeof text, " %s", word);
  return add_text(vocabulary, text);
}

/* A merge of two pieces, and the piece it makes. The pieces are ASCII but for a space before. */
static int add_merge(json_t *vocabulary, json_t *merges, const char *left, const char *right) {
  char merge[32], piece[32];
  const char *space = *left == ' ' ? "\xC4\xA0" : ""; /* U+0120 */
  left += *left == ' ';
  snprintf(merge, sizeof merge, "%s%s %s", space, left, right);
  snprintf(piece, sizeof piece, "%s%s%s", space, left, right);
  return add_piece(vocabulary, piece) || json_array_append_new(merges, json_string(merge));
}

/* Years of four digits: the century with its space first, so that the rest is left for the rest. */
static int add_years(json_t *vocabulary, json_t *merges) {
  int rc = add_merge(vocabulary, merges, " ", "1");
  for (int i = 0; i < 6 && !rc; i++)
    rc = add_merge(vocabulary, merges, " 1", (const char[]){(char)('0' + i), '\0'});
  for (int i = 0; i < 100 && !rc; i += 3)
    rc = add_merge(vocabulary, merges, (const char[]){(char)('0' + i / 10), '\0'},
                   (const char[]){(char)('0' + i % 10), '\0'});
  return rc;
}

/* What stands in prompts and headings. */
static int add_prompt_words(json_t *vocabulary) {
  int rc = add_text(vocabulary, pdt_atlas_verb(false)) ||
           add_text(vocabulary, pdt_atlas_verb(true)) || add_word(vocabulary, "Sections");
  for (int32_t s = 0; s < PDT_ATLAS_SECTIONS && !rc; s++) {
    char heading[PDT_ATLAS_NAME_BYTES];
    snprintf(heading, sizeof heading, "%s", pdt_atlas_section_name(s));
    rc = add_word(vocabulary, heading);
    heading[0] = (char)toupper((unsigned char)heading[0]);
    if (!rc) rc = add_text(vocabulary, heading);
  }
  return rc;
}

/* A number of four digits is made by merges, a mark is a byte. */
static bool is_whole(const char *word) {
  return isalpha((unsigned char)*word) || (isdigit((unsigned char)*word) && strlen(word) == 3);
}

static int fill(const pdt_atlas_world *world, json_t *vocabulary, json_t *merges, json_t *added) {
  int rc = 0;
  for (size_t i = 0; i < sizeof specials / sizeof *specials && !rc; i++) {
    json_t *token =
        json_pack("{s:i, s:s, s:b, s:b, s:b, s:b, s:b}", "id", (int)i, "content", specials[i],
                  "single_word", 0, "lstrip", 0, "rstrip", 0, "normalized", 0, "special", 1);
    rc = add_piece(vocabulary, specials[i]) || !token || json_array_append_new(added, token);
  }
  for (int b = 0; b < 256 && !rc; b++) {
    char piece[5] = "";
    pdt_utf8_encode(pdt_byte_to_char((unsigned char)b), piece);
    rc = add_piece(vocabulary, piece);
  }
  rc = rc || add_years(vocabulary, merges) || add_prompt_words(vocabulary);
  for (int32_t i = 0; i < world->n_words && !rc; i++)
    if (is_whole(world->words[i])) rc = add_word(vocabulary, world->words[i]);
  return rc;
}

static json_t *byte_level(bool use_regex) {
  return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0,
                   "trim_offsets", 1, "use_regex", (int)use_regex);
}

/* Puts bos before a text. */
static json_t *post_processor(void) {
  return json_pack("{s:s, s:[{s:{s:s, s:i}}, {s:{s:s, s:i}}],"
                   " s:[{s:{s:s, s:i}}, {s:{s:s, s:i}}, {s:{s:s, s:i}}],"
                   " s:{s:{s:s, s:[i], s:[s]}}}",
                   "type", "TemplateProcessing",                                /* */
                   "single", "SpecialToken", "id", PDT_ATLAS_BOS, "type_id", 0, /* */
                   "Sequence", "id", "A", "type_id", 0,                         /* */
                   "pair", "SpecialToken", "id", PDT_ATLAS_BOS, "type_id", 0,   /* */
                   "Sequence", "id", "A", "type_id", 0,                         /* */
                   "Sequence", "id", "B", "type_id", 1,                         /* */
                   "special_tokens", PDT_ATLAS_BOS, "id", PDT_ATLAS_BOS, "ids", 0, "tokens",
                   PDT_ATLAS_BOS);
}

int pdt_atlas_tokenizer_text(const pdt_atlas_world *world, char **text, pdt_error *err) {
  *text = NULL;
  json_t *vocabulary = json_object(), *merges = json_array(), *added = json_array();
  int rc = fill(world, vocabulary, merges, added);
  json_t *model =
      json_pack("{s:s, s:n, s:n, s:n, s:n, s:b, s:b, s:b, s:o, s:o}", "type", "BPE", "dropout",
                "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", 0,
                "byte_fallback", 0, "ignore_merges", 1, "vocab", vocabulary, "merges", merges);
  json_t *tokenizer =
      json_pack("{s:s, s:n, s:n, s:o, s:n, s:o, s:o, s:o, s:o}", "version", "1.0", "truncation",
                "padding", "added_tokens", added, "normalizer", "pre_tokenizer", byte_level(true),
                "post_processor", post_processor(), "decoder", byte_level(true), "model", model);
  if (!rc && tokenizer) *text = json_dumps(tokenizer, JSON_INDENT(1));
  json_decref(tokenizer);
  return *text ? 0 : pdt_fail(err, PDT_ERROR_MEMORY, "tokenizer.json of the Atlas: no memory");
}

int pdt_atlas_tokenizer(const pdt_atlas_world *world, pdt_tokenizer **out, uint64_t *fingerprint,
                        pdt_error *err) {
  char *text;
  *out = NULL;
  if (pdt_atlas_tokenizer_text(world, &text, err)) return -1;
  *fingerprint = pdt_tokenizer_fingerprint(text, strlen(text));
  int rc = pdt_tokenizer_parse(out, text, strlen(text), "tokenizer.json of the Atlas", err);
  free(text);
  return rc;
}

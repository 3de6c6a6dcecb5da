/* Texts that go on with others: sections behind prompts, for tokenizers that put something in front
 * of a text, split it by patterns, or do neither. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buffer.h"
#include "base/json.h"
#include "families.h"
#include "text/context.h"
#include "text/unicode.h"

typedef struct ids {
  pdt_token *items;
  int32_t n;
} ids;

static ids encode(const pdt_tokenizer *t, const char *text, size_t bytes) {
  ids out;
  pdt_error err = {0};
  if (pdt_tokenizer_encode(t, text, bytes, false, &out.items, &out.n, &err))
    fail_msg("%s", err.message);
  return out;
}

static ids encode_after(const pdt_text_context *c, const char *text, size_t bytes) {
  ids out;
  pdt_error err = {0};
  if (pdt_text_context_encode(c, text, bytes, &out.items, &out.n, &err))
    fail_msg("%s", err.message);
  return out;
}

static pdt_text_context *context_of(const pdt_tokenizer *t, const char *text, size_t bytes) {
  pdt_text_context *c;
  pdt_error err = {0};
  if (pdt_text_context_new(&c, t, text, bytes, &err)) fail_msg("%s", err.message);
  return c;
}

/* The ids as the strings of their tokens, with '|' between them. */
static void expect_tokens(const pdt_tokenizer *t, ids found, const char *expected,
                          const char *what) {
  char copy[256];
  int32_t n = 0;
  bool same = true;
  snprintf(copy, sizeof copy, "%s", expected);
  for (char *next, *token = strtok_r(copy, "|", &next); token; token = strtok_r(NULL, "|", &next)) {
    same = same && n < found.n && found.items[n] == pdt_tokenizer_token_id(t, token);
    n++;
  }
  if (!same || n != found.n)
    fail_msg("%s: expected %s, found %d other ids", what, expected, found.n);
  free(found.items);
}

/* Is what is read behind a text the joined text's ids wherever these begin with the text's? */
static bool check_joined(const pdt_tokenizer *t, const char *text, size_t bytes, size_t cut) {
  pdt_text_context *c = context_of(t, text, cut);
  ids first = encode(t, text, cut), joined = encode(t, text, bytes);
  ids rest = encode_after(c, text + cut, bytes - cut);
  bool begins = joined.n >= first.n &&
                memcmp(joined.items, first.items, (size_t)first.n * sizeof(pdt_token)) == 0;
  if (begins && (rest.n != joined.n - first.n ||
                 memcmp(rest.items, joined.items + first.n, (size_t)rest.n * sizeof(pdt_token))))
    fail_msg("'%.*s' behind '%.*s'", (int)(bytes - cut), text + cut, (int)cut, text);
  free(first.items);
  free(joined.items);
  free(rest.items);
  pdt_text_context_free(c);
  return begins;
}

/* The recorded texts of a family, cut into two at every few characters. */
static void test_joined(void **state) {
  pdt_tokenizer *t = load(*state);
  char path[256], *line = NULL;
  size_t room = 0;
  int n_begin = 0;
  snprintf(path, sizeof path, FOLDER "%s/vectors.jsonl", (const char *)*state);
  FILE *file = fopen(path, "r");
  assert_non_null(file);
  for (ssize_t length; (length = getline(&line, &room, file)) > 0;) {
    json_t *value = json_loadb(line, (size_t)length, JSON_ALLOW_NUL, NULL);
    const char *text = json_string_value(json_object_get(value, "text"));
    size_t bytes = json_string_length(json_object_get(value, "text"));
    for (size_t at = 0, i = 0; at < bytes; i++) {
      if (i % 5 == 0) n_begin += check_joined(t, text, bytes, at);
      pdt_utf8_next(text, &at);
    }
    json_decref(value);
  }
  assert_true(n_begin > 100);
  free(line);
  fclose(file);
  pdt_tokenizer_free(t);
}

static void test_sections(void **state) {
  (void)state;
  static const struct {
    const char *family, *before, *text, *expected;
  } cases[] = {
      {"llama2", "a b", "is", "is"},
      {"llama2", "a b", "\nis", "\n|is"},
      {"llama2", "a b", " is", "\xe2\x96\x81is"},
      {"llama2", "", "is", "\xe2\x96\x81is"},
      {"llama2", "a b</s>", "is", "\xe2\x96\x81is"},
      {"llama2", "a i", "s", "s"}, /* a token would span the border */
      {"llama2", "a b ", "is", "is"},
      {"llama2", "a b", "", ""},
      {"metaspace", "a b", "is", "is"},
      {"metaspace", "a b</s>", "is", "is"},
      {"metaspace", "", "is", "\xe2\x96\x81is"},
      {"gpt2", "a b", "is", "is"},
      {"gpt2", "a b ", "is", "is"},
      {"smollm2", "a", "word", "w|or|d"}, /* no single word here */
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    pdt_tokenizer *t = load(cases[i].family);
    pdt_text_context *c = context_of(t, cases[i].before, strlen(cases[i].before));
    expect_tokens(t, encode_after(c, cases[i].text, strlen(cases[i].text)), cases[i].expected,
                  cases[i].before);
    pdt_text_context_free(c);
    pdt_tokenizer_free(t);
  }
}

/* A prompt that is known by its ids. */
static void test_from_ids(void **state) {
  (void)state;
  pdt_error err = {0};
  pdt_tokenizer *t = load("llama2");
  pdt_token bos = 1, eos = 2, word = pdt_tokenizer_token_id(t, "is");
  const struct {
    pdt_token ids[2];
    int32_t n;
    const char *expected;
  } cases[] = {{{bos}, 1, "\xe2\x96\x81is"},
               {{bos, word}, 2, "is"},
               {{word, eos}, 2, "\xe2\x96\x81is"},
               {{word}, 1, "is"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    pdt_text_context *c;
    if (pdt_text_context_from_ids(&c, t, cases[i].ids, cases[i].n, &err))
      fail_msg("%s", err.message);
    expect_tokens(t, encode_after(c, "is", 2), cases[i].expected, "ids");
    pdt_text_context_free(c);
  }
  pdt_tokenizer_free(t);
}

/* Long texts are read again from near their end only, with the same result. */
static void test_long(void **state) {
  pdt_tokenizer *t = load(*state);
  static const char *const words[] = {
      "the",   "of",           "and",
      "1,234", "na\xc3\xafve", "\xe4\xbd\xa0",
      "''",    "==",           "\xe5\xa5\xbd\xef\xbc\x8c\xe4\xbd\xa0",
      "x",     "don't"};
  static const char *const spaces[] = {" ", "\n", " ", "  ", ". ", "", "\n\n"};
  static const char *const endings[] = {"is", "\nis", " is", "", "  ", "1", "e"};
  pdt_buffer text = {0};
  uint32_t seed = 7;
  for (int round = 0; round < 24; round++) {
    size_t wanted = (size_t)1500 << round % 3, cut;
    text.bytes = 0;
    while (text.bytes < wanted) {
      seed = seed * 1664525 + 1013904223;
      const char *word = words[(seed >> 8) % 11], *space = spaces[(seed >> 16) % 7];
      if (round % 6 == 5) word = "=", space = "";
      assert_int_equal(pdt_buffer_put(&text, word, strlen(word), NULL), 0);
      assert_int_equal(pdt_buffer_put(&text, space, strlen(space), NULL), 0);
    }
    cut = text.bytes;
    const char *ending = endings[round % 7];
    assert_int_equal(pdt_buffer_put(&text, ending, strlen(ending), NULL), 0);
    check_joined(t, text.data, text.bytes, cut);
  }
  pdt_buffer_free(&text);
  pdt_tokenizer_free(t);
}

/* What a section's ids say, behind the prompt's last one: spaces in front stay. */
static void test_texts_back(void **state) {
  (void)state;
  static const char *const families[] = {"llama2", "metaspace", "gpt2", "smollm2"};
  static const char *const sections[] = {"is",           " is", "\nis",    "  is",
                                         "\xe4\xbd\xa0", "",    "History:"};
  for (size_t f = 0; f < 4; f++) {
    pdt_tokenizer *t = load(families[f]);
    pdt_text_context *c = context_of(t, "Describe it.", 12);
    ids prompt = encode(t, "Describe it.", 12);
    assert_int_equal(pdt_text_context_last(c), prompt.items[prompt.n - 1]);
    for (size_t i = 0; i < sizeof sections / sizeof *sections; i++) {
      pdt_error err = {0};
      char *text;
      size_t bytes;
      if (f == 1 && i == 4) continue; /* unknown to it */
      ids section = encode_after(c, sections[i], strlen(sections[i]));
      assert_int_equal(pdt_tokenizer_decode_after(t, pdt_text_context_last(c), section.items,
                                                  section.n, &text, &bytes, &err),
                       0);
      assert_string_equal(text, sections[i]);
      free(text);
      free(section.items);
    }
    free(prompt.items);
    pdt_text_context_free(c);
    pdt_tokenizer_free(t);
  }
}

static void test_bad_text(void **state) {
  (void)state;
  pdt_error err = {0};
  pdt_token *out;
  int32_t n;
  pdt_tokenizer *t = load("gpt2");
  pdt_text_context *c;
  assert_int_equal(pdt_text_context_new(&c, t, "a\xff", 2, &err), -1);
  assert_null(c);
  c = context_of(t, "ab", 2);
  assert_int_equal(pdt_text_context_encode(c, "\xc3", 1, &out, &n, &err), -1);
  assert_null(out);
  pdt_text_context_free(c);
  pdt_tokenizer_free(t);
}

#define FAMILY(test, name)                                                                         \
  { #test " " name, test, NULL, NULL, (void *)(uintptr_t)name }

int main(void) {
  const struct CMUnitTest tests[] = {
      FAMILY(test_joined, "gpt2"),     FAMILY(test_joined, "llama3"),
      FAMILY(test_joined, "qwen2"),    FAMILY(test_joined, "smollm2"),
      FAMILY(test_joined, "llama2"),   FAMILY(test_joined, "metaspace"),
      FAMILY(test_joined, "suffix"),   FAMILY(test_long, "gpt2"),
      FAMILY(test_long, "llama2"),     FAMILY(test_long, "llama3"),
      FAMILY(test_long, "metaspace"),  FAMILY(test_long, "suffix"),
      cmocka_unit_test(test_sections), cmocka_unit_test(test_from_ids),
      cmocka_unit_test(test_bad_text), cmocka_unit_test(test_texts_back),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

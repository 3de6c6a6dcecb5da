/* The tokenizer: recorded ids and texts of every family, streams, refusals, patterns. The vectors
 * are what Hugging Face's tokenizers made (tests/make_tokenizers.py). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"
#include "families.h"
#include "text/regex.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

static pdt_token *read_ids(const json_t *array, int32_t *n) {
  *n = (int32_t)json_array_size(array);
  pdt_token *ids = malloc(((size_t)*n + 1) * sizeof *ids);
  assert_non_null(ids);
  for (int32_t i = 0; i < *n; i++)
    ids[i] = (pdt_token)json_integer_value(json_array_get(array, (size_t)i));
  return ids;
}

static void expect_ids(const pdt_tokenizer *t, const json_t *line, const char *key, bool special) {
  const json_t *text = json_object_get(line, "text");
  pdt_error err = {0};
  pdt_token *ids;
  int32_t n, n_expected;
  pdt_token *expected = read_ids(json_object_get(line, key), &n_expected);
  if (pdt_tokenizer_encode(t, json_string_value(text), json_string_length(text), special, &ids, &n,
                           &err))
    fail_msg("%s", err.message);
  assert_int_equal(n, n_expected);
  if (n) assert_memory_equal(ids, expected, (size_t)n * sizeof *ids);
  free(ids);
  free(expected);
}

/* The text of ids that come one by one; every part is whole characters. */
static char *stream_text(const pdt_tokenizer *t, const pdt_token *ids, int32_t n, bool skip,
                         size_t *bytes) {
  pdt_error err = {0};
  pdt_text_stream *s;
  pdt_buffer all = {0};
  char *text;
  assert_int_equal(pdt_text_stream_new(&s, t, skip, &err), 0);
  for (int32_t i = 0; i <= n; i++) {
    const char *part;
    size_t part_bytes;
    int rc = i < n ? pdt_text_stream_push(s, ids[i], &part, &part_bytes, &err)
                   : pdt_text_stream_flush(s, &part, &part_bytes, &err);
    assert_int_equal(rc, 0);
    assert_int_equal(pdt_utf8_valid(part, part_bytes), part_bytes);
    assert_int_equal(part[part_bytes], 0);
    assert_int_equal(pdt_buffer_put(&all, part, part_bytes, &err), 0);
  }
  pdt_text_stream_free(s);
  assert_int_equal(pdt_buffer_take(&all, &text, bytes, &err), 0);
  return text;
}

static void expect_text(const pdt_tokenizer *t, const pdt_token *ids, int32_t n, bool skip,
                        const char *expected, size_t expected_bytes) {
  pdt_error err = {0};
  char *text;
  size_t bytes;
  if (pdt_tokenizer_decode(t, ids, n, skip, &text, &bytes, &err)) fail_msg("%s", err.message);
  if (expected) {
    assert_int_equal(bytes, expected_bytes);
    assert_memory_equal(text, expected, bytes + 1);
  }
  size_t streamed_bytes;
  char *streamed = stream_text(t, ids, n, skip, &streamed_bytes);
  assert_int_equal(streamed_bytes, bytes);
  assert_memory_equal(streamed, text, bytes);
  free(streamed);
  free(text);
}

static void test_vectors(void **state) {
  const char *family = *state;
  pdt_tokenizer *t = load(family);
  char path[256], *text = NULL;
  size_t room = 0;
  int lines = 0;
  snprintf(path, sizeof path, FOLDER "%s/vectors.jsonl", family);
  FILE *file = fopen(path, "r");
  assert_non_null(file);
  for (ssize_t length; (length = getline(&text, &room, file)) > 0; lines++) {
    json_t *line = json_loadb(text, (size_t)length, JSON_ALLOW_NUL, NULL);
    assert_non_null(line);
    expect_ids(t, line, "ids", true);
    expect_ids(t, line, "plain", false);
    int32_t n;
    pdt_token *ids = read_ids(json_object_get(line, "ids"), &n);
    const json_t *decoded = json_object_get(line, "decoded");
    expect_text(t, ids, n, true, json_string_value(decoded), json_string_length(decoded));
    free(ids);
    json_decref(line);
  }
  assert_true(lines > 40);
  free(text);
  fclose(file);
  pdt_tokenizer_free(t);
}

/* One recorded tokenizer of random parts: its texts, ids and their text. */
static void check_random(const json_t *line) {
  char *text = json_dumps(json_object_get(line, "tokenizer"), 0);
  const json_t *texts = json_object_get(line, "texts");
  pdt_error err = {0};
  pdt_tokenizer *t;
  assert_non_null(text);
  if (pdt_tokenizer_parse(&t, text, strlen(text), "recorded", &err)) fail_msg("%s", err.message);
  for (size_t i = 0; i < json_array_size(texts); i++) {
    const json_t *expected = json_array_get(texts, i), *decoded = json_array_get(expected, 3);
    json_t *keyed = json_pack("{s:O,s:O,s:O}", "text", json_array_get(expected, 0), "plain",
                              json_array_get(expected, 1), "ids", json_array_get(expected, 2));
    int32_t n;
    pdt_token *ids = read_ids(json_array_get(expected, 2), &n);
    expect_ids(t, keyed, "plain", false);
    expect_ids(t, keyed, "ids", true);
    expect_text(t, ids, n, true, json_string_value(decoded), json_string_length(decoded));
    free(ids);
    json_decref(keyed);
  }
  free(text);
  pdt_tokenizer_free(t);
}

/* Added tokens of all kinds among normalizers and pre-tokenizers of all kinds, truncation and
 * padding (tests/random_tokenizers.py --record). */
static void test_random_tokenizers(void **state) {
  (void)state;
  char *text = NULL;
  size_t room = 0;
  int lines = 0;
  FILE *file = fopen(FOLDER "random.jsonl", "r");
  assert_non_null(file);
  for (ssize_t length; (length = getline(&text, &room, file)) > 0; lines++) {
    json_t *line = json_loadb(text, (size_t)length, JSON_ALLOW_NUL, NULL);
    assert_non_null(line);
    check_random(line);
    json_decref(line);
  }
  assert_true(lines > 40);
  free(text);
  fclose(file);
}

/* Ids in any order, special ones and ones that there are none of included. */
static void test_random_ids(void **state) {
  pdt_tokenizer *t = load(*state);
  uint32_t seed = 1;
  for (int round = 0; round < 2000; round++) {
    pdt_token ids[24];
    for (size_t i = 0; i < 24; i++) {
      seed = seed * 1664525 + 1013904223;
      ids[i] = (pdt_token)((seed >> 8) % (uint32_t)(pdt_tokenizer_size(t) + 8)) - 4;
    }
    expect_text(t, ids, 24, round % 2, NULL, 0);
  }
  pdt_tokenizer_free(t);
}

static void test_names(void **state) {
  (void)state;
  pdt_tokenizer *t = load("llama2");
  assert_int_equal(pdt_tokenizer_token_id(t, "<s>"), 1);
  assert_int_equal(pdt_tokenizer_token_id(t, "<0x0A>"), 3 + 10);
  assert_int_equal(pdt_tokenizer_token_id(t, "no such token"), -1);
  assert_true(pdt_tokenizer_is_special(t, 2));
  assert_false(pdt_tokenizer_is_special(t, 3));
  assert_false(pdt_tokenizer_is_special(t, -1));
  assert_false(pdt_tokenizer_is_special(t, INT32_MAX));
  assert_int_equal(pdt_tokenizer_size(t), 816);
  pdt_tokenizer_free(t);
  t = load("qwen2"); /* added tokens follow the vocabulary */
  pdt_token last = pdt_tokenizer_token_id(t, "<think>");
  assert_int_equal(pdt_tokenizer_size(t), last + 1);
  assert_false(pdt_tokenizer_is_special(t, last));
  pdt_tokenizer_free(t);
}

/* One push: what came out. */
static void expect_push(pdt_text_stream *s, pdt_token id, const char *expected) {
  pdt_error err = {0};
  const char *text;
  size_t bytes;
  assert_int_equal(pdt_text_stream_push(s, id, &text, &bytes, &err), 0);
  assert_string_equal(text, expected);
  assert_int_equal(bytes, strlen(expected));
}

static void expect_flush(pdt_text_stream *s, const char *expected) {
  pdt_error err = {0};
  const char *text;
  size_t bytes;
  assert_int_equal(pdt_text_stream_flush(s, &text, &bytes, &err), 0);
  assert_string_equal(text, expected);
}

static void test_held_back(void **state) {
  (void)state;
  pdt_error err = {0};
  pdt_text_stream *s;
  pdt_tokenizer *t = load("llama2");
  pdt_token byte0 = pdt_tokenizer_token_id(t, "<0x00>"), a = pdt_tokenizer_token_id(t, "a");
  assert_int_equal(pdt_text_stream_new(&s, t, true, &err), 0);
  expect_push(s, a, "a");
  expect_push(s, byte0 + 0xc3, ""); /* the run may go on, and be no UTF-8 after all */
  expect_push(s, byte0 + 0xa9, "");
  expect_push(s, 2, ""); /* special: left out, and ends no run */
  expect_push(s, a,
              "\xc3\xa9"
              "a");
  expect_push(s, byte0 + 0xff, "");
  expect_flush(s, "\xef\xbf\xbd");
  expect_push(s, pdt_tokenizer_token_id(t, "\xe2\x96\x81"), ""); /* a first space is cut off */
  expect_push(s, pdt_tokenizer_token_id(t, "\xe2\x96\x81"), " ");
  pdt_text_stream_free(s);
  pdt_tokenizer_free(t);

  t = load("gpt2"); /* U+1F600 by bytes, in the byte-level alphabet */
  assert_int_equal(pdt_text_stream_new(&s, t, true, &err), 0);
  static const unsigned char bytes[] = {0xf0, 0x9f, 0x98, 0x80};
  pdt_token ids[4];
  for (int i = 0; i < 4; i++) {
    char name[5] = {0};
    pdt_utf8_encode(pdt_byte_to_char(bytes[i]), name);
    ids[i] = pdt_tokenizer_token_id(t, name);
    assert_true(ids[i] >= 0);
    expect_push(s, ids[i], i < 3 ? "" : "\xf0\x9f\x98\x80");
  }
  expect_push(s, ids[0], "");
  expect_push(s, ids[1], "");
  expect_push(s, ids[0], "\xef\xbf\xbd"); /* two bytes that begin a character, and another */
  expect_flush(s, "\xef\xbf\xbd");
  pdt_text_stream_free(s);
  pdt_tokenizer_free(t);
}

static void test_bad_text(void **state) {
  (void)state;
  static const struct {
    const char *text, *message;
  } cases[] = {{"abc\xff", "byte 3"},          {"\xc3", "byte 0"},
               {"a\xed\xa0\x80", "byte 1"},    {"a\xc0\x80", "byte 1"},
               {"\xf4\x90\x80\x80", "byte 0"}, {"\xe2\x82\xac\xe2\x82", "byte 3"}};
  pdt_tokenizer *t = load("gpt2");
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    pdt_error err = {0};
    pdt_token *ids;
    int32_t n;
    assert_int_equal(
        pdt_tokenizer_encode(t, cases[i].text, strlen(cases[i].text), true, &ids, &n, &err), -1);
    assert_null(ids);
    assert_int_equal(err.code, PDT_ERROR_INPUT);
    assert_non_null(strstr(err.message, cases[i].message));
  }
  pdt_tokenizer_free(t);
}

/* A piece of a megabyte: quadratic merging would not end within the test's time. */
static void test_long_piece(void **state) {
  (void)state;
  pdt_tokenizer *t = load("llama2");
  size_t bytes = 1 << 20;
  char *text = malloc(bytes);
  assert_non_null(text);
  for (size_t i = 0; i < bytes; i++) text[i] = "ab c"[i % 4];
  pdt_error err = {0};
  pdt_token *ids;
  int32_t n;
  assert_int_equal(pdt_tokenizer_encode(t, text, bytes, false, &ids, &n, &err), 0);
  expect_text(t, ids, n, true, NULL, 0);
  char *back;
  size_t back_bytes;
  assert_int_equal(pdt_tokenizer_decode(t, ids, n, true, &back, &back_bytes, &err), 0);
  assert_int_equal(back_bytes, bytes);
  assert_memory_equal(back, text, bytes);
  free(back);
  free(ids);
  free(text);
  pdt_tokenizer_free(t);
}

#define MODEL(more)                                                                                \
  "{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a b\"]" more "}"

static void test_refusals(void **state) {
  (void)state;
  static const struct {
    const char *json, *message;
  } cases[] = {
      {"", "JSON"},
      {"[]", "expected a JSON object"},
      {"{}", "'model'"},
      {"{\"version\":\"2.0\",\"model\":" MODEL("") "}", "2.0"},
      {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[]}}", "Unigram"},
      {"{\"model\":{\"type\":\"BPE\",\"merges\":[]}}", "'vocab'"},
      {"{\"model\":{\"type\":\"BPE\",\"vocab\":{}}}", "'merges'"},
      {"{\"model\":{\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}}", "both have the id 0"},
      {"{\"model\":{\"vocab\":{\"a\":-1},\"merges\":[]}}", "found -1"},
      {"{\"model\":{\"vocab\":{\"a\":99999999999},\"merges\":[]}}", "found 99999999999"},
      {"{\"model\":{\"vocab\":{\"a\":\"0\"},\"merges\":[]}}", "'a'"},
      {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a c\"]}}", "'a' + 'c'"},
      {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a a\"]}}", "'a' + 'a'"},
      {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a\"]}}", "element 0"},
      {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[[\"a\"]]}}", "element 0"},
      {"{\"model\":" MODEL(",\"dropout\":0.1") "}", "dropout"},
      {"{\"model\":" MODEL(",\"byte_fallback\":1") "}", "byte_fallback"},
      {"{\"model\":" MODEL("") ",\"normalizer\":{\"type\":\"Precompiled\"}}", "Precompiled"},
      {"{\"model\":" MODEL("") ",\"normalizer\":{\"type\":\"Replace\",\"content\":\"\"}}",
       "pattern"},
      {"{\"model\":" MODEL("") ",\"pre_tokenizer\":{\"type\":\"UnicodeScripts\"}}",
       "UnicodeScripts"},
      {"{\"model\":" MODEL("") ",\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[1]}}",
       "expected a JSON object"},
      {"{\"model\":" MODEL("") ",\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Gone\"}}",
       "Gone"},
      {"{\"model\":" MODEL("") ",\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Removed\","
                               "\"invert\":false,\"pattern\":{\"Regex\":\"a[b&&c]\"}}}",
       "&& in a set"},
      {"{\"model\":" MODEL(
           "") ",\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"ab\"}}",
       "one character"},
      {"{\"model\":" MODEL("") ",\"post_processor\":{\"type\":\"Magic\"}}", "Magic"},
      {"{\"model\":" MODEL("") ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":["
                               "{\"SpecialToken\":{\"id\":\"x\"}}],\"special_tokens\":{}}}",
       "'x'"},
      {"{\"model\":" MODEL("") ",\"post_processor\":{\"type\":\"BertProcessing\",\"cls\":[\"x\","
                               "2],\"sep\":[\"y\",3]}}",
       "id 3"},
      {"{\"model\":" MODEL("") ",\"decoder\":{\"type\":\"WordPiece\"}}", "WordPiece"},
      {"{\"model\":" MODEL("") ",\"added_tokens\":[{\"id\":3}]}", "single_word"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    pdt_error err = {0};
    pdt_tokenizer *t;
    assert_int_equal(
        pdt_tokenizer_parse(&t, cases[i].json, strlen(cases[i].json), "tokenizer.json", &err), -1);
    assert_null(t);
    assert_int_equal(err.code, PDT_ERROR_INPUT);
    if (!strstr(err.message, cases[i].message)) fail_msg("case %zu: %s", i, err.message);
    assert_int_equal(strncmp(err.message, "tokenizer.json", 14), 0);
  }
}

/* Matches in brackets, what is between them as it is. */
static void test_patterns(void **state) {
  (void)state;
  static const struct {
    const char *pattern, *text, *expected; /* NULL: refused */
  } cases[] = {
      {"\\s", "a\xe1\xa0\x8e b", "a\xe1\xa0\x8e[ ]b"}, /* U+180E is no white space */
      {"x*", "axb", "[]a[x]b[]"},
      {"\\h+", "xyzBEEFg", "xyz[BEEF]g"},
      {"a{,2}", "aaa", "[aa][a]"},
      {"\\d{1,2}+", "12345", "[12345]"}, /* repeated, not possessive */
      {"a{2}?", "aaa", "[aa]a[]"},
      {"a{x", "a{x", "[a{x]"},
      {"(?m:a.b)", "a\nb", "[a\nb]"},
      {"a.b", "a\nb", "a\nb"},
      {"^b$", "a\nb\nc", "a\n[b]\nc"},
      {"a(?i)b|c", "aBaC", "[aB][aC]"},
      {"(?i:'s)", "'\xc5\xbf", "['\xc5\xbf]"},
      {"[[a-c][x-z]]+", "abxyq", "[abxy]q"},
      {"[\\[\\]\\-]+", "a[-]b", "a[[-]]b"},
      {"\\p{^L}+", "a12b", "a[12]b"},
      {"\\p{Han}+", "a\xe4\xb8\x80\xe3\x80\x86", "a[\xe4\xb8\x80]\xe3\x80\x86"},
      {"\\p{L}+", "\xf0\xb1\x8d\x90!", "[\xf0\xb1\x8d\x90]!"}, /* U+31350, of Unicode 15 */
      {"\\w", "\xc2\xb2\xe2\x81\xb4", "[\xc2\xb2]\xe2\x81\xb4"},
      {"[\\w]", "a\xc2\xb2", "[a]\xc2\xb2"}, /* in a set it is none */
      {"[^\\w]+", "a\xc2\xb2-", "a[\xc2\xb2-]"},
      {"\\bb", "ab b", "ab [b]"},
      {"\\u0041\\x42\\x{43}", "ABC", "[ABC]"},
      {"[a&&b]", "", NULL},
      {"(a)\\1", "", NULL},
      {"[[^a]]", "", NULL},
      {"a(", "", NULL},
      {"a)", "", NULL},
      {"[a", "", NULL},
      {"\\p{L", "", NULL},
      {"\\p{Nonsense}", "", NULL},
      {"\\xE2", "", NULL},
      {"(?x: a)", "", NULL},
      {"a\\", "", NULL},
      {"\\G", "", NULL},
      {"*", "", NULL},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    pdt_error err = {0};
    pdt_regex *re;
    const char *pattern = cases[i].pattern, *text = cases[i].text;
    int rc = pdt_regex_new(&re, pattern, strlen(pattern), false, "here", &err);
    if (!cases[i].expected) {
      if (!rc) fail_msg("%s: not refused", pattern);
      assert_non_null(strstr(err.message, "here: pattern"));
      continue;
    }
    if (rc) fail_msg("%s", err.message);
    pdt_cuts cuts = {0};
    pdt_buffer shown = {0};
    assert_int_equal(pdt_regex_cut(re, text, strlen(text), &cuts, &err), 0);
    for (size_t k = 0; k < cuts.n; k++) {
      const pdt_cut *c = &cuts.items[k];
      pdt_buffer_put(&shown, "[", c->match, NULL);
      pdt_buffer_put(&shown, text + c->start, c->end - c->start, NULL);
      pdt_buffer_put(&shown, "]", c->match, NULL);
    }
    pdt_buffer_put(&shown, "", 1, NULL);
    assert_string_equal(shown.data, cases[i].expected);
    pdt_buffer_free(&shown);
    pdt_cuts_free(&cuts);
    pdt_regex_free(re);
  }
}

static void test_normal_forms(void **state) {
  (void)state;
  static const struct {
    pdt_normal_form form;
    const char *text, *expected;
  } cases[] = {
      {PDT_NFC, "e\xcc\x81", "\xc3\xa9"},
      {PDT_NFD, "\xc3\xa9", "e\xcc\x81"},
      {PDT_NFKC, "\xef\xac\x81\xef\xbc\xa1", "fiA"},
      {PDT_NFKD, "\xc2\xbd",
       "1\xe2\x81\x84"
       "2"},
      {PDT_NFC, "q\xcc\x87\xcc\xa3", "q\xcc\xa3\xcc\x87"}, /* marks in order */
      {PDT_NFC, "\xe1\x84\x80\xe1\x85\xa1\xe1\x86\xa8", "\xea\xb0\x81"},
      {PDT_NFC, "a\xe0\xa2\x98\xcc\xa3",
       "a\xe0\xa2\x98\xcc\xa3"}, /* U+0898 came with 14: no mark */
      {PDT_NFC, "\xef\xbf\xbf\xe0\xa2\x98\xef\xbf\xbf\xcc\x81",
       "\xef\xbf\xbf\xe0\xa2\x98\xef\xbf\xbf\xcc\x81"},
      {PDT_NFKC, "", ""},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    pdt_buffer out = {0};
    pdt_error err = {0};
    size_t leading = 0;
    assert_int_equal(
        pdt_normalize(cases[i].form, cases[i].text, strlen(cases[i].text), &leading, &out, &err),
        0);
    assert_int_equal(pdt_buffer_put(&out, "", 1, &err), 0);
    assert_string_equal(out.data, cases[i].expected);
    pdt_buffer_free(&out);
  }
}

#define FAMILY(test, name)                                                                         \
  { #test " " name, test, NULL, NULL, (void *)(uintptr_t)name }

int main(void) {
  const struct CMUnitTest tests[] = {
      FAMILY(test_vectors, "gpt2"),
      FAMILY(test_vectors, "llama3"),
      FAMILY(test_vectors, "qwen2"),
      FAMILY(test_vectors, "smollm2"),
      FAMILY(test_vectors, "llama2"),
      FAMILY(test_vectors, "metaspace"),
      FAMILY(test_vectors, "suffix"),
      FAMILY(test_random_ids, "gpt2"),
      FAMILY(test_random_ids, "llama2"),
      FAMILY(test_random_ids, "metaspace"),
      FAMILY(test_random_ids, "suffix"),
      cmocka_unit_test(test_names),
      cmocka_unit_test(test_random_tokenizers),
      cmocka_unit_test(test_held_back),
      cmocka_unit_test(test_bad_text),
      cmocka_unit_test(test_long_piece),
      cmocka_unit_test(test_refusals),
      cmocka_unit_test(test_patterns),
      cmocka_unit_test(test_normal_forms),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

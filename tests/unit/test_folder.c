/* The tokenizer of a model's folder: tokens that only the files beside tokenizer.json know (as
 * transformers has them, tests/tokenizer_folders.py --record), files that cannot be, links. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/json.h"
#include "scratch.h"
#include "text/tokenizer.h"

static const char *const all_files[] = {"tokenizer.json", "tokenizer_config.json",
                                        "special_tokens_map.json", "added_tokens.json"};

static void clear(scratch *s) {
  for (int i = 0; i < 4; i++) unlink(scratch_path(s, all_files[i]));
}

static void put(scratch *s, const char *name, const char *text) {
  pdt_error err = {0};
  if (pdt_file_write_text(scratch_path(s, name), text, &err)) fail_msg("%s", err.message);
}

static pdt_tokenizer *load(const scratch *s, uint64_t *fingerprint) {
  pdt_tokenizer *t;
  pdt_error err = {0};
  if (pdt_tokenizer_load_folder(&t, s->folder, fingerprint, &err)) fail_msg("%s", err.message);
  return t;
}

static void expect_ids(const pdt_tokenizer *t, const char *text, size_t bytes, bool special,
                       const json_t *expected) {
  pdt_error err = {0};
  pdt_token *ids;
  int32_t n;
  if (pdt_tokenizer_encode(t, text, bytes, special, &ids, &n, &err)) fail_msg("%s", err.message);
  bool same = (size_t)n == json_array_size(expected);
  for (int32_t i = 0; same && i < n; i++)
    same = ids[i] == json_integer_value(json_array_get(expected, (size_t)i));
  if (!same) fail_msg("'%s': other ids", text);
  free(ids);
}

static void expect_text(const pdt_tokenizer *t, const json_t *ids, const char *expected) {
  pdt_error err = {0};
  pdt_token list[256];
  int32_t n = (int32_t)json_array_size(ids);
  char *text;
  size_t bytes;
  assert_true(n <= 256);
  for (int32_t i = 0; i < n; i++)
    list[i] = (pdt_token)json_integer_value(json_array_get(ids, (size_t)i));
  assert_int_equal(pdt_tokenizer_decode(t, list, n, true, &text, &bytes, &err), 0);
  assert_string_equal(text, expected);
  free(text);
}

static void check_case(scratch *s, json_t *line) {
  const char *name;
  json_t *value, *texts = json_object_get(line, "texts");
  clear(s);
  json_object_foreach(json_object_get(line, "files"), name, value) {
    char *text = json_dumps(value, 0);
    assert_non_null(text);
    put(s, name, text);
    free(text);
  }
  pdt_tokenizer *t = load(s, NULL);
  for (size_t i = 0; i < json_array_size(texts); i++) {
    json_t *row = json_array_get(texts, i), *text = json_array_get(row, 0);
    expect_ids(t, json_string_value(text), json_string_length(text), true, json_array_get(row, 1));
    expect_text(t, json_array_get(row, 1), json_string_value(json_array_get(row, 2)));
  }
  pdt_tokenizer_free(t);
}

static void test_recorded(void **state) {
  char *text = NULL;
  size_t room = 0;
  int lines = 0;
  FILE *file = fopen("tests/data/tokenizers/folders.jsonl", "r");
  assert_non_null(file);
  for (ssize_t length; (length = getline(&text, &room, file)) > 0; lines++) {
    json_t *line = json_loadb(text, (size_t)length, 0, NULL);
    assert_non_null(line);
    check_case(*state, line);
    json_decref(line);
  }
  assert_true(lines > 40);
  free(text);
  fclose(file);
}

#define TOKENIZER                                                                                  \
  "{\"added_tokens\":[{\"id\":3,\"content\":\"<s>\",\"single_word\":false,\"lstrip\":false,"       \
  "\"rstrip\":false,\"normalized\":false,\"special\":true}],\"model\":{\"type\":\"BPE\","          \
  "\"vocab\":{\"a\":0,\"<\":1,\">\":2},\"merges\":[]}}"

/* The fingerprint is the file's own, unless another file changes what is read. */
static void test_fingerprint(void **state) {
  scratch *s = *state;
  uint64_t alone, same, padded, stripped;
  clear(s);
  put(s, "tokenizer.json", TOKENIZER);
  pdt_tokenizer_free(load(s, &alone));
  put(s, "tokenizer_config.json", "{\"bos_token\":\"<s>\",\"model_max_length\":1e30}");
  pdt_tokenizer_free(load(s, &same));
  assert_true(same == alone);
  put(s, "tokenizer_config.json", "{\"pad_token\":\"<a>\"}");
  pdt_tokenizer *t = load(s, &padded);
  assert_int_equal(pdt_tokenizer_token_id(t, "<a>"), 4);
  assert_int_equal(pdt_tokenizer_size(t), 5);
  pdt_tokenizer_free(t);
  assert_true(padded != alone);
  put(s, "tokenizer_config.json",
      "{\"pad_token\":{\"__type\":\"AddedToken\",\"content\":\"<a>\",\"lstrip\":true}}");
  pdt_tokenizer_free(load(s, &stripped));
  assert_true(stripped != padded);
}

/* What Python's json.load takes, in the files that transformers reads with it. */
static void test_lenient(void **state) {
  scratch *s = *state;
  clear(s);
  put(s, "tokenizer.json", TOKENIZER);
  put(s, "tokenizer_config.json",
      "{\"pad_token\":\"<b>\",\"pad_token\":\"<a>\",\"x\":NaN,\"y\":1e999,\"z\":\"\\ud800\"}");
  pdt_tokenizer *t = load(s, NULL);
  assert_int_equal(pdt_tokenizer_token_id(t, "<a>"), 4);
  assert_int_equal(pdt_tokenizer_token_id(t, "<b>"), -1);
  pdt_tokenizer_free(t);
}

static void refuse(scratch *s, const char *what) {
  pdt_tokenizer *t;
  pdt_error err = {0};
  assert_int_equal(pdt_tokenizer_load_folder(&t, s->folder, NULL, &err), -1);
  assert_null(t);
  if (!strstr(err.message, what)) fail_msg("expected '%s' in: %s", what, err.message);
}

static void test_refusals(void **state) {
  scratch *s = *state;
  static const struct {
    const char *file, *text, *what;
  } cases[] = {
      {"tokenizer_config.json", "[1]", "tokenizer_config.json: expected a JSON object"},
      {"tokenizer_config.json", "{", "tokenizer_config.json"},
      {"tokenizer_config.json", "{\"pad_token\":5}", "pad_token"},
      {"tokenizer_config.json", "{\"pad_token\":{}}", "pad_token: 'content'"},
      {"tokenizer_config.json", "{\"eos_token\":{\"content\":\"x\",\"lstrip\":1}}", "lstrip"},
      {"tokenizer_config.json", "{\"added_tokens_decoder\":[]}", "added_tokens_decoder"},
      {"tokenizer_config.json", "{\"added_tokens_decoder\":{\"x\":{}}}", "found 'x'"},
      {"tokenizer_config.json", "{\"added_tokens_decoder\":{\"7\":\"x\"}}", "decoder: 7"},
      {"tokenizer_config.json", "{\"extra_special_tokens\":\"x\"}", "extra_special_tokens"},
      {"tokenizer_config.json", "{\"extra_special_tokens\":[null]}", "extra_special_tokens"},
      {"special_tokens_map.json", "{\"pad_token\":[]}", "special_tokens_map.json: pad_token"},
      {"added_tokens.json", "{\"x\":\"y\"}", "added_tokens.json: 'x'"},
      {"added_tokens.json", "7", "added_tokens.json: expected a JSON object"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    clear(s);
    put(s, "tokenizer.json", TOKENIZER);
    put(s, cases[i].file, cases[i].text);
    refuse(s, cases[i].what);
  }
}

/* A link that leads nowhere is no absence. */
static void test_links(void **state) {
  scratch *s = *state;
  for (int i = 0; i < 4; i++) {
    clear(s);
    if (i > 0) put(s, "tokenizer.json", TOKENIZER);
    assert_int_equal(symlink("no such file", scratch_path(s, all_files[i])), 0);
    char what[128];
    snprintf(what, sizeof what, "%s: cannot open: No such file or directory (it is a symbolic link",
             all_files[i]);
    refuse(s, what);
  }
  clear(s);
  refuse(s, "tokenizer.json");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, scratch_setup, scratch_teardown)

int main(void) {
  const struct CMUnitTest tests[] = {TEST(test_recorded), TEST(test_fingerprint),
                                     TEST(test_lenient), TEST(test_refusals), TEST(test_links)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}

/* JSON and whole files: every wrong value is named, nothing is half-written. NaN in weights. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/finite.h"
#include "base/json.h"
#include "scratch.h"

#define PARSE(out, text, err) pdt_json_parse(out, text, sizeof(text) - 1, "f", err)

static void expect_bad(const char *text, size_t length, const char *fragment) {
  json_t *value;
  pdt_error err = {0};
  assert_int_equal(pdt_json_parse(&value, text, length, "file", &err), -1);
  assert_null(value);
  assert_int_equal(err.code, PDT_ERROR_INPUT);
  if (!strstr(err.message, fragment)) fail_msg("'%s' is not in '%s'", fragment, err.message);
}

static void test_broken_texts(void **state) {
  (void)state;
  expect_bad("{\"a\":1,\n \"a\":2}", 15, "line 2");
  expect_bad("{\"a\":1", 6, "not sound JSON");
  expect_bad("", 0, "not sound JSON");
  expect_bad("{} x", 4, "not sound JSON");
  expect_bad("\"a\\u0000b\"", 10, "not sound JSON: the character U+0000 is not allowed");
  expect_bad("{\"a\\u0000b\":1}", 14, "not sound JSON: the character U+0000 is not allowed");
  expect_bad("{\"a\":\0}", 7, "not sound JSON");
  expect_bad("\"\xff\"", 3, "not sound JSON");
  expect_bad("[NaN]", 5, "not sound JSON");
  expect_bad("[1e999]", 7, "not sound JSON");
  expect_bad("[9223372036854775808]", 21, "not sound JSON");
  char deep[10000];
  memset(deep, '[', sizeof deep);
  expect_bad(deep, sizeof deep, "depth");
}

static void test_getters(void **state) {
  (void)state;
  json_t *o;
  pdt_error err = {0};
  assert_int_equal(PARSE(&o,
                         "{\"i\":7, \"r\":1.5, \"s\":\"x\", \"b\":true, \"n\":null, \"a\":[3,4.5],"
                         " \"o\":{}}",
                         &err),
                   0);
  int64_t i = -5;
  double r = -5;
  bool b = false;
  const char *s = "kept";
  const json_t *child;
  assert_int_equal(pdt_json_integer(o, "f", "i", 0, 7, &i, &err), 0);
  assert_int_equal(i, 7);
  assert_int_equal(pdt_json_integer(o, "f", "i", 8, 9, &i, &err), -1);
  assert_string_equal(err.message, "f: 'i': expected an integer from 8 to 9, found 7");
  assert_int_equal(pdt_json_integer(o, "f", "r", 0, 9, &i, &err), -1);
  assert_int_equal(pdt_json_integer(o, "f", "missing", 0, 9, &i, &err), -1);
  assert_string_equal(err.message, "f: 'missing': expected an integer from 0 to 9, found nothing");
  assert_int_equal(pdt_json_integer_or(o, "f", "n", 0, 9, &i, &err), 0);
  assert_int_equal(i, 7);
  assert_int_equal(pdt_json_real(o, "f", "i", 0, 9, &r, &err), 0);
  assert_true(r == 7);
  assert_int_equal(pdt_json_real(o, "f", "r", 2, 3, &r, &err), -1);
  assert_string_equal(err.message, "f: 'r': expected a number from 2 to 3, found 1.5");
  assert_int_equal(pdt_json_real_or(o, "f", "s", 0, 9, &r, &err), -1);
  assert_int_equal(pdt_json_bool_or(o, "f", "b", &b, &err), 0);
  assert_true(b);
  assert_int_equal(pdt_json_bool_or(o, "f", "i", &b, &err), -1);
  assert_int_equal(pdt_json_string_or(o, "f", "n", &s, &err), 0);
  assert_string_equal(s, "kept");
  assert_int_equal(pdt_json_string(o, "f", "n", &s, &err), -1);
  assert_int_equal(pdt_json_object(o, "f", "a", &child, &err), -1);
  assert_int_equal(pdt_json_array_or(o, "f", "n", &child, &err), 0);
  assert_null(child);
  assert_int_equal(pdt_json_array(o, "f", "a", &child, &err), 0);
  assert_int_equal(pdt_json_element_integer(child, "f: a", 0, 3, 3, &i, &err), 0);
  assert_int_equal(pdt_json_element_integer(child, "f: a", 1, 0, 9, &i, &err), -1);
  assert_string_equal(err.message, "f: a: '[1]': expected an integer from 0 to 9, found 4.5");
  assert_int_equal(pdt_json_element_integer(child, "f: a", 2, 0, 9, &i, &err), -1);
  static const char *const keys[] = {"i", "r", "s", "b", "n", "a"};
  assert_int_equal(pdt_json_only_keys(o, "f", keys, 6, &err), -1);
  assert_string_equal(err.message, "f: 'o': no such key is known");
  json_decref(o);
}

static json_t *lenient(const char *text, size_t length) {
  json_t *value;
  pdt_error err = {0};
  if (pdt_json_parse_python(&value, text, length, "f", &err)) fail_msg("%s", err.message);
  return value;
}

/* What Python reads and jansson does not, in keys that nobody needs and in keys that somebody
 * does. */
static void test_python(void **state) {
  (void)state;
  static const struct {
    const char *key, *found;
  } unusable[] = {
      {"nan", "NaN"},
      {"inf", "Infinity"},
      {"minus", "-Infinity"},
      {"big", "18446744073709551616"},
      {"small", "-9223372036854775809"},
      {"huge", "-1e999"},
      {"half", "\xef\xbf\xbd!"},
      {"zero", "a\xef\xbf\xbd"},
  };
  static const char text[] =
      "\xef\xbb\xbf{\"nan\":NaN,\"inf\":Infinity , "
      "\"minus\":-Infinity,\"big\":18446744073709551616,"
      "\"small\":-9223372036854775809,\"huge\":-1e999,\"half\":\"\\ud800!\",\"zero\":\"a\\u0000\","
      "\"\\ud83d\\ude00\":1,\"\\udc00\\u0000\" :[NaN,{\"x\":[Infinity]}],\"twice\":1,"
      "\"NaN \\\" -Infinity\":2,\"whole\":64.0,\"power\":1E2,\"part\":0.5,\"n\":3,\"twice\":2,"
      "\"most\":9223372036854775807,\"least\":-9223372036854775808}";
  json_t *o = lenient(text, sizeof text - 1);
  pdt_error err;
  int64_t i = 0;
  double x = 0;
  bool b = false;
  const char *s;
  const json_t *child;
  for (size_t k = 0; k < sizeof unusable / sizeof *unusable; k++) {
    const char *key = unusable[k].key, *found = unusable[k].found;
    char expected[96];
    snprintf(expected, sizeof expected, "f: '%s': expected an object, found %s", key, found);
    assert_string_equal(pdt_json_unusable(json_object_get(o, key)), found);
    assert_int_equal(pdt_json_object_or(o, "f", key, &child, &err), -1);
    assert_string_equal(err.message, expected);
    assert_int_equal(pdt_json_integer_or(o, "f", key, INT64_MIN, INT64_MAX, &i, &err), -1);
    assert_non_null(strstr(err.message, found));
    assert_int_equal(pdt_json_real(o, "f", key, -INFINITY, INFINITY, &x, &err), -1);
    assert_int_equal(pdt_json_string(o, "f", key, &s, &err), -1);
    assert_int_equal(pdt_json_array(o, "f", key, &child, &err), -1);
    assert_int_equal(pdt_json_bool_or(o, "f", key, &b, &err), -1);
    assert_int_equal(pdt_json_expect_object(json_object_get(o, key), "f", &err), -1);
    assert_string_equal(err.message,
                        "f: expected a JSON object, found a value that cannot be used");
  }
  assert_int_equal(pdt_json_integer(o, "f", "\xf0\x9f\x98\x80", 1, 1, &i, &err), 0);
  assert_int_equal(pdt_json_array(o, "f", "\xef\xbf\xbd\xef\xbf\xbd", &child, &err), 0);
  assert_int_equal(pdt_json_integer(o, "f", "NaN \" -Infinity", 2, 2, &i, &err), 0);
  assert_int_equal(pdt_json_integer(o, "f", "twice", 2, 2, &i, &err), 0);
  assert_int_equal(pdt_json_integer(o, "f", "whole", 64, 64, &i, &err), 0);
  assert_int_equal(pdt_json_integer(o, "f", "power", 100, 100, &i, &err), 0);
  assert_int_equal(pdt_json_integer(o, "f", "part", 0, 1, &i, &err), -1);
  assert_int_equal(pdt_json_integer(o, "f", "most", INT64_MAX, INT64_MAX, &i, &err), 0);
  assert_int_equal(pdt_json_integer(o, "f", "least", INT64_MIN, INT64_MIN, &i, &err), 0);
  json_decref(o);
}

/* What Python refuses, too, is refused where it stands in the text that was given. */
static void test_python_refuses(void **state) {
  (void)state;
  static const struct {
    const char *text, *fragment;
  } bad[] = {
      {"{\"a\":NaN,\n \"b\":[Infinity, nan]}", "f: line 2, column 19: not sound JSON"},
      {"[NaN,NaN,]", "f: line 1, column 10"},
      {"[-NaN]", "not sound JSON"},
      {"[01]", "not sound JSON"},
      {"[1.]", "not sound JSON"},
      {"[.5]", "not sound JSON"},
      {"[-]", "not sound JSON"},
      {"[1e]", "not sound JSON"},
      {"[1.0.0]", "not sound JSON"},
      {"{\"a\":Infinity", "not sound JSON"},
      {"[\"\\ud8", "not sound JSON"},
      {"[\"\\ud800", "not sound JSON"},
      {"[\"\\ud800\\", "not sound JSON"},
      {"[\"\\ud80g\"]", "not sound JSON"},
      {"\"\xff\"", "not sound JSON"},
      {"[\"\xed\xa0\x80\"]", "not sound JSON"},
      {"{NaN:1}", "not sound JSON"},
      {"", "not sound JSON"},
      {"{} x", "not sound JSON"},
      {"\xef\xbb\xbf\xef\xbb\xbf{}", "not sound JSON"},
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    size_t n = strlen(bad[i].text);
    char *exact = malloc(n ? n : 1); /* so that reading past it is caught */
    json_t *value;
    pdt_error err = {0};
    assert_non_null(exact);
    memcpy(exact, bad[i].text, n);
    if (!pdt_json_parse_python(&value, exact, n, "f", &err)) fail_msg("%s was taken", bad[i].text);
    if (!strstr(err.message, bad[i].fragment)) fail_msg("%s: '%s'", bad[i].text, err.message);
    free(exact);
  }
}

static void test_serde(void **state) {
  (void)state;
  static const char good[] =
      "{\"a\":1,\"a\":2,\"b\":18446744073709551616,\"c\\u0000\":\"\\u0000\"}";
  static const char *const bad[] = {"[NaN]", "[-Infinity]", "[1e999]", "[\"\\ud800\"]",
                                    "\xef\xbb\xbf{}"};
  json_t *value;
  pdt_error err;
  int64_t i;
  assert_int_equal(pdt_json_parse_serde(&value, good, sizeof good - 1, "f", &err), 0);
  assert_int_equal(pdt_json_integer(value, "f", "a", 2, 2, &i, &err), 0);
  assert_non_null(pdt_json_unusable(json_object_get(value, "b")));
  json_decref(value);
  for (size_t k = 0; k < sizeof bad / sizeof *bad; k++)
    assert_int_equal(pdt_json_parse_serde(&value, bad[k], strlen(bad[k]), "f", &err), -1);
  assert_int_equal(pdt_json_parse_serde(&value, "[1.0]", 5, "f", &err), 0);
  assert_int_equal(pdt_json_element_integer(value, "f", 0, 0, 2, &i, &err), -1);
  json_decref(value);
}

static void test_files(void **state) {
  scratch *s = *state;
  json_t *value;
  pdt_error err = {0};
  scratch_text(s, "a.json", "{\"k\": 1}");
  assert_int_equal(pdt_json_load(&value, scratch_path(s, "a.json"), 8, &err), 0);
  json_decref(value);
  assert_int_equal(pdt_json_load(&value, scratch_path(s, "a.json"), 7, &err), -1);
  assert_non_null(strstr(err.message, "too large"));
  assert_int_equal(pdt_json_load(&value, scratch_path(s, "b.json"), 7, &err), -1);
  assert_int_equal(err.code, PDT_ERROR_IO);
  assert_int_equal(pdt_json_load_python(&value, scratch_path(s, "a.json"), 8, &err), 0);
  json_decref(value);
  assert_int_equal(pdt_json_load_python(&value, scratch_path(s, "a.json"), 7, &err), -1);
  assert_int_equal(pdt_json_load(&value, s->folder, 7, &err), -1);
  assert_non_null(strstr(err.message, "regular file"));
}

static void test_new_files(void **state) {
  scratch *s = *state;
  pdt_error err = {0};
  char *text;
  pdt_bytes n;
  assert_int_equal(pdt_file_write_text(scratch_path(s, "t"), "old", &err), 0);
  pdt_new_file f;
  assert_int_equal(pdt_new_file_open(&f, scratch_path(s, "t"), &err), 0);
  assert_int_equal(pdt_new_file_write(&f, "new", 3, &err), 0);
  pdt_new_file_abandon(&f);
  assert_int_equal(pdt_file_read(&text, &n, scratch_path(s, "t"), 100, &err), 0);
  assert_string_equal(text, "old");
  free(text);
  assert_int_equal(pdt_file_write_text(scratch_path(s, "t"), "new", &err), 0);
  assert_int_equal(pdt_file_read(&text, &n, scratch_path(s, "t"), 100, &err), 0);
  assert_string_equal(text, "new");
  assert_int_equal(n, 3);
  free(text);
  assert_int_equal(pdt_file_write_text("/dev/full", "x", &err), -1);
  assert_int_equal(err.code, PDT_ERROR_IO);
  assert_int_equal(pdt_file_write_text(scratch_path(s, "no/such"), "x", &err), -1);
  assert_int_equal(err.code, PDT_ERROR_IO);
  char *path;
  assert_int_equal(pdt_path_join(&path, "a/", "b", &err), 0);
  assert_string_equal(path, "a/b");
  free(path);
}

static void test_finite(void **state) {
  (void)state;
  enum { N = 9001 };
  static const float bad[] = {(float)INFINITY, -(float)INFINITY, (float)NAN};
  float values[N];
  for (int i = 0; i < N; i++) values[i] = i % 2 ? 65000.0f : -1e-7f;
  for (pdt_dtype t = PDT_F32; t <= PDT_BF16; t++) {
    float aligned[N];
    unsigned char bytes[4 * N + 1]; /* the copy at an odd address, as files may have it */
    size_t size = pdt_dtype_bytes(t);
    pdt_from_float(t, values, N, aligned);
    memcpy(bytes + 1, aligned, N * size);
    assert_true(pdt_all_finite(t, bytes + 1, N));
    assert_int_equal(pdt_first_not_finite(t, bytes + 1, N), -1);
    for (int b = 0; b < 3; b++) {
      const int places[] = {0, 4097, N - 1};
      unsigned char *at = bytes + 1 + (size_t)places[b] * size, kept[4];
      memcpy(kept, at, size);
      pdt_from_float(t, &bad[b], 1, aligned);
      memcpy(at, aligned, size);
      assert_false(pdt_all_finite(t, bytes + 1, N));
      assert_int_equal(pdt_first_not_finite(t, bytes + 1, N), places[b]);
      assert_true(pdt_all_finite(t, bytes + 1, places[b]));
      memcpy(at, kept, size);
    }
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_broken_texts),
      cmocka_unit_test(test_getters),
      cmocka_unit_test(test_python),
      cmocka_unit_test(test_python_refuses),
      cmocka_unit_test(test_serde),
      cmocka_unit_test_setup_teardown(test_files, scratch_setup, scratch_teardown),
      cmocka_unit_test_setup_teardown(test_new_files, scratch_setup, scratch_teardown),
      cmocka_unit_test(test_finite),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

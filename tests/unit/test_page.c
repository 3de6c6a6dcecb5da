/* What stands in the page: data that cannot end its element, and rounds as JSON. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "page/page.h"

/* What pdt_page_put_data makes of a text. */
static char *put(const char *json) {
  char *text;
  size_t bytes;
  FILE *out = open_memstream(&text, &bytes);
  pdt_page_put_data(out, json, strlen(json));
  assert_int_equal(fclose(out), 0);
  return text;
}

static void test_data(void **state) {
  static const char *const cases[][2] = {
      {"{\"a\":[1,2.5,true,null]}", "{\"a\":[1,2.5,true,null]}"},
      {"\"</script>\"", "\"\\u003c/script\\u003e\""},
      {"\"<!-- <script>\"", "\"\\u003c!-- \\u003cscript\\u003e\""},
      {"\"]]>&amp;\"", "\"]]\\u003e\\u0026amp;\""},
      {"\"a\xE2\x80\xA8"
       "b\xE2\x80\xA9\"",
       "\"a\\u2028b\\u2029\""},
      {"\"\xE2\x80\xA7\xE2\x80\xAA\xC3\xA9\"", "\"\xE2\x80\xA7\xE2\x80\xAA\xC3\xA9\""},
      {"\"\\\"\\\\n\"", "\"\\\"\\\\n\""},
      {"\"\xE2\x80", "\"\xE2\x80"}, /* cut short: nothing behind the end is read */
  };
  (void)state;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char *text = put(cases[i][0]);
    assert_string_equal(text, cases[i][1]);
    free(text);
  }
}

/* The text of the page's element of data. */
static char *data_of(const char *html) {
  static const char begins[] = "<script type=\"application/json\" id=\"data\">";
  const char *from = strstr(html, begins);
  assert_non_null(from);
  from += strlen(begins);
  const char *end = strstr(from, "</script>");
  assert_non_null(end);
  return strndup(from, (size_t)(end - from));
}

/* Whatever the data hold, the page has its two scripts, and the data come out again. */
static void test_page(void **state) {
  static const char json[] = "{\"t\":\"</script><script>alert(1)</script><!--@SCRIPT@@DATA@\"}";
  char *html, *plain;
  size_t bytes, plain_bytes;
  (void)state;
  assert_int_equal(pdt_page_make(&html, &bytes, PDT_PAGE_FILE, json, sizeof json - 1, NULL), 0);
  assert_int_equal(pdt_page_make(&plain, &plain_bytes, PDT_PAGE_FILE, "{}", 2, NULL), 0);
  assert_int_equal(strlen(html), bytes);
  char *data = data_of(html);
  json_t *wanted = json_loads(json, 0, NULL), *got = json_loads(data, 0, NULL);
  assert_non_null(wanted);
  assert_true(json_equal(wanted, got));
  assert_memory_equal(html, plain, (size_t)(strstr(plain, ">{}<") - plain));
  assert_string_equal(strstr(html, "</script>\n<script>"), strstr(plain, "</script>\n<script>"));
  json_decref(wanted);
  json_decref(got);
  free(data);
  free(html);
  free(plain);
}

/* A page in a file may ask nobody; a server's its server. */
static void test_policy(void **state) {
  char *live = pdt_page_policy(PDT_PAGE_LIVE), *file = pdt_page_policy(PDT_PAGE_FILE);
  (void)state;
  assert_non_null(strstr(live, "default-src 'none';"));
  assert_non_null(strstr(live, "connect-src 'self';"));
  assert_non_null(strstr(file, "connect-src 'none';"));
  assert_null(strstr(live, "unsafe"));
  assert_null(strchr(live, '"')); /* it stands in an attribute */
  free(live);
  free(file);
}

static void test_round(void **state) {
  const pdt_note_name window[] = {{0, PDT_PLANNER}, {2, 1}};
  const pdt_page_round round = {3, true, window, 2};
  const pdt_page_block block = {.stream = 1,
                                .attempt = 2,
                                .action = PDT_ACTION_FORCE,
                                .readiness = 0.5F,
                                .n_tokens = 4,
                                .text = "a\0\"<",
                                .bytes = 4};
  const pdt_page_block bad = {.text = "\xFF", .bytes = 1};
  char *text;
  size_t bytes;
  (void)state;
  FILE *out = open_memstream(&text, &bytes);
  pdt_page_round_begin(out, &round);
  assert_true(pdt_page_round_block(out, 0, &block));
  pdt_page_round_end(out);
  assert_int_equal(fclose(out), 0);
  assert_string_equal(text, "{\"round\":3,\"gate\":true,\"window\":[[0,-1],[2,1]],\"blocks\":["
                            "{\"stream\":1,\"action\":\"force\",\"attempt\":2,\"readiness\":0.5,"
                            "\"tokens\":4,\"text\":\"a\\u0000\\\"<\"}]}");
  free(text);
  out = open_memstream(&text, &bytes);
  assert_false(pdt_page_round_block(out, 0, &bad));
  (void)fclose(out);
  free(text);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_data),
      cmocka_unit_test(test_page),
      cmocka_unit_test(test_policy),
      cmocka_unit_test(test_round),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

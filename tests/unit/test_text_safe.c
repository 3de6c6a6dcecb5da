/* Text on its way to a person: nothing of it steers a terminal, and as JSON it keeps its value. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/notices.h"
#include "base/text_safe.h"

/* Everything that one of the functions must not let through, and neighbours that it must. */
static const char mixed[] =
    "a\x1b[31m\x7f\xc2\x9b|\xe2\x80\xae|\xe2\x80\xa8|\xe2\x80\x8b|\xef\xbb\xbf|"
    "\xd8\x9c|\xf3\xa0\x81\x81|\xff|\xc2|\xed\xa0\x80|\xe2\x82\xac\xf0\x9f\x98\x80\n\tz";

static void test_escaped(void **state) {
  (void)state;
  char *text = pdt_escaped(mixed);
  assert_string_equal(text,
                      "a\\x1b[31m\\x7f\\x9b|\\u202e|\\u2028|\\u200b|\\ufeff|\\u061c|\\U000e0041|"
                      "\\xff|\\xc2|\\xed\\xa0\\x80|\xe2\x82\xac\xf0\x9f\x98\x80\\n\\tz");
  free(text);
}

static void test_shown(void **state) {
  (void)state;
  char *text;
  size_t n;
  FILE *f = open_memstream(&text, &n);
#define X "\xef\xbf\xbd"
  assert_true(pdt_put_shown(f, NULL, 0));
  assert_true(pdt_put_shown(f, mixed, sizeof mixed - 1));
  assert_true(pdt_put_shown(f, "\r\xe2\x80\x8d\0", 5)); /* a joiner stays, zeros are seen */
  fclose(f);
  assert_string_equal(text, "a" X "[31m" X X "|" X "|" X "|" X "|" X "|" X "|" X "|" X "|" X
                            "|" X X X "|\xe2\x82\xac\xf0\x9f\x98\x80\n\tz" X "\xe2\x80\x8d" X);
  free(text);
#undef X
}

static void test_say(void **state) {
  (void)state;
  char *text;
  size_t n;
  FILE *f = open_memstream(&text, &n);
  pdt_say(f, "%s: expected %d, found '%s'", "a\nb", 3, "\x1b[2J");
  pdt_notices notices = {0};
  pdt_notice(&notices, PDT_NOTICE_WARNING, "tensor '%s'", "x\xc2\x9by\n");
  pdt_notices_print(&notices, f, "pdt inspect", false);
  fclose(f);
  assert_string_equal(text, "a\\nb: expected 3, found '\\x1b[2J'\n"
                            "pdt inspect: warning: tensor 'x\\x9by\\n'\n");
  free(text);
}

static void test_json(void **state) {
  (void)state;
  static const char value[] = "\x1b\x7f\xc2\x9b\xe2\x80\xae\xf3\xa0\x81\x81\xe2\x82\xac\"\\\n";
  json_t *json = json_object(), *back;
  assert_int_equal(json_object_set_new(json, value, json_stringn(value, sizeof value)), 0);
  for (int indent = 0; indent < 2; indent++) {
    char *text = pdt_json_text(json, indent ? JSON_INDENT(1) : JSON_COMPACT);
    assert_non_null(strstr(text, "\\u007f\\u009b\\u202e\\udb40\\udc41\xe2\x82\xac\\\"\\\\\\n"));
    back = json_loads(text, JSON_ALLOW_NUL, NULL);
    assert_true(json_equal(json, back));
    json_decref(back);
    free(text);
  }
  json_decref(json);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_escaped),
      cmocka_unit_test(test_shown),
      cmocka_unit_test(test_say),
      cmocka_unit_test(test_json),
  };
  return cmocka_run_group_tests_name("safe text", tests, NULL, NULL);
}

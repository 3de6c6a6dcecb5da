/* Notices: kept once, printed by kind, counted beyond the limit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/notices.h"

static char *printed(const pdt_notices *notices, bool details) {
  char *text = NULL;
  size_t length = 0;
  FILE *out = open_memstream(&text, &length);
  assert_non_null(out);
  pdt_notices_print(notices, out, "pdt decode", details);
  fclose(out);
  return text;
}

static void test_kinds(void **state) {
  (void)state;
  pdt_notices notices = {0};
  pdt_notice(&notices, PDT_NOTICE_DETAIL, "head_dim: %d is taken", 128);
  pdt_notice(&notices, PDT_NOTICE_WARNING, "lm_head is left out");
  pdt_notice(&notices, PDT_NOTICE_WARNING, "lm_head is left out");
  char *few = printed(&notices, false), *all = printed(&notices, true);
  assert_string_equal(few, "pdt decode: warning: lm_head is left out\n");
  assert_string_equal(all, "pdt decode: note: head_dim: 128 is taken\n"
                           "pdt decode: warning: lm_head is left out\n");
  free(few);
  free(all);
}

static void test_many(void **state) {
  (void)state;
  pdt_notices notices = {0};
  char long_text[2000];
  memset(long_text, 'x', sizeof long_text - 1);
  long_text[sizeof long_text - 1] = '\0';
  for (int i = 0; i < PDT_MAX_NOTICES + 5; i++)
    pdt_notice(&notices, PDT_NOTICE_WARNING, "%d %s", i, long_text);
  assert_int_equal(notices.n, PDT_MAX_NOTICES);
  assert_int_equal(notices.n_more, 5);
  char *text = printed(&notices, false);
  assert_non_null(strstr(text, "pdt decode: warning: 5 more were left out\n"));
  free(text);
}

static void test_nobody(void **state) {
  (void)state;
  pdt_notice(NULL, PDT_NOTICE_WARNING, "nobody listens");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_kinds),
      cmocka_unit_test(test_many),
      cmocka_unit_test(test_nobody),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Lines of files and pipes: their ends, numbers and places, and what is too long. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/lines.h"
#include "scratch.h"

enum { LONGEST = 1 << 20 };

static void expect_line(pdt_lines *l, bool filled, const char *want, int64_t number) {
  pdt_error err = {0};
  assert_int_equal(filled ? pdt_lines_next_filled(l, &err) : pdt_lines_next(l, &err), 1);
  assert_int_equal(l->bytes, strlen(want));
  assert_memory_equal(l->text, want, l->bytes);
  assert_int_equal(l->number, number);
}

static void test_every_line(void **state) {
  scratch *s = *state;
  pdt_lines l;
  pdt_error err = {0};
  scratch_text(s, "f", "one\n\n \t\r\nfour\nno end");
  assert_int_equal(pdt_lines_open(&l, s->path, LONGEST, &err), 0);
  expect_line(&l, false, "one", 1);
  expect_line(&l, false, "", 2);
  assert_int_equal(l.n_bytes, 5);
  expect_line(&l, false, " \t\r", 3);
  expect_line(&l, false, "four", 4);
  expect_line(&l, false, "no end", 5);
  assert_int_equal(pdt_lines_next(&l, &err), 0);
  assert_int_equal(pdt_lines_next(&l, &err), 0);
  assert_int_equal(l.number, 5);
  assert_int_equal(l.n_bytes, 20);
  pdt_lines_close(&l);
  pdt_lines_close(&l);
}

static void test_filled_lines(void **state) {
  scratch *s = *state;
  pdt_lines l;
  pdt_error err = {0};
  scratch_text(s, "f", "\n \t\r\none\n\ntwo\n\n");
  assert_int_equal(pdt_lines_open(&l, s->path, LONGEST, &err), 0);
  expect_line(&l, true, "one", 3);
  expect_line(&l, true, "two", 5);
  assert_int_equal(pdt_lines_next_filled(&l, &err), 0);
  pdt_lines_close(&l);
}

/* Lines of all lengths around what is read at once come out whole. */
static void test_long_lines(void **state) {
  scratch *s = *state;
  enum { AROUND = 1 << 18 };
  static const size_t lengths[] = {AROUND - 1, 0, AROUND, 1, AROUND + 1, 3 * AROUND, 7};
  enum { N = sizeof lengths / sizeof *lengths };
  pdt_lines l;
  pdt_error err = {0};
  FILE *f = fopen(scratch_path(s, "f"), "w");
  for (int i = 0; i < N; i++) {
    for (size_t j = 0; j < lengths[i]; j++) fputc('a' + (int)((j + (size_t)i) % 26), f);
    fputc('\n', f);
  }
  fclose(f);
  assert_int_equal(pdt_lines_open(&l, s->path, LONGEST, &err), 0);
  for (int i = 0; i < N; i++) {
    assert_int_equal(pdt_lines_next(&l, &err), 1);
    assert_int_equal(l.bytes, lengths[i]);
    for (size_t j = 0; j < l.bytes; j++)
      assert_int_equal(l.text[j], 'a' + (int)((j + (size_t)i) % 26));
  }
  assert_int_equal(pdt_lines_next(&l, &err), 0);
  pdt_lines_close(&l);
}

/* Refused by its number, and no more of it is read than is needed to see it. */
static void test_too_long(void **state) {
  scratch *s = *state;
  pdt_lines l;
  pdt_error err = {0};
  FILE *f = fopen(scratch_path(s, "f"), "w");
  fputs("short\n", f);
  for (int i = 0; i < 4 * LONGEST; i++) fputc('x', f);
  fclose(f);
  assert_int_equal(pdt_lines_open(&l, s->path, LONGEST, &err), 0);
  expect_line(&l, false, "short", 1);
  assert_int_equal(pdt_lines_next(&l, &err), -1);
  assert_int_equal(err.code, PDT_ERROR_INPUT);
  assert_non_null(strstr(err.message, "line 2: expected a line of at most 1048576 bytes"));
  assert_true(l.read.room < 3 * LONGEST);
  pdt_lines_close(&l);
}

/* A pipe's lines come when they are written, before it has an end. */
static void test_pipe(void **state) {
  scratch *s = *state;
  pdt_lines l;
  pdt_error err = {0};
  assert_int_equal(mkfifo(scratch_path(s, "p"), 0600), 0);
  assert_int_equal(pdt_lines_open(&l, s->path, LONGEST, &err), -1);
  assert_int_equal(err.code, PDT_ERROR_INPUT);
  pdt_lines_close(&l);
  FILE *w = fopen(s->path, "r+"); /* opened so, nobody waits for the other end */
  assert_int_equal(pdt_lines_open_once(&l, s->path, LONGEST, &err), 0);
  fputs("first\nhalf ", w);
  fflush(w);
  expect_line(&l, true, "first", 1);
  fputs("a line\n", w);
  fflush(w);
  expect_line(&l, true, "half a line", 2);
  fclose(w);
  assert_int_equal(pdt_lines_next_filled(&l, &err), 0);
  pdt_lines_close(&l);
}

static void test_missing(void **state) {
  scratch *s = *state;
  pdt_lines l;
  pdt_error err = {0};
  assert_int_equal(pdt_lines_open(&l, scratch_path(s, "none"), LONGEST, &err), -1);
  assert_int_equal(err.code, PDT_ERROR_IO);
  assert_int_equal(pdt_lines_open_once(&l, s->folder, LONGEST, &err), -1);
  assert_int_equal(err.code, PDT_ERROR_INPUT);
  pdt_lines_close(&l);
}

/* Of a long path its end is shown, cut between characters. */
static void test_where(void **state) {
  (void)state;
  char where[PDT_WHERE_BYTES], path[402];
  pdt_where(where, "requests.jsonl", 3);
  assert_string_equal(where, "requests.jsonl: line 3");
  pdt_where(where, "requests.jsonl", 0);
  assert_string_equal(where, "requests.jsonl");
  for (int i = 0; i < 200; i++) memcpy(path + 2 * i, "\xc3\xa9", 2);
  memcpy(path + 400, "x", 2); /* the 200th byte from the end is the second half of a character */
  pdt_where(where, path, 1);
  assert_memory_equal(where, "...\xc3\xa9", 5);
  assert_string_equal(where + strlen(where) - 9, "x: line 1");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_every_line, scratch_setup, scratch_teardown),
      cmocka_unit_test_setup_teardown(test_filled_lines, scratch_setup, scratch_teardown),
      cmocka_unit_test_setup_teardown(test_long_lines, scratch_setup, scratch_teardown),
      cmocka_unit_test_setup_teardown(test_too_long, scratch_setup, scratch_teardown),
      cmocka_unit_test_setup_teardown(test_pipe, scratch_setup, scratch_teardown),
      cmocka_unit_test_setup_teardown(test_missing, scratch_setup, scratch_teardown),
      cmocka_unit_test(test_where),
  };
  return cmocka_run_group_tests_name("lines", tests, NULL, NULL);
}

/* Pages of the key/value cache: taken as sequences grow, shared by those that follow a prompt,
 * given back by rollback without a copy, reserved beforehand, never more than there are. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "numbers.h"
#include "trunk/kv.h"

enum { LAYERS = 2, HEADS = 3, DIM = 4, PAGE = PDT_PAGE_TOKENS, MOST = 12 };

static pdt_device device; /* of the reference: its memory is ours */

static int open_device(void **state) {
  (void)state;
  return pdt_reference_device_new(&device, NULL);
}

static int close_device(void **state) {
  (void)state;
  device.ops->close(&device);
  return 0;
}

static int new_of(pdt_kv_cache *kv, int32_t layers, int32_t heads, int32_t dim, int32_t pages,
                  pdt_error *err) {
  const pdt_kv_shape shape = {layers, heads, dim};
  return pdt_kv_new(kv, &device, &shape, pages, err);
}

static void new_cache(pdt_kv_cache *kv, int32_t pages) {
  assert_int_equal(new_of(kv, LAYERS, HEADS, DIM, pages, NULL), 0);
}

static pdt_bytes bytes_of(int32_t layers, int32_t heads, int32_t dim, int32_t pages) {
  const pdt_kv_shape shape = {layers, heads, dim};
  return pdt_kv_bytes(&shape, pages);
}

static void new_sequence(pdt_kv_sequence *s, pdt_kv_cache *kv, const pdt_kv_sequence *prefix,
                         int32_t shared, int32_t most) {
  pdt_error err = {0};
  if (pdt_kv_sequence_new(s, kv, prefix, shared, most, &err)) fail_msg("%s", err.message);
}

static void expect(const pdt_kv_cache *kv, int32_t n_free, int32_t n_reserved) {
  assert_int_equal(kv->n_free, n_free);
  assert_int_equal(kv->n_reserved, n_reserved);
}

static void pages_and_bytes(void **state) {
  (void)state;
  const int32_t tokens[] = {0, 1, 15, 16, 17, 32, 33, INT32_MAX};
  const int32_t pages[] = {0, 1, 1, 1, 2, 2, 3, 1 << 27};
  for (int i = 0; i < 8; i++) assert_int_equal(pdt_kv_pages(tokens[i]), pages[i]);
  assert_int_equal(bytes_of(2, 3, 4, 5), 2 * 3 * 4 * 5 * 2 * PAGE * 4);
  assert_int_equal(bytes_of(30, 0, 64, 100), 0); /* a rank without heads */
  assert_int_equal(bytes_of(INT32_MAX, INT32_MAX, 1, 1), -1);
  assert_int_equal(bytes_of(1 << 20, 1 << 20, 1 << 10, 1 << 20), -1);
  assert_int_equal(bytes_of(128, 8, 128, 1 << 20), (pdt_bytes)1 << 44);
}

static void impossible_sizes(void **state) {
  (void)state;
  pdt_kv_cache kv;
  pdt_error err = {0};
  assert_int_equal(new_of(&kv, INT32_MAX, INT32_MAX, 8, 1, &err), -1);
  assert_int_equal(err.code, PDT_ERROR_MEMORY);
  assert_non_null(strstr(err.message, "key/value cache: impossible size"));
  assert_null(kv.pool.data.at);
  assert_int_equal(new_of(&kv, 1, 1, 8, -1, &err), -1);
  pdt_kv_free(&kv);                                          /* safe on what failed */
  assert_int_equal(new_of(&kv, LAYERS, 0, DIM, 4, NULL), 0); /* a rank without heads */
  pdt_kv_sequence s;
  new_sequence(&s, &kv, NULL, 0, 40);
  assert_int_equal(pdt_kv_extend(&s, &kv, 40, NULL), 0);
  expect(&kv, 1, 0);
  pdt_kv_sequence_free(&s, &kv);
  pdt_kv_free(&kv);
}

static void growing_and_truncating(void **state) {
  (void)state;
  pdt_kv_cache kv;
  pdt_kv_sequence s;
  new_cache(&kv, 5);
  expect(&kv, 5, 0);
  new_sequence(&s, &kv, NULL, 0, 3 * PAGE + 1);
  expect(&kv, 5, 4); /* reserved, not yet taken */
  assert_int_equal(pdt_kv_length(&s), 0);
  assert_int_equal(pdt_kv_extend(&s, &kv, 1, NULL), 0);
  expect(&kv, 4, 3);
  assert_int_equal(pdt_kv_extend(&s, &kv, PAGE, NULL), 0);
  expect(&kv, 4, 3);
  assert_int_equal(pdt_kv_extend(&s, &kv, PAGE + 1, NULL), 0);
  expect(&kv, 3, 2);
  assert_int_equal(pdt_kv_extend(&s, &kv, 5, NULL), 0); /* shorter: nothing happens */
  assert_int_equal(pdt_kv_length(&s), PAGE + 1);
  int32_t first = s.pages[0], second = s.pages[1];
  pdt_kv_truncate(&s, &kv, PAGE + 1);
  expect(&kv, 3, 2);
  pdt_kv_truncate(&s, &kv, PAGE); /* the second page is empty now */
  expect(&kv, 4, 3);
  assert_int_equal(pdt_kv_length(&s), PAGE);
  pdt_kv_truncate(&s, &kv, 99); /* longer: nothing happens */
  assert_int_equal(pdt_kv_length(&s), PAGE);
  assert_int_equal(pdt_kv_extend(&s, &kv, 2 * PAGE, NULL), 0);
  assert_int_equal(s.pages[0], first);
  assert_int_equal(s.pages[1], second); /* the page that was given back last */
  pdt_kv_truncate(&s, &kv, 0);
  expect(&kv, 5, 4);
  pdt_kv_sequence_free(&s, &kv);
  expect(&kv, 5, 0);
  pdt_kv_sequence_free(&s, &kv); /* and again: nothing */
  expect(&kv, 5, 0);
  pdt_kv_free(&kv);
}

static void never_grows(void **state) {
  (void)state;
  pdt_kv_cache kv;
  pdt_kv_sequence a, b, c, none;
  pdt_error err = {0};
  new_cache(&kv, 5);
  const float *data = kv.pool.data.at;
  new_sequence(&a, &kv, NULL, 0, 3 * PAGE);
  assert_int_equal(pdt_kv_sequence_new(&b, &kv, NULL, 0, 2 * PAGE + 1, &err), -1);
  assert_int_equal(err.code, PDT_ERROR_MEMORY);
  assert_non_null(strstr(err.message, "a sequence of 33 tokens needs 3 pages, 2 are left"));
  pdt_kv_sequence_free(&b, &kv); /* safe on what failed */
  expect(&kv, 5, 3);
  new_sequence(&b, &kv, NULL, 0, 2 * PAGE);
  expect(&kv, 5, 5);
  assert_int_equal(pdt_kv_sequence_new(&c, &kv, NULL, 0, 1, &err), -1); /* all are promised */
  new_sequence(&none, &kv, NULL, 0, 0);
  assert_int_equal(pdt_kv_extend(&a, &kv, 3 * PAGE, NULL), 0);
  assert_int_equal(pdt_kv_extend(&b, &kv, 2 * PAGE, NULL), 0);
  expect(&kv, 0, 0);
  err = (pdt_error){0};
  assert_int_equal(pdt_kv_extend(&a, &kv, 3 * PAGE + 1, &err), -1);
  assert_int_equal(err.code, PDT_ERROR_RUNTIME);
  assert_int_equal(pdt_kv_length(&a), 3 * PAGE);
  assert_int_equal(pdt_kv_extend(&none, &kv, 1, &err), -1);
  pdt_kv_sequence_free(&c, &kv);
  pdt_kv_truncate(&b, &kv, 0); /* stays promised to b */
  assert_int_equal(pdt_kv_sequence_new(&c, &kv, NULL, 0, 1, &err), -1);
  pdt_kv_sequence_free(&b, &kv);
  new_sequence(&c, &kv, NULL, 0, 1);
  assert_ptr_equal(kv.pool.data.at, data);
  pdt_kv_sequence_free(&a, &kv);
  pdt_kv_sequence_free(&c, &kv);
  pdt_kv_sequence_free(&none, &kv);
  expect(&kv, 5, 0);
  pdt_kv_free(&kv);
}

/* A number that only this position has. */
static float mark(int32_t owner, int32_t position) {
  return (float)(owner * 128 + position);
}

/* Where we mark a position that a place (kernels.h) sees: one number for each of its page's. */
static float *marked(const pdt_kv_cache *kv, const pdt_row_place *place, int32_t position) {
  bool shared = position < place->shared_tokens;
  int32_t at = shared ? position : position - place->shared_tokens;
  int64_t page = (shared ? place->shared_pages : place->pages)[at / PAGE];
  return kv->pool.data.at + page * pdt_kv_page_elems(&kv->pool.shape) + at % PAGE;
}

static void write_position(const pdt_kv_cache *kv, const pdt_kv_sequence *s, int32_t owner,
                           int32_t position) {
  const pdt_row_place place = pdt_kv_place(s, position);
  assert_int_equal(place.position, position);
  *marked(kv, &place, position) = mark(owner, position);
}

/* What a row at the last of `length` positions sees. */
static void check_view(const pdt_kv_cache *kv, const pdt_kv_sequence *s, int32_t length,
                       int32_t prompt, int32_t prompt_owner, int32_t owner) {
  for (int32_t position = 0; position < length; position++) {
    const pdt_row_place place = pdt_kv_place(s, length - 1);
    int32_t who = position < prompt ? prompt_owner : owner;
    assert_true(*marked(kv, &place, position) == mark(who, position));
  }
}

static void grow(pdt_kv_cache *kv, pdt_kv_sequence *s, int32_t owner, int32_t length) {
  int32_t have = pdt_kv_length(s);
  assert_int_equal(pdt_kv_extend(s, kv, length, NULL), 0);
  for (int32_t i = have; i < length; i++) write_position(kv, s, owner, i);
}

static void streams_share_a_prompt(void **state) {
  (void)state;
  enum { PROMPT = PAGE + 5, STREAMS = 3 };
  pdt_kv_cache kv;
  pdt_kv_sequence prompt, s[STREAMS];
  new_cache(&kv, 2 + STREAMS * 3);
  new_sequence(&prompt, &kv, NULL, 0, PROMPT + 1);
  grow(&kv, &prompt, 0, PROMPT + 1);
  pdt_kv_truncate(&prompt, &kv, PROMPT); /* the last token is every stream's own */
  for (int k = 0; k < STREAMS; k++) {
    new_sequence(&s[k], &kv, &prompt, PROMPT, 2 * PAGE + 1);
    assert_int_equal(pdt_kv_length(&s[k]), PROMPT);
  }
  expect(&kv, 9, 9);
  for (int k = 0; k < STREAMS; k++) grow(&kv, &s[k], k + 1, PROMPT + 3 + k * 7);
  for (int k = 0; k < STREAMS; k++)
    for (int32_t n = 0; n <= PROMPT + 3 + k * 7; n++) check_view(&kv, &s[k], n, PROMPT, 0, k + 1);
  pdt_kv_truncate(&s[2], &kv, PROMPT + 1); /* what stays is not copied, what went is free */
  expect(&kv, 6, 6);
  check_view(&kv, &s[2], PROMPT + 1, PROMPT, 0, 3);
  grow(&kv, &s[2], 3, PROMPT + 2 * PAGE + 1);
  for (int k = 0; k < STREAMS; k++) check_view(&kv, &s[k], pdt_kv_length(&s[k]), PROMPT, 0, k + 1);
  for (int k = 0; k < STREAMS; k++) pdt_kv_sequence_free(&s[k], &kv);
  check_view(&kv, &prompt, PROMPT, PROMPT, 0, 0); /* the prompt's pages were not theirs to free */
  pdt_kv_sequence_free(&prompt, &kv);
  expect(&kv, 11, 0);
  pdt_kv_free(&kv);
}

/* A stream grows, is rolled back, and grows again: what is kept stays where it is. */
static void growing_again(void **state) {
  (void)state;
  enum { PROMPT = PAGE + 5, MOST_OWN = 3 * PAGE + 1 };
  static const int32_t lengths[] = {1, 4, PAGE, MOST_OWN, PAGE + 2, 2, 2 * PAGE, 0, MOST_OWN};
  pdt_kv_cache kv;
  pdt_kv_sequence prompt, s;
  new_cache(&kv, 2 + 4);
  new_sequence(&prompt, &kv, NULL, 0, PROMPT);
  grow(&kv, &prompt, 0, PROMPT);
  new_sequence(&s, &kv, &prompt, PROMPT, MOST_OWN);
  for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
    pdt_kv_truncate(&s, &kv, PROMPT + lengths[i]);
    check_view(&kv, &s, pdt_kv_length(&s), PROMPT, 0, 1);
    grow(&kv, &s, 1, PROMPT + lengths[i]);
    check_view(&kv, &s, PROMPT + lengths[i], PROMPT, 0, 1);
    assert_ptr_equal(pdt_kv_place(&s, PROMPT).shared_pages, prompt.pages);
  }
  pdt_kv_sequence_free(&s, &kv);
  pdt_kv_sequence_free(&prompt, &kv);
  expect(&kv, 6, 0);
  pdt_kv_free(&kv);
}

/* Every page is either free or in exactly one table; promises are what tables may still take. */
static void check_books(const pdt_kv_cache *kv, const pdt_kv_sequence *s, const bool *live) {
  int32_t uses[64] = {0}, promised = 0;
  assert_in_range(kv->n_pages, 0, 64);
  for (int32_t i = 0; i < kv->n_free; i++) uses[kv->free_pages[i]]++;
  for (int k = 0; k < MOST; k++) {
    if (!live[k]) continue;
    assert_int_equal(s[k].n_pages, pdt_kv_pages(s[k].tokens));
    for (int32_t i = 0; i < s[k].n_pages; i++) uses[s[k].pages[i]]++;
    promised += s[k].max_pages - s[k].n_pages;
  }
  for (int32_t p = 0; p < kv->n_pages; p++) assert_int_equal(uses[p], 1);
  assert_int_equal(kv->n_reserved, promised);
  assert_true(kv->n_reserved <= kv->n_free);
}

static void random_sequences(void **state) {
  (void)state;
  numbers r = {71};
  pdt_kv_cache kv;
  pdt_kv_sequence s[MOST];
  bool live[MOST] = {false};
  int32_t most[MOST], refused = 0;
  new_cache(&kv, 30);
  for (int step = 0; step < 20000; step++) {
    int k = numbers_int(&r, 0, MOST - 1);
    if (!live[k]) {
      most[k] = numbers_int(&r, 0, 6 * PAGE);
      int32_t left = kv.n_free - kv.n_reserved;
      live[k] = pdt_kv_sequence_new(&s[k], &kv, NULL, 0, most[k], NULL) == 0;
      assert_int_equal(live[k], pdt_kv_pages(most[k]) <= left);
      refused += !live[k];
    } else if (numbers_int(&r, 0, 9) == 0) {
      pdt_kv_sequence_free(&s[k], &kv);
      live[k] = false;
    } else if (numbers_int(&r, 0, 1)) { /* what was reserved is always there */
      int32_t length = numbers_int(&r, pdt_kv_length(&s[k]), most[k]), have = pdt_kv_length(&s[k]);
      assert_int_equal(pdt_kv_extend(&s[k], &kv, length, NULL), 0);
      for (int32_t i = have; i < length; i++) write_position(&kv, &s[k], k, i);
    } else {
      pdt_kv_truncate(&s[k], &kv, numbers_int(&r, 0, pdt_kv_length(&s[k])));
    }
    check_books(&kv, s, live);
    if (step % 50 == 0)
      for (int i = 0; i < MOST; i++)
        if (live[i]) check_view(&kv, &s[i], pdt_kv_length(&s[i]), 0, 0, i);
  }
  assert_true(refused > 100);
  for (int k = 0; k < MOST; k++)
    if (live[k]) pdt_kv_sequence_free(&s[k], &kv);
  expect(&kv, 30, 0);
  pdt_kv_free(&kv);
}

/* A prompt of two pages and two streams behind it, one of them with a page that is promised. */
typedef struct shared_cache {
  pdt_kv_cache kv;
  pdt_kv_sequence prompt, streams[2];
} shared_cache;

static void new_shared_cache(shared_cache *c) {
  new_cache(&c->kv, MOST);
  new_sequence(&c->prompt, &c->kv, NULL, 0, 2 * PAGE);
  assert_int_equal(pdt_kv_extend(&c->prompt, &c->kv, PAGE + 3, NULL), 0);
  for (int i = 0; i < 2; i++) {
    new_sequence(&c->streams[i], &c->kv, &c->prompt, PAGE + 2, 2 * PAGE);
    assert_int_equal(pdt_kv_extend(&c->streams[i], &c->kv, PAGE + 3 + i * PAGE, NULL), 0);
  }
}

static bool is_valid(const shared_cache *c) {
  const pdt_kv_sequence *all[3] = {&c->streams[1], &c->prompt, &c->streams[0]};
  return pdt_kv_is_valid(&c->kv, all, 3);
}

static void free_shared_cache(shared_cache *c) {
  for (int i = 0; i < 2; i++) pdt_kv_sequence_free(&c->streams[i], &c->kv);
  pdt_kv_sequence_free(&c->prompt, &c->kv);
  assert_true(pdt_kv_is_valid(&c->kv, NULL, 0));
  pdt_kv_free(&c->kv);
}

/* Breaks one number, expects what the checks say of it, and mends it. */
static void expect_broken(shared_cache *c, int32_t *number, int32_t value, bool alone) {
  int32_t was = *number;
  *number = value;
  assert_false(is_valid(c));
  if (pdt_kv_sequence_is_valid(&c->streams[1], &c->kv) == alone)
    fail_msg("%d in place of %d: by itself the stream should be %s", value, was,
             alone ? "broken" : "whole");
  *number = was;
  assert_true(is_valid(c));
}

static void invariants(void **state) {
  (void)state;
  shared_cache c;
  new_shared_cache(&c);
  assert_true(is_valid(&c));
  assert_true(pdt_kv_sequence_is_valid(&c.streams[1], &c.kv));
  assert_true(pdt_kv_sequence_is_valid(&c.prompt, &c.kv));
  assert_false(pdt_kv_is_valid(&c.kv, NULL, 0)); /* pages that nobody has */
  pdt_kv_sequence *s = &c.streams[1];
  expect_broken(&c, &s->pages[1], c.streams[0].pages[0], false); /* two have one */
  expect_broken(&c, &s->pages[1], s->pages[0], true);
  expect_broken(&c, &s->pages[1], c.kv.free_pages[0], true);
  expect_broken(&c, &s->pages[1], c.prompt.pages[1], true);
  expect_broken(&c, &s->pages[0], -1, true);
  expect_broken(&c, &s->pages[0], MOST, true);
  expect_broken(&c, &s->tokens, PAGE, true);
  expect_broken(&c, &s->tokens, 2 * PAGE + 1, true);
  expect_broken(&c, &s->max_pages, 1, true);
  expect_broken(&c, &s->max_pages, 3, false);
  expect_broken(&c, &c.kv.free_pages[1], c.kv.free_pages[0], true);
  expect_broken(&c, &c.kv.free_pages[1], s->pages[0], true);
  expect_broken(&c, &c.kv.n_free, c.kv.n_free - 1, false); /* a page is lost */
  expect_broken(&c, &c.kv.n_free, MOST + 1, true);
  expect_broken(&c, &c.kv.n_reserved, c.kv.n_reserved + 1, false);
  expect_broken(&c, &c.kv.n_reserved, c.kv.n_free + 1, true);
  expect_broken(&c, &c.kv.n_reserved, -1, true);
  free_shared_cache(&c);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(pages_and_bytes),        cmocka_unit_test(impossible_sizes),
      cmocka_unit_test(growing_and_truncating), cmocka_unit_test(never_grows),
      cmocka_unit_test(streams_share_a_prompt), cmocka_unit_test(growing_again),
      cmocka_unit_test(random_sequences),       cmocka_unit_test(invariants),
  };
  return cmocka_run_group_tests(tests, open_device, close_device);
}

/* What the server makes of blocks: pieces of text that are never taken back, texts to stop at that
 * are spread over blocks, and answers cut there; and of rounds, for who wants to be told of them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "serve/parts.h"

enum { A, B, C, E_FIRST, E_SECOND, SLOTS = 2, STREAMS = 2 };

/* A token a byte: a, b, c, and the two of e with an acute accent. */
static pdt_tokenizer *new_tokenizer(void) {
  static const char text[] =
      "{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,"
      "\"use_regex\":true},\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\","
      "\"vocab\":"
      "{\"a\":0,\"b\":1,\"c\":2,\"\xC3\x83\":3,\"\xC2\xA9\":4},\"merges\":[]}}";
  pdt_tokenizer *tokenizer;
  assert_int_equal(pdt_tokenizer_parse(&tokenizer, text, strlen(text), "test", NULL), 0);
  return tokenizer;
}

typedef struct fixture {
  pdt_tokenizer *tokenizer;
  pdt_job *job;
  pdt_ask ask;
  pdt_parts parts;
} fixture;

static int set_up(void **state) {
  static fixture f;
  pdt_request r = {
      .n_prompt = 1,
      .settings = {.streams = STREAMS,
                   .max_rounds = 20,
                   .limits = {.block_tokens = 2, .horizon = 4, .max_tokens = 16, .slots = SLOTS}}};
  f = (fixture){.tokenizer = new_tokenizer(), .ask = {.stream = true}};
  r.prompt = calloc(1, sizeof *r.prompt);
  r.prefix = calloc(STREAMS, sizeof *r.prefix);
  r.n_prefix = calloc(STREAMS, sizeof *r.n_prefix);
  r.prefix[1] = calloc(1, sizeof **r.prefix); /* stream 1 has the section "a" */
  r.n_prefix[1] = 1;
  assert_int_equal(pdt_job_new(&f.job, &r, 0, NULL), 0);
  *state = &f;
  return 0;
}

static int tear_down(void **state) {
  fixture *f = *state;
  pdt_parts_free(&f->parts);
  json_decref(f->ask.stops);
  pdt_job_free(f->job);
  pdt_tokenizer_free(f->tokenizer);
  return 0;
}

static void begin(fixture *f, const char *stop) {
  if (stop) f->ask.stops = json_pack("[s]", stop);
  assert_int_equal(pdt_parts_new(&f->parts, &f->ask, f->job, f->tokenizer, NULL), 0);
}

/* The next block of a stream is its last. */
static void end_next(fixture *f, pdt_stream k) {
  f->job->streams[k].done = true;
}

/* A round commits a block of a stream, which covers a plan slot so well. */
static void commit(fixture *f, pdt_stream k, const pdt_token *tokens, int32_t n, float covers) {
  pdt_stream_state *s = &f->job->streams[k];
  pdt_job *job = f->job;
  memcpy(s->tokens + s->n_committed, tokens, (size_t)n * sizeof *tokens);
  s->n_tokens = s->n_committed += n;
  job->counts.rounds++;
  for (int slot = 0; slot < SLOTS; slot++) {
    job->coverage[job->n_blocks * SLOTS + slot] = covers;
    if (covers > s->best_coverage[slot]) s->best_coverage[slot] = covers;
  }
  job->blocks[job->n_blocks++] = (pdt_job_block){.stream = k,
                                                 .round = (pdt_round)job->counts.rounds,
                                                 .n_tokens = n,
                                                 .last = s->done,
                                                 .counts = job->counts};
  assert_int_equal(pdt_parts_read(&f->parts, job->n_blocks, NULL), 0);
}

/* Piece i is that text of that stream. */
static void expect_piece(const fixture *f, size_t i, pdt_stream k, const char *text) {
  const pdt_piece *p = &f->parts.pieces[i];
  assert_true(i < f->parts.n_pieces);
  assert_int_equal(p->stream, k);
  assert_int_equal(p->end - p->begin, strlen(text));
  assert_memory_equal(f->parts.parts[k].text + p->begin, text, strlen(text));
}

static void expect_answer(fixture *f, const char *text) {
  char *answer;
  size_t bytes;
  assert_int_equal(pdt_parts_end(&f->parts, NULL), 0);
  assert_int_equal(pdt_parts_answer(&f->parts, &answer, &bytes, NULL), 0);
  assert_string_equal(answer, text);
  assert_int_equal(bytes, strlen(text));
  free(answer);
}

/* A character is told when it is whole, a section with the first block behind it. */
static void test_pieces(void **state) {
  fixture *f = *state;
  begin(f, NULL);
  commit(f, 0, (pdt_token[]){A, E_FIRST}, 2, 1);
  commit(f, 0, (pdt_token[]){E_SECOND, B}, 2, 1);
  commit(f, 1, (pdt_token[]){C, C}, 2, 1);
  commit(f, 1, (pdt_token[]){B, E_FIRST}, 2, 1);
  expect_piece(f, 0, 0, "a");
  expect_piece(f, 1, 0,
               "\xC3\xA9"
               "b");
  expect_piece(f, 2, 1, "acc");
  expect_piece(f, 3, 1, "b");
  assert_int_equal(f->parts.cut, 0);
  expect_answer(f, "a\xC3\xA9"
                   "b\naccb");
  assert_int_equal(f->parts.n_pieces, 4);
}

/* What may begin a text to stop at waits for what follows; a section may hold it. */
static void test_stop(void **state) {
  fixture *f = *state;
  begin(f, "cab");
  commit(f, 0, (pdt_token[]){B, C}, 2, 1);
  expect_piece(f, 0, 0, ""); /* both may begin it, for all that is known by its length */
  commit(f, 0, (pdt_token[]){A, A}, 2, 1);
  expect_piece(f, 1, 0, "bc");
  commit(f, 0, (pdt_token[]){C, A}, 2, 1);
  expect_piece(f, 2, 0, "aa");
  commit(f, 1, (pdt_token[]){C, A}, 2, 1);
  expect_piece(f, 3, 1, "a");
  assert_int_equal(f->parts.cut, 0);
  commit(f, 0, (pdt_token[]){B, B}, 2, 1);
  expect_piece(f, 4, 0, "");
  assert_true(f->parts.parts[0].stopped && !f->parts.parts[1].over);
  commit(f, 0, (pdt_token[]){A, A}, 2, 1); /* behind its end: nothing of it is told */
  assert_int_equal(f->parts.n_pieces, 5);
  commit(f, 1, (pdt_token[]){B, A}, 2, 1);
  expect_piece(f, 5, 1, "");
  assert_int_equal(f->parts.cut, 7);
  expect_answer(f, "bcaa\na");
}

/* Whatever is committed behind the cut, order and tokens are those of the cut. */
static void test_cut(void **state) {
  fixture *f = *state;
  pdt_stream_state view[STREAMS];
  f->job->plan_ids[0] = 1;
  begin(f, "c");
  commit(f, 0, (pdt_token[]){A, C}, 2, 1);
  commit(f, 1, (pdt_token[]){B, C}, 2, 2); /* covers the slot better: it comes first */
  commit(f, 0, (pdt_token[]){A, A}, 2, 3); /* too late */
  assert_int_equal(f->parts.cut, 2);
  expect_answer(f, "ab\na");
  assert_int_equal(pdt_job_view(f->job, f->parts.cut, view, NULL), 0);
  assert_true(view[0].n_committed == 2 && view[1].n_committed == 2);
  assert_true(view[0].best_coverage[0] == 1 && view[1].best_coverage[0] == 2);
  free(view[0].best_coverage);
}

/* The order is known when nothing can change it: with one stream left, as far as it leads; before,
 * where no plan slot is filled. */
static void test_order(void **state) {
  fixture *f = *state;
  f->job->plan_ids[1] = 7;
  begin(f, NULL);
  commit(f, 0, (pdt_token[]){A, B}, 2, 1);
  assert_int_equal(f->parts.n_order, 0);
  commit(f, 1, (pdt_token[]){B, C}, 2, 2);
  assert_int_equal(f->parts.n_order, 0);
  end_next(f, 0);
  commit(f, 0, (pdt_token[]){C, C}, 2, 1.5F);
  assert_int_equal(f->parts.n_order, 2); /* stream 1 covers it better, and will */
  assert_true(f->parts.order[0] == 1 && f->parts.order[1] == 0);
  commit(f, 1, (pdt_token[]){A, A}, 2, 1);
  expect_answer(f, "abcaa\nabcc");
}

/* The other one may yet come to cover it. */
static void test_order_open(void **state) {
  fixture *f = *state;
  f->job->plan_ids[1] = 7;
  begin(f, NULL);
  commit(f, 1, (pdt_token[]){B, C}, 2, 1);
  end_next(f, 0);
  commit(f, 0, (pdt_token[]){C, C}, 2, 2);
  assert_int_equal(f->parts.n_order, 0);
  commit(f, 1, (pdt_token[]){A, A}, 2, 2); /* on ties the lower index has it */
  assert_int_equal(f->parts.n_order, 0);
  end_next(f, 1);
  commit(f, 1, (pdt_token[]){A, A}, 2, 1);
  assert_int_equal(f->parts.n_order, 2);
  expect_answer(f, "cc\nabcaaaa");
}

static void test_order_without_plan(void **state) {
  fixture *f = *state;
  begin(f, NULL);
  commit(f, 1, (pdt_token[]){B, C}, 2, 1);
  assert_int_equal(f->parts.n_order, 2);
  expect_answer(f, "\nabc");
}

/* What was kept back for a text that did not come is told at the end. */
static void test_kept_back(void **state) {
  fixture *f = *state;
  begin(f, "cab");
  commit(f, 0, (pdt_token[]){B, C}, 2, 1);
  expect_answer(f, "bc\na");
  assert_int_equal(f->parts.n_pieces, 3);
  expect_piece(f, 1, 0, "bc");
  expect_piece(f, 2, 1, "a");
}

/* A round in which stream 0 writes a block and stream 1 waits. */
static void decide(fixture *f, pdt_action action, const pdt_token tokens[2]) {
  const float coverage[SLOTS] = {0};
  pdt_stream_state streams[STREAMS] = {{0}};
  pdt_note_name window[] = {{0, PDT_PLANNER}};
  pdt_running running = {.window_names = window, .n_window = 1, .session = {.streams = streams}};
  const pdt_stream_state *s = &f->job->streams[0];
  const pdt_block_report block = {.action = action,
                                  .attempt = s->attempt,
                                  .tokens = tokens,
                                  .n_tokens = 2,
                                  .readiness = 0.5F,
                                  .coverage = coverage};
  const pdt_round_report report = {.running = &running,
                                   .round = (pdt_round)f->job->counts.rounds + 1,
                                   .gate = action == PDT_ACTION_COMMIT,
                                   .blocks = &block,
                                   .n_blocks = 1};
  assert_int_equal(pdt_job_round(f->job, &report, NULL), 0);
}

/* The text of the block of a record, as JSON has it. */
static void expect_record(const fixture *f, const pdt_record *r, const char *action,
                          const char *wanted) {
  char *text, expected[64];
  size_t bytes;
  FILE *out = open_memstream(&text, &bytes);
  const pdt_job *job = f->job;
  assert_non_null(r);
  assert_int_equal(pdt_record_put(out, r, &job->request, job->streams, f->tokenizer, NULL), 0);
  assert_int_equal(fclose(out), 0);
  assert_non_null(strstr(text, "\"window\":[[0,-1]]"));
  snprintf(expected, sizeof expected, "\"action\":\"%s\"", action);
  assert_non_null(strstr(text, expected));
  snprintf(expected, sizeof expected, "\"text\":\"%s\"}", wanted);
  assert_non_null(strstr(text, expected));
  free(text);
}

/* Records keep what was dropped, whatever is written in its place; a character that is in two
 * blocks comes with the second. */
static void test_rounds(void **state) {
  fixture *f = *state;
  f->job->keeps_rounds = true;
  decide(f, PDT_ACTION_HOLD, (pdt_token[]){A, E_FIRST});
  decide(f, PDT_ACTION_ROLLBACK, (pdt_token[]){E_SECOND, B});
  decide(f, PDT_ACTION_HOLD, (pdt_token[]){C, C});
  decide(f, PDT_ACTION_COMMIT, (pdt_token[]){B, B});
  assert_int_equal(f->job->n_records, 4);
  const pdt_record *r = f->job->records;
  expect_record(f, r, "hold", "a");
  expect_record(f, r->next, "rollback",
                "\xC3\xA9"
                "b");
  expect_record(f, r->next->next, "hold", "cc");
  expect_record(f, r->next->next->next, "commit", "bb");
  assert_ptr_equal(r->next->next->next, f->job->last_record);
}

/* Nobody asked: nothing is kept. Where records have taken all that they may, the job goes on
 * without them, and none follows a gap. */
static void test_no_rounds(void **state) {
  fixture *f = *state;
  decide(f, PDT_ACTION_HOLD, (pdt_token[]){A, A});
  assert_null(f->job->records);
  f->job->keeps_rounds = true;
  decide(f, PDT_ACTION_ROLLBACK, (pdt_token[]){A, A}); /* round 1 is missing */
  assert_int_equal(f->job->n_records, 0);
  f->job->counts.rounds = 0;
  f->job->record_bytes = SIZE_MAX / 2;
  decide(f, PDT_ACTION_HOLD, (pdt_token[]){A, A});
  f->job->record_bytes = 0;
  decide(f, PDT_ACTION_COMMIT, (pdt_token[]){B, B});
  assert_int_equal(f->job->n_records, 0);
  assert_int_equal(f->job->streams[0].n_committed, 4);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_rounds, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_no_rounds, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_pieces, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_stop, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_cut, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_order, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_order_open, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_order_without_plan, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_kept_back, set_up, tear_down),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The journal: what is written is read back byte for byte; a torn end is told from damage at every
 * position; a story that cannot have happened is refused; a full disk is reported. */
#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/json.h"
#include "base/json_text.h"
#include "journal/inspect.h"
#include "journal/journal.h"
#include "journal/replay.h"
#include "request/message.h"

enum { K = 3, SLOTS = 2, TOKENS = 4 };

/* A session's decision whose parts a test can change before it is packed. */
typedef struct story {
  Pdt__StreamDecision blocks[K];
  Pdt__StreamDecision *block_list[K];
  Pdt__SessionDecision session;
  Pdt__SessionDecision *session_list[2];
  Pdt__Decision decision;
  int32_t tokens[TOKENS];
  float coverage[SLOTS];
} story;

static const char letters_to_actions[] = ".CHRF";

/* A file in this process's own folder; its folder for the name "". Freed by the caller. */
static char *path_of(const char *name) {
  char folder[64], *path;
  snprintf(folder, sizeof folder, "/tmp/pdt-test-journal-%d", (int)getpid());
  assert_int_equal(pdt_path_join(&path, folder, name, NULL), 0);
  return path;
}

/* Round `round` of request `request`: a letter a stream, '.' for one that emitted nothing. */
static void tell(story *s, uint64_t boundary, uint32_t request, uint32_t round, bool gate,
                 const char *letters, const uint32_t *attempts) {
  *s = (story){.tokens = {5, 0, 7, 300}, .coverage = {-1.5F, 0.25F}};
  pdt__session_decision__init(&s->session);
  pdt__decision__init(&s->decision);
  s->session.session = 100 + request;
  s->session.request = request;
  s->session.round = round;
  s->session.gate = gate;
  s->session.bus_hash = 0xfedcba9876543210U;
  s->session.streams = s->block_list;
  for (uint32_t k = 0; k < strlen(letters); k++) {
    if (letters[k] == '.') continue;
    Pdt__StreamDecision *b = &s->blocks[s->session.n_streams];
    pdt__stream_decision__init(b);
    b->stream = k;
    b->action = (Pdt__Action)(strchr(letters_to_actions, letters[k]) - letters_to_actions);
    b->attempt = attempts ? attempts[k] : 0;
    b->readiness = letters[k] == 'C' || letters[k] == 'H' ? 0.75F : 0.25F;
    b->tokens = s->tokens;
    b->n_tokens = TOKENS;
    b->coverage = s->coverage;
    b->n_coverage = SLOTS;
    s->block_list[s->session.n_streams++] = b;
  }
  s->decision.boundary = boundary;
  s->decision.bus_hash = 0xfedcba9876543210U;
  s->decision.sessions = s->session_list;
  s->session_list[0] = &s->session;
  s->decision.n_sessions = 1;
}

/* Puts the session of `other` into the decision of s, behind its own. */
static void join(story *s, story *other) {
  s->session_list[1] = &other->session;
  s->decision.n_sessions = 2;
  s->decision.bus_hash = pdt_bus_hash_add(s->decision.bus_hash, other->session.bus_hash);
}

static void append_story(pdt_journal *j, const story *s) {
  pdt_error err = {0};
  size_t n = pdt__decision__get_packed_size(&s->decision);
  uint8_t *packed = malloc(n);
  assert_int_equal(pdt__decision__pack(&s->decision, packed), n);
  if (pdt_journal_append_decision(j, packed, (pdt_bytes)n, &err)) fail_msg("%s", err.message);
  free(packed);
}

static void append_header(pdt_journal *j, size_t requests) {
  char version[] = "0.1.0";
  Pdt__RunHeader h = PDT__RUN_HEADER__INIT;
  h.version = version;
  h.model_fingerprint = 0x0123456789abcdefU;
  h.sidecar_fingerprint = UINT64_MAX;
  h.ranks = 4;
  h.tensor_parallel = 2;
  h.requests = (uint32_t)requests;
  h.requests_fingerprint = 0xabcdU;
  assert_int_equal(pdt_journal_append_header(j, &h, NULL), 0);
}

/* A request as a test may change it before its session starts. */
typedef struct opening {
  pdt_request_message request;
  int32_t plan_ids[SLOTS], prompt[3], n_prefix[K];
  pdt_token *prefix[K], one_prefix[2];
  float note[3];
  Pdt__SessionStart start;
} opening;

static void open_session(opening *o, uint32_t request, int32_t streams) {
  *o = (opening){.plan_ids = {17, 0},
                 .prompt = {4, 5, 6},
                 .n_prefix = {0, 2, 0},
                 .one_prefix = {8, 9},
                 .note = {0.5F, -1.0F, 1e-30F}};
  o->prefix[1] = o->one_prefix;
  const pdt_request r = {.session = 100 + request,
                         .prompt = o->prompt,
                         .n_prompt = 3,
                         .prefix = o->prefix,
                         .n_prefix = o->n_prefix,
                         .settings = {.streams = streams,
                                      .reveal_delay = 1,
                                      .window = 9,
                                      .max_attempts = 2,
                                      .max_rounds = 100,
                                      .gamma = 0.5,
                                      .seed = UINT64_MAX,
                                      .sampling = {0.1, 0, 1},
                                      .limits = {.block_tokens = TOKENS,
                                                 .horizon = 2 * TOKENS,
                                                 .max_tokens = 3 * TOKENS,
                                                 .slots = SLOTS,
                                                 .policy = PDT_SELECTIVE}},
                         .line = 7};
  assert_int_equal(pdt_request_message_new(&o->request, &r, NULL), 0);
  pdt__session_start__init(&o->start);
  o->start.session = 100 + request;
  o->start.request = request;
  o->start.plan_ids = o->plan_ids;
  o->start.n_plan_ids = SLOTS;
  o->start.plan_note = o->note;
  o->start.n_plan_note = 3;
  o->start.resolved = &o->request.message;
}

static void append_opening(pdt_journal *j, opening *o) {
  assert_int_equal(pdt_journal_append_start(j, &o->start, NULL), 0);
  pdt_request_message_free(&o->request);
}

static void append_start_of(pdt_journal *j, uint32_t request, int32_t streams) {
  opening o;
  open_session(&o, request, streams);
  append_opening(j, &o);
}

/* Request 1 has two streams, the others three. */
static void append_start(pdt_journal *j, uint32_t request) {
  append_start_of(j, request, request == 1 ? 2 : K);
}

static void append_end(pdt_journal *j, uint32_t request, bool complete) {
  Pdt__SessionEnd end = PDT__SESSION_END__INIT;
  end.session = 100 + request;
  end.request = request;
  end.complete = complete;
  assert_int_equal(pdt_journal_append_end(j, &end, NULL), 0);
}

static void create(pdt_journal *j, const char *path) {
  pdt_error err = {0};
  if (pdt_journal_create(j, path, true, PDT_JOURNAL_SYNC_NEVER, &err)) fail_msg("%s", err.message);
}

static void close_journal(pdt_journal *j) {
  pdt_error err = {0};
  if (pdt_journal_close(j, &err)) fail_msg("%s", err.message);
}

/* Two requests; commits, holds, a rollback, a forced commit, a stream that waits. */
static void write_good(const char *path) {
  static const uint32_t again[K] = {0, 0, 1};
  pdt_journal j;
  story s;
  create(&j, path);
  append_header(&j, 3);
  append_start(&j, 0);
  tell(&s, 1, 0, 1, true, "CCC", NULL);
  append_story(&j, &s);
  tell(&s, 2, 0, 2, false, "HHR", NULL);
  append_story(&j, &s);
  append_start(&j, 1);
  tell(&s, 3, 0, 3, false, "HHF", again);
  append_story(&j, &s);
  tell(&s, 4, 0, 4, true, "..C", NULL);
  story other;
  tell(&other, 4, 1, 1, true, "CC", NULL);
  join(&s, &other);
  append_story(&j, &s);
  append_end(&j, 0, true);
  append_end(&j, 1, false);
  close_journal(&j);
}

static void test_totals(void **state) {
  (void)state;
  char *path = path_of("good");
  pdt_journal_totals t;
  pdt_bytes torn = -1;
  pdt_error err = {0};
  write_good(path);
  if (pdt_journal_verify(path, &t, &torn, &err)) fail_msg("%s", err.message);
  assert_int_equal(torn, 0);
  assert_int_equal(t.entries, 9);
  assert_int_equal(t.boundaries, 4);
  assert_int_equal(t.requests, 3);
  assert_int_equal(t.started, 2);
  assert_int_equal(t.ended, 2);
  assert_int_equal(t.complete, 1);
  assert_int_equal(t.rounds, 5);
  assert_int_equal(t.gates, 3);
  assert_int_equal(t.commits, 6);
  assert_int_equal(t.holds, 4);
  assert_int_equal(t.rollbacks, 1);
  assert_int_equal(t.forced, 1);
  assert_int_equal(t.tokens, 12 * TOKENS);
  assert_int_equal(t.committed, 11 * TOKENS); /* all but the block rolled back */
  assert_true(pdt_is_journal(path));
  free(path);
}

/* The bytes of the file are those of the format's description, and a decision's are untouched. */
static void test_bytes(void **state) {
  (void)state;
  char *path = path_of("bytes"), *data;
  pdt_bytes n;
  pdt_journal j;
  story s;
  create(&j, path);
  append_header(&j, 1);
  pdt_bytes at = j.bytes;
  tell(&s, 1, 0, 1, true, "C", NULL);
  append_story(&j, &s);
  close_journal(&j);
  assert_int_equal(pdt_file_read(&data, &n, path, 1 << 20, NULL), 0);
  assert_memory_equal(data, "PDTJRNL\n\x03\0\0\0", 12);
  uint8_t packed[256];
  size_t length = pdt__decision__pack(&s.decision, packed);
  assert_true(length < 128); /* so that tag and length take one byte each */
  assert_int_equal(n, at + 4 + 2 + (pdt_bytes)length + 8);
  assert_int_equal((uint8_t)data[at], length + 2);
  assert_memory_equal(data + at + 1, "\0\0\0", 3);
  assert_int_equal((uint8_t)data[at + 4], 2 << 3 | 2); /* field 2, length-delimited */
  assert_int_equal((uint8_t)data[at + 5], length);
  assert_memory_equal(data + at + 6, packed, length);
  free(data);
  free(path);
}

static void test_read_back(void **state) {
  (void)state;
  char *path = path_of("good");
  pdt_journal_reader r;
  pdt_journal_entry e;
  write_good(path);
  assert_int_equal(pdt_journal_reader_open(&r, path, NULL), 0);
  assert_int_equal(pdt_journal_reader_next(&r, &e, NULL), 1);
  assert_int_equal(e.index, 0);
  assert_int_equal(e.offset, PDT_JOURNAL_HEAD_BYTES);
  assert_int_equal(e.message->entry_case, PDT__JOURNAL_ENTRY__ENTRY_HEADER);
  assert_string_equal(e.message->header->version, "0.1.0");
  assert_true(e.message->header->sidecar_fingerprint == UINT64_MAX);
  assert_int_equal(e.message->header->requests, 3);
  assert_int_equal(pdt_journal_reader_next(&r, &e, NULL), 1);
  assert_null(e.decision);
  assert_int_equal(e.message->start->session, 100);
  assert_true(e.message->start->plan_note[2] == 1e-30F);
  assert_int_equal(pdt_journal_reader_next(&r, &e, NULL), 1);
  assert_int_equal(pdt_journal_reader_next(&r, &e, NULL), 1);
  assert_non_null(e.decision);
  assert_true(e.decision->bus_hash == 0xfedcba9876543210U);
  const Pdt__StreamDecision *b = e.decision->sessions[0]->streams[2];
  assert_int_equal(b->action, PDT__ACTION__ACTION_ROLLBACK);
  assert_int_equal(b->tokens[3], 300);
  assert_true(b->readiness == 0.25F && b->coverage[0] == -1.5F);
  int more;
  while ((more = pdt_journal_reader_next(&r, &e, NULL)) > 0) {
  }
  assert_int_equal(more, 0);
  assert_int_equal(r.entries, 9);
  assert_int_equal(r.good, r.size);
  assert_int_equal(pdt_journal_reader_next(&r, &e, NULL), 0); /* and again */
  pdt_journal_reader_close(&r);
  free(path);
}

/* Entries before the end of the first n bytes, and what the reader says there. */
static int read_prefix(char *data, size_t n, int64_t *entries, pdt_bytes *good, pdt_bytes *torn,
                       pdt_error *err) {
  pdt_journal_reader r;
  pdt_journal_entry e;
  FILE *f = n ? fmemopen(data, n, "r") : fopen("/dev/null", "r");
  if (pdt_journal_reader_attach(&r, f, (pdt_bytes)n, "memory", err)) return -2;
  int more;
  while ((more = pdt_journal_reader_next(&r, &e, err)) > 0) {
  }
  *entries = r.entries;
  *good = r.good;
  *torn = r.torn;
  pdt_journal_reader_close(&r);
  return more;
}

/* Cut after any byte, as by a crash: the whole entries before it are read, the rest is counted. */
static void test_torn_everywhere(void **state) {
  (void)state;
  char *path = path_of("good"), *data;
  pdt_bytes n, offsets[16] = {0};
  write_good(path);
  assert_int_equal(pdt_file_read(&data, &n, path, 1 << 20, NULL), 0);
  pdt_journal_reader r;
  pdt_journal_entry e;
  assert_int_equal(pdt_journal_reader_open(&r, path, NULL), 0);
  int count = 0;
  while (pdt_journal_reader_next(&r, &e, NULL) > 0) offsets[count++] = e.offset;
  offsets[count] = n;
  pdt_journal_reader_close(&r);
  for (pdt_bytes cut = 0; cut <= n; cut++) {
    int64_t entries;
    pdt_bytes good, torn;
    int whole = 0;
    int rc = read_prefix(data, (size_t)cut, &entries, &good, &torn, NULL);
    if (cut < PDT_JOURNAL_HEAD_BYTES) {
      assert_int_equal(rc, -2);
      continue;
    }
    while (whole < count && offsets[whole + 1] <= cut) whole++;
    assert_int_equal(rc, 0);
    assert_int_equal(entries, whole);
    assert_int_equal(good, offsets[whole]);
    assert_int_equal(torn, cut - offsets[whole]);
  }
  free(data);
  free(path);
}

/* Any flipped bit is noticed: as damage, or, in the length of an entry, at worst as a torn end that
 * keeps the entries before. */
static void test_flipped_everywhere(void **state) {
  (void)state;
  char *path = path_of("good"), *data;
  pdt_bytes n;
  int as_torn = 0;
  write_good(path);
  assert_int_equal(pdt_file_read(&data, &n, path, 1 << 20, NULL), 0);
  for (pdt_bytes i = 0; i < n * 8; i++) {
    int64_t entries = 0;
    pdt_bytes good = 0, torn = 0;
    pdt_error err = {0};
    data[i / 8] ^= (char)(1 << i % 8);
    int rc = read_prefix(data, (size_t)n, &entries, &good, &torn, &err);
    data[i / 8] ^= (char)(1 << i % 8);
    if (rc == 0) {
      assert_true(torn > 0 && entries < 9);
      as_torn++;
    } else {
      assert_int_equal(err.code, PDT_ERROR_INPUT);
      if (rc == -1) assert_non_null(strstr(err.message, "memory: journal: entry "));
    }
    if (rc != -2) assert_true(good <= i / 8);
  }
  assert_true(as_torn > 0 && as_torn <= 9 * 32);
  free(data);
  free(path);
}

static void expect_read_error(char *data, size_t n, const char *want) {
  int64_t entries;
  pdt_bytes good, torn;
  pdt_error err = {0};
  assert_true(read_prefix(data, n, &entries, &good, &torn, &err) < 0);
  if (!strstr(err.message, want)) fail_msg("expected '%s' in: %s", want, err.message);
}

static void test_not_a_journal(void **state) {
  (void)state;
  char text[] = "{\"type\": \"something else\"}", older[] = "PDTJRNL\n\x01\0\0\0";
  char zeros[] = "PDTJRNL\n\x03\0\0\0\0\0\0\0\x01", large[] = "PDTJRNL\n\x03\0\0\0\xff\xff\xff\x7f";
  expect_read_error(text, strlen(text), "this is no journal");
  expect_read_error(older, 12, "expected format version 3, found 1");
  expect_read_error(zeros, 17, "entry 0 at byte 12: its length is impossible");
  expect_read_error(large, 16, "its length is impossible");
  int64_t entries = -1;
  pdt_bytes good = -1, torn = -1;
  assert_int_equal(read_prefix(zeros, 16, &entries, &good, &torn, NULL), 0); /* zero to the end */
  assert_true(entries == 0 && good == 12 && torn == 4);
  pdt_journal_reader r;
  pdt_error err = {0};
  assert_int_equal(pdt_journal_reader_open(&r, "/dev/null", &err), -1);
  assert_non_null(strstr(err.message, "regular file"));
  pdt_journal_reader_close(&r);
  char *folder = path_of("");
  assert_int_equal(pdt_journal_reader_open(&r, folder, &err), -1);
  char *nowhere = path_of("nowhere/at/all");
  assert_int_equal(pdt_journal_reader_open(&r, nowhere, &err), -1);
  free(nowhere);
  assert_int_equal(err.code, PDT_ERROR_IO);
  assert_false(pdt_is_journal("/dev/null"));
  assert_false(pdt_is_journal(folder));
  free(folder);
}

/* Entries whose bytes are intact but are no message of ours. */
static void test_unknown_messages(void **state) {
  (void)state;
  char *path = path_of("unknown");
  static const uint8_t junk[] = {0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f};
  pdt_journal j;
  pdt_error err = {0};
  create(&j, path);
  append_header(&j, 1);
  assert_int_equal(pdt_journal_append_decision(&j, junk, sizeof junk, NULL), 0);
  close_journal(&j);
  assert_int_equal(pdt_journal_verify(path, NULL, NULL, &err), -1);
  assert_non_null(strstr(err.message, "entry 1"));
  assert_non_null(strstr(err.message, "it holds no Decision"));
  free(path);
}

/* Writes the header, starts requests 0 and 1, and a first round; then the story; expects it to be
 * refused with `want` in the message. */
static void expect_refused(const story *s, const char *want) {
  char *path = path_of("refused");
  pdt_journal j;
  story first;
  pdt_error err = {0};
  create(&j, path);
  append_header(&j, 3);
  append_start(&j, 0);
  append_start(&j, 1);
  tell(&first, 1, 0, 1, false, "HRR", NULL);
  append_story(&j, &first);
  close_journal(&j);
  if (pdt_journal_verify(path, NULL, NULL, &err)) fail_msg("%s", err.message);
  create(&j, path);
  append_header(&j, 3);
  append_start(&j, 0);
  append_start(&j, 1);
  append_story(&j, &first);
  append_story(&j, s);
  close_journal(&j);
  assert_int_equal(pdt_journal_verify(path, NULL, NULL, &err), -1);
  assert_int_equal(err.code, PDT_ERROR_INPUT);
  if (!strstr(err.message, want)) fail_msg("expected '%s' in: %s", want, err.message);
  assert_non_null(strstr(err.message, "journal: entry 4 at byte "));
  free(path);
}

static const uint32_t second[K] = {0, 1, 1}; /* attempts after the first round of expect_refused */

static void test_impossible_order(void **state) {
  (void)state;
  story s;
  tell(&s, 3, 0, 2, true, "CCC", second);
  expect_refused(&s, "expected boundary 2, found 3");
  tell(&s, 1, 0, 2, true, "CCC", second);
  expect_refused(&s, "expected boundary 2, found 1");
  tell(&s, 2, 0, 3, true, "CCC", second);
  expect_refused(&s, "expected round 2, found 3");
  tell(&s, 2, 0, 1, true, "CCC", second);
  expect_refused(&s, "expected round 2, found 1");
  tell(&s, 2, 2, 1, true, "CCC", NULL);
  expect_refused(&s, "request 2: its session has not started");
  tell(&s, 2, 3, 1, true, "CCC", NULL);
  expect_refused(&s, "request 3: expected one of the header's 3");
  tell(&s, 2, 0, 2, true, "CCC", second);
  s.session.session = 7;
  expect_refused(&s, "expected session 100, found 7");
  tell(&s, 2, 0, 2, true, "CCC", second);
  s.session_list[1] = &s.session;
  s.decision.n_sessions = 2;
  expect_refused(&s, "decided twice");
  tell(&s, 2, 1, 1, true, "", NULL);
  expect_refused(&s, "round 1 of 0 streams: expected all that write, 2");
  tell(&s, 2, 1, 1, true, ".CC", NULL);
  expect_refused(&s, "stream 2: expected one of the request's 2");
  tell(&s, 2, 0, 2, true, "CCC", second);
  s.block_list[1] = &s.blocks[0];
  expect_refused(&s, "stream 0 follows stream 0");
}

static void test_impossible_verdicts(void **state) {
  (void)state;
  story s;
  tell(&s, 2, 0, 2, true, "CHC", second);
  expect_refused(
      &s, "stream 1: a readiness of 0.75 with a gate that passed: expected the action commit, "
          "found hold");
  tell(&s, 2, 0, 2, false, "CRR", second);
  expect_refused(&s, "expected the action hold, found commit");
  tell(&s, 2, 0, 2, false, "HHH", second);
  expect_refused(&s, "no block was weak");
  tell(&s, 2, 0, 2, false, "HFR", second);
  expect_refused(&s, "stream 2: a readiness of 0.25 with a gate that failed: expected the action "
                     "force, found rollback");
  tell(&s, 2, 0, 2, true, "CFC", second);
  expect_refused(&s, "expected the action commit, found force");
  tell(&s, 2, 0, 2, true, "CCC", second);
  s.blocks[1].readiness = 0.25F;
  expect_refused(&s, "the gate passed, but a block was weak");
  tell(&s, 2, 0, 2, false, "...", second);
  expect_refused(&s, "stream 0: expected a block, found none");
  tell(&s, 2, 0, 2, true, "CCC", NULL);
  expect_refused(&s, "stream 1: expected attempt 1, found 0");
  tell(&s, 2, 0, 2, true, "CCC", second);
  s.blocks[0].action = (Pdt__Action)9;
  expect_refused(&s, "expected an action from 1 to 4, found 9");
  s.blocks[0].action = (Pdt__Action)-1;
  expect_refused(&s, "expected an action from 1 to 4, found -1");
  s.blocks[0].action = PDT__ACTION__ACTION_NONE;
  expect_refused(&s, "expected an action from 1 to 4, found 0");
}

static void test_impossible_numbers(void **state) {
  (void)state;
  story s;
  tell(&s, 2, 0, 2, true, "CCC", second);
  s.blocks[2].readiness = NAN;
  expect_refused(&s, "stream 2: expected a readiness from 0 to 1, found nan");
  s.blocks[2].readiness = 1.5F;
  expect_refused(&s, "found 1.5");
  tell(&s, 2, 0, 2, true, "CCC", second);
  s.blocks[1].n_tokens = 0;
  expect_refused(&s, "stream 1: expected a block of 1 to 4 tokens, found 0");
  tell(&s, 2, 0, 2, true, "CCC", second);
  s.tokens[2] = -1;
  expect_refused(&s, "expected a token of 0 or more, found -1");
  tell(&s, 2, 0, 2, true, "CCC", second);
  s.blocks[1].n_coverage = 1;
  expect_refused(&s, "expected coverage of 2 plan slots, found 1");
  tell(&s, 2, 0, 2, true, "CCC", second);
  s.coverage[1] = INFINITY;
  expect_refused(&s, "coverage is not finite");
}

/* Two entries around the ends of sessions and sequences. */
static void expect_bad(const char *path, const char *want) {
  pdt_error err = {0};
  assert_int_equal(pdt_journal_verify(path, NULL, NULL, &err), -1);
  if (!strstr(err.message, want)) fail_msg("expected '%s' in: %s", want, err.message);
}

static void test_headers_and_ends(void **state) {
  (void)state;
  char *path = path_of("ends");
  pdt_journal j;
  story s;
  fclose(fopen(path, "wb")); /* or closing it without an entry would remove it */
  create(&j, path);
  close_journal(&j);
  expect_bad(path, "it has no header");
  create(&j, path);
  append_start(&j, 0);
  close_journal(&j);
  expect_bad(path, "expected the header first");
  create(&j, path);
  append_header(&j, 1);
  append_header(&j, 1);
  close_journal(&j);
  expect_bad(path, "a second header");
  create(&j, path);
  append_header(&j, 1);
  append_start(&j, 0);
  append_start(&j, 0);
  close_journal(&j);
  expect_bad(path, "its session starts again");
  create(&j, path);
  Pdt__RunHeader odd = PDT__RUN_HEADER__INIT;
  odd.ranks = 4;
  odd.tensor_parallel = 3;
  assert_int_equal(pdt_journal_append_header(&j, &odd, NULL), 0);
  close_journal(&j);
  expect_bad(path, "4 ranks cannot make shard groups of 3");
  create(&j, path);
  odd.ranks = odd.tensor_parallel = 0;
  assert_int_equal(pdt_journal_append_header(&j, &odd, NULL), 0);
  close_journal(&j);
  expect_bad(path, "0 ranks cannot make shard groups of 0");
  create(&j, path);
  append_header(&j, 1);
  append_start(&j, 0);
  tell(&s, 1, 0, 1, true, "CCC", NULL);
  append_story(&j, &s);
  append_end(&j, 0, false);
  append_end(&j, 0, false);
  close_journal(&j);
  expect_bad(path, "its session has ended");
  create(&j, path);
  append_header(&j, 1);
  append_start_of(&j, 0, 2);
  tell(&s, 1, 0, 1, false, "HR", NULL);
  append_story(&j, &s);
  append_end(&j, 0, true);
  close_journal(&j);
  expect_bad(path, "it ends complete, but its streams are not done");
  create(&j, path);
  append_header(&j, 1);
  append_start_of(&j, 0, 2);
  tell(&s, 1, 0, 1, true, "CC", NULL);
  s.blocks[1].ended = true;
  append_story(&j, &s);
  tell(&s, 2, 0, 2, true, "CC", NULL);
  append_story(&j, &s);
  close_journal(&j);
  expect_bad(path, "stream 1, round 2: it is done, yet there is a block");
  free(path);
}

/* A session starts with its request, in the order of requests, and the request is sound. */
static void test_starts(void **state) {
  (void)state;
  static const struct {
    int what;
    const char *want;
  } bad[] = {{0, "request 1: expected request 0 to start first"},
             {1, "request 0: its session starts without it"},
             {2, "request 0: expected settings, found none"},
             {3, "request 0: gamma: expected a number from 0 to 1, found 2"},
             {4, "request 0: max_tokens: expected an integer from 1 to 16777216, found -1"},
             {5, "request 0: 4 streams with 3 prefixes"},
             {6, "request 0: prompt_ids: [1]: expected an id from 0 to 2147483646, found -5"},
             {7, "request 0: 0 prompt tokens"},
             {8, "request 0: its session and plan are not those that it names"},
             {9, "request 0: horizon: expected at least block_tokens, 4, found 3"},
             {10, "request 0: policy: expected 0 to 3, found 4"}};
  char *path = path_of("ends");
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    pdt_journal j;
    opening o;
    create(&j, path);
    append_header(&j, UINT32_MAX); /* takes no memory before they start */
    open_session(&o, bad[i].what == 0, K);
    if (bad[i].what == 1) o.start.resolved = NULL;
    if (bad[i].what == 2) o.request.message.settings = NULL;
    if (bad[i].what == 3) o.request.settings.gamma = 2;
    if (bad[i].what == 4) o.request.settings.max_tokens = UINT32_MAX;
    if (bad[i].what == 5) o.request.settings.streams = 4;
    if (bad[i].what == 6) o.prompt[1] = -5;
    if (bad[i].what == 7) o.request.message.n_prompt_ids = 0;
    if (bad[i].what == 8) o.request.message.session = 3;
    if (bad[i].what == 9) o.request.settings.horizon = 3;
    if (bad[i].what == 10) o.request.settings.policy = (Pdt__Policy)4;
    append_opening(&j, &o);
    close_journal(&j);
    expect_bad(path, bad[i].want);
  }
  free(path);
}

/* Replays a journal: how many sessions ended, the last error, and what the last one came to. */
static int replay(const char *path, int32_t *committed, bool *complete, pdt_error *err) {
  pdt_journal_reader reader;
  pdt_journal_entry entry;
  pdt_replay r;
  const pdt_replay_session *ended;
  int n = 0;
  *err = (pdt_error){0};
  pdt_replay_init(&r);
  assert_int_equal(pdt_journal_reader_open(&reader, path, NULL), 0);
  while (pdt_journal_reader_next(&reader, &entry, err) > 0) {
    if (pdt_replay_entry(&r, &entry, &ended, err)) break;
    if (!ended) continue;
    n++;
    *complete = ended->complete;
    for (pdt_stream k = 0; k < ended->request.settings.streams; k++)
      committed[k] = ended->session.streams[k].n_committed;
  }
  pdt_journal_reader_close(&reader);
  pdt_replay_free(&r);
  return n;
}

/* Two streams of at most max_tokens: two rounds that commit everything, then the end. */
static void write_two_rounds(const char *path, uint32_t max_tokens, const char *second_round,
                             bool complete) {
  pdt_journal j;
  opening o;
  story s;
  create(&j, path);
  append_header(&j, UINT32_MAX);
  open_session(&o, 0, 2);
  o.request.settings.max_tokens = max_tokens;
  o.request.settings.policy = PDT__POLICY__POLICY_SELECTIVE;
  append_opening(&j, &o);
  tell(&s, 1, 0, 1, true, "CC", NULL);
  append_story(&j, &s);
  tell(&s, 2, 0, 2, strchr(second_round, 'C') != NULL, second_round, NULL);
  append_story(&j, &s);
  append_end(&j, 0, complete);
  close_journal(&j);
}

static void test_replay(void **state) {
  (void)state;
  char *path = path_of("ends");
  int32_t committed[2];
  bool complete = false;
  pdt_error err;
  write_two_rounds(path, 8, "CC", true);
  assert_int_equal(replay(path, committed, &complete, &err), 1);
  assert_true(complete && committed[0] == 8 && committed[1] == 8);
  write_two_rounds(path, 96, "HR", false);
  assert_int_equal(replay(path, committed, &complete, &err), 1);
  assert_true(!complete && committed[0] == 4 && committed[1] == 4);
  /* limits that the file does not fill take no memory */
  write_two_rounds(path, 1 << 24, "CC", false);
  assert_int_equal(replay(path, committed, &complete, &err), 1);
  assert_true(!complete && committed[0] == 8);
  static const struct {
    uint32_t max_tokens;
    const char *second_round;
    bool complete;
    const char *want;
  } bad[] = {{96, "CC", true, "request 0: it ends complete, but its streams are not done"},
             {8, "CC", false, "request 0: it ends before its streams are done, but its streams"},
             {4, "CC", true, "request 0, round 2: stream 0, round 2: it is done, yet there is a"},
             {6, "CC", true, "a block of 4 tokens cannot follow 4 tokens and 0 pending blocks"}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    write_two_rounds(path, bad[i].max_tokens, bad[i].second_round, bad[i].complete);
    assert_int_equal(replay(path, committed, &complete, &err), 0);
    assert_int_equal(err.code, PDT_ERROR_INPUT);
    if (!strstr(err.message, bad[i].want)) fail_msg("'%s' in %s", bad[i].want, err.message);
  }
  pdt_journal j;
  create(&j, path);
  append_header(&j, 1);
  append_start(&j, 0);
  append_end(&j, 0, false);
  close_journal(&j);
  assert_int_equal(replay(path, committed, &complete, &err), 0);
  assert_non_null(strstr(err.message, "its streams are without a round"));
  free(path);
}

/* ---- sessions that a fault ends ---- */

/* In place of a round: no blocks, and the stream that met the number. */
static void tell_fault(story *s, uint64_t boundary, uint32_t request, uint32_t round, int fault,
                       uint32_t stream) {
  tell(s, boundary, request, round, false, "", NULL);
  s->session.fault = (Pdt__Fault)fault;
  s->session.fault_stream = stream;
}

/* Request 0 meets a fault in its second round, request 1 in its first, and request 2 goes on. */
static void write_faults(const char *path) {
  static const uint32_t again[K] = {0, 0, 1};
  pdt_journal j;
  story s, other;
  create(&j, path);
  append_header(&j, 3);
  append_start(&j, 0);
  append_start(&j, 1);
  tell(&s, 1, 0, 1, false, "HHR", NULL);
  tell_fault(&other, 1, 1, 1, PDT__FAULT__FAULT_LOGITS, 1);
  join(&s, &other);
  append_story(&j, &s);
  append_start(&j, 2);
  tell_fault(&s, 2, 0, 2, PDT__FAULT__FAULT_NOTE, 2);
  tell(&other, 2, 2, 1, false, "HHR", NULL);
  join(&s, &other);
  append_story(&j, &s);
  append_end(&j, 0, false);
  tell(&s, 3, 2, 2, true, "CCC", again);
  append_story(&j, &s);
  append_end(&j, 2, false);
  close_journal(&j);
}

static void test_faults(void **state) {
  (void)state;
  char *path = path_of("ends");
  pdt_journal_totals t;
  pdt_error err = {0};
  int32_t committed[K];
  bool complete = true;
  write_faults(path);
  if (pdt_journal_verify(path, &t, NULL, &err)) fail_msg("%s", err.message);
  assert_int_equal(t.started, 3);
  assert_int_equal(t.ended, 2);
  assert_int_equal(t.complete, 0);
  assert_int_equal(t.faults, 2);
  assert_int_equal(t.boundaries, 3);
  assert_int_equal(t.rounds, 3); /* those with a fault are none */
  assert_int_equal(t.holds, 4);
  assert_int_equal(t.tokens, 9 * TOKENS);
  assert_int_equal(replay(path, committed, &complete, &err), 2);
  assert_int_equal(err.code, PDT_ERROR_NONE);
  assert_true(!complete && committed[0] == 2 * TOKENS && committed[2] == TOKENS);
  free(path);
}

/* What an ended session tells of the fault. */
static void test_fault_of_ended(void **state) {
  (void)state;
  char *path = path_of("ends");
  pdt_journal_reader reader;
  pdt_journal_entry entry;
  pdt_replay r;
  const pdt_replay_session *ended;
  write_faults(path);
  pdt_replay_init(&r);
  assert_int_equal(pdt_journal_reader_open(&reader, path, NULL), 0);
  while (pdt_journal_reader_next(&reader, &entry, NULL) > 0) {
    assert_int_equal(pdt_replay_entry(&r, &entry, &ended, NULL), 0);
    if (!ended) continue;
    assert_int_equal(ended->fault, ended->index == 0 ? PDT_FAULT_NOTE : PDT_FAULT_NONE);
    assert_int_equal(ended->fault_stream, ended->index == 0 ? 2 : 0);
    assert_int_equal(ended->session.round, ended->index == 0 ? 2 : 3); /* the next one */
  }
  assert_int_equal(r.slots[1].fault, PDT_FAULT_LOGITS);
  assert_non_null(r.slots[1].session); /* nothing has told its end */
  pdt_journal_reader_close(&reader);
  pdt_replay_free(&r);
  free(path);
}

static int append_failure(pdt_journal *j, uint32_t request, const char *why) {
  Pdt__RequestFailure f = PDT__REQUEST_FAILURE__INIT;
  f.session = 100 + request;
  f.request = request;
  f.line = 3;
  f.error = (ProtobufCBinaryData){strlen(why), (uint8_t *)(uintptr_t)why};
  return pdt_journal_append_failure(j, &f, NULL);
}

/* Requests that are not served: before their start in its place, or behind their fault. */
static void test_failures(void **state) {
  (void)state;
  static const char *const want[] = {NULL,
                                     "request 2: expected request 1 to start first",
                                     "request 0: it is not served, but no fault has ended",
                                     "request 3: expected one of the header's 3",
                                     "request 0: its session has ended",
                                     "request 1: its error is no UTF-8"};
  char *path = path_of("ends");
  for (int what = 0; what < 6; what++) {
    pdt_journal j;
    pdt_journal_totals t;
    story s;
    create(&j, path);
    append_header(&j, 3);
    append_start(&j, 0);
    if (what == 1) append_failure(&j, 2, "it is wrong");
    if (what == 2) append_failure(&j, 0, "it is wrong");
    append_failure(&j, 1, what == 5 ? "\xff" : "line 3: it is wrong");
    tell_fault(&s, 1, 0, 1, PDT__FAULT__FAULT_LOGITS, 1);
    append_story(&j, &s);
    append_failure(&j, 0, "its logits overflow");
    if (what == 3) append_failure(&j, 3, "there is none");
    if (what == 4) append_failure(&j, 0, "again");
    append_start(&j, 2);
    close_journal(&j);
    if (want[what]) {
      expect_bad(path, want[what]);
      continue;
    }
    assert_int_equal(pdt_journal_verify(path, &t, NULL, NULL), 0);
    assert_true(t.failed == 2 && t.started == 2 && t.ended == 1 && t.faults == 1);
  }
  free(path);
}

/* What is kept stays, what is behind it goes with the first append, and not before. */
static void test_continue(void **state) {
  (void)state;
  char *path = path_of("ends"), *before, *after;
  pdt_bytes n, m;
  pdt_error err = {0};
  pdt_journal j;
  write_good(path);
  assert_int_equal(pdt_file_read(&before, &n, path, 1 << 20, NULL), 0);
  assert_int_equal(truncate(path, n - 5), 0);
  assert_int_equal(pdt_journal_continue(&j, path, PDT_JOURNAL_SYNC_NEVER, &err), 0);
  pdt_journal_keep(&j, 300);
  close_journal(&j);
  assert_int_equal(pdt_file_read(&after, &m, path, 1 << 20, NULL), 0);
  assert_int_equal(m, n - 5);
  free(after);
  assert_int_equal(pdt_journal_continue(&j, path, PDT_JOURNAL_SYNC_EACH_DECISION, &err), 0);
  pdt_journal_keep(&j, 300);
  append_end(&j, 0, true);
  close_journal(&j);
  assert_int_equal(pdt_file_read(&after, &m, path, 1 << 20, NULL), 0);
  assert_true(m > 300 && m < 340);
  assert_memory_equal(after, before, 300);
  free(after);
  free(before);
  assert_int_equal(pdt_journal_continue(&j, "-", PDT_JOURNAL_SYNC_NEVER, &err), -1);
  assert_int_equal(err.code, PDT_ERROR_USAGE);
  pdt_journal_close(&j, NULL);
  free(path);
}

static void test_impossible_faults(void **state) {
  (void)state;
  story s;
  tell_fault(&s, 2, 0, 2, 6, 1);
  expect_refused(&s, "request 0, round 2: expected a fault from 1 to 5, found 6");
  tell_fault(&s, 2, 0, 2, -1, 1);
  expect_refused(&s, "expected a fault from 1 to 5, found -1");
  tell_fault(&s, 2, 0, 2, PDT__FAULT__FAULT_COVERAGE, 3);
  expect_refused(&s, "a fault of stream 3, which has no block in round 2");
  tell_fault(&s, 2, 0, 2, PDT__FAULT__FAULT_COVERAGE, UINT32_MAX);
  expect_refused(&s, "a fault of stream -1, which has no block in round 2");
  tell_fault(&s, 2, 0, 3, PDT__FAULT__FAULT_COVERAGE, 1);
  expect_refused(&s, "expected round 2, found 3");
  tell_fault(&s, 2, 0, 2, PDT__FAULT__FAULT_READINESS, 1);
  s.session.gate = true;
  expect_refused(&s, "a fault with 0 blocks and a gate that passed: expected none, and one that");
  tell(&s, 2, 0, 2, false, "HRR", second);
  s.session.fault = PDT__FAULT__FAULT_READINESS;
  expect_refused(&s, "a fault with 3 blocks and a gate that failed: expected none, and one that");
  tell_fault(&s, 2, 1, 1, PDT__FAULT__FAULT_LOGITS, 2);
  expect_refused(&s, "request 1, round 1: a fault of stream 2: expected one of the request's 2");
  tell_fault(&s, 2, 1, 2, PDT__FAULT__FAULT_LOGITS, 0);
  expect_refused(&s, "expected round 1, found 2");
  tell_fault(&s, 2, 2, 1, PDT__FAULT__FAULT_LOGITS, 0);
  expect_refused(&s, "request 2: its session has not started");
}

/* Nothing but its end follows a fault, and that is not complete; nor has a stream a fault that
 * has no block. */
static void test_after_fault(void **state) {
  (void)state;
  char *path = path_of("ends");
  for (int what = 0; what < 4; what++) {
    static const char *const want[] = {
        "request 0: a fault of its logits has ended it", "request 0: a fault of its logits has",
        "request 0: it ends complete, but a fault of its logits has ended it",
        "request 0, round 2: a fault of stream 0, which has no block in round 2"};
    pdt_journal j;
    story s;
    create(&j, path);
    append_header(&j, 1);
    append_start(&j, 0);
    tell(&s, 1, 0, 1, true, "CCC", NULL);
    s.blocks[0].ended = true;
    append_story(&j, &s);
    tell_fault(&s, 2, 0, 2, PDT__FAULT__FAULT_LOGITS, what == 3 ? 0 : 1);
    append_story(&j, &s);
    if (what == 0) tell_fault(&s, 3, 0, 2, PDT__FAULT__FAULT_LOGITS, 1);
    if (what == 1) tell(&s, 3, 0, 2, true, ".CC", NULL);
    if (what < 2) append_story(&j, &s);
    if (what == 2) append_end(&j, 0, true);
    close_journal(&j);
    expect_bad(path, want[what]);
  }
  free(path);
}

static void test_existing_file(void **state) {
  (void)state;
  char *path = path_of("existing");
  pdt_journal j;
  pdt_error err = {0};
  unlink(path);
  assert_int_equal(pdt_journal_create(&j, path, false, PDT_JOURNAL_SYNC_EACH_DECISION, &err), 0);
  append_header(&j, 1);
  pdt_journal again; /* while the first is open */
  assert_int_equal(pdt_journal_create(&again, path, true, PDT_JOURNAL_SYNC_NEVER, &err), -1);
  assert_non_null(strstr(err.message, "another process is writing it"));
  close_journal(&again);
  close_journal(&j);
  assert_int_equal(pdt_journal_create(&j, path, false, PDT_JOURNAL_SYNC_NEVER, &err), -1);
  assert_int_equal(err.code, PDT_ERROR_USAGE);
  assert_non_null(strstr(err.message, "hint"));
  close_journal(&j);
  pdt_journal_totals t;
  assert_int_equal(pdt_journal_verify(path, &t, NULL, NULL), 0); /* it was not touched */
  assert_int_equal(t.requests, 1);
  assert_int_equal(pdt_journal_create(&j, path, true, PDT_JOURNAL_SYNC_AT_CLOSE, &err), 0);
  close_journal(&j); /* no run began */
  assert_int_equal(pdt_journal_verify(path, &t, NULL, NULL), 0);
  assert_int_equal(t.requests, 1);
  assert_int_equal(pdt_journal_create(&j, path, true, PDT_JOURNAL_SYNC_AT_CLOSE, &err), 0);
  append_header(&j, 2);
  close_journal(&j);
  assert_int_equal(pdt_journal_verify(path, &t, NULL, NULL), 0);
  assert_int_equal(t.requests, 2);
  free(path);
}

/* What is no journal is not replaced, be it asked for; a new file without entries does not stay,
 * and the head that a kill at that point leaves is no journal to be asked for. */
static void test_nothing_lost(void **state) {
  (void)state;
  char *path = path_of("lost"), *text;
  pdt_journal j;
  pdt_bytes n;
  pdt_error err = {0};
  unlink(path);
  assert_int_equal(pdt_journal_create(&j, path, false, PDT_JOURNAL_SYNC_NEVER, &err), 0);
  close_journal(&j);
  assert_int_equal(access(path, F_OK), -1);
  assert_int_equal(pdt_file_write_text(path, "a thesis", &err), 0);
  assert_int_equal(pdt_journal_create(&j, path, true, PDT_JOURNAL_SYNC_NEVER, &err), -1);
  assert_int_equal(err.code, PDT_ERROR_USAGE);
  assert_non_null(strstr(err.message, "found another kind of file of 8 bytes"));
  close_journal(&j);
  assert_int_equal(pdt_file_read(&text, &n, path, 100, &err), 0);
  assert_string_equal(text, "a thesis");
  free(text);
  assert_int_equal(pdt_file_write_text(path, "PDTJRNL\n", &err), 0);
  assert_int_equal(pdt_journal_create(&j, path, false, PDT_JOURNAL_SYNC_NEVER, &err), 0);
  append_header(&j, 1);
  close_journal(&j);
  pdt_journal_totals t;
  assert_int_equal(pdt_journal_verify(path, &t, NULL, NULL), 0);
  unlink(path);
  free(path);
}

static void test_cannot_create(void **state) {
  (void)state;
  pdt_journal j;
  pdt_error err = {0};
  char *folder = path_of("");
  assert_int_equal(pdt_journal_create(&j, folder, true, PDT_JOURNAL_SYNC_NEVER, &err), -1);
  free(folder);
  assert_int_equal(err.code, PDT_ERROR_IO);
  assert_non_null(strstr(err.message, "Is a directory"));
  close_journal(&j);
  char *nowhere = path_of("nowhere/j");
  assert_int_equal(pdt_journal_create(&j, nowhere, true, PDT_JOURNAL_SYNC_NEVER, &err), -1);
  free(nowhere);
  assert_non_null(strstr(err.message, "nowhere/j: journal: cannot create: No such file"));
  close_journal(&j);
}

static void test_full_disk(void **state) {
  (void)state;
  pdt_journal j;
  pdt_error err = {0};
  assert_int_equal(pdt_journal_create(&j, "/dev/full", false, PDT_JOURNAL_SYNC_NEVER, &err), -1);
  assert_int_equal(err.code, PDT_ERROR_IO);
  assert_string_equal(err.message, "/dev/full: journal: cannot append: No space left on device");
  close_journal(&j);
  assert_int_equal(pdt_journal_create(&j, "/dev/null", false, PDT_JOURNAL_SYNC_EACH_DECISION, &err),
                   0);
  append_header(&j, 1);
  close_journal(&j);
}

/* A file-size limit stands for a disk that fills in the middle of an entry: the error comes at that
 * append, the entries before stay readable and none follows. */
static void test_disk_fills(void **state) {
  (void)state;
  char *path = path_of("fills");
  pid_t child = fork();
  if (child == 0) {
    pdt_journal j;
    pdt_error err = {0};
    story s;
    create(&j, path);
    append_header(&j, 1);
    append_start(&j, 0);
    struct rlimit limit = {(rlim_t)j.bytes + 20, RLIM_INFINITY};
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &limit);
    tell(&s, 1, 0, 1, true, "CCC", NULL);
    uint8_t packed[512];
    pdt_bytes n = (pdt_bytes)pdt__decision__pack(&s.decision, packed);
    int first = pdt_journal_append_decision(&j, packed, n, &err);
    bool said = strstr(err.message, "cannot append: File too large") != NULL;
    int then = pdt_journal_append_decision(&j, packed, 0, &err);
    said = said && strstr(err.message, "an earlier append failed");
    _exit(first == -1 && then == -1 && said && pdt_journal_close(&j, NULL) == 0 ? 0 : 1);
  }
  int status;
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_true(WIFEXITED(status));
  assert_int_equal(WEXITSTATUS(status), 0);
  pdt_journal_totals t;
  pdt_bytes torn;
  assert_int_equal(pdt_journal_verify(path, &t, &torn, NULL), 0);
  assert_int_equal(t.entries, 2);
  assert_int_equal(torn, 0);
  free(path);
}

static void test_too_large(void **state) {
  (void)state;
  char *path = path_of("large");
  pdt_journal j;
  pdt_error err = {0};
  create(&j, path);
  append_header(&j, 1);
  uint8_t *data = calloc(PDT_JOURNAL_MAX_ENTRY_BYTES, 1);
  assert_int_equal(pdt_journal_append_decision(&j, data, PDT_JOURNAL_MAX_ENTRY_BYTES, &err), -1);
  assert_int_equal(err.code, PDT_ERROR_RUNTIME);
  assert_int_equal(pdt_journal_append_decision(&j, data, 0, &err), -1); /* no gap */
  close_journal(&j);
  free(data);
  assert_int_equal(pdt_journal_verify(path, NULL, NULL, NULL), 0);
  free(path);
}

static char *inspect(const char *path, bool json, pdt_error *err) {
  char *text = NULL;
  size_t n;
  FILE *out = open_memstream(&text, &n);
  (void)pdt_inspect_journal(path, json, out, err);
  fclose(out);
  return text;
}

static void test_inspect(void **state) {
  (void)state;
  char *path = path_of("inspected");
  pdt_error err = {0};
  write_good(path);
  char *text = inspect(path, false, &err);
  assert_int_equal(err.code, PDT_ERROR_NONE);
  assert_non_null(strstr(text, "model 0123456789abcdef, sidecar ffffffffffffffff\n"
                               "4 ranks, tensor parallel 2\n3 requests, "
                               "fingerprint 000000000000abcd\n"));
  assert_non_null(
      strstr(text, "boundary  request  session  round  gate    tokens  readiness  actions\n"));
  assert_non_null(
      strstr(text, "       2        0      100      2  failed      12   0.250000  HHR\n"));
  assert_non_null(
      strstr(text, "       3        0      100      3  failed      12   0.250000  HHF\n"));
  assert_non_null(
      strstr(text, "       4        1      101      1  passed       8   0.750000  CC\n"));
  assert_non_null(strstr(text, "48 tokens emitted, 44 committed\nthe end is whole: "));
  free(text);
  assert_int_equal(truncate(path, 300), 0);
  text = inspect(path, false, &err);
  assert_int_equal(err.code, PDT_ERROR_NONE);
  assert_non_null(strstr(text, "the end is torn: the last "));
  free(text);
  free(path);
}

static void test_inspect_json(void **state) {
  (void)state;
  char *path = path_of("inspected");
  pdt_error err = {0};
  write_good(path);
  char *text = inspect(path, true, &err);
  int lines = 0;
  char *rest;
  for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
    json_error_t where;
    json_t *object = json_loads(line, JSON_REJECT_DUPLICATES, &where);
    if (!object) fail_msg("%s: %s", where.text, line);
    const char *type = json_string_value(json_object_get(object, "type"));
    lines++;
    assert_string_equal(type, lines == 1              ? "header"
                              : lines == 11           ? "totals"
                              : strchr("\2\5", lines) ? "start"
                              : lines > 8             ? "end"
                                                      : "round");
    if (lines == 4) {
      json_t *block = json_array_get(json_object_get(object, "streams"), 2);
      assert_string_equal(json_string_value(json_object_get(block, "action")), "rollback");
      assert_string_equal(json_string_value(json_object_get(object, "bus_hash")),
                          "fedcba9876543210");
    }
    json_decref(object);
  }
  assert_int_equal(lines, 11);
  free(text);
  FILE *full = fopen("/dev/full", "w");
  assert_int_equal(pdt_inspect_journal(path, true, full, &err), -1);
  assert_int_equal(err.code, PDT_ERROR_IO);
  fclose(full);
  free(path);
}

static void test_inspect_faults(void **state) {
  (void)state;
  char *path = path_of("inspected");
  pdt_error err = {0};
  write_faults(path);
  char *text = inspect(path, false, &err);
  assert_int_equal(err.code, PDT_ERROR_NONE);
  assert_non_null(
      strstr(text, "       1        1      101      1  a fault of stream 1's logits ends it\n"));
  assert_non_null(strstr(text,
                         "       2        0      100      2  a fault of stream 2's note ends it\n"
                         "       2        2      102      1  failed      12   0.250000  HHR\n"
                         "     end        0      100  ended by a fault\n"));
  assert_non_null(strstr(text, "\n2 sessions were ended by a fault, or withdrawn\n"));
  free(text);
  text = inspect(path, true, &err);
  assert_int_equal(err.code, PDT_ERROR_NONE);
  assert_non_null(strstr(text, "{\"type\":\"fault\",\"request\":0,\"session\":100,\"boundary\":2,"
                               "\"bus_hash\":\"fedcba9876543210\",\"round\":2,\"stream\":2,"
                               "\"fault\":\"note\"}\n"));
  assert_non_null(strstr(text, ",\"complete\":0,\"faults\":2,\"rounds\":3,"));
  free(text);
  free(path);
}

static int make_folder(void **state) {
  (void)state;
  char *folder = path_of("");
  int rc = mkdir(folder, 0700);
  free(folder);
  return rc;
}

static int remove_folder(void **state) {
  (void)state;
  static const char *const names[] = {"good",  "bytes", "unknown",  "refused",  "ends",
                                      "fills", "large", "existing", "inspected"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    char *path = path_of(names[i]);
    unlink(path);
    free(path);
  }
  char *folder = path_of("");
  int rc = rmdir(folder); /* which also says that nothing else was left there */
  free(folder);
  return rc;
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_totals),
      cmocka_unit_test(test_bytes),
      cmocka_unit_test(test_read_back),
      cmocka_unit_test(test_torn_everywhere),
      cmocka_unit_test(test_flipped_everywhere),
      cmocka_unit_test(test_not_a_journal),
      cmocka_unit_test(test_unknown_messages),
      cmocka_unit_test(test_impossible_order),
      cmocka_unit_test(test_impossible_verdicts),
      cmocka_unit_test(test_impossible_numbers),
      cmocka_unit_test(test_headers_and_ends),
      cmocka_unit_test(test_starts),
      cmocka_unit_test(test_replay),
      cmocka_unit_test(test_faults),
      cmocka_unit_test(test_fault_of_ended),
      cmocka_unit_test(test_failures),
      cmocka_unit_test(test_continue),
      cmocka_unit_test(test_impossible_faults),
      cmocka_unit_test(test_after_fault),
      cmocka_unit_test(test_existing_file),
      cmocka_unit_test(test_nothing_lost),
      cmocka_unit_test(test_cannot_create),
      cmocka_unit_test(test_full_disk),
      cmocka_unit_test(test_disk_fills),
      cmocka_unit_test(test_too_large),
      cmocka_unit_test(test_inspect),
      cmocka_unit_test(test_inspect_json),
      cmocka_unit_test(test_inspect_faults),
  };
  return cmocka_run_group_tests_name("journal", tests, make_folder, remove_folder);
}

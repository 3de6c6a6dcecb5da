/* Output files and traces: both forms carry every field, any text and any session number; a file
 * appears whole or not at all; what cannot be written is refused. */
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/json_text.h"
#include "journal/inspect.h"
#include "journal/output.h"
#include "journal/trace.h"

/* A file in this process's own folder; its folder for the name "". Freed by the caller. */
static char *path_of(const char *name) {
  char folder[64], *path;
  snprintf(folder, sizeof folder, "/tmp/pdt-test-output-%d", (int)getpid());
  assert_int_equal(pdt_path_join(&path, folder, name, NULL), 0);
  return path;
}

static const char hard_text[] =
    "a\0b \"quoted\" \\ \n\x1b[31m\x7f\xc2\x9b \xf0\x9f\x8c\x8d \xef\xbf\xbf";
static const pdt_token tokens[] = {0, 1, 128256, INT32_MAX};
static const pdt_round forced[] = {3, 9};
static const int32_t slots[] = {0, 15};
static const pdt_stream order[] = {2, 0, 1};

static pdt_artifact artifact(uint64_t session) {
  return (pdt_artifact){.session = session,
                        .request = 4,
                        .stream = 2,
                        .tokens = tokens,
                        .n_tokens = 4,
                        .text = hard_text,
                        .n_text_bytes = sizeof hard_text - 1,
                        .done = true,
                        .forced_rounds = forced,
                        .n_forced = 2,
                        .uncommitted_tokens = 5,
                        .slots = slots,
                        .n_slots = 2,
                        .complete = true};
}

static pdt_answer answer(uint64_t session) {
  return (pdt_answer){.session = session,
                      .request = 4,
                      .order = order,
                      .n_order = 3,
                      .text = hard_text,
                      .n_text_bytes = sizeof hard_text - 1};
}

static void write_output(const char *path, pdt_output_format format) {
  pdt_error err = {0};
  pdt_output *o;
  pdt_artifact a = artifact(INT64_MAX), empty = {.request = 0};
  pdt_answer m = answer(UINT64_MAX);
  if (pdt_output_open(&o, path, format, &err) || pdt_output_artifact(o, &a, &err) ||
      pdt_output_artifact(o, &empty, &err) || pdt_output_answer(o, &m, &err) ||
      pdt_output_close(o, &err))
    fail_msg("%s", err.message);
}

static bool exists(const char *path) {
  struct stat status;
  return lstat(path, &status) == 0;
}

static void test_proto(void **state) {
  (void)state;
  char *path = path_of("proto");
  pdt_output_reader r;
  const Pdt__OutputRecord *record;
  write_output(path, PDT_OUTPUT_PROTO);
  assert_true(pdt_is_output(path));
  assert_int_equal(pdt_output_reader_open(&r, path, NULL), 0);
  assert_int_equal(pdt_output_reader_next(&r, &record, NULL), 1);
  const Pdt__CommitArtifact *a = record->artifact;
  assert_int_equal(record->record_case, PDT__OUTPUT_RECORD__RECORD_ARTIFACT);
  assert_true(a->session == INT64_MAX && a->request == 4 && a->stream == 2 && a->done);
  assert_int_equal(a->n_tokens, 4);
  assert_memory_equal(a->tokens, tokens, sizeof tokens);
  assert_int_equal(a->text.len, sizeof hard_text - 1);
  assert_memory_equal(a->text.data, hard_text, sizeof hard_text - 1);
  assert_int_equal(a->n_forced_rounds, 2);
  assert_memory_equal(a->forced_rounds, forced, sizeof forced);
  assert_int_equal(a->uncommitted_tokens, 5);
  assert_int_equal(a->n_slots, 2);
  assert_memory_equal(a->slots, slots, sizeof slots);
  assert_int_equal(pdt_output_reader_next(&r, &record, NULL), 1);
  assert_int_equal(record->artifact->text.len, 0);
  assert_false(record->artifact->done);
  assert_int_equal(pdt_output_reader_next(&r, &record, NULL), 1);
  assert_int_equal(record->record_case, PDT__OUTPUT_RECORD__RECORD_ANSWER);
  assert_true(record->answer->session == UINT64_MAX);
  assert_memory_equal(record->answer->order, order, sizeof order);
  assert_memory_equal(record->answer->text.data, hard_text, sizeof hard_text - 1);
  assert_int_equal(pdt_output_reader_next(&r, &record, NULL), 0);
  assert_int_equal(pdt_output_reader_next(&r, &record, NULL), 0);
  assert_int_equal(r.records, 3);
  pdt_output_reader_close(&r);
  free(path);
}

static json_t *line_of(char **text) {
  json_error_t where;
  char *line = strsep(text, "\n");
  json_t *object = json_loads(line, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &where);
  if (!object) fail_msg("%s: %s", where.text, line);
  return object;
}

static void test_json_lines(void **state) {
  (void)state;
  char *path = path_of("jsonl"), *text;
  pdt_bytes n;
  write_output(path, PDT_OUTPUT_JSONL);
  assert_false(pdt_is_output(path));
  assert_int_equal(pdt_file_read(&text, &n, path, 1 << 20, NULL), 0);
  assert_int_equal(strlen(text), n); /* U+0000 is escaped */
  char *rest = text;
  json_t *want, *got = line_of(&rest);
  want = json_pack("{s:s, s:I, s:i, s:i, s:[iiii], s:s%, s:b, s:[ii], s:i, s:[ii], s:s}", "type",
                   "artifact", "session", (json_int_t)INT64_MAX, "request", 4, "stream", 2,
                   "tokens", 0, 1, 128256, INT32_MAX, "text", hard_text, sizeof hard_text - 1,
                   "done", 1, "forced_rounds", 3, 9, "uncommitted_tokens", 5, "slots", 0, 15,
                   "ended_by", "complete");
  assert_true(json_equal(got, want));
  json_decref(got);
  json_decref(want);
  got = line_of(&rest);
  want = json_pack("{s:s, s:i, s:i, s:i, s:[], s:s, s:b, s:[], s:i, s:[], s:s}", "type", "artifact",
                   "session", 0, "request", 0, "stream", 0, "tokens", "text", "", "done", 0,
                   "forced_rounds", "uncommitted_tokens", 0, "slots", "ended_by", "max_rounds");
  assert_true(json_equal(got, want));
  json_decref(got);
  json_decref(want);
  got = line_of(&rest);
  want = json_pack("{s:s, s:s, s:i, s:[iii], s:s%, s:b, s:s}", "type", "answer", "session",
                   "18446744073709551615", "request", 4, "order", 2, 0, 1, "text", hard_text,
                   sizeof hard_text - 1, "complete", 0, "ended_by", "max_rounds");
  assert_true(json_equal(got, want));
  json_decref(got);
  json_decref(want);
  assert_string_equal(rest, "");
  free(text);
  free(path);
}

static void test_refused_records(void **state) {
  (void)state;
  char *path = path_of("refused");
  static const char *const bad_text[] = {
      "\xff", "\xc3", "\xed\xa0\x80", "\xc0\x80", "\xf4\x90\x80\x80", "ok\x80"};
  pdt_output *o;
  pdt_error err = {0};
  for (int format = PDT_OUTPUT_PROTO; format <= PDT_OUTPUT_JSONL; format++) {
    assert_int_equal(pdt_output_open(&o, path, (pdt_output_format)format, NULL), 0);
    for (size_t i = 0; i < sizeof bad_text / sizeof *bad_text; i++) {
      pdt_artifact a = {.text = bad_text[i], .n_text_bytes = strlen(bad_text[i])};
      assert_int_equal(pdt_output_artifact(o, &a, &err), -1);
      assert_int_equal(err.code, PDT_ERROR_RUNTIME);
      assert_non_null(strstr(err.message, "stream 0: text: it is no UTF-8"));
    }
    pdt_artifact a = artifact(1);
    a.uncommitted_tokens = -1;
    assert_int_equal(pdt_output_artifact(o, &a, &err), -1);
    pdt_stream wrong[] = {0, -1};
    pdt_answer m = {.order = wrong, .n_order = 2};
    assert_int_equal(pdt_output_answer(o, &m, &err), -1);
    assert_string_equal(err.message,
                        "output: answer of request 0: order: expected 0 or more, found -1");
    assert_false(exists(path));
    pdt_output_discard(o);
    assert_false(exists(path));
  }
  free(path);
}

/* An older file stays until the new one is whole; a link stays a link. */
static void test_atomic(void **state) {
  (void)state;
  char *path = path_of("atomic"), *link = path_of("link"), *text;
  pdt_bytes n;
  pdt_output *o;
  pdt_artifact a = artifact(1);
  struct stat status;
  assert_int_equal(pdt_file_write_text(path, "older", NULL), 0);
  assert_int_equal(symlink("atomic", link), 0);
  assert_int_equal(pdt_output_open(&o, link, PDT_OUTPUT_PROTO, NULL), 0);
  assert_int_equal(pdt_output_artifact(o, &a, NULL), 0);
  assert_int_equal(pdt_file_read(&text, &n, path, 100, NULL), 0);
  assert_string_equal(text, "older");
  free(text);
  assert_int_equal(pdt_output_close(o, NULL), 0);
  assert_int_equal(lstat(link, &status), 0);
  assert_true(S_ISLNK(status.st_mode));
  assert_true(pdt_is_output(path));
  free(link);
  free(path);
}

static void test_unwritable(void **state) {
  (void)state;
  char *folder = path_of("");
  pdt_output *o;
  pdt_error err = {0};
  pdt_artifact a = artifact(1);
  assert_int_equal(pdt_output_open(&o, folder, PDT_OUTPUT_PROTO, &err), -1);
  assert_null(o);
  assert_non_null(strstr(err.message, "Is a directory"));
  char *nowhere = path_of("no/out");
  assert_int_equal(pdt_output_open(&o, nowhere, PDT_OUTPUT_PROTO, &err), -1);
  assert_non_null(strstr(err.message, "no/out: cannot create: No such file or directory"));
  free(nowhere);
  assert_int_equal(pdt_output_open(&o, "/dev/fd/987", PDT_OUTPUT_PROTO, &err), -1);
  assert_non_null(strstr(err.message, "Bad file descriptor"));
  assert_int_equal(pdt_output_open(&o, "/dev/full", PDT_OUTPUT_JSONL, &err), 0);
  assert_int_equal(pdt_output_artifact(o, &a, &err), -1);
  assert_string_equal(err.message, "/dev/full: cannot write: No space left on device");
  pdt_output_discard(o);
  struct stat status;
  assert_int_equal(stat("/dev/full", &status), 0);
  assert_true(S_ISCHR(status.st_mode)); /* nothing was renamed over it */
  free(folder);
}

/* A file its owner protected is not replaced. Root may write it all the same. */
static void test_protected(void **state) {
  (void)state;
  char *path = path_of("protected");
  pdt_output *o;
  pdt_error err = {0};
  assert_int_equal(pdt_file_write_text(path, "keep", NULL), 0);
  assert_int_equal(chmod(path, 0400), 0);
  int rc = pdt_output_open(&o, path, PDT_OUTPUT_PROTO, &err);
  assert_int_equal(rc, geteuid() == 0 ? 0 : -1);
  if (rc) assert_non_null(strstr(err.message, "Permission denied"));
  pdt_output_discard(o);
  free(path);
}

/* /dev/fd/N continues where the descriptor is, a pipe gets the bytes as they are written. */
static void test_descriptors(void **state) {
  (void)state;
  char *path = path_of("descriptor"), name[32], *text;
  pdt_bytes n;
  pdt_output *o;
  pdt_answer m = {.request = 1};
  int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
  assert_int_equal(write(fd, "before\n", 7), 7);
  snprintf(name, sizeof name, "/dev/fd/%d", fd);
  assert_int_equal(pdt_output_open(&o, name, PDT_OUTPUT_JSONL, NULL), 0);
  assert_int_equal(pdt_output_answer(o, &m, NULL), 0);
  assert_int_equal(pdt_output_close(o, NULL), 0);
  assert_int_equal(write(fd, "after\n", 6), 6);
  close(fd);
  assert_int_equal(pdt_file_read(&text, &n, path, 1000, NULL), 0);
  assert_string_equal(text,
                      "before\n{\"type\":\"answer\",\"session\":0,\"request\":1,\"order\":[],"
                      "\"text\":\"\",\"complete\":false,\"ended_by\":\"max_rounds\"}\nafter\n");
  free(text);
  int ends[2];
  char got[16];
  assert_int_equal(pipe(ends), 0);
  snprintf(name, sizeof name, "/proc/self/fd/%d", ends[1]);
  assert_int_equal(pdt_output_open(&o, name, PDT_OUTPUT_PROTO, NULL), 0);
  assert_int_equal(pdt_output_answer(o, &m, NULL), 0);
  /* length, tag, length, request, ended_by */
  assert_int_equal(read(ends[0], got, sizeof got), 7);
  assert_memory_equal(got, "\x06\x12\x04\x10\x01\x30\x02", 7);
  assert_int_equal(pdt_output_close(o, NULL), 0);
  close(ends[0]);
  close(ends[1]);
  free(path);
}

/* Records read from memory; the message of the error, if there is one. */
static int64_t read_memory(void *data, size_t n, pdt_error *err) {
  pdt_output_reader r;
  const Pdt__OutputRecord *record;
  FILE *f = n ? fmemopen(data, n, "r") : fopen("/dev/null", "r");
  *err = (pdt_error){0};
  assert_int_equal(pdt_output_reader_attach(&r, f, (pdt_bytes)n, "memory", err), 0);
  while (pdt_output_reader_next(&r, &record, err) > 0) {
  }
  int64_t records = r.records;
  pdt_output_reader_close(&r);
  return records;
}

static void test_cut_everywhere(void **state) {
  (void)state;
  char *path = path_of("proto"), *data;
  pdt_bytes n;
  pdt_error err;
  int whole = 0;
  write_output(path, PDT_OUTPUT_PROTO);
  assert_int_equal(pdt_file_read(&data, &n, path, 1 << 20, NULL), 0);
  for (pdt_bytes cut = 0; cut <= n; cut++) {
    (void)read_memory(data, (size_t)cut, &err);
    whole += err.code == PDT_ERROR_NONE;
    if (err.code) assert_non_null(strstr(err.message, "the file is cut short"));
  }
  assert_int_equal(whole, 4); /* after none, one, two and all three records */
  free(data);
  free(path);
}

static void test_broken_records(void **state) {
  (void)state;
  pdt_error err;
  struct {
    char bytes[8];
    size_t n;
    const char *want;
  } cases[] = {
      {"\x00", 1, "its length is impossible"},
      {"\xff\xff\xff\xff\x0f", 5, "its length is impossible"},
      {"\x81\x80\x80\x80\x80\x00", 6, "its length is impossible"},
      {"\x02\x0a\x05", 3, "it is no OutputRecord"},
      {"\x02\x78\x01", 3, "its kind is unknown"},
      {"\x05\x0a\x03\x2a\x01\xff", 6, "its text is no UTF-8"},
      {"\x05\x12\x03\x22\x01\xff", 6, "its text is no UTF-8"},
      {"\x05\x1a\x03\x22\x01\xff", 6, "its text is no UTF-8"},
      {"\x02\x12\x00\x05", 4, "output record 1 at byte 3: the file is cut short"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    (void)read_memory(cases[i].bytes, cases[i].n, &err);
    assert_int_equal(err.code, PDT_ERROR_INPUT);
    if (!strstr(err.message, cases[i].want))
      fail_msg("expected '%s' in: %s", cases[i].want, err.message);
  }
}

static void test_inspect(void **state) {
  (void)state;
  char *path = path_of("proto"), *lines = path_of("jsonl"), *want, *text = NULL;
  pdt_bytes n;
  size_t length;
  write_output(path, PDT_OUTPUT_PROTO);
  write_output(lines, PDT_OUTPUT_JSONL);
  assert_int_equal(pdt_file_read(&want, &n, lines, 1 << 20, NULL), 0);
  FILE *out = open_memstream(&text, &length);
  assert_int_equal(pdt_inspect_output(path, true, out, NULL), 0);
  fclose(out);
  assert_string_equal(text, want); /* the same objects as --json writes */
  free(text);
  out = open_memstream(&text, &length);
  assert_int_equal(pdt_inspect_output(path, false, out, NULL), 0);
  fclose(out);
  assert_non_null(strstr(text, "      4  9223372036854775807       2       4            5       2  "
                               "yes   0,15      a\\x00b \"quoted\" \\ \\n\\x1b[31m\\x7f\\x9b "));
  assert_non_null(strstr(
      text, "answer of session 18446744073709551615 (request 4), not "
            "complete, ended by max_rounds, streams 2 0 1:\na\\x00b \"quoted\" \\ \n\\x1b[31m"));
  assert_non_null(strstr(text, "2 artifacts, 1 answers, "));
  free(text);
  free(want);
  free(lines);
  free(path);
}

/* An excerpt ends before a character that would be cut. */
static void test_excerpt(void **state) {
  (void)state;
  char *path = path_of("proto"), *text = NULL, long_text[52];
  size_t length;
  pdt_output *o;
  memset(long_text, 'x', 46);
  memcpy(long_text + 46, "\xf0\x9f\x8c\x8dyy", 6);
  pdt_artifact a = {.text = long_text, .n_text_bytes = sizeof long_text};
  assert_int_equal(pdt_output_open(&o, path, PDT_OUTPUT_PROTO, NULL), 0);
  assert_int_equal(pdt_output_artifact(o, &a, NULL), 0);
  assert_int_equal(pdt_output_close(o, NULL), 0);
  FILE *out = open_memstream(&text, &length);
  assert_int_equal(pdt_inspect_output(path, false, out, NULL), 0);
  fclose(out);
  assert_non_null(strstr(text, "xxx...\n"));
  free(text);
  free(path);
}

/* ---- traces ---- */

static const float note[] = {0.1F, -0.0F, 1.17549435e-38F}, hidden[] = {1e-45F, 3.40282347e38F};
static const float coverage[] = {0.3F, -16777217.0F};
static const pdt_trace_note window[] = {{0, -1}, {1, 0}};

static pdt_trace_block block(pdt_stream stream, pdt_action action) {
  return (pdt_trace_block){.stream = stream,
                           .action = action,
                           .attempt = 1,
                           .tokens = tokens,
                           .n_tokens = 2,
                           .note = note,
                           .coverage = coverage,
                           .readiness = 0.7F,
                           .last_hidden = hidden,
                           .n_hidden = 2};
}

static int begin(pdt_trace *t, int32_t request, pdt_error *err) {
  return pdt_trace_begin(t, request, slots, 2, note, 3, err);
}

static int add(pdt_trace *t, int32_t request, pdt_round round, const pdt_trace_block *blocks,
               int32_t n, pdt_error *err) {
  static const int32_t committed[] = {2, 0};
  static const pdt_stream stalled[] = {1};
  pdt_trace_round r = {.round = round,
                       .window = window,
                       .n_window = 2,
                       .gate = n == 0,
                       .blocks = blocks,
                       .n_blocks = n,
                       .stalled_next = stalled,
                       .n_stalled = 1,
                       .committed = committed,
                       .n_streams = 2};
  return pdt_trace_add_round(t, request, &r, err);
}

static int end(pdt_trace *t, int32_t request, pdt_error *err) {
  static const pdt_trace_stream streams[] = {
      {.tokens = tokens, .n_tokens = 2, .done = true, .forced_rounds = forced, .n_forced = 1},
      {.uncommitted = tokens, .n_uncommitted = 1}};
  static const pdt_stream owner[] = {-1, 1}, merged[] = {1, 0};
  pdt_trace_result result = {streams, 2, owner, merged};
  return pdt_trace_end(t, request, &result, err);
}

static void test_trace_text(void **state) {
  (void)state;
  char *path = path_of("trace"), *text;
  pdt_bytes n;
  pdt_trace *t;
  pdt_trace_block blocks[] = {block(0, PDT_ACTION_FORCE), block(1, PDT_ACTION_ROLLBACK)};
  assert_int_equal(pdt_trace_open(&t, path, 1, NULL), 0);
  assert_int_equal(begin(t, 0, NULL), 0);
  assert_int_equal(add(t, 0, 1, blocks, 2, NULL), 0);
  assert_int_equal(add(t, 0, 2, NULL, 0, NULL), 0);
  assert_int_equal(end(t, 0, NULL), 0);
  assert_int_equal(pdt_trace_close(t, NULL), 0);
  assert_int_equal(pdt_file_read(&text, &n, path, 1 << 20, NULL), 0);
#define VECTORS                                                                                    \
  "\"attempt\":1,\"tokens\":[0,1],\"note\":[0.100000001,-0,1.17549435e-38],\"coverage\":"          \
  "[0.300000012,-16777216],\"readiness\":0.699999988,\"last_hidden\":"                             \
  "[1.40129846e-45,3.40282347e+38]}"
#define ROUND_END "\"stalled_next\":[1],\"committed\":[2,0]}"
  assert_string_equal(
      text, "{\"plan_ids\":[0,15],\"plan_note\":[0.100000001,-0,1.17549435e-38],\"rounds\":["
            "{\"round\":1,\"window\":[[0,-1],[1,0]],\"streams\":[{\"stream\":0," VECTORS
            ",{\"stream\":1," VECTORS "],\"gate\":false,\"actions\":{\"0\":\"force\","
            "\"1\":\"rollback\"}," ROUND_END ",{\"round\":2,\"window\":[[0,-1],[1,0]],"
            "\"streams\":[],\"gate\":true,\"actions\":{}," ROUND_END "],"
            "\"streams\":[{\"stream\":0,\"tokens\":[0,1],\"uncommitted\":[],\"done\":true,"
            "\"forced_rounds\":[3]},{\"stream\":1,\"tokens\":[],\"uncommitted\":[0],"
            "\"done\":false,\"forced_rounds\":[]}],\"slot_owner\":{\"1\":1},"
            "\"merge_order\":[1,0]}\n");
#undef VECTORS
#undef ROUND_END
  free(text);
  free(path);
}

/* Sessions that overlap in time come out in request order. */
static void test_trace_order(void **state) {
  (void)state;
  char *path = path_of("trace"), *text;
  pdt_bytes n;
  pdt_trace *t;
  pdt_trace_block b = block(1, PDT_ACTION_COMMIT);
  assert_int_equal(pdt_trace_open(&t, path, 3, NULL), 0);
  assert_int_equal(begin(t, 2, NULL), 0);
  assert_int_equal(begin(t, 0, NULL), 0);
  assert_int_equal(add(t, 2, 1, &b, 1, NULL), 0);
  assert_int_equal(end(t, 0, NULL), 0);
  assert_int_equal(begin(t, 1, NULL), 0);
  assert_int_equal(add(t, 1, 1, NULL, 0, NULL), 0);
  assert_int_equal(add(t, 2, 2, NULL, 0, NULL), 0);
  assert_int_equal(end(t, 1, NULL), 0);
  assert_int_equal(end(t, 2, NULL), 0);
  assert_int_equal(pdt_trace_close(t, NULL), 0);
  assert_int_equal(pdt_file_read(&text, &n, path, 1 << 20, NULL), 0);
  char *rest = text;
  for (size_t i = 0; i < 3; i++) {
    json_t *object = line_of(&rest);
    assert_int_equal(json_array_size(json_object_get(object, "rounds")), i); /* 0, 1, 2 */
    json_decref(object);
  }
  assert_string_equal(rest, "");
  free(text);
  free(path);
}

static void test_trace_refusals(void **state) {
  (void)state;
  static const float bad[] = {0, NAN, 0}, infinite[] = {0, INFINITY};
  pdt_trace *t;
  pdt_error err = {0};
  char *path = path_of("trace");
  assert_int_equal(pdt_trace_open(&t, path, 1, NULL), 0);
  assert_int_equal(begin(t, 1, &err), -1);
  assert_string_equal(err.message, "trace: request 1: expected one of 1");
  assert_int_equal(end(t, 0, &err), -1);
  assert_string_equal(err.message, "trace: request 0: expected it begun, found it not begun");
  assert_int_equal(pdt_trace_begin(t, 0, slots, 2, bad, 3, &err), -1);
  assert_string_equal(err.message, "trace: plan_note[1]: expected a finite number, found nan");
  assert_int_equal(begin(t, 0, NULL), 0);
  assert_int_equal(begin(t, 0, &err), -1);
  assert_int_equal(add(t, 0, 2, NULL, 0, &err), -1);
  pdt_trace_block b = block(1, PDT_ACTION_COMMIT);
  b.readiness = NAN;
  assert_int_equal(add(t, 0, 1, &b, 1, &err), -1);
  b = block(1, PDT_ACTION_COMMIT);
  b.note = bad;
  assert_int_equal(add(t, 0, 1, &b, 1, &err), -1);
  b = block(1, PDT_ACTION_COMMIT);
  b.coverage = infinite;
  assert_int_equal(add(t, 0, 1, &b, 1, &err), -1);
  b = block(1, PDT_ACTION_COMMIT);
  b.last_hidden = infinite;
  assert_int_equal(add(t, 0, 1, &b, 1, &err), -1);
  assert_string_equal(err.message, "request 0: round 1: stream 1: trace: last_hidden[1]: expected "
                                   "a finite number, found inf");
  b = block(1, PDT_ACTION_NONE);
  assert_int_equal(add(t, 0, 1, &b, 1, &err), -1);
  b = block(2, PDT_ACTION_COMMIT);
  assert_int_equal(add(t, 0, 1, &b, 1, &err), -1);
  b = block(1, PDT_ACTION_COMMIT);
  pdt_trace_block twice[] = {b, b};
  assert_int_equal(add(t, 0, 1, twice, 2, &err), -1);
  assert_int_equal(add(t, 0, 1, &b, 1, NULL), 0); /* nothing of what was refused was kept */
  assert_int_equal(pdt_trace_close(t, &err), -1);
  assert_string_equal(err.message, "trace: request 0 has not ended");
  assert_int_equal(pdt_trace_open(&t, "/dev/full", 1, NULL), 0);
  assert_int_equal(begin(t, 0, &err), -1);
  assert_string_equal(err.message, "/dev/full: cannot write: No space left on device");
  pdt_trace_discard(t);
  free(path);
}

/* Nine digits bring back every float: all exponents, random and extreme mantissas. */
static void test_floats_round_trip(void **state) {
  (void)state;
  uint32_t random = 12345;
  for (uint32_t i = 0; i < 200000; i++) {
    random = random * 1664525U + 1013904223U;
    uint32_t bits = i < 2048 ? i << 23 >> 1 | (i & 1) : random ^ i << 7;
    float value, back;
    char text[64] = {0};
    memcpy(&value, &bits, sizeof value);
    if (!isfinite(value)) continue;
    FILE *out = fmemopen(text, sizeof text, "w");
    pdt_json_put_float(out, value);
    fclose(out);
    back = strtof(text, NULL);
    assert_memory_equal(&back, &value, sizeof value);
  }
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
  static const char *const names[] = {"proto",      "jsonl",     "atomic", "link",
                                      "descriptor", "protected", "trace"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    char *path = path_of(names[i]);
    unlink(path);
    free(path);
  }
  char *folder = path_of("");
  int rc = rmdir(folder); /* which also says that no temporary file was left there */
  free(folder);
  return rc;
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_proto),
                                     cmocka_unit_test(test_json_lines),
                                     cmocka_unit_test(test_refused_records),
                                     cmocka_unit_test(test_atomic),
                                     cmocka_unit_test(test_unwritable),
                                     cmocka_unit_test(test_protected),
                                     cmocka_unit_test(test_descriptors),
                                     cmocka_unit_test(test_excerpt),
                                     cmocka_unit_test(test_cut_everywhere),
                                     cmocka_unit_test(test_broken_records),
                                     cmocka_unit_test(test_inspect),
                                     cmocka_unit_test(test_trace_text),
                                     cmocka_unit_test(test_trace_order),
                                     cmocka_unit_test(test_trace_refusals),
                                     cmocka_unit_test(test_floats_round_trip)};
  return cmocka_run_group_tests_name("output", tests, make_folder, remove_folder);
}

#include "journal/output.h"

#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "base/json_text.h"
#include "base/memory.h"
#include "base/utf8.h"
#include "journal/bytes.h"
#include "journal/turns.h"

struct pdt_output {
  pdt_sink sink;
  pdt_turns *turns; /* NULL: records go on in the order given */
  bool in_memory;   /* they stay in `kept` */
  pdt_buffer kept;
  pdt_output_format format;
  uint8_t *buffer; /* [capacity]: one record in delimited form */
  size_t capacity;
};

enum { MAX_VARINT_BYTES = 5 }; /* of a 32-bit length */

int pdt_output_open(pdt_output **o, const char *path, pdt_output_format format, pdt_error *err) {
  if (PDT_NEW(o, 1, "output", err)) return -1;
  (*o)->format = format;
  if (pdt_sink_open(&(*o)->sink, path, err) == 0) return 0;
  pdt_output_discard(*o);
  *o = NULL;
  return -1;
}

int pdt_output_open_memory(pdt_output **o, pdt_output_format format, pdt_error *err) {
  if (PDT_NEW(o, 1, "output", err)) return -1;
  **o = (pdt_output){.format = format,
                     .in_memory = true,
                     .sink = {.file = {.fd = -1}, .fd = -1, .path = strdup("output")}};
  if ((*o)->sink.path) return 0;
  pdt_output_discard(*o);
  *o = NULL;
  return pdt_fail(err, PDT_ERROR_MEMORY, "output: no memory");
}

int pdt_output_take(pdt_output *o, char **data, size_t *bytes, pdt_error *err) {
  int rc = pdt_buffer_take(&o->kept, data, bytes, err);
  pdt_output_discard(o);
  return rc;
}

int pdt_output_close(pdt_output *o, pdt_error *err) {
  int rc = pdt_sink_commit(&o->sink, err);
  pdt_output_discard(o);
  return rc;
}

void pdt_output_discard(pdt_output *o) {
  if (!o) return;
  pdt_sink_discard(&o->sink);
  pdt_turns_free(o->turns);
  pdt_buffer_free(&o->kept);
  free(o->buffer);
  free(o);
}

static int to_sink(void *context, const void *data, pdt_bytes bytes, pdt_error *err) {
  return pdt_sink_write(context, data, bytes, err);
}

int pdt_output_in_turns(pdt_output *o, int32_t n_requests, pdt_error *err) {
  char *folder = pdt_sink_folder(&o->sink);
  int rc = folder ? pdt_turns_new(&o->turns, n_requests, folder, to_sink, &o->sink, err)
                  : pdt_fail(err, PDT_ERROR_MEMORY, "%s: no memory", o->sink.path);
  free(folder);
  return rc;
}

int pdt_output_end(pdt_output *o, int32_t request, pdt_error *err) {
  return o->turns ? pdt_turns_end(o->turns, request, err) : 0;
}

/* Writes a record as it stands in the file, or lets it wait for its turn. */
static int put_record(pdt_output *o, int32_t request, const void *data, size_t bytes,
                      pdt_error *err) {
  if (o->in_memory) return pdt_buffer_put(&o->kept, data, bytes, err);
  return o->turns ? pdt_turns_put(o->turns, request, data, (pdt_bytes)bytes, err)
                  : pdt_sink_write(&o->sink, data, (pdt_bytes)bytes, err);
}

static int32_t request_of(const Pdt__OutputRecord *record) {
  switch (record->record_case) {
  case PDT__OUTPUT_RECORD__RECORD_ARTIFACT:
    return (int32_t)record->artifact->request;
  case PDT__OUTPUT_RECORD__RECORD_FAILURE:
    return (int32_t)record->failure->request;
  default:
    return (int32_t)record->answer->request;
  }
}

const char *pdt_ending_name(Pdt__Ending ending) {
  switch (ending) {
  case PDT__ENDING__ENDING_COMPLETE:
    return "complete";
  case PDT__ENDING__ENDING_MAX_ROUNDS:
    return "max_rounds";
  default:
    return "unknown";
  }
}

static Pdt__Ending ending_of(bool complete) {
  return complete ? PDT__ENDING__ENDING_COMPLETE : PDT__ENDING__ENDING_MAX_ROUNDS;
}

static void put_artifact(FILE *out, const Pdt__CommitArtifact *a, bool *good) {
  (void)fputs("{\"type\":\"artifact\",\"session\":", out);
  pdt_json_put_u64(out, a->session);
  (void)fprintf(out, ",\"request\":%u,\"stream\":%u,\"tokens\":", a->request, a->stream);
  pdt_json_put_i32s(out, a->tokens, a->n_tokens);
  (void)fputs(",\"text\":", out);
  *good = pdt_json_put_string(out, (const char *)a->text.data, a->text.len);
  (void)fprintf(out, ",\"done\":%s,\"forced_rounds\":", a->done ? "true" : "false");
  pdt_json_put_u32s(out, a->forced_rounds, a->n_forced_rounds);
  (void)fprintf(out, ",\"uncommitted_tokens\":%u,\"slots\":", a->uncommitted_tokens);
  pdt_json_put_u32s(out, a->slots, a->n_slots);
  (void)fprintf(out, ",\"ended_by\":\"%s\"}", pdt_ending_name(a->ended_by));
}

static void put_answer(FILE *out, const Pdt__MergedAnswer *a, bool *good) {
  (void)fputs("{\"type\":\"answer\",\"session\":", out);
  pdt_json_put_u64(out, a->session);
  (void)fprintf(out, ",\"request\":%u,\"order\":", a->request);
  pdt_json_put_u32s(out, a->order, a->n_order);
  (void)fputs(",\"text\":", out);
  *good = pdt_json_put_string(out, (const char *)a->text.data, a->text.len);
  (void)fprintf(out, ",\"complete\":%s,\"ended_by\":\"%s\"}", a->complete ? "true" : "false",
                pdt_ending_name(a->ended_by));
}

static void put_failure(FILE *out, const Pdt__RequestFailure *f, bool *good) {
  (void)fputs("{\"type\":\"error\",\"session\":", out);
  pdt_json_put_u64(out, f->session);
  (void)fprintf(out, ",\"request\":%u,\"line\":%u,\"error\":", f->request, f->line);
  *good = pdt_json_put_string(out, (const char *)f->error.data, f->error.len);
  (void)fputc('}', out);
}

int pdt_output_put_json(FILE *out, const Pdt__OutputRecord *record, pdt_error *err) {
  bool good;
  if (record->record_case == PDT__OUTPUT_RECORD__RECORD_ARTIFACT)
    put_artifact(out, record->artifact, &good);
  else if (record->record_case == PDT__OUTPUT_RECORD__RECORD_FAILURE)
    put_failure(out, record->failure, &good);
  else
    put_answer(out, record->answer, &good);
  return good ? 0
              : pdt_fail(err, PDT_ERROR_RUNTIME,
                         "text cannot be written as JSON (hint: out of memory?)");
}

static int write_json(pdt_output *o, const Pdt__OutputRecord *record, pdt_error *err) {
  char *line = NULL;
  size_t length = 0;
  FILE *out = open_memstream(&line, &length);
  if (!out) return pdt_fail(err, PDT_ERROR_MEMORY, "%s: no memory for a record", o->sink.path);
  int rc = pdt_output_put_json(out, record, err);
  (void)fputc('\n', out);
  bool good = !ferror(out);
  if ((fclose(out) || !good) && !rc)
    rc = pdt_fail(err, PDT_ERROR_MEMORY, "%s: no memory for a record", o->sink.path);
  if (!rc) rc = put_record(o, request_of(record), line, length, err);
  free(line);
  return rc;
}

static size_t put_varint(uint8_t *to, size_t value) {
  size_t n = 0;
  for (; value >= 0x80; value >>= 7) to[n++] = (uint8_t)(value | 0x80);
  to[n++] = (uint8_t)value;
  return n;
}

static int write_record(pdt_output *o, const Pdt__OutputRecord *record, pdt_error *err) {
  size_t length = pdt__output_record__get_packed_size(record);
  if (length > PDT_OUTPUT_MAX_RECORD_BYTES)
    return pdt_fail(err, PDT_ERROR_RUNTIME, "%s: a record of %zu bytes: expected at most %d",
                    o->sink.path, length, PDT_OUTPUT_MAX_RECORD_BYTES);
  if (o->format == PDT_OUTPUT_JSONL) return write_json(o, record, err);
  if (pdt_bytes_reserve(&o->buffer, &o->capacity, length + MAX_VARINT_BYTES, "output record", err))
    return -1;
  size_t n = put_varint(o->buffer, length);
  n += pdt__output_record__pack(record, o->buffer + n);
  return put_record(o, request_of(record), o->buffer, n, err);
}

/* Numbers that are unsigned in the file. */
static int natural(const int32_t *values, int32_t n, const char *what, pdt_error *err) {
  if (n < 0) return pdt_fail(err, PDT_ERROR_RUNTIME, "%s: a count of %d", what, n);
  for (int32_t i = 0; i < n; i++)
    if (values[i] < 0)
      return pdt_fail(err, PDT_ERROR_RUNTIME, "%s: expected 0 or more, found %d", what, values[i]);
  return 0;
}

static int check_text(const char *text, size_t n_bytes, pdt_error *err) {
  return pdt_is_utf8(text, n_bytes) ? 0 : pdt_fail(err, PDT_ERROR_RUNTIME, "text: it is no UTF-8");
}

static int check_artifact(const pdt_artifact *a, pdt_error *err) {
  if (natural(&a->request, 1, "request", err) || natural(&a->stream, 1, "stream", err) ||
      natural(a->tokens, a->n_tokens, "tokens", err) ||
      natural(a->forced_rounds, a->n_forced, "forced rounds", err) ||
      natural(&a->uncommitted_tokens, 1, "uncommitted tokens", err) ||
      natural(a->slots, a->n_slots, "slots", err) || check_text(a->text, a->n_text_bytes, err))
    return pdt_fail_in(err, "output: artifact of request %d, stream %d", a->request, a->stream);
  return 0;
}

/* Packing only reads what a message points to, though its struct does not say so. */
static uint32_t *borrow(const int32_t *values) {
  return (uint32_t *)(uintptr_t)values;
}

int pdt_output_artifact(pdt_output *o, const pdt_artifact *a, pdt_error *err) {
  if (check_artifact(a, err)) return -1;
  Pdt__CommitArtifact m = PDT__COMMIT_ARTIFACT__INIT;
  m.session = a->session;
  m.request = (uint32_t)a->request;
  m.stream = (uint32_t)a->stream;
  m.tokens = (int32_t *)(uintptr_t)a->tokens;
  m.n_tokens = (size_t)a->n_tokens;
  m.text = (ProtobufCBinaryData){a->n_text_bytes, (uint8_t *)(uintptr_t)a->text};
  m.done = a->done;
  m.forced_rounds = borrow(a->forced_rounds);
  m.n_forced_rounds = (size_t)a->n_forced;
  m.uncommitted_tokens = (uint32_t)a->uncommitted_tokens;
  m.slots = borrow(a->slots);
  m.n_slots = (size_t)a->n_slots;
  m.ended_by = ending_of(a->complete);
  Pdt__OutputRecord record = PDT__OUTPUT_RECORD__INIT;
  record.record_case = PDT__OUTPUT_RECORD__RECORD_ARTIFACT;
  record.artifact = &m;
  return write_record(o, &record, err);
}

int pdt_output_answer(pdt_output *o, const pdt_answer *a, pdt_error *err) {
  if (natural(&a->request, 1, "request", err) || natural(a->order, a->n_order, "order", err) ||
      check_text(a->text, a->n_text_bytes, err))
    return pdt_fail_in(err, "output: answer of request %d", a->request);
  Pdt__MergedAnswer m = PDT__MERGED_ANSWER__INIT;
  m.session = a->session;
  m.request = (uint32_t)a->request;
  m.order = borrow(a->order);
  m.n_order = (size_t)a->n_order;
  m.text = (ProtobufCBinaryData){a->n_text_bytes, (uint8_t *)(uintptr_t)a->text};
  m.complete = a->complete;
  m.ended_by = ending_of(a->complete);
  Pdt__OutputRecord record = PDT__OUTPUT_RECORD__INIT;
  record.record_case = PDT__OUTPUT_RECORD__RECORD_ANSWER;
  record.answer = &m;
  return write_record(o, &record, err);
}

int pdt_output_failure(pdt_output *o, const Pdt__RequestFailure *failure, pdt_error *err) {
  if (check_text((const char *)failure->error.data, failure->error.len, err))
    return pdt_fail_in(err, "output: error of request %u", failure->request);
  Pdt__OutputRecord record = PDT__OUTPUT_RECORD__INIT;
  record.record_case = PDT__OUTPUT_RECORD__RECORD_FAILURE;
  record.failure = (Pdt__RequestFailure *)(uintptr_t)failure;
  return write_record(o, &record, err);
}

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/text_safe.h"
#include "journal/inspect.h"
#include "journal/output.h"

enum { EXCERPT_BYTES = 48 };

static void put_excerpt(FILE *out, const ProtobufCBinaryData *text) {
  size_t n = text->len;
  if (n > EXCERPT_BYTES) {
    n = EXCERPT_BYTES;
    while (n > 0 && (text->data[n] & 0xc0) == 0x80) n--; /* not inside a character */
  }
  pdt_put_escaped(out, (const char *)text->data, n, false);
  (void)fputs(n < text->len ? "...\n" : "\n", out);
}

static void table_artifact(FILE *out, const Pdt__CommitArtifact *a) {
  (void)fprintf(out, "%7u  %7" PRIu64 "  %6u  %6zu  %11u  %6zu  %-4s  ", a->request, a->session,
                a->stream, a->n_tokens, a->uncommitted_tokens, a->n_forced_rounds,
                a->done ? "yes" : "no");
  int width = 0;
  for (size_t i = 0; i < a->n_slots; i++) width += fprintf(out, "%s%u", i ? "," : "", a->slots[i]);
  (void)fprintf(out, "%*s", width < 8 ? 10 - width : 2, "");
  put_excerpt(out, &a->text);
}

static void table_answer(FILE *out, const Pdt__MergedAnswer *a) {
  (void)fprintf(out, "\nanswer of session %" PRIu64 " (request %u), %s%s, streams", a->session,
                a->request, a->complete ? "complete" : "not complete, ended by ",
                a->complete ? "" : pdt_ending_name(a->ended_by));
  for (size_t i = 0; i < a->n_order; i++) (void)fprintf(out, " %u", a->order[i]);
  (void)fputs(":\n", out);
  pdt_put_escaped(out, (const char *)a->text.data, a->text.len, true);
  (void)fputs("\n\n", out);
}

static void table_failure(FILE *out, const Pdt__RequestFailure *f) {
  (void)fprintf(out, "\nno answer of session %" PRIu64 " (request %u):\n", f->session, f->request);
  pdt_put_escaped(out, (const char *)f->error.data, f->error.len, true);
  (void)fputs("\n\n", out);
}

static int print_record(const Pdt__OutputRecord *record, bool json, FILE *out, pdt_error *err) {
  if (json) {
    if (pdt_output_put_json(out, record, err)) return -1;
    (void)fputc('\n', out);
  } else if (record->record_case == PDT__OUTPUT_RECORD__RECORD_ARTIFACT) {
    table_artifact(out, record->artifact);
  } else if (record->record_case == PDT__OUTPUT_RECORD__RECORD_FAILURE) {
    table_failure(out, record->failure);
  } else {
    table_answer(out, record->answer);
  }
  return 0;
}

static int print_records(pdt_output_reader *r, bool json, FILE *out, pdt_error *err) {
  const Pdt__OutputRecord *record;
  int64_t artifacts = 0, failures = 0;
  int more;
  while ((more = pdt_output_reader_next(r, &record, err)) > 0) {
    if (!json && r->records == 1)
      (void)fprintf(out, "%7s  %7s  %6s  %6s  %11s  %6s  %-4s  %-8s  %s\n", "request", "session",
                    "stream", "tokens", "uncommitted", "forced", "done", "slots", "text");
    if (print_record(record, json, out, err)) return -1;
    artifacts += record->record_case == PDT__OUTPUT_RECORD__RECORD_ARTIFACT;
    failures += record->record_case == PDT__OUTPUT_RECORD__RECORD_FAILURE;
  }
  if (more < 0) return -1;
  if (!json && failures > 0) (void)fprintf(out, "%" PRId64 " requests not served, ", failures);
  if (!json)
    (void)fprintf(out, "%" PRId64 " artifacts, %" PRId64 " answers, %lld bytes\n", artifacts,
                  r->records - artifacts - failures, (long long)r->size);
  if (fflush(out) || ferror(out))
    return pdt_fail(err, PDT_ERROR_IO, "cannot write what %s holds: %s", r->name, strerror(errno));
  return 0;
}

int pdt_inspect_output(const char *path, bool json, FILE *out, pdt_error *err) {
  pdt_output_reader reader;
  if (pdt_output_reader_open(&reader, path, err)) return -1;
  int rc = print_records(&reader, json, out, err);
  pdt_output_reader_close(&reader);
  return rc;
}

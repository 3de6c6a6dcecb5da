#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json_text.h"
#include "base/utf8.h"
#include "journal/bytes.h"
#include "journal/output.h"

int pdt_output_reader_attach(pdt_output_reader *r, FILE *file, pdt_bytes size, const char *name,
                             pdt_error *err) {
  *r = (pdt_output_reader){.file = file, .size = size, .name = strdup(name)};
  if (r->name) return 0;
  pdt_output_reader_close(r);
  return pdt_fail(err, PDT_ERROR_MEMORY, "%s: no memory", name);
}

int pdt_output_reader_open(pdt_output_reader *r, const char *path, pdt_error *err) {
  FILE *file;
  pdt_bytes size;
  *r = (pdt_output_reader){0};
  if (pdt_file_stream(&file, &size, path, err)) return -1;
  return pdt_output_reader_attach(r, file, size, path, err);
}

void pdt_output_reader_close(pdt_output_reader *r) {
  pdt__output_record__free_unpacked(r->record, NULL);
  if (r->file) fclose(r->file);
  free(r->name);
  free(r->buffer);
  *r = (pdt_output_reader){0};
}

static int corrupt(const pdt_output_reader *r, const char *what, pdt_error *err) {
  return pdt_fail(err, PDT_ERROR_INPUT, "%s: output record %lld at byte %lld: %s", r->name,
                  (long long)r->records, (long long)r->at, what);
}

/* The length before a record and, in *head, the bytes it takes. */
static int read_length(pdt_output_reader *r, size_t *length, pdt_bytes *head, pdt_error *err) {
  uint8_t byte = 0x80;
  *length = 0;
  for (*head = 0; byte >= 0x80 && *head < 5; (*head)++) {
    if (r->at + *head == r->size) return corrupt(r, "the file is cut short", err);
    if (pdt_bytes_read(r->file, &byte, 1, r->name, err)) return -1;
    *length |= (size_t)(byte & 0x7f) << (7 * *head);
  }
  if (byte >= 0x80) *length = 0;
  if (*length == 0 || *length > PDT_OUTPUT_MAX_RECORD_BYTES)
    return corrupt(r, "its length is impossible (hint: is this an output file?)", err);
  if ((pdt_bytes)*length > r->size - r->at - *head) return corrupt(r, "the file is cut short", err);
  return 0;
}

static int check_record(const pdt_output_reader *r, pdt_error *err) {
  const Pdt__OutputRecord *record = r->record;
  if (!record) return corrupt(r, "it is no OutputRecord", err);
  if (record->record_case == PDT__OUTPUT_RECORD__RECORD__NOT_SET)
    return corrupt(r, "its kind is unknown", err);
  const ProtobufCBinaryData *text =
      record->record_case == PDT__OUTPUT_RECORD__RECORD_ARTIFACT  ? &record->artifact->text
      : record->record_case == PDT__OUTPUT_RECORD__RECORD_FAILURE ? &record->failure->error
                                                                  : &record->answer->text;
  if (!pdt_is_utf8((const char *)text->data, text->len))
    return corrupt(r, "its text is no UTF-8", err);
  return 0;
}

int pdt_output_reader_next(pdt_output_reader *r, const Pdt__OutputRecord **record, pdt_error *err) {
  size_t length;
  pdt_bytes head;
  pdt__output_record__free_unpacked(r->record, NULL);
  r->record = NULL;
  *record = NULL;
  if (r->at == r->size) return 0;
  if (read_length(r, &length, &head, err) ||
      pdt_bytes_reserve(&r->buffer, &r->capacity, length, "output record", err) ||
      pdt_bytes_read(r->file, r->buffer, length, r->name, err))
    return -1;
  r->record = pdt__output_record__unpack(NULL, length, r->buffer);
  if (check_record(r, err)) return -1;
  *record = r->record;
  r->at += head + (pdt_bytes)length;
  r->records++;
  return 1;
}

bool pdt_is_output(const char *path) {
  pdt_output_reader reader;
  const Pdt__OutputRecord *record;
  if (pdt_output_reader_open(&reader, path, NULL)) return false;
  bool is = pdt_output_reader_next(&reader, &record, NULL) > 0;
  pdt_output_reader_close(&reader);
  return is;
}

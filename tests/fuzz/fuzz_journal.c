/* Journals and output files that anybody may have written: read, checked and printed, in both
 * forms. The first byte chooses. A journal may come without checksums (the fuzzer cannot guess
 * them): they are then put right before it is read. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "journal/bytes.h"
#include "journal/inspect.h"
#include "journal/journal.h"
#include "journal/output.h"
#include "journal/replay.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Frames as the reader walks them, with right checksums. */
static void mend(uint8_t *data, size_t size) {
  size_t at = PDT_JOURNAL_HEAD_BYTES;
  while (size >= at + PDT_JOURNAL_FRAME_BYTES) {
    size_t length = pdt_get_le32(data + at);
    if (length > size - at - PDT_JOURNAL_FRAME_BYTES) return;
    pdt_put_le64(data + at + 4 + length, XXH3_64bits(data + at, 4 + length));
    at += length + PDT_JOURNAL_FRAME_BYTES;
  }
}

/* What an ended session promises. */
static void check_session(const pdt_replay_session *s) {
  if (s->fault != PDT_FAULT_NONE &&
      (s->complete || s->fault > PDT_FAULT_WITHDRAWN || s->fault_stream < 0 ||
       s->fault_stream >= s->request.settings.streams))
    abort();
  for (pdt_stream k = 0; s->session.streams && k < s->request.settings.streams; k++) {
    const pdt_stream_state *stream = &s->session.streams[k];
    if (stream->n_committed > stream->n_tokens || stream->n_tokens > stream->max_tokens ||
        stream->n_tokens > s->request.settings.limits.max_tokens || (s->complete && !stream->done))
      abort();
  }
}

static void read_journal(uint8_t *data, size_t size) {
  pdt_journal_reader r;
  pdt_journal_entry entry;
  pdt_replay replay;
  const pdt_replay_session *ended;
  pdt_error err;
  if (pdt_journal_reader_attach(&r, fmemopen(data, size, "r"), (pdt_bytes)size, "fuzz", &err))
    return;
  pdt_replay_init(&replay);
  while (pdt_journal_reader_next(&r, &entry, &err) > 0) {
    if (pdt_replay_entry(&replay, &entry, &ended, &err)) break;
    if (ended) check_session(ended);
  }
  if (r.good + r.torn > r.size) abort();
  pdt_replay_free(&replay);
  pdt_journal_reader_close(&r);
}

static void read_output(uint8_t *data, size_t size) {
  pdt_output_reader r;
  const Pdt__OutputRecord *record;
  pdt_error err;
  if (pdt_output_reader_attach(&r, fmemopen(data, size, "r"), (pdt_bytes)size, "fuzz", &err))
    return;
  while (pdt_output_reader_next(&r, &record, &err) > 0)
    if (r.at > r.size) abort();
  pdt_output_reader_close(&r);
}

/* The printed forms, by way of a file as they are called. */
static void print(const uint8_t *data, size_t size, bool journal, bool json) {
  char path[] = "/dev/shm/pdt-fuzz-XXXXXX";
  int fd = mkstemp(path);
  FILE *file = fd < 0 ? NULL : fdopen(fd, "w"), *out = fopen("/dev/null", "w");
  pdt_error err;
  if (!file || !out || fwrite(data, 1, size, file) != size || fclose(file)) abort();
  (void)(journal ? pdt_inspect_journal : pdt_inspect_output)(path, json, out, &err);
  (void)fclose(out);
  (void)remove(path);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 2) return 0;
  uint8_t *copy = malloc(size - 1);
  if (!copy) return 0;
  memcpy(copy, data + 1, size - 1);
  bool journal = data[0] & 1, mended = data[0] & 2, printed = data[0] & 4, json = data[0] & 8;
  if (journal && mended) mend(copy, size - 1);
  if (printed)
    print(copy, size - 1, journal, json);
  else if (journal)
    read_journal(copy, size - 1);
  else
    read_output(copy, size - 1);
  free(copy);
  return 0;
}

/* The output file of a run: one artifact a stream and one merged answer a session (3.8), in the
 * order in which they are given, or of their requests. Two forms: OutputRecord messages of
 * proto/pdt.proto, each preceded by its length as a varint (protobuf's delimited form), or JSON
 * lines. No communication. */
#ifndef PDT_JOURNAL_OUTPUT_H
#define PDT_JOURNAL_OUTPUT_H

#include <stdio.h>

#include "base/error.h"
#include "base/types.h"
#include "journal/sink.h"
#include "pdt.pb-c.h"

enum { PDT_OUTPUT_MAX_RECORD_BYTES = 64 << 20 };

typedef enum pdt_output_format { PDT_OUTPUT_PROTO, PDT_OUTPUT_JSONL } pdt_output_format;

/* What one stream committed. Pointers are the caller's. */
typedef struct pdt_artifact {
  uint64_t session; /* the request's session number */
  int32_t request;  /* index in the run, from 0 */
  pdt_stream stream;
  const pdt_token *tokens; /* [n_tokens], committed */
  int32_t n_tokens;
  const char *text; /* [n_text_bytes], UTF-8, U+0000 allowed */
  size_t n_text_bytes;
  bool done;
  const pdt_round *forced_rounds; /* [n_forced] */
  int32_t n_forced;
  int32_t uncommitted_tokens; /* emitted but never committed */
  const int32_t *slots;       /* [n_slots]: plan slots the stream owns, ascending */
  int32_t n_slots;
  bool complete; /* every stream of the session is done; else max_rounds ended it */
} pdt_artifact;

/* The merged answer of one session. Pointers are the caller's. */
typedef struct pdt_answer {
  uint64_t session;
  int32_t request;
  const pdt_stream *order; /* [n_order]: streams in the order of the text */
  int32_t n_order;
  const char *text; /* [n_text_bytes], UTF-8, U+0000 allowed */
  size_t n_text_bytes;
  bool complete; /* as above */
} pdt_answer;

typedef struct pdt_output pdt_output;

/* Opens the file at path (see journal/sink.h for devices and pipes); a regular file appears at
 * close. Sets *o. Ended by close or discard. Errors: IO, MEMORY. */
int pdt_output_open(pdt_output **o, const char *path, pdt_output_format format, pdt_error *err);

/* The same into memory. Ended by take or discard. Errors: MEMORY. */
int pdt_output_open_memory(pdt_output **o, pdt_output_format format, pdt_error *err);

/* Gives the bytes in memory away, zero-terminated, for free(), and frees o, also on failure.
 * Errors: MEMORY. */
int pdt_output_take(pdt_output *o, char **data, size_t *bytes, pdt_error *err);

/* From now on the records of n_requests requests may come in any order, and are written in that of
 * their requests: those of a request before its turn wait (turns.h). Errors: MEMORY. */
int pdt_output_in_turns(pdt_output *o, int32_t n_requests, pdt_error *err);

/* Of such an output: no more records of this request come. Errors: IO, RUNTIME. */
int pdt_output_end(pdt_output *o, int32_t request, pdt_error *err);

/* Writes one record with one write. Numbers must not be negative. JSON objects are
 *   {"type":"artifact","session":,"request":,"stream":,"tokens":[],"text":"","done":,
 *    "forced_rounds":[],"uncommitted_tokens":,"slots":[],"ended_by":""}
 *   {"type":"answer","session":,"request":,"order":[],"text":"","complete":,"ended_by":""}
 * in this order of keys, "ended_by" as pdt_ending_name has it; a session number above 2^63 - 1 is a
 * decimal string, since many readers hold no larger integer. Errors: IO, MEMORY, RUNTIME (text that
 * is no UTF-8, a negative number, a record above PDT_OUTPUT_MAX_RECORD_BYTES). */
int pdt_output_artifact(pdt_output *o, const pdt_artifact *a, pdt_error *err);
int pdt_output_answer(pdt_output *o, const pdt_answer *a, pdt_error *err);

/* The same of a request that is not served, `error` being UTF-8:
 *   {"type":"error","session":,"request":,"line":,"error":""} */
int pdt_output_failure(pdt_output *o, const Pdt__RequestFailure *failure, pdt_error *err);

/* "complete", "max_rounds", or "unknown" for a number that a file has and this does not know. */
const char *pdt_ending_name(Pdt__Ending ending);

/* Writes the JSON object of a record, without a newline; errors of the stream stay in it. Errors:
 * RUNTIME (no UTF-8, or no memory to quote it), after which half an object may be in out. */
int pdt_output_put_json(FILE *out, const Pdt__OutputRecord *record, pdt_error *err);

/* Gives the file its name, on disk, and frees o, also on failure. Errors: IO. */
int pdt_output_close(pdt_output *o, pdt_error *err);

/* Frees o and leaves no regular file; NULL is fine. */
void pdt_output_discard(pdt_output *o);

/* Reads the delimited form. */
typedef struct pdt_output_reader {
  FILE *file;
  char *name;     /* for errors */
  pdt_bytes size; /* of the file when it was opened */
  pdt_bytes at;   /* bytes read: whole records */
  int64_t records;
  uint8_t *buffer; /* [capacity] */
  size_t capacity;
  Pdt__OutputRecord *record;
} pdt_output_reader;

/* Opens a regular file. Errors: IO, INPUT (not a regular file), MEMORY; r is then closed. */
int pdt_output_reader_open(pdt_output_reader *r, const char *path, pdt_error *err);

/* The same for a stream of size bytes that is already open; takes it over, also on failure. */
int pdt_output_reader_attach(pdt_output_reader *r, FILE *file, pdt_bytes size, const char *name,
                             pdt_error *err);

/* Reads the next record, which belongs to the reader until its next call: 1, 0 at the end of the
 * file, -1 on error. Errors: INPUT with the offset (cut short, impossible length, unknown record,
 * text that is no UTF-8), IO, MEMORY. */
int pdt_output_reader_next(pdt_output_reader *r, const Pdt__OutputRecord **record, pdt_error *err);

/* Safe on a closed reader. */
void pdt_output_reader_close(pdt_output_reader *r);

/* Is there a regular file whose first record reads well? There is no magic to go by. */
bool pdt_is_output(const char *path);

#endif

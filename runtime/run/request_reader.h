/* Requests one by one, from a file or the command line: what rank 0 reads. */
#ifndef PDT_RUN_REQUEST_READER_H
#define PDT_RUN_REQUEST_READER_H

#include "base/lines.h"
#include "request/chat.h"
#include "request/parse.h"
#include "run/decode.h"

typedef struct pdt_request_reader {
  const pdt_decode_options *options; /* borrowed, as what the context points to */
  pdt_request_context context;
  pdt_request_chat chat;
  pdt_lines lines;             /* of --requests: a pipe or standard input, too */
  int32_t n;                   /* requests handed out */
  uint32_t told;               /* of how they differ from what the sidecar was trained with */
  char where[PDT_WHERE_BYTES]; /* of the one in work, for errors */
} pdt_request_reader;

/* Opens what the options name; a pipe blocks until somebody writes to it. Closed by
 * pdt_request_reader_close, also after an error. Errors: IO, INPUT (a folder), USAGE (--date),
 * MEMORY. */
int pdt_request_reader_open(pdt_request_reader *s, const pdt_decode_options *options,
                            const pdt_request_context *context, pdt_error *err);

/* What pdt_request_reader_next returns of a request that is wrong, where others may follow. */
enum { PDT_READER_WRONG = 2 };

/* The next request, resolved, which the caller frees: 1; 0 after the last; -1 on error;
 * PDT_READER_WRONG where nothing but this one of many is wrong, which err says: it counts, and the
 * next one can be read. Blank lines are passed over. Memory is that of one request at a time.
 * Errors, with file and line: INPUT (also when there was none at all), USAGE (a setting), IO,
 * MEMORY. */
int pdt_request_reader_next(pdt_request_reader *s, pdt_request *r, pdt_error *err);

/* Safe on a zeroed one. */
void pdt_request_reader_close(pdt_request_reader *s);

#endif

/* Requests one by one, from a file or the command line: what rank 0 reads. */
#ifndef PDT_RUN_REQUEST_READER_H
#define PDT_RUN_REQUEST_READER_H

#include <stdio.h>

#include "base/buffer.h"
#include "request/parse.h"
#include "run/decode.h"

enum { PDT_WHERE_BYTES = 300 };

typedef struct pdt_request_reader {
  const pdt_decode_options *options; /* borrowed, as what the context points to */
  pdt_request_context context;
  FILE *file;                  /* of --requests: a pipe or standard input, too */
  pdt_buffer read;             /* what was read of it */
  size_t begin;                /* of the line in work, in what was read */
  size_t line_bytes;           /* its length */
  bool ended;                  /* nothing is left to read */
  int32_t line;                /* its number, from 1 */
  int32_t n;                   /* requests handed out */
  uint32_t told;               /* of how they differ from what the sidecar was trained with */
  char where[PDT_WHERE_BYTES]; /* of the one in work, for errors */
} pdt_request_reader;

/* Opens what the options name; a pipe blocks until somebody writes to it. Closed by
 * pdt_request_reader_close, also after an error. Errors: IO, INPUT (a folder), MEMORY. */
int pdt_request_reader_open(pdt_request_reader *s, const pdt_decode_options *options,
                            const pdt_request_context *context, pdt_error *err);

/* The next request, resolved, which the caller frees: 1, 0 after the last, -1 on error. Blank lines
 * are passed over. Memory is that of one request at a time. Errors, with file and line: INPUT (also
 * when there was none at all), USAGE (a setting), IO, MEMORY. */
int pdt_request_reader_next(pdt_request_reader *s, pdt_request *r, pdt_error *err);

/* Safe on a zeroed one. */
void pdt_request_reader_close(pdt_request_reader *s);

/* What errors call a line of a file (0: all of it): of a long path its end, cut between characters.
 */
void pdt_where(char where[PDT_WHERE_BYTES], const char *path, int32_t line);

#endif

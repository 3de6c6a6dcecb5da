/* A file line by line, in memory of its longest line. */
#ifndef PDT_BASE_LINES_H
#define PDT_BASE_LINES_H

#include <stdio.h>

#include "base/buffer.h"

enum { PDT_WHERE_BYTES = 300 };

/* A file being read. A zeroed one is of no file. */
typedef struct pdt_lines {
  const char *path; /* borrowed */
  FILE *file;
  size_t longest;    /* bytes that a line may have */
  const char *text;  /* the line at hand, without its end; until the next one is asked for */
  size_t bytes;      /* its length */
  int64_t number;    /* its number, from 1; 0: none was read yet */
  pdt_bytes n_bytes; /* of the file, up to the end of that line */
  pdt_buffer read;   /* what was read and is not done with */
  size_t begin;      /* of what comes behind the line at hand */
  bool ended;        /* nothing is left to read */
} pdt_lines;

/* Opens a regular file. Closed by pdt_lines_close, also after an error. Errors: IO, INPUT (another
 * kind of file), MEMORY. */
int pdt_lines_open(pdt_lines *l, const char *path, size_t longest, pdt_error *err);

/* The same of what can be read but once: "-" is standard input, and a pipe blocks until somebody
 * writes to it. Errors: IO, INPUT (a folder), MEMORY. */
int pdt_lines_open_once(pdt_lines *l, const char *path, size_t longest, pdt_error *err);

/* Safe on a zeroed one. */
void pdt_lines_close(pdt_lines *l);

/* Goes to the next line, or to the next that has more than white space: 1; 0 at the end of the
 * file, once what a pipe has given is used up and nobody writes to it any more; -1 on errors: IO,
 * INPUT (a line that is too long, by its number), MEMORY. */
int pdt_lines_next(pdt_lines *l, pdt_error *err);
int pdt_lines_next_filled(pdt_lines *l, pdt_error *err);

/* What errors call a line of a file (0: all of it): "requests.jsonl: line 3", of a long path its
 * end, cut between characters. */
void pdt_where(char where[PDT_WHERE_BYTES], const char *path, int64_t line);

#endif

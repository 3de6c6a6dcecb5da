/* What a user should hear that is no error: readers of files collect it, the command prints it
 * once, from one rank. Equal sentences are kept once; when many come, the first ones are kept and
 * the rest counted. */
#ifndef PDT_BASE_NOTICES_H
#define PDT_BASE_NOTICES_H

#include <stdio.h>

#include "base/types.h"

typedef enum pdt_notice_kind {
  PDT_NOTICE_WARNING, /* the result may not be what the user expects; always printed */
  PDT_NOTICE_DETAIL,  /* a value that a file leaves open was filled in; printed under --verbose */
} pdt_notice_kind;

enum { PDT_MAX_NOTICES = 24 };

/* Zero-initialized it is empty; nothing to free. */
typedef struct pdt_notices {
  int32_t n;      /* kept */
  int32_t n_more; /* left out, of either kind */
  struct pdt_notice {
    pdt_notice_kind kind;
    char text[512]; /* a longer one is cut */
  } kept[PDT_MAX_NOTICES];
} pdt_notices;

/* Adds a sentence without a trailing newline: where, what, and what was taken, as in
 * "config.json: 'head_dim' is missing: 128, the default of qwen3, is taken". `notices` may be NULL:
 * then nobody listens. */
void pdt_notice(pdt_notices *notices, pdt_notice_kind kind, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Prints a line each, behind `name` ("pdt decode: warning: ..."): warnings, and with `details` the
 * rest ("pdt decode: note: ..."). */
void pdt_notices_print(const pdt_notices *notices, FILE *out, const char *name, bool details);

#endif

/* A resolved request as a message (proto/pdt.proto): what rank 0 sends to the others, and what the
 * journal keeps of it. No communication here. */
#ifndef PDT_REQUEST_MESSAGE_H
#define PDT_REQUEST_MESSAGE_H

#include <stdio.h>

#include "base/buffer.h"
#include "pdt.pb-c.h"
#include "request/parse.h"

/* The message of a request, whose lists it borrows. */
typedef struct pdt_request_message {
  Pdt__Request message;
  Pdt__Settings settings;
  Pdt__TokenIds *prefixes; /* [streams] */
  Pdt__TokenIds **list;    /* [streams]: their addresses */
} pdt_request_message;

/* Freed by pdt_request_message_free, also after an error. m must not be moved. Errors: MEMORY. */
int pdt_request_message_new(pdt_request_message *m, const pdt_request *r, pdt_error *err);
void pdt_request_message_free(pdt_request_message *m);

/* A request of its own memory from a message, in which everything is checked, as in a request that
 * was parsed: against model and sidecar of the context or, where there is none (NULL), as far as it
 * can be. `where` names it in errors. Errors: INPUT, MEMORY. */
int pdt_request_from_message(pdt_request *r, const Pdt__Request *message, const char *where,
                             const pdt_request_context *context, pdt_error *err);

/* Appends the bytes of a request's message, behind their number in four bytes, to a buffer. Errors:
 * MEMORY, INPUT (above 1 GiB); the buffer is then as it was. */
int pdt_request_pack(pdt_buffer *to, const pdt_request *r, const char *where, pdt_error *err);

/* Reads the request at `*at` of bytes [n], and moves *at behind it. Errors: INPUT, MEMORY. */
int pdt_request_unpack(pdt_request *r, const char *bytes, size_t n, size_t *at, const char *where,
                       const pdt_request_context *context, pdt_error *err);

/* A request of its own memory that is as the one given, which was read against the context. Errors:
 * MEMORY. */
int pdt_request_copy(pdt_request *copy, const pdt_request *r, const pdt_request_context *context,
                     pdt_error *err);

/* What of a request is another than in a second one: "prompt", "seed"; NULL: nothing is.
 * For messages. Pure. */
const char *pdt_request_difference(const Pdt__Request *a, const Pdt__Request *b);

/* A resolved request, as pdt_request_parse reads it: token ids, every setting by name. Errors stay
 * in the stream (ferror). */
void pdt_request_put_json(FILE *out, const Pdt__Request *request);

#endif

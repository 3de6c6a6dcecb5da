/* Resolved requests, put away one by one as their messages (request/message.h) and taken back in
 * that order, as often as wanted. So all can be checked before the first is run, and none be held
 * meanwhile: what a spool keeps in memory is a mebibyte and the request in work, the rest is in a
 * file without a name. No communication: rank 0 has it. */
#ifndef PDT_REQUEST_SPOOL_H
#define PDT_REQUEST_SPOOL_H

#include "request/request.h"

typedef struct pdt_request_spool pdt_request_spool;

/* An empty one, whose file, once it is needed, is in `folder`, or in memory where that takes none.
 * Sets *spool, freed by pdt_request_spool_free. Errors: MEMORY. */
int pdt_request_spool_new(pdt_request_spool **spool, const char *folder, pdt_error *err);

/* NULL is fine. */
void pdt_request_spool_free(pdt_request_spool *spool);

/* Puts a copy of a request behind the others; `where` names it in errors. Errors: INPUT (above
 * 1 GiB, or more than 2^31 - 2 requests), IO, MEMORY; the spool is then good for nothing but to be
 * freed. */
int pdt_request_spool_put(pdt_request_spool *spool, const pdt_request *r, const char *where,
                          pdt_error *err);

/* In the place of a request that is not to be served: the number that its session would have had,
 * its line and the reason, UTF-8. Errors: as above. */
int pdt_request_spool_put_failure(pdt_request_spool *spool, uint64_t session, int32_t line,
                                  const char *why, pdt_error *err);

/* How many there are, and the fingerprint of all of them: XXH3-64 of their messages in order, each
 * behind its length (pdt_request_pack), the highest bit of which tells failures. */
int32_t pdt_request_spool_count(const pdt_request_spool *spool);
uint64_t pdt_request_spool_fingerprint(const pdt_request_spool *spool);

/* The next request to be taken is the first again. */
void pdt_request_spool_rewind(pdt_request_spool *spool);

/* What pdt_request_spool_next returns of a place without a request. */
enum { PDT_SPOOL_FAILURE = 2 };

/* Takes the next request, as pdt_request_unpack reads it: sets *bytes [*n], which last until the
 * next call for the spool; 1; 0 behind the last; PDT_SPOOL_FAILURE, and the bytes are those of a
 * RequestFailure message (proto/pdt.proto) with index 0; -1 on error. Errors: IO, MEMORY. */
int pdt_request_spool_next(pdt_request_spool *spool, const char **bytes, size_t *n, pdt_error *err);

#endif

/* Is a request like what its sidecar was trained with? Where it is far from it, the text is likely
 * to be worse than what the sidecar can do, and nothing else would say so. */
#ifndef PDT_REQUEST_FAMILIAR_H
#define PDT_REQUEST_FAMILIAR_H

#include "base/notices.h"
#include "request/parse.h"

/* Tells, once a kind, what of a request is far from what the config's `trained` has: blocks of less
 * than half or more than one and a half times as many tokens; a reveal delay of more than four
 * times as many rounds; a window that cuts off more than half of the notes that the longest entry
 * had, or holds more than twice as many as one of a limited size; a number of streams or a
 * temperature (above 1, too) outside of it; a section that was no heading, a plan item that was
 * none, a prompt of other words or another length; and a sidecar that has never learned to read
 * notes; and a gamma of 0.999 or more, where forced blocks make text worse and slow. A sidecar that
 * does not say what it was trained with is told nothing.
 *
 * json: what the request was parsed from, for its texts; NULL: none. `where` names it. *told: kinds
 * that were told, zeroed before the first request of a run. Not collective: rank 0 asks. */
void pdt_request_compare(const pdt_request *r, const json_t *json, const char *where,
                         const pdt_request_context *context, uint32_t *told, pdt_notices *notices);

/* Of these what concerns gamma alone, as a server's operator should hear it. */
void pdt_request_compare_gamma(const pdt_request *r, const char *where,
                               const pdt_sidecar_config *sidecar, uint32_t *told,
                               pdt_notices *notices);

#endif

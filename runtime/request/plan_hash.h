/* A plan in words: every item is hashed to the id of a slot. */
#ifndef PDT_REQUEST_PLAN_HASH_H
#define PDT_REQUEST_PLAN_HASH_H

#include "sidecar/config.h"

/* Slot id of a plan item by hashing (PROTOCOL.md, "planner"): SHA-256 of "salt::stream_k::text"
 * with the text stripped and lowercased as Python's str does it, as a big-endian integer mod Vp, 0
 * becoming 1; an empty text is the empty slot, 0. Errors: INPUT when text is not UTF-8, MEMORY. */
int pdt_plan_hash(const pdt_sidecar_config *config, pdt_stream stream, const char *text,
                  int32_t *id, pdt_error *err);

#endif

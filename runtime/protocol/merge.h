/* Which stream speaks for which plan slot, and in what order streams are merged (3.8, step 5). */
#ifndef PDT_PROTOCOL_MERGE_H
#define PDT_PROTOCOL_MERGE_H

#include "base/types.h"
#include "protocol/stream.h"

/* owner[i]: the stream whose committed blocks cover slot i best, the lowest on ties; -1 for an
 * empty slot (plan_ids[i] == 0) or when nothing was committed. order[K]: streams by the first slot
 * they own, then by index; those that own none come last; keep_order: by index alone, as a request
 * names its sections. Pure. */
void pdt_merge(const pdt_stream_state *streams, int32_t K, const int32_t *plan_ids, int32_t slots,
               bool keep_order, pdt_stream *owner, pdt_stream *order);

/* How many streams at the head of pdt_merge's order are certain already, whatever is yet to be
 * committed by streams that are not `done`: their coverage can only rise. order [K] gets them, and
 * placed [K] which they are. All of them, once every stream is done or where no plan slot is
 * filled. Pure. */
int32_t pdt_merge_known(const pdt_stream_state *streams, int32_t K, const int32_t *plan_ids,
                        int32_t slots, bool *placed, pdt_stream *order);

#endif

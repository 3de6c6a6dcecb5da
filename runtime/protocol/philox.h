/* Counter-based random numbers: one token, one number, whatever the layout (PROTOCOL.md,
 * "Randomness"). Philox4x32-10 of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3"
 * (SC 2011). */
#ifndef PDT_PROTOCOL_PHILOX_H
#define PDT_PROTOCOL_PHILOX_H

#include "base/types.h"

/* Ten rounds of Philox on a counter of four words under a key of two. Pure. */
void pdt_philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

/* The number in (0, 1), with 53 random bits, behind one sampled token: `position` counts tokens of
 * the stream's output from 0. Pure. */
double pdt_uniform(uint64_t seed, uint32_t position, pdt_stream stream, int32_t attempt,
                   uint64_t session);

#endif

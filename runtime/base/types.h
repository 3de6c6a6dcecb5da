/* Integer types that say what they count. Counts are named *_elems or *_bytes; byte sizes are
 * 64-bit everywhere. */
#ifndef PDT_BASE_TYPES_H
#define PDT_BASE_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef int32_t pdt_token;  /* a vocabulary id; -1 stands for "none" */
typedef int32_t pdt_rank;   /* a process, within the communicator the context names */
typedef int32_t pdt_stream; /* a stream of one session, 0 <= k < K; -1 is the planner */
typedef int32_t pdt_layer;  /* a decoder layer of the trunk, 0 <= l < L */
typedef int32_t pdt_round;  /* a synchronized round of one session, from 1; 0 is the plan's */
typedef int64_t pdt_bytes;  /* a size in bytes */

#endif

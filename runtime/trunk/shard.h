/* Which part of the trunk a rank of a shard group holds. Pure. */
#ifndef PDT_TRUNK_SHARD_H
#define PDT_TRUNK_SHARD_H

#include "kernels/sum_tree.h"
#include "model/config.h"

/* Columns of the FFN are shared in blocks of this many; a block is a leaf of the down projection's
 * sum. Wide enough that merging leaves costs nothing, narrow enough to share among many ranks. */
enum { PDT_FFN_BLOCK = 64 };

/* Half-open ranges; any may be empty when there are more ranks than there is to share. */
typedef struct pdt_shard {
  pdt_rank rank, size; /* within the group */
  pdt_range heads;     /* query heads: leaves of the output projection's sum */
  pdt_range kv_heads;  /* those that the query heads read; neighbours may share one */
  pdt_range ffn;       /* columns of gate and up, inputs of down */
  pdt_range vocab;     /* rows of embedding and head, in whole panels */
} pdt_shard;

/* The share of rank `rank` of a group of `size`, 0 <= rank < size. */
pdt_shard pdt_shard_of(const pdt_model_config *config, pdt_rank rank, pdt_rank size);

/* Does a rank of a group have anything to add to attention's (FFN's) output sum? */
bool pdt_shard_has_heads(const pdt_model_config *config, pdt_rank rank, pdt_rank size);
bool pdt_shard_has_ffn(const pdt_model_config *config, pdt_rank rank, pdt_rank size);

#endif

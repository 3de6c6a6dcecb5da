#include "trunk/shard.h"

#include "kernels/kernels.h"

static int32_t ffn_blocks(const pdt_model_config *config) {
  return (config->intermediate_size + PDT_FFN_BLOCK - 1) / PDT_FFN_BLOCK;
}

/* A range of blocks as a range of their members, cut at the last member. */
static pdt_range widen(pdt_range blocks, int32_t block, int32_t members) {
  int32_t end = blocks.end * block;
  pdt_range range = {blocks.begin * block, end < members ? end : members};
  if (blocks.begin == blocks.end) range.begin = range.end = 0;
  return range;
}

pdt_shard pdt_shard_of(const pdt_model_config *config, pdt_rank rank, pdt_rank size) {
  pdt_shard shard = {.rank = rank, .size = size};
  shard.heads = pdt_share(config->heads, size, rank);
  int32_t per_kv = config->heads / config->kv_heads;
  if (shard.heads.end > shard.heads.begin)
    shard.kv_heads = (pdt_range){shard.heads.begin / per_kv, (shard.heads.end - 1) / per_kv + 1};
  shard.ffn =
      widen(pdt_share(ffn_blocks(config), size, rank), PDT_FFN_BLOCK, config->intermediate_size);
  int32_t panels = (config->vocab_size + PDT_PANEL - 1) / PDT_PANEL;
  shard.vocab = widen(pdt_share(panels, size, rank), PDT_PANEL, config->vocab_size);
  return shard;
}

bool pdt_shard_has_heads(const pdt_model_config *config, pdt_rank rank, pdt_rank size) {
  pdt_range heads = pdt_share(config->heads, size, rank);
  return heads.end > heads.begin;
}

bool pdt_shard_has_ffn(const pdt_model_config *config, pdt_rank rank, pdt_rank size) {
  pdt_range blocks = pdt_share(ffn_blocks(config), size, rank);
  return blocks.end > blocks.begin;
}

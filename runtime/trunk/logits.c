/* From hidden states to logits: the vocabulary is shared among the ranks of the group, the rows of
 * the batch are not, so hidden states go out to everybody, and logits, or the best of them, come
 * back to the owner. */
#include <math.h>
#include <string.h>
#include <xxhash.h>

#include "base/clock.h"
#include "protocol/sample.h"
#include "trunk/internal.h"

/* Logits of all rows of the group for this rank's part of the vocabulary: scratch logits. */
static void share_logits(pdt_trunk *t, const int32_t *begin, const float *hidden) {
  const pdt_comm *group = t->group;
  pdt_trunk_scratch *s = t->scratch;
  int64_t d = t->weights->config.hidden_size;
  const float *all = hidden;
  PDT_CHECK_SAME(group, XXH3_64bits(begin, (size_t)(group->size + 1) * sizeof *begin));
  if (group->size > 1) {
    for (pdt_rank r = 0; r < group->size; r++)
      s->recv_bytes[r] = (begin[r + 1] - begin[r]) * d * (pdt_bytes)sizeof(float);
    double start = pdt_seconds();
    pdt_comm_all_gather(group, hidden, s->gathered, s->recv_bytes);
    t->clock.exchange += pdt_seconds() - start;
    all = s->gathered;
  }
  const pdt_matrix *head = pdt_trunk_head(t->weights);
  double start = pdt_seconds();
  if (head->data)
    t->kernels->matmul(head, all, d, begin[group->size], s->logits, head->out, t->limits.threads);
  t->clock.compute += pdt_seconds() - start;
}

/* Sends every owner its rows of an array [rows, bytes_of(this rank)], and receives own rows from
 * every rank r, [own rows, bytes_of(r)] one after another. */
static void to_owners(pdt_trunk *t, const int32_t *begin, const void *send,
                      const pdt_bytes *row_bytes, void *recv) {
  pdt_trunk_scratch *s = t->scratch;
  const pdt_comm *group = t->group;
  pdt_bytes own = begin[group->rank + 1] - begin[group->rank], at = 0;
  for (pdt_rank r = 0; r < group->size; r++) {
    s->send_bytes[r] = (begin[r + 1] - begin[r]) * row_bytes[group->rank];
    s->send_at[r] = begin[r] * row_bytes[group->rank];
    s->recv_bytes[r] = own * row_bytes[r];
    s->recv_at[r] = at;
    at += s->recv_bytes[r];
  }
  double start = pdt_seconds();
  pdt_comm_all_to_all(group, send, s->send_bytes, s->send_at, recv, s->recv_bytes, s->recv_at);
  t->clock.exchange += pdt_seconds() - start;
}

const float *pdt_trunk_logits(pdt_trunk *trunk, const int32_t *begin, const float *hidden) {
  pdt_trunk_scratch *s = trunk->scratch;
  const pdt_comm *group = trunk->group;
  const pdt_model_config *config = &trunk->weights->config;
  share_logits(trunk, begin, hidden);
  if (group->size == 1) return s->logits;
  for (pdt_rank r = 0; r < group->size; r++) {
    pdt_range vocab = pdt_shard_of(config, r, group->size).vocab;
    s->row_bytes[r] = (vocab.end - vocab.begin) * (pdt_bytes)sizeof(float);
  }
  to_owners(trunk, begin, s->logits, s->row_bytes, s->arrived);
  int32_t own = begin[group->rank + 1] - begin[group->rank];
  const char *from = (const char *)s->arrived;
  for (pdt_rank r = 0; r < group->size; r++) {
    pdt_range vocab = pdt_shard_of(config, r, group->size).vocab;
    for (int32_t i = 0; i < own; i++, from += s->row_bytes[r])
      memcpy(s->whole + (int64_t)i * config->vocab_size + vocab.begin, from,
             (size_t)s->row_bytes[r]);
  }
  return s->whole;
}

void pdt_trunk_argmax(pdt_trunk *trunk, const int32_t *begin, const float *hidden,
                      pdt_token *tokens) {
  pdt_trunk_scratch *s = trunk->scratch;
  const pdt_comm *group = trunk->group;
  pdt_range vocab = trunk->weights->shard.vocab;
  int32_t width = vocab.end - vocab.begin, rows = begin[group->size];
  int32_t own = begin[group->rank + 1] - begin[group->rank];
  share_logits(trunk, begin, hidden);
#pragma omp parallel for num_threads(trunk->limits.threads) if (trunk->limits.threads > 1 &&       \
                                                                rows > 1)
  for (int32_t i = 0; i < rows; i++) {
    const float *row = s->logits + (int64_t)i * width;
    pdt_token best = width > 0 ? pdt_argmax(row, width) : -1;
    s->best[i] = (pdt_candidate){best < 0 ? 0 : row[best], best < 0 ? -1 : vocab.begin + best};
  }
  for (pdt_rank r = 0; r < group->size; r++) {
    pdt_range theirs = pdt_shard_of(&trunk->weights->config, r, group->size).vocab;
    s->row_bytes[r] = theirs.end > theirs.begin ? (pdt_bytes)sizeof *s->best : 0;
  }
  pdt_candidate *arrived = s->best_arrived;
  if (group->size > 1)
    to_owners(trunk, begin, s->best, s->row_bytes, arrived);
  else
    arrived = s->best;
  for (int32_t i = 0; i < own; i++) {
    pdt_candidate best = arrived[i]; /* rank 0 always has a share */
    const pdt_candidate *theirs = arrived + own;
    for (pdt_rank r = 1; r < group->size; r++) {
      if (s->row_bytes[r] == 0) continue;
      pdt_candidate other = theirs[i];
      theirs += own;
      bool nan = best.id < 0 || other.id < 0;
      if (nan)
        best.id = -1;
      else if (other.logit > best.logit)
        best = other;
    }
    tokens[i] = isfinite(best.logit) ? best.id : -1; /* as sampling has it */
  }
}

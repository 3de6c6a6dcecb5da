/* From hidden states to tokens: the vocabulary is shared among the ranks of the group, the rows of
 * the batch are not, so hidden states go out to everybody, and logits, or the best of them, come
 * back to the owner. */
#include <math.h>
#include <xxhash.h>

#include "base/clock.h"
#include "trunk/internal.h"

/* What choosing the tokens of one batch works with. */
typedef struct choice {
  pdt_trunk *t;
  pdt_device *dev;
  pdt_trunk_scratch *s;
  const pdt_comm *group;
  const int32_t *begin;      /* [T+1] */
  const pdt_row_draw *draws; /* [begin[T]], or NULL */
  int32_t n, own, first;     /* picked rows; this rank's of them, and the first of those */
  int32_t width;             /* of this rank's part of the vocabulary */
  pdt_token *tokens;         /* [own rows of the batch] */
} choice;

/* Logits of all rows of the group for this rank's part of the vocabulary: scratch logits. */
static void share_logits(const choice *c, pdt_array hidden) {
  pdt_trunk *t = c->t;
  int64_t d = t->weights->config.hidden_size;
  pdt_array all = hidden;
  PDT_CHECK_SAME(c->group, XXH3_64bits(c->begin, (size_t)(c->group->size + 1) * sizeof *c->begin));
  if (c->group->size > 1) {
    for (pdt_rank r = 0; r < c->group->size; r++)
      c->s->in.elems[r] = (c->begin[r + 1] - c->begin[r]) * d;
    double start = pdt_seconds();
    pdt_link_all_gather(&t->link, hidden, c->s->gathered, c->s->in.elems);
    t->clock.exchange += pdt_seconds() - start;
    all = c->s->gathered;
  }
  const pdt_matrix *head = pdt_trunk_head(t->weights);
  double start = pdt_seconds();
  if (head->data) c->dev->ops->matmul(c->dev, head, all, d, c->begin[c->group->size], c->s->logits);
  t->clock.compute += pdt_seconds() - start;
}

/* Lists the rows that are drawn, or those that are not, and how many are each rank's. */
static void pick(choice *c, bool drawn) {
  c->n = 0;
  for (pdt_rank r = 0; r < c->group->size; r++) {
    c->s->counts[r] = c->n;
    for (int32_t i = c->begin[r]; i < c->begin[r + 1]; i++)
      if (drawn == (c->draws && c->draws[i].how.temperature != 0)) c->s->picked[c->n++] = i;
  }
  c->s->counts[c->group->size] = c->n;
  c->first = c->s->counts[c->group->rank];
  c->own = c->s->counts[c->group->rank + 1] - c->first;
}

/* Where the token of the i-th picked own row goes. */
static pdt_token *token_of(const choice *c, int32_t i) {
  return &c->tokens[c->s->picked[c->first + i] - c->begin[c->group->rank]];
}

/* ---- the largest ---- */

/* Sends every owner the best of its picked rows; receives those of own rows, [own], from every rank
 * that has a part of the vocabulary, one rank behind the other. */
static void exchange_best(const choice *c) {
  const pdt_bytes item = sizeof *c->s->best;
  pdt_rank T = c->group->size;
  pdt_bytes *bytes = c->s->bytes, at = 0;
  for (pdt_rank r = 0; r < T; r++) {
    bool sends = c->s->vocab[r].end > c->s->vocab[r].begin;
    bytes[r] = c->width > 0 ? (c->s->counts[r + 1] - c->s->counts[r]) * item : 0;
    bytes[T + r] = c->s->counts[r] * item;
    bytes[2 * T + r] = sends ? c->own * item : 0;
    bytes[3 * T + r] = at;
    at += bytes[2 * T + r];
  }
  double start = pdt_seconds();
  pdt_comm_all_to_all(c->group, c->s->best, bytes, bytes + T, c->s->best_arrived, bytes + 2 * T,
                      bytes + 3 * T);
  c->t->clock.exchange += pdt_seconds() - start;
}

/* The better of two: the first one on ties, whose ids are lower; none when one is NaN. */
static pdt_candidate better(pdt_candidate a, pdt_candidate b) {
  if (a.id < 0 || b.id < 0) return (pdt_candidate){0, -1};
  return b.logit > a.logit ? b : a;
}

static void choose_largest(choice *c) {
  pdt_trunk_scratch *s = c->s;
  pick(c, false);
  if (c->n == 0) return;
  if (c->width > 0)
    c->dev->ops->argmax_rows(c->dev, s->logits, c->width, s->picked, c->n,
                             s->vocab[c->group->rank].begin, s->best);
  const pdt_candidate *arrived = s->best;
  if (c->group->size > 1) {
    exchange_best(c);
    arrived = s->best_arrived;
  }
  for (int32_t i = 0; i < c->own; i++) {
    pdt_candidate best = arrived[i]; /* rank 0 always has a share */
    for (pdt_rank r = 1, from = 1; r < c->group->size; r++)
      if (s->vocab[r].end > s->vocab[r].begin)
        best = better(best, arrived[(int64_t)from++ * c->own + i]);
    *token_of(c, i) = isfinite(best.logit) ? best.id : -1; /* as sampling has it */
  }
}

/* ---- drawn ---- */

/* Brings the whole logits of the picked own rows together, row by row: scratch whole. */
static void gather_whole(const choice *c) {
  pdt_trunk_scratch *s = c->s;
  const pdt_kernels *k = c->dev->ops;
  int32_t vocab = c->t->weights->config.vocab_size;
  pdt_array send = s->logits;
  int64_t at = 0;
  if (c->n < c->begin[c->group->size]) { /* close together, in the room that is filled later */
    k->move_rows(c->dev, s->whole, NULL, s->logits, s->picked, c->n, c->width);
    send = s->whole;
  }
  for (pdt_rank r = 0; r < c->group->size; r++) {
    s->out.elems[r] = (int64_t)(s->counts[r + 1] - s->counts[r]) * c->width;
    s->out.at[r] = (int64_t)s->counts[r] * c->width;
    s->in.elems[r] = (int64_t)c->own * (s->vocab[r].end - s->vocab[r].begin);
    s->in.at[r] = at;
    at += s->in.elems[r];
  }
  double start = pdt_seconds();
  pdt_link_all_to_all(&c->t->link, send, &s->out, s->arrived, &s->in);
  c->t->clock.exchange += pdt_seconds() - start;
  for (pdt_rank r = 0; r < c->group->size; r++) {
    int32_t width = s->vocab[r].end - s->vocab[r].begin;
    k->copy_rows(c->dev, pdt_array_at(s->whole, s->vocab[r].begin), vocab,
                 pdt_array_at(s->arrived, s->in.at[r]), width, c->own, width);
  }
}

static void choose_drawn(choice *c) {
  pdt_trunk_scratch *s = c->s;
  pick(c, true);
  if (c->n == 0) return;
  bool alone = c->group->size == 1;
  if (!alone) gather_whole(c);
  for (int32_t i = 0; i < c->own; i++) s->draws[i] = c->draws[s->picked[c->first + i]];
  c->dev->ops->sample_rows(c->dev, alone ? s->logits : s->whole, c->t->weights->config.vocab_size,
                           alone ? s->picked : NULL, c->own, s->draws, s->tokens);
  for (int32_t i = 0; i < c->own; i++) *token_of(c, i) = s->tokens[i];
}

/* Of a batch's rows, with nothing said of their tokens yet. */
static choice choice_of(pdt_trunk *trunk, const int32_t *begin) {
  pdt_range vocab = trunk->weights->shard.vocab;
  return (choice){.t = trunk,
                  .dev = trunk->device,
                  .s = trunk->scratch,
                  .group = trunk->group,
                  .begin = begin,
                  .width = vocab.end - vocab.begin};
}

void pdt_trunk_choose(pdt_trunk *trunk, const int32_t *begin, pdt_array hidden,
                      const pdt_row_draw *draws, pdt_token *tokens) {
  choice c = choice_of(trunk, begin);
  c.draws = draws;
  c.tokens = tokens;
  share_logits(&c, hidden);
  choose_largest(&c);
  choose_drawn(&c);
}

/* Logits [own rows, vocabulary] of all own rows. */
static pdt_array whole_logits(choice *c, pdt_array hidden) {
  share_logits(c, hidden);
  pick(c, false); /* all */
  if (c->group->size == 1) return c->s->logits;
  gather_whole(c);
  return c->s->whole;
}

void pdt_trunk_logits(pdt_trunk *trunk, const int32_t *begin, pdt_array hidden, float *logits) {
  choice c = choice_of(trunk, begin);
  pdt_array whole = whole_logits(&c, hidden);
  c.dev->ops->download(c.dev, logits, whole, (int64_t)c.own * trunk->weights->config.vocab_size);
}

void pdt_trunk_logprobs(pdt_trunk *trunk, const int32_t *begin, pdt_array hidden,
                        const pdt_token *tokens, int32_t top, pdt_logprob *out) {
  choice c = choice_of(trunk, begin);
  pdt_array whole = whole_logits(&c, hidden);
  double start = pdt_seconds();
  c.dev->ops->logprobs_rows(c.dev, whole, trunk->weights->config.vocab_size, c.own, tokens, top,
                            out);
  trunk->clock.compute += pdt_seconds() - start;
}

void pdt_trunk_choose_ahead(pdt_trunk *trunk, int32_t n, pdt_array hidden,
                            const pdt_row_draw *draws, const int32_t *to, pdt_chosen *chosen) {
  const pdt_matrix *head = pdt_trunk_head(trunk->weights);
  pdt_device *dev = trunk->device;
  double start = pdt_seconds();
  dev->ops->matmul(dev, head, hidden, trunk->weights->config.hidden_size, n,
                   trunk->scratch->logits);
  dev->ops->choose_rows(dev, trunk->scratch->logits, head->out, n, draws, to, chosen);
  trunk->clock.compute += pdt_seconds() - start;
}

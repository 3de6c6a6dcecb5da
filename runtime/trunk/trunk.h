/* Forward pass of a batch of rows over one shard group (3.1).
 *
 * A row is one token of one sequence at one position. Each row has an owner in the group: the rank
 * that alone holds its residual stream, and does norms, residuals and conditioning for it. Going
 * into attention and FFN, normed rows are all-gathered in the group; coming out, each rank's
 * partial sums are sent to the owners, which add them in the order of the sum tree. Every rank of
 * the group keeps key/value pages for all rows of the batch, for its own heads. */
#ifndef PDT_TRUNK_TRUNK_H
#define PDT_TRUNK_TRUNK_H

#include "comm/link.h"
#include "trunk/kv.h"
#include "trunk/weights.h"

typedef struct pdt_trunk_row {
  pdt_kv_sequence *sequence;
  int32_t position; /* in the sequence; its key and value are stored there */
  pdt_token token;
} pdt_trunk_row;

/* Rows in order of their owners: rank t of the group owns rows begin[t] .. begin[t+1]-1. All ranks
 * of the group pass the same batch. Positions of one sequence ascend. In a group of one, rows may
 * read tokens that the host does not know: row i the one at place from[i] of `chosen`. */
typedef struct pdt_trunk_batch {
  const pdt_trunk_row *rows; /* [begin[T]] */
  const int32_t *begin;      /* [T+1] */
  const pdt_chosen *chosen;  /* NULL: rows read their own tokens */
  const int32_t *from;       /* [begin[T]] */
  bool bulk; /* products by matmul_bulk (kernels.h): of a prompt's rows, and always of them */
} pdt_trunk_batch;

/* Called on the owner with its rows of the batch: h [rows, d], changed in place. NULL: nothing. */
typedef struct pdt_trunk_hooks {
  void *context;
  void (*after_embedding)(void *context, pdt_layer layer, pdt_array h, int32_t rows); /* layer -1 */
  void (*after_attention)(void *context, pdt_layer layer, pdt_array h, int32_t rows);
  void (*after_ffn)(void *context, pdt_layer layer, pdt_array h, int32_t rows);
} pdt_trunk_hooks;

/* What buffers are made for. */
typedef struct pdt_trunk_limits {
  int32_t max_rows;       /* of one batch */
  int32_t max_logit_rows; /* of one batch whose tokens are asked for */
  int32_t max_tokens;     /* of one sequence */
} pdt_trunk_limits;

/* Seconds since the trunk was made, on this rank. */
typedef struct pdt_trunk_clock {
  double compute, exchange, hooks;
} pdt_trunk_clock;

typedef struct pdt_trunk_scratch pdt_trunk_scratch;

typedef struct pdt_trunk {
  const pdt_trunk_weights *weights; /* borrowed */
  pdt_device *device;               /* the weights' */
  const pdt_comm *group;            /* borrowed */
  pdt_link link;                    /* of the group */
  pdt_kv_cache *kv;                 /* borrowed */
  pdt_trunk_limits limits;
  pdt_trunk_scratch *scratch;
  pdt_trunk_clock clock;
} pdt_trunk;

/* Borrows its arguments, which must outlive it; computes on the device of the weights, where the
 * cache must be too. Errors: MEMORY. Not collective. */
int pdt_trunk_new(pdt_trunk *trunk, const pdt_trunk_weights *weights, const pdt_comm *group,
                  pdt_kv_cache *kv, const pdt_trunk_limits *limits, pdt_error *err);
void pdt_trunk_free(pdt_trunk *trunk);

/* Runs a batch of 0 .. max_rows rows. hidden [own rows, d] gets this rank's rows after the final
 * norm; none: only the cache is filled. Collective over the group, blocking. Errors: RUNTIME when
 * the cache cannot take a row; then every rank of the group fails alike, before anything is sent.
 */
int pdt_trunk_forward(pdt_trunk *trunk, const pdt_trunk_batch *batch, const pdt_trunk_hooks *hooks,
                      pdt_array hidden, pdt_error *err);

/* Next tokens of this rank's rows, from their hidden states [own rows, d]: tokens [own rows]; -1
 * when a logit is NaN or none is finite. begin as in the batch. draws [begin[T]] says of every row
 * of the group whether it takes the largest logit (temperature 0; the lowest token on ties) or is
 * drawn, and of this rank's rows by which u; NULL: all take the largest. Ranks exchange a pair a
 * row of the first kind, and the logits of the second. Collective over the group, blocking. */
void pdt_trunk_choose(pdt_trunk *trunk, const int32_t *begin, pdt_array hidden,
                      const pdt_row_draw *draws, pdt_token *tokens);

/* All logits of this rank's rows: host logits [own rows, vocabulary]. hidden and begin as above.
 * Collective over the group, blocking. */
void pdt_trunk_logits(pdt_trunk *trunk, const int32_t *begin, pdt_array hidden, float *logits);

/* How likely tokens of this rank's rows are by their logits, and which are the likeliest:
 * pdt_logprobs (sample.h) of tokens [own rows], out [own rows, 1 + top]. top is this rank's own
 * affair; hidden and begin as above. Collective over the group, blocking. */
void pdt_trunk_logprobs(pdt_trunk *trunk, const int32_t *begin, pdt_array hidden,
                        const pdt_token *tokens, int32_t top, pdt_logprob *out);

/* As pdt_trunk_choose in a group of one, without waiting for the tokens: that of row i < n goes to
 * place to[i] of `chosen`. draws [n]. Not collective. */
void pdt_trunk_choose_ahead(pdt_trunk *trunk, int32_t n, pdt_array hidden,
                            const pdt_row_draw *draws, const int32_t *to, pdt_chosen *chosen);

#endif

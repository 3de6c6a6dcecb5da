/* Teacher-forced entries for the sidecar's stages, and batches of them as pdt_nn_sidecar_step reads
 * them: sequences, windows of notes, blocks, labels. Where entries come from is not known here. */
#ifndef PDT_TRAIN_ENTRY_H
#define PDT_TRAIN_ENTRY_H

#include "train/nn/step.h"

/* One stream of an entry. */
typedef struct pdt_train_stream {
  pdt_stream stream;          /* whose adapter it uses */
  int32_t n_prefix, n_tokens; /* n_tokens >= 1, the end-of-sequence token included */
  const pdt_token *prefix, *tokens;
  const float *weights; /* [n_tokens] of predicting each; NULL: 1 */
} pdt_train_stream;

/* A block that another one needs to have seen. */
typedef struct pdt_train_need {
  int32_t block, note; /* both count the entry's blocks, stream after stream */
} pdt_train_need;

/* What a name in a stream's output is of. */
typedef enum pdt_train_use_kind {
  /* A fact that a sibling states. Seen, its tokens are a use; else they, and the sentence around
   * them, speak of what nobody has told yet. */
  PDT_SIBLINGS_FACT,
  /* A fact that the stream states itself, but that the note of a sibling, which has read it in an
   * earlier attempt, may tell it. Seen, its tokens are a use as well; else a statement as any. */
  PDT_OWN_FACT,
} pdt_train_use_kind;

/* A name in the output of stream `stream` of an entry: its tokens are [first, first + n). The note
 * of block `note` tells it; -1: none does. */
typedef struct pdt_train_use {
  pdt_train_use_kind kind;
  int32_t stream, first, n, note;
  int32_t begin, end; /* tokens [begin, end) of its sentence, of a sibling's fact alone */
} pdt_train_use;

/* One prompt and its streams; everything is borrowed. Blocks are the streams', cut into
 * block_tokens, one stream's after the other's: Nb in all. */
typedef struct pdt_train_entry {
  int32_t n_prompt, n_streams; /* both >= 1 */
  const pdt_token *prompt;
  const pdt_train_stream *streams; /* by stream, ascending */
  const int32_t *plan_ids;         /* [S] */
  const float *mean_state;         /* [d] mean final-norm prompt state of the plain trunk */
  const float *teacher_notes;      /* [Nb, dn] */
  const float *coverage;           /* [Nb, S] targets, 0 or 1 */
  int32_t n_needs;
  const pdt_train_need *needs; /* a block is ready when every note it needs is in its window */
  const float *ready;          /* [Nb] labels as they are; NULL: what needs say */
  const bool *quiet; /* [Nb] does the teacher's note tell nothing? NULL: none is known to */
  int32_t n_uses;
  const pdt_train_use *uses; /* may be none: then no token is told apart */
  const float *place_states; /* [plan places, d] of the first prompt tokens, zeros behind the
                                prompt; NULL where the sidecar has no places */
  const float *order_states; /* [n_prompt, d] what the planner reads in order (nn/orders.h); NULL
                                where the sidecar has no orders */
  const uint8_t *marks;  /* [n_prompt] which prompt tokens end the name of a section, 0 or 1; NULL:
                            not known */
  const uint16_t *lower; /* [rows, d] bf16: behind the trunk's lower layers (step.h), of every
                            stream's prompt, prefix and tokens but the last; NULL: not known. Of
                            all entries of a batch, or of none */
} pdt_train_entry;

typedef struct pdt_train_rounds {
  int32_t block_tokens, reveal_delay, window; /* tau, Delta, B */
  double lockstep; /* share of entries whose streams all start at once and never wait */
  double wait;     /* elsewhere: chance that a stream waits before a block */
  uint64_t seed;
} pdt_train_rounds;

/* Shares of L (0: off). `use` and `later` multiply the cross-entropy of the first and of later
 * tokens of uses that are in the window: 1, unless the few tokens that notes decide are to weigh
 * more. `unseen` multiplies that of all tokens of a sentence whose use is not in the window when
 * its name begins: below 1, streams learn to speak of what they have been told, and to wait with
 * the rest. `quiet` multiplies L_spec of blocks whose note tells nothing: most of them, and soon
 * learned. Where the sidecar has orders, L_plan also asks of every prompt token whether it ends the
 * name of a section, as much as of a slot. */
typedef struct pdt_train_losses {
  double plan, notes, speculation, ce, kd, coverage, ready;
  double use, later, unseen, quiet;
  bool
      empty; /* L_plan also asks for the empty slot where a plan has ended; else it ignores those */
} pdt_train_losses;

/* What losses are divided by: sums over all entries of a batch, on all ranks. */
typedef struct pdt_train_totals {
  double tokens;         /* weight of predicted tokens */
  double speculated;     /* weight of blocks for L_spec */
  int64_t blocks, slots; /* slots: those of all plans that L_plan asks for */
  int64_t coverage;      /* filled slots of all blocks */
} pdt_train_totals;

/* Blocks of a stream, of an entry. Pure. */
int32_t pdt_train_stream_blocks(const pdt_train_stream *stream, int32_t block_tokens);
int32_t pdt_train_entry_blocks(const pdt_train_entry *entry, int32_t block_tokens);

/* Adds an entry's share, of a sidecar with `slots` plan slots. Pure. */
void pdt_train_count(const pdt_train_entry *entry, int32_t block_tokens, int32_t slots,
                     const pdt_train_losses *losses, pdt_train_totals *totals);

/* When each block of an entry is emitted: rounds[Nb], ascending within a stream, by seed and
 * `number` (of the entry in the run) alone. Pure. */
void pdt_train_draw_rounds(const pdt_train_entry *entry, const pdt_train_rounds *rules,
                           uint64_t number, int32_t *rounds);

/* Lays out n entries, whose numbers are number[n], in the arena. Windows are what decoding would
 * show (3.3) with blocks emitted in the rounds drawn. Errors: USAGE when the batch is too large,
 * MEMORY. */
int pdt_train_batch(pdt_nn_sidecar_batch *batch, const pdt_train_entry *const *entries,
                    const uint64_t *number, int32_t n, const pdt_sidecar_config *config,
                    const pdt_train_rounds *rules, const pdt_train_losses *losses,
                    const pdt_train_totals *totals, pdt_arena *arena, pdt_error *err);

/* Numbers siblings' notes in the windows of a batch as the altered ones
 * (pdt_nn_step_options.alter); *sequences [Nb], in the arena: whose blocks they are. Errors:
 * MEMORY. */
int pdt_train_number_altered(pdt_nn_sidecar_batch *batch, int32_t **sequences, pdt_arena *arena,
                             pdt_error *err);

#endif

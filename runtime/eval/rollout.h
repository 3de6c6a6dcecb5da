/* What the blocks that streams really write do with facts: read back from the tokens of a session
 * of the Atlas as it is decoded, commit, hold and rollback included. The same things that a data
 * file says of its own text (tests/data/atlas/FORMAT.md), for text that nobody labelled: so it
 * judges a readiness head, and so it can teach one.
 *
 * One pdt_rollout follows one session. Before a round is decided, pdt_rollout_label says what each
 * block does; after it, pdt_rollout_follow brings the ledger to what the streams have, for every
 * stream of the session. Nothing here is collective, nothing blocks. */
#ifndef PDT_EVAL_ROLLOUT_H
#define PDT_EVAL_ROLLOUT_H

#include "atlas/parse.h"
#include "base/buffer.h"
#include "data/blocks.h"
#include "protocol/bus.h"
#include "protocol/decide.h"
#include "text/tokenizer.h"

enum { PDT_NO_OWNER = -1, PDT_UNKNOWN_VALUE = -1 };

enum { PDT_ROLLOUT_NAME_BYTES = 2 * PDT_ATLAS_NAME_BYTES }; /* room for a name that is not listed */

/* Who states what in an entry. */
typedef struct pdt_rollout_owners {
  int32_t streams;
  pdt_stream of[PDT_ATLAS_TYPES]; /* PDT_NO_OWNER: no section of the entry does */
} pdt_rollout_owners;

/* From the names of an entry's sections. Errors: INPUT for a section that is none of the Atlas, or
 * is there twice. */
int pdt_rollout_owners_of(pdt_rollout_owners *out, const pdt_data_entry *e, pdt_error *err);

/* A name in a stream's output. */
typedef struct pdt_rollout_mention {
  pdt_mention_kind kind;
  int32_t type;
  int32_t value;       /* PDT_UNKNOWN_VALUE: none of the type's names, or not yet one */
  int32_t first, last; /* tokens of the output in which the name begins and ends so far */
  size_t begin, end;   /* bytes of the text, the space before the name not included */
  bool open;           /* what comes next may belong to the name */
} pdt_rollout_mention;

/* A stream's output as text. A zeroed one is empty and may be read into again and again. */
typedef struct pdt_rollout_text {
  pdt_buffer text; /* of the output alone, special tokens left out */
  int32_t *ends;   /* [n_tokens] bytes at which each token's text ends */
  int32_t n_tokens;
  size_t room;
  pdt_atlas_reading reading;
  pdt_rollout_mention *mentions; /* in the order of the text */
  int32_t n_mentions;
  size_t mentions_room;
} pdt_rollout_text;

/* The first token whose text reaches beyond byte `at`; n_tokens when none does. Pure. */
int32_t pdt_rollout_token_at(const pdt_rollout_text *text, size_t at);

/* What texts are read with; all borrowed. */
typedef struct pdt_rollout_reader {
  const pdt_atlas_world *world;
  const pdt_tokenizer *tokenizer;
} pdt_rollout_reader;

/* Reads tokens[n] that follow prefix[n_prefix], token by token: a character that is spread over
 * tokens belongs to the one that completes it. ended: nothing follows, so no name is open. Errors:
 * MEMORY, those of pdt_text_stream_push. */
int pdt_rollout_read(pdt_rollout_text *out, const pdt_rollout_reader *reader,
                     const pdt_token *prefix, int32_t n_prefix, const pdt_token *tokens, int32_t n,
                     bool ended, pdt_error *err);
void pdt_rollout_text_free(pdt_rollout_text *t);

/* A block and what it does. Sets of types are masks of bits.
 *
 * Step u of a stream reads token u - 1 of its output and emits token u. So a block of tokens
 * [begin, begin + n) has read tokens up to begin + n - 2, and a name whose last token is p is
 * complete in the block that emits token p + 1. */
typedef struct pdt_rollout_block {
  pdt_round round;
  int32_t begin, n;
  bool committed;
  uint32_t stated; /* the stream's own types whose statement's last token is read in this block */
  uint32_t used;   /* types of siblings of whose name, told or used, a token is emitted in it */
  uint32_t seen;   /* types of siblings whose statement's note was in its window, used or not */
  bool ready;      /* everything in `used` is in `seen` */
  bool agrees; /* every name of a type in both `used` and `seen` is its owner's, and every one of
                  the stream's own facts, where it has stated that before, is the one it stated
                  first; or, while the name is open, begins so */
  int16_t value[PDT_ATLAS_TYPES]; /* of `stated`: the first there; PDT_UNKNOWN_VALUE: no name */
  /* Of `stated`, where the world has names that are not listed: such a name; else empty. */
  char unlisted[PDT_ATLAS_TYPES][PDT_ROLLOUT_NAME_BYTES];
  pdt_round seen_in[PDT_ATLAS_TYPES]; /* of `seen`: round of the first statement that shows */
  /* For the caller: logits of the coverage head, and the plan slots that it says are covered. */
  float coverage[PDT_DATA_SLOTS];
  uint64_t covered;
} pdt_rollout_block;

/* One stream's output so far. */
typedef struct pdt_rollout_stream {
  const pdt_token *prefix; /* borrowed */
  int32_t n_prefix;
  pdt_token *tokens; /* [n_tokens], pending blocks included */
  int32_t n_tokens;
  size_t tokens_room;
  pdt_rollout_block *blocks; /* [n_blocks], by round; the first n_committed are committed */
  int32_t n_blocks, n_committed;
  size_t blocks_room;
} pdt_rollout_stream;

/* The ledger of a session. A zeroed one is empty. */
typedef struct pdt_rollout {
  pdt_rollout_reader reader;
  pdt_rollout_owners owners;
  pdt_rollout_stream *streams; /* [owners.streams] */
  pdt_rollout_text scratch;
} pdt_rollout;

/* A session before its first round. prefix[streams] and n_prefix[streams] are borrowed and outlive
 * it. Freed by the caller, after an error too. Errors: MEMORY. */
int pdt_rollout_new(pdt_rollout *r, const pdt_rollout_reader *reader,
                    const pdt_rollout_owners *owners, pdt_token *const *prefix,
                    const int32_t *n_prefix, pdt_error *err);
void pdt_rollout_free(pdt_rollout *r);

/* A block that a stream has emitted: tokens[n] behind all that it has (n >= 1), in this round,
 * under a window of notes by name (the plan's may be among them). Their order and number are the
 * caller's business: a note that is not named is not seen. */
typedef struct pdt_rollout_emission {
  pdt_stream stream;
  pdt_round round;
  const pdt_token *tokens;
  int32_t n;
  bool ended; /* the last token ends the stream */
  const pdt_note_name *window;
  int32_t n_window;
} pdt_rollout_emission;

/* Says what the block does, as of before its round's decision. Changes nothing but scratch, and
 * reads one section's text: some 10 microseconds. Errors: MEMORY, those of pdt_rollout_read. */
int pdt_rollout_label(pdt_rollout *r, const pdt_rollout_emission *emission, pdt_rollout_block *out,
                      pdt_error *err);

/* A stream's output after a decision, wherever it is kept (pdt_stream_state): tokens[n], of which
 * the first n_committed are final. */
typedef struct pdt_rollout_output {
  const pdt_token *tokens;
  int32_t n, n_committed;
} pdt_rollout_output;

/* Brings the ledger of one stream to where its output is now: blocks whose tokens are there no more
 * were dropped, and those up to n_committed are committed. `emitted` is the block of this round,
 * NULL when it emitted nothing: kept when its tokens are there. What was decided is not asked. To
 * be called for every stream of the session after every round. Errors: MEMORY. */
int pdt_rollout_follow(pdt_rollout *r, pdt_stream stream, const pdt_rollout_output *output,
                       const pdt_rollout_block *emitted, pdt_error *err);

/* The kept block of a stream that emits token `at` of its output; NULL when none does. Pure. */
const pdt_rollout_block *pdt_rollout_block_of(const pdt_rollout_stream *s, int32_t at);

#endif

/* From names in texts to what each block does with them: pure arithmetic on positions. Everything
 * is in nominal lockstep: block b of every stream is emitted in round b + 1, nothing is rolled
 * back, and a block's note is published when it is emitted (PROTOCOL.md, "Notes bus"). */
#ifndef PDT_DATA_BLOCKS_H
#define PDT_DATA_BLOCKS_H

#include "data/entry.h"

typedef struct pdt_data_rounds {
  int32_t block_tokens; /* tau >= 1 */
  int32_t reveal_delay; /* Delta >= 1, rounds */
  int32_t window;       /* B: notes, the plan note included; 0: as many as there are */
} pdt_data_rounds;

/* Where the tokens of a text end. */
typedef struct pdt_data_tokens {
  int32_t *ends; /* [n], bytes from the start of the text, ascending, the last one its length */
  int32_t n;     /* the end-of-text token not included */
} pdt_data_tokens;

/* Number of the token that byte `at` of the text lies in; n when it lies behind them all. Pure. */
int32_t pdt_data_token_at(const pdt_data_tokens *tokens, int32_t at);

/* Fills in n_tokens and blocks of every section from mentions and tokens[n_sections]; `coverage` is
 * the set of slots whose item's text is the type of a fact stated and whose stream is its owner.
 * Blocks that were there are freed; their notes are kept when there are as many as before. Errors:
 * INPUT when a mention lies outside its text, MEMORY. */
int pdt_data_label(pdt_data_entry *e, const pdt_data_tokens *tokens, const pdt_data_rounds *rounds,
                   pdt_error *err);

/* Are the facts that a labelled block uses visible in its window? Pure. */
bool pdt_data_is_ready(const pdt_data_entry *e, const pdt_data_rounds *rounds, pdt_stream stream,
                       int32_t block);

/* What a set of blocks has in it that makes coordination hard. */
typedef struct pdt_data_shape {
  int32_t blocks, crowded; /* crowded: states more than one fact */
  int32_t unready;
  int32_t uses, unseen; /* uses of siblings' facts; unseen: in the window of its first token's block
                           the fact is not visible */
  int32_t rounds;       /* when every block with an unseen fact waits until it is visible */
  bool circular;        /* they would wait for ever */
} pdt_data_shape;

/* The shape of labelled blocks. Errors: MEMORY. */
int pdt_data_shape_of(const pdt_data_entry *e, const pdt_data_rounds *rounds, pdt_data_shape *out,
                      pdt_error *err);

#endif

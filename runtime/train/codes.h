/* Teacher notes: what a block's note should say, as a vector made of codes of facts. */
#ifndef PDT_TRAIN_CODES_H
#define PDT_TRAIN_CODES_H

#include "data/entry.h"
#include "text/tokenizer.h"
#include "train/nn/trunk.h"

typedef enum pdt_codes { PDT_CODES_EMBEDDING, PDT_CODES_RANDOM } pdt_codes;

/* How notes are made. */
typedef struct pdt_teacher {
  pdt_codes codes;
  double used; /* share of the facts that a block uses, 0: only those it states */
} pdt_teacher;

enum {
  PDT_CODE_TOKENS = 4, /* tokens of a value with projections of their own */
  PDT_CODE_PLACES = 2, /* statements of a block that have codes of their own kind */
};

/* What codes are made from. Borrows trunk and tokenizer. */
typedef struct pdt_coder {
  const pdt_nn_trunk *trunk;
  const pdt_tokenizer *tokenizer;
  int64_t dim; /* dn */
  pdt_teacher teacher;
  double *mean;                                         /* [d] of the embedding's rows */
  double deviation;                                     /* of all its elements around that */
  float *projections[PDT_CODE_PLACES][PDT_CODE_TOKENS]; /* [dn, d] for each place of a token */
} pdt_coder;

/* Lives in the arena. Errors: MEMORY. */
int pdt_coder_init(pdt_coder *c, const pdt_nn_trunk *trunk, const pdt_tokenizer *tokenizer,
                   int32_t notes_dim, const pdt_teacher *teacher, pdt_arena *arena, pdt_error *err);

/* Teacher notes of all blocks of an entry, stream after stream, notes[Nb, dn]. used[Nb]: facts of
 * siblings that each block has read a name of. A block's note is Norm(sum of the codes of the facts
 * it states), a code of its own where it states none; where it uses facts, Norm(that + `used` times
 * the sum of theirs). The code of its r-th fact, r = 0, 1, is Norm(c_r(type) + Norm(sum_j P_rj
 * (E[t_j] - mean E) / std E)) over the tokens t_j of " value", E the trunk's embedding and mean E
 * the mean of its rows, without which values would hardly differ: half of what the row of any
 * common word has in it, all words have. c_r and P_rj are fixed random vectors and matrices by
 * name; the code of a used fact has a c of its own and P_0j.
 * So what a note says is easy to write from the trunk's states and easy to read into them, and of
 * two facts each value stays with its type. PDT_CODES_RANDOM: a random vector a fact. Errors: those
 * of the tokenizer; INPUT: a value's id is outside the vocabulary; MEMORY. */
int pdt_coder_write(const pdt_coder *c, const pdt_data_entry *e, const uint64_t *used, float *notes,
                    pdt_arena *scratch, pdt_error *err);

/* All ids are in the trunk's vocabulary. Errors: INPUT. Pure. */
int pdt_coder_check_ids(const pdt_coder *c, const pdt_token *ids, int32_t n, pdt_error *err);

/* The projection of the first token of a value that a block states first: P_00 [dn, d], into out.
 * Deterministic. */
void pdt_coder_projection(int32_t notes_dim, int32_t hidden_size, float *out);

/* x[n] to root mean square 1. Pure. */
void pdt_coder_normalize(float *x, int64_t n);

#endif

/* Text to pretrain a trunk on: JSON lines, one document each, {"text": ...} or {"ids": [...]}, the
 * latter with optional "weights", one number an id: how much its prediction counts (1 without).
 * Other keys are passed over, and so is a line without either that has a "format": the header of a
 * data file. Documents are cut into pieces of at most `context` predictions; no piece reads
 * another. */
#ifndef PDT_TRAIN_CORPUS_H
#define PDT_TRAIN_CORPUS_H

#include "model/config.h"
#include "text/tokenizer.h"

typedef struct pdt_corpus {
  pdt_token *tokens; /* [n_tokens] of all documents */
  float *weights;    /* [n_tokens] of predicting that token */
  int64_t n_tokens;
  size_t room;
  struct pdt_piece {
    int64_t first; /* its tokens: first .. first + rows */
    int32_t rows;  /* predictions, at least 1 */
  } * pieces;
  int64_t n_pieces;
  size_t pieces_room;
  int64_t n_documents;
  uint64_t fingerprint; /* XXH3-64 of tokens, weights and pieces */
} pdt_corpus;

/* Reads a file. tokenizer may be NULL: then texts are refused. Texts get the post-processor's
 * special tokens and, where the model has one, its first end-of-sequence id at the end; ids are
 * taken as they stand. Errors: IO; INPUT naming line and what is wrong with it (no document, an id
 * outside the vocabulary, fewer than two tokens, a weight that is negative or not finite); MEMORY.
 * Freed by the caller, after an error too. */
int pdt_corpus_load(pdt_corpus *c, const char *path, const pdt_tokenizer *tokenizer,
                    const pdt_model_config *config, int32_t context, pdt_error *err);
void pdt_corpus_free(pdt_corpus *c);

#endif

/* The model of tokenizer.json: byte-pair encoding of one piece of text. */
#ifndef PDT_TEXT_BPE_H
#define PDT_TEXT_BPE_H

#include "text/vocabulary.h"

/* Immutable once loaded. */
typedef struct pdt_bpe {
  pdt_vocabulary vocabulary;
  struct pdt_bpe_merge {
    pdt_token left, right; /* left is -1 in a free slot */
    pdt_token merged;
    int32_t rank;        /* the lower goes first */
  } * merges;            /* a hash table by (left, right) */
  uint32_t mask;         /* number of slots - 1 */
  char *prefix, *suffix; /* of symbols that continue or end a word; NULL without */
  char *unknown;         /* the token for characters that are not in the vocabulary; NULL without */
  pdt_token unknown_id;  /* -1 without, or when the vocabulary lacks it */
  pdt_token byte_ids[256]; /* of "<0xHH>"; -1 where the vocabulary lacks it */
  bool byte_fallback, fuse_unknown, ignore_merges;
} pdt_bpe;

/* Fills a zeroed model from the value of "model". Errors: INPUT (another type of model, dropout, a
 * merge of tokens that are not in the vocabulary, ...), MEMORY. Freed by the caller, after an error
 * too. */
int pdt_bpe_load(pdt_bpe *model, const json_t *object, const char *where, pdt_error *err);

void pdt_bpe_free(pdt_bpe *model);

/* A growing list of ids. A zeroed one is empty. */
typedef struct pdt_ids {
  pdt_token *items;
  size_t n, room;
} pdt_ids;

/* Appends an id. Errors: MEMORY. */
int pdt_ids_add(pdt_ids *ids, pdt_token id, pdt_error *err);

/* Working memory of pdt_bpe_encode, to be kept from piece to piece. A zeroed one is empty. */
typedef struct pdt_bpe_scratch {
  struct pdt_bpe_symbol *symbols;
  struct pdt_bpe_candidate *heap;
  size_t n_symbols, room_symbols, n_heap, room_heap;
  pdt_buffer word; /* a character with prefix and suffix */
} pdt_bpe_scratch;

void pdt_bpe_scratch_free(pdt_bpe_scratch *scratch);

/* Appends the ids of a piece of valid UTF-8; O(n log n) in its length. A character that is not in
 * the vocabulary becomes its bytes, or the unknown token, or nothing, as the model says. Errors:
 * INPUT (the unknown token is needed and not in the vocabulary; 2 GiB or more), MEMORY. */
int pdt_bpe_encode(const pdt_bpe *model, const char *text, size_t bytes, pdt_bpe_scratch *scratch,
                   pdt_ids *ids, pdt_error *err);

#endif

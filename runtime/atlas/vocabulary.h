/* A tokenizer in which every word of the Atlas is one token, and every one-token name. */
#ifndef PDT_ATLAS_VOCABULARY_H
#define PDT_ATLAS_VOCABULARY_H

#include "atlas/world.h"
#include "text/tokenizer.h"

/* Special tokens, in the order of their ids from 0. */
#define PDT_ATLAS_BOS "<|bos|>" /* before a prompt */
#define PDT_ATLAS_END "<|end|>" /* after a section: what ends a stream */
#define PDT_ATLAS_EOS "<|eos|>" /* after the last section of a sequential text */

/* tokenizer.json as text, freed by the caller: byte-level BPE, the pre-tokenizer GPT-2's, and
 * `ignore_merges`, so that a word of the vocabulary is a token at once; a year of four digits
 * becomes century and rest by merges, anything else its bytes. Always the same. Errors: MEMORY. */
int pdt_atlas_tokenizer_text(const pdt_atlas_world *world, char **text, pdt_error *err);

/* That tokenizer, loaded; *fingerprint is that of its file. Errors: MEMORY, RUNTIME. */
int pdt_atlas_tokenizer(const pdt_atlas_world *world, pdt_tokenizer **out, uint64_t *fingerprint,
                        pdt_error *err);

#endif

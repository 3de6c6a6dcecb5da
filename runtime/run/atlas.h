/* Files of the Atlas: entries as training data or as texts, and the tokenizer. */
#ifndef PDT_RUN_ATLAS_H
#define PDT_RUN_ATLAS_H

#include "atlas/generate.h"

typedef struct pdt_atlas_file {
  pdt_atlas_kind world;
  pdt_atlas_options atlas;
  int64_t first, count; /* entries [first, first + count), which must be below 2^32 */
  const char *model;    /* directory whose tokenizer cuts the blocks; NULL: the world's own */
  const char *out;      /* file; "-": standard output */
  pdt_chat_flags chat;  /* prompts as conversations, by the chat template of `model` */
  bool sequential;      /* texts for a trunk in place of entries */
  bool one_stream;      /* entries of one section that is all (data/join.h) */
  bool overwrite;
} pdt_atlas_file;

/* Writes the entries and says on standard output (or error, when that is `out`) how many they are,
 * and which names the tokenizer left out.
 * Errors: USAGE (an output that would cost an input, or that is there), INPUT, IO, MEMORY. */
int pdt_atlas_write(const pdt_atlas_file *file, pdt_error *err);

/* Writes the tokenizer.json of a world into a directory, which is made if it is not there, and says
 * so on standard output. Errors: USAGE (one is there, and not `overwrite`), IO, MEMORY. */
int pdt_atlas_write_tokenizer(pdt_atlas_kind kind, const char *directory, bool overwrite,
                              pdt_error *err);

#endif

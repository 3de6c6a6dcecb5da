/* Does a data file say what is so? Beyond its form, which the reader checks: labels agree with
 * mentions, teacher notes are there, and texts of a world that is known are read back fact by fact.
 */
#ifndef PDT_DATA_CHECK_H
#define PDT_DATA_CHECK_H

#include "data/data.h"
#include "text/tokenizer.h"

enum { PDT_STATS_SECTIONS = 9 }; /* entries of 8 sections and more are counted together */

/* What is in a file. Sums; tokens are those of sections' texts with their end-of-text tokens. */
typedef struct pdt_data_stats {
  int64_t entries, sections, facts, tokens, statements, mentions_of_uses, misreadings;
  int64_t by_sections[PDT_STATS_SECTIONS]; /* entries by number of sections */
  int32_t min_tokens, max_tokens;          /* of a section */
  int64_t blocks, crowded, unready;        /* as in pdt_data_shape */
  int64_t uses, unseen;           /* in blocks; two uses of a fact in touching blocks are one */
  int64_t circular;               /* entries whose blocks wait in a circle */
  int64_t rounds, waiting_rounds; /* of entries without circle: in lockstep, and waiting */
  int64_t begin_with_use;         /* sections whose first mention is a use */
  pdt_bytes bytes;
  bool recut;     /* blocks were cut again by a tokenizer, and were the same */
  bool read_back; /* texts were parsed, and said what the mentions say */
} pdt_data_stats;

/* A tokenizer to cut the blocks again with, and its fingerprint. */
typedef struct pdt_data_tokenizer {
  const pdt_tokenizer *tokenizer;
  uint64_t fingerprint;
} pdt_data_tokenizer;

/* Worlds whose sentences can be read back. */
typedef struct pdt_data_world {
  void *context; /* of the functions */
  /* Called once, for a file whose header names a world. Errors: INPUT (an unknown one), MEMORY. */
  int (*begin)(void *context, const char *name, pdt_error *err);
  /* Do the entry's texts say what its mentions and facts say? Errors: INPUT naming the field (file
   * and line are put before it), MEMORY. */
  int (*check)(void *context, const pdt_data_header *header, const pdt_data_entry *e,
               pdt_error *err);
  /* The tokenizer that the world's own files are cut by: *out is borrowed. */
  int (*tokenizer)(void *context, const pdt_tokenizer **out, uint64_t *fingerprint, pdt_error *err);
} pdt_data_world;

/* Reads the whole file and stops at the first thing that is wrong, naming line and field. world:
 * for a file that names one. given: a tokenizer, or NULL; the world's own is taken when the file
 * was cut by it. Errors: IO, INPUT, MEMORY. */
int pdt_data_check(const char *path, const pdt_data_world *world, const pdt_data_tokenizer *given,
                   pdt_data_stats *out, pdt_error *err);

#endif

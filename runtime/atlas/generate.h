/* Entries drawn from the world: entry i of a seed and split is the same for ever.
 *
 * All kinds: 2 to 6 sections in any order, their facts (two each) and names drawn evenly; every
 * fact is stated once, by its section, and used by at least one other; sentences are drawn from
 * several forms each, with others between them that say nothing. With `again` a section may tell
 * its own fact a second time, by the same name: in another form of its statement, or as siblings
 * do. With `any_names` a fact's name may be any word: whoever learns from such entries learns that
 * notes tell names, whatever the sentence leads one to expect. With `misreads` what a section uses
 * may have another fact's name, or another one of its type: such a block is never ready. With
 * `untitled` streams are not told which section is theirs: stream k writes the k-th of the plan.
 *
 * Default: names of one token; statements of a section end at least max(8, tau) tokens apart, so
 * that no block of up to that many completes two; uses may come before their fact is visible in
 * lockstep, but never so that blocks wait in a circle, at tau or any of 4 to 8. Hard in the world
 * of syllables: names of two tokens, both statements of three sections in four in one sentence,
 * circles not avoided. Hard in the world of words: half of the names are of two or three tokens.
 *
 * In the world of words a tenth of the names is held out of training: they are in no entry of the
 * split train. Of any words a tenth is, too, and the other splits draw from that tenth alone. Names
 * of this world that the tokenizer does not have whole are left out, one by one.
 *
 * Splits share no entry, whatever the seeds: which split a town and its facts belong to is a
 * function of them alone (pdt_atlas_split_of), any word as good as another. */
#ifndef PDT_ATLAS_GENERATE_H
#define PDT_ATLAS_GENERATE_H

#include "atlas/any_words.h"
#include "atlas/world.h"
#include "base/buffer.h"
#include "data/blocks.h"
#include "request/chat.h"
#include "sidecar/config.h"
#include "text/tokenizer.h"

typedef enum pdt_atlas_split { PDT_TRAIN, PDT_VALID, PDT_TEST } pdt_atlas_split;

/* Of what is partly held out of training: names, and wordings of prompts. */
typedef enum pdt_atlas_part { PDT_ATLAS_SEEN, PDT_ATLAS_HELD_OUT, PDT_ATLAS_ALL } pdt_atlas_part;

enum {
  PDT_ATLAS_MIN_TOKENS = 30, /* defaults of pdt_atlas_options */
  PDT_ATLAS_MAX_TOKENS = 90,
  PDT_ATLAS_MAX_TAU = 16, /* largest tau that statements are kept apart for */
};

typedef struct pdt_atlas_options {
  uint64_t seed;
  pdt_atlas_split split;
  bool hard;
  pdt_atlas_part names;       /* held-out ones: of a world that has some, not in the split train */
  bool wordings;              /* prompts in several wordings */
  pdt_atlas_part wordings_of; /* then: which; held-out ones not in the split train */
  double any_names; /* chance that a fact's name is any word of the tokenizer's; with words */
  double again; /* chance that a section tells a fact of its own again; not where a world tangles */
  double misreads; /* chance that what a section uses has a name that is not its own */
  double untitled; /* chance that an entry's headings begin its texts, and no prefix has them */
  int32_t min_sections, max_sections; /* 2 to 6 */
  int32_t min_tokens, max_tokens;     /* of a section, its end-of-text token not included */
  pdt_data_rounds rounds;             /* default Atlas: tau up to PDT_ATLAS_MAX_TAU */
  int32_t plan_slots;                 /* at least 2 * max_sections */
  int32_t plan_vocab_size;
  const char *plan_salt; /* borrowed */
} pdt_atlas_options;

/* Names that may be drawn. */
typedef struct pdt_atlas_pool {
  int32_t n;
  int16_t values[PDT_ATLAS_MOST_VALUES];
} pdt_atlas_pool;

typedef struct pdt_atlas_generator {
  const pdt_atlas_world *world;
  const pdt_tokenizer *tokenizer;
  pdt_atlas_options options;
  int32_t *costs; /* [n_words] tokens of a word with the space before it, in a sentence */
  pdt_atlas_pool (*pools)[2]; /* [PDT_ATLAS_TYPES]: names of one token; the others */
  int32_t n_left_out;         /* names that the tokenizer cuts to too many pieces */
  pdt_buffer left_out;        /* these, with commas between them */
  pdt_sidecar_config *plan;   /* what pdt_plan_hash reads */
  pdt_atlas_any any;          /* words that are names where options.any_names says so */
  pdt_request_chat *chat;     /* NULL, or how prompts become conversations; borrowed */
  int64_t attempts;           /* entries drawn, those that were no good included */
} pdt_atlas_generator;

/* Prepares to draw; world and tokenizer must outlive the generator. Freed by the caller, after an
 * error too. Errors: USAGE (an option out of its range), INPUT (a tokenizer that has less than half
 * of a type's names, or too few words), MEMORY. */
int pdt_atlas_generator_init(pdt_atlas_generator *g, const pdt_atlas_world *world,
                             const pdt_tokenizer *tokenizer, const pdt_atlas_options *options,
                             pdt_error *err);
void pdt_atlas_generator_free(pdt_atlas_generator *g);

/* Draws entry `index` into a zeroed *out, which the caller frees. Depends on the options, the
 * tokenizer and index alone. Errors: INPUT (no entry fits the lengths and rules with this
 * tokenizer), MEMORY. */
int pdt_atlas_generate(pdt_atlas_generator *g, uint32_t index, pdt_data_entry *out, pdt_error *err);

/* The split that an entry about `town` with these values of types[n] belongs to: of 16 equal parts,
 * one is valid, one test. Pure. */
pdt_atlas_split pdt_atlas_split_of(int32_t town, const int32_t *types, const int32_t *values,
                                   int32_t n);

/* "train", "valid", "test". */
const char *pdt_atlas_split_name(pdt_atlas_split split);
bool pdt_atlas_split_parse(const char *name, pdt_atlas_split *out);

/* From "seen", "held-out", "all"; false when unknown. */
bool pdt_atlas_part_parse(const char *name, pdt_atlas_part *out);

#endif

/* pdt data atlas. */
#include <errno.h>

#include "cli/chat_flags.h"
#include "cli/cli.h"
#include "cli/data_flags.h"
#include "cli/world_option.h"
#include "run/atlas.h"

enum {
  OPT_COUNT = 256,
  OPT_FIRST,
  OPT_SEED,
  OPT_SPLIT,
  OPT_WORLD,
  OPT_NAMES,
  OPT_WORDINGS,
  OPT_HARD,
  OPT_AGAIN,
  OPT_ANY_NAMES,
  OPT_MISREADS,
  OPT_UNTITLED,
  OPT_MODEL,
  OPT_MIN,
  OPT_MAX,
  OPT_MIN_TOKENS,
  OPT_MAX_TOKENS,
  OPT_SEQUENTIAL,
  OPT_ONE_STREAM,
  OPT_OUT,
  OPT_OVERWRITE,
  OPT_DATA,
  OPT_CHAT = OPT_DATA + PDT_DATA_FLAGS,
};

static const struct argp_option options[] = {
    {"count", OPT_COUNT, "N", 0, "entries to write (default 1000)", 0},
    {"first", OPT_FIRST, "I", 0, "index of the first one (default 0)", 0},
    {"seed", OPT_SEED, "N", 0, "of the random numbers (default 0)", 0},
    {"split", OPT_SPLIT, "NAME", 0,
     "train, valid or test (default train); no entry is in two of them, whatever the seeds", 0},
    {"world", OPT_WORLD, "NAME", 0,
     "atlas: invented names, for trunks trained on it; words: common English words, one token "
     "each, "
     "and more sentences, for trunks that know English (default atlas)",
     0},
    {"hard", OPT_HARD, NULL, 0,
     "names of two tokens, two facts in one sentence, streams that wait for each other; words: "
     "half "
     "of all names of two or three tokens",
     0},
    {"names", OPT_NAMES, "PART", 0,
     "seen, held-out or all; words: a tenth of the names is in no entry of the split train "
     "(default "
     "seen)",
     0},
    {"wordings", OPT_WORDINGS, "PART", 0,
     "prompts in twelve wordings, of which three are held out of the split train: seen, held-out "
     "or "
     "all (default: one wording)",
     0},
    {"again", OPT_AGAIN, "X", 0,
     "chance that a section tells a fact of its own again, by the same name (default 0)", 0},
    {"any-names", OPT_ANY_NAMES, "X", 0,
     "words: chance that a fact's name is any word that the tokenizer has whole; a tenth of these "
     "is "
     "held out of training, and the other splits draw from it (default 0)",
     0},
    {"untitled", OPT_UNTITLED, "X", 0,
     "chance that the streams of an entry have to know for themselves which section is whose: "
     "prefixes are empty, and stream k writes the heading, too, of the k-th that the prompt names "
     "(default 0)",
     0},
    {"misreads", OPT_MISREADS, "X", 0,
     "chance that what a section uses has the name of another fact, or another one of its type: "
     "such "
     "blocks are labelled as not ready, and nobody learns to write them (default 0)",
     0},
    {"sequential", OPT_SEQUENTIAL, NULL, 0,
     "write texts for pdt train --stage trunk: an entry as one text, its sections one after "
     "another, "
     "in the prompt's order or, one in two, in another",
     0},
    {"one-stream", OPT_ONE_STREAM, NULL, 0,
     "one stream writes all sections, one after another: to train what a sidecar is compared with "
     "(pdt eval --arms one-stream)",
     0},
    {"model", OPT_MODEL, "DIR", 0,
     "cut blocks by the tokenizer.json in DIR (default: the world's own, see pdt data tokenizer); "
     "words: names that it has in more tokens are left out, and told",
     0},
    PDT_CHAT_OPTIONS(OPT_CHAT, 0),
    {"min-sections", OPT_MIN, "N", 0, "fewest sections of an entry (default 2)", 0},
    {"max-sections", OPT_MAX, "N", 0, "most of them (default 6)", 0},
    {"min-tokens", OPT_MIN_TOKENS, "N", 0, "fewest tokens of a section's text (default 30)", 0},
    {"max-tokens", OPT_MAX_TOKENS, "N", 0, "most of them (default 90)", 0},
    PDT_DATA_OPTIONS(OPT_DATA),
    {"out", OPT_OUT, "FILE", 0, "where the entries are written; - is standard output", 0},
    {"overwrite", OPT_OVERWRITE, NULL, 0, "replace a file that is there", 0},
    {0},
};

static const char doc[] =
    "Writes entries of the Atlas: short texts about invented places whose sections share facts, "
    "as JSON lines."
    "\vEntry i of a seed, split and kind is the same for ever; of the world of words also of a "
    "tokenizer, when that leaves names out.\n\n"
    "Examples:\n"
    "  pdt data atlas --count 20000 --seed 1 --out train.jsonl\n"
    "  pdt data atlas --count 500 --split test --hard --out test-hard.jsonl\n"
    "  pdt data atlas --count 100 --model m --block-tokens 8 --out m.jsonl\n"
    "  pdt data atlas --world words --model m --block-tokens 8 --count 4000 \\\n"
    "      --out w.jsonl\n"
    "  pdt data atlas --count 40000 --sequential --out text.jsonl\n"
    "  pdt data atlas --world words --model m --one-stream --out one.jsonl\n";

static error_t parse_part(struct argp_state *state, const char *option, const char *arg,
                          pdt_atlas_part *out) {
  if (pdt_atlas_part_parse(arg, out)) return 0;
  argp_error(state, "--%s: expected seen, held-out or all, found '%s'", option, arg);
  return EINVAL;
}

typedef struct arguments {
  pdt_atlas_file file;
  pdt_data_flags data;
} arguments;

/* Options that are numbers of pdt_atlas_options, and those of all data. */
static error_t parse_number(int key, const char *arg, struct argp_state *state) {
  arguments *args = state->input;
  pdt_atlas_options *o = &args->file.atlas;
  const struct {
    int key;
    const char *name;
    int32_t low, high, *out;
  } numbers[] = {
      {OPT_MIN, "min-sections", 2, PDT_ATLAS_SECTIONS, &o->min_sections},
      {OPT_MAX, "max-sections", 2, PDT_ATLAS_SECTIONS, &o->max_sections},
      {OPT_MIN_TOKENS, "min-tokens", 1, 1 << 20, &o->min_tokens},
      {OPT_MAX_TOKENS, "max-tokens", 1, 1 << 20, &o->max_tokens},
  };
  if (key == OPT_AGAIN) return pdt_cli_real(state, "again", arg, 0, 1, &o->again);
  if (key == OPT_MISREADS) return pdt_cli_real(state, "misreads", arg, 0, 1, &o->misreads);
  if (key == OPT_UNTITLED) return pdt_cli_real(state, "untitled", arg, 0, 1, &o->untitled);
  if (key == OPT_ANY_NAMES) return pdt_cli_real(state, "any-names", arg, 0, 1, &o->any_names);
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
    if (numbers[i].key == key)
      return pdt_cli_int32(state, numbers[i].name, arg, numbers[i].low, numbers[i].high,
                           numbers[i].out);
  return pdt_data_flag(&args->data, key - OPT_DATA, arg, state);
}

static error_t parse_option(int key, char *arg, struct argp_state *state) {
  arguments *args = state->input;
  pdt_atlas_file *a = &args->file;
  const pdt_cli_kept kept[] = {{OPT_HARD, NULL, &a->atlas.hard},
                               {OPT_SEQUENTIAL, NULL, &a->sequential},
                               {OPT_ONE_STREAM, NULL, &a->one_stream},
                               {OPT_MODEL, &a->model, NULL},
                               {OPT_OUT, &a->out, NULL},
                               {OPT_OVERWRITE, NULL, &a->overwrite},
                               PDT_CHAT_KEPT(OPT_CHAT, &a->chat)};
  if (pdt_cli_keep(kept, sizeof kept / sizeof *kept, key, arg)) return 0;
  switch (key) {
  case OPT_COUNT:
    return pdt_cli_integer(state, "count", arg, 1, UINT32_MAX, &a->count);
  case OPT_FIRST:
    return pdt_cli_integer(state, "first", arg, 0, UINT32_MAX, &a->first);
  case OPT_SEED:
    return pdt_cli_seed(state, "seed", arg, &a->atlas.seed);
  case OPT_WORLD:
    return pdt_world_option(arg, &a->world, state);
  case OPT_NAMES:
    return parse_part(state, "names", arg, &a->atlas.names);
  case OPT_WORDINGS:
    a->atlas.wordings = true;
    return parse_part(state, "wordings", arg, &a->atlas.wordings_of);
  case OPT_SPLIT:
    if (pdt_atlas_split_parse(arg, &a->atlas.split)) return 0;
    argp_error(state, "--split: expected train, valid or test, found '%s'", arg);
    return EINVAL;
  case ARGP_KEY_ARG:
    return pdt_cli_argument(state, NULL, arg, NULL);
  case ARGP_KEY_END:
    if (!a->out)
      argp_error(state, "expected --out");
    else if ((a->chat.prompts || a->chat.system) && !a->model)
      argp_error(state, "--chat: expected --model, whose chat template it is");
    else if (a->sequential && a->one_stream)
      argp_error(state, "--one-stream: expected entries, found --sequential");
    else
      return 0;
    return EINVAL;
  default:
    return parse_number(key, arg, state);
  }
}

int pdt_cmd_data_atlas(const pdt_cli *cli, int argc, char **argv, pdt_error *err) {
  arguments args = {.file = {.count = 1000,
                             .atlas = {.split = PDT_TRAIN,
                                       .min_sections = 2,
                                       .max_sections = PDT_ATLAS_SECTIONS,
                                       .min_tokens = PDT_ATLAS_MIN_TOKENS,
                                       .max_tokens = PDT_ATLAS_MAX_TOKENS}},
                    .data = PDT_DATA_FLAGS_DEFAULT};
  pdt_atlas_file *file = &args.file;
  const struct argp argp = {options, parse_option, NULL, doc, NULL, NULL, NULL};
  int parsed = pdt_cli_parse(cli, &argp, argc, argv, &args, err);
  if (parsed) return parsed < 0 ? -1 : 0;
  if (file->first + file->count - 1 > UINT32_MAX)
    return pdt_fail(err, PDT_ERROR_USAGE, "--first: expected entries up to %u, found up to %lld",
                    UINT32_MAX, (long long)(file->first + file->count - 1));
  file->atlas.rounds = args.data.rounds;
  file->atlas.plan_slots = args.data.plan_slots;
  file->atlas.plan_vocab_size = args.data.plan_vocab_size;
  file->atlas.plan_salt = args.data.plan_salt;
  return pdt_atlas_write(file, err);
}

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "atlas/check.h"
#include "atlas/generate.h"
#include "atlas/vocabulary.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/text_safe.h"
#include "cli/cli.h"
#include "data/sequence.h"
#include "journal/sink.h"
#include "run/outputs.h"

enum {
  OPT_COUNT = 256,
  OPT_FIRST,
  OPT_SEED,
  OPT_SPLIT,
  OPT_HARD,
  OPT_MODEL,
  OPT_TAU,
  OPT_DELAY,
  OPT_WINDOW,
  OPT_MIN,
  OPT_MAX,
  OPT_MIN_TOKENS,
  OPT_MAX_TOKENS,
  OPT_SLOTS,
  OPT_VOCAB,
  OPT_SALT,
  OPT_SEQUENTIAL,
  OPT_OUT,
  OPT_JSON,
  OPT_OVERWRITE,
};

typedef struct data_args {
  pdt_atlas_options atlas;
  int64_t count, first;
  const char *model, *out, *path;
  bool json, sequential, overwrite;
} data_args;

static const struct argp_option atlas_options[] = {
    {"count", OPT_COUNT, "N", 0, "entries to write (default 1000)", 0},
    {"first", OPT_FIRST, "I", 0, "index of the first one (default 0)", 0},
    {"seed", OPT_SEED, "N", 0, "of the random numbers (default 0)", 0},
    {"split", OPT_SPLIT, "NAME", 0,
     "train, valid or test (default train); no entry is in two of them, whatever the seeds", 0},
    {"hard", OPT_HARD, NULL, 0,
     "names of two tokens, two facts in one sentence, streams that wait for each other", 0},
    {"sequential", OPT_SEQUENTIAL, NULL, 0,
     "write texts for pdt train --stage trunk: an entry as one text, its sections one after "
     "another, "
     "in the prompt's order or, one in two, in another",
     0},
    {"model", OPT_MODEL, "DIR", 0,
     "cut blocks by the tokenizer.json in DIR (default: the Atlas's own, see pdt data tokenizer)",
     0},
    {"block-tokens", OPT_TAU, "N", 0, "tokens in a block (default 6)", 0},
    {"reveal-delay", OPT_DELAY, "N", 0, "rounds until a note is visible (default 1)", 0},
    {"window", OPT_WINDOW, "N", 0, "notes in a window, the plan's included (default 0: all)", 0},
    {"min-sections", OPT_MIN, "N", 0, "fewest sections of an entry (default 2)", 0},
    {"max-sections", OPT_MAX, "N", 0, "most of them (default 6)", 0},
    {"min-tokens", OPT_MIN_TOKENS, "N", 0, "fewest tokens of a section's text (default 30)", 0},
    {"max-tokens", OPT_MAX_TOKENS, "N", 0, "most of them (default 90)", 0},
    {"plan-slots", OPT_SLOTS, "N", 0, "of the sidecar (default 16)", 0},
    {"plan-vocab", OPT_VOCAB, "N", 0, "of the sidecar (default 65536)", 0},
    {"plan-salt", OPT_SALT, "TEXT", 0, "of the sidecar's hash (default parallel-decoder-v1)", 0},
    {"out", OPT_OUT, "FILE", 0, "where the entries are written; - is standard output", 0},
    {"overwrite", OPT_OVERWRITE, NULL, 0, "replace a file that is there", 0},
    {0},
};

static const char atlas_doc[] =
    "Writes entries of the Atlas: short texts about invented places whose sections share facts, "
    "as JSON lines."
    "\vEntry i of a seed, split and kind is the same for ever.\n\n"
    "Examples:\n"
    "  pdt data atlas --count 20000 --seed 1 --out train.jsonl\n"
    "  pdt data atlas --count 500 --split test --hard --out test-hard.jsonl\n"
    "  pdt data atlas --count 100 --model m --block-tokens 8 --out m.jsonl\n"
    "  pdt data atlas --count 40000 --sequential --out text.jsonl\n";

static error_t parse_int32(struct argp_state *state, const char *option, const char *arg,
                           int32_t low, int32_t high, int32_t *out) {
  int64_t value;
  error_t rc = pdt_cli_integer(state, option, arg, low, high, &value);
  if (!rc) *out = (int32_t)value;
  return rc;
}

/* Options that are numbers of pdt_atlas_options. */
static error_t parse_number(int key, const char *arg, struct argp_state *state) {
  data_args *a = state->input;
  pdt_atlas_options *o = &a->atlas;
  const struct {
    int key;
    const char *name;
    int32_t low, high, *out;
  } numbers[] = {
      {OPT_TAU, "block-tokens", 1, 1 << 20, &o->rounds.block_tokens},
      {OPT_DELAY, "reveal-delay", 1, 1 << 20, &o->rounds.reveal_delay},
      {OPT_WINDOW, "window", 0, 1 << 20, &o->rounds.window},
      {OPT_MIN, "min-sections", 2, PDT_ATLAS_SECTIONS, &o->min_sections},
      {OPT_MAX, "max-sections", 2, PDT_ATLAS_SECTIONS, &o->max_sections},
      {OPT_MIN_TOKENS, "min-tokens", 1, 1 << 20, &o->min_tokens},
      {OPT_MAX_TOKENS, "max-tokens", 1, 1 << 20, &o->max_tokens},
      {OPT_SLOTS, "plan-slots", 4, PDT_DATA_SLOTS, &o->plan_slots},
      {OPT_VOCAB, "plan-vocab", 2, 1 << 24, &o->plan_vocab_size},
  };
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
    if (numbers[i].key == key)
      return parse_int32(state, numbers[i].name, arg, numbers[i].low, numbers[i].high,
                         numbers[i].out);
  return ARGP_ERR_UNKNOWN;
}

static error_t parse_atlas(int key, char *arg, struct argp_state *state) {
  data_args *a = state->input;
  switch (key) {
  case OPT_COUNT:
    return pdt_cli_integer(state, "count", arg, 1, UINT32_MAX, &a->count);
  case OPT_FIRST:
    return pdt_cli_integer(state, "first", arg, 0, UINT32_MAX, &a->first);
  case OPT_SEED:
    return pdt_cli_seed(state, "seed", arg, &a->atlas.seed);
  case OPT_SPLIT:
    if (pdt_atlas_split_parse(arg, &a->atlas.split)) break;
    argp_error(state, "--split: expected train, valid or test, found '%s'", arg);
    return EINVAL;
  case OPT_HARD:
    a->atlas.hard = true;
    break;
  case OPT_SEQUENTIAL:
    a->sequential = true;
    break;
  case OPT_MODEL:
    a->model = arg;
    break;
  case OPT_SALT:
    a->atlas.plan_salt = arg;
    break;
  case OPT_OUT:
    a->out = arg;
    break;
  case OPT_OVERWRITE:
    a->overwrite = true;
    break;
  case ARGP_KEY_ARG:
    argp_error(state, "expected options only, found '%s'", arg);
    return EINVAL;
  case ARGP_KEY_END:
    if (a->out) break;
    argp_error(state, "expected --out");
    return EINVAL;
  default:
    return parse_number(key, arg, state);
  }
  return 0;
}

/* What the entries are drawn with. */
typedef struct workshop {
  pdt_atlas_world *world;
  pdt_tokenizer *tokenizer;
  uint64_t fingerprint;
  pdt_atlas_generator generator;
} workshop;

static int open_workshop(const data_args *a, workshop *w, pdt_error *err) {
  if (pdt_atlas_world_new(&w->world, err)) return -1;
  if (a->model ? pdt_tokenizer_load_folder(&w->tokenizer, a->model, &w->fingerprint, err)
               : pdt_atlas_tokenizer(w->world, &w->tokenizer, &w->fingerprint, err))
    return -1;
  return pdt_atlas_generator_init(&w->generator, w->world, w->tokenizer, &a->atlas, err);
}

static void close_workshop(workshop *w) {
  pdt_atlas_generator_free(&w->generator);
  pdt_tokenizer_free(w->tokenizer);
  pdt_atlas_world_free(w->world);
}

static int write_header(const data_args *a, const workshop *w, pdt_sink *sink, pdt_error *err) {
  char tokenizer[17], *text;
  size_t bytes;
  pdt_data_header h = {.world = (char *)(uintptr_t)PDT_ATLAS_WORLD,
                       .split = (char *)(uintptr_t)pdt_atlas_split_name(a->atlas.split),
                       .tokenizer = tokenizer,
                       .seed = a->atlas.seed,
                       .hard = a->atlas.hard,
                       .rounds = a->atlas.rounds,
                       .plan_slots = a->atlas.plan_slots,
                       .plan_vocab_size = a->atlas.plan_vocab_size};
  snprintf(tokenizer, sizeof tokenizer, "%016" PRIx64, w->fingerprint);
  snprintf(h.plan_salt, sizeof h.plan_salt, "%s", a->atlas.plan_salt);
  if (pdt_data_header_text(&h, &text, &bytes, err)) return -1;
  int rc = pdt_sink_write(sink, text, (pdt_bytes)bytes, err);
  free(text);
  return rc;
}

/* The id of a special token of the Atlas. */
static int special(const workshop *w, const char *text, pdt_token *id, pdt_error *err) {
  pdt_token *ids;
  int32_t n;
  if (pdt_tokenizer_encode(w->tokenizer, text, strlen(text), false, &ids, &n, err)) return -1;
  *id = ids[0];
  free(ids);
  return n == 1 ? 0
                : pdt_fail(err, PDT_ERROR_INPUT,
                           "the tokenizer has no token '%s' (hint: pdt data tokenizer)", text);
}

/* An entry as one text. */
static int sequence_text(const data_args *a, const workshop *w, const pdt_data_entry *e,
                         uint32_t index, char **text, size_t *bytes, pdt_error *err) {
  pdt_sequence_weights weights = pdt_sequence_weights_default();
  int32_t order[PDT_ATLAS_SECTIONS];
  pdt_token end, eos;
  pdt_buffer line = {0};
  pdt_sequence_order(a->atlas.seed, index, e->n_sections, order);
  int rc = special(w, PDT_ATLAS_END, &end, err) || special(w, PDT_ATLAS_EOS, &eos, err) ||
           pdt_sequence_put(e, w->tokenizer, order, end, eos, &weights, &line, err) ||
           pdt_buffer_take(&line, text, bytes, err);
  pdt_buffer_free(&line);
  return rc ? -1 : 0;
}

static int write_entries(const data_args *a, workshop *w, pdt_sink *sink, pdt_bytes *written,
                         pdt_error *err) {
  int rc = a->sequential ? 0 : write_header(a, w, sink, err);
  for (int64_t i = 0; i < a->count && !rc; i++) {
    pdt_data_entry e = {0};
    char *text = NULL;
    size_t bytes = 0;
    rc = pdt_atlas_generate(&w->generator, (uint32_t)(a->first + i), &e, err) ||
         (a->sequential ? sequence_text(a, w, &e, (uint32_t)(a->first + i), &text, &bytes, err)
                        : pdt_data_entry_text(&e, &text, &bytes, err)) ||
         pdt_sink_write(sink, text, (pdt_bytes)bytes, err);
    *written += (pdt_bytes)bytes;
    free(text);
    pdt_data_entry_free(&e);
  }
  return rc ? -1 : 0;
}

static int check_atlas_output(const data_args *a, pdt_error *err) {
  pdt_named_files outputs = {0}, inputs = {0};
  pdt_files_add(&outputs, "--out", a->out);
  if (a->model) pdt_files_add_model(&inputs, "--model", a->model);
  return pdt_outputs_check(&outputs, &inputs, err)
             ? -1
             : pdt_output_may_replace("--out", a->out, PDT_KIND_DATA, a->overwrite, err);
}

static int make_atlas(const data_args *a, pdt_error *err) {
  workshop w = {0};
  pdt_sink sink = {.fd = -1, .file = {.fd = -1}};
  pdt_bytes written = 0;
  double start = pdt_seconds();
  int rc = check_atlas_output(a, err) || open_workshop(a, &w, err) ||
           pdt_sink_open(&sink, a->out, err) || write_entries(a, &w, &sink, &written, err) ||
           pdt_sink_commit(&sink, err);
  pdt_sink_discard(&sink);
  if (!rc) {
    double seconds = pdt_seconds() - start;
    pdt_say(pdt_sink_descriptor(a->out) == STDOUT_FILENO ? stderr : stdout,
            "%s: %lld entries, %.1f MB, %lld bytes an entry, %.2f draws an entry, %.1f s, "
            "%.0f entries/s",
            a->out, (long long)a->count, (double)written * 1e-6, (long long)(written / a->count),
            (double)w.generator.attempts / (double)a->count, seconds, (double)a->count / seconds);
  }
  close_workshop(&w);
  return rc ? -1 : 0;
}

int pdt_cmd_data_atlas(const pdt_cli *cli, int argc, char **argv, pdt_error *err) {
  data_args args = {.count = 1000,
                    .atlas = {.split = PDT_TRAIN,
                              .min_sections = 2,
                              .max_sections = PDT_ATLAS_SECTIONS,
                              .min_tokens = PDT_ATLAS_MIN_TOKENS,
                              .max_tokens = PDT_ATLAS_MAX_TOKENS,
                              .rounds = {6, 1, 0},
                              .plan_slots = 16,
                              .plan_vocab_size = 65536,
                              .plan_salt = "parallel-decoder-v1"}};
  const struct argp argp = {atlas_options, parse_atlas, NULL, atlas_doc, NULL, NULL, NULL};
  int parsed = pdt_cli_parse(cli, &argp, argc, argv, &args, err);
  if (parsed) return parsed < 0 ? -1 : 0;
  if (args.first + args.count - 1 > UINT32_MAX)
    return pdt_fail(err, PDT_ERROR_USAGE, "--first: expected entries up to %u, found up to %lld",
                    UINT32_MAX, (long long)(args.first + args.count - 1));
  return make_atlas(&args, err);
}

static const struct argp_option check_options[] = {
    {"model", OPT_MODEL, "DIR", 0,
     "cut the blocks again by the tokenizer.json in DIR and compare (the Atlas's own needs none)",
     0},
    {"json", OPT_JSON, NULL, 0, "print JSON instead of a table", 0},
    {0},
};

static const char check_doc[] =
    "Checks a file of training or test data and says what is in it."
    "\vWhat is wrong with it, with line and field, is the error it ends with.\n\n"
    "Examples:\n"
    "  pdt data check train.jsonl\n"
    "  pdt data check --json --model m other.jsonl\n";

static error_t parse_check(int key, char *arg, struct argp_state *state) {
  data_args *a = state->input;
  switch (key) {
  case OPT_MODEL:
    a->model = arg;
    break;
  case OPT_JSON:
    a->json = true;
    break;
  case ARGP_KEY_ARG:
    if (a->path) {
      argp_error(state, "expected one FILE, found '%s' after it", arg);
      return EINVAL;
    }
    a->path = arg;
    break;
  case ARGP_KEY_END:
    if (a->path) break;
    argp_error(state, "expected a FILE");
    return EINVAL;
  default:
    return ARGP_ERR_UNKNOWN;
  }
  return 0;
}

static double share(int64_t part, int64_t whole) {
  return whole ? (double)part / (double)whole : 0;
}

/* The figures as one JSON object; NULL without memory. */
static json_t *report_of(const pdt_data_stats *s) {
  int64_t straight = s->entries - s->circular;
  json_t *sizes = json_object();
  for (int i = 1; i < PDT_STATS_SECTIONS; i++) {
    char name[16];
    snprintf(name, sizeof name, "%d%s", i, i == PDT_STATS_SECTIONS - 1 ? "+" : "");
    if (s->by_sections[i]) json_object_set_new(sizes, name, json_integer(s->by_sections[i]));
  }
  return json_pack(
      "{s:I, s:I, s:I, s:f, s:o, s:f, s:f, s:i, s:i, s:f, s:f, s:f, s:I, s:f, s:f, s:I, s:f, s:I,"
      " s:f, s:f, s:f, s:b, s:b}",
      "bytes", (json_int_t)s->bytes, "entries", (json_int_t)s->entries, "sections",
      (json_int_t)s->sections, "sections_per_entry", share(s->sections, s->entries),
      "entries_by_sections", sizes, "facts_per_entry", share(s->facts, s->entries),
      "tokens_per_section", share(s->tokens, s->sections), "tokens_min", (int)s->min_tokens,
      "tokens_max", (int)s->max_tokens, "statements_per_section", share(s->statements, s->sections),
      "uses_per_section", share(s->mentions_of_uses, s->sections), "sections_that_begin_with_a_use",
      share(s->begin_with_use, s->sections), "blocks", (json_int_t)s->blocks, "blocks_not_ready",
      share(s->unready, s->blocks), "uses_not_visible_in_lockstep", share(s->unseen, s->uses),
      "blocks_with_two_statements", (json_int_t)s->crowded, "blocks_with_two_statements_share",
      share(s->crowded, s->blocks), "entries_with_circular_waits", (json_int_t)s->circular,
      "circular_waits_share", share(s->circular, s->entries), "rounds_in_lockstep",
      share(s->rounds, straight), "rounds_when_waiting", share(s->waiting_rounds, straight),
      "blocks_cut_again", (int)s->recut, "texts_read_back", (int)s->read_back);
}

static int print_report(const data_args *a, const pdt_data_stats *stats, double seconds,
                        pdt_error *err) {
  json_t *report = report_of(stats);
  if (!report) return pdt_fail(err, PDT_ERROR_MEMORY, "%s: no memory", a->path);
  const char *key;
  const json_t *value;
  if (a->json) {
    pdt_json_print(report, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9));
    putchar('\n');
  } else {
    pdt_say(stdout, "# %s: sound; checked in %.1f s, %.0f entries/s", a->path, seconds,
            (double)stats->entries / seconds);
    json_object_foreach(report, key, value) {
      char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(4));
      pdt_say(stdout, "%-34s %s", key, text ? text : "(no memory)");
      free(text);
    }
  }
  json_decref(report);
  return 0;
}

int pdt_cmd_data_check(const pdt_cli *cli, int argc, char **argv, pdt_error *err) {
  data_args args = {0};
  const struct argp argp = {check_options, parse_check, "FILE", check_doc, NULL, NULL, NULL};
  int parsed = pdt_cli_parse(cli, &argp, argc, argv, &args, err);
  if (parsed) return parsed < 0 ? -1 : 0;
  pdt_tokenizer *tokenizer = NULL;
  pdt_data_tokenizer given = {0};
  pdt_data_stats stats;
  double start = pdt_seconds();
  if (args.model && pdt_tokenizer_load_folder(&tokenizer, args.model, &given.fingerprint, err))
    return -1;
  given.tokenizer = tokenizer;
  int rc = pdt_data_check(args.path, tokenizer ? &given : NULL, &stats, err);
  if (!rc) rc = print_report(&args, &stats, pdt_seconds() - start, err);
  pdt_tokenizer_free(tokenizer);
  return rc;
}

static const struct argp_option tokenizer_options[] = {
    {"out", OPT_OUT, "DIR", 0, "where tokenizer.json is written; made if it is not there", 0},
    {"overwrite", OPT_OVERWRITE, NULL, 0, "replace a tokenizer.json that is there", 0},
    {0},
};

static const char tokenizer_doc[] =
    "Writes the tokenizer.json of the Atlas: every word is one token, and every name of the "
    "default Atlas."
    "\vExamples:\n"
    "  pdt data tokenizer --out m\n";

static error_t parse_tokenizer(int key, char *arg, struct argp_state *state) {
  data_args *a = state->input;
  switch (key) {
  case OPT_OUT:
    a->out = arg;
    break;
  case OPT_OVERWRITE:
    a->overwrite = true;
    break;
  case ARGP_KEY_ARG:
    argp_error(state, "expected options only, found '%s'", arg);
    return EINVAL;
  case ARGP_KEY_END:
    if (a->out) break;
    argp_error(state, "expected --out");
    return EINVAL;
  default:
    return ARGP_ERR_UNKNOWN;
  }
  return 0;
}

static int write_tokenizer(const char *directory, const char *text, bool overwrite,
                           pdt_error *err) {
  char *path;
  if (pdt_output_folder_check("--out", directory, err)) return -1;
  bool made = mkdir(directory, 0777) == 0;
  if (!made && errno != EEXIST)
    return pdt_fail(err, PDT_ERROR_IO, "%s: cannot make the directory: %s", directory,
                    strerror(errno));
  if (pdt_path_join(&path, directory, "tokenizer.json", err)) return -1;
  int rc = pdt_output_may_replace("--out", path, PDT_KIND_OTHER, overwrite, err);
  if (!rc) rc = pdt_file_write_text(path, text, err);
  if (rc && made) rmdir(directory);
  free(path);
  return rc;
}

int pdt_cmd_data_tokenizer(const pdt_cli *cli, int argc, char **argv, pdt_error *err) {
  data_args args = {0};
  const struct argp argp = {
      tokenizer_options, parse_tokenizer, NULL, tokenizer_doc, NULL, NULL, NULL};
  int parsed = pdt_cli_parse(cli, &argp, argc, argv, &args, err);
  if (parsed) return parsed < 0 ? -1 : 0;
  pdt_atlas_world *world;
  char *text = NULL;
  if (pdt_atlas_world_new(&world, err)) return -1;
  int rc = pdt_atlas_tokenizer_text(world, &text, err);
  if (!rc) rc = write_tokenizer(args.out, text, args.overwrite, err);
  if (!rc)
    pdt_say(stdout, "%s/tokenizer.json: %zu bytes, fingerprint %016" PRIx64, args.out, strlen(text),
            pdt_tokenizer_fingerprint(text, strlen(text)));
  free(text);
  pdt_atlas_world_free(world);
  return rc;
}

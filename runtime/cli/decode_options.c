#include "cli/decode_options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/chat_flags.h"
#include "cli/engine_flags.h"
#include "cli/journal_flags.h"
#include "cli/setting_flags.h"

enum {
  KEY_ENGINE = 256,
  KEY_SETTINGS = KEY_ENGINE + PDT_ENGINE_FLAGS,
  KEY_CHAT = KEY_SETTINGS + PDT_SETTINGS,
  KEY_REQUEST = KEY_CHAT + PDT_CHAT_FLAGS,
  KEY_REQUESTS,
  KEY_PROMPT,
  KEY_SECTION,
  KEY_PLAN,
  KEY_SESSION,
  KEY_TRACE,
  KEY_OUT,
  KEY_JSON,
  KEY_JOURNAL,
  KEY_RESUME,
  KEY_JOURNAL_SYNC,
  KEY_ON_ERROR,
  KEY_OVERWRITE,
  KEY_QUIET,
  KEY_VERBOSE,
  KEY_ROUNDS,
};

/* Without the settings, whose options come from their table. */
static const struct argp_option options[] = {
    {NULL, 0, NULL, 0, "What to decode:", 1},
    {"model", KEY_ENGINE + PDT_FLAG_MODEL, "DIR", 0,
     "Hugging Face directory (config.json, model.safetensors or its index, tokenizer.json), or a "
     "GGUF file, the first one where it is in parts",
     1},
    {"sidecar", KEY_ENGINE + PDT_FLAG_SIDECAR, "FILE", 0, "the trained modules beside the trunk",
     1},
    {"prompt", KEY_PROMPT, "TEXT", 0, "one prompt", 1},
    {"request", KEY_REQUEST, "FILE", 0, "one request as JSON", 1},
    {"requests", KEY_REQUESTS, "FILE", 0,
     "many requests, one JSON object a line; - is standard input", 1},
    PDT_CHAT_OPTIONS(KEY_CHAT, 1),
    {"section", KEY_SECTION, "TEXT", 0,
     "what the next stream reads after the prompt; repeat it, once a stream", 1},
    {"plan", KEY_PLAN, "FILE", 0,
     "a plan as JSON: [{\"stream\": 0, \"text\": \"...\"}, ...]; else the sidecar plans", 1},
    {"session", KEY_SESSION, "N", 0, "session number, part of the random counter", 1},
    {NULL, 0, NULL, 0, "Settings (flags override a request's, which override the sidecar's):", 2},
    {NULL, 0, NULL, 0, "Where it runs:", 3},
    PDT_ENGINE_OPTIONS(KEY_ENGINE, 3, "requests in flight at once (8)"),
    {"draft", KEY_ENGINE + PDT_FLAG_DRAFT, "DIR", 0,
     "a smaller model of the same vocabulary that proposes tokens, which the model then computes "
     "several at a time: the same tokens, of fewer steps",
     3},
    {"draft-tokens", KEY_ENGINE + PDT_FLAG_DRAFT_TOKENS, "N", 0,
     "how many it proposes for a step (4)", 3},
    {NULL, 0, NULL, 0, "What comes out:", 4},
    {"out", KEY_OUT, "FILE", 0,
     "commit artifacts and merged answers as length-delimited protobuf; - is standard output", 4},
    {"json", KEY_JSON, NULL, 0, "the same as JSON lines, to --out or standard output", 4},
    {"trace", KEY_TRACE, "FILE", 0, "everything that was computed, as JSON", 4},
    {"journal", KEY_JOURNAL, "FILE", 0, "append-only log of every decision", 4},
    {"resume", KEY_RESUME, NULL, 0,
     "go on from the journal of a run that died, with the same requests, settings, model and "
     "sidecar, on any ranks: what it had decided is kept, the rest is done, and --out and --json "
     "come out whole; without a run in it yet, start",
     4},
    {"journal-sync", KEY_JOURNAL_SYNC, "WHEN", 0,
     "when the journal is forced to disk, so that it outlives a crash of the machine, too: never, "
     "end (at the end of the run), round (before every decision is acted upon) (end)",
     4},
    {"on-error", KEY_ON_ERROR, "RULE", 0,
     "of a request that cannot be served (it is wrong, or its numbers overflow): stop, or skip it, "
     "with the error in its place in the output, and status 0 (stop)",
     4},
    {"overwrite", KEY_OVERWRITE, NULL, 0, "replace a journal that is there, once the run begins",
     4},
    {"quiet", KEY_QUIET, NULL, 0, "no progress, no summary; warnings all the same", 4},
    {"rounds", KEY_ROUNDS, NULL, 0,
     "tell every round: what each stream emitted, how ready it was, what was decided", 4},
    {"verbose", KEY_VERBOSE, NULL, 0, "tell the layout, and memory of every rank", 4},
    {0}};

enum { OPTIONS = sizeof options / sizeof *options }; /* their end included */

static error_t add_section(pdt_decode_options *o, char *arg, struct argp_state *state) {
  if (!o->sections) o->sections = json_array();
  if (json_array_append_new(o->sections, json_string(arg)) == 0) return 0;
  argp_error(state, "--section: '%s' is not UTF-8", arg);
  return EINVAL;
}

/* A command line that is whole: exactly one source of requests, and everything that goes with it.
 */
static error_t check(const pdt_decode_options *o, struct argp_state *state) {
  int sources = (o->request != NULL) + (o->requests != NULL) + (o->prompt != NULL);
  if (!o->engine.model)
    argp_error(state, "--model is missing");
  else if (!o->engine.sidecar)
    argp_error(state, "--sidecar is missing; pdt sidecar init makes one");
  else if (sources != 1)
    argp_error(state, "expected one of --prompt, --request and --requests, found %s",
               sources ? o->requests && o->request ? "--request and --requests"
                         : o->request              ? "--prompt and --request"
                                                   : "--prompt and --requests"
                       : "none");
  else if (o->requests && (o->sections || o->plan || o->session >= 0))
    argp_error(state, "--section, --plan and --session belong to one request, not to --requests");
  else if (o->engine.draft_tokens > 0 && !o->engine.draft)
    argp_error(state, "--draft-tokens: expected --draft DIR, the model that proposes them");
  else if (o->resume && !o->journal)
    argp_error(state, "--resume: expected --journal FILE, from which to go on");
  else if (o->resume && o->overwrite)
    argp_error(state, "expected --resume, which goes on from a journal, or --overwrite, which "
                      "replaces it");
  else if (o->resume && o->trace)
    argp_error(state, "--resume: a trace holds what is not computed again: expected no --trace");
  else if (o->skip_errors && o->trace)
    argp_error(state, "--on-error skip: a trace holds every session: expected no --trace");
  else
    return 0;
  return EINVAL;
}

static error_t parse_rule(bool *skip, const char *arg, struct argp_state *state) {
  *skip = strcmp(arg, "skip") == 0;
  if (*skip || strcmp(arg, "stop") == 0) return 0;
  argp_error(state, "--on-error: expected stop or skip, found '%s'", arg);
  return EINVAL;
}

static error_t parse_option(int key, char *arg, struct argp_state *state) {
  pdt_decode_options *o = state->input;
  const pdt_cli_kept kept[] = {
      {KEY_REQUEST, &o->request, NULL},     {KEY_REQUESTS, &o->requests, NULL},
      {KEY_PROMPT, &o->prompt, NULL},       {KEY_PLAN, &o->plan, NULL},
      {KEY_TRACE, &o->trace, NULL},         {KEY_OUT, &o->out, NULL},
      {KEY_JOURNAL, &o->journal, NULL},     {KEY_JSON, NULL, &o->json},
      {KEY_OVERWRITE, NULL, &o->overwrite}, {KEY_QUIET, NULL, &o->quiet},
      {KEY_VERBOSE, NULL, &o->verbose},     {KEY_ROUNDS, NULL, &o->rounds},
      {KEY_RESUME, NULL, &o->resume},       PDT_CHAT_KEPT(KEY_CHAT, &o->chat),
  };
  if (pdt_cli_keep(kept, sizeof kept / sizeof *kept, key, arg)) return 0;
  if (key >= KEY_SETTINGS && key < KEY_SETTINGS + PDT_SETTINGS)
    return pdt_setting_parse(o->settings, key - KEY_SETTINGS, arg, state);
  if (key >= KEY_ENGINE && key < KEY_SETTINGS)
    return pdt_engine_flag_parse(&o->engine, (pdt_engine_flag)(key - KEY_ENGINE), arg, state);
  switch (key) {
  case KEY_SECTION:
    return add_section(o, arg, state);
  case KEY_ON_ERROR:
    return parse_rule(&o->skip_errors, arg, state);
  case KEY_JOURNAL_SYNC:
    return pdt_journal_sync_parse(&o->journal_sync, arg, state);
  case KEY_SESSION:
    return pdt_cli_integer(state, "session", arg, 0, UINT32_MAX, &o->session);
  case ARGP_KEY_ARG:
    argp_error(state, "unexpected argument '%s'", arg);
    return EINVAL;
  case ARGP_KEY_END:
    return check(o, state);
  default:
    return ARGP_ERR_UNKNOWN;
  }
}

static const char doc[] =
    "Decode prompts by K parallel streams of one frozen model. SIGTERM, SIGINT and SIGUSR1, on any "
    "rank, let the round that is under way be the last: the journal is closed, and the exit status "
    "is 75. A second one ends all at once.\v"
    "Examples, with M=launch/model; bash writes a line break as $'\\n':\n"
    "  pdt decode --model M --sidecar S.safetensors --max-tokens 96 \\\n"
    "      --prompt 'Describe Velmora. Sections: history; trade.' \\\n"
    "      --section $'\\nHistory:' --section $'\\nTrade:'\n"
    "  mpirun -n 4 pdt decode --model M --sidecar S.safetensors --tp 2 \\\n"
    "      --prompt 'Sketch Velmora. Sections: food; customs; trade.' \\\n"
    "      --section $'\\nFood:' --section $'\\nCustoms:' --section $'\\nTrade:' \\\n"
    "      --max-tokens 96 --temperature 0.8 --top-p 0.9 --seed 1\n"
    "  mpirun -n 8 pdt decode --model M --sidecar S.safetensors \\\n"
    "      --requests in.jsonl --max-sessions 16 --json --out answers.jsonl \\\n"
    "      --journal run.journal\n"
    "  mpirun -n 4 pdt decode --model M --sidecar S.safetensors \\\n"
    "      --requests in.jsonl --max-sessions 16 --json --out answers.jsonl \\\n"
    "      --journal run.journal --resume   # should that have been killed\n";

int pdt_decode_options_parse(pdt_decode_options *o, const pdt_cli *cli, int argc, char **argv,
                             pdt_error *err) {
  struct argp_option all[OPTIONS + PDT_SETTINGS];
  const struct argp argp = {all, parse_option, NULL, doc, NULL, NULL, NULL};
  pdt_setting_texts texts;
  memcpy(all, options, sizeof options);
  pdt_setting_options(&all[OPTIONS - 1], &texts, KEY_SETTINGS, 2, NULL, 0);
  *o = (pdt_decode_options){.session = -1, .settings = json_object()};
  o->engine.max_sessions = 8;
  o->journal_sync = PDT_JOURNAL_SYNC_AT_CLOSE;
  if (!o->settings) return pdt_fail(err, PDT_ERROR_MEMORY, "no memory");
  int status = pdt_cli_parse(cli, &argp, argc, argv, o, err);
  o->engine.details = o->trace != NULL;
  return status;
}

void pdt_decode_options_free(pdt_decode_options *o) {
  json_decref(o->sections);
  json_decref(o->settings);
  *o = (pdt_decode_options){0};
}

#include "cli/decode_options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/engine_flags.h"
#include "cli/setting_flags.h"

enum {
  KEY_ENGINE = 256,
  KEY_SETTINGS = KEY_ENGINE + PDT_ENGINE_FLAGS,
  KEY_REQUEST = KEY_SETTINGS + PDT_SETTINGS,
  KEY_REQUESTS,
  KEY_PROMPT,
  KEY_SECTION,
  KEY_PLAN,
  KEY_SESSION,
  KEY_TRACE,
  KEY_OUT,
  KEY_JSON,
  KEY_JOURNAL,
  KEY_OVERWRITE,
  KEY_QUIET,
  KEY_VERBOSE,
  KEY_ROUNDS,
};

static const struct argp_option options[] = {
    {NULL, 0, NULL, 0, "What to decode:", 1},
    {"model", KEY_ENGINE + PDT_FLAG_MODEL, "DIR", 0,
     "Hugging Face directory: config.json, model.safetensors or its index, tokenizer.json", 1},
    {"sidecar", KEY_ENGINE + PDT_FLAG_SIDECAR, "FILE", 0, "the trained modules beside the trunk",
     1},
    {"prompt", KEY_PROMPT, "TEXT", 0, "one prompt", 1},
    {"request", KEY_REQUEST, "FILE", 0, "one request as JSON", 1},
    {"requests", KEY_REQUESTS, "FILE", 0, "many requests, one JSON object a line", 1},
    {"section", KEY_SECTION, "TEXT", 0,
     "what the next stream reads after the prompt; repeat it, once a stream", 1},
    {"plan", KEY_PLAN, "FILE", 0,
     "a plan as JSON: [{\"stream\": 0, \"text\": \"...\"}, ...]; else the sidecar plans", 1},
    {"session", KEY_SESSION, "N", 0, "session number, part of the random counter", 1},
    {NULL, 0, NULL, 0, "Settings (flags override a request's, which override the sidecar's):", 2},
    {"streams", KEY_SETTINGS + 0, "K", 0,
     "streams; by default one a section, or all that the sidecar has", 2},
    {"block-tokens", KEY_SETTINGS + 1, "TAU", 0, "tokens of a provisional block", 2},
    {"reveal-delay", KEY_SETTINGS + 2, "ROUNDS", 0,
     "rounds until a note is seen by others; from 2 on its exchange overlaps decoding", 2},
    {"window", KEY_SETTINGS + 3, "NOTES", 0, "most notes a stream sees, the plan's included", 2},
    {"horizon", KEY_SETTINGS + 4, "TOKENS", 0, "most tokens a stream may hold uncommitted", 2},
    {"gamma", KEY_SETTINGS + 5, "R", 0, "readiness that the gate asks for, 0 to 1", 2},
    {"policy", KEY_SETTINGS + 6, "NAME", 0, "selective, stall or global", 2},
    {"max-attempts", KEY_SETTINGS + 7, "N", 0, "attempts at a block before it is forced (4)", 2},
    {"max-tokens", KEY_SETTINGS + 8, "N", 0, "most tokens of one stream (64)", 2},
    {"max-rounds", KEY_SETTINGS + 9, "N", 0, "rounds after which a session ends, complete or not",
     2},
    {"temperature", KEY_SETTINGS + 10, "X", 0, "0 takes the likeliest token (0)", 2},
    {"top-k", KEY_SETTINGS + 11, "N", 0, "sample among the N likeliest; 0 is off (0)", 2},
    {"top-p", KEY_SETTINGS + 12, "P", 0, "sample among the likeliest that make up P; 1 is off (1)",
     2},
    {"seed", KEY_SETTINGS + 13, "N", 0, "seed of the random numbers (0)", 2},
    {NULL, 0, NULL, 0, "Where it runs:", 3},
    {"tp", KEY_ENGINE + PDT_FLAG_TP, "T", 0,
     "ranks that share one copy of the trunk (those of a machine)", 3},
    {"threads", KEY_ENGINE + PDT_FLAG_THREADS, "N", 0,
     "threads of a rank; by default OMP_NUM_THREADS, or its part of the processors that ranks of "
     "the machine may run on",
     3},
    {"max-sessions", KEY_ENGINE + PDT_FLAG_MAX_SESSIONS, "N", 0, "requests in flight at once (8)",
     3},
    {"kv-memory", KEY_ENGINE + PDT_FLAG_KV_MEMORY, "BYTES", 0,
     "most key/value cache of a rank; 512M, 4G are understood", 3},
    {"kernels", KEY_ENGINE + PDT_FLAG_KERNELS, "NAME", 0,
     "portable, avx2 or avx512; by default the best that every rank has", 3},
    {NULL, 0, NULL, 0, "What comes out:", 4},
    {"out", KEY_OUT, "FILE", 0,
     "commit artifacts and merged answers as length-delimited protobuf; - is standard output", 4},
    {"json", KEY_JSON, NULL, 0, "the same as JSON lines, to --out or standard output", 4},
    {"trace", KEY_TRACE, "FILE", 0, "everything that was computed, as JSON", 4},
    {"journal", KEY_JOURNAL, "FILE", 0, "append-only log of every decision", 4},
    {"overwrite", KEY_OVERWRITE, NULL, 0, "replace a journal that is there, once the run begins",
     4},
    {"quiet", KEY_QUIET, NULL, 0, "no progress, no summary; warnings all the same", 4},
    {"rounds", KEY_ROUNDS, NULL, 0,
     "tell every round: what each stream emitted, how ready it was, what was decided", 4},
    {"verbose", KEY_VERBOSE, NULL, 0, "tell the layout, and memory of every rank", 4},
    {0}};

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
  else
    return 0;
  return EINVAL;
}

static error_t parse_option(int key, char *arg, struct argp_state *state) {
  pdt_decode_options *o = state->input;
  if (key >= KEY_SETTINGS && key < KEY_SETTINGS + PDT_SETTINGS)
    return pdt_setting_parse(o->settings, (pdt_setting)(key - KEY_SETTINGS), arg, state);
  if (key >= KEY_ENGINE && key < KEY_SETTINGS)
    return pdt_engine_flag_parse(&o->engine, (pdt_engine_flag)(key - KEY_ENGINE), arg, state);
  switch (key) {
  case KEY_REQUEST:
    o->request = arg;
    return 0;
  case KEY_REQUESTS:
    o->requests = arg;
    return 0;
  case KEY_PROMPT:
    o->prompt = arg;
    return 0;
  case KEY_PLAN:
    o->plan = arg;
    return 0;
  case KEY_SECTION:
    return add_section(o, arg, state);
  case KEY_TRACE:
    o->trace = arg;
    return 0;
  case KEY_OUT:
    o->out = arg;
    return 0;
  case KEY_JOURNAL:
    o->journal = arg;
    return 0;
  case KEY_JSON:
    o->json = true;
    return 0;
  case KEY_OVERWRITE:
    o->overwrite = true;
    return 0;
  case KEY_QUIET:
    o->quiet = true;
    return 0;
  case KEY_VERBOSE:
    o->verbose = true;
    return 0;
  case KEY_ROUNDS:
    o->rounds = true;
    return 0;
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
    "Decode prompts by K parallel streams of one frozen model.\v"
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
    "      --journal run.journal\n";

int pdt_decode_options_parse(pdt_decode_options *o, const pdt_cli *cli, int argc, char **argv,
                             pdt_error *err) {
  static const struct argp argp = {options, parse_option, NULL, doc, NULL, NULL, NULL};
  *o = (pdt_decode_options){.session = -1, .settings = json_object()};
  o->engine.max_sessions = 8;
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

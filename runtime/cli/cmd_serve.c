/* pdt serve. */
#include <errno.h>

#include "cli/engine_flags.h"
#include "cli/journal_flags.h"
#include "request/setting_table.h"
#include "serve/serve.h"

enum {
  KEY_ENGINE = 256,
  KEY_HOST = KEY_ENGINE + PDT_ENGINE_FLAGS,
  KEY_PORT,
  KEY_NAME,
  KEY_API_KEY_FILE,
  KEY_CERTIFICATE,
  KEY_PRIVATE_KEY,
  KEY_MAX_POSITIONS,
  KEY_MAX_BLOCK_TOKENS,
  KEY_MAX_WINDOW,
  KEY_CACHE_POSITIONS,
  KEY_MAX_QUEUE,
  KEY_MAX_CONNECTIONS,
  KEY_MAX_BODY,
  KEY_REQUEST_TIMEOUT,
  KEY_SHUTDOWN_TIMEOUT,
  KEY_PING,
  KEY_STUCK,
  KEY_JOURNAL,
  KEY_JOURNAL_SYNC,
  KEY_OVERWRITE,
  KEY_QUIET,
  KEY_VERBOSE,
};

static const struct argp_option options[] = {
    {NULL, 0, NULL, 0, "What to serve:", 1},
    {"model", KEY_ENGINE + PDT_FLAG_MODEL, "DIR", 0,
     "Hugging Face directory or GGUF file, as of pdt decode", 1},
    {"sidecar", KEY_ENGINE + PDT_FLAG_SIDECAR, "FILE", 0, "the trained modules beside the trunk",
     1},
    {"model-name", KEY_NAME, "NAME", 0,
     "what requests call the model (the last part of --model's path)", 1},
    {NULL, 0, NULL, 0, "To whom:", 2},
    {"host", KEY_HOST, "ADDRESS", 0, "address to listen at (127.0.0.1); 0.0.0.0 is every one", 2},
    {"port", KEY_PORT, "N", 0, "port (8080); 0: any that is free, and told", 2},
    {"api-key-file", KEY_API_KEY_FILE, "FILE", 0,
     "requests must have the key in its first line; without the flag, that of the environment's "
     "PDT_API_KEY, if there is one",
     2},
    {"tls-certificate", KEY_CERTIFICATE, "FILE", 0, "serve https by this certificate, in PEM, and",
     2},
    {"tls-key", KEY_PRIVATE_KEY, "FILE", 0, "by its private key", 2},
    {NULL, 0, NULL, 0, "How much:", 3},
    {"max-positions", KEY_MAX_POSITIONS, "N", 0,
     "positions of a stream's longest sequence: prompt, section and max_tokens (the model's, at "
     "most 4096)",
     3},
    {"max-block-tokens", KEY_MAX_BLOCK_TOKENS, "N", 0,
     "most block_tokens (twice the sidecar's, at least 32)", 3},
    {"max-window", KEY_MAX_WINDOW, "N", 0,
     "most notes of a window (twice the sidecar's, at least 64)", 3},
    {"cache-positions", KEY_CACHE_POSITIONS, "N", 0,
     "positions that the key/value cache holds, which all streams in flight share; who does not "
     "fit "
     "yet waits (max-sessions times max-positions)",
     3},
    {"max-queue", KEY_MAX_QUEUE, "N", 0,
     "requests that may wait; one more is answered with 429 (64)", 3},
    {"max-connections", KEY_MAX_CONNECTIONS, "N", 0, "connections at once (1024)", 3},
    {"max-body", KEY_MAX_BODY, "BYTES", 0, "bytes of a request's body (1M)", 3},
    {"request-timeout", KEY_REQUEST_TIMEOUT, "SECONDS", 0,
     "most of a request, its wait included (600; 0: no limit)", 3},
    {"shutdown-timeout", KEY_SHUTDOWN_TIMEOUT, "SECONDS", 0,
     "after SIGTERM, in which what was taken may finish (30)", 3},
    {"ping", KEY_PING, "SECONDS", 0,
     "of silence, after which a stream of chunks has a comment (10)", 3},
    {"stuck", KEY_STUCK, "SECONDS", 0,
     "in which a round must end while requests are in flight; after them /health answers 503, with "
     "the reason, until one does (60)",
     3},
    {NULL, 0, NULL, 0, "Where it runs:", 4},
    PDT_ENGINE_OPTIONS(KEY_ENGINE, 4, "requests in flight at once (8)"),
    {"draft", KEY_ENGINE + PDT_FLAG_DRAFT, "DIR", 0,
     "a smaller model of the same vocabulary that proposes tokens", 4},
    {"draft-tokens", KEY_ENGINE + PDT_FLAG_DRAFT_TOKENS, "N", 0,
     "how many it proposes for a step (4)", 4},
    {NULL, 0, NULL, 0, "What comes out:", 5},
    {"journal", KEY_JOURNAL, "FILE", 0, "append-only log of every decision", 5},
    {"journal-sync", KEY_JOURNAL_SYNC, "WHEN", 0,
     "when it is forced to disk: never, end, round (end)", 5},
    {"overwrite", KEY_OVERWRITE, NULL, 0, "replace a journal that is there, with the first request",
     5},
    {"quiet", KEY_QUIET, NULL, 0, "do not tell where it serves; warnings all the same", 5},
    {"verbose", KEY_VERBOSE, NULL, 0,
     "tell what was filled in where the model's files leave it open", 5},
    {0}};

static error_t check(const pdt_serve_options *o, struct argp_state *state) {
  if (!o->engine.model)
    argp_error(state, "--model is missing");
  else if (!o->engine.sidecar)
    argp_error(state, "--sidecar is missing; pdt sidecar init makes one");
  else if (o->engine.draft_tokens > 0 && !o->engine.draft)
    argp_error(state, "--draft-tokens: expected --draft DIR, the model that proposes them");
  else if (!o->certificate != !o->private_key)
    argp_error(state, "expected both --tls-certificate and --tls-key, found one");
  else
    return 0;
  return EINVAL;
}

/* An option that is a number, and its place. */
static error_t parse_number(pdt_serve_options *o, int key, const char *arg,
                            struct argp_state *state) {
  const struct {
    int key;
    const char *name;
    int64_t low, high;
    int32_t *place;
  } all[] = {
      {KEY_PORT, "port", 0, 65535, &o->port},
      {KEY_MAX_POSITIONS, "max-positions", 1, PDT_MAX_REQUEST_TOKENS, &o->max_positions},
      {KEY_MAX_BLOCK_TOKENS, "max-block-tokens", 1, PDT_MAX_REQUEST_TOKENS, &o->max_block_tokens},
      {KEY_MAX_WINDOW, "max-window", 1, 1 << 20, &o->max_window},
      {KEY_MAX_QUEUE, "max-queue", 1, 1 << 20, &o->max_queue},
      {KEY_MAX_CONNECTIONS, "max-connections", 1, 1 << 20, &o->max_connections},
  };
  int64_t number = 0;
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    if (all[i].key != key) continue;
    error_t code = pdt_cli_integer(state, all[i].name, arg, all[i].low, all[i].high, &number);
    if (!code) *all[i].place = (int32_t)number;
    return code;
  }
  return ARGP_ERR_UNKNOWN;
}

static error_t parse_other(pdt_serve_options *o, int key, char *arg, struct argp_state *state) {
  switch (key) {
  case KEY_CACHE_POSITIONS:
    return pdt_cli_integer(state, "cache-positions", arg, 1, INT64_C(1) << 40, &o->cache_positions);
  case KEY_MAX_BODY:
    return pdt_cli_bytes(state, "max-body", arg, &o->max_body);
  case KEY_REQUEST_TIMEOUT:
    return pdt_cli_real(state, "request-timeout", arg, 0, 1e9, &o->request_seconds);
  case KEY_SHUTDOWN_TIMEOUT:
    return pdt_cli_real(state, "shutdown-timeout", arg, 0, 1e9, &o->shutdown_seconds);
  case KEY_PING:
    return pdt_cli_real(state, "ping", arg, 0.1, 1e9, &o->ping_seconds);
  case KEY_STUCK:
    return pdt_cli_real(state, "stuck", arg, 0.1, 1e9, &o->stuck_seconds);
  case KEY_JOURNAL_SYNC:
    return pdt_journal_sync_parse(&o->journal_sync, arg, state);
  default:
    return parse_number(o, key, arg, state);
  }
}

static error_t parse(int key, char *arg, struct argp_state *state) {
  pdt_serve_options *o = state->input;
  const pdt_cli_kept kept[] = {
      {KEY_HOST, &o->host, NULL},
      {KEY_NAME, &o->name, NULL},
      {KEY_API_KEY_FILE, &o->api_key_file, NULL},
      {KEY_CERTIFICATE, &o->certificate, NULL},
      {KEY_PRIVATE_KEY, &o->private_key, NULL},
      {KEY_JOURNAL, &o->journal, NULL},
      {KEY_OVERWRITE, NULL, &o->overwrite},
      {KEY_QUIET, NULL, &o->quiet},
      {KEY_VERBOSE, NULL, &o->verbose},
  };
  if (pdt_cli_keep(kept, sizeof kept / sizeof *kept, key, arg)) return 0;
  if (key >= KEY_ENGINE && key < KEY_ENGINE + PDT_ENGINE_FLAGS)
    return pdt_engine_flag_parse(&o->engine, (pdt_engine_flag)(key - KEY_ENGINE), arg, state);
  if (key == ARGP_KEY_ARG) return pdt_cli_argument(state, NULL, arg, NULL);
  return key == ARGP_KEY_END ? check(o, state) : parse_other(o, key, arg, state);
}

static const char doc[] =
    "Decode over HTTP: rank 0 listens, and sessions join and leave at boundaries while others run. "
    "POST /v1/completions takes what OpenAI's clients send, with sections, plan and settings "
    "beside "
    "it, whole or as a stream of committed blocks; /v1/chat/completions the same of a "
    "conversation, by the "
    "model's chat template; POST /v1/pdt/decode a request of pdt decode, "
    "and "
    "answers with its lines. GET / is a page for a browser that asks and shows every round; GET "
    "/v1/models, /health and /metrics. SIGTERM, SIGINT and SIGUSR1: "
    "new "
    "requests are refused, those that were taken are finished, and the status is 0; a second "
    "signal "
    "ends all at once.\v"
    "Examples, with M=launch/model:\n"
    "  pdt serve --model M --sidecar M/sidecar.safetensors\n"
    "  curl http://127.0.0.1:8080/v1/completions -d '{\"prompt\":\n"
    "      \"Describe Velmora. Sections: history; trade.\",\n"
    "      \"sections\": [\"\\nHistory:\", \"\\nTrade:\"], \"max_tokens\": 96}'\n"
    "  curl -N http://127.0.0.1:8080/v1/completions -d '{\"stream\": true,\n"
    "      \"prompt\": \"Describe Velmora.\",\n"
    "      \"stream_options\": {\"order\": \"interleaved\"}}'\n"
    "  mpirun -n 4 pdt serve --model M --sidecar S.safetensors --tp 2 --port 8000 \\\n"
    "      --max-sessions 16 --journal serve.journal\n";

int pdt_cmd_serve(const pdt_cli *cli, int argc, char **argv, pdt_error *err) {
  const struct argp argp = {options, parse, NULL, doc, NULL, NULL, NULL};
  pdt_serve_options o = {.host = "127.0.0.1",
                         .port = 8080,
                         .max_queue = 64,
                         .max_connections = 1024,
                         .max_body = 1 << 20,
                         .request_seconds = 600,
                         .shutdown_seconds = 30,
                         .ping_seconds = 10,
                         .stuck_seconds = 60,
                         .journal_sync = PDT_JOURNAL_SYNC_AT_CLOSE};
  o.engine.max_sessions = 8;
  int status = pdt_cli_parse(cli, &argp, argc, argv, &o, err);
  if (pdt_comm_agree(cli->world, err)) status = -1;
  if (status == 0) status = pdt_serve_run(cli->world, cli->name, &o, err);
  return status < 0 ? -1 : 0;
}

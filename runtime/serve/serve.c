#include "serve/serve.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/memory.h"
#include "base/path.h"
#include "base/signals.h"
#include "base/text_safe.h"
#include "run/outputs.h"
#include "serve/feed.h"
#include "serve/pulse.h"

enum {
  USUAL_POSITIONS = 4096, /* most by default */
  USUAL_BLOCK_TOKENS = 32,
  USUAL_WINDOW = 64,
  FLUSH_SECONDS = 5, /* for answers that are under way when all is done */
};

typedef struct server {
  const char *name; /* the program's */
  pdt_serve_options options;
  char *model; /* its name, owned */
  pdt_hub hub;
  pdt_http http;
  pdt_pulse pulse;
  pdt_feed feed;
  pdt_journal journal;
  pdt_tokenizer *tokenizer;
  pdt_request_chat chat;
  bool has_hub;
} server;

/* ---- before anything is loaded ---- */

/* What a model is called that has no name: the last part of its path. */
static char *name_of(const pdt_serve_options *o) {
  const char *path = o->name ? o->name : o->engine.model;
  size_t end = strlen(path);
  if (o->name) return strdup(path);
  while (end > 1 && path[end - 1] == '/') end--;
  size_t begin = end;
  while (begin > 0 && path[begin - 1] != '/') begin--;
  return strndup(path + begin, end - begin);
}

static int open_journal(server *s, pdt_error *err) {
  const pdt_serve_options *o = &s->options;
  pdt_named_files outputs = {0}, inputs = {0};
  if (!o->journal) return 0;
  pdt_files_add(&outputs, "--journal", o->journal);
  pdt_files_add_model(&inputs, "--model", o->engine.model);
  if (o->engine.draft) pdt_files_add_model(&inputs, "--draft", o->engine.draft);
  pdt_files_add(&inputs, "--sidecar", o->engine.sidecar);
  if (pdt_outputs_check(&outputs, &inputs, err)) return -1;
  return pdt_journal_create(&s->journal, o->journal, o->overwrite, o->journal_sync, err);
}

/* Rank 0 listens before the model is there, so that it can say that it is being loaded. */
static int open_server(server *s, pdt_error *err) {
  s->model = name_of(&s->options);
  if (!s->model) return pdt_fail(err, PDT_ERROR_MEMORY, "server: no memory");
  if (open_journal(s, err) || pdt_hub_init(&s->hub, s->options.max_queue, err)) return -1;
  s->has_hub = true;
  if (pdt_http_start(&s->http, &s->options, &s->hub, s->model, err)) return -1;
  return pdt_pulse_start(&s->pulse, &s->http, err);
}

/* ---- once it is ---- */

static int32_t larger(int32_t a, int32_t b) {
  return a > b ? a : b;
}

/* The largest request that this server takes: every stream as long as a sequence may be. */
static pdt_settings largest_settings(const pdt_serve_options *o, const pdt_loaded *loaded) {
  const pdt_sidecar_config *sidecar = &loaded->sidecar.config;
  int32_t most = loaded->model.max_positions, positions = o->max_positions;
  if (positions == 0) positions = most < USUAL_POSITIONS ? most : USUAL_POSITIONS;
  if (positions > most) positions = most;
  int32_t block = o->max_block_tokens, window = o->max_window;
  if (block == 0) block = larger(USUAL_BLOCK_TOKENS, 2 * sidecar->defaults.block_tokens);
  if (window == 0) window = larger(USUAL_WINDOW, 2 * sidecar->defaults.window);
  return (pdt_settings){
      .streams = sidecar->streams,
      .window = window,
      .reveal_delay = 1,
      .max_attempts = 1,
      .max_rounds = INT32_MAX,
      .limits = {.block_tokens = block, .horizon = block, .max_tokens = positions}};
}

/* Sessions at once, each of whatever size; of cache, what the options say, so that not all of them
 * can be large at once: the others wait. */
static int make_capacity(const pdt_serve_options *o, const pdt_loaded *loaded, pdt_spread spread,
                         pdt_capacity *out, pdt_error *err) {
  pdt_request largest = {.n_prompt = 1, .settings = largest_settings(o, loaded)};
  int32_t positions = largest.settings.limits.max_tokens;
  pdt_capacity_maker maker = pdt_capacity_maker_of(o->engine.max_sessions, spread);
  int status = PDT_NEW(&largest.n_prefix, largest.settings.streams, "server", err);
  for (int32_t i = 0; i < o->engine.max_sessions && !status; i++)
    status = pdt_capacity_maker_add(&maker, &largest, err);
  if (!status) {
    int64_t cache =
        o->cache_positions ? o->cache_positions : o->engine.max_sessions * (int64_t)positions;
    int64_t pages = (cache + PDT_PAGE_TOKENS - 1) / PDT_PAGE_TOKENS;
    int64_t one = pdt_load_of(&largest, spread).pages;
    *out = pdt_capacity_made(&maker);
    if (o->cache_positions == 0 && pages < one) pages = one;
    if (pages < out->load.pages) out->load.pages = pages;
  }
  pdt_capacity_maker_free(&maker);
  free(largest.n_prefix);
  return status ? -1 : 0;
}

/* No entry of the journal is too long for it, whatever comes. */
static int check_journal(const server *s, const pdt_capacity *c, const pdt_loaded *loaded,
                         pdt_error *err) {
  enum { TOKEN = 5, LANE = 64, SESSION = 64, MORE = 4096 };
  const pdt_sidecar_config *sidecar = &loaded->sidecar.config;
  int64_t decision = MORE + c->sessions * (int64_t)SESSION +
                     c->load.lanes * (LANE + sidecar->plan_slots * (int64_t)4) +
                     c->load.tokens * TOKEN;
  int64_t start = MORE + (1 + sidecar->streams) * (int64_t)c->positions * TOKEN +
                  (sidecar->plan_slots + sidecar->notes_dim) * (int64_t)TOKEN;
  int64_t most = decision > start ? decision : start;
  if (!s->options.journal || most <= PDT_JOURNAL_MAX_ENTRY_BYTES) return 0;
  return pdt_fail(err, PDT_ERROR_USAGE,
                  "--journal: an entry may have up to %lld bytes: expected at most %d (hint: fewer "
                  "--max-sessions, --max-positions or --max-block-tokens)",
                  (long long)most, PDT_JOURNAL_MAX_ENTRY_BYTES);
}

/* Rank 0: what the engine is to run, and what HTTP reads requests against. */
static int set_up(server *s, const pdt_comm *world, pdt_engine *engine, pdt_run_setup *setup,
                  pdt_error *err) {
  const pdt_loaded *loaded = pdt_engine_loaded(engine);
  const pdt_chat_flags flags = {0};
  pdt_http *http = &s->http;
  http->spread = pdt_machine_spread(pdt_engine_machine(engine));
  if (pdt_tokenizer_load_if_any(&s->tokenizer, s->options.engine.model, err) ||
      pdt_request_chat_new(&s->chat, s->options.engine.model, s->tokenizer, &flags, err) ||
      make_capacity(&s->options, loaded, http->spread, &http->capacity, err) ||
      check_journal(s, &http->capacity, loaded, err))
    return -1;
  http->context.request =
      (pdt_request_context){&loaded->model, &loaded->sidecar.config, s->tokenizer};
  http->context.chat = &s->chat;
  s->feed = (pdt_feed){.hub = &s->hub,
                       .name = s->name,
                       .sidecar = &loaded->sidecar.config,
                       .engine = engine,
                       .world = world,
                       .journal = s->options.journal ? &s->journal : NULL,
                       .spread = http->spread};
  *setup = (pdt_run_setup){.capacity = http->capacity,
                           .requests = pdt_feed_source(&s->feed),
                           .observer = pdt_feed_observer(&s->feed)};
  return 0;
}

/* Serves from here on. */
static void tell_ready(server *s) {
  const pdt_serve_options *o = &s->options;
  const pdt_capacity *c = &s->http.capacity;
  bool v6 = strchr(o->host, ':') != NULL;
  pdt_hub_enter(&s->hub, PDT_HUB_SERVES);
  if (o->quiet) return;
  pdt_say(stderr,
          "%s: %s at %s://%s%s%s:%d: %d sessions at once, sequences of %d positions, a cache "
          "of %lld",
          s->name, s->model, o->certificate ? "https" : "http", v6 ? "[" : "", o->host,
          v6 ? "]" : "", pdt_http_port(&s->http), c->sessions, c->positions,
          (long long)c->load.pages * PDT_PAGE_TOKENS);
}

static int run_engine(server *s, pdt_engine *engine, const pdt_run_setup *setup, bool lead,
                      pdt_error *err) {
  pdt_run_stats stats;
  pdt_error last = {0};
  int status = 0;
  if (pdt_engine_begin(engine, setup, err)) return -1;
  if (lead) tell_ready(s);
  for (bool more = true; more && !status;) {
    status = pdt_engine_step(engine, &more, err);
    if (lead && !status) pdt_feed_stepped(&s->feed);
  }
  if (pdt_engine_end(engine, &stats, &last) && !status) {
    *err = last;
    status = -1;
  }
  if (lead && !status && !s->options.quiet)
    pdt_say(stderr, "%s: ends: %lld rounds, %lld tokens committed in %.0f s", s->name,
            (long long)stats.rounds, (long long)stats.committed_tokens, stats.seconds);
  return status;
}

/* ---- the end ---- */

/* Gives those who wait for the rest of their answers the time to read it. */
static void flush(server *s) {
  const struct timespec pause = {.tv_nsec = 10000000};
  double until = pdt_seconds() + FLUSH_SECONDS;
  bool waits = true;
  while (waits && pdt_seconds() < until) {
    waits = false;
    pthread_mutex_lock(&s->hub.lock);
    for (const pdt_exchange *e = s->http.exchanges; e; e = e->next) waits = waits || e->n_jobs > 0;
    pthread_mutex_unlock(&s->hub.lock);
    if (waits) nanosleep(&pause, NULL);
  }
}

/* why: what ended the server, if it was an error. */
static int close_server(server *s, const pdt_error *why, pdt_error *err) {
  if (s->has_hub) {
    pdt_hub_enter(&s->hub, PDT_HUB_DRAINS);
    pthread_mutex_lock(&s->hub.lock);
    if (why) pdt_hub_fail(&s->hub, why);
    pthread_mutex_unlock(&s->hub.lock);
    flush(s);
  }
  pdt_pulse_stop(&s->pulse);
  pdt_http_stop(&s->http);
  if (s->has_hub) pdt_hub_free(&s->hub);
  pdt_feed_free(&s->feed);
  pdt_request_chat_free(&s->chat);
  pdt_tokenizer_free(s->tokenizer);
  free(s->model);
  return pdt_journal_close(&s->journal, err);
}

/* Loads and serves. */
static int serve(server *s, const pdt_comm *world, pdt_engine **engine, pdt_error *err) {
  bool lead = world->rank == 0;
  pdt_run_setup setup = {0};
  if (pdt_engine_new(engine, world, &s->options.engine, err)) return -1;
  if (lead) {
    pdt_notices_print(s->options.engine.notices, stderr, s->name, s->options.verbose);
    set_up(s, world, *engine, &setup, err);
  }
  return pdt_comm_agree(world, err) || run_engine(s, *engine, &setup, lead, err) ? -1 : 0;
}

void pdt_serve_library(char *text, size_t bytes) {
  snprintf(text, bytes, "%s", MHD_get_version());
}

int pdt_serve_run(const pdt_comm *world, const char *name, const pdt_serve_options *given,
                  pdt_error *err) {
  server s = {.name = name, .options = *given, .journal = {.fd = -1}};
  pdt_notices notices = {0};
  pdt_engine *engine = NULL;
  pdt_error late = {0};
  s.options.engine.notices = &notices;
  pdt_signals_listen(true);
  if (world->rank == 0) open_server(&s, err);
  int status = pdt_comm_agree(world, err) || serve(&s, world, &engine, err);
  if (world->rank == 0) close_server(&s, status ? err : NULL, &late);
  if (!status) status = pdt_comm_agree(world, &late);
  if (late.code != PDT_ERROR_NONE && err->code == PDT_ERROR_NONE) *err = late;
  pdt_engine_free(engine);
  if (pdt_signals_caught()) pdt_signals_ignore();
  return status ? -1 : 0;
}

/* A run with nothing in flight waits for a request: no rank computes or spins meanwhile, and the
 * request is served as soon as it comes. Run by mpirun; the first wrong thing ends all. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "engine/engine.h"

enum { REQUESTS = 2, WAIT_SECONDS = 2, SERVED_WITHIN = 1 };

/* Most of the processors' time that a wait takes. Builds that check compare calls before they are
 * made, and spin until all ranks have come to that. */
#ifdef PDT_CHECKS
enum { MOST_PERCENT = 100 };
#else
enum { MOST_PERCENT = 5 };
#endif

static pdt_token prompt[] = {256, 166, 221, 62};
static pdt_token *prefix[2];
static int32_t n_prefix[2];

/* Rank 0's. */
typedef struct waiting {
  pdt_request requests[REQUESTS];
  int32_t n_handed_out, n_ended;
  double handed_out;    /* when the last one was */
  double most_to_start; /* seconds from there to its first round */
} waiting;

static void give_up(const pdt_comm *world, const char *what, double found, double expected) {
  pdt_error err = {0};
  pdt_fail(&err, PDT_ERROR_RUNTIME, "test_waiting: rank %d: %s: found %g, expected at most %g",
           world->rank, what, found, expected);
  pdt_comm_abort(world, &err);
}

/* Requests that let the run wait, every one of them. */
static pdt_next next_request(void *context, bool may_wait, const pdt_request **request,
                             pdt_error *err) {
  waiting *w = context;
  (void)err;
  if (!may_wait) return PDT_NEXT_LATER;
  if (w->n_handed_out == REQUESTS) return PDT_NEXT_END;
  sleep(WAIT_SECONDS);
  *request = &w->requests[w->n_handed_out++];
  w->handed_out = pdt_seconds();
  return PDT_NEXT_REQUEST;
}

static int on_round(void *context, const pdt_round_report *report, pdt_error *err) {
  waiting *w = context;
  double took = pdt_seconds() - w->handed_out;
  (void)err;
  if (report->round == 1 && took > w->most_to_start) w->most_to_start = took;
  return 0;
}

static int on_ended(void *context, const pdt_running *running, pdt_error *err) {
  waiting *w = context;
  (void)running;
  (void)err;
  w->n_ended++;
  return 0;
}

static double processor_seconds(void) {
  struct rusage use;
  getrusage(RUSAGE_SELF, &use);
  return (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) +
         1e-6 * (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec);
}

static pdt_request make_request(uint64_t session) {
  return (pdt_request){.session = session,
                       .prompt = prompt,
                       .n_prompt = 4,
                       .prefix = prefix,
                       .n_prefix = n_prefix,
                       .settings = {.streams = 2,
                                    .reveal_delay = 1,
                                    .window = 9,
                                    .max_attempts = 2,
                                    .max_rounds = 2,
                                    .gamma = 0,
                                    .sampling = {.temperature = 0, .top_k = 0, .top_p = 1},
                                    .limits = {.block_tokens = 4,
                                               .horizon = 8,
                                               .max_tokens = 8,
                                               .slots = 6,
                                               .policy = PDT_SELECTIVE}}};
}

/* Steps to the end. A step that waits takes hardly any of the processors' time. */
static int run(const pdt_comm *world, pdt_engine *engine, pdt_error *err) {
  waiting w = {.requests = {make_request(1), make_request(2)}};
  pdt_run_setup setup = {
      .requests = {&w, next_request},
      .observer = {.context = &w, .round_done = on_round, .session_ended = on_ended}};
  pdt_run_stats stats;
  pdt_capacity_maker maker =
      pdt_capacity_maker_of(1, pdt_machine_spread(pdt_engine_machine(engine)));
  int status = pdt_capacity_maker_add(&maker, &w.requests[0], err);
  setup.capacity = pdt_capacity_made(&maker);
  pdt_capacity_maker_free(&maker);
  if (status || pdt_engine_begin(engine, &setup, err)) return -1;
  int waited = 0;
  for (bool more = true; more && !status;) {
    double start = pdt_seconds(), used = processor_seconds();
    status = pdt_engine_step(engine, &more, err);
    double took = pdt_seconds() - start;
    used = processor_seconds() - used;
    if (took < WAIT_SECONDS) continue;
    waited++;
    if (used > took * MOST_PERCENT / 100) /* prompt and first round of the request included */
      give_up(world, "processor seconds of a wait", used, took * MOST_PERCENT / 100);
  }
  if (pdt_engine_end(engine, &stats, err) || status) return -1;
  if (waited != REQUESTS) give_up(world, "steps that waited", waited, REQUESTS);
  if (stats.rounds != 2 * REQUESTS) give_up(world, "rounds", (double)stats.rounds, 2 * REQUESTS);
  if (world->rank == 0 && (w.n_ended != REQUESTS || w.most_to_start > SERVED_WITHIN))
    give_up(world, "seconds until a request is served", w.most_to_start, SERVED_WITHIN);
  return 0;
}

int main(int argc, char **argv) {
  pdt_comm world;
  pdt_error err = {0};
  if (pdt_comm_start(&world, &argc, &argv, &err)) {
    fprintf(stderr, "%s\n", err.message);
    return 1;
  }
  if (argc == 2 && world.size != atoi(argv[1])) give_up(&world, "ranks", world.size, atoi(argv[1]));
  const pdt_engine_options options = {.model = PDT_CASE "/model",
                                      .sidecar = PDT_CASE "/sidecar.safetensors",
                                      .machine = {.tensor_parallel = 1, .threads = 1},
                                      .max_sessions = 1};
  pdt_engine *engine;
  if (pdt_engine_new(&engine, &world, &options, &err) || run(&world, engine, &err))
    pdt_comm_abort(&world, &err);
  pdt_engine_free(engine);
  if (world.rank == 0) printf("ok: %d waits of %d s\n", REQUESTS, WAIT_SECONDS);
  pdt_comm_finish(&world);
  return 0;
}

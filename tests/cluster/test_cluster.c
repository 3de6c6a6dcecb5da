/* A whole decode, from files to files, on four ranks of one process, with whatever may go wrong: a
 * rank without memory for one allocation, ranks that come late, ranks that stop, messages that are
 * lost. Every run ends with the answer of a single rank, bit for bit, or with one error that all
 * ranks have; none hangs, none crashes, and where nobody stopped nothing is leaked (which the
 * sanitizers see).
 *
 *   test_cluster                        a share of all runs
 *   test_cluster --all                  every allocation of every rank, and 1,000 schedules
 *   test_cluster --schedule SEED        one of them
 *   test_cluster --allocation RANK N    likewise
 *
 * Runs go on in processes of their own: one that ends before its ranks have come back leaves what
 * these have open. */
#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <jansson.h>

#include "allocations.h"
#include "base/clock.h"
#include "comm/comm_memory.h"
#include "run/decode.h"
#include "tests/unit/numbers.h"
#include "tests/unit/scratch.h"

enum { RANKS = 4, SECONDS = 60, SCHEDULES = 1000, PATH_BYTES = 512, RUNS_OF_A_PROCESS = 64 };
enum { SHARE_OF_SCHEDULES = 10, SHARE_OF_ALLOCATIONS = 12 };

#define MODEL   PDT_CASES "/layers-with-windows/model"
#define SIDECAR PDT_CASES "/layers-with-windows/sidecar.safetensors"

/* Two sessions, one after the other or side by side. */
static const char requests[] =
    "{\"prompt_ids\":[256,226,71,178,175],\"session\":3,\"settings\":{\"streams\":4,"
    "\"block_tokens\":3,\"reveal_delay\":1,\"window\":9,\"horizon\":6,\"gamma\":0.1,"
    "\"max_tokens\":6}}\n"
    "{\"prompt_ids\":[256,43,25],\"plan_ids\":null,\"session\":4,\"settings\":{\"streams\":3,"
    "\"block_tokens\":2,\"reveal_delay\":2,\"window\":4,\"horizon\":4,\"gamma\":0.15,"
    "\"max_attempts\":2,\"max_tokens\":6,\"temperature\":0.8,\"seed\":5}}\n";

/* ---- one run ---- */

typedef struct plan {
  char name[64];
  pdt_rank ranks;
  int tensor_parallel, threads;
  int32_t max_sessions, machines[RANKS];
  bool scheduled;
  uint64_t seed;
  pdt_comm_fault faults[2];
  int32_t n_faults;
  pdt_rank short_of_memory;
  int64_t allocation; /* of that rank, which fails; -1: none */
} plan;

/* What a run leaves in its folder. */
enum { OUT, TRACE, JOURNAL, FILES };
typedef struct files {
  char paths[FILES][PATH_BYTES];
  char requests[PATH_BYTES];
} files;

typedef struct run {
  const plan *plan;
  const files *files;
  allocations counts[RANKS];
  pdt_comm_memory_outcome outcomes[RANKS];
  int left_open; /* descriptors that were not open before */
  int status;    /* of the cluster */
  pdt_error err;
} run;

static int decode(const pdt_comm *world, void *context, pdt_error *err) {
  run *r = context;
  const pdt_decode_options options = {
      .engine = {.model = MODEL,
                 .sidecar = SIDECAR,
                 .machine = {.tensor_parallel = r->plan->tensor_parallel,
                             .threads = r->plan->threads},
                 .max_sessions = r->plan->max_sessions,
                 .details = true},
      .requests = r->files->requests,
      .settings = json_object(),
      .session = -1,
      .out = r->files->paths[OUT],
      .trace = r->files->paths[TRACE],
      .journal = r->files->paths[JOURNAL],
      .json = true,
      .overwrite = true,
      .quiet = true};
  allocations_count(&r->counts[world->rank]);
  int status = pdt_decode_run(world, "test_cluster", &options, err);
  allocations_count(NULL);
  json_decref(options.settings);
  return status;
}

static int count_descriptors(void) {
  DIR *list = opendir("/proc/self/fd");
  int n = 0;
  while (list && readdir(list)) n++;
  if (list) closedir(list);
  return n;
}

static void carry_out(run *r, const plan *p, const files *f) {
  const pdt_comm_memory_options options = {.machines = p->machines,
                                           .scheduled = p->scheduled,
                                           .seed = p->seed,
                                           .faults = p->faults,
                                           .n_faults = p->n_faults};
  *r = (run){.plan = p, .files = f};
  for (pdt_rank rank = 0; rank < RANKS; rank++)
    r->counts[rank].failing = rank == p->short_of_memory ? p->allocation : -1;
  int open_before = count_descriptors();
  alarm(SECONDS); /* what the cluster itself does not see: a rank that computes for ever */
  r->status = pdt_comm_memory_run(p->ranks, &options, decode, r, r->outcomes, &r->err);
  alarm(0);
  r->left_open = count_descriptors() - open_before;
}

/* ---- was it right? ---- */

/* What a single rank makes of it. */
typedef struct answer {
  char *bytes[FILES];
  size_t n[FILES];
} answer;

static char *read_file(const char *path, size_t *n) {
  char *bytes = NULL, piece[4096];
  size_t got = 0;
  FILE *f = fopen(path, "rb"), *all = open_memstream(&bytes, n);
  while (f && all && (got = fread(piece, 1, sizeof piece, f)) > 0) (void)fwrite(piece, 1, got, all);
  if (all) fclose(all);
  if (f) fclose(f);
  return bytes;
}

/* The header of a journal tells of the layout: what is compared begins behind that entry. */
static size_t header_bytes(const char *journal, size_t n) {
  uint32_t length = 0;
  if (n < 16) return n;
  memcpy(&length, journal + 12, sizeof length);
  return 16 + length + 8;
}

static void free_answer(answer *a) {
  for (int i = 0; i < FILES; i++) free(a->bytes[i]);
}

/* What is there, without what may differ between layouts. */
static void read_answer(answer *a, const files *f) {
  for (int i = 0; i < FILES; i++) a->bytes[i] = read_file(f->paths[i], &a->n[i]);
  size_t skipped = header_bytes(a->bytes[JOURNAL], a->n[JOURNAL]);
  if (skipped > a->n[JOURNAL]) skipped = a->n[JOURNAL];
  a->n[JOURNAL] -= skipped;
  memmove(a->bytes[JOURNAL], a->bytes[JOURNAL] + skipped, a->n[JOURNAL]);
}

static const char *compare_answer(const answer *expected, const files *f) {
  static const char *const wrong[FILES] = {"another output", "another trace", "another journal"};
  const char *what = NULL;
  answer a;
  read_answer(&a, f);
  for (int i = 0; i < FILES && !what; i++)
    if (a.n[i] != expected->n[i] || memcmp(a.bytes[i], expected->bytes[i], a.n[i]) != 0)
      what = wrong[i];
  free_answer(&a);
  return what;
}

/* Did anything happen to the run? */
static bool had_faults(const run *r) {
  bool any = false;
  for (pdt_rank rank = 0; rank < r->plan->ranks; rank++) any |= r->outcomes[rank].faults > 0;
  return any;
}

static bool had_failing_allocation(const run *r) {
  return r->plan->allocation >= 0 && r->counts[r->plan->short_of_memory].caller;
}

/* What is wrong with the end of a run; NULL: nothing. */
static const char *judge(const run *r, const answer *expected) {
  const pdt_comm_memory_outcome *first = &r->outcomes[0];
  if (r->status) {
    if (!had_faults(r)) return "it ended without a fault";
    return strstr(r->err.message, "(operation ") ? NULL : "no operation is named";
  }
  for (pdt_rank rank = 0; rank < r->plan->ranks; rank++) {
    const pdt_comm_memory_outcome *o = &r->outcomes[rank];
    if (o->status != first->status || o->err.code != first->err.code ||
        strcmp(o->err.message, first->err.message) != 0)
      return "the ranks do not end alike";
    if (o->status != 0 && (o->err.code == PDT_ERROR_NONE || !o->err.message[0]))
      return "an error without a message";
  }
  if (r->left_open) return "files are left open";
  if (first->status == 0) return expected->bytes[OUT] ? compare_answer(expected, r->files) : NULL;
  if (!had_failing_allocation(r)) return "an error without a cause";
  return strstr(first->err.message, "memory") ? NULL : "not told as a lack of memory";
}

/* ---- many runs ---- */

/* What all processes know of: in memory that they share. */
typedef struct tally {
  int64_t next; /* run of the series */
  int64_t right, errors, ended, wrong;
  int64_t operations[RANKS], allocations[RANKS]; /* of a run without faults */
  bool leaves_things;                            /* a run of this process had no end */
  int32_t max_sessions;                          /* of single_rank */
  pdt_rank short_of_memory;                      /* of every_allocation */
} tally;

typedef struct series {
  const char *name;
  int64_t n, step;
  void (*plan)(plan *p, int64_t i, const tally *t);
} series;

typedef struct test {
  scratch scratch;
  files files;
  answer expected[2]; /* by sessions at once, whose decisions are in one message */
  tally *tally;
} test;

/* Runs number t->tally->next. */
static void one_run(test *t, const plan *p) {
  tally *all = t->tally;
  run r;
  carry_out(&r, p, &t->files);
  const char *wrong = judge(&r, &t->expected[p->max_sessions - 1]);
  if (wrong) {
    const pdt_error *err = r.status ? &r.err : &r.outcomes[0].err;
    fprintf(stderr, "test_cluster: %s: %s: %s\n", p->name, wrong,
            err->message[0] ? err->message : "no error");
    for (pdt_rank rank = 1; rank < p->ranks && !r.status; rank++)
      if (strcmp(r.outcomes[rank].err.message, err->message) != 0)
        fprintf(stderr, "test_cluster: %s: rank %d: %s\n", p->name, rank,
                r.outcomes[rank].err.message);
    all->wrong++;
  } else if (r.status) {
    all->ended++;
  } else if (r.outcomes[0].status) {
    all->errors++;
  } else {
    all->right++;
  }
  all->leaves_things = all->leaves_things || r.status;
  for (pdt_rank rank = 0; rank < p->ranks && p->n_faults == 0 && p->allocation < 0; rank++) {
    all->operations[rank] = r.outcomes[rank].operations;
    all->allocations[rank] = r.counts[rank].count;
  }
}

/* A process for some runs of a series: until one leaves what only the end of a process can free. */
static void some_runs(test *t, const series *s) {
  tally *all = t->tally;
  all->leaves_things = false;
  for (int i = 0; i < RUNS_OF_A_PROCESS && all->next < s->n && !all->leaves_things; i++) {
    plan p;
    s->plan(&p, all->next, all);
    one_run(t, &p);
    all->next += s->step;
  }
  if (all->leaves_things) _exit(0);
  for (int i = 0; i < 2; i++) free_answer(&t->expected[i]);
  exit(0); /* under the sanitizers: looks for leaks */
}

static void run_series(test *t, const series *s) {
  tally *all = t->tally, before = *all;
  double start = pdt_seconds();
  all->next = 0;
  while (all->next < s->n) {
    int status = 0;
    int64_t first = all->next;
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) some_runs(t, s);
    if (child < 0 || waitpid(child, &status, 0) != child) abort();
    if (status == 0) continue;
    plan p;
    bool inside = WIFSIGNALED(status);
    s->plan(&p, inside ? all->next : first, all);
    fprintf(stderr, "test_cluster: %s%s: the process ended with %s %d\n", p.name,
            inside ? "" : " or one of the next", inside ? "signal" : "status",
            inside ? WTERMSIG(status) : WEXITSTATUS(status));
    all->wrong++;
    if (inside) all->next += s->step;
  }
  printf("%s: %" PRId64 " right, %" PRId64 " with an error, %" PRId64 " ended, %" PRId64
         " wrong; %.1f s\n",
         s->name, all->right - before.right, all->errors - before.errors, all->ended - before.ended,
         all->wrong - before.wrong, pdt_seconds() - start);
}

/* ---- which runs ---- */

static plan usual_plan(void) {
  return (plan){.ranks = RANKS, .threads = 1, .max_sessions = 2, .allocation = -1};
}

static void single_rank(plan *p, int64_t i, const tally *t) {
  *p = usual_plan();
  p->ranks = 1;
  p->max_sessions = t->max_sessions;
  (void)i;
  snprintf(p->name, sizeof p->name, "a single rank");
}

/* Every layout, all ranks at once. */
static void whole(plan *p, int64_t i, const tally *t) {
  (void)t;
  *p = usual_plan();
  p->tensor_parallel = 1 << i % 3;
  p->threads = 1 + (int)(i / 3) % 2;
  p->max_sessions = 1 + (int32_t)(i / 6) % 2;
  snprintf(p->name, sizeof p->name, "4 ranks, --tp %d, %d threads", p->tensor_parallel, p->threads);
}

static pdt_comm_fault random_fault(numbers *r, const tally *t) {
  pdt_comm_fault f = {.kind = (pdt_comm_fault_kind)numbers_int(r, 0, 2)};
  f.rank = numbers_int(r, 0, RANKS - 1);
  f.operation = numbers_int(r, 0, (int)t->operations[f.rank] - 1);
  f.to = (f.rank + numbers_int(r, 1, RANKS - 1)) % RANKS;
  return f;
}

/* Ranks that come in any order, on one or several machines, and often something that goes wrong. */
static void scheduled(plan *p, int64_t i, const tally *t) {
  numbers r = {.state = (uint64_t)i + 1};
  *p = usual_plan();
  snprintf(p->name, sizeof p->name, "--schedule %" PRId64, i);
  p->scheduled = true;
  p->seed = (uint64_t)i;
  p->tensor_parallel = (int[]){0, 1, 2, 4}[numbers_int(&r, 0, 3)];
  p->max_sessions = numbers_int(&r, 1, 2);
  int machines = numbers_int(&r, 1, 3);
  for (pdt_rank rank = 0; rank < RANKS; rank++) p->machines[rank] = rank % machines;
  p->n_faults = numbers_int(&r, 0, 3) * 2 / 3;
  for (int f = 0; f < p->n_faults; f++) p->faults[f] = random_fault(&r, t);
  if (numbers_int(&r, 0, 3) > 0) return;
  p->short_of_memory = numbers_int(&r, 0, RANKS - 1);
  p->allocation = numbers_int(&r, 0, (int)t->allocations[p->short_of_memory] - 1);
}

/* A layout in which groups and the world are not the same. */
static void usual(plan *p, int64_t i, const tally *t) {
  (void)t;
  *p = usual_plan();
  p->tensor_parallel = 2;
  p->scheduled = true;
  p->seed = (uint64_t)i;
  snprintf(p->name, sizeof p->name, "4 ranks, one at a time");
}

static void every_allocation(plan *p, int64_t i, const tally *t) {
  usual(p, i, t);
  p->short_of_memory = t->short_of_memory;
  p->allocation = i;
  snprintf(p->name, sizeof p->name, "--allocation %d %" PRId64, p->short_of_memory, i);
}

/* What a single rank makes of it, which is what all others must come to. */
static void find_answers(test *t) {
  for (int32_t i = 0; i < 2; i++) {
    t->tally->max_sessions = i + 1;
    run_series(t, &(series){"a single rank", 1, 1, single_rank});
    if (t->tally->wrong == 0) read_answer(&t->expected[i], &t->files);
  }
}

static void run_all(test *t, bool all) {
  run_series(t, &(series){"every layout, all ranks at once", 12, 1, whole});
  run_series(t, &(series){"one rank at a time", 4, 1, usual});
  const tally *found = t->tally;
  for (pdt_rank r = 0; r < RANKS && found->wrong == 0; r++) {
    char name[64];
    snprintf(name, sizeof name, "allocations of rank %d", r);
    t->tally->short_of_memory = r;
    run_series(t, &(series){name, found->allocations[r], all ? 1 : SHARE_OF_ALLOCATIONS,
                            every_allocation});
  }
  if (found->allocations[0] == 0) return;
  run_series(t, &(series){"schedules", SCHEDULES, all ? 1 : SHARE_OF_SCHEDULES, scheduled});
}

/* One run, in this process. */
static void run_one(test *t, int argc, char **argv) {
  plan p;
  run_series(t, &(series){"one rank at a time", 1, 1, usual});
  if (argc == 3) {
    scheduled(&p, atoll(argv[2]), t->tally);
  } else {
    t->tally->short_of_memory = atoi(argv[2]);
    every_allocation(&p, atoll(argv[3]), t->tally);
  }
  one_run(t, &p);
}

static void set_up(test *t) {
  void *state;
  allocations_prepare();
  if (scratch_setup(&state)) abort();
  t->scratch = *(scratch *)state;
  free(state);
  scratch_text(&t->scratch, "requests.jsonl", requests);
  static const char *const names[FILES] = {"out.jsonl", "trace.json", "journal.bin"};
  for (int i = 0; i < FILES; i++)
    snprintf(t->files.paths[i], PATH_BYTES, "%s", scratch_path(&t->scratch, names[i]));
  snprintf(t->files.requests, PATH_BYTES, "%s", scratch_path(&t->scratch, "requests.jsonl"));
  t->tally =
      mmap(NULL, sizeof *t->tally, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (t->tally == MAP_FAILED) abort();
}

int main(int argc, char **argv) {
  test t = {0};
  /* a library that has threads when a process forks is for trouble */
  if (!getenv("OPENBLAS_NUM_THREADS")) {
    setenv("OPENBLAS_NUM_THREADS", "1", 1);
    execv("/proc/self/exe", argv);
  }
  set_up(&t);
  find_answers(&t);
  bool one = argc == 3 || argc == 4, all = argc == 2 && strcmp(argv[1], "--all") == 0;
  if (one)
    run_one(&t, argc, argv);
  else if (t.tally->wrong == 0)
    run_all(&t, all);
  const tally *found = t.tally;
  printf("%s: %" PRId64 " right, %" PRId64 " with an error, %" PRId64 " ended, %" PRId64 " wrong\n",
         found->wrong ? "FAILED" : "ok", found->right, found->errors, found->ended, found->wrong);
  bool tested = one || (found->right > 0 && found->errors > 0 && found->ended > 0);
  for (int i = 0; i < 2; i++) free_answer(&t.expected[i]);
  nftw(t.scratch.folder, scratch_remove, 8, FTW_DEPTH | FTW_PHYS);
  return found->wrong == 0 && tested ? 0 : 1;
}

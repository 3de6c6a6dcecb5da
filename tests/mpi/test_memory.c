/* One rank runs out of memory, at every place of a whole command in turn: all ranks end alike, with
 * the one error, and none waits for the others. The linker puts the functions below between the
 * program and its allocators; a place is the address that one was called from. Run by mpirun; the
 * first wrong place is named and ends all. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "base/clock.h"
#include "base/memory.h"
#include "cli/cli.h"
#include "pdt.pb-c.h"

/* SHARE_SECONDS: of each command and rank, on a machine that has other work. */
enum { MOST_SITES = 2000, SECONDS = 60, SHARE_SECONDS = 5 };

extern const char __executable_start[]; /* the linker's */

/* Places that were come by in a run, and the one where memory ends: the `turn`th time there. */
typedef struct sites {
  const void *at[MOST_SITES];
  int64_t visits[MOST_SITES];
  int n;
  int failing; /* index, -1: none */
  int64_t turn;
  bool counts; /* a command is under way */
} sites;

/* The wrapped functions have no argument to carry it. */
static sites seen = {.failing = -1};

static bool runs_out(const void *caller) {
  sites *s = &seen;
  if (!s->counts) return false;
  int i = 0;
  while (i < s->n && s->at[i] != caller) i++;
  if (i == MOST_SITES) return false;
  if (i == s->n) s->at[s->n++] = caller;
  return ++s->visits[i] == s->turn && i == s->failing;
}

#define RUNS_OUT() runs_out(__builtin_return_address(0))

/* The wrapped functions, as the linker names them. */
int __real_pdt_new(void **out, int64_t count, size_t size, const char *what, pdt_error *err);
int __wrap_pdt_new(void **out, int64_t count, size_t size, const char *what, pdt_error *err);
void *__real_malloc(size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__real_calloc(size_t n, size_t bytes);
void *__wrap_calloc(size_t n, size_t bytes);
void *__real_realloc(void *p, size_t bytes);
void *__wrap_realloc(void *p, size_t bytes);
char *__real_strdup(const char *text);
char *__wrap_strdup(const char *text);
FILE *__real_open_memstream(char **text, size_t *bytes);
FILE *__wrap_open_memstream(char **text, size_t *bytes);
Pdt__Decision *__real_pdt__decision__unpack(ProtobufCAllocator *a, size_t n, const uint8_t *data);
Pdt__Decision *__wrap_pdt__decision__unpack(ProtobufCAllocator *a, size_t n, const uint8_t *data);

int __wrap_pdt_new(void **out, int64_t count, size_t size, const char *what, pdt_error *err) {
  if (!RUNS_OUT()) return __real_pdt_new(out, count, size, what, err);
  *out = NULL;
  return pdt_fail(err, PDT_ERROR_MEMORY, "%s: no memory (as the test wants it)", what);
}

void *__wrap_malloc(size_t bytes) {
  return RUNS_OUT() ? NULL : __real_malloc(bytes);
}

void *__wrap_calloc(size_t n, size_t bytes) {
  return RUNS_OUT() ? NULL : __real_calloc(n, bytes);
}

void *__wrap_realloc(void *p, size_t bytes) {
  return RUNS_OUT() ? NULL : __real_realloc(p, bytes);
}

char *__wrap_strdup(const char *text) {
  return RUNS_OUT() ? NULL : __real_strdup(text);
}

FILE *__wrap_open_memstream(char **text, size_t *bytes) {
  return RUNS_OUT() ? NULL : __real_open_memstream(text, bytes);
}

Pdt__Decision *__wrap_pdt__decision__unpack(ProtobufCAllocator *a, size_t n, const uint8_t *data) {
  /* an allocator of pdt's own has its memory already */
  return !a && RUNS_OUT() ? NULL : __real_pdt__decision__unpack(a, n, data);
}

/* ---- one command after another ---- */

enum { MOST_WORDS = 32 };

typedef struct command {
  const char *name;
  int (*run)(const pdt_cli *cli, int argc, char **argv, pdt_error *err);
  const char *words[MOST_WORDS];
} command;

static void give_up(const pdt_comm *world, const char *what, const char *text) {
  pdt_error err = {0};
  pdt_fail(&err, PDT_ERROR_RUNTIME,
           "test_memory: rank %d: %s: %s (place %d, time %" PRId64 ", addr2line +%#tx)",
           world->rank, what, text, seen.failing, seen.turn,
           seen.failing < 0 || seen.failing >= seen.n
               ? 0
               : (const char *)seen.at[seen.failing] - __executable_start);
  pdt_comm_abort(world, &err);
}

/* Runs a command; what came of it on this rank. */
static int run(const pdt_comm *world, const command *c, pdt_error *err) {
  char *argv[MOST_WORDS + 1] = {NULL};
  int argc = 0;
  for (; argc < MOST_WORDS && c->words[argc]; argc++)
    argv[argc] = (char *)(uintptr_t)c->words[argc];
  const pdt_cli cli = {c->name, world};
  memset(seen.visits, 0, sizeof seen.visits);
  seen.counts = true;
  alarm(SECONDS); /* a rank that waits for another is killed, and the launcher ends the rest */
  int rc = c->run(&cli, argc, argv, err);
  alarm(0);
  seen.counts = false;
  return rc;
}

/* All ranks have come to the same end: an error, or none where a command can do without (a word of
 * advice, a copy of a name). */
static void compare(const pdt_comm *world, const command *c, int rc, const pdt_error *err) {
  int64_t n[4] = {rc, -rc, err->code, -(int64_t)err->code};
  pdt_error of_first = *err;
  pdt_comm_all_reduce_i64(world, n, 4, PDT_COMM_MIN);
  pdt_comm_broadcast(world, &of_first, sizeof of_first, 0);
  if (n[0] != -n[1] || n[2] != -n[3] || strcmp(of_first.message, err->message) != 0)
    give_up(world, c->name, "the ranks do not end alike");
  if (rc != 0 && err->message[0] == '\0') give_up(world, c->name, "an error without a message");
}

/* How many runs there were, how many ended with an error, and how many there was no time for. */
typedef struct tally {
  int64_t runs, errors, left_out;
} tally;

/* Has rank 0 time for more? */
static bool goes_on(const pdt_comm *world, double until) {
  int64_t more = pdt_seconds() < until;
  pdt_comm_broadcast(world, &more, sizeof more, 0);
  return more;
}

/* Lets rank r run out of memory wherever it allocates: the first time it comes by, then the last,
 * as long as there is time. */
static void fail_everywhere(const pdt_comm *world, const command *c, pdt_rank r, tally *t) {
  int64_t n, visits[MOST_SITES];
  pdt_error err = {0};
  seen.n = 0;
  seen.failing = -1;
  int rc = run(world, c, &err); /* the places are found by a run that is sound */
  compare(world, c, rc, &err);
  if (rc) give_up(world, c->name, err.message);
  n = seen.n;
  memcpy(visits, seen.visits, sizeof visits);
  pdt_comm_broadcast(world, &n, sizeof n, r);
  pdt_comm_broadcast(world, visits, sizeof visits, r);
  double until = pdt_seconds() + SHARE_SECONDS;
  for (int last = 0; last < 2; last++)
    for (int64_t i = 0; i < n; i++) {
      if (last && visits[i] < 2) continue;
      if (!goes_on(world, until)) {
        t->left_out++;
        continue;
      }
      seen.failing = world->rank == r ? (int)i : -1;
      seen.turn = last ? visits[i] : 1;
      err = (pdt_error){0};
      rc = run(world, c, &err);
      compare(world, c, rc, &err);
      t->runs++;
      t->errors += rc != 0;
    }
}

int main(int argc, char **argv) {
  static const command commands[] = {
      {"pdt decode",
       pdt_cmd_decode,
       {"decode", "--model", PDT_CASE "/model", "--sidecar", PDT_CASE "/sidecar.safetensors",
        "--request", PDT_CASE "/request.json", "--threads", "1", "--quiet", "--json", "--out",
        "memory-out.jsonl", "--trace", "memory-trace.json"}},
      {"pdt decode --tp 1",
       pdt_cmd_decode,
       {"decode",
        "--model",
        PDT_CASE "/model",
        "--sidecar",
        PDT_CASE "/sidecar.safetensors",
        "--request",
        PDT_CASE "/request.json",
        "--tp",
        "1",
        "--reveal-delay",
        "1",
        "--quiet",
        "--max-tokens",
        "9",
        "--journal",
        "memory-journal.bin",
        "--overwrite",
        "--json",
        "--out",
        "memory-out.jsonl"}},
  };
  pdt_comm world;
  pdt_error err = {0};
  if (pdt_comm_start(&world, &argc, &argv, &err)) {
    fprintf(stderr, "%s\n", err.message);
    return 1;
  }
  tally t = {0};
  for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
    for (pdt_rank r = 0; r<world.size; r += world.size> 1 ? world.size - 1 : 1)
      fail_everywhere(&world, &commands[i], r, &t);
  if (t.errors < t.runs / 2) give_up(&world, "all commands", "memory did not run out");
  if (world.rank == 0)
    printf("ok: %" PRId64 " runs on %d ranks, %" PRId64 " with an error; no time for %" PRId64 "\n",
           t.runs, world.size, t.errors, t.left_out);
  pdt_comm_finish(&world);
  return 0;
}

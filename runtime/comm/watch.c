#include "comm/watch.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "comm/beats.h"

enum { STACK_BYTES = 256 << 10, BURST = 32, WRITE_MS = 500 };
static const double beat_seconds = 0.5;  /* from one message to the next */
static const double away_seconds = 1.5;  /* who has not looked for so long was stopped itself */
static const double patience = 10;       /* of deadlines, where they do not hold: loading */
static const double unheard_seconds = 5; /* until it is told that a rank cannot be heard at all */

/* What is known of a rank that is watched. */
typedef struct peer {
  bool heard, gone;
  double last;        /* when it was heard, */
  double moved;       /* began an exchange, */
  double round_began; /* and came to its round; or this watch saw it so */
  double gone_at;
  pdt_beat said;
} peer;

struct pdt_watch {
  pdt_watch_state state; /* first: worlds point to it */
  pthread_t thread;
  int wake; /* an eventfd: look at state.ends, or stop */
  _Atomic bool stops;
  pdt_beats beats;
  peer *peers; /* rank 0's: [size], itself included; the others': rank 0 */
  int32_t n_peers;
  double started, looked;
  bool told_unheard;
};

static bool is_lead(const pdt_watch *w) {
  return w->beats.rank == 0;
}

static pdt_beat own_beat(pdt_watch *w) {
  pdt_watch_state *s = &w->state;
  const char *call = atomic_load_explicit(&s->call, memory_order_relaxed);
  pdt_beat b = {.rank = w->beats.rank,
                .round = atomic_load_explicit(&s->round, memory_order_relaxed),
                .exchanges = atomic_load_explicit(&s->exchanges, memory_order_relaxed),
                .armed = atomic_load_explicit(&s->armed, memory_order_relaxed)};
  snprintf(b.call, sizeof b.call, "%s", call ? call : "");
  return b;
}

/* ---- the end ---- */

/* Without the locks of streams, which the main thread may hold, and not for ever. */
static void say(const char *text) {
  struct pollfd out = {.fd = STDERR_FILENO, .events = POLLOUT};
  if (poll(&out, 1, WRITE_MS) > 0 && write(STDERR_FILENO, text, strlen(text)) < 0) return;
}

/* Twice: a message may get lost. */
static void tell_all(pdt_watch *w, int status) {
  pdt_beat end = own_beat(w);
  end.ends = 1;
  end.status = status;
  for (int i = 0; i < 2; i++)
    for (pdt_rank r = 0; r < w->beats.size; r++)
      if (r != w->beats.rank) pdt_beats_send(&w->beats, r, &end);
}

/* "round 14: " and so on, into text; where its end is. */
static int put_where(const pdt_beat *own, char *text, size_t room) {
  if (own->round > 0)
    return snprintf(text, room, "pdt: round %llu: ", (unsigned long long)own->round);
  return snprintf(text, room, "pdt: %s: ", own->armed ? "between rounds" : "outside of a run");
}

/* "waits in gather". */
static void put_does(const pdt_beat *b, char *text, size_t room) {
  snprintf(text, room, "%s%s", b->call[0] ? "waits in " : "computes", b->call);
}

/* Ends the job, having said: where, `what`, and what this rank does. */
static _Noreturn void end_job(pdt_watch *w, const char *what, const char *hint) {
  const pdt_beat own = own_beat(w);
  char text[1024], does[64];
  put_does(&own, does, sizeof does);
  int at = put_where(&own, text, sizeof text);
  snprintf(text + at, sizeof text - (size_t)at, "%s; rank %d on %s %s (hint: %s)\n", what, own.rank,
           w->beats.places[own.rank].host, does, hint);
  say(text);
  int status = pdt_exit_status(PDT_ERROR_RUNTIME);
  tell_all(w, status);
  _exit(status);
}

/* ---- what is known ---- */

static void note(peer *p, const pdt_beat *b, double now) {
  if (!p->heard || b->exchanges != p->said.exchanges || (b->call[0] != 0) != (p->said.call[0] != 0))
    p->moved = now;
  if (!p->heard || b->round != p->said.round) p->round_began = now;
  p->said = *b;
  p->last = now;
  p->heard = true;
  p->gone = false; /* it was a place that refused, and not the rank */
}

/* Takes in what has come. Who is asked by rank 0 answers. */
static void hear(pdt_watch *w, double now) {
  pdt_beat b;
  while (pdt_beats_next(&w->beats, &b)) {
    if (b.ends) _exit(b.status); /* whoever says so has told why */
    if (b.rank < w->n_peers) note(&w->peers[b.rank], &b, now);
    if (is_lead(w) || b.rank != 0) continue;
    pdt_beat own = own_beat(w);
    pdt_beats_send(&w->beats, 0, &own);
  }
  for (pdt_rank r; (r = pdt_beats_refused(&w->beats)) >= 0;) {
    if (r >= w->n_peers || w->peers[r].gone) continue;
    w->peers[r].gone = true;
    w->peers[r].gone_at = now;
  }
}

/* Rank 0 asks all; the others speak for themselves when it does not ask. */
static void beat(pdt_watch *w, double now) {
  const pdt_beat own = own_beat(w);
  if (!is_lead(w)) {
    if (now - w->peers[0].last > 1.5 * beat_seconds) pdt_beats_send(&w->beats, 0, &own);
    return;
  }
  note(&w->peers[0], &own, now);
  for (pdt_rank r = 1; r < w->beats.size; r++) {
    pdt_beats_send(&w->beats, r, &own);
    if (r % BURST == 0) hear(w, now); /* room for answers is not without end */
  }
}

/* ---- judging ---- */

/* This process was stopped for a while: it knows nothing of the others. */
static void forgive(pdt_watch *w, double now) {
  for (int32_t i = 0; i < w->n_peers; i++)
    w->peers[i].last = w->peers[i].moved = w->peers[i].round_began = now;
}

/* Seconds that a rank may be silent; 0: for ever. */
static double silence_of(const pdt_watch *w) {
  double seconds = atomic_load_explicit(&w->state.exchange_seconds, memory_order_relaxed);
  return atomic_load_explicit(&w->state.armed, memory_order_relaxed) ? seconds : patience * seconds;
}

/* Of those that watch rank 0 one speaks, and has told the others before their turn comes. */
static double turn_of(const pdt_watch *w) {
  return is_lead(w) ? 0 : (double)(w->beats.rank - 1) / w->beats.size;
}

/* "rank 3 on h2 (and 2 more)". */
static void put_ranks(const pdt_watch *w, int32_t first, int32_t n, char *text, size_t room) {
  char more[32] = "";
  if (n > 1) snprintf(more, sizeof more, " (and %d more)", n - 1);
  snprintf(text, room, "rank %d on %s%s", first, w->beats.places[first].host, more);
}

static void judge_gone(pdt_watch *w, double now) {
  char ranks[160], what[256];
  if (atomic_load(&w->state.leaves)) return;
  for (int32_t i = 0; i < w->n_peers; i++) {
    const peer *p = &w->peers[i];
    if (!p->gone || now < p->gone_at + turn_of(w)) continue;
    put_ranks(w, i, 1, ranks, sizeof ranks);
    snprintf(what, sizeof what, "%s has ended", ranks);
    end_job(w, what, "was it killed, for its memory perhaps? A journal has all that was decided");
  }
}

static void judge_silent(pdt_watch *w, double now) {
  double most = silence_of(w);
  int32_t first = -1, n = 0;
  char ranks[160], what[256];
  for (int32_t i = is_lead(w) ? 1 : 0; i < w->n_peers && most > 0; i++) {
    const peer *p = &w->peers[i];
    bool silent = p->heard && now - p->last > most + turn_of(w);
    if (silent && first < 0) first = i;
    n += p->heard && now - p->last > most + turn_of(w) - 2 * beat_seconds;
  }
  if (first < 0) return;
  put_ranks(w, first, n, ranks, sizeof ranks);
  snprintf(what, sizeof what, "%s %s not been heard for %.1f s", ranks, n > 1 ? "have" : "has",
           now - w->peers[first].last);
  end_job(w, what,
          "stopped, or cut off from the network? A journal has all that was decided; "
          "pdt decode --exchange-timeout allows more");
}

/* Rank 0: all are in an exchange, and none gets on. */
static void judge_exchange(pdt_watch *w, double now) {
  double most = atomic_load_explicit(&w->state.exchange_seconds, memory_order_relaxed);
  int32_t other = w->n_peers - 1; /* whose exchange differs from rank 0's, if any does */
  const pdt_beat *own = &w->peers[0].said;
  for (int32_t i = 0; i < w->n_peers; i++) {
    const peer *p = &w->peers[i];
    if (most <= 0 || !p->heard || !p->said.armed || !p->said.call[0] || now - p->moved <= most)
      return;
  }
  for (int32_t i = w->n_peers - 1; i > 0; i--) { /* best one of the same place in their order */
    const pdt_beat *b = &w->peers[i].said;
    bool same_place = w->peers[other].said.exchanges == own->exchanges &&
                      strcmp(w->peers[other].said.call, own->call) != 0;
    if (strcmp(b->call, own->call) != 0 && (b->exchanges == own->exchanges || !same_place))
      other = i;
  }
  char ranks[160], what[320];
  put_ranks(w, other, 1, ranks, sizeof ranks);
  snprintf(what, sizeof what, "no exchange has got on for %.1f s: %s waits in %s",
           now - w->peers[other].moved, ranks, w->peers[other].said.call);
  end_job(w, what,
          "does the network carry nothing any more? pdt decode --exchange-timeout allows more");
}

/* Rank 0: a round takes too long. Who computes is named before those who wait. */
static void judge_round(pdt_watch *w, double now) {
  double most = atomic_load_explicit(&w->state.round_seconds, memory_order_relaxed);
  int32_t late = -1;
  for (int32_t i = 0; i < w->n_peers && most > 0; i++) {
    const peer *p = &w->peers[i];
    if (!p->heard || !p->said.armed || p->said.round == 0 || now - p->round_began <= most) continue;
    if (late < 0 || (w->peers[late].said.call[0] && !p->said.call[0])) late = i;
  }
  if (late < 0) return;
  char ranks[160], does[64], what[320];
  put_ranks(w, late, 1, ranks, sizeof ranks);
  put_does(&w->peers[late].said, does, sizeof does);
  snprintf(what, sizeof what, "it has taken %.1f s: %s %s", now - w->peers[late].round_began, ranks,
           does);
  end_job(w, what, "pdt decode --round-timeout allows more");
}

/* Rank 0: once, who cannot be heard at all. */
static void tell_unheard(pdt_watch *w, double now) {
  int32_t first = -1, n = 0;
  char ranks[160], text[512];
  if (!atomic_load(&w->state.armed) || now - w->started < unheard_seconds) return;
  w->told_unheard = true;
  for (int32_t i = w->n_peers - 1; i > 0; i--) {
    if (w->peers[i].heard) continue;
    first = i;
    n++;
  }
  if (first < 0) return;
  put_ranks(w, first, n, ranks, sizeof ranks);
  snprintf(text, sizeof text,
           "pdt: %s cannot be heard by UDP: should it stop, nobody will notice (hint: does a "
           "firewall stand between the machines? launch/mpirun --interface names the network)\n",
           ranks);
  say(text);
}

static void judge(pdt_watch *w, double now) {
  if (now - w->looked > away_seconds) forgive(w, now);
  w->looked = now;
  judge_gone(w, now);
  judge_silent(w, now);
  if (!is_lead(w)) return;
  judge_exchange(w, now);
  judge_round(w, now);
  if (!w->told_unheard) tell_unheard(w, now);
}

/* ---- the thread ---- */

static void *run(void *context) {
  pdt_watch *w = context;
  struct pollfd fds[] = {{.fd = w->wake, .events = POLLIN},
                         {.fd = w->beats.socket, .events = POLLIN}};
  for (double next = w->started;;) {
    double now = pdt_seconds();
    int ends = atomic_load(&w->state.ends);
    if (ends) tell_all(w, ends - 1);
    if (ends || atomic_load(&w->stops)) return NULL;
    if (now >= next) {
      beat(w, now);
      next = now + beat_seconds;
    }
    hear(w, now);
    judge(w, now);
    /* whose turn it is to speak is a matter of hundredths of a second */
    double wait = now - w->peers[0].last > 2 * beat_seconds ? 0.01 : next - now;
    (void)poll(fds, 2, 1 + (int)(1000 * wait));
  }
}

/* A thread that takes no signals, with a stack that is its own business. */
static int start_thread(pdt_watch *w) {
  sigset_t all, before;
  pthread_attr_t attributes;
  sigfillset(&all);
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, STACK_BYTES);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int status = pthread_create(&w->thread, &attributes, run, w);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attributes);
  return status;
}

static void free_watch(pdt_watch *w) {
  if (!w) return;
  if (w->wake >= 0) close(w->wake);
  pdt_beats_close(&w->beats);
  free(w->peers);
  free(w);
}

static void new_watch(pdt_watch **out, const pdt_comm *world, pdt_error *err) {
  pdt_watch *w;
  if (PDT_NEW(&w, 1, "watch", err)) return;
  *out = w;
  w->n_peers = world->rank == 0 ? world->size : 1;
  w->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (w->wake < 0)
    pdt_fail(err, PDT_ERROR_MEMORY, "watch: cannot make an eventfd: %s", strerror(errno));
  else if (!pdt_beats_open(&w->beats, world->rank, world->size, err))
    PDT_NEW(&w->peers, w->n_peers, "watch", err);
}

/* All ranks' places to all. Collective, blocking; all fail alike. */
static int share_places(pdt_watch *w, const pdt_comm *world, pdt_error *err) {
  pdt_bytes *counts = NULL;
  PDT_NEW(&counts, world->size, "watch", err);
  int status = pdt_comm_agree(world, err);
  for (pdt_rank r = 0; r < world->size && !status; r++) counts[r] = sizeof *w->beats.places;
  if (!status) pdt_comm_all_gather(world, &w->beats.places[world->rank], w->beats.places, counts);
  free(counts);
  return status;
}

int pdt_watch_start(pdt_comm *world, pdt_error *err) {
  pdt_watch *w = NULL;
  if (world->size == 1) return 0;
  new_watch(&w, world, err);
  if (pdt_comm_agree(world, err) || share_places(w, world, err)) {
    free_watch(w);
    return -1;
  }
  atomic_store(&w->state.exchange_seconds, PDT_USUAL_EXCHANGE_SECONDS);
  w->started = w->looked = pdt_seconds();
  forgive(w, w->started);
  int failed = start_thread(w);
  if (failed) pdt_fail(err, PDT_ERROR_MEMORY, "watch: cannot start a thread: %s", strerror(failed));
  if (!pdt_comm_agree(world, err)) {
    world->watch = &w->state;
    return 0;
  }
  atomic_store(&w->stops, true);
  if (!failed) pthread_join(w->thread, NULL);
  free_watch(w);
  return -1;
}

static void wake(pdt_watch *w) {
  const uint64_t one = 1;
  while (write(w->wake, &one, sizeof one) < 0 && errno == EINTR) continue;
  pthread_join(w->thread, NULL);
}

void pdt_watch_stop(pdt_comm *world) {
  pdt_watch *w = (pdt_watch *)world->watch;
  if (!w) return;
  atomic_store(&w->state.leaves, true);
  pdt_comm_barrier(world);
  atomic_store(&w->stops, true);
  wake(w);
  world->watch = NULL;
  free_watch(w);
}

const char *pdt_watch_host(const pdt_watch_state *state, pdt_rank rank) {
  return ((const pdt_watch *)state)->beats.places[rank].host;
}

void pdt_watch_end(pdt_watch_state *state, int status) {
  pdt_watch *w = (pdt_watch *)state;
  if (!w) return;
  atomic_store(&w->state.ends, 1 + status);
  wake(w);
}

#include "comm/cluster.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/memory.h"

enum { WEIGHTS = 3, NANO = 1000000000 };

/* The next number of a sequence that any seed is good for (SplitMix64). */
static uint64_t next_random(uint64_t *state) {
  uint64_t z = *state += 0x9E3779B97F4A7C15u;
  z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
  z = (z ^ z >> 27) * 0x94D049BB133111EBu;
  return z ^ z >> 31;
}

int pdt_cluster_new(pdt_cluster **out, pdt_rank size, const pdt_comm_memory_options *options,
                    pdt_error *err) {
  static const uint64_t weights[WEIGHTS] = {1, 16,
                                            256}; /* who has the least is late nearly always */
  pdt_cluster *c;
  *out = NULL;
  if (PDT_NEW(&c, 1, "cluster", err)) return -1;
  if (PDT_NEW(&c->ranks, size, "cluster", err)) {
    free(c);
    return -1;
  }
  c->size = size;
  c->options = *options;
  c->random = options->seed;
  pthread_condattr_t monotonic;
  pthread_condattr_init(&monotonic);
  pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
  pthread_mutex_init(&c->mutex, NULL);
  for (pdt_rank r = 0; r < size; r++) {
    pthread_cond_init(&c->ranks[r].goes_on, &monotonic);
    c->ranks[r].state = options->scheduled ? PDT_RANK_READY : PDT_RANK_COMPUTES;
    c->ranks[r].weight = weights[next_random(&c->random) % WEIGHTS];
  }
  pthread_condattr_destroy(&monotonic);
  *out = c;
  return 0;
}

void pdt_cluster_free(pdt_cluster *c) {
  if (!c) return;
  for (pdt_rank r = 0; r < c->size; r++) pthread_cond_destroy(&c->ranks[r].goes_on);
  pthread_mutex_destroy(&c->mutex);
  free(c->ranks);
  free(c);
}

void pdt_cluster_fail(pdt_cluster *c, const pdt_error *err) {
  if (c->ended) return;
  c->ended = true;
  c->failure = *err;
  for (pdt_rank r = 0; r < c->size; r++) pthread_cond_signal(&c->ranks[r].goes_on);
}

void pdt_cluster_quit(pdt_cluster *c) {
  pthread_mutex_unlock(&c->mutex);
  pthread_exit(NULL);
}

/* Ends the cluster with what every rank does; `what` is the matter. */
static void fail_all(pdt_cluster *c, const char *what) {
  pdt_error err = {.code = PDT_ERROR_RUNTIME};
  size_t room = sizeof err.message;
  int at = snprintf(err.message, room, "%s", what);
  for (pdt_rank r = 0; r < c->size && at < (int)room; r++) {
    static const char *const does[] = {[PDT_RANK_COMPUTES] = "computes",
                                       [PDT_RANK_READY] = "could go on",
                                       [PDT_RANK_WAITS] = "waits in ",
                                       [PDT_RANK_STOPPED] = "stopped in ",
                                       [PDT_RANK_RETURNED] = "has returned"};
    const pdt_cluster_rank *rank = &c->ranks[r];
    char where[160] = "";
    if (rank->call) c->describe(rank->call, where, sizeof where);
    at += snprintf(err.message + at, room - (size_t)at, "%s rank %d %s%s", r ? ";" : ":", r,
                   does[rank->state], where);
  }
  pdt_cluster_fail(c, &err);
}

/* The rank that a schedule lets go on: by lot, among those that are ready; -1: none is. */
static pdt_rank choose(pdt_cluster *c) {
  pdt_rank chosen = -1;
  uint64_t sum = 0;
  for (pdt_rank r = 0; r < c->size; r++) {
    if (c->ranks[r].state != PDT_RANK_READY) continue;
    sum += c->ranks[r].weight;
    if (chosen < 0 || next_random(&c->random) % sum < c->ranks[r].weight) chosen = r;
  }
  return chosen;
}

/* Whoever stops computing looks whether anybody goes on. */
static void move_on(pdt_cluster *c) {
  bool all_returned = true;
  for (pdt_rank r = 0; r < c->size; r++) {
    if (c->ranks[r].state == PDT_RANK_COMPUTES) return;
    all_returned = all_returned && c->ranks[r].state == PDT_RANK_RETURNED;
  }
  if (c->ended || all_returned) return;
  pdt_rank next = choose(c);
  if (next < 0) {
    fail_all(c, "no rank goes on and no message is on its way");
    return;
  }
  c->ranks[next].state = PDT_RANK_COMPUTES;
  pthread_cond_signal(&c->ranks[next].goes_on);
}

/* Blocks until rank r may compute. */
static void block(pdt_cluster *c, pdt_rank r) {
  pdt_cluster_rank *rank = &c->ranks[r];
  int64_t wait = (int64_t)(c->options.deadline_seconds * NANO);
  struct timespec until;
  clock_gettime(CLOCK_MONOTONIC, &until);
  wait += until.tv_nsec;
  until.tv_sec += wait / NANO;
  until.tv_nsec = wait % NANO;
  while (rank->state != PDT_RANK_COMPUTES && !c->ended) {
    if (c->options.deadline_seconds <= 0 || rank->state == PDT_RANK_STOPPED) {
      pthread_cond_wait(&rank->goes_on, &c->mutex);
    } else if (pthread_cond_timedwait(&rank->goes_on, &c->mutex, &until) == ETIMEDOUT) {
      char what[64];
      snprintf(what, sizeof what, "rank %d has waited for %g seconds", r,
               c->options.deadline_seconds);
      if (rank->state != PDT_RANK_COMPUTES) fail_all(c, what);
    }
  }
  if (c->ended) pdt_cluster_quit(c);
}

void pdt_cluster_begin(pdt_cluster *c, pdt_rank r) {
  pthread_mutex_lock(&c->mutex);
  move_on(c);
  block(c, r);
  pthread_mutex_unlock(&c->mutex);
}

void pdt_cluster_return(pdt_cluster *c, pdt_rank r) {
  pthread_mutex_lock(&c->mutex);
  c->ranks[r].state = PDT_RANK_RETURNED;
  move_on(c);
  pthread_mutex_unlock(&c->mutex);
}

void pdt_cluster_enter(pdt_cluster *c, pdt_rank r) {
  pthread_mutex_lock(&c->mutex);
  if (c->ended) pdt_cluster_quit(c);
  if (!c->options.scheduled) return;
  c->ranks[r].state = PDT_RANK_READY;
  move_on(c);
  block(c, r);
}

void pdt_cluster_wait(pdt_cluster *c, pdt_rank r, const void *call, const bool *open) {
  if (!*open) return;
  c->ranks[r].state = PDT_RANK_WAITS;
  c->ranks[r].call = call;
  move_on(c);
  block(c, r);
  c->ranks[r].call = NULL;
}

void pdt_cluster_wake(pdt_cluster *c, pdt_rank r, const void *call) {
  pdt_cluster_rank *rank = &c->ranks[r];
  if (rank->state != PDT_RANK_WAITS || rank->call != call) return;
  rank->state = c->options.scheduled ? PDT_RANK_READY : PDT_RANK_COMPUTES;
  pthread_cond_signal(&rank->goes_on);
}

void pdt_cluster_stop(pdt_cluster *c, pdt_rank r, const void *call) {
  c->ranks[r].state = PDT_RANK_STOPPED;
  c->ranks[r].call = call;
  move_on(c);
  block(c, r);
  pdt_cluster_quit(c); /* the cluster has ended: nobody wakes a rank that stopped */
}

/* The backend of a cluster in one process. Calls of a communicator are numbered, and the last rank
 * that comes to a call copies for all, under the cluster's mutex. No operation allocates. */
#include "comm/comm_memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "comm/backend.h"
#include "comm/cluster.h"

typedef enum call_kind {
  BARRIER,
  BROADCAST,
  GATHER,
  ALL_GATHER,
  ALL_GATHER_START,
  ALL_TO_ALL,
  ALL_REDUCE,
  SPLIT,
} call_kind;

typedef struct memory_handle memory_handle;

/* One rank's part in an operation: what it was called with. */
typedef struct call {
  memory_handle *handle;
  int64_t number; /* in the communicator, from 1 */
  bool open;      /* the rank has come to it, and it is not done for it */
  call_kind kind;
  const char *send;
  char *recv;
  pdt_bytes bytes;
  pdt_rank root;
  const pdt_bytes *counts;                                      /* [size] of a gather */
  const pdt_bytes *send_bytes, *send_at, *recv_bytes, *recv_at; /* [size] of an all-to-all */
  int32_t n_elems;
  pdt_comm_op op;
  int color;
  /* ranks of the communicator; -1: none */
  pdt_rank lost_to; /* does not get what this one sends */
  pdt_rank misses;  /* this one waits for what was lost on its way from there */
} call;

/* What the ranks of a communicator share. */
typedef struct group {
  struct group *next; /* in the cluster's list */
  pdt_cluster *cluster;
  char name[64];
  pdt_rank size;
  pdt_rank in_use;         /* ranks that have not released it */
  pdt_rank *members;       /* [size] ranks of the world */
  memory_handle **handles; /* [size], NULL once released */
} group;

/* What one rank has of a communicator. */
struct memory_handle {
  group *group;
  pdt_rank rank;     /* in the group */
  int64_t n_calls;   /* that this rank came to */
  call now, pending; /* the one it is in, and the gather that it started */
  bool started;      /* pending is waited for */
  pdt_bytes *counts; /* [size] of pending */
  /* for a split: */
  group *spare;         /* becomes a new communicator's, or is freed */
  memory_handle *joins; /* becomes this rank's of the new one, which is then told as */
  memory_handle *joined;
};

static const pdt_comm_backend memory_backend;

static void free_group(group *g) {
  if (!g) return;
  free(g->members);
  free(g->handles);
  free(g);
}

static int new_group(group **out, pdt_cluster *cluster, pdt_rank size, pdt_error *err) {
  group *g;
  if (PDT_NEW(&g, 1, "communicator", err)) return -1;
  g->cluster = cluster;
  if (PDT_NEW(&g->members, size, "communicator", err) ||
      PDT_NEW(&g->handles, size, "communicator", err)) {
    free_group(g);
    return -1;
  }
  *out = g;
  return 0;
}

static void free_handle(memory_handle *h) {
  if (!h) return;
  free_handle(h->joins);
  free_group(h->spare);
  free(h->counts);
  free(h);
}

/* A handle for a communicator of at most `size` ranks. */
static int new_handle(memory_handle **out, pdt_rank size, pdt_error *err) {
  memory_handle *h;
  if (PDT_NEW(&h, 1, "communicator", err)) return -1;
  if (PDT_NEW(&h->counts, size, "communicator", err)) {
    free_handle(h);
    return -1;
  }
  *out = h;
  return 0;
}

/* With the mutex: into the list of those in use, and out of it. */
static void list_group(group *g) {
  g->next = g->cluster->communicators;
  g->cluster->communicators = g;
}

static void unlist_group(const group *g) {
  group *first = g->cluster->communicators, *before = first;
  if (first == g) g->cluster->communicators = g->next;
  while (before != g && before->next != g) before = before->next;
  if (before != g) before->next = g->next;
}

/* The next rank of a group: rank `member` of the world. */
static void add_member(group *g, memory_handle *h, pdt_rank member) {
  h->group = g;
  h->rank = g->size;
  g->members[g->size] = member;
  g->handles[g->size] = h;
  g->size++;
  g->in_use++;
}

/* ---- what a call is, in words ---- */

static const char *name_of(const call *c) {
  static const char *const names[] = {[BARRIER] = "barrier",
                                      [BROADCAST] = "broadcast",
                                      [GATHER] = "gather",
                                      [ALL_GATHER] = "all_gather",
                                      [ALL_TO_ALL] = "all_to_all",
                                      [ALL_GATHER_START] = "all_gather_start",
                                      [ALL_REDUCE] = "all_reduce_i64",
                                      [SPLIT] = "split"};
  return names[c->kind];
}

/* The call with which a rank of the group takes part in operation `number`; NULL: it has not come
 * to it. */
static call *call_of(memory_handle *h, int64_t number) {
  if (!h) return NULL;
  if (h->now.number == number) return &h->now;
  return h->pending.number == number ? &h->pending : NULL;
}

/* Does rank q of the group wait in this operation for what rank p sends? */
static bool is_sent(const call *of_p, pdt_rank p, pdt_rank q) {
  if (p == q) return false;
  if (of_p->kind == BROADCAST) return p == of_p->root;
  if (of_p->kind == GATHER) return q == of_p->root;
  return of_p->kind != ALL_TO_ALL || of_p->send_bytes[q] > 0;
}

/* "gather (operation 3 of world) for rank 2". */
static void describe(const void *what, char *text, size_t room) {
  const call *c = what;
  const group *g = c->handle->group;
  int at =
      snprintf(text, room, "%s (operation %lld of %s)", name_of(c), (long long)c->number, g->name);
  if (c->misses >= 0) {
    snprintf(text + at, room - (size_t)at, " for a message of rank %d", g->members[c->misses]);
    return;
  }
  for (pdt_rank p = 0; p < g->size && c->open; p++) {
    if (call_of(g->handles[p], c->number)) continue;
    snprintf(text + at, room - (size_t)at, " for rank %d", g->members[p]);
    return;
  }
}

/* ---- do calls fit? ---- */

/* Do two ranks' pieces for each other have the lengths that the other expects? */
static bool pieces_fit(const call *a, const call *b, char *why, size_t room) {
  pdt_rank p = a->handle->rank, q = b->handle->rank;
  long long there = a->send_bytes[q], expected = b->recv_bytes[p];
  long long back = b->send_bytes[p], wanted = a->recv_bytes[q];
  if (there != expected)
    snprintf(why, room, "the first sends %lld bytes, the other expects %lld", there, expected);
  else if (back != wanted)
    snprintf(why, room, "the first expects %lld bytes, the other sends %lld", wanted, back);
  return there == expected && back == wanted;
}

/* Do the calls of two ranks fit each other? If not, why. */
static bool fits(const call *a, const call *b, char *why, size_t room) {
  bool rooted = a->kind == BROADCAST || a->kind == GATHER;
  if (a->kind != b->kind) {
    snprintf(why, room, "they are different operations");
    return false;
  }
  if (a->kind == ALL_TO_ALL) return pieces_fit(a, b, why, room);
  if (rooted && a->root != b->root) {
    snprintf(why, room, "their roots are %d and %d", a->root, b->root);
    return false;
  }
  if (a->kind == BROADCAST && a->bytes != b->bytes) {
    snprintf(why, room, "%lld bytes, %lld bytes", (long long)a->bytes, (long long)b->bytes);
    return false;
  }
  if (a->kind == ALL_REDUCE && (a->n_elems != b->n_elems || a->op != b->op)) {
    snprintf(why, room, "%d numbers (%d), %d numbers (%d)", a->n_elems, a->op, b->n_elems, b->op);
    return false;
  }
  for (pdt_rank r = 0; a->counts && r < a->handle->group->size; r++)
    if (a->counts[r] != b->counts[r]) {
      snprintf(why, room, "rank %d's part has %lld bytes, %lld bytes", a->handle->group->members[r],
               (long long)a->counts[r], (long long)b->counts[r]);
      return false;
    }
  return true;
}

/* Ends the cluster where a call fits neither itself nor those of ranks that came before. */
static void check_call(const call *c) {
  const group *g = c->handle->group;
  pdt_rank own = c->handle->rank;
  char why[160];
  pdt_error err = {0};
  if (c->kind == GATHER && c->bytes != c->counts[own])
    pdt_fail(&err, PDT_ERROR_RUNTIME,
             "gather (operation %lld of %s): rank %d sends %lld bytes, but counts %lld of itself",
             (long long)c->number, g->name, g->members[own], (long long)c->bytes,
             (long long)c->counts[own]);
  for (pdt_rank r = 0; r < g->size && err.code == PDT_ERROR_NONE; r++) {
    const call *other = r == own ? NULL : call_of(g->handles[r], c->number);
    if (other && !fits(c, other, why, sizeof why))
      pdt_fail(&err, PDT_ERROR_RUNTIME,
               "operation %lld of %s: %s of rank %d and %s of rank %d do not fit each other: %s",
               (long long)c->number, g->name, name_of(c), g->members[own], name_of(other),
               g->members[r], why);
  }
  if (err.code == PDT_ERROR_NONE) return;
  pdt_cluster_fail(g->cluster, &err);
  pdt_cluster_quit(g->cluster);
}

/* ---- what is done once all have come ---- */

static void copy(char *to, const char *from, pdt_bytes bytes) {
  if (bytes > 0 && to != from) memcpy(to, from, (size_t)bytes);
}

/* What rank p's call brings to rank q's. */
static void deliver(const call *of_p, call *of_q) {
  pdt_rank p = of_p->handle->rank, q = of_q->handle->rank;
  pdt_bytes at = 0;
  switch (of_p->kind) {
  case BROADCAST:
    if (p == of_p->root) copy(of_q->recv, of_p->send, of_p->bytes);
    break;
  case GATHER:
    if (q != of_p->root) break; /* fall through */
  case ALL_GATHER:
  case ALL_GATHER_START:
    for (pdt_rank r = 0; r < p; r++) at += of_p->counts[r];
    copy(of_q->recv + at, of_p->send, of_p->counts[p]);
    break;
  case ALL_TO_ALL: /* what a rank sends itself is copied by comm.c */
    if (p != q)
      copy(of_q->recv + of_q->recv_at[p], of_p->send + of_p->send_at[q], of_p->send_bytes[q]);
    break;
  default:
    break;
  }
}

static int64_t reduced(pdt_comm_op op, int64_t x, int64_t y) {
  if (op == PDT_COMM_SUM) return (int64_t)((uint64_t)x + (uint64_t)y);
  return (op == PDT_COMM_MIN) == (x < y) ? x : y;
}

/* Every rank's numbers become the result. */
static void reduce(const group *g, const call *of_first) {
  for (int32_t i = 0; i < of_first->n_elems; i++) {
    int64_t all = 0;
    for (pdt_rank r = 0; r < g->size; r++) {
      const int64_t *own = (const int64_t *)(const void *)g->handles[r]->now.recv;
      all = r ? reduced(of_first->op, all, own[i]) : own[i];
    }
    for (pdt_rank r = 0; r < g->size; r++) ((int64_t *)(void *)g->handles[r]->now.recv)[i] = all;
  }
}

/* Every rank joins the group of the first one of its color, in the order of ranks. */
static void join(const group *g) {
  for (pdt_rank r = 0; r < g->size; r++) {
    memory_handle *h = g->handles[r];
    pdt_rank first = 0;
    while (g->handles[first]->now.color != h->now.color) first++;
    if (first == r) {
      snprintf(h->spare->name, sizeof h->spare->name, "%.40s/%d", g->name, h->now.color);
      list_group(h->spare);
    }
    group *made = first == r ? h->spare : g->handles[first]->joined->group;
    add_member(made, h->joins, g->members[r]);
    h->joined = h->joins;
    h->joins = NULL;
    if (first == r) h->spare = NULL;
  }
}

/* The last rank has come to operation `number`. A call that waits for a lost message stays open. */
static void complete(const group *g, int64_t number) {
  const call *first = call_of(g->handles[0], number);
  for (pdt_rank p = 0; p < g->size; p++)
    for (pdt_rank q = 0; q < g->size; q++) {
      const call *of_p = call_of(g->handles[p], number);
      if (of_p->lost_to != q) deliver(of_p, call_of(g->handles[q], number));
    }
  if (first->kind == ALL_REDUCE) reduce(g, first);
  if (first->kind == SPLIT) join(g);
  for (pdt_rank q = 0; q < g->size; q++) {
    call *of_q = call_of(g->handles[q], number);
    for (pdt_rank p = 0; p < g->size; p++)
      if (call_of(g->handles[p], number)->lost_to == q) of_q->misses = p;
    of_q->open = of_q->misses >= 0;
  }
  for (pdt_rank q = 0; q < g->size; q++) {
    const call *of_q = call_of(g->handles[q], number);
    if (!of_q->open) pdt_cluster_wake(g->cluster, g->members[q], of_q);
  }
}

/* ---- coming to an operation ---- */

/* The fault of the operation that rank r is in; NULL without one. */
static const pdt_comm_fault *fault_of(const pdt_cluster *c, pdt_rank r) {
  for (int32_t i = 0; i < c->options.n_faults; i++)
    if (c->options.faults[i].rank == r &&
        c->options.faults[i].operation == c->ranks[r].operations - 1)
      return &c->options.faults[i];
  return NULL;
}

/* The rank of the communicator that does not get what is sent; -1: nothing is lost. */
static pdt_rank loses(const call *c, const pdt_comm_fault *fault) {
  const group *g = c->handle->group;
  for (pdt_rank q = 0; q < g->size && fault && fault->kind == PDT_COMM_LOSES; q++)
    if (g->members[q] == fault->to && is_sent(c, c->handle->rank, q)) return q;
  return -1;
}

/* A rank comes to an operation, with the mutex: returns when its call stands in `slot` and, if all
 * others have come, is done. */
static void arrive(memory_handle *h, call *slot, call what) {
  group *g = h->group;
  pdt_cluster *cluster = g->cluster;
  pdt_rank r = g->members[h->rank];
  what.handle = h;
  what.number = ++h->n_calls;
  cluster->ranks[r].operations++;
  const pdt_comm_fault *fault = fault_of(cluster, r);
  what.lost_to = loses(&what, fault);
  what.misses = -1;
  bool stops = fault && fault->kind != PDT_COMM_LOSES;
  cluster->ranks[r].faults += stops || what.lost_to >= 0;
  if (stops && fault->kind == PDT_COMM_STOPS_BEFORE) pdt_cluster_stop(cluster, r, &what);
  what.open = true;
  *slot = what;
  check_call(slot);
  bool all = true;
  for (pdt_rank q = 0; q < g->size; q++) all = all && call_of(g->handles[q], what.number);
  if (all) complete(g, what.number);
  if (stops) {
    pdt_cluster_wait(cluster, r, slot, &slot->open);
    pdt_cluster_stop(cluster, r, slot);
  }
}

/* A blocking operation from its beginning to its end. */
static void meet(const pdt_comm *comm, call what) {
  memory_handle *h = comm->handle;
  pdt_cluster *cluster = h->group->cluster;
  pdt_rank r = h->group->members[h->rank];
  pdt_cluster_enter(cluster, r);
  arrive(h, &h->now, what);
  pdt_cluster_wait(cluster, r, &h->now, &h->now.open);
  pthread_mutex_unlock(&cluster->mutex);
}

/* ---- the operations ---- */

static void memory_barrier(const pdt_comm *comm) {
  meet(comm, (call){.kind = BARRIER});
}

static void memory_broadcast(const pdt_comm *comm, void *data, pdt_bytes bytes, pdt_rank root) {
  meet(comm, (call){.kind = BROADCAST, .send = data, .recv = data, .bytes = bytes, .root = root});
}

static void memory_gather(const pdt_comm *comm, const void *send, pdt_bytes bytes, void *recv,
                          const pdt_bytes *counts_bytes, pdt_rank root) {
  meet(comm, (call){.kind = GATHER,
                    .send = send,
                    .bytes = bytes,
                    .recv = recv,
                    .counts = counts_bytes,
                    .root = root});
}

static void memory_all_gather(const pdt_comm *comm, const void *send, void *recv,
                              const pdt_bytes *counts_bytes) {
  meet(comm, (call){.kind = ALL_GATHER, .send = send, .recv = recv, .counts = counts_bytes});
}

static void memory_all_gather_start(const pdt_comm *comm, const void *send, void *recv,
                                    const pdt_bytes *counts_bytes, pdt_comm_request *request) {
  memory_handle *h = comm->handle;
  if (h->started) { /* as with MPI: one at a time is under way */
    memory_all_gather(comm, send, recv, counts_bytes);
    return;
  }
  memcpy(h->counts, counts_bytes, (size_t)comm->size * sizeof *counts_bytes);
  pdt_cluster_enter(h->group->cluster, h->group->members[h->rank]);
  arrive(h, &h->pending,
         (call){.kind = ALL_GATHER_START, .send = send, .recv = recv, .counts = h->counts});
  h->started = true;
  pthread_mutex_unlock(&h->group->cluster->mutex);
  request->handle = h;
}

static void memory_wait(const pdt_comm *comm, pdt_comm_request *request) {
  (void)comm;
  memory_handle *h = request->handle;
  pdt_cluster *cluster = h->group->cluster;
  pdt_rank r = h->group->members[h->rank];
  pdt_cluster_enter(cluster, r);
  pdt_cluster_wait(cluster, r, &h->pending, &h->pending.open);
  h->started = false;
  pthread_mutex_unlock(&cluster->mutex);
  request->handle = NULL;
}

static void memory_all_to_all(const pdt_comm *comm, const void *send, const pdt_bytes *send_bytes,
                              const pdt_bytes *send_at, void *recv, const pdt_bytes *recv_bytes,
                              const pdt_bytes *recv_at) {
  meet(comm, (call){.kind = ALL_TO_ALL,
                    .send = send,
                    .send_bytes = send_bytes,
                    .send_at = send_at,
                    .recv = recv,
                    .recv_bytes = recv_bytes,
                    .recv_at = recv_at});
}

static void memory_all_reduce_i64(const pdt_comm *comm, int64_t *data, int32_t n_elems,
                                  pdt_comm_op op) {
  meet(comm, (call){.kind = ALL_REDUCE, .recv = (char *)data, .n_elems = n_elems, .op = op});
}

static int memory_split(const pdt_comm *comm, int color, bool by_node, pdt_comm *out,
                        pdt_error *err) {
  memory_handle *h = comm->handle;
  pdt_cluster *cluster = h->group->cluster;
  const int32_t *machines = cluster->options.machines;
  pdt_error own = {0};
  if (!new_handle(&h->joins, comm->size, &own)) new_group(&h->spare, cluster, comm->size, &own);
  int status = pdt_comm_agree(comm, &own);
  if (!status) {
    if (by_node) color = machines ? machines[h->group->members[h->rank]] : 0;
    meet(comm, (call){.kind = SPLIT, .color = color});
    *out =
        (pdt_comm){h->joined->rank, h->joined->group->size, &memory_backend, h->joined, NULL, NULL};
  } else if (err) {
    *err = own;
  }
  free_group(h->spare); /* where it was not needed */
  free_handle(h->joins);
  h->spare = NULL;
  h->joins = NULL;
  return status;
}

/* With the mutex: a communicator that is given up has nothing under way. */
static void check_idle(const memory_handle *h) {
  const group *g = h->group;
  pdt_error err = {0};
  if (g->cluster->ended) pdt_cluster_quit(g->cluster);
  if (!h->started) return;
  pdt_fail(&err, PDT_ERROR_RUNTIME, "rank %d gives up %s without waiting for all_gather_start",
           g->members[h->rank], g->name);
  pdt_cluster_fail(g->cluster, &err);
  pdt_cluster_quit(g->cluster);
}

static void memory_release(pdt_comm *comm) {
  memory_handle *h = comm->handle;
  group *g = h->group;
  pthread_mutex_t *mutex = &g->cluster->mutex;
  pthread_mutex_lock(mutex);
  check_idle(h);
  g->handles[h->rank] = NULL;
  bool last = --g->in_use == 0;
  if (last) unlist_group(g);
  pthread_mutex_unlock(mutex);
  free_handle(h);
  if (last) free_group(g);
}

/* The world is freed by who made it. */
static void memory_finish(pdt_comm *world) {
  memory_handle *h = world->handle;
  pthread_mutex_lock(&h->group->cluster->mutex);
  check_idle(h);
  pthread_mutex_unlock(&h->group->cluster->mutex);
}

static void memory_abort(const pdt_comm *world, const pdt_error *err) {
  pdt_cluster *cluster = ((memory_handle *)world->handle)->group->cluster;
  pthread_mutex_lock(&cluster->mutex);
  pdt_cluster_fail(cluster, err);
  pdt_cluster_quit(cluster);
}

static const pdt_comm_backend memory_backend = {
    .checks_calls = true,
    .split = memory_split,
    .release = memory_release,
    .finish = memory_finish,
    .abort = memory_abort,
    .barrier = memory_barrier,
    .broadcast = memory_broadcast,
    .broadcast_patiently = memory_broadcast, /* whoever waits there sleeps */
    .gather = memory_gather,
    .all_gather_start = memory_all_gather_start,
    .wait = memory_wait,
    .all_gather = memory_all_gather,
    .all_to_all = memory_all_to_all,
    .all_reduce_i64 = memory_all_reduce_i64,
    .all_reduce_patiently = memory_all_reduce_i64,
};

/* ---- the cluster ---- */

/* What the thread of a rank is given. */
typedef struct rank_start {
  pthread_t thread;
  pdt_cluster *cluster;
  pdt_comm world;
  pdt_comm_memory_function *run;
  void *context;
  pdt_comm_memory_outcome *outcome;
} rank_start;

static void *live(void *argument) {
  rank_start *s = argument;
  pdt_rank r = s->world.rank;
  pdt_cluster_begin(s->cluster, r);
  s->outcome->status = s->run(&s->world, s->context, &s->outcome->err);
  s->outcome->returned = true;
  pdt_comm_finish(&s->world);
  pdt_cluster_return(s->cluster, r);
  return NULL;
}

/* The world, and what an end of the cluster left in use. */
static void free_communicators(const pdt_cluster *cluster) {
  for (group *g = cluster->communicators, *next; g; g = next) {
    next = g->next;
    for (pdt_rank r = 0; r < g->size; r++) free_handle(g->handles[r]);
    free_group(g);
  }
}

/* The world, and a handle of it for every rank. */
static int new_world(pdt_cluster *cluster, rank_start *starts, pdt_error *err) {
  group *g;
  if (new_group(&g, cluster, cluster->size, err)) return -1;
  snprintf(g->name, sizeof g->name, "world");
  list_group(g);
  for (pdt_rank r = 0; r < cluster->size; r++) {
    memory_handle *h;
    if (new_handle(&h, cluster->size, err)) return -1;
    add_member(g, h, r);
    starts[r].world = (pdt_comm){r, cluster->size, &memory_backend, h, NULL, NULL};
  }
  return 0;
}

/* Starts all ranks and waits for their ends. Where one cannot be started, all end. */
static void run_all(pdt_cluster *cluster, rank_start *starts) {
  pdt_rank n = 0;
  while (n < cluster->size && pthread_create(&starts[n].thread, NULL, live, &starts[n]) == 0) n++;
  if (n < cluster->size) {
    pdt_error err = {0};
    pdt_fail(&err, PDT_ERROR_MEMORY, "cluster: no thread for rank %d", n);
    pthread_mutex_lock(&cluster->mutex);
    pdt_cluster_fail(cluster, &err);
    pthread_mutex_unlock(&cluster->mutex);
  }
  while (n-- > 0) pthread_join(starts[n].thread, NULL);
}

/* What the ranks left, once all have ended. */
static int tell(const pdt_cluster *cluster, pdt_comm_memory_outcome *outcomes, pdt_error *err) {
  for (pdt_rank r = 0; r < cluster->size; r++) {
    outcomes[r].operations = cluster->ranks[r].operations;
    outcomes[r].faults = cluster->ranks[r].faults;
  }
  if (cluster->ended && err) *err = cluster->failure;
  return cluster->ended ? -1 : 0;
}

int pdt_comm_memory_run(pdt_rank ranks, const pdt_comm_memory_options *options,
                        pdt_comm_memory_function *run, void *context,
                        pdt_comm_memory_outcome *outcomes, pdt_error *err) {
  static const pdt_comm_memory_options usual = {0};
  pdt_cluster *cluster;
  rank_start *starts = NULL;
  memset(outcomes, 0, (size_t)ranks * sizeof *outcomes);
  if (pdt_cluster_new(&cluster, ranks, options ? options : &usual, err)) return -1;
  cluster->describe = describe;
  int status = PDT_NEW(&starts, ranks, "cluster", err) || new_world(cluster, starts, err);
  for (pdt_rank r = 0; r < ranks && !status; r++) {
    starts[r].cluster = cluster;
    starts[r].run = run;
    starts[r].context = context;
    starts[r].outcome = &outcomes[r];
  }
  if (!status) {
    run_all(cluster, starts);
    status = tell(cluster, outcomes, err);
  }
  free_communicators(cluster);
  free(starts);
  pdt_cluster_free(cluster);
  return status ? -1 : 0;
}

#include "comm/shared.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "comm/backend.h"

enum {
  SLOTS = 2,
  LARGEST_SLOT = 64 << 10,    /* bytes */
  SMALLEST_SLOT = 1 << 10,    /* with less, a page of keys is many pieces */
  MOST_BYTES = 32 << 20,      /* of all channels together */
  SPIN_TURNS = 64,            /* between two looks at the clock */
  SPIN_NANOSECONDS = 10000,   /* as long as a small product takes on another rank */
  NAP_NANOSECONDS = 100 << 20 /* then a sleeper looks by itself, should nobody have woken it */
};

/* A number that one rank raises, and another waits for. */
typedef struct counter {
  _Alignas(64) _Atomic uint32_t value;
  _Atomic uint32_t sleeps; /* the other is in the kernel, or on its way there */
} counter;

/* From one rank to another: pieces that were written, and those of them that were read. */
typedef struct channel {
  counter written, read;
} channel;

/* Where a message is, on this rank's side of a channel. */
typedef struct course {
  char *at;
  pdt_bytes left;
} course;

struct pdt_shared {
  pdt_rank rank, size;
  pdt_bytes slot, bytes; /* of a slot; of all */
  channel *channels;     /* [size, size] from, to; the memory's begin */
  char *slots;           /* [size, size, SLOTS] */
  course *out, *in;      /* [size], likewise */
};

/* ---- waiting ---- */

static void futex(_Atomic uint32_t *word, int operation, uint32_t value,
                  const struct timespec *timeout) {
  (void)syscall(SYS_futex, word, operation, value, timeout, NULL, 0);
}

static void relax(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

/* Waits while value, which only grows, is `old`. */
static void wait_beyond(counter *c, uint32_t old) {
  const struct timespec nap = {.tv_nsec = NAP_NANOSECONDS};
  double end = 0;
  for (;;) {
    for (int i = 0; i < SPIN_TURNS; i++) {
      if (atomic_load_explicit(&c->value, memory_order_acquire) != old) return;
      relax();
    }
    if (end == 0) end = pdt_seconds() + 1e-9 * SPIN_NANOSECONDS;
    if (pdt_seconds() < end) continue;
    /* The other raises, then looks whether anybody sleeps; here it is the other way round: one of
     * the two sees the other. */
    atomic_store(&c->sleeps, 1);
    if (atomic_load(&c->value) == old) futex(&c->value, FUTEX_WAIT, old, &nap);
    atomic_store(&c->sleeps, 0);
  }
}

static void raise_by_one(counter *c) {
  atomic_fetch_add(&c->value, 1);
  if (atomic_load(&c->sleeps)) futex(&c->value, FUTEX_WAKE, INT_MAX, NULL);
}

/* ---- pieces ---- */

static channel *channel_of(const pdt_shared *s, pdt_rank from, pdt_rank to) {
  return &s->channels[(ptrdiff_t)from * s->size + to];
}

static char *slot_of(const pdt_shared *s, pdt_rank from, pdt_rank to, uint32_t piece) {
  return s->slots + (((ptrdiff_t)from * s->size + to) * SLOTS + piece % SLOTS) * s->slot;
}

static size_t step(pdt_shared *s, course *c) {
  pdt_bytes n = c->left < s->slot ? c->left : s->slot;
  c->at += n;
  c->left -= n;
  return (size_t)n;
}

/* Sends the next piece to a rank, when a slot is free. */
static void send_piece(pdt_shared *s, pdt_rank to, course *c) {
  channel *ch = channel_of(s, s->rank, to);
  uint32_t piece = atomic_load_explicit(&ch->written.value, memory_order_relaxed);
  uint32_t full = piece - SLOTS; /* pieces read, when both slots are in use */
  if (atomic_load_explicit(&ch->read.value, memory_order_acquire) == full)
    wait_beyond(&ch->read, full);
  const char *from = c->at;
  memcpy(slot_of(s, s->rank, to, piece), from, step(s, c));
  raise_by_one(&ch->written);
}

static void receive_piece(pdt_shared *s, pdt_rank from, course *c) {
  channel *ch = channel_of(s, from, s->rank);
  uint32_t piece = atomic_load_explicit(&ch->read.value, memory_order_relaxed);
  wait_beyond(&ch->written, piece);
  char *to = c->at;
  memcpy(to, slot_of(s, from, s->rank, piece), step(s, c));
  raise_by_one(&ch->read);
}

/* All messages of an operation. Every rank sends its k-th pieces before it waits for those of
 * others, and two of a channel have room: so nobody waits in a circle. */
static void exchange(pdt_shared *s) {
  for (bool more = true; more;) {
    more = false;
    for (pdt_rank i = 1; i < s->size; i++) {
      pdt_rank to = (s->rank + i) % s->size;
      if (s->out[to].left > 0) send_piece(s, to, &s->out[to]);
    }
    for (pdt_rank i = 1; i < s->size; i++) {
      pdt_rank from = (s->rank + s->size - i) % s->size;
      if (s->in[from].left > 0) receive_piece(s, from, &s->in[from]);
      more = more || s->in[from].left > 0 || s->out[from].left > 0;
    }
  }
}

void pdt_shared_all_to_all(pdt_shared *s, const void *send, const pdt_bytes *send_bytes,
                           const pdt_bytes *send_at, void *recv, const pdt_bytes *recv_bytes,
                           const pdt_bytes *recv_at) {
  for (pdt_rank r = 0; r < s->size; r++) {
    bool self = r == s->rank;
    s->out[r] = (course){(char *)(uintptr_t)send + send_at[r], self ? 0 : send_bytes[r]};
    s->in[r] = (course){(char *)recv + recv_at[r], self ? 0 : recv_bytes[r]};
  }
  exchange(s);
}

void pdt_shared_all_gather(pdt_shared *s, const void *send, void *recv,
                           const pdt_bytes *counts_bytes) {
  char *at = recv, *own = recv;
  for (pdt_rank r = 0; r < s->size; at += counts_bytes[r++]) {
    bool self = r == s->rank;
    if (self) own = at;
    s->out[r] = (course){(char *)(uintptr_t)send, self ? 0 : counts_bytes[s->rank]};
    s->in[r] = (course){at, self ? 0 : counts_bytes[r]};
  }
  if (own != send && counts_bytes[s->rank] > 0) memcpy(own, send, (size_t)counts_bytes[s->rank]);
  exchange(s);
}

/* ---- the memory ---- */

static pdt_bytes channel_bytes(pdt_rank size) {
  return (pdt_bytes)size * size * (pdt_bytes)sizeof(channel);
}

/* Opens or makes the memory of a name; NULL when there is none to be had. What is made is filled:
 * later there would be no way to say that the machine is out of it. */
static void *map(const char *name, bool make, pdt_bytes bytes) {
  int fd = shm_open(name, O_RDWR | (make ? O_CREAT | O_EXCL : 0), 0600);
  void *at = MAP_FAILED;
  if (fd >= 0 && (!make || posix_fallocate(fd, 0, bytes) == 0))
    at = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (fd >= 0) close(fd);
  return at == MAP_FAILED ? NULL : at;
}

/* Rank 0 makes it, the others open it, and its name is gone before anybody uses it. True where all
 * have it. Collective. */
static bool share(pdt_shared *s, const pdt_comm *comm) {
  char name[64] = "";
  if (comm->rank == 0) {
    snprintf(name, sizeof name, "/pdt-%ld-%llx", (long)getpid(),
             (unsigned long long)(pdt_seconds() * 1e9));
    s->channels = map(name, true, s->bytes);
  }
  pdt_comm_broadcast(comm, name, sizeof name, 0);
  if (comm->rank != 0) s->channels = map(name, false, s->bytes);
  int64_t all = s->channels != NULL;
  pdt_comm_all_reduce_i64(comm, &all, 1, PDT_COMM_MIN);
  if (comm->rank == 0) shm_unlink(name);
  return all == 1;
}

/* Are all ranks of comm on this machine? Collective; all ranks fail alike. */
static int on_one_machine(const pdt_comm *comm, bool *out, pdt_error *err) {
  pdt_comm node;
  if (pdt_comm_split_node(comm, &node, err)) return -1;
  int64_t least = node.size;
  pdt_comm_all_reduce_i64(comm, &least, 1, PDT_COMM_MIN);
  pdt_comm_free(&node);
  *out = least == comm->size;
  return 0;
}

int pdt_shared_new(pdt_shared **out, const pdt_comm *comm, pdt_error *err) {
  pdt_shared *s = NULL;
  bool near = false;
  pdt_bytes slot = MOST_BYTES / SLOTS / ((pdt_bytes)comm->size * comm->size) / 64 * 64;
  *out = NULL;
  if (comm->size == 1 || !comm->backend || !comm->backend->processes) return 0;
  if (on_one_machine(comm, &near, err)) return -1;
  if (!near || slot < SMALLEST_SLOT) return 0;
  if (!PDT_NEW(&s, 1, "exchange", err)) {
    s->rank = comm->rank;
    s->size = comm->size;
    s->slot = slot < LARGEST_SLOT ? slot : LARGEST_SLOT;
    if (!PDT_NEW(&s->out, comm->size, "exchange", err))
      PDT_NEW(&s->in, comm->size, "exchange", err);
    s->bytes = channel_bytes(s->size) + s->slot * SLOTS * s->size * s->size;
  }
  if (pdt_comm_agree(comm, err)) {
    pdt_shared_free(s);
    return -1;
  }
  if (share(s, comm)) {
    s->slots = (char *)s->channels + channel_bytes(s->size);
    *out = s;
    return 0;
  }
  pdt_shared_free(s);
  return 0;
}

void pdt_shared_free(pdt_shared *s) {
  if (!s) return;
  if (s->channels) munmap(s->channels, (size_t)s->bytes);
  free(s->out);
  free(s->in);
  free(s);
}

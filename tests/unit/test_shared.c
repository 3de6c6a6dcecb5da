/* Exchanges through shared memory, with ranks that are threads: what arrives is what was sent, of
 * sizes from nothing to many pieces, by ranks that come early and late and sleep, and when counts
 * of pieces begin anew. Built with ThreadSanitizer too (test_shared_threads), which sees nothing of
 * what processes do to one another: every access to a slot must be ordered by the counters. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* The ranks' views of one memory are made here, which is no business of its header. */
#include "comm/shared.c" // NOLINT(bugprone-suspicious-include)

enum { RANKS = 4, ROUNDS = 300, MOST = 9000, SLOT = 1024 };

typedef struct rank_thread {
  pthread_t thread;
  pdt_shared shared;
  unsigned char send[RANKS * MOST], recv[RANKS * MOST];
  int wrong; /* messages */
} rank_thread;

/* Bytes of the message of a round. */
static pdt_bytes bytes_of(int round, int from, int to) {
  uint32_t x = (uint32_t)(round * 64 + from * 8 + to) * 2654435761u;
  x ^= x >> 15;
  return x % 8 == 0 ? 0 : x % 8 < 6 ? (x >> 3) % 600 : (x >> 3) % MOST;
}

/* What it is filled with. */
static unsigned char mark_of(int round, int from, int to) {
  return (unsigned char)(round * 7 + from * 3 + to);
}

static bool is_filled(const unsigned char *at, pdt_bytes n, unsigned char with) {
  for (pdt_bytes i = 0; i < n; i++)
    if (at[i] != with) return false;
  return true;
}

static void gather_once(rank_thread *t, int round) {
  pdt_bytes counts[RANKS], at = 0;
  int own = t->shared.rank;
  for (int r = 0; r < RANKS; r++) counts[r] = bytes_of(round, r, r);
  memset(t->send, mark_of(round, own, own), (size_t)counts[own]);
  pdt_shared_all_gather(&t->shared, t->send, t->recv, counts);
  for (int r = 0; r < RANKS; at += counts[r++])
    t->wrong += !is_filled(t->recv + at, counts[r], mark_of(round, r, r));
}

static void exchange_once(rank_thread *t, int round) {
  pdt_bytes out[RANKS], in[RANKS], at[RANKS];
  int own = t->shared.rank;
  for (int r = 0; r < RANKS; r++) {
    out[r] = r == own ? 0 : bytes_of(round, own, r);
    in[r] = r == own ? 0 : bytes_of(round, r, own);
    at[r] = (pdt_bytes)r * MOST;
    memset(t->send + at[r], mark_of(round, own, r), (size_t)out[r]);
  }
  pdt_shared_all_to_all(&t->shared, t->send, out, at, t->recv, in, at);
  for (int r = 0; r < RANKS; r++)
    t->wrong += !is_filled(t->recv + at[r], in[r], mark_of(round, r, own));
}

static void *run_rank(void *context) {
  rank_thread *t = context;
  const struct timespec late = {.tv_nsec = 50 * SPIN_NANOSECONDS};
  for (int round = 0; round < ROUNDS; round++) {
    if (bytes_of(round, t->shared.rank, RANKS) == 0) nanosleep(&late, NULL);
    (round % 2 ? exchange_once : gather_once)(t, round);
  }
  return NULL;
}

/* Ranks whose channels have been used for `pieces` already. */
static void run_ranks(uint32_t pieces) {
  pdt_bytes bytes = channel_bytes(RANKS) + (pdt_bytes)SLOT * SLOTS * RANKS * RANKS;
  rank_thread *ranks;
  channel *channels;
  course *courses;
  assert_int_equal(PDT_NEW(&ranks, RANKS, "test data", NULL), 0);
  assert_int_equal(pdt_new((void **)&channels, bytes, 1, "test data", NULL), 0);
  assert_int_equal(PDT_NEW(&courses, 2 * RANKS * RANKS, "test data", NULL), 0);
  for (int i = 0; i < RANKS * RANKS; i++) {
    atomic_store(&channels[i].written.value, pieces);
    atomic_store(&channels[i].read.value, pieces);
  }
  for (int r = 0; r < RANKS; r++)
    ranks[r].shared = (pdt_shared){.rank = r,
                                   .size = RANKS,
                                   .slot = SLOT,
                                   .bytes = bytes,
                                   .channels = channels,
                                   .slots = (char *)channels + channel_bytes(RANKS),
                                   .out = courses + (ptrdiff_t)2 * r * RANKS,
                                   .in = courses + (ptrdiff_t)(2 * r + 1) * RANKS};
  for (int r = 0; r < RANKS; r++)
    assert_int_equal(pthread_create(&ranks[r].thread, NULL, run_rank, &ranks[r]), 0);
  for (int r = 0; r < RANKS; r++) {
    assert_int_equal(pthread_join(ranks[r].thread, NULL), 0);
    assert_int_equal(ranks[r].wrong, 0);
  }
  free(ranks), free(channels), free(courses);
}

static void what_is_sent_arrives(void **state) {
  (void)state;
  run_ranks(0);
}

static void counts_begin_anew(void **state) {
  (void)state;
  run_ranks(UINT32_MAX - 20);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(what_is_sent_arrives),
                                     cmocka_unit_test(counts_begin_anew)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}

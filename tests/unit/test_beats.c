/* Messages between ranks beside MPI: they arrive, those of other jobs do not count, and a rank
 * whose socket is closed is told from one that is silent. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "comm/beats.h"
#include "comm/comm.h"

enum { RANKS = 3, WAIT_SECONDS = 5, PAUSE_US = 1000 };

/* All ranks' ends in one process, which know each other's places. */
static void open_all(pdt_beats all[RANKS]) {
  for (pdt_rank r = 0; r < RANKS; r++) {
    assert_int_equal(pdt_beats_open(&all[r], r, RANKS, NULL), 0);
    assert_true(all[r].socket >= 0 && all[r].places[r].port != 0);
  }
  for (pdt_rank r = 0; r < RANKS; r++)
    for (pdt_rank q = 0; q < RANKS; q++) all[r].places[q] = all[q].places[q];
}

static void close_all(pdt_beats all[RANKS]) {
  for (pdt_rank r = 0; r < RANKS; r++) pdt_beats_close(&all[r]);
}

static bool waits_for(pdt_beats *b, pdt_beat *out) {
  for (double end = pdt_seconds() + WAIT_SECONDS; pdt_seconds() < end; usleep(PAUSE_US))
    if (pdt_beats_next(b, out)) return true;
  return false;
}

/* Takes what else is there: a message is sent to every address of a rank that was not heard. */
static void drain(pdt_beats *b) {
  pdt_beat beat;
  usleep(20 * PAUSE_US);
  while (pdt_beats_next(b, &beat)) continue;
}

static void messages_arrive(void **state) {
  (void)state;
  pdt_beats all[RANKS];
  pdt_beat got;
  const pdt_beat sent = {.rank = 2, .round = 7, .exchanges = 9, .armed = 1, .call = "gather"};
  open_all(all);
  assert_false(pdt_beats_next(&all[0], &got));
  pdt_beats_send(&all[2], 0, &sent);
  assert_true(waits_for(&all[0], &got));
  assert_int_equal(got.rank, 2);
  assert_int_equal(got.round, 7);
  assert_int_equal(got.exchanges, 9);
  assert_string_equal(got.call, "gather");
  assert_true(all[0].heard[2].sin_port == all[2].places[2].port);
  assert_true(all[0].heard[1].sin_port == 0);
  drain(&all[0]);
  pdt_beats_send(&all[0], 2, &sent); /* there where it was heard: once */
  assert_true(waits_for(&all[2], &got));
  usleep(20 * PAUSE_US);
  assert_false(pdt_beats_next(&all[2], &got));
  close_all(all);
}

static void other_jobs_do_not_count(void **state) {
  (void)state;
  pdt_beats all[RANKS];
  pdt_beat got;
  open_all(all);
  pdt_beats_send(&all[1], 0, &(pdt_beat){.rank = RANKS}); /* no rank of this job */
  all[1].places[0].job++;
  pdt_beats_send(&all[1], 0, &(pdt_beat){.rank = 1});
  all[1].places[0].job--;
  pdt_beats_send(&all[1], 0, &(pdt_beat){.rank = 1, .round = 5});
  assert_true(waits_for(&all[0], &got));
  assert_int_equal(got.round, 5);
  close_all(all);
}

static void who_is_gone_is_refused(void **state) {
  (void)state;
  pdt_beats all[RANKS];
  pdt_beat got;
  pdt_rank gone = -1;
  open_all(all);
  pdt_beats_send(&all[1], 0, &(pdt_beat){.rank = 1});
  assert_true(waits_for(&all[0], &got));
  drain(&all[0]);
  assert_int_equal(pdt_beats_refused(&all[0]), -1);
  pdt_beats_close(&all[2]); /* was not heard: nothing is known of it */
  pdt_beats_send(&all[0], 2, &(pdt_beat){.rank = 0});
  drain(&all[0]);
  assert_int_equal(pdt_beats_refused(&all[0]), -1);
  pdt_beats_close(&all[1]);
  for (double end = pdt_seconds() + WAIT_SECONDS; gone < 0 && pdt_seconds() < end;) {
    pdt_beats_send(&all[0], 1, &(pdt_beat){.rank = 0});
    drain(&all[0]);
    gone = pdt_beats_refused(&all[0]);
  }
  assert_int_equal(gone, 1);
  close_all(all);
}

static void only_chosen_networks_are_named(void **state) {
  (void)state;
  pdt_beats b;
  char text[256];
  pdt_comm_interfaces(text, sizeof text);
  assert_true(*text != 0);
  setenv("OMPI_MCA_btl_tcp_if_include", "no-such-network,203.0.113.0/24", 1);
  assert_int_equal(pdt_beats_open(&b, 0, 1, NULL), 0);
  assert_int_equal(b.places[0].n, 0);
  pdt_beats_close(&b);
  setenv("OMPI_MCA_btl_tcp_if_include", "0.0.0.0/1,128.0.0.0/1", 1); /* every address */
  assert_int_equal(pdt_beats_open(&b, 0, 1, NULL), 0);
  int32_t all = b.places[0].n;
  pdt_beats_close(&b);
  unsetenv("OMPI_MCA_btl_tcp_if_include");
  assert_int_equal(pdt_beats_open(&b, 0, 1, NULL), 0);
  assert_int_equal(b.places[0].n, all);
  assert_true((all > 0) == (strcmp(text, "-") != 0));
  pdt_beats_close(&b);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(messages_arrive),
      cmocka_unit_test(other_jobs_do_not_count),
      cmocka_unit_test(who_is_gone_is_refused),
      cmocka_unit_test(only_chosen_networks_are_named),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "base/signals.h"

#include <signal.h>
#include <stdatomic.h>

/* Of the process: a handler has no other place to leave a word. It may run in any thread, those of
 * libraries included, which were started before main and block nothing. */
static atomic_int caught;

static void on_signal(int number) {
  if (caught == 0) {
    caught = number;
    return;
  }
  signal(number, SIG_DFL);
  raise(number); /* ends the process as soon as this handler is left */
}

static const int numbers[] = {SIGTERM, SIGINT, SIGUSR1};

void pdt_signals_listen(bool listens) {
  struct sigaction keep = {.sa_handler = on_signal, .sa_flags = SA_RESTART}, now;
  sigemptyset(&keep.sa_mask);
  if (listens) caught = 0;
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
    if (sigaction(numbers[i], NULL, &now) || now.sa_handler == SIG_IGN) continue;
    if (!listens) keep.sa_handler = SIG_DFL;
    (void)sigaction(numbers[i], &keep, NULL);
  }
}

void pdt_signals_ignore(void) {
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) signal(numbers[i], SIG_IGN);
}

int pdt_signals_caught(void) {
  return caught;
}

#include "serve/pulse.h"

#include <poll.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/signals.h"

enum { PAUSE_NS = 100000000 };

/* Has the other side of the connection closed it? */
static bool has_gone(const pdt_exchange *e) {
  const union MHD_ConnectionInfo *info =
      MHD_get_connection_info(e->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
  struct pollfd fd = {.fd = info ? info->connect_fd : -1, .events = POLLRDHUP};
  return poll(&fd, 1, 0) > 0 && (fd.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

static void give_up(pdt_hub *hub, pdt_exchange *e, pdt_withdrawal reason) {
  for (int32_t i = 0; i < e->n_jobs; i++) pdt_hub_give_up(hub, e->jobs[i], reason);
}

/* With the hub's lock. Connections that are not asleep are HTTP's to look after. */
static void look_after(const pdt_http *http, pdt_exchange *e, double now) {
  const pdt_serve_options *o = http->options;
  if (e->n_jobs == 0) return;
  if (o->request_seconds > 0 && e->jobs[0]->state != PDT_JOB_NEW &&
      now - e->jobs[0]->submitted > o->request_seconds)
    give_up(http->hub, e, PDT_OUT_OF_TIME);
  if (!e->sleeps) return;
  if (has_gone(e)) {
    give_up(http->hub, e, PDT_CLIENT_GONE);
    e->gone = true;
    pdt_exchange_wake(e);
  } else if (e->ask.stream && now - e->last > o->ping_seconds) {
    e->pings = true;
    pdt_exchange_wake(e);
  }
}

/* With the hub's lock: nothing that is there is wanted any more. */
static void withdraw_all(pdt_hub *hub) {
  while (hub->queue) pdt_hub_give_up(hub, hub->queue, PDT_SHUT_DOWN);
  for (pdt_job *job = hub->running; job; job = job->next) pdt_hub_give_up(hub, job, PDT_SHUT_DOWN);
}

static void *run(void *context) {
  const struct timespec pause = {.tv_nsec = PAUSE_NS};
  pdt_pulse *p = context;
  pdt_hub *hub = p->http->hub;
  while (!atomic_load(&p->ends)) {
    double now = pdt_seconds();
    if (p->drained == 0 && pdt_signals_caught() != 0) {
      p->drained = now;
      pdt_hub_enter(hub, PDT_HUB_DRAINS);
    }
    pthread_mutex_lock(&hub->lock);
    for (pdt_exchange *e = p->http->exchanges; e; e = e->next) look_after(p->http, e, now);
    if (p->drained > 0 && !p->late && now - p->drained > p->http->options->shutdown_seconds) {
      p->late = true;
      withdraw_all(hub);
    }
    pthread_mutex_unlock(&hub->lock);
    nanosleep(&pause, NULL);
  }
  return NULL;
}

int pdt_pulse_start(pdt_pulse *p, pdt_http *http, pdt_error *err) {
  *p = (pdt_pulse){.http = http};
  int status = pthread_create(&p->thread, NULL, run, p);
  p->runs = status == 0;
  return p->runs ? 0 : pdt_fail(err, PDT_ERROR_RUNTIME, "server: no thread: %s", strerror(status));
}

void pdt_pulse_stop(pdt_pulse *p) {
  if (!p->runs) return;
  atomic_store(&p->ends, true);
  pthread_join(p->thread, NULL);
  p->runs = false;
}

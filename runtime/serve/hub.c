#include "serve/hub.h"

#include <string.h>

#include "base/clock.h"

const double pdt_hub_bounds[PDT_HUB_BUCKETS] = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
                                                0.5,   1,      2.5,   5,    10,    30,   60,  300};

int pdt_hub_init(pdt_hub *hub, int32_t most_queued, pdt_error *err) {
  pthread_condattr_t attributes;
  *hub = (pdt_hub){.most_queued = most_queued};
  hub->queue_end = &hub->queue;
  if (pthread_condattr_init(&attributes))
    return pdt_fail(err, PDT_ERROR_MEMORY, "server: no memory");
  pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
  pthread_mutex_init(&hub->lock, NULL);
  pthread_cond_init(&hub->work, &attributes);
  pthread_condattr_destroy(&attributes);
  return 0;
}

void pdt_hub_free(pdt_hub *hub) {
  pthread_cond_destroy(&hub->work);
  pthread_mutex_destroy(&hub->lock);
}

void pdt_hub_enter(pdt_hub *hub, pdt_hub_phase phase) {
  pthread_mutex_lock(&hub->lock);
  if (phase > hub->phase) hub->phase = phase;
  pthread_cond_broadcast(&hub->work);
  pthread_mutex_unlock(&hub->lock);
}

void pdt_hub_took(pdt_hub_times *times, double seconds) {
  int i = 0;
  while (i < PDT_HUB_BUCKETS && seconds > pdt_hub_bounds[i]) i++;
  times->counts[i]++;
  times->sum += seconds;
}

void pdt_hub_release(pdt_job *job) {
  if (--job->holders == 0) pdt_job_free(job);
}

/* Takes the job out of a list. */
static void unlink_job(pdt_job **list, pdt_job *job) {
  while (*list && *list != job) list = &(*list)->next;
  if (*list) *list = job->next;
}

static void leave_queue(pdt_hub *hub, pdt_job *job) {
  unlink_job(&hub->queue, job);
  hub->queue_end = &hub->queue;
  while (*hub->queue_end) hub->queue_end = &(*hub->queue_end)->next;
  hub->n_queued--;
}

static void count_end(pdt_hub *hub, const pdt_job *job) {
  pdt_hub_counts *c = &hub->counts;
  if (job->withdrawal != PDT_WANTED && job->withdrawal != PDT_HAS_ENOUGH)
    c->withdrawn[job->withdrawal]++;
  else if (job->state == PDT_JOB_FAILED && job->withdrawal == PDT_WANTED)
    c->failed++;
  else if (strcmp(pdt_job_finish_reason(job), "stop") == 0)
    c->stop++;
  else
    c->length++;
  if (job->started > 0) pdt_hub_took(&c->whole, job->ended - job->submitted);
}

void pdt_hub_end(pdt_hub *hub, pdt_job *job, const pdt_error *why) {
  if (job->state == PDT_JOB_QUEUED) {
    leave_queue(hub, job);
  } else {
    unlink_job(&hub->running, job);
    hub->n_running--;
  }
  job->state = why ? PDT_JOB_FAILED : PDT_JOB_ENDED;
  if (why) job->why = *why;
  job->ended = pdt_seconds();
  count_end(hub, job);
  if (job->wake) job->wake(job->context);
  pdt_hub_release(job);
}

void pdt_hub_fail(pdt_hub *hub, const pdt_error *why) {
  while (hub->queue) pdt_hub_end(hub, hub->queue, why);
  while (hub->running) pdt_hub_end(hub, hub->running, why);
}

static void enqueue(pdt_hub *hub, pdt_job *job) {
  job->submitted = pdt_seconds();
  job->state = PDT_JOB_QUEUED;
  job->holders++;
  job->next = NULL;
  *hub->queue_end = job;
  hub->queue_end = &job->next;
  hub->n_queued++;
}

pdt_submission pdt_hub_submit(pdt_hub *hub, pdt_job *const *jobs, int32_t n) {
  pdt_submission answer = PDT_SUBMITTED;
  pthread_mutex_lock(&hub->lock);
  if (hub->phase != PDT_HUB_SERVES)
    answer = PDT_NOT_SERVING;
  else if (hub->n_queued + n > hub->most_queued)
    answer = PDT_QUEUE_FULL;
  for (int32_t i = 0; i < n && answer == PDT_SUBMITTED; i++) enqueue(hub, jobs[i]);
  if (answer == PDT_SUBMITTED) pthread_cond_signal(&hub->work);
  pthread_mutex_unlock(&hub->lock);
  return answer;
}

void pdt_hub_give_up(pdt_hub *hub, pdt_job *job, pdt_withdrawal reason) {
  pdt_error why = {0};
  if (job->state == PDT_JOB_NEW || pdt_job_over(job) || job->withdrawal != PDT_WANTED) return;
  job->withdrawal = reason;
  if (job->state != PDT_JOB_QUEUED) return;
  pdt_fail(&why, PDT_ERROR_RUNTIME, "it was withdrawn before it began");
  pdt_hub_end(hub, job, &why);
}

void pdt_hub_withdraw(pdt_hub *hub, pdt_job *job, pdt_withdrawal reason) {
  pthread_mutex_lock(&hub->lock);
  pdt_hub_give_up(hub, job, reason);
  pthread_mutex_unlock(&hub->lock);
}

void pdt_hub_leave(pdt_hub *hub, pdt_job *job) {
  if (!job) return;
  pthread_mutex_lock(&hub->lock);
  job->wake = NULL;
  pdt_hub_give_up(hub, job, PDT_CLIENT_GONE);
  pdt_hub_release(job);
  pthread_mutex_unlock(&hub->lock);
}

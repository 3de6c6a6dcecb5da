#include "serve/feed.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/text_safe.h"
#include "pdt_version.h"
#include "protocol/session.h"
#include "request/familiar.h"

static pdt_job *find(const pdt_hub *hub, int32_t index) {
  pdt_job *job = hub->running;
  while (job && job->index != index) job = job->next;
  return job;
}

/* ---- requests ---- */

/* Takes the first job of the queue, with the lock. */
static pdt_job *take(pdt_hub *hub) {
  pdt_job *job = hub->queue;
  hub->queue = job->next;
  if (!hub->queue) hub->queue_end = &hub->queue;
  hub->n_queued--;
  hub->n_running++;
  job->next = hub->running;
  hub->running = job;
  job->state = PDT_JOB_RUNNING;
  job->index = hub->n_taken++;
  return job;
}

static pdt_next next_request(void *context, bool may_wait, const pdt_request **request,
                             pdt_error *err) {
  pdt_feed *f = context;
  pdt_hub *hub = f->hub;
  pdt_next next = PDT_NEXT_LATER;
  (void)err;
  pthread_mutex_lock(&hub->lock);
  while (may_wait && !hub->queue && hub->phase != PDT_HUB_DRAINS)
    pthread_cond_wait(&hub->work, &hub->lock);
  hub->progress = pdt_seconds();
  if (hub->queue) {
    *request = &take(hub)->request;
    next = PDT_NEXT_REQUEST;
  } else if (hub->phase == PDT_HUB_DRAINS) {
    next = PDT_NEXT_END;
  }
  pthread_mutex_unlock(&hub->lock);
  return next;
}

pdt_request_source pdt_feed_source(pdt_feed *feed) {
  return (pdt_request_source){feed, next_request};
}

static bool is_withdrawn(void *context, int32_t index) {
  pdt_feed *f = context;
  pthread_mutex_lock(&f->hub->lock);
  const pdt_job *job = find(f->hub, index);
  bool withdrawn = job && job->withdrawal != PDT_WANTED;
  pthread_mutex_unlock(&f->hub->lock);
  return withdrawn;
}

static int32_t wanted_logprobs(void *context, int32_t index) {
  pdt_feed *f = context;
  pthread_mutex_lock(&f->hub->lock);
  const pdt_job *job = find(f->hub, index);
  int32_t n = job ? job->n_logprobs : 0;
  pthread_mutex_unlock(&f->hub->lock);
  return n;
}

/* ---- the journal ---- */

static int write_header(pdt_feed *f, pdt_error *err) {
  Pdt__RunHeader header = PDT__RUN_HEADER__INIT;
  if (f->begun) return 0;
  header.version = (char *)(uintptr_t)PDT_VERSION;
  header.model_fingerprint = pdt_engine_loaded(f->engine)->fingerprints.model;
  header.sidecar_fingerprint = pdt_engine_loaded(f->engine)->fingerprints.sidecar;
  header.ranks = (uint32_t)f->world->size;
  header.tensor_parallel = (uint32_t)pdt_engine_layout_of(f->engine).tensor_parallel;
  header.requests = PDT_JOURNAL_ENDLESS;
  f->begun = true;
  return pdt_journal_append_header(f->journal, &header, err);
}

static int write_failure(pdt_feed *f, const pdt_request *r, int32_t index, const char *why,
                         pdt_error *err) {
  Pdt__RequestFailure failure = PDT__REQUEST_FAILURE__INIT;
  char *text = pdt_escaped(why);
  if (!text) return pdt_fail(err, PDT_ERROR_MEMORY, "journal: no memory");
  failure.session = r->session;
  failure.request = (uint32_t)index;
  failure.error = (ProtobufCBinaryData){strlen(text), (uint8_t *)text};
  int status =
      write_header(f, err) || pdt_decode_journal_failure(f->journal, &f->order, &failure, err);
  free(text);
  return status ? -1 : 0;
}

static int on_decided(void *context, const void *packed, pdt_bytes bytes, pdt_error *err) {
  pdt_feed *f = context;
  return f->journal ? pdt_journal_append_decision(f->journal, packed, bytes, err) : 0;
}

/* ---- what happens ---- */

/* What a session takes of lanes and of the first group's cache, which has the most; sign: 1 or -1.
 */
static void count_load(pdt_feed *f, const pdt_request *r, int64_t sign) {
  f->hub->lanes += sign * r->settings.streams;
  f->hub->pages += sign * pdt_running_pages(r, 0, f->spread.group_size, f->spread.ranks);
}

/* Tells the operator, once, of a gamma at which blocks are forced. */
static void warn(pdt_feed *f, const pdt_running *s) {
  char where[64];
  pdt_notices notices = {0};
  snprintf(where, sizeof where, "session %llu", (unsigned long long)s->request->session);
  pdt_request_compare_gamma(s->request, where, f->sidecar, &f->told, &notices);
  pdt_notices_print(&notices, stderr, f->name, false);
}

static int on_started(void *context, const pdt_running *s, pdt_error *err) {
  pdt_feed *f = context;
  pthread_mutex_lock(&f->hub->lock);
  pdt_job *job = find(f->hub, s->index);
  if (job) {
    job->started = pdt_seconds();
    memcpy(job->plan_ids, s->plan.ids, (size_t)s->request->settings.limits.slots * sizeof(int32_t));
    pdt_session_follow(job->streams, &s->request->settings, job->plan_ids);
    pdt_hub_took(&f->hub->counts.queue, job->started - job->submitted);
    f->hub->counts.prompt_tokens += pdt_job_prompt_tokens(job);
    count_load(f, s->request, 1);
  }
  pthread_mutex_unlock(&f->hub->lock);
  warn(f, s);
  if (!f->journal) return 0;
  return write_header(f, err) || pdt_decode_journal_start(f->journal, &f->order, s, f->sidecar, err)
             ? -1
             : 0;
}

static int on_round(void *context, const pdt_round_report *report, pdt_error *err) {
  pdt_feed *f = context;
  pdt_hub_counts *counts = &f->hub->counts;
  int status = 0;
  pthread_mutex_lock(&f->hub->lock);
  pdt_job *job = find(f->hub, report->running->index);
  counts->gates[report->gate]++;
  if (job) {
    size_t before = job->n_blocks, records = job->n_records;
    status = pdt_job_round(job, report, err);
    for (size_t i = before; i < job->n_blocks; i++) counts->tokens += job->blocks[i].n_tokens;
    if (job->n_blocks > before && job->first == 0) {
      job->first = pdt_seconds();
      pdt_hub_took(&counts->first_block, job->first - job->submitted);
    }
    if ((job->n_blocks > before || job->n_records > records) && job->wake) job->wake(job->context);
  }
  pthread_mutex_unlock(&f->hub->lock);
  return status;
}

/* The job of a session, or of a request that never had one, is over. */
static void end_job(pdt_feed *f, int32_t index, const pdt_error *why) {
  pthread_mutex_lock(&f->hub->lock);
  pdt_job *job = find(f->hub, index);
  if (job && job->started > 0) count_load(f, &job->request, -1);
  if (job) pdt_hub_end(f->hub, job, why);
  pthread_mutex_unlock(&f->hub->lock);
}

static int on_ended(void *context, const pdt_running *s, pdt_error *err) {
  pdt_feed *f = context;
  bool complete = pdt_session_complete(&s->session);
  if (f->journal && pdt_decode_journal_end(f->journal, s->request, s->index, complete, err))
    return -1;
  end_job(f, s->index, NULL);
  return 0;
}

static int on_failed(void *context, const pdt_request *request, int32_t index, const pdt_error *why,
                     pdt_error *err) {
  pdt_feed *f = context;
  if (f->journal && write_failure(f, request, index, why->message, err)) return -1;
  end_job(f, index, why);
  return 0;
}

pdt_observer pdt_feed_observer(pdt_feed *feed) {
  return (pdt_observer){.context = feed,
                        .withdrawn = is_withdrawn,
                        .logprobs = wanted_logprobs,
                        .session_started = on_started,
                        .decided = on_decided,
                        .round_done = on_round,
                        .session_ended = on_ended,
                        .request_failed = on_failed};
}

void pdt_feed_stepped(pdt_feed *feed) {
  pdt_run_stats stats = pdt_engine_stats(feed->engine);
  pthread_mutex_lock(&feed->hub->lock);
  feed->hub->stats = stats;
  feed->hub->progress = pdt_seconds();
  pthread_mutex_unlock(&feed->hub->lock);
}

void pdt_feed_free(pdt_feed *feed) {
  pdt_journal_order_free(&feed->order);
}

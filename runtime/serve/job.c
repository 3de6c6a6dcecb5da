#include "serve/job.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

/* Of the records of one job: a client that reads nothing may not take more. */
enum { MOST_RECORD_BYTES = 64 << 20 };

static int new_streams(pdt_job *job, pdt_error *err) {
  const pdt_settings *s = &job->request.settings;
  if (PDT_NEW(&job->streams, s->streams, "request", err)) return -1;
  for (pdt_stream k = 0; k < s->streams; k++) {
    if (pdt_stream_new(&job->streams[k], k, &s->limits, s->max_rounds, err)) return -1;
    job->room += (size_t)job->streams[k].max_blocks;
  }
  return PDT_NEW(&job->plan_ids, s->limits.slots, "request", err) ||
                 PDT_NEW(&job->blocks, job->room, "request", err) ||
                 PDT_NEW(&job->coverage, (int64_t)job->room * s->limits.slots, "request", err)
             ? -1
             : 0;
}

static int new_logprobs(pdt_job *job, pdt_error *err) {
  int32_t K = job->request.settings.streams;
  if (job->n_logprobs == 0) return 0;
  int status = PDT_NEW(&job->logprobs, K, "request", err);
  for (pdt_stream k = 0; k < K && !status; k++)
    status = PDT_NEW(&job->logprobs[k], job->streams[k].max_tokens * (int64_t)job->n_logprobs,
                     "request", err);
  return status;
}

int pdt_job_new(pdt_job **out, pdt_request *request, int32_t n_logprobs, pdt_error *err) {
  if (PDT_NEW(out, 1, "request", err)) {
    pdt_request_free(request);
    return -1;
  }
  **out = (pdt_job){.request = *request, .n_logprobs = n_logprobs, .holders = 1};
  *request = (pdt_request){0};
  if (!new_streams(*out, err) && !new_logprobs(*out, err)) return 0;
  pdt_job_free(*out);
  *out = NULL;
  return -1;
}

void pdt_job_free(pdt_job *job) {
  for (pdt_stream k = 0; job->streams && k < job->request.settings.streams; k++)
    pdt_stream_free(&job->streams[k]);
  while (job->records) {
    pdt_record *next = job->records->next;
    free(job->records);
    job->records = next;
  }
  for (pdt_stream k = 0; job->logprobs && k < job->request.settings.streams; k++)
    free(job->logprobs[k]);
  free(job->logprobs);
  free(job->streams);
  free(job->blocks);
  free(job->coverage);
  free(job->plan_ids);
  pdt_request_free(&job->request);
  free(job);
}

/* ---- rounds ---- */

/* The block of stream k in a round; NULL when it emitted nothing. */
static const pdt_block_report *block_of(const pdt_round_report *report, pdt_stream k) {
  for (int32_t i = 0; i < report->n_blocks; i++)
    if (report->blocks[i].stream == k) return &report->blocks[i];
  return NULL;
}

/* How likely a block's tokens were goes where the tokens stand, or stood: what is rolled back is
 * written over. */
static void keep_logprobs(pdt_job *job, const pdt_round_report *report, pdt_stream k) {
  const pdt_block_report *b = block_of(report, k);
  const pdt_stream_state *s = &job->streams[k];
  if (job->n_logprobs == 0 || !b || !b->logprobs || s->n_tokens + b->n_tokens > s->max_tokens)
    return;
  memcpy(job->logprobs[k] + s->n_tokens * (int64_t)job->n_logprobs, b->logprobs,
         (size_t)b->n_tokens * (size_t)job->n_logprobs * sizeof *b->logprobs);
}

/* The verdict about stream k of a round; one of no action when it emitted nothing. Whether a block
 * that was rolled back had ended its stream is forgotten, and nothing depends on it. */
static pdt_block_verdict verdict_about(const pdt_round_report *report, pdt_stream k) {
  const pdt_block_report *b = block_of(report, k);
  if (!b) return (pdt_block_verdict){.stream = k};
  return (pdt_block_verdict){.stream = k,
                             .attempt = b->attempt,
                             .readiness = b->readiness,
                             .action = b->action,
                             .tokens = b->tokens,
                             .n_tokens = b->n_tokens,
                             .ended = b->action == PDT_ACTION_ROLLBACK ||
                                      report->running->session.streams[k].ended,
                             .coverage = b->coverage};
}

/* Block i of those that a stream had pending when they were committed: they stand there still. */
static void add_block(pdt_job *job, const pdt_stream_state *s, int32_t i, int32_t attempt) {
  int32_t slots = job->request.settings.limits.slots;
  if (job->n_blocks == job->room) return; /* cannot be: a stream has at most max_blocks */
  if (slots > 0)
    memcpy(job->coverage + (int64_t)job->n_blocks * slots, s->pending_coverage + (int64_t)i * slots,
           (size_t)slots * sizeof *job->coverage);
  job->blocks[job->n_blocks++] = (pdt_job_block){.stream = s->index,
                                                 .round = s->pending[i].round,
                                                 .attempt = attempt,
                                                 .n_tokens = s->pending[i].tokens};
}

/* Stream k after its verdict, and the blocks that were committed with it: those that were held
 * before, and its own. */
static int apply(pdt_job *job, const pdt_round_report *report, pdt_stream k, pdt_error *err) {
  pdt_stream_state *s = &job->streams[k];
  pdt_block_verdict v = verdict_about(report, k);
  int32_t committed = s->n_committed, attempt = s->attempt, n = s->n_pending;
  pdt_round withdrawn;
  keep_logprobs(job, report, k);
  if (pdt_stream_apply(s, &job->request.settings.limits, report->round, report->gate, &v,
                       &withdrawn, err))
    return -1;
  job->counts.actions[v.action]++;
  if (s->n_committed == committed) return 0;
  n += v.action != PDT_ACTION_NONE;
  for (int32_t i = 0; i < n; i++) add_block(job, s, i, attempt);
  if (job->n_blocks > 0) job->blocks[job->n_blocks - 1].last = s->done;
  return 0;
}

/* The round as it is before it is applied. Records have no gap. */
static void keep_round(pdt_job *job, const pdt_round_report *report) {
  if (!job->keeps_rounds || job->n_records < (size_t)job->counts.rounds) return;
  pdt_record *r = pdt_record_new(report, job->streams);
  if (r && job->record_bytes + r->bytes > MOST_RECORD_BYTES) {
    free(r);
    r = NULL;
  }
  if (!r) return;
  *(job->last_record ? &job->last_record->next : &job->records) = r;
  job->last_record = r;
  job->record_bytes += r->bytes;
  job->n_records++;
}

int pdt_job_round(pdt_job *job, const pdt_round_report *report, pdt_error *err) {
  size_t first = job->n_blocks;
  keep_round(job, report);
  for (pdt_stream k = 0; k < job->request.settings.streams; k++)
    if (apply(job, report, k, err)) return pdt_fail_in(err, "the server's copy of a session");
  job->counts.rounds++;
  job->counts.gates += report->gate;
  for (size_t i = first; i < job->n_blocks; i++) job->blocks[i].counts = job->counts;
  return 0;
}

int pdt_job_view(const pdt_job *job, size_t n, pdt_stream_state *view, pdt_error *err) {
  const pdt_settings *settings = &job->request.settings;
  int32_t K = settings->streams, slots = settings->limits.slots;
  pdt_round end = n > 0 ? (pdt_round)job->blocks[n - 1].counts.rounds : 0;
  float *best;
  if (PDT_NEW(&best, (int64_t)K * slots, "answer", err)) return -1;
  for (int64_t i = 0; i < (int64_t)K * slots; i++) best[i] = -INFINITY;
  for (pdt_stream k = 0; k < K; k++) {
    const pdt_stream_state *s = &job->streams[k];
    view[k] = (pdt_stream_state){
        .index = k, .tokens = s->tokens, .forced = s->forced, .best_coverage = best + k * slots};
    view[k].done = pdt_stream_left_out(s);
    while (view[k].n_forced < s->n_forced && s->forced[view[k].n_forced] <= end) view[k].n_forced++;
  }
  for (size_t i = 0; i < n; i++) {
    const pdt_job_block *b = &job->blocks[i];
    pdt_stream_state *v = &view[b->stream];
    v->n_tokens = v->n_committed += b->n_tokens;
    v->done = b->last;
    for (int32_t slot = 0; slot < slots; slot++)
      v->best_coverage[slot] =
          fmaxf(v->best_coverage[slot], job->coverage[(int64_t)i * slots + slot]);
  }
  return 0;
}

/* ---- what it came to ---- */

bool pdt_job_over(const pdt_job *job) {
  return job->state == PDT_JOB_ENDED || job->state == PDT_JOB_FAILED;
}

int64_t pdt_job_committed(const pdt_job *job) {
  int64_t n = 0;
  for (pdt_stream k = 0; k < job->request.settings.streams; k++) n += job->streams[k].n_committed;
  return n;
}

int64_t pdt_job_prompt_tokens(const pdt_job *job) {
  int64_t n = job->request.n_prompt;
  for (pdt_stream k = 0; k < job->request.settings.streams; k++) n += job->request.n_prefix[k];
  return n;
}

const char *pdt_job_finish_reason(const pdt_job *job) {
  bool ended = true;
  if (job->withdrawal == PDT_HAS_ENOUGH) return "stop";
  for (pdt_stream k = 0; k < job->request.settings.streams; k++)
    ended = ended && job->streams[k].done &&
            (job->streams[k].ended || pdt_stream_left_out(&job->streams[k]));
  return ended ? "stop" : "length";
}

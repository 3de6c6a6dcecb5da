#include "serve/exchange.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "request/message.h"
#include "serve/http.h"

enum { CHUNK_BYTES = 16 << 10 };

/* ---- answers that are whole ---- */

enum MHD_Result pdt_exchange_respond(const pdt_exchange *e, int status, const char *type,
                                     char *text, size_t bytes) {
  struct MHD_Response *r = MHD_create_response_from_buffer(bytes, text, MHD_RESPMEM_MUST_FREE);
  if (!r) {
    free(text);
    return MHD_NO;
  }
  MHD_add_response_header(r, "Content-Type", type);
  if (status == 429 || status == 503) MHD_add_response_header(r, "Retry-After", "1");
  if (status == 401) MHD_add_response_header(r, "WWW-Authenticate", "Bearer");
  enum MHD_Result result = MHD_queue_response(e->connection, (unsigned)status, r);
  MHD_destroy_response(r);
  return result;
}

static enum MHD_Result respond_with(const pdt_exchange *e, int status, const char *type,
                                    pdt_buffer *body) {
  char *text;
  size_t bytes;
  if (!pdt_buffer_take(body, &text, &bytes, NULL))
    return pdt_exchange_respond(e, status, type, text, bytes);
  pdt_buffer_free(body);
  return MHD_NO;
}

enum MHD_Result pdt_exchange_refuse(const pdt_exchange *e, const pdt_refusal *why) {
  pdt_buffer body = {0};
  if (!pdt_reply_error(why, &body, NULL))
    return respond_with(e, why->status, "application/json", &body);
  pdt_buffer_free(&body);
  return MHD_NO;
}

static enum MHD_Result refuse_error(const pdt_exchange *e, const pdt_error *err) {
  pdt_refusal why;
  pdt_refuse(&why, err->code == PDT_ERROR_MEMORY ? 503 : 500, NULL, NULL, "%s", err->message);
  return pdt_exchange_refuse(e, &why);
}

static enum MHD_Result answer_whole(pdt_exchange *e) {
  pdt_buffer body = {0};
  pdt_refusal why;
  pdt_error err = {0};
  const pdt_job *failed = pdt_reply_failed(&e->reply);
  if (failed) {
    pdt_reply_failure(failed, &why);
    return pdt_exchange_refuse(e, &why);
  }
  const char *type = e->ask.packed                   ? "application/x-protobuf"
                     : e->ask.form == PDT_ASK_DECODE ? "application/x-ndjson"
                                                     : "application/json";
  if (!pdt_reply_whole(&e->reply, &body, &err)) return respond_with(e, 200, type, &body);
  pdt_buffer_free(&body);
  return refuse_error(e, &err);
}

/* ---- what there is to tell ---- */

void pdt_exchange_wake(void *exchange) {
  pdt_exchange *e = exchange;
  e->stirred = true;
  if (!e->sleeps) return;
  e->sleeps = false;
  MHD_resume_connection(e->connection);
}

/* What has happened since the last look. */
typedef struct news {
  size_t n_blocks[PDT_ASK_CHOICES], n_records[PDT_ASK_CHOICES];
  bool over[PDT_ASK_CHOICES], all_over, pings, gone;
} news;

static news look(pdt_exchange *e) {
  pthread_mutex_lock(&e->http->hub->lock);
  news n = {.all_over = true, .pings = e->pings, .gone = e->gone};
  for (int32_t i = 0; i < e->n_jobs; i++) {
    n.n_blocks[i] = e->jobs[i]->n_blocks;
    n.n_records[i] = e->jobs[i]->n_records;
    n.over[i] = pdt_job_over(e->jobs[i]);
    n.all_over = n.all_over && n.over[i];
  }
  e->stirred = e->pings = false;
  pthread_mutex_unlock(&e->http->hub->lock);
  return n;
}

/* Its connection is looked after no more until it is woken; unless it has been since it looked. */
static void sleep_on(pdt_exchange *e) {
  pthread_mutex_lock(&e->http->hub->lock);
  if (!e->stirred) {
    e->sleeps = true;
    MHD_suspend_connection(e->connection);
  }
  pthread_mutex_unlock(&e->http->hub->lock);
}

/* Reads what is new. Nobody needs more of a job whose parts are over, nor of one beside another
 * that failed. */
static int read_news(pdt_exchange *e, const news *n, pdt_error *err) {
  for (int32_t i = 0; i < e->n_jobs; i++) {
    if (pdt_reply_read(&e->reply, i, n->n_blocks[i], n->n_records[i], n->over[i], err)) return -1;
    if (!n->over[i] && e->reply.choices[i].parts.cut > 0)
      pdt_hub_withdraw(e->http->hub, e->jobs[i], PDT_HAS_ENOUGH);
  }
  for (int32_t i = 0; i < e->n_jobs && pdt_reply_failed(&e->reply); i++)
    pdt_hub_withdraw(e->http->hub, e->jobs[i], PDT_CHOICE_FAILED);
  return 0;
}

/* ---- chunks ---- */

static ssize_t send_out(pdt_exchange *e, char *buffer, size_t room) {
  size_t left = e->out.bytes - e->sent, n = left < room ? left : room;
  memcpy(buffer, e->out.data + e->sent, n);
  e->sent += n;
  if (e->sent == e->out.bytes) e->sent = e->out.bytes = 0;
  pthread_mutex_lock(&e->http->hub->lock);
  e->last = pdt_seconds();
  pthread_mutex_unlock(&e->http->hub->lock);
  return (ssize_t)n;
}

/* What libmicrohttpd asks for while there is room in the connection. */
static ssize_t read_chunks(void *context, uint64_t position, char *buffer, size_t room) {
  static const char ping[] = ": ping\n\n";
  pdt_exchange *e = context;
  (void)position;
  if (e->out.bytes > 0) return send_out(e, buffer, room);
  if (e->reply.ended) return MHD_CONTENT_READER_END_OF_STREAM;
  news n = look(e);
  if (n.gone || read_news(e, &n, NULL) || pdt_reply_chunks(&e->reply, &e->out, NULL))
    return MHD_CONTENT_READER_END_WITH_ERROR;
  if (e->out.bytes == 0 && n.pings && pdt_buffer_put(&e->out, ping, sizeof ping - 1, NULL))
    return MHD_CONTENT_READER_END_WITH_ERROR;
  if (e->out.bytes > 0) return send_out(e, buffer, room);
  sleep_on(e);
  return 0;
}

static enum MHD_Result answer_in_chunks(pdt_exchange *e) {
  struct MHD_Response *r =
      MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, CHUNK_BYTES, read_chunks, e, NULL);
  if (!r) return MHD_NO;
  MHD_add_response_header(r, "Content-Type", "text/event-stream; charset=utf-8");
  MHD_add_response_header(r, "Cache-Control", "no-cache");
  MHD_add_response_header(r, "X-Accel-Buffering", "no");
  enum MHD_Result result = MHD_queue_response(e->connection, 200, r);
  MHD_destroy_response(r);
  return result;
}

enum MHD_Result pdt_exchange_go_on(pdt_exchange *e) {
  pdt_error err = {0};
  news n = look(e);
  if (n.gone) return MHD_NO;
  if (read_news(e, &n, &err)) return refuse_error(e, &err);
  if (n.all_over || pdt_reply_failed(&e->reply)) return answer_whole(e);
  sleep_on(e);
  return MHD_YES;
}

/* ---- asking ---- */

static bool wants_protobuf(const pdt_exchange *e) {
  const char *accepted =
      MHD_lookup_connection_value(e->connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_ACCEPT);
  return accepted && strstr(accepted, "protobuf");
}

/* Reads the body, and judges whether it can be served by this server. */
static int read_ask(pdt_exchange *e, pdt_refusal *why) {
  const pdt_http *http = e->http;
  pdt_error err = {0};
  if (pdt_ask_read(&e->ask, e->form, e->body.data ? e->body.data : "", e->body.bytes,
                   &http->context, why))
    return -1;
  e->has_ask = true;
  e->ask.packed = e->form == PDT_ASK_DECODE && wants_protobuf(e);
  pdt_exchange_drop_body(e);
  if (e->ask.n > http->options->max_queue)
    return pdt_refuse(why, 400, "too_large", "n", "n: expected at most %d, the queue's places",
                      http->options->max_queue);
  if (!pdt_capacity_check(&http->capacity, &e->ask.request, http->spread, &err)) return 0;
  return pdt_refuse(why, 400, "too_large", NULL, "%s", err.message);
}

/* Takes the request over, also on failure. */
static int add_job(pdt_exchange *e, pdt_request *request, pdt_error *err) {
  pdt_job *job;
  if (pdt_job_new(&job, request, e->ask.n_logprobs, err)) return -1;
  job->keeps_rounds = e->ask.stream && e->ask.rounds;
  job->wake = pdt_exchange_wake;
  job->context = e;
  pthread_mutex_lock(&e->http->hub->lock);
  e->jobs[e->n_jobs++] = job;
  pthread_mutex_unlock(&e->http->hub->lock);
  return 0;
}

/* Jobs for what was asked: the request itself, and copies with other seeds. */
static int make_jobs(pdt_exchange *e, pdt_error *err) {
  if (add_job(e, &e->ask.request, err)) return -1;
  while (e->n_jobs < e->ask.n) {
    pdt_request copy;
    if (pdt_request_copy(&copy, &e->jobs[0]->request, &e->http->context.request, err)) return -1;
    copy.settings.seed += (uint64_t)e->n_jobs;
    if (add_job(e, &copy, err)) return -1;
  }
  return 0;
}

static int submit(pdt_exchange *e, pdt_refusal *why) {
  pdt_http *http = e->http;
  pdt_error err = {0};
  if (make_jobs(e, &err)) return pdt_refuse(why, 503, NULL, NULL, "%s", err.message);
  e->has_reply = true;
  if (pdt_reply_new(&e->reply, &e->ask, e->jobs, http->context.request.tokenizer,
                    http->context.model, http->n_asked++, &err))
    return pdt_refuse(why, 503, NULL, NULL, "%s", err.message);
  switch (pdt_hub_submit(http->hub, e->jobs, e->n_jobs)) {
  case PDT_QUEUE_FULL:
    return pdt_refuse(why, 429, "queue_full", NULL, "%d requests wait: expected fewer than that",
                      http->options->max_queue);
  case PDT_NOT_SERVING:
    return pdt_refuse(why, 503, "not_serving", NULL, "the server is shutting down");
  default:
    return 0;
  }
}

/* A refusal is counted, and its job forgotten before it is told. */
static enum MHD_Result refuse_ask(pdt_exchange *e, const pdt_refusal *why) {
  pthread_mutex_lock(&e->http->hub->lock);
  e->http->hub->counts.refused++;
  pthread_mutex_unlock(&e->http->hub->lock);
  return pdt_exchange_refuse(e, why);
}

enum MHD_Result pdt_exchange_ask(pdt_exchange *e) {
  pdt_refusal why;
  if (read_ask(e, &why) || submit(e, &why)) return refuse_ask(e, &why);
  if (e->ask.stream) return answer_in_chunks(e);
  return pdt_exchange_go_on(e);
}

void pdt_exchange_drop_body(pdt_exchange *e) {
  e->http->body_bytes -= (pdt_bytes)e->body.bytes;
  pdt_buffer_free(&e->body);
}

void pdt_exchange_free(pdt_exchange *e) {
  if (e->has_reply) pdt_reply_free(&e->reply);
  for (int32_t i = 0; i < e->n_jobs; i++) pdt_hub_leave(e->http->hub, e->jobs[i]);
  if (e->has_ask) pdt_ask_free(&e->ask);
  pdt_exchange_drop_body(e);
  pdt_buffer_free(&e->out);
  free(e);
}

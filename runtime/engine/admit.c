/* Requests on their way in: rank 0 takes them from the source while there is room, and every rank
 * makes a session of each. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "engine/run.h"
#include "request/message.h"

enum { MESSAGE_BYTES = 1 << 28 }; /* of one broadcast */

/* What is told before the requests themselves. */
typedef struct admission {
  int64_t bytes;   /* of all of them, each packed behind its header */
  int32_t n;       /* how many; -1: rank 0 failed */
  int32_t no_more; /* no others will come */
} admission;

/* A request that can never fit, or that nobody wants any more, ends alone. */
static int refuse(pdt_run *run, const pdt_request *request, pdt_error *why, pdt_error *err) {
  const pdt_observer *o = &run->setup.observer;
  int32_t index = run->n_taken++;
  pdt_request_fail_in(why, request, index);
  if (o->request_failed) return o->request_failed(o->context, request, index, why, err);
  *err = *why;
  return -1;
}

/* Rank 0: is the request that waits not to run at all? *why says so then. */
static bool is_refused(const pdt_run *run, pdt_spread spread, pdt_error *why) {
  const pdt_observer *o = &run->setup.observer;
  if (o->withdrawn && o->withdrawn(o->context, run->n_taken)) {
    pdt_fail(why, PDT_ERROR_RUNTIME, "it was withdrawn before it began");
    return true;
  }
  return pdt_capacity_check(&run->setup.capacity, run->waiting, spread, why) != 0;
}

/* Rank 0: the next request that may join now: 1; 0 when there is none; -1 on error. It stays the
 * one that waits until it is taken. */
static int look_for_one(pdt_run *run, bool idle, pdt_error *err) {
  const pdt_request_source *s = &run->setup.requests;
  pdt_spread spread = pdt_machine_spread(run->machine);
  for (;;) {
    pdt_error why = {0};
    pdt_next next = run->waiting ? PDT_NEXT_REQUEST : s->next(s->context, idle, &run->waiting, err);
    if (next == PDT_NEXT_PASSED) {
      run->waiting = NULL;
      run->n_taken++;
      continue;
    }
    if (next != PDT_NEXT_REQUEST) {
      run->waiting = NULL;
      run->no_more = next == PDT_NEXT_END;
      return next == PDT_NEXT_FAILED ? -1 : 0;
    }
    if (is_refused(run, spread, &why)) {
      if (refuse(run, run->waiting, &why, err)) return -1;
      run->waiting = NULL;
      continue;
    }
    return pdt_ledger_add(&run->ledger, &run->setup.capacity, run->waiting);
  }
}

/* What stands before a request in the mail. */
typedef struct request_header {
  int32_t index; /* those that were refused or passed over before it have one, too */
  int32_t logprobs;
} request_header;

/* Rank 0: puts the request that waits into the mail. */
static int pack_one(pdt_run *run, pdt_error *err) {
  const pdt_observer *o = &run->setup.observer;
  pdt_buffer *mail = &run->mail.requests;
  request_header header = {.index = run->n_taken};
  if (run->tells_logprobs) header.logprobs = o->logprobs(o->context, run->n_taken);
  if (pdt_buffer_put(mail, &header, sizeof header, err) ||
      pdt_request_pack(mail, run->waiting, "request", err))
    return -1;
  run->waiting = NULL;
  run->n_taken++;
  return 0;
}

/* Rank 0: packs requests as long as there is room. */
static int collect(pdt_run *run, admission *a, pdt_error *err) {
  *a = (admission){0};
  if (run->failure.code != PDT_ERROR_NONE) { /* there was no boundary to tell it at */
    *err = run->failure;
    return -1;
  }
  run->mail.requests.bytes = 0;
  int more = 1;
  while (run->n_sessions + a->n < run->setup.capacity.sessions && !run->no_more) {
    more = look_for_one(run, run->n_sessions == 0 && a->n == 0, err);
    if (more <= 0) break;
    if (pack_one(run, err)) return -1;
    a->n++;
  }
  a->bytes = (int64_t)run->mail.requests.bytes;
  a->no_more = run->no_more;
  return more < 0 ? -1 : 0;
}

/* Sends what rank 0 collected. Collective over the world; all ranks fail alike. */
static int share(pdt_run *run, admission *a, pdt_error *err) {
  const pdt_comm *world = run->machine->world;
  pdt_buffer *mail = &run->mail.requests;
  if (run->n_sessions == 0) /* it may take long */
    pdt_comm_broadcast_patiently(world, a, sizeof *a, 0);
  else
    pdt_comm_broadcast(world, a, sizeof *a, 0);
  run->no_more = a->no_more;
  if (a->n == 0) return 0;
  if (a->n > 0 && world->rank != 0) {
    mail->bytes = 0;
    if (!pdt_buffer_reserve(mail, (size_t)a->bytes, err)) mail->bytes = (size_t)a->bytes;
  }
  if (pdt_comm_agree(world, err)) return -1;
  for (int64_t at = 0; at < a->bytes; at += MESSAGE_BYTES) {
    int64_t n = a->bytes - at < MESSAGE_BYTES ? a->bytes - at : MESSAGE_BYTES;
    pdt_comm_broadcast(world, mail->data + at, n, 0);
  }
  return 0;
}

/* A session of the request at *at of the mail. A rank that has no memory for it lets it end alone.
 * Collective; fails alike where the mail cannot be read, or a device has failed. */
static int join(pdt_run *run, size_t *at, pdt_error *err) {
  const pdt_request_context context = {&run->loaded->model, &run->loaded->sidecar.config, NULL};
  const pdt_buffer *mail = &run->mail.requests;
  pdt_running *r = NULL;
  pdt_request request;
  pdt_error own = {0};
  char where[64];
  request_header header;
  memcpy(&header, mail->data + *at, sizeof header);
  *at += sizeof header;
  snprintf(where, sizeof where, "request %d", header.index);
  if (!pdt_request_unpack(&request, mail->data, mail->bytes, at, where, &context, &own) &&
      PDT_NEW(&r, 1, "session", &own))
    pdt_request_free(&request);
  if (pdt_comm_agree(run->machine->world, &own)) {
    if (r) pdt_request_free(&request);
    free(r);
    *err = own;
    return -1;
  }
  if (pdt_running_new(r, &request, header.index, &run->machine->place, &run->loaded->sidecar,
                      &run->kv, run->draft_tokens > 0 ? &run->draft.kv : NULL, &own) ||
      (run->variant->alter &&
       pdt_running_alter(r, &run->machine->place, &run->loaded->sidecar, &own)))
    pdt_machine_fail_in(run->machine, &own);
  r->logprobs = header.logprobs;
  run->sessions[run->n_sessions++] = r;
  if (!pdt_comm_agree(run->machine->world, &own)) return 0;
  pdt_request_fail_in(&own, r->request, header.index);
  if (own.code == PDT_ERROR_RUNTIME) {
    *err = own;
    return -1;
  }
  pdt_run_fail_session(run, run->n_sessions - 1, &own);
  return 0;
}

int pdt_run_admit(pdt_run *run, pdt_error *err) {
  admission a = {0};
  size_t at = 0;
  if (run->no_more || run->n_sessions == run->setup.capacity.sessions) return 0;
  if (run->machine->world->rank == 0 && collect(run, &a, err)) a.n = -1;
  if (share(run, &a, err)) return -1;
  for (int32_t i = 0; i < a.n; i++)
    if (join(run, &at, err)) return -1;
  return 0;
}

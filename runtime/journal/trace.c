#include "journal/trace.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/json_text.h"
#include "base/memory.h"
#include "journal/sink.h"
#include "journal/turns.h"

typedef enum session_state { NOT_BEGUN, OPEN, ENDED } session_state;

typedef struct session {
  session_state state;
  int32_t note_dim, n_slots, n_streams; /* n_streams is 0 before round 1 */
  pdt_round round;                      /* the last */
} session;

struct pdt_trace {
  pdt_sink sink;
  pdt_turns *turns;
  int32_t n_requests;
  session *sessions; /* [n_requests] */
};

#define REFUSE(...) pdt_fail(err, PDT_ERROR_RUNTIME, "trace: " __VA_ARGS__)

static int to_sink(void *context, const void *data, pdt_bytes bytes, pdt_error *err) {
  return pdt_sink_write(context, data, bytes, err);
}

int pdt_trace_open(pdt_trace **trace, const char *path, int32_t n_requests, pdt_error *err) {
  if (PDT_NEW(trace, 1, "trace", err)) return -1;
  pdt_trace *t = *trace;
  t->n_requests = n_requests;
  char *folder = NULL;
  int rc = pdt_sink_open(&t->sink, path, err);
  if (!rc) rc = PDT_NEW(&t->sessions, n_requests, "trace", err);
  if (!rc && !(folder = pdt_sink_folder(&t->sink)))
    rc = pdt_fail(err, PDT_ERROR_MEMORY, "trace: no memory");
  if (!rc) rc = pdt_turns_new(&t->turns, n_requests, folder, to_sink, &t->sink, err);
  free(folder);
  if (!rc) return 0;
  pdt_trace_discard(t);
  *trace = NULL;
  return -1;
}

void pdt_trace_discard(pdt_trace *trace) {
  if (!trace) return;
  pdt_sink_discard(&trace->sink);
  pdt_turns_free(trace->turns);
  free(trace->sessions);
  free(trace);
}

/* The session of a request that is in the given state; NULL after an error. */
static session *in_state(pdt_trace *trace, int32_t request, session_state state, pdt_error *err) {
  static const char *const names[] = {"not begun", "begun", "ended"};
  if (request < 0 || request >= trace->n_requests)
    REFUSE("request %d: expected one of %d", request, trace->n_requests);
  else if (trace->sessions[request].state != state)
    REFUSE("request %d: expected it %s, found it %s", request, names[state],
           names[trace->sessions[request].state]);
  else
    return &trace->sessions[request];
  return NULL;
}

static int all_finite(const float *values, int32_t n, const char *what, pdt_error *err) {
  for (int32_t i = 0; i < n; i++)
    if (!isfinite(values[i]))
      return REFUSE("%s[%d]: expected a finite number, found %g", what, i, (double)values[i]);
  return 0;
}

/* Text that is being made for one call. */
typedef struct piece {
  FILE *out;
  char *text;
  size_t bytes;
} piece;

static int start_piece(piece *p, pdt_error *err) {
  *p = (piece){0};
  p->out = open_memstream(&p->text, &p->bytes);
  return p->out ? 0 : pdt_fail(err, PDT_ERROR_MEMORY, "trace: no memory for its text");
}

/* Passes a piece on to where the session's text goes. */
static int put_piece(pdt_trace *trace, int32_t request, piece *p, pdt_error *err) {
  bool good = !ferror(p->out);
  int rc = fclose(p->out) || !good
               ? pdt_fail(err, PDT_ERROR_MEMORY, "trace: no memory for its text")
               : pdt_turns_put(trace->turns, request, p->text, (pdt_bytes)p->bytes, err);
  free(p->text);
  return rc;
}

int pdt_trace_begin(pdt_trace *trace, int32_t request, const int32_t *plan_ids, int32_t n_slots,
                    const float *plan_note, int32_t note_dim, pdt_error *err) {
  session *s = in_state(trace, request, NOT_BEGUN, err);
  if (!s || all_finite(plan_note, note_dim, "plan_note", err)) return -1;
  piece p;
  if (start_piece(&p, err)) return -1;
  s->state = OPEN;
  s->note_dim = note_dim;
  s->n_slots = n_slots;
  (void)fputs("{\"plan_ids\":", p.out);
  pdt_json_put_i32s(p.out, plan_ids, (size_t)n_slots);
  (void)fputs(",\"plan_note\":", p.out);
  pdt_json_put_floats(p.out, plan_note, (size_t)note_dim);
  (void)fputs(",\"rounds\":[", p.out);
  return put_piece(trace, request, &p, err);
}

static int check_block(const session *s, const pdt_trace_block *b, pdt_error *err) {
  if (b->stream < 0 || b->stream >= s->n_streams)
    return REFUSE("stream %d of %d", b->stream, s->n_streams);
  if (b->action <= PDT_ACTION_NONE || b->action > PDT_ACTION_FORCE)
    return REFUSE("stream %d: action %d is none of a block", b->stream, (int)b->action);
  if (all_finite(&b->readiness, 1, "readiness", err) ||
      all_finite(b->note, s->note_dim, "note", err) ||
      all_finite(b->coverage, s->n_slots, "coverage", err) ||
      all_finite(b->last_hidden, b->n_hidden, "last_hidden", err))
    return pdt_fail_in(err, "stream %d", b->stream);
  return 0;
}

static int check_round(session *s, const pdt_trace_round *r, pdt_error *err) {
  if (r->round != s->round + 1)
    return REFUSE("expected round %d, found round %d", s->round + 1, r->round);
  if (r->n_streams < 1 || (s->round > 0 && r->n_streams != s->n_streams))
    return REFUSE("round %d has %d streams, the one before %d", r->round, r->n_streams,
                  s->n_streams);
  s->n_streams = r->n_streams;
  for (int32_t i = 0; i < r->n_blocks; i++) {
    if (i > 0 && r->blocks[i].stream <= r->blocks[i - 1].stream)
      return REFUSE("round %d: stream %d follows stream %d", r->round, r->blocks[i].stream,
                    r->blocks[i - 1].stream);
    if (check_block(s, &r->blocks[i], err)) return pdt_fail_in(err, "round %d", r->round);
  }
  return 0;
}

static void put_block(FILE *out, const session *s, const pdt_trace_block *b) {
  (void)fprintf(out, "{\"stream\":%d,\"attempt\":%d,\"tokens\":", b->stream, b->attempt);
  pdt_json_put_i32s(out, b->tokens, (size_t)b->n_tokens);
  (void)fputs(",\"note\":", out);
  pdt_json_put_floats(out, b->note, (size_t)s->note_dim);
  (void)fputs(",\"coverage\":", out);
  pdt_json_put_floats(out, b->coverage, (size_t)s->n_slots);
  (void)fputs(",\"readiness\":", out);
  pdt_json_put_float(out, b->readiness);
  (void)fputs(",\"last_hidden\":", out);
  pdt_json_put_floats(out, b->last_hidden, (size_t)b->n_hidden);
  (void)fputc('}', out);
}

static void put_round(FILE *out, const session *s, const pdt_trace_round *r) {
  (void)fprintf(out, "%s{\"round\":%d,\"window\":[", r->round > 1 ? "," : "", r->round);
  for (int32_t i = 0; i < r->n_window; i++)
    (void)fprintf(out, "%s[%d,%d]", i ? "," : "", r->window[i].round, r->window[i].stream);
  (void)fputs("],\"streams\":[", out);
  for (int32_t i = 0; i < r->n_blocks; i++) {
    if (i) (void)fputc(',', out);
    put_block(out, s, &r->blocks[i]);
  }
  (void)fprintf(out, "],\"gate\":%s,\"actions\":{", r->gate ? "true" : "false");
  for (int32_t i = 0; i < r->n_blocks; i++)
    (void)fprintf(out, "%s\"%d\":\"%s\"", i ? "," : "", r->blocks[i].stream,
                  pdt_action_name(r->blocks[i].action));
  (void)fputs("},\"stalled_next\":", out);
  pdt_json_put_i32s(out, r->stalled_next, (size_t)r->n_stalled);
  (void)fputs(",\"committed\":", out);
  pdt_json_put_i32s(out, r->committed, (size_t)r->n_streams);
  (void)fputc('}', out);
}

int pdt_trace_add_round(pdt_trace *trace, int32_t request, const pdt_trace_round *round,
                        pdt_error *err) {
  session *s = in_state(trace, request, OPEN, err);
  if (!s) return -1;
  if (check_round(s, round, err)) return pdt_fail_in(err, "request %d", request);
  piece p;
  if (start_piece(&p, err)) return -1;
  s->round = round->round;
  put_round(p.out, s, round);
  return put_piece(trace, request, &p, err);
}

static void put_stream(FILE *out, int32_t k, const pdt_trace_stream *stream) {
  (void)fprintf(out, "%s{\"stream\":%d,\"tokens\":", k ? "," : "", k);
  pdt_json_put_i32s(out, stream->tokens, (size_t)stream->n_tokens);
  (void)fputs(",\"uncommitted\":", out);
  pdt_json_put_i32s(out, stream->uncommitted, (size_t)stream->n_uncommitted);
  (void)fprintf(out, ",\"done\":%s,\"forced_rounds\":", stream->done ? "true" : "false");
  pdt_json_put_i32s(out, stream->forced_rounds, (size_t)stream->n_forced);
  (void)fputc('}', out);
}

static void put_result(FILE *out, int32_t n_slots, const pdt_trace_result *r) {
  const char *comma = "";
  (void)fputs("],\"streams\":[", out);
  for (int32_t k = 0; k < r->n_streams; k++) put_stream(out, k, &r->streams[k]);
  (void)fputs("],\"slot_owner\":{", out);
  for (int32_t i = 0; i < n_slots; i++) {
    if (r->slot_owner[i] < 0) continue;
    (void)fprintf(out, "%s\"%d\":%d", comma, i, r->slot_owner[i]);
    comma = ",";
  }
  (void)fputs("},\"merge_order\":", out);
  pdt_json_put_i32s(out, r->merge_order, (size_t)r->n_streams);
  (void)fputs("}\n", out);
}

int pdt_trace_end(pdt_trace *trace, int32_t request, const pdt_trace_result *result,
                  pdt_error *err) {
  session *s = in_state(trace, request, OPEN, err);
  if (!s) return -1;
  if (result->n_streams < 1 || (s->round > 0 && result->n_streams != s->n_streams))
    return REFUSE("request %d: a result of %d streams after rounds of %d", request,
                  result->n_streams, s->n_streams);
  piece p;
  if (start_piece(&p, err)) return -1;
  put_result(p.out, s->n_slots, result);
  if (put_piece(trace, request, &p, err)) return -1;
  s->state = ENDED;
  return pdt_turns_end(trace->turns, request, err);
}

int pdt_trace_close(pdt_trace *trace, pdt_error *err) {
  int32_t next = pdt_turns_next(trace->turns);
  int rc = next < trace->n_requests ? REFUSE("request %d has not ended", next)
                                    : pdt_sink_commit(&trace->sink, err);
  pdt_trace_discard(trace);
  return rc;
}

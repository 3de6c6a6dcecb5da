#include "run/decode_output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/text_safe.h"
#include "run/decode_journal.h"
#include "run/result.h"
#include "run/rounds.h"
#include "run/terminal.h"

/* Is one of the files standard output? Then nothing else is printed there. */
static bool takes_standard_output(const pdt_decode_options *o) {
  const char *const paths[] = {o->out, o->trace, o->journal};
  for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
    if (paths[i] && pdt_sink_descriptor(paths[i]) == STDOUT_FILENO) return true;
  return false;
}

/* Prints of the answers what has come of them. */
static int print_text(void *context, const void *text, pdt_bytes bytes, pdt_error *err) {
  pdt_decode_output *o = context;
  pdt_progress_stop(&o->progress);
  if (fwrite(text, 1, (size_t)bytes, stdout) == (size_t)bytes && fflush(stdout) == 0) return 0;
  return pdt_fail(err, PDT_ERROR_IO, "standard output: cannot write the answer: %s",
                  strerror(errno));
}

/* Answers are printed unless standard output has another use, or is closed and --out has them. */
static int open_answers(pdt_decode_output *o, pdt_error *err) {
  const pdt_decode_options *options = o->options;
  if (options->json || takes_standard_output(options)) return 0;
  bool closed = (fcntl(STDOUT_FILENO, F_GETFL) & O_ACCMODE) == O_RDONLY;
  if (closed && options->out) return 0;
  if (closed)
    return pdt_fail(err, PDT_ERROR_IO, "standard output: it is closed (hint: --out FILE)");
  return pdt_turns_new(&o->answers, o->input->n, pdt_temporary_folder(), print_text, o, err);
}

/* A new journal, or the one from which the run goes on. */
static int open_journal(pdt_decode_output *o, pdt_error *err) {
  const pdt_decode_options *options = o->options;
  o->journals = true;
  if (!options->resume)
    return pdt_journal_create(&o->journal, options->journal, options->overwrite,
                              options->journal_sync, err);
  if (pdt_journal_continue(&o->journal, options->journal, options->journal_sync, err) ||
      pdt_decode_resume_read(&o->resume, options, o->input, err))
    return -1;
  if (o->resume.on) pdt_journal_keep(&o->journal, o->resume.good);
  o->begun = o->resume.on;
  o->order.next = (int32_t)o->resume.replay.n;
  return 0;
}

int pdt_decode_output_open(pdt_decode_output *o, const pdt_decode_options *options,
                           pdt_decode_input *input, pdt_error *err) {
  *o = (pdt_decode_output){.options = options, .input = input, .journal = {.fd = -1}};
  pdt_output_format format = options->json ? PDT_OUTPUT_JSONL : PDT_OUTPUT_PROTO;
  const char *out = options->out ? options->out : options->json ? "-" : NULL;
  if ((options->trace && pdt_trace_open(&o->trace, options->trace, input->n, err)) ||
      (out && pdt_output_open(&o->output, out, format, err)) ||
      (out && pdt_output_in_turns(o->output, input->n, err)) || open_answers(o, err))
    return -1;
  return options->journal ? open_journal(o, err) : 0;
}

/* The first session to start, or request to fail, begins the journal: by then nothing is left to be
 * refused, and an older journal may go. */
static int journal_header(pdt_decode_output *o, pdt_error *err) {
  if (!o->begun && pdt_decode_journal_header(&o->journal, o->input, o->engine, o->world, err))
    return -1;
  o->begun = true;
  return 0;
}

static int journal_start(pdt_decode_output *o, const pdt_running *s, pdt_error *err) {
  return journal_header(o, err) ||
                 pdt_decode_journal_start(&o->journal, &o->order, s, &o->input->sidecar, err)
             ? -1
             : 0;
}

static int on_session_started(void *context, const pdt_running *s, pdt_error *err) {
  pdt_decode_output *o = context;
  int32_t S = o->input->sidecar.plan_slots, dn = o->input->sidecar.notes_dim;
  bool had_started;
  if (o->trace && pdt_trace_begin(o->trace, s->index, s->plan.ids, S, s->plan.note, dn, err))
    return -1;
  if (pdt_decode_resume_started(&o->resume, s, &o->input->sidecar, &had_started, err)) return -1;
  return o->journals && !had_started ? journal_start(o, s, err) : 0;
}

static int on_decided(void *context, const void *packed, pdt_bytes bytes, pdt_error *err) {
  pdt_decode_output *o = context;
  return o->journals ? pdt_journal_append_decision(&o->journal, packed, bytes, err) : 0;
}

/* Arrays that a trace round points to. */
typedef struct trace_room {
  pdt_trace_note *window;
  pdt_trace_block *blocks;
  pdt_stream *stalled;
  int32_t *committed;
} trace_room;

static void fill_trace_round(const pdt_decode_output *o, const pdt_round_report *report,
                             const trace_room *room, pdt_trace_round *out) {
  const pdt_running *s = report->running;
  *out = (pdt_trace_round){.round = report->round,
                           .window = room->window,
                           .n_window = s->n_window,
                           .gate = report->gate,
                           .blocks = room->blocks,
                           .n_blocks = report->n_blocks,
                           .stalled_next = room->stalled,
                           .committed = room->committed,
                           .n_streams = s->request->settings.streams};
  for (int32_t i = 0; i < s->n_window; i++)
    room->window[i] = (pdt_trace_note){s->window_names[i].round, s->window_names[i].stream};
  for (int32_t i = 0; i < report->n_blocks; i++) {
    const pdt_block_report *b = &report->blocks[i];
    room->blocks[i] = (pdt_trace_block){.stream = b->stream,
                                        .attempt = b->attempt,
                                        .action = b->action,
                                        .tokens = b->tokens,
                                        .n_tokens = b->n_tokens,
                                        .note = b->note,
                                        .coverage = b->coverage,
                                        .readiness = b->readiness,
                                        .last_hidden = b->last_hidden,
                                        .n_hidden = o->input->model.hidden_size};
  }
  for (pdt_stream k = 0; k < s->request->settings.streams; k++) {
    if (s->session.streams[k].stalled) room->stalled[out->n_stalled++] = k;
    room->committed[k] = s->session.streams[k].n_committed;
  }
}

static int trace_round(pdt_decode_output *o, const pdt_round_report *report, pdt_error *err) {
  int32_t K = report->running->request->settings.streams;
  trace_room room = {0};
  pdt_trace_round round;
  int status = PDT_NEW(&room.window, report->running->n_window, "trace", err) ||
               PDT_NEW(&room.blocks, report->n_blocks, "trace", err) ||
               PDT_NEW(&room.stalled, K, "trace", err) || PDT_NEW(&room.committed, K, "trace", err);
  if (!status) {
    fill_trace_round(o, report, &room, &round);
    status = pdt_trace_add_round(o->trace, report->running->index, &round, err);
  }
  free(room.window);
  free(room.blocks);
  free(room.stalled);
  free(room.committed);
  return status;
}

static int on_round_done(void *context, const pdt_round_report *report, pdt_error *err) {
  pdt_decode_output *o = context;
  if (o->resume.replays) return 0; /* it has been told before */
  if (o->options->rounds) {
    if (pdt_rounds_print(stderr, report, o->input->n > 1, o->input->tokenizer, err)) return -1;
  } else {
    pdt_progress_round(&o->progress, report);
  }
  return o->trace ? trace_round(o, report, err) : 0;
}

static int trace_end(pdt_decode_output *o, const pdt_running *s, const pdt_stream *owner,
                     const pdt_stream *order, pdt_error *err) {
  int32_t K = s->request->settings.streams;
  pdt_trace_stream *streams;
  if (PDT_NEW(&streams, K, "trace", err)) return -1;
  for (pdt_stream k = 0; k < K; k++) {
    const pdt_stream_state *stream = &s->session.streams[k];
    streams[k] = (pdt_trace_stream){.tokens = stream->tokens,
                                    .n_tokens = stream->n_committed,
                                    .uncommitted = stream->tokens + stream->n_committed,
                                    .n_uncommitted = stream->n_tokens - stream->n_committed,
                                    .done = stream->done,
                                    .forced_rounds = stream->forced,
                                    .n_forced = stream->n_forced};
  }
  const pdt_trace_result result = {streams, K, owner, order};
  int status = pdt_trace_end(o->trace, s->index, &result, err);
  free(streams);
  return status;
}

/* Hands an answer to whoever prints it; on a terminal, control characters are shown. */
static int print_answer(pdt_decode_output *o, const pdt_answer *a, pdt_error *err) {
  char *shown = NULL;
  size_t bytes = 0;
  FILE *out = open_memstream(&shown, &bytes);
  if (!out) return pdt_fail(err, PDT_ERROR_MEMORY, "answer: no memory");
  bool good = pdt_on_terminal(STDOUT_FILENO)
                  ? pdt_put_shown(out, a->text, a->n_text_bytes)
                  : fwrite(a->text, 1, a->n_text_bytes, out) == a->n_text_bytes;
  good = good && fputc('\n', out) != EOF;
  good = fclose(out) == 0 && good;
  int rc = good ? pdt_turns_put(o->answers, a->request, shown, (pdt_bytes)bytes, err)
                : pdt_fail(err, PDT_ERROR_MEMORY, "answer: no memory");
  free(shown);
  return rc ? -1 : pdt_turns_end(o->answers, a->request, err);
}

/* A session's results go where they belong; before their turn, in request order, they wait. */
static int write_result(pdt_decode_output *o, const pdt_result *r, pdt_error *err) {
  if (o->output &&
      (pdt_result_write(r, o->output, err) || pdt_output_end(o->output, r->answer.request, err)))
    return -1;
  return o->answers ? print_answer(o, &r->answer, err) : 0;
}

static int on_session_ended(void *context, const pdt_running *s, pdt_error *err) {
  pdt_decode_output *o = context;
  const pdt_outcome outcome = {.request = s->request,
                               .index = s->index,
                               .streams = s->session.streams,
                               .plan_ids = s->plan.ids,
                               .slots = o->input->sidecar.plan_slots,
                               .complete = pdt_session_complete(&s->session)};
  pdt_result r;
  pdt_progress_session_ended(&o->progress);
  int status = pdt_result_make(&r, &outcome, o->input->tokenizer, err);
  if (!status && o->trace) status = trace_end(o, s, r.owner, r.order, err);
  if (!status && o->journals)
    status = pdt_decode_journal_end(&o->journal, s->request, s->index, outcome.complete, err);
  if (!status) status = write_result(o, &r, err);
  pdt_result_free(&r);
  return status;
}

/* ---- requests that are not served ---- */

enum { TOLD_FAILURES = 20 };

/* The error stands in the output where the answer would, and on standard error, unless there are
 * too many. */
static int write_failure(void *context, const Pdt__RequestFailure *f, pdt_error *err) {
  pdt_decode_output *o = context;
  pdt_progress_stop(&o->progress);
  pdt_progress_session_ended(&o->progress);
  if (o->n_failed++ < TOLD_FAILURES)
    pdt_say(stderr, "%s: request %u is not served: %.*s", o->name, f->request, (int)f->error.len,
            (const char *)f->error.data);
  if (o->output && (pdt_output_failure(o->output, f, err) ||
                    pdt_output_end(o->output, (int32_t)f->request, err)))
    return -1;
  return o->answers ? pdt_turns_end(o->answers, (int32_t)f->request, err) : 0;
}

static int tell_failure(pdt_decode_output *o, const Pdt__RequestFailure *f, pdt_error *err) {
  if (o->journals &&
      (journal_header(o, err) || pdt_decode_journal_failure(&o->journal, &o->order, f, err)))
    return -1;
  return write_failure(o, f, err);
}

/* Tells of a request that is not served; `told`: the journal has it. */
static int fail_request(pdt_decode_output *o, const pdt_request *r, int32_t index,
                        const pdt_error *why, bool told, pdt_error *err) {
  Pdt__RequestFailure f = PDT__REQUEST_FAILURE__INIT;
  char *text = pdt_escaped(why->message);
  if (!text) return pdt_fail(err, PDT_ERROR_MEMORY, "request %d: no memory", index);
  f.session = r->session;
  f.request = (uint32_t)index;
  f.line = (uint32_t)r->line;
  f.error = (ProtobufCBinaryData){strlen(text), (uint8_t *)text};
  int status = told ? write_failure(o, &f, err) : tell_failure(o, &f, err);
  free(text);
  return status;
}

static int on_request_failed(void *context, const pdt_request *r, int32_t index,
                             const pdt_error *why, pdt_error *err) {
  return fail_request(context, r, index, why, false, err);
}

static pdt_next next_request(void *context, bool may_wait, const pdt_request **request,
                             pdt_error *err) {
  pdt_decode_output *o = context;
  pdt_next next = o->requests.next(o->requests.context, may_wait, request, err);
  if (next != PDT_NEXT_REQUEST && next != PDT_NEXT_PASSED) return next;
  int32_t index = o->n_taken++;
  Pdt__RequestFailure *failure = o->input->failure;
  if (pdt_decode_resume_is_settled(&o->resume, index)) return PDT_NEXT_PASSED;
  if (failure) failure->request = (uint32_t)index;
  return failure && tell_failure(o, failure, err) ? PDT_NEXT_FAILED : next;
}

pdt_request_source pdt_decode_output_source(pdt_decode_output *o) {
  o->requests = pdt_decode_input_source(o->input);
  return (pdt_request_source){o, next_request};
}

/* ---- what an earlier run has left ---- */

/* A session that had ended before this run: its results are made of what the journal tells, as they
 * were then. */
static int keep_session(void *context, const pdt_replay_session *s, bool told, pdt_error *err) {
  pdt_decode_output *o = context;
  const pdt_outcome outcome = {.request = &s->request,
                               .index = s->index,
                               .streams = s->session.streams,
                               .plan_ids = s->plan_ids,
                               .slots = s->slots,
                               .complete = pdt_session_complete(&s->session)};
  pdt_error why = {0};
  pdt_result r;
  if (s->fault != PDT_FAULT_NONE) {
    pdt_request_fault(&why, &s->request, s->index, s->round, s->fault_stream, s->fault);
    return fail_request(o, &s->request, s->index, &why, told, err);
  }
  pdt_progress_session_ended(&o->progress);
  if (!told && pdt_decode_journal_end(&o->journal, &s->request, s->index, outcome.complete, err))
    return -1;
  int status = pdt_result_make(&r, &outcome, o->input->tokenizer, err);
  if (!status) status = write_result(o, &r, err);
  pdt_result_free(&r);
  return status;
}

int pdt_decode_output_begin(pdt_decode_output *o, const pdt_engine *engine, const pdt_comm *world,
                            const char *name, pdt_error *err) {
  const pdt_decode_keeper keeper = {o, keep_session, write_failure};
  pdt_progress_start(&o->progress, !o->options->quiet, o->input->n);
  o->engine = engine;
  o->world = world;
  o->name = name;
  return o->resume.on ? pdt_decode_resume_kept(&o->resume, &keeper, err) : 0;
}

pdt_observer pdt_decode_output_observer(pdt_decode_output *o) {
  return (pdt_observer){.context = o,
                        .session_started = on_session_started,
                        .decided = on_decided,
                        .round_done = on_round_done,
                        .session_ended = on_session_ended,
                        .request_failed = o->options->skip_errors ? on_request_failed : NULL};
}

int pdt_decode_output_close(pdt_decode_output *o, bool keep, pdt_error *err) {
  int status = 0;
  pdt_progress_stop(&o->progress);
  if (o->output && keep)
    status = pdt_output_close(o->output, err);
  else
    pdt_output_discard(o->output);
  if (o->trace && keep && !status)
    status = pdt_trace_close(o->trace, err);
  else
    pdt_trace_discard(o->trace);
  pdt_turns_free(o->answers);
  pdt_decode_resume_free(&o->resume);
  pdt_journal_order_free(&o->order);
  pdt_error late = {0};
  if (pdt_journal_close(&o->journal, &late) && !status && keep) {
    *err = late;
    status = -1;
  }
  *o = (pdt_decode_output){.journal = {.fd = -1}};
  return status;
}

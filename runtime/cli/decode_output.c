#include "cli/decode_output.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"
#include "cli/rounds.h"
#include "cli/terminal.h"
#include "pdt_version.h"
#include "protocol/merge.h"

/* A text made from tokens. */
typedef struct decoded_text {
  char *text;
  size_t bytes;
} decoded_text;

struct pdt_result {
  bool ended;
  bool complete;
  int32_t K;
  pdt_artifact *artifacts; /* [K]; owns tokens, text, forced rounds, slots */
  pdt_stream *order;       /* [K] */
  decoded_text answer;
};

static void free_result(pdt_result *r) {
  for (int32_t k = 0; r->artifacts && k < r->K; k++) {
    free((void *)(uintptr_t)r->artifacts[k].tokens);
    free((void *)(uintptr_t)r->artifacts[k].text);
    free((void *)(uintptr_t)r->artifacts[k].forced_rounds);
    free((void *)(uintptr_t)r->artifacts[k].slots);
  }
  free(r->artifacts);
  free(r->order);
  free(r->answer.text);
  *r = (pdt_result){0};
}

int pdt_decode_output_open(pdt_decode_output *o, const pdt_decode_options *options,
                           const pdt_decode_input *input, pdt_error *err) {
  *o = (pdt_decode_output){.options = options, .input = input, .journal = {.fd = -1}};
  pdt_output_format format = options->json ? PDT_OUTPUT_JSONL : PDT_OUTPUT_PROTO;
  const char *out = options->out ? options->out : options->json ? "/dev/stdout" : NULL;
  if (PDT_NEW(&o->results, input->n, "results", err) ||
      (options->trace && pdt_trace_new(&o->trace, input->n, err)) ||
      (out && pdt_output_open(&o->output, out, format, err)))
    return -1;
  if (!options->journal) return 0;
  if (pdt_journal_create(&o->journal, options->journal, options->overwrite,
                         PDT_JOURNAL_SYNC_AT_CLOSE, err))
    return -1;
  o->journals = true;
  return 0;
}

/* The requests as they were resolved, a string each. */
static int request_strings(const json_t *list, char ***strings, size_t *n, pdt_error *err) {
  *n = json_array_size(list);
  if (PDT_NEW(strings, *n, "journal", err)) return -1;
  for (size_t i = 0; i < *n; i++) {
    (*strings)[i] = json_dumps(json_array_get(list, i), JSON_COMPACT);
    if (!(*strings)[i]) return pdt_fail(err, PDT_ERROR_MEMORY, "journal: no memory");
  }
  return 0;
}

int pdt_decode_output_begin(pdt_decode_output *o, const pdt_engine *engine, const pdt_comm *world,
                            pdt_error *err) {
  pdt_progress_start(&o->progress, !o->options->quiet, o->input->n);
  if (!o->journals) return 0;
  Pdt__RunHeader header = PDT__RUN_HEADER__INIT;
  char **strings = NULL;
  uint64_t model = 0;
  int status =
      pdt_checkpoint_fingerprint(pdt_engine_checkpoint(engine), PDT_FINGERPRINT_QUICK, &model, err);
  header.version = (char *)(uintptr_t)PDT_VERSION;
  header.model_fingerprint = model;
  header.sidecar_fingerprint =
      pdt_safetensors_fingerprint(pdt_engine_sidecar_file(engine), PDT_FINGERPRINT_QUICK);
  header.ranks = (uint32_t)world->size;
  header.tensor_parallel = (uint32_t)pdt_engine_layout_of(engine).tensor_parallel;
  if (!status) status = request_strings(o->input->resolved, &strings, &header.n_requests_json, err);
  header.requests_json = strings;
  if (!status) status = pdt_journal_append_header(&o->journal, &header, err);
  for (size_t i = 0; strings && i < header.n_requests_json; i++) free(strings[i]);
  free(strings);
  return status;
}

static int on_session_started(void *context, const pdt_session *s, pdt_error *err) {
  pdt_decode_output *o = context;
  int32_t S = o->input->sidecar.plan_slots, dn = o->input->sidecar.notes_dim;
  if (o->trace && pdt_trace_begin(o->trace, s->index, s->plan.ids, S, s->plan.note, dn, err))
    return -1;
  if (!o->journals) return 0;
  Pdt__SessionStart start = PDT__SESSION_START__INIT;
  start.session = s->request->session;
  start.request = (uint32_t)s->index;
  start.n_plan_ids = (size_t)S;
  start.plan_ids = s->plan.ids;
  start.n_plan_note = (size_t)dn;
  start.plan_note = s->plan.note;
  return pdt_journal_append_start(&o->journal, &start, err);
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
  const pdt_session *s = report->session;
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
    if (s->streams[k].stalled) room->stalled[out->n_stalled++] = k;
    room->committed[k] = s->streams[k].n_committed;
  }
}

static int trace_round(pdt_decode_output *o, const pdt_round_report *report, pdt_error *err) {
  int32_t K = report->session->request->settings.streams;
  trace_room room = {0};
  pdt_trace_round round;
  int status = PDT_NEW(&room.window, report->session->n_window, "trace", err) ||
               PDT_NEW(&room.blocks, report->n_blocks, "trace", err) ||
               PDT_NEW(&room.stalled, K, "trace", err) || PDT_NEW(&room.committed, K, "trace", err);
  if (!status) {
    fill_trace_round(o, report, &room, &round);
    status = pdt_trace_add_round(o->trace, report->session->index, &round, err);
  }
  free(room.window);
  free(room.blocks);
  free(room.stalled);
  free(room.committed);
  return status;
}

static int on_round_done(void *context, const pdt_round_report *report, pdt_error *err) {
  pdt_decode_output *o = context;
  if (o->options->rounds) {
    if (pdt_rounds_print(stderr, report, o->input->tokenizer, err)) return -1;
  } else {
    pdt_progress_round(&o->progress, report);
  }
  return o->trace ? trace_round(o, report, err) : 0;
}

/* Is `text` the text `start` followed by replacement characters alone, at least one? */
static bool is_cut_short(const decoded_text *text, const decoded_text *start) {
  static const char replacement[] = "\xEF\xBF\xBD";
  if (text->bytes <= start->bytes || memcmp(text->text, start->text, start->bytes) != 0)
    return false;
  for (size_t at = start->bytes; at < text->bytes; at += 3)
    if (text->bytes - at < 3 || memcmp(text->text + at, replacement, 3) != 0) return false;
  return true;
}

/* The text of tokens, special ones left out. A text that ends inside a character, whose last one to
 * three tokens decode to replacement characters alone, ends before it. */
static int decode_tokens(const pdt_decode_output *o, const pdt_token *ids, int32_t n,
                         decoded_text *out, pdt_error *err) {
  const pdt_tokenizer *t = o->input->tokenizer;
  if (!t) {
    out->text = calloc(1, 1);
    return out->text ? 0 : pdt_fail(err, PDT_ERROR_MEMORY, "text: no memory");
  }
  if (pdt_tokenizer_decode(t, ids, n, true, &out->text, &out->bytes, err)) return -1;
  bool replaced = out->bytes >= 3 && memcmp(out->text + out->bytes - 3, "\xEF\xBF\xBD", 3) == 0;
  for (int32_t cut = 1; replaced && cut <= 3 && cut <= n; cut++) {
    decoded_text shorter;
    if (pdt_tokenizer_decode(t, ids, n - cut, true, &shorter.text, &shorter.bytes, err)) return -1;
    bool found = is_cut_short(out, &shorter);
    if (found) out->bytes = shorter.bytes;
    free(shorter.text);
    if (found) break;
  }
  return 0;
}

static int copy_ints(const int32_t *from, int32_t n, int32_t **to, pdt_error *err) {
  if (PDT_NEW(to, n, "result", err)) return -1;
  memcpy(*to, from, (size_t)n * sizeof *from);
  return 0;
}

/* What one stream came to, in memory of its own. */
static int make_artifact(const pdt_decode_output *o, const pdt_session *s, pdt_stream k,
                         const pdt_stream *owner, pdt_artifact *a, pdt_error *err) {
  const pdt_stream_state *stream = &s->streams[k];
  int32_t *tokens = NULL, *forced = NULL, *slots = NULL, S = o->input->sidecar.plan_slots;
  decoded_text text = {0};
  int status = copy_ints(stream->tokens, stream->n_committed, &tokens, err) ||
               copy_ints(stream->forced, stream->n_forced, &forced, err) ||
               PDT_NEW(&slots, S, "result", err) ||
               decode_tokens(o, stream->tokens, stream->n_committed, &text, err);
  *a = (pdt_artifact){.session = s->request->session,
                      .request = s->index,
                      .stream = k,
                      .tokens = tokens,
                      .n_tokens = stream->n_committed,
                      .text = text.text,
                      .n_text_bytes = text.bytes,
                      .done = stream->done,
                      .forced_rounds = forced,
                      .n_forced = stream->n_forced,
                      .uncommitted_tokens = stream->n_tokens - stream->n_committed,
                      .slots = slots};
  for (int32_t i = 0; i < S && !status; i++)
    if (owner[i] == k) slots[a->n_slots++] = i;
  return status ? -1 : 0;
}

/* A stream's part of the answer: its section, then what it committed. */
static int append_section(const pdt_decode_output *o, const pdt_session *s, pdt_stream k,
                          FILE *answer, pdt_error *err) {
  const pdt_request *r = s->request;
  const pdt_stream_state *stream = &s->streams[k];
  int32_t n = r->n_prefix[k] + stream->n_committed;
  pdt_token *ids;
  decoded_text text = {0};
  if (PDT_NEW(&ids, n, "answer", err)) return -1;
  if (r->n_prefix[k]) memcpy(ids, r->prefix[k], (size_t)r->n_prefix[k] * sizeof *ids);
  memcpy(ids + r->n_prefix[k], stream->tokens, (size_t)stream->n_committed * sizeof *ids);
  int status = decode_tokens(o, ids, n, &text, err);
  if (!status && fwrite(text.text, 1, text.bytes, answer) != text.bytes)
    status = pdt_fail(err, PDT_ERROR_MEMORY, "answer: no memory");
  free(ids);
  free(text.text);
  return status;
}

/* The merged answer: the streams' parts in merge order, a line break between them. */
static int make_answer(const pdt_decode_output *o, const pdt_session *s, pdt_result *r,
                       pdt_error *err) {
  FILE *answer = open_memstream(&r->answer.text, &r->answer.bytes);
  if (!answer) return pdt_fail(err, PDT_ERROR_MEMORY, "answer: no memory");
  int status = 0;
  for (int32_t i = 0; i < r->K && !status; i++) {
    if (i > 0) fputc('\n', answer);
    status = append_section(o, s, r->order[i], answer, err);
  }
  if (fclose(answer) != 0 && !status) status = pdt_fail(err, PDT_ERROR_MEMORY, "answer: no memory");
  return status;
}

static int trace_end(pdt_decode_output *o, const pdt_session *s, const pdt_stream *owner,
                     const pdt_stream *order, pdt_error *err) {
  int32_t K = s->request->settings.streams;
  pdt_trace_stream *streams;
  if (PDT_NEW(&streams, K, "trace", err)) return -1;
  for (pdt_stream k = 0; k < K; k++) {
    const pdt_stream_state *stream = &s->streams[k];
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

/* Writes the results whose turn has come: in request order, whatever order sessions end in. */
static int write_results(pdt_decode_output *o, pdt_error *err) {
  bool prints = !o->options->json;
  for (; o->next < o->input->n && o->results[o->next].ended; o->next++) {
    pdt_result *r = &o->results[o->next];
    const pdt_answer answer = {.session = r->artifacts[0].session,
                               .request = o->next,
                               .order = r->order,
                               .n_order = r->K,
                               .text = r->answer.text,
                               .n_text_bytes = r->answer.bytes,
                               .complete = r->complete};
    for (int32_t k = 0; k < r->K && o->output; k++)
      if (pdt_output_artifact(o->output, &r->artifacts[k], err)) return -1;
    if (o->output && pdt_output_answer(o->output, &answer, err)) return -1;
    if (prints) {
      pdt_progress_stop(&o->progress);
      bool written = pdt_on_terminal(STDOUT_FILENO)
                         ? pdt_print_for_terminal(stdout, r->answer.text, r->answer.bytes)
                         : fwrite(r->answer.text, 1, r->answer.bytes, stdout) == r->answer.bytes;
      if (!written || fputc('\n', stdout) == EOF || fflush(stdout) != 0)
        return pdt_fail(err, PDT_ERROR_IO, "standard output: cannot write the answer");
    }
    free_result(r);
    r->ended = true;
  }
  return 0;
}

static int journal_end(pdt_decode_output *o, const pdt_session *s, pdt_error *err) {
  Pdt__SessionEnd end = PDT__SESSION_END__INIT;
  end.session = s->request->session;
  end.request = (uint32_t)s->index;
  end.complete = pdt_session_complete(s);
  return pdt_journal_append_end(&o->journal, &end, err);
}

static int on_session_ended(void *context, const pdt_session *s, pdt_error *err) {
  pdt_decode_output *o = context;
  pdt_result *r = &o->results[s->index];
  int32_t K = s->request->settings.streams, S = o->input->sidecar.plan_slots;
  pdt_stream *owner;
  pdt_progress_session_ended(&o->progress);
  if (PDT_NEW(&owner, S, "result", err)) return -1;
  int status = PDT_NEW(&r->artifacts, K, "result", err) || PDT_NEW(&r->order, K, "result", err);
  r->K = K;
  r->complete = pdt_session_complete(s);
  if (!status) pdt_merge(s->streams, K, s->plan.ids, S, owner, r->order);
  for (pdt_stream k = 0; k < K && !status; k++)
    status = make_artifact(o, s, k, owner, &r->artifacts[k], err);
  if (!status && o->trace) status = trace_end(o, s, owner, r->order, err);
  if (!status) status = make_answer(o, s, r, err);
  if (!status && o->journals) status = journal_end(o, s, err);
  free(owner);
  if (status) return -1;
  r->ended = true;
  return write_results(o, err);
}

pdt_observer pdt_decode_output_observer(pdt_decode_output *o) {
  return (pdt_observer){.context = o,
                        .session_started = on_session_started,
                        .decided = on_decided,
                        .round_done = on_round_done,
                        .session_ended = on_session_ended};
}

int pdt_decode_output_close(pdt_decode_output *o, bool keep, pdt_error *err) {
  int status = 0;
  pdt_progress_stop(&o->progress);
  if (o->output && keep)
    status = pdt_output_close(o->output, err);
  else
    pdt_output_discard(o->output);
  if (o->trace && keep && !status) status = pdt_trace_write(o->trace, o->options->trace, err);
  pdt_trace_free(o->trace);
  pdt_error late = {0};
  if (pdt_journal_close(&o->journal, &late) && !status && keep) {
    *err = late;
    status = -1;
  }
  for (int32_t i = 0; o->results && i < o->input->n; i++) free_result(&o->results[i]);
  free(o->results);
  *o = (pdt_decode_output){.journal = {.fd = -1}};
  return status;
}

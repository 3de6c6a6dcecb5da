#include "serve/reply.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/json_text.h"
#include "base/memory.h"
#include "base/text_safe.h"
#include "request/setting_table.h"
#include "run/result.h"

static bool is_chat(const pdt_reply *r) {
  return r->ask->form == PDT_ASK_CHAT;
}

static int new_choice(const pdt_reply *r, pdt_choice *c, pdt_error *err) {
  if (pdt_parts_new(&c->parts, r->ask, c->job, r->tokenizer, err)) return -1;
  if (c->job->n_logprobs == 0) return 0;
  return PDT_NEW(&c->n_told, c->job->request.settings.streams, "answer", err);
}

static void free_choice(pdt_choice *c) {
  pdt_parts_free(&c->parts);
  free(c->n_told);
}

int pdt_reply_new(pdt_reply *r, const pdt_ask *ask, pdt_job *const *jobs,
                  const pdt_tokenizer *tokenizer, const char *model, uint64_t number,
                  pdt_error *err) {
  *r = (pdt_reply){.ask = ask, .tokenizer = tokenizer, .model = model};
  r->created = (int64_t)time(NULL);
  snprintf(r->id, sizeof r->id, "%s-%llx-%llx", is_chat(r) ? "chatcmpl" : "cmpl",
           (unsigned long long)r->created, (unsigned long long)number);
  if (PDT_NEW(&r->choices, ask->n, "answer", err)) return -1;
  for (; r->n_choices < ask->n; r->n_choices++) {
    pdt_choice *c = &r->choices[r->n_choices];
    c->job = jobs[r->n_choices];
    if (!new_choice(r, c, err)) continue;
    free_choice(c);
    return -1;
  }
  return 0;
}

void pdt_reply_free(pdt_reply *r) {
  for (int32_t i = 0; i < r->n_choices; i++) free_choice(&r->choices[i]);
  free(r->choices);
}

int pdt_reply_read(pdt_reply *r, int32_t i, size_t n, size_t n_records, bool over, pdt_error *err) {
  pdt_choice *c = &r->choices[i];
  c->n_records = n_records;
  c->over = over;
  if (!r->ask->stream && !r->ask->stops) return 0; /* all at once, at the end */
  return pdt_parts_read(&c->parts, n, err) || (over && pdt_parts_end(&c->parts, err)) ? -1 : 0;
}

/* ---- text that grows ---- */

/* A stream into memory that ends in a buffer. */
typedef struct writer {
  char *text;
  size_t bytes;
  FILE *out;
  bool good; /* texts could be quoted */
} writer;

static int open_writer(writer *w, pdt_error *err) {
  *w = (writer){.good = true};
  w->out = open_memstream(&w->text, &w->bytes);
  return w->out ? 0 : pdt_fail(err, PDT_ERROR_MEMORY, "answer: no memory");
}

static int close_writer(writer *w, pdt_buffer *to, pdt_error *err) {
  bool good = w->good && !ferror(w->out);
  good = fclose(w->out) == 0 && good;
  int status = good ? pdt_buffer_put(to, w->text, w->bytes, err)
                    : pdt_fail(err, PDT_ERROR_MEMORY, "answer: no memory");
  free(w->text);
  return status;
}

static void put_text(writer *w, const char *text, size_t bytes) {
  w->good = pdt_json_put_string(w->out, text, bytes) && w->good;
}

/* One of our own words; NULL: none. */
static void put_word(writer *w, const char *word) {
  if (word)
    fprintf(w->out, "\"%s\"", word);
  else
    fputs("null", w->out);
}

/* A text of a message, which may have been cut anywhere. */
static void put_message(writer *w, const char *text) {
  char *safe = pdt_escaped(text);
  w->good = safe && w->good;
  if (safe) put_text(w, safe, strlen(safe));
  free(safe);
}

/* ---- what all answers say ---- */

static void put_head(writer *w, const pdt_reply *r) {
  const char *object = !is_chat(r)      ? "text_completion"
                       : r->ask->stream ? "chat.completion.chunk"
                                        : "chat.completion";
  fprintf(w->out, "{\"id\":\"%s\",\"object\":\"%s\",\"created\":%lld,\"model\":", r->id, object,
          (long long)r->created);
  put_text(w, r->model, strlen(r->model));
}

/* A choice: a text, or what an assistant says, whole or the next piece of it; likely: how likely
 * its tokens were, NULL: that is not asked for. */
static void put_choice(writer *w, const pdt_reply *r, const pdt_choice *c, const char *text,
                       size_t bytes, const pdt_likely *likely, const char *reason) {
  fprintf(w->out, "{\"index\":%d,", (int)(c - r->choices));
  if (!is_chat(r))
    fputs("\"text\":", w->out);
  else if (!r->ask->stream)
    fputs("\"message\":{\"role\":\"assistant\",\"content\":", w->out);
  else
    fprintf(w->out, "\"delta\":{%s\"content\":", c->begun ? "" : "\"role\":\"assistant\",");
  put_text(w, text, bytes);
  fputs(is_chat(r) ? "},\"logprobs\":" : ",\"logprobs\":", w->out);
  if (likely)
    w->good = pdt_likely_put(likely, is_chat(r), w->out) && w->good;
  else
    fputs("null", w->out);
  fputs(",\"finish_reason\":", w->out);
  put_word(w, reason);
  fputc('}', w->out);
}

/* Of a choice's streams as they are, or were where the answer is cut. */
static int64_t tokens_of(const pdt_choice *c) {
  int64_t tokens = 0;
  if (c->parts.cut == 0) return pdt_job_committed(c->job);
  for (size_t i = 0; i < c->parts.cut; i++) tokens += c->job->blocks[i].n_tokens;
  return tokens;
}

/* The prompt, which all choices share, counts once. */
static void put_usage(writer *w, const pdt_reply *r) {
  long long prompt = pdt_job_prompt_tokens(r->choices[0].job), tokens = 0;
  for (int32_t i = 0; i < r->n_choices; i++) tokens += tokens_of(&r->choices[i]);
  fprintf(w->out,
          ",\"usage\":{\"prompt_tokens\":%lld,\"completion_tokens\":%lld,\"total_tokens\":%lld}",
          prompt, tokens, prompt + tokens);
}

/* What ended the session, or the answer before it. */
static const char *ended_by(const pdt_choice *c) {
  bool done = true;
  if (c->parts.cut > 0) return "stop";
  for (pdt_stream k = 0; k < c->job->request.settings.streams; k++)
    done = done && c->job->streams[k].done;
  return done ? "complete" : "max_rounds";
}

/* "stop": every part ended by itself, or where it was to; else "length". */
static const char *finish_reason(const pdt_choice *c) {
  bool good = true;
  if (c->parts.cut == 0) return pdt_job_finish_reason(c->job);
  for (pdt_stream k = 0; k < c->job->request.settings.streams; k++)
    good = good && (c->parts.parts[k].stopped || c->job->streams[k].ended);
  return good ? "stop" : "length";
}

/* What a choice's session was, {... without its end. */
static void put_pdt(writer *w, const pdt_choice *c, const pdt_stream *order) {
  const pdt_job *job = c->job;
  const pdt_settings *s = &job->request.settings;
  const pdt_job_counts *n = c->parts.cut > 0 ? &job->blocks[c->parts.cut - 1].counts : &job->counts;
  fputs("{\"session\":", w->out);
  pdt_json_put_u64(w->out, job->request.session);
  fputs(",\"order\":", w->out);
  pdt_json_put_i32s(w->out, order, (size_t)s->streams);
  fputs(",\"plan_ids\":", w->out);
  pdt_json_put_i32s(w->out, job->plan_ids, (size_t)s->limits.slots);
  fprintf(w->out,
          ",\"ended_by\":\"%s\",\"rounds\":%lld,\"gates_passed\":%lld,\"commits\":%lld,"
          "\"holds\":%lld,\"rollbacks\":%lld,\"forced\":%lld",
          ended_by(c), (long long)n->rounds, (long long)n->gates,
          (long long)n->actions[PDT_ACTION_COMMIT], (long long)n->actions[PDT_ACTION_HOLD],
          (long long)n->actions[PDT_ACTION_ROLLBACK], (long long)n->actions[PDT_ACTION_FORCE]);
}

/* ---- whole answers ---- */

/* The records of pdt decode --out: an artifact a stream, then the answer. */
static int make_records(const pdt_result *result, pdt_output_format format, char **lines,
                        size_t *bytes, pdt_error *err) {
  pdt_output *output;
  pdt_error ignored = {0};
  if (pdt_output_open_memory(&output, format, err)) return -1;
  int status = pdt_result_write(result, output, err);
  return pdt_output_take(output, lines, bytes, status ? &ignored : err) || status ? -1 : 0;
}

/* The artifacts of those records, as lines, in a list. */
static void put_artifacts(writer *w, const char *lines, int32_t K) {
  fputs(",\"artifacts\":[", w->out);
  for (int32_t k = 0; k < K; k++) {
    const char *end = strchr(lines, '\n');
    if (k > 0) fputc(',', w->out);
    (void)fwrite(lines, 1, (size_t)(end - lines), w->out);
    lines = end + 1;
  }
  fputs("]}", w->out);
}

/* The result of a choice's session, or of what it had come to where the answer is cut. */
static int make_result(const pdt_reply *r, const pdt_choice *c, pdt_result *result,
                       pdt_error *err) {
  const pdt_job *job = c->job;
  pdt_stream_state *view = NULL;
  pdt_outcome outcome = {.request = &job->request,
                         .streams = job->streams,
                         .plan_ids = job->plan_ids,
                         .slots = job->request.settings.limits.slots,
                         .complete = strcmp(ended_by(c), "max_rounds") != 0};
  *result = (pdt_result){0};
  if (c->parts.cut > 0) {
    if (PDT_NEW(&view, job->request.settings.streams, "answer", err)) return -1;
    outcome.streams = view;
  }
  int status = (view && pdt_job_view(job, c->parts.cut, view, err)) ||
               pdt_result_make(result, &outcome, r->tokenizer, err);
  if (view) free(view[0].best_coverage);
  free(view);
  return status;
}

/* The two lists that a whole answer has of its choices. */
typedef struct lists {
  writer choices, sessions;
} lists;

/* Appends what is known of a part that is over, whose text begins behind *characters, and moves
 * those behind it. */
static int add_part(const pdt_reply *r, const pdt_choice *c, pdt_stream k, pdt_likely *likely,
                    int64_t *characters, pdt_error *err) {
  const pdt_part *part = &c->parts.parts[k];
  const pdt_stream_state *s = &c->job->streams[k];
  char *text = NULL;
  size_t bytes = part->bytes, first = likely->n;
  int32_t n = c->parts.ended ? part->n_tokens : s->n_committed;
  if (!c->parts.ended &&
      pdt_result_part(&c->job->request, s, n, r->tokenizer, &text, &bytes, err)) {
    free(text);
    return -1;
  }
  int status = pdt_likely_add(likely, k, 0, n, *characters, err);
  if (part->stopped) pdt_likely_cut(likely, first, part->bytes);
  *characters += pdt_likely_characters(text ? text : part->text, bytes) + 1;
  free(text);
  return status;
}

/* All of a choice, as its text has it. */
static int find_likely(const pdt_reply *r, const pdt_choice *c, const pdt_stream *order,
                       pdt_likely *likely, pdt_error *err) {
  int64_t characters = 0;
  *likely = (pdt_likely){.job = c->job, .tokenizer = r->tokenizer};
  if (c->job->n_logprobs == 0) return 0;
  for (int32_t i = 0; i < c->job->request.settings.streams; i++)
    if (add_part(r, c, order[i], likely, &characters, err)) return -1;
  return 0;
}

static int put_result(lists *l, const pdt_reply *r, const pdt_choice *c, const pdt_result *result,
                      pdt_error *err) {
  char *cut = NULL, *lines = NULL;
  const char *text = result->answer.text, *comma = c == r->choices ? "" : ",";
  size_t bytes = result->answer.n_text_bytes, n;
  if (c->parts.ended) {
    if (pdt_parts_answer(&c->parts, &cut, &bytes, err)) return -1;
    text = cut;
  }
  pdt_likely likely;
  int status = find_likely(r, c, result->order, &likely, err) ||
               make_records(result, PDT_OUTPUT_JSONL, &lines, &n, err);
  if (!status) {
    fputs(comma, l->choices.out);
    put_choice(&l->choices, r, c, text, bytes, c->n_told ? &likely : NULL, finish_reason(c));
    fputs(comma, l->sessions.out);
    put_pdt(&l->sessions, c, result->order);
    put_artifacts(&l->sessions, lines, result->K);
  }
  pdt_likely_free(&likely);
  free(lines);
  free(cut);
  return status ? -1 : 0;
}

static int put_results(lists *l, const pdt_reply *r, pdt_error *err) {
  for (int32_t i = 0; i < r->n_choices; i++) {
    pdt_result result;
    int status = make_result(r, &r->choices[i], &result, err) ||
                 put_result(l, r, &r->choices[i], &result, err);
    pdt_result_free(&result);
    if (status) return -1;
  }
  return 0;
}

/* Around the lists, which it takes over: `pdt` is a list where there are several choices. */
static int put_body(const pdt_reply *r, pdt_buffer *choices, pdt_buffer *sessions, pdt_buffer *out,
                    pdt_error *err) {
  bool several = r->n_choices > 1;
  writer w;
  if (open_writer(&w, err)) return -1;
  put_head(&w, r);
  fputs(",\"choices\":[", w.out);
  (void)fwrite(choices->data, 1, choices->bytes, w.out);
  fputc(']', w.out);
  put_usage(&w, r);
  fputs(several ? ",\"pdt\":[" : ",\"pdt\":", w.out);
  (void)fwrite(sessions->data, 1, sessions->bytes, w.out);
  fputs(several ? "]}\n" : "}\n", w.out);
  return close_writer(&w, out, err);
}

static int put_completion(const pdt_reply *r, pdt_buffer *out, pdt_error *err) {
  pdt_buffer choices = {0}, sessions = {0};
  pdt_error ignored = {0};
  lists l;
  if (open_writer(&l.choices, err)) return -1;
  if (open_writer(&l.sessions, err)) {
    close_writer(&l.choices, &choices, &ignored);
    pdt_buffer_free(&choices);
    return -1;
  }
  int status = put_results(&l, r, err);
  if (close_writer(&l.choices, &choices, status ? &ignored : err)) status = -1;
  if (close_writer(&l.sessions, &sessions, status ? &ignored : err)) status = -1;
  if (!status) status = put_body(r, &choices, &sessions, out, err);
  pdt_buffer_free(&choices);
  pdt_buffer_free(&sessions);
  return status;
}

/* The records of pdt decode. */
static int put_records(const pdt_reply *r, pdt_buffer *out, pdt_error *err) {
  pdt_output_format format = r->ask->packed ? PDT_OUTPUT_PROTO : PDT_OUTPUT_JSONL;
  pdt_result result;
  char *records = NULL;
  size_t bytes = 0;
  int status = make_result(r, &r->choices[0], &result, err) ||
               make_records(&result, format, &records, &bytes, err) ||
               pdt_buffer_put(out, records, bytes, err);
  free(records);
  pdt_result_free(&result);
  return status ? -1 : 0;
}

int pdt_reply_whole(pdt_reply *r, pdt_buffer *out, pdt_error *err) {
  return r->ask->form == PDT_ASK_DECODE ? put_records(r, out, err) : put_completion(r, out, err);
}

/* Has a choice come to no answer? One that is cut needs no more of its job. */
static bool has_failed(const pdt_choice *c) {
  return c->over && c->parts.cut == 0 && c->job->state == PDT_JOB_FAILED;
}

const pdt_job *pdt_reply_failed(const pdt_reply *r) {
  for (int32_t i = 0; i < r->n_choices; i++)
    if (has_failed(&r->choices[i])) return r->choices[i].job;
  return NULL;
}

/* ---- chunks ---- */

/* A chunk of one choice, up to its own end. */
static void put_chunk_choice(writer *w, const pdt_reply *r, pdt_choice *c, const char *text,
                             size_t bytes, const pdt_likely *likely, const char *reason) {
  fputs("data: ", w->out);
  put_head(w, r);
  fputs(",\"choices\":[", w->out);
  put_choice(w, r, c, text, bytes, likely, reason);
  fputc(']', w->out);
  c->begun = true;
}

/* Characters of the text before a stream's part, as it is told: interleaved, each is a text of its
 * own. */
static int64_t characters_before(const pdt_reply *r, const pdt_choice *c) {
  int64_t n = 0;
  for (int32_t i = 0; i < c->turn && r->ask->order != PDT_ORDER_INTERLEAVED; i++) {
    pdt_stream k = r->ask->order == PDT_ORDER_MERGED ? c->parts.order[i] : i;
    const pdt_part *part = &c->parts.parts[k];
    if (!part->left_out) n += 1 + pdt_likely_characters(part->text, part->bytes);
  }
  return n;
}

/* Tokens go with the piece in which what they write begins; what writes nothing any more, as the
 * end of a sequence, with the last one. */
static int find_told(const pdt_reply *r, pdt_choice *c, const pdt_piece *piece, pdt_likely *likely,
                     pdt_error *err) {
  pdt_stream k = piece->stream;
  const pdt_part *part = &c->parts.parts[k];
  bool last = part->over && !part->stopped && piece->end == part->bytes;
  *likely = (pdt_likely){.job = c->job, .tokenizer = r->tokenizer};
  if (!c->n_told) return 0;
  if (pdt_likely_add(likely, k, c->n_told[k], part->n_tokens, characters_before(r, c), err))
    return -1;
  if (!last) pdt_likely_cut(likely, 0, piece->end);
  c->n_told[k] += (int32_t)likely->n;
  return 0;
}

/* One piece of text; `joint`: a line break comes before it, as between parts of the answer. */
static void put_chunk(writer *w, const pdt_reply *r, pdt_choice *c, const pdt_piece *piece,
                      bool joint) {
  pdt_likely likely;
  const pdt_part *part = &c->parts.parts[piece->stream];
  const json_t *section = json_array_get(r->ask->sections, (size_t)piece->stream);
  size_t bytes = piece->end - piece->begin;
  char *text = malloc(bytes + 2);
  w->good = text && w->good;
  if (!text) return;
  if (joint) text[0] = '\n';
  if (bytes > 0) memcpy(text + joint, part->text + piece->begin, bytes);
  if (find_told(r, c, piece, &likely, NULL)) w->good = false;
  put_chunk_choice(w, r, c, text, bytes + joint, c->n_told ? &likely : NULL, NULL);
  pdt_likely_free(&likely);
  fprintf(w->out, ",\"pdt\":{\"stream\":%d,\"section\":", piece->stream);
  if (section)
    put_text(w, json_string_value(section), json_string_length(section));
  else
    fputs("null", w->out);
  fprintf(w->out, ",\"round\":%d,\"attempt\":%d}}\n\n", piece->round, piece->attempt);
  free(text);
}

/* A chunk without text, up to what its "pdt" has of the round; `i`: whose it is, where there are
 * several choices. */
static void begin_round_chunk(writer *w, const pdt_reply *r, int32_t i) {
  fputs("data: ", w->out);
  put_head(w, r);
  fputs(",\"choices\":[],\"pdt\":{", w->out);
  if (r->n_choices > 1) fprintf(w->out, "\"index\":%d,", i);
}

/* The session's settings, whatever of them was given, and its plan: before its first round. */
static void put_began(writer *w, const pdt_reply *r, int32_t i) {
  const pdt_job *job = r->choices[i].job;
  const pdt_settings *s = &job->request.settings;
  json_t *settings = pdt_settings_json(s);
  char *text = settings ? pdt_json_text(settings, JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
  json_decref(settings);
  w->good = text && w->good;
  begin_round_chunk(w, r, i);
  fprintf(w->out, "\"began\":{\"settings\":%s,\"plan_ids\":", text ? text : "");
  pdt_json_put_i32s(w->out, job->plan_ids, (size_t)s->limits.slots);
  fputs("}}}\n\n", w->out);
  free(text);
}

/* The rounds of choice i that are known; where the answer is cut, up to there. */
static int put_rounds(writer *w, const pdt_reply *r, int32_t i, pdt_error *err) {
  pdt_choice *c = &r->choices[i];
  const pdt_job *job = c->job;
  size_t n = c->n_records, cut = c->parts.cut;
  if (cut > 0 && n > (size_t)job->blocks[cut - 1].counts.rounds)
    n = (size_t)job->blocks[cut - 1].counts.rounds;
  for (; c->n_rounds < n; c->n_rounds++) {
    if (c->n_rounds == 0) put_began(w, r, i);
    c->record = c->n_rounds == 0 ? job->records : c->record->next;
    begin_round_chunk(w, r, i);
    fputs("\"decided\":", w->out);
    if (pdt_record_put(w->out, c->record, &job->request, job->streams, r->tokenizer, err))
      return -1;
    fputs("}}\n\n", w->out);
  }
  return 0;
}

static void put_interleaved(writer *w, const pdt_reply *r, pdt_choice *c) {
  for (; c->next < c->parts.n_pieces; c->next++)
    put_chunk(w, r, c, &c->parts.pieces[c->next], false);
}

/* The pieces of the streams whose turn it is, each when the one before it is over. */
static void put_in_order(writer *w, const pdt_reply *r, pdt_choice *c) {
  const pdt_parts *p = &c->parts;
  bool merged = r->ask->order == PDT_ORDER_MERGED;
  int32_t known = merged ? p->n_order : c->job->request.settings.streams;
  for (; c->turn < known; c->turn++) {
    pdt_stream k = merged ? p->order[c->turn] : c->turn;
    for (; c->next < p->n_pieces; c->next++) {
      if (p->pieces[c->next].stream != k) continue;
      bool joint = !c->told && pdt_parts_break(p, merged ? p->order : NULL, c->turn);
      put_chunk(w, r, c, &p->pieces[c->next], joint);
      c->told = true;
    }
    if (!p->ended && !p->parts[k].over) return;
    c->next = 0;
    c->told = false;
  }
}

/* What can be told of a choice; the end of one that has come to it. */
static void put_chunks(writer *w, const pdt_reply *r, pdt_choice *c) {
  if (c->ended) return;
  if (r->ask->order == PDT_ORDER_INTERLEAVED)
    put_interleaved(w, r, c);
  else if (!has_failed(c))
    put_in_order(w, r, c);
  if (!c->parts.ended || has_failed(c)) return;
  put_chunk_choice(w, r, c, "", 0, NULL, finish_reason(c));
  fputs(",\"pdt\":", w->out);
  put_pdt(w, c, c->parts.order);
  fputs("}}\n\n", w->out);
  c->ended = true;
}

static void put_last(writer *w, const pdt_reply *r) {
  if (r->ask->usage) {
    fputs("data: ", w->out);
    put_head(w, r);
    fputs(",\"choices\":[]", w->out);
    put_usage(w, r);
    fputs("}\n\n", w->out);
  }
  fputs("data: [DONE]\n\n", w->out);
}

static int put_failure(const pdt_job *job, pdt_buffer *out, pdt_error *err) {
  pdt_refusal why;
  pdt_reply_failure(job, &why);
  return pdt_buffer_put(out, "data: ", 6, err) || pdt_reply_error(&why, out, err) ||
                 pdt_buffer_put(out, "\ndata: [DONE]\n\n", 15, err)
             ? -1
             : 0;
}

int pdt_reply_chunks(pdt_reply *r, pdt_buffer *out, pdt_error *err) {
  const pdt_job *failed = pdt_reply_failed(r);
  bool all = true;
  writer w;
  pdt_error ignored = {0};
  if (r->ended || open_writer(&w, err)) return r->ended ? 0 : -1;
  int status = 0;
  for (int32_t i = 0; i < r->n_choices && !status; i++) {
    status = put_rounds(&w, r, i, err);
    put_chunks(&w, r, &r->choices[i]);
    all = all && r->choices[i].ended;
  }
  if (all) put_last(&w, r);
  r->ended = all || failed != NULL;
  if (close_writer(&w, out, status ? &ignored : err) || status) return -1;
  return failed ? put_failure(failed, out, err) : 0;
}

/* ---- errors ---- */

void pdt_reply_failure(const pdt_job *job, pdt_refusal *why) {
  switch (job->withdrawal) {
  case PDT_OUT_OF_TIME:
    pdt_refuse(why, 504, "timeout", NULL, "the request took longer than this server allows");
    break;
  case PDT_SHUT_DOWN:
    pdt_refuse(why, 503, "shutting_down", NULL, "the server is shutting down");
    break;
  case PDT_CLIENT_GONE:
    pdt_refuse(why, 499, NULL, NULL, "the client has gone");
    break;
  default:
    pdt_refuse(why, job->why.code == PDT_ERROR_USAGE ? 400 : 500, NULL, NULL, "%s",
               job->why.message);
  }
}

int pdt_reply_error(const pdt_refusal *why, pdt_buffer *out, pdt_error *err) {
  writer w;
  const char *type = why->status >= 500   ? "server_error"
                     : why->status == 401 ? "authentication_error"
                     : why->status == 429 ? "rate_limit_error"
                                          : "invalid_request_error";
  if (open_writer(&w, err)) return -1;
  fputs("{\"error\":{\"message\":", w.out);
  put_message(&w, why->message);
  fprintf(w.out, ",\"type\":\"%s\",\"param\":", type);
  if (*why->field)
    put_message(&w, why->field);
  else
    fputs("null", w.out);
  fputs(",\"code\":", w.out);
  put_word(&w, why->code);
  fputs("}}\n", w.out);
  return close_writer(&w, out, err);
}

/* Streams that read each other's text in place of notes: an upper bound, which pays for it by
 * reading everything again in every round. A round is one run of the engine over all streams that
 * have not ended, each a session of its own with one block to write: rank 0 sees what they wrote,
 * and tells the others. */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "eval/internal.h"

/* One stream of one entry. */
typedef struct writer {
  int32_t entry; /* of the trial */
  pdt_stream stream;
  pdt_token *tokens; /* [n], of max_tokens */
  int32_t n;
  int32_t *round_ends; /* [rounds so far]: tokens there were after each */
  bool ended, out_of_room;
} writer;

typedef struct text_bus {
  pdt_eval_trial *trial;
  int32_t n_writers, round;
  writer *writers;       /* [n_writers], by entry and stream */
  int32_t *first_writer; /* [entries of the trial] */
  int32_t most_rounds;
  pdt_request *requests; /* [n_writers]: of this round */
  int32_t *of_request;   /* [n_writers]: whose they are */
  int32_t n_requests;
  int32_t *written;   /* [n_writers, 1 + tau]: how many tokens each wrote, and which */
  int32_t tau, delay; /* the same for all */
} text_bus;

static const pdt_model_config *model_of(const text_bus *b) {
  return &pdt_engine_loaded(b->trial->eval->engine)->model;
}

/* ---- what a stream reads ---- */

/* A list of ids in the making. */
typedef struct id_list {
  pdt_token *ids;
  int32_t n;
  size_t room;
} id_list;

static int put_ids(id_list *list, const pdt_token *ids, int32_t n, pdt_error *err) {
  for (int32_t i = 0; i < n; i++) {
    if (PDT_GROW(&list->ids, (size_t)list->n, &list->room, err)) return -1;
    list->ids[list->n++] = ids[i];
  }
  return 0;
}

/* How many of the first n tokens are whole sentences. */
static int32_t whole_sentences(const pdt_rollout_text *text, int32_t n) {
  for (; n > 0; n--) {
    size_t end = text->ends[n - 1];
    if (end > 0 && text->text.data[end - 1] == '.') return n;
  }
  return 0;
}

/* A sibling's section as far as it may be read: heading, whole sentences, and the token that ends a
 * section, as in the texts that a trunk has learned from. Nothing before its first sentence. */
static int put_sibling(const text_bus *b, const writer *w, id_list *out, pdt_error *err) {
  const pdt_eval *eval = b->trial->eval;
  const pdt_request *r = &b->trial->requests[w->entry];
  pdt_round shown = 0; /* the last round that is revealed */
  while (pdt_note_is_revealed((pdt_note_name){shown + 1, w->stream}, b->round, b->delay)) shown++;
  int32_t n = shown > 0 ? w->round_ends[shown - 1] : 0;
  const pdt_rollout_reader reader = {eval->atlas, eval->tokenizer};
  pdt_rollout_text text = {0};
  int rc = pdt_rollout_read(&text, &reader, r->prefix[w->stream], r->n_prefix[w->stream], w->tokens,
                            n, false, err);
  if (!rc) n = whole_sentences(&text, n);
  pdt_rollout_text_free(&text);
  if (rc || n == 0) return rc;
  const pdt_model_config *model = model_of(b);
  return put_ids(out, r->prefix[w->stream], r->n_prefix[w->stream], err) ||
                 put_ids(out, w->tokens, n, err) ||
                 put_ids(out, model->eos, model->n_eos > 0 ? 1 : 0, err)
             ? -1
             : 0;
}

/* Prompt, siblings in order of sections, its own heading and text. */
static int put_context(const text_bus *b, const writer *w, id_list *out, pdt_error *err) {
  const pdt_request *r = &b->trial->requests[w->entry];
  const writer *siblings = b->writers + b->first_writer[w->entry];
  if (put_ids(out, r->prompt, r->n_prompt, err)) return -1;
  for (pdt_stream k = 0; k < r->settings.streams; k++)
    if (k != w->stream && put_sibling(b, &siblings[k], out, err)) return -1;
  return put_ids(out, r->prefix[w->stream], r->n_prefix[w->stream], err) ||
                 put_ids(out, w->tokens, w->n, err)
             ? -1
             : 0;
}

/* ---- a round ---- */

/* The request for a stream's next block; leaves it out when the model has no room for one. */
static int add_request(text_bus *b, int32_t index, pdt_error *err) {
  writer *w = &b->writers[index];
  const pdt_request *r = &b->trial->requests[w->entry];
  pdt_request *out = &b->requests[b->n_requests];
  id_list context = {0};
  int32_t left = r->settings.limits.max_tokens - w->n;
  if (put_context(b, w, &context, err)) {
    free(context.ids);
    return -1;
  }
  *out = (pdt_request){.session = (uint64_t)index,
                       .prompt = context.ids,
                       .n_prompt = context.n,
                       .settings = r->settings};
  b->of_request[b->n_requests++] = index;
  out->settings.streams = 1;
  out->settings.seed += (uint64_t)b->round;
  out->settings.limits.max_tokens = left < b->tau ? left : b->tau;
  if (PDT_NEW(&out->prefix, 1, "text bus", err) || PDT_NEW(&out->n_prefix, 1, "text bus", err) ||
      PDT_NEW(&out->plan_ids, r->settings.limits.slots, "text bus", err))
    return -1;
  if (pdt_request_positions(out) <= model_of(b)->max_positions) return 0;
  w->out_of_room = true;
  pdt_request_free(out);
  b->n_requests--;
  return 0;
}

static int make_requests(text_bus *b, pdt_error *err) {
  b->n_requests = 0;
  for (int32_t i = 0; i < b->n_writers; i++) {
    const writer *w = &b->writers[i];
    int32_t most = b->trial->requests[w->entry].settings.limits.max_tokens;
    if (!w->ended && !w->out_of_room && w->n < most && add_request(b, i, err)) return -1;
  }
  return 0;
}

static void free_requests(text_bus *b) {
  for (int32_t i = 0; i < b->n_requests; i++) pdt_request_free(&b->requests[i]);
  b->n_requests = 0;
}

/* Rank 0: no gate holds a block. */
static int on_block(void *context, const pdt_running *running, const pdt_block_report *block,
                    float *readiness, pdt_error *err) {
  (void)context;
  (void)running;
  (void)block;
  (void)err;
  *readiness = 1;
  return 0;
}

/* Rank 0: one stream has written its block. */
static int on_end(void *context, const pdt_running *running, pdt_error *err) {
  text_bus *b = context;
  (void)err;
  const pdt_stream_state *s = &running->session.streams[0];
  int32_t *written = b->written + (int64_t)running->index * (1 + b->tau);
  written[0] = s->n_tokens;
  memcpy(written + 1, s->tokens, (size_t)s->n_tokens * sizeof *written);
  return 0;
}

/* What rank 0 follows of a block, as if its text were its note: everything of siblings that is
 * revealed is in the window. */
static int follow(text_bus *b, const writer *w, const pdt_token *tokens, int32_t n,
                  pdt_error *err) {
  pdt_rollout *r = &b->trial->sessions[w->entry].rollout;
  pdt_note_name *window;
  int32_t n_window = 0;
  if (PDT_NEW(&window, (int64_t)r->owners.streams * b->round, "window", err)) return -1;
  for (pdt_stream k = 0; k < r->owners.streams; k++)
    for (pdt_round v = 1; v < b->round; v++) {
      const pdt_note_name note = {v, k};
      if (pdt_note_is_revealed(note, b->round, b->delay)) window[n_window++] = note;
    }
  const pdt_rollout_emission emission = {.stream = w->stream,
                                         .round = b->round,
                                         .tokens = tokens,
                                         .n = n,
                                         .ended = pdt_model_is_eos(model_of(b), tokens[n - 1]),
                                         .window = window,
                                         .n_window = n_window};
  int rc = pdt_eval_session_block(b->trial, w->entry, &emission, 1, NULL, err);
  free(window);
  return rc;
}

/* Every rank: all streams have what they wrote; rank 0's ledgers too. */
static int take_written(text_bus *b, pdt_error *err) {
  bool lead = b->trial->eval->world->rank == 0;
  pdt_eval_session *sessions = b->trial->sessions;
  for (int32_t pass = 0; pass < 2; pass++) /* all are labelled before any is decided */
    for (int32_t i = 0; i < b->n_requests; i++) {
      writer *w = &b->writers[b->of_request[i]];
      const int32_t *written = b->written + (int64_t)i * (1 + b->tau);
      const pdt_token *tokens = written + 1;
      if (pass == 0) {
        if (lead && follow(b, w, tokens, written[0], err)) return -1;
        continue;
      }
      memcpy(w->tokens + w->n, tokens, (size_t)written[0] * sizeof *tokens);
      w->n += written[0];
      const pdt_rollout_output output = {w->tokens, w->n, w->n}; /* every block is final */
      if (lead && pdt_rollout_follow(&sessions[w->entry].rollout, w->stream, &output,
                                     &sessions[w->entry].blocks[w->stream], err))
        return -1;
      w->ended = pdt_model_is_eos(model_of(b), tokens[written[0] - 1]);
    }
  for (int32_t i = 0; i < b->n_writers; i++)
    b->writers[i].round_ends[b->round - 1] = b->writers[i].n;
  return 0;
}

/* One round of all; sets *more to whether anybody wrote. */
static int run_round(text_bus *b, bool *more, pdt_error *err) {
  const pdt_eval *eval = b->trial->eval;
  const pdt_observer observer = {.context = b, .assess = on_block, .session_ended = on_end};
  pdt_run_stats stats;
  b->round++;
  make_requests(b, err);
  if (pdt_comm_agree(eval->world, err)) return -1;
  *more = b->n_requests > 0;
  if (!*more) return 0;
  if (pdt_engine_run_list(eval->engine, b->requests, b->n_requests, &observer, &stats, err))
    return -1;
  pdt_eval_add_stats(&b->trial->figures->stats, &stats);
  pdt_comm_broadcast(eval->world, b->written,
                     (pdt_bytes)b->n_requests * (1 + b->tau) * (pdt_bytes)sizeof *b->written, 0);
  take_written(b, err);
  return pdt_comm_agree(eval->world, err);
}

/* ---- the arm ---- */

static int new_writer(text_bus *b, int32_t entry, pdt_stream k, pdt_error *err) {
  writer *w = &b->writers[b->n_writers++];
  *w = (writer){.entry = entry, .stream = k};
  int32_t most = b->trial->requests[entry].settings.limits.max_tokens;
  return PDT_NEW(&w->tokens, most, "text bus", err) ||
                 PDT_NEW(&w->round_ends, b->most_rounds, "text bus", err)
             ? -1
             : 0;
}

static int text_bus_new(text_bus *b, pdt_eval_trial *t, pdt_error *err) {
  const pdt_settings *settings = &t->requests[0].settings;
  int64_t streams = 0, most = 1;
  *b =
      (text_bus){.trial = t, .tau = settings->limits.block_tokens, .delay = settings->reveal_delay};
  for (int32_t i = 0; i < t->n; i++) {
    streams += t->requests[i].settings.streams;
    if (t->requests[i].settings.limits.max_tokens > most)
      most = t->requests[i].settings.limits.max_tokens;
  }
  if (b->tau > most) b->tau = (int32_t)most; /* no block is longer */
  b->most_rounds = (int32_t)((most + b->tau - 1) / b->tau) + 1;
  if (PDT_NEW(&b->writers, streams, "text bus", err) ||
      PDT_NEW(&b->first_writer, t->n, "text bus", err) ||
      PDT_NEW(&b->requests, streams, "text bus", err) ||
      PDT_NEW(&b->of_request, streams, "text bus", err) ||
      PDT_NEW(&b->written, streams * (1 + b->tau), "text bus", err))
    return -1;
  for (int32_t i = 0; i < t->n; i++) {
    b->first_writer[i] = b->n_writers;
    if (t->eval->world->rank == 0 && pdt_eval_session_begin(t, i, err)) return -1;
    for (pdt_stream k = 0; k < t->requests[i].settings.streams; k++)
      if (new_writer(b, i, k, err)) return -1;
  }
  return 0;
}

static void text_bus_free(text_bus *b) {
  free_requests(b);
  for (int32_t i = 0; i < b->n_writers; i++) {
    free(b->writers[i].tokens);
    free(b->writers[i].round_ends);
  }
  free(b->writers);
  free(b->first_writer);
  free(b->requests);
  free(b->of_request);
  free(b->written);
}

/* Rank 0 judges all entries. */
static int judge(text_bus *b, pdt_error *err) {
  pdt_eval_trial *t = b->trial;
  for (int32_t i = 0; i < t->n; i++) {
    const writer *writers = b->writers + b->first_writer[i];
    bool *ended;
    int32_t K = t->requests[i].settings.streams, rounds = 0;
    if (PDT_NEW(&ended, K, "streams", err)) return -1;
    for (pdt_stream k = 0; k < K; k++) {
      const pdt_rollout_stream *s = &t->sessions[i].rollout.streams[k];
      ended[k] = writers[k].ended;
      if (s->n_blocks > rounds) rounds = s->n_blocks;
    }
    t->figures->rounds += rounds;
    int rc = pdt_eval_session_end(t, i, ended, NULL, err);
    free(ended);
    if (rc) return -1;
  }
  return 0;
}

int pdt_eval_run_text_bus(pdt_eval_trial *t, pdt_error *err) {
  const pdt_comm *world = t->eval->world;
  text_bus b;
  text_bus_new(&b, t, err);
  int rc = pdt_comm_agree(world, err);
  for (bool more = !rc; more;) {
    free_requests(&b);
    rc = run_round(&b, &more, err);
    more = more && !rc;
  }
  if (!rc) {
    if (world->rank == 0) judge(&b, err);
    rc = pdt_comm_agree(world, err);
  }
  text_bus_free(&b);
  return rc;
}

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/lines.h"
#include "base/memory.h"
#include "run/view_parts.h"

/* Of one request: texts of numbers become several times as large when they are read. */
enum { MOST_LINE_BYTES = 1 << 30 };

/* Of what errors call a round, and a place in it. */
enum { ROUND_BYTES = PDT_WHERE_BYTES + 40, PLACE_BYTES = ROUND_BYTES + 40 };

/* What the readers of a line share. */
typedef struct line {
  const char *where;
  int32_t K;
  pdt_story *story;
  pdt_token *tokens; /* of one block */
  size_t room;
} line;

/* ---- rounds ---- */

/* [round, stream] of a window of that round, the plan's note being [0, -1]. */
static int read_note(const line *l, const json_t *pair, const char *where, pdt_round round,
                     pdt_note_name *out, pdt_error *err) {
  int64_t of = 0, stream = 0;
  if (!json_is_array(pair) || json_array_size(pair) != 2)
    return pdt_fail(err, PDT_ERROR_INPUT,
                    "%s: expected notes as [round, stream], found %s of another form", where,
                    pdt_json_type_name(pair));
  if (pdt_json_element_integer(pair, where, 0, 0, round - 1, &of, err) ||
      pdt_json_element_integer(pair, where, 1, of == 0 ? PDT_PLANNER : 0,
                               of == 0 ? PDT_PLANNER : l->K - 1, &stream, err))
    return -1;
  *out = (pdt_note_name){(pdt_round)of, (pdt_stream)stream};
  return 0;
}

static int read_window(const line *l, const json_t *object, const char *where,
                       pdt_page_round *round, pdt_note_name **notes, pdt_error *err) {
  char place[PLACE_BYTES];
  const json_t *list;
  int status = 0;
  snprintf(place, sizeof place, "%s: window", where);
  if (pdt_json_array(object, where, "window", &list, err) ||
      PDT_NEW(notes, json_array_size(list), "page", err))
    return -1;
  round->window = *notes;
  for (; (size_t)round->n_window < json_array_size(list) && !status; round->n_window++)
    status = read_note(l, json_array_get(list, (size_t)round->n_window), place, round->round,
                       &(*notes)[round->n_window], err);
  return status;
}

/* "actions" has it by the stream's number. */
static int read_action(const json_t *actions, const char *where, pdt_stream k, pdt_action *out,
                       pdt_error *err) {
  char key[16];
  const char *name;
  snprintf(key, sizeof key, "%d", k);
  if (pdt_json_string(actions, where, key, &name, err)) return -1;
  for (int a = PDT_ACTION_COMMIT; a <= PDT_ACTION_FORCE; a++) {
    *out = (pdt_action)a;
    if (strcmp(name, pdt_action_name(*out)) == 0) return 0;
  }
  return pdt_fail(err, PDT_ERROR_INPUT,
                  "%s: actions: stream %d: expected commit, hold, rollback or force, found '%.40s'",
                  where, k, name);
}

/* Appends the list `key` of token ids to l->tokens, behind the first *n. */
static int read_tokens(line *l, const json_t *object, const char *where, const char *key, size_t *n,
                       pdt_error *err) {
  char place[PLACE_BYTES];
  const json_t *list;
  snprintf(place, sizeof place, "%s: %s", where, key);
  if (pdt_json_array(object, where, key, &list, err) ||
      PDT_GROW_BY(&l->tokens, *n, json_array_size(list), &l->room, err))
    return -1;
  for (size_t i = 0; i < json_array_size(list); i++) {
    int64_t id;
    if (pdt_json_element_integer(list, place, i, 0, INT32_MAX, &id, err)) return -1;
    l->tokens[(*n)++] = (pdt_token)id;
  }
  return 0;
}

/* Its tokens are in l->tokens behind the first *n; where they are is said when they no longer move.
 */
static int read_block(line *l, const json_t *object, const json_t *actions, const char *where,
                      pdt_stream after, size_t *n, pdt_block_verdict *out, pdt_error *err) {
  int64_t stream, attempt;
  double readiness;
  size_t first = *n;
  if (pdt_json_expect_object(object, where, err) ||
      pdt_json_integer(object, where, "stream", after + 1, l->K - 1, &stream, err) ||
      pdt_json_integer(object, where, "attempt", 0, INT32_MAX, &attempt, err) ||
      pdt_json_real(object, where, "readiness", 0, 1, &readiness, err) ||
      read_tokens(l, object, where, "tokens", n, err))
    return -1;
  *out = (pdt_block_verdict){.stream = (pdt_stream)stream,
                             .attempt = (int32_t)attempt,
                             .readiness = (float)readiness,
                             .n_tokens = (int32_t)(*n - first)};
  return read_action(actions, where, out->stream, &out->action, err);
}

static int read_blocks(line *l, const json_t *object, const char *where, pdt_block_verdict **blocks,
                       int32_t *n_blocks, pdt_error *err) {
  const json_t *list, *actions;
  size_t n = 0, at = 0;
  if (pdt_json_array(object, where, "streams", &list, err) ||
      pdt_json_object(object, where, "actions", &actions, err) ||
      PDT_NEW(blocks, json_array_size(list), "page", err))
    return -1;
  for (size_t i = 0; i < json_array_size(list); i++)
    if (read_block(l, json_array_get(list, i), actions, where, i > 0 ? (*blocks)[i - 1].stream : -1,
                   &n, &(*blocks)[i], err))
      return -1;
  *n_blocks = (int32_t)json_array_size(list);
  for (int32_t i = 0; i < *n_blocks; i++) {
    (*blocks)[i].tokens = l->tokens + at;
    at += (size_t)(*blocks)[i].n_tokens;
  }
  return 0;
}

static int read_round(line *l, const json_t *object, int32_t number, pdt_error *err) {
  char where[ROUND_BYTES];
  pdt_page_round round = {.round = number};
  pdt_note_name *notes = NULL;
  pdt_block_verdict *blocks = NULL;
  int32_t n_blocks = 0;
  int64_t told;
  snprintf(where, sizeof where, "%s: round %d", l->where, number);
  int status = pdt_json_expect_object(object, where, err) ||
               pdt_json_integer(object, where, "round", number, number, &told, err) ||
               pdt_json_bool_or(object, where, "gate", &round.gate, err) ||
               read_window(l, object, where, &round, &notes, err) ||
               read_blocks(l, object, where, &blocks, &n_blocks, err);
  if (!status) status = pdt_story_round(l->story, &round, blocks, n_blocks, err);
  free(notes);
  free(blocks);
  return status ? -1 : 0;
}

/* ---- the end ---- */

/* What a stream came to must be what its rounds have committed. */
static int check_stream(line *l, const json_t *object, pdt_stream k, pdt_error *err) {
  const pdt_token *tokens;
  size_t n = 0;
  int32_t committed = pdt_story_committed(l->story, k, &tokens);
  if (pdt_json_expect_object(object, l->where, err) ||
      read_tokens(l, object, l->where, "tokens", &n, err))
    return -1;
  if (n == (size_t)committed && (n == 0 || memcmp(tokens, l->tokens, n * sizeof *tokens) == 0))
    return 0;
  return pdt_fail(err, PDT_ERROR_INPUT,
                  "%s: stream %d: expected the %d tokens that its rounds commit, found %zu%s",
                  l->where, k, committed, n, n == (size_t)committed ? " others" : "");
}

/* Every stream once. */
static int read_order(const line *l, const json_t *object, pdt_stream *order, pdt_error *err) {
  const json_t *list;
  if (pdt_json_array(object, l->where, "merge_order", &list, err)) return -1;
  bool good = json_array_size(list) == (size_t)l->K;
  for (int32_t i = 0; good && i < l->K; i++) order[i] = -1;
  for (int32_t i = 0; good && i < l->K; i++) {
    int64_t k;
    if (pdt_json_element_integer(list, l->where, (size_t)i, 0, l->K - 1, &k, err)) return -1;
    for (int32_t j = 0; good && j < i; j++) good = order[j] != (pdt_stream)k;
    order[i] = (pdt_stream)k;
  }
  if (good) return 0;
  return pdt_fail(err, PDT_ERROR_INPUT, "%s: merge_order: expected each of %d streams once",
                  l->where, l->K);
}

static int finish(line *l, const json_t *object, const json_t *streams, pdt_error *err) {
  pdt_stream *order;
  bool complete = true;
  int status = PDT_NEW(&order, l->K, "page", err);
  for (pdt_stream k = 0; k < l->K && !status; k++) {
    const json_t *s = json_array_get(streams, (size_t)k);
    bool done = false;
    status = check_stream(l, s, k, err) || pdt_json_bool_or(s, l->where, "done", &done, err);
    complete = complete && done;
  }
  if (!status) status = read_order(l, object, order, err);
  const pdt_story_end end = {.order = order, .ended_by = complete ? "complete" : "max_rounds"};
  if (!status) status = pdt_story_finish(l->story, &end, err);
  free(order);
  return status ? -1 : 0;
}

/* ---- a line ---- */

/* Its request, of which a trace tells no more than how many streams there are. */
static int bare_request(pdt_request *r, int32_t K, pdt_error *err) {
  *r = (pdt_request){.settings = {.streams = K}};
  return PDT_NEW(&r->prefix, K, "page", err) || PDT_NEW(&r->n_prefix, K, "page", err) ? -1 : 0;
}

static int read_line(line *l, const json_t *object, pdt_error *err) {
  const json_t *rounds, *streams = json_object_get(object, "streams");
  if (pdt_json_array(object, l->where, "rounds", &rounds, err)) return -1;
  if (json_array_size(rounds) > INT32_MAX)
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: too many rounds", l->where);
  for (size_t i = 0; i < json_array_size(rounds); i++)
    if (read_round(l, json_array_get(rounds, i), (int32_t)i + 1, err)) return -1;
  return finish(l, object, streams, err);
}

/* The story of what was parsed. */
static int tell(pdt_story **out, const json_t *object, int32_t index, const char *where,
                const pdt_view_options *options, const pdt_tokenizer *tokenizer, pdt_error *err) {
  char name[40];
  pdt_request request;
  const json_t *streams;
  if (pdt_json_expect_object(object, where, err) ||
      pdt_json_array(object, where, "streams", &streams, err))
    return -1;
  line l = {.where = where, .K = (int32_t)json_array_size(streams)};
  if (l.K < 1 || json_array_size(streams) > 1 << 16)
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: streams: expected 1 to %d, found %zu", where,
                    1 << 16, json_array_size(streams));
  snprintf(name, sizeof name, "request %d", index);
  const pdt_story_head head = {.name = name,
                               .request = &request,
                               .tokenizer = tokenizer,
                               .gamma = options->gamma < 0 ? (double)NAN : options->gamma};
  int status = bare_request(&request, l.K, err) || pdt_story_new(&l.story, &head, err) ||
               read_line(&l, object, err);
  if (status) {
    pdt_story_free(l.story);
    l.story = NULL;
  }
  *out = l.story;
  free(l.tokens);
  pdt_request_free(&request);
  return status ? -1 : 0;
}

int pdt_view_trace_line(pdt_story **out, const char *text, size_t bytes, int32_t index,
                        const char *where, const pdt_view_options *options,
                        const pdt_tokenizer *tokenizer, pdt_error *err) {
  json_t *object;
  *out = NULL;
  if (pdt_json_parse(&object, text, bytes, where, err)) return -1;
  int status = tell(out, object, index, where, options, tokenizer, err);
  json_decref(object);
  return status;
}

static int read_lines(pdt_view_stories *s, pdt_lines *lines, const pdt_view_options *o,
                      pdt_error *err) {
  char where[PDT_WHERE_BYTES];
  int more;
  while ((more = pdt_lines_next(lines, err)) > 0) {
    if (PDT_GROW(&s->list, s->n, &s->room, err)) return -1;
    s->list[s->n++] = NULL;
    if (o->request >= 0 && o->request != (int64_t)s->n - 1) continue;
    pdt_where(where, o->path, lines->number);
    if (pdt_view_trace_line(&s->list[s->n - 1], lines->text, lines->bytes, (int32_t)s->n - 1, where,
                            o, s->tokenizer, err))
      return -1;
  }
  return more;
}

int pdt_view_trace(pdt_view_stories *s, const pdt_view_options *o, pdt_error *err) {
  pdt_lines lines = {0};
  if (o->model && pdt_tokenizer_load_if_any(&s->tokenizer, o->model, err)) return -1;
  int status =
      pdt_lines_open(&lines, o->path, MOST_LINE_BYTES, err) || read_lines(s, &lines, o, err);
  pdt_lines_close(&lines);
  return status ? -1 : 0;
}

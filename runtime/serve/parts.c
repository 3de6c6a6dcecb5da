#include "serve/parts.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "protocol/merge.h"
#include "protocol/session.h"
#include "run/result.h"

/* Where each part's section ends. */
static int read_section(pdt_parts *p, pdt_stream k, pdt_error *err) {
  char *text;
  int status = pdt_result_part(&p->job->request, &p->job->streams[k], 0, p->tokenizer, &text,
                               &p->parts[k].section, err);
  free(text);
  return status;
}

/* Nothing has been read of any stream. */
static int new_order(pdt_parts *p, pdt_error *err) {
  const pdt_settings *s = &p->job->request.settings;
  int64_t cells = s->streams * (int64_t)s->limits.slots;
  if (PDT_NEW(&p->order, s->streams, "answer", err) ||
      PDT_NEW(&p->seen, s->streams, "answer", err) ||
      PDT_NEW(&p->placed, s->streams, "answer", err) || PDT_NEW(&p->best, cells, "answer", err))
    return -1;
  for (int64_t i = 0; i < cells; i++) p->best[i] = -INFINITY;
  for (pdt_stream k = 0; k < s->streams; k++)
    p->seen[k] =
        (pdt_stream_state){.index = k, .best_coverage = p->best + k * (int64_t)s->limits.slots};
  return 0;
}

int pdt_parts_new(pdt_parts *p, const pdt_ask *ask, const pdt_job *job,
                  const pdt_tokenizer *tokenizer, pdt_error *err) {
  int32_t K = job->request.settings.streams;
  *p = (pdt_parts){.ask = ask, .job = job, .tokenizer = tokenizer};
  for (size_t i = 0; i < json_array_size(ask->stops); i++) {
    size_t bytes = json_string_length(json_array_get(ask->stops, i));
    if (bytes > p->longest_stop) p->longest_stop = bytes;
  }
  if (PDT_NEW(&p->parts, K, "answer", err) || new_order(p, err)) return -1;
  int status = 0;
  for (pdt_stream k = 0; k < K && !status; k++) status = read_section(p, k, err);
  return status;
}

void pdt_parts_free(pdt_parts *p) {
  for (pdt_stream k = 0; p->parts && k < p->job->request.settings.streams; k++)
    free(p->parts[k].text);
  free(p->parts);
  free(p->order);
  free(p->seen);
  free(p->placed);
  free(p->best);
  free(p->pieces);
  *p = (pdt_parts){0};
}

/* Cuts the part before the first text to stop at, which no text before `from` has. */
static void stop(const pdt_parts *p, pdt_part *part, size_t from) {
  size_t back = p->longest_stop > 0 ? p->longest_stop - 1 : 0;
  from = from > part->section + back ? from - back : part->section;
  if (from > part->bytes) return;
  for (size_t i = 0; i < json_array_size(p->ask->stops); i++) {
    const json_t *text = json_array_get(p->ask->stops, i);
    const char *found = memmem(part->text + from, part->bytes - from, json_string_value(text),
                               json_string_length(text));
    if (!found) continue;
    part->bytes = (size_t)(found - part->text);
    part->stopped = part->over = true;
  }
}

/* How much of a part may be shown: not its end, where that may begin a text to stop at, nor a
 * character in two. */
static size_t may_show(const pdt_parts *p, const pdt_part *part) {
  size_t back = p->longest_stop > 0 ? p->longest_stop - 1 : 0, most;
  if (part->over || back == 0) return part->bytes;
  most = part->bytes > part->section + back ? part->bytes - back : part->section;
  if (most > part->bytes) most = part->bytes;
  while (most > part->shown && most < part->bytes &&
         ((unsigned char)part->text[most] & 0xC0) == 0x80)
    most--;
  return most > part->shown ? most : part->shown;
}

static int add_piece(pdt_parts *p, pdt_stream k, pdt_round round, int32_t attempt, pdt_error *err) {
  pdt_part *part = &p->parts[k];
  size_t end = may_show(p, part);
  if (PDT_GROW(&p->pieces, p->n_pieces, &p->room, err)) return -1;
  p->pieces[p->n_pieces++] = (pdt_piece){k, round, attempt, part->shown, end};
  part->shown = end;
  return 0;
}

/* The part as it is after one block more. Texts only grow: one that did not would be told wrong,
 * and is not told before it does. */
static int grow_part(pdt_parts *p, const pdt_job_block *b, pdt_error *err) {
  pdt_part *part = &p->parts[b->stream];
  char *text;
  size_t bytes, before = part->bytes;
  part->n_tokens += b->n_tokens;
  if (pdt_result_part(&p->job->request, &p->job->streams[b->stream], part->n_tokens, p->tokenizer,
                      &text, &bytes, err)) {
    free(text);
    return -1;
  }
  part->over = b->last;
  if (bytes < part->shown || (part->shown > 0 && memcmp(text, part->text, part->shown) != 0)) {
    free(text);
    return 0;
  }
  free(part->text);
  part->text = text;
  part->bytes = bytes;
  stop(p, part, before);
  return 0;
}

/* Where all parts are over with block i: the end of the round that committed it. */
static void look_for_cut(pdt_parts *p, size_t i, size_t n) {
  const pdt_job_block *blocks = p->job->blocks;
  int64_t round = blocks[i].counts.rounds;
  bool over = true, stopped = false;
  for (pdt_stream k = 0; k < p->job->request.settings.streams; k++) {
    over = over && p->parts[k].over;
    stopped = stopped || p->parts[k].stopped;
  }
  if (!over || !stopped) return;
  while (i < n && blocks[i].counts.rounds == round) i++;
  p->cut = i;
}

/* What block i adds to what is known of the order. A text to stop at ends a part, but not what its
 * stream may come to cover. */
static void see_block(pdt_parts *p, size_t i) {
  const pdt_job_block *b = &p->job->blocks[i];
  int32_t slots = p->job->request.settings.limits.slots;
  pdt_stream_state *s = &p->seen[b->stream];
  const float *coverage = p->job->coverage + (int64_t)i * slots;
  for (int32_t slot = 0; slot < slots; slot++)
    if (coverage[slot] > s->best_coverage[slot]) s->best_coverage[slot] = coverage[slot];
  s->done = s->done || b->last;
}

static int read_block(pdt_parts *p, const pdt_job_block *b, size_t n, pdt_error *err) {
  if (p->parts[b->stream].over) return 0;
  if (grow_part(p, b, err) || add_piece(p, b->stream, b->round, b->attempt, err)) return -1;
  if (p->longest_stop > 0) look_for_cut(p, p->n_blocks, n);
  return 0;
}

/* Who has nothing to write is known before the first block is. */
static void leave_out(pdt_parts *p) {
  const pdt_settings *s = &p->job->request.settings;
  pdt_session_follow(p->seen, s, p->job->plan_ids);
  for (pdt_stream k = 0; k < s->streams; k++)
    p->parts[k].over = p->parts[k].left_out = p->seen[k].done;
}

int pdt_parts_read(pdt_parts *p, size_t n, pdt_error *err) {
  const pdt_settings *s = &p->job->request.settings;
  if (p->n_blocks == n || p->ended) return 0;
  if (p->n_blocks == 0) leave_out(p);
  for (; p->n_blocks < n && p->cut == 0; p->n_blocks++) {
    see_block(p, p->n_blocks);
    if (read_block(p, &p->job->blocks[p->n_blocks], n, err)) return -1;
  }
  /* Sections that keep their order ask no slot for it, and are certain from the start. */
  int32_t slots = s->keep_order == 1 ? 0 : s->limits.slots;
  p->n_order = pdt_merge_known(p->seen, s->streams, p->job->plan_ids, slots, p->placed, p->order);
  return 0;
}

static int merge(pdt_parts *p, pdt_error *err) {
  const pdt_settings *s = &p->job->request.settings;
  pdt_stream_state *view = NULL;
  pdt_stream *owner = NULL;
  int status = PDT_NEW(&owner, s->limits.slots, "answer", err) ||
               PDT_NEW(&view, s->streams, "answer", err) ||
               (p->cut > 0 && pdt_job_view(p->job, p->cut, view, err));
  if (!status)
    pdt_merge(p->cut > 0 ? view : p->job->streams, s->streams, p->job->plan_ids, s->limits.slots,
              s->keep_order == 1, owner, p->order);
  if (!status) p->n_order = s->streams;
  if (view) free(view[0].best_coverage);
  free(view);
  free(owner);
  return status ? -1 : 0;
}

int pdt_parts_end(pdt_parts *p, pdt_error *err) {
  if (p->ended) return 0;
  if (p->n_blocks == 0) leave_out(p);
  for (pdt_stream k = 0; k < p->job->request.settings.streams; k++) {
    pdt_part *part = &p->parts[k];
    part->over = true;
    if (part->left_out) continue;
    if (part->text && part->shown == part->bytes) continue;
    if (!part->text) { /* no block of it was committed: its section alone */
      size_t bytes;
      if (pdt_result_part(&p->job->request, &p->job->streams[k], 0, p->tokenizer, &part->text,
                          &bytes, err))
        return -1;
      part->bytes = bytes;
    }
    if (add_piece(p, k, (pdt_round)p->job->counts.rounds, 0, err)) return -1;
  }
  p->ended = true;
  return merge(p, err);
}

bool pdt_parts_break(const pdt_parts *p, const pdt_stream *order, int32_t i) {
  if (p->parts[order ? order[i] : i].left_out) return false;
  for (int32_t j = 0; j < i; j++)
    if (!p->parts[order ? order[j] : j].left_out) return true;
  return false;
}

int pdt_parts_answer(const pdt_parts *p, char **text, size_t *bytes, pdt_error *err) {
  FILE *out = open_memstream(text, bytes);
  if (!out) return pdt_fail(err, PDT_ERROR_MEMORY, "answer: no memory");
  for (int32_t i = 0; i < p->job->request.settings.streams; i++) {
    const pdt_part *part = &p->parts[p->order[i]];
    if (pdt_parts_break(p, p->order, i)) fputc('\n', out);
    if (part->text) (void)fwrite(part->text, 1, part->bytes, out);
  }
  bool good = !ferror(out);
  if (fclose(out) == 0 && good) return 0;
  free(*text);
  *text = NULL;
  return pdt_fail(err, PDT_ERROR_MEMORY, "answer: no memory");
}

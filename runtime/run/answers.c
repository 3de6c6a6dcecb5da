#include "run/answers.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "journal/replay.h"
#include "run/fingerprints.h"
#include "run/result.h"

/* One pass over the journal. */
typedef struct pass {
  const pdt_answers_options *options;
  pdt_replay replay;
  uint64_t model;     /* by the header */
  pdt_bytes torn;     /* bytes of an entry that is not whole */
  pdt_output *output; /* NULL: only looked at */
  const pdt_tokenizer *tokenizer;
} pass;

static int write_session(const pass *p, const pdt_replay_session *s, pdt_error *err) {
  const pdt_outcome outcome = {.request = &s->request,
                               .index = s->index,
                               .streams = s->session.streams,
                               .plan_ids = s->plan_ids,
                               .slots = s->slots,
                               .complete = s->complete};
  pdt_result r;
  int status = pdt_result_make(&r, &outcome, p->tokenizer, err);
  if (!status) status = pdt_result_write(&r, p->output, err);
  if (!status) status = pdt_output_end(p->output, s->index, err);
  pdt_result_free(&r);
  return status;
}

static int write_failure(const pass *p, const Pdt__RequestFailure *f, pdt_error *err) {
  return pdt_output_failure(p->output, f, err) ||
                 pdt_output_end(p->output, (int32_t)f->request, err)
             ? -1
             : 0;
}

/* Everything that there is, checked; written where there is an output. */
static int go_through(pass *p, pdt_error *err) {
  pdt_journal_reader reader;
  pdt_journal_entry entry;
  const pdt_replay_session *ended;
  int more;
  pdt_replay_free(&p->replay);
  if (pdt_journal_reader_open(&reader, p->options->journal, err)) return -1;
  while ((more = pdt_journal_reader_next(&reader, &entry, err)) > 0) {
    more = pdt_replay_entry(&p->replay, &entry, &ended, err);
    if (more) more = pdt_fail_in(err, "%s: journal", reader.name);
    if (!more && entry.message->entry_case == PDT__JOURNAL_ENTRY__ENTRY_HEADER)
      p->model = entry.message->header->model_fingerprint;
    if (!more && entry.message->entry_case == PDT__JOURNAL_ENTRY__ENTRY_FAILURE && p->output)
      more = write_failure(p, entry.message->failure, err);
    if (!more && ended && ended->fault == PDT_FAULT_NONE && p->output)
      more = write_session(p, ended, err);
    if (more) break;
  }
  if (more == 0 && !p->replay.have_header)
    more = pdt_fail(err, PDT_ERROR_INPUT, "%s: journal: it has no header", reader.name);
  p->torn = reader.torn;
  pdt_journal_reader_close(&reader);
  return more;
}

int pdt_answers_tokenizer(pdt_tokenizer **tokenizer, const char *journal, uint64_t recorded,
                          const char *model, pdt_error *err) {
  uint64_t fingerprint;
  if (pdt_fingerprint_model(model, &fingerprint, err) ||
      pdt_fingerprint_check(journal, "model", recorded, model, fingerprint, err))
    return -1;
  return pdt_tokenizer_load_if_any(tokenizer, model, err);
}

/* Has it no answer: the journal leaves it without an end, or a fault ended it? */
static bool is_unfinished(const pdt_replay_slot *s) {
  return s->session || (s->fault != PDT_FAULT_NONE && !s->failed);
}

static void name_unfinished(const pass *p) {
  enum { NAMED = 20 };
  const pdt_replay *r = &p->replay;
  int64_t unfinished = 0;
  for (size_t i = 0; i < r->n; i++) {
    const pdt_replay_slot *s = &r->slots[i];
    if (!is_unfinished(s) || unfinished++ >= NAMED) continue;
    fprintf(stderr, "session %" PRIu64 " (request %zu) ", s->number, i);
    if (s->fault == PDT_FAULT_NONE)
      fprintf(stderr, "had no end after round %" PRId32 "\n", s->rounds);
    else
      fprintf(stderr, "was ended by a fault of its %s after round %" PRId32 "\n",
              pdt_fault_name(s->fault), s->rounds);
  }
  if (unfinished > NAMED)
    fprintf(stderr, "and %" PRId64 " more sessions had no end\n", unfinished - NAMED);
  if (r->totals.requests > (int64_t)r->n && r->totals.requests != PDT_JOURNAL_ENDLESS)
    fprintf(stderr, "%" PRId64 " of %" PRId64 " requests had not started\n",
            r->totals.requests - (int64_t)r->n, r->totals.requests);
  if (p->torn > 0)
    fprintf(stderr, "the end of the journal is torn: its last %lld bytes are no whole entry\n",
            (long long)p->torn);
}

/* The second pass: requests that have no answer are passed over before it, so that nobody waits
 * for their turn. */
static int write_all(pass *p, pdt_error *err) {
  const pdt_answers_options *o = p->options;
  const pdt_replay *r = &p->replay;
  pdt_output_format format = o->json ? PDT_OUTPUT_JSONL : PDT_OUTPUT_PROTO;
  if (pdt_output_open(&p->output, o->out, format, err)) return -1;
  int status = pdt_output_in_turns(p->output, (int32_t)r->n, err);
  for (size_t i = 0; i < r->n && !status; i++)
    if (is_unfinished(&r->slots[i])) status = pdt_output_end(p->output, (int32_t)i, err);
  if (!status) status = go_through(p, err);
  if (!status) return pdt_output_close(p->output, err);
  pdt_output_discard(p->output);
  return -1;
}

int pdt_answers_write(const pdt_answers_options *options, pdt_error *err) {
  pass p = {.options = options};
  pdt_tokenizer *tokenizer = NULL;
  pdt_replay_init(&p.replay);
  int status = go_through(&p, err);
  if (!status && options->model)
    status = pdt_answers_tokenizer(&tokenizer, options->journal, p.model, options->model, err);
  p.tokenizer = tokenizer;
  if (!status) status = write_all(&p, err);
  if (!status) name_unfinished(&p);
  pdt_replay_free(&p.replay);
  pdt_tokenizer_free(tokenizer);
  return status;
}

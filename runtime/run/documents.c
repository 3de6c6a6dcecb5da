#include "run/documents.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/text_safe.h"
#include "base/utf8.h"
#include "data/data.h"
#include "data/tokens.h"
#include "journal/sink.h"
#include "run/outputs.h"
#include "run/terminal.h"

/* What there was, for the last words of the command. */
typedef struct counts {
  int64_t lines, entries, other_split, without_facts;
  int64_t facts, told; /* told: the prompt has the value, too */
  int64_t unused;      /* facts that no sibling uses */
  pdt_data_shape shape;
} counts;

/* Everything a run holds. */
typedef struct conversion {
  const pdt_documents_file *file;
  pdt_tokenizer *tokenizer;
  uint64_t fingerprint;
  pdt_data_stop_words stop;
  pdt_document_rules rules;
  pdt_lines lines;
  pdt_sink sink;
  counts counts;
} conversion;

pdt_atlas_split pdt_documents_split_of(const char *prompt) {
  uint64_t part = XXH3_64bits(prompt, strlen(prompt)) >> 60;
  return part == 0 ? PDT_TEST : part == 1 ? PDT_VALID : PDT_TRAIN;
}

static int check_output(const pdt_documents_file *f, pdt_error *err) {
  pdt_named_files outputs = {0}, inputs = {0};
  pdt_files_add(&outputs, "--out", f->out);
  if (strcmp(f->in, "-") != 0) pdt_files_add(&inputs, "--in", f->in);
  pdt_files_add(&inputs, "--stop-words", f->stop_words);
  pdt_files_add_model(&inputs, "--model", f->model);
  return pdt_outputs_check(&outputs, &inputs, err)
             ? -1
             : pdt_output_may_replace("--out", f->out, PDT_KIND_DATA, f->overwrite, err);
}

/* Words of the file, without white space around them. */
static int read_stop_words(conversion *c, pdt_error *err) {
  enum { LONGEST_WORD = 1000 };
  const char *path = c->file->stop_words;
  pdt_lines lines = {0};
  int found = 0;
  if (pdt_data_stop_words_new(&c->stop, err)) return -1;
  if (!path) return 0;
  int rc = pdt_lines_open(&lines, path, LONGEST_WORD, err);
  while (!rc && (found = pdt_lines_next_filled(&lines, err)) > 0) {
    size_t begin = 0, end = lines.bytes;
    if (!pdt_is_utf8(lines.text, end) || memchr(lines.text, 0, end)) {
      rc = pdt_fail(err, PDT_ERROR_INPUT, "%s: line %lld: expected a word in UTF-8", path,
                    (long long)lines.number);
      break;
    }
    while (strchr(" \t\r", lines.text[begin])) begin++;
    while (strchr(" \t\r", lines.text[end - 1])) end--;
    rc = pdt_data_stop_words_add(&c->stop, lines.text + begin, end - begin, err);
  }
  pdt_lines_close(&lines);
  return rc || found < 0 ? -1 : 0;
}

static int open_all(conversion *c, pdt_error *err) {
  const pdt_documents_file *f = c->file;
  if (check_output(f, err) ||
      pdt_tokenizer_load_folder(&c->tokenizer, f->model, &c->fingerprint, err) ||
      (f->find && read_stop_words(c, err)) ||
      pdt_lines_open_once(&c->lines, f->in, PDT_DATA_LINE_BYTES, err) ||
      pdt_sink_open(&c->sink, f->out, err))
    return -1;
  c->rules = (pdt_document_rules){&f->plan, f->find ? &c->stop : NULL};
  return 0;
}

static void close_all(conversion *c) {
  pdt_sink_discard(&c->sink);
  pdt_lines_close(&c->lines);
  pdt_data_stop_words_free(&c->stop);
  pdt_tokenizer_free(c->tokenizer);
}

static int write_header(conversion *c, pdt_error *err) {
  const pdt_documents_file *f = c->file;
  char tokenizer[17], *text;
  size_t bytes;
  pdt_data_header h = {.tokenizer = tokenizer,
                       .rounds = f->rounds,
                       .plan_slots = f->plan.plan_slots,
                       .plan_vocab_size = f->plan.plan_vocab_size};
  if (f->part) h.split = (char *)(uintptr_t)pdt_atlas_split_name(f->split);
  snprintf(tokenizer, sizeof tokenizer, "%016" PRIx64, c->fingerprint);
  memcpy(h.plan_salt, f->plan.plan_hash_salt, PDT_SALT_BYTES);
  if (pdt_data_header_text(&h, &text, &bytes, err)) return -1;
  int rc = pdt_sink_write(&c->sink, text, (pdt_bytes)bytes, err);
  free(text);
  return rc;
}

/* Cuts the sections into tokens and labels their blocks. */
static int label(const conversion *c, pdt_data_entry *e, pdt_error *err) {
  pdt_data_tokens *tokens;
  if (pdt_data_tokenize_entry(c->tokenizer, e, &tokens, err)) return -1;
  int rc = pdt_data_label(e, tokens, &c->file->rounds, err);
  pdt_data_tokens_free(tokens, e->n_sections);
  return rc;
}

static int count(conversion *c, const pdt_data_entry *e, pdt_error *err) {
  counts *t = &c->counts;
  pdt_data_shape shape;
  uint64_t used = 0;
  if (pdt_data_shape_of(e, &c->file->rounds, &shape, err)) return -1;
  t->shape.blocks += shape.blocks;
  t->shape.unready += shape.unready;
  t->shape.uses += shape.uses;
  t->shape.unseen += shape.unseen;
  for (pdt_stream k = 0; k < e->n_sections; k++)
    for (int32_t b = 0; b < e->sections[k].n_blocks; b++) used |= e->sections[k].blocks[b].used;
  for (int32_t i = 0; i < e->n_facts; i++) {
    const char *value = e->facts[i].value;
    size_t at = 0;
    t->told += pdt_data_find(e->prompt, strlen(e->prompt), value, strlen(value), &at);
    t->unused += !(used >> i & 1);
  }
  t->facts += e->n_facts;
  t->entries++;
  return 0;
}

static int write_entry(conversion *c, pdt_data_entry *e, const char *where, pdt_error *err) {
  char *text;
  size_t bytes;
  if (c->file->part && pdt_documents_split_of(e->prompt) != c->file->split) {
    c->counts.other_split++;
    return 0;
  }
  if (e->n_facts == 0) {
    c->counts.without_facts++;
    return 0;
  }
  if (label(c, e, err) || count(c, e, err)) return pdt_fail_in(err, "%s", where);
  if (pdt_data_entry_text(e, &text, &bytes, err)) return -1;
  int rc = bytes <= PDT_DATA_LINE_BYTES
               ? pdt_sink_write(&c->sink, text, (pdt_bytes)bytes, err)
               : pdt_fail(err, PDT_ERROR_INPUT,
                          "%s: expected an entry of at most %d bytes with its labels, found %zu",
                          where, PDT_DATA_LINE_BYTES, bytes);
  free(text);
  return rc;
}

static int write_entries(conversion *c, pdt_error *err) {
  bool shows = pdt_on_terminal(STDERR_FILENO);
  char where[PDT_WHERE_BYTES];
  int found;
  while ((found = pdt_lines_next_filled(&c->lines, err)) > 0) {
    pdt_data_entry e;
    pdt_where(where, c->file->in, c->lines.number);
    if (pdt_document_parse(&e, &c->rules, c->lines.text, c->lines.bytes, where, err)) return -1;
    int rc = write_entry(c, &e, where, err);
    pdt_data_entry_free(&e);
    if (rc) return -1;
    if (++c->counts.lines % 64 == 0 && shows)
      fprintf(stderr, "\r%lld documents\033[K", (long long)c->counts.lines);
  }
  if (shows) fputs("\r\033[K", stderr);
  if (found < 0) return -1;
  if (c->counts.entries > 0) return 0;
  return pdt_fail(err, PDT_ERROR_INPUT,
                  "%s: expected documents, found none that makes an entry: %lld read, %lld of "
                  "another split, %lld without a name that two sections share",
                  c->file->in, (long long)c->counts.lines, (long long)c->counts.other_split,
                  (long long)c->counts.without_facts);
}

static void tell(const conversion *c, FILE *out) {
  const counts *t = &c->counts;
  const pdt_data_shape *s = &t->shape;
  pdt_say(out,
          "%s: %lld entries of %lld documents; %lld facts, %lld uses by siblings, %lld of them "
          "before their note can be seen; %lld of %lld blocks not ready in lockstep",
          c->file->out, (long long)t->entries, (long long)t->lines, (long long)t->facts,
          (long long)s->uses, (long long)s->unseen, (long long)s->unready, (long long)s->blocks);
  if (t->without_facts > 0)
    pdt_say(out, "left out, for no two sections share a name: %lld documents",
            (long long)t->without_facts);
  if (t->unused > 0) pdt_say(out, "facts that no other section uses: %lld", (long long)t->unused);
  if (t->told > 0)
    pdt_say(out, "facts that are in the prompt already, and so known to all: %lld",
            (long long)t->told);
}

int pdt_documents_write(const pdt_documents_file *file, pdt_error *err) {
  conversion c = {.file = file, .sink = {.fd = -1, .file = {.fd = -1}}};
  int rc = open_all(&c, err) || write_header(&c, err) || write_entries(&c, err) ||
           pdt_sink_commit(&c.sink, err);
  if (!rc) tell(&c, pdt_sink_descriptor(file->out) == STDOUT_FILENO ? stderr : stdout);
  close_all(&c);
  return rc ? -1 : 0;
}

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/json_text.h"
#include "data/data.h"

/* A line in the making. */
typedef struct line {
  FILE *out;
  bool bad; /* a text was no UTF-8 */
} line;

static void put_string(line *l, const char *key, const char *text) {
  fprintf(l->out, "\"%s\":", key);
  if (!pdt_json_put_string(l->out, text, strlen(text))) l->bad = true;
}

/* ,"key":[members of the set]; nothing when it is empty. */
static void put_set(line *l, const char *key, uint64_t set) {
  if (!set) return;
  fprintf(l->out, "\"%s\":[", key);
  for (int32_t i = 0, n = 0; i < 64; i++)
    if (set >> i & 1) fprintf(l->out, "%s%d", n++ ? "," : "", i);
  fputs("],", l->out);
}

static void put_block(line *l, const pdt_data_block *b) {
  fputc('{', l->out);
  put_set(l, "stated", b->stated);
  put_set(l, "used", b->used);
  put_set(l, "misread", b->misread);
  put_set(l, "coverage", b->coverage);
  fprintf(l->out, "\"ready\":%s", b->ready ? "true" : "false");
  if (b->note >= 0) fprintf(l->out, ",\"note\":%" PRId64, b->note);
  fputc('}', l->out);
}

static void put_section(line *l, const pdt_data_section *s) {
  fputc('{', l->out);
  put_string(l, "name", s->name);
  fputc(',', l->out);
  put_string(l, "prefix", s->prefix);
  fputc(',', l->out);
  put_string(l, "text", s->text);
  fprintf(l->out, ",\"tokens\":%d,\"mentions\":[", s->n_tokens);
  for (int32_t i = 0; i < s->n_mentions; i++)
    fprintf(l->out, "%s{\"fact\":%d,\"kind\":\"%s\",\"bytes\":[%d,%d]}", i ? "," : "",
            s->mentions[i].fact, pdt_mention_kind_name(s->mentions[i].kind), s->mentions[i].begin,
            s->mentions[i].end);
  fputs("],\"blocks\":[", l->out);
  for (int32_t b = 0; b < s->n_blocks; b++) {
    if (b) fputc(',', l->out);
    put_block(l, &s->blocks[b]);
  }
  fputs("]}", l->out);
}

static void put_entry(line *l, const pdt_data_entry *e) {
  fputc('{', l->out);
  put_string(l, "id", e->id);
  fputc(',', l->out);
  put_string(l, "prompt", e->prompt);
  fputs(",\"facts\":[", l->out);
  for (int32_t i = 0; i < e->n_facts; i++) {
    fprintf(l->out, "%s{\"stream\":%d,", i ? "," : "", e->facts[i].stream);
    put_string(l, "type", e->facts[i].type);
    fputc(',', l->out);
    put_string(l, "value", e->facts[i].value);
    fputs(e->facts[i].any ? ",\"any\":true}" : "}", l->out);
  }
  fputs("],\"plan\":[", l->out);
  for (int32_t i = 0; i < e->n_plan; i++) {
    fprintf(l->out, "%s{\"stream\":%d,", i ? "," : "", e->plan[i].stream);
    put_string(l, "text", e->plan[i].text);
    fprintf(l->out, ",\"id\":%d}", e->plan[i].id);
  }
  fputs("],\"sections\":[", l->out);
  for (int32_t k = 0; k < e->n_sections; k++) {
    if (k) fputc(',', l->out);
    put_section(l, &e->sections[k]);
  }
  fputs("]}\n", l->out);
}

static void put_header(line *l, const pdt_data_header *h) {
  fputs("{\"format\":\"pdt-data\",\"version\":1,", l->out);
  if (h->world) {
    put_string(l, "world", h->world);
    fputc(',', l->out);
  }
  if (h->split) {
    put_string(l, "split", h->split);
    fputc(',', l->out);
  }
  fputs("\"seed\":", l->out);
  pdt_json_put_u64(l->out, h->seed);
  fprintf(l->out, ",\"hard\":%s,\"block_tokens\":%d,\"reveal_delay\":%d,\"window\":%d,",
          h->hard ? "true" : "false", h->rounds.block_tokens, h->rounds.reveal_delay,
          h->rounds.window);
  fprintf(l->out, "\"plan_slots\":%d,\"plan_vocab_size\":%d,", h->plan_slots, h->plan_vocab_size);
  put_string(l, "plan_hash_salt", h->plan_salt);
  if (h->tokenizer) {
    fputc(',', l->out);
    put_string(l, "tokenizer", h->tokenizer);
  }
  if (h->notes_file) {
    fputs(",\"notes\":{", l->out);
    put_string(l, "file", h->notes_file);
    fprintf(l->out, ",\"dim\":%d}", h->notes_dim);
  }
  fputs("}\n", l->out);
}

/* Writes a header or an entry into memory. */
static int write_line(const pdt_data_header *h, const pdt_data_entry *e, char **text, size_t *bytes,
                      pdt_error *err) {
  *text = NULL;
  line l = {open_memstream(text, bytes), false};
  if (!l.out) return pdt_fail(err, PDT_ERROR_MEMORY, "data: no memory for a line");
  if (h) put_header(&l, h);
  if (e) put_entry(&l, e);
  bool failed = ferror(l.out) != 0;
  failed |= fclose(l.out) != 0;
  if (!failed && !l.bad) return 0;
  free(*text);
  *text = NULL;
  if (failed) return pdt_fail(err, PDT_ERROR_MEMORY, "data: no memory for a line");
  return pdt_fail(err, PDT_ERROR_INPUT, "data: a text of %s is not UTF-8",
                  e ? e->id : "the header");
}

int pdt_data_header_text(const pdt_data_header *h, char **text, size_t *bytes, pdt_error *err) {
  return write_line(h, NULL, text, bytes, err);
}

int pdt_data_entry_text(const pdt_data_entry *e, char **text, size_t *bytes, pdt_error *err) {
  return write_line(NULL, e, text, bytes, err);
}

#include "run/atlas.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "atlas/vocabulary.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/text_safe.h"
#include "data/data.h"
#include "data/join.h"
#include "data/sequence.h"
#include "journal/sink.h"
#include "run/outputs.h"

/* What the entries are drawn with. */
typedef struct workshop {
  pdt_atlas_world *world;
  pdt_tokenizer *tokenizer;
  pdt_request_chat chat;
  uint64_t fingerprint;
  pdt_atlas_generator generator;
} workshop;

static int open_workshop(const pdt_atlas_file *a, workshop *w, pdt_error *err) {
  if (pdt_atlas_world_new(&w->world, a->world, err)) return -1;
  if (a->model ? pdt_tokenizer_load_folder(&w->tokenizer, a->model, &w->fingerprint, err)
               : pdt_atlas_tokenizer(w->world, &w->tokenizer, &w->fingerprint, err))
    return -1;
  if (pdt_request_chat_new(&w->chat, a->model, w->tokenizer, &a->chat, err) ||
      pdt_atlas_generator_init(&w->generator, w->world, w->tokenizer, &a->atlas, err))
    return -1;
  if (a->chat.prompts || a->chat.system) w->generator.chat = &w->chat;
  return 0;
}

static void close_workshop(workshop *w) {
  pdt_atlas_generator_free(&w->generator);
  pdt_request_chat_free(&w->chat);
  pdt_tokenizer_free(w->tokenizer);
  pdt_atlas_world_free(w->world);
}

static int write_header(const pdt_atlas_file *a, const workshop *w, pdt_sink *sink,
                        pdt_error *err) {
  char tokenizer[17], *text;
  size_t bytes;
  /* The world's parser knows no text of several sections. */
  const char *world = a->one_stream ? NULL : pdt_atlas_kind_name(a->world);
  pdt_data_header h = {.world = (char *)(uintptr_t)world,
                       .split = (char *)(uintptr_t)pdt_atlas_split_name(a->atlas.split),
                       .tokenizer = tokenizer,
                       .seed = a->atlas.seed,
                       .hard = a->atlas.hard,
                       .rounds = a->atlas.rounds,
                       .plan_slots = a->atlas.plan_slots,
                       .plan_vocab_size = a->atlas.plan_vocab_size};
  snprintf(tokenizer, sizeof tokenizer, "%016" PRIx64, w->fingerprint);
  snprintf(h.plan_salt, sizeof h.plan_salt, "%s", a->atlas.plan_salt);
  if (pdt_data_header_text(&h, &text, &bytes, err)) return -1;
  int rc = pdt_sink_write(sink, text, (pdt_bytes)bytes, err);
  free(text);
  return rc;
}

/* The id of a special token of the Atlas. */
static int special(const workshop *w, const char *text, pdt_token *id, pdt_error *err) {
  pdt_token *ids;
  int32_t n;
  if (pdt_tokenizer_encode(w->tokenizer, text, strlen(text), false, &ids, &n, err)) return -1;
  *id = ids[0];
  free(ids);
  return n == 1 ? 0
                : pdt_fail(err, PDT_ERROR_INPUT,
                           "the tokenizer has no token '%s' (hint: pdt data tokenizer)", text);
}

/* An entry as one text. */
static int sequence_text(const pdt_atlas_file *a, const workshop *w, const pdt_data_entry *e,
                         uint32_t index, char **text, size_t *bytes, pdt_error *err) {
  pdt_sequence_weights weights = pdt_sequence_weights_default();
  int32_t order[PDT_ATLAS_SECTIONS];
  pdt_token end, eos;
  pdt_buffer line = {0};
  pdt_sequence_order(a->atlas.seed, index, e->n_sections, order);
  int rc = special(w, PDT_ATLAS_END, &end, err) || special(w, PDT_ATLAS_EOS, &eos, err) ||
           pdt_sequence_put(e, w->tokenizer, order, end, eos, &weights, &line, err) ||
           pdt_buffer_take(&line, text, bytes, err);
  pdt_buffer_free(&line);
  return rc ? -1 : 0;
}

/* The line of entry `index`. */
static int entry_line(const pdt_atlas_file *a, workshop *w, uint32_t index, char **text,
                      size_t *bytes, pdt_error *err) {
  pdt_data_entry e = {0};
  int rc = pdt_atlas_generate(&w->generator, index, &e, err);
  if (!rc && a->one_stream) rc = pdt_data_join(&e, w->tokenizer, &a->atlas.rounds, err);
  if (!rc)
    rc = a->sequential ? sequence_text(a, w, &e, index, text, bytes, err)
                       : pdt_data_entry_text(&e, text, bytes, err);
  pdt_data_entry_free(&e);
  return rc;
}

static int write_entries(const pdt_atlas_file *a, workshop *w, pdt_sink *sink, pdt_bytes *written,
                         pdt_error *err) {
  int rc = a->sequential ? 0 : write_header(a, w, sink, err);
  for (int64_t i = 0; i < a->count && !rc; i++) {
    char *text = NULL;
    size_t bytes = 0;
    rc = entry_line(a, w, (uint32_t)(a->first + i), &text, &bytes, err) ||
         pdt_sink_write(sink, text, (pdt_bytes)bytes, err);
    *written += (pdt_bytes)bytes;
    free(text);
  }
  return rc ? -1 : 0;
}

static int check_atlas_output(const pdt_atlas_file *a, pdt_error *err) {
  pdt_named_files outputs = {0}, inputs = {0};
  pdt_files_add(&outputs, "--out", a->out);
  if (a->model) pdt_files_add_model(&inputs, "--model", a->model);
  return pdt_outputs_check(&outputs, &inputs, err)
             ? -1
             : pdt_output_may_replace("--out", a->out, PDT_KIND_DATA, a->overwrite, err);
}

/* Most bytes of the list of names that were left out. */
enum { SHOWN_NAMES = 400 };

static void tell_left_out(const pdt_atlas_generator *g, FILE *out) {
  if (g->n_left_out == 0) return;
  size_t bytes = g->left_out.bytes;
  bool all = bytes <= SHOWN_NAMES;
  for (bytes = all ? bytes : SHOWN_NAMES; !all && g->left_out.data[bytes] != ',';) bytes--;
  pdt_say(out, "left out, for this tokenizer has them in more tokens: %d names: %.*s%s",
          g->n_left_out, (int)bytes, g->left_out.data, all ? "" : ", ...");
}

int pdt_atlas_write(const pdt_atlas_file *file, pdt_error *err) {
  workshop w = {0};
  pdt_sink sink = {.fd = -1, .file = {.fd = -1}};
  pdt_bytes written = 0;
  double start = pdt_seconds();
  int rc = check_atlas_output(file, err) || open_workshop(file, &w, err) ||
           pdt_sink_open(&sink, file->out, err) || write_entries(file, &w, &sink, &written, err) ||
           pdt_sink_commit(&sink, err);
  pdt_sink_discard(&sink);
  if (!rc) {
    double seconds = pdt_seconds() - start;
    FILE *terminal = pdt_sink_descriptor(file->out) == STDOUT_FILENO ? stderr : stdout;
    tell_left_out(&w.generator, terminal);
    pdt_say(terminal,
            "%s: %lld entries, %.1f MB, %lld bytes an entry, %.2f draws an entry, %.1f s, "
            "%.0f entries/s",
            file->out, (long long)file->count, (double)written * 1e-6,
            (long long)(written / file->count), (double)w.generator.attempts / (double)file->count,
            seconds, (double)file->count / seconds);
  }
  close_workshop(&w);
  return rc ? -1 : 0;
}

static int write_tokenizer(const char *directory, const char *text, bool overwrite,
                           pdt_error *err) {
  char *path;
  if (pdt_output_folder_check("--out", directory, err)) return -1;
  bool made;
  if (pdt_output_folder_make(directory, &made, err)) return -1;
  if (pdt_path_join(&path, directory, "tokenizer.json", err)) return -1;
  int rc = pdt_output_may_replace("--out", path, PDT_KIND_OTHER, overwrite, err);
  if (!rc) rc = pdt_file_write_text(path, text, err);
  if (rc && made) rmdir(directory);
  free(path);
  return rc;
}

int pdt_atlas_write_tokenizer(pdt_atlas_kind kind, const char *directory, bool overwrite,
                              pdt_error *err) {
  pdt_atlas_world *world;
  char *text = NULL;
  if (pdt_atlas_world_new(&world, kind, err)) return -1;
  int rc = pdt_atlas_tokenizer_text(world, &text, err);
  if (!rc) rc = write_tokenizer(directory, text, overwrite, err);
  if (!rc)
    pdt_say(stdout, "%s/tokenizer.json: %zu bytes, fingerprint %016" PRIx64, directory,
            strlen(text), pdt_tokenizer_fingerprint(text, strlen(text)));
  free(text);
  pdt_atlas_world_free(world);
  return rc;
}

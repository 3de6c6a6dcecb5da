#include "run/evaluate.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "journal/sink.h"
#include "run/eval_output.h"
#include "run/outputs.h"

/* A file that appears whole, when all is done. */
typedef struct written_file {
  pdt_sink sink;
  FILE *file; /* what it gets, in memory; NULL without */
  char *text;
  size_t bytes;
} written_file;

static const written_file no_file = {.sink = {.fd = -1, .file = {.fd = -1}}};

/* Everything a run holds. */
typedef struct evaluation {
  const pdt_comm *world;
  const char *name; /* of the program, in messages */
  const pdt_eval_options *options;
  pdt_notices notices;
  pdt_engine *engine;
  pdt_atlas_world *atlas;
  pdt_tokenizer *tokenizer;
  pdt_request_chat chat;
  pdt_eval_entries data;
  pdt_eval_row *rows; /* [n_rows] */
  bool taught;
  pdt_teacher_forced teacher;
  written_file out, texts; /* of --out and --texts, on rank 0 */
  const char *row;         /* the label of the row at hand */
} evaluation;

/* With --chat, prompts must not be conversations yet: of these, special tokens are part. */
static int check_prompts(const evaluation *e, pdt_error *err) {
  const pdt_chat_flags *flags = &e->options->chat;
  const char *prompt = e->data.entries[0].prompt;
  pdt_token *ids;
  int32_t n;
  bool special = false;
  if (!flags->prompts && !flags->system) return 0;
  if (pdt_tokenizer_encode(e->tokenizer, prompt, strlen(prompt), false, &ids, &n, err)) return -1;
  for (int32_t i = 0; i < n; i++) special |= pdt_tokenizer_is_special(e->tokenizer, ids[i]);
  free(ids);
  return special ? pdt_fail(err, PDT_ERROR_USAGE,
                            "--chat: %s: its prompts are conversations already, or have special "
                            "tokens in them",
                            e->options->data)
                 : 0;
}

static int load_data(evaluation *e, pdt_error *err) {
  const pdt_eval_options *o = e->options;
  uint64_t fingerprint = 0;
  if (pdt_tokenizer_load_folder(&e->tokenizer, o->engine.model, &fingerprint, err) ||
      pdt_request_chat_new(&e->chat, o->engine.model, e->tokenizer, &o->chat, err) ||
      pdt_eval_entries_read(&e->data, o->data, o->count,
                            &pdt_engine_loaded(e->engine)->sidecar.config, fingerprint, err) ||
      check_prompts(e, err) || pdt_atlas_world_new(&e->atlas, e->data.kind, err) ||
      PDT_NEW(&e->rows, o->n_rows, "rows", err))
    return -1;
  return 0;
}

/* Chat templates are told the same date on every rank, whose clocks may differ. */
static void share_date(evaluation *e) {
  pdt_comm_broadcast(e->world, &e->chat.date, sizeof e->chat.date, 0);
  e->chat.date.tm_zone = NULL; /* a pointer of rank 0 */
}

static int open_file(written_file *f, const char *option, const char *path, pdt_error *err) {
  if (!path) return 0;
  if (pdt_output_may_replace(option, path, PDT_KIND_OTHER, true, err) ||
      pdt_sink_open(&f->sink, path, err))
    return -1;
  f->file = open_memstream(&f->text, &f->bytes);
  return f->file ? 0 : pdt_fail(err, PDT_ERROR_MEMORY, "%s: no memory", path);
}

/* Rank 0's part before anything is loaded: outputs are opened, and cost nothing that is read. */
static int open_files(evaluation *e, pdt_error *err) {
  const pdt_eval_options *o = e->options;
  pdt_named_files outputs = {0}, inputs = {0};
  if (o->out) pdt_files_add(&outputs, "--out", o->out);
  if (o->texts) pdt_files_add(&outputs, "--texts", o->texts);
  pdt_files_add_model(&inputs, "--model", o->engine.model);
  pdt_files_add(&inputs, "--sidecar", o->engine.sidecar);
  pdt_files_add(&inputs, "--data", o->data);
  return pdt_outputs_check(&outputs, &inputs, err) || open_file(&e->out, "--out", o->out, err) ||
                 open_file(&e->texts, "--texts", o->texts, err)
             ? -1
             : 0;
}

/* A row for everybody who reads. */
static int put_row(evaluation *e, const pdt_eval_row *row, pdt_error *err) {
  const pdt_eval_options *o = e->options;
  bool tables = !o->json || o->out;
  if (tables) pdt_eval_print_row(stdout, row);
  FILE *file = e->out.file;
  if (o->json && pdt_eval_print_json(file ? file : stdout, row, o->curves, err)) return -1;
  if (file && !o->json) pdt_eval_print_row(file, row);
  fflush(stdout);
  return 0;
}

static int finish_file(written_file *f, const char *path, pdt_error *err) {
  if (!f->file) return 0;
  bool bad = fclose(f->file) != 0;
  f->file = NULL;
  if (bad) return pdt_fail(err, PDT_ERROR_MEMORY, "%s: no memory", path);
  return pdt_sink_write(&f->sink, f->text, (pdt_bytes)f->bytes, err) ||
                 pdt_sink_commit(&f->sink, err)
             ? -1
             : 0;
}

static void discard_file(written_file *f) {
  if (f->file) fclose(f->file);
  pdt_sink_discard(&f->sink);
  free(f->text);
}

/* Rank 0's part of the beginning and of the end. */
static void put_head(evaluation *e) {
  const pdt_eval_options *o = e->options;
  if (!o->json || o->out) pdt_eval_print_head(stdout, &e->data, o);
  if (e->out.file && !o->json) pdt_eval_print_head(e->out.file, &e->data, o);
}

/* The tables under the rows. */
static void put_tables(const evaluation *e, FILE *out) {
  pdt_eval_print_differences(out, e->rows, e->options->n_rows);
  pdt_eval_print_bus(out, e->rows, e->options->n_rows);
  for (int32_t i = 0; i < e->options->n_rows && e->options->curves; i++)
    pdt_eval_print_curves(out, &e->rows[i]);
  pdt_eval_print_causes(out, e->rows, e->options->n_rows);
  if (e->atlas->held_out > 0) pdt_eval_print_names(out, e->rows, e->options->n_rows);
  pdt_eval_print_work(out, e->rows, e->options->n_rows);
}

static int put_end(evaluation *e, pdt_error *err) {
  const pdt_eval_options *o = e->options;
  if (!o->json || o->out) put_tables(e, stdout);
  if (e->out.file && !o->json) put_tables(e, e->out.file);
  return finish_file(&e->out, o->out, err) || finish_file(&e->texts, o->texts, err) ? -1 : 0;
}

/* The heads on the file's own text, when a row is of an arm that they were trained for. */
static int teach(evaluation *e, pdt_error *err) {
  const pdt_eval_options *o = e->options;
  for (int32_t i = 0; i < o->n_rows; i++)
    e->taught = e->taught || (!o->no_teacher && pdt_eval_arm_is_trained(o->rows[i].setup.arm));
  uint64_t seed = 0;
  (void)pdt_json_u64_of(json_object_get(o->settings, "seed"), &seed);
  pdt_teacher_forced_use use = {.data = o->data,
                                .most = o->count,
                                .model = &pdt_engine_loaded(e->engine)->model,
                                .checkpoint = pdt_engine_loaded(e->engine)->checkpoint,
                                .config = &pdt_engine_loaded(e->engine)->sidecar.config,
                                .sidecar = pdt_engine_loaded(e->engine)->sidecar_file,
                                .tokenizer = e->tokenizer,
                                .seed = seed,
                                .entries = &e->data,
                                .world = e->atlas,
                                .threads = pdt_engine_layout_of(e->engine).threads};
  for (int32_t i = 0; i < o->n_rows; i++) {
    pdt_alter_mode mode = o->rows[i].setup.alter;
    use.altered[mode] = mode != PDT_ALTER_NONE;
  }
  if (!e->taught) return 0;
  if (pdt_teacher_forced_read(e->world, &use, &e->teacher, err)) return -1;
  if (e->world->rank == 0) pdt_loaded_unchanged(pdt_engine_loaded(e->engine), err);
  return pdt_comm_agree(e->world, err);
}

/* Tells what there is to hear since it was last told. */
static void print_notices(evaluation *e) {
  if (e->world->rank == 0) pdt_notices_print(&e->notices, stderr, e->name, false);
  e->notices = (pdt_notices){0};
}

/* What a note takes, and what a token's keys and values do. */
static void measure(const evaluation *e, pdt_eval_row *row) {
  const pdt_loaded *loaded = pdt_engine_loaded(e->engine);
  const pdt_kv_shape shape = {loaded->model.layers, loaded->model.kv_heads, loaded->model.head_dim};
  row->note_bytes = loaded->sidecar.config.notes_dim * (int64_t)sizeof(float);
  row->kv_bytes = pdt_kv_bytes(&shape, 1) / PDT_PAGE_TOKENS;
}

/* On rank 0: an entry was judged. */
static int on_written(void *context, const pdt_eval_written *written, pdt_error *err) {
  evaluation *e = context;
  return pdt_eval_print_text(e->texts.file, e->row, written, err);
}

static int run_rows(evaluation *e, pdt_error *err) {
  const pdt_comm *world = e->world;
  uint32_t told = 0;
  const pdt_eval eval = {.world = world,
                         .engine = e->engine,
                         .atlas = e->atlas,
                         .tokenizer = e->tokenizer,
                         .data = &e->data,
                         .chat = &e->chat,
                         .written = e->texts.file ? on_written : NULL,
                         .written_context = e,
                         .told = &told,
                         .notices = &e->notices};
  bool lead = world->rank == 0;
  if (lead) put_head(e);
  for (int32_t i = 0; i < e->options->n_rows; i++) {
    pdt_eval_row *row = &e->rows[i];
    row->options = &e->options->rows[i];
    measure(e, row);
    e->row = row->options->label;
    if (pdt_eval_run(&eval, &row->options->setup, &row->figures, err))
      return pdt_fail_in(err, "%s", row->options->label);
    print_notices(e);
    if (e->taught && pdt_eval_arm_is_trained(row->options->setup.arm)) row->teacher = &e->teacher;
    row->difference = (pdt_ratio){NAN, NAN};
    if (lead && (i == 0 || !pdt_eval_difference(&row->figures, &e->rows[0].figures, e->data.n,
                                                &row->difference, err)))
      put_row(e, row, err);
    if (pdt_comm_agree(world, err)) return -1;
  }
  if (lead) put_end(e, err);
  return pdt_comm_agree(world, err);
}

static int evaluate(evaluation *e, pdt_error *err) {
  const pdt_comm *world = e->world;
  if (world->rank == 0) open_files(e, err);
  if (pdt_comm_agree(world, err)) return -1;
  pdt_engine_options engine = e->options->engine;
  engine.notices = &e->notices;
  if (pdt_engine_new(&e->engine, world, &engine, err)) return -1;
  print_notices(e);
  load_data(e, err);
  if (pdt_comm_agree(world, err) ||
      pdt_run_same_data(world, e->options->data, e->data.fingerprint, err) || teach(e, err))
    return -1;
  share_date(e);
  return run_rows(e, err);
}

static void end(evaluation *e) {
  discard_file(&e->out);
  discard_file(&e->texts);
  for (int32_t i = 0; e->rows && i < e->options->n_rows; i++)
    pdt_eval_figures_free(&e->rows[i].figures);
  free(e->rows);
  pdt_eval_entries_free(&e->data);
  pdt_request_chat_free(&e->chat);
  pdt_tokenizer_free(e->tokenizer);
  pdt_atlas_world_free(e->atlas);
  pdt_engine_free(e->engine);
}

int pdt_evaluate(const pdt_comm *world, const char *name, const pdt_eval_options *options,
                 pdt_error *err) {
  evaluation e = {
      .world = world, .name = name, .options = options, .out = no_file, .texts = no_file};
  int status = evaluate(&e, err);
  end(&e);
  return status;
}

#include "run/perplexity.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/text_safe.h"
#include "engine/bare.h"
#include "run/terminal.h"
#include "text/tokenizer.h"
#include "trunk/trunk.h"

enum { ROWS = 64, USUAL_CONTEXT = 512, MOST_TEXT_BYTES = 1 << 30 };

/* What a token got; by its place in the text, 0 where another rank knows. */
enum { LOSS, OTHER_LOSS, DIVERGENCE, SAME, SCORES };

/* One of the two models, as it reads. */
typedef struct reader {
  pdt_bare_model model;
  pdt_kv_cache kv;
  pdt_trunk trunk;
  pdt_kv_sequence sequence;
  pdt_array hidden; /* [ROWS, d] of own rows */
  float *logits;    /* [ROWS, V] */
} reader;

typedef struct reading {
  const pdt_comm *world;
  const char *name;
  const pdt_perplexity_options *options;
  pdt_notices notices;
  pdt_machine machine;
  reader readers[2];
  int32_t n_readers, context, stride;
  pdt_token *tokens; /* [n] */
  int64_t n, bytes;
  double *scores[SCORES]; /* [n] */
  int32_t *begin;         /* [T + 1] */
} reading;

/* ---- the text ---- */

/* Rank 0 reads it, all get its tokens. */
static int read_text(reading *r, pdt_error *err) {
  const pdt_perplexity_options *o = r->options;
  pdt_tokenizer *tokenizer = NULL;
  char *text = NULL;
  pdt_bytes bytes = 0;
  int32_t n = 0;
  bool lead = r->world->rank == 0;
  if (lead && !pdt_tokenizer_load_folder(&tokenizer, o->model, NULL, err) &&
      !pdt_file_read(&text, &bytes, o->text, MOST_TEXT_BYTES, err) &&
      pdt_tokenizer_encode(tokenizer, text, (size_t)bytes, true, &r->tokens, &n, err))
    pdt_fail_in(err, "--text %s", o->text);
  if (lead && err->code == PDT_ERROR_NONE && n < 2)
    pdt_fail(err, PDT_ERROR_INPUT, "--text %s: expected 2 tokens or more, found %d", o->text, n);
  free(text);
  pdt_tokenizer_free(tokenizer);
  if (pdt_comm_agree(r->world, err)) return -1;
  int64_t told[2] = {n, bytes};
  pdt_comm_broadcast(r->world, told, sizeof told, 0);
  r->n = told[0];
  r->bytes = told[1];
  if (!lead) PDT_NEW(&r->tokens, r->n, "text", err);
  for (int i = 0; i < SCORES && err->code == PDT_ERROR_NONE; i++)
    PDT_NEW(&r->scores[i], r->n, "text", err);
  if (pdt_comm_agree(r->world, err)) return -1;
  pdt_comm_broadcast(r->world, r->tokens, r->n * (pdt_bytes)sizeof *r->tokens, 0);
  return 0;
}

/* The models have all of its tokens. */
static int check_tokens(const reading *r, pdt_error *err) {
  int32_t vocabulary = r->readers[0].model.config.vocab_size;
  for (int64_t i = 0; i < r->n; i++)
    if (r->tokens[i] >= vocabulary)
      return pdt_fail(err, PDT_ERROR_INPUT,
                      "%s: the tokenizer made token %d, the model has %d (hint: another model's "
                      "tokenizer?)",
                      r->options->model, r->tokens[i], vocabulary);
  return 0;
}

/* ---- the models ---- */

static int choose_windows(reading *r, pdt_error *err) {
  const pdt_perplexity_options *o = r->options;
  int32_t most = r->readers[0].model.config.max_positions;
  r->context = o->context > 0                     ? o->context
               : most > 0 && most < USUAL_CONTEXT ? most
                                                  : USUAL_CONTEXT;
  r->stride = o->stride > 0 ? o->stride : r->context / 2;
  if (r->stride >= r->context)
    return pdt_fail(
        err, PDT_ERROR_USAGE,
        "--stride: expected less than the --context, %d, found %d (hint: a window's first "
        "token has nothing that foretells it)",
        r->context, r->stride);
  for (int32_t i = 0; i < r->n_readers; i++) {
    most = r->readers[i].model.config.max_positions;
    if (most > 0 && r->context > most)
      return pdt_fail(err, PDT_ERROR_USAGE, "--context: expected at most the model's %d, found %d",
                      most, r->context);
  }
  return 0;
}

static int reader_begin(reading *r, reader *m, pdt_error *err) {
  pdt_device *dev = &r->machine.device;
  const pdt_kv_shape shape = pdt_bare_kv_shape(&m->model);
  const pdt_trunk_limits limits = {ROWS, ROWS, r->context};
  return pdt_kv_new(&m->kv, dev, &shape, pdt_kv_pages(r->context), err) ||
         pdt_kv_sequence_new(&m->sequence, &m->kv, NULL, 0, r->context, err) ||
         dev->ops->alloc(dev, (int64_t)ROWS * m->model.config.hidden_size, "rows", &m->hidden,
                         err) ||
         PDT_NEW(&m->logits, (int64_t)ROWS * m->model.config.vocab_size, "logits", err) ||
         pdt_trunk_new(&m->trunk, &m->model.weights, &r->machine.group, &m->kv, &limits, err);
}

static void reader_end(reading *r, reader *m) {
  pdt_device *dev = &r->machine.device;
  if (!dev->ops) return;
  pdt_kv_sequence_free(&m->sequence, &m->kv);
  dev->ops->release(dev, m->hidden);
  free(m->logits);
  pdt_trunk_free(&m->trunk);
  pdt_kv_free(&m->kv);
  pdt_bare_model_free(&m->model);
}

static int load(reading *r, pdt_error *err) {
  const pdt_perplexity_options *o = r->options;
  const char *paths[] = {o->model, o->against};
  pdt_error own = {0};
  r->n_readers = o->against ? 2 : 1;
  if (pdt_machine_new(&r->machine, r->world, &o->machine, err)) return -1;
  for (int32_t i = 0; i < r->n_readers && own.code == PDT_ERROR_NONE; i++)
    pdt_bare_model_load(&r->readers[i].model, &r->machine, paths[i],
                        i > 0 ? r->readers[0].model.config.vocab_size : 0,
                        i > 0 ? PDT_F32 : o->quantize, &r->notices, &own);
  if (own.code == PDT_ERROR_NONE && !choose_windows(r, &own) && !check_tokens(r, &own))
    PDT_NEW(&r->begin, r->machine.group.size + 1, "rows", &own);
  for (int32_t i = 0; i < r->n_readers && own.code == PDT_ERROR_NONE; i++)
    reader_begin(r, &r->readers[i], &own);
  if (own.code != PDT_ERROR_NONE) pdt_machine_fail_in(&r->machine, &own);
  if (!pdt_comm_agree(r->world, &own)) return 0;
  *err = own;
  return -1;
}

/* ---- scores ---- */

/* log of the sum of exponentials, in double, from the first on; NaN where a logit is none. */
static double log_sum(const float *logits, int32_t n, int32_t *top) {
  *top = 0;
  for (int32_t i = 1; i < n; i++)
    if (logits[i] > logits[*top]) *top = i;
  double sum = 0;
  for (int32_t i = 0; i < n; i++) sum += exp((double)logits[i] - logits[*top]);
  return sum > 0 ? logits[*top] + log(sum) : NAN;
}

/* Scores the token at `place`, which own row `row` foretells. */
static void score(const reading *r, int32_t row, int64_t place) {
  int32_t vocabulary = r->readers[0].model.config.vocab_size, top, other_top;
  const float *x = r->readers[0].logits + (int64_t)row * vocabulary;
  double all = log_sum(x, vocabulary, &top);
  r->scores[LOSS][place] = all - x[r->tokens[place]];
  if (r->n_readers == 1) return;
  const float *y = r->readers[1].logits + (int64_t)row * vocabulary;
  double other = log_sum(y, vocabulary, &other_top), divergence = 0;
  for (int32_t i = 0; i < vocabulary; i++)
    divergence += exp(y[i] - other) * ((y[i] - other) - (x[i] - all));
  r->scores[OTHER_LOSS][place] = other - y[r->tokens[place]];
  r->scores[DIVERGENCE][place] = divergence;
  r->scores[SAME][place] = top == other_top;
}

/* Rows at .. at + n - 1 of the window that begins at token `from`; those that foretell a token
 * before `first` are only read. */
static int read_rows(reading *r, int64_t from, int32_t at, int32_t n, int64_t first,
                     pdt_error *err) {
  const pdt_comm *group = &r->machine.group;
  pdt_trunk_row rows[ROWS];
  bool scored = from + at + n >= first;
  for (pdt_rank t = 0; t <= group->size; t++) r->begin[t] = (int32_t)((int64_t)n * t / group->size);
  for (int32_t m = 0; m < r->n_readers; m++) {
    reader *reads = &r->readers[m];
    for (int32_t i = 0; i < n; i++)
      rows[i] = (pdt_trunk_row){&reads->sequence, at + i, r->tokens[from + at + i]};
    const pdt_trunk_batch batch = {.rows = rows, .begin = r->begin, .bulk = true};
    if (pdt_trunk_forward(&reads->trunk, &batch, NULL, reads->hidden, err)) return -1;
    if (scored) pdt_trunk_logits(&reads->trunk, r->begin, reads->hidden, reads->logits);
  }
  int32_t own = r->begin[group->rank], end = r->begin[group->rank + 1];
#pragma omp parallel for num_threads(r->machine.threads) schedule(static)
  for (int32_t i = own; i < end; i++)
    if (from + at + i + 1 >= first) score(r, i - own, from + at + i + 1);
  return 0;
}

/* Reads the window of tokens from .. to - 1, and scores those from `first` on. */
static int read_window(reading *r, int64_t from, int64_t to, int64_t first, pdt_error *err) {
  int32_t rows = (int32_t)(to - from) - 1;
  for (int32_t m = 0; m < r->n_readers; m++)
    pdt_kv_truncate(&r->readers[m].sequence, &r->readers[m].kv, 0);
  for (int32_t at = 0; at < rows; at += ROWS)
    if (read_rows(r, from, at, rows - at < ROWS ? rows - at : ROWS, first, err)) return -1;
  return pdt_machine_sync(&r->machine, err);
}

/* Every shard group reads windows of its own; then every rank has all scores: of each, one rank has
 * the bits and the others zero. */
static int read_all(reading *r, pdt_error *err) {
  enum { AT_ONCE = 1 << 20 };
  pdt_rank T = r->machine.group.size, groups = r->world->size / T, group = r->world->rank / T;
  bool shows = r->world->rank == 0 && pdt_on_terminal(2);
  int64_t first = 1, from = 0;
  for (int64_t w = 0; first < r->n && err->code == PDT_ERROR_NONE; w++, from += r->stride) {
    int64_t to = from + r->context < r->n ? from + r->context : r->n;
    if (shows) fprintf(stderr, "\r%3.0f%%", 100.0 * (double)first / (double)r->n);
    if (w % groups == group) read_window(r, from, to, first, err);
    first = to;
  }
  if (shows) fprintf(stderr, "\r    \r");
  for (int64_t i = 1; i < r->n && err->code == PDT_ERROR_NONE; i++)
    if (!isfinite(r->scores[LOSS][i]) || !isfinite(r->scores[DIVERGENCE][i]))
      pdt_fail(err, PDT_ERROR_RUNTIME, "token %lld: expected finite logits, found NaN or infinity",
               (long long)i);
  if (pdt_comm_agree(r->world, err)) return -1;
  for (int s = 0; s < SCORES; s++)
    for (int64_t i = 0; i < r->n; i += AT_ONCE) {
      int64_t n = r->n - i < AT_ONCE ? r->n - i : AT_ONCE;
      pdt_comm_all_reduce_i64(r->world, (int64_t *)(void *)(r->scores[s] + i), (int32_t)n,
                              PDT_COMM_SUM);
    }
  return 0;
}

/* ---- the report ---- */

typedef struct figure {
  double mean, error; /* its standard error */
} figure;

/* Of scores a - b; b may be NULL. */
static figure figure_of(const reading *r, const double *a, const double *b) {
  double sum = 0, squares = 0, n = (double)(r->n - 1);
  for (int64_t i = 1; i < r->n; i++) sum += a[i] - (b ? b[i] : 0);
  double mean = sum / n;
  for (int64_t i = 1; i < r->n; i++) {
    double off = a[i] - (b ? b[i] : 0) - mean;
    squares += off * off;
  }
  return (figure){mean, n > 1 ? sqrt(squares / (n - 1) / n) : 0};
}

static int by_size(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

/* The value that so much of the n scores is not above; they are in order. */
static double quantile(const double *ordered, int64_t n, double part) {
  int64_t at = (int64_t)ceil(part * (double)n) - 1;
  return ordered[at < 0 ? 0 : at];
}

static json_t *own_json(const reading *r, const double *loss) {
  figure f = figure_of(r, loss, NULL);
  double bits = f.mean * (double)(r->n - 1) / log(2);
  return json_pack("{s:f,s:f,s:f,s:f}", "cross_entropy", f.mean, "standard_error", f.error,
                   "perplexity", exp(f.mean), "bits_per_byte", bits / (double)r->bytes);
}

static json_t *pair_json(reading *r) {
  figure divergence = figure_of(r, r->scores[DIVERGENCE], NULL);
  figure same = figure_of(r, r->scores[SAME], NULL);
  figure more = figure_of(r, r->scores[LOSS], r->scores[OTHER_LOSS]);
  double *d = r->scores[DIVERGENCE] + 1;
  int64_t n = r->n - 1;
  qsort(d, (size_t)n, sizeof *d, by_size);
  return json_pack("{s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:f}", "divergence", divergence.mean,
                   "standard_error", divergence.error, "median", quantile(d, n, 0.5), "p99",
                   quantile(d, n, 0.99), "most", d[n - 1], "same_top", same.mean,
                   "cross_entropy_more", more.mean, "cross_entropy_more_error", more.error);
}

static double get(const json_t *o, const char *key) {
  return json_real_value(json_object_get(o, key));
}

static void print_own(const char *path, const json_t *o) {
  printf("%-32s %10.4f %8.4f %12.4f %10.4f\n", path, get(o, "cross_entropy"),
         get(o, "standard_error"), get(o, "perplexity"), get(o, "bits_per_byte"));
}

static void print_table(const reading *r, const json_t *model, const json_t *other,
                        const json_t *pair) {
  printf("%lld tokens scored, of %lld bytes; windows of %d tokens, %d apart\n", (long long)r->n - 1,
         (long long)r->bytes, r->context, r->stride);
  printf("%-32s %10s %8s %12s %10s\n", "model", "nats", "+-", "perplexity", "bits/byte");
  print_own(r->options->model, model);
  if (!other) return;
  print_own(r->options->against, other);
  printf("cross-entropy more by %.5f +- %.5f nats; the same likeliest token %.2f%%\n",
         get(pair, "cross_entropy_more"), get(pair, "cross_entropy_more_error"),
         100 * get(pair, "same_top"));
  printf("KL divergence %.6f +- %.6f nats; median %.6f, 99%% below %.6f, most %.4f\n",
         get(pair, "divergence"), get(pair, "standard_error"), get(pair, "median"),
         get(pair, "p99"), get(pair, "most"));
}

static int report(reading *r, pdt_error *err) {
  json_t *model = own_json(r, r->scores[LOSS]), *other = NULL, *pair = NULL;
  if (r->n_readers == 2) {
    other = own_json(r, r->scores[OTHER_LOSS]);
    pair = pair_json(r);
  }
  json_t *all =
      json_pack("{s:I,s:I,s:i,s:i,s:O}", "tokens", (json_int_t)r->n - 1, "bytes",
                (json_int_t)r->bytes, "context", r->context, "stride", r->stride, "model", model);
  if (all && other) json_object_set(all, "against", other);
  if (all && pair) json_object_set(all, "pair", pair);
  if (all && r->options->json) {
    json_dumpf(all, stdout, JSON_COMPACT | JSON_REAL_PRECISION(17));
    printf("\n");
  } else if (all) {
    print_table(r, model, other, pair);
  }
  json_decref(model);
  json_decref(other);
  json_decref(pair);
  json_decref(all);
  return all ? 0 : pdt_fail(err, PDT_ERROR_MEMORY, "no memory for a report");
}

int pdt_perplexity(const pdt_comm *world, const char *name, const pdt_perplexity_options *options,
                   pdt_error *err) {
  reading r = {.world = world, .name = name, .options = options};
  int status = read_text(&r, err) || load(&r, err);
  if (!status && world->rank == 0) pdt_notices_print(&r.notices, stderr, name, false);
  if (!status) status = read_all(&r, err);
  if (!status && world->rank == 0) report(&r, err);
  if (!status) status = pdt_comm_agree(world, err);
  for (int32_t i = 0; i < 2; i++) reader_end(&r, &r.readers[i]);
  if (r.machine.world) pdt_machine_free(&r.machine);
  for (int i = 0; i < SCORES; i++) free(r.scores[i]);
  free(r.begin);
  free(r.tokens);
  return status ? -1 : 0;
}

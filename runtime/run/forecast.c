#include "run/forecast.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "engine/capacity.h"
#include "engine/round.h"
#include "model/preset.h"
#include "trunk/kv.h"
#include "trunk/shard.h"

/* ---- memory ---- */

/* Weights of a rank's share, which every step reads, and those that it only holds: an embedding
 * beside a head of its own. */
typedef struct share {
  int64_t read, held;
} share;

static share share_of(const pdt_model_config *m, const pdt_shard *s) {
  int64_t d = m->hidden_size, heads = s->heads.end - s->heads.begin;
  int64_t kv = s->kv_heads.end - s->kv_heads.begin, vocab = s->vocab.end - s->vocab.begin;
  int64_t ffn = s->ffn.end - s->ffn.begin;
  int64_t layer = d * m->head_dim * (2 * heads + 2 * kv) + 3 * d * ffn;
  return (share){m->layers * layer + vocab * d, m->tie_word_embeddings ? 0 : vocab * d};
}

static pdt_bytes bytes_of(const pdt_forecast_options *o, int64_t weights) {
  pdt_dtype_block block = pdt_dtype_block_of(o->dtype);
  return (weights + block.elems - 1) / block.elems * block.bytes;
}

/* Everything that is in flight at once. */
static int capacity_of(const pdt_forecast_options *o, pdt_rank T, pdt_capacity *out,
                       pdt_error *err) {
  pdt_capacity_maker maker = pdt_capacity_maker_of(o->sessions, (pdt_spread){o->ranks, T});
  pdt_request request = {.n_prompt = o->prompt,
                         .settings = {.streams = o->streams,
                                      .reveal_delay = 1,
                                      .window = 8 * o->streams + 1,
                                      .max_attempts = 4,
                                      .max_rounds = o->tokens,
                                      .limits = {.block_tokens = o->block_tokens,
                                                 .horizon = 4 * o->block_tokens,
                                                 .max_tokens = o->tokens}}};
  int status = PDT_NEW(&request.n_prefix, o->streams, "forecast", err);
  for (int32_t i = 0; i < o->sessions && !status; i++)
    status = pdt_capacity_maker_add(&maker, &request, err);
  *out = pdt_capacity_made(&maker);
  pdt_capacity_maker_free(&maker);
  free(request.n_prefix);
  return status;
}

/* Floats of rows on their way through a layer, of logits, and of states that are kept. */
static int64_t work_floats(const pdt_model_config *m, const pdt_shard *s, const pdt_capacity *c) {
  int64_t d = m->hidden_size, lanes = c->load.group_lanes;
  int64_t rows = lanes > PDT_BATCH_ROWS ? lanes : PDT_BATCH_ROWS;
  int64_t heads =
      s->heads.end - s->heads.begin + 2 * (int64_t)(s->kv_heads.end - s->kv_heads.begin);
  int64_t layer = 4 * d + 2 * heads * m->head_dim + 2 * (int64_t)(s->ffn.end - s->ffn.begin);
  return rows * layer + lanes * (int64_t)(s->vocab.end - s->vocab.begin) +
         (c->load.own_tokens + PDT_BATCH_ROWS) * d;
}

/* ---- time ---- */

/* Seconds of a step on one rank: whichever takes longer, reading its weights or multiplying by
 * them, and the exchanges of every layer. */
static double step_seconds(const pdt_forecast_options *o, const pdt_model_config *m,
                           pdt_forecast_rates rates, pdt_rank T, int64_t weights, int32_t rows) {
  enum { EXCHANGES = 4 /* of a layer: rows to all and sums to owners, twice */ };
  double read = (double)bytes_of(o, weights) / rates.bytes;
  double multiply = 2 * (double)weights * rows / rates.flops;
  double exchanges = T > 1 ? (EXCHANGES * m->layers + 2) * o->exchange_seconds : 0;
  return fmax(read, multiply) + exchanges;
}

int pdt_forecast_of(const pdt_forecast_options *o, const pdt_model_config *m,
                    pdt_forecast_rates rates, pdt_rank T, pdt_forecast *out, pdt_error *err) {
  pdt_capacity c;
  *out = (pdt_forecast){.tensor_parallel = T};
  if (capacity_of(o, T, &c, err)) return -1;
  out->rows = (int32_t)c.load.group_lanes;
  for (pdt_rank t = 0; t < T; t++) {
    const pdt_shard s = pdt_shard_of(m, t, T);
    const share w = share_of(m, &s);
    const pdt_kv_shape kv = {m->layers, s.kv_heads.end - s.kv_heads.begin, m->head_dim};
    pdt_bytes weights = bytes_of(o, w.read + w.held);
    pdt_bytes cache = pdt_kv_bytes(&kv, (int32_t)c.load.pages);
    pdt_bytes work = work_floats(m, &s, &c) * (pdt_bytes)sizeof(float);
    if (weights > out->weights) out->weights = weights;
    if (cache > out->cache) out->cache = cache;
    if (work > out->work) out->work = work;
    if (rates.bytes > 0)
      out->step = fmax(out->step, step_seconds(o, m, rates, T, w.read, out->rows));
  }
  pdt_rank sharing = o->per_machine < o->ranks ? o->per_machine : o->ranks;
  pdt_bytes all = (out->weights + out->cache + out->work) * sharing;
  out->fits = o->memory == 0 || all <= o->memory;
  if (rates.bytes > 0) {
    out->round = o->block_tokens * out->step + o->boundary_seconds;
    out->tokens_per_second = (double)o->streams * o->sessions * o->block_tokens / out->round;
  }
  return 0;
}

/* ---- what was measured ---- */

static double number_of(const json_t *object, const char *key) {
  const json_t *value = json_object_get(object, key);
  return json_is_number(value) ? json_number_value(value) : 0;
}

/* The best that a machine did in any figure of one of bench/decode's objects; its weights are of
 * two bytes. */
static bool add_measured(const json_t *run, pdt_forecast_rates *machine) {
  double weights = number_of(run, "weight_bytes"), tp = number_of(run, "tensor_parallel");
  double groups = tp > 0 ? number_of(run, "ranks") / tp : 0;
  const json_t *figures = json_object_get(run, "figures"), *figure;
  size_t i;
  if (!(weights > 0) || !(groups >= 1) || !json_is_array(figures)) return false;
  json_array_foreach(figures, i, figure) {
    double seconds = number_of(figure, "step_seconds"), rows = number_of(figure, "streams");
    if (!(seconds > 0) || !(rows > 0)) return false;
    machine->bytes = fmax(machine->bytes, weights * groups / seconds);
    machine->flops = fmax(machine->flops, weights * groups * rows / seconds);
  }
  return json_array_size(figures) > 0;
}

/* A rank's part of what its machine did: one object behind the other in the file. */
static int read_measured(const pdt_forecast_options *o, pdt_forecast_rates *rates, pdt_error *err) {
  *rates = (pdt_forecast_rates){0};
  if (!o->measured) return 0;
  FILE *f = fopen(o->measured, "r");
  if (!f) return pdt_fail(err, PDT_ERROR_IO, "--measured: cannot read %s", o->measured);
  json_error_t why;
  bool sound = true;
  int n = 0;
  for (json_t *run; sound && (run = json_loadf(f, JSON_DISABLE_EOF_CHECK, &why)); n++) {
    sound = add_measured(run, rates);
    json_decref(run);
  }
  bool whole = feof(f);
  fclose(f);
  if (!sound || !whole || n == 0)
    return pdt_fail(err, PDT_ERROR_INPUT,
                    "--measured %s: expected what bench/decode --json writes, with weight_bytes, "
                    "ranks, tensor_parallel and figures of streams and step_seconds",
                    o->measured);
  pdt_rank sharing = o->per_machine < o->ranks ? o->per_machine : o->ranks;
  rates->bytes /= sharing;
  rates->flops /= sharing;
  return 0;
}

static int read_config(const pdt_forecast_options *o, pdt_model_config *model, pdt_error *err) {
  if (o->model) return pdt_model_config_load(model, o->model, NULL, err);
  if (o->config) return pdt_model_config_load_file(model, o->config, NULL, err);
  char *text;
  if (pdt_model_preset(o->preset, &text, err)) return -1;
  json_t *json = json_loads(text, 0, NULL);
  int status = json ? pdt_model_config_parse(model, json, NULL, o->preset, NULL, err)
                    : pdt_fail(err, PDT_ERROR_MEMORY, "forecast: no memory for a config");
  json_decref(json);
  free(text);
  return status;
}

/* ---- printing ---- */

static void print_table(const pdt_forecast_options *o, const pdt_forecast *all, int32_t n,
                        int32_t best, FILE *out) {
  fprintf(out, "%4s %7s %6s %12s %11s %10s %10s %6s %10s %10s %10s\n", "tp", "groups", "rows",
          "weights MiB", "cache MiB", "work MiB", "all MiB", "fits", "step ms", "round ms",
          "tokens/s");
  for (int32_t i = 0; i < n; i++) {
    const pdt_forecast *f = &all[i];
    fprintf(out, "%4d %7d %6d %12.1f %11.1f %10.1f %10.1f %6s", f->tensor_parallel,
            o->ranks / f->tensor_parallel, f->rows, pdt_mebibytes(f->weights),
            pdt_mebibytes(f->cache), pdt_mebibytes(f->work),
            pdt_mebibytes(f->weights + f->cache + f->work),
            o->memory == 0 ? "-"
            : f->fits      ? "yes"
                           : "NO");
    if (f->step > 0)
      fprintf(out, " %10.3f %10.2f %10.1f", f->step * 1e3, f->round * 1e3, f->tokens_per_second);
    else
      fprintf(out, " %10s %10s %10s", "-", "-", "-");
    fprintf(out, "%s\n", i == best ? "  <- --tp" : "");
  }
}

static int print_json(const pdt_forecast_options *o, const pdt_forecast *all, int32_t n,
                      int32_t best, FILE *out, pdt_error *err) {
  json_t *list = json_array();
  for (int32_t i = 0; i < n; i++) {
    const pdt_forecast *f = &all[i];
    json_array_append_new(
        list, json_pack("{s:i,s:i,s:i,s:I,s:I,s:I,s:b,s:f,s:f,s:f,s:b}", "tensor_parallel",
                        f->tensor_parallel, "groups", o->ranks / f->tensor_parallel, "rows",
                        f->rows, "weight_bytes", (json_int_t)f->weights, "cache_bytes",
                        (json_int_t)f->cache, "work_bytes", (json_int_t)f->work, "fits", f->fits,
                        "step_seconds", f->step, "round_seconds", f->round, "tokens_per_second",
                        f->tokens_per_second, "best", i == best));
  }
  if (!list || json_dumpf(list, out, JSON_INDENT(1))) {
    json_decref(list);
    return pdt_fail(err, PDT_ERROR_MEMORY, "forecast: no memory for its JSON");
  }
  fprintf(out, "\n");
  json_decref(list);
  return 0;
}

/* The fastest that fits; without rates the one whose ranks need least. -1: none fits. */
static int32_t choose(const pdt_forecast *all, int32_t n) {
  int32_t best = -1;
  for (int32_t i = 0; i < n; i++) {
    if (!all[i].fits) continue;
    if (best < 0 || all[i].tokens_per_second > all[best].tokens_per_second ||
        (all[i].step == 0 && all[i].weights + all[i].cache < all[best].weights + all[best].cache))
      best = i;
  }
  return best;
}

int pdt_forecast_run(const pdt_forecast_options *given, FILE *out, pdt_error *err) {
  pdt_forecast_options o = *given;
  pdt_model_config model;
  pdt_forecast_rates rates;
  pdt_forecast *all;
  int32_t n = 0;
  if (o.per_machine == 0) o.per_machine = o.ranks;
  if (read_config(&o, &model, err) || read_measured(&o, &rates, err) ||
      PDT_NEW(&all, o.ranks, "forecast", err))
    return -1;
  int status = 0;
  for (pdt_rank T = 1; T <= o.ranks && !status; T++)
    if (o.ranks % T == 0) status = pdt_forecast_of(&o, &model, rates, T, &all[n++], err);
  if (!status && o.json)
    status = print_json(&o, all, n, choose(all, n), out, err);
  else if (!status)
    print_table(&o, all, n, choose(all, n), out);
  if (!status && choose(all, n) < 0)
    status = pdt_fail(err, PDT_ERROR_RUNTIME,
                      "no way to cut %d ranks fits into %.1f MiB a machine (hint: more machines, "
                      "fewer --sessions, --streams or --tokens)",
                      o.ranks, pdt_mebibytes(o.memory));
  free(all);
  return status;
}

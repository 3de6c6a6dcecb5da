#include "run/decode.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/text_safe.h"
#include "run/decode_output.h"
#include "run/outputs.h"

/* What --verbose tells of a rank. */
typedef struct rank_layout {
  pdt_bytes weights, cache, peak;
  double seconds; /* in which the weights were loaded */
} rank_layout;

static void print_rank(pdt_rank rank, const rank_layout *of) {
  double rate = of->seconds > 0 ? (double)of->weights / of->seconds * 1e-9 : 0;
  fprintf(stderr, "%6d %14.1f %10.2f %8.2f %14.1f %14.1f\n", rank, pdt_mebibytes(of->weights),
          of->seconds, rate, pdt_mebibytes(of->cache), pdt_mebibytes(of->peak));
}

/* Peak memory of every rank, and how the run is laid out. Collective; all ranks fail alike. */
static int print_layout(const pdt_comm *world, const pdt_engine *engine, pdt_error *err) {
  const pdt_engine_layout layout = pdt_engine_layout_of(engine);
  const rank_layout own = {layout.weight_bytes, layout.kv_bytes, pdt_peak_resident_bytes(),
                           layout.weight_seconds};
  rank_layout *all = NULL;
  pdt_bytes *bytes = NULL;
  if (!PDT_NEW(&all, world->size, "layout", err)) PDT_NEW(&bytes, world->size, "layout", err);
  int status = pdt_comm_agree(world, err);
  for (pdt_rank r = 0; r < world->size && !status; r++) bytes[r] = sizeof own;
  if (!status) pdt_comm_gather(world, &own, sizeof own, all, bytes, 0);
  if (!status && world->rank == 0) {
    fprintf(stderr,
            "layout: %d ranks, %d shard groups of %d, %d threads a rank, kernels %s, "
            "exchange %s\n",
            layout.ranks, layout.groups, layout.tensor_parallel, layout.threads, layout.kernels,
            layout.exchange);
    if (*layout.no_gpu) fprintf(stderr, "no GPU: %s\n", layout.no_gpu);
    fprintf(stderr, "%6s %14s %10s %8s %14s %14s\n", "rank", "weights MiB", "loaded s", "GB/s",
            "cache MiB", "peak MiB");
    for (pdt_rank r = 0; r < world->size; r++) print_rank(r, &all[r]);
  }
  free(all);
  free(bytes);
  return status;
}

static void print_summary(const pdt_engine *engine, const pdt_run_stats *s, int32_t n_requests) {
  const pdt_engine_layout layout = pdt_engine_layout_of(engine);
  double percent = s->seconds > 0 ? 100 / s->seconds : 0;
  fprintf(stderr,
          "%d sessions, %lld rounds: %lld blocks committed, %lld held, %lld rolled back, %lld "
          "forced; %lld stalls\n",
          n_requests, (long long)s->rounds, (long long)s->commits, (long long)s->holds,
          (long long)s->rollbacks, (long long)s->forced, (long long)s->stalls);
  if (s->out_of_rounds > 0)
    fprintf(stderr, "%lld of them ended by max_rounds, before all of their streams were done\n",
            (long long)s->out_of_rounds);
  fprintf(stderr,
          "%lld tokens committed, %lld decoded, in %.2f s: %.1f tokens/s committed; kernels %s, "
          "exchange %s\n",
          (long long)s->committed_tokens, (long long)s->emitted_tokens, s->seconds,
          (double)s->committed_tokens / (s->seconds > 0 ? s->seconds : 1), layout.kernels,
          layout.exchange);
  if (s->drafted > 0)
    fprintf(stderr,
            "draft: %lld of %lld tokens right (%.0f%%), %.2f tokens a step of the model; %.2f s\n",
            (long long)s->drafts_right, (long long)s->drafted,
            100.0 * (double)s->drafts_right / (double)s->drafted,
            (double)s->emitted_tokens / (double)s->draft_steps, s->draft_seconds);
  fprintf(stderr,
          "time: trunk %.2f s (%.0f%%), sidecar %.2f s (%.0f%%), exchange %.2f s (%.0f%%), "
          "boundary %.2f s (%.0f%%); prompts %.2f s of all\n",
          s->trunk_seconds, s->trunk_seconds * percent, s->sidecar_seconds,
          s->sidecar_seconds * percent, s->exchange_seconds, s->exchange_seconds * percent,
          s->boundary_seconds, s->boundary_seconds * percent, s->prompt_seconds);
}

/* A signal ended the run: what there is stands in the journal. */
static int fail_stopped(const pdt_decode_options *o, const pdt_run_stats *s, pdt_error *err) {
  return pdt_fail(err, PDT_ERROR_STOPPED,
                  "stopped by a signal behind boundary %lld, %lld tokens committed; %s%s",
                  (long long)s->boundaries, (long long)s->committed_tokens,
                  o->journal ? o->journal : "there is no --journal to go on from",
                  o->journal ? " has all that was decided" : "");
}

/* What a run that goes on from a journal takes from it. */
static void print_resume(const pdt_decode_output *output, const char *name) {
  const pdt_decode_resume *r = &output->resume;
  const pdt_decode_options *o = output->options;
  if (!o->resume || o->quiet) return;
  if (!r->on)
    pdt_say(stderr, "%s: %s: no run is in it yet: starts anew", name, o->journal);
  else
    pdt_say(stderr,
            "%s: %s: of %d requests %d are kept as they ended, %d go on behind boundary "
            "%llu, %d start",
            name, o->journal, output->input->n, r->n_kept, r->n_going_on,
            (unsigned long long)r->replay.boundary, output->input->n - r->n_kept - r->n_going_on);
}

/* Rank 0: what the engine is to run, and what comes of it. */
static int set_up(const pdt_comm *world, const char *name, pdt_engine *engine,
                  pdt_decode_output *output, pdt_run_setup *setup, pdt_error *err) {
  const pdt_spread spread = pdt_machine_spread(pdt_engine_machine(engine));
  int32_t sessions = output->options->engine.max_sessions;
  if (sessions < output->resume.n_going_on) sessions = output->resume.n_going_on;
  if (pdt_decode_input_capacity(output->input, sessions, spread, &setup->capacity, err)) return -1;
  setup->requests = pdt_decode_output_source(output);
  setup->observer = pdt_decode_output_observer(output);
  return pdt_decode_resume_decisions(&output->resume, &setup->decisions, err) ||
                 pdt_decode_output_begin(output, engine, world, name, err)
             ? -1
             : 0;
}

/* That something is missing is said, however quiet a run is to be. */
static void print_failures(const pdt_decode_output *output) {
  if (output->n_failed > 0)
    pdt_say(stderr, "%s: %d of %d requests were not served; their errors are in the output",
            output->name, output->n_failed, output->input->n);
}

/* All there is to compute has been computed: the outputs are written from the journal. Collective;
 * all ranks fail alike. */
static int write_again(const pdt_comm *world, const char *name, pdt_decode_output *output,
                       pdt_error *err) {
  if (world->rank == 0 && !pdt_decode_output_begin(output, NULL, world, name, err)) {
    print_failures(output);
    pdt_decode_output_close(output, true, err);
  }
  return pdt_comm_agree(world, err);
}

/* Loads, runs, and closes the outputs; all ranks fail alike. */
static int run(const pdt_comm *world, const char *name, const pdt_decode_options *options,
               pdt_decode_input *input, pdt_decode_output *output, pdt_error *err) {
  bool lead = world->rank == 0;
  pdt_engine *engine;
  pdt_run_stats stats;
  pdt_run_setup setup = {0};
  if (pdt_engine_new(&engine, world, &options->engine, err)) return -1;
  if (lead) pdt_notices_print(options->engine.notices, stderr, name, options->verbose);
  pdt_decode_input_check(input, engine, err);
  int status = pdt_comm_agree(world, err);
  if (lead && !status) set_up(world, name, engine, output, &setup, err);
  int32_t kept = output->resume.n_kept; /* before the outputs are closed */
  if (!status) status = pdt_comm_agree(world, err);
  if (!status) status = pdt_engine_run(engine, &setup, &stats, err);
  if (!status && stats.stopped) status = fail_stopped(options, &stats, err);
  if (lead && !status) {
    print_failures(output);
    pdt_decode_output_close(output, true, err);
  }
  if (!status) status = pdt_comm_agree(world, err);
  if (!status && options->verbose) status = print_layout(world, engine, err);
  if (!status && lead && !options->quiet) print_summary(engine, &stats, input->n - kept);
  pdt_engine_free(engine);
  return status;
}

/* The file that many requests are read from; NULL: none that could be lost. */
static const char *requests_file(const pdt_decode_options *o) {
  if (!o->requests || strcmp(o->requests, "-") != 0) return o->requests;
  return isatty(STDIN_FILENO) ? NULL : "/dev/stdin";
}

/* Before anything is read or written: no output costs an input or another output. */
static int check_outputs(const pdt_decode_options *o, pdt_error *err) {
  pdt_named_files outputs = {0}, inputs = {0};
  pdt_files_add(&outputs, "--out", o->out);
  pdt_files_add(&outputs, "--json", o->json && !o->out ? "-" : NULL);
  pdt_files_add(&outputs, "--trace", o->trace);
  pdt_files_add(&outputs, "--journal", o->journal);
  pdt_files_add_model(&inputs, "--model", o->engine.model);
  if (o->engine.draft) pdt_files_add_model(&inputs, "--draft", o->engine.draft);
  pdt_files_add(&inputs, "--sidecar", o->engine.sidecar);
  pdt_files_add(&inputs, "--request", o->request);
  pdt_files_add(&inputs, "--requests", requests_file(o));
  pdt_files_add(&inputs, "--plan", o->plan);
  if (pdt_outputs_check(&outputs, &inputs, err) ||
      (o->out && pdt_output_may_replace("--out", o->out, PDT_KIND_OTHER, true, err)) ||
      (o->trace && pdt_output_may_replace("--trace", o->trace, PDT_KIND_OTHER, true, err)))
    return -1;
  return 0;
}

int pdt_decode_run(const pdt_comm *world, const char *name, const pdt_decode_options *given,
                   pdt_error *err) {
  pdt_decode_options options = *given;
  pdt_decode_input input;
  pdt_decode_output output = {.journal = {.fd = -1}};
  pdt_notices notices = {0};
  options.engine.notices = &notices;
  if (world->rank == 0) check_outputs(&options, err);
  if (pdt_comm_agree(world, err) || pdt_decode_input_read(&input, world, &options, err)) return -1;
  if (world->rank == 0) pdt_decode_output_open(&output, &options, &input, err);
  int status = pdt_comm_agree(world, err);
  int32_t whole = !status && pdt_decode_resume_is_whole(&output.resume, input.n);
  if (!status) pdt_comm_broadcast(world, &whole, sizeof whole, 0);
  if (!status && world->rank == 0) print_resume(&output, name);
  if (!status)
    status = whole ? write_again(world, name, &output, err)
                   : run(world, name, &options, &input, &output, err);
  pdt_error ignored = {0};
  if (status) pdt_decode_output_close(&output, false, &ignored);
  pdt_decode_input_free(&input);
  return status ? -1 : 0;
}

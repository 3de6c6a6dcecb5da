/* pdt inspect. */
#include <errno.h>

#include "cli/engine_flags.h"
#include "run/inspect.h"
#include "run/verify.h"

enum {
  OPT_JSON = 256,
  OPT_TENSORS,
  OPT_FULL,
  OPT_ANSWERS,
  OPT_OUT,
  OPT_VERIFY,
  OPT_ENGINE /* and on: pdt_engine_flag */
};

static const struct argp_option options[] = {
    {"json", OPT_JSON, NULL, 0, "print JSON instead of tables", 0},
    {"tensors", OPT_TENSORS, NULL, 0, "list the tensors of a model or sidecar", 0},
    {"full", OPT_FULL, NULL, 0,
     "read every byte of a model or sidecar: look for NaN, fingerprint all of it", 0},
    {"model", OPT_ENGINE + PDT_FLAG_MODEL, "DIR", 0,
     "check that a sidecar fits this model; with --answers, the model that has the tokenizer; with "
     "--verify, the model",
     0},
    {"answers", OPT_ANSWERS, NULL, 0,
     "of a journal: write what decode --out (with --json: decode --json) would have written of the "
     "sessions that ended; texts need --model",
     0},
    {"out", OPT_OUT, "FILE", 0, "with --answers: the file to write (standard output)", 0},
    {"verify", OPT_VERIFY, NULL, 0,
     "of a journal: compute everything anew from the recorded tokens, on one rank or many, and "
     "compare the notes at every boundary with their recorded hash; needs --model and --sidecar",
     0},
    {"sidecar", OPT_ENGINE + PDT_FLAG_SIDECAR, "FILE", 0, "with --verify: the sidecar", 0},
    {"tp", OPT_ENGINE + PDT_FLAG_TP, "T", 0,
     "with --verify: ranks that share the trunk (the ranks of a machine)", 0},
    {"threads", OPT_ENGINE + PDT_FLAG_THREADS, "N", 0, "with --verify: threads a rank", 0},
    {"kv-memory", OPT_ENGINE + PDT_FLAG_KV_MEMORY, "SIZE", 0,
     "with --verify: most memory for the key/value cache of a rank, as 512M or 4G", 0},
    {"device", OPT_ENGINE + PDT_FLAG_DEVICE, "NAME", 0,
     "cpu, cuda or auto; by default GPUs where every rank can use one", 0},
    {"compute", OPT_ENGINE + PDT_FLAG_COMPUTE, "TYPE", 0,
     "with --verify: f32 or bf16, as the run had it; on CPUs f32 keeps activations whole where "
     "weights are quantized",
     0},
    {"quantize", OPT_ENGINE + PDT_FLAG_QUANTIZE, "TYPE", 0,
     "with --verify: q8_0 or q4_0, as the run had it", 0},
    {"gpu", OPT_ENGINE + PDT_FLAG_GPU, "N", 0, "with --verify: the GPU of every rank", 0},
    {"exchange", OPT_ENGINE + PDT_FLAG_EXCHANGE, "NAME", 0,
     "with --verify: nccl, mpi or auto, between ranks that share the trunk", 0},
    {"kernels", OPT_ENGINE + PDT_FLAG_KERNELS, "NAME", 0,
     "with --verify: portable, avx2, avx512 or amx (the best that every rank has)", 0},
    {0},
};

static const char doc[] =
    "Says what PATH holds: a model directory or GGUF file, a sidecar, a journal or the output of "
    "decode --out."
    "\vWhat is wrong with it is the error it ends with.\n\n"
    "Examples:\n"
    "  pdt inspect m\n"
    "  pdt inspect --tensors m.gguf\n"
    "  pdt inspect --tensors --json sidecar.safetensors\n"
    "  pdt inspect --full --model m sidecar.safetensors\n"
    "  pdt inspect run.journal\n"
    "  pdt inspect --answers --json --model m run.journal\n"
    "  pdt inspect --verify --model m --sidecar s.safetensors run.journal\n";

typedef struct arguments {
  pdt_inspect_options inspect;
  pdt_engine_options engine;
  bool verify;
  bool engine_flags; /* one that belongs to --verify alone was given */
} arguments;

/* Do the options belong together? */
static error_t check(struct argp_state *state, const arguments *a) {
  const pdt_inspect_options *o = &a->inspect;
  const char *wrong =
      !o->path                          ? "expected a PATH"
      : o->out && !o->answers           ? "--out belongs to --answers"
      : a->verify && o->answers         ? "expected --answers or --verify"
      : a->verify && !a->engine.model   ? "--verify: expected --model DIR"
      : a->verify && !a->engine.sidecar ? "--verify: expected --sidecar FILE"
      : a->engine_flags && !a->verify
          ? "--sidecar, --tp, --threads, --kv-memory, --device, --compute, --quantize, "
            "--gpu, --exchange and --kernels belong to --verify"
          : NULL;
  if (!wrong) return 0;
  argp_error(state, "%s", wrong);
  return EINVAL;
}

static error_t parse_option(int key, char *arg, struct argp_state *state) {
  arguments *a = state->input;
  pdt_inspect_options *o = &a->inspect;
  const pdt_cli_kept kept[] = {{OPT_JSON, NULL, &o->json},     {OPT_TENSORS, NULL, &o->tensors},
                               {OPT_FULL, NULL, &o->full},     {OPT_ANSWERS, NULL, &o->answers},
                               {OPT_VERIFY, NULL, &a->verify}, {OPT_OUT, &o->out, NULL}};
  if (pdt_cli_keep(kept, sizeof kept / sizeof *kept, key, arg)) return 0;
  if (key == ARGP_KEY_ARG) return pdt_cli_argument(state, "PATH", arg, &o->path);
  if (key == ARGP_KEY_END) return check(state, a);
  if (key < OPT_ENGINE || key >= OPT_ENGINE + PDT_ENGINE_FLAGS) return ARGP_ERR_UNKNOWN;
  a->engine_flags = a->engine_flags || key != OPT_ENGINE + PDT_FLAG_MODEL;
  return pdt_engine_flag_parse(&a->engine, (pdt_engine_flag)(key - OPT_ENGINE), arg, state);
}

int pdt_cmd_inspect(const pdt_cli *cli, int argc, char **argv, pdt_error *err) {
  static const struct argp argp = {options, parse_option, "PATH", doc, NULL, NULL, NULL};
  arguments a = {.engine = {.max_sessions = 1}};
  int parsed = pdt_cli_parse(cli, &argp, argc, argv, &a, err);
  if (pdt_comm_agree(cli->world, err)) parsed = -1;
  if (parsed) return parsed < 0 ? -1 : 0;
  if (a.verify) {
    const pdt_verify_options verify = {a.inspect.path, a.engine, a.inspect.json};
    return pdt_verify_run(cli->world, &verify, err);
  }
  if (cli->world->size > 1)
    return pdt_fail(err, PDT_ERROR_USAGE,
                    "runs in one process, but for --verify; found %d ranks (hint: without mpirun)",
                    cli->world->size);
  a.inspect.model = a.engine.model;
  return pdt_inspect(&a.inspect, err);
}

/* pdt perplexity. */
#include <errno.h>

#include "cli/cli.h"
#include "cli/engine_flags.h"
#include "run/perplexity.h"

enum { KEY_ENGINE = 256, KEY_CONTEXT = KEY_ENGINE + PDT_ENGINE_FLAGS, KEY_STRIDE };

typedef struct parsed {
  pdt_perplexity_options own;
  pdt_engine_options engine;
} parsed;

static error_t parse(int key, char *arg, struct argp_state *state) {
  parsed *p = state->input;
  pdt_perplexity_options *o = &p->own;
  const pdt_cli_kept kept[] = {
      {'t', &o->text, NULL}, {'a', &o->against, NULL}, {'j', NULL, &o->json}};
  int64_t number = 0;
  if (pdt_cli_keep(kept, sizeof kept / sizeof *kept, key, arg)) return 0;
  if (key >= KEY_ENGINE && key < KEY_CONTEXT)
    return pdt_engine_flag_parse(&p->engine, (pdt_engine_flag)(key - KEY_ENGINE), arg, state);
  if (key == KEY_CONTEXT || key == KEY_STRIDE) {
    bool context = key == KEY_CONTEXT;
    error_t code = pdt_cli_integer(state, context ? "context" : "stride", arg, context ? 2 : 1,
                                   1 << 20, &number);
    *(context ? &o->context : &o->stride) = (int32_t)number;
    return code;
  }
  if (key == ARGP_KEY_ARG) return pdt_cli_argument(state, "argument", arg, NULL);
  if (key != ARGP_KEY_END) return ARGP_ERR_UNKNOWN;
  if (p->engine.model && o->text) return 0;
  argp_error(state, "expected --model PATH and --text FILE");
  return EINVAL;
}

int pdt_cmd_perplexity(const pdt_cli *cli, int argc, char **argv, pdt_error *err) {
  static const struct argp_option table[] = {
      {"model", KEY_ENGINE + PDT_FLAG_MODEL, "PATH", 0, "Hugging Face directory, or a .gguf", 0},
      {"text", 't', "FILE", 0, "what it is to foretell, in UTF-8", 0},
      {"against", 'a', "PATH", 0,
       "another model of the same vocabulary: how far are the two from one another?", 0},
      {"context", KEY_CONTEXT, "N", 0, "tokens of a window (512)", 1},
      {"stride", KEY_STRIDE, "N", 0,
       "tokens from one window to the next; those that are new in it are scored (half a window)",
       1},
      {"quantize", KEY_ENGINE + PDT_FLAG_QUANTIZE, "TYPE", 0,
       "q8_0 or q4_0: as pdt decode has it; of --model, not of --against", 1},
      {"compute", KEY_ENGINE + PDT_FLAG_COMPUTE, "TYPE", 0, "as pdt decode has it", 1},
      {"tp", KEY_ENGINE + PDT_FLAG_TP, "T", 0,
       "ranks that share one copy of a model (those of a machine)", 2},
      {"threads", KEY_ENGINE + PDT_FLAG_THREADS, "N", 0, "threads of a rank", 2},
      {"device", KEY_ENGINE + PDT_FLAG_DEVICE, "NAME", 0, "cpu, cuda or auto", 2},
      {"kernels", KEY_ENGINE + PDT_FLAG_KERNELS, "NAME", 0, "as pdt decode has it", 2},
      {"exchange", KEY_ENGINE + PDT_FLAG_EXCHANGE, "NAME", 0, "as pdt decode has it", 2},
      {"json", 'j', NULL, 0, "one JSON object in place of a table", 3},
      {0}};
  static const struct argp argp = {
      table,
      parse,
      NULL,
      "How well a model alone, without a sidecar, foretells a text: cross-entropy, perplexity and "
      "bits a byte; against another one also the KL divergence of the two's next tokens. Every "
      "token but the first is scored once, in a window that shows what is before it."
      "\vExamples:\n"
      "  pdt perplexity --model DIR --text book.txt\n"
      "  pdt perplexity --model model-Q4_0.gguf --against DIR --text book.txt\n"
      "  mpirun -n 4 pdt perplexity --tp 2 --model DIR --quantize q4_0 --against DIR \\\n"
      "      --text book.txt --context 1024 --stride 512 --json\n",
      NULL,
      NULL,
      NULL};
  parsed p = {0};
  int status = pdt_cli_parse(cli, &argp, argc, argv, &p, err);
  if (pdt_comm_agree(cli->world, err)) status = -1;
  p.own.model = p.engine.model;
  p.own.machine = p.engine.machine;
  p.own.quantize = p.engine.quantize;
  if (status == 0) status = pdt_perplexity(cli->world, cli->name, &p.own, err);
  return status < 0 ? -1 : 0;
}

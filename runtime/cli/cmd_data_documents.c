/* pdt data documents. */
#include <errno.h>
#include <stdio.h>

#include "cli/cli.h"
#include "cli/data_flags.h"
#include "run/documents.h"

enum {
  OPT_MODEL = 256,
  OPT_IN,
  OPT_OUT,
  OPT_FIND,
  OPT_STOP,
  OPT_SPLIT,
  OPT_OVERWRITE,
  OPT_DATA,
};

static const struct argp_option options[] = {
    {"model", OPT_MODEL, "DIR", 0, "the model that data is for: its tokenizer cuts the blocks", 0},
    {"in", OPT_IN, "FILE", 0, "documents, a JSON object a line; - is standard input", 0},
    {"out", OPT_OUT, "FILE", 0, "where the entries are written; - is standard output", 0},
    {"find", OPT_FIND, NULL, 0,
     "where a document brings no facts, they are the names and numbers that two or more of its "
     "sections share",
     0},
    {"stop-words", OPT_STOP, "FILE", 0,
     "with --find: words that are no names, one a line, beside the usual English ones", 0},
    {"split", OPT_SPLIT, "NAME", 0,
     "train, valid or test alone: 14, 1 and 1 of 16 prompts, by their hash, so that none is in two "
     "(default: all documents)",
     0},
    PDT_DATA_OPTIONS(OPT_DATA),
    {"overwrite", OPT_OVERWRITE, NULL, 0, "replace a file that is there", 0},
    {0},
};

static const char doc[] =
    "Makes training data of your own documents: their sections are streams, and the facts that "
    "sections share are found in them."
    "\vA document is a line such as\n"
    "  {\"prompt\": \"Describe Zink.\",\n"
    "   \"sections\": [{\"prefix\": \"\\nFacts:\", \"text\": \" Its symbol is Zn.\"},\n"
    "                {\"prefix\": \"\\nUse:\", \"text\": \" Roofs are made of Zn.\"}],\n"
    "   \"facts\": [{\"stream\": 0, \"type\": \"symbol\", \"value\": \"Zn\"}]}\n"
    "(in one line). The first place in its own section states a value; all others, in other "
    "sections, use it. \"begin\" and \"end\" (bytes) say where, and \"uses\" where else, when a "
    "text is not found by its letters. \"id\", \"plan\" and \"meta\" may be there too; "
    "tests/data/atlas/FORMAT.md says more.\n\n"
    "Examples:\n"
    "  pdt data documents --model m --in docs.jsonl --out data.jsonl\n"
    "  pdt data documents --model m --in d.jsonl --find --split train --out t.jsonl\n"
    "  zcat docs.jsonl.gz | pdt data documents --model m --in - --block-tokens 8 \\\n"
    "      --out data.jsonl\n"
    "  pdt data check --model m data.jsonl\n";

typedef struct arguments {
  pdt_documents_file file;
  pdt_data_flags data;
} arguments;

static error_t parse_end(const pdt_documents_file *f, struct argp_state *state) {
  if (!f->model || !f->in || !f->out)
    argp_error(state, "expected --model, --in and --out");
  else if (f->stop_words && !f->find)
    argp_error(state, "--stop-words: expected --find, which looks for names");
  else
    return 0;
  return EINVAL;
}

static error_t parse_option(int key, char *arg, struct argp_state *state) {
  arguments *args = state->input;
  pdt_documents_file *f = &args->file;
  const pdt_cli_kept kept[] = {
      {OPT_MODEL, &f->model, NULL},     {OPT_IN, &f->in, NULL},
      {OPT_OUT, &f->out, NULL},         {OPT_FIND, NULL, &f->find},
      {OPT_STOP, &f->stop_words, NULL}, {OPT_OVERWRITE, NULL, &f->overwrite}};
  if (pdt_cli_keep(kept, sizeof kept / sizeof *kept, key, arg)) return 0;
  switch (key) {
  case OPT_SPLIT:
    f->part = true;
    if (pdt_atlas_split_parse(arg, &f->split)) return 0;
    argp_error(state, "--split: expected train, valid or test, found '%s'", arg);
    return EINVAL;
  case ARGP_KEY_ARG:
    return pdt_cli_argument(state, NULL, arg, NULL);
  case ARGP_KEY_END:
    return parse_end(f, state);
  default:
    return pdt_data_flag(&args->data, key - OPT_DATA, arg, state);
  }
}

int pdt_cmd_data_documents(const pdt_cli *cli, int argc, char **argv, pdt_error *err) {
  arguments args = {.data = PDT_DATA_FLAGS_DEFAULT};
  pdt_sidecar_config *plan = &args.file.plan;
  const struct argp argp = {options, parse_option, NULL, doc, NULL, NULL, NULL};
  int parsed = pdt_cli_parse(cli, &argp, argc, argv, &args, err);
  if (parsed) return parsed < 0 ? -1 : 0;
  args.file.rounds = args.data.rounds;
  plan->plan_slots = args.data.plan_slots;
  plan->plan_vocab_size = args.data.plan_vocab_size;
  snprintf(plan->plan_hash_salt, sizeof plan->plan_hash_salt, "%s", args.data.plan_salt);
  return pdt_documents_write(&args.file, err);
}

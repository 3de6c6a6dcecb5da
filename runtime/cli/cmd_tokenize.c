/* pdt tokenize. */
#include <errno.h>

#include "cli/cli.h"
#include "run/tokenize.h"

enum { OPT_DATE = 256 };

static error_t parse(int key, char *arg, struct argp_state *state) {
  pdt_tokenize_options *o = state->input;
  const pdt_cli_kept kept[] = {{'m', &o->model, NULL},      {'d', NULL, &o->decode},
                               {'n', NULL, &o->no_special}, {'c', NULL, &o->chat},
                               {'t', NULL, &o->text},       {OPT_DATE, &o->date, NULL}};
  if (pdt_cli_keep(kept, sizeof kept / sizeof *kept, key, arg)) return 0;
  if (key != ARGP_KEY_END) return ARGP_ERR_UNKNOWN;
  if (!o->model)
    argp_error(state, "--model DIR is required");
  else if (o->chat && (o->decode || o->no_special))
    argp_error(state, "--chat goes from conversations to ids, without added tokens in any case: "
                      "expected no --decode and no --no-special");
  else if (!o->chat && (o->text || o->date))
    argp_error(state, "--text and --date belong to --chat");
  else
    return 0;
  return EINVAL;
}

int pdt_cmd_tokenize(const pdt_cli *cli, int argc, char **argv, pdt_error *err) {
  static const struct argp_option table[] = {
      {"model", 'm', "DIR", 0, "The model, a folder with tokenizer.json or a GGUF file", 0},
      {"decode", 'd', NULL, 0, "From arrays of ids to strings", 0},
      {"no-special", 'n', NULL, 0, "Without the special tokens that the post-processor adds", 0},
      {"chat", 'c', NULL, 0,
       "Conversations, arrays of {\"role\": ..., \"content\": ...}, by the model's chat template, "
       "up "
       "to where its answer begins",
       0},
      {"text", 't', NULL, 0, "With --chat: the text that is then encoded, in place of its ids", 0},
      {"date", OPT_DATE, "YYYY-MM-DD", 0,
       "With --chat: the date that the template is told, should it ask (today's)", 0},
      {0}};
  static const struct argp argp = {
      table,
      parse,
      "",
      "Turns JSON strings, one a line on standard input, into JSON arrays of ids, or back (special "
      "tokens are then left out of the text). Of an array of two strings, it is the ids of the "
      "second "
      "where it goes on with the first, as a section does with its prompt."
      "\vExamples:\n"
      "  echo '\"Hello, world\"' | pdt tokenize --model DIR\n"
      "  echo '[1, 2, 3]' | pdt tokenize --model DIR --decode\n"
      "  echo '[\"Describe Velmora.\", \"\\nHistory:\"]' | pdt tokenize --model DIR\n"
      "  echo '[{\"role\": \"user\", \"content\": \"Hi\"}]' | pdt tokenize --model DIR --chat\n"
      "  jq .prompt requests.jsonl | pdt tokenize --model DIR --no-special\n",
      NULL,
      NULL,
      NULL};
  pdt_tokenize_options o = {0};
  int rc = pdt_cli_parse(cli, &argp, argc, argv, &o, err);
  if (rc) return rc < 0 ? -1 : 0;
  return pdt_tokenize(&o, err);
}

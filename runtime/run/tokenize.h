/* Texts to token ids and back, and conversations to prompts, line by line. */
#ifndef PDT_RUN_TOKENIZE_H
#define PDT_RUN_TOKENIZE_H

#include "base/error.h"
#include "base/types.h"

typedef struct pdt_tokenize_options {
  const char *model; /* directory with tokenizer.json */
  bool decode;       /* from arrays of ids to strings */
  bool no_special;   /* without the special tokens that the post-processor adds */
  bool chat;         /* arrays of messages, by the model's chat template */
  bool text;         /* of a conversation the prompt's text in place of its ids */
  const char *date;  /* that a chat template is told, as in 2026-07-31; NULL: today's */
} pdt_tokenize_options;

/* Turns every JSON value on standard input, one a line, into one on standard output. Errors: those
 * of pdt_tokenizer_load_folder and pdt_chat_template_load; INPUT naming the line, IO, MEMORY. */
int pdt_tokenize(const pdt_tokenize_options *options, pdt_error *err);

#endif

/* Requests that are conversations: they become requests with a prompt, by the model's own chat
 * template (text/chat.h), before they are parsed. */
#ifndef PDT_REQUEST_CHAT_H
#define PDT_REQUEST_CHAT_H

#include "text/chat.h"

/* What flags say of it. */
typedef struct pdt_chat_flags {
  bool prompts;       /* a prompt is what a user says */
  const char *system; /* NULL, or the system message of all conversations that begin without one; a
                         prompt is then what a user says */
  const char *date;   /* that the template is told, as in 2026-07-31; NULL: today's */
} pdt_chat_flags;

typedef struct pdt_request_chat {
  const char *model;              /* whose template it is */
  const pdt_tokenizer *tokenizer; /* NULL: conversations are refused */
  pdt_chat_flags flags;
  struct tm date;
  pdt_chat_template *template; /* loaded when it is first needed */
} pdt_request_chat;

/* model, tokenizer and the texts of flags are borrowed. Freed by the caller. Errors: USAGE (the
 * date; a system message that is not UTF-8). */
int pdt_request_chat_new(pdt_request_chat *chat, const char *model, const pdt_tokenizer *tokenizer,
                         const pdt_chat_flags *flags, pdt_error *err);
void pdt_request_chat_free(pdt_request_chat *chat);

/* Puts a prompt, or prompt_ids where no text has the same ids, in the place of a request's
 * "messages", or of its prompt where that is what a user says, and of "chat_template_kwargs", an
 * object of variables that the template is told; leaves other requests as they are.
 * `where` names the request in errors. Not for several threads at once. Errors: INPUT, those of
 * pdt_chat_template_load and pdt_chat_prompt. */
int pdt_request_chat_apply(pdt_request_chat *chat, json_t *request, const char *where,
                           pdt_error *err);

/* Puts in the place of a text from malloc the prompt of the conversation in which a user says it,
 * for a file whose prompts are read as any text. Errors: as above; INPUT also where no text has the
 * conversation's ids. */
int pdt_request_chat_say(pdt_request_chat *chat, char **text, pdt_error *err);

#endif

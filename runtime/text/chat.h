/* Conversations as prompts, by a model's own chat template: the text is that of transformers'
 * tokenizer.apply_chat_template(messages, tokenize=False), byte for byte, for templates in the part
 * of Jinja that text/jinja/jinja.h names; other constructs are refused by name and line.
 *
 * The ids of a prompt are those of tokenize=True: the text is encoded without the special tokens
 * that the tokenizer puts around other texts (pdt_tokenizer_encode with add_special false), so that
 * the template's bos is the only one. As there, special tokens that the template writes become
 * their ids, and so do those that a message spells out, by the tokenizer's own rule: who passes on
 * what strangers write may want to look for them. */
#ifndef PDT_TEXT_CHAT_H
#define PDT_TEXT_CHAT_H

#include <jansson.h>
#include <time.h>

#include "base/error.h"
#include "base/types.h"
#include "text/tokenizer.h"

/* Immutable: any number of threads may render with one at once. */
typedef struct pdt_chat_template pdt_chat_template;

/* Loads the template of a model: of a folder chat_template.jinja or, without, "chat_template" of
 * tokenizer_config.json, a text or a list of named ones, of which it is "default"; with the special
 * tokens that tokenizer_config.json and special_tokens_map.json name. Tokens that transformers has
 * for a class of tokenizers where no file names them are not known. Of a GGUF file (`model` is its
 * path) tokenizer.chat_template. Sets *out, freed by pdt_chat_template_free. Errors: INPUT (there
 * is none, or one that is refused), IO, MEMORY. */
int pdt_chat_template_load(pdt_chat_template **out, const char *model, pdt_error *err);

/* The same from a text of `bytes` bytes, called `name` in errors. tokens: an object of special
 * tokens by name, as in {"bos_token": "<s>"}, or NULL. */
int pdt_chat_template_parse(pdt_chat_template **out, const char *text, size_t bytes,
                            const char *name, const json_t *tokens, pdt_error *err);

/* NULL is fine. */
void pdt_chat_template_free(pdt_chat_template *t);

typedef struct pdt_chat_options {
  bool continues;          /* no beginning of an answer at the end (add_generation_prompt=False) */
  const struct tm *now;    /* what strftime_now tells; NULL: the clock, local time */
  const json_t *variables; /* further ones, as in {"enable_thinking": false}; NULL: none */
} pdt_chat_options;

/* Renders a conversation: an array of at least one message, each an object with a text "role", a
 * "content" (a text, or an array of parts where the template knows of that), and whatever else the
 * template asks for; keys that are null are as if they were not there. Roles and their order are
 * judged by the template. options may be NULL. Sets *text, UTF-8 from malloc, zero-terminated,
 * which *bytes does not count. Errors: INPUT, for messages that are none, and what jinja.h tells;
 * MEMORY.
 */
int pdt_chat_render(const pdt_chat_template *t, const json_t *messages,
                    const pdt_chat_options *options, char **text, size_t *bytes, pdt_error *err);

/* The same as a prompt that is then read as any other: a JSON string that has the conversation's
 * ids where special tokens are put around it, which is the text without what the tokenizer itself
 * puts in front; or, where there is no such text, an array of the ids. Sets *out, dropped by the
 * caller. Errors: as above, and those of pdt_tokenizer_encode. */
int pdt_chat_prompt(const pdt_chat_template *t, const pdt_tokenizer *tokenizer,
                    const json_t *messages, const pdt_chat_options *options, json_t **out,
                    pdt_error *err);

/* The conversation of what one user says, behind a system message unless that is NULL; NULL without
 * memory, or for texts that are not UTF-8. */
json_t *pdt_chat_messages(const char *system, const char *user);

/* Reads a date "2026-07-31", at noon; a NULL text is the clock's. Errors: USAGE. */
int pdt_chat_date(struct tm *out, const char *text, pdt_error *err);

#endif

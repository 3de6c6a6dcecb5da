#include "request/chat.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/utf8.h"

int pdt_request_chat_new(pdt_request_chat *chat, const char *model, const pdt_tokenizer *tokenizer,
                         const pdt_chat_flags *flags, pdt_error *err) {
  *chat = (pdt_request_chat){.model = model, .tokenizer = tokenizer, .flags = *flags};
  if (flags->system && !pdt_is_utf8(flags->system, strlen(flags->system)))
    return pdt_fail(err, PDT_ERROR_USAGE, "--system: the text is not UTF-8");
  return pdt_chat_date(&chat->date, flags->date, err) ? pdt_fail_in(err, "--date") : 0;
}

void pdt_request_chat_free(pdt_request_chat *chat) {
  pdt_chat_template_free(chat->template);
  *chat = (pdt_request_chat){0};
}

/* Does a conversation begin with a system message? */
static bool has_system(const json_t *messages) {
  const char *role = json_string_value(json_object_get(json_array_get(messages, 0), "role"));
  return role && strcmp(role, "system") == 0;
}

/* The request's messages with the system message that flags give; NULL without memory. */
static json_t *conversation(const pdt_request_chat *chat, json_t *messages) {
  const char *system = chat->flags.system;
  if (!system || !json_is_array(messages) || has_system(messages)) return json_incref(messages);
  json_t *first = json_pack("{s:s, s:s}", "role", "system", "content", system);
  json_t *all = json_copy(messages);
  int bad = json_array_insert(all, 0, first);
  json_decref(first);
  if (!bad) return all;
  json_decref(all);
  return NULL;
}

static int prompt_of(pdt_request_chat *chat, const json_t *messages, const json_t *variables,
                     json_t **prompt, pdt_error *err) {
  const pdt_chat_options options = {.now = &chat->date, .variables = variables};
  if (!chat->tokenizer)
    return pdt_fail(err, PDT_ERROR_INPUT, "a conversation needs the model's tokenizer.json");
  if (!chat->template && pdt_chat_template_load(&chat->template, chat->model, err)) return -1;
  return pdt_chat_prompt(chat->template, chat->tokenizer, messages, &options, prompt, err);
}

static int replace(pdt_request_chat *chat, json_t *request, const json_t *messages,
                   pdt_error *err) {
  static const char kwargs[] = "chat_template_kwargs";
  const json_t *variables;
  json_t *prompt;
  if (pdt_json_object_or(request, "request", kwargs, &variables, err) ||
      prompt_of(chat, messages, variables, &prompt, err))
    return -1;
  json_object_del(request, kwargs);
  json_object_del(request, "messages");
  json_object_del(request, "prompt");
  const char *key = json_is_string(prompt) ? "prompt" : "prompt_ids";
  return json_object_set_new(request, key, prompt)
             ? pdt_fail(err, PDT_ERROR_MEMORY, "a conversation: no memory")
             : 0;
}

int pdt_request_chat_apply(pdt_request_chat *chat, json_t *request, const char *where,
                           pdt_error *err) {
  json_t *given = json_object_get(request, "messages");
  const char *prompt = json_string_value(json_object_get(request, "prompt"));
  bool said = prompt && (chat->flags.prompts || chat->flags.system);
  if (!pdt_json_get(request, "messages")) given = NULL; /* null says nothing */
  if (!given && !said) return 0;
  if (given && (pdt_json_get(request, "prompt") || pdt_json_get(request, "prompt_ids")))
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: expected messages or a prompt, found both", where);
  json_t *messages =
      given ? conversation(chat, given) : pdt_chat_messages(chat->flags.system, prompt);
  int rc = messages ? replace(chat, request, messages, err)
                    : pdt_fail(err, PDT_ERROR_MEMORY, "a conversation: no memory");
  json_decref(messages);
  return rc ? pdt_fail_in(err, "%s", where) : 0;
}

int pdt_request_chat_say(pdt_request_chat *chat, char **text, pdt_error *err) {
  json_t *messages = pdt_chat_messages(chat->flags.system, *text), *prompt = NULL;
  int rc = messages ? prompt_of(chat, messages, NULL, &prompt, err)
                    : pdt_fail(err, PDT_ERROR_INPUT, "a conversation: no memory, or no UTF-8");
  const char *said = json_string_value(prompt);
  if (!rc && (!said || strlen(said) != json_string_length(prompt)))
    rc = pdt_fail(err, PDT_ERROR_INPUT,
                  "%s: the tokenizer puts special tokens around a text that the chat template does "
                  "not put there: no text has the conversation's ids",
                  chat->model);
  char *copy = rc ? NULL : strdup(said);
  if (!rc && !copy) rc = pdt_fail(err, PDT_ERROR_MEMORY, "a conversation: no memory");
  if (copy) {
    free(*text);
    *text = copy;
  }
  json_decref(messages);
  json_decref(prompt);
  return rc;
}

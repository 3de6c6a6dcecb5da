#include "serve/ask.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "request/setting_table.h"

int pdt_refuse(pdt_refusal *why, int status, const char *code, const char *field,
               const char *format, ...) {
  va_list arguments;
  *why = (pdt_refusal){.status = status, .code = code};
  if (field) snprintf(why->field, sizeof why->field, "%s", field);
  va_start(arguments, format);
  vsnprintf(why->message, sizeof why->message, format, arguments);
  va_end(arguments);
  return -1;
}

static int bad_field(pdt_refusal *why, const char *field, const char *expected,
                     const json_t *found) {
  return pdt_refuse(why, 400, NULL, field, "%s: expected %s, found %s", field, expected,
                    pdt_json_type_name(found));
}

/* What the readers of a body in OpenAI's form share. */
typedef struct reader {
  pdt_ask *ask;
  const json_t *body;
  json_t *request, *settings; /* pdt's, which are made of it; owned */
  const pdt_ask_context *context;
  pdt_refusal *why;
} reader;

/* ---- fields ---- */

typedef struct field field;
typedef int read_field(const reader *in, const field *f, const json_t *value);
struct field {
  const char *name;
  read_field *read;
  const char *detail; /* the setting that a field gives, or the only value that it may have */
  enum { BOTH, COMPLETION, CHAT } forms; /* which have it */
};

static int no_memory(const reader *in) {
  return pdt_refuse(in->why, 503, NULL, NULL, "out of memory");
}

/* A field of pdt's own requests, judged where those are. */
static int pass(const reader *in, const field *f, const json_t *value) {
  return json_object_set(in->request, f->name, (json_t *)(uintptr_t)value) ? no_memory(in) : 0;
}

/* A field that is a setting. */
static int set(const reader *in, const field *f, const json_t *value) {
  if (json_object_get(in->settings, f->detail))
    return pdt_refuse(in->why, 400, NULL, f->name, "%s: %s is given by another field, too", f->name,
                      f->detail);
  return json_object_set(in->settings, f->detail, (json_t *)(uintptr_t)value) ? no_memory(in) : 0;
}

/* -1 turns it off for some, 0 here. */
static int set_top_k(const reader *in, const field *f, const json_t *value) {
  json_t *off = json_integer(0);
  int status = set(in, f, json_integer_value(value) == -1 ? off : value);
  json_decref(off);
  return status;
}

/* As if a stream had to have more tokens than it ever may. */
static int read_ignore_eos(const reader *in, const field *f, const json_t *value) {
  if (!json_is_boolean(value)) return bad_field(in->why, f->name, "true or false", value);
  json_t *most = json_integer(PDT_MAX_REQUEST_TOKENS);
  int status = json_is_true(value) ? set(in, f, most) : 0;
  json_decref(most);
  return status;
}

static int ignore(const reader *in, const field *f, const json_t *value) {
  (void)in;
  (void)f;
  (void)value;
  return 0;
}

/* Not supported: only what changes nothing is taken. */
static int refuse(const reader *in, const field *f, const json_t *value) {
  bool harmless = pdt_json_is_empty(value);
  if (strcmp(f->detail, "1") == 0)
    harmless = json_is_number(value) && json_number_value(value) == 1;
  if (strcmp(f->detail, "true") == 0) harmless = json_is_true(value);
  if (harmless) return 0;
  return pdt_refuse(in->why, 400, "unsupported", f->name, "%s: not supported: expected %s", f->name,
                    f->detail);
}

static int read_model(const reader *in, const field *f, const json_t *value) {
  const char *name = json_string_value(value);
  if (!name) return bad_field(in->why, f->name, "a text", value);
  if (strcmp(name, in->context->model) == 0) return 0;
  return pdt_refuse(in->why, 404, "model_not_found", f->name,
                    "model: expected '%s', found '%.200s'", in->context->model, name);
}

static bool is_ids(const json_t *list) {
  return json_is_array(list) && json_is_integer(json_array_get(list, 0));
}

/* A text, or token ids, or a list of one of these. */
static int read_prompt(const reader *in, const field *f, const json_t *value) {
  size_t n = json_array_size(value);
  const json_t *first = json_array_get(value, 0);
  if (json_is_array(value) && !is_ids(value)) {
    if (n != 1)
      return pdt_refuse(in->why, 400, n > 1 ? "unsupported" : NULL, f->name,
                        "prompt: expected one prompt a request, found %zu", n);
    value = first;
  }
  const char *key = is_ids(value) ? "prompt_ids" : "prompt";
  return json_object_set(in->request, key, (json_t *)(uintptr_t)value) ? no_memory(in) : 0;
}

static int read_sections(const reader *in, const field *f, const json_t *value) {
  in->ask->sections = json_incref((json_t *)(uintptr_t)value);
  return pass(in, f, value);
}

static int read_stop(const reader *in, const field *f, const json_t *value) {
  size_t n = json_is_array(value) ? json_array_size(value) : 1;
  if (n > PDT_ASK_STOPS)
    return pdt_refuse(in->why, 400, NULL, f->name, "stop: expected at most %d texts, found %zu",
                      PDT_ASK_STOPS, n);
  if (!json_is_array(value) && json_string_length(value) == 0 && json_is_string(value)) return 0;
  json_t *stops = json_array();
  for (size_t i = 0; i < n; i++) {
    json_t *text = json_is_array(value) ? json_array_get(value, i) : (json_t *)(uintptr_t)value;
    if (!json_is_string(text) || json_string_length(text) == 0) {
      json_decref(stops);
      return bad_field(in->why, f->name, "texts that are not empty", text);
    }
    json_array_append(stops, text);
  }
  in->ask->stops = stops;
  return n > 0 && json_array_size(stops) != n ? no_memory(in) : 0;
}

static int read_n(const reader *in, const field *f, const json_t *value) {
  json_int_t n = json_integer_value(value);
  if (!json_is_integer(value)) return bad_field(in->why, f->name, "an integer", value);
  if (n < 1 || n > PDT_ASK_CHOICES)
    return pdt_refuse(in->why, 400, NULL, f->name, "n: expected 1 to %d choices, found %lld",
                      PDT_ASK_CHOICES, (long long)n);
  in->ask->n = (int32_t)n;
  return 0;
}

enum { MOST_OF_COMPLETION = 5 }; /* as OpenAI has it */

/* How many of the likeliest tokens are told beside each. */
static int read_likeliest(const reader *in, const field *f, const json_t *value, int most) {
  json_int_t n = json_integer_value(value);
  int32_t vocabulary = in->context->request.model->vocab_size;
  if (!json_is_integer(value)) return bad_field(in->why, f->name, "an integer", value);
  if (most > vocabulary) most = vocabulary;
  if (n < 0 || n > most)
    return pdt_refuse(in->why, 400, NULL, f->name, "%s: expected 0 to %d, found %lld", f->name,
                      most, (long long)n);
  in->ask->n_logprobs = 1 + (int32_t)n;
  return 0;
}

/* Of a completion their number, of a chat whether there are any. */
static int read_logprobs(const reader *in, const field *f, const json_t *value) {
  if (in->ask->form != PDT_ASK_CHAT) return read_likeliest(in, f, value, MOST_OF_COMPLETION);
  if (!json_is_boolean(value)) return bad_field(in->why, f->name, "true or false", value);
  if (json_is_true(value) && in->ask->n_logprobs == 0) in->ask->n_logprobs = 1;
  return 0;
}

static int read_top_logprobs(const reader *in, const field *f, const json_t *value) {
  if (json_is_true(pdt_json_get(in->body, "logprobs")))
    return read_likeliest(in, f, value, PDT_MOST_LOGPROBS);
  if (json_is_integer(value) && json_integer_value(value) == 0) return 0;
  return pdt_refuse(in->why, 400, NULL, f->name, "top_logprobs: expected logprobs: true beside it");
}

static int read_stream(const reader *in, const field *f, const json_t *value) {
  if (!json_is_boolean(value)) return bad_field(in->why, f->name, "true or false", value);
  in->ask->stream = json_is_true(value);
  return 0;
}

static int read_stream_options(const reader *in, const field *f, const json_t *value) {
  static const char *const orders[] = {"merged", "streams", "interleaved"};
  const char *key;
  json_t *option;
  if (!json_is_object(value)) return bad_field(in->why, f->name, "an object", value);
  json_object_foreach((json_t *)(uintptr_t)value, key, option) {
    const char *order = json_string_value(option);
    int i = 0;
    bool is_usage = strcmp(key, "include_usage") == 0;
    if ((is_usage || strcmp(key, "rounds") == 0) && json_is_boolean(option)) {
      *(is_usage ? &in->ask->usage : &in->ask->rounds) = json_is_true(option);
      continue;
    }
    while (order && i < 3 && strcmp(order, orders[i]) != 0) i++;
    if (strcmp(key, "order") != 0 || !order || i == 3)
      return pdt_refuse(in->why, 400, NULL, f->name,
                        "stream_options: expected include_usage and rounds, true or false, and "
                        "order, merged, streams or interleaved, found '%.40s': %s",
                        key, pdt_json_type_name(option));
    in->ask->order = (pdt_ask_order)i;
  }
  return 0;
}

/* Contents in parts become their texts. */
static int read_messages(const reader *in, const field *f, const json_t *value) {
  if (!json_is_array(value)) return bad_field(in->why, f->name, "a list of messages", value);
  json_t *messages = pdt_ask_with_texts(value, in->why);
  if (!messages) return -1;
  return json_object_set_new(in->request, f->name, messages) ? no_memory(in) : 0;
}

static const field fields[] = {
    {"model", read_model, NULL, BOTH},
    {"prompt", read_prompt, NULL, COMPLETION},
    {"prompt_ids", pass, NULL, COMPLETION},
    {"sections", read_sections, NULL, BOTH},
    {"prefix_ids", pass, NULL, BOTH},
    {"plan", pass, NULL, BOTH},
    {"plan_ids", pass, NULL, BOTH},
    {"session", pass, NULL, BOTH},
    {"settings", ignore, NULL, BOTH}, /* read before all others */
    {"max_tokens", set, "max_tokens", BOTH},
    {"temperature", set, "temperature", BOTH},
    {"top_p", set, "top_p", BOTH},
    {"top_k", set_top_k, "top_k", BOTH},
    {"seed", set, "seed", BOTH},
    {"stop", read_stop, NULL, BOTH},
    {"stream", read_stream, NULL, BOTH},
    {"stream_options", read_stream_options, NULL, BOTH},
    {"user", ignore, NULL, BOTH},
    {"n", read_n, NULL, BOTH},
    {"best_of", refuse, "1", COMPLETION},
    {"repetition_penalty", refuse, "1", BOTH},
    {"length_penalty", refuse, "1", BOTH},
    {"presence_penalty", refuse, "0", BOTH},
    {"frequency_penalty", refuse, "0", BOTH},
    {"min_p", refuse, "0", BOTH},
    {"logprobs", read_logprobs, NULL, BOTH},
    {"logit_bias", refuse, "null", BOTH},
    {"suffix", refuse, "null", COMPLETION},
    {"echo", refuse, "false", COMPLETION},
    {"use_beam_search", refuse, "false", BOTH},
    {"min_tokens", set, "min_tokens", BOTH},
    {"ignore_eos", read_ignore_eos, "min_tokens", BOTH},
    {"messages", read_messages, NULL, CHAT},
    {"chat_template_kwargs", pass, NULL, CHAT},
    {"max_completion_tokens", set, "max_tokens", CHAT},
    {"add_generation_prompt", refuse, "true", CHAT},
    {"top_logprobs", read_top_logprobs, NULL, CHAT},
    {"tools", refuse, "null", CHAT},
    {"tool_choice", refuse, "null", CHAT},
    {"functions", refuse, "null", CHAT},
    {"response_format", refuse, "null", CHAT},
};

/* ---- the whole ---- */

/* The field that a message of pdt's own readers begins with, as in "settings: 'gamma': ..."; its
 * length, 0 without one. */
static size_t field_of(const char **message) {
  static const char settings[] = "settings: ";
  if (strncmp(*message, settings, sizeof settings - 1) == 0) *message += sizeof settings - 1;
  bool quoted = **message == '\'';
  *message += quoted;
  size_t n = strspn(*message, "abcdefghijklmnopqrstuvwxyz_");
  return strncmp(*message + n, quoted ? "':" : ":", quoted ? 2 : 1) == 0 ? n : 0;
}

/* An error of pdt's own readers, in a refusal; what they call the request is left out. */
static int refuse_request(pdt_refusal *why, const pdt_error *err) {
  const char *message = err->message, *begins = "request: ";
  bool wrong = err->code == PDT_ERROR_INPUT || err->code == PDT_ERROR_USAGE;
  if (strncmp(message, begins, strlen(begins)) == 0) message += strlen(begins);
  int status = wrong ? 400 : err->code == PDT_ERROR_MEMORY ? 503 : 500;
  pdt_refuse(why, status, NULL, NULL, "%s", message);
  size_t n = wrong ? field_of(&message) : 0;
  if (n < sizeof why->field) memcpy(why->field, message, n); /* it is zeroed */
  return -1;
}

/* Every field of the body by its own reader. */
static int read_fields(const reader *in) {
  const char *key;
  json_t *value;
  json_object_foreach((json_t *)(uintptr_t)in->body, key, value) {
    size_t i = 0, n = sizeof fields / sizeof *fields;
    int other = in->ask->form == PDT_ASK_CHAT ? COMPLETION : CHAT;
    while (i < n && strcmp(fields[i].name, key) != 0) i++;
    if (i == n || (int)fields[i].forms == other)
      return pdt_refuse(in->why, 400, "unsupported", key, "'%.60s': there is no such field", key);
    if (!json_is_null(value) && fields[i].read(in, &fields[i], value)) return -1;
  }
  return 0;
}

/* The request of pdt's that a body in OpenAI's form comes to; NULL on failure. */
static json_t *translate(pdt_ask *ask, const json_t *body, const pdt_ask_context *context,
                         pdt_refusal *why) {
  const json_t *given = pdt_json_get(body, "settings");
  reader in = {.ask = ask, .body = body, .context = context, .why = why};
  if (given && !json_is_object(given)) {
    bad_field(why, "settings", "an object", given);
    return NULL;
  }
  in.request = json_object();
  in.settings = given ? json_copy((json_t *)(uintptr_t)given) : json_object();
  int status = in.request && in.settings ? read_fields(&in) : no_memory(&in);
  if (!status && json_object_set(in.request, "settings", in.settings)) status = no_memory(&in);
  json_decref(in.settings);
  if (!status) return in.request;
  json_decref(in.request);
  return NULL;
}

/* Puts a prompt in the place of the request's conversation, if it is one. */
static int apply_chat(pdt_ask *ask, json_t *request, pdt_request_chat *chat, pdt_refusal *why) {
  pdt_error err = {0};
  if (ask->form == PDT_ASK_CHAT && !json_object_get(request, "messages"))
    return pdt_refuse(why, 400, NULL, "messages", "expected messages, found none");
  if (!pdt_chat_date(&chat->date, chat->flags.date, &err) && /* a server sees many days */
      !pdt_request_chat_apply(chat, request, "request", &err))
    return 0;
  refuse_request(why, &err);
  snprintf(why->field, sizeof why->field, "messages");
  return -1;
}

static int read_body(pdt_ask *ask, json_t *body, const pdt_ask_context *context, pdt_refusal *why) {
  pdt_error err = {0};
  if (!json_is_object(body)) return bad_field(why, "body", "an object", body);
  json_t *request =
      ask->form == PDT_ASK_DECODE ? json_incref(body) : translate(ask, body, context, why);
  if (!request) return -1;
  int status = apply_chat(ask, request, context->chat, why);
  if (!status && pdt_request_parse(&ask->request, request, "request", 0, &context->request, &err))
    status = refuse_request(why, &err);
  json_decref(request);
  return status;
}

int pdt_ask_read(pdt_ask *ask, pdt_ask_form form, const char *body, size_t bytes,
                 const pdt_ask_context *context, pdt_refusal *why) {
  pdt_error err = {0};
  json_t *json = NULL;
  *ask = (pdt_ask){.form = form, .n = 1};
  if (pdt_json_parse_wide(&json, body, bytes, "body", &err)) return refuse_request(why, &err);
  int status = read_body(ask, json, context, why);
  json_decref(json);
  if (status) pdt_ask_free(ask);
  return status;
}

void pdt_ask_free(pdt_ask *ask) {
  pdt_request_free(&ask->request);
  json_decref(ask->sections);
  json_decref(ask->stops);
  *ask = (pdt_ask){0};
}

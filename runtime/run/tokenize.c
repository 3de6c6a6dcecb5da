#include "run/tokenize.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/text_safe.h"
#include "text/chat.h"
#include "text/context.h"

/* What lines are converted with. */
typedef struct converter {
  const pdt_tokenize_options *options;
  pdt_tokenizer *tokenizer; /* NULL where texts alone are asked for */
  pdt_chat_template *chat;  /* NULL without */
  struct tm date;           /* that it is told */
} converter;

/* The ids of a text that goes on with another. */
static int encode_after(const pdt_tokenizer *t, const json_t *before, const json_t *text,
                        pdt_token **ids, int32_t *n, pdt_error *err) {
  pdt_text_context *context;
  if (pdt_text_context_new(&context, t, json_string_value(before), json_string_length(before), err))
    return -1;
  int rc = pdt_text_context_encode(context, json_string_value(text), json_string_length(text), ids,
                                   n, err);
  pdt_text_context_free(context);
  return rc;
}

static void print_ids(const pdt_token *ids, int32_t n) {
  putchar('[');
  for (int32_t i = 0; i < n; i++) printf(i ? ", %d" : "%d", ids[i]);
  puts("]");
}

/* Prints the ids of a JSON string, or of the second of two, where it goes on with the first. */
static int encode_line(const pdt_tokenizer *t, const pdt_tokenize_options *o, const json_t *value,
                       pdt_error *err) {
  pdt_token *ids;
  int32_t n;
  const json_t *before = json_array_get(value, 0), *text = json_array_get(value, 1);
  bool pair = json_array_size(value) == 2 && json_is_string(before) && json_is_string(text);
  if (!json_is_string(value) && !pair)
    return pdt_fail(err, PDT_ERROR_INPUT, "expected a JSON string, or an array of two, found %s",
                    pdt_json_type_name(value));
  if (pair ? encode_after(t, before, text, &ids, &n, err)
           : pdt_tokenizer_encode(t, json_string_value(value), json_string_length(value),
                                  !o->no_special, &ids, &n, err))
    return -1;
  print_ids(ids, n);
  free(ids);
  return 0;
}

static int print_text(const char *text, size_t bytes, pdt_error *err) {
  json_t *value = json_stringn(text, bytes);
  int rc = value ? pdt_json_print(value, stdout, JSON_ENCODE_ANY) : -1;
  json_decref(value);
  putchar('\n');
  return rc ? pdt_fail(err, PDT_ERROR_MEMORY, "no memory for a line") : 0;
}

/* Prints the text of a JSON array of ids. */
static int decode_line(const pdt_tokenizer *t, const json_t *value, pdt_error *err) {
  if (!json_is_array(value))
    return pdt_fail(err, PDT_ERROR_INPUT, "expected a JSON array of ids, found %s",
                    pdt_json_type_name(value));
  size_t n = json_array_size(value), bytes;
  char *text;
  if (n > INT32_MAX) return pdt_fail(err, PDT_ERROR_INPUT, "expected fewer ids, found %zu", n);
  pdt_token *ids = malloc((n + 1) * sizeof *ids);
  if (!ids) return pdt_fail(err, PDT_ERROR_MEMORY, "no memory for %zu ids", n);
  int rc = 0;
  for (size_t i = 0; !rc && i < n; i++) {
    int64_t id = 0;
    rc = pdt_json_element_integer(value, "ids", i, 0, pdt_tokenizer_size(t) - 1, &id, err);
    ids[i] = (pdt_token)id;
  }
  if (!rc) rc = pdt_tokenizer_decode(t, ids, (int32_t)n, true, &text, &bytes, err);
  free(ids);
  if (rc) return -1;
  rc = print_text(text, bytes, err);
  free(text);
  return rc;
}

/* Prints the prompt of a conversation: its text, or the ids of that. */
static int chat_line(const converter *c, const json_t *messages, pdt_error *err) {
  const pdt_chat_options options = {.now = &c->date};
  pdt_token *ids = NULL;
  char *text;
  size_t bytes;
  int32_t n;
  if (pdt_chat_render(c->chat, messages, &options, &text, &bytes, err)) return -1;
  int rc = c->options->text ? print_text(text, bytes, err)
                            : pdt_tokenizer_encode(c->tokenizer, text, bytes, false, &ids, &n, err);
  if (!rc && ids) print_ids(ids, n);
  free(ids);
  free(text);
  return rc;
}

static int convert(const converter *c, const char *line, size_t bytes, pdt_error *err) {
  const pdt_tokenizer *t = c->tokenizer;
  const pdt_tokenize_options *o = c->options;
  json_error_t e;
  json_t *value = json_loadb(line, bytes, JSON_DECODE_ANY | JSON_ALLOW_NUL, &e);
  if (!value) return pdt_fail(err, PDT_ERROR_INPUT, "not sound JSON: %s", e.text);
  int rc = c->chat     ? chat_line(c, value, err)
           : o->decode ? decode_line(t, value, err)
                       : encode_line(t, o, value, err);
  json_decref(value);
  return rc;
}

static int convert_all(const converter *c, pdt_error *err) {
  char *line = NULL;
  size_t room = 0;
  int rc = 0;
  long long number = 0;
  for (ssize_t n; !rc && (n = getline(&line, &room, stdin)) >= 0;) {
    number++;
    rc = convert(c, line, (size_t)n, err);
    if (rc) pdt_fail_in(err, "standard input: line %lld", number);
  }
  free(line);
  if (!rc && !feof(stdin)) rc = pdt_fail(err, PDT_ERROR_IO, "standard input: cannot be read: %m");
  if (fflush(stdout) || ferror(stdout)) {
    if (!rc) rc = pdt_fail(err, PDT_ERROR_IO, "standard output: cannot be written: %m");
  }
  return rc;
}

int pdt_tokenize(const pdt_tokenize_options *options, pdt_error *err) {
  converter c = {.options = options};
  int rc = pdt_chat_date(&c.date, options->date, err);
  if (!rc && options->chat) rc = pdt_chat_template_load(&c.chat, options->model, err);
  if (!rc && !options->text)
    rc = pdt_tokenizer_load_folder(&c.tokenizer, options->model, NULL, err);
  if (!rc) rc = convert_all(&c, err);
  pdt_chat_template_free(c.chat);
  pdt_tokenizer_free(c.tokenizer);
  return rc;
}

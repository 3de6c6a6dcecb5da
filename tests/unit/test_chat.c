/* Chat templates: where they are read from, what they are told, conversations as prompts and in
 * requests, what is refused. What they render is compared with transformers by tests/chat.py. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "request/chat.h"
#include "scratch.h"

static const char *const files[] = {"chat_template.jinja", "tokenizer_config.json",
                                    "special_tokens_map.json"};

static json_t *parsed(const char *text) {
  json_t *out = json_loads(text, 0, NULL);
  if (!out) fail_msg("%s", text);
  return out;
}

/* The folder's files, each its text or NULL: gone. */
static void put_files(scratch *s, const char *template, const char *config, const char *map) {
  const char *const texts[] = {template, config, map};
  pdt_error err = {0};
  for (int i = 0; i < 3; i++) {
    unlink(scratch_path(s, files[i]));
    if (texts[i] && pdt_file_write_text(scratch_path(s, files[i]), texts[i], &err))
      fail_msg("%s", err.message);
  }
}

static void expect_text(const pdt_chat_template *t, const char *messages,
                        const pdt_chat_options *options, const char *expected) {
  json_t *json = parsed(messages);
  pdt_error err = {0};
  char *text;
  size_t bytes;
  if (pdt_chat_render(t, json, options, &text, &bytes, &err)) fail_msg("%s", err.message);
  assert_string_equal(text, expected);
  assert_int_equal(bytes, strlen(expected));
  free(text);
  json_decref(json);
}

static void expect_loaded(scratch *s, const char *expected) {
  pdt_chat_template *t;
  pdt_error err = {0};
  if (pdt_chat_template_load(&t, s->folder, &err)) fail_msg("%s", err.message);
  expect_text(t, "[{\"role\":\"user\",\"content\":\"hi\"}]", NULL, expected);
  pdt_chat_template_free(t);
}

static void expect_not_loaded(scratch *s, const char *expected) {
  pdt_chat_template *t;
  pdt_error err = {0};
  assert_int_equal(pdt_chat_template_load(&t, s->folder, &err), -1);
  assert_null(t);
  assert_int_equal(err.code, PDT_ERROR_INPUT);
  if (!strstr(err.message, expected)) fail_msg("'%s' in '%s'", expected, err.message);
}

static void templates_of_a_folder(void **state) {
  scratch *s = *state;
  static const char several[] =
      "{\"chat_template\":[{\"name\":\"tool_use\",\"template\":\"tools\"},"
      "{\"name\":\"default\",\"template\":\"d\"}]}";
  put_files(s, NULL, "{\"chat_template\":\"of config\"}", NULL);
  expect_loaded(s, "of config");
  put_files(s, "of file\n", "{\"chat_template\":\"of config\"}", NULL);
  expect_loaded(s, "of file");
  put_files(s, NULL, several, NULL);
  expect_loaded(s, "d");
  put_files(s, NULL, "{\"chat_template\":{\"default\":\"e\"}}", NULL);
  expect_loaded(s, "e");
  put_files(s, NULL, "{\"chat_template\":[{\"name\":\"rag\",\"template\":\"x\"}]}", NULL);
  expect_not_loaded(s, "tokenizer_config.json: chat_template: expected a text, or several of which "
                       "one is called 'default', found array");
  put_files(s, NULL, "{\"chat_template\":5}", NULL);
  expect_not_loaded(s, "found integer");
  put_files(s, NULL, "{}", NULL);
  expect_not_loaded(s, "the model has no chat template (hint: it may be a base model");
  put_files(s, NULL, NULL, NULL);
  expect_not_loaded(s, "the model has no chat template");
  put_files(s, "a\n{% include 'b' %}", NULL, NULL);
  expect_not_loaded(s, "chat_template.jinja: line 2: the statement 'include' is not supported");
  put_files(s, NULL, "{\"chat_template\":\"a\",}", NULL);
  expect_not_loaded(s, "tokenizer_config.json");
}

static void special_tokens(void **state) {
  scratch *s = *state;
  static const char template[] =
      "{{ bos_token }}{{ eos_token }}{{ unk_token is defined }}{{ pad_token }}";
  put_files(s, template, "{\"bos_token\":\"<s>\",\"eos_token\":{\"content\":\"</s>\"}}", NULL);
  expect_loaded(s, "<s></s>False");
  put_files(s, template, "{\"bos_token\":\"<s>\",\"pad_token\":\"P\",\"unk_token\":null}",
            "{\"bos_token\":{\"content\":\"B\"},\"eos_token\":\"E\"}");
  expect_loaded(s, "BEFalseP");
  put_files(s, template, "{\"bos_token\":\"<s>\",\"added_tokens_decoder\":{}}",
            "{\"bos_token\":\"B\",\"eos_token\":\"E\"}");
  expect_loaded(s, "<s>False");
}

static pdt_chat_template *new_template(const char *text) {
  pdt_chat_template *t;
  pdt_error err = {0};
  json_t *tokens = parsed("{\"bos_token\":\"<s>\"}");
  if (pdt_chat_template_parse(&t, text, strlen(text), "t", tokens, &err))
    fail_msg("%s", err.message);
  json_decref(tokens);
  return t;
}

static void options(void **state) {
  (void)state;
  struct tm date;
  pdt_error err = {0};
  assert_int_equal(pdt_chat_date(&date, "2024-02-29", &err), 0);
  json_t *variables = parsed("{\"enable_thinking\":false,\"bos_token\":\"B\"}");
  const pdt_chat_options told = {true, &date, variables};
  pdt_chat_template *t = new_template(
      "{{ bos_token }}{{ enable_thinking }}{{ add_generation_prompt }}{{ strftime_now('%a %d %b') "
      "}}{{ tools is none }}");
  expect_text(t, "[{\"role\":\"user\",\"content\":\"\"}]", &told, "BFalseFalseThu 29 FebTrue");
  json_decref(variables);
  pdt_chat_template_free(t);
  const char *const bad[] = {"2024-02-30", "2024-2-3x", "today", "", "2023-02-29"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    assert_int_equal(pdt_chat_date(&date, bad[i], &err), -1);
    assert_int_equal(err.code, PDT_ERROR_USAGE);
    assert_non_null(strstr(err.message, "expected a date as in 2026-07-31, found '"));
  }
}

/* Keys that are null are not there, and what was thought has both of its names. */
static void messages_are_as_transformers_has_them(void **state) {
  (void)state;
  pdt_chat_template *t = new_template("{{ messages | tojson }}");
  expect_text(t, "[{\"role\":\"user\",\"content\":null,\"reasoning\":\"r\"}]", NULL,
              "[{\"thinking\": \"r\", \"role\": \"user\", \"reasoning\": \"r\", "
              "\"reasoning_content\": \"r\"}]");
  pdt_chat_template_free(t);
}

typedef struct refusal {
  const char *template, *messages, *message;
} refusal;

static void refused(void **state) {
  (void)state;
  static const char hi[] = "[{\"role\":\"user\",\"content\":\"hi\"}]";
  const refusal cases[] = {
      {"", "[]", "messages: expected a list of at least one message, found none"},
      {"", "{}", "messages: expected a list of at least one message, found object"},
      {"", "[5]", "messages[0]: expected a JSON object, found integer"},
      {"", "[{\"role\":\"user\",\"content\":\"\"},{\"content\":\"\"}]", "messages[1]: 'role'"},
      {"", "[{\"role\":5}]", "messages[0]: 'role'"},
      {"", "[{\"role\":\"user\",\"content\":5}]",
       "messages[0]: 'content': expected a string or an array, found integer"},
      {"\n\n{{ messages[0].x.y }}", hi, "t: line 3: 'x' is undefined"},
      {"{{ raise_exception('Only\n' ~ 'users!') }}", hi,
       "t: line 1: the template refuses the conversation: Only\nusers!"},
      {"{% for a in range(9) %}\n{{ a | nonsense }}{% endfor %}", hi,
       "t: line 2: the filter 'nonsense' is not supported"},
      {"{{ 'a'.swapcase() }}", hi, "t: line 1: the method of strings 'swapcase' is not supported"},
      {"{{ 'a'.strip(1, 2) }}", hi, "'strip' is given an argument that it has not"},
      {"{{ 'a' | replace('a') }}", hi,
       "t: line 1: the filter 'replace' is given too few arguments"},
      {"{{ cycler() }}", hi, "t: line 1: 'cycler' is undefined"},
      {"{{ messages }}", hi, "t: line 1: the text of a list is not supported, but by tojson"},
      {"{% set n = namespace(a='aa') %}{% for i in range(19) %}{% set n.a = n.a + n.a %}"
       "{% endfor %}{% for i in range(9999) %}{{ n.a.count('b') }}{% endfor %}",
       hi, "t: line 1: the template does too much work: is it endless?"},
      {"{% set n = namespace(a='aa') %}{% for i in range(99) %}{% set n.a = n.a + n.a %}"
       "{% endfor %}",
       hi, "t: line 1: the template makes texts of more than"},
      {"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", hi,
       "t: line 1: macros call each other more than 20 deep"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    pdt_chat_template *t = new_template(cases[i].template);
    json_t *json = parsed(cases[i].messages);
    pdt_error err = {0};
    char *text;
    size_t bytes;
    if (!pdt_chat_render(t, json, NULL, &text, &bytes, &err))
      fail_msg("%s: %s", cases[i].template, text);
    assert_null(text);
    assert_int_equal(err.code, PDT_ERROR_INPUT);
    if (!strstr(err.message, cases[i].message))
      fail_msg("expected '%s', found '%s'", cases[i].message, err.message);
    json_decref(json);
    pdt_chat_template_free(t);
  }
}

static void not_parsed(void **state) {
  (void)state;
  const char *const cases[][2] = {
      {"a\n{% if 1 %}\nb", "t: line 3: 'endif' is missing"},
      {"{{ 'a", "t: line 1: the string has no end"},
      {"{{ (1 }}", "t: line 1: '}' closes nothing"},
      {"\n{{ 1", "t: line 2: the tag has no '}}'"},
      {"{# a", "t: line 1: the comment has no end"},
      {"{{ a ? b }}", "t: line 1: unexpected character '?'"},
      {"{{ \xc3\xa9 }}", "t: line 1: unexpected character '\xc3\xa9'"},
      {"a\xff", "t: byte 1: expected UTF-8, found 0xff"},
      {"{{ 2 ** 3 }}", "t: line 1: the operator '**' is not supported"},
      {"{% for a in b recursive %}", "t: line 1: a loop that is 'recursive' is not supported"},
      {"{% continue %}", "t: line 1: break or continue outside of a loop"},
      {"{{ f(*a) }}", "t: line 1: '*' before an argument is not supported"},
      {"{{ f(a=1, 2) }}", "an argument without a name stands behind one with a name"},
      {"{{ '\\N{DASH}' }}", "t: line 1: a string has an escape that names no character"},
      {"{{ a. }}", "t: line 1: expected a name behind '.', found '}}'"},
      {"{% set a | upper %}b{% endset %}", "t: line 1: a filter of a block is not supported"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    pdt_chat_template *t;
    pdt_error err = {0};
    assert_int_equal(pdt_chat_template_parse(&t, cases[i][0], strlen(cases[i][0]), "t", NULL, &err),
                     -1);
    assert_null(t);
    assert_int_equal(err.code, PDT_ERROR_INPUT);
    if (!strstr(err.message, cases[i][1]))
      fail_msg("expected '%s', found '%s'", cases[i][1], err.message);
  }
}

static void too_large_or_deep(void **state) {
  (void)state;
  static const char *const parts[][2] = {{"((((((((((", "nested deeper than 100"},
                                         {"- - - - - ", "nested deeper than 100"},
                                         {"not not   ", "nested deeper than 100"},
                                         {"1+1+1+1+1+", "an expression of more than 500 terms"},
                                         {"a.a.a.a.a.", "an expression of more than 500 terms"},
                                         {"a|b|c|d|e|", "an expression of more than 500 terms"}};
  enum { REPEATS = 1000, BYTES = REPEATS * 10 };
  static char text[BYTES + 8];
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
    pdt_chat_template *t;
    pdt_error err = {0};
    memcpy(text, "{{ ", 4);
    for (int k = 0; k < REPEATS; k++) memcpy(text + 3 + (size_t)k * 10, parts[i][0], 10);
    memcpy(text + 3 + BYTES, "a }}", 4);
    assert_int_equal(pdt_chat_template_parse(&t, text, BYTES + 7, "t", NULL, &err), -1);
    if (!strstr(err.message, parts[i][1])) fail_msg("%s: %s", parts[i][0], err.message);
  }
  pdt_chat_template *t;
  pdt_error err = {0};
  char *large = calloc(1, (256 << 10) + 1);
  memset(large, 'a', (256 << 10) + 1);
  assert_int_equal(pdt_chat_template_parse(&t, large, (256 << 10) + 1, "t", NULL, &err), -1);
  assert_string_equal(err.message, "t: expected at most 262144 bytes, found 262145");
  free(large);
}

/* ---- as prompts ---- */

/* Puts <s> before a text; <s> and </s> are special. */
static pdt_tokenizer *new_tokenizer(bool bos) {
  static const char text[] =
      "{\"added_tokens\":[{\"id\":0,\"content\":\"<s>\",\"single_word\":false,\"lstrip\":false,"
      "\"rstrip\":false,\"normalized\":false,\"special\":true},{\"id\":1,\"content\":\"</s>\","
      "\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false,\"special\":"
      "true}],\"post_processor\":%s,\"model\":{\"type\":\"BPE\",\"vocab\":{\"<s>\":0,\"</"
      "s>\":1,\"a\":2,\"b\":3,\"ab\":"
      "4,\"!\":5},\"merges\":[\"a b\"]}}";
  static const char after[] =
      "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\",\"type_id\":"
      "0}"
      "},{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],\"pair\":[],\"special_tokens\":{\"<s>\":{"
      "\"id\":\"<s>\",\"ids\":[0],\"tokens\":[\"<s>\"]}}}";
  char json[2048];
  pdt_tokenizer *t;
  pdt_error err = {0};
  int n = snprintf(json, sizeof json, text, bos ? after : "null");
  if (pdt_tokenizer_parse(&t, json, (size_t)n, "t", &err)) fail_msg("%s", err.message);
  return t;
}

static void expect_prompt(const char *template, bool bos, const char *expected) {
  pdt_chat_template *t = new_template(template);
  pdt_tokenizer *tokenizer = new_tokenizer(bos);
  json_t *messages = pdt_chat_messages(NULL, "ab"), *prompt, *wanted = parsed(expected);
  pdt_error err = {0};
  if (pdt_chat_prompt(t, tokenizer, messages, NULL, &prompt, &err)) fail_msg("%s", err.message);
  if (!json_equal(prompt, json_array_get(wanted, 0))) {
    char *found = json_dumps(prompt, JSON_ENCODE_ANY);
    fail_msg("%s: expected %s, found %s", template, expected, found);
  }
  json_decref(wanted);
  json_decref(prompt);
  json_decref(messages);
  pdt_tokenizer_free(tokenizer);
  pdt_chat_template_free(t);
}

static void prompts(void **state) {
  (void)state;
  static const char begins[] = "{{ bos_token }}{{ messages[0].content }}!";
  expect_prompt(begins, true, "[\"ab!\"]"); /* the tokenizer puts it there */
  expect_prompt(begins, false, "[\"<s>ab!\"]");
  expect_prompt("{{ messages[0].content }}!", true, "[[4,5]]"); /* no text has no <s> */
  expect_prompt("{{ messages[0].content }}</s>", false, "[\"ab</s>\"]");
  expect_prompt("{{ bos_token }}{{ bos_token }}a", true, "[\"<s>a\"]");
}

static void expect_request(pdt_request_chat *chat, const char *request, const char *expected) {
  json_t *json = parsed(request), *wanted = parsed(expected);
  pdt_error err = {0};
  if (pdt_request_chat_apply(chat, json, "r", &err)) fail_msg("%s", err.message);
  if (!json_equal(json, wanted))
    fail_msg("%s: expected %s, found %s", request, expected, json_dumps(json, 0));
  json_decref(json);
  json_decref(wanted);
}

static void expect_no_request(pdt_request_chat *chat, const char *request, const char *expected) {
  json_t *json = parsed(request);
  pdt_error err = {0};
  assert_int_equal(pdt_request_chat_apply(chat, json, "r", &err), -1);
  if (!strstr(err.message, expected)) fail_msg("'%s' in '%s'", expected, err.message);
  json_decref(json);
}

static void requests(void **state) {
  scratch *s = *state;
  static const char said[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"session\":1}";
  static const char ruled[] = "{\"messages\":[{\"role\":\"system\",\"content\":\"b\"}]}";
  pdt_tokenizer *tokenizer = new_tokenizer(false);
  pdt_error err = {0};
  pdt_request_chat plain, chat, system;
  put_files(s, "{% for m in messages %}{{ m.role[0] + m.content }}{% endfor %}!{{ more }}", NULL,
            NULL);
  assert_int_equal(pdt_request_chat_new(&plain, s->folder, tokenizer, &(pdt_chat_flags){0}, &err),
                   0);
  assert_int_equal(
      pdt_request_chat_new(&chat, s->folder, tokenizer, &(pdt_chat_flags){.prompts = true}, &err),
      0);
  assert_int_equal(
      pdt_request_chat_new(&system, s->folder, tokenizer, &(pdt_chat_flags){.system = "a"}, &err),
      0);
  expect_request(&plain, "{\"prompt\":\"b\"}", "{\"prompt\":\"b\"}");
  expect_request(&plain, "{\"messages\":null,\"prompt\":\"b\"}",
                 "{\"messages\":null,\"prompt\":\"b\"}");
  expect_request(&plain,
                 "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],"
                 "\"chat_template_kwargs\":{\"more\":\"b\"}}",
                 "{\"prompt\":\"ua!b\"}");
  expect_request(&plain, "{\"prompt\":\"b\",\"chat_template_kwargs\":{}}",
                 "{\"prompt\":\"b\",\"chat_template_kwargs\":{}}"); /* to be refused as unknown */
  expect_no_request(&chat, "{\"prompt\":\"b\",\"chat_template_kwargs\":[]}",
                    "r: request: 'chat_template_kwargs': expected an object");
  expect_request(&plain, said, "{\"prompt\":\"ua!\",\"session\":1}");
  expect_request(&chat, "{\"prompt\":\"b\"}", "{\"prompt\":\"ub!\"}");
  expect_request(&chat, "{\"prompt_ids\":[1]}", "{\"prompt_ids\":[1]}");
  expect_request(&system, "{\"prompt\":\"b\"}", "{\"prompt\":\"saub!\"}");
  expect_request(&system, said, "{\"prompt\":\"saua!\",\"session\":1}");
  expect_request(&system, ruled, "{\"prompt\":\"sb!\"}");
  expect_no_request(&plain, "{\"messages\":[],\"prompt\":\"b\"}",
                    "r: expected messages or a prompt, found both");
  expect_no_request(&plain, "{\"messages\":[]}", "r: messages: expected a list of at least one");
  plain.tokenizer = NULL;
  expect_no_request(&plain, said, "r: a conversation needs the model's tokenizer.json");
  pdt_request_chat_free(&plain);
  pdt_request_chat_free(&chat);
  pdt_request_chat_free(&system);
  assert_int_equal(
      pdt_request_chat_new(&plain, s->folder, tokenizer, &(pdt_chat_flags){.date = "never"}, &err),
      -1);
  assert_string_equal(err.message, "--date: expected a date as in 2026-07-31, found 'never'");
  assert_int_equal(
      pdt_request_chat_new(&plain, s->folder, tokenizer, &(pdt_chat_flags){.system = "\xff"}, &err),
      -1);
  assert_string_equal(err.message, "--system: the text is not UTF-8");
  pdt_tokenizer_free(tokenizer);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(templates_of_a_folder, scratch_setup, scratch_teardown),
      cmocka_unit_test_setup_teardown(special_tokens, scratch_setup, scratch_teardown),
      cmocka_unit_test(options),
      cmocka_unit_test(messages_are_as_transformers_has_them),
      cmocka_unit_test(refused),
      cmocka_unit_test(not_parsed),
      cmocka_unit_test(too_large_or_deep),
      cmocka_unit_test(prompts),
      cmocka_unit_test_setup_teardown(requests, scratch_setup, scratch_teardown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

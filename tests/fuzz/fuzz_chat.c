/* Any text as a chat template, for a conversation that has values of all kinds: no crash, no leak,
 * an end in time; what comes out is UTF-8 and the same a second time, or an error with a message.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "text/chat.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char conversation[] =
    "[{\"role\":\"system\",\"content\":\" Be kind. \"},"
    "{\"role\":\"user\",\"content\":\"H\xc3\xa9llo, w\xc3\xb6rld! \xf0\x9f\x98\x80\\n\","
    "\"v\":{\"n\":7,\"x\":2.5,\"t\":true,\"s\":\" ab,cd,,Ef \",\"list\":[3,1,2,[4]],"
    "\"dict\":{\"a\":1,\"b\":[null,\"q\\\"\"]},\"people\":[{\"name\":\"Ann\",\"age\":3},"
    "{\"name\":\"Bo\"}]}},"
    "{\"role\":\"assistant\",\"content\":\"<think>\\nhm\\n</think>\\n\\nYes.\"},"
    "{\"role\":\"user\",\"content\":\"\"}]";

/* Of the template's text: NULL after an error, which must be one of input. */
static char *render(const pdt_chat_template *t, const json_t *messages, size_t *bytes) {
  struct tm date = {.tm_year = 124, .tm_mon = 6, .tm_mday = 26};
  const pdt_chat_options options = {.now = &date};
  pdt_error err = {0};
  char *text;
  if (!pdt_chat_render(t, messages, &options, &text, bytes, &err)) return text;
  if (err.code != PDT_ERROR_INPUT || !strstr(err.message, "fuzz: line ")) abort();
  return NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  pdt_chat_template *t;
  pdt_error err = {0};
  size_t bytes[2];
  json_t *tokens = json_pack("{s:s, s:s}", "bos_token", "<s>", "eos_token", "</s>");
  json_t *messages = json_loads(conversation, 0, NULL);
  if (!tokens || !messages) abort();
  if (pdt_chat_template_parse(&t, (const char *)data, size, "fuzz", tokens, &err)) {
    if (err.code != PDT_ERROR_INPUT || !*err.message) abort();
  } else {
    char *first = render(t, messages, &bytes[0]), *second = render(t, messages, &bytes[1]);
    if (!first != !second) abort();
    if (first && (bytes[0] != bytes[1] || memcmp(first, second, bytes[0]) != 0)) abort();
    if (first && !pdt_is_utf8(first, bytes[0])) abort();
    free(first);
    free(second);
  }
  pdt_chat_template_free(t);
  json_decref(tokens);
  json_decref(messages);
  return 0;
}

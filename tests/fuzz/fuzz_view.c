/* Any bytes as the line of a trace that pdt view reads: refused with a message, or told; and what
 * is told is JSON, also where it stands in the page. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "run/view_parts.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static pdt_tokenizer *new_tokenizer(void) {
  static const char text[] =
      "{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,"
      "\"use_regex\":true},\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\","
      "\"vocab\":{\"<\":0,\"/\":1,\">\":2,\"\xC3\x83\":3,\"\xC2\xA9\":4},\"merges\":[]}}";
  pdt_tokenizer *tokenizer;
  if (pdt_tokenizer_parse(&tokenizer, text, strlen(text), "fuzz", NULL)) abort();
  return tokenizer;
}

static void check_story(const pdt_story *story) {
  size_t bytes, put_bytes;
  char *put;
  const char *json = pdt_story_json(story, &bytes);
  FILE *out = open_memstream(&put, &put_bytes);
  if (!out) abort();
  pdt_page_put_data(out, json, bytes);
  if (fclose(out) || memchr(put, '<', put_bytes) || memchr(put, '>', put_bytes)) abort();
  json_t *told = json_loadb(json, bytes, JSON_ALLOW_NUL, NULL);
  json_t *again = json_loadb(put, put_bytes, JSON_ALLOW_NUL, NULL);
  if (!told || !json_equal(told, again)) abort();
  json_decref(told);
  json_decref(again);
  free(put);
}

/* The first byte: with texts, or with ids in their place. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const pdt_view_options options = {.gamma = -1, .request = -1};
  pdt_error err = {0};
  pdt_story *story;
  if (size < 1) return 0;
  pdt_tokenizer *tokenizer = data[0] & 1 ? new_tokenizer() : NULL;
  int status = pdt_view_trace_line(&story, (const char *)data + 1, size - 1, 0, "fuzz", &options,
                                   tokenizer, &err);
  if (status ? !*err.message || story : !story) abort();
  if (story) check_story(story);
  pdt_story_free(story);
  pdt_tokenizer_free(tokenizer);
  return 0;
}

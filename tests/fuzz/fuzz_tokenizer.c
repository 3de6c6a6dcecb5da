/* tokenizer.json from anywhere, and any text through it: no crash, no leak; ids within the
 * vocabulary; a stream that hands out what decoding does. The input is a file and, after a byte
 * 0xff (which no JSON has), a text. Without a file the text goes through one of the small
 * tokenizers. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/context.h"
#include "text/unicode.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Parts that a file may be made of, by the bits of a byte: inputs that are no JSON still reach
 * them.
 */
static pdt_tokenizer *assemble(unsigned choice) {
  static const char *const normalizers[] = {
      "null", "{\"type\":\"NFC\"}", "{\"type\":\"NFKD\"}",
      "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"_\"},"
      "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"_\"}]}"};
  static const char *const pretokenizers[] = {
      "null", "{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"use_regex\":true}",
      "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Punctuation\"},{\"type\":\"Digits\","
      "\"individual_digits\":true},{\"type\":\"Whitespace\"}]}",
      "{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"first\"}"};
  static const char *const decoders[] = {
      "null", "{\"type\":\"ByteLevel\",\"add_prefix_space\":true}",
      "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":\"_\"},"
      "\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"},{\"type\":\"Strip\","
      "\"content\":\" \",\"start\":1,\"stop\":2}]}",
      "{\"type\":\"Metaspace\",\"replacement\":\"_\"}"};
  static const char *const model =
      "{\"type\":\"BPE\",\"unk_token\":\"<unk>\",\"fuse_unk\":true,\"byte_fallback\":true,"
      "\"vocab\":{"
      "\"<unk>\":0,\"_\":1,\"a\":2,\"b\":3,\"ab\":4,\"_a\":5,\"<0xC3>\":6,\"<0xA9>\":7,"
      "\"\xc3\x83\":8,"
      "\"\xc2\xa9\":9,\"aa\":10,\"aaaa\":11,\"<0x0A>\":12,\"\xc4\xa0\":13},"
      "\"merges\":[\"a b\",\"a a\",\"aa aa\",\"_ a\"]}";
  char json[4096];
  pdt_tokenizer *t;
  int n = snprintf(
      json, sizeof json,
      "{\"normalizer\":%s,\"pre_tokenizer\":%s,\"decoder\":%s,\"model\":%s,"
      "\"added_tokens\":[{\"id\":14,\"content\":\"<s>\",\"single_word\":false,\"lstrip\":"
      "true,\"rstrip\":true,\"normalized\":false,\"special\":true},{\"id\":15,\"content\":"
      "\"ba\",\"single_word\":true,\"lstrip\":false,\"rstrip\":true,\"normalized\":true,"
      "\"special\":false}]}",
      normalizers[choice & 3], pretokenizers[choice >> 2 & 3], decoders[choice >> 4 & 3], model);
  if (pdt_tokenizer_parse(&t, json, (size_t)n, "assembled", NULL)) abort();
  return t;
}

static void check_decode(const pdt_tokenizer *t, const pdt_token *ids, int32_t n, bool skip) {
  char *text;
  size_t bytes, done = 0;
  pdt_error err;
  if (pdt_tokenizer_decode(t, ids, n, skip, &text, &bytes, &err)) return;
  if (pdt_utf8_valid(text, bytes) != bytes) abort();
  pdt_text_stream *s;
  if (pdt_text_stream_new(&s, t, skip, &err)) abort();
  for (int32_t i = 0; i <= n; i++) {
    const char *part;
    size_t part_bytes;
    int rc = i < n ? pdt_text_stream_push(s, ids[i], &part, &part_bytes, &err)
                   : pdt_text_stream_flush(s, &part, &part_bytes, &err);
    if (rc || part_bytes > bytes - done) abort();
    if (part_bytes && memcmp(text + done, part, part_bytes) != 0) abort();
    done += part_bytes;
  }
  if (done != bytes) abort();
  pdt_text_stream_free(s);
  free(text);
}

/* The text in two parts: what is read behind the first is the rest of the whole's ids, or that of a
 * text in the middle. */
static void check_context(const pdt_tokenizer *t, const char *text, size_t bytes,
                          const pdt_token *all, int32_t n_all) {
  size_t cut = bytes / 3;
  pdt_error err;
  pdt_text_context *context;
  pdt_token *first, *rest;
  int32_t n_first, n_rest;
  while (cut < bytes && ((unsigned char)text[cut] & 0xc0) == 0x80) cut++;
  if (pdt_text_context_new(&context, t, text, cut, &err)) return;
  if (!pdt_text_context_encode(context, text + cut, bytes - cut, &rest, &n_rest, &err)) {
    if (pdt_tokenizer_encode(t, text, cut, false, &first, &n_first, &err)) abort();
    bool begins = n_first <= n_all && !memcmp(first, all, (size_t)n_first * sizeof *all);
    if (begins && bytes < 1024 &&
        (n_rest != n_all - n_first || memcmp(rest, all + n_first, (size_t)n_rest * sizeof *all)))
      abort();
    free(first);
    free(rest);
  }
  pdt_text_context_free(context);
  if (pdt_text_context_from_ids(&context, t, all, n_all, &err)) return;
  if (!pdt_text_context_encode(context, text, bytes, &rest, &n_rest, &err)) free(rest);
  pdt_text_context_free(context);
}

static void check(const pdt_tokenizer *t, const char *text, size_t bytes) {
  pdt_error err;
  pdt_token *ids;
  int32_t n;
  bool valid = pdt_utf8_valid(text, bytes) == bytes;
  if (!pdt_tokenizer_encode(t, text, bytes, bytes % 2, &ids, &n, &err)) {
    if (!valid) abort();
    check_decode(t, ids, n, true);
    check_decode(t, ids, n, false);
    free(ids);
  }
  if (!pdt_tokenizer_encode(t, text, bytes, false, &ids, &n, &err)) {
    check_context(t, text, bytes, ids, n);
    free(ids);
  }
  pdt_token any[64];
  for (size_t i = 0; i < 64 && i < bytes; i++)
    any[i] = (unsigned char)text[i] % (pdt_tokenizer_size(t) + 1);
  check_decode(t, any, (int32_t)(bytes < 64 ? bytes : 64), bytes % 2);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const uint8_t *split = size ? memchr(data, 0xff, size) : NULL;
  size_t json = split ? (size_t)(split - data) : size;
  const char *text = (const char *)data + (split ? json + 1 : 0);
  size_t bytes = split ? size - json - 1 : size;
  pdt_error err;
  pdt_tokenizer *t = NULL;
  if (json && !pdt_tokenizer_parse(&t, (const char *)data, json, "fuzz", &err)) {
    check(t, text, bytes);
    pdt_tokenizer_free(t);
  }
  if (split || !size) return 0;
  t = assemble(data[0]);
  check(t, text + 1, bytes - 1);
  pdt_tokenizer_free(t);
  return 0;
}

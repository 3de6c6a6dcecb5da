/* Any text as a request, or, where the first byte is 128 or more, any bytes as packed ones: what is
 * accepted keeps its promises, and written as JSON or as bytes it is read again as the same. An odd
 * first byte lends a tokenizer, which texts need, or a model to judge packed requests by. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/json_text.h"
#include "byte_tokenizer.h"
#include "request/message.h"
#include "sidecar/sidecar.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { VOCABULARY = 300, POSITIONS = 5000, STREAMS = 4, SLOTS = 3, PLAN_VOCABULARY = 65536 };

static void check_ids(const int32_t *ids, int32_t n, int32_t end) {
  if (n < 0) abort();
  for (int32_t i = 0; i < n; i++)
    if (ids[i] < 0 || ids[i] >= end) abort();
}

/* What request.h and the rest of the engine count on. */
static void check_promises(const pdt_request *r) {
  const pdt_settings *s = &r->settings;
  if (r->session > UINT32_MAX || r->n_prompt < 1 || s->streams < 1 || s->streams > STREAMS) abort();
  if (s->reveal_delay < 1 || s->window < 1 || s->max_attempts < 1 || s->max_rounds < 1 ||
      s->limits.block_tokens < 1 || s->limits.horizon < s->limits.block_tokens ||
      s->limits.max_tokens < 1 || s->limits.slots != SLOTS || s->sampling.top_k < 0)
    abort();
  if (!(s->gamma >= 0 && s->gamma <= 1) || !(s->sampling.top_p > 0 && s->sampling.top_p <= 1) ||
      !(s->sampling.temperature >= 0 && isfinite(s->sampling.temperature)))
    abort();
  check_ids(r->prompt, r->n_prompt, VOCABULARY);
  for (pdt_stream k = 0; k < s->streams; k++) {
    check_ids(r->prefix[k], r->n_prefix[k], VOCABULARY);
    if (r->n_prompt - 1 + pdt_request_own_tokens(r, k) > POSITIONS) abort();
  }
  if (r->plan_ids) check_ids(r->plan_ids, SLOTS, PLAN_VOCABULARY);
}

/* The bytes of a request, read again, make the same bytes. */
static void check_bytes(const pdt_request *r, const pdt_request_context *context) {
  pdt_buffer first = {0}, second = {0};
  pdt_request back;
  size_t at = 0;
  if (pdt_request_pack(&first, r, "fuzz", NULL) ||
      pdt_request_unpack(&back, first.data, first.bytes, &at, "fuzz", context, NULL) ||
      at != first.bytes || pdt_request_pack(&second, &back, "fuzz", NULL))
    abort();
  if (first.bytes != second.bytes || memcmp(first.data, second.data, first.bytes) != 0) abort();
  pdt_request_free(&back);
  pdt_buffer_free(&first);
  pdt_buffer_free(&second);
}

/* Writes the request as text and reads it again, without a tokenizer. */
static void check_round_trip(const pdt_request *r, const pdt_request_context *context) {
  pdt_request back;
  pdt_request_message m;
  json_t *json;
  char *text;
  size_t n;
  FILE *out = open_memstream(&text, &n);
  if (pdt_request_message_new(&m, r, NULL)) abort();
  pdt_request_put_json(out, &m.message);
  pdt_request_message_free(&m);
  if (fclose(out) || pdt_json_parse(&json, text, n, "fuzz", NULL) ||
      pdt_request_parse(&back, json, "fuzz", r->session ^ 1, context, NULL))
    abort();
  check_promises(&back);
  pdt_buffer bytes[2] = {{0}, {0}};
  back.line = r->line;
  if (pdt_request_pack(&bytes[0], r, "fuzz", NULL) ||
      pdt_request_pack(&bytes[1], &back, "fuzz", NULL) || bytes[0].bytes != bytes[1].bytes ||
      memcmp(bytes[0].data, bytes[1].data, bytes[0].bytes) != 0)
    abort();
  for (int i = 0; i < 2; i++) pdt_buffer_free(&bytes[i]);
  pdt_request_free(&back);
  json_decref(json);
  free(text);
}

static void check_all(const pdt_request *r, const pdt_request_context *context) {
  check_promises(r);
  check_bytes(r, context);
  check_round_trip(r, context);
}

/* Bytes that are said to be requests, against the model or, as in a journal, without one. */
static void read_packed(const uint8_t *data, size_t size, const pdt_request_context *context) {
  pdt_request r;
  pdt_error err = {0};
  for (size_t at = 0;
       !pdt_request_unpack(&r, (const char *)data, size, &at, "fuzz", context, &err);) {
    if (context) check_all(&r, context);
    pdt_request_free(&r);
  }
  if (err.code != PDT_ERROR_INPUT || !*err.message) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const pdt_model_config model = {.vocab_size = VOCABULARY, .max_positions = POSITIONS};
  static const pdt_sidecar_config sidecar = {
      .streams = STREAMS,
      .plan_slots = SLOTS,
      .plan_vocab_size = PLAN_VOCABULARY,
      .plan_hash_salt = "parallel-decoder-v1",
      .defaults = {
          .block_tokens = 16, .reveal_delay = 1, .window = 12, .horizon = 48, .gamma = 0.5}};
  pdt_request_context context = {&model, &sidecar, NULL};
  pdt_request r;
  pdt_error err = {0};
  json_t *json;
  if (size < 1) return 0;
  if (data[0] >= 128) {
    read_packed(data + 1, size - 1, data[0] % 2 ? &context : NULL);
    return 0;
  }
  if (pdt_json_parse_wide(&json, (const char *)data + 1, size - 1, "fuzz", &err)) return 0;
  pdt_tokenizer *tokenizer = data[0] % 2 ? byte_tokenizer(VOCABULARY) : NULL;
  context.tokenizer = tokenizer;
  if (!pdt_request_parse(&r, json, "fuzz", size, &context, &err)) {
    context.tokenizer = NULL;
    check_all(&r, &context);
    pdt_request_free(&r);
  } else if ((err.code != PDT_ERROR_INPUT && err.code != PDT_ERROR_USAGE) || !*err.message) {
    abort();
  }
  json_decref(json);
  pdt_tokenizer_free(tokenizer);
  return 0;
}

#include "journal/json_text.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <utf8proc.h>

#include "base/text_safe.h"
#include "protocol/decide.h"

bool pdt_is_utf8(const char *text, size_t n_bytes) {
  const utf8proc_uint8_t *at = (const utf8proc_uint8_t *)text;
  size_t left = n_bytes;
  while (left > 0) {
    utf8proc_int32_t codepoint;
    /* four bytes are the longest sequence */
    utf8proc_ssize_t n = utf8proc_iterate(at, left < 4 ? (utf8proc_ssize_t)left : 4, &codepoint);
    if (n <= 0) return false;
    at += n;
    left -= (size_t)n;
  }
  return true;
}

bool pdt_json_put_string(FILE *out, const char *text, size_t n_bytes) {
  json_t *string = json_stringn(n_bytes ? text : "", n_bytes);
  char *escaped = string ? pdt_json_text(string, JSON_ENCODE_ANY) : NULL;
  if (escaped) (void)fputs(escaped, out);
  bool done = escaped != NULL;
  free(escaped);
  json_decref(string);
  return done;
}

void pdt_json_put_u64(FILE *out, uint64_t value) {
  const char *quote = value > INT64_MAX ? "\"" : "";
  (void)fprintf(out, "%s%" PRIu64 "%s", quote, value, quote);
}

void pdt_json_put_i32s(FILE *out, const int32_t *values, size_t n) {
  (void)fputc('[', out);
  for (size_t i = 0; i < n; i++) (void)fprintf(out, "%s%" PRId32, i ? "," : "", values[i]);
  (void)fputc(']', out);
}

void pdt_json_put_u32s(FILE *out, const uint32_t *values, size_t n) {
  (void)fputc('[', out);
  for (size_t i = 0; i < n; i++) (void)fprintf(out, "%s%" PRIu32, i ? "," : "", values[i]);
  (void)fputc(']', out);
}

void pdt_json_put_float(FILE *out, float value) {
  (void)fprintf(out, "%.9g", (double)value);
}

void pdt_json_put_double(FILE *out, double value) {
  (void)fprintf(out, "%.17g", value);
}

void pdt_json_put_floats(FILE *out, const float *values, size_t n) {
  (void)fputc('[', out);
  for (size_t i = 0; i < n; i++) {
    if (i) (void)fputc(',', out);
    pdt_json_put_float(out, values[i]);
  }
  (void)fputc(']', out);
}

static void put_u32(FILE *out, const char *key, uint32_t value) {
  (void)fprintf(out, "\"%s\":%" PRIu32 ",", key, value);
}

static void put_settings(FILE *out, const Pdt__Settings *s) {
  put_u32(out, "streams", s->streams);
  put_u32(out, "block_tokens", s->block_tokens);
  put_u32(out, "reveal_delay", s->reveal_delay);
  put_u32(out, "window", s->window);
  put_u32(out, "horizon", s->horizon);
  (void)fputs("\"gamma\":", out);
  pdt_json_put_double(out, s->gamma);
  (void)fprintf(out, ",\"policy\":\"%s\",", pdt_policy_name((pdt_policy)s->policy));
  put_u32(out, "max_attempts", s->max_attempts);
  put_u32(out, "max_tokens", s->max_tokens);
  put_u32(out, "max_rounds", s->max_rounds);
  (void)fputs("\"temperature\":", out);
  pdt_json_put_double(out, s->temperature);
  (void)fputc(',', out);
  put_u32(out, "top_k", s->top_k);
  (void)fputs("\"top_p\":", out);
  pdt_json_put_double(out, s->top_p);
  (void)fputs(",\"seed\":", out);
  pdt_json_put_u64(out, s->seed);
}

void pdt_json_put_request(FILE *out, const Pdt__Request *r) {
  (void)fputs("{\"session\":", out);
  pdt_json_put_u64(out, r->session);
  (void)fputs(",\"prompt_ids\":", out);
  pdt_json_put_i32s(out, r->prompt_ids, r->n_prompt_ids);
  (void)fputs(",\"prefix_ids\":[", out);
  for (size_t k = 0; k < r->n_prefix_ids; k++) {
    if (k) (void)fputc(',', out);
    pdt_json_put_i32s(out, r->prefix_ids[k]->ids, r->prefix_ids[k]->n_ids);
  }
  (void)fputc(']', out);
  if (r->n_plan_ids > 0) {
    (void)fputs(",\"plan_ids\":", out);
    pdt_json_put_i32s(out, r->plan_ids, r->n_plan_ids);
  }
  (void)fputs(",\"settings\":{", out);
  put_settings(out, r->settings);
  (void)fputs("}}", out);
}

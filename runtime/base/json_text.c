#include "base/json_text.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>

#include "base/text_safe.h"

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

/* JSON written piece by piece into a stream. Errors stay in the stream (ferror). */
#ifndef PDT_BASE_JSON_TEXT_H
#define PDT_BASE_JSON_TEXT_H

#include <stdio.h>

#include "base/types.h"

/* A string with its quotes, what could steer a terminal escaped; false when it is no UTF-8 or
 * memory ran out, and nothing is written. */
bool pdt_json_put_string(FILE *out, const char *text, size_t n_bytes);

/* Up to 2^63 - 1 a number, beyond it a decimal string: many readers hold no larger integer. */
void pdt_json_put_u64(FILE *out, uint64_t value);

/* Arrays, as in [1,2]. Floats must be finite; nine digits keep every bit of them. */
void pdt_json_put_i32s(FILE *out, const int32_t *values, size_t n);
void pdt_json_put_u32s(FILE *out, const uint32_t *values, size_t n);
void pdt_json_put_floats(FILE *out, const float *values, size_t n);

/* One float, or a double, of which 17 digits keep every bit. */
void pdt_json_put_float(FILE *out, float value);
void pdt_json_put_double(FILE *out, double value);

#endif

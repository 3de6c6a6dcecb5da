/* pdt model convert: a model from GGUF to a Hugging Face directory, and into GGUF. */
#ifndef PDT_RUN_CONVERT_H
#define PDT_RUN_CONVERT_H

#include "base/dtype.h"
#include "base/error.h"

typedef struct pdt_convert_options {
  const char *source, *target; /* of which one at least is a GGUF file */
  bool has_dtype;
  pdt_dtype dtype; /* what matrices become: a float type, or into GGUF Q8_0 or Q4_0 */
  bool overwrite;
} pdt_convert_options;

/* Writes the target. Without a type matrices stay as they are, but quantized ones become F32 in a
 * directory. Into GGUF norms and biases are F32, as ggml's tools have them; with Q8_0 or Q4_0 a
 * matrix whose rows are no whole blocks is F16, and with Q4_0 the output (the embedding, where it
 * is tied) is Q8_0. A directory is whole once it has config.json, which is written last; every file
 * is written whole or not at all. Errors: USAGE, INPUT, IO, MEMORY. */
int pdt_convert(const pdt_convert_options *options, pdt_error *err);

#endif

/* A model directory with random weights: the shape of a real one without its download. */
#ifndef PDT_MODEL_RANDOM_H
#define PDT_MODEL_RANDOM_H

#include "base/dtype.h"
#include "model/config.h"

typedef struct pdt_random_options {
  pdt_dtype dtype;
  uint64_t seed;
  double scale;          /* deviation of a layer's matrix is scale / sqrt(inputs) */
  pdt_bytes shard_bytes; /* most bytes of tensors in a file; 0: one file, no index */
} pdt_random_options;

typedef struct pdt_random_summary {
  int64_t parameters;
  pdt_bytes bytes; /* of tensors */
  int32_t files;
} pdt_random_summary;

/* Writes model.safetensors, or shards and model.safetensors.index.json, into a directory that is
 * there; the bytes depend on config and options alone. Norm weights are near 1, logits have a
 * deviation of about 4; Qwen2 gets its q, k, v biases and Qwen3 its q/k norms. Holds one chunk in
 * memory. Errors: IO, MEMORY. */
int pdt_model_random(const pdt_model_config *config, const pdt_random_options *options,
                     const char *directory, pdt_random_summary *summary, pdt_error *err);

/* tokenizer.json for such a model, as text freed by the caller: bos and eos become special tokens,
 * the lowest other 256 ids the bytes, and every id left a made-up word, so that whatever a random
 * model emits is text. Encoding uses bytes alone. *text is NULL, with no error, when the vocabulary
 * has no room for bytes and special tokens. Errors: MEMORY. */
int pdt_random_tokenizer(const pdt_model_config *config, char **text, pdt_error *err);

/* Removes the files that pdt_model_random wrote into a directory where none of their names was,
 * also when it failed half-way. */
void pdt_model_random_remove(const pdt_random_options *options, const char *directory,
                             const pdt_random_summary *summary);

#endif

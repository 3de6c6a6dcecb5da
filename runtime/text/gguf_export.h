/* A tokenizer as the metadata of a GGUF file. */
#ifndef PDT_TEXT_GGUF_EXPORT_H
#define PDT_TEXT_GGUF_EXPORT_H

#include <jansson.h>

#include "store/gguf_write.h"
#include "text/tokenizer.h"

/* A tokenizer and the model that it is of. Without one root and t are NULL, and only the model's
 * bos and eos are put. */
typedef struct pdt_gguf_export {
  const json_t *root;     /* its tokenizer.json */
  const char *text;       /* the same as it stands in the file */
  const pdt_tokenizer *t; /* the same with what other files of the folder add */
  int32_t vocab_size;     /* of the model: ids that are no token's get a name that no text has */
  pdt_token bos;          /* the model's; -1 without */
  const pdt_token *eos;   /* [n_eos] */
  int32_t n_eos;
  const char *where; /* for errors */
} pdt_gguf_export;

/* Puts the tokens, their types, merges or scores, and what goes around a text. Where GGUF has no
 * name for the way in which texts are split (those of gguf_tokenizer.h are known), or no scores
 * give the merges, the file goes in as tokenizer.huggingface.json, which few programs but this one
 * read. Refuses several tokens before or behind a text, and more than three that end one. Errors:
 * INPUT, MEMORY. */
int pdt_gguf_put_tokenizer(pdt_gguf_metadata *m, const pdt_gguf_export *e, pdt_error *err);

#endif

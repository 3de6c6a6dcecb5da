/* A model's config as the metadata of a GGUF file. */
#ifndef PDT_MODEL_GGUF_EXPORT_H
#define PDT_MODEL_GGUF_EXPORT_H

#include "model/config.h"
#include "store/gguf_write.h"

/* The architecture that a family has in GGUF: "llama" for Llama and Mistral. */
const char *pdt_gguf_architecture_of(pdt_family family);

/* Puts general.architecture and the keys of the architecture. Refuses, naming `where`, what GGUF
 * has no key for: Qwen's sliding windows, llama3's rope with other bounds than 1 and 4, yarn with a
 * scale of its own or bounds that are not rounded. Errors: INPUT. */
int pdt_gguf_put_config(pdt_gguf_metadata *m, const pdt_model_config *config, const char *where,
                        pdt_error *err);

#endif

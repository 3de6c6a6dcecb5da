/* A model in GGUF: one file, or the parts that a large one was split into, and its tensors by
 * Hugging Face's names. */
#ifndef PDT_STORE_GGUF_MODEL_H
#define PDT_STORE_GGUF_MODEL_H

#include "store/gguf.h"
#include "store/safetensors.h"

/* Read-only to its users. */
typedef struct pdt_gguf_model {
  int32_t n_parts;
  pdt_gguf **parts; /* all metadata but that of the split is the first one's */
} pdt_gguf_model;

/* Opens a file, and where it is the first of several (NAME-00001-of-00003.gguf) the others, which
 * must be there and fit. Sets *out, closed by the caller. Errors: IO, INPUT, MEMORY. */
int pdt_gguf_model_open(pdt_gguf_model **out, const char *path, pdt_error *err);

/* NULL is allowed. */
void pdt_gguf_model_close(pdt_gguf_model *m);

/* general.architecture, one of those that are read; llama, qwen2, qwen3. Errors: INPUT, naming
 * another. */
int pdt_gguf_architecture(const pdt_gguf *first, const char **out, pdt_error *err);

/* The metadata of an architecture: "llama.block_count" from "block_count". */
enum { PDT_GGUF_KEY_BYTES = 80 };
const char *pdt_gguf_arch_key(char key[PDT_GGUF_KEY_BYTES], const char *arch, const char *name);

/* A tensor by its name in the files, NULL when there is none; *part (may be NULL) is its file. */
const pdt_gguf_tensor *pdt_gguf_model_find(const pdt_gguf_model *m, const char *name,
                                           const pdt_gguf **part);

/* GGUF's name of a trunk's tensor: "blk.3.attn_q.weight" of
 * "model.layers.3.self_attn.q_proj.weight". False when it has none. */
bool pdt_gguf_tensor_name(char out[64], const char *name);

/* Size of a head: key_length, or embedding_length / head_count. Errors: INPUT. */
int pdt_gguf_head_dim(const pdt_gguf *first, const char *arch, int32_t *out, pdt_error *err);

/* Part number `index` as a file of tensors by Hugging Face's names, in order of these; it may
 * outlive the model, though not the bytes of one in memory. Llama's queries and keys, whose rows
 * GGUF has in the order of pairs that turn together, are read in Hugging Face's order. rope_freqs
 * is left out: it says what the config says. Sets *out, closed by the caller. Errors: INPUT, naming
 * a tensor that no such model has; IO, MEMORY. */
int pdt_gguf_part_tensors(pdt_safetensors **out, const pdt_gguf_model *m, int32_t index,
                          pdt_error *err);

#endif

/* What the metadata of a GGUF model says, as the config.json of the same model would say it, and
 * the other way round. */
#ifndef PDT_MODEL_GGUF_CONFIG_H
#define PDT_MODEL_GGUF_CONFIG_H

#include "model/config.h"
#include "store/gguf_model.h"

/* The shortest text of a float that is read back as the same float: 1e-05, as the config had it
 * from which the file was made. */
double pdt_gguf_plain_real(double value);

/* config.json of a GGUF model, a new object that the caller drops; its end-of-sequence ids are
 * those of the keys eos, eot and eom. Architecture llama with a sliding window is Mistral's.
 * Refuses by name what the metadata asks for and is not computed: other architectures, experts,
 * parts of heads that do not turn, rope factors that are not those of llama3, unknown keys of the
 * architecture. Errors: INPUT, IO, MEMORY. */
int pdt_gguf_config(struct json_t **out, const pdt_gguf_model *m, pdt_error *err);

/* The factors by which llama3 divides the frequencies of a head's pairs, float[head_dim / 2]: what
 * rope_freqs.weight holds. */
void pdt_gguf_rope_factors(const pdt_rope *rope, int32_t head_dim, float *out);

#endif

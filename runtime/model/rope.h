/* How positions turn heads: what a config says of rotary embedding, as transformers reads it. */
#ifndef PDT_MODEL_ROPE_H
#define PDT_MODEL_ROPE_H

#include "base/error.h"
#include "base/notices.h"
#include "base/types.h"

struct json_t; /* jansson's */

typedef enum pdt_rope_type {
  PDT_ROPE_DEFAULT,
  PDT_ROPE_LINEAR,
  PDT_ROPE_LLAMA3,
  PDT_ROPE_YARN,
} pdt_rope_type;

typedef struct pdt_rope {
  pdt_rope_type type;
  double theta;                             /* > 1 for yarn, else >= 1 */
  double factor;                            /* of all types but default: how far it stretches */
  double original_positions;                /* llama3, yarn: the longest sequence before that */
  double low_freq_factor, high_freq_factor; /* llama3 */
  double beta_fast, beta_slow;              /* yarn: turns in original_positions that are kept, */
  bool truncate;                            /* stretched; and are the pairs' bounds rounded? */
  double scale; /* of cosines and sines alike: 1 but for yarn; a score is scaled by its square */
} pdt_rope;

/* "default", "linear", "llama3", "yarn". */
const char *pdt_rope_type_name(pdt_rope_type type);

/* Reads rope_scaling or rope_parameters (the first wins where both say something, with all that it
 * leaves open), rope_theta, original_max_position_embeddings and partial_rotary_factor of config,
 * which errors and notices call `where`. max_positions is the config's max_position_embeddings.
 * Pure. Errors: INPUT, naming what is not computed. */
int pdt_rope_parse(pdt_rope *out, const struct json_t *config, const char *where,
                   int32_t max_positions, pdt_notices *notices, pdt_error *err);

/* Angle per position of each pair of a head, out[head_dim / 2], in radians: theta^(-2j / head_dim),
 * stretched as the type says. */
void pdt_rope_frequencies(const pdt_rope *rope, int32_t head_dim, double *out);

#endif

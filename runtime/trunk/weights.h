/* One rank's share of the frozen trunk, packed for the kernels in the precision of its files. */
#ifndef PDT_TRUNK_WEIGHTS_H
#define PDT_TRUNK_WEIGHTS_H

#include "kernels/kernels.h"
#include "model/config.h"
#include "store/checkpoint.h"
#include "trunk/shard.h"

/* With d the hidden size, hd the head's, and h, kv, f this rank's query heads, kv heads and FFN
 * columns. Norm weights and the biases of the output projections are whole on every rank. A bias
 * is none where the file has none; a matrix of a rank without a share has data == NULL. */
typedef struct pdt_layer_weights {
  pdt_array attention_norm, ffn_norm; /* [d] */
  pdt_array q_norm, k_norm;           /* [hd], or none */
  pdt_matrix qkv;                     /* [(h + 2 kv) hd, d]: query heads, key heads, value heads */
  pdt_matrix qkv_rest[2];             /* its lower rows, where the file has types of their own */
  pdt_array qkv_bias;                 /* [(h + 2 kv) hd] */
  pdt_matrix attention_out;           /* [d, h hd], a leaf a head */
  pdt_array attention_out_bias;       /* [d] */
  pdt_matrix gate_up;                 /* [2 f, d] */
  pdt_matrix gate_up_rest[1];         /* likewise */
  pdt_array gate_up_bias;             /* [2 f] */
  pdt_matrix down;                    /* [d, f], a leaf a block of PDT_FFN_BLOCK columns */
  pdt_array down_bias;                /* [d] */
} pdt_layer_weights;

typedef struct pdt_trunk_weights {
  pdt_device *device; /* whose memory they are in; borrowed */
  pdt_model_config config;
  pdt_shard shard;
  pdt_layer_weights *layers; /* [L] */
  pdt_array final_norm;      /* [d] */
  pdt_matrix embedding;      /* [vocab share, d] */
  pdt_matrix own_head;       /* the same shape; data == NULL when the head is tied */
  pdt_bytes bytes;           /* of everything above */
} pdt_trunk_weights;

/* Which share is loaded, and as what. */
typedef struct pdt_trunk_load {
  pdt_rank rank, size;
  /* Q8_0 or Q4_0: what matrices of a float type become whose rows and leaves are of whole blocks;
   * the embedding and the head, on which a model's quality depends most, Q8_0 in any case. F32: all
   * stay as the file has them. */
  pdt_dtype quantize;
} pdt_trunk_load;

/* Loads a rank's share into a device's memory, from a checkpoint whose tensors were checked. Reads
 * each tensor once, a bounded piece at a time, and lets go of the mapped pages behind it. Not
 * collective. Errors: INPUT for a weight that is not finite or a type that the device has not,
 * naming the tensor; USAGE for a type that a device which rounds rows does not round them for;
 * MEMORY. */
int pdt_trunk_weights_load(pdt_trunk_weights *w, pdt_device *device, const pdt_model_config *config,
                           const pdt_checkpoint *checkpoint, const pdt_trunk_load *how,
                           pdt_error *err);
void pdt_trunk_weights_free(pdt_trunk_weights *w);

/* The head's share: its own matrix, or the embedding when tied. */
const pdt_matrix *pdt_trunk_head(const pdt_trunk_weights *w);

#endif

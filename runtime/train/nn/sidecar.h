/* The sidecar's parameters (PROTOCOL.md, "Sidecar"), bound for training. The modules that use them
 * are in condition.h, heads.h and planner.h; step.h puts them together. */
#ifndef PDT_TRAIN_NN_SIDECAR_H
#define PDT_TRAIN_NN_SIDECAR_H

#include "sidecar/config.h"
#include "train/nn/parameters.h"

/* Parts that the curriculum trains together, and the optimizer's groups. */
typedef enum pdt_nn_part {
  PDT_NN_PLAN,        /* planner, plan embedding, plan to notes, notes head */
  PDT_NN_CONDITION,   /* SNC and adapters */
  PDT_NN_POOL,        /* summary of a block */
  PDT_NN_SPECULATION, /* note of a block */
  PDT_NN_CLOSE,       /* coverage and agreement */
  PDT_NN_PARTS
} pdt_nn_part;

/* One instrumented layer. */
typedef struct pdt_nn_instrument {
  pdt_nn_weight snc_norm;                     /* [d] */
  pdt_nn_affine snc_q, snc_k, snc_v, snc_out; /* [q, d], [q, dn] twice, [d, q] */
  pdt_nn_weight snc_gate;                     /* [1] */
  pdt_nn_weight adapter_norm;                 /* [d] */
  pdt_nn_affine adapter_down, adapter_up;     /* of all streams: [K a, d], [K d, a] */
  pdt_nn_weight adapter_gate;                 /* [1] */
} pdt_nn_instrument;

typedef struct pdt_nn_sidecar {
  pdt_sidecar_config config; /* owned */
  pdt_nn_parameters parameters;
  pdt_nn_instrument *layers;   /* [n_instrumented] */
  pdt_nn_affine planner;       /* full: [S Vp, d]; tied: [S de, d] with bias */
  pdt_nn_weight planner_place; /* [S, P]; absent without places */
  pdt_nn_weight planner_mark, planner_mark_bias, planner_order; /* [d], [1], [S, R]; absent without
                                                                   orders */
  pdt_nn_weight plan_embedding;                                 /* [Vp, de] */
  pdt_nn_affine plan_to_notes;                                  /* [dn, de] */
  pdt_nn_affine pool_query;         /* [ph, d]; absent with pool "last" */
  pdt_nn_weight pool_value;         /* [ph, pd, d] */
  pdt_nn_affine speculation;        /* [dn, p] */
  pdt_nn_affine hidden, hidden_out; /* [h, p], [dn, h]; absent without the hidden layer */
  pdt_nn_affine notes;              /* [dn, p]; absent where the file has no training tensors */
  pdt_nn_affine coverage_item, coverage_block;                        /* [dc, de], [dc, p] */
  pdt_nn_weight coverage_bias;                                        /* [1] */
  pdt_nn_affine agree_hidden, agree_pool, agree_note, agree_coverage; /* [da, d|p|dn|S] */
  pdt_nn_affine agree_query, agree_key, agree_value;                  /* [da, d|dn|dn] */
  pdt_nn_affine agree_note_query; /* [da, dn]; not there without note_query */
  pdt_nn_weight agree_bias;       /* [da] */
  pdt_nn_affine agree_out;        /* [1, da] */
} pdt_nn_sidecar;

/* A sidecar with the tensors of an opened file, whose config was loaded from it by
 * pdt_sidecar_config_load and is copied. trained: bit 1 << part for every part that is to get
 * gradients. Errors: INPUT (a value that is not finite), MEMORY; then freed. */
int pdt_nn_sidecar_new(pdt_nn_sidecar *s, const pdt_sidecar_config *config,
                       const pdt_safetensors *file, uint32_t trained, pdt_error *err);

/* The same with zeros, for tests that fill it in. */
int pdt_nn_sidecar_zero(pdt_nn_sidecar *s, const pdt_sidecar_config *config, uint32_t trained,
                        pdt_error *err);

void pdt_nn_sidecar_free(pdt_nn_sidecar *s);

#endif

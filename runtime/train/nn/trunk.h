/* The trunk as a whole (PROTOCOL.md, "Trunk"): forward over sequences and backward. Trained from
 * random weights, or frozen under a sidecar, which enters through hooks. */
#ifndef PDT_TRAIN_NN_TRUNK_H
#define PDT_TRAIN_NN_TRUNK_H

#include "model/config.h"
#include "store/checkpoint.h"
#include "train/nn/attention.h"
#include "train/nn/parameters.h"

typedef struct pdt_nn_layer {
  pdt_nn_weight attention_norm, ffn_norm; /* [d] */
  pdt_nn_weight q_norm, k_norm;           /* [head_dim], or absent */
  pdt_nn_affine q, k, v, attention_out;   /* [heads hd, d], [kv hd, d] twice, [d, heads hd] */
  pdt_nn_affine gate, up, down;           /* [f, d], [f, d], [d, f] */
} pdt_nn_layer;

typedef struct pdt_nn_trunk {
  pdt_model_config config;
  pdt_nn_parameters parameters;
  pdt_nn_layer *layers;          /* [L] */
  pdt_nn_weight embedding, head; /* [vocab, d]; the same when tied */
  pdt_nn_weight final_norm;      /* [d] */
  double *inv_freq;              /* [head_dim / 2] */
} pdt_nn_trunk;

/* Optimizer groups of a trained trunk. */
enum { PDT_NN_TRUNK_GROUP = 0 };

/* A trunk of that config. With a checkpoint, whose tensors were checked, its weights; without,
 * zeros, and the tensors that the family usually has. frozen: no room for gradients. Errors: INPUT,
 * MEMORY; then freed. */
int pdt_nn_trunk_new(pdt_nn_trunk *trunk, const pdt_model_config *config,
                     const pdt_checkpoint *checkpoint, bool frozen, pdt_error *err);
void pdt_nn_trunk_free(pdt_nn_trunk *trunk);

/* Random weights to train from: norms 1, biases 0, embedding and head of deviation 0.02, matrices
 * 1/sqrt(inputs), those that add to the residual stream times 1/sqrt(2 L). By seed and name alone.
 */
void pdt_nn_trunk_init(pdt_nn_trunk *trunk, uint64_t seed);

/* What a sidecar does inside the trunk. Forward hooks change h [rows, d] in place; backward hooks
 * turn the gradient dh of what they left into that of what they got. Called for every layer. */
typedef struct pdt_nn_hooks {
  void *context;
  int (*after_attention)(void *context, pdt_layer layer, pdt_real *h, pdt_error *err);
  int (*after_ffn)(void *context, pdt_layer layer, pdt_real *h, pdt_error *err);
  int (*after_attention_back)(void *context, pdt_layer layer, pdt_real *dh, pdt_error *err);
  int (*after_ffn_back)(void *context, pdt_layer layer, pdt_real *dh, pdt_error *err);
  pdt_layer lowest; /* the first layer where the hooks do something */
  int32_t inner;    /* layers behind which the residual stream is kept beside; 0: none */
  /* Where the pass begins: [R, d] coming into layer `first` <= lowest; NULL: with the embedding. */
  pdt_layer first;
  const pdt_real *x;
} pdt_nn_hooks;

/* One forward pass and what its backward needs. With R rows in all. */
typedef struct pdt_nn_pass {
  pdt_nn_sequences sequences; /* borrowed, as are tokens and hooks */
  const pdt_token *tokens;    /* [R] */
  const pdt_nn_hooks *hooks;
  int32_t rows;
  pdt_layer lowest;            /* backward goes down to this layer; -1: to the embedding */
  struct pdt_nn_saved *layers; /* [L] */
  pdt_real *angles;            /* [longest, head_dim] */
  pdt_real *last;              /* [R, d] residual stream after the last layer */
  pdt_real *hidden;            /* [R, d] after the final norm */
  pdt_real *inner;             /* [R, d] as the hooks ask for it, or NULL */
  const pdt_real *dinner;      /* [R, d] its gradient, for backward, or NULL */
} pdt_nn_pass;

/* Runs sequences of tokens (ids in the vocabulary, checked by who read them). Everything lives in
 * the arena. hooks may be NULL. keep: backward will follow. Errors: MEMORY, those of the hooks. */
int pdt_nn_trunk_forward(const pdt_nn_trunk *trunk, pdt_nn_pass *pass,
                         const pdt_nn_sequences *sequences, const pdt_token *tokens,
                         const pdt_nn_hooks *hooks, bool keep, pdt_arena *arena, pdt_error *err);

/* The residual stream of the plain trunk behind its first `layers` layers, into x [R, d]: what does
 * not depend on a sidecar. layers >= 1. Errors: MEMORY. */
int pdt_nn_trunk_lower(const pdt_nn_trunk *trunk, const pdt_nn_sequences *sequences,
                       const pdt_token *tokens, int32_t layers, pdt_real *x, pdt_arena *arena,
                       pdt_error *err);

/* From dhidden [R, d] adds to the gradients of the trunk unless it is frozen, and to
 * those of the hooks. A frozen trunk is gone through no further than the lowest layer of the hooks.
 * Errors: MEMORY, those of the hooks. */
int pdt_nn_trunk_backward(const pdt_nn_trunk *trunk, const pdt_nn_pass *pass,
                          const pdt_real *dhidden, pdt_arena *arena, pdt_error *err);

#endif

/* The trained modules beside the trunk (PROTOCOL.md, "Sidecar"): speculative note conditioning,
 * stream adapters, planner, and the heads that close a block. Everything here works on rows that
 * this rank owns and needs no communication but the planner's, whose vocabulary is shared among all
 * ranks by the caller. Weights stay in their file's precision, in the memory of one device, on
 * which everything here is computed. */
#ifndef PDT_SIDECAR_SIDECAR_H
#define PDT_SIDECAR_SIDECAR_H

#include "model/load.h"
#include "sidecar/config.h"

/* One instrumented layer. */
typedef struct pdt_sidecar_layer {
  pdt_array snc_norm;             /* [d] */
  pdt_matrix snc_q, snc_k, snc_v; /* [q, d], [q, dn], [q, dn] */
  pdt_matrix snc_out;             /* [d, q] */
  float snc_gate;                 /* sigmoid of the file's */
  pdt_array adapter_norm;         /* [d] */
  float adapter_gate;             /* sigmoid of the file's */
  pdt_adapter *adapters;          /* [streams]; zeroed for streams that live elsewhere */
} pdt_sidecar_layer;

/* This rank's part of the rows of a matrix. */
typedef struct pdt_row_share {
  pdt_rows rows;
  int64_t begin, end; /* of the whole matrix */
} pdt_row_share;

typedef struct pdt_sidecar_scratch pdt_sidecar_scratch;

/* Read-only after loading, but for the scratch. */
typedef struct pdt_sidecar {
  pdt_sidecar_config config;
  pdt_device *device; /* borrowed */
  int32_t max_rows;
  pdt_sidecar_layer *layers;         /* [n_instrumented] */
  pdt_block_heads heads;             /* what closes a block */
  pdt_matrix agree_key, agree_value; /* [da, dn] */
  pdt_matrix coverage_item;          /* [dc, de] */
  pdt_matrix plan_to_notes;          /* [dn, de] */
  pdt_row_share plan_embedding;      /* this rank's rows of [Vp, de] */
  pdt_row_share planner;  /* full: this rank's rows of [S Vp, d]; tied: all of [S de, d] */
  pdt_array planner_bias; /* tied: [S de] */
  pdt_plan_places places; /* how much slots weigh prompt tokens: by place, by order */
  pdt_rank rank, size;    /* this rank's share of the plan vocabulary */
  pdt_sidecar_scratch *scratch;
} pdt_sidecar;

/* Loads what rank `rank` of `size` needs: adapters of the streams k with k mod size == rank, and
 * its share of the rows of plan embedding and full planner, and everything else whole, into the
 * device's memory. `file` is not needed afterwards. Not collective. Errors: INPUT, IO, MEMORY. */
int pdt_sidecar_load(pdt_sidecar *s, pdt_device *device, const pdt_safetensors *file,
                     const pdt_model_config *trunk, pdt_rank rank, pdt_rank size, pdt_error *err);
void pdt_sidecar_free(pdt_sidecar *s);

/* The most that a sidecar is asked for at once. */
typedef struct pdt_sidecar_limits {
  int32_t max_rows;                    /* of this rank, of one batch */
  int32_t blocks, block_tokens, notes; /* closed in one call; steps of one; notes of its window */
} pdt_sidecar_limits;

/* Makes the buffers fit. Errors: MEMORY. */
int pdt_sidecar_reserve(pdt_sidecar *s, const pdt_sidecar_limits *limits, pdt_error *err);

/* A session's window of one round, as the modules read it. */
typedef struct pdt_window {
  pdt_device *device;     /* borrowed */
  int32_t n, budget;      /* notes in it, most notes */
  float *notes;           /* [budget, dn], on the host */
  pdt_array there;        /* the same on the device */
  pdt_kv_pool kv;         /* [instrumented layers, snc heads]: keys and values of the notes */
  pdt_array agree_keys;   /* [budget, da] */
  pdt_array agree_values; /* [budget, da] */
} pdt_window;

/* Room for `budget` notes, here and in the sidecar's buffers. Errors: MEMORY. */
int pdt_window_new(pdt_window *w, pdt_sidecar *s, int32_t budget, pdt_error *err);
void pdt_window_free(pdt_window *w);

/* Takes n notes from w->notes, which the caller has filled, and projects keys and values for every
 * instrumented layer and for readiness. n <= budget. */
void pdt_window_project(pdt_window *w, pdt_sidecar *s, int32_t n);

/* What conditions one row: its session's window and its stream. */
typedef struct pdt_conditioning {
  const pdt_window *window;
  pdt_stream stream;
} pdt_conditioning;

/* Says what conditions this rank's rows of the next forward pass: rows [n], n <= max_rows. The
 * windows stay as they are until it is over. */
void pdt_sidecar_condition(pdt_sidecar *s, const pdt_conditioning *rows, int32_t n);

/* h [rows, d] += sigmoid(gate) SNC(h, window) at an instrumented layer (3.5); others: nothing. */
void pdt_sidecar_snc(pdt_sidecar *s, pdt_layer layer, pdt_array h);

/* h [rows, d] += sigmoid(gate) Adapter[stream](h) at an instrumented layer (3.1); others: nothing.
 */
void pdt_sidecar_adapter(pdt_sidecar *s, pdt_layer layer, pdt_array h);

/* A session's plan. */
typedef struct pdt_plan {
  pdt_device *device; /* borrowed */
  int32_t *ids;       /* [S], 0: empty */
  float *note;        /* [dn]: snapshot 0 */
  pdt_array items;    /* [S, dc]: the slots as coverage reads them */
} pdt_plan;

int pdt_plan_new(pdt_plan *plan, const pdt_sidecar *s, pdt_error *err);
void pdt_plan_free(pdt_plan *plan);

/* The best of a part of the plan vocabulary for one slot. */
typedef struct pdt_plan_vote {
  float logit;
  int32_t id; /* -1: nothing in this part; -2: a logit was no finite number */
} pdt_plan_vote;

/* What the planner reads of a prompt: the mean of its final-norm states [d], or, with places or
 * orders, an input of its own for every slot: that mean and, of every token, what the slot weighs
 * of its state and of what orders read (kernels.h). Sums are made token by token into sums
 * [pdt_plan_sums], zeroed before, from the states [n, d] of tokens first .. first+n-1, and with
 * orders read [n, d], the Norm of the residual stream behind layer plan_layer; and then finished
 * into inputs [pdt_plan_inputs, d]. */
int32_t pdt_plan_inputs(const pdt_sidecar *s); /* 1, or S with places or orders */
int64_t pdt_plan_sums(const pdt_sidecar *s);
void pdt_plan_read(const pdt_sidecar *s, pdt_array states, pdt_array read, int32_t n, int32_t first,
                   double *sums);
void pdt_plan_finish(const pdt_sidecar *s, const double *sums, int32_t n_prompt, float *inputs);

/* This rank's votes[S] from the inputs [pdt_plan_inputs, d] (3.2, eq. 2). Votes of all ranks, put
 * together by pdt_plan_count, do not depend on how many there are. */
int pdt_plan_vote_share(const pdt_sidecar *s, const float *inputs, pdt_plan_vote *votes,
                        pdt_error *err);

/* Slot ids from votes [size, S] of all ranks in order: the largest logit, the lowest id on ties.
 * Errors: RUNTIME on NaN or infinity. */
int pdt_plan_count(const pdt_plan_vote *votes, pdt_rank size, int32_t slots, int32_t *ids,
                   pdt_error *err);

/* The rank that has the plan embedding's row of an id. Pure. */
pdt_rank pdt_plan_owner(const pdt_sidecar *s, int32_t id);

/* The embeddings of those of ids[S] that this rank has, in order of slots, into rows [.., de]; how
 * many they are. */
int32_t pdt_plan_own_rows(const pdt_sidecar *s, const int32_t *ids, float *rows);

/* From plan->ids and their embeddings [S, de]: the plan note (eq. 3), Norm(mean of W_plan
 * E_plan[z_i] over non-empty slots), zeros when all are empty, and the items. Errors: MEMORY,
 * RUNTIME (the note is no finite numbers). */
int pdt_plan_embed(pdt_plan *plan, const pdt_sidecar *s, const float *embedded, pdt_error *err);

/* A block to close (3.6, 3.7) under this window and plan; the caller fills in the states of the
 * steps that emitted it and where note, coverage and readiness go. Pure. */
pdt_block pdt_sidecar_block(const pdt_window *window, const pdt_plan *plan);

/* Closes n blocks: kernels.h, close_blocks. Blocking. */
void pdt_sidecar_close_blocks(pdt_sidecar *s, const pdt_block *blocks, int32_t n);

#endif

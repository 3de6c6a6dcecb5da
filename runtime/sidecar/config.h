/* A sidecar file's config and tensors (PROTOCOL.md, "Sidecar"). */
#ifndef PDT_SIDECAR_CONFIG_H
#define PDT_SIDECAR_CONFIG_H

#include "model/config.h"
#include "sidecar/trained.h"
#include "store/safetensors.h"
#include "store/tensor_table.h"

typedef enum pdt_planner { PDT_PLANNER_FULL, PDT_PLANNER_TIED } pdt_planner;
typedef enum pdt_pool { PDT_POOL_LAST, PDT_POOL_ATTENTION } pdt_pool;

/* Settings a request may override. */
typedef struct pdt_sidecar_defaults {
  int32_t block_tokens; /* tau */
  int32_t reveal_delay; /* Delta, rounds, >= 1 */
  int32_t window;       /* B, notes, the plan note included, >= 1 */
  int32_t horizon;      /* H, tokens, >= block_tokens */
  int32_t part_slots;   /* plan slots of one stream's part; 0: streams do not follow the plan */
  double gamma;         /* readiness threshold in [0, 1] */
} pdt_sidecar_defaults;

enum {
  PDT_SALT_BYTES = 128,
  PDT_PLAN_PLACES = 4096, /* most prompt tokens that slots weigh */
  PDT_PLAN_ORDERS = 4096, /* most marked ones */
};

typedef struct pdt_sidecar_config {
  int32_t hidden_size;             /* d, the trunk's */
  int32_t streams;                 /* most streams there are adapters for */
  int32_t notes_dim;               /* dn */
  int32_t snc_heads, snc_head_dim; /* q = snc_heads * snc_head_dim */
  int32_t n_instrumented;          /* at least 1 */
  pdt_layer *instrumented;         /* ascending, owned */
  double *layer_scales; /* [n_instrumented], owned: what SNC and adapters of a layer add is
                           multiplied by it; NULL: by 1 */
  int32_t adapter_dim;  /* a */
  pdt_planner planner;
  int32_t plan_slots, plan_vocab_size, plan_dim; /* S, Vp, de */
  char plan_hash_salt[PDT_SALT_BYTES];
  pdt_pool pool;
  int32_t pool_heads, pool_dim; /* ph, pd; 0 with pool "last" */
  int32_t pool_layers; /* layers behind which the pool reads; 0: all of them and the final norm */
  int32_t pool_copies; /* pool heads, the last ones, that mix the embeddings of tokens */
  int32_t coverage_dim, agree_dim; /* dc, da */
  int32_t speculation_hidden;      /* h, 0 without the hidden layer; from the tensors */
  int32_t plan_places;             /* prompt tokens that slots weigh; from the tensor, 0 without */
  bool note_query;     /* readiness asks the window about the block's note, too; from the tensor */
  int32_t plan_orders; /* marked ones that they weigh in order; the same */
  int32_t plan_layer;  /* behind which those are marked and read */
  pdt_sidecar_defaults defaults;
  struct json_t
      *trained; /* what it was trained with, owned (trained.h); NULL: the file does not say */
} pdt_sidecar_config;

/* Width of a block's summary, p: d, or pool_heads * pool_dim. */
int32_t pdt_sidecar_pooled(const pdt_sidecar_config *config);

/* Width of the SNC's queries: snc_heads * snc_head_dim. */
int32_t pdt_sidecar_snc_width(const pdt_sidecar_config *config);

/* What SNC and adapters of the at-th instrumented layer add is multiplied by this. */
double pdt_sidecar_layer_scale(const pdt_sidecar_config *config, int32_t at);

/* Place of a layer among the instrumented ones, -1 when it is none of them. */
int32_t pdt_sidecar_instrumented_index(const pdt_sidecar_config *config, pdt_layer layer);

/* Parses the config's JSON text; every size is checked. trunk may be NULL; else hidden_size must be
 * the trunk's and the layers must exist in it. speculation_hidden, plan_places, plan_orders and
 * note_query are left 0. *out is freed by the caller with pdt_sidecar_config_free. Errors: INPUT,
 * MEMORY. */
int pdt_sidecar_config_parse(pdt_sidecar_config *out, const char *text, const char *where,
                             const pdt_model_config *trunk, pdt_error *err);

/* Reads and checks the config of an opened file and the presence, type and shape of every tensor;
 * tensors it does not know are no error. Errors: INPUT, MEMORY. */
int pdt_sidecar_config_load(pdt_sidecar_config *out, const pdt_safetensors *file,
                            const pdt_model_config *trunk, pdt_error *err);

/* A config of its own with everything in it; freed by the caller, after an error too. Errors:
 * MEMORY. */
int pdt_sidecar_config_copy(pdt_sidecar_config *out, const pdt_sidecar_config *config,
                            pdt_error *err);

/* Frees what the config owns; safe on a zeroed one. */
void pdt_sidecar_config_free(pdt_sidecar_config *config);

/* The config as JSON text for __metadata__["config"], freed by the caller; NULL without memory. */
char *pdt_sidecar_config_text(const pdt_sidecar_config *config);

/* The sidecar's tensors, numbered; what only training has (notes.*, stream_classifier.*) is
 * optional, and comes in pairs. With speculation_hidden > 0 the hidden layer's three are among
 * them, with plan_places > 0 the planner's places, with plan_orders > 0 its mark and orders, with
 * note_query readiness's second query. Pure.
 */
int32_t pdt_sidecar_tensor_count(const pdt_sidecar_config *config);
void pdt_sidecar_tensor_at(const pdt_sidecar_config *config, int32_t index, pdt_wanted_tensor *out);

#endif

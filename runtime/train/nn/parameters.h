/* All parameters of a model in one array, their gradients in another of the same layout: what is
 * added over ranks, clipped, stepped and saved is one run of numbers. */
#ifndef PDT_TRAIN_NN_PARAMETERS_H
#define PDT_TRAIN_NN_PARAMETERS_H

#include "store/safetensors.h"
#include "train/nn/ops.h"

enum { PDT_NN_NAME_BYTES = 96, PDT_NN_PARAMETER_DIMS = 3 };

typedef struct pdt_nn_parameter {
  char name[PDT_NN_NAME_BYTES]; /* as in the file */
  int32_t n_dims;
  int64_t shape[PDT_NN_PARAMETER_DIMS];
  int64_t offset, n_elems; /* in the arrays; offsets are multiples of 16 */
  int32_t group;           /* of the optimizer; -1: frozen, and its gradient is not computed */
  bool decays;             /* weight decay applies: matrices and embeddings */
} pdt_nn_parameter;

typedef struct pdt_nn_parameters {
  int32_t n;
  size_t room;
  pdt_nn_parameter *items; /* in the order they were added */
  int64_t n_elems;         /* of the arrays; what lies between parameters stays zero */
  pdt_real *value, *grad;  /* [n_elems]; grad NULL: all frozen */
} pdt_nn_parameters;       /* a zeroed one is empty */

/* Adds a parameter, before the arrays are there. Errors: MEMORY, INPUT (too large, a name twice).
 */
int pdt_nn_parameters_add(pdt_nn_parameters *p, const char *name, int32_t n_dims,
                          const int64_t *shape, int32_t group, bool decays, pdt_error *err);

/* Makes the arrays, zeroed; gradients only where with_grad. Errors: MEMORY. */
int pdt_nn_parameters_allocate(pdt_nn_parameters *p, bool with_grad, pdt_error *err);

void pdt_nn_parameters_free(pdt_nn_parameters *p);

/* The parameter of that name, NULL when there is none. */
const pdt_nn_parameter *pdt_nn_parameters_find(const pdt_nn_parameters *p, const char *name);

/* Its value and gradient: {NULL, NULL} when there is none, no gradient where it is frozen. */
pdt_nn_weight pdt_nn_parameters_bind(const pdt_nn_parameters *p, const char *name);

/* What starts `first` elements into it: one stream's share, one head's. */
pdt_nn_weight pdt_nn_weight_at(pdt_nn_weight w, int64_t first);

/* An affine map of parameters "{name}.weight" and "{name}.bias"; w.w NULL when there is none. The
 * last dimension is the input, all before it the output. */
pdt_nn_affine pdt_nn_parameters_affine(const pdt_nn_parameters *p, const char *name);

/* Copies a tensor of the parameter's shape into its place; every value must be finite. Errors:
 * INPUT, IO. */
int pdt_nn_parameters_read(pdt_nn_parameters *p, const pdt_nn_parameter *parameter,
                           const pdt_tensor *tensor, pdt_error *err);

#endif

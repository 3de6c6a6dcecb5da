/* The tensors that a file of some kind must or may have, as a table: a row a tensor, or a tensor of
 * every layer, with dimensions that are looked up in a config. */
#ifndef PDT_STORE_TENSOR_TABLE_H
#define PDT_STORE_TENSOR_TABLE_H

#include "store/safetensors.h"

enum { PDT_TENSOR_NAME_BYTES = 96, PDT_WANTED_DIMS = 3 };

/* PDT_NONE: files by this config do not have it, and nobody asks for it. */
typedef enum pdt_need { PDT_REQUIRED, PDT_OPTIONAL, PDT_NONE } pdt_need;

/* What a tensor is to those who make one. */
typedef enum pdt_tensor_role {
  PDT_ROLE_MATRIX, /* last dimension is the input */
  PDT_ROLE_NORM,
  PDT_ROLE_BIAS,
  PDT_ROLE_GATE,
  PDT_ROLE_EMBEDDING,
} pdt_tensor_role;

/* A row. What `when` and the extents mean is the table's. */
typedef struct pdt_tensor_row {
  const char *name; /* of a layer's tensor: with one %d, for the layer */
  pdt_tensor_role role;
  int when;                   /* is there such a tensor? */
  int shape[PDT_WANTED_DIMS]; /* extents; 0: no dimension more */
} pdt_tensor_row;

typedef struct pdt_tensor_table {
  const pdt_tensor_row *rows; /* those of a layer, if any, one behind another */
  int32_t n_rows;
  int64_t (*size)(const void *config, int extent);
  pdt_need (*need)(const void *config, int when);
} pdt_tensor_table;

/* A table as it is under one config. */
typedef struct pdt_tensor_list {
  const pdt_tensor_table *table;
  const void *config;
  int32_t n_layers;
  const pdt_layer *layers; /* [n_layers]; NULL: 0, 1, ... */
} pdt_tensor_list;

/* One tensor that a file has or may have. */
typedef struct pdt_wanted_tensor {
  char name[PDT_TENSOR_NAME_BYTES];
  pdt_tensor_role role;
  pdt_need need; /* required or optional */
  int32_t n_dims;
  int64_t shape[PDT_WANTED_DIMS]; /* 0 behind n_dims */
} pdt_wanted_tensor;

/* How many tensors the list has, those of layers counted for each, and the index-th of them: in the
 * order of rows, the rows of a layer together for one layer after another. Pure. */
int32_t pdt_tensor_list_count(const pdt_tensor_list *list);
void pdt_tensor_list_at(const pdt_tensor_list *list, int32_t index, pdt_wanted_tensor *out);

/* The same tensor, to be written in dtype; the name is borrowed. */
pdt_tensor_spec pdt_wanted_spec(const pdt_wanted_tensor *t, pdt_dtype dtype);

#endif

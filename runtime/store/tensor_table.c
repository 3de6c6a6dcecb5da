#include "store/tensor_table.h"

#include <stdio.h>
#include <string.h>

static bool is_of_layer(const pdt_tensor_row *row) {
  return strstr(row->name, "%d") != NULL;
}

static bool is_there(const pdt_tensor_list *l, const pdt_tensor_row *row) {
  return l->table->need(l->config, row->when) != PDT_NONE;
}

/* Rows of a layer from row `first` on, as far as they follow one another: where they end, and how
 * many of them are there. 0 when `first` is of no layer. */
static int32_t layer_rows(const pdt_tensor_list *l, int32_t first, int32_t *end) {
  const pdt_tensor_table *t = l->table;
  int32_t n = 0;
  for (*end = first; *end < t->n_rows && is_of_layer(&t->rows[*end]); ++*end)
    n += is_there(l, &t->rows[*end]);
  return n;
}

int32_t pdt_tensor_list_count(const pdt_tensor_list *l) {
  int32_t n = 0;
  for (int32_t i = 0; i < l->table->n_rows; i++)
    n += is_there(l, &l->table->rows[i]) * (is_of_layer(&l->table->rows[i]) ? l->n_layers : 1);
  return n;
}

/* The index-th row that is there, of those from `first` on. */
static const pdt_tensor_row *row_at(const pdt_tensor_list *l, int32_t first, int32_t index) {
  const pdt_tensor_row *row = &l->table->rows[first];
  for (;; row++)
    if (is_there(l, row) && index-- == 0) return row;
}

/* The row of a tensor; *layer is its layer, -1 for a tensor of none. */
static const pdt_tensor_row *find_row(const pdt_tensor_list *l, int32_t index, int32_t *layer) {
  int32_t at = 0, end;
  *layer = -1;
  for (;; at++) {
    int32_t per_layer = layer_rows(l, at, &end), in_layers = per_layer * l->n_layers;
    if (per_layer > 0 && index < in_layers) {
      int32_t i = index / per_layer;
      *layer = l->layers ? l->layers[i] : i;
      return row_at(l, at, index % per_layer);
    }
    index -= in_layers;
    at = end;
    if (is_there(l, &l->table->rows[at]) && index-- == 0) return &l->table->rows[at];
  }
}

/* A layer's name from its pattern, whose only %d is the layer. */
static void layer_name(pdt_wanted_tensor *out, const char *pattern, pdt_layer layer) {
  const char *at = strstr(pattern, "%d");
  snprintf(out->name, sizeof out->name, "%.*s%d%s", (int)(at - pattern), pattern, layer, at + 2);
}

void pdt_tensor_list_at(const pdt_tensor_list *l, int32_t index, pdt_wanted_tensor *out) {
  int32_t layer;
  const pdt_tensor_row *row = find_row(l, index, &layer);
  *out = (pdt_wanted_tensor){.role = row->role, .need = l->table->need(l->config, row->when)};
  if (layer >= 0)
    layer_name(out, row->name, layer);
  else
    snprintf(out->name, sizeof out->name, "%s", row->name);
  for (; out->n_dims < PDT_WANTED_DIMS && row->shape[out->n_dims]; out->n_dims++)
    out->shape[out->n_dims] = l->table->size(l->config, row->shape[out->n_dims]);
}

pdt_tensor_spec pdt_wanted_spec(const pdt_wanted_tensor *t, pdt_dtype dtype) {
  pdt_tensor_spec spec = {.name = t->name, .dtype = dtype, .n_dims = t->n_dims};
  memcpy(spec.shape, t->shape, sizeof t->shape);
  return spec;
}

#include "train/nn/parameters.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/finite.h"
#include "base/memory.h"

enum { OFFSET_ELEMS = 16, READ_ELEMS = 1 << 14 };

static const int64_t most_elems = INT64_MAX / 64;

/* Elements of a shape, -1 when that cannot be. */
static int64_t count_of(int32_t n_dims, const int64_t *shape) {
  int64_t n = 1;
  for (int32_t i = 0; i < n_dims; i++) {
    if (shape[i] < 1 || shape[i] > most_elems / n) return -1;
    n *= shape[i];
  }
  return n;
}

int pdt_nn_parameters_add(pdt_nn_parameters *p, const char *name, int32_t n_dims,
                          const int64_t *shape, int32_t group, bool decays, pdt_error *err) {
  int64_t n = n_dims <= PDT_NN_PARAMETER_DIMS ? count_of(n_dims, shape) : -1;
  if (n < 0 || n > most_elems - p->n_elems || strlen(name) >= PDT_NN_NAME_BYTES)
    return pdt_fail(err, PDT_ERROR_INPUT, "parameter '%.120s': too large", name);
  if (pdt_nn_parameters_find(p, name))
    return pdt_fail(err, PDT_ERROR_INPUT, "parameter '%s': there twice", name);
  if (PDT_GROW(&p->items, (size_t)p->n, &p->room, err)) return -1;
  pdt_nn_parameter *item = &p->items[p->n++];
  *item = (pdt_nn_parameter){
      .n_dims = n_dims, .offset = p->n_elems, .n_elems = n, .group = group, .decays = decays};
  snprintf(item->name, sizeof item->name, "%s", name);
  memcpy(item->shape, shape, (size_t)n_dims * sizeof *shape);
  p->n_elems += (n + OFFSET_ELEMS - 1) / OFFSET_ELEMS * OFFSET_ELEMS;
  return 0;
}

int pdt_nn_parameters_allocate(pdt_nn_parameters *p, bool with_grad, pdt_error *err) {
  if (PDT_NEW(&p->value, p->n_elems, "parameters", err)) return -1;
  return with_grad ? PDT_NEW(&p->grad, p->n_elems, "gradients", err) : 0;
}

void pdt_nn_parameters_free(pdt_nn_parameters *p) {
  free(p->items);
  free(p->value);
  free(p->grad);
  *p = (pdt_nn_parameters){0};
}

const pdt_nn_parameter *pdt_nn_parameters_find(const pdt_nn_parameters *p, const char *name) {
  for (int32_t i = 0; i < p->n; i++)
    if (strcmp(p->items[i].name, name) == 0) return &p->items[i];
  return NULL;
}

pdt_nn_weight pdt_nn_parameters_bind(const pdt_nn_parameters *p, const char *name) {
  const pdt_nn_parameter *item = pdt_nn_parameters_find(p, name);
  if (!item) return (pdt_nn_weight){0};
  bool trained = p->grad && item->group >= 0;
  return (pdt_nn_weight){p->value + item->offset, trained ? p->grad + item->offset : NULL};
}

pdt_nn_weight pdt_nn_weight_at(pdt_nn_weight w, int64_t first) {
  return (pdt_nn_weight){w.w ? w.w + first : NULL, w.g ? w.g + first : NULL};
}

pdt_nn_affine pdt_nn_parameters_affine(const pdt_nn_parameters *p, const char *name) {
  char full[PDT_NN_NAME_BYTES + 8];
  snprintf(full, sizeof full, "%s.weight", name);
  const pdt_nn_parameter *item = pdt_nn_parameters_find(p, full);
  pdt_nn_affine map = {0};
  if (!item) return map;
  map.w = pdt_nn_parameters_bind(p, full);
  map.in = item->shape[item->n_dims - 1];
  map.out = item->n_elems / map.in;
  snprintf(full, sizeof full, "%s.bias", name);
  map.b = pdt_nn_parameters_bind(p, full);
  return map;
}

int pdt_nn_parameters_read(pdt_nn_parameters *p, const pdt_nn_parameter *parameter,
                           const pdt_tensor *tensor, pdt_error *err) {
  if (pdt_tensor_expect(tensor, parameter->n_dims, parameter->shape, err)) return -1;
  float raw[READ_ELEMS], room[READ_ELEMS]; /* raw: of any type */
  for (int64_t at = 0; at < tensor->n_elems; at += READ_ELEMS) {
    int64_t n = tensor->n_elems - at < READ_ELEMS ? tensor->n_elems - at : READ_ELEMS;
    if (pdt_tensor_read(tensor, at, n, raw, err)) return -1;
    int64_t bad = pdt_first_not_finite(tensor->dtype, raw, n);
    if (bad >= 0)
      return pdt_fail(err, PDT_ERROR_INPUT, "%s: tensor '%s': element %lld is not finite",
                      tensor->file->path, tensor->name, (long long)(at + bad));
    pdt_to_float(tensor->dtype, raw, n, room);
    for (int64_t i = 0; i < n; i++) p->value[parameter->offset + at + i] = room[i];
  }
  return 0;
}

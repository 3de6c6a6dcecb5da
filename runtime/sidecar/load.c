/* From a sidecar file to packed modules. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/memory.h"
#include "sidecar/internal.h"

/* Every tensor was checked to be there by pdt_sidecar_config_load. */
static const pdt_tensor *find(const pdt_safetensors *file, const char *module, pdt_layer layer,
                              const char *name) {
  char full[PDT_SIDECAR_NAME_BYTES];
  if (layer < 0)
    snprintf(full, sizeof full, "%s.%s", module, name);
  else
    snprintf(full, sizeof full, "%s.%d.%s", module, layer, name);
  return pdt_safetensors_find(file, full);
}

/* Rows [first, first + rows) of a matrix tensor, rows counted through its leading dimensions. */
static int matrix_rows(pdt_matrix *m, const pdt_tensor *tensor, int64_t first, int32_t rows,
                       pdt_error *err) {
  pdt_tensor_part part = {tensor, first, rows, 0};
  int32_t in = (int32_t)tensor->shape[tensor->n_dims - 1];
  return pdt_load_matrix(m, &part, 1, in, in, err);
}

static int matrix(pdt_matrix *m, const pdt_tensor *tensor, pdt_error *err) {
  return matrix_rows(m, tensor, 0, (int32_t)tensor->shape[0], err);
}

static int vector(float **v, const pdt_tensor *tensor, pdt_error *err) {
  return pdt_load_vector(v, tensor, 0, tensor->n_elems, err);
}

static int scalar(float *value, const pdt_tensor *tensor, pdt_error *err) {
  float *one;
  if (pdt_load_vector(&one, tensor, 0, 1, err)) return -1;
  *value = *one;
  free(one);
  return 0;
}

static int gate(float *value, const pdt_tensor *tensor, pdt_error *err) {
  if (scalar(value, tensor, err)) return -1;
  *value = (float)(1.0 / (1.0 + exp(-(double)*value)));
  return 0;
}

static int load_snc(pdt_sidecar_layer *layer, const pdt_safetensors *f, pdt_layer l,
                    pdt_error *err) {
  return vector(&layer->snc_norm, find(f, "snc", l, "norm.weight"), err) ||
         matrix(&layer->snc_q, find(f, "snc", l, "q_proj.weight"), err) ||
         matrix(&layer->snc_k, find(f, "snc", l, "k_proj.weight"), err) ||
         matrix(&layer->snc_v, find(f, "snc", l, "v_proj.weight"), err) ||
         matrix(&layer->snc_out, find(f, "snc", l, "o_proj.weight"), err) ||
         gate(&layer->snc_gate, find(f, "snc", l, "gate"), err);
}

static int load_adapters(const pdt_sidecar *s, pdt_sidecar_layer *layer, const pdt_safetensors *f,
                         pdt_layer l, pdt_error *err) {
  int32_t a = s->config.adapter_dim, d = s->config.hidden_size;
  if (PDT_NEW(&layer->adapters, s->config.streams, "adapters", err) ||
      vector(&layer->adapter_norm, find(f, "adapter", l, "norm.weight"), err) ||
      gate(&layer->adapter_gate, find(f, "adapter", l, "gate"), err))
    return -1;
  for (pdt_stream k = s->rank; k < s->config.streams; k += s->size) {
    pdt_adapter *adapter = &layer->adapters[k];
    int64_t down = (int64_t)k * a, up = (int64_t)k * d;
    if (matrix_rows(&adapter->down, find(f, "adapter", l, "down.weight"), down, a, err) ||
        matrix_rows(&adapter->up, find(f, "adapter", l, "up.weight"), up, d, err) ||
        pdt_load_vector(&adapter->down_bias, find(f, "adapter", l, "down.bias"), down, a, err) ||
        pdt_load_vector(&adapter->up_bias, find(f, "adapter", l, "up.bias"), up, d, err))
      return -1;
  }
  return 0;
}

static int load_pool(pdt_sidecar *s, const pdt_safetensors *f, pdt_error *err) {
  if (s->config.pool != PDT_POOL_ATTENTION) return 0;
  int32_t heads = s->config.pool_heads, width = s->config.pool_dim;
  if (matrix(&s->pool_query, find(f, "pool", -1, "query.weight"), err) ||
      PDT_NEW(&s->pool_value, heads, "pool", err))
    return -1;
  for (int32_t j = 0; j < heads; j++)
    if (matrix_rows(&s->pool_value[j], find(f, "pool", -1, "value.weight"), (int64_t)j * width,
                    width, err))
      return -1;
  return 0;
}

static int load_speculation(pdt_sidecar *s, const pdt_safetensors *f, pdt_error *err) {
  if (matrix(&s->speculation, find(f, "speculation", -1, "weight"), err) ||
      vector(&s->speculation_bias, find(f, "speculation", -1, "bias"), err))
    return -1;
  if (s->config.speculation_hidden == 0) return 0;
  return matrix(&s->hidden, find(f, "speculation", -1, "hidden.weight"), err) ||
         vector(&s->hidden_bias, find(f, "speculation", -1, "hidden.bias"), err) ||
         matrix(&s->hidden_out, find(f, "speculation", -1, "out.weight"), err);
}

static int load_coverage_and_agreement(pdt_sidecar *s, const pdt_safetensors *f, pdt_error *err) {
  return matrix(&s->coverage_item, find(f, "coverage", -1, "item.weight"), err) ||
         matrix(&s->coverage_block, find(f, "coverage", -1, "block.weight"), err) ||
         scalar(&s->coverage_bias, find(f, "coverage", -1, "bias"), err) ||
         matrix(&s->agree_hidden, find(f, "agree", -1, "hidden.weight"), err) ||
         matrix(&s->agree_pool, find(f, "agree", -1, "pool.weight"), err) ||
         matrix(&s->agree_note, find(f, "agree", -1, "note.weight"), err) ||
         matrix(&s->agree_coverage, find(f, "agree", -1, "coverage.weight"), err) ||
         matrix(&s->agree_query, find(f, "agree", -1, "query.weight"), err) ||
         matrix(&s->agree_key, find(f, "agree", -1, "key.weight"), err) ||
         matrix(&s->agree_value, find(f, "agree", -1, "value.weight"), err) ||
         vector(&s->agree_bias, find(f, "agree", -1, "bias"), err) ||
         vector(&s->agree_out, find(f, "agree", -1, "out.weight"), err) ||
         scalar(&s->agree_out_bias, find(f, "agree", -1, "out.bias"), err);
}

/* Rank `rank`'s of `size` shares of a matrix's rows. */
static int share(pdt_row_share *rows, const pdt_tensor *tensor, pdt_rank rank, pdt_rank size,
                 pdt_error *err) {
  int64_t n = tensor->shape[0];
  return pdt_load_rows(rows, tensor, n * rank / size, n * (rank + 1) / size, err);
}

static int load_planner(pdt_sidecar *s, const pdt_safetensors *f, pdt_error *err) {
  bool full = s->config.planner == PDT_PLANNER_FULL;
  const pdt_tensor *planner = find(f, "planner", -1, full ? "proj.weight" : "slot.weight");
  if (share(&s->plan_embedding, find(f, "plan", -1, "embedding.weight"), s->rank, s->size, err) ||
      share(&s->planner, planner, full ? s->rank : 0, full ? s->size : 1, err) ||
      matrix(&s->plan_to_notes, find(f, "plan", -1, "to_notes.weight"), err))
    return -1;
  if (s->config.plan_places > 0 &&
      vector(&s->planner_place, find(f, "planner", -1, "place.weight"), err))
    return -1;
  return full ? 0 : vector(&s->planner_bias, find(f, "planner", -1, "slot.bias"), err);
}

int pdt_sidecar_load(pdt_sidecar *s, const pdt_safetensors *file, const pdt_model_config *trunk,
                     pdt_rank rank, pdt_rank size, const pdt_kernels *kernels, int threads,
                     pdt_error *err) {
  *s = (pdt_sidecar){.kernels = kernels, .threads = threads, .rank = rank, .size = size};
  if (pdt_sidecar_config_load(&s->config, file, trunk, err)) return -1;
  int status = PDT_NEW(&s->layers, s->config.n_instrumented, "sidecar", err);
  for (int32_t i = 0; i < s->config.n_instrumented && !status; i++) {
    status = load_snc(&s->layers[i], file, s->config.instrumented[i], err) ||
             load_adapters(s, &s->layers[i], file, s->config.instrumented[i], err);
  }
  if (status || load_pool(s, file, err) || load_speculation(s, file, err) ||
      load_coverage_and_agreement(s, file, err) || load_planner(s, file, err)) {
    pdt_sidecar_free(s);
    return -1;
  }
  return 0;
}

static void free_layer(pdt_sidecar_layer *layer, int32_t streams) {
  for (pdt_stream k = 0; layer->adapters && k < streams; k++) {
    pdt_adapter *adapter = &layer->adapters[k];
    pdt_matrix_free(&adapter->down);
    pdt_matrix_free(&adapter->up);
    free(adapter->down_bias);
    free(adapter->up_bias);
  }
  free(layer->adapters);
  free(layer->adapter_norm);
  free(layer->snc_norm);
  pdt_matrix_free(&layer->snc_q);
  pdt_matrix_free(&layer->snc_k);
  pdt_matrix_free(&layer->snc_v);
  pdt_matrix_free(&layer->snc_out);
}

void pdt_sidecar_free(pdt_sidecar *s) {
  for (int32_t i = 0; s->layers && i < s->config.n_instrumented; i++)
    free_layer(&s->layers[i], s->config.streams);
  for (int32_t j = 0; s->pool_value && j < s->config.pool_heads; j++)
    pdt_matrix_free(&s->pool_value[j]);
  pdt_matrix *matrices[] = {&s->pool_query,    &s->speculation,    &s->hidden,       &s->hidden_out,
                            &s->coverage_item, &s->coverage_block, &s->agree_hidden, &s->agree_pool,
                            &s->agree_note,    &s->agree_coverage, &s->agree_query,  &s->agree_key,
                            &s->agree_value,   &s->plan_to_notes};
  for (size_t i = 0; i < sizeof matrices / sizeof *matrices; i++) pdt_matrix_free(matrices[i]);
  float *vectors[] = {s->speculation_bias, s->hidden_bias,  s->agree_bias,
                      s->agree_out,        s->planner_bias, s->planner_place};
  for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) free(vectors[i]);
  pdt_row_share_free(&s->plan_embedding);
  pdt_row_share_free(&s->planner);
  free(s->layers);
  free(s->pool_value);
  pdt_sidecar_scratch_free(s);
  pdt_sidecar_config_free(&s->config);
  *s = (pdt_sidecar){0};
}

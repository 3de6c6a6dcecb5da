#include "train/nn/sidecar.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

/* The part a tensor belongs to, by the beginning of its name; -1: no loss reaches it. */
static int32_t part_of(const char *name) {
  static const struct {
    const char *start;
    pdt_nn_part part;
  } parts[] = {{"planner.", PDT_NN_PLAN},
               {"plan.", PDT_NN_PLAN},
               {"notes.", PDT_NN_PLAN},
               {"snc.", PDT_NN_CONDITION},
               {"adapter.", PDT_NN_CONDITION},
               {"pool.", PDT_NN_POOL},
               {"speculation.", PDT_NN_SPECULATION},
               {"coverage.", PDT_NN_CLOSE},
               {"agree.", PDT_NN_CLOSE}};
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
    if (strncmp(name, parts[i].start, strlen(parts[i].start)) == 0) return (int32_t)parts[i].part;
  return -1;
}

static int add_parameters(pdt_nn_sidecar *s, const pdt_safetensors *file, uint32_t trained,
                          pdt_error *err) {
  int32_t n = pdt_sidecar_tensor_count(&s->config);
  for (int32_t i = 0; i < n; i++) {
    pdt_wanted_tensor t;
    pdt_sidecar_tensor_at(&s->config, i, &t);
    if (file && t.need == PDT_OPTIONAL && !pdt_safetensors_find(file, t.name)) continue;
    int32_t part = part_of(t.name);
    bool frozen = part < 0 || !(trained >> part & 1);
    bool decays = t.role == PDT_ROLE_MATRIX || t.role == PDT_ROLE_EMBEDDING;
    if (pdt_nn_parameters_add(&s->parameters, t.name, t.n_dims, t.shape, frozen ? -1 : part, decays,
                              err))
      return -1;
  }
  return 0;
}

static void bind_layer(pdt_nn_sidecar *s, int32_t i) {
  char name[PDT_TENSOR_NAME_BYTES];
  const pdt_nn_parameters *p = &s->parameters;
  pdt_layer l = s->config.instrumented[i];
  pdt_nn_instrument *out = &s->layers[i];
#define NAMED(kind, suffix)                                                                        \
  (snprintf(name, sizeof name, "%s.%d.%s", kind, l, suffix), (const char *)name)
  out->snc_norm = pdt_nn_parameters_bind(p, NAMED("snc", "norm.weight"));
  out->snc_q = pdt_nn_parameters_affine(p, NAMED("snc", "q_proj"));
  out->snc_k = pdt_nn_parameters_affine(p, NAMED("snc", "k_proj"));
  out->snc_v = pdt_nn_parameters_affine(p, NAMED("snc", "v_proj"));
  out->snc_out = pdt_nn_parameters_affine(p, NAMED("snc", "o_proj"));
  out->snc_gate = pdt_nn_parameters_bind(p, NAMED("snc", "gate"));
  out->adapter_norm = pdt_nn_parameters_bind(p, NAMED("adapter", "norm.weight"));
  out->adapter_down = pdt_nn_parameters_affine(p, NAMED("adapter", "down"));
  out->adapter_up = pdt_nn_parameters_affine(p, NAMED("adapter", "up"));
  out->adapter_gate = pdt_nn_parameters_bind(p, NAMED("adapter", "gate"));
#undef NAMED
}

static void bind(pdt_nn_sidecar *s) {
  const pdt_nn_parameters *p = &s->parameters;
  bool full = s->config.planner == PDT_PLANNER_FULL;
  for (int32_t i = 0; i < s->config.n_instrumented; i++) bind_layer(s, i);
  s->planner = pdt_nn_parameters_affine(p, full ? "planner.proj" : "planner.slot");
  s->planner_place = pdt_nn_parameters_bind(p, "planner.place.weight");
  s->planner_mark = pdt_nn_parameters_bind(p, "planner.mark.weight");
  s->planner_mark_bias = pdt_nn_parameters_bind(p, "planner.mark.bias");
  s->planner_order = pdt_nn_parameters_bind(p, "planner.order.weight");
  s->plan_embedding = pdt_nn_parameters_bind(p, "plan.embedding.weight");
  s->plan_to_notes = pdt_nn_parameters_affine(p, "plan.to_notes");
  s->pool_query = pdt_nn_parameters_affine(p, "pool.query");
  s->pool_value = pdt_nn_parameters_bind(p, "pool.value.weight");
  s->speculation = pdt_nn_parameters_affine(p, "speculation");
  s->hidden = pdt_nn_parameters_affine(p, "speculation.hidden");
  s->hidden_out = pdt_nn_parameters_affine(p, "speculation.out");
  s->notes = pdt_nn_parameters_affine(p, "notes");
  s->coverage_item = pdt_nn_parameters_affine(p, "coverage.item");
  s->coverage_block = pdt_nn_parameters_affine(p, "coverage.block");
  s->coverage_bias = pdt_nn_parameters_bind(p, "coverage.bias");
  s->agree_hidden = pdt_nn_parameters_affine(p, "agree.hidden");
  s->agree_pool = pdt_nn_parameters_affine(p, "agree.pool");
  s->agree_note = pdt_nn_parameters_affine(p, "agree.note");
  s->agree_coverage = pdt_nn_parameters_affine(p, "agree.coverage");
  s->agree_query = pdt_nn_parameters_affine(p, "agree.query");
  s->agree_note_query = pdt_nn_parameters_affine(p, "agree.note_query");
  s->agree_key = pdt_nn_parameters_affine(p, "agree.key");
  s->agree_value = pdt_nn_parameters_affine(p, "agree.value");
  s->agree_bias = pdt_nn_parameters_bind(p, "agree.bias");
  s->agree_out = pdt_nn_parameters_affine(p, "agree.out");
}

static int read_weights(pdt_nn_sidecar *s, const pdt_safetensors *file, pdt_error *err) {
  for (int32_t i = 0; i < s->parameters.n; i++) {
    const pdt_nn_parameter *p = &s->parameters.items[i];
    const pdt_tensor *tensor = pdt_safetensors_find(file, p->name);
    if (!tensor)
      return pdt_fail(err, PDT_ERROR_INPUT, "%s: tensor '%s' is missing", file->path, p->name);
    if (pdt_nn_parameters_read(&s->parameters, p, tensor, err)) return -1;
  }
  return 0;
}

static int make(pdt_nn_sidecar *s, const pdt_sidecar_config *config, const pdt_safetensors *file,
                uint32_t trained, pdt_error *err) {
  if (pdt_sidecar_config_copy(&s->config, config, err) ||
      PDT_NEW(&s->layers, config->n_instrumented, "instrumented layers", err) ||
      add_parameters(s, file, trained, err) ||
      pdt_nn_parameters_allocate(&s->parameters, trained != 0, err))
    return -1;
  bind(s);
  return file ? read_weights(s, file, err) : 0;
}

int pdt_nn_sidecar_new(pdt_nn_sidecar *s, const pdt_sidecar_config *config,
                       const pdt_safetensors *file, uint32_t trained, pdt_error *err) {
  *s = (pdt_nn_sidecar){0};
  if (make(s, config, file, trained, err) == 0) return 0;
  pdt_nn_sidecar_free(s);
  return -1;
}

int pdt_nn_sidecar_zero(pdt_nn_sidecar *s, const pdt_sidecar_config *config, uint32_t trained,
                        pdt_error *err) {
  return pdt_nn_sidecar_new(s, config, NULL, trained, err);
}

void pdt_nn_sidecar_free(pdt_nn_sidecar *s) {
  pdt_nn_parameters_free(&s->parameters);
  pdt_sidecar_config_free(&s->config);
  free(s->layers);
  *s = (pdt_nn_sidecar){0};
}

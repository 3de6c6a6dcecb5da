#include <stdio.h>

#include "sidecar/config.h"

/* What a dimension of a sidecar's tensor is; letters as in PROTOCOL.md. */
enum extent {
  E_NONE,
  E_ONE,
  E_D,   /* hidden size */
  E_K,   /* streams */
  E_DN,  /* notes */
  E_Q,   /* SNC width */
  E_A,   /* adapter */
  E_S,   /* plan slots */
  E_SVP, /* plan slots x plan vocabulary */
  E_SDE, /* plan slots x plan embedding */
  E_VP,  /* plan vocabulary */
  E_DE,  /* plan embedding */
  E_PH,  /* pool heads */
  E_PD,  /* pool width */
  E_P,   /* block summary */
  E_H,   /* hidden layer of the speculation head */
  E_PP,  /* plan places */
  E_PO,  /* plan orders */
  E_DC,  /* coverage */
  E_DA,  /* readiness */
};

/* Which sidecars have a tensor. */
enum presence { ALWAYS, FULL, TIED, PLACED, ORDERED, POOLED, HIDDEN, ASKING, TRAINING };

static const pdt_tensor_row rows[] = {
    {"snc.%d.norm.weight", PDT_ROLE_NORM, ALWAYS, {E_D}},
    {"snc.%d.q_proj.weight", PDT_ROLE_MATRIX, ALWAYS, {E_Q, E_D}},
    {"snc.%d.k_proj.weight", PDT_ROLE_MATRIX, ALWAYS, {E_Q, E_DN}},
    {"snc.%d.v_proj.weight", PDT_ROLE_MATRIX, ALWAYS, {E_Q, E_DN}},
    {"snc.%d.o_proj.weight", PDT_ROLE_MATRIX, ALWAYS, {E_D, E_Q}},
    {"snc.%d.gate", PDT_ROLE_GATE, ALWAYS, {E_ONE}},
    {"adapter.%d.norm.weight", PDT_ROLE_NORM, ALWAYS, {E_D}},
    {"adapter.%d.down.weight", PDT_ROLE_MATRIX, ALWAYS, {E_K, E_A, E_D}},
    {"adapter.%d.down.bias", PDT_ROLE_BIAS, ALWAYS, {E_K, E_A}},
    {"adapter.%d.up.weight", PDT_ROLE_MATRIX, ALWAYS, {E_K, E_D, E_A}},
    {"adapter.%d.up.bias", PDT_ROLE_BIAS, ALWAYS, {E_K, E_D}},
    {"adapter.%d.gate", PDT_ROLE_GATE, ALWAYS, {E_ONE}},
    {"planner.proj.weight", PDT_ROLE_MATRIX, FULL, {E_SVP, E_D}},
    {"planner.slot.weight", PDT_ROLE_MATRIX, TIED, {E_SDE, E_D}},
    {"planner.slot.bias", PDT_ROLE_BIAS, TIED, {E_SDE}},
    {"planner.place.weight", PDT_ROLE_BIAS, PLACED, {E_S, E_PP}},
    {"planner.mark.weight", PDT_ROLE_BIAS, ORDERED, {E_D}},
    {"planner.mark.bias", PDT_ROLE_BIAS, ORDERED, {E_ONE}},
    {"planner.order.weight", PDT_ROLE_BIAS, ORDERED, {E_S, E_PO}},
    {"plan.embedding.weight", PDT_ROLE_EMBEDDING, ALWAYS, {E_VP, E_DE}},
    {"plan.to_notes.weight", PDT_ROLE_MATRIX, ALWAYS, {E_DN, E_DE}},
    {"pool.query.weight", PDT_ROLE_MATRIX, POOLED, {E_PH, E_D}},
    {"pool.value.weight", PDT_ROLE_MATRIX, POOLED, {E_PH, E_PD, E_D}},
    {"speculation.weight", PDT_ROLE_MATRIX, ALWAYS, {E_DN, E_P}},
    {"speculation.bias", PDT_ROLE_BIAS, ALWAYS, {E_DN}},
    {"speculation.hidden.weight", PDT_ROLE_MATRIX, HIDDEN, {E_H, E_P}},
    {"speculation.hidden.bias", PDT_ROLE_BIAS, HIDDEN, {E_H}},
    {"speculation.out.weight", PDT_ROLE_MATRIX, HIDDEN, {E_DN, E_H}},
    {"coverage.item.weight", PDT_ROLE_MATRIX, ALWAYS, {E_DC, E_DE}},
    {"coverage.block.weight", PDT_ROLE_MATRIX, ALWAYS, {E_DC, E_P}},
    {"coverage.bias", PDT_ROLE_BIAS, ALWAYS, {E_ONE}},
    {"agree.hidden.weight", PDT_ROLE_MATRIX, ALWAYS, {E_DA, E_D}},
    {"agree.pool.weight", PDT_ROLE_MATRIX, ALWAYS, {E_DA, E_P}},
    {"agree.note.weight", PDT_ROLE_MATRIX, ALWAYS, {E_DA, E_DN}},
    {"agree.coverage.weight", PDT_ROLE_MATRIX, ALWAYS, {E_DA, E_S}},
    {"agree.query.weight", PDT_ROLE_MATRIX, ALWAYS, {E_DA, E_D}},
    {"agree.note_query.weight", PDT_ROLE_MATRIX, ASKING, {E_DA, E_DN}},
    {"agree.key.weight", PDT_ROLE_MATRIX, ALWAYS, {E_DA, E_DN}},
    {"agree.value.weight", PDT_ROLE_MATRIX, ALWAYS, {E_DA, E_DN}},
    {"agree.bias", PDT_ROLE_BIAS, ALWAYS, {E_DA}},
    {"agree.out.weight", PDT_ROLE_MATRIX, ALWAYS, {E_ONE, E_DA}},
    {"agree.out.bias", PDT_ROLE_BIAS, ALWAYS, {E_ONE}},
    {"notes.weight", PDT_ROLE_MATRIX, TRAINING, {E_DN, E_P}},
    {"notes.bias", PDT_ROLE_BIAS, TRAINING, {E_DN}},
    {"stream_classifier.weight", PDT_ROLE_MATRIX, TRAINING, {E_K, E_P}},
    {"stream_classifier.bias", PDT_ROLE_BIAS, TRAINING, {E_K}},
};

static int64_t size_of(const void *config, int extent) {
  const pdt_sidecar_config *c = config;
  const int64_t sizes[] = {
      [E_ONE] = 1,
      [E_D] = c->hidden_size,
      [E_K] = c->streams,
      [E_DN] = c->notes_dim,
      [E_Q] = pdt_sidecar_snc_width(c),
      [E_A] = c->adapter_dim,
      [E_S] = c->plan_slots,
      [E_SVP] = (int64_t)c->plan_slots * c->plan_vocab_size,
      [E_SDE] = (int64_t)c->plan_slots * c->plan_dim,
      [E_VP] = c->plan_vocab_size,
      [E_DE] = c->plan_dim,
      [E_PH] = c->pool_heads,
      [E_PD] = c->pool_dim,
      [E_P] = pdt_sidecar_pooled(c),
      [E_H] = c->speculation_hidden,
      [E_PP] = c->plan_places,
      [E_PO] = c->plan_orders,
      [E_DC] = c->coverage_dim,
      [E_DA] = c->agree_dim,
  };
  return sizes[extent];
}

static pdt_need need_of(const void *config, int when) {
  const pdt_sidecar_config *c = config;
  const bool present[] = {
      [ALWAYS] = true,
      [FULL] = c->planner == PDT_PLANNER_FULL,
      [TIED] = c->planner == PDT_PLANNER_TIED,
      [PLACED] = c->plan_places > 0,
      [ORDERED] = c->plan_orders > 0,
      [POOLED] = c->pool == PDT_POOL_ATTENTION,
      [HIDDEN] = c->speculation_hidden > 0,
      [ASKING] = c->note_query,
      [TRAINING] = true,
  };
  if (!present[when]) return PDT_NONE;
  return when == TRAINING ? PDT_OPTIONAL : PDT_REQUIRED;
}

static const pdt_tensor_table table = {rows, sizeof rows / sizeof *rows, size_of, need_of};

static pdt_tensor_list list_of(const pdt_sidecar_config *c) {
  return (pdt_tensor_list){&table, c, c->n_instrumented, c->instrumented};
}

int32_t pdt_sidecar_tensor_count(const pdt_sidecar_config *config) {
  const pdt_tensor_list list = list_of(config);
  return pdt_tensor_list_count(&list);
}

void pdt_sidecar_tensor_at(const pdt_sidecar_config *config, int32_t index,
                           pdt_wanted_tensor *out) {
  const pdt_tensor_list list = list_of(config);
  pdt_tensor_list_at(&list, index, out);
}

/* Of a group of tensors that come together: are they there? -1 when some are and some are not. */
static int has_group(const pdt_safetensors *file, const char *const *names, int n, bool *out,
                     pdt_error *err) {
  *out = pdt_safetensors_find(file, names[0]) != NULL;
  for (int i = 1; i < n; i++)
    if ((pdt_safetensors_find(file, names[i]) != NULL) != *out)
      return pdt_fail(err, PDT_ERROR_INPUT, "%s: tensor '%s' is missing, though '%s' is there",
                      file->path, names[*out ? i : 0], names[*out ? 0 : i]);
  return 0;
}

/* The hidden layer of the speculation head: its width is what its bias has. */
static int find_hidden(pdt_sidecar_config *config, const pdt_safetensors *file, pdt_error *err) {
  static const char *const names[] = {"speculation.hidden.bias", "speculation.hidden.weight",
                                      "speculation.out.weight"};
  bool present;
  if (has_group(file, names, 3, &present, err)) return -1;
  if (!present) return 0;
  const pdt_tensor *bias = pdt_safetensors_find(file, names[0]);
  if (bias->n_dims != 1 || bias->shape[0] < 1 || bias->shape[0] > 1 << 20) {
    char shape[160];
    pdt_shape_text(bias->n_dims, bias->shape, shape, sizeof shape);
    return pdt_fail(err, PDT_ERROR_INPUT,
                    "%s: tensor '%s': expected one dimension of 1 to 1048576, found %s", file->path,
                    names[0], shape);
  }
  config->speculation_hidden = (int32_t)bias->shape[0];
  return 0;
}

/* The columns of a matrix of the planner, at most `most`. */
static int count_columns(const pdt_safetensors *file, const pdt_tensor *tensor, int32_t most,
                         int32_t *out, pdt_error *err) {
  if (tensor->n_dims != 2 || tensor->shape[1] < 1 || tensor->shape[1] > most) {
    char shape[160];
    pdt_shape_text(tensor->n_dims, tensor->shape, shape, sizeof shape);
    return pdt_fail(err, PDT_ERROR_INPUT,
                    "%s: tensor '%s': expected two dimensions, the last of 1 to %d, found %s",
                    file->path, tensor->name, most, shape);
  }
  *out = (int32_t)tensor->shape[1];
  return 0;
}

/* The planner's places: as many as the tensor has columns. */
static int find_places(pdt_sidecar_config *config, const pdt_safetensors *file, pdt_error *err) {
  const pdt_tensor *places = pdt_safetensors_find(file, "planner.place.weight");
  return places ? count_columns(file, places, PDT_PLAN_PLACES, &config->plan_places, err) : 0;
}

/* What it marks, and the order of that. */
static int find_orders(pdt_sidecar_config *config, const pdt_safetensors *file, pdt_error *err) {
  static const char *const names[] = {"planner.order.weight", "planner.mark.weight",
                                      "planner.mark.bias"};
  bool present;
  if (has_group(file, names, 3, &present, err)) return -1;
  if (!present) return 0;
  return count_columns(file, pdt_safetensors_find(file, names[0]), PDT_PLAN_ORDERS,
                       &config->plan_orders, err);
}

static int check_tensors(const pdt_sidecar_config *config, const pdt_safetensors *file,
                         pdt_error *err) {
  static const char *const notes[] = {"notes.weight", "notes.bias"};
  static const char *const classifier[] = {"stream_classifier.weight", "stream_classifier.bias"};
  bool present;
  if (has_group(file, notes, 2, &present, err) || has_group(file, classifier, 2, &present, err))
    return -1;
  int32_t n = pdt_sidecar_tensor_count(config);
  for (int32_t i = 0; i < n; i++) {
    pdt_wanted_tensor want;
    pdt_sidecar_tensor_at(config, i, &want);
    const pdt_tensor *tensor = pdt_safetensors_find(file, want.name);
    if (!tensor && want.need == PDT_OPTIONAL) continue;
    if (!tensor)
      return pdt_fail(err, PDT_ERROR_INPUT, "%s: tensor '%s' is missing", file->path, want.name);
    if (pdt_tensor_expect(tensor, want.n_dims, want.shape, err)) return -1;
  }
  return 0;
}

int pdt_sidecar_config_load(pdt_sidecar_config *out, const pdt_safetensors *file,
                            const pdt_model_config *trunk, pdt_error *err) {
  *out = (pdt_sidecar_config){0};
  const char *text = pdt_safetensors_metadata(file, "config");
  if (!text)
    return pdt_fail(err, PDT_ERROR_INPUT,
                    "%s: expected '__metadata__' with a 'config', found none (hint: this is no "
                    "sidecar; see pdt sidecar init)",
                    file->path);
  char where[320];
  snprintf(where, sizeof where, "%.256s: config", file->path);
  if (pdt_sidecar_config_parse(out, text, where, trunk, err)) return -1;
  out->note_query = pdt_safetensors_find(file, "agree.note_query.weight") != NULL;
  if (find_hidden(out, file, err) || find_places(out, file, err) || find_orders(out, file, err) ||
      check_tensors(out, file, err)) {
    pdt_sidecar_config_free(out);
    return -1;
  }
  return 0;
}

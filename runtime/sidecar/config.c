#include "sidecar/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"

int32_t pdt_sidecar_pooled(const pdt_sidecar_config *config) {
  return config->pool == PDT_POOL_LAST ? config->hidden_size
                                       : config->pool_heads * config->pool_dim;
}

int32_t pdt_sidecar_snc_width(const pdt_sidecar_config *config) {
  return config->snc_heads * config->snc_head_dim;
}

double pdt_sidecar_layer_scale(const pdt_sidecar_config *config, int32_t at) {
  return config->layer_scales ? config->layer_scales[at] : 1;
}

int32_t pdt_sidecar_instrumented_index(const pdt_sidecar_config *config, pdt_layer layer) {
  for (int32_t i = 0; i < config->n_instrumented; i++)
    if (config->instrumented[i] == layer) return i;
  return -1;
}

int pdt_sidecar_config_copy(pdt_sidecar_config *out, const pdt_sidecar_config *config,
                            pdt_error *err) {
  size_t n = (size_t)config->n_instrumented;
  *out = *config;
  out->instrumented = NULL;
  out->layer_scales = NULL;
  out->trained = config->trained ? json_deep_copy(config->trained) : NULL;
  if (config->trained && !out->trained)
    return pdt_fail(err, PDT_ERROR_MEMORY, "sidecar's config: no memory");
  if (PDT_NEW(&out->instrumented, n, "instrumented layers", err)) return -1;
  if (n > 0) memcpy(out->instrumented, config->instrumented, n * sizeof *out->instrumented);
  if (!config->layer_scales) return 0;
  if (PDT_NEW(&out->layer_scales, n, "scales of layers", err)) return -1;
  memcpy(out->layer_scales, config->layer_scales, n * sizeof *out->layer_scales);
  return 0;
}

void pdt_sidecar_config_free(pdt_sidecar_config *config) {
  json_decref(config->trained);
  config->trained = NULL;
  free(config->instrumented);
  free(config->layer_scales);
  config->instrumented = NULL;
  config->layer_scales = NULL;
  config->n_instrumented = 0;
}

/* One size of the config: its key, the largest value, where it goes. */
typedef struct size_field {
  const char *key;
  int64_t high;
  size_t offset;
} size_field;

#define SIZE(name, high)                                                                           \
  { #name, high, offsetof(pdt_sidecar_config, name) }
#define DEFAULT(name)                                                                              \
  { #name, INT32_MAX, offsetof(pdt_sidecar_defaults, name) }

static const size_field sizes[] = {
    SIZE(hidden_size, 1 << 20), SIZE(streams, 4096),
    SIZE(notes_dim, 1 << 16),   SIZE(snc_heads, 1024),
    SIZE(snc_head_dim, 1024),   SIZE(adapter_dim, 1 << 16),
    SIZE(plan_slots, 4096),     SIZE(plan_vocab_size, 1 << 24),
    SIZE(plan_dim, 1 << 16),    SIZE(coverage_dim, 1 << 16),
    SIZE(agree_dim, 1 << 16),
};
static const size_field pool_sizes[] = {SIZE(pool_heads, 1024), SIZE(pool_dim, 1 << 14)};
static const size_field defaults[] = {DEFAULT(block_tokens), DEFAULT(reveal_delay), DEFAULT(window),
                                      DEFAULT(horizon)};
enum {
  N_SIZES = sizeof sizes / sizeof *sizes,
  N_POOL_SIZES = sizeof pool_sizes / sizeof *pool_sizes,
  N_DEFAULTS = sizeof defaults / sizeof *defaults,
};

static int32_t *field_of(void *base, const size_field *field) {
  return (int32_t *)(void *)((char *)base + field->offset);
}

static int parse_sizes(void *base, const json_t *object, const char *where,
                       const size_field *fields, int n, pdt_error *err) {
  for (int i = 0; i < n; i++) {
    int64_t value;
    if (pdt_json_integer(object, where, fields[i].key, 1, fields[i].high, &value, err)) return -1;
    *field_of(base, &fields[i]) = (int32_t)value;
  }
  return 0;
}

static int parse_format(const json_t *object, const char *where, pdt_error *err) {
  const char *format;
  int64_t version;
  if (pdt_json_string(object, where, "format", &format, err)) return -1;
  if (strcmp(format, "pdt-sidecar") != 0)
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: 'format': expected 'pdt-sidecar', found '%.80s'",
                    where, format);
  return pdt_json_integer(object, where, "version", 1, 1, &version, err);
}

/* A string that must be one of two: which of them. */
static int parse_choice(const json_t *object, const char *where, const char *key,
                        const char *const names[2], int *out, pdt_error *err) {
  const char *name;
  if (pdt_json_string(object, where, key, &name, err)) return -1;
  for (*out = 0; *out < 2; ++*out)
    if (strcmp(name, names[*out]) == 0) return 0;
  return pdt_fail(err, PDT_ERROR_INPUT, "%s: '%s': expected '%s' or '%s', found '%.80s'", where,
                  key, names[0], names[1], name);
}

static const char *const planner_names[2] = {
    [PDT_PLANNER_FULL] = "full", [PDT_PLANNER_TIED] = "tied"};
static const char *const pool_names[2] = {
    [PDT_POOL_LAST] = "last", [PDT_POOL_ATTENTION] = "attention"};

static int parse_kinds(pdt_sidecar_config *out, const json_t *object, const char *where,
                       pdt_error *err) {
  int planner, pool;
  const char *salt;
  if (parse_choice(object, where, "planner", planner_names, &planner, err) ||
      parse_choice(object, where, "pool", pool_names, &pool, err) ||
      pdt_json_string(object, where, "plan_hash_salt", &salt, err))
    return -1;
  out->planner = (pdt_planner)planner;
  out->pool = (pdt_pool)pool;
  if (strlen(salt) >= sizeof out->plan_hash_salt)
    return pdt_fail(err, PDT_ERROR_INPUT,
                    "%s: 'plan_hash_salt': expected at most %d bytes, found %zu", where,
                    PDT_SALT_BYTES - 1, strlen(salt));
  snprintf(out->plan_hash_salt, sizeof out->plan_hash_salt, "%s", salt);
  if (out->pool == PDT_POOL_LAST) return 0;
  return parse_sizes(out, object, where, pool_sizes, N_POOL_SIZES, err);
}

static int parse_layers(pdt_sidecar_config *out, const json_t *object, const char *where,
                        const pdt_model_config *trunk, pdt_error *err) {
  const json_t *list;
  const char *key = "instrumented_layers";
  if (pdt_json_array(object, where, key, &list, err)) return -1;
  size_t n = json_array_size(list);
  if (n < 1 || n > 4096)
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: '%s': expected 1 to 4096 layers, found %zu", where,
                    key, n);
  if (PDT_NEW(&out->instrumented, n, key, err)) return -1;
  char name[320];
  snprintf(name, sizeof name, "%.256s: %s", where, key);
  int64_t layer = -1, high = trunk ? trunk->layers - 1 : INT32_MAX;
  for (size_t i = 0; i < n; i++) {
    /* From the layer before plus one: ascending, each once. */
    if (pdt_json_element_integer(list, name, i, layer + 1, high, &layer, err)) return -1;
    out->instrumented[i] = (pdt_layer)layer;
  }
  out->n_instrumented = (int32_t)n;
  return 0;
}

/* Scales of the instrumented layers, if the file has them. */
static int parse_scales(pdt_sidecar_config *out, const json_t *object, const char *where,
                        pdt_error *err) {
  const char *key = "layer_scales";
  const json_t *list;
  size_t n = (size_t)out->n_instrumented;
  if (!json_object_get(object, key)) return 0;
  if (pdt_json_array(object, where, key, &list, err)) return -1;
  if (json_array_size(list) != n)
    return pdt_fail(err, PDT_ERROR_INPUT,
                    "%s: '%s': expected one for each of %zu instrumented layers, found %zu", where,
                    key, n, json_array_size(list));
  if (PDT_NEW(&out->layer_scales, n, key, err)) return -1;
  for (size_t i = 0; i < n; i++) {
    double value = json_number_value(json_array_get(list, i));
    if (!(value >= 1e-6 && value <= 1e6))
      return pdt_fail(err, PDT_ERROR_INPUT,
                      "%s: '%s': number %zu: expected a number from 1e-6 to 1e6", where, key, i);
    out->layer_scales[i] = value;
  }
  return 0;
}

static int parse_defaults(pdt_sidecar_defaults *out, const json_t *object, const char *where,
                          pdt_error *err) {
  const json_t *d;
  if (pdt_json_object(object, where, "defaults", &d, err)) return -1;
  char name[320];
  int64_t part = 0;
  snprintf(name, sizeof name, "%.256s: defaults", where);
  if (pdt_json_integer_or(d, name, "part_slots", 0, 1 << 16, &part, err)) return -1;
  out->part_slots = (int32_t)part;
  if (parse_sizes(out, d, name, defaults, N_DEFAULTS, err) ||
      pdt_json_real(d, name, "gamma", 0, 1, &out->gamma, err))
    return -1;
  if (out->horizon >= out->block_tokens) return 0;
  return pdt_fail(err, PDT_ERROR_INPUT,
                  "%s: 'horizon': expected at least block_tokens = %d, found %d", name,
                  out->block_tokens, out->horizon);
}

static int parse_trained(json_t **out, const json_t *object, const char *where, pdt_error *err) {
  const json_t *trained;
  char name[320];
  snprintf(name, sizeof name, "%.256s: trained", where);
  if (pdt_json_object_or(object, where, "trained", &trained, err)) return -1;
  if (!trained) return 0;
  if (pdt_trained_check(trained, name, err)) return -1;
  *out = json_deep_copy(trained);
  return *out ? 0 : pdt_fail(err, PDT_ERROR_MEMORY, "%s: no memory", name);
}

/* The layer behind which the pool reads, if the file names one. */
static int parse_pool_layer(pdt_sidecar_config *out, const json_t *object, const char *where,
                            const pdt_model_config *trunk, pdt_error *err) {
  int64_t layer, high = trunk ? trunk->layers - 1 : INT32_MAX - 1;
  if (!json_object_get(object, "pool_layer")) return 0;
  if (pdt_json_integer(object, where, "pool_layer", 0, high, &layer, err)) return -1;
  if (out->pool == PDT_POOL_LAST)
    return pdt_fail(err, PDT_ERROR_INPUT,
                    "%s: 'pool_layer': expected a pool of kind 'attention' with it, found 'last'",
                    where);
  out->pool_layers = (int32_t)layer + 1;
  return 0;
}

/* The pool heads that mix embeddings, if the file has some. */
static int parse_pool_copies(pdt_sidecar_config *out, const json_t *object, const char *where,
                             pdt_error *err) {
  int64_t copies;
  if (!json_object_get(object, "pool_copies")) return 0;
  if (out->pool == PDT_POOL_LAST)
    return pdt_fail(err, PDT_ERROR_INPUT,
                    "%s: 'pool_copies': expected a pool of kind 'attention' with it, found 'last'",
                    where);
  if (pdt_json_integer(object, where, "pool_copies", 0, out->pool_heads, &copies, err)) return -1;
  out->pool_copies = (int32_t)copies;
  return 0;
}

/* The layer behind which the planner marks tokens and reads them in order: the first, unless the
 * file names one. */
static int parse_plan_layer(pdt_sidecar_config *out, const json_t *object, const char *where,
                            const pdt_model_config *trunk, pdt_error *err) {
  int64_t layer, high = trunk ? trunk->layers - 1 : INT32_MAX - 1;
  if (!json_object_get(object, "plan_layer")) return 0;
  if (pdt_json_integer(object, where, "plan_layer", 0, high, &layer, err)) return -1;
  out->plan_layer = (int32_t)layer;
  return 0;
}

static int parse_object(pdt_sidecar_config *out, const json_t *object, const char *where,
                        const pdt_model_config *trunk, pdt_error *err) {
  if (pdt_json_expect_object(object, where, err) || parse_format(object, where, err) ||
      parse_sizes(out, object, where, sizes, N_SIZES, err))
    return -1;
  if (trunk && out->hidden_size != trunk->hidden_size)
    return pdt_fail(err, PDT_ERROR_INPUT,
                    "%s: 'hidden_size': expected the model's %d, found %d (hint: this sidecar was "
                    "made for another model)",
                    where, trunk->hidden_size, out->hidden_size);
  if (parse_kinds(out, object, where, err) || parse_layers(out, object, where, trunk, err) ||
      parse_scales(out, object, where, err) || parse_pool_layer(out, object, where, trunk, err) ||
      parse_pool_copies(out, object, where, err) ||
      parse_plan_layer(out, object, where, trunk, err))
    return -1;
  return parse_defaults(&out->defaults, object, where, err) ||
                 parse_trained(&out->trained, object, where, err)
             ? -1
             : 0;
}

int pdt_sidecar_config_parse(pdt_sidecar_config *out, const char *text, const char *where,
                             const pdt_model_config *trunk, pdt_error *err) {
  *out = (pdt_sidecar_config){0};
  json_t *object;
  if (pdt_json_parse(&object, text, strlen(text), where, err)) return -1;
  int rc = parse_object(out, object, where, trunk, err);
  json_decref(object);
  if (rc) {
    pdt_sidecar_config_free(out);
    *out = (pdt_sidecar_config){0};
  }
  return rc;
}

static int put_sizes(json_t *object, const void *base, const size_field *fields, int n) {
  for (int i = 0; i < n; i++) {
    int32_t value = *(const int32_t *)(const void *)((const char *)base + fields[i].offset);
    if (json_object_set_new(object, fields[i].key, json_integer(value))) return -1;
  }
  return 0;
}

static int put_scales(json_t *object, const pdt_sidecar_config *config) {
  if (!config->layer_scales) return 0;
  json_t *list = json_array();
  for (int32_t i = 0; i < config->n_instrumented; i++)
    json_array_append_new(list, json_real(config->layer_scales[i]));
  return json_object_set_new(object, "layer_scales", list);
}

char *pdt_sidecar_config_text(const pdt_sidecar_config *config) {
  const pdt_sidecar_defaults *d = &config->defaults;
  json_t *layers = json_array(), *object;
  for (int32_t i = 0; i < config->n_instrumented; i++)
    json_array_append_new(layers, json_integer(config->instrumented[i]));
  object = json_pack("{s:s, s:i, s:o, s:s, s:s, s:s, s:{s:f}}", "format", "pdt-sidecar", "version",
                     1, "instrumented_layers", layers, "planner", planner_names[config->planner],
                     "pool", pool_names[config->pool], "plan_hash_salt", config->plan_hash_salt,
                     "defaults", "gamma", d->gamma);
  char *text = NULL;
  if (object && !put_sizes(object, config, sizes, N_SIZES) &&
      !put_sizes(object, config, pool_sizes, N_POOL_SIZES) &&
      !put_sizes(json_object_get(object, "defaults"), d, defaults, N_DEFAULTS) &&
      (d->part_slots == 0 || !json_object_set_new(json_object_get(object, "defaults"), "part_slots",
                                                  json_integer(d->part_slots))) &&
      json_array_size(layers) == (size_t)config->n_instrumented && !put_scales(object, config) &&
      (config->pool_layers == 0 ||
       !json_object_set_new(object, "pool_layer", json_integer(config->pool_layers - 1))) &&
      (config->pool_copies == 0 ||
       !json_object_set_new(object, "pool_copies", json_integer(config->pool_copies))) &&
      (config->plan_orders == 0 ||
       !json_object_set_new(object, "plan_layer", json_integer(config->plan_layer))) &&
      (!config->trained || !json_object_set(object, "trained", config->trained)))
    text = json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(17));
  json_decref(object);
  return text;
}

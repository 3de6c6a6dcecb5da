#include "model/window.h"

#include <string.h>

#include "base/json.h"

enum { DEFAULT_WINDOW = 4096, DEFAULT_FULL_LAYERS = 28 };

/* Is the key there, with null? Elsewhere null is as good as nothing; for a window it means none. */
static bool is_null(const json_t *config, const char *key) {
  return json_is_null(json_object_get(config, key));
}

/* Does the config have a window at all? If not, *why_not says so, to stand behind "because". */
static int has_window(const pdt_model_config *c, const json_t *config, const char *where, bool *has,
                      const char **why_not, pdt_error *err) {
  bool use = c->family != PDT_FAMILY_LLAMA;
  *why_not = "models of type llama have none";
  if (c->family == PDT_FAMILY_QWEN2 || c->family == PDT_FAMILY_QWEN3) {
    use = false; /* the family's default */
    *why_not = "'use_sliding_window' is not true";
    if (pdt_json_bool_or(config, where, "use_sliding_window", &use, err)) return -1;
  }
  if (use && is_null(config, "sliding_window")) {
    use = false;
    *why_not = "'sliding_window' is null";
  }
  *has = use;
  return 0;
}

static void set_slides(pdt_model_config *out, pdt_layer layer) {
  out->slides[layer / 8] |= (uint8_t)(1 << layer % 8);
}

/* The layers that a list names. why_not: NULL when there is a window for them. */
static int slides_by_list(pdt_model_config *out, const json_t *types, const char *where,
                          const char *why_not, pdt_error *err) {
  if (json_array_size(types) != (size_t)out->layers)
    return pdt_fail(err, PDT_ERROR_INPUT,
                    "%s: 'layer_types': expected a type for each of num_hidden_layers = %d layers, "
                    "found %zu",
                    where, out->layers, json_array_size(types));
  for (pdt_layer l = 0; l < out->layers; l++) {
    const json_t *value = json_array_get(types, (size_t)l);
    const char *type = json_string_value(value);
    bool slides = type && strcmp(type, "sliding_attention") == 0;
    /* "attention" is what transformers once called it. */
    bool full = type && (strcmp(type, "full_attention") == 0 || strcmp(type, "attention") == 0);
    if (!slides && !full)
      return pdt_fail(err, PDT_ERROR_INPUT,
                      "%s: layer_types: '[%d]': expected 'full_attention' or 'sliding_attention', "
                      "found %s%.80s%s",
                      where, l, type ? "'" : "", type ? type : pdt_json_type_name(value),
                      type ? "'" : "");
    if (slides && why_not)
      return pdt_fail(err, PDT_ERROR_INPUT,
                      "%s: layer_types: '[%d]': found 'sliding_attention', but there is no window, "
                      "because %s",
                      where, l, why_not);
    if (slides) set_slides(out, l);
  }
  return 0;
}

/* The layers of a config without a list. */
static int slides_by_family(pdt_model_config *out, const json_t *config, const char *where,
                            pdt_error *err) {
  int64_t first = 0;
  if (out->family != PDT_FAMILY_MISTRAL) {
    first = DEFAULT_FULL_LAYERS;
    if (pdt_json_integer_or(config, where, "max_window_layers", INT64_MIN, INT64_MAX, &first, err))
      return -1;
  }
  for (pdt_layer l = 0; l < out->layers; l++)
    if (l >= first) set_slides(out, l);
  return 0;
}

static bool any_slides(const pdt_model_config *c) {
  for (pdt_layer l = 0; l < c->layers; l++)
    if (c->slides[l / 8] >> l % 8 & 1) return true;
  return false;
}

/* What a family does not read, and its user may think it does. */
static void notice_unread(const pdt_model_config *c, const json_t *config, const char *where,
                          pdt_notices *notices) {
  const json_t *window = pdt_json_get(config, "sliding_window");
  if (c->family == PDT_FAMILY_LLAMA && json_is_integer(window) &&
      json_integer_value(window) < c->max_positions)
    pdt_notice(notices, PDT_NOTICE_WARNING,
               "%.200s: 'sliding_window': models of type llama have no window: it is ignored",
               where);
  if (c->family == PDT_FAMILY_MISTRAL && c->window &&
      json_is_false(json_object_get(config, "use_sliding_window")))
    pdt_notice(notices, PDT_NOTICE_WARNING,
               "%.200s: 'use_sliding_window': models of type mistral have no such key: the window "
               "of %d tokens counts (null in 'sliding_window' turns it off)",
               where, c->window);
}

int pdt_model_windows_parse(pdt_model_config *out, const json_t *config, const char *where,
                            pdt_notices *notices, pdt_error *err) {
  const json_t *types;
  const char *why_not;
  bool has;
  int64_t window = DEFAULT_WINDOW;
  out->window = 0;
  memset(out->slides, 0, sizeof out->slides);
  if (has_window(out, config, where, &has, &why_not, err) ||
      pdt_json_array_or(config, where, "layer_types", &types, err))
    return -1;
  if (types ? slides_by_list(out, types, where, has ? NULL : why_not, err)
            : has && slides_by_family(out, config, where, err))
    return -1;
  if (any_slides(out)) {
    if (pdt_json_integer_or(config, where, "sliding_window", 1, INT64_MAX, &window, err)) return -1;
    out->window = window < INT32_MAX ? (int32_t)window : INT32_MAX;
    if (!json_object_get(config, "sliding_window") && out->window < out->max_positions)
      pdt_notice(notices, PDT_NOTICE_DETAIL,
                 "%.200s: 'sliding_window' is missing: %d, the default of %s, is taken", where,
                 out->window, pdt_family_name(out->family));
  }
  notice_unread(out, config, where, notices);
  return 0;
}

int32_t pdt_model_window(const pdt_model_config *config, pdt_layer layer) {
  return config->slides[layer / 8] >> layer % 8 & 1 ? config->window : 0;
}

/* Sliding windows in config.json: which layers slide, and how far they reach, as transformers 5
 * decides it from the same keys (tests/hf_families.py compares what is computed); what it cannot
 * compute is refused by name. */
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "model/config.h"
#include "model/preset.h"
#include "model/window.h"

enum { LAYERS = 4, POSITIONS = 9000 };

/* Parses keys, written without the braces, for a model of LAYERS layers. Status of the parser. */
static int parse(pdt_family family, const char *keys, pdt_model_config *c, pdt_notices *notices,
                 pdt_error *err) {
  char text[1024];
  snprintf(text, sizeof text, "{%s}", keys);
  json_t *config = json_loads(text, 0, NULL);
  assert_non_null(config);
  memset(c, 0xff, sizeof *c); /* what was there does not matter */
  c->family = family;
  c->layers = LAYERS;
  c->max_positions = POSITIONS;
  int status = pdt_model_windows_parse(c, config, "config.json", notices, err);
  json_decref(config);
  return status;
}

typedef struct good_config {
  pdt_family family;
  const char *keys;
  int32_t windows[LAYERS];
} good_config;

#define MISTRAL           PDT_FAMILY_MISTRAL
#define QWEN2             PDT_FAMILY_QWEN2
#define QWEN3             PDT_FAMILY_QWEN3
#define LLAMA             PDT_FAMILY_LLAMA
#define USE               "\"use_sliding_window\":true,"
#define TYPES(a, b, c, d) "\"layer_types\":[\"" #a "\",\"" #b "\",\"" #c "\",\"" #d "\"]"
#define MIXED             TYPES(sliding_attention, full_attention, full_attention, sliding_attention)
#define ALL_FULL          TYPES(full_attention, full_attention, full_attention, full_attention)
#define ALL_SLIDE         TYPES(sliding_attention, sliding_attention, sliding_attention, sliding_attention)

static const good_config good_configs[] = {
    {MISTRAL, "", {4096, 4096, 4096, 4096}},
    {MISTRAL, "\"sliding_window\":null", {0}},
    {MISTRAL, "\"sliding_window\":5", {5, 5, 5, 5}},
    {MISTRAL, "\"sliding_window\":1", {1, 1, 1, 1}},
    {MISTRAL, "\"sliding_window\":131072", {131072, 131072, 131072, 131072}},
    {MISTRAL, "\"sliding_window\":99999999999", {INT32_MAX, INT32_MAX, INT32_MAX, INT32_MAX}},
    {MISTRAL, "\"sliding_window\":5,\"layer_types\":null", {5, 5, 5, 5}},
    {MISTRAL, "\"sliding_window\":5,\"max_window_layers\":2", {5, 5, 5, 5}},
    {MISTRAL, "\"sliding_window\":5,\"use_sliding_window\":false", {5, 5, 5, 5}},
    {MISTRAL, "\"sliding_window\":5," MIXED, {5, 0, 0, 5}},
    {MISTRAL, MIXED, {4096, 0, 0, 4096}},
    {MISTRAL, "\"sliding_window\":5," ALL_FULL, {0}},
    {MISTRAL, "\"sliding_window\":null," ALL_FULL, {0}},
    {QWEN2, "", {0}},
    {QWEN2, "\"sliding_window\":5", {0}},
    {QWEN2, "\"use_sliding_window\":false,\"sliding_window\":5,\"max_window_layers\":0", {0}},
    {QWEN2, "\"use_sliding_window\":false,\"sliding_window\":0,\"max_window_layers\":0", {0}},
    {QWEN2, "\"use_sliding_window\":false,\"sliding_window\":\"x\"," ALL_FULL, {0}},
    {QWEN2, "\"use_sliding_window\":null,\"sliding_window\":5,\"max_window_layers\":0", {0}},
    {QWEN2, USE "\"sliding_window\":5", {0}}, /* from layer 28 on */
    {QWEN2, USE "\"sliding_window\":5,\"max_window_layers\":null", {0}},
    {QWEN2, USE "\"sliding_window\":0", {0}},
    {QWEN2, USE "\"sliding_window\":5,\"max_window_layers\":4", {0}},
    {QWEN2, USE "\"sliding_window\":5,\"max_window_layers\":3", {0, 0, 0, 5}},
    {QWEN2, USE "\"sliding_window\":5,\"max_window_layers\":1", {0, 5, 5, 5}},
    {QWEN2, USE "\"sliding_window\":5,\"max_window_layers\":0", {5, 5, 5, 5}},
    {QWEN2, USE "\"sliding_window\":5,\"max_window_layers\":-3", {5, 5, 5, 5}},
    {QWEN2, USE "\"max_window_layers\":2", {0, 0, 4096, 4096}},
    {QWEN2, USE "\"sliding_window\":null,\"max_window_layers\":0", {0}},
    {QWEN2, USE "\"sliding_window\":5,\"max_window_layers\":0," MIXED, {5, 0, 0, 5}},
    {QWEN2, USE "\"sliding_window\":5,\"max_window_layers\":0," ALL_FULL, {0}},
    {QWEN2, USE "\"sliding_window\":5," ALL_SLIDE, {5, 5, 5, 5}},
    {QWEN2, USE "\"sliding_window\":null," ALL_FULL, {0}},
    {QWEN2,
     USE "\"sliding_window\":5," TYPES(attention, full_attention, sliding_attention, attention),
     {0, 0, 5, 0}},
    {QWEN3, USE "\"sliding_window\":5,\"max_window_layers\":2", {0, 0, 5, 5}},
    {QWEN3, USE "\"sliding_window\":5," MIXED, {5, 0, 0, 5}},
    {QWEN3, "\"sliding_window\":5,\"max_window_layers\":0", {0}},
    {LLAMA, "", {0}},
    {LLAMA, "\"sliding_window\":5", {0}},
    {LLAMA, USE "\"sliding_window\":5,\"max_window_layers\":0", {0}},
    {LLAMA, "\"sliding_window\":5," ALL_FULL, {0}},
};

static void layers_and_lengths(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof good_configs / sizeof *good_configs; i++) {
    const good_config *g = &good_configs[i];
    pdt_model_config c;
    pdt_error err = {0};
    if (parse(g->family, g->keys, &c, NULL, &err)) fail_msg("%s: %s", g->keys, err.message);
    bool any = false;
    for (pdt_layer l = 0; l < LAYERS; l++) {
      any = any || g->windows[l];
      if (pdt_model_window(&c, l) != g->windows[l])
        fail_msg("%s %s: layer %d: %d, expected %d", pdt_family_name(g->family), g->keys, l,
                 pdt_model_window(&c, l), g->windows[l]);
    }
    assert_int_equal(c.window != 0, any);
  }
}

static void many_layers(void **state) {
  (void)state;
  pdt_model_config c = {.family = QWEN2, .layers = PDT_MAX_LAYERS, .max_positions = POSITIONS};
  pdt_error err = {0};
  json_t *config = json_pack("{s:b, s:i}", "use_sliding_window", 1, "sliding_window", 7);
  assert_int_equal(pdt_model_windows_parse(&c, config, "config.json", NULL, &err), 0);
  for (pdt_layer l = 0; l < PDT_MAX_LAYERS; l++)
    assert_int_equal(pdt_model_window(&c, l), l >= 28 ? 7 : 0);
  json_decref(config);
}

typedef struct bad_config {
  pdt_family family;
  const char *keys, *fragment;
} bad_config;

static const bad_config bad_configs[] = {
    {MISTRAL, "\"sliding_window\":0", "'sliding_window': expected an integer from 1"},
    {MISTRAL, "\"sliding_window\":-1", "found -1"},
    {MISTRAL, "\"sliding_window\":\"5\"", "'sliding_window'"},
    {MISTRAL, "\"sliding_window\":false", "'sliding_window'"},
    {MISTRAL, "\"sliding_window\":5.5", "'sliding_window'"},
    {MISTRAL, "\"sliding_window\":null," MIXED,
     "layer_types: '[0]': found 'sliding_attention', but there is no window, because "
     "'sliding_window' is null"},
    {MISTRAL, "\"layer_types\":[\"full_attention\"]",
     "'layer_types': expected a type for each of num_hidden_layers = 4 layers, found 1"},
    {MISTRAL, "\"layer_types\":[]", "found 0"},
    {MISTRAL, "\"layer_types\":\"sliding_attention\"", "'layer_types': expected an array"},
    {MISTRAL, TYPES(full_attention, full_attention, full_attention, chunked_attention),
     "layer_types: '[3]': expected 'full_attention' or 'sliding_attention', found "
     "'chunked_attention'"},
    {QWEN2, "\"layer_types\":[\"full_attention\",null,\"full_attention\",\"full_attention\"]",
     "layer_types: '[1]': expected 'full_attention' or 'sliding_attention', found null"},
    {QWEN2, MIXED, "because 'use_sliding_window' is not true"},
    {QWEN2, "\"use_sliding_window\":false,\"sliding_window\":5," ALL_SLIDE,
     "because 'use_sliding_window' is not true"},
    {QWEN2, USE "\"sliding_window\":null," ALL_SLIDE, "because 'sliding_window' is null"},
    {QWEN2, USE TYPES(linear_attention, full_attention, full_attention, full_attention),
     "found 'linear_attention'"},
    {QWEN2, USE "\"sliding_window\":0,\"max_window_layers\":3", "'sliding_window'"},
    {QWEN2, USE "\"max_window_layers\":\"3\"", "'max_window_layers'"},
    {QWEN2, "\"use_sliding_window\":1", "'use_sliding_window': expected true or false"},
    {QWEN3, ALL_SLIDE, "because 'use_sliding_window' is not true"},
    {LLAMA, "\"sliding_window\":5," ALL_SLIDE, "because models of type llama have none"},
    {LLAMA, "\"layer_types\":[\"full_attention\"]", "found 1"},
    {LLAMA, TYPES(foo, full_attention, full_attention, full_attention), "found 'foo'"},
};

static void refused_by_name(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof bad_configs / sizeof *bad_configs; i++) {
    const bad_config *b = &bad_configs[i];
    pdt_model_config c;
    pdt_error err = {0};
    if (!parse(b->family, b->keys, &c, NULL, &err) || err.code != PDT_ERROR_INPUT)
      fail_msg("%s was taken", b->keys);
    if (!strstr(err.message, b->fragment) || !strstr(err.message, "config.json"))
      fail_msg("%s: '%s' is not in '%s'", b->keys, b->fragment, err.message);
  }
}

static void noticed(void **state) {
  (void)state;
  static const struct {
    pdt_family family;
    const char *keys, *fragment; /* NULL: nothing is said */
    pdt_notice_kind kind;
  } cases[] = {
      {MISTRAL, "", "'sliding_window' is missing: 4096, the default of mistral, is taken",
       PDT_NOTICE_DETAIL},
      {QWEN3, USE "\"max_window_layers\":1", "the default of qwen3", PDT_NOTICE_DETAIL},
      {QWEN3, USE, NULL, 0},
      {MISTRAL, "\"sliding_window\":4096", NULL, 0},
      {MISTRAL, "\"sliding_window\":null", NULL, 0},
      {MISTRAL, "\"sliding_window\":5,\"use_sliding_window\":false", "the window of 5 tokens",
       PDT_NOTICE_WARNING},
      {MISTRAL, "\"sliding_window\":null,\"use_sliding_window\":false", NULL, 0},
      {LLAMA, "\"sliding_window\":5", "it is ignored", PDT_NOTICE_WARNING},
      {LLAMA, "\"sliding_window\":9000", NULL, 0},
      {LLAMA, "\"sliding_window\":null", NULL, 0},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    pdt_model_config c;
    pdt_notices notices = {0};
    pdt_error err = {0};
    char keys[256]; /* USE ends in a comma */
    snprintf(keys, sizeof keys, "%s%s", cases[i].keys,
             cases[i].keys[0] && cases[i].keys[strlen(cases[i].keys) - 1] == ',' ? "\"x\":0" : "");
    if (parse(cases[i].family, keys, &c, &notices, &err)) fail_msg("%s: %s", keys, err.message);
    assert_int_equal(notices.n, cases[i].fragment != NULL);
    if (!cases[i].fragment) continue;
    assert_int_equal(notices.kept[0].kind, cases[i].kind);
    if (!strstr(notices.kept[0].text, cases[i].fragment)) fail_msg("%s", notices.kept[0].text);
  }
}

/* The preset is of a version without a window. */
static void mistral_preset(void **state) {
  (void)state;
  char *text;
  pdt_error err = {0};
  pdt_model_config c;
  assert_int_equal(pdt_model_preset("mistral-7b", &text, &err), 0);
  json_t *config = json_loads(text, 0, NULL);
  assert_non_null(config);
  c.family = MISTRAL, c.layers = 32, c.max_positions = 32768;
  assert_int_equal(pdt_model_windows_parse(&c, config, "preset", NULL, &err), 0);
  assert_int_equal(c.window, 0);
  json_decref(config);
  free(text);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(layers_and_lengths), cmocka_unit_test(many_layers),
      cmocka_unit_test(refused_by_name),    cmocka_unit_test(noticed),
      cmocka_unit_test(mistral_preset),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

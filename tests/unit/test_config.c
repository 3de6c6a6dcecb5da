/* config.json: what each family says is understood, what cannot be computed is refused by name; the
 * tensors a config asks for. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/json.h"
#include "model/config.h"
#include "model/preset.h"
#include "model/tensors.h"
#include "scratch.h"

static const char base_text[] =
    "{\"model_type\":\"llama\",\"architectures\":[\"LlamaForCausalLM\"],\"hidden_size\":64,"
    "\"intermediate_size\":160,\"num_hidden_layers\":2,\"num_attention_heads\":8,"
    "\"num_key_value_heads\":4,\"vocab_size\":300,\"max_position_embeddings\":512,"
    "\"rms_norm_eps\":1e-5,\"hidden_act\":\"silu\",\"bos_token_id\":256,\"eos_token_id\":257}";

/* The base config with the keys of `changes`, a JSON object, put over it; "remove" drops one. */
static json_t *changed(const char *changes) {
  json_t *config = json_loads(base_text, 0, NULL), *over = json_loads(changes, 0, NULL);
  assert_non_null(config);
  assert_non_null(over);
  const char *removed = json_string_value(json_object_get(over, "remove"));
  if (removed) assert_int_equal(json_object_del(config, removed), 0);
  json_object_del(over, "remove");
  assert_int_equal(json_object_update(config, over), 0);
  json_decref(over);
  return config;
}

static pdt_model_config good(const char *changes) {
  json_t *config = changed(changes);
  pdt_model_config c;
  pdt_error err = {0};
  if (pdt_model_config_parse(&c, config, NULL, "c", NULL, &err))
    fail_msg("%s: %s", changes, err.message);
  json_decref(config);
  return c;
}

typedef struct bad_config {
  const char *changes, *fragment;
} bad_config;

static const bad_config bad_configs[] = {
    {"{\"model_type\":\"gpt2\"}", "'model_type': expected llama"},
    {"{\"model_type\":\"smollm3\",\"architectures\":null}", "found 'smollm3'"},
    {"{\"architectures\":[\"GPT2LMHeadModel\"]}", "found 'GPT2LMHeadModel'"},
    {"{\"architectures\":[\"MistralForCausalLM\"]}", "is not of model type 'llama'"},
    {"{\"architectures\":[7]}", "'architectures'"},
    {"{\"architectures\":null,\"model_type\":null}", "found neither"},
    {"{\"remove\":\"hidden_size\"}", "'hidden_size': expected an integer"},
    {"{\"remove\":\"intermediate_size\"}", "'intermediate_size'"},
    {"{\"remove\":\"num_hidden_layers\"}", "'num_hidden_layers'"},
    {"{\"remove\":\"num_attention_heads\"}", "'num_attention_heads'"},
    {"{\"remove\":\"vocab_size\"}", "'vocab_size'"},
    {"{\"remove\":\"max_position_embeddings\"}", "'max_position_embeddings'"},
    {"{\"hidden_size\":0}", "found 0"},
    {"{\"hidden_size\":-64}", "found -64"},
    {"{\"hidden_size\":64.0}", "found 64"},
    {"{\"hidden_size\":\"64\"}", "found '64'"},
    {"{\"hidden_size\":99999999999}", "found 99999999999"},
    {"{\"num_hidden_layers\":1000000}", "found 1000000"},
    {"{\"num_key_value_heads\":3}", "a divisor of num_attention_heads"},
    {"{\"num_attention_heads\":12,\"num_key_value_heads\":12}", "a divisor of hidden_size"},
    {"{\"head_dim\":7}", "even number"},
    {"{\"head_dim\":2000}", "'head_dim'"},
    {"{\"rms_norm_eps\":0}", "'rms_norm_eps'"},
    {"{\"rms_norm_eps\":-1e-5}", "'rms_norm_eps'"},
    {"{\"hidden_act\":\"gelu\"}", "'hidden_act': expected 'silu', found 'gelu'"},
    {"{\"tie_word_embeddings\":1}", "'tie_word_embeddings': expected true or false"},
    {"{\"eos_token_id\":300}", "'eos_token_id'"},
    {"{\"eos_token_id\":[1,-1]}", "eos_token_id: '[1]'"},
    {"{\"eos_token_id\":\"2\"}", "'eos_token_id'"},
    {"{\"bos_token_id\":300}", "'bos_token_id'"},
    {"{\"rope_theta\":0}", "'rope_theta'"},
    {"{\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4}}", "found 'yarn'"},
    {"{\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":4}}", "found 'dynamic'"},
    {"{\"rope_scaling\":{\"type\":\"linear\",\"factor\":4}}", "found 'linear'"},
    {"{\"rope_scaling\":{\"factor\":4}}", "'rope_type'"},
    {"{\"rope_scaling\":7}", "'rope_scaling': expected an object"},
    {"{\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"default\"}}}", "'rope_type'"},
    {"{\"rope_parameters\":{\"rope_type\":\"longrope\"}}", "found 'longrope'"},
    {"{\"rope_scaling\":{\"rope_type\":\"llama3\"}}", "'factor'"},
    {"{\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,"
     "\"high_freq_factor\":4,\"original_max_position_embeddings\":32}}",
     "less than high_freq_factor"},
    {"{\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,"
     "\"high_freq_factor\":4}}",
     "'original_max_position_embeddings'"},
    {"{\"partial_rotary_factor\":0.5}", "'partial_rotary_factor'"},
    {"{\"rope_parameters\":{\"rope_theta\":1e4,\"partial_rotary_factor\":0.5}}",
     "'partial_rotary_factor'"},
    {"{\"layer_types\":[\"full_attention\",\"sliding_attention\"]}", "found 'sliding_attention'"},
    {"{\"layer_types\":[7]}", "'layer_types'"},
    {"{\"quantization_config\":{\"bits\":4}}", "'quantization_config'"},
    {"{\"no_rope_layers\":[1,0]}", "'no_rope_layers'"},
    {"{\"num_local_experts\":8}", "'num_local_experts'"},
};

static void test_bad_configs(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof bad_configs / sizeof *bad_configs; i++) {
    json_t *config = changed(bad_configs[i].changes);
    pdt_model_config c = {.layers = -7};
    pdt_error err = {0};
    if (!pdt_model_config_parse(&c, config, NULL, "c", NULL, &err) || err.code != PDT_ERROR_INPUT)
      fail_msg("%s was taken", bad_configs[i].changes);
    if (!strstr(err.message, bad_configs[i].fragment))
      fail_msg("%s: '%s' is not in '%s'", bad_configs[i].changes, bad_configs[i].fragment,
               err.message);
    assert_int_equal(c.layers, -7);
    json_decref(config);
  }
}

static void test_sizes(void **state) {
  (void)state;
  pdt_model_config c = good("{}");
  assert_int_equal(c.family, PDT_FAMILY_LLAMA);
  assert_int_equal(c.hidden_size, 64);
  assert_int_equal(c.intermediate_size, 160);
  assert_int_equal(c.layers, 2);
  assert_int_equal(c.heads, 8);
  assert_int_equal(c.kv_heads, 4);
  assert_int_equal(c.head_dim, 8);
  assert_int_equal(c.vocab_size, 300);
  assert_int_equal(c.max_positions, 512);
  assert_true(c.rms_norm_eps == 1e-5);
  assert_false(c.tie_word_embeddings);
  assert_int_equal(c.bos, 256);
  assert_int_equal(c.n_eos, 1);
  assert_true(pdt_model_is_eos(&c, 257));
  assert_false(pdt_model_is_eos(&c, 256));
  assert_int_equal(good("{\"head_dim\":16}").head_dim, 16);
  assert_int_equal(good("{\"head_dim\":null}").head_dim, 8);
  assert_int_equal(good("{\"remove\":\"num_key_value_heads\"}").kv_heads, 8);
  assert_int_equal(good("{\"bos_token_id\":null}").bos, -1);
  assert_int_equal(good("{\"eos_token_id\":null}").n_eos, 0);
  assert_true(good("{\"remove\":\"rms_norm_eps\"}").rms_norm_eps == 1e-6);
  assert_int_equal(good("{\"architectures\":null}").family, PDT_FAMILY_LLAMA);
  assert_int_equal(good("{\"remove\":\"model_type\"}").family, PDT_FAMILY_LLAMA);
  assert_int_equal(
      good("{\"model_type\":\"qwen3\",\"architectures\":[\"Qwen3ForCausalLM\"]}").family,
      PDT_FAMILY_QWEN3);
  assert_true(good("{\"attention_bias\":true,\"mlp_bias\":true}").mlp_bias);
  assert_false(good("{\"model_type\":\"qwen2\",\"architectures\":null,\"attention_bias\":true}")
                   .attention_bias);
  /* Of no consequence, and so taken. */
  good("{\"pretraining_tp\":2,\"sliding_window\":16,\"quantization_config\":null,"
       "\"partial_rotary_factor\":1.0,\"layer_types\":[\"full_attention\",\"full_attention\"]}");
  good("{\"model_type\":\"mistral\",\"architectures\":null,\"sliding_window\":null}");
  good("{\"model_type\":\"mistral\",\"architectures\":null,\"sliding_window\":512}");
  good("{\"model_type\":\"qwen2\",\"architectures\":null,\"use_sliding_window\":false,"
       "\"sliding_window\":16}");
  good("{\"model_type\":\"qwen2\",\"architectures\":null,\"use_sliding_window\":true,"
       "\"sliding_window\":16,\"max_window_layers\":2}");
}

static void test_eos_union(void **state) {
  (void)state;
  json_t *config = changed("{\"eos_token_id\":[9,4,9]}");
  json_t *generation = json_loads("{\"eos_token_id\":[7,4]}", 0, NULL);
  pdt_model_config c;
  pdt_error err = {0};
  assert_int_equal(pdt_model_config_parse(&c, config, generation, "c", NULL, &err), 0);
  assert_int_equal(c.n_eos, 3);
  assert_memory_equal(c.eos, ((pdt_token[]){4, 7, 9}), 3 * sizeof(pdt_token));
  json_decref(generation);
  generation = json_loads("{\"eos_token_id\":301}", 0, NULL);
  assert_int_equal(pdt_model_config_parse(&c, config, generation, "c", NULL, &err), -1);
  assert_non_null(strstr(err.message, "generation_config.json: 'eos_token_id'"));
  json_t *many = json_array();
  for (int i = 0; i <= PDT_MAX_EOS; i++) json_array_append_new(many, json_integer(i));
  json_object_set_new(config, "eos_token_id", many);
  assert_int_equal(pdt_model_config_parse(&c, config, NULL, "c", NULL, &err), -1);
  json_decref(generation);
  json_decref(config);
}

static void test_rope(void **state) {
  (void)state;
  /* As the executable specification computes them; pow() of the two may differ in the last bits. */
  static const struct {
    int at;
    double value;
  } llama3[] = {{0, 1.0},
                {13, 0.004839421345719893},
                {14, 0.003211445994752591},
                {15, 0.001290547928209264},
                {16, 0.00042955679655936817},
                {17, 9.70828780262767e-05},
                {18, 1.9461638184831125e-05},
                {31, 9.41830672543491e-08}};
  static const double plain[] = {1.0, 0.06309573444801932, 0.003981071705534971,
                                 0.00025118864315095806, 1.5848931924611124e-05};
  pdt_model_config c =
      good("{\"head_dim\":64,\"rope_theta\":500000.0,\"rope_scaling\":{\"rope_type\":\"llama3\","
           "\"factor\":32.0,\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,"
           "\"original_max_position_embeddings\":8192}}");
  double f[PDT_MAX_HEAD_DIM / 2];
  pdt_rope_inv_freq(&c, f);
  for (size_t i = 0; i < sizeof llama3 / sizeof *llama3; i++)
    assert_true(fabs(f[llama3[i].at] / llama3[i].value - 1) < 1e-14);
  pdt_model_config same =
      good("{\"head_dim\":64,\"rope_parameters\":{\"rope_theta\":500000,\"rope_type\":\"llama3\","
           "\"factor\":32,\"low_freq_factor\":1,\"high_freq_factor\":4},"
           "\"original_max_position_embeddings\":8192}");
  assert_memory_equal(&c.rope, &same.rope, sizeof c.rope);
  c = good("{\"head_dim\":10,\"rope_parameters\":{\"rope_theta\":1e6,\"rope_type\":\"default\"},"
           "\"rope_scaling\":{\"type\":\"yarn\"}}"); /* the newer spelling wins */
  pdt_rope_inv_freq(&c, f);
  for (int i = 0; i < 5; i++) assert_true(fabs(f[i] / plain[i] - 1) < 1e-14);
  assert_true(good("{}").rope.theta == 10000);
  assert_true(good("{\"rope_theta\":5e5,\"rope_scaling\":null}").rope.theta == 5e5);
  assert_true(good("{\"rope_theta\":5e5,\"rope_parameters\":{}}").rope.theta == 5e5);
  assert_true(good("{\"rope_parameters\":{\"rope_theta\":7e5}}").rope.theta == 7e5);
}

static void test_presets(void **state) {
  (void)state;
  pdt_error err = {0};
  int n = 0;
  for (const char *name; (name = pdt_model_preset_name(n)); n++) {
    char *text;
    json_t *config;
    pdt_model_config c;
    assert_int_equal(pdt_model_preset(name, &text, &err), 0);
    assert_int_equal(pdt_json_parse(&config, text, strlen(text), name, &err), 0);
    if (pdt_model_config_parse(&c, config, NULL, name, NULL, &err)) fail_msg("%s", err.message);
    json_decref(config);
    free(text);
  }
  assert_true(n >= 8);
  char *text;
  assert_int_equal(pdt_model_preset("no-such", &text, &err), -1);
  assert_int_equal(err.code, PDT_ERROR_USAGE);
  assert_non_null(strstr(err.message, "smollm2-135m"));
}

static void test_files(void **state) {
  scratch *s = *state;
  pdt_model_config c;
  pdt_error err = {0};
  assert_int_equal(pdt_model_config_load(&c, s->folder, NULL, &err), -1);
  assert_int_equal(err.code, PDT_ERROR_IO);
  scratch_text(s, "config.json", base_text);
  assert_int_equal(pdt_model_config_load(&c, s->folder, NULL, &err), 0);
  assert_int_equal(c.n_eos, 1);
  scratch_text(s, "generation_config.json", "{\"eos_token_id\":3}");
  assert_int_equal(pdt_model_config_load(&c, s->folder, NULL, &err), 0);
  assert_int_equal(c.n_eos, 2);
  scratch_text(s, "generation_config.json", "{");
  assert_int_equal(pdt_model_config_load(&c, s->folder, NULL, &err), -1);
  assert_non_null(strstr(err.message, "generation_config.json: line 1"));
  assert_int_equal(pdt_model_config_load_file(&c, scratch_path(s, "config.json"), NULL, &err), 0);
}

static int fill_ones(void *context, int32_t index, int64_t first, int64_t n_elems, void *chunk,
                     pdt_error *err) {
  (void)context, (void)index, (void)first, (void)err;
  for (int64_t i = 0; i < n_elems; i++) ((float *)chunk)[i] = 1;
  return 0;
}

/* Writes the config's tensors but `missing`, the optional ones whose names hold `optional` among
 * them, `wrong` with one column too many; then what the check says. */
static int check_with(scratch *s, const pdt_model_config *c, const char *optional,
                      const char *missing, const char *wrong, pdt_error *err) {
  enum { MOST = 64 };
  pdt_model_tensor names[MOST];
  pdt_tensor_spec specs[MOST];
  int32_t n = 0;
  assert_true(pdt_model_tensor_count(c) <= MOST);
  for (int32_t i = 0; i < pdt_model_tensor_count(c); i++) {
    pdt_model_tensor *t = &names[n];
    pdt_model_tensor_at(c, i, t);
    if (strcmp(t->name, missing) == 0) continue;
    if (t->need == PDT_OPTIONAL && !(*optional && strstr(t->name, optional))) continue;
    specs[n] = (pdt_tensor_spec){t->name, PDT_F32, t->n_dims, {t->shape[0], t->shape[1]}};
    if (strcmp(t->name, wrong) == 0) specs[n].shape[t->n_dims - 1]++;
    n++;
  }
  assert_int_equal(pdt_safetensors_write(scratch_path(s, "model.safetensors"), specs, n, NULL, 0,
                                         fill_ones, NULL, err),
                   0);
  pdt_checkpoint *checkpoint;
  assert_int_equal(pdt_checkpoint_open(&checkpoint, s->folder, NULL, err), 0);
  int rc = pdt_model_tensors_check(c, checkpoint, NULL, err);
  if (!rc) {
    const char *head = pdt_model_head(c, checkpoint)->name;
    bool has_head = pdt_checkpoint_find(checkpoint, PDT_TENSOR_HEAD);
    assert_string_equal(head, has_head && !c->tie_word_embeddings ? PDT_TENSOR_HEAD
                                                                  : PDT_TENSOR_EMBEDDING);
  }
  pdt_checkpoint_close(checkpoint);
  return rc;
}

static void test_tensors(void **state) {
  scratch *s = *state;
  pdt_error err = {0};
  pdt_model_config c = good("{}"), tied = good("{\"tie_word_embeddings\":true}");
  assert_int_equal(check_with(s, &c, "", "", "", &err), 0);
  assert_int_equal(check_with(s, &c, "lm_head", "", "", &err), 0);
  assert_int_equal(check_with(s, &tied, "lm_head", "", "", &err), 0);
  assert_int_equal(check_with(s, &c, ".bias", "", "", &err), 0);
  assert_int_equal(check_with(s, &c, "_norm.weight", "", "", &err), 0);
  for (int32_t i = 0; i < pdt_model_tensor_count(&c); i++) {
    pdt_model_tensor t;
    pdt_model_tensor_at(&c, i, &t);
    bool required = t.need == PDT_REQUIRED;
    bool qk_norm = strstr(t.name, "q_norm") || strstr(t.name, "k_norm");
    int rc = check_with(s, &c, "", t.name, "", &err);
    assert_int_equal(rc, required ? -1 : 0);
    if (required && !strstr(err.message, t.name)) fail_msg("%s: %s", t.name, err.message);
    rc = check_with(s, &c, qk_norm ? "_norm" : t.name, "", t.name, &err);
    assert_int_equal(rc, -1);
    if (!strstr(err.message, t.name)) fail_msg("%s: %s", t.name, err.message);
  }
  assert_int_equal(check_with(s, &c, "1.self_attn.q_norm", "", "", &err), -1);
  assert_non_null(strstr(err.message, "'model.layers.1.self_attn.k_norm.weight' is missing"));
  pdt_model_config biased = good("{\"attention_bias\":true}");
  assert_int_equal(check_with(s, &biased, "", "model.layers.1.self_attn.o_proj.bias", "", &err),
                   -1);
  assert_int_equal(check_with(s, &biased, "", "", "", &err), 0);
  biased = good("{\"mlp_bias\":true}");
  assert_int_equal(check_with(s, &biased, "", "model.layers.0.mlp.up_proj.bias", "", &err), -1);
}

#define SCRATCH(test) cmocka_unit_test_setup_teardown(test, scratch_setup, scratch_teardown)

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_bad_configs),
      cmocka_unit_test(test_sizes),
      cmocka_unit_test(test_eos_union),
      cmocka_unit_test(test_rope),
      cmocka_unit_test(test_presets),
      SCRATCH(test_files),
      SCRATCH(test_tensors),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

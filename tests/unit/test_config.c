/* config.json: what each family says is understood, what cannot be computed is refused by name; the
 * tensors a config asks for. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

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
  json_t *config = json_loads(base_text, 0, NULL), *over;
  pdt_error err;
  if (pdt_json_parse_python(&over, changes, strlen(changes), "changes", &err))
    fail_msg("%s: %s", changes, err.message);
  assert_non_null(config);
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
    {"{\"hidden_size\":0}", "found 0"},
    {"{\"hidden_size\":-64}", "found -64"},
    {"{\"hidden_size\":\"64\"}", "found '64'"},
    {"{\"hidden_size\":99999999999}", "found 99999999999"},
    {"{\"num_hidden_layers\":1000000}", "found 1000000"},
    {"{\"num_key_value_heads\":3}", "a divisor of num_attention_heads"},
    {"{\"num_attention_heads\":12,\"num_key_value_heads\":12}", "a divisor of hidden_size"},
    {"{\"head_dim\":7}", "even number"},
    {"{\"head_dim\":2000}", "'head_dim'"},
    {"{\"rms_norm_eps\":0}", "'rms_norm_eps'"},
    {"{\"rms_norm_eps\":-1e-5}", "'rms_norm_eps'"},
    {"{\"rms_norm_eps\":-1e999}",
     "'rms_norm_eps': expected a number from 1e-30 to 1, found -1e999"},
    {"{\"rms_norm_eps\":NaN}", "found NaN"},
    {"{\"hidden_size\":64.5}", "found 64.5"},
    {"{\"vocab_size\":18446744073709551616}", "found 18446744073709551616"},
    {"{\"model_type\":\"\\ud800llama\"}", "'model_type': expected a string, found"},
    {"{\"model_type\":\"mistral\",\"architectures\":null,\"num_attention_heads\":12,"
     "\"remove\":\"num_key_value_heads\"}",
     "found 8, the default of the family"},
    {"{\"model_type\":\"mistral\",\"architectures\":null,\"sliding_window\":null,"
     "\"num_attention_heads\":48,\"num_key_value_heads\":48}",
     "size of a head: expected an even number"},
    {"{\"embedding_multiplier\":12}", "'embedding_multiplier'"},
    {"{\"logits_scaling\":0.5}", "'logits_scaling'"},
    {"{\"num_experts\":1}", "'num_experts'"},
    {"{\"clip_qkv\":NaN}", "'clip_qkv'"},
    {"{\"is_causal\":false}", "'is_causal'"},
    {"{\"is_causal\":null}", "'is_causal'"},
    {"{\"use_qk_norm\":true}", "'use_qk_norm'"},
    {"{\"hidden_act\":\"gelu\"}", "'hidden_act': expected 'silu', found 'gelu'"},
    {"{\"tie_word_embeddings\":1}", "'tie_word_embeddings': expected true or false"},
    {"{\"eos_token_id\":300}", "'eos_token_id'"},
    {"{\"eos_token_id\":[1,-2]}", "eos_token_id: '[1]'"},
    {"{\"eos_token_id\":-2}", "'eos_token_id'"},
    {"{\"eos_token_id\":NaN}", "'eos_token_id': expected an integer from -1 to 299, found NaN"},
    {"{\"eos_token_id\":[1,1e999]}", "'[1]': expected an integer from -1 to 299, found 1e999"},
    {"{\"bos_token_id\":-2}", "'bos_token_id'"},
    {"{\"eos_token_id\":\"2\"}", "'eos_token_id'"},
    {"{\"bos_token_id\":300}", "'bos_token_id'"},
    {"{\"rope_theta\":0}", "'rope_theta'"},
    {"{\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":4}}", "found 'dynamic'"},
    {"{\"rope_scaling\":{\"factor\":4}}", "'rope_type'"},
    {"{\"rope_scaling\":7}", "'rope_scaling': expected an object"},
    {"{\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"default\"}}}",
     "'full_attention': rotary embedding that differs by kinds of layers"},
    {"{\"rope_scaling\":{\"rope_type\":\"nonsense\",\"factor\":4},"
     "\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":1e4}}",
     "c: rope_scaling: 'rope_type': expected 'default', 'linear', 'llama3' or 'yarn', found "
     "'nonsense'"},
    {"{\"rope_scaling\":{\"rope_type\":null,\"type\":\"linear\",\"factor\":4}}", "'rope_type'"},
    {"{\"rope_scaling\":\"yarn\"}", "'rope_scaling': expected an object, found 'yarn'"},
    {"{\"rope_scaling\":{\"type\":\"linear\"}}", "'factor'"},
    {"{\"rope_scaling\":{\"type\":\"linear\",\"factor\":null}}", "'factor'"},
    {"{\"rope_scaling\":{\"type\":\"linear\",\"factor\":0}}", "'factor'"},
    {"{\"rope_scaling\":{\"type\":\"linear\",\"factor\":Infinity}}", "found Infinity"},
    {"{\"rope_scaling\":{\"type\":\"yarn\"}}", "'factor'"},
    {"{\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4,\"attention_factor\":0}}",
     "'attention_factor'"},
    {"{\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4,\"beta_fast\":-1}}", "'beta_fast'"},
    {"{\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4},\"rope_theta\":1}", "'rope_theta'"},
    {"{\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4,\"truncate\":1}}", "'truncate'"},
    {"{\"original_max_position_embeddings\":0,\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4}}",
     "'original_max_position_embeddings'"},
    {"{\"rope_parameters\":{\"rope_type\":\"longrope\"}}", "found 'longrope'"},
    {"{\"rope_scaling\":{\"rope_type\":\"llama3\"}}", "'factor'"},
    {"{\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,"
     "\"high_freq_factor\":4,\"original_max_position_embeddings\":32}}",
     "less than high_freq_factor"},
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
  assert_int_equal(good("{\"bos_token_id\":-1}").bos, -1);
  assert_int_equal(good("{\"eos_token_id\":-1}").n_eos, 0);
  assert_int_equal(good("{\"eos_token_id\":[7,-1,5.0]}").n_eos, 2);
  assert_int_equal(good("{\"hidden_size\":64.0,\"head_dim\":1.6e1}").head_dim, 16);
  assert_int_equal(good("{\"architectures\":[\"LlamaModel\"]}").family, PDT_FAMILY_LLAMA);
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
       "\"layer_norm_eps\":1e-12,\"num_experts\":0,\"num_local_experts\":0.0,\"text_config\":{},"
       "\"logits_scaling\":1.0,\"embedding_multiplier\":1,\"residual_multiplier\":1.0,"
       "\"attention_multiplier\":1,\"logit_scale\":1,\"scale_emb\":1,\"alibi\":false,"
       "\"no_rope_layers\":[1,1],\"attn_logit_softcapping\":null,\"rope_scaling\":[],"
       "\"initializer_range\":NaN,\"huge\":1e999,\"id\":99999999999999999999,"
       "\"half\":\"\\ud800\",\"\\udfff\":-Infinity,\"hidden_size\":32,\"hidden_size\":64,"
       "\"partial_rotary_factor\":1.0,\"layer_types\":[\"full_attention\",\"full_attention\"]}");
  good("{\"model_type\":\"mistral\",\"architectures\":null,\"sliding_window\":null}");
  good("{\"model_type\":\"mistral\",\"architectures\":null,\"sliding_window\":512}");
  good("{\"model_type\":\"qwen2\",\"architectures\":null,\"use_sliding_window\":false,"
       "\"sliding_window\":16}");
  good("{\"model_type\":\"qwen2\",\"architectures\":null,\"use_sliding_window\":true,"
       "\"sliding_window\":16,\"max_window_layers\":2}");
}

/* What each family takes where the config says nothing, as transformers' classes do. */
static void test_family_defaults(void **state) {
  (void)state;
  static const struct {
    const char *name;
    int32_t intermediate, vocab, positions, kv_heads, head_dim;
  } wants[] = {{"llama", 11008, 32000, 2048, 32, 128},
               {"mistral", 14336, 32000, 131072, 8, 128},
               {"qwen2", 22016, 151936, 32768, 32, 128},
               {"qwen3", 22016, 151936, 32768, 32, 128}};
  for (size_t i = 0; i < sizeof wants / sizeof *wants; i++) {
    char text[128];
    json_t *config;
    pdt_model_config c;
    pdt_notices notices = {0};
    pdt_error err = {0};
    snprintf(text, sizeof text, "{\"model_type\":\"%s\",\"sliding_window\":null}", wants[i].name);
    assert_int_equal(pdt_json_parse(&config, text, strlen(text), "c", &err), 0);
    if (pdt_model_config_parse(&c, config, NULL, "c", &notices, &err))
      fail_msg("%s: %s", wants[i].name, err.message);
    assert_int_equal(c.hidden_size, 4096);
    assert_int_equal(c.intermediate_size, wants[i].intermediate);
    assert_int_equal(c.layers, 32);
    assert_int_equal(c.heads, 32);
    assert_int_equal(c.kv_heads, wants[i].kv_heads);
    assert_int_equal(c.head_dim, wants[i].head_dim);
    assert_int_equal(c.vocab_size, wants[i].vocab);
    assert_int_equal(c.max_positions, wants[i].positions);
    assert_true(c.rms_norm_eps == 1e-6 && c.rope.theta == 10000);
    assert_false(c.tie_word_embeddings);
    assert_int_equal(c.n_eos,
                     0); /* transformers generates to no end then, whatever the class has */
    assert_int_equal(c.bos, -1);
    assert_non_null(strstr(c.guessed, "hidden_size, intermediate_size"));
    assert_true(notices.n >= 10);
    for (int32_t n = 0; n < notices.n; n++)
      assert_int_equal(notices.kept[n].kind, PDT_NOTICE_DETAIL);
    json_decref(config);
  }
  assert_string_equal(good("{}").guessed, "");
  const char *qwen3 = "{\"model_type\":\"qwen3\",\"architectures\":null,\"head_dim\":null}";
  assert_int_equal(good(qwen3).head_dim, 128);
  /* null is one for each head; no key at all is the family's default. */
  const char *qwen2 = "{\"model_type\":\"qwen2\",\"architectures\":null,\"hidden_size\":128,"
                      "\"num_attention_heads\":64,%s}";
  char text[256];
  snprintf(text, sizeof text, qwen2, "\"num_key_value_heads\":null");
  assert_int_equal(good(text).kv_heads, 64);
  snprintf(text, sizeof text, qwen2, "\"remove\":\"num_key_value_heads\"");
  assert_int_equal(good(text).kv_heads, 32);
  /* What hidden_size leaves over, no head has. */
  snprintf(text, sizeof text, qwen2, "\"hidden_size\":130,\"num_key_value_heads\":null");
  assert_int_equal(good(text).head_dim, 2);
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
  pdt_rope_frequencies(&c.rope, c.head_dim, f);
  for (size_t i = 0; i < sizeof llama3 / sizeof *llama3; i++)
    assert_true(fabs(f[llama3[i].at] / llama3[i].value - 1) < 1e-14);
  pdt_model_config same =
      good("{\"head_dim\":64,\"rope_parameters\":{\"rope_theta\":500000,\"rope_type\":\"llama3\","
           "\"factor\":32,\"low_freq_factor\":1,\"high_freq_factor\":4},"
           "\"original_max_position_embeddings\":8192}");
  double again[PDT_MAX_HEAD_DIM / 2];
  pdt_rope_frequencies(&same.rope, same.head_dim, again);
  assert_memory_equal(f, again, 32 * sizeof *f);
  c = good("{\"head_dim\":10,\"rope_parameters\":{\"rope_theta\":1e6,\"rope_type\":\"default\"},"
           "\"rope_scaling\":{}}");
  pdt_rope_frequencies(&c.rope, c.head_dim, f);
  for (int i = 0; i < 5; i++) assert_true(fabs(f[i] / plain[i] - 1) < 1e-14);
  assert_true(good("{}").rope.theta == 10000);
  assert_true(good("{\"rope_theta\":5e5,\"rope_scaling\":null}").rope.theta == 5e5);
  assert_true(good("{\"rope_theta\":5e5,\"rope_parameters\":{}}").rope.theta == 5e5);
  assert_true(good("{\"rope_parameters\":{\"rope_theta\":7e5}}").rope.theta == 7e5);
}

typedef struct rope_case {
  const char *changes;
  double scale, f[4]; /* of heads of 8 */
} rope_case;

/* What transformers 5.24 has for these (rotary_emb.inv_freq and attention_scaling, in float32),
 * with max_position_embeddings of 512. */
static const rope_case rope_cases[] = {
    {"{\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":5e5},"
     "\"rope_scaling\":{\"type\":\"linear\",\"factor\":2}}",
     1,
     {0.5, 0.05, 0.005, 0.0005}}, /* rope_theta went with what lost */
    {"{\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":5e5},\"rope_theta\":7e5,"
     "\"rope_scaling\":{\"type\":\"linear\",\"factor\":2}}",
     1,
     {0.5, 0.017286, 0.000597614, 2.06608e-05}},
    {"{\"rope_parameters\":{\"rope_type\":\"default\"},\"rope_theta\":7e5}",
     1,
     {1, 0.0345721, 0.00119523, 4.13215e-05}},
    {"{\"rope_scaling\":{\"type\":\"linear\",\"factor\":1}}", 1, {1, 0.1, 0.01, 0.001}},
    {"{\"rope_scaling\":{\"type\":\"linear\",\"factor\":2,\"rope_type\":\"default\"}}",
     1,
     {1, 0.1, 0.01, 0.001}},
    {"{\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,"
     "\"high_freq_factor\":4}}",
     1,
     {1, 0.1, 0.00125, 0.000125}},
    {"{\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,"
     "\"high_freq_factor\":4,\"original_max_position_embeddings\":64},"
     "\"original_max_position_embeddings\":128}",
     1,
     {1, 0.0427512, 0.00125, 0.000125}},
    {"{\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4}}",
     1.138629436111989,
     {1, 0.0625, 0.0025, 0.00025}},
    {"{\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":null,"
     "\"original_max_position_embeddings\":128}}",
     1.138629436111989,
     {1, 0.0625, 0.0025, 0.00025}},
    {"{\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4,\"truncate\":false,"
     "\"original_max_position_embeddings\":128}}",
     1.138629436111989,
     {1, 0.0427057, 0.0025, 0.00025}},
    {"{\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4,\"truncate\":null,"
     "\"original_max_position_embeddings\":128}}",
     1.138629436111989,
     {1, 0.0427057, 0.0025, 0.00025}},
    {"{\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4,\"mscale\":0.7,"
     "\"mscale_all_dim\":0.4,\"original_max_position_embeddings\":128}}",
     1.0394038191422568,
     {1, 0.0625, 0.0025, 0.00025}},
    {"{\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4,\"mscale\":0.7,"
     "\"original_max_position_embeddings\":128}}",
     1.138629436111989,
     {1, 0.0625, 0.0025, 0.00025}},
    {"{\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4,\"attention_factor\":0.5,"
     "\"beta_fast\":16,\"beta_slow\":2,\"original_max_position_embeddings\":128}}",
     0.5,
     {1, 0.0625, 0.0025, 0.00025}},
};

static void test_rope_as_transformers(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof rope_cases / sizeof *rope_cases; i++) {
    const rope_case *want = &rope_cases[i];
    pdt_model_config c = good(want->changes);
    double f[4];
    pdt_rope_frequencies(&c.rope, c.head_dim, f);
    bool same = fabs(c.rope.scale / want->scale - 1) < 1e-12;
    for (int j = 0; j < 4; j++) same = same && fabs(f[j] / want->f[j] - 1) < 1e-5;
    if (!same)
      fail_msg("%s: %g times %g %g %g %g", want->changes, c.rope.scale, f[0], f[1], f[2], f[3]);
  }
}

/* What a user should hear. */
static void test_rope_notices(void **state) {
  (void)state;
  static const struct {
    const char *changes, *said;
    pdt_notice_kind kind;
  } cases[] = {
      {"{\"rope_theta\":1e4,\"rope_parameters\":{\"rope_theta\":5e5},"
       "\"rope_scaling\":{\"type\":\"linear\",\"factor\":2}}",
       "c: 'rope_scaling' is taken (type linear, rope_theta 10000), and", PDT_NOTICE_WARNING},
      {"{\"rope_theta\":1e4,\"rope_scaling\":{\"rope_type\":\"default\",\"factor\":2}}",
       "c: rope_scaling: 'factor' = 2 is not used", PDT_NOTICE_WARNING},
      {"{\"rope_theta\":1e4,\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,"
       "\"low_freq_factor\":1,\"high_freq_factor\":4}}",
       "'original_max_position_embeddings' is missing: 512", PDT_NOTICE_DETAIL},
      {"{}", "'rope_theta' is missing: 10000", PDT_NOTICE_DETAIL},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    json_t *config = changed(cases[i].changes);
    pdt_model_config c;
    pdt_notices notices = {0};
    pdt_error err = {0};
    json_object_set_new(config, "tie_word_embeddings", json_false());
    assert_int_equal(pdt_model_config_parse(&c, config, NULL, "c", &notices, &err), 0);
    assert_int_equal(notices.n, 1);
    assert_int_equal(notices.kept[0].kind, cases[i].kind);
    if (!strstr(notices.kept[0].text, cases[i].said)) fail_msg("%s", notices.kept[0].text);
    json_decref(config);
  }
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
  scratch_text(s, "config.json",
               "\xef\xbb\xbf{\"model_type\":\"llama\",\"x\":NaN,\"hidden_size\":64.0}");
  scratch_text(s, "generation_config.json", "{\"eos_token_id\":[-1,3],\"top_p\":Infinity}");
  assert_int_equal(pdt_model_config_load(&c, s->folder, NULL, &err), 0);
  assert_int_equal(c.hidden_size, 64);
  assert_int_equal(c.n_eos, 1);
  char path[512];
  snprintf(path, sizeof path, "%s/generation_config.json", s->folder);
  assert_int_equal(remove(path), 0);
  assert_int_equal(symlink("nowhere.json", path), 0);
  assert_int_equal(pdt_model_config_load(&c, s->folder, NULL, &err), -1);
  assert_non_null(strstr(err.message, "generation_config.json: cannot open"));
  assert_non_null(strstr(err.message, "symbolic link to a file that is not there"));
  assert_int_equal(remove(path), 0);
  assert_int_equal(mkdir(path, 0700), 0);
  assert_int_equal(pdt_model_config_load(&c, s->folder, NULL, &err), -1);
  assert_non_null(strstr(err.message, "generation_config.json: expected a regular file"));
  assert_int_equal(rmdir(path), 0);
  scratch_text(s, "generation_config.json", "{");
  assert_int_equal(pdt_model_config_load(&c, s->folder, NULL, &err), -1);
  assert_non_null(strstr(err.message, "generation_config.json: line 1"));
  assert_int_equal(pdt_model_config_load_file(&c, scratch_path(s, "config.json"), NULL, &err), 0);
}

/* A model's file that is not quite what its config says. */
typedef struct variant {
  const char *optional; /* optional tensors whose names hold this are there, too */
  const char *missing;  /* a tensor that is not */
  const char *wrong;    /* one with a column too many */
  const char *renamed[2];
  bool other_head; /* lm_head.weight holds other values than all the rest */
} variant;

enum { MOST_TENSORS = 64 };

typedef struct file_maker {
  const variant *v;
  const char *names[MOST_TENSORS];
} file_maker;

static int fill_ones(void *context, int32_t index, int64_t first, int64_t n_elems, void *chunk,
                     pdt_error *err) {
  (void)first, (void)err;
  const file_maker *m = context;
  bool other = m->v->other_head && strcmp(m->names[index], PDT_TENSOR_HEAD) == 0;
  for (int64_t i = 0; i < n_elems; i++) ((float *)chunk)[i] = other ? 2 : 1;
  return 0;
}

static void write_variant(scratch *s, const pdt_model_config *c, const variant *v) {
  pdt_wanted_tensor tensors[MOST_TENSORS];
  pdt_tensor_spec specs[MOST_TENSORS];
  file_maker m = {.v = v};
  int32_t n = 0;
  pdt_error err;
  assert_true(pdt_model_tensor_count(c) <= MOST_TENSORS);
  for (int32_t i = 0; i < pdt_model_tensor_count(c); i++) {
    pdt_wanted_tensor *t = &tensors[n];
    pdt_model_tensor_at(c, i, t);
    if (v->missing && strcmp(t->name, v->missing) == 0) continue;
    if (t->need == PDT_OPTIONAL && !(v->optional && strstr(t->name, v->optional))) continue;
    m.names[n] = v->renamed[0] && strcmp(t->name, v->renamed[0]) == 0 ? v->renamed[1] : t->name;
    specs[n] = pdt_wanted_spec(t, PDT_F32);
    specs[n].name = m.names[n];
    if (v->wrong && strcmp(t->name, v->wrong) == 0) specs[n].shape[t->n_dims - 1]++;
    n++;
  }
  if (pdt_safetensors_write(scratch_path(s, "model.safetensors"), specs, n, NULL, 0, fill_ones, &m,
                            &err))
    fail_msg("%s", err.message);
}

/* What the check says of such a file, and the head's and embedding's names after it. */
static int check_variant(scratch *s, const pdt_model_config *config, const variant *v,
                         pdt_notices *notices, const char *names[2], pdt_error *err) {
  static char kept[2][64];
  pdt_model_config c = *config;
  pdt_checkpoint *checkpoint;
  *notices = (pdt_notices){0};
  write_variant(s, config, v);
  assert_int_equal(pdt_checkpoint_open(&checkpoint, s->folder, NULL, err), 0);
  int rc = pdt_model_tensors_check(&c, checkpoint, notices, err);
  if (!rc) {
    snprintf(kept[0], sizeof *kept, "%s", pdt_model_head(&c, checkpoint)->name);
    snprintf(kept[1], sizeof *kept, "%s",
             pdt_model_tensor_find(&c, checkpoint, PDT_TENSOR_EMBEDDING)->name);
    names[0] = kept[0];
    names[1] = kept[1];
  }
  pdt_checkpoint_close(checkpoint);
  return rc;
}

#define Q_BIAS "model.layers.1.self_attn.q_proj.bias"
#define K_NORM "model.layers.1.self_attn.k_norm.weight"
#define TIED   "{\"tie_word_embeddings\":true}"
#define QWEN2  "{\"model_type\":\"qwen2\",\"architectures\":null}"
#define QWEN3  "{\"model_type\":\"qwen3\",\"architectures\":null,\"head_dim\":8}"

static const struct {
  const char *changes;
  variant v;
  const char *error;   /* part of it; NULL: it is sound */
  const char *warning; /* the same */
  const char *head, *embedding;
} variants[] = {
    {"{}", {0}, NULL, NULL, PDT_TENSOR_HEAD, PDT_TENSOR_EMBEDDING},
    {"{}",
     {.missing = PDT_TENSOR_HEAD},
     "'lm_head.weight' is missing (hint: config.json says, or "
     "leaves to the default, that tie_word_embeddings is false)",
     NULL,
     NULL,
     NULL},
    {"{}",
     {.missing = PDT_TENSOR_EMBEDDING},
     "'model.embed_tokens.weight' is missing",
     NULL,
     NULL,
     NULL},
    {TIED, {0}, NULL, NULL, PDT_TENSOR_EMBEDDING, PDT_TENSOR_EMBEDDING},
    {TIED, {.optional = "lm_head"}, NULL, NULL, PDT_TENSOR_EMBEDDING, PDT_TENSOR_EMBEDDING},
    {TIED,
     {.optional = "lm_head", .other_head = true},
     NULL,
     "ties the head to the embedding, but "
     "the file has both and they differ",
     PDT_TENSOR_HEAD,
     PDT_TENSOR_EMBEDDING},
    {TIED,
     {.optional = "lm_head", .missing = PDT_TENSOR_EMBEDDING},
     NULL,
     NULL,
     PDT_TENSOR_HEAD,
     PDT_TENSOR_HEAD},
    {TIED,
     {.optional = "lm_head", .wrong = PDT_TENSOR_HEAD},
     "config.json does not ask for this "
     "tensor",
     NULL,
     NULL,
     NULL},
    {"{}",
     {.renamed = {PDT_TENSOR_EMBEDDING, "embed_tokens.weight"}},
     NULL,
     NULL,
     PDT_TENSOR_HEAD,
     "embed_tokens.weight"},
    {"{}",
     {.renamed = {PDT_TENSOR_HEAD, "model.lm_head.weight"}},
     NULL,
     NULL,
     "model.lm_head.weight",
     PDT_TENSOR_EMBEDDING},
    {"{}",
     {.renamed = {Q_BIAS, "x"}, .wrong = "model.norm.weight"},
     "may be of different models",
     NULL,
     NULL,
     NULL},
    {"{\"remove\":\"vocab_size\"}",
     {.wrong = "model.norm.weight"},
     "config.json leaves vocab_size "
     "to the defaults of llama",
     NULL,
     NULL,
     NULL},
    {"{}",
     {.optional = ".bias"},
     NULL,
     "'model.layers.0.self_attn.q_proj.bias' and others are used, "
     "though a llama",
     PDT_TENSOR_HEAD,
     PDT_TENSOR_EMBEDDING},
    {"{}",
     {.optional = Q_BIAS},
     NULL,
     "'" Q_BIAS "' is used",
     PDT_TENSOR_HEAD,
     PDT_TENSOR_EMBEDDING},
    {"{}",
     {.optional = "_norm.weight"},
     NULL,
     "q_norm.weight' and others are used",
     PDT_TENSOR_HEAD,
     PDT_TENSOR_EMBEDDING},
    {"{}", {.optional = "1.self_attn.q_norm"}, "'" K_NORM "' is missing", NULL, NULL, NULL},
    {"{\"attention_bias\":true}", {0}, NULL, NULL, PDT_TENSOR_HEAD, PDT_TENSOR_EMBEDDING},
    {"{\"attention_bias\":true}",
     {.missing = Q_BIAS},
     "'" Q_BIAS "' is missing (hint: config.json "
     "has attention_bias)",
     NULL,
     NULL,
     NULL},
    {"{\"attention_bias\":true}",
     {.missing = "model.layers.1.self_attn.o_proj.bias"},
     "is missing",
     NULL,
     NULL,
     NULL},
    {"{\"mlp_bias\":true}",
     {.missing = "model.layers.0.mlp.up_proj.bias"},
     "is missing",
     NULL,
     NULL,
     NULL},
    {QWEN2, {0}, NULL, NULL, PDT_TENSOR_HEAD, PDT_TENSOR_EMBEDDING},
    {QWEN2,
     {.missing = Q_BIAS},
     "'" Q_BIAS "' is missing (hint: every model of the family has it)",
     NULL,
     NULL,
     NULL},
    {QWEN2,
     {.optional = "o_proj.bias"},
     NULL,
     "'model.layers.0.self_attn.o_proj.bias' and others",
     PDT_TENSOR_HEAD,
     PDT_TENSOR_EMBEDDING},
    {QWEN3, {0}, NULL, NULL, PDT_TENSOR_HEAD, PDT_TENSOR_EMBEDDING},
    {QWEN3,
     {.missing = K_NORM},
     "'" K_NORM "' is missing (hint: every model of the family has it)",
     NULL,
     NULL,
     NULL},
};

static void test_variants(void **state) {
  scratch *s = *state;
  for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
    json_t *config = changed(variants[i].changes);
    pdt_model_config c;
    pdt_notices notices;
    pdt_error err = {0};
    const char *names[2];
    assert_int_equal(pdt_model_config_parse(&c, config, NULL, "c", NULL, &err), 0);
    int rc = check_variant(s, &c, &variants[i].v, &notices, names, &err);
    if (rc && (!variants[i].error || !strstr(err.message, variants[i].error)))
      fail_msg("variant %zu: %s", i, err.message);
    if (!rc) {
      assert_null(variants[i].error);
      assert_string_equal(names[0], variants[i].head);
      assert_string_equal(names[1], variants[i].embedding);
      assert_int_equal(notices.n, variants[i].warning ? 1 : 0);
      if (notices.n && !strstr(notices.kept[0].text, variants[i].warning))
        fail_msg("variant %zu: %s", i, notices.kept[0].text);
    }
    json_decref(config);
  }
}

/* Every tensor that a family needs is missed by name, and one of another shape is named. */
static void test_tensors(void **state) {
  scratch *s = *state;
  static const char *const families[] = {"{}", QWEN2, QWEN3,
                                         "{\"attention_bias\":true,\"mlp_bias\":true}"};
  for (size_t f = 0; f < sizeof families / sizeof *families; f++) {
    pdt_model_config c = good(families[f]);
    pdt_notices notices;
    pdt_error err = {0};
    const char *names[2];
    for (int32_t i = 0; i < pdt_model_tensor_count(&c); i++) {
      pdt_wanted_tensor t;
      pdt_model_tensor_at(&c, i, &t);
      if (t.need == PDT_OPTIONAL) continue;
      variant missing = {.missing = t.name}, wrong = {.wrong = t.name};
      assert_int_equal(check_variant(s, &c, &missing, &notices, names, &err), -1);
      if (!strstr(err.message, t.name)) fail_msg("%s: %s", t.name, err.message);
      assert_int_equal(check_variant(s, &c, &wrong, &notices, names, &err), -1);
      if (!strstr(err.message, t.name)) fail_msg("%s: %s", t.name, err.message);
    }
  }
}

#define SCRATCH(test) cmocka_unit_test_setup_teardown(test, scratch_setup, scratch_teardown)

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_bad_configs),
      cmocka_unit_test(test_sizes),
      cmocka_unit_test(test_eos_union),
      cmocka_unit_test(test_family_defaults),
      cmocka_unit_test(test_rope),
      cmocka_unit_test(test_rope_as_transformers),
      cmocka_unit_test(test_rope_notices),
      cmocka_unit_test(test_presets),
      SCRATCH(test_files),
      SCRATCH(test_variants),
      SCRATCH(test_tensors),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "model/config.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "model/window.h"

static const pdt_bytes max_config_bytes = 1 << 20;

typedef struct family_info {
  const char *model_type, *architecture;
} family_info;

static const family_info families[] = {
    [PDT_FAMILY_LLAMA] = {"llama", "LlamaForCausalLM"},
    [PDT_FAMILY_MISTRAL] = {"mistral", "MistralForCausalLM"},
    [PDT_FAMILY_QWEN2] = {"qwen2", "Qwen2ForCausalLM"},
    [PDT_FAMILY_QWEN3] = {"qwen3", "Qwen3ForCausalLM"},
};
enum { N_FAMILIES = sizeof families / sizeof *families };
static const char known_families[] =
    "llama (LlamaForCausalLM), mistral (MistralForCausalLM), qwen2 (Qwen2ForCausalLM) or qwen3 "
    "(Qwen3ForCausalLM)";

const char *pdt_family_name(pdt_family family) {
  return families[family].model_type;
}

/* The family's number, or N_FAMILIES when the name (of a type, or of an architecture) is none. */
static int family_by(const char *name, bool architecture) {
  int i = 0;
  while (i < N_FAMILIES &&
         strcmp(name, architecture ? families[i].architecture : families[i].model_type) != 0)
    i++;
  return i;
}

static int unknown_family(const char *where, const char *key, const char *found, pdt_error *err) {
  return pdt_fail(err, PDT_ERROR_INPUT, "%s: '%s': expected %s, found '%.80s'", where, key,
                  known_families, found);
}

/* model_type and architectures: at least one, and agreeing. */
static int parse_family(pdt_model_config *out, const json_t *config, const char *where,
                        pdt_error *err) {
  const char *type = NULL;
  const json_t *architectures;
  if (pdt_json_string_or(config, where, "model_type", &type, err) ||
      pdt_json_array_or(config, where, "architectures", &architectures, err))
    return -1;
  int family = type ? family_by(type, false) : -1;
  if (family == N_FAMILIES) return unknown_family(where, "model_type", type, err);
  for (size_t i = 0; i < json_array_size(architectures); i++) {
    const char *name = json_string_value(json_array_get(architectures, i));
    int found = name ? family_by(name, true) : N_FAMILIES;
    if (found == N_FAMILIES)
      return unknown_family(where, "architectures", name ? name : "no string", err);
    if (family >= 0 && found != family)
      return pdt_fail(err, PDT_ERROR_INPUT, "%s: 'architectures': '%s' is not of model type '%s'",
                      where, name, families[family].model_type);
    family = found;
  }
  if (family < 0)
    return pdt_fail(err, PDT_ERROR_INPUT,
                    "%s: expected 'model_type' or 'architectures', found neither", where);
  out->family = (pdt_family)family;
  return 0;
}

/* Features of related models. Asked for, they change what is computed, so they are refused. */
static int refuse_unknown_features(const json_t *config, const char *where, pdt_error *err) {
  static const char *const keys[] = {
      "quantization_config",
      "no_rope_layers",
      "no_rope_layer_interval",
      "attn_logit_softcapping",
      "final_logit_softcapping",
      "embedding_multiplier",
      "residual_multiplier",
      "attention_multiplier",
      "logits_scaling",
      "query_pre_attn_scalar",
      "num_local_experts",
      "num_experts",
      "attention_chunk_size",
      "kv_lora_rank",
      "q_lora_rank",
      "is_encoder_decoder",
      "add_cross_attention",
      "parallel_attn",
      "use_parallel_residual",
      "alibi",
      "attention_sinks",
      "text_config",
      "vision_config",
      "use_qk_norm",
      "layer_norm_eps",
      "scale_emb",
      "scale_depth",
      "clip_qkv",
      "logit_scale",
  };
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
    const json_t *value = pdt_json_get(config, keys[i]);
    if (value && !json_is_false(value))
      return pdt_fail(err, PDT_ERROR_INPUT,
                      "%s: '%s': the model asks for what this runtime does not compute", where,
                      keys[i]);
  }
  double rotary = 1;
  if (pdt_json_real_or(config, where, "partial_rotary_factor", -1e9, 1e9, &rotary, err)) return -1;
  if (rotary != 1)
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: 'partial_rotary_factor': expected 1, found %g",
                    where, rotary);
  return 0;
}

static int parse_activation(const json_t *config, const char *where, pdt_error *err) {
  static const char *const keys[] = {"hidden_act", "hidden_activation"};
  for (size_t i = 0; i < 2; i++) {
    const char *act = "silu";
    if (pdt_json_string_or(config, where, keys[i], &act, err)) return -1;
    if (strcmp(act, "silu") != 0 && strcmp(act, "swish") != 0)
      return pdt_fail(err, PDT_ERROR_INPUT, "%s: '%s': expected 'silu', found '%.80s'", where,
                      keys[i], act);
  }
  return 0;
}

/* One size into an int32_t. `needed`: it must be there; else *out stays. */
static int parse_size(const json_t *config, const char *where, const char *key, int64_t high,
                      bool needed, int32_t *out, pdt_error *err) {
  int64_t value = *out;
  if (needed ? pdt_json_integer(config, where, key, 1, high, &value, err)
             : pdt_json_integer_or(config, where, key, 1, high, &value, err))
    return -1;
  *out = (int32_t)value;
  return 0;
}

static int parse_heads(pdt_model_config *out, const json_t *config, const char *where,
                       pdt_error *err) {
  if (parse_size(config, where, "num_attention_heads", 4096, true, &out->heads, err)) return -1;
  out->kv_heads = out->heads;
  if (parse_size(config, where, "num_key_value_heads", 4096, false, &out->kv_heads, err) ||
      parse_size(config, where, "head_dim", PDT_MAX_HEAD_DIM, false, &out->head_dim, err))
    return -1;
  if (out->heads % out->kv_heads)
    return pdt_fail(err, PDT_ERROR_INPUT,
                    "%s: 'num_key_value_heads': expected a divisor of num_attention_heads = %d, "
                    "found %d",
                    where, out->heads, out->kv_heads);
  if (!out->head_dim) {
    if (out->hidden_size % out->heads)
      return pdt_fail(err, PDT_ERROR_INPUT,
                      "%s: 'num_attention_heads': expected a divisor of hidden_size = %d (there "
                      "is no head_dim), found %d",
                      where, out->hidden_size, out->heads);
    out->head_dim = out->hidden_size / out->heads;
  }
  if (out->head_dim % 2 || out->head_dim > PDT_MAX_HEAD_DIM)
    return pdt_fail(err, PDT_ERROR_INPUT,
                    "%s: size of a head: expected an even number up to %d, found %d", where,
                    PDT_MAX_HEAD_DIM, out->head_dim);
  return 0;
}

static int parse_sizes(pdt_model_config *out, const json_t *config, const char *where,
                       pdt_error *err) {
  int32_t layers = 0;
  if (parse_size(config, where, "hidden_size", 1 << 20, true, &out->hidden_size, err) ||
      parse_size(config, where, "intermediate_size", 1 << 22, true, &out->intermediate_size, err) ||
      parse_size(config, where, "num_hidden_layers", PDT_MAX_LAYERS, true, &layers, err) ||
      parse_size(config, where, "vocab_size", 1 << 24, true, &out->vocab_size, err) ||
      parse_size(config, where, "max_position_embeddings", 1 << 30, true, &out->max_positions, err))
    return -1;
  out->layers = layers;
  out->rms_norm_eps = 1e-6;
  if (pdt_json_real_or(config, where, "rms_norm_eps", 1e-30, 1, &out->rms_norm_eps, err) ||
      pdt_json_bool_or(config, where, "tie_word_embeddings", &out->tie_word_embeddings, err) ||
      pdt_json_bool_or(config, where, "attention_bias", &out->attention_bias, err) ||
      pdt_json_bool_or(config, where, "mlp_bias", &out->mlp_bias, err))
    return -1;
  /* Elsewhere the keys have no meaning: the family fixes its biases. */
  if (out->family != PDT_FAMILY_LLAMA) out->mlp_bias = false;
  if (out->family != PDT_FAMILY_LLAMA && out->family != PDT_FAMILY_QWEN3)
    out->attention_bias = false;
  return parse_heads(out, config, where, err);
}

/* Four parameters of rope type llama3. */
static int parse_llama3(pdt_rope *rope, const json_t *config, const json_t *scaling,
                        const char *where, pdt_error *err) {
  char scaled[320];
  snprintf(scaled, sizeof scaled, "%.256s: rope parameters", where);
  const char *original = "original_max_position_embeddings";
  const json_t *holder = pdt_json_get(scaling, original) ? scaling : config;
  if (pdt_json_real(scaling, scaled, "factor", 1e-6, 1e6, &rope->factor, err) ||
      pdt_json_real(scaling, scaled, "low_freq_factor", 1e-6, 1e6, &rope->low_freq_factor, err) ||
      pdt_json_real(scaling, scaled, "high_freq_factor", 1e-6, 1e6, &rope->high_freq_factor, err) ||
      pdt_json_real(holder, scaled, original, 1, 1e9, &rope->original_positions, err))
    return -1;
  if (rope->low_freq_factor < rope->high_freq_factor) return 0;
  return pdt_fail(err, PDT_ERROR_INPUT,
                  "%s: 'low_freq_factor': expected less than high_freq_factor = %g, found %g",
                  scaled, rope->high_freq_factor, rope->low_freq_factor);
}

/* The object that scales positions, under the name of transformers 5 or of 4; NULL for none. */
static int find_rope(const json_t *config, const char *where, const json_t **out, pdt_error *err) {
  static const char *const keys[] = {"rope_parameters", "rope_scaling"};
  for (size_t i = 0; i < 2; i++) {
    if (pdt_json_object_or(config, where, keys[i], out, err)) return -1;
    if (json_object_size(*out) > 0) return 0;
  }
  *out = NULL;
  return 0;
}

static int parse_rope(pdt_rope *rope, const json_t *config, const char *where, pdt_error *err) {
  const json_t *scaling;
  if (find_rope(config, where, &scaling, err)) return -1;
  rope->theta = 10000;
  double partial = 1;
  const char *type = NULL;
  if (pdt_json_real_or(config, where, "rope_theta", 1, 1e15, &rope->theta, err)) return -1;
  if (scaling &&
      (pdt_json_real_or(scaling, where, "rope_theta", 1, 1e15, &rope->theta, err) ||
       pdt_json_real_or(scaling, where, "partial_rotary_factor", -1e9, 1e9, &partial, err) ||
       pdt_json_string_or(scaling, where, "type", &type, err) ||
       pdt_json_string_or(scaling, where, "rope_type", &type, err)))
    return -1;
  if (partial != 1)
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: 'partial_rotary_factor': expected 1, found %g",
                    where, partial);
  /* transformers 5 leaves the type out where it is the default; a scaling without one says
   * nothing that could be computed. */
  bool typeless = !type && scaling && !pdt_json_get(scaling, "rope_theta");
  if (typeless)
    return pdt_fail(err, PDT_ERROR_INPUT,
                    "%s: rope parameters: 'rope_type': expected 'default' or 'llama3', found "
                    "nothing",
                    where);
  if (!type || strcmp(type, "default") == 0) return 0;
  if (strcmp(type, "llama3") != 0)
    return pdt_fail(err, PDT_ERROR_INPUT,
                    "%s: rope parameters: 'rope_type': expected 'default' or 'llama3', found "
                    "'%.80s'",
                    where, type);
  rope->type = PDT_ROPE_LLAMA3;
  return parse_llama3(rope, config, scaling, where, err);
}

/* Puts an id into the ascending set. */
static int add_eos(pdt_model_config *out, pdt_token id, const char *where, pdt_error *err) {
  int32_t at = 0;
  while (at < out->n_eos && out->eos[at] < id) at++;
  if (at < out->n_eos && out->eos[at] == id) return 0;
  if (out->n_eos == PDT_MAX_EOS)
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: 'eos_token_id': expected at most %d ids", where,
                    PDT_MAX_EOS);
  memmove(&out->eos[at + 1], &out->eos[at], (size_t)(out->n_eos - at) * sizeof *out->eos);
  out->eos[at] = id;
  out->n_eos++;
  return 0;
}

/* eos_token_id: a number, a list of them, or nothing. */
static int parse_eos(pdt_model_config *out, const json_t *config, const char *where,
                     pdt_error *err) {
  const json_t *value = pdt_json_get(config, "eos_token_id");
  int64_t id, high = out->vocab_size - 1;
  if (!value) return 0;
  if (!json_is_array(value)) {
    if (pdt_json_integer(config, where, "eos_token_id", 0, high, &id, err)) return -1;
    return add_eos(out, (pdt_token)id, where, err);
  }
  char list[320];
  snprintf(list, sizeof list, "%.256s: eos_token_id", where);
  for (size_t i = 0; i < json_array_size(value); i++)
    if (pdt_json_element_integer(value, list, i, 0, high, &id, err) ||
        add_eos(out, (pdt_token)id, where, err))
      return -1;
  return 0;
}

int pdt_model_config_parse(pdt_model_config *out, const json_t *config, const json_t *generation,
                           const char *where, pdt_notices *notices, pdt_error *err) {
  pdt_model_config c = {.bos = -1};
  int64_t bos = -1;
  if (pdt_json_expect_object(config, where, err) || parse_family(&c, config, where, err) ||
      refuse_unknown_features(config, where, err) || parse_activation(config, where, err) ||
      parse_sizes(&c, config, where, err) ||
      pdt_model_windows_parse(&c, config, where, notices, err) ||
      parse_rope(&c.rope, config, where, err) || parse_eos(&c, config, where, err) ||
      pdt_json_integer_or(config, where, "bos_token_id", 0, c.vocab_size - 1, &bos, err))
    return -1;
  c.bos = (pdt_token)bos;
  if (generation) {
    const char *other = "generation_config.json";
    if (pdt_json_expect_object(generation, other, err) || parse_eos(&c, generation, other, err))
      return -1;
  }
  *out = c;
  return 0;
}

/* Loads directory/name; *out is NULL when the file is optional and not there. */
static int load_json(json_t **out, const char *directory, const char *name, bool optional,
                     pdt_error *err) {
  *out = NULL;
  char *path;
  if (pdt_path_join(&path, directory, name, err)) return -1;
  int rc = 0;
  if (!optional || access(path, F_OK) == 0 || errno != ENOENT)
    rc = pdt_json_load_python(out, path, max_config_bytes, err);
  free(path);
  return rc;
}

int pdt_model_config_load(pdt_model_config *out, const char *directory, pdt_notices *notices,
                          pdt_error *err) {
  json_t *config, *generation = NULL;
  char *where;
  if (pdt_path_join(&where, directory, "config.json", err)) return -1;
  int rc = load_json(&config, directory, "config.json", false, err);
  if (!rc) rc = load_json(&generation, directory, "generation_config.json", true, err);
  if (!rc) rc = pdt_model_config_parse(out, config, generation, where, notices, err);
  json_decref(config);
  json_decref(generation);
  free(where);
  return rc;
}

int pdt_model_config_load_file(pdt_model_config *out, const char *path, pdt_notices *notices,
                               pdt_error *err) {
  json_t *config;
  if (pdt_json_load_python(&config, path, max_config_bytes, err)) return -1;
  int rc = pdt_model_config_parse(out, config, NULL, path, notices, err);
  json_decref(config);
  return rc;
}

bool pdt_model_is_eos(const pdt_model_config *config, pdt_token token) {
  for (int32_t i = 0; i < config->n_eos; i++)
    if (config->eos[i] == token) return true;
  return false;
}

void pdt_rope_inv_freq(const pdt_model_config *config, double *out) {
  const pdt_rope *rope = &config->rope;
  for (int32_t j = 0; j < config->head_dim / 2; j++) {
    double f = pow(rope->theta, -2.0 * j / config->head_dim);
    if (rope->type == PDT_ROPE_LLAMA3) {
      /* Long waves are stretched by the factor, short ones kept, those between blended. */
      double wavelength = 2 * M_PI / f, old = rope->original_positions;
      double low = rope->low_freq_factor, high = rope->high_freq_factor;
      double smooth = (old / wavelength - low) / (high - low);
      if (wavelength > old / low)
        f /= rope->factor;
      else if (wavelength >= old / high)
        f = (1 - smooth) * f / rope->factor + smooth * f;
    }
    out[j] = f;
  }
}

#include "model/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "model/gguf_config.h"
#include "model/window.h"

static const pdt_bytes max_config_bytes = 1 << 20;

/* What transformers' configuration class of the family takes where a config leaves a key out. */
typedef struct family_info {
  const char *model_type, *architecture, *base_architecture;
  int32_t intermediate_size, vocab_size, max_positions;
  int32_t kv_heads, head_dim; /* 0: as many as heads; hidden_size / heads */
} family_info;

static const family_info families[] = {
    [PDT_FAMILY_LLAMA] = {"llama", "LlamaForCausalLM", "LlamaModel", 11008, 32000, 2048, 0, 0},
    [PDT_FAMILY_MISTRAL] = {"mistral", "MistralForCausalLM", "MistralModel", 14336, 32000, 131072,
                            8, 0},
    [PDT_FAMILY_QWEN2] = {"qwen2", "Qwen2ForCausalLM", "Qwen2Model", 22016, 151936, 32768, 32, 0},
    [PDT_FAMILY_QWEN3] = {"qwen3", "Qwen3ForCausalLM", "Qwen3Model", 22016, 151936, 32768, 32, 128},
};
enum {
  N_FAMILIES = sizeof families / sizeof *families,
  DEFAULT_HIDDEN = 4096, /* of all four */
  DEFAULT_LAYERS = 32,
  DEFAULT_HEADS = 32
};
static const char known_families[] =
    "llama (LlamaForCausalLM), mistral (MistralForCausalLM), qwen2 (Qwen2ForCausalLM) or qwen3 "
    "(Qwen3ForCausalLM)";

/* The config that is being read. */
typedef struct source {
  const json_t *config;
  const char *where;
  pdt_notices *notices;
} source;

const char *pdt_family_name(pdt_family family) {
  return families[family].model_type;
}

/* The family's number, or N_FAMILIES when the name (of a type, or of an architecture) is none. */
static int family_by(const char *name, bool architecture) {
  int i = 0;
  while (i < N_FAMILIES && (architecture ? strcmp(name, families[i].architecture) != 0 &&
                                               strcmp(name, families[i].base_architecture) != 0
                                         : strcmp(name, families[i].model_type) != 0))
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

/* How a feature of related models can be written and yet ask for nothing. */
typedef enum neutral {
  ONLY_EMPTY, /* null, false, 0, or empty */
  FACTOR,     /* 1, too */
  ALL_ONES,   /* a list of ones, or of true, too */
  ONLY_TRUE,  /* true, or no such key */
} neutral;

typedef struct feature {
  const char *key;
  neutral neutral;
} feature;

/* Asked for, they change what is computed, so they are refused. */
static const feature features[] = {
    {"quantization_config", ONLY_EMPTY},
    {"no_rope_layers", ALL_ONES},
    {"no_rope_layer_interval", ONLY_EMPTY},
    {"attn_logit_softcapping", ONLY_EMPTY},
    {"final_logit_softcapping", ONLY_EMPTY},
    {"embedding_multiplier", FACTOR},
    {"residual_multiplier", FACTOR},
    {"attention_multiplier", FACTOR},
    {"logits_scaling", FACTOR},
    {"query_pre_attn_scalar", ONLY_EMPTY},
    {"num_local_experts", ONLY_EMPTY},
    {"num_experts", ONLY_EMPTY},
    {"attention_chunk_size", ONLY_EMPTY},
    {"kv_lora_rank", ONLY_EMPTY},
    {"q_lora_rank", ONLY_EMPTY},
    {"is_encoder_decoder", ONLY_EMPTY},
    {"add_cross_attention", ONLY_EMPTY},
    {"is_causal", ONLY_TRUE}, /* null is false there */
    {"parallel_attn", ONLY_EMPTY},
    {"use_parallel_residual", ONLY_EMPTY},
    {"alibi", ONLY_EMPTY},
    {"attention_sinks", ONLY_EMPTY},
    {"text_config", ONLY_EMPTY},
    {"vision_config", ONLY_EMPTY},
    {"use_qk_norm", ONLY_EMPTY},
    {"scale_emb", FACTOR},
    {"scale_depth", FACTOR},
    {"clip_qkv", ONLY_EMPTY},
    {"logit_scale", FACTOR},
};

static bool is_one(const json_t *value) {
  return json_is_true(value) || (json_is_number(value) && json_number_value(value) == 1);
}

static bool asks_for_nothing(const json_t *value, neutral allowed) {
  if (allowed == ONLY_TRUE) return !value || json_is_true(value);
  if (pdt_json_is_empty(value)) return true;
  if (allowed == FACTOR) return json_is_number(value) && json_number_value(value) == 1;
  if (allowed != ALL_ONES || !json_is_array(value)) return false;
  size_t i = 0;
  while (i < json_array_size(value) && is_one(json_array_get(value, i))) i++;
  return i == json_array_size(value);
}

static int refuse_unknown_features(const pdt_model_config *c, const source *s, pdt_error *err) {
  for (size_t i = 0; i < sizeof features / sizeof *features; i++) {
    const json_t *value = json_object_get(s->config, features[i].key);
    bool has_it = c->family == PDT_FAMILY_QWEN3 && strcmp(features[i].key, "use_qk_norm") == 0 &&
                  json_is_true(value);
    if (!has_it && !asks_for_nothing(value, features[i].neutral))
      return pdt_fail(err, PDT_ERROR_INPUT,
                      "%s: '%s': the model asks for what this runtime does not compute", s->where,
                      features[i].key);
  }
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

/* Says that a size was guessed, to who listens and, for hints, in the config itself. */
static void guess(pdt_model_config *c, const source *s, const char *key, int32_t value) {
  size_t n = strlen(c->guessed);
  snprintf(c->guessed + n, sizeof c->guessed - n, "%s%s", n ? ", " : "", key);
  pdt_notice(s->notices, PDT_NOTICE_DETAIL, "%s: '%s' is missing: %d, the default of %s, is taken",
             s->where, key, value, families[c->family].model_type);
}

/* One size; absent or null: `standard`. */
static int parse_size(pdt_model_config *c, const source *s, const char *key, int64_t high,
                      int32_t standard, int32_t *out, pdt_error *err) {
  int64_t value = standard;
  if (pdt_json_integer_or(s->config, s->where, key, 1, high, &value, err)) return -1;
  *out = (int32_t)value;
  if (!pdt_json_get(s->config, key)) guess(c, s, key, standard);
  return 0;
}

/* Without a head_dim, heads share hidden_size; what is left over, transformers leaves to nobody. */
static int parse_head_dim(pdt_model_config *out, const source *s, pdt_error *err) {
  int32_t standard = families[out->family].head_dim;
  if (standard || pdt_json_get(s->config, "head_dim")) {
    if (parse_size(out, s, "head_dim", PDT_MAX_HEAD_DIM, standard, &out->head_dim, err)) return -1;
  } else {
    out->head_dim = out->hidden_size / out->heads;
    if (out->family == PDT_FAMILY_LLAMA && out->hidden_size % out->heads)
      return pdt_fail(err, PDT_ERROR_INPUT,
                      "%s: 'num_attention_heads': expected a divisor of hidden_size = %d (there "
                      "is no head_dim), found %d",
                      s->where, out->hidden_size, out->heads);
  }
  if (out->head_dim < 2 || out->head_dim % 2 || out->head_dim > PDT_MAX_HEAD_DIM)
    return pdt_fail(err, PDT_ERROR_INPUT,
                    "%s: size of a head: expected an even number up to %d, found %d", s->where,
                    PDT_MAX_HEAD_DIM, out->head_dim);
  return 0;
}

static int parse_heads(pdt_model_config *out, const source *s, pdt_error *err) {
  const char *key = "num_key_value_heads";
  const json_t *given = json_object_get(s->config, key);
  if (parse_size(out, s, "num_attention_heads", 4096, DEFAULT_HEADS, &out->heads, err)) return -1;
  /* null is one for each head in every family; only a missing key is the family's default. */
  int32_t standard = families[out->family].kv_heads;
  if (!standard || json_is_null(given)) standard = out->heads;
  if (parse_size(out, s, key, 4096, standard, &out->kv_heads, err)) return -1;
  if (out->heads % out->kv_heads)
    return pdt_fail(err, PDT_ERROR_INPUT,
                    "%s: '%s': expected a divisor of num_attention_heads = %d, found %d%s",
                    s->where, key, out->heads, out->kv_heads,
                    given ? "" : ", the default of the family, for the config has none");
  return parse_head_dim(out, s, err);
}

static int parse_flags(pdt_model_config *out, const source *s, pdt_error *err) {
  const char *tie = "tie_word_embeddings";
  if (pdt_json_bool_or(s->config, s->where, tie, &out->tie_word_embeddings, err) ||
      pdt_json_bool_or(s->config, s->where, "attention_bias", &out->attention_bias, err) ||
      pdt_json_bool_or(s->config, s->where, "mlp_bias", &out->mlp_bias, err))
    return -1;
  if (!pdt_json_get(s->config, tie))
    pdt_notice(s->notices, PDT_NOTICE_DETAIL, "%s: '%s' is missing: false is taken", s->where, tie);
  /* Elsewhere the keys have no meaning: the family fixes its biases. */
  if (out->family != PDT_FAMILY_LLAMA) out->mlp_bias = false;
  if (out->family != PDT_FAMILY_LLAMA && out->family != PDT_FAMILY_QWEN3)
    out->attention_bias = false;
  return 0;
}

static int parse_sizes(pdt_model_config *out, const source *s, pdt_error *err) {
  const family_info *f = &families[out->family];
  const char *eps = "rms_norm_eps";
  int32_t layers = 0;
  if (parse_size(out, s, "hidden_size", 1 << 20, DEFAULT_HIDDEN, &out->hidden_size, err) ||
      parse_size(out, s, "intermediate_size", 1 << 22, f->intermediate_size,
                 &out->intermediate_size, err) ||
      parse_size(out, s, "num_hidden_layers", PDT_MAX_LAYERS, DEFAULT_LAYERS, &layers, err) ||
      parse_size(out, s, "vocab_size", 1 << 24, f->vocab_size, &out->vocab_size, err) ||
      parse_size(out, s, "max_position_embeddings", 1 << 30, f->max_positions, &out->max_positions,
                 err))
    return -1;
  out->layers = layers;
  out->rms_norm_eps = 1e-6;
  if (pdt_json_real_or(s->config, s->where, eps, 1e-30, 1, &out->rms_norm_eps, err)) return -1;
  if (!pdt_json_get(s->config, eps))
    pdt_notice(s->notices, PDT_NOTICE_DETAIL, "%s: '%s' is missing: 1e-6 is taken", s->where, eps);
  return parse_flags(out, s, err) || parse_heads(out, s, err) ? -1 : 0;
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

/* eos_token_id: a number, a list of them, or nothing; -1 is no token. */
static int parse_eos(pdt_model_config *out, const json_t *config, const char *where,
                     pdt_error *err) {
  const json_t *value = pdt_json_get(config, "eos_token_id");
  int64_t id = -1, high = out->vocab_size - 1;
  if (!value) return 0;
  if (!json_is_array(value)) {
    if (pdt_json_integer(config, where, "eos_token_id", -1, high, &id, err)) return -1;
    return id < 0 ? 0 : add_eos(out, (pdt_token)id, where, err);
  }
  char list[320];
  snprintf(list, sizeof list, "%.256s: eos_token_id", where);
  for (size_t i = 0; i < json_array_size(value); i++) {
    if (pdt_json_element_integer(value, list, i, -1, high, &id, err)) return -1;
    if (id >= 0 && add_eos(out, (pdt_token)id, where, err)) return -1;
  }
  return 0;
}

int pdt_model_config_parse(pdt_model_config *out, const json_t *config, const json_t *generation,
                           const char *where, pdt_notices *notices, pdt_error *err) {
  pdt_model_config c = {.bos = -1};
  const source s = {config, where, notices};
  int64_t bos = -1;
  if (pdt_json_expect_object(config, where, err) || parse_family(&c, config, where, err) ||
      refuse_unknown_features(&c, &s, err) || parse_activation(config, where, err) ||
      parse_sizes(&c, &s, err) || pdt_model_windows_parse(&c, config, where, notices, err) ||
      pdt_rope_parse(&c.rope, config, where, c.max_positions, notices, err) ||
      parse_eos(&c, config, where, err) ||
      pdt_json_integer_or(config, where, "bos_token_id", -1, c.vocab_size - 1, &bos, err))
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

/* Loads directory/name; *out is NULL when the file is optional and not there. A link that leads
 * nowhere is there. */
static int load_json(json_t **out, const char *directory, const char *name, bool optional,
                     pdt_error *err) {
  *out = NULL;
  char *path;
  if (pdt_path_join(&path, directory, name, err)) return -1;
  int rc = 0;
  if (!optional || pdt_path_is_there(path))
    rc = pdt_json_load_python(out, path, max_config_bytes, err);
  free(path);
  return rc;
}

/* Of a GGUF file. */
static int load_gguf(pdt_model_config *out, const char *path, pdt_notices *notices,
                     pdt_error *err) {
  pdt_gguf_model *m;
  json_t *config = NULL;
  if (pdt_gguf_model_open(&m, path, err)) return -1;
  int rc = pdt_gguf_config(&config, m, err);
  if (!rc) rc = pdt_model_config_parse(out, config, NULL, path, notices, err);
  json_decref(config);
  pdt_gguf_model_close(m);
  return rc;
}

int pdt_model_config_load(pdt_model_config *out, const char *directory, pdt_notices *notices,
                          pdt_error *err) {
  json_t *config, *generation = NULL;
  char *where;
  if (pdt_is_gguf(directory)) return load_gguf(out, directory, notices, err);
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

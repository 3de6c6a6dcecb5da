#include "model/preset.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

typedef struct preset {
  const char *name, *model_type, *architecture;
  int hidden, ffn, layers, heads, kv_heads, head_dim, vocab, positions;
  double theta, eps;
  bool tied;
  double llama3_factor; /* 0: rope type default */
  int bos, eos;
} preset;

static const preset presets[] = {
    {"tiny", "llama", "LlamaForCausalLM", 64, 160, 4, 8, 4, 8, 259, 2048, 1e4, 1e-5, false, 0, 256,
     257},
    {"smollm2-135m", "llama", "LlamaForCausalLM", 576, 1536, 30, 9, 3, 64, 49152, 8192, 1e5, 1e-5,
     true, 0, 0, 0},
    {"smollm2-360m", "llama", "LlamaForCausalLM", 960, 2560, 32, 15, 5, 64, 49152, 8192, 1e5, 1e-5,
     true, 0, 0, 0},
    {"qwen2.5-0.5b", "qwen2", "Qwen2ForCausalLM", 896, 4864, 24, 14, 2, 64, 151936, 32768, 1e6,
     1e-6, true, 0, 151643, 151643},
    {"qwen3-0.6b", "qwen3", "Qwen3ForCausalLM", 1024, 3072, 28, 16, 8, 128, 151936, 40960, 1e6,
     1e-6, true, 0, 151643, 151645},
    {"llama-1b", "llama", "LlamaForCausalLM", 2048, 8192, 16, 32, 8, 64, 128256, 131072, 5e5, 1e-5,
     true, 32, 128000, 128001},
    {"mistral-7b", "mistral", "MistralForCausalLM", 4096, 14336, 32, 32, 8, 128, 32768, 32768, 1e6,
     1e-5, false, 0, 1, 2},
    {"llama-8b", "llama", "LlamaForCausalLM", 4096, 14336, 32, 32, 8, 128, 128256, 131072, 5e5,
     1e-5, false, 8, 128000, 128001},
};
enum { N_PRESETS = sizeof presets / sizeof *presets };

const char *pdt_model_preset_name(int i) {
  return i >= 0 && i < N_PRESETS ? presets[i].name : NULL;
}

static json_t *rope_scaling(const preset *p) {
  if (p->llama3_factor <= 0) return json_null();
  return json_pack("{s:s, s:f, s:f, s:f, s:i}", "rope_type", "llama3", "factor", p->llama3_factor,
                   "low_freq_factor", 1.0, "high_freq_factor", 4.0,
                   "original_max_position_embeddings", 8192);
}

static int unknown_preset(const char *name, pdt_error *err) {
  char known[256] = "";
  size_t at = 0;
  for (int i = 0; i < N_PRESETS && at < sizeof known; i++)
    at += (size_t)snprintf(known + at, sizeof known - at, "%s%s", i ? ", " : "", presets[i].name);
  return pdt_fail(err, PDT_ERROR_USAGE, "preset '%.80s': expected one of %s", name, known);
}

int pdt_model_preset(const char *name, char **config_text, pdt_error *err) {
  *config_text = NULL;
  int i = 0;
  while (i < N_PRESETS && strcmp(presets[i].name, name) != 0) i++;
  if (i == N_PRESETS) return unknown_preset(name, err);
  const preset *p = &presets[i];
  json_t *config = json_pack(
      "{s:[s], s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:f, s:o, s:b, s:s, s:i, s:i}",
      "architectures", p->architecture, "model_type", p->model_type, "hidden_size", p->hidden,
      "intermediate_size", p->ffn, "num_hidden_layers", p->layers, "num_attention_heads", p->heads,
      "num_key_value_heads", p->kv_heads, "head_dim", p->head_dim, "vocab_size", p->vocab,
      "max_position_embeddings", p->positions, "rms_norm_eps", p->eps, "rope_theta", p->theta,
      "rope_scaling", rope_scaling(p), "tie_word_embeddings", p->tied, "hidden_act", "silu",
      "bos_token_id", p->bos, "eos_token_id", p->eos);
  /* Version 0.3 of Mistral 7B: without the key, its family has a window. */
  if (config && strcmp(p->model_type, "mistral") == 0)
    json_object_set_new(config, "sliding_window", json_null());
  *config_text = config ? json_dumps(config, JSON_INDENT(1)) : NULL;
  json_decref(config);
  return *config_text ? 0 : pdt_fail(err, PDT_ERROR_MEMORY, "preset '%s': no memory", name);
}

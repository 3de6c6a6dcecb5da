#include "model/gguf_config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"

/* The model that is being read. */
typedef struct source {
  const pdt_gguf_model *m;
  const pdt_gguf *g; /* its first part, which has the metadata */
  const char *arch;
  int32_t head_dim;
  int64_t positions;
  double theta;
  json_t *out;
  pdt_error *err;
} source;

double pdt_gguf_plain_real(double value) {
  char text[40];
  for (int digits = 1; digits < 17; digits++) {
    snprintf(text, sizeof text, "%.*g", digits, value);
    if ((float)strtod(text, NULL) == (float)value) return strtod(text, NULL);
  }
  return value;
}

/* ---- keys ---- */

/* What architectures may say; everything else of theirs asks for something that is not computed. */
static const char *const known[] = {
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "vocab_size",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "attention.sliding_window",
    "attention.causal",
    "rope.freq_base",
    "rope.dimension_count",
    "rope.scale_linear",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.finetuned",
    "rope.scaling.attn_factor",
    "rope.scaling.yarn_ext_factor",
    "rope.scaling.yarn_attn_factor",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
    "expert_count",
    "expert_used_count",
};

static bool is_known(pdt_gguf_text name) {
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (pdt_gguf_is(name, known[i])) return true;
  return false;
}

static int refuse_unknown_keys(const source *s) {
  size_t prefix = strlen(s->arch);
  for (size_t i = 0; i < s->g->n_entries; i++) {
    pdt_gguf_text key = pdt_gguf_key(s->g, &s->g->entries[i]);
    if (key.bytes <= prefix || memcmp(key.text, s->arch, prefix) != 0 || key.text[prefix] != '.')
      continue;
    pdt_gguf_text name = {key.text + prefix + 1, key.bytes - prefix - 1};
    if (!is_known(name))
      return pdt_fail(s->err, PDT_ERROR_INPUT,
                      "%s: '%.*s': the model asks for what this runtime does not compute",
                      s->g->path, key.bytes < 200 ? (int)key.bytes : 200, key.text);
  }
  return 0;
}

static int put(const source *s, const char *key, json_t *value) {
  if (!json_object_set_new(s->out, key, value)) return 0;
  return pdt_fail(s->err, PDT_ERROR_MEMORY, "%s: no memory", s->g->path);
}

/* A key of the architecture as an integer of the config. */
static int copy_size(const source *s, const char *from, const char *to, int64_t high) {
  char key[PDT_GGUF_KEY_BYTES];
  int64_t value = 0;
  if (pdt_gguf_integer(s->g, pdt_gguf_arch_key(key, s->arch, from), 1, high, &value, NULL, s->err))
    return -1;
  return put(s, to, json_integer(value));
}

static int integer_or(const source *s, const char *name, int64_t high, int64_t *out) {
  char key[PDT_GGUF_KEY_BYTES];
  bool found;
  return pdt_gguf_integer(s->g, pdt_gguf_arch_key(key, s->arch, name), 0, high, out, &found,
                          s->err);
}

static int real_or(const source *s, const char *name, double *out) {
  char key[PDT_GGUF_KEY_BYTES];
  bool found;
  if (pdt_gguf_real(s->g, pdt_gguf_arch_key(key, s->arch, name), out, &found, s->err)) return -1;
  if (found) *out = pdt_gguf_plain_real(*out);
  return 0;
}

static int refuse(const source *s, const char *name, const char *expected, double found) {
  return pdt_fail(s->err, PDT_ERROR_INPUT, "%s: '%s.%s': expected %s, found %g", s->g->path,
                  s->arch, name, expected, found);
}

/* ---- sizes ---- */

/* Rows of the embedding, which count where the vocabulary has fewer tokens. */
static int put_vocabulary(const source *s) {
  const pdt_gguf_tensor *t = pdt_gguf_model_find(s->m, "token_embd.weight", NULL);
  if (!t || t->n_dims != 2)
    return pdt_fail(s->err, PDT_ERROR_INPUT, "%s: tensor 'token_embd.weight': %s", s->g->path,
                    t ? "expected 2 dimensions" : "is missing");
  return put(s, "vocab_size", json_integer(t->dims[1])) ||
                 put(s, "tie_word_embeddings",
                     json_boolean(!pdt_gguf_model_find(s->m, "output.weight", NULL)))
             ? -1
             : 0;
}

static int put_heads(source *s) {
  int64_t heads = 0, kv_heads, dim, value_dim;
  char key[PDT_GGUF_KEY_BYTES];
  if (pdt_gguf_head_dim(s->g, s->arch, &s->head_dim, s->err) ||
      pdt_gguf_integer(s->g, pdt_gguf_arch_key(key, s->arch, "attention.head_count"), 1, 4096,
                       &heads, NULL, s->err))
    return -1;
  kv_heads = heads;
  dim = value_dim = s->head_dim;
  if (integer_or(s, "attention.head_count_kv", 4096, &kv_heads) ||
      integer_or(s, "attention.value_length", 1 << 20, &value_dim) ||
      integer_or(s, "rope.dimension_count", 1 << 20, &dim))
    return -1;
  char expected[64];
  snprintf(expected, sizeof expected, "the size of a head, %d", s->head_dim);
  if (value_dim != s->head_dim)
    return refuse(s, "attention.value_length", expected, (double)value_dim);
  if (dim != s->head_dim) return refuse(s, "rope.dimension_count", expected, (double)dim);
  return put(s, "num_attention_heads", json_integer(heads)) ||
                 put(s, "num_key_value_heads", json_integer(kv_heads)) ||
                 put(s, "head_dim", json_integer(s->head_dim))
             ? -1
             : 0;
}

/* Biases that the config must tell of, by one layer's. */
static int put_biases(const source *s) {
  bool attention = pdt_gguf_model_find(s->m, "blk.0.attn_output.bias", NULL);
  bool mlp = pdt_gguf_model_find(s->m, "blk.0.ffn_down.bias", NULL);
  if (strcmp(s->arch, "qwen2") == 0) return 0;
  return put(s, "attention_bias", json_boolean(attention)) || put(s, "mlp_bias", json_boolean(mlp))
             ? -1
             : 0;
}

static int put_sizes(source *s) {
  char key[PDT_GGUF_KEY_BYTES];
  double eps = 0;
  int64_t experts = 0;
  bool causal = true, found;
  if (copy_size(s, "embedding_length", "hidden_size", 1 << 20) ||
      copy_size(s, "feed_forward_length", "intermediate_size", 1 << 22) ||
      copy_size(s, "block_count", "num_hidden_layers", PDT_MAX_LAYERS) ||
      copy_size(s, "context_length", "max_position_embeddings", 1 << 30) || put_heads(s) ||
      put_vocabulary(s) || put_biases(s) || integer_or(s, "expert_count", INT32_MAX, &experts) ||
      pdt_gguf_bool(s->g, pdt_gguf_arch_key(key, s->arch, "attention.causal"), &causal, &found,
                    s->err) ||
      pdt_gguf_real(s->g, pdt_gguf_arch_key(key, s->arch, "attention.layer_norm_rms_epsilon"), &eps,
                    NULL, s->err))
    return -1;
  if (experts) return refuse(s, "expert_count", "0: experts are not computed", (double)experts);
  if (!causal) return refuse(s, "attention.causal", "true", 0);
  s->positions = json_integer_value(json_object_get(s->out, "max_position_embeddings"));
  return put(s, "rms_norm_eps", json_real(pdt_gguf_plain_real(eps)));
}

/* ---- family and window ---- */

static int put_family(const source *s) {
  static const char *const rows[][3] = {{"llama", "llama", "LlamaForCausalLM"},
                                        {"qwen2", "qwen2", "Qwen2ForCausalLM"},
                                        {"qwen3", "qwen3", "Qwen3ForCausalLM"},
                                        {"", "mistral", "MistralForCausalLM"}};
  int64_t window = 0;
  size_t i = 0;
  if (integer_or(s, "attention.sliding_window", INT32_MAX, &window)) return -1;
  while (strcmp(rows[i][0], s->arch) != 0) i++;
  bool slides = window > 0 && window < s->positions;
  if (slides && i > 0)
    return refuse(s, "attention.sliding_window",
                  "none, or the context's length: which layers slide is not said", (double)window);
  if (slides) i = 3;
  return put(s, "model_type", json_string(rows[i][1])) ||
                 put(s, "architectures", json_pack("[s]", rows[i][2])) ||
                 put(s, "hidden_act", json_string("silu")) ||
                 (slides && put(s, "sliding_window", json_integer(window)))
             ? -1
             : 0;
}

/* ---- rope ---- */

void pdt_gguf_rope_factors(const pdt_rope *rope, int32_t head_dim, float *out) {
  double stretched[PDT_MAX_HEAD_DIM / 2], plain[PDT_MAX_HEAD_DIM / 2];
  const pdt_rope unscaled = {.type = PDT_ROPE_DEFAULT, .theta = rope->theta, .factor = 1};
  pdt_rope_frequencies(rope, head_dim, stretched);
  pdt_rope_frequencies(&unscaled, head_dim, plain);
  for (int32_t j = 0; j < head_dim / 2; j++) out[j] = (float)(plain[j] / stretched[j]);
}

/* Do these parameters of llama3 make the factors? Files have them from float arithmetic. */
static bool makes(const pdt_rope *rope, int32_t head_dim, const float *factors) {
  float made[PDT_MAX_HEAD_DIM / 2];
  pdt_gguf_rope_factors(rope, head_dim, made);
  for (int32_t j = 0; j < head_dim / 2; j++)
    if (!(fabsf(made[j] - factors[j]) <= 1e-4f * made[j])) return false;
  return true;
}

/* The parameters that models of this kind have: factors tell all but the original length, which the
 * metadata may have; 8192 otherwise. */
static int put_llama3(const source *s, const float *factors) {
  int64_t original = 8192;
  if (integer_or(s, "rope.scaling.original_context_length", 1 << 30, &original)) return -1;
  pdt_rope rope = {.type = PDT_ROPE_LLAMA3,
                   .theta = s->theta,
                   .factor = factors[s->head_dim / 2 - 1],
                   .original_positions = (double)original,
                   .low_freq_factor = 1,
                   .high_freq_factor = 4};
  if (!(rope.factor >= 1 && rope.factor < 1e6) || !makes(&rope, s->head_dim, factors))
    return pdt_fail(s->err, PDT_ERROR_INPUT,
                    "%s: tensor 'rope_freqs.weight': expected the factors of llama3 with "
                    "low_freq_factor 1, high_freq_factor 4 and an original length of %lld, found "
                    "others",
                    s->g->path, (long long)original);
  return put(s, "rope_scaling",
             json_pack("{s:s, s:f, s:f, s:f, s:I}", "rope_type", "llama3", "factor", rope.factor,
                       "low_freq_factor", 1.0, "high_freq_factor", 4.0,
                       "original_max_position_embeddings", (json_int_t)original));
}

static int read_factors(const source *s, float *out, bool *found) {
  const pdt_gguf *part;
  const pdt_gguf_tensor *t = pdt_gguf_model_find(s->m, "rope_freqs.weight", &part);
  *found = t != NULL;
  if (!t) return 0;
  if (strcmp(t->type->name, "F32") != 0 || t->n_dims != 1 || t->n_elems != s->head_dim / 2 ||
      s->head_dim > PDT_MAX_HEAD_DIM)
    return pdt_fail(s->err, PDT_ERROR_INPUT,
                    "%s: tensor 'rope_freqs.weight': expected %d of F32, found %lld of %s",
                    part->path, s->head_dim / 2, (long long)t->n_elems, t->type->name);
  return pdt_gguf_read(part, t->at, t->bytes, out, s->err);
}

/* A factor that is computed as 1 alone. */
static int expect_one(const source *s, const char *name) {
  double value = 1;
  if (real_or(s, name, &value)) return -1;
  return value == 1 ? 0 : refuse(s, name, "1", value);
}

static int put_yarn(const source *s, double factor) {
  int64_t original = s->positions;
  double fast = 32, slow = 1;
  if (expect_one(s, "rope.scaling.attn_factor") || expect_one(s, "rope.scaling.yarn_ext_factor") ||
      expect_one(s, "rope.scaling.yarn_attn_factor") ||
      real_or(s, "rope.scaling.yarn_beta_fast", &fast) ||
      real_or(s, "rope.scaling.yarn_beta_slow", &slow) ||
      integer_or(s, "rope.scaling.original_context_length", 1 << 30, &original))
    return -1;
  return put(s, "rope_scaling",
             json_pack("{s:s, s:f, s:I, s:f, s:f}", "rope_type", "yarn", "factor", factor,
                       "original_max_position_embeddings", (json_int_t)original, "beta_fast", fast,
                       "beta_slow", slow));
}

static int put_linear(const source *s, double factor) {
  return put(s, "rope_scaling", json_pack("{s:s, s:f}", "rope_type", "linear", "factor", factor));
}

static int put_scaling(const source *s) {
  char key[PDT_GGUF_KEY_BYTES];
  pdt_gguf_text type = {"none", 4};
  double factor = 1;
  bool found;
  if (real_or(s, "rope.scale_linear", &factor) || real_or(s, "rope.scaling.factor", &factor) ||
      pdt_gguf_string(s->g, pdt_gguf_arch_key(key, s->arch, "rope.scaling.type"), &type, &found,
                      s->err))
    return -1;
  if (pdt_gguf_is(type, "yarn")) return put_yarn(s, factor);
  if (pdt_gguf_is(type, "linear") || (!found && factor != 1))
    return factor == 1 ? 0 : put_linear(s, factor);
  if (pdt_gguf_is(type, "none")) return 0;
  return pdt_fail(s->err, PDT_ERROR_INPUT, "%s: '%s': expected none, linear or yarn, found '%.*s'",
                  s->g->path, key, type.bytes < 80 ? (int)type.bytes : 80, type.text);
}

static int put_rope(source *s) {
  float factors[PDT_MAX_HEAD_DIM / 2];
  bool found;
  s->theta = 10000;
  if (real_or(s, "rope.freq_base", &s->theta) || put(s, "rope_theta", json_real(s->theta)) ||
      put_scaling(s) || read_factors(s, factors, &found))
    return -1;
  if (!found) return 0;
  if (json_object_get(s->out, "rope_scaling"))
    return pdt_fail(s->err, PDT_ERROR_INPUT,
                    "%s: tensor 'rope_freqs.weight': expected no rope.scaling beside it",
                    s->g->path);
  return put_llama3(s, factors);
}

/* ---- tokens ---- */

static int put_ids(const source *s) {
  static const char *const ends[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                     "tokenizer.ggml.eom_token_id"};
  int64_t id = 0, most = json_integer_value(json_object_get(s->out, "vocab_size")) - 1;
  bool found;
  json_t *eos = json_array();
  int rc = put(s, "eos_token_id", eos);
  for (size_t i = 0; i < sizeof ends / sizeof *ends && !rc; i++) {
    rc = pdt_gguf_integer(s->g, ends[i], 0, most, &id, &found, s->err);
    if (!rc && found) json_array_append_new(eos, json_integer(id));
  }
  if (!rc) rc = pdt_gguf_integer(s->g, "tokenizer.ggml.bos_token_id", 0, most, &id, &found, s->err);
  if (!rc && found) rc = put(s, "bos_token_id", json_integer(id));
  if (!rc && json_array_size(eos) == 1)
    rc = put(s, "eos_token_id", json_integer(json_integer_value(json_array_get(eos, 0))));
  return rc;
}

int pdt_gguf_config(json_t **out, const pdt_gguf_model *m, pdt_error *err) {
  source s = {.m = m, .g = m->parts[0], .out = json_object(), .err = err};
  *out = NULL;
  int rc = s.out ? 0 : pdt_fail(err, PDT_ERROR_MEMORY, "%s: no memory", s.g->path);
  if (!rc) rc = pdt_gguf_architecture(s.g, &s.arch, err);
  if (!rc) rc = refuse_unknown_keys(&s);
  if (!rc) rc = put_sizes(&s);
  if (!rc) rc = put_family(&s);
  if (!rc) rc = put_rope(&s);
  if (!rc) rc = put_ids(&s);
  if (rc) {
    json_decref(s.out);
    return -1;
  }
  *out = s.out;
  return 0;
}

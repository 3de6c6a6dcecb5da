#include "model/gguf_export.h"

#include <math.h>
#include <string.h>

#include "store/gguf_model.h"

/* The metadata that is being made. */
typedef struct sink {
  pdt_gguf_metadata *m;
  const char *arch, *where;
  pdt_error *err;
} sink;

const char *pdt_gguf_architecture_of(pdt_family family) {
  return family == PDT_FAMILY_QWEN2 ? "qwen2" : family == PDT_FAMILY_QWEN3 ? "qwen3" : "llama";
}

static void put_size(const sink *s, const char *name, int64_t value) {
  char key[PDT_GGUF_KEY_BYTES];
  pdt_gguf_put_u32(s->m, pdt_gguf_arch_key(key, s->arch, name), (uint32_t)value);
}

static void put_real(const sink *s, const char *name, double value) {
  char key[PDT_GGUF_KEY_BYTES];
  pdt_gguf_put_f32(s->m, pdt_gguf_arch_key(key, s->arch, name), (float)value);
}

static int refuse(const sink *s, const char *what) {
  return pdt_fail(s->err, PDT_ERROR_INPUT, "%s: GGUF cannot say %s", s->where, what);
}

static int put_window(const sink *s, const pdt_model_config *c) {
  if (!c->window || c->window >= c->max_positions) return 0;
  for (pdt_layer l = 0; l < c->layers; l++)
    if (!pdt_model_window(c, l) || c->family != PDT_FAMILY_MISTRAL)
      return refuse(s, "which layers have a sliding window");
  put_size(s, "attention.sliding_window", c->window);
  return 0;
}

static int put_yarn(const sink *s, const pdt_rope *r) {
  double scale = r->factor <= 1 ? 1 : 0.1 * log(r->factor) + 1;
  if (!r->truncate || fabs(r->scale - scale) > 1e-6)
    return refuse(s, r->truncate ? "another scale of yarn's rope" : "yarn's bounds unrounded");
  put_size(s, "rope.scaling.original_context_length", (int64_t)r->original_positions);
  put_real(s, "rope.scaling.yarn_beta_fast", r->beta_fast);
  put_real(s, "rope.scaling.yarn_beta_slow", r->beta_slow);
  return 0;
}

static int put_rope(const sink *s, const pdt_rope *r) {
  char key[PDT_GGUF_KEY_BYTES];
  put_real(s, "rope.freq_base", r->theta);
  if (r->type == PDT_ROPE_DEFAULT) return 0;
  if (r->type == PDT_ROPE_LLAMA3) { /* rope_freqs has the rest */
    put_size(s, "rope.scaling.original_context_length", (int64_t)r->original_positions);
    return r->low_freq_factor == 1 && r->high_freq_factor == 4
               ? 0
               : refuse(s, "bounds of llama3's rope that are not 1 and 4");
  }
  const char *type = r->type == PDT_ROPE_YARN ? "yarn" : "linear";
  pdt_gguf_put_string(s->m, pdt_gguf_arch_key(key, s->arch, "rope.scaling.type"),
                      pdt_gguf_text_of(type));
  put_real(s, "rope.scaling.factor", r->factor);
  return r->type == PDT_ROPE_YARN ? put_yarn(s, r) : 0;
}

int pdt_gguf_put_config(pdt_gguf_metadata *m, const pdt_model_config *c, const char *where,
                        pdt_error *err) {
  const sink s = {m, pdt_gguf_architecture_of(c->family), where, err};
  pdt_gguf_put_string(m, "general.architecture", pdt_gguf_text_of(s.arch));
  put_size(&s, "block_count", c->layers);
  put_size(&s, "context_length", c->max_positions);
  put_size(&s, "embedding_length", c->hidden_size);
  put_size(&s, "feed_forward_length", c->intermediate_size);
  put_size(&s, "vocab_size", c->vocab_size);
  put_size(&s, "attention.head_count", c->heads);
  put_size(&s, "attention.head_count_kv", c->kv_heads);
  put_size(&s, "attention.key_length", c->head_dim);
  put_size(&s, "attention.value_length", c->head_dim);
  put_size(&s, "rope.dimension_count", c->head_dim);
  put_real(&s, "attention.layer_norm_rms_epsilon", c->rms_norm_eps);
  return put_window(&s, c) || put_rope(&s, &c->rope) ? -1 : 0;
}

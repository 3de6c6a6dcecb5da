#include "store/gguf_model.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PARTS = 9999 };
static const char rope_freqs[] = "rope_freqs.weight";

/* ---- parts ---- */

static int open_one(pdt_gguf_model *m, const char *path, pdt_error *err) {
  if (pdt_gguf_open(&m->parts[m->n_parts], path, err)) return -1;
  m->n_parts++;
  return 0;
}

/* What a part says of itself must be what its place says. */
static int check_part(const pdt_gguf *g, int32_t index, int32_t count, pdt_error *err) {
  int64_t number = 0, of = 0;
  if (pdt_gguf_integer(g, "split.no", 0, MAX_PARTS, &number, NULL, err) ||
      pdt_gguf_integer(g, "split.count", 0, MAX_PARTS, &of, NULL, err))
    return -1;
  if (number == index && of == count) return 0;
  return pdt_fail(err, PDT_ERROR_INPUT,
                  "%s: expected part %d of %d, found split.no %lld of split.count %lld", g->path,
                  index, count, (long long)number, (long long)of);
}

/* The path of a part from that of the first; NULL where that is not called so, or without memory.
 */
static char *part_path(const char *first, int32_t index, int32_t count) {
  char end[32], number[16];
  size_t bytes = strlen(first), n = (size_t)snprintf(end, sizeof end, "-00001-of-%05d.gguf", count);
  if (bytes < n || strcmp(first + bytes - n, end) != 0) return NULL;
  char *path = strdup(first);
  snprintf(number, sizeof number, "%05d", index + 1);
  if (path) memcpy(path + bytes - n + 1, number, 5);
  return path;
}

static int open_rest(pdt_gguf_model *m, const char *path, int32_t count, pdt_error *err) {
  if (check_part(m->parts[0], 0, count, err))
    return pdt_fail_hint(err, "name the first part: the others are found beside it");
  for (int32_t i = 1; i < count; i++) {
    char *name = part_path(path, i, count);
    if (!name)
      return pdt_fail(err, PDT_ERROR_INPUT,
                      "%s: is the first of %d parts: expected a name that ends in "
                      "-00001-of-%05d.gguf",
                      path, count, count);
    int rc = open_one(m, name, err);
    free(name);
    if (rc) return pdt_fail_in(err, "part %d of %d", i + 1, count);
    if (check_part(m->parts[i], i, count, err)) return -1;
  }
  return 0;
}

/* The number of tensors that the first part promises, and each name once. */
static int check_tensors(const pdt_gguf_model *m, pdt_error *err) {
  int64_t promised = 0, n = 0;
  if (pdt_gguf_integer(m->parts[0], "split.tensors.count", 0, INT32_MAX, &promised, NULL, err))
    return -1;
  for (int32_t i = 0; i < m->n_parts; i++) n += (int64_t)m->parts[i]->n_tensors;
  if (n == promised) return 0;
  return pdt_fail(err, PDT_ERROR_INPUT,
                  "%s: 'split.tensors.count': expected the %lld tensors of all parts, found %lld",
                  m->parts[0]->path, (long long)n, (long long)promised);
}

static int open_parts(pdt_gguf_model *m, const char *path, pdt_error *err) {
  int64_t count = 1;
  bool split;
  if (PDT_NEW(&m->parts, MAX_PARTS, "list of parts", err) || open_one(m, path, err) ||
      pdt_gguf_integer(m->parts[0], "split.count", 0, MAX_PARTS, &count, &split, err))
    return -1;
  if (!split || count < 2) return 0;
  return open_rest(m, path, (int32_t)count, err) || check_tensors(m, err) ? -1 : 0;
}

int pdt_gguf_model_open(pdt_gguf_model **out, const char *path, pdt_error *err) {
  *out = NULL;
  pdt_gguf_model *m;
  if (PDT_NEW(&m, 1, "GGUF model", err)) return -1;
  if (open_parts(m, path, err)) {
    pdt_gguf_model_close(m);
    return -1;
  }
  *out = m;
  return 0;
}

void pdt_gguf_model_close(pdt_gguf_model *m) {
  if (!m) return;
  for (int32_t i = 0; i < m->n_parts; i++) pdt_gguf_close(m->parts[i]);
  free(m->parts);
  free(m);
}

const pdt_gguf_tensor *pdt_gguf_model_find(const pdt_gguf_model *m, const char *name,
                                           const pdt_gguf **part) {
  for (int32_t i = 0; i < m->n_parts; i++)
    for (size_t k = 0; k < m->parts[i]->n_tensors; k++)
      if (strcmp(m->parts[i]->tensors[k].name, name) == 0) {
        if (part) *part = m->parts[i];
        return &m->parts[i]->tensors[k];
      }
  return NULL;
}

/* ---- the architecture ---- */

int pdt_gguf_architecture(const pdt_gguf *first, const char **out, pdt_error *err) {
  static const char *const known[] = {"llama", "qwen2", "qwen3"};
  pdt_gguf_text arch;
  if (pdt_gguf_string(first, "general.architecture", &arch, NULL, err)) return -1;
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (pdt_gguf_is(arch, known[i])) {
      *out = known[i];
      return 0;
    }
  return pdt_fail(err, PDT_ERROR_INPUT,
                  "%s: 'general.architecture': expected llama, qwen2 or qwen3, found '%.*s'",
                  first->path, arch.bytes < 80 ? (int)arch.bytes : 80, arch.text);
}

const char *pdt_gguf_arch_key(char key[PDT_GGUF_KEY_BYTES], const char *arch, const char *name) {
  snprintf(key, PDT_GGUF_KEY_BYTES, "%s.%s", arch, name);
  return key;
}

int pdt_gguf_head_dim(const pdt_gguf *first, const char *arch, int32_t *out, pdt_error *err) {
  char key[PDT_GGUF_KEY_BYTES];
  int64_t hidden = 0, heads = 0, dim = 0;
  bool found;
  if (pdt_gguf_integer(first, pdt_gguf_arch_key(key, arch, "attention.key_length"), 1, 1 << 20,
                       &dim, &found, err) ||
      pdt_gguf_integer(first, pdt_gguf_arch_key(key, arch, "embedding_length"), 1, 1 << 20, &hidden,
                       NULL, err) ||
      pdt_gguf_integer(first, pdt_gguf_arch_key(key, arch, "attention.head_count"), 1, 4096, &heads,
                       NULL, err))
    return -1;
  if (!found && hidden % heads)
    return pdt_fail(err, PDT_ERROR_INPUT,
                    "%s: '%s': expected a divisor of embedding_length = %lld, found %lld",
                    first->path, key, (long long)hidden, (long long)heads);
  *out = (int32_t)(found ? dim : hidden / heads);
  return 0;
}

/* ---- names ---- */

static const struct name_pair {
  const char *gguf, *hf;
} whole[] = {{"token_embd.weight", "model.embed_tokens.weight"},
             {"output_norm.weight", "model.norm.weight"},
             {"output.weight", "lm_head.weight"}},
  of_layer[] = {{"attn_norm", "input_layernorm"},    {"attn_q", "self_attn.q_proj"},
                {"attn_k", "self_attn.k_proj"},      {"attn_v", "self_attn.v_proj"},
                {"attn_output", "self_attn.o_proj"}, {"attn_q_norm", "self_attn.q_norm"},
                {"attn_k_norm", "self_attn.k_norm"}, {"ffn_norm", "post_attention_layernorm"},
                {"ffn_gate", "mlp.gate_proj"},       {"ffn_up", "mlp.up_proj"},
                {"ffn_down", "mlp.down_proj"}};
enum { N_WHOLE = sizeof whole / sizeof *whole, N_OF_LAYER = sizeof of_layer / sizeof *of_layer };

/* A layer's tensor taken apart: "blk.3.attn_q.weight" is layer 3, "attn_q" and ".weight". */
static bool split_name(const char *name, const char *prefix, long *layer, const char **part,
                       size_t *bytes) {
  size_t n = strlen(prefix);
  char *end;
  if (strncmp(name, prefix, n) != 0 || name[n] < '0' || name[n] > '9') return false;
  *layer = strtol(name + n, &end, 10);
  const char *dot = strrchr(end, '.');
  if (*end != '.' || dot == end || (name[n] == '0' && end > name + n + 1)) return false;
  *part = end + 1;
  *bytes = (size_t)(dot - *part);
  return strcmp(dot, ".weight") == 0 || strcmp(dot, ".bias") == 0;
}

static bool is_part(const char *part, size_t bytes, const char *name) {
  return strlen(name) == bytes && memcmp(part, name, bytes) == 0;
}

bool pdt_gguf_tensor_name(char out[64], const char *name) {
  long layer;
  const char *part;
  size_t bytes;
  for (int i = 0; i < N_WHOLE; i++)
    if (strcmp(name, whole[i].hf) == 0) {
      snprintf(out, 64, "%s", whole[i].gguf);
      return true;
    }
  if (!split_name(name, "model.layers.", &layer, &part, &bytes)) return false;
  for (int i = 0; i < N_OF_LAYER; i++)
    if (is_part(part, bytes, of_layer[i].hf)) {
      snprintf(out, 64, "blk.%ld.%s%s", layer, of_layer[i].gguf, part + bytes);
      return true;
    }
  return false;
}

/* Hugging Face's name of a tensor in room for 96 bytes; false when there is none. */
static bool hf_name(char *out, const char *name, int64_t layers) {
  long layer;
  const char *part;
  size_t bytes;
  for (int i = 0; i < N_WHOLE; i++)
    if (strcmp(name, whole[i].gguf) == 0) {
      snprintf(out, 96, "%s", whole[i].hf);
      return true;
    }
  if (!split_name(name, "blk.", &layer, &part, &bytes) || layer >= layers) return false;
  for (int i = 0; i < N_OF_LAYER; i++)
    if (is_part(part, bytes, of_layer[i].gguf)) {
      snprintf(out, 96, "model.layers.%ld.%s%s", layer, of_layer[i].hf, part + bytes);
      return true;
    }
  return false;
}

/* ---- tensors ---- */

/* What the parts of a model have in common. */
typedef struct mapping {
  const char *arch;
  int64_t layers;
  int32_t head_dim;
} mapping;

static int read_mapping(mapping *map, const pdt_gguf *first, pdt_error *err) {
  char key[PDT_GGUF_KEY_BYTES];
  if (pdt_gguf_architecture(first, &map->arch, err)) return -1;
  return pdt_gguf_integer(first, pdt_gguf_arch_key(key, map->arch, "block_count"), 1, 1 << 20,
                          &map->layers, NULL, err) ||
                 pdt_gguf_head_dim(first, map->arch, &map->head_dim, err)
             ? -1
             : 0;
}

/* Llama's queries and keys, and their biases, turn in pairs of neighbors there. */
static bool turns(const mapping *map, const char *name) {
  return strcmp(map->arch, "llama") == 0 &&
         (strstr(name, ".self_attn.q_proj.") || strstr(name, ".self_attn.k_proj."));
}

static int map_tensor(pdt_tensor *out, const mapping *map, const pdt_gguf *g,
                      const pdt_gguf_tensor *t, char *name, pdt_error *err) {
  if (!hf_name(name, t->name, map->layers))
    return pdt_fail(err, PDT_ERROR_INPUT,
                    "%s: tensor '%s': expected one of the %lld layers of a model of architecture "
                    "%s, found a name that none has",
                    g->path, t->name, (long long)map->layers, map->arch);
  out->name = name;
  out->dtype_name = t->type->name;
  out->is_float = pdt_dtype_parse(t->type->name, &out->dtype);
  out->n_dims = t->n_dims;
  for (int32_t i = 0; i < t->n_dims; i++) out->shape[i] = t->dims[t->n_dims - 1 - i];
  out->n_elems = t->n_elems;
  out->at = t->at;
  out->bytes = t->bytes;
  if (!turns(map, name)) return 0;
  out->pairs = map->head_dim;
  if (map->head_dim % 2 == 0 && out->shape[0] % map->head_dim == 0 &&
      (t->n_dims == 2 || (t->n_dims == 1 && t->type->elems == 1)))
    return 0;
  char shape[160];
  pdt_shape_text(out->n_dims, out->shape, shape, sizeof shape);
  return pdt_fail(err, PDT_ERROR_INPUT,
                  "%s: tensor '%s': expected rows for whole heads of %d, found shape %s of %s",
                  g->path, t->name, map->head_dim, shape, t->type->name);
}

static int by_hf_name(const void *a, const void *b) {
  return strcmp(((const pdt_tensor *)a)->name, ((const pdt_tensor *)b)->name);
}

static int map_tensors(pdt_safetensors *file, const mapping *map, const pdt_gguf *g,
                       pdt_error *err) {
  if (PDT_NEW(&file->tensors, g->n_tensors, "list of tensors", err) ||
      PDT_NEW(&file->names, g->n_tensors * 96, "list of tensors", err))
    return -1;
  for (size_t i = 0; i < g->n_tensors; i++) {
    pdt_tensor *t = &file->tensors[file->n_tensors];
    char *name = file->names + (size_t)file->n_tensors * 96;
    if (strcmp(g->tensors[i].name, rope_freqs) == 0) continue;
    t->file = file;
    if (map_tensor(t, map, g, &g->tensors[i], name, err)) return -1;
    file->n_tensors++;
  }
  if (file->n_tensors)
    qsort(file->tensors, (size_t)file->n_tensors, sizeof *file->tensors, by_hf_name);
  return 0;
}

int pdt_gguf_part_tensors(pdt_safetensors **out, const pdt_gguf_model *m, int32_t index,
                          pdt_error *err) {
  mapping map = {0};
  const pdt_gguf *g = m->parts[index];
  *out = NULL;
  pdt_safetensors *file;
  if (read_mapping(&map, m->parts[0], err) || PDT_NEW(&file, 1, "file of tensors", err)) return -1;
  file->fd = g->fd < 0 ? -1 : fcntl(g->fd, F_DUPFD_CLOEXEC, 0);
  file->bytes = g->bytes;
  file->file_bytes = g->file_bytes;
  file->data_offset = g->data_offset;
  file->state = g->state;
  file->path = strdup(g->path);
  int rc = map_tensors(file, &map, g, err);
  if (!rc && (!file->path || (g->fd >= 0 && file->fd < 0)))
    rc = pdt_fail(err, PDT_ERROR_IO, "%s: cannot keep it open: %s", g->path, strerror(errno));
  if (rc) {
    pdt_safetensors_close(file);
    return -1;
  }
  *out = file;
  return 0;
}

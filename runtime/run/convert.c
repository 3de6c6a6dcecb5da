#include "run/convert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/finite.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/text_safe.h"
#include "model/gguf_config.h"
#include "model/gguf_export.h"
#include "model/tensors.h"
#include "run/outputs.h"
#include "text/gguf_export.h"
#include "text/gguf_tokenizer.h"

static const pdt_bytes max_json_bytes = (pdt_bytes)512 << 20;

/* A conversion under way. */
typedef struct conversion {
  const pdt_convert_options *o;
  bool to_gguf;
  pdt_gguf_model *gguf; /* the source; NULL: a directory */
  pdt_model_config config;
  pdt_checkpoint *checkpoint;
  json_t *config_json;      /* of a source in GGUF */
  json_t *tokenizer_json;   /* NULL: it has none */
  char *tokenizer_text;     /* the same as it stands in a file */
  pdt_tokenizer *tokenizer; /* the same */
  char *template;           /* of a chat; NULL without */
  int32_t n;
  const pdt_tensor **from; /* [n]; NULL for rope_freqs */
  pdt_tensor_spec *specs;  /* [n] of the target */
  char (*names)[PDT_TENSOR_NAME_BYTES];
  float factors[PDT_MAX_HEAD_DIM / 2]; /* rope_freqs */
  void *raw;                           /* a chunk as it is in the source */
  float *widened;                      /* and as floats */
  pdt_error *err;
} conversion;

/* ---- what the source says ---- */

/* A file of the source's folder, and the JSON in it; NULL where there is none. */
static int load_file(const conversion *c, const char *name, char **text, json_t **json) {
  char *path;
  pdt_bytes bytes;
  *text = NULL;
  if (pdt_path_join(&path, c->o->source, name, c->err)) return -1;
  int rc = 0;
  if (pdt_path_is_there(path)) {
    rc = pdt_file_read(text, &bytes, path, max_json_bytes, c->err);
    if (!rc && json) rc = pdt_json_parse_serde(json, *text, (size_t)bytes, path, c->err);
  }
  free(path);
  return rc;
}

/* The template of a folder: a file of its own, or a key of tokenizer_config.json. */
static int load_template(conversion *c) {
  json_t *config = NULL;
  char *text = NULL;
  if (load_file(c, "chat_template.jinja", &c->template, NULL)) return -1;
  if (c->template) return 0;
  int rc = load_file(c, "tokenizer_config.json", &text, &config);
  const char *template = json_string_value(json_object_get(config, "chat_template"));
  if (!rc && template && !(c->template = strdup(template)))
    rc = pdt_fail(c->err, PDT_ERROR_MEMORY, "chat_template: no memory");
  json_decref(config);
  free(text);
  return rc;
}

static int load_gguf(conversion *c) {
  pdt_gguf_text template;
  bool found;
  if (pdt_gguf_model_open(&c->gguf, c->o->source, c->err) ||
      pdt_gguf_config(&c->config_json, c->gguf, c->err) ||
      pdt_gguf_string(c->gguf->parts[0], "tokenizer.chat_template", &template, &found, c->err))
    return -1;
  if (found && !(c->template = strndup(template.text, template.bytes)))
    return pdt_fail(c->err, PDT_ERROR_MEMORY, "tokenizer.chat_template: no memory");
  if (!pdt_gguf_has_tokenizer(c->gguf->parts[0])) return 0;
  return pdt_gguf_tokenizer(&c->tokenizer_json, &c->tokenizer_text, c->gguf->parts[0], c->err);
}

static int load_source(conversion *c) {
  const char *source = c->o->source;
  if (pdt_is_gguf(source)
          ? load_gguf(c)
          : load_file(c, "tokenizer.json", &c->tokenizer_text, &c->tokenizer_json) ||
                load_template(c))
    return -1;
  return pdt_model_config_load(&c->config, source, NULL, c->err) ||
                 pdt_checkpoint_open(&c->checkpoint, source, NULL, c->err) ||
                 pdt_model_tensors_check(&c->config, c->checkpoint, NULL, c->err) ||
                 pdt_tokenizer_load_if_any(&c->tokenizer, source, c->err)
             ? -1
             : 0;
}

/* ---- the list of tensors ---- */

static bool is_head(const conversion *c, const char *name) {
  return strcmp(name, c->config.tie_word_embeddings ? PDT_TENSOR_EMBEDDING : PDT_TENSOR_HEAD) == 0;
}

/* What a tensor becomes. */
static pdt_dtype choose_dtype(const conversion *c, const pdt_tensor *t, const char *name) {
  bool quantized = c->o->has_dtype && pdt_dtype_quantized(c->o->dtype);
  if (c->to_gguf && t->n_dims == 1) return PDT_F32;
  if (!c->o->has_dtype) return !c->to_gguf && pdt_dtype_quantized(t->dtype) ? PDT_F32 : t->dtype;
  if (!quantized) return c->o->dtype;
  if (t->shape[1] % pdt_dtype_block_of(c->o->dtype).elems) return PDT_F16;
  return is_head(c, name) ? PDT_Q8_0 : c->o->dtype;
}

/* Lists a tensor of the source, unless there is none. */
static void list_tensor(conversion *c, const pdt_wanted_tensor *want) {
  const pdt_tensor *t = pdt_model_tensor_find(&c->config, c->checkpoint, want->name);
  if (!t || (c->config.tie_word_embeddings && strcmp(want->name, PDT_TENSOR_HEAD) == 0)) return;
  char *name = c->names[c->n];
  if (!c->to_gguf || !pdt_gguf_tensor_name(name, want->name))
    snprintf(name, sizeof *c->names, "%s", want->name);
  c->from[c->n] = t;
  c->specs[c->n] = pdt_wanted_spec(want, choose_dtype(c, t, want->name));
  c->specs[c->n++].name = name;
}

static int list_tensors(conversion *c) {
  int32_t most = pdt_model_tensor_count(&c->config);
  if (PDT_NEW(&c->from, most + 1, "list of tensors", c->err) ||
      PDT_NEW(&c->specs, most + 1, "list of tensors", c->err) ||
      PDT_NEW(&c->names, most + 1, "list of tensors", c->err) ||
      PDT_NEW((char **)&c->raw, PDT_WRITE_CHUNK_ELEMS * sizeof(float), "chunk", c->err) ||
      PDT_NEW(&c->widened, PDT_WRITE_CHUNK_ELEMS, "chunk", c->err))
    return -1;
  if (c->to_gguf && c->config.rope.type == PDT_ROPE_LLAMA3) {
    pdt_gguf_rope_factors(&c->config.rope, c->config.head_dim, c->factors);
    c->specs[c->n++] = (pdt_tensor_spec){"rope_freqs.weight", PDT_F32, 1, {c->config.head_dim / 2}};
  }
  for (int32_t i = 0; i < most; i++) {
    pdt_wanted_tensor want;
    pdt_model_tensor_at(&c->config, i, &want);
    list_tensor(c, &want);
  }
  return 0;
}

/* ---- values ---- */

/* Does the target have the rows of this tensor's heads in pairs (gguf_model.h)? */
static bool turns(const conversion *c, int32_t index) {
  const char *name = c->from[index]->name;
  return c->to_gguf && strcmp(pdt_gguf_architecture_of(c->config.family), "llama") == 0 &&
         (strstr(name, ".self_attn.q_proj.") || strstr(name, ".self_attn.k_proj."));
}

/* The row of Hugging Face's order that is row `row` of them. */
static int64_t row_of_pair(const conversion *c, int64_t row) {
  int64_t dim = c->config.head_dim, at = row % dim;
  return row - at + at % 2 * (dim / 2) + at / 2;
}

/* Elements of one row, or of many that follow one another, in the target's type. */
static int convert_piece(const conversion *c, int32_t index, int64_t first, int64_t n, char *to) {
  const pdt_tensor *from = c->from[index];
  pdt_dtype dtype = c->specs[index].dtype;
  if (from->dtype == dtype) return pdt_tensor_read(from, first, n, to, c->err);
  if (pdt_tensor_read(from, first, n, c->raw, c->err)) return -1;
  pdt_to_float(from->dtype, c->raw, n, c->widened);
  if (pdt_from_float(dtype, c->widened, n, to)) return 0;
  return pdt_fail(c->err, PDT_ERROR_RUNTIME, "%s: is not made of floats", pdt_dtype_name(dtype));
}

/* Elements of rows that stand in pairs, row by row. */
static int convert_pairs(const conversion *c, int32_t index, int64_t first, int64_t n, char *to) {
  int64_t width = c->specs[index].n_dims > 1 ? c->specs[index].shape[1] : 1;
  for (int64_t at = first, piece; at < first + n; at += piece) {
    int64_t col = at % width, left = first + n - at;
    piece = width - col < left ? width - col : left;
    if (convert_piece(c, index, row_of_pair(c, at / width) * width + col, piece, to)) return -1;
    to += pdt_dtype_row_bytes(c->specs[index].dtype, piece);
  }
  return 0;
}

/* A chunk of the target. Behind the last one the source must still be what it was, or nothing is
 * written. */
static int convert_chunk(void *context, int32_t index, int64_t first, int64_t n, void *chunk,
                         pdt_error *err) {
  const conversion *c = context;
  pdt_dtype dtype = c->specs[index].dtype;
  if (!c->from[index]) {
    memcpy(chunk, c->factors + first, (size_t)n * sizeof *c->factors);
    return 0;
  }
  if (turns(c, index) ? convert_pairs(c, index, first, n, chunk)
                      : convert_piece(c, index, first, n, chunk))
    return -1;
  int64_t bad = pdt_first_not_finite(dtype, chunk, n);
  bool last = index + 1 == c->n && first + n == pdt_tensor_spec_elems(&c->specs[index]);
  if (bad < 0) return last ? pdt_checkpoint_unchanged(c->checkpoint, err) : 0;
  return pdt_fail(err, PDT_ERROR_INPUT, "%s: tensor '%s': element %lld is not finite as %s",
                  c->from[index]->file->path, c->from[index]->name, (long long)(first + bad),
                  pdt_dtype_name(dtype));
}

/* ---- into GGUF ---- */

static void put_type(const conversion *c, pdt_gguf_metadata *m) {
  static const uint32_t file_types[PDT_DTYPES] = {
      [PDT_F32] = 0, [PDT_F16] = 1, [PDT_BF16] = 32, [PDT_Q8_0] = 7, [PDT_Q4_0] = 2};
  bool quantized = false;
  for (int32_t i = 0; i < c->n; i++) quantized |= pdt_dtype_quantized(c->specs[i].dtype);
  if (c->o->has_dtype) pdt_gguf_put_u32(m, "general.file_type", file_types[c->o->dtype]);
  if (quantized) pdt_gguf_put_u32(m, "general.quantization_version", 2);
}

static int write_gguf(conversion *c) {
  pdt_gguf_metadata m = {0};
  const pdt_gguf_export tokens = {c->tokenizer_json,    c->tokenizer_text, c->tokenizer,
                                  c->config.vocab_size, c->config.bos,     c->config.eos,
                                  c->config.n_eos,      c->o->source};
  int rc = pdt_gguf_put_config(&m, &c->config, c->o->source, c->err);
  put_type(c, &m);
  if (!rc) rc = pdt_gguf_put_tokenizer(&m, &tokens, c->err);
  if (!rc && c->template)
    pdt_gguf_put_string(&m, "tokenizer.chat_template", pdt_gguf_text_of(c->template));
  if (!rc) rc = pdt_gguf_write(c->o->target, &m, c->specs, c->n, convert_chunk, c, c->err);
  pdt_gguf_metadata_free(&m);
  return rc;
}

/* ---- into a directory ---- */

static int write_text(const conversion *c, const char *name, const char *text) {
  char *path;
  if (pdt_path_join(&path, c->o->target, name, c->err)) return -1;
  int rc = pdt_file_write_text(path, text, c->err);
  free(path);
  return rc;
}

static int write_json(const conversion *c, const char *name, json_t *value) {
  char *text = value ? json_dumps(value, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) : NULL;
  json_decref(value);
  if (!text) return pdt_fail(c->err, PDT_ERROR_MEMORY, "%s: no memory", name);
  int rc = write_text(c, name, text);
  free(text);
  return rc;
}

/* A special token's text, by the key of its id. */
static json_t *named_token(const conversion *c, const char *key) {
  int64_t id = 0;
  bool found = false;
  size_t bytes;
  (void)pdt_gguf_integer(c->gguf->parts[0], key, 0, c->config.vocab_size - 1, &id, &found, NULL);
  const char *text = found ? pdt_tokenizer_added(c->tokenizer, (pdt_token)id, &bytes) : NULL;
  return text ? json_stringn_nocheck(text, bytes) : NULL;
}

static json_t *tokenizer_config(const conversion *c) {
  static const char *const names[][2] = {{"bos_token", "tokenizer.ggml.bos_token_id"},
                                         {"eos_token", "tokenizer.ggml.eos_token_id"},
                                         {"unk_token", "tokenizer.ggml.unknown_token_id"},
                                         {"pad_token", "tokenizer.ggml.padding_token_id"}};
  json_t *out =
      json_pack("{s:s, s:i, s:b}", "tokenizer_class", "PreTrainedTokenizerFast", "model_max_length",
                c->config.max_positions, "clean_up_tokenization_spaces", 0);
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    json_t *text = named_token(c, names[i][1]);
    if (text) json_object_set_new(out, names[i][0], text);
  }
  if (c->template) json_object_set_new(out, "chat_template", json_string(c->template));
  return out;
}

static json_t *generation_config(const conversion *c) {
  json_t *out = json_object();
  static const char *const keys[] = {"bos_token_id", "eos_token_id"};
  for (int i = 0; i < 2; i++)
    if (json_object_get(c->config_json, keys[i]))
      json_object_set(out, keys[i], json_object_get(c->config_json, keys[i]));
  return out;
}

/* What of an older model would change what this one says. config.json goes first: without it the
 * directory is no model. */
static int clear_directory(const conversion *c) {
  static const char *const old[] = {"config.json",       "generation_config.json",
                                    "tokenizer.json",    "tokenizer_config.json",
                                    "added_tokens.json", "special_tokens_map.json",
                                    "model.safetensors", "model.safetensors.index.json"};
  for (size_t i = 0; i < sizeof old / sizeof *old; i++) {
    char *path;
    if (pdt_path_join(&path, c->o->target, old[i], c->err)) return -1;
    bool there = pdt_path_is_there(path);
    if (there && c->o->overwrite) unlink(path);
    free(path);
    if (there && !c->o->overwrite)
      return pdt_fail(c->err, PDT_ERROR_USAGE,
                      "%s: has a %s already (hint: --overwrite replaces it; or name another "
                      "directory)",
                      c->o->target, old[i]);
  }
  return 0;
}

static int write_weights(conversion *c) {
  static const pdt_metadata format = {"format", "pt"};
  char *path;
  if (pdt_path_join(&path, c->o->target, "model.safetensors", c->err)) return -1;
  int rc = pdt_safetensors_write(path, c->specs, c->n, &format, 1, convert_chunk, c, c->err);
  free(path);
  return rc;
}

static int write_directory(conversion *c) {
  pdt_dtype dtype = c->specs[0].dtype; /* the embedding's */
  const char *torch = dtype == PDT_F32 ? "float32" : dtype == PDT_F16 ? "float16" : "bfloat16";
  if (pdt_output_folder_check("DST", c->o->target, c->err) ||
      pdt_output_folder_make(c->o->target, NULL, c->err) || clear_directory(c) || write_weights(c))
    return -1;
  if (c->tokenizer && (write_text(c, "tokenizer.json", c->tokenizer_text) ||
                       write_json(c, "tokenizer_config.json", tokenizer_config(c))))
    return -1;
  json_object_set_new(c->config_json, "torch_dtype", json_string(torch));
  return write_json(c, "generation_config.json", generation_config(c)) ||
                 write_json(c, "config.json", json_incref(c->config_json))
             ? -1
             : 0;
}

/* ---- all of it ---- */

static int check_options(const conversion *c) {
  const pdt_convert_options *o = c->o;
  pdt_named_files outputs = {0}, inputs = {0};
  if (!pdt_is_gguf(o->source) && !c->to_gguf)
    return pdt_fail(c->err, PDT_ERROR_USAGE,
                    "expected a GGUF file as SRC or DST, found '%s' and '%s' (hint: a file to be "
                    "written is one when its name ends in .gguf)",
                    o->source, o->target);
  if (!c->to_gguf && o->has_dtype && pdt_dtype_quantized(o->dtype))
    return pdt_fail(c->err, PDT_ERROR_USAGE, "--quantize: expected a GGUF file as DST, found '%s'",
                    o->target);
  if (!c->to_gguf) return 0;
  pdt_files_add(&outputs, "DST", o->target);
  pdt_files_add_model(&inputs, "SRC", o->source);
  if (pdt_outputs_check(&outputs, &inputs, c->err)) return -1;
  return pdt_output_may_replace("DST", o->target, PDT_KIND_TENSORS, o->overwrite, c->err);
}

static void print_summary(const conversion *c) {
  pdt_bytes bytes = 0;
  for (int32_t i = 0; i < c->n; i++)
    bytes += pdt_dtype_row_bytes(c->specs[i].dtype, pdt_tensor_spec_elems(&c->specs[i]));
  pdt_say(stdout, "%s: %d tensors, %.1f MB%s", c->o->target, c->n, (double)bytes * 1e-6,
          c->tokenizer ? "" : ", no tokenizer");
}

static void free_conversion(conversion *c) {
  pdt_gguf_model_close(c->gguf);
  pdt_checkpoint_close(c->checkpoint);
  json_decref(c->config_json);
  json_decref(c->tokenizer_json);
  free(c->tokenizer_text);
  pdt_tokenizer_free(c->tokenizer);
  free(c->template);
  free((void *)c->from);
  free(c->specs);
  free(c->names);
  free(c->raw);
  free(c->widened);
}

int pdt_convert(const pdt_convert_options *options, pdt_error *err) {
  conversion c = {.o = options, .to_gguf = pdt_is_gguf(options->target), .err = err};
  int rc = check_options(&c);
  if (!rc) rc = load_source(&c);
  if (!rc) rc = list_tensors(&c);
  if (!rc) rc = c.to_gguf ? write_gguf(&c) : write_directory(&c);
  if (!rc) print_summary(&c);
  free_conversion(&c);
  return rc ? -1 : 0;
}

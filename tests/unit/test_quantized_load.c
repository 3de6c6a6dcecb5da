/* Tensors of quantized types on their way into memory: any rows and columns of them keep the values
 * that their blocks have, wherever a shard cuts; a trunk whose matrices are each of another type is
 * the one whose weights are those values. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "base/quantized.h"
#include "model/load.h"
#include "model/tensors.h"
#include "trunk/trunk.h"

#define OK(call)                                                                                   \
  do {                                                                                             \
    if (call) fail_msg("%s", err.message);                                                         \
  } while (0)

/* ---- tensors in memory ---- */

static uint64_t random_bits(uint64_t *seed) {
  *seed = *seed * 6364136223846793005u + 1442695040888963407u;
  return *seed >> 33;
}

/* A tensor and the file that it is all of. */
typedef struct one_tensor {
  pdt_safetensors file;
  pdt_tensor tensor;
  char path[8], name[PDT_TENSOR_NAME_BYTES];
  unsigned char *bytes;
  float *values;
} one_tensor;

/* Random blocks of a type, or floats in F32; values of up to `size` or so. */
static void make_tensor(one_tensor *t, const char *name, pdt_dtype dtype, int64_t rows,
                        int64_t cols, float size) {
  uint64_t seed = (uint64_t)dtype + 1;
  pdt_dtype_block block = pdt_dtype_block_of(dtype);
  int64_t n = rows * cols;
  pdt_bytes bytes = pdt_dtype_row_bytes(dtype, n);
  for (const char *c = name; *c; c++) seed = seed * 31 + (unsigned char)*c;
  float levels = (float)(1 << (pdt_quantized_form_of(dtype).bits + 5)); /* with sub-scales */
  assert_int_equal(PDT_NEW(&t->bytes, bytes, "test data", NULL), 0);
  assert_int_equal(PDT_NEW(&t->values, n, "test data", NULL), 0);
  for (pdt_bytes i = 0; i < bytes; i++) t->bytes[i] = (unsigned char)random_bits(&seed);
  for (int64_t i = 0; i < n / block.elems; i++) {
    unsigned char *at = t->bytes + i * block.bytes;
    float x = size * ((float)(random_bits(&seed) % 2001) / 1000 - 1);
    uint16_t d = pdt_half_of_float(x / levels);
    if (dtype == PDT_F32) memcpy(at, &x, sizeof x);
    if (dtype == PDT_F32) continue;
    memcpy(at + (dtype == PDT_Q6_K ? 208 : 0), &d, 2);
    if (pdt_quantized_form_of(dtype).low) memcpy(at + 2, &d, 2);
  }
  pdt_to_float(dtype, t->bytes, n, t->values);
  snprintf(t->path, sizeof t->path, "test");
  snprintf(t->name, sizeof t->name, "%s", name);
  t->file = (pdt_safetensors){
      .path = t->path, .fd = -1, .bytes = (const char *)t->bytes, .file_bytes = bytes};
  t->tensor = (pdt_tensor){.name = t->name,
                           .dtype_name = pdt_dtype_name(dtype),
                           .is_float = true,
                           .dtype = dtype,
                           .n_dims = rows > 1 ? 2 : 1,
                           .shape = {rows > 1 ? rows : cols, cols},
                           .n_elems = n,
                           .bytes = bytes,
                           .file = &t->file};
}

/* The same tensor as floats. */
static void widen_tensor(one_tensor *t) {
  t->tensor.dtype = PDT_F32;
  t->tensor.bytes = t->file.file_bytes = t->tensor.n_elems * 4;
  t->file.bytes = (const char *)t->values;
}

static void drop_tensor(one_tensor *t) {
  free(t->bytes), free(t->values);
}

/* ---- parts of one tensor ---- */

enum { ROWS = 21, COLS = 768 };

typedef struct cut {
  int32_t first, in, leaf;
} cut;

static void load_cut(pdt_device *dev, const one_tensor *t, cut c, pdt_dtype want) {
  pdt_error err = {0};
  const int32_t first_row = 3, rows = 16;
  const pdt_tensor_part part = {&t->tensor, first_row, rows, c.first};
  const pdt_matrix_form form = {.in = c.in, .leaf_width = c.leaf};
  int32_t ids[16];
  float y[16 * COLS];
  pdt_matrix m;
  OK(pdt_load_matrix(dev, &m, &part, 1, &form, &err));
  assert_int_equal(m.dtype, want);
  assert_int_equal(m.in, c.in);
  for (int32_t i = 0; i < rows; i++) ids[i] = i;
  dev->ops->gather_rows(dev, &m, ids, rows, (pdt_array){y});
  for (int32_t i = 0; i < rows; i++)
    assert_memory_equal(y + (int64_t)i * c.in, t->values + (first_row + i) * COLS + c.first,
                        (size_t)c.in * sizeof *y);
  dev->ops->matrix_free(dev, &m);
}

static void test_cuts(void **state) {
  (void)state;
  pdt_device dev;
  pdt_error err = {0};
  OK(pdt_cpu_device_new(&dev, pdt_cpu_best_isa(), 2, &err));
  static const cut whole[] = {{0, 768, 768}, {256, 256, 64}, {256, 512, 512}, {512, 256, 32}};
  static const cut in_32s[] = {{0, 64, 64},   {64, 704, 64},  {192, 192, 64}, {96, 96, 32},
                               {224, 64, 32}, {32, 736, 736}, {736, 32, 64},  {288, 480, 128}};
  static const cut none[] = {{0, 80, 80}, {16, 64, 64}, {0, 768, 48}, {240, 528, 528}, {1, 1, 1}};
  for (pdt_dtype t = PDT_Q8_0; t <= PDT_Q6_K; t++) {
    one_tensor tensor;
    make_tensor(&tensor, "w", t, ROWS, COLS, 1);
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++) load_cut(&dev, &tensor, whole[i], t);
    for (size_t i = 0; i < sizeof in_32s / sizeof *in_32s; i++)
      load_cut(&dev, &tensor, in_32s[i], pdt_recut_dtype(t));
    for (size_t i = 0; i < sizeof none / sizeof *none; i++)
      load_cut(&dev, &tensor, none[i], PDT_F32);
    drop_tensor(&tensor);
  }
  dev.ops->close(&dev);
}

/* Floats that are quantized at load: where pieces are whole, and only weights that a block holds.
 */
static void test_quantize(void **state) {
  (void)state;
  pdt_device dev;
  pdt_error err = {0};
  pdt_matrix m;
  one_tensor t;
  OK(pdt_cpu_device_new(&dev, pdt_cpu_best_isa(), 1, &err));
  make_tensor(&t, "w", PDT_F32, ROWS, COLS, 1);
  const pdt_tensor_part part = {&t.tensor, 0, ROWS, 32}, odd = {&t.tensor, 0, ROWS, 1};
  const pdt_matrix_form form = {.in = 64, .leaf_width = 32, .quantize = PDT_Q4_0};
  assert_int_equal(pdt_load_dtype(&part, &form), PDT_Q4_0);
  assert_int_equal(pdt_load_dtype(&odd, &form), PDT_F32);
  OK(pdt_load_matrix(&dev, &m, &part, 1, &form, &err));
  float y[64], want[64];
  unsigned char blocks[2 * 18];
  const int32_t id = 20;
  dev.ops->gather_rows(&dev, &m, &id, 1, (pdt_array){y});
  pdt_from_float(PDT_Q4_0, t.values + 20 * COLS + 32, 64, blocks);
  pdt_to_float(PDT_Q4_0, blocks, 64, want);
  assert_memory_equal(y, want, sizeof y);
  dev.ops->matrix_free(&dev, &m);
  const float large = 1e9f;
  memcpy(t.bytes + (20 * COLS + 95) * 4, &large, sizeof large);
  assert_int_equal(pdt_load_matrix(&dev, &m, &part, 1, &form, &err), -1);
  assert_int_equal(err.code, PDT_ERROR_INPUT);
  assert_non_null(strstr(err.message, "tensor 'w': expected weights that Q4_0 can hold"));
  assert_null(m.data);
  drop_tensor(&t);
  dev.ops->close(&dev);
}

/* ---- a trunk ---- */

enum { D = 256, HEADS = 4, KV = 2, HD = 64, FFN = 512, VOCAB = 160, LAYERS = 2, TENSORS = 20 };
enum { TOKENS = 9 };

/* Tensors of a layer, and their types there. */
static const struct {
  const char *suffix;
  pdt_dtype types[LAYERS];
  int32_t rows, cols;
} kinds[] = {
    {"self_attn.q_proj.weight", {PDT_Q4_K, PDT_Q8_0}, HEADS *HD, D},
    {"self_attn.k_proj.weight", {PDT_Q4_K, PDT_Q5_K}, KV *HD, D},
    {"self_attn.v_proj.weight", {PDT_Q6_K, PDT_F32}, KV *HD, D},
    {"self_attn.o_proj.weight", {PDT_Q5_K, PDT_Q4_K}, D, HEADS *HD},
    {"mlp.gate_proj.weight", {PDT_Q4_0, PDT_Q5_0}, FFN, D},
    {"mlp.up_proj.weight", {PDT_Q4_0, PDT_Q5_1}, FFN, D},
    {"mlp.down_proj.weight", {PDT_Q6_K, PDT_Q4_1}, D, FFN},
    {"input_layernorm.weight", {PDT_F32, PDT_F32}, 1, D},
    {"post_attention_layernorm.weight", {PDT_F32, PDT_F32}, 1, D},
};
enum { KINDS = sizeof kinds / sizeof *kinds };

static int by_name(const void *a, const void *b) {
  return strcmp((*(const pdt_tensor *const *)a)->name, (*(const pdt_tensor *const *)b)->name);
}

typedef struct model {
  one_tensor tensors[TENSORS];
  const pdt_tensor *sorted[TENSORS];
  pdt_checkpoint checkpoint;
  pdt_model_config config;
} model;

static void make_model(model *m) {
  int32_t n = 0;
  for (pdt_layer l = 0; l < LAYERS; l++)
    for (int k = 0; k < KINDS; k++) {
      char name[PDT_TENSOR_NAME_BYTES];
      pdt_layer_tensor_name(name, l, kinds[k].suffix);
      make_tensor(&m->tensors[n++], name, kinds[k].types[l], kinds[k].rows, kinds[k].cols, 0.3f);
    }
  make_tensor(&m->tensors[n++], PDT_TENSOR_EMBEDDING, PDT_Q6_K, VOCAB, D, 1);
  make_tensor(&m->tensors[n++], PDT_TENSOR_FINAL_NORM, PDT_F32, 1, D, 1);
  assert_int_equal(n, TENSORS);
  for (int32_t i = 0; i < n; i++) m->sorted[i] = &m->tensors[i].tensor;
  qsort(m->sorted, (size_t)n, sizeof *m->sorted, by_name);
  m->checkpoint = (pdt_checkpoint){.directory = "test", .n_tensors = n, .tensors = m->sorted};
  m->config = (pdt_model_config){.family = PDT_FAMILY_LLAMA,
                                 .hidden_size = D,
                                 .intermediate_size = FFN,
                                 .layers = LAYERS,
                                 .heads = HEADS,
                                 .kv_heads = KV,
                                 .head_dim = HD,
                                 .vocab_size = VOCAB,
                                 .max_positions = 64,
                                 .rms_norm_eps = 1e-5,
                                 .tie_word_embeddings = true,
                                 .bos = -1,
                                 .rope = {.theta = 10000, .scale = 1}};
}

/* Hidden states [TOKENS, D] of a trunk, and the tokens that it chooses after them. */
static void states_of(const model *m, pdt_device *dev, float *states, pdt_token *tokens) {
  pdt_error err = {0};
  pdt_trunk_weights weights;
  pdt_kv_cache kv;
  pdt_trunk trunk;
  pdt_kv_sequence sequence;
  pdt_comm alone = {.rank = 0, .size = 1};
  const pdt_trunk_load how = {.size = 1};
  OK(pdt_trunk_weights_load(&weights, dev, &m->config, &m->checkpoint, &how, &err));
  const pdt_kv_shape shape = {LAYERS, KV, HD};
  const pdt_trunk_limits limits = {TOKENS, TOKENS, 2 * TOKENS};
  OK(pdt_kv_new(&kv, dev, &shape, 8, &err));
  OK(pdt_trunk_new(&trunk, &weights, &alone, &kv, &limits, &err));
  OK(pdt_kv_sequence_new(&sequence, &kv, NULL, 0, TOKENS, &err));
  pdt_trunk_row rows[TOKENS];
  for (int32_t i = 0; i < TOKENS; i++) rows[i] = (pdt_trunk_row){&sequence, i, 17 * i % VOCAB};
  const int32_t begin[] = {0, TOKENS};
  const pdt_trunk_batch batch = {.rows = rows, .begin = begin};
  OK(pdt_trunk_forward(&trunk, &batch, NULL, (pdt_array){states}, &err));
  pdt_trunk_choose(&trunk, begin, (pdt_array){states}, NULL, tokens);
  pdt_kv_sequence_free(&sequence, &kv);
  pdt_trunk_free(&trunk);
  pdt_kv_free(&kv);
  pdt_trunk_weights_free(&weights);
}

static void test_trunk(void **state) {
  (void)state;
  static model m;
  static float mixed[TOKENS * D], rounded[TOKENS * D], floats[TOKENS * D];
  pdt_token tokens[3][TOKENS];
  pdt_device dev;
  pdt_error err = {0};
  OK(pdt_cpu_device_new(&dev, pdt_cpu_best_isa(), 2, &err));
  make_model(&m);
  dev.full_rows = true;
  states_of(&m, &dev, mixed, tokens[0]);
  dev.full_rows = false;
  states_of(&m, &dev, rounded, tokens[1]);
  for (int i = 0; i < TENSORS; i++) widen_tensor(&m.tensors[i]);
  states_of(&m, &dev, floats, tokens[2]);
  assert_memory_equal(mixed, floats, sizeof mixed);
  assert_memory_equal(tokens[0], tokens[2], sizeof tokens[0]);
  /* A row's codes are off by 1 / 254 of the largest of 32 at most, each its own way, and layers add
   * that up: some percent of a state's size, where a wrong part of a matrix gives as much as it
   * has. */
  double off = 0, size = 0;
  for (int i = 0; i < TOKENS * D; i++) {
    off += pow((double)rounded[i] - (double)floats[i], 2);
    size += pow((double)floats[i], 2);
  }
  assert_true(size > 0);
  assert_true(off > 0);
  assert_true(sqrt(off / size) < 0.05);
  for (int i = 0; i < TENSORS; i++) drop_tensor(&m.tensors[i]);
  dev.ops->close(&dev);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_cuts), cmocka_unit_test(test_quantize),
                                     cmocka_unit_test(test_trunk)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}

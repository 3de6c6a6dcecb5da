/* Sidecars: every field of the config and every tensor is checked; a fresh one changes nothing; a
 * random model is the same however it is made. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/finite.h"
#include "base/json.h"
#include "model/normal.h"
#include "model/random.h"
#include "model/tensors.h"
#include "scratch.h"
#include "sidecar/init.h"

static pdt_layer instrumented[] = {1, 3};

/* A small sidecar; owns nothing. */
static pdt_sidecar_config small(void) {
  return (pdt_sidecar_config){.hidden_size = 8,
                              .streams = 3,
                              .notes_dim = 5,
                              .snc_heads = 2,
                              .snc_head_dim = 3,
                              .n_instrumented = 2,
                              .instrumented = instrumented,
                              .adapter_dim = 4,
                              .planner = PDT_PLANNER_TIED,
                              .plan_slots = 6,
                              .plan_vocab_size = 97,
                              .plan_dim = 7,
                              .plan_hash_salt = "salt \"\xc3\xa9\"",
                              .pool = PDT_POOL_ATTENTION,
                              .pool_heads = 2,
                              .pool_dim = 9,
                              .coverage_dim = 10,
                              .agree_dim = 11,
                              .defaults = {4, 1, 9, 8, 2, 0.3}};
}

static const pdt_model_config trunk = {.hidden_size = 8, .layers = 4};

/* What it was trained with is kept, be it nothing, and copied; a wrong one is refused by name. */
static void test_trained_is_kept(void **state) {
  (void)state;
  static const char *const trained[] = {NULL, "{}", "{\"stages\":[\"0\"],\"mine\":{\"a\":[]}}",
                                        "{\"stages\":\"0\"}"};
  for (int i = 0; i < 4; i++) {
    pdt_error err = {0};
    pdt_sidecar_config c = small(), back, copy;
    if (trained[i]) c.trained = json_loads(trained[i], 0, NULL);
    char *text = pdt_sidecar_config_text(&c);
    int rc = pdt_sidecar_config_parse(&back, text, "s", NULL, &err);
    assert_int_equal(rc, i == 3 ? -1 : 0);
    if (rc) assert_non_null(strstr(err.message, "s: trained: 'stages'"));
    if (!rc) {
      assert_int_equal(pdt_sidecar_config_copy(&copy, &back, &err), 0);
      pdt_sidecar_config_free(&back);
      assert_true(i == 0 ? copy.trained == NULL : json_equal(copy.trained, c.trained));
      assert_memory_equal(copy.instrumented, instrumented, sizeof instrumented);
      pdt_sidecar_config_free(&copy);
    }
    json_decref(c.trained);
    free(text);
  }
}

static void test_text_round_trip(void **state) {
  (void)state;
  pdt_error err = {0};
  for (int i = 0; i < 4; i++) {
    pdt_sidecar_config c = small(), back;
    c.planner = i & 1 ? PDT_PLANNER_FULL : PDT_PLANNER_TIED;
    c.pool_copies = i & 1;
    if (i & 2) {
      c.pool_copies = 0;
      c.pool = PDT_POOL_LAST;
      c.pool_heads = c.pool_dim = 0;
    }
    assert_int_equal(pdt_sidecar_pooled(&c), i & 2 ? 8 : 18);
    char *text = pdt_sidecar_config_text(&c);
    assert_non_null(text);
    if (pdt_sidecar_config_parse(&back, text, "s", &trunk, &err)) fail_msg("%s", err.message);
    assert_memory_equal(back.instrumented, instrumented, sizeof instrumented);
    assert_int_equal(pdt_sidecar_instrumented_index(&back, 3), 1);
    assert_int_equal(pdt_sidecar_instrumented_index(&back, 2), -1);
    pdt_layer *owned = back.instrumented;
    back.instrumented = c.instrumented;
    assert_memory_equal(&back, &c, sizeof c);
    free(owned);
    free(text);
  }
}

typedef struct bad_sidecar {
  const char *changes, *fragment;
} bad_sidecar;

static const bad_sidecar bad_sidecars[] = {
    {"{\"format\":\"other\"}", "'format': expected 'pdt-sidecar'"},
    {"{\"format\":null}", "'format'"},
    {"{\"version\":2}", "'version': expected an integer from 1 to 1, found 2"},
    {"{\"hidden_size\":16}", "expected the model's 8, found 16"},
    {"{\"streams\":0}", "'streams'"},
    {"{\"streams\":5000}", "'streams'"},
    {"{\"notes_dim\":-1}", "'notes_dim'"},
    {"{\"notes_dim\":1e3}", "'notes_dim'"},
    {"{\"snc_heads\":null}", "'snc_heads'"},
    {"{\"snc_head_dim\":0}", "'snc_head_dim'"},
    {"{\"adapter_dim\":\"4\"}", "'adapter_dim'"},
    {"{\"plan_slots\":0}", "'plan_slots'"},
    {"{\"plan_vocab_size\":99999999}", "'plan_vocab_size'"},
    {"{\"plan_dim\":0}", "'plan_dim'"},
    {"{\"coverage_dim\":0}", "'coverage_dim'"},
    {"{\"agree_dim\":0}", "'agree_dim'"},
    {"{\"pool\":\"mean\"}", "'pool': expected 'last' or 'attention', found 'mean'"},
    {"{\"pool_heads\":0}", "'pool_heads'"},
    {"{\"pool_dim\":null}", "'pool_dim'"},
    {"{\"pool_copies\":3}", "'pool_copies': expected an integer from 0 to 2, found 3"},
    {"{\"pool_copies\":-1}", "'pool_copies'"},
    {"{\"pool\":\"last\",\"pool_copies\":1}", "'pool_copies': expected a pool of kind 'attention'"},
    {"{\"planner\":\"half\"}", "'planner': expected 'full' or 'tied', found 'half'"},
    {"{\"plan_hash_salt\":7}", "'plan_hash_salt'"},
    {"{\"instrumented_layers\":[]}", "1 to 4096 layers, found 0"},
    {"{\"instrumented_layers\":[3,1]}", "instrumented_layers: '[1]'"},
    {"{\"instrumented_layers\":[1,1]}", "instrumented_layers: '[1]'"},
    {"{\"instrumented_layers\":[4]}", "from 0 to 3, found 4"},
    {"{\"instrumented_layers\":[-1]}", "from 0 to 3, found -1"},
    {"{\"defaults\":{}}", "defaults: 'block_tokens'"},
    {"{\"defaults\":null}", "'defaults': expected an object"},
    {"{\"defaults\":{\"block_tokens\":4,\"reveal_delay\":1,\"window\":9,\"horizon\":8,"
     "\"gamma\":0.5,\"part_slots\":-1}}",
     "'part_slots'"},
    {"{\"defaults\":{\"block_tokens\":4,\"reveal_delay\":0,\"window\":9,\"horizon\":8,"
     "\"gamma\":0.5}}",
     "'reveal_delay'"},
    {"{\"defaults\":{\"block_tokens\":4,\"reveal_delay\":1,\"window\":0,\"horizon\":8,"
     "\"gamma\":0.5}}",
     "'window'"},
    {"{\"defaults\":{\"block_tokens\":4,\"reveal_delay\":1,\"window\":9,\"horizon\":3,"
     "\"gamma\":0.5}}",
     "'horizon': expected at least block_tokens"},
    {"{\"defaults\":{\"block_tokens\":4,\"reveal_delay\":1,\"window\":9,\"horizon\":8,"
     "\"gamma\":1.5}}",
     "'gamma'"},
};

static void test_bad_texts(void **state) {
  (void)state;
  const pdt_sidecar_config c = small();
  char *text = pdt_sidecar_config_text(&c);
  for (size_t i = 0; i < sizeof bad_sidecars / sizeof *bad_sidecars; i++) {
    json_t *config = json_loads(text, 0, NULL);
    json_t *over = json_loads(bad_sidecars[i].changes, 0, NULL);
    assert_int_equal(json_object_update(config, over), 0);
    char *changed = json_dumps(config, 0);
    pdt_sidecar_config out;
    pdt_error err = {0};
    if (!pdt_sidecar_config_parse(&out, changed, "s", &trunk, &err))
      fail_msg("%s was taken", bad_sidecars[i].changes);
    if (!strstr(err.message, bad_sidecars[i].fragment))
      fail_msg("%s: '%s' is not in '%s'", bad_sidecars[i].changes, bad_sidecars[i].fragment,
               err.message);
    assert_null(out.instrumented);
    free(changed);
    json_decref(config);
    json_decref(over);
  }
  free(text);
}

static int fill_zero(void *context, int32_t index, int64_t first, int64_t n_elems, void *chunk,
                     pdt_error *err) {
  (void)context, (void)index, (void)first, (void)err;
  memset(chunk, 0, (size_t)n_elems * 4);
  return 0;
}

/* Writes the tensors of c but `missing`, with `wrong` too large, and one nobody knows; loads. */
static int load_with(scratch *s, const pdt_sidecar_config *c, const char *missing,
                     const char *wrong, int32_t *hidden, pdt_error *err) {
  enum { MOST = 80 };
  pdt_wanted_tensor names[MOST];
  pdt_tensor_spec specs[MOST + 1] = {{"unknown", PDT_F32, 1, {1}}};
  int32_t n = 1;
  for (int32_t i = 0; i < pdt_sidecar_tensor_count(c); i++) {
    assert_true(n < MOST);
    pdt_wanted_tensor *t = &names[n];
    pdt_sidecar_tensor_at(c, i, t);
    if (strcmp(t->name, missing) == 0) continue;
    specs[n] = pdt_wanted_spec(t, PDT_F32);
    if (strcmp(t->name, wrong) == 0) specs[n].shape[t->n_dims - 1]++;
    n++;
  }
  char *text = pdt_sidecar_config_text(c);
  const pdt_metadata metadata = {"config", text};
  assert_int_equal(
      pdt_safetensors_write(scratch_path(s, "f"), specs, n, &metadata, 1, fill_zero, NULL, err), 0);
  free(text);
  pdt_safetensors *file;
  pdt_sidecar_config out;
  assert_int_equal(pdt_safetensors_open(&file, scratch_path(s, "f"), err), 0);
  int rc = pdt_sidecar_config_load(&out, file, &trunk, err);
  *hidden = out.speculation_hidden;
  pdt_sidecar_config_free(&out);
  pdt_safetensors_close(file);
  return rc;
}

static void test_tensors(void **state) {
  scratch *s = *state;
  pdt_error err = {0};
  int32_t hidden;
  for (int variant = 0; variant < 2; variant++) {
    pdt_sidecar_config c = small();
    c.speculation_hidden = variant ? 13 : 0;
    if (variant) c.planner = PDT_PLANNER_FULL, c.pool = PDT_POOL_LAST;
    if (load_with(s, &c, "", "", &hidden, &err)) fail_msg("%s", err.message);
    assert_int_equal(hidden, c.speculation_hidden);
    for (int32_t i = 0; i < pdt_sidecar_tensor_count(&c); i++) {
      pdt_wanted_tensor t;
      pdt_sidecar_tensor_at(&c, i, &t);
      assert_int_equal(load_with(s, &c, t.name, "", &hidden, &err), -1);
      if (!strstr(err.message, t.name)) fail_msg("without %s: %s", t.name, err.message);
      assert_int_equal(load_with(s, &c, "", t.name, &hidden, &err), -1);
      bool decides = strcmp(t.name, "speculation.hidden.bias") == 0; /* its size is the truth */
      if (!decides && !strstr(err.message, t.name)) fail_msg("%s: %s", t.name, err.message);
    }
  }
}

/* Both or neither of the training-only pairs may be there. */
static void test_no_config(void **state) {
  scratch *s = *state;
  pdt_error err = {0};
  pdt_safetensors *file;
  pdt_sidecar_config out;
  assert_int_equal(
      pdt_safetensors_write(scratch_path(s, "f"), NULL, 0, NULL, 0, fill_zero, NULL, &err), 0);
  assert_int_equal(pdt_safetensors_open(&file, scratch_path(s, "f"), &err), 0);
  assert_int_equal(pdt_sidecar_config_load(&out, file, NULL, &err), -1);
  assert_non_null(strstr(err.message, "this is no sidecar"));
  pdt_safetensors_close(file);
}

/* Is every element of the tensor equal to value? */
static bool all_equal(const pdt_safetensors *file, const char *name, float value) {
  const pdt_tensor *t = pdt_safetensors_find(file, name);
  assert_non_null(t);
  for (int64_t i = 0; i < t->n_elems; i++) {
    float raw, v;
    assert_int_equal(pdt_tensor_read(t, i, 1, &raw, NULL), 0);
    pdt_to_float(t->dtype, &raw, 1, &v);
    if (v != value) return false;
  }
  return true;
}

static void test_fresh(void **state) {
  scratch *s = *state;
  pdt_error err = {0};
  pdt_sidecar_config c = small(), out;
  c.speculation_hidden = 6;
  for (pdt_dtype t = PDT_F32; t <= PDT_BF16; t++) {
    pdt_sidecar_init_options o = {.dtype = t, .seed = 5, .gate = -4, .start = PDT_SIDECAR_FRESH};
    int64_t parameters;
    pdt_bytes bytes;
    pdt_safetensors *file;
    assert_int_equal(pdt_sidecar_init(scratch_path(s, "f"), &c, &o, &parameters, &bytes, &err), 0);
    assert_int_equal(pdt_safetensors_open(&file, scratch_path(s, "f"), &err), 0);
    if (pdt_sidecar_config_load(&out, file, &trunk, &err)) fail_msg("%s", err.message);
    assert_int_equal(out.speculation_hidden, 6);
    assert_int_equal(bytes, file->file_bytes - file->data_offset);
    assert_true(all_equal(file, "snc.1.gate", -4) && all_equal(file, "adapter.3.gate", -4));
    assert_true(all_equal(file, "snc.3.o_proj.weight", 0) &&
                all_equal(file, "adapter.1.up.weight", 0) &&
                all_equal(file, "adapter.1.up.bias", 0) && all_equal(file, "snc.1.norm.weight", 1));
    assert_true(all_equal(file, "agree.out.weight", 0) && all_equal(file, "agree.out.bias", 2));
    assert_false(all_equal(file, "snc.1.q_proj.weight", 0));
    pdt_safetensors_close(file);
    pdt_sidecar_config_free(&out);
    o.start = PDT_SIDECAR_RANDOM;
    assert_int_equal(pdt_sidecar_init(scratch_path(s, "f"), &c, &o, NULL, NULL, &err), 0);
    assert_int_equal(pdt_safetensors_open(&file, scratch_path(s, "f"), &err), 0);
    assert_false(all_equal(file, "snc.3.o_proj.weight", 0));
    pdt_safetensors_close(file);
  }
}

/* Elements of a tensor as numbers. */
static float *read_all(const pdt_safetensors *file, const char *name) {
  const pdt_tensor *t = pdt_safetensors_find(file, name);
  assert_non_null(t);
  float *values = calloc((size_t)t->n_elems, sizeof *values);
  assert_non_null(values);
  assert_int_equal(pdt_tensor_read(t, 0, t->n_elems, values, NULL), 0);
  return values;
}

/* Where the SNC begins as a reader, what it adds for a note x is a share of P^T x; in the layers
 * before, nothing. */
static void test_reader(void **state) {
  scratch *s = *state;
  pdt_error err = {0};
  pdt_sidecar_config c = small();
  int64_t d = c.hidden_size, dn = c.notes_dim, q = (int64_t)c.snc_heads * c.snc_head_dim;
  float *reader = calloc((size_t)(d * dn), sizeof *reader);
  assert_non_null(reader);
  for (int64_t i = 0; i < d * dn; i++) reader[i] = (float)(i % 7) - 2.5f;
  const pdt_sidecar_init_options o = {
      .dtype = PDT_F32, .start = PDT_SIDECAR_FRESH, .reader = reader, .n_readers = 1};
  pdt_safetensors *file;
  assert_int_equal(pdt_sidecar_init(scratch_path(s, "f"), &c, &o, NULL, NULL, &err), 0);
  assert_int_equal(pdt_safetensors_open(&file, scratch_path(s, "f"), &err), 0);
  assert_true(all_equal(file, "snc.1.o_proj.weight", 0));
  float *v = read_all(file, "snc.3.v_proj.weight"), *out = read_all(file, "snc.3.o_proj.weight");
  int64_t room = q < dn ? q : dn;
  assert_true(room > 0);
  for (int64_t i = 0; i < room; i++)
    for (int64_t j = 0; j < dn; j++) assert_true(v[i * dn + j] == (i == j ? 1 : 0));
  for (int64_t r = 0; r < d; r++)
    for (int64_t i = 0; i < q; i++)
      assert_true(out[r * q + i] == (i < dn ? (float)PDT_READER_SHARE * reader[i * d + r] : 0));
  free(v);
  free(out);
  free(reader);
  pdt_safetensors_close(file);
}

/* The file of a fresh sidecar, and its config as it is read from there. */
static pdt_safetensors *fresh_file(scratch *s, const pdt_sidecar_config *c,
                                   pdt_sidecar_config *out) {
  const pdt_sidecar_init_options o = {.dtype = PDT_F32, .start = PDT_SIDECAR_FRESH};
  pdt_error err = {0};
  pdt_safetensors *file;
  assert_int_equal(pdt_sidecar_init(scratch_path(s, "f"), c, &o, NULL, NULL, &err), 0);
  assert_int_equal(pdt_safetensors_open(&file, scratch_path(s, "f"), &err), 0);
  if (pdt_sidecar_config_load(out, file, &trunk, &err)) fail_msg("%s", err.message);
  return file;
}

/* The planner's places are in a file or not; a fresh tensor adds nothing, any width is taken. */
static void test_places(void **state) {
  scratch *s = *state;
  pdt_error err = {0};
  static const int32_t widths[] = {0, 1, 5, 4096};
  for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
    pdt_sidecar_config c = small(), out;
    c.plan_places = widths[i];
    pdt_safetensors *file = fresh_file(s, &c, &out);
    assert_int_equal(out.plan_places, widths[i]);
    if (widths[i] > 0)
      assert_true(all_equal(file, "planner.place.weight", 0));
    else
      assert_null(pdt_safetensors_find(file, "planner.place.weight"));
    pdt_safetensors_close(file);
    pdt_sidecar_config_free(&out);
  }
  pdt_sidecar_config c = small();
  int32_t hidden;
  c.plan_places = 4097;
  assert_int_equal(load_with(s, &c, "", "", &hidden, &err), -1);
  assert_non_null(strstr(err.message, "planner.place.weight"));
}

/* So are its orders, which come with what it marks; a fresh sidecar marks nothing and adds nothing.
 */
static void test_orders(void **state) {
  scratch *s = *state;
  pdt_error err = {0};
  static const int32_t widths[] = {0, 1, 4096};
  for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
    pdt_sidecar_config c = small(), out;
    c.plan_orders = widths[i];
    c.plan_layer = 1;
    pdt_safetensors *file = fresh_file(s, &c, &out);
    assert_int_equal(out.plan_orders, widths[i]);
    assert_int_equal(out.plan_layer, widths[i] > 0 ? 1 : 0);
    if (widths[i] > 0) {
      assert_true(all_equal(file, "planner.order.weight", 0));
      assert_true(all_equal(file, "planner.mark.weight", 0));
      assert_true(all_equal(file, "planner.mark.bias", -3));
    } else {
      assert_null(pdt_safetensors_find(file, "planner.order.weight"));
      assert_null(pdt_safetensors_find(file, "planner.mark.weight"));
    }
    pdt_safetensors_close(file);
    pdt_sidecar_config_free(&out);
  }
  pdt_sidecar_config c = small();
  int32_t hidden;
  c.plan_orders = 4097;
  assert_int_equal(load_with(s, &c, "", "", &hidden, &err), -1);
  assert_non_null(strstr(err.message, "planner.order.weight"));
  c.plan_orders = 3; /* what it marks is missing */
  assert_int_equal(load_with(s, &c, "planner.mark.bias", "", &hidden, &err), -1);
  assert_non_null(strstr(err.message, "'planner.mark.bias' is missing"));
}

/* Readiness asks about the note or not; a fresh tensor asks nothing. */
static void test_note_query(void **state) {
  scratch *s = *state;
  for (int asks = 0; asks < 2; asks++) {
    pdt_sidecar_config c = small(), out;
    c.note_query = asks;
    pdt_safetensors *file = fresh_file(s, &c, &out);
    assert_int_equal(out.note_query, asks);
    if (asks)
      assert_true(all_equal(file, "agree.note_query.weight", 0));
    else
      assert_null(pdt_safetensors_find(file, "agree.note_query.weight"));
    pdt_safetensors_close(file);
    pdt_sidecar_config_free(&out);
  }
}

static void test_normal(void **state) {
  (void)state;
  enum { N = 1 << 18 };
  float *whole = malloc(N * sizeof *whole), *piece = malloc(N * sizeof *piece);
  assert_true(whole && piece);
  pdt_normal_fill(7, "x", 0, N, 1, 2, whole);
  pdt_normal_fill(7, "x", 4096, 777, 1, 2, piece); /* in pieces: the same numbers */
  assert_memory_equal(whole + 4096, piece, 777 * sizeof *piece);
  double sum = 0, squares = 0, fourth = 0;
  for (int i = 0; i < N; i++) {
    double z = (whole[i] - 1) / 2.0;
    sum += z;
    squares += z * z;
    fourth += z * z * z * z;
  }
  /* Five standard errors of the mean of z, z^2 and z^4: 1, sqrt 2 and sqrt 96 over sqrt N. */
  double se = 5 / sqrt((double)N);
  assert_true(fabs(sum / N) < se);
  assert_true(fabs(squares / N - 1) < se * sqrt(2));
  assert_true(fabs(fourth / N - 3) < se * sqrt(96));
  pdt_normal_fill(8, "x", 0, 4, 1, 2, piece);
  assert_memory_not_equal(whole, piece, 16);
  pdt_normal_fill(7, "y", 0, 4, 1, 2, piece);
  assert_memory_not_equal(whole, piece, 16);
  free(whole);
  free(piece);
}

static const pdt_model_config model = {.family = PDT_FAMILY_QWEN3,
                                       .hidden_size = 16,
                                       .intermediate_size = 24,
                                       .layers = 2,
                                       .heads = 4,
                                       .kv_heads = 2,
                                       .head_dim = 8,
                                       .vocab_size = 300,
                                       .max_positions = 64,
                                       .n_eos = 2,
                                       .eos = {3, 290},
                                       .bos = 257};

/* The fingerprint of all weights when sharded or not; checks them on the way. */
static void check_model(scratch *s, pdt_bytes shard_bytes, int32_t files, uint64_t *weights) {
  pdt_error err = {0};
  const pdt_random_options o = {
      .dtype = PDT_F16, .seed = 3, .scale = 1, .shard_bytes = shard_bytes};
  pdt_random_summary summary;
  pdt_checkpoint *c;
  assert_int_equal(pdt_model_random(&model, &o, s->folder, &summary, &err), 0);
  assert_int_equal(pdt_checkpoint_open(&c, s->folder, NULL, &err), 0);
  pdt_model_config checked = model;
  if (pdt_model_tensors_check(&checked, c, NULL, &err)) fail_msg("%s", err.message);
  assert_non_null(pdt_checkpoint_find(c, "model.layers.1.self_attn.q_norm.weight"));
  assert_null(pdt_checkpoint_find(c, "model.layers.1.self_attn.q_proj.bias"));
  assert_non_null(pdt_checkpoint_find(c, PDT_TENSOR_HEAD));
  assert_int_equal(summary.files, c->n_files);
  assert_true(files == 1 ? c->n_files == 1 : c->n_files >= files);
  pdt_bytes bytes = 0;
  *weights = 0;
  for (int32_t i = 0; i < c->n_tensors; i++) {
    const pdt_tensor *t = c->tensors[i];
    unsigned char *data = malloc((size_t)t->bytes + 1);
    assert_int_equal(pdt_tensor_read(t, 0, t->n_elems, data, &err), 0);
    assert_true(pdt_all_finite(t->dtype, data, t->n_elems));
    bytes += t->bytes;
    for (pdt_bytes b = 0; b < t->bytes; b++) *weights = *weights * 31 + data[b];
    free(data);
  }
  assert_int_equal(bytes, summary.bytes);
  assert_int_equal(bytes, summary.parameters * 2);
  for (int32_t i = 0; i < c->n_files && shard_bytes > 1; i++)
    assert_true(c->files[i]->file_bytes - c->files[i]->data_offset <= shard_bytes);
  pdt_checkpoint_close(c);
}

static void test_random_model(void **state) {
  scratch *s = *state;
  uint64_t sharded, tiny, whole;
  check_model(s, 10000, 2, &sharded);
  check_model(s, 1, 20, &tiny); /* a tensor a file */
  check_model(s, 0, 1, &whole);
  assert_true(sharded == whole && tiny == whole);
}

static void test_random_tokenizer(void **state) {
  (void)state;
  pdt_error err = {0};
  char *text;
  assert_int_equal(pdt_random_tokenizer(&model, &text, &err), 0);
  json_t *tokenizer;
  assert_int_equal(pdt_json_parse(&tokenizer, text, strlen(text), "t", &err), 0);
  const json_t *vocabulary = json_object_get(json_object_get(tokenizer, "model"), "vocab");
  assert_int_equal(json_object_size(vocabulary), 300);
  bool seen[300] = {false};
  const char *key;
  json_t *id;
  json_object_foreach((json_t *)(uintptr_t)vocabulary, key, id) {
    json_int_t i = json_integer_value(id);
    assert_true(*key && i >= 0 && i < 300 && !seen[i]);
    seen[i] = true;
  }
  assert_int_equal(json_integer_value(json_object_get(vocabulary, "<|bos|>")), 257);
  assert_int_equal(json_integer_value(json_object_get(vocabulary, "<|eos|>")), 3);
  /* Byte 65 is the 66th id that is not special: 3 is, 257 and 290 come later. */
  assert_int_equal(json_integer_value(json_object_get(vocabulary, "A")), 66);
  assert_int_equal(json_array_size(json_object_get(tokenizer, "added_tokens")), 3);
  json_decref(tokenizer);
  free(text);
  pdt_model_config c = model;
  c.vocab_size = 258;
  c.n_eos = 1;
  assert_int_equal(pdt_random_tokenizer(&c, &text, &err), 0);
  assert_non_null(text);
  free(text);
  c.n_eos = 2;
  c.eos[1] = 4; /* no room for all bytes any more */
  assert_int_equal(pdt_random_tokenizer(&c, &text, &err), 0);
  assert_null(text);
}

#define SCRATCH(test) cmocka_unit_test_setup_teardown(test, scratch_setup, scratch_teardown)

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_text_round_trip),
      cmocka_unit_test(test_trained_is_kept),
      cmocka_unit_test(test_bad_texts),
      SCRATCH(test_tensors),
      SCRATCH(test_no_config),
      SCRATCH(test_fresh),
      SCRATCH(test_reader),
      SCRATCH(test_places),
      SCRATCH(test_note_query),
      SCRATCH(test_orders),
      cmocka_unit_test(test_normal),
      SCRATCH(test_random_model),
      cmocka_unit_test(test_random_tokenizer),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

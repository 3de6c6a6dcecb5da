/* ggml's quantized types: what blocks mean is what ggml says (tests/data/quantized.json, made by
 * quantized_vectors.py), to the last bit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/finite.h"
#include "base/json.h"
#include "base/quantized.h"

static json_t *vectors(void) {
  json_t *all;
  pdt_error err = {0};
  if (pdt_json_load(&all, "tests/data/quantized.json", 1 << 20, &err)) fail_msg("%s", err.message);
  return all;
}

/* The bytes of a text of hexadecimal digits, at an odd address as in a file. Freed by free(p - 1).
 */
static unsigned char *bytes_of(const json_t *entry, const char *key, int64_t *n) {
  const char *text = json_string_value(json_object_get(entry, key));
  assert_non_null(text);
  *n = (int64_t)strlen(text) / 2;
  unsigned char *bytes = malloc((size_t)*n + 1);
  assert_non_null(bytes);
  for (int64_t i = 0; i < *n; i++) {
    const char digits[] = {text[2 * i], text[2 * i + 1], 0};
    bytes[1 + i] = (unsigned char)strtoul(digits, NULL, 16);
  }
  return bytes + 1;
}

static void test_widened(void **state) {
  (void)state;
  json_t *all = vectors();
  for (pdt_dtype t = PDT_Q8_0; t <= PDT_Q6_K; t++) {
    const json_t *entry = json_object_get(all, pdt_dtype_name(t));
    pdt_dtype_block block = pdt_dtype_block_of(t);
    int64_t n_bytes, n_floats;
    unsigned char *bytes = bytes_of(entry, "bytes", &n_bytes);
    unsigned char *floats = bytes_of(entry, "floats", &n_floats);
    int64_t n = n_floats / 4;
    assert_int_equal(pdt_dtype_row_bytes(t, n), n_bytes);
    assert_true(n >= 2 * block.elems);
    float *found = malloc((size_t)n_floats);
    assert_non_null(found);
    pdt_to_float(t, bytes, n, found);
    assert_memory_equal(found, floats, (size_t)n_floats);
    free(found);
    free(bytes - 1);
    free(floats - 1);
  }
  json_decref(all);
}

/* Any run of pieces of a row is the same in blocks of 32. */
static void test_recut(void **state) {
  (void)state;
  json_t *all = vectors();
  for (pdt_dtype t = PDT_Q8_0; t <= PDT_Q6_K; t++) {
    const json_t *entry = json_object_get(all, pdt_dtype_name(t));
    pdt_dtype to = pdt_recut_dtype(t);
    int64_t n_bytes, n_floats;
    unsigned char *bytes = bytes_of(entry, "bytes", &n_bytes);
    unsigned char *floats = bytes_of(entry, "floats", &n_floats);
    int64_t pieces = n_floats / 4 / PDT_PIECE;
    assert_int_equal(pdt_dtype_block_of(to).elems, PDT_PIECE);
    for (int64_t first = 0; first < pieces; first++)
      for (int64_t n = 1; n <= pieces - first; n++) {
        float found[16 * PDT_PIECE];
        unsigned char cut[16 * 34 + 1];
        assert_true(n <= 16);
        pdt_recut(t, bytes, first, n, cut + 1);
        pdt_to_float(to, cut + 1, n * PDT_PIECE, found);
        assert_memory_equal(found, floats + first * PDT_PIECE * 4, (size_t)n * PDT_PIECE * 4);
      }
    free(bytes - 1);
    free(floats - 1);
  }
  json_decref(all);
}

static void test_quantize(void **state) {
  (void)state;
  json_t *all = vectors();
  for (pdt_dtype t = PDT_Q8_0; t <= PDT_Q4_0; t++) {
    const json_t *entry = json_object_get(all, pdt_dtype_name(t));
    int64_t n_bytes, n_floats;
    unsigned char *to = bytes_of(entry, "to", &n_bytes);
    unsigned char *from = bytes_of(entry, "from", &n_floats);
    float *x = malloc((size_t)n_floats);
    unsigned char *found = malloc((size_t)n_bytes);
    assert_non_null(x);
    assert_non_null(found);
    memcpy(x, from, (size_t)n_floats);
    assert_true(pdt_from_float(t, x, n_floats / 4, found));
    assert_memory_equal(found, to, (size_t)n_bytes);
    free(x);
    free(found);
    free(to - 1);
    free(from - 1);
  }
  float some[256] = {0};
  unsigned char room[256];
  assert_false(pdt_from_float(PDT_Q4_K, some, 256, room));
  json_decref(all);
}

static void test_finite(void **state) {
  (void)state;
  json_t *all = vectors();
  for (pdt_dtype t = PDT_Q8_0; t <= PDT_Q6_K; t++) {
    const json_t *entry = json_object_get(all, pdt_dtype_name(t));
    pdt_dtype_block block = pdt_dtype_block_of(t);
    int64_t n_bytes;
    unsigned char *bytes = bytes_of(entry, "bytes", &n_bytes);
    int64_t n = n_bytes / block.bytes * block.elems;
    assert_true(pdt_all_finite(t, bytes, n));
    assert_int_equal(pdt_first_not_finite(t, bytes, n), -1);
    /* Infinity as the second block's d, and as its min. */
    int places[] = {t == PDT_Q6_K ? 208 : 0, 2};
    for (int p = 0; p < (pdt_quantized_form_of(t).low ? 2 : 1); p++) {
      unsigned char *at = bytes + block.bytes + places[p], kept[] = {at[0], at[1]};
      at[0] = 0x00, at[1] = 0xFC;
      assert_int_equal(pdt_first_not_finite(t, bytes, n), block.elems);
      at[0] = kept[0], at[1] = kept[1];
    }
    free(bytes - 1);
  }
  for (pdt_dtype t = PDT_Q8_0; t <= PDT_Q4_0; t++) {
    const float bad[] = {1.0f / 0.0f, 0.0f / 0.0f, 1e9f};
    for (int b = 0; b < 3; b++) {
      unsigned char block[34];
      float x[PDT_PIECE] = {1, 2, bad[b]};
      assert_true(pdt_from_float(t, x, PDT_PIECE, block));
      assert_false(pdt_all_finite(t, block, PDT_PIECE));
    }
  }
  json_decref(all);
}

static void test_names(void **state) {
  (void)state;
  for (pdt_dtype t = PDT_F32; t <= PDT_Q6_K32; t++) {
    pdt_dtype found = PDT_F32;
    assert_int_equal(pdt_dtype_parse(pdt_dtype_name(t), &found), t <= PDT_Q6_K);
    if (t <= PDT_Q6_K) assert_int_equal(found, t);
    assert_int_equal(pdt_dtype_parse_float(pdt_dtype_name(t), &found), t <= PDT_BF16);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_widened), cmocka_unit_test(test_recut), cmocka_unit_test(test_quantize),
      cmocka_unit_test(test_finite),  cmocka_unit_test(test_names),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

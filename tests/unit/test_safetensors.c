/* Safetensors files and checkpoints: lies in headers are caught, what is written is read back, what
 * changes meanwhile is noticed. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/memory.h"
#include "scratch.h"
#include "store/checkpoint.h"

#define OK(call)                                                                                   \
  do {                                                                                             \
    if (call) fail_msg("%s", err.message);                                                         \
  } while (0)

/* Bytes of a file: length, header text, data_bytes of zeros. Freed by the caller. */
static unsigned char *make_file(const char *header, size_t data_bytes, size_t *n) {
  size_t length = strlen(header);
  *n = 8 + length + data_bytes;
  unsigned char *bytes = calloc(1, *n + 1);
  assert_non_null(bytes);
  for (int i = 0; i < 8; i++) bytes[i] = (unsigned char)(length >> (8 * i));
  memcpy(bytes + 8, header, length);
  return bytes;
}

typedef struct bad_header {
  const char *header;
  size_t data_bytes;
  const char *fragment;
} bad_header;

static const bad_header bad_headers[] = {
    {"[]", 0, "begin with '{'"},
    {" []", 0, "begin with '{'"},
    {"  ", 0, "begin with '{'"},
    {"\xef\xbb\xbf{}", 0, "begin with '{'"},
    {"{\"a\":null}", 0, "expected a JSON object, found null"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":NaN}}", 4,
     "not sound JSON"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":\"\\ud800\"}}", 4,
     "not sound JSON"},
    {"{\"a\":{\"dtype\":\"F33\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8, "hole before it"},
    {"{\"a\":{\"dtype\":7,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "'dtype'"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[18446744073709551616],\"data_offsets\":[0,4]}}", 4,
     "found 18446744073709551616"},
    {"{\"a\":1}", 0, "expected a JSON object, found integer"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}", 4, "not sound JSON"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
     "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
     8, "hole before it"}, /* the last one counts */
    {"{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "'dtype'"},
    {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "'shape'"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "'data_offsets'"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]}}", 8, "expected 2 numbers"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4, "shape"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1.0],\"data_offsets\":[0,4]}}", 4, "shape"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}", 4,
     "at most 8 dimensions"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4,
     "do not make shape [2]"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,8]}}", 8,
     "do not make shape [1]"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 3,
     "(the file has 3 bytes"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4, "from 4 to 4"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,0]}}", 4, "from 0 to 4"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", 0,
     "more elements than can be counted"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2305843009213693952],\"data_offsets\":[0,0]}}", 0,
     "do not make shape"},
    {"{\"a\":{\"dtype\":\"F4\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "do not make shape"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8, "hole before it"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
     "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[2,6]}}",
     6, "overlaps another"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
     "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
     4, "overlaps another"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 5, "1 bytes after"},
    {"{}", 4, "4 bytes after"},
    {"{\"__metadata__\":{\"k\":1}}", 0, "expected a string"},
    {"{\"__metadata__\":[]}", 0, "__metadata__: expected a JSON object"},
};

static void test_bad_headers(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof bad_headers / sizeof *bad_headers; i++) {
    size_t n;
    unsigned char *bytes = make_file(bad_headers[i].header, bad_headers[i].data_bytes, &n);
    pdt_safetensors *file;
    pdt_error err = {0};
    int rc = pdt_safetensors_open_memory(&file, bytes, (pdt_bytes)n, "f", &err);
    if (rc != -1 || file || err.code != PDT_ERROR_INPUT) fail_msg("header %zu was taken", i);
    if (!strstr(err.message, bad_headers[i].fragment))
      fail_msg("header %zu: '%s' is not in '%s'", i, bad_headers[i].fragment, err.message);
    free(bytes);
  }
}

/* What safetensors 0.8 reads without a word, and what pdt needs to know of it: the number of
 * tensors, and whether the first can be computed with. Types that nobody knows are pdt's own
 * leniency. */
static void test_odd_headers(void **state) {
  (void)state;
  static const struct {
    const char *header;
    size_t data_bytes;
    int32_t tensors;
    bool is_float;
  } odd[] = {
      {"{\"__metadata__\":null,\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
       1, true},
      {"{\"__metadata__\":{\"k\":\"1\",\"k\":\"\\u0000\"}}", 0, 0, false},
      {" \n{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}} \t", 4, 1, true},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":{\"y\":[1]}}}", 4, 1,
       true},
      {"{\"a\":{\"dtype\":\"F32\",\"x\":123456789012345678901234567890,\"shape\":[1],"
       "\"data_offsets\":[0,4]}}",
       4, 1, true},
      {"{\"a\\u0000\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, 1, true},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[9],\"data_offsets\":[7,8]},"
       "\"a\":{\"dtype\":\"BF16\",\"shape\":[1],\"data_offsets\":[0,2]}}",
       2, 1, true},
      {"{\"a\":{\"dtype\":\"F8_E4M3FNUZ\",\"shape\":[4],\"data_offsets\":[0,4]}}", 4, 1, false},
      {"{\"a\":{\"dtype\":\"BOOL\",\"shape\":[4],\"data_offsets\":[0,4]}}", 4, 1, false},
      {"{\"a\":{\"dtype\":\"Q4_0\",\"shape\":[32],\"data_offsets\":[0,18]}}", 18, 1, false},
      {"{\"a\":{\"dtype\":\"f32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, 1, false},
  };
  for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
    size_t n;
    unsigned char *bytes = make_file(odd[i].header, odd[i].data_bytes, &n);
    pdt_safetensors *file;
    pdt_error err = {0};
    if (pdt_safetensors_open_memory(&file, bytes, (pdt_bytes)n, "f", &err))
      fail_msg("%s: %s", odd[i].header, err.message);
    assert_int_equal(file->n_tensors, odd[i].tensors);
    if (file->n_tensors) {
      const pdt_tensor *t = &file->tensors[0];
      assert_int_equal(t->is_float, odd[i].is_float);
      int rc = pdt_tensor_expect(t, t->n_dims, t->shape, &err);
      assert_int_equal(rc, odd[i].is_float ? 0 : -1);
      if (rc) assert_non_null(strstr(err.message, t->dtype_name));
    }
    pdt_safetensors_close(file);
    free(bytes);
  }
}

/* Every way to cut a sound file short is noticed. */
static void test_truncation(void **state) {
  (void)state;
  size_t n;
  unsigned char *bytes =
      make_file("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}} ", 8, &n);
  pdt_safetensors *file;
  pdt_error err;
  for (size_t cut = 0; cut < n; cut++) {
    unsigned char *copy = malloc(cut + 1); /* exact, so that reading past it is caught */
    assert_non_null(copy);
    memcpy(copy, bytes, cut);
    unsigned char *exact = realloc(copy, cut ? cut : 1);
    assert_int_equal(pdt_safetensors_open_memory(&file, exact, (pdt_bytes)cut, "f", &err), -1);
    free(exact);
  }
  assert_int_equal(pdt_safetensors_open_memory(&file, bytes, (pdt_bytes)n, "f", &err), 0);
  assert_int_equal(file->n_tensors, 1);
  pdt_safetensors_close(file);
  bytes[7] = 0x80; /* a length of 2^63 and some */
  assert_int_equal(pdt_safetensors_open_memory(&file, bytes, (pdt_bytes)n, "f", &err), -1);
  free(bytes);
}

static void test_known_types(void **state) {
  (void)state;
  size_t n;
  unsigned char *bytes =
      make_file("{\"z\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[0,8]},"
                "\"e\":{\"dtype\":\"BF16\",\"shape\":[0,7],\"data_offsets\":[8,8]},"
                "\"q\":{\"dtype\":\"F4\",\"shape\":[2,3],\"data_offsets\":[8,11]},"
                "\"b\":{\"dtype\":\"BF16\",\"shape\":[3],\"data_offsets\":[11,17]}}",
                17, &n);
  pdt_safetensors *file;
  pdt_error err;
  assert_int_equal(pdt_safetensors_open_memory(&file, bytes, (pdt_bytes)n, "f", &err), 0);
  const pdt_tensor *z = pdt_safetensors_find(file, "z"), *b = pdt_safetensors_find(file, "b");
  assert_string_equal(z->dtype_name, "I64");
  assert_false(z->is_float);
  assert_int_equal(z->n_dims, 0);
  assert_int_equal(z->n_elems, 1);
  assert_true(b->is_float && b->dtype == PDT_BF16);
  assert_int_equal(b->at, n - 6);
  assert_int_equal(pdt_safetensors_find(file, "e")->bytes, 0);
  assert_null(pdt_safetensors_find(file, "a"));
  assert_null(pdt_safetensors_metadata(file, "a"));
  assert_int_equal(pdt_tensor_expect(b, 1, (int64_t[]){3}, &err), 0);
  assert_int_equal(pdt_tensor_expect(b, 2, (int64_t[]){3, 1}, &err), -1);
  assert_non_null(strstr(err.message, "expected shape [3, 1], found [3]"));
  assert_int_equal(pdt_tensor_expect(z, 0, NULL, &err), -1);
  assert_non_null(strstr(err.message, "found I64"));
  pdt_safetensors_close(file);
  free(bytes);
}

/* Element i of tensor t: a number that says which it is and that every type holds exactly. */
static float value_of(int32_t t, int64_t i) {
  return (float)((t * 31 + i) % 128);
}

static int fill_values(void *context, int32_t index, int64_t first, int64_t n_elems, void *chunk,
                       pdt_error *err) {
  const pdt_tensor_spec *specs = context;
  if (strcmp(specs[index].name, "fails") == 0) return pdt_fail(err, PDT_ERROR_RUNTIME, "as asked");
  for (int64_t i = 0; i < n_elems; i++) {
    float v = value_of(index, first + i);
    pdt_from_float(specs[index].dtype, &v, 1,
                   (char *)chunk + (size_t)i * pdt_dtype_bytes(specs[index].dtype));
  }
  return 0;
}

static int write_specs(scratch *s, const char *name, pdt_tensor_spec *specs, int32_t n,
                       pdt_error *err) {
  const pdt_metadata metadata[] = {{"config", "{\"x\": \"\\\"\"}"}, {"format", "pt"}};
  return pdt_safetensors_write(scratch_path(s, name), specs, n, metadata, 2, fill_values, specs,
                               err);
}

static void check_values(const pdt_tensor *t, int32_t index) {
  pdt_error err = {0};
  for (int64_t i = 0; i < t->n_elems; i++) {
    float raw, v;
    if (pdt_tensor_read(t, i, 1, &raw, &err)) fail_msg("%s", err.message);
    pdt_to_float(t->dtype, &raw, 1, &v);
    if (v != value_of(index, i)) fail_msg("%s[%lld] is %g", t->name, (long long)i, (double)v);
  }
}

static void test_round_trip(void **state) {
  scratch *s = *state;
  pdt_tensor_spec specs[] = {
      {"m", PDT_F32, 2, {1000, 601}}, /* more than two chunks */
      {"scalar", PDT_F32, 0, {0}},      {"odd", PDT_BF16, 1, {3}},
      {"empty", PDT_F16, 2, {0, 5}},    {"after", PDT_F32, 3, {2, 1, 3}},
      {"h\xc3\xa9\"", PDT_F16, 1, {7}},
  };
  enum { N = sizeof specs / sizeof *specs };
  pdt_error err = {0};
  pdt_safetensors *file;
  assert_int_equal(write_specs(s, "f", specs, N, &err), 0);
  assert_int_equal(pdt_safetensors_open(&file, scratch_path(s, "f"), &err), 0);
  assert_int_equal(file->n_tensors, N);
  assert_int_equal(file->data_offset % 8, 0);
  assert_string_equal(pdt_safetensors_metadata(file, "config"), "{\"x\": \"\\\"\"}");
  for (int32_t i = 0; i < N; i++) {
    const pdt_tensor *t = pdt_safetensors_find(file, specs[i].name);
    assert_non_null(t);
    assert_int_equal(t->dtype, specs[i].dtype);
    assert_int_equal(pdt_tensor_expect(t, specs[i].n_dims, specs[i].shape, &err), 0);
    check_values(t, i);
  }
  OK(pdt_safetensors_unchanged(file, &err));
  pdt_safetensors_close(file);
}

static void test_write_errors(void **state) {
  scratch *s = *state;
  pdt_error err = {0};
  pdt_tensor_spec good[] = {{"a", PDT_F32, 1, {4}}};
  pdt_tensor_spec twice[] = {{"a", PDT_F32, 1, {4}}, {"a", PDT_F32, 1, {4}}};
  pdt_tensor_spec fails[] = {{"a", PDT_F32, 1, {4}}, {"fails", PDT_F32, 1, {4}}};
  pdt_tensor_spec huge[] = {{"a", PDT_F32, 2, {INT64_MAX, 2}}};
  pdt_tensor_spec name[] = {{"\xff", PDT_F32, 1, {4}}};
  assert_int_equal(write_specs(s, "f", good, 1, &err), 0);
  assert_int_equal(write_specs(s, "f", twice, 2, &err), -1);
  assert_non_null(strstr(err.message, "two of that name"));
  assert_int_equal(write_specs(s, "f", huge, 1, &err), -1);
  assert_int_equal(write_specs(s, "f", name, 1, &err), -1);
  assert_int_equal(write_specs(s, "f", fails, 2, &err), -1);
  assert_non_null(strstr(err.message, "as asked"));
  assert_int_equal(write_specs(s, "no/f", good, 1, &err), -1);
  assert_int_equal(err.code, PDT_ERROR_IO);
  pdt_safetensors *file; /* what was there still is, and nothing beside it */
  assert_int_equal(pdt_safetensors_open(&file, scratch_path(s, "f"), &err), 0);
  assert_int_equal(file->n_tensors, 1);
  pdt_safetensors_close(file);
  assert_int_equal(remove(scratch_path(s, "f")), 0);
  assert_int_equal(rmdir(s->folder), 0);
  assert_int_equal(mkdir(s->folder, 0700), 0); /* for the teardown */
}

/* A file that is cut or written to after it was opened is an error where it is read, or where it is
 * asked about; one that another replaced by name is still what it was. */
static void test_changed(void **state) {
  scratch *s = *state;
  pdt_tensor_spec spec[] = {{"m", PDT_F32, 2, {1000, 1000}}};
  pdt_error err = {0};
  pdt_safetensors *file;
  float row[1000];
  uint64_t hash;
  OK(write_specs(s, "f", spec, 1, &err));
  OK(pdt_safetensors_open(&file, scratch_path(s, "f"), &err));
  OK(write_specs(s, "f", spec, 1, &err)); /* by rename */
  OK(pdt_tensor_read(&file->tensors[0], 999 * 1000, 1000, row, &err));
  OK(pdt_safetensors_unchanged(file, &err));
  pdt_safetensors_close(file);

  OK(pdt_safetensors_open(&file, scratch_path(s, "f"), &err));
  assert_int_equal(truncate(scratch_path(s, "f"), 2000000), 0);
  OK(pdt_tensor_read(&file->tensors[0], 0, 1000, row, &err));
  assert_int_equal(pdt_tensor_read(&file->tensors[0], 999 * 1000, 1000, row, &err), -1);
  assert_int_equal(err.code, PDT_ERROR_IO);
  assert_non_null(strstr(err.message, "is gone (hint: it was cut"));
  assert_int_equal(pdt_safetensors_fingerprint(file, PDT_FINGERPRINT_FULL, &hash, &err), -1);
  assert_int_equal(pdt_safetensors_fingerprint(file, PDT_FINGERPRINT_QUICK, &hash, &err), -1);
  assert_int_equal(pdt_safetensors_unchanged(file, &err), -1);
  pdt_safetensors_close(file);

  OK(write_specs(s, "f", spec, 1, &err));
  OK(pdt_safetensors_open(&file, scratch_path(s, "f"), &err));
  const struct timespec times[2] = {{.tv_sec = 1}, {.tv_sec = 1}}; /* as of another content */
  assert_int_equal(utimensat(AT_FDCWD, scratch_path(s, "f"), times, 0), 0);
  assert_int_equal(pdt_safetensors_unchanged(file, &err), -1);
  assert_non_null(strstr(err.message, "changed while it was being read"));
  pdt_safetensors_close(file);
}

static uint64_t fingerprint(const void *bytes, size_t n, pdt_fingerprint_mode mode) {
  pdt_safetensors *file;
  pdt_error err;
  assert_int_equal(pdt_safetensors_open_memory(&file, bytes, (pdt_bytes)n, "f", &err), 0);
  uint64_t value;
  OK(pdt_safetensors_fingerprint(file, mode, &value, &err));
  pdt_safetensors_close(file);
  return value;
}

static void test_fingerprint(void **state) {
  (void)state;
  size_t n;
  unsigned char *bytes = make_file(
      "{\"a\":{\"dtype\":\"U8\",\"shape\":[40000],\"data_offsets\":[0,40000]}}", 40000, &n);
  uint64_t quick = fingerprint(bytes, n, PDT_FINGERPRINT_QUICK);
  uint64_t full = fingerprint(bytes, n, PDT_FINGERPRINT_FULL);
  assert_true(quick != full);
  bytes[n - 20000] = 1;
  assert_true(quick == fingerprint(bytes, n, PDT_FINGERPRINT_QUICK));
  assert_true(full != fingerprint(bytes, n, PDT_FINGERPRINT_FULL));
  bytes[n - 20000] = 0;
  bytes[n - 1] = 1;
  assert_true(quick != fingerprint(bytes, n, PDT_FINGERPRINT_QUICK));
  bytes[n - 1] = 0;
  bytes[n - 40000] = 1;
  assert_true(quick != fingerprint(bytes, n, PDT_FINGERPRINT_QUICK));
  bytes[n - 40000] = 0;
  bytes[10] = 'b'; /* another tensor's name */
  assert_true(quick != fingerprint(bytes, n, PDT_FINGERPRINT_QUICK));
  bytes[10] = 'a';
  assert_true(full == fingerprint(bytes, n, PDT_FINGERPRINT_FULL));
  free(bytes);
}

static void expect_no_checkpoint(scratch *s, const char *index, const char *fragment) {
  pdt_checkpoint *c;
  pdt_error err = {0};
  if (index) scratch_text(s, "model.safetensors.index.json", index);
  assert_int_equal(pdt_checkpoint_open(&c, s->folder, NULL, &err), -1);
  assert_null(c);
  if (!strstr(err.message, fragment)) fail_msg("'%s' is not in '%s'", fragment, err.message);
}

static pdt_checkpoint *open_indexed(scratch *s, const char *index, int32_t files, int32_t tensors) {
  pdt_checkpoint *c;
  pdt_error err = {0};
  scratch_text(s, "model.safetensors.index.json", index);
  if (pdt_checkpoint_open(&c, s->folder, NULL, &err)) fail_msg("%s: %s", index, err.message);
  assert_int_equal(c->n_files, files);
  assert_int_equal(c->n_tensors, tensors);
  return c;
}

static const pdt_tensor_spec first_shard[] = {{"b", PDT_F32, 1, {4}},
                                              {"unlisted", PDT_F32, 1, {1}}};
static const pdt_tensor_spec second_shard[] = {{"a", PDT_BF16, 2, {2, 2}}, {"c", PDT_F32, 1, {1}}};

static void write_shards(scratch *s) {
  pdt_error err;
  pdt_tensor_spec first[2], second[2];
  memcpy(first, first_shard, sizeof first);
  memcpy(second, second_shard, sizeof second);
  assert_int_equal(write_specs(s, "x1.safetensors", first, 2, &err), 0);
  assert_int_equal(write_specs(s, "x2.safetensors", second, 2, &err), 0);
  scratch_path(s, "deep");
  assert_int_equal(mkdir(s->path, 0700), 0);
  assert_int_equal(write_specs(s, "deep/x1.safetensors", second, 2, &err), 0);
}

static void test_bad_indices(void **state) {
  scratch *s = *state;
  expect_no_checkpoint(s, NULL, "found neither");
  write_shards(s);
  expect_no_checkpoint(s, "{}", "'weight_map'");
  expect_no_checkpoint(s, "[]", "expected a JSON object");
  expect_no_checkpoint(s, "{\"weight_map\":NaN}", "expected an object, found NaN");
  static const char *const outside[] = {
      "../x1.safetensors",      "/etc/passwd",         "..", "", ".", "./",
      "a/../../x1.safetensors", "a/../x1.safetensors", "//"};
  for (size_t i = 0; i < sizeof outside / sizeof *outside; i++) {
    char index[128];
    snprintf(index, sizeof index, "{\"weight_map\":{\"a\":\"%s\"}}", outside[i]);
    expect_no_checkpoint(s, index, "expected a file in the model's folder");
  }
  expect_no_checkpoint(s, "{\"weight_map\":{\"a\":7}}", "found 'integer'");
  expect_no_checkpoint(s, "{\"weight_map\":{\"a\":\"deep\"}}", "deep");
  scratch_text(s, "x3.safetensors", "broken");
  expect_no_checkpoint(s, "{\"weight_map\":{\"a\":\"x3.safetensors\"}}", "truncated");
  scratch_path(s, "x4.safetensors");
  assert_int_equal(symlink("nowhere", s->path), 0);
  expect_no_checkpoint(s, "{\"weight_map\":{\"a\":\"x4.safetensors\"}}", "symbolic link");
  scratch_path(s, "model.safetensors");
  assert_int_equal(symlink("nowhere", s->path), 0); /* not silently passed over */
  expect_no_checkpoint(s, "{\"weight_map\":{\"a\":\"x2.safetensors\"}}", "symbolic link");
}

static void test_sharded(void **state) {
  scratch *s = *state;
  pdt_error err = {0};
  write_shards(s);
  pdt_checkpoint *c =
      open_indexed(s,
                   "\xef\xbb\xbf{\"metadata\":{\"total_size\":1e999},\"weight_map\":"
                   "{\"c\":\"./x2.safetensors\",\"a\":\"x2.safetensors\","
                   "\"b\":\".//x1.safetensors\",\"not there\":\"x1.safetensors\","
                   "\"nowhere\":\"x9.safetensors\"}}",
                   2, 4);
  check_values(pdt_checkpoint_find(c, "a"), 0);
  check_values(pdt_checkpoint_find(c, "c"), 1);
  check_values(pdt_checkpoint_find(c, "unlisted"), 1); /* the files say what is in them */
  assert_null(pdt_checkpoint_find(c, "not there"));
  assert_int_equal(pdt_checkpoint_missing(c, "not there", &err), -1);
  assert_non_null(strstr(err.message, "'not there' is missing: model.safetensors.index.json has it "
                                      "in 'x1.safetensors', which does not have it"));
  assert_int_equal(err.code, PDT_ERROR_INPUT);
  assert_int_equal(pdt_checkpoint_missing(c, "nowhere", &err), -1);
  assert_non_null(strstr(err.message, "in 'x9.safetensors', which is not there"));
  assert_int_equal(err.code, PDT_ERROR_IO);
  assert_int_equal(pdt_checkpoint_missing(c, "x", &err), -1);
  assert_non_null(strstr(err.message, "tensor 'x' is missing"));
  uint64_t one, two;
  assert_int_equal(pdt_checkpoint_fingerprint(c, PDT_FINGERPRINT_FULL, &one, &err), -1);
  scratch_text(s, "config.json", "{}");
  assert_int_equal(pdt_checkpoint_fingerprint(c, PDT_FINGERPRINT_FULL, &one, &err), 0);
  scratch_text(s, "config.json", "{ }");
  assert_int_equal(pdt_checkpoint_fingerprint(c, PDT_FINGERPRINT_FULL, &two, &err), 0);
  assert_true(one != two);
  pdt_checkpoint_close(c);
  /* Two files with the same names: the index decides, or else the last one. */
  c = open_indexed(s, "{\"weight_map\":{\"a\":\"deep/x1.safetensors\",\"z\":\"x2.safetensors\"}}",
                   2, 2);
  assert_non_null(strstr(pdt_checkpoint_find(c, "a")->file->path, "/deep/x1.safetensors"));
  assert_non_null(strstr(pdt_checkpoint_find(c, "c")->file->path, "/x2.safetensors"));
  pdt_checkpoint_close(c);
  scratch_text(s, "model.safetensors", "broken"); /* wins over the index */
  expect_no_checkpoint(s, NULL, "truncated");
}

/* Names with and without the base model's prefix are the same. */
static void test_prefix(void **state) {
  scratch *s = *state;
  pdt_error err = {0};
  pdt_tensor_spec specs[] = {
      {"norm.weight", PDT_F32, 1, {3}},   {"model.lm_head.weight", PDT_F32, 1, {4}},
      {"model.x", PDT_F32, 1, {5}},       {"x", PDT_F32, 1, {6}},
      {"model.model.y", PDT_F32, 1, {7}}, {"model.layers.0", PDT_F32, 1, {8}},
      {"layers.0", PDT_F32, 1, {9}}};
  pdt_checkpoint *c;
  assert_int_equal(write_specs(s, "model.safetensors", specs, 7, &err), 0);
  assert_int_equal(pdt_checkpoint_open(&c, s->folder, NULL, &err), 0);
  assert_int_equal(pdt_checkpoint_find(c, "model.norm.weight")->n_elems, 3);
  assert_int_equal(pdt_checkpoint_find(c, "lm_head.weight")->n_elems, 4);
  assert_int_equal(pdt_checkpoint_find(c, "model.x")->n_elems, 5);
  assert_int_equal(pdt_checkpoint_find_second(c, "model.x")->n_elems, 6);
  assert_int_equal(pdt_checkpoint_find(c, "model.y")->n_elems, 7);
  assert_null(pdt_checkpoint_find_second(c, "model.y"));
  assert_int_equal(pdt_checkpoint_find(c, "model.layers.0")->n_elems, 9); /* the first by name */
  assert_int_equal(pdt_checkpoint_find_second(c, "model.layers.0")->n_elems, 8);
  assert_null(pdt_checkpoint_find_second(c, "model.z"));
  assert_null(pdt_checkpoint_find(c, "model.z"));
  assert_null(pdt_checkpoint_find(c, "y"));
  pdt_checkpoint_close(c);
}

#define SCRATCH(test) cmocka_unit_test_setup_teardown(test, scratch_setup, scratch_teardown)

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_bad_headers),
      cmocka_unit_test(test_odd_headers),
      cmocka_unit_test(test_truncation),
      cmocka_unit_test(test_known_types),
      SCRATCH(test_round_trip),
      SCRATCH(test_write_errors),
      SCRATCH(test_changed),
      cmocka_unit_test(test_fingerprint),
      SCRATCH(test_sharded),
      SCRATCH(test_bad_indices),
      SCRATCH(test_prefix),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

/* What each rank holds of the trunk: shares cover everything once, power-of-two shares are subtrees
 * of the sum, key/value heads are those that the query heads read; and sums over ranks. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/kernels.h"
#include "numbers.h"
#include "trunk/shard.h"

static pdt_model_config shape(int32_t heads, int32_t kv_heads, int32_t ffn, int32_t vocab) {
  return (pdt_model_config){
      .heads = heads, .kv_heads = kv_heads, .intermediate_size = ffn, .vocab_size = vocab};
}

static bool is_empty(pdt_range r) {
  return r.begin == r.end;
}

/* Ranges of ranks 0, 1, .. follow one another without a gap; empty ones may stand anywhere. */
static void expect_next(int32_t *end, pdt_range range) {
  assert_true(range.begin <= range.end);
  if (is_empty(range)) return;
  assert_int_equal(range.begin, *end);
  *end = range.end;
}

static void check_kv(const pdt_model_config *c, const pdt_shard *s) {
  int32_t per_kv = c->heads / c->kv_heads;
  assert_int_equal(is_empty(s->kv_heads), is_empty(s->heads));
  for (int32_t kv = 0; kv < c->kv_heads; kv++) {
    bool is_read = false;
    for (int32_t h = s->heads.begin; h < s->heads.end; h++) is_read |= h / per_kv == kv;
    assert_int_equal(kv >= s->kv_heads.begin && kv < s->kv_heads.end, is_read);
  }
}

static void check_group(const pdt_model_config *c, pdt_rank T) {
  int32_t heads = 0, ffn = 0, vocab = 0;
  for (pdt_rank t = 0; t < T; t++) {
    pdt_shard s = pdt_shard_of(c, t, T);
    assert_int_equal(s.rank, t);
    assert_int_equal(s.size, T);
    expect_next(&heads, s.heads);
    expect_next(&ffn, s.ffn);
    expect_next(&vocab, s.vocab);
    check_kv(c, &s);
    assert_int_equal(pdt_shard_has_heads(c, t, T), !is_empty(s.heads));
    assert_int_equal(pdt_shard_has_ffn(c, t, T), !is_empty(s.ffn));
    assert_int_equal(s.ffn.begin % PDT_FFN_BLOCK, 0);
    assert_int_equal(s.vocab.begin % PDT_PANEL, 0);
    assert_true(s.ffn.end % PDT_FFN_BLOCK == 0 || s.ffn.end == c->intermediate_size);
    assert_true(s.vocab.end % PDT_PANEL == 0 || s.vocab.end == c->vocab_size);
  }
  assert_int_equal(heads, c->heads);
  assert_int_equal(ffn, c->intermediate_size);
  assert_int_equal(vocab, c->vocab_size);
}

static void shares_cover_everything_once(void **state) {
  (void)state;
  for (int32_t kv = 1; kv <= 9; kv++)
    for (int32_t per = 1; per <= 8; per++)
      for (pdt_rank T = 1; T <= 24; T++) {
        pdt_model_config c = shape(kv * per, kv, 37 * kv * per + 1, 61 * kv + per);
        check_group(&c, T);
      }
}

static void tiny_and_huge(void **state) {
  (void)state;
  const int32_t sizes[][4] = {{1, 1, 1, 1},
                              {1, 1, 64, 16},
                              {1, 1, 65, 17},
                              {9, 3, 1536, 49152},
                              {64, 8, 28672, 128256},
                              {15, 5, 2560, 49152},
                              {128, 8, 53248, 1 << 24},
                              {40, 40, 13824, 32000}};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
    for (pdt_rank T = 1; T <= 256; T++) {
      pdt_model_config c = shape(sizes[i][0], sizes[i][1], sizes[i][2], sizes[i][3]);
      check_group(&c, T);
    }
}

static void expect_range(pdt_range r, int32_t begin, int32_t end) {
  assert_int_equal(r.begin, begin);
  assert_int_equal(r.end, end);
}

static void known(void **state) {
  (void)state;
  /* SmolLM2-135M on 4 ranks: heads 3 2 | 2 2 of 9, which read kv heads 0 | 1 | 1 2 | 2. */
  pdt_model_config c = shape(9, 3, 1536, 49152);
  const int32_t heads[] = {0, 3, 5, 7, 9}, kv[][2] = {{0, 1}, {1, 2}, {1, 3}, {2, 3}};
  for (pdt_rank t = 0; t < 4; t++) {
    pdt_shard s = pdt_shard_of(&c, t, 4);
    expect_range(s.heads, heads[t], heads[t + 1]);
    expect_range(s.kv_heads, kv[t][0], kv[t][1]);
    expect_range(s.ffn, t * 384, t * 384 + 384);
    expect_range(s.vocab, t * 12288, t * 12288 + 12288);
  }
  /* More ranks than kv heads: neighbors keep the same one. */
  c = shape(4, 1, 128, 32);
  for (pdt_rank t = 0; t < 8; t++) {
    pdt_shard s = pdt_shard_of(&c, t, 8);
    assert_int_equal(s.heads.end - s.heads.begin, t % 2 == 0);
    assert_int_equal(s.kv_heads.end - s.kv_heads.begin, t % 2 == 0);
  }
}

/* Is [begin, end) a node of the tree over n leaves, the larger half left? */
static bool is_subtree(int32_t n, int32_t begin, int32_t end) {
  int32_t first = 0;
  while (n > 1 && !(begin == first && end == first + n)) {
    int32_t left = n / 2 + n % 2;
    if (begin < first + left) {
      n = left;
    } else {
      first += left;
      n -= left;
    }
  }
  return begin == first && end == first + n;
}

static void powers_of_two_cut_subtrees(void **state) {
  (void)state;
  assert_true(is_subtree(9, 0, 5) && is_subtree(9, 3, 5) && !is_subtree(9, 3, 6));
  for (int32_t n = 1; n <= 200; n++)
    for (pdt_rank T = 1; T <= 64; T *= 2) {
      pdt_model_config c = shape(n, 1, n * PDT_FFN_BLOCK - n % 7, 16);
      for (pdt_rank t = 0; t < T; t++) {
        pdt_shard s = pdt_shard_of(&c, t, T);
        if (!is_empty(s.heads)) assert_true(is_subtree(n, s.heads.begin, s.heads.end));
        if (!is_empty(s.ffn))
          assert_true(is_subtree(n, s.ffn.begin / PDT_FFN_BLOCK,
                                 (s.ffn.end + PDT_FFN_BLOCK - 1) / PDT_FFN_BLOCK));
      }
    }
}

/* The tree's sum of leaves [first, first + n). */
static float tree_sum(const float *leaves, int32_t n) {
  if (n == 1) return leaves[0];
  int32_t left = n / 2 + n % 2;
  float a = tree_sum(leaves, left);
  return a + tree_sum(leaves + left, n - left);
}

enum { LEAVES = 40, RANKS = 64, WIDTH = 300 }; /* WIDTH: more than two of the blocks of a sum */

/* Heads as leaves: each rank sums its own by the tree, pdt_sum_shares the ranks. Whole numbers, as
 * wide apart as floats of 24 bits can be, make the order visible. */
static void split_sum(const float *leaves, int32_t n, pdt_rank T, float *out) {
  pdt_array parts[RANKS] = {{NULL}};
  float *sums = calloc((size_t)T * WIDTH, sizeof *sums);
  assert_non_null(sums);
  for (pdt_rank t = 0; t < T; t++) {
    pdt_range share = pdt_share(n, T, t);
    if (is_empty(share)) continue;
    parts[t].at = sums + (ptrdiff_t)t * WIDTH;
    for (int32_t j = 0; j < WIDTH; j++)
      sums[t * WIDTH + j] =
          tree_sum(leaves + (ptrdiff_t)j * LEAVES + share.begin, share.end - share.begin);
  }
  pdt_sum_shares(parts, T, WIDTH, (pdt_array){out});
  free(sums);
}

static void split_sums_have_the_bits_of_one(void **state) {
  (void)state;
  numbers r = {61};
  float leaves[WIDTH * LEAVES], one[WIDTH], split[WIDTH];
  for (int32_t i = 0; i < WIDTH * LEAVES; i++)
    leaves[i] = (float)((numbers_real(&r) - 0.5) * exp2(numbers_int(&r, -20, 20)));
  int32_t other = 0;
  for (int32_t n = 1; n <= LEAVES; n++) {
    split_sum(leaves, n, 1, one);
    for (pdt_rank T = 2; T <= RANKS; T++) {
      split_sum(leaves, n, T, split);
      bool equal = memcmp(one, split, sizeof one) == 0;
      if ((T & (T - 1)) == 0) assert_true(equal);
      other += !equal;
      for (int32_t j = 0; j < WIDTH; j++) { /* and others within the rounding of n additions */
        double size = 0;
        for (int32_t i = 0; i < n; i++) size += fabs((double)leaves[j * LEAVES + i]);
        assert_true(fabs((double)one[j] - (double)split[j]) <= n * 0x1p-23 * size);
      }
    }
  }
  assert_true(other > 100); /* else these numbers could not tell one order from another */
}

static void sums_of_ranks_without_a_share(void **state) {
  (void)state;
  float a[] = {-0.0F, 1}, b[] = {2, 3}, out[] = {7, 7};
  const pdt_array none[3] = {{NULL}}, first[2] = {{a}}, last[4] = {{NULL}, {NULL}, {a}};
  const pdt_array two[5] = {{NULL}, {a}, {NULL}, {b}}, to = {out};
  pdt_sum_shares(none, 3, 2, to);
  assert_true(out[0] == 0 && out[1] == 0);
  pdt_sum_shares(first, 2, 2, to); /* left out, not added as zero: -0 stays -0 */
  assert_true(signbit(out[0]) && out[1] == 1);
  pdt_sum_shares(last, 4, 2, to);
  assert_true(signbit(out[0]) && out[1] == 1);
  pdt_sum_shares(two, 5, 2, to);
  assert_true(out[0] == 2 && out[1] == 4);
  pdt_sum_shares(two, 5, 2, (pdt_array){b}); /* into one of the parts */
  assert_true(b[0] == 2 && b[1] == 4);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(shares_cover_everything_once),
      cmocka_unit_test(tiny_and_huge),
      cmocka_unit_test(known),
      cmocka_unit_test(powers_of_two_cut_subtrees),
      cmocka_unit_test(split_sums_have_the_bits_of_one),
      cmocka_unit_test(sums_of_ranks_without_a_share),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The sum tree: shares cover the leaves, and a split sum has the bits of the whole one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/sum_tree.h"

static void shares_cover_the_leaves(void **state) {
  (void)state;
  for (int32_t n = 0; n <= 70; n++)
    for (int32_t T = 1; T <= 40; T++) {
      int32_t end = 0, least = n, most = 0;
      for (int32_t r = 0; r < T; r++) {
        pdt_range share = pdt_share(n, T, r);
        assert_int_equal(share.begin, end);
        assert_true(share.end >= share.begin);
        int32_t size = share.end - share.begin;
        end = share.end;
        if (size < least) least = size;
        if (size > most) most = size;
      }
      assert_int_equal(end, n);
      /* Rounding up to the left may add one at each halving, no more. */
      assert_true(most - least <= 2);
    }
}

static void shares_known(void **state) {
  (void)state;
  /* 9 heads over 4 ranks: 5 | 4, then 3 2 | 2 2. 2 heads over 3: 2 | 0, then 1 1 | 0. */
  int32_t nine[] = {3, 5, 7, 9}, two[] = {1, 2, 2};
  for (int32_t r = 0; r < 4; r++) assert_int_equal(pdt_share(9, 4, r).end, nine[r]);
  for (int32_t r = 0; r < 3; r++) assert_int_equal(pdt_share(2, 3, r).end, two[r]);
  pdt_range huge = pdt_share(INT32_MAX, 3, 2);
  assert_int_equal(huge.end, INT32_MAX);
  assert_in_range(huge.end - huge.begin, 715827880, 715827884);
}

/* The definition, recursive: left half (the larger) plus right half. */
static float tree_sum(const float *leaves, int32_t n) {
  if (n == 1) return leaves[0];
  int32_t left = (n + 1) / 2;
  float a = tree_sum(leaves, left);
  return a + tree_sum(leaves + left, n - left);
}

/* The sum as the flattened tree makes it. */
static float flat_sum(const pdt_sum_tree *tree, const float *leaves) {
  float stack[64];
  int32_t top = 0;
  for (int32_t i = 0; i < tree->leaves; i++) {
    stack[top++] = leaves[i];
    assert_true(top <= tree->depth);
    for (int m = 0; m < tree->merges[i]; m++) {
      top--;
      stack[top - 1] = stack[top - 1] + stack[top];
    }
  }
  assert_int_equal(top, 1);
  return stack[0];
}

static void fill(float *x, int n) {
  for (int i = 0; i < n; i++) x[i] = (float)rand() / (float)RAND_MAX - 0.5f;
}

static void flat_equals_recursive(void **state) {
  (void)state;
  float leaves[300];
  srand(1);
  for (int32_t n = 1; n <= 300; n++) {
    pdt_sum_tree tree;
    assert_int_equal(pdt_sum_tree_new(&tree, n * 7, 7, NULL), 0);
    assert_int_equal(tree.leaves, n);
    fill(leaves, n);
    float a = tree_sum(leaves, n), b = flat_sum(&tree, leaves);
    assert_memory_equal(&a, &b, sizeof a);
    pdt_sum_tree_free(&tree);
  }
}

static void leaves_end_where_they_should(void **state) {
  (void)state;
  pdt_sum_tree tree;
  assert_int_equal(pdt_sum_tree_new(&tree, 10, 4, NULL), 0);
  assert_int_equal(tree.leaves, 3);
  assert_int_equal(tree.leaf_end[0], 4);
  assert_int_equal(tree.leaf_end[1], 8);
  assert_int_equal(tree.leaf_end[2], 10);
  pdt_sum_tree_free(&tree);
  assert_int_equal(pdt_sum_tree_new(&tree, 10, INT32_MAX, NULL), 0);
  assert_int_equal(tree.leaves, 1);
  assert_int_equal(tree.depth, 1);
  assert_int_equal(tree.leaf_end[0], 10);
  pdt_sum_tree_free(&tree);
  pdt_error err;
  assert_int_equal(pdt_sum_tree_new(&tree, 0, 4, &err), -1);
  assert_int_equal(pdt_sum_tree_new(&tree, 4, 0, &err), -1);
  assert_null(tree.leaf_end);
}

/* Ranks sum their own leaves by their own tree; together they must give the whole tree's bits. */
static void split_sum(int32_t n, int32_t T, bool exact) {
  enum { WIDTH = 300 }; /* more than one block of pdt_sum_shares */
  float *leaves = malloc((size_t)n * WIDTH * sizeof *leaves), whole[WIDTH];
  float *parts = calloc((size_t)T * WIDTH, sizeof *parts), column[64];
  pdt_array given[64];
  fill(leaves, n * WIDTH);
  for (int e = 0; e < WIDTH; e++) whole[e] = tree_sum(leaves + e * n, n);
  for (int32_t t = 0; t < T; t++) {
    pdt_range share = pdt_share(n, T, t);
    given[t].at = share.end > share.begin ? parts + t * WIDTH : NULL;
    for (int e = 0; given[t].at && e < WIDTH; e++) {
      memcpy(column, leaves + e * n + share.begin,
             (size_t)(share.end - share.begin) * sizeof *column);
      parts[t * WIDTH + e] = tree_sum(column, share.end - share.begin);
    }
  }
  float *out = parts + (T - 1) * WIDTH; /* in place of one of the parts */
  pdt_sum_shares(given, T, WIDTH, (pdt_array){out});
  if (exact) assert_memory_equal(out, whole, sizeof whole);
  for (int e = 0; e < WIDTH; e++)
    assert_true(out[e] - whole[e] < 1e-5f && whole[e] - out[e] < 1e-5f);
  free(leaves);
  free(parts);
}

static void split_sums(void **state) {
  (void)state;
  srand(2);
  for (int32_t n = 1; n <= 40; n++)
    for (int32_t T = 1; T <= 33; T++) split_sum(n, T, (T & (T - 1)) == 0);
}

static void absent_is_not_zero(void **state) {
  (void)state;
  /* -0 + 0 would be +0. */
  float minus = -0.0f, out = 1;
  const pdt_array parts[] = {{NULL}, {&minus}, {NULL}};
  pdt_sum_shares(parts, 3, 1, (pdt_array){&out});
  assert_memory_equal(&out, &minus, sizeof out);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(shares_cover_the_leaves),      cmocka_unit_test(shares_known),
      cmocka_unit_test(flat_equals_recursive),        cmocka_unit_test(split_sums),
      cmocka_unit_test(leaves_end_where_they_should), cmocka_unit_test(absent_is_not_zero),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

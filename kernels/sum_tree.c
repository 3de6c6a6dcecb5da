#include "kernels/sum_tree.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

static int32_t ceil_half(int32_t n) {
  return n / 2 + n % 2;
}

pdt_range pdt_share(int32_t n, int32_t T, int32_t r) {
  int32_t begin = 0;
  while (T > 1) {
    int32_t left_ranks = ceil_half(T);
    int32_t left = (int32_t)(((int64_t)n * left_ranks + T - 1) / T);
    if (r < left_ranks) {
      n = left;
      T = left_ranks;
    } else {
      begin += left;
      n -= left;
      r -= left_ranks;
      T -= left_ranks;
    }
  }
  return (pdt_range){.begin = begin, .end = begin + n};
}

/* Counts, after the last leaf of each node of the subtree over leaves first .. first+n-1, one
 * merge. Returns the most stack entries that the subtree needs. Recurses at most 31 deep. */
static int32_t count_merges(uint8_t *merges, int32_t first, int32_t n) {
  if (n == 1) return 1;
  int32_t left = ceil_half(n);
  int32_t left_depth = count_merges(merges, first, left);
  int32_t right_depth = 1 + count_merges(merges, first + left, n - left);
  merges[first + n - 1]++;
  return left_depth > right_depth ? left_depth : right_depth;
}

int pdt_sum_tree_new(pdt_sum_tree *tree, int32_t width, int32_t leaf_width, pdt_error *err) {
  *tree = (pdt_sum_tree){0};
  if (width < 1 || leaf_width < 1)
    return pdt_fail(err, PDT_ERROR_RUNTIME,
                    "sum tree: expected width and leaf width of at least 1, found %d and %d", width,
                    leaf_width);
  pdt_sum_tree t = {.leaves = width / leaf_width + (width % leaf_width != 0)};
  if (PDT_NEW(&t.leaf_end, t.leaves, "ends of the leaves of a sum", err) ||
      PDT_NEW(&t.merges, t.leaves, "merges of a sum", err)) {
    pdt_sum_tree_free(&t);
    return -1;
  }
  for (int32_t i = 0; i + 1 < t.leaves; i++) t.leaf_end[i] = (i + 1) * leaf_width;
  t.leaf_end[t.leaves - 1] = width;
  t.depth = count_merges(t.merges, 0, t.leaves);
  *tree = t;
  return 0;
}

void pdt_sum_tree_free(pdt_sum_tree *tree) {
  free(tree->leaf_end);
  free(tree->merges);
  *tree = (pdt_sum_tree){0};
}

/* Floats summed at a time: one block a level of the recursion stands on the stack. */
enum { BLOCK = 128 };

/* Adds up elements begin .. begin+n-1 of the parts of T ranks into sum. False, with sum untouched,
 * when no rank has a share. Ranks halve as in pdt_share, so this is the tree of the leaves. */
static bool sum_block(const pdt_array *parts, int32_t T, int64_t begin, int n, float *sum) {
  if (T == 1) {
    if (!parts[0].at) return false;
    memcpy(sum, parts[0].at + begin, (size_t)n * sizeof *sum);
    return true;
  }
  float right[BLOCK];
  int32_t left_ranks = ceil_half(T);
  bool has_left = sum_block(parts, left_ranks, begin, n, sum);
  bool has_right = sum_block(parts + left_ranks, T - left_ranks, begin, n, right);
  if (!has_right) return has_left;
  for (int i = 0; i < n; i++) sum[i] = has_left ? sum[i] + right[i] : right[i];
  return true;
}

void pdt_sum_shares(const pdt_array *parts, int32_t T, int64_t n, pdt_array out) {
  for (int64_t begin = 0; begin < n; begin += BLOCK) {
    /* Summed aside and copied at last, since out may be one of the parts. */
    float sum[BLOCK] = {0};
    int count = n - begin < BLOCK ? (int)(n - begin) : BLOCK;
    sum_block(parts, T, begin, count, sum);
    memcpy(out.at + begin, sum, (size_t)count * sizeof *sum);
  }
}

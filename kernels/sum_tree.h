/* The fixed order in which a sum over attention heads, or over blocks of FFN columns, is made.
 *
 * Addition of floats is not associative, so a sum that a tensor-parallel group splits must be made
 * in an order that does not depend on the split. Here the order is a binary tree over `leaves`
 * (one head, or one block of columns): a node of n leaves is the sum of its left child, of
 * ceil(n/2) leaves, and of its right child. Shares of a power-of-two number of ranks are subtrees,
 * so every such group adds the same numbers in the same order. */
#ifndef PDT_KERNELS_SUM_TREE_H
#define PDT_KERNELS_SUM_TREE_H

#include "base/error.h"
#include "base/types.h"
#include "kernels/array.h"

typedef struct pdt_range {
  int32_t begin, end; /* half open */
} pdt_range;

/* The leaves of rank r of T ranks that share n leaves: the T ranks halve (the larger half left) and
 * the leaves with them, in proportion, rounding up to the left. For a power of two T these are
 * subtrees of the tree above; for other T, shares differ by at most a few leaves. May be empty.
 * Pure. 0 <= r < T, n >= 0. */
pdt_range pdt_share(int32_t n, int32_t T, int32_t r);

/* A tree over leaves of unequal widths, flattened for a running sum: take the leaves left to right;
 * push each leaf's sum on a stack; after leaf i merge the two topmost entries merges[i] times
 * (lower entry + upper entry). One entry is left at the end. */
typedef struct pdt_sum_tree {
  int32_t leaves;    /* >= 1 */
  int32_t depth;     /* most stack entries at any time */
  int32_t *leaf_end; /* [leaves]: input feature at which leaf i ends; leaf_end[leaves-1] = width */
  uint8_t *merges;   /* [leaves] */
} pdt_sum_tree;

/* A tree of `leaves` leaves, each leaf_width features but the last, which ends at width.
 * leaves = ceil(width / leaf_width). leaf_width >= width gives one leaf: a plain sum. */
int pdt_sum_tree_new(pdt_sum_tree *tree, int32_t width, int32_t leaf_width, pdt_error *err);

void pdt_sum_tree_free(pdt_sum_tree *tree);

/* Adds up the T partial sums of the ranks of a group, parts[t] of n floats in memory of this
 * process (none: rank t has no share, and is left out, not added as zero), into out, in the order
 * of the tree whose leaves the ranks shared by pdt_share. out may be any parts[t]. */
void pdt_sum_shares(const pdt_array *parts, int32_t T, int64_t n, pdt_array out);

#endif

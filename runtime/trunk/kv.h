/* The key/value cache of one rank: pages of PDT_PAGE_TOKENS positions in a device's memory, each
 * with the keys and values of every layer and of the kv heads this rank keeps; which page belongs
 * to whom is known to the host alone. A sequence is a run of shared positions (a prompt's,
 * read-only) followed by its own; rolling back gives pages back and copies nothing. Positions that
 * a layer's window has left behind stay where they are: another layer may read them, and after a
 * rollback the same one. All pages are allocated up front; sequences reserve before they grow. No
 * communication: every rank of a shard group makes the same calls and so holds the same page
 * tables. */
#ifndef PDT_TRUNK_KV_H
#define PDT_TRUNK_KV_H

#include "base/error.h"
#include "base/types.h"
#include "kernels/kernels.h"

typedef struct pdt_kv_cache {
  pdt_device *device; /* borrowed */
  pdt_kv_pool pool;   /* [n_pages] pages */
  int32_t n_pages;
  int32_t n_free, n_reserved; /* of the n_free pages, n_reserved belong to live sequences that have
                                 not used them yet */
  int32_t *free_pages;        /* [n_pages], the first n_free valid */
  bool *seen;                 /* [n_pages]: of the two checks below alone */
} pdt_kv_cache;

/* Pages that `tokens` positions take. Pure. */
int32_t pdt_kv_pages(int32_t tokens);

/* Bytes of a cache of n_pages. Pure; -1 on overflow. */
pdt_bytes pdt_kv_bytes(const pdt_kv_shape *shape, int32_t n_pages);

/* A cache with all pages free. Borrows the device. Errors: MEMORY. */
int pdt_kv_new(pdt_kv_cache *kv, pdt_device *device, const pdt_kv_shape *shape, int32_t n_pages,
               pdt_error *err);
void pdt_kv_free(pdt_kv_cache *kv);

/* One sequence's page table. */
typedef struct pdt_kv_sequence {
  const int32_t *shared_pages; /* another sequence's, borrowed; it must outlive this one */
  int32_t shared_tokens;
  int32_t *pages; /* [max_pages] own */
  int32_t n_pages, max_pages;
  int32_t tokens; /* own positions in use */
} pdt_kv_sequence;

/* A sequence that follows the first shared_tokens positions of `prefix` (NULL: none; prefix itself
 * must not share) and may grow to max_tokens positions of its own; their pages are reserved now.
 * Errors: MEMORY when the cache has not as many unreserved pages. */
int pdt_kv_sequence_new(pdt_kv_sequence *s, pdt_kv_cache *kv, const pdt_kv_sequence *prefix,
                        int32_t shared_tokens, int32_t max_tokens, pdt_error *err);

/* Gives everything back, reservations included. */
void pdt_kv_sequence_free(pdt_kv_sequence *s, pdt_kv_cache *kv);

/* Positions in all, shared ones included. */
int32_t pdt_kv_length(const pdt_kv_sequence *s);

/* Takes pages so that positions 0 .. length-1 exist. Errors: RUNTIME past the reservation. */
int pdt_kv_extend(pdt_kv_sequence *s, pdt_kv_cache *kv, int32_t length, pdt_error *err);

/* Drops positions from `length` on, and gives the pages they leave empty back to the reservation.
 * Shared positions cannot be dropped: length is at least their number. */
void pdt_kv_truncate(pdt_kv_sequence *s, pdt_kv_cache *kv, int32_t length);

/* Is every page free or in one of these sequences, and in one place only; are tables as long as
 * their positions need; do the sequences' promises add up to n_reserved? sequences [n] are all that
 * live, in any order. For PDT_INVARIANT; not for two threads at once. */
bool pdt_kv_is_valid(const pdt_kv_cache *kv, const pdt_kv_sequence *const *sequences, int32_t n);

/* The same as far as one sequence alone can tell: that its pages, shared ones included, are neither
 * free nor twice in it. */
bool pdt_kv_sequence_is_valid(const pdt_kv_sequence *s, const pdt_kv_cache *kv);

/* Where a row at this position stands, for a batch (kernels.h). The position must be the
 * sequence's own, and the sequence must stay as it is while the batch is computed. */
pdt_row_place pdt_kv_place(const pdt_kv_sequence *s, int32_t position);

#endif

/* The key/value cache of one rank: pages of PDT_PAGE_TOKENS positions, each with the keys and
 * values of every layer and of the kv heads this rank keeps. A sequence is a run of shared
 * positions (a prompt's, read-only) followed by its own; rolling back gives pages back and copies
 * nothing. Positions that a layer's window has left behind stay where they are: another layer may
 * read them, and after a rollback the same one. All pages are allocated up front; sequences reserve
 * before they grow. No communication: every rank of a shard group makes the same calls and so holds
 * the same page tables. */
#ifndef PDT_TRUNK_KV_H
#define PDT_TRUNK_KV_H

#include "base/error.h"
#include "base/types.h"
#include "kernels/kernels.h"

typedef struct pdt_kv_cache {
  pdt_layer layers;
  int32_t kv_heads; /* on this rank, may be 0 */
  int32_t head_dim;
  int64_t page_elems;                  /* layers * kv_heads * 2 * PDT_PAGE_TOKENS * head_dim */
  int32_t n_pages, n_free, n_reserved; /* reserved ones are free, but promised */
  int32_t *free_pages;                 /* [n_pages], the first n_free valid */
  bool *seen;                          /* [n_pages]: of the two checks below alone */
  float *data;                         /* [n_pages, page_elems] */
} pdt_kv_cache;

/* Pages that `tokens` positions take. Pure. */
int32_t pdt_kv_pages(int32_t tokens);

/* Bytes of a cache of n_pages. Pure; -1 on overflow. */
pdt_bytes pdt_kv_bytes(pdt_layer layers, int32_t kv_heads, int32_t head_dim, int32_t n_pages);

/* A cache with all pages free. Errors: MEMORY. */
int pdt_kv_new(pdt_kv_cache *kv, pdt_layer layers, int32_t kv_heads, int32_t head_dim,
               int32_t n_pages, pdt_error *err);
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

/* Where the key and the value of one position of (layer, local kv head) are stored: key element j
 * at (*key)[j * PDT_PAGE_TOKENS], value element j at (*value)[j]. The position must be the
 * sequence's own. */
void pdt_kv_slot(const pdt_kv_cache *kv, const pdt_kv_sequence *s, int32_t position,
                 pdt_layer layer, int32_t head, float **key, float **value);

/* Positions first .. length-1 of (layer, local kv head), as the attention kernel reads them: pages
 * that lie before `first` are not in the view. 0 <= first <= length. */
pdt_kv_view pdt_kv_look(const pdt_kv_cache *kv, const pdt_kv_sequence *s, int32_t first,
                        int32_t length, pdt_layer layer, int32_t head);

#endif

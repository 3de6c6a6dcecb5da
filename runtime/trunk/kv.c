#include "trunk/kv.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

int32_t pdt_kv_pages(int32_t tokens) {
  return tokens / PDT_PAGE_TOKENS + (tokens % PDT_PAGE_TOKENS != 0);
}

pdt_bytes pdt_kv_bytes(const pdt_kv_shape *shape, int32_t n_pages) {
  int64_t elems = 2 * PDT_PAGE_TOKENS;
  if (__builtin_mul_overflow(elems, shape->layers, &elems) ||
      __builtin_mul_overflow(elems, shape->heads, &elems) ||
      __builtin_mul_overflow(elems, shape->head_dim, &elems) ||
      __builtin_mul_overflow(elems, n_pages, &elems) ||
      __builtin_mul_overflow(elems, (int64_t)sizeof(float), &elems))
    return -1;
  return elems;
}

int pdt_kv_new(pdt_kv_cache *kv, pdt_device *device, const pdt_kv_shape *shape, int32_t n_pages,
               pdt_error *err) {
  *kv = (pdt_kv_cache){0};
  if (n_pages < 0 || pdt_kv_bytes(shape, n_pages) < 0)
    return pdt_fail(err, PDT_ERROR_MEMORY,
                    "key/value cache: impossible size: %d pages of %d layers, %d heads of %d",
                    n_pages, shape->layers, shape->heads, shape->head_dim);
  *kv = (pdt_kv_cache){
      .device = device, .pool = {.shape = *shape}, .n_pages = n_pages, .n_free = n_pages};
  if (PDT_NEW(&kv->free_pages, n_pages, "key/value cache", err) ||
      PDT_NEW(&kv->seen, n_pages, "key/value cache", err) ||
      device->ops->alloc(device, n_pages * pdt_kv_page_elems(shape), "key/value cache",
                         &kv->pool.data, err)) {
    pdt_kv_free(kv);
    return -1;
  }
  for (int32_t p = 0; p < n_pages; p++) kv->free_pages[p] = n_pages - 1 - p;
  return 0;
}

void pdt_kv_free(pdt_kv_cache *kv) {
  if (kv->device) kv->device->ops->release(kv->device, kv->pool.data);
  free(kv->free_pages);
  free(kv->seen);
  *kv = (pdt_kv_cache){0};
}

int pdt_kv_sequence_new(pdt_kv_sequence *s, pdt_kv_cache *kv, const pdt_kv_sequence *prefix,
                        int32_t shared_tokens, int32_t max_tokens, pdt_error *err) {
  *s = (pdt_kv_sequence){.max_pages = pdt_kv_pages(max_tokens)};
  int32_t left = kv->n_free - kv->n_reserved;
  if (s->max_pages > left)
    return pdt_fail(err, PDT_ERROR_MEMORY,
                    "key/value cache: a sequence of %d tokens needs %d pages, %d are left",
                    max_tokens, s->max_pages, left);
  if (PDT_NEW(&s->pages, s->max_pages, "page table", err)) return -1;
  if (prefix) {
    s->shared_pages = prefix->pages;
    s->shared_tokens = shared_tokens;
  }
  kv->n_reserved += s->max_pages;
  return 0;
}

void pdt_kv_sequence_free(pdt_kv_sequence *s, pdt_kv_cache *kv) {
  if (!s->pages) return;
  pdt_kv_truncate(s, kv, s->shared_tokens);
  kv->n_reserved -= s->max_pages;
  free(s->pages);
  *s = (pdt_kv_sequence){0};
}

int32_t pdt_kv_length(const pdt_kv_sequence *s) {
  return s->shared_tokens + s->tokens;
}

int pdt_kv_extend(pdt_kv_sequence *s, pdt_kv_cache *kv, int32_t length, pdt_error *err) {
  int32_t own = length - s->shared_tokens;
  if (own <= s->tokens) return 0;
  if (pdt_kv_pages(own) > s->max_pages)
    return pdt_fail(err, PDT_ERROR_RUNTIME,
                    "key/value cache: a sequence that reserved %d pages wants %d", s->max_pages,
                    pdt_kv_pages(own));
  while (s->n_pages < pdt_kv_pages(own)) {
    s->pages[s->n_pages++] = kv->free_pages[--kv->n_free];
    kv->n_reserved--;
  }
  s->tokens = own;
  return 0;
}

void pdt_kv_truncate(pdt_kv_sequence *s, pdt_kv_cache *kv, int32_t length) {
  int32_t own = length - s->shared_tokens;
  if (own >= s->tokens) return;
  s->tokens = own;
  while (s->n_pages > pdt_kv_pages(own)) {
    kv->free_pages[kv->n_free++] = s->pages[--s->n_pages];
    kv->n_reserved++;
  }
}

/* Marks n pages as seen; false where one is none, or was seen before. */
static bool see(const pdt_kv_cache *kv, const int32_t *pages, int32_t n) {
  for (int32_t i = 0; i < n; i++) {
    if (pages[i] < 0 || pages[i] >= kv->n_pages || kv->seen[pages[i]]) return false;
    kv->seen[pages[i]] = true;
  }
  return true;
}

/* Begins with the free pages. */
static bool see_free(const pdt_kv_cache *kv) {
  if (kv->n_free < 0 || kv->n_free > kv->n_pages) return false;
  if (kv->n_reserved < 0 || kv->n_reserved > kv->n_free) return false;
  if (kv->n_pages > 0) memset(kv->seen, 0, (size_t)kv->n_pages);
  return see(kv, kv->free_pages, kv->n_free);
}

/* Is the table as long as the positions need, and no longer than was reserved? */
static bool length_is_valid(const pdt_kv_sequence *s) {
  return s->tokens >= 0 && s->shared_tokens >= 0 && s->n_pages == pdt_kv_pages(s->tokens) &&
         s->n_pages <= s->max_pages;
}

bool pdt_kv_is_valid(const pdt_kv_cache *kv, const pdt_kv_sequence *const *sequences, int32_t n) {
  int64_t promised = 0, pages = kv->n_free;
  if (!see_free(kv)) return false;
  for (int32_t i = 0; i < n; i++) {
    const pdt_kv_sequence *s = sequences[i];
    if (!length_is_valid(s) || !see(kv, s->pages, s->n_pages)) return false;
    promised += s->max_pages - s->n_pages;
    pages += s->n_pages;
  }
  return promised == kv->n_reserved && pages == kv->n_pages;
}

bool pdt_kv_sequence_is_valid(const pdt_kv_sequence *s, const pdt_kv_cache *kv) {
  return see_free(kv) && length_is_valid(s) && s->max_pages - s->n_pages <= kv->n_reserved &&
         see(kv, s->shared_pages, pdt_kv_pages(s->shared_tokens)) && see(kv, s->pages, s->n_pages);
}

pdt_row_place pdt_kv_place(const pdt_kv_sequence *s, int32_t position) {
  return (pdt_row_place){.position = position,
                         .shared_tokens = s->shared_tokens,
                         .shared_pages = s->shared_pages,
                         .pages = s->pages};
}

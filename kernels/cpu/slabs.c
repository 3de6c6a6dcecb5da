#include "kernels/cpu/slabs.h"

#include <stdlib.h>
#include <sys/mman.h>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, bytes)   ((void)(at), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(at, bytes) ((void)(at), (void)(bytes))
#endif

#include "base/memory.h"

/* Of a huge page; of a page, at the least; of a slab for several matrices, the first and at most.
 */
enum { HUGE_BYTES = 2 << 20, PAGE_BYTES = 4096, FIRST_SLAB = 4 << 20, MOST_SLAB = 64 << 20 };
#ifdef __SANITIZE_ADDRESS__
enum { GAP_BYTES = PDT_ALIGN_BYTES }; /* between matrices, not to be touched */
#else
enum { GAP_BYTES = 0 };
#endif

struct pdt_cpu_slab {
  char *at;
  size_t bytes, used;
  int64_t live; /* matrices that stand in it */
  pdt_cpu_slab *next;
};

static size_t round_up(size_t n, size_t grain) {
  return (n + grain - 1) / grain * grain;
}

/* Zeroed pages from a huge one on, huge themselves as far as whole ones fit; NULL: there are none.
 */
static char *map_pages(size_t bytes) {
  size_t room = bytes + HUGE_BYTES;
  char *at = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) return NULL;
  size_t before = (HUGE_BYTES - (uintptr_t)at % HUGE_BYTES) % HUGE_BYTES;
  if (before > 0) munmap(at, before);
  if (room > before + bytes) munmap(at + before + bytes, room - before - bytes);
  madvise(at + before, bytes, MADV_HUGEPAGE); /* or it does not */
  return at + before;
}

/* Of a slab for a matrix and more: as much as there is already, so that little is mapped for
 * little.
 */
static size_t slab_bytes(const pdt_cpu_slab *slabs) {
  size_t all = 0;
  for (; slabs && all < MOST_SLAB; slabs = slabs->next) all += slabs->bytes;
  return all < FIRST_SLAB ? FIRST_SLAB : all < MOST_SLAB ? round_up(all, PAGE_BYTES) : MOST_SLAB;
}

/* A slab for a matrix and more of them, or for it alone: where it is large, and where there is no
 * room for more. */
static pdt_cpu_slab *new_slab(pdt_cpu_slab **slabs, size_t bytes) {
  pdt_cpu_slab *made;
  size_t alone = round_up(bytes, PAGE_BYTES), shared = slab_bytes(*slabs);
  if (PDT_NEW(&made, 1, "weights", NULL)) return NULL;
  made->bytes = bytes > shared / 2 ? alone : shared;
  made->at = map_pages(made->bytes);
  if (!made->at && made->bytes > alone) {
    made->bytes = alone;
    made->at = map_pages(alone);
  }
  if (!made->at) {
    free(made);
    return NULL;
  }
  ASAN_POISON_MEMORY_REGION(made->at, made->bytes);
  made->next = *slabs;
  return *slabs = made;
}

void *pdt_cpu_slab_take(pdt_cpu_slab **slabs, pdt_bytes bytes) {
  size_t n = round_up((size_t)bytes + GAP_BYTES, PDT_ALIGN_BYTES);
  pdt_cpu_slab *slab = *slabs;
  while (slab && slab->bytes - slab->used < n) slab = slab->next;
  if (!slab) slab = new_slab(slabs, n);
  if (!slab) return NULL;
  void *at = slab->at + slab->used;
  slab->used += n;
  slab->live++;
  ASAN_UNPOISON_MEMORY_REGION(at, (size_t)bytes);
  return at;
}

static void remove_slab(pdt_cpu_slab **place) {
  pdt_cpu_slab *gone = *place;
  *place = gone->next;
  ASAN_UNPOISON_MEMORY_REGION(gone->at, gone->bytes);
  munmap(gone->at, gone->bytes);
  free(gone);
}

void pdt_cpu_slab_give(pdt_cpu_slab **slabs, void *at) {
  pdt_cpu_slab **place = slabs;
  if (!at) return;
  while ((uintptr_t)at - (uintptr_t)(*place)->at >= (*place)->bytes) place = &(*place)->next;
  if (--(*place)->live == 0) remove_slab(place);
}

void pdt_cpu_slab_free(pdt_cpu_slab **slabs) {
  while (*slabs) remove_slab(slabs);
}

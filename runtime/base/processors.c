#include "base/processors.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

enum { FIRST_PROCESSORS = 1024, MOST_PROCESSORS = 1 << 22 };

int pdt_processors_read(pdt_processors *out, int (*ask)(pid_t pid, size_t bytes, cpu_set_t *set),
                        pdt_error *err) {
  *out = (pdt_processors){0};
  for (int n = FIRST_PROCESSORS; n <= MOST_PROCESSORS; n *= 2) {
    out->bytes = (int64_t)CPU_ALLOC_SIZE(n);
    if (PDT_NEW(&out->set, out->bytes, "processors", err)) return -1;
    if (ask(0, (size_t)out->bytes, (cpu_set_t *)(void *)out->set) == 0) return 0;
    int problem = errno;
    free(out->set);
    *out = (pdt_processors){0};
    if (problem == EINVAL) continue; /* the kernel's sets are longer */
    return pdt_fail(err, PDT_ERROR_IO,
                    "the system does not tell on which processors to run: %s (hint: --threads)",
                    strerror(problem));
  }
  return pdt_fail(err, PDT_ERROR_IO,
                  "the system does not tell on which processors to run (hint: --threads)");
}

/* Processors on their way to processes. The search for a free one goes over processors that others
 * hold and could exchange. */
typedef struct sharing {
  const char *sets;
  int64_t bytes;
  int32_t ranks, n; /* n: processors */
  int32_t *holder;  /* [n]: -1 where it is free */
  int32_t *share;   /* [ranks]: processors held */
  int32_t *most;    /* [ranks]: by quotas */
  bool *closed;     /* [ranks]: gets no more */
  bool *reached;    /* [ranks] by the search; */
  int32_t *queue;   /* [ranks]: in this order, */
  int32_t *from;    /* [ranks]: from this one, */
  int32_t *through; /* [ranks]: who could use this processor of theirs */
} sharing;

static bool may_use(const sharing *s, int32_t rank, int32_t processor) {
  const cpu_set_t *set = (const cpu_set_t *)(const void *)(s->sets + rank * s->bytes);
  return CPU_ISSET_S((size_t)processor, (size_t)s->bytes, set);
}

/* `rank` takes a processor that is free or becomes so for it: hands it down the way that the search
 * has come. */
static void take(sharing *s, int32_t rank, int32_t at, int32_t processor) {
  for (; at != rank; at = s->from[at]) {
    int32_t handed_on = s->through[at];
    s->holder[processor] = at;
    processor = handed_on;
  }
  s->holder[processor] = rank;
  s->share[rank]++;
}

/* Looks for one more processor for `rank`, and takes it if it is to. Without one, `reached` are
 * those who hold everything that it could use, itself included. */
static bool search(sharing *s, int32_t rank, bool takes) {
  int32_t n = 0;
  memset(s->reached, 0, (size_t)s->ranks * sizeof *s->reached);
  s->queue[n++] = rank;
  s->reached[rank] = true;
  for (int32_t i = 0; i < n; i++)
    for (int32_t p = 0; p < s->n; p++) {
      int32_t at = s->queue[i], holder = s->holder[p];
      if (!may_use(s, at, p) || (holder >= 0 && s->reached[holder])) continue;
      if (holder < 0) {
        if (takes) take(s, rank, at, p);
        return true;
      }
      s->reached[holder] = true;
      s->from[holder] = at;
      s->through[holder] = p;
      s->queue[n++] = holder;
    }
  return false;
}

/* Gives everybody who may have more a processor more; closes those for whom there is none, and
 * those who hold what they could use. False when all are closed. */
static bool raise_level(sharing *s, int32_t level, bool *stuck) {
  for (int32_t r = 0; r < s->ranks; r++) {
    if (s->most[r] < level) s->closed[r] = true;
    stuck[r] = !s->closed[r] && !search(s, r, true);
  }
  bool *competes = s->closed; /* all are found before any gives back what does not go round */
  for (int32_t r = 0; r < s->ranks; r++) {
    if (!stuck[r]) continue;
    search(s, r, false);
    for (int32_t q = 0; q < s->ranks; q++) competes[q] = competes[q] || s->reached[q];
  }
  bool open = false;
  for (int32_t r = 0; r < s->ranks; r++) {
    /* (who shares its only processor keeps it from the others) */
    for (int32_t p = 0; s->closed[r] && level > 1 && s->share[r] == level && p < s->n; p++)
      if (s->holder[p] == r) {
        s->holder[p] = -1;
        s->share[r]--;
      }
    open = open || !s->closed[r];
  }
  return open;
}

/* Each process's part of the least quota over it. */
static void limit(sharing *s, const pdt_processor_use *uses) {
  for (int32_t r = 0; r < s->ranks; r++) {
    s->most[r] = s->n;
    for (int32_t i = 0; i < uses[r].n_quotas; i++) {
      const pdt_cgroup_quota *quota = &uses[r].quotas[i];
      int32_t under = 0;
      for (int32_t q = 0; q < s->ranks; q++)
        for (int32_t j = 0; j < uses[q].n_quotas; j++)
          under += uses[q].quotas[j].group == quota->group;
      double part = quota->processors / under;
      if (part < s->most[r]) s->most[r] = (int32_t)part;
    }
  }
}

/* One more than the last processor of any set. */
static int32_t count_processors(const sharing *s) {
  for (int32_t n = (int32_t)s->bytes * 8; n > 0; n--)
    for (int32_t r = 0; r < s->ranks; r++)
      if (may_use(s, r, n - 1)) return n;
  return 0;
}

static int new_sharing(sharing *s, pdt_error *err) {
  return PDT_NEW(&s->holder, s->n, "processors", err) ||
         PDT_NEW(&s->share, s->ranks, "processors", err) ||
         PDT_NEW(&s->most, s->ranks, "processors", err) ||
         PDT_NEW(&s->closed, 2 * (int64_t)s->ranks, "processors", err) ||
         PDT_NEW(&s->reached, s->ranks, "processors", err) ||
         PDT_NEW(&s->queue, 3 * (int64_t)s->ranks, "processors", err);
}

int pdt_processors_share(const void *sets, int64_t bytes, const pdt_processor_use *uses,
                         int32_t ranks, int32_t *threads, pdt_error *err) {
  sharing s = {.sets = sets, .bytes = bytes, .ranks = ranks};
  s.n = count_processors(&s);
  int status = new_sharing(&s, err);
  if (!status) {
    s.from = s.queue + ranks;
    s.through = s.from + ranks;
    for (int32_t p = 0; p < s.n; p++) s.holder[p] = -1;
    limit(&s, uses);
    for (int32_t level = 1; raise_level(&s, level, s.closed + ranks);) level++;
    for (int32_t r = 0; r < ranks; r++) threads[r] = s.share[r] > 1 ? s.share[r] : 1;
  }
  void *all[] = {s.holder, s.share, s.most, s.closed, s.reached, s.queue};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
  return status ? -1 : 0;
}

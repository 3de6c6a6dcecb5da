/* What the ranks of one machine have to share: who is there, and which processors they may use. */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/processors.h"
#include "engine/machine.h"

enum { MOST_THREADS = 4096 };

/* What every rank of the machine may use, by rank. */
typedef struct survey {
  pdt_comm node;
  pdt_processors own;
  pdt_processor_use *uses; /* [ranks] */
  char *sets;              /* [ranks, set_bytes] */
  int64_t set_bytes;       /* of the longest set */
  pdt_bytes *counts;       /* [ranks] of an exchange */
  int32_t *threads;        /* [ranks] */
} survey;

/* The first number of OMP_NUM_THREADS, which may have one for each level of nesting; 0 where it
 * says nothing that can be used (libgomp complains). */
static int threads_of_environment(void) {
  const char *text = getenv("OMP_NUM_THREADS");
  char *end = NULL;
  long n = text ? strtol(text, &end, 10) : 0;
  if (!text || end == text) return 0;
  end += strspn(end, " \t");
  return n > 0 && n <= MOST_THREADS && (*end == '\0' || *end == ',') ? (int)n : 0;
}

/* This rank's processors and quotas. */
static void look(survey *s, int threads, pdt_processor_use *use, pdt_error *err) {
  *use = (pdt_processor_use){0};
  use->n_quotas = pdt_cgroup_quotas("", use->quotas);
  if (pdt_processors_read(&s->own, sched_getaffinity, err) && threads > 0)
    *err = (pdt_error){0}; /* nobody needs to know */
}

static void make_room(survey *s, pdt_error *err) {
  pdt_rank ranks = s->node.size;
  if (PDT_NEW(&s->uses, ranks, "threads", err) || PDT_NEW(&s->counts, ranks, "threads", err) ||
      PDT_NEW(&s->threads, ranks, "threads", err))
    return;
  PDT_NEW(&s->sets, ranks * s->set_bytes, "threads", err);
}

/* Everybody's sets and uses. The room is there on all ranks. */
static void exchange(survey *s, const pdt_processor_use *use) {
  char *set = s->sets + s->node.rank * s->set_bytes;
  if (s->own.set) memcpy(set, s->own.set, (size_t)s->own.bytes);
  for (pdt_rank r = 0; r < s->node.size; r++) s->counts[r] = s->set_bytes;
  pdt_comm_all_gather(&s->node, set, s->sets, s->counts);
  for (pdt_rank r = 0; r < s->node.size; r++) s->counts[r] = sizeof *use;
  pdt_comm_all_gather(&s->node, use, s->uses, s->counts);
}

int pdt_survey_node(pdt_machine *m, int threads, pdt_error *err) {
  survey s = {0};
  pdt_processor_use use;
  if (pdt_comm_split_node(m->world, &s.node, err)) return -1;
  m->ranks_on_node = m->sharing = s.node.size;
  m->rank_on_node = s.node.rank;
  m->threads = threads > 0 ? threads : threads_of_environment();
  look(&s, m->threads, &use, err);
  s.set_bytes = s.own.bytes;
  pdt_comm_all_reduce_i64(&s.node, &s.set_bytes, 1, PDT_COMM_MAX);
  if (err->code == PDT_ERROR_NONE) make_room(&s, err);
  int status = pdt_comm_agree(m->world, err);
  if (!status) {
    exchange(&s, &use);
    if (m->threads == 0 &&
        !pdt_processors_share(s.sets, s.set_bytes, s.uses, s.node.size, s.threads, err))
      m->threads = s.threads[s.node.rank];
    status = pdt_comm_agree(m->world, err);
  }
  free(s.own.set);
  free(s.uses);
  free(s.sets);
  free(s.counts);
  free(s.threads);
  pdt_comm_free(&s.node);
  return status;
}

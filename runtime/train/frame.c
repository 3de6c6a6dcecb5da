#include "train/frame.h"

#include <unistd.h>
#include <xxhash.h>

bool pdt_train_is_due(int64_t every, int64_t step, int64_t steps) {
  return step == steps || (every > 0 && step % every == 0);
}

int pdt_train_begin(const pdt_comm *world, bool resumes, const char *path,
                    const pdt_train_identity *identity, const pdt_train_run *run,
                    const pdt_train_observer *observer, pdt_error *err) {
  int64_t there = resumes && access(path, F_OK) == 0;
  pdt_comm_all_reduce_i64(world, &there, 1, PDT_COMM_MAX); /* then a rank without it says so */
  if (there) pdt_train_state_read(path, identity, run, err);
  if (pdt_comm_agree(world, err)) return -1;
  observer->begin(observer->context, run->adamw->step, err);
  return pdt_comm_agree(world, err);
}

int pdt_train_report(const pdt_comm *world, const pdt_train_observer *observer, const void *report,
                     pdt_error *err) {
  observer->report(observer->context, report, err);
  return pdt_comm_agree(world, err);
}

int pdt_train_compare_replicas(const pdt_comm *world, const pdt_nn_parameters *p, int64_t step,
                               pdt_error *err) {
  uint64_t hash = XXH3_64bits(p->value, (size_t)p->n_elems * sizeof *p->value);
  if (pdt_comm_is_same(world, hash)) return 0;
  return pdt_fail(err, PDT_ERROR_RUNTIME,
                  "step %lld: the ranks' parameters have diverged (hint: are all machines of one "
                  "kind?)",
                  (long long)step);
}

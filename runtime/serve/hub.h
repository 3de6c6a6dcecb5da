/* Where requests wait for the engine, and those who asked for what comes of them. The threads of
 * HTTP submit jobs, look at them and withdraw them; the engine's thread takes them, as its source,
 * and tells of them, as its observer (feed.h). One lock for all of it: nothing slow is done under
 * it. */
#ifndef PDT_SERVE_HUB_H
#define PDT_SERVE_HUB_H

#include <pthread.h>

#include "serve/job.h"

/* Counts of how long something took, in the buckets of pdt_hub_bounds. */
enum { PDT_HUB_BUCKETS = 16 };
typedef struct pdt_hub_times {
  int64_t counts[PDT_HUB_BUCKETS + 1]; /* not cumulated; the last one is above all bounds */
  double sum;                          /* seconds */
} pdt_hub_times;
extern const double pdt_hub_bounds[PDT_HUB_BUCKETS]; /* seconds, ascending */

/* What happened since the start. */
typedef struct pdt_hub_counts {
  int64_t stop, length;                    /* requests that ended, by their reason to */
  int64_t failed;                          /* and those that failed by themselves */
  int64_t withdrawn[PDT_WITHDRAWALS];      /* or were withdrawn */
  int64_t refused;                         /* by HTTP, before they came here */
  int64_t prompt_tokens, tokens;           /* of requests that began; committed */
  int64_t gates[2];                        /* rounds whose gate failed, passed */
  pdt_hub_times queue, first_block, whole; /* of a request: waited; until its first commit; all */
} pdt_hub_counts;

typedef enum pdt_hub_phase { PDT_HUB_LOADS, PDT_HUB_SERVES, PDT_HUB_DRAINS } pdt_hub_phase;

typedef struct pdt_hub {
  pthread_mutex_t lock;
  pthread_cond_t work;         /* there is a job to take, or the phase has changed */
  pdt_hub_phase phase;         /* under the lock, as all that follows */
  pdt_job *queue, **queue_end; /* that wait, first come first */
  pdt_job *running;            /* that the engine has */
  int32_t n_queued, n_running, most_queued;
  int32_t n_taken;      /* requests that the engine has had */
  int64_t lanes, pages; /* of those that run: streams, pages of the fullest cache */
  double progress;      /* seconds: when the engine last got on */
  pdt_run_stats stats;  /* of the engine's run, after its last step */
  pdt_hub_counts counts;
} pdt_hub;

/* An empty one, which loads. Errors: RUNTIME. */
int pdt_hub_init(pdt_hub *hub, int32_t most_queued, pdt_error *err);
void pdt_hub_free(pdt_hub *hub);

/* From a phase to the next; going back does nothing. */
void pdt_hub_enter(pdt_hub *hub, pdt_hub_phase phase);

/* ---- those who asked ---- */

typedef enum pdt_submission { PDT_SUBMITTED, PDT_QUEUE_FULL, PDT_NOT_SERVING } pdt_submission;

/* Puts n jobs into the queue, one behind the other, which becomes a holder of them; all or none.
 * job->wake(context) is called, with the lock, when blocks were committed, when a round was kept
 * and when it is over, until pdt_hub_leave. */
pdt_submission pdt_hub_submit(pdt_hub *hub, pdt_job *const *jobs, int32_t n);

/* Nobody wants the job's answer any more: in the queue it fails now, in the engine at its next
 * boundary. Of a job that is over nothing is changed, and of two reasons the first stays. */
void pdt_hub_withdraw(pdt_hub *hub, pdt_job *job, pdt_withdrawal reason);

/* The caller lets go of the job: it is woken no more, and a job that is not over is withdrawn. NULL
 * does nothing. */
void pdt_hub_leave(pdt_hub *hub, pdt_job *job);

/* ---- with the lock ---- */

/* What pdt_hub_withdraw does. */
void pdt_hub_give_up(pdt_hub *hub, pdt_job *job, pdt_withdrawal reason);

/* A job leaves the queue, or the engine, with what it came to: it is over. */
void pdt_hub_end(pdt_hub *hub, pdt_job *job, const pdt_error *why);

/* Ends all that is there, with an error. */
void pdt_hub_fail(pdt_hub *hub, const pdt_error *why);

/* Lets a holder go. */
void pdt_hub_release(pdt_job *job);

void pdt_hub_took(pdt_hub_times *times, double seconds);

#endif

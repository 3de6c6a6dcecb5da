/* Counts in Prometheus's text form. Names follow vLLM's where they mean the same. */
#include <stdio.h>

#include "serve/http.h"

static void put(FILE *out, const char *name, const char *type, const char *help, double value) {
  fprintf(out, "# HELP pdt:%s %s\n# TYPE pdt:%s %s\npdt:%s %.15g\n", name, help, name, type, name,
          value);
}

/* One name with a label of several values. */
typedef struct labelled {
  const char *value;
  int64_t count;
} labelled;

static void put_labelled(FILE *out, const char *name, const char *label, const char *help,
                         const labelled *values, size_t n) {
  fprintf(out, "# HELP pdt:%s %s\n# TYPE pdt:%s counter\n", name, help, name);
  for (size_t i = 0; i < n; i++)
    fprintf(out, "pdt:%s{%s=\"%s\"} %lld\n", name, label, values[i].value,
            (long long)values[i].count);
}

static void put_times(FILE *out, const char *name, const char *help, const pdt_hub_times *times) {
  long long below = 0;
  fprintf(out, "# HELP pdt:%s %s\n# TYPE pdt:%s histogram\n", name, help, name);
  for (int i = 0; i < PDT_HUB_BUCKETS; i++) {
    below += times->counts[i];
    fprintf(out, "pdt:%s_bucket{le=\"%g\"} %lld\n", name, pdt_hub_bounds[i], below);
  }
  below += times->counts[PDT_HUB_BUCKETS];
  fprintf(out, "pdt:%s_bucket{le=\"+Inf\"} %lld\npdt:%s_sum %.9g\npdt:%s_count %lld\n", name, below,
          name, times->sum, name, below);
}

static void put_now(FILE *out, const pdt_hub *hub, const pdt_capacity *capacity) {
  double pages = (double)capacity->load.pages;
  put(out, "num_requests_running", "gauge", "Requests that the engine has.", hub->n_running);
  put(out, "num_requests_waiting", "gauge", "Requests in the queue.", hub->n_queued);
  put(out, "lanes", "gauge", "Streams of the sessions that decode.", (double)hub->lanes);
  put(out, "kv_cache_pages", "gauge", "Pages of a shard group's key/value cache.", pages);
  put(out, "kv_cache_pages_used", "gauge", "Pages that sessions have reserved.",
      (double)hub->pages);
  put(out, "kv_cache_usage_perc", "gauge", "The same, as a share from 0 to 1.",
      pages > 0 ? (double)hub->pages / pages : 0);
}

static void put_work(FILE *out, const pdt_run_stats *s, const pdt_hub_counts *c) {
  const labelled blocks[] = {
      {"commit", s->commits}, {"hold", s->holds}, {"rollback", s->rollbacks}, {"force", s->forced}};
  const labelled gates[] = {{"failed", c->gates[0]}, {"passed", c->gates[1]}};
  put_labelled(out, "blocks_total", "action", "Blocks by what was decided.", blocks, 4);
  put_labelled(out, "gates_total", "result", "Gates of rounds: passed or failed.", gates, 2);
  put(out, "rounds_total", "counter", "Rounds of all sessions.", (double)s->rounds);
  put(out, "boundaries_total", "counter", "Boundaries, each of all sessions that decode.",
      (double)s->boundaries);
  put(out, "boundary_seconds_total", "counter", "Seconds of boundaries: notes, records, decisions.",
      s->boundary_seconds);
  put(out, "round_seconds_total", "counter", "Seconds of rounds, boundaries included.",
      s->round_seconds);
  put(out, "prompt_seconds_total", "counter", "Seconds of reading prompts and planning.",
      s->prompt_seconds);
  put(out, "prompt_tokens_total", "counter", "Tokens of prompts and sections that began.",
      (double)c->prompt_tokens);
  put(out, "generation_tokens_total", "counter", "Committed tokens.", (double)c->tokens);
  put(out, "emitted_tokens_total", "counter", "Tokens that were decoded, dropped ones included.",
      (double)s->emitted_tokens);
}

static void put_requests(FILE *out, const pdt_hub_counts *c) {
  const labelled good[] = {{"stop", c->stop}, {"length", c->length}};
  const labelled bad[] = {{"refused", c->refused},
                          {"failed", c->failed},
                          {"client_gone", c->withdrawn[PDT_CLIENT_GONE]},
                          {"timeout", c->withdrawn[PDT_OUT_OF_TIME]},
                          {"shutdown", c->withdrawn[PDT_SHUT_DOWN]},
                          {"choice_failed", c->withdrawn[PDT_CHOICE_FAILED]}};
  put_labelled(out, "request_success_total", "finished_reason", "Requests that were answered.",
               good, 2);
  put_labelled(out, "request_failure_total", "reason", "Requests that were not.", bad,
               sizeof bad / sizeof *bad);
  put_times(out, "request_queue_time_seconds", "From a request's coming to its first round.",
            &c->queue);
  put_times(out, "time_to_first_token_seconds", "From a request's coming to its first commit.",
            &c->first_block);
  put_times(out, "e2e_request_latency_seconds", "From a request's coming to its end.", &c->whole);
}

void pdt_metrics_put(FILE *out, pdt_hub *hub, const pdt_capacity *capacity) {
  pthread_mutex_lock(&hub->lock);
  const pdt_hub now = *hub; /* whose lock is nobody's */
  pthread_mutex_unlock(&hub->lock);
  put_now(out, &now, capacity);
  put_work(out, &now.stats, &now.counts);
  put_requests(out, &now.counts);
}

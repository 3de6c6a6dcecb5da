/* Sessions, rounds, the loop: the only place that knows the order of things (3.8).
 *
 * One engine runs on all ranks of a world. It shares the trunk over groups of T ranks, lets
 * sessions join and leave at boundaries, and repeats: every active stream emits a block; notes and
 * records are gathered; rank 0 decides; every rank applies the same decision to its replica of
 * everything. */
#ifndef PDT_ENGINE_ENGINE_H
#define PDT_ENGINE_ENGINE_H

#include "comm/comm.h"
#include "engine/running.h"
#include "request/request.h"
#include "sidecar/sidecar.h"
#include "trunk/trunk.h"

typedef struct pdt_engine_options {
  const char *model;    /* directory */
  const char *sidecar;  /* file */
  int tensor_parallel;  /* T; must divide the number of ranks; 0: the ranks of one machine */
  int threads;          /* of this rank; 0: OMP_NUM_THREADS, or its fair part of the processors */
  int32_t max_sessions; /* in flight at once, >= 1 */
  pdt_bytes kv_bytes;   /* most bytes of key/value cache a rank; 0: what memory there is */
  const char *kernels;  /* instruction set by name; NULL: the best that every rank has */
  bool details;         /* observers want notes and hidden states of every block */
  pdt_notices *notices; /* gets what this rank heard while loading; NULL: nobody listens */
} pdt_engine_options;

/* One stream's block of a round, as observers see it. Pointers last for the call. */
typedef struct pdt_block_report {
  pdt_stream stream;
  int32_t attempt; /* before the decision */
  pdt_action action;
  const pdt_token *tokens; /* [n_tokens] */
  int32_t n_tokens;
  float readiness;
  const float *coverage;    /* [S] */
  const float *note;        /* [dn], with details only */
  const float *states;      /* [n_tokens, d] final-norm states of its steps, with details only */
  const float *last_hidden; /* [d]: the last of them */
} pdt_block_report;

/* One round of one session, after the decision was applied. */
typedef struct pdt_round_report {
  const pdt_running *running; /* its streams are as they are after the round */
  pdt_round round;
  bool gate;
  const pdt_block_report *blocks;
  int32_t n_blocks;
  int64_t committed_tokens; /* of all sessions of the run so far */
} pdt_round_report;

/* Told of what happens, on rank 0 only; each function may be NULL. Failing ends the run on every
 * rank. `assess` is called before a round is decided, for every block by session and stream, with
 * the session as it was when the block was emitted; `action` is none, note and states NULL as
 * yet, and what it puts in *readiness is what is decided by, reported and recorded. `decided` gets
 * the bytes of a Decision before anybody acts on it: the journal. */
typedef struct pdt_observer {
  void *context;
  int (*session_started)(void *context, const pdt_running *running, pdt_error *err);
  int (*assess)(void *context, const pdt_running *running, const pdt_block_report *block,
                float *readiness, pdt_error *err);
  int (*decided)(void *context, const void *packed, pdt_bytes bytes, pdt_error *err);
  int (*round_done)(void *context, const pdt_round_report *report, pdt_error *err);
  int (*session_ended)(void *context, const pdt_running *running, pdt_error *err);
} pdt_observer;

/* What a run did; counts are over all sessions and the same on every rank, seconds are this rank's.
 */
typedef struct pdt_run_stats {
  int64_t boundaries, rounds;                /* rounds: of all sessions */
  int64_t commits, holds, rollbacks, forced; /* blocks */
  int64_t stalls;                            /* stream-rounds that waited */
  int64_t out_of_rounds; /* sessions that max_rounds ended before their streams were done */
  int64_t committed_tokens, emitted_tokens, prompt_tokens;
  double seconds;          /* of pdt_engine_run */
  double prompt_seconds;   /* of them: encoding prompts and planning */
  double round_seconds;    /* of them: rounds, boundaries included */
  double trunk_seconds;    /* products, attention, logits */
  double sidecar_seconds;  /* conditioning and heads */
  double exchange_seconds; /* inside shard groups */
  double boundary_seconds; /* notes, records, decisions */
} pdt_run_stats;

typedef struct pdt_engine pdt_engine;

/* Opens model and sidecar, splits the world into groups, loads this rank's shares: decoding reads
 * nothing of the files any more. Files that are written to meanwhile, or that are not the same on
 * all ranks, are refused. Requests are run later. Sets *out. Collective over world, blocking; all
 * ranks fail alike. Errors: USAGE, INPUT, IO, MEMORY. */
int pdt_engine_new(pdt_engine **out, const pdt_comm *world, const pdt_engine_options *options,
                   pdt_error *err);
void pdt_engine_free(pdt_engine *engine);

/* What was loaded; borrowed. */
const pdt_model_config *pdt_engine_model(const pdt_engine *engine);
const pdt_sidecar_config *pdt_engine_sidecar(const pdt_engine *engine);
const pdt_checkpoint *pdt_engine_checkpoint(const pdt_engine *engine);
const pdt_safetensors *pdt_engine_sidecar_file(const pdt_engine *engine);

/* Of what was loaded: quick fingerprints (safetensors.h), and the model's config.json by itself. */
typedef struct pdt_engine_fingerprints {
  uint64_t model, sidecar, config;
} pdt_engine_fingerprints;
pdt_engine_fingerprints pdt_engine_fingerprints_of(const pdt_engine *engine);

/* For who has read from the two files after the engine: fails when one was written to since. Not
 * collective. Errors: IO. */
int pdt_engine_files_unchanged(const pdt_engine *engine, pdt_error *err);

const pdt_trunk_weights *pdt_engine_weights(const pdt_engine *engine);
const pdt_comm *pdt_engine_group(const pdt_engine *engine);
pdt_device *pdt_engine_device(pdt_engine *engine);

/* How it is laid out, on this rank. */
typedef struct pdt_engine_layout {
  pdt_rank ranks, groups, tensor_parallel;
  int threads;
  const char *kernels;    /* the device's name: instruction set */
  pdt_bytes weight_bytes; /* of the trunk, this rank's share */
  pdt_bytes kv_bytes;     /* of the cache, once a run has begun */
} pdt_engine_layout;
pdt_engine_layout pdt_engine_layout_of(const pdt_engine *engine);

/* What the runs of an engine leave out or do otherwise, for comparisons; zeroed: nothing. */
typedef struct pdt_engine_variant {
  bool plain;     /* neither SNC nor adapters: every stream is the trunk alone */
  bool no_snc;    /* the gates of SNC are closed: adapters alone */
  int32_t n_ends; /* > 0: these end a stream, and not the model's end-of-sequence ids */
  pdt_token ends[PDT_MAX_EOS];
} pdt_engine_variant;

/* Holds for the runs that follow. The same on every rank; not collective. */
void pdt_engine_vary(pdt_engine *engine, const pdt_engine_variant *variant);

/* Runs all requests to their ends, at most max_sessions at once, in order. The cache is made for
 * the most that can be in flight, once, before the first starts. Requests must be equal on every
 * rank. Collective over world, blocking; all ranks fail alike. Errors: MEMORY, INPUT, RUNTIME (a
 * replica that diverged, a number that is none), and those of the observer. */
int pdt_engine_run(pdt_engine *engine, const pdt_request *requests, int32_t n_requests,
                   const pdt_observer *observer, pdt_run_stats *stats, pdt_error *err);

#endif

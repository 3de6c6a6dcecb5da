/* The engine: a step machine that decodes sessions by rounds (3.8). One engine runs on all ranks of
 * a world; it shares the trunk over groups of T ranks. A run has a capacity, declared when it
 * begins. Every step is one boundary: sessions join while there is room, a piece of the prompts
 * that wait is read, every active stream emits a block, notes and records are gathered, rank 0
 * decides, every rank applies the same decision to its replica of everything, and sessions leave.
 *
 *   pdt_engine_new
 *     pdt_engine_begin, pdt_engine_step ..., pdt_engine_end     (or pdt_engine_run), again and
 * again pdt_engine_free
 *
 * What is here for how long: the machine and what was loaded (machine.h, loaded.h) as long as the
 * engine; buffers, cache and sessions (run.h) from begin to end; lanes (round.h) for a round. */
#ifndef PDT_ENGINE_ENGINE_H
#define PDT_ENGINE_ENGINE_H

#include "engine/capacity.h"
#include "engine/loaded.h"
#include "engine/observer.h"
#include "engine/source.h"

typedef struct pdt_engine_options {
  const char *model;    /* directory */
  const char *sidecar;  /* file */
  const char *draft;    /* directory of a model that proposes tokens (draft.h); NULL: none does */
  int32_t draft_tokens; /* at once; 0: the usual number */
  pdt_machine_options machine;
  pdt_dtype quantize;           /* of the trunk's float weights, as in weights.h; F32: they stay */
  int32_t max_sessions;         /* in flight at once, of pdt_engine_run_list; >= 1 */
  pdt_bytes kv_bytes;           /* most bytes of key/value cache a rank; 0: what memory there is */
  bool details;                 /* observers want notes and hidden states of every block */
  pdt_notices *notices;         /* gets what this rank heard while loading; NULL: nobody listens */
  pdt_comm_deadlines deadlines; /* of runs; 0: the usual ones, < 0: none */
  bool listens; /* while it runs, a signal on any rank lets all end with the round that is under
                   way; else signals end the process, as always */
} pdt_engine_options;

typedef struct pdt_engine pdt_engine;

/* Opens model and sidecar, splits the world into groups, loads this rank's shares: decoding reads
 * nothing of the files any more. Files that are written to meanwhile, or that are not the same on
 * all ranks, are refused. Sets *out. Collective over world, blocking; all ranks fail alike. Errors:
 * USAGE, INPUT, IO, MEMORY. */
int pdt_engine_new(pdt_engine **out, const pdt_comm *world, const pdt_engine_options *options,
                   pdt_error *err);
void pdt_engine_free(pdt_engine *engine);

/* What it runs on and what it has loaded; borrowed. */
pdt_machine *pdt_engine_machine(pdt_engine *engine);
const pdt_loaded *pdt_engine_loaded(const pdt_engine *engine);

/* How it is laid out, on this rank. */
typedef struct pdt_engine_layout {
  pdt_rank ranks, groups, tensor_parallel;
  int threads;
  const char *kernels;    /* instruction set, or kind of GPU */
  const char *exchange;   /* within shard groups: "nccl", "shared memory", "mpi"; "none": T = 1 */
  const char *no_gpu;     /* why it computes on none, where that was not asked for; else "" */
  pdt_bytes weight_bytes; /* of the trunk, this rank's share */
  double weight_seconds;  /* in which they were loaded */
  pdt_bytes kv_bytes;     /* of the last run's cache */
} pdt_engine_layout;
pdt_engine_layout pdt_engine_layout_of(const pdt_engine *engine);

/* What the runs of an engine leave out or do otherwise, for comparisons; zeroed: nothing. */
typedef struct pdt_engine_variant {
  bool plain;     /* neither SNC nor adapters: every stream is the trunk alone */
  bool no_snc;    /* the gates of SNC are closed: adapters alone */
  bool no_draft;  /* nothing is drafted, where there is a draft */
  int32_t n_ends; /* > 0: these end a stream, and not the model's end-of-sequence ids */
  pdt_token ends[PDT_MAX_EOS];
  /* Not NULL: changes what streams read of their siblings. Gets the notes [running->n_window, dn]
   * of a round's window, named by running->window_names, and may overwrite them; the plan's and a
   * stream's own are read as they are, and those on the bus stay. Called on every rank for every
   * session and round, and must do the same on all; windows take K times the memory. Failing ends
   * the run. */
  int (*alter)(void *context, const pdt_running *running, float *notes, pdt_error *err);
  void *alter_context;
} pdt_engine_variant;

/* Holds for the runs that follow. The same on every rank; not collective. */
void pdt_engine_vary(pdt_engine *engine, const pdt_engine_variant *variant);

/* What a run is for. Rank 0's counts; the others need not fill it in. */
typedef struct pdt_run_setup {
  pdt_capacity capacity;
  pdt_request_source requests;
  pdt_decision_source decisions; /* next == NULL: the coordinator decides */
  pdt_observer observer;
} pdt_run_setup;

/* Makes cache and buffers for the capacity. Collective over world, blocking; all ranks fail alike,
 * and then nothing has begun. Errors: MEMORY, USAGE (a capacity that cannot be). */
int pdt_engine_begin(pdt_engine *engine, const pdt_run_setup *setup, pdt_error *err);

/* One boundary and the round before it. Sets *more to whether there is anything left to do, unless
 * a signal has stopped the run; with
 * nothing in flight it waits for a request, without spinning, if the source does. Collective over
 * world, blocking; all ranks fail alike, and then only pdt_engine_end is left. Errors: RUNTIME (a
 * replica that diverged), MEMORY, those of the sources and the observer. */
int pdt_engine_step(pdt_engine *engine, bool *more, pdt_error *err);

/* What the run has done so far: of its seconds, those of prompts, rounds and boundaries. Not
 * collective. */
pdt_run_stats pdt_engine_stats(const pdt_engine *engine);

/* Ends the run, and sessions that are still in flight with it; what it did so far goes to *stats.
 * Frees what it took in any case. Collective over world, blocking; all ranks fail alike, with what
 * a rank met since the last boundary. */
int pdt_engine_end(pdt_engine *engine, pdt_run_stats *stats, pdt_error *err);

/* Begin, steps until nothing is left, and end; *stats is zeroed where it did not begin. */
int pdt_engine_run(pdt_engine *engine, const pdt_run_setup *setup, pdt_run_stats *stats,
                   pdt_error *err);

/* The same for n requests that every rank has as a list, any max_sessions of them at once.
 * observer: rank 0's; NULL: none. */
int pdt_engine_run_list(pdt_engine *engine, const pdt_request *requests, int32_t n,
                        const pdt_observer *observer, pdt_run_stats *stats, pdt_error *err);

#endif

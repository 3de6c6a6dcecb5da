/* The machines that an engine runs on: what lives as long as the engine and does not depend on the
 * model. The world is cut into shard groups of T consecutive ranks. */
#ifndef PDT_ENGINE_MACHINE_H
#define PDT_ENGINE_MACHINE_H

#include "comm/comm.h"
#include "engine/capacity.h"
#include "kernels/kernels.h"

typedef struct pdt_machine {
  const pdt_comm *world; /* borrowed */
  pdt_comm group;        /* this rank's shard group */
  pdt_place place;
  pdt_device device;      /* that computes, and holds weights, cache and hidden states */
  int gpu;                /* number of the GPU that device is; -1: it is none */
  const char *exchange;   /* what a group's devices exchange by: "nccl", "shared memory", "mpi";
                             "none": T = 1 */
  int threads;            /* of this rank */
  pdt_rank ranks_on_node; /* ranks of the world that share this machine */
  pdt_rank rank_on_node;  /* among them */
  pdt_rank sharing;       /* ranks that take from the memory that the device's arrays are in */
  pdt_error notice;       /* why "auto" was the CPU though GPUs are there; code NONE: nothing */
  char no_gpu[256];       /* why none is used, where that was not asked for; else "" */
} pdt_machine;

/* What is asked for. */
typedef struct pdt_machine_options {
  int tensor_parallel; /* T; must divide the number of ranks; 0: the ranks of one machine */
  int threads;         /* of this rank; 0: OMP_NUM_THREADS, or its fair part of the processors */
  const char *device;  /* "cpu", "cuda", or "auto" (NULL): GPUs if every rank can use one */
  const char *kernels; /* instruction set by name; NULL: the best that every rank has */
  const char *compute; /* "f32" (NULL), or "bf16": activations are rounded (kernels.h), on GPUs
                          those of a prompt; not NULL on CPUs: rows that quantized weights are
                          multiplied with are whole */
  bool gpu_given;      /* every rank uses the GPU of number `gpu`; else a machine's are dealt out */
  int gpu;
  const char *exchange; /* of shard groups: "nccl", "mpi", or "auto" (NULL): nccl where every rank
                           has a GPU of its own, else memory that a machine's ranks share */
} pdt_machine_options;

/* Surveys the machines and cuts the world. Collective over world, blocking; all ranks fail alike;
 * m is then to be freed too. Errors: USAGE, MEMORY. */
int pdt_machine_new(pdt_machine *m, const pdt_comm *world, const pdt_machine_options *options,
                    pdt_error *err);
void pdt_machine_free(pdt_machine *m);

/* Waits until the rank's device has done everything, as ops->sync; the error says where it is. */
int pdt_machine_sync(pdt_machine *m, pdt_error *err);

/* Puts rank and host before the message of an error that a device with memory of its own may have
 * caused: "rank 3 on node7: GPU 1: ...". Others stay as they are. Returns -1. */
int pdt_machine_fail_in(const pdt_machine *m, pdt_error *err);

/* How streams are spread over it. */
pdt_spread pdt_machine_spread(const pdt_machine *m);

/* survey.c: counts the ranks of this machine and chooses this rank's threads: what was asked for
 * (> 0), or what OMP_NUM_THREADS says, or its part of the processors that it may run on. An
 * exchange over the machine's ranks. Collective over the world, blocking; all ranks fail alike. */
int pdt_survey_node(pdt_machine *m, int threads, pdt_error *err);

/* gpus.c: are GPUs to be used? 1, with m->gpu, m->sharing and m->exchange set, or 0; the same on
 * every rank; -1 on error. Where only some ranks could, or GPUs would compute differently, "auto"
 * means no, and m->notice says why. Creates nothing on any GPU. Collective over the world,
 * blocking; all ranks fail alike. Errors: USAGE, RUNTIME, MEMORY. */
int pdt_choose_gpus(pdt_machine *m, const pdt_machine_options *options, pdt_error *err);

/* gpus.c: joins the devices of each shard group, where m->exchange is "nccl". Each wait of an
 * exchange is an error after PDT_NCCL_TIMEOUT seconds (60). Collective over the world, blocking;
 * all ranks fail alike. Errors: USAGE, RUNTIME, MEMORY. */
int pdt_join_gpus(pdt_machine *m, pdt_error *err);

#endif

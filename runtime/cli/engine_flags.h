/* What an engine is made of, as flags of the command line, for every command that decodes. */
#ifndef PDT_CLI_ENGINE_FLAGS_H
#define PDT_CLI_ENGINE_FLAGS_H

#include "cli/cli.h"
#include "engine/engine.h"

typedef enum pdt_engine_flag {
  PDT_FLAG_MODEL,
  PDT_FLAG_SIDECAR,
  PDT_FLAG_TP,
  PDT_FLAG_THREADS,
  PDT_FLAG_MAX_SESSIONS,
  PDT_FLAG_KV_MEMORY, /* bytes; 512M, 4G are understood */
  PDT_FLAG_KERNELS,
  PDT_FLAG_DEVICE,
  PDT_FLAG_EXCHANGE_TIMEOUT, /* seconds; 0: none */
  PDT_FLAG_ROUND_TIMEOUT,
  PDT_FLAG_COMPUTE,
  PDT_FLAG_GPU,
  PDT_FLAG_EXCHANGE,
  PDT_FLAG_DRAFT,
  PDT_FLAG_DRAFT_TOKENS,
  PDT_FLAG_QUANTIZE,
  PDT_ENGINE_FLAGS
} pdt_engine_flag;

/* For use in an argp parser: puts the argument of a flag into `engine`, which borrows it; 0, or the
 * error code that the parser returns. Every kind of bad value ends in argp_error, which keeps the
 * message. */
error_t pdt_engine_flag_parse(pdt_engine_options *engine, pdt_engine_flag flag, char *arg,
                              struct argp_state *state);

/* Those options as decode and eval have them: entries of argp's table, whose keys are key plus the
 * flag, in a group of the help; in_flight describes --max-sessions. */
/* clang-format off */
#define PDT_ENGINE_OPTIONS(key, group, in_flight) \
  {"tp", (key) + PDT_FLAG_TP, "T", 0, \
   "ranks that share one copy of the trunk (those of a machine)", group}, \
  {"threads", (key) + PDT_FLAG_THREADS, "N", 0, \
   "threads of a rank; by default OMP_NUM_THREADS, or its part of the processors that " \
   "ranks of the machine may run on", group}, \
  {"max-sessions", (key) + PDT_FLAG_MAX_SESSIONS, "N", 0, \
   in_flight, group}, \
  {"kv-memory", (key) + PDT_FLAG_KV_MEMORY, "BYTES", 0, \
   "most key/value cache of a rank; 512M, 4G are understood", group}, \
  {"device", (key) + PDT_FLAG_DEVICE, "NAME", 0, \
   "cpu, cuda or auto; by default GPUs where every rank can use one", group}, \
  {"compute", (key) + PDT_FLAG_COMPUTE, "TYPE", 0, \
   "f32 or bf16: how activations are multiplied, in full or rounded (f32). bf16 is half the " \
   "arithmetic of a prompt on GPUs, and of all steps by AMX tiles (CPUs, weights of BF16). On " \
   "CPUs f32 keeps activations whole where weights are quantized, which else are multiplied " \
   "in 8 bits", group}, \
  {"quantize", (key) + PDT_FLAG_QUANTIZE, "TYPE", 0, \
   "q8_0 or q4_0: keep the model's weights in blocks of 32 numbers of 8 or 4 bits (those of " \
   "embedding and head of 8); CPUs only", group}, \
  {"gpu", (key) + PDT_FLAG_GPU, "N", 0, \
   "the GPU of every rank; by default those of a machine are dealt to its ranks in turn", group}, \
  {"exchange", (key) + PDT_FLAG_EXCHANGE, "NAME", 0, \
   "nccl (between GPUs), mpi (through the host) or auto; by default nccl where every " \
   "rank of a shard group has a GPU of its own, else memory that the ranks of a machine share", group}, \
  {"kernels", (key) + PDT_FLAG_KERNELS, "NAME", 0, \
   "portable, avx2, avx512 or amx; by default the best that every rank has", group}, \
  {"exchange-timeout", (key) + PDT_FLAG_EXCHANGE_TIMEOUT, "SECONDS", 0, \
   "end all ranks where one is not heard for so long, or no exchange gets on (6; 0: " \
   "never); what a rank computes may take longer", group}, \
  {"round-timeout", (key) + PDT_FLAG_ROUND_TIMEOUT, "SECONDS", 0, \
   "end all ranks where one round takes longer (600; 0: never)", group}
/* clang-format on */

#endif

#include "engine/machine.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"
#include "kernels/cuda/device.h"

/* Splits the world into groups of T consecutive ranks; by default a machine's, where all machines
 * have as many. Collective over the world; all ranks fail alike. */
static int make_groups(pdt_machine *m, pdt_rank T, pdt_error *err) {
  pdt_rank P = m->world->size, rank = m->world->rank;
  int64_t least[4] = {m->ranks_on_node, -m->ranks_on_node, T, -T}; /* and the most, negated */
  pdt_comm_all_reduce_i64(m->world, least, 4, PDT_COMM_MIN);
  if (least[2] != -least[3])
    return pdt_fail(err, PDT_ERROR_USAGE,
                    "--tp: expected the same on every rank, found %lld and %lld",
                    (long long)least[2], -(long long)least[3]);
  if (T == 0) T = least[0] == -least[1] && P % least[0] == 0 ? (pdt_rank)least[0] : 1;
  if (T < 1 || P % T != 0)
    return pdt_fail(
        err, PDT_ERROR_USAGE,
        "--tp: expected a number that divides the %d ranks, found %d (hint: mpirun -n a "
        "multiple of --tp)",
        P, T);
  m->place = (pdt_place){rank, P, rank / T * T, rank / T * T + T};
  return pdt_comm_split(m->world, rank / T, &m->group, err);
}

/* The best instruction set that every rank has: one set of kernels, one set of results. Collective
 * over the world; all ranks fail alike. */
static int choose_kernels(pdt_machine *m, const char *name, pdt_error *err) {
  pdt_cpu_isa isa = pdt_cpu_best_isa();
  if (name && !pdt_cpu_isa_parse(name, &isa))
    pdt_fail(err, PDT_ERROR_USAGE, "--kernels: expected portable, avx2 or avx512, found '%s'",
             name);
  int64_t common = isa;
  pdt_comm_all_reduce_i64(m->world, &common, 1, PDT_COMM_MIN);
  bool has = pdt_cpu_has((pdt_cpu_isa)common);
  if (!has && err->code == PDT_ERROR_NONE)
    pdt_fail(err, PDT_ERROR_USAGE, "--kernels: rank %d's machine or build does not have '%s'",
             m->world->rank, name ? name : "the common instruction set");
  if (has) pdt_cpu_device_new(&m->device, (pdt_cpu_isa)common, m->threads, err);
  return pdt_comm_agree(m->world, err);
}

/* The GPU of this rank: those of a machine are dealt to its ranks in turn, again and again if there
 * are more ranks. -1, with the reason in `why`, where there is none that can be used. */
static int own_gpu(const pdt_machine *m, char *why, size_t why_bytes) {
  pdt_cuda_info info;
  pdt_cuda_describe(&info);
  int gpu = info.devices > 0 ? m->rank_on_node % info.devices : -1;
  snprintf(why, why_bytes, "%s", info.why_none);
  if (gpu >= 0 && gpu < PDT_CUDA_LISTED && info.listed[gpu].major < PDT_CUDA_LEAST_MAJOR) {
    const pdt_cuda_device *d = &info.listed[gpu];
    snprintf(why, why_bytes, "GPU %d, %.64s, has compute capability %d.%d; %d.0 or later is needed",
             gpu, d->name, d->major, d->minor, PDT_CUDA_LEAST_MAJOR);
    return -1;
  }
  return gpu;
}

/* Notes why no GPU is used: the reason of the first rank that has none. Collective over the world.
 */
static void note_no_gpu(pdt_machine *m, bool has, const char *why) {
  pdt_error reason = {0};
  if (!has) pdt_fail(&reason, PDT_ERROR_RUNTIME, "rank %d: %s", m->world->rank, why);
  if (pdt_comm_agree(m->world, &reason))
    snprintf(m->no_gpu, sizeof m->no_gpu, "%.*s", (int)sizeof m->no_gpu - 1, reason.message);
}

/* Are GPUs to be used? 1 or 0, the same on every rank; -1 on error. Collective over the world; all
 * ranks fail alike. */
static int wants_gpus(pdt_machine *m, const char *name, pdt_error *err) {
  char why[PDT_CUDA_NAME_BYTES] = "";
  bool any = !name || strcmp(name, "auto") == 0, cuda = name && strcmp(name, "cuda") == 0;
  int64_t all = any || cuda ? own_gpu(m, why, sizeof why) >= 0 : 0;
  if (!any && !cuda && strcmp(name, "cpu") != 0)
    pdt_fail(err, PDT_ERROR_USAGE, "--device: expected cpu, cuda or auto, found '%s'", name);
  else if (cuda && !all)
    pdt_fail(err, PDT_ERROR_USAGE, "--device cuda: rank %d finds no GPU to use: %s", m->world->rank,
             why);
  bool own = all;
  pdt_comm_all_reduce_i64(m->world, &all, 1, PDT_COMM_MIN);
  if (pdt_comm_agree(m->world, err)) return -1;
  if (any && !all) note_no_gpu(m, own, why);
  return (int)all;
}

/* Counts the ranks of this machine that have the same GPU. Collective over the world; all ranks
 * fail alike. */
static int count_sharers(pdt_machine *m, pdt_error *err) {
  pdt_comm node;
  uint64_t own = pdt_cuda_identity(&m->device), *all = NULL;
  pdt_bytes *counts = NULL;
  if (pdt_comm_split_node(m->world, &node, err)) return -1;
  if (!PDT_NEW(&all, node.size, "devices", err)) PDT_NEW(&counts, node.size, "devices", err);
  int status = pdt_comm_agree(m->world, err);
  for (pdt_rank r = 0; r < node.size && !status; r++) counts[r] = sizeof own;
  if (!status) pdt_comm_all_gather(&node, &own, all, counts);
  m->ranks_on_device = 0;
  for (pdt_rank r = 0; r < node.size && !status; r++) m->ranks_on_device += all[r] == own;
  free(all);
  free(counts);
  pdt_comm_free(&node);
  return status;
}

/* Makes the rank's device. Collective over the world; all ranks fail alike. */
static int choose_device(pdt_machine *m, const pdt_machine_options *options, pdt_error *err) {
  char why[PDT_CUDA_NAME_BYTES];
  int gpus = wants_gpus(m, options->kernels && !options->device ? "cpu" : options->device, err);
  if (gpus < 0) return -1;
  m->ranks_on_device = m->ranks_on_node;
  if (!gpus) return choose_kernels(m, options->kernels, err);
  if (options->kernels)
    pdt_fail(err, PDT_ERROR_USAGE, "--kernels: are those of --device cpu, found '%s'",
             options->kernels);
  else if (pdt_cuda_device_new(&m->device, own_gpu(m, why, sizeof why), err))
    pdt_machine_fail_in(m, err);
  m->device.threads = m->threads;
  return pdt_comm_agree(m->world, err) ? -1 : count_sharers(m, err);
}

int pdt_machine_new(pdt_machine *m, const pdt_comm *world, const pdt_machine_options *options,
                    pdt_error *err) {
  *m = (pdt_machine){.world = world, .group = {.rank = 0, .size = 1}};
  return pdt_survey_node(m, options->threads, err) ||
                 make_groups(m, options->tensor_parallel, err) || choose_device(m, options, err)
             ? -1
             : 0;
}

void pdt_machine_free(pdt_machine *m) {
  pdt_comm_free(&m->group);
  if (m->device.ops) m->device.ops->close(&m->device);
  *m = (pdt_machine){0};
}

int pdt_machine_fail_in(const pdt_machine *m, pdt_error *err) {
  char host[HOST_NAME_MAX + 1] = "";
  bool device = err && (err->code == PDT_ERROR_RUNTIME || err->code == PDT_ERROR_MEMORY);
  if (!device || m->device.host_memory) return -1;
  gethostname(host, sizeof host - 1);
  return pdt_fail_in(err, "rank %d on %s", m->world->rank, host);
}

int pdt_machine_sync(pdt_machine *m, pdt_error *err) {
  return m->device.ops->sync(&m->device, err) ? pdt_machine_fail_in(m, err) : 0;
}

pdt_spread pdt_machine_spread(const pdt_machine *m) {
  return (pdt_spread){m->place.ranks, m->group.size};
}

#include "engine/machine.h"

#include <string.h>
#include <unistd.h>

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
    pdt_fail(err, PDT_ERROR_USAGE, "--kernels: expected portable, avx2, avx512 or amx, found '%s'",
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

/* Are activations to be rounded to bf16? 1 or 0, the same on every rank; -1 on error. Collective
 * over the world; all ranks fail alike. */
static int wants_rounding(const pdt_machine *m, const char *name, pdt_error *err) {
  bool bf16 = name && strcmp(name, "bf16") == 0;
  int64_t choice = bf16 ? 2 : name != NULL, range[2] = {choice, -choice}; /* least, -most */
  pdt_comm_all_reduce_i64(m->world, range, 2, PDT_COMM_MIN);
  if (name && !bf16 && strcmp(name, "f32") != 0)
    pdt_fail(err, PDT_ERROR_USAGE, "--compute: expected f32 or bf16, found '%s'", name);
  else if (range[0] != -range[1])
    pdt_fail(err, PDT_ERROR_USAGE, "--compute: expected the same on every rank");
  return pdt_comm_agree(m->world, err) ? -1 : bf16;
}

/* Makes the rank's device. Collective over the world; all ranks fail alike. */
static int choose_device(pdt_machine *m, const pdt_machine_options *options, pdt_error *err) {
  int gpus = pdt_choose_gpus(m, options, err);
  int rounds = gpus < 0 ? -1 : wants_rounding(m, options->compute, err);
  if (rounds < 0) return -1;
  if (!gpus) {
    if (choose_kernels(m, options->kernels, err)) return -1;
    m->device.full_rows = options->compute && !rounds;
    if (rounds) pdt_cpu_round_rows(&m->device, true);
    return 0;
  }
  if (options->kernels)
    pdt_fail(err, PDT_ERROR_USAGE, "--kernels: are those of --device cpu, found '%s'",
             options->kernels);
  else if (pdt_cuda_device_new(&m->device, m->gpu, err)) {
    pdt_machine_fail_in(m, err);
  } else {
    pdt_cuda_round_rows(&m->device, rounds);
    m->device.threads = m->threads;
  }
  return pdt_comm_agree(m->world, err) ? -1 : pdt_join_gpus(m, err);
}

/* Shard groups of one machine exchange through memory that they share, unless MPI was asked for.
 * Collective over the world; all ranks fail alike. */
static int share_memory(pdt_machine *m, const char *exchange, pdt_error *err) {
  bool wanted = !exchange || strcmp(exchange, "mpi") != 0;
  if (wanted && strcmp(m->exchange, "mpi") == 0) {
    pdt_comm_share(&m->group, err);
    if (m->group.shared) m->exchange = "shared memory";
  }
  return pdt_comm_agree(m->world, err);
}

int pdt_machine_new(pdt_machine *m, const pdt_comm *world, const pdt_machine_options *options,
                    pdt_error *err) {
  *m = (pdt_machine){.world = world, .group = {.rank = 0, .size = 1}, .gpu = -1};
  return pdt_survey_node(m, options->threads, err) ||
                 make_groups(m, options->tensor_parallel, err) || choose_device(m, options, err) ||
                 share_memory(m, options->exchange, err)
             ? -1
             : 0;
}

void pdt_machine_free(pdt_machine *m) {
  pdt_comm_free(&m->group);
  if (m->device.ops) m->device.ops->close(&m->device);
  *m = (pdt_machine){0};
}

int pdt_machine_fail_in(const pdt_machine *m, pdt_error *err) {
  char host[64] = "";
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

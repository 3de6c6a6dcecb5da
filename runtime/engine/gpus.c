/* Which GPU is whose, and how those of a shard group exchange. All ranks know what each of them
 * has, so that all come to the same answer. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"
#include "engine/machine.h"
#include "kernels/cuda/device.h"

/* What a rank tells of its GPU. */
typedef struct facts {
  char host[64];
  char why_none[160]; /* "": it has one */
  int32_t index;
  pdt_cuda_device gpu;
} facts;

/* ---- what there is ---- */

/* The GPU of this rank: what was asked for, or those of a machine are dealt to its ranks in turn,
 * again and again if there are more ranks. */
static void look(const pdt_machine *m, const pdt_machine_options *options, facts *own) {
  pdt_cuda_info info;
  *own = (facts){0};
  if (gethostname(own->host, sizeof own->host - 1)) snprintf(own->host, sizeof own->host, "?");
  pdt_cuda_describe(&info);
  if (info.devices < 1) {
    snprintf(own->why_none, sizeof own->why_none, "%.*s", (int)sizeof own->why_none - 1,
             info.why_none);
    return;
  }
  own->index = options->gpu_given ? options->gpu : m->rank_on_node % info.devices;
  if (own->index >= info.devices)
    snprintf(own->why_none, sizeof own->why_none, "--gpu: expected 0 to %d, found %d",
             info.devices - 1, own->index);
  else if (pdt_cuda_describe_device(own->index, &own->gpu, own->why_none, sizeof own->why_none) &&
           own->gpu.major < PDT_CUDA_LEAST_MAJOR)
    snprintf(own->why_none, sizeof own->why_none,
             "GPU %d, %.64s, has compute capability %d.%d; %d.0 or later is needed", own->index,
             own->gpu.name, own->gpu.major, own->gpu.minor, PDT_CUDA_LEAST_MAJOR);
}

/* Everybody's, by rank; to be freed. Collective over the world; all ranks fail alike. */
static int survey(const pdt_machine *m, const pdt_machine_options *options, facts **all,
                  pdt_error *err) {
  facts own;
  pdt_bytes *bytes = NULL;
  *all = NULL;
  if (!PDT_NEW(all, m->world->size, "GPUs of all ranks", err))
    PDT_NEW(&bytes, m->world->size, "GPUs of all ranks", err);
  int status = pdt_comm_agree(m->world, err);
  look(m, options, &own);
  for (pdt_rank r = 0; r < m->world->size && !status; r++) bytes[r] = sizeof own;
  if (!status) pdt_comm_all_gather(m->world, &own, *all, bytes);
  free(bytes);
  return status;
}

/* ---- whether they are used ---- */

/* Can the ranks compute on their GPUs, to the same bits wherever a row is? If not, with the reason
 * as an error. */
static bool are_alike(const facts *all, pdt_rank ranks, pdt_error *err) {
  for (pdt_rank r = 0; r < ranks; r++) {
    const facts *f = &all[r], *first = &all[0];
    if (*f->why_none)
      pdt_fail(err, PDT_ERROR_USAGE, "--device cuda: rank %d on %s finds no GPU to use: %s", r,
               f->host, f->why_none);
    else if (f->gpu.major != first->gpu.major || f->gpu.minor != first->gpu.minor)
      pdt_fail(err, PDT_ERROR_USAGE,
               "--device cuda: expected GPUs of one compute capability, which give the same bits, "
               "found %d.%d on rank 0 (GPU %d of %s: %s) and %d.%d on rank %d (GPU %d of %s: %s)",
               first->gpu.major, first->gpu.minor, first->index, first->host, first->gpu.name,
               f->gpu.major, f->gpu.minor, r, f->index, f->host, f->gpu.name);
    if (err->code != PDT_ERROR_NONE) return false;
  }
  return true;
}

/* Does any rank have one? */
static bool are_there(const facts *all, pdt_rank ranks) {
  for (pdt_rank r = 0; r < ranks; r++)
    if (!*all[r].why_none) return true;
  return false;
}

/* ---- how they exchange ---- */

static bool is_same_gpu(const facts *a, const facts *b) {
  return memcmp(a->gpu.uuid, b->gpu.uuid, sizeof a->gpu.uuid) == 0 ||
         (strcmp(a->host, b->host) == 0 && a->gpu.domain == b->gpu.domain &&
          a->gpu.bus == b->gpu.bus && a->gpu.slot == b->gpu.slot);
}

/* The ranks of a group, first .. first + T - 1, that use the GPU of one of them, into `text`;
 * returns how many they are. */
static int list_sharers(const facts *all, pdt_rank first, pdt_rank T, pdt_rank rank, char *text,
                        size_t bytes) {
  int n = 0;
  size_t used = 0;
  for (pdt_rank r = first; r < first + T; r++) {
    if (!is_same_gpu(&all[r], &all[rank])) continue;
    if (used < bytes)
      used += (size_t)snprintf(text + used, bytes - used, "%s%d", n == 0 ? "" : ", ", r);
    n++;
  }
  return n;
}

/* Has every rank a GPU that no other one of its group has? If not, with the reason as an error. */
static bool are_own(const facts *all, pdt_rank ranks, pdt_rank T, pdt_error *err) {
  char text[128];
  for (pdt_rank r = 0; r < ranks; r++)
    if (list_sharers(all, r / T * T, T, r, text, sizeof text) > 1) {
      pdt_fail(err, PDT_ERROR_USAGE,
               "--exchange nccl: every rank of a shard group needs a GPU of its own, but ranks %s "
               "share GPU %d of %s (%s, PCI %04x:%02x:%02x) (hint: one rank per GPU, or --exchange "
               "mpi)",
               text, all[r].index, all[r].host, all[r].gpu.name, (unsigned)all[r].gpu.domain,
               (unsigned)all[r].gpu.bus, (unsigned)all[r].gpu.slot);
      return false;
    }
  return true;
}

static bool is(const char *name, const char *expected) {
  return name && strcmp(name, expected) == 0;
}

/* What the option says, once it is known whether there are GPUs. */
static void choose_exchange(pdt_machine *m, const char *name, const facts *all, pdt_error *err) {
  pdt_error shared = {0};
  bool gpus = m->gpu >= 0, any = !name || is(name, "auto");
  m->exchange = m->group.size > 1 ? "mpi" : "none";
  if (!any && !is(name, "nccl") && !is(name, "mpi"))
    pdt_fail(err, PDT_ERROR_USAGE, "--exchange: expected nccl, mpi or auto, found '%s'", name);
  else if (is(name, "nccl") && !gpus)
    pdt_fail(err, PDT_ERROR_USAGE,
             "--exchange nccl: is for GPUs, and the ranks compute on the CPU (hint: --device cuda "
             "says why)");
  else if (gpus && m->group.size > 1 && (any || is(name, "nccl"))) {
    if (are_own(all, m->place.ranks, m->group.size, &shared))
      m->exchange = "nccl";
    else if (!any)
      *err = shared;
  }
}

/* This rank's GPU, and how many others use it. */
static void take_gpu(pdt_machine *m, const facts *all) {
  char text[1];
  m->gpu = all[m->world->rank].index;
  m->sharing = list_sharers(all, 0, m->world->size, m->world->rank, text, sizeof text);
}

/* Notes why "auto" uses none; where there are some, that is worth a warning. */
static void note_no_gpu(pdt_machine *m, const pdt_error *why, bool there) {
  const char *reason = strstr(why->message, ": ");
  snprintf(m->no_gpu, sizeof m->no_gpu, "%.*s", (int)sizeof m->no_gpu - 1,
           reason ? reason + 2 : why->message);
  if (there) m->notice = *why;
}

int pdt_choose_gpus(pdt_machine *m, const pdt_machine_options *options, pdt_error *err) {
  const char *name = options->kernels && !options->device ? "cpu" : options->device;
  bool any = (!name || is(name, "auto")) && !options->gpu_given, cpu = is(name, "cpu");
  facts *all = NULL;
  pdt_error unlike = {0};
  if (name && !is(name, "auto") && !is(name, "cuda") && !cpu)
    pdt_fail(err, PDT_ERROR_USAGE, "--device: expected cpu, cuda or auto, found '%s'", name);
  else if (cpu && options->gpu_given)
    pdt_fail(err, PDT_ERROR_USAGE, "--gpu: is for --device cuda");
  if (pdt_comm_agree(m->world, err)) return -1;
  if (!cpu) {
    if (survey(m, options, &all, err)) {
      free(all);
      return -1;
    }
    if (are_alike(all, m->world->size, &unlike))
      take_gpu(m, all);
    else if (!any)
      *err = unlike;
    else
      note_no_gpu(m, &unlike, are_there(all, m->world->size));
  }
  if (err->code == PDT_ERROR_NONE) choose_exchange(m, options->exchange, all, err);
  free(all);
  return pdt_comm_agree(m->world, err) ? -1 : m->gpu >= 0;
}

/* ---- joining ---- */

/* Seconds that an exchange may take. */
static double patience(pdt_error *err) {
  const char *text = getenv("PDT_NCCL_TIMEOUT");
  char *end = NULL;
  double seconds = text && *text ? strtod(text, &end) : 60;
  if (end && (*end || !(seconds > 0 && seconds <= 1e6)))
    pdt_fail(err, PDT_ERROR_USAGE, "PDT_NCCL_TIMEOUT: expected seconds above 0, found '%s'", text);
  return seconds;
}

int pdt_join_gpus(pdt_machine *m, pdt_error *err) {
  pdt_device *dev = &m->device;
  pdt_exchange_group group = {.rank = m->group.rank, .size = m->group.size};
  char host[64] = "";
  if (!is(m->exchange, "nccl")) return 0;
  if (gethostname(host, sizeof host - 1)) host[0] = '?';
  snprintf(group.who, sizeof group.who, "rank %d on %s", m->world->rank, host);
  group.patience = patience(err);
  if (m->group.rank == 0 && err->code == PDT_ERROR_NONE) dev->ops->exchange_id(dev, &group.id, err);
  if (pdt_comm_agree(m->world, err)) return -1;
  pdt_comm_broadcast(&m->group, &group.id, sizeof group.id, 0);
  dev->ops->exchange_join(dev, &group, err);
  return pdt_comm_agree(m->world, err);
}

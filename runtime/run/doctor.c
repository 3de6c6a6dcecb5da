#include "run/doctor.h"

#include <ctype.h>
#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cgroup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/processors.h"
#include "kernels/cuda/device.h"
#include "kernels/kernels.h"
#include "pdt_version.h"
#include "store/checkpoint.h"

enum { TURNS = 50, CLOCK_TURNS = 9, MESSAGE_BYTES = 4096 };

/* ---- one rank ---- */

static void put_hash(char text[PDT_DOCTOR_TEXT], uint64_t hash) {
  snprintf(text, PDT_DOCTOR_TEXT, "%016" PRIx64, hash);
}

static int32_t numa_nodes(void) {
  DIR *folder = opendir("/sys/devices/system/node");
  int32_t n = 0;
  for (const struct dirent *e; folder && (e = readdir(folder));)
    n += strncmp(e->d_name, "node", 4) == 0 && isdigit((unsigned char)e->d_name[4]);
  if (folder) closedir(folder);
  return n > 0 ? n : 1;
}

static int32_t own_cores(void) {
  pdt_processors p = {0};
  int32_t n = 0;
  if (!pdt_processors_read(&p, sched_getaffinity, NULL))
    n = CPU_COUNT_S((size_t)p.bytes, (const cpu_set_t *)(const void *)p.set);
  free(p.set);
  return n;
}

static void look_at_machine(pdt_doctor_finding *f) {
  pdt_cuda_info gpus;
  pdt_bytes left = pdt_cgroup_memory_left("");
  const char *pmix = getenv("PMIX_VERSION");
  snprintf(f->pmix, sizeof f->pmix, "%s", pmix ? pmix : "-");
  pdt_comm_library(f->mpi, sizeof f->mpi);
  snprintf(f->kernels, sizeof f->kernels, "%s", pdt_cpu_isa_name(pdt_cpu_best_isa()));
  pdt_comm_interfaces(f->interfaces, sizeof f->interfaces);
  pdt_cuda_describe(&gpus);
  snprintf(f->gpu, sizeof f->gpu, "-");
  if (gpus.devices > 0)
    snprintf(f->gpu, sizeof f->gpu, "%d x %.40s", gpus.devices, gpus.listed[0].name);
  f->cores = own_cores();
  f->numa_nodes = numa_nodes();
  f->memory = (pdt_bytes)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
  f->limit = left < INT64_MAX ? left : -1;
  if (gethostname(f->host, sizeof f->host - 1)) snprintf(f->host, sizeof f->host, "?");
}

static void look_at_program(pdt_doctor_finding *f, pdt_error *err) {
  uint64_t hash = 0;
  snprintf(f->build, sizeof f->build, "%s%s%.40s", PDT_VERSION, *PDT_GIT ? " " : "", PDT_GIT);
  snprintf(f->program, sizeof f->program, "-");
  if (!pdt_file_hash(&hash, "/proc/self/exe", err)) put_hash(f->program, hash);
}

static void look_at_model(pdt_doctor_finding *f, const char *path, pdt_error *err) {
  pdt_checkpoint *c = NULL;
  uint64_t hash;
  snprintf(f->model, sizeof f->model, "-");
  if (path && !pdt_checkpoint_open(&c, path, NULL, err) &&
      !pdt_checkpoint_fingerprint(c, PDT_FINGERPRINT_QUICK, &hash, err))
    put_hash(f->model, hash);
  pdt_checkpoint_close(c);
}

static void look_at_sidecar(pdt_doctor_finding *f, const char *path, pdt_error *err) {
  pdt_safetensors *s = NULL;
  uint64_t hash;
  snprintf(f->sidecar, sizeof f->sidecar, "-");
  if (path && !pdt_safetensors_open(&s, path, err) &&
      !pdt_safetensors_fingerprint(s, PDT_FINGERPRINT_QUICK, &hash, err))
    put_hash(f->sidecar, hash);
  if (s) pdt_safetensors_close(s);
}

/* Everything that this rank can find by itself. What cannot be read is a finding, too. */
static void look(pdt_doctor_finding *f, const pdt_doctor_options *o) {
  pdt_error errors[3] = {{0}};
  *f = (pdt_doctor_finding){0};
  look_at_machine(f);
  look_at_program(f, &errors[0]);
  look_at_model(f, o->model, &errors[1]);
  look_at_sidecar(f, o->sidecar, &errors[2]);
  for (int i = 2; i >= 0; i--)
    if (errors[i].code != PDT_ERROR_NONE)
      snprintf(f->problem, sizeof f->problem, "%.250s", errors[i].message);
}

/* ---- all ranks ---- */

static int compare(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* What exchanges need. */
typedef struct room {
  pdt_doctor_finding *all; /* [ranks] */
  pdt_bytes *counts;       /* [ranks] */
  char *sent, *received;   /* [MESSAGE_BYTES], [ranks, MESSAGE_BYTES] */
  double *clocks;          /* [CLOCK_TURNS, ranks] seconds of each rank */
} room;

static int new_room(room *r, const pdt_comm *world, pdt_error *err) {
  *r = (room){0};
  int64_t P = world->size;
  if (PDT_NEW(&r->all, P, "doctor", err) || PDT_NEW(&r->counts, P, "doctor", err) ||
      PDT_NEW(&r->sent, MESSAGE_BYTES, "doctor", err) ||
      PDT_NEW(&r->received, P * MESSAGE_BYTES, "doctor", err) ||
      PDT_NEW(&r->clocks, CLOCK_TURNS * P, "doctor", err))
    return pdt_comm_agree(world, err);
  return pdt_comm_agree(world, err);
}

static void free_room(room *r) {
  free(r->all);
  free(r->counts);
  free(r->sent);
  free(r->received);
  free(r->clocks);
}

static void gather(const pdt_comm *world, room *r, const void *sent, pdt_bytes bytes, void *all) {
  for (pdt_rank q = 0; q < world->size; q++) r->counts[q] = bytes;
  pdt_comm_gather(world, sent, bytes, all, r->counts, 0);
}

/* Everybody looks at the clock behind a barrier, some times; of the differences the median. */
static void compare_clocks(const pdt_comm *world, room *r) {
  pdt_rank P = world->size;
  for (int i = 0; i < CLOCK_TURNS; i++) {
    struct timespec now;
    pdt_comm_barrier(world);
    clock_gettime(CLOCK_REALTIME, &now);
    double seconds = (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
    gather(world, r, &seconds, sizeof seconds, r->clocks + (int64_t)i * P);
  }
  for (pdt_rank q = 0; q < P && world->rank == 0; q++) {
    double ahead[CLOCK_TURNS];
    for (int i = 0; i < CLOCK_TURNS; i++)
      ahead[i] = r->clocks[(int64_t)i * P + q] - r->clocks[(int64_t)i * P];
    qsort(ahead, CLOCK_TURNS, sizeof *ahead, compare);
    r->all[q].clock_ms = 1e3 * ahead[CLOCK_TURNS / 2];
  }
}

typedef enum exchange { BARRIER, ALL_REDUCE, GATHER, BROADCAST } exchange;

/* Microseconds of one kind: the median. */
static double time_of(const pdt_comm *world, room *r, exchange kind) {
  double took[TURNS];
  int64_t number = world->rank;
  for (int i = 0; i < TURNS; i++) {
    pdt_comm_barrier(world);
    double start = pdt_seconds();
    if (kind == BARRIER) pdt_comm_barrier(world);
    if (kind == ALL_REDUCE) pdt_comm_all_reduce_i64(world, &number, 1, PDT_COMM_MAX);
    if (kind == GATHER) gather(world, r, r->sent, MESSAGE_BYTES, r->received);
    if (kind == BROADCAST) pdt_comm_broadcast(world, r->sent, MESSAGE_BYTES, 0);
    took[i] = 1e6 * (pdt_seconds() - start);
  }
  qsort(took, TURNS, sizeof *took, compare);
  return took[TURNS / 2];
}

/* The problems that rank 0 counted are everybody's error. */
static int conclude(const pdt_comm *world, int32_t problems, pdt_error *err) {
  if (world->rank == 0 && problems > 0)
    pdt_fail(err, PDT_ERROR_RUNTIME, "%d thing%s must not stay so: see above", problems,
             problems > 1 ? "s" : "");
  return pdt_comm_agree(world, err);
}

int pdt_doctor(const pdt_comm *world, const pdt_doctor_options *o, pdt_error *err) {
  const pdt_comm_deadlines deadlines = {.exchange_seconds = o->timeout_seconds};
  const char *chosen = getenv("OMPI_MCA_btl_tcp_if_include");
  pdt_doctor_finding own;
  room r;
  int32_t problems = 0;
  pdt_comm_arm(world, &deadlines);
  int status = new_room(&r, world, err);
  if (!status) {
    look(&own, o);
    gather(world, &r, &own, sizeof own, r.all);
    compare_clocks(world, &r);
    pdt_doctor_times times = {.barrier = time_of(world, &r, BARRIER),
                              .all_reduce = time_of(world, &r, ALL_REDUCE)};
    times.gather = time_of(world, &r, GATHER);
    times.broadcast = time_of(world, &r, BROADCAST);
    if (world->rank == 0)
      problems =
          pdt_doctor_report(r.all, world->size, &times, chosen != NULL && *chosen != '\0', o->json);
    status = conclude(world, problems, err);
  }
  pdt_comm_disarm(world);
  free_room(&r);
  return status;
}

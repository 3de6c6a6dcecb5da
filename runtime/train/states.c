#include "train/states.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/file.h"
#include "base/memory.h"

enum { ALIGN = 64, VERSION = 1 };

typedef struct header {
  char magic[8];
  uint64_t version;
  uint64_t trunk, data; /* hashes of what it was made from */
  int64_t width, layers;
  int32_t places,
      orders; /* orders: layers behind which the planner reads in order; 0: it does not */
  int64_t entries, bytes;
  uint64_t hash; /* of all that follows */
} header;

/* Making or checking one. */
typedef struct states {
  const char *path;
  const pdt_nn_trunk *trunk;
  const pdt_sidecar_config *config;
  pdt_dataset *data;
  const pdt_comm *world;
  const pdt_states_observer *observer;
  int64_t *at; /* [entries + 1] where each begins in the file */
  header head; /* as it must be, but for the hash */
  char *temporary;
  int file; /* of the temporary one; -1: none */
  pdt_arena arena;
} states;

/* Rows of an entry's texts: every stream's prompt, prefix and tokens but the last. */
static int64_t rows_of(const pdt_train_entry *e) {
  int64_t n = 0;
  for (int32_t i = 0; i < e->n_streams; i++)
    n += e->n_prompt - 1 + e->streams[i].n_prefix + e->streams[i].n_tokens;
  return n;
}

static int lay_out(states *s, pdt_error *err) {
  int64_t n = s->data->n, d = s->config->hidden_size;
  int32_t layers = pdt_nn_lower_layers(s->config);
  if (PDT_NEW(&s->at, n + 1, "states", err)) return -1;
  s->at[0] = (sizeof(header) + ALIGN - 1) / ALIGN * ALIGN;
  for (int64_t i = 0; i < n; i++) {
    int64_t rows = layers > 0 ? rows_of(s->data->entries[i]) : 0;
    int64_t floats = pdt_train_prompt_floats(s->config, s->data->entries[i]);
    int64_t bytes = floats * (int64_t)sizeof(float) + rows * d * (int64_t)sizeof(uint16_t);
    s->at[i + 1] = s->at[i] + (bytes + ALIGN - 1) / ALIGN * ALIGN;
  }
  const pdt_nn_parameters *p = &s->trunk->parameters;
  s->head = (header){.magic = "PDTSTATE",
                     .version = VERSION,
                     .trunk = XXH3_64bits(p->value, (size_t)p->n_elems * sizeof *p->value),
                     .data = s->data->files,
                     .width = d,
                     .layers = layers,
                     .places = s->config->plan_places,
                     .orders = s->config->plan_orders > 0 ? s->config->plan_layer + 1 : 0,
                     .entries = n,
                     .bytes = s->at[n]};
  return 0;
}

/* ---- making it ---- */

/* The residual stream of all texts of an entry, out [rows, d]. */
static int text_states(states *s, const pdt_train_entry *e, uint16_t *out, pdt_error *err) {
  int64_t d = s->config->hidden_size, rows = rows_of(e);
  int32_t *begin, at = 0;
  pdt_token *tokens;
  float *x;
  if (PDT_TAKE(&s->arena, &begin, e->n_streams + 1, err) ||
      PDT_TAKE(&s->arena, &tokens, rows, err) || PDT_TAKE(&s->arena, &x, rows * d, err))
    return -1;
  for (int32_t i = 0; i < e->n_streams; i++) {
    const pdt_train_stream *t = &e->streams[i];
    begin[i] = at;
    memcpy(tokens + at, e->prompt, (size_t)e->n_prompt * sizeof *tokens);
    at += e->n_prompt;
    if (t->n_prefix > 0) memcpy(tokens + at, t->prefix, (size_t)t->n_prefix * sizeof *tokens);
    at += t->n_prefix;
    memcpy(tokens + at, t->tokens, (size_t)(t->n_tokens - 1) * sizeof *tokens);
    at += t->n_tokens - 1;
  }
  begin[e->n_streams] = at;
  const pdt_nn_sequences sequences = {e->n_streams, begin};
  if (pdt_nn_trunk_lower(s->trunk, &sequences, tokens, (int32_t)s->head.layers, x, &s->arena, err))
    return -1;
  pdt_from_float(PDT_BF16, x, rows * d, out);
  return 0;
}

static int put(const states *s, const void *bytes, int64_t n, int64_t at, pdt_error *err) {
  for (const char *from = bytes; n > 0;) {
    ssize_t done = pwrite(s->file, from, (size_t)n, (off_t)at);
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0)
      return pdt_fail(err, PDT_ERROR_IO, "%s: cannot write: %s", s->temporary, strerror(errno));
    from += done;
    at += done;
    n -= done;
  }
  return 0;
}

static int make_entry(states *s, int64_t i, pdt_error *err) {
  const pdt_train_entry *e = s->data->entries[i];
  int64_t bytes = s->at[i + 1] - s->at[i];
  char *record;
  pdt_arena_reset(&s->arena);
  if (PDT_TAKE_ZEROS(&s->arena, &record, bytes, err) ||
      pdt_train_prompt_states(s->trunk, s->config, e, (float *)(void *)record, &s->arena, err))
    return -1;
  float *behind = (float *)(void *)record + pdt_train_prompt_floats(s->config, e);
  uint16_t *rows = (uint16_t *)(void *)behind;
  if (s->head.layers > 0 && text_states(s, e, rows, err)) return -1;
  return put(s, record, bytes, s->at[i], err);
}

/* All its room, so that a disk that is too full says so before hours of work. */
static int create(states *s, pdt_error *err) {
  s->file = open(s->temporary, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  int code = s->file < 0 ? errno : posix_fallocate(s->file, 0, (off_t)s->head.bytes);
  if (code == 0) return 0;
  return pdt_fail(err, PDT_ERROR_IO, "%s: cannot take %.1f MiB: %s", s->temporary,
                  pdt_mebibytes(s->head.bytes), strerror(code));
}

static int join(states *s, pdt_error *err) {
  s->file = open(s->temporary, O_RDWR | O_CLOEXEC);
  if (s->file >= 0) return 0;
  return pdt_fail(err, PDT_ERROR_IO,
                  "%s: cannot open what rank 0 has made: %s (hint: --states on storage "
                  "that all ranks see)",
                  s->temporary, strerror(errno));
}

/* This rank's entries. */
static int make_share(states *s, pdt_error *err) {
  int64_t rank = s->world->rank, size = s->world->size, n = s->data->n, all = (n - 1) / size + 1;
  for (int64_t i = rank; i < n; i += size) {
    if (make_entry(s, i, err)) return -1;
    if (rank == 0 && s->observer->progress)
      s->observer->progress(s->observer->context, i / size + 1, all);
  }
  return 0;
}

/* Header and name, once all ranks are done. */
static int finish(states *s, pdt_error *err) {
  size_t bytes = (size_t)s->head.bytes, from = (size_t)s->at[0];
  char *map = mmap(NULL, bytes, PROT_READ, MAP_SHARED, s->file, 0);
  if (map == MAP_FAILED)
    return pdt_fail(err, PDT_ERROR_IO, "%s: cannot map: %s", s->temporary, strerror(errno));
  s->head.hash = XXH3_64bits(map + from, bytes - from);
  munmap(map, bytes);
  if (put(s, &s->head, sizeof s->head, 0, err)) return -1;
  if (fsync(s->file) == 0 && rename(s->temporary, s->path) == 0) return 0;
  return pdt_fail(err, PDT_ERROR_IO, "%s: cannot keep: %s", s->path, strerror(errno));
}

static int make(states *s, pdt_error *err) {
  bool first = s->world->rank == 0;
  if (asprintf(&s->temporary, "%s.making", s->path) < 0) {
    s->temporary = NULL;
    pdt_fail(err, PDT_ERROR_MEMORY, "%s: no memory", s->path);
  }
  if (first && s->temporary) create(s, err);
  if (pdt_comm_agree(s->world, err)) return -1;
  if (!first) join(s, err);
  if (pdt_comm_agree(s->world, err)) return -1;
  make_share(s, err);
  if (pdt_comm_agree(s->world, err)) return -1;
  if (first) finish(s, err);
  return pdt_comm_agree(s->world, err);
}

/* ---- reading it ---- */

static int refuse(const states *s, const char *what, pdt_error *err) {
  return pdt_fail(err, PDT_ERROR_INPUT,
                  "%s: states of %s (hint: another --states, or remove the file)", s->path, what);
}

/* Is it what this run would make? */
static int check(const states *s, const header *found, pdt_bytes bytes, pdt_error *err) {
  const header *want = &s->head;
  if (bytes < (pdt_bytes)sizeof *found || memcmp(found->magic, want->magic, sizeof want->magic) ||
      found->version != want->version)
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: expected states of a trunk, as --states writes them",
                    s->path);
  if (found->trunk != want->trunk) return refuse(s, "another model", err);
  if (found->data != want->data) return refuse(s, "other data", err);
  if (found->width != want->width || found->layers != want->layers ||
      found->places != want->places || found->orders != want->orders ||
      found->entries != want->entries || found->bytes != want->bytes)
    return refuse(s, "a sidecar with other layers, places or orders", err);
  if (bytes != want->bytes)
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: expected %lld bytes, found %lld: it was cut",
                    s->path, (long long)want->bytes, (long long)bytes);
  return 0;
}

static int map_file(const states *s, pdt_train_states *out, pdt_error *err) {
  struct stat status;
  int file = open(s->path, O_RDONLY | O_CLOEXEC);
  if (file < 0 || fstat(file, &status) != 0 || !S_ISREG(status.st_mode) || status.st_size < 1) {
    pdt_fail(err, PDT_ERROR_IO, "%s: cannot read as states: %s", s->path,
             file < 0 ? strerror(errno) : "no file with anything in it");
    if (file >= 0) close(file);
    return -1;
  }
  out->bytes = (size_t)status.st_size;
  out->map = mmap(NULL, out->bytes, PROT_READ, MAP_SHARED, file, 0);
  close(file);
  if (out->map != MAP_FAILED) return 0;
  out->map = NULL;
  return pdt_fail(err, PDT_ERROR_IO, "%s: cannot map: %s", s->path, strerror(errno));
}

static int read_states(const states *s, pdt_train_states *out, pdt_error *err) {
  header found = {0};
  if (map_file(s, out, err)) return -1;
  memcpy(&found, out->map, out->bytes < sizeof found ? out->bytes : sizeof found);
  if (check(s, &found, (pdt_bytes)out->bytes, err)) return -1;
  const char *map = out->map;
  size_t from = (size_t)s->at[0];
  if (XXH3_64bits(map + from, out->bytes - from) != found.hash)
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: its bytes have changed since it was made", s->path);
  for (int64_t i = 0; i < s->data->n; i++) {
    const float *floats = (const float *)(const void *)(map + s->at[i]);
    const float *behind = floats + pdt_train_prompt_floats(s->config, s->data->entries[i]);
    const uint16_t *rows = (const uint16_t *)(const void *)behind;
    pdt_dataset_complete(s->data, i, s->config, floats, s->head.layers > 0 ? rows : NULL);
  }
  return 0;
}

static int open_states(states *s, pdt_train_states *out, pdt_error *err) {
  int64_t there = s->world->rank == 0 && access(s->path, F_OK) == 0;
  lay_out(s, err);
  if (pdt_comm_agree(s->world, err)) return -1;
  pdt_comm_all_reduce_i64(s->world, &there, 1, PDT_COMM_MAX);
  if (!there && make(s, err)) return -1;
  read_states(s, out, err);
  return pdt_comm_agree(s->world, err);
}

int pdt_train_states_open(pdt_train_states *s, const char *path, const pdt_nn_trunk *trunk,
                          const pdt_sidecar_config *config, pdt_dataset *data,
                          const pdt_comm *world, const pdt_states_observer *observer,
                          pdt_error *err) {
  states all = {.path = path,
                .trunk = trunk,
                .config = config,
                .data = data,
                .world = world,
                .observer = observer,
                .file = -1};
  *s = (pdt_train_states){0};
  int rc = open_states(&all, s, err);
  if (all.file >= 0) close(all.file);
  if (rc && all.temporary && world->rank == 0) unlink(all.temporary);
  free(all.temporary);
  free(all.at);
  pdt_arena_free(&all.arena);
  return rc;
}

void pdt_train_states_close(pdt_train_states *s) {
  if (s->map) munmap(s->map, s->bytes);
  *s = (pdt_train_states){0};
}

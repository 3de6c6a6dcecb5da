/* Closing blocks: the products of all blocks of a call are made together. */
#include <string.h>

#include "kernels/cuda/backend.h"

/* What stands between the products, in device memory; n blocks of n_all states together. */
typedef struct block_room {
  float *all;       /* [n_all, d], with pool heads */
  float *scores;    /* [n_all, pool_heads] */
  float *mixed;     /* [pool_heads, n, d] */
  float *last;      /* [n, d] */
  float *summary;   /* [n, p] */
  float *note;      /* [n, dn] */
  float *more;      /* [n, dn]: what the hidden layer adds */
  float *hidden;    /* [n, h] */
  float *projected; /* [n, dc] */
  float *covered;   /* [n, S] */
  float *parts;     /* [6, n, da] */
} block_room;

typedef struct closing {
  pdt_cuda *c;
  const pdt_block_heads *heads;
  int32_t n, n_all, most_states, most_notes;
  const pdt_cuda_block *blocks; /* lent */
  const int32_t *ids;           /* lent: [n, S] */
  block_room room;
  float *note, *coverage, *readiness; /* results: [n, dn], [n, S], [n] */
} closing;

static int64_t summary_width(const pdt_block_heads *h) {
  return h->pool_heads > 0 ? (int64_t)h->pool_heads * h->pool_dim : h->width;
}

/* Takes the next elems of a run of floats that begins at *next; NULL bases only count. */
static float *take(float *base, int64_t *next, int64_t elems) {
  enum { LINE = 64 };
  float *at = base ? base + *next : NULL;
  *next += (elems + LINE - 1) / LINE * LINE;
  return at;
}

static int64_t lay_out(const closing *k, float *base, block_room *room) {
  const pdt_block_heads *h = k->heads;
  int64_t n = k->n, n_all = h->pool_heads > 0 ? k->n_all : 0, next = 0;
  room->all = take(base, &next, n_all * h->width);
  room->scores = take(base, &next, n_all * h->pool_heads);
  room->mixed = take(base, &next, n * h->pool_heads * h->width);
  room->last = take(base, &next, n * h->width);
  room->summary = take(base, &next, n * summary_width(h));
  room->note = take(base, &next, n * h->notes_dim);
  room->more = take(base, &next, n * h->notes_dim);
  room->hidden = take(base, &next, n * h->hidden_dim);
  room->projected = take(base, &next, n * h->coverage_dim);
  room->covered = take(base, &next, n * h->slots);
  room->parts = take(base, &next, 6 * n * h->agree_dim);
  if (h->pool_heads == 0) room->summary = room->last;
  return next;
}

/* Hands the blocks to the device, and finds room. */
static bool set_up(closing *k, const pdt_block *blocks) {
  const pdt_block_heads *h = k->heads;
  for (int32_t i = 0; i < k->n; i++) {
    k->n_all += blocks[i].n_states;
    if (blocks[i].n_states > k->most_states) k->most_states = blocks[i].n_states;
    if (blocks[i].n_notes > k->most_notes) k->most_notes = blocks[i].n_notes;
  }
  pdt_bytes heads = k->n * (pdt_bytes)sizeof *k->blocks;
  pdt_bytes ids = (pdt_bytes)k->n * h->slots * (pdt_bytes)sizeof *k->ids;
  char *lent = pdt_cuda_lend(k->c, heads + ids);
  float *base =
      pdt_cuda_grow(k->c, &k->c->blocks, lay_out(k, NULL, &k->room) * (pdt_bytes)sizeof(float),
                    "room for closing blocks");
  int64_t told = (int64_t)k->n * (h->notes_dim + h->slots + 1);
  k->note = pdt_cuda_results(k->c, told * (pdt_bytes)sizeof(float));
  if (!lent || !base || !k->note) return false;
  k->coverage = k->note + (int64_t)k->n * h->notes_dim;
  k->readiness = k->coverage + (int64_t)k->n * h->slots;
  lay_out(k, base, &k->room);
  pdt_cuda_block *list = (pdt_cuda_block *)(void *)lent;
  int32_t *all_ids = (int32_t *)(void *)(lent + heads), first = 0;
  for (int32_t i = 0; i < k->n; i++) {
    const pdt_block *b = &blocks[i];
    list[i] = (pdt_cuda_block){.states = b->states.at,
                               .pooled = b->pooled.at ? b->pooled.at : b->states.at,
                               .embedded = b->embedded.at,
                               .agree_keys = b->agree_keys.at,
                               .agree_values = b->agree_values.at,
                               .plan_items = b->plan_items.at,
                               .n_states = b->n_states,
                               .n_notes = b->n_notes,
                               .first = first};
    first += b->n_states;
    memcpy(all_ids + (int64_t)i * h->slots, b->plan_ids, (size_t)h->slots * sizeof *all_ids);
  }
  k->blocks = list;
  k->ids = all_ids;
  return true;
}

/* y = W x for all blocks, dense. */
static void multiply(const closing *k, const pdt_matrix *w, const float *x, float *y) {
  pdt_cuda_multiply(k->c, pdt_cuda_weights_of(w), x, w->in, k->n, y, w->out);
}

static void add_bias(const closing *k, float *y, pdt_array bias, int32_t width) {
  pdt_cuda_ok(k->c, pdt_launch_add(y, NULL, 0, bias.at, 1, k->n, width, &k->c->queue), "bias");
}

static void summarize(const closing *k) {
  const pdt_block_heads *h = k->heads;
  const block_room *room = &k->room;
  pdt_cuda_queue *queue = &k->c->queue;
  pdt_cuda_ok(k->c,
              pdt_launch_block_states(k->blocks, k->n, k->most_states, h->width,
                                      h->pool_heads > 0 ? room->all : NULL, room->last, queue),
              "states of blocks");
  if (h->pool_heads == 0) return;
  pdt_cuda_multiply(k->c, pdt_cuda_weights_of(&h->pool_query), room->all, h->width, k->n_all,
                    room->scores, h->pool_heads);
  pdt_cuda_ok(k->c,
              pdt_launch_pool(k->blocks, k->n, k->most_states, h->pool_heads, h->pool_copies,
                              h->width, room->scores, room->mixed, queue),
              "summaries of blocks");
  for (int32_t j = 0; j < h->pool_heads; j++)
    pdt_cuda_multiply(k->c, pdt_cuda_weights_of(&h->pool_value[j]),
                      room->mixed + (int64_t)j * k->n * h->width, h->width, k->n,
                      room->summary + (int64_t)j * h->pool_dim, summary_width(h));
}

static void speculate(const closing *k) {
  const pdt_block_heads *h = k->heads;
  const block_room *room = &k->room;
  pdt_cuda_queue *queue = &k->c->queue;
  multiply(k, &h->speculation, room->summary, room->note);
  add_bias(k, room->note, h->speculation_bias, h->notes_dim);
  if (h->hidden_dim > 0) {
    multiply(k, &h->hidden, room->summary, room->hidden);
    add_bias(k, room->hidden, h->hidden_bias, h->hidden_dim);
    pdt_cuda_ok(k->c, pdt_launch_plain_gelu(room->hidden, (int64_t)k->n * h->hidden_dim, queue),
                "notes");
    multiply(k, &h->hidden_out, room->hidden, room->more);
    pdt_cuda_ok(
        k->c,
        pdt_launch_add(room->note, room->more, h->notes_dim, NULL, 1, k->n, h->notes_dim, queue),
        "notes");
  }
  const pdt_cuda_norm norm = {
      .x = room->note, .y = room->note, .eps = 1e-6f, .rows = k->n, .width = h->notes_dim};
  pdt_cuda_ok(k->c, pdt_launch_norm(&norm, &(pdt_cuda_prepared){0}, queue), "notes");
  size_t bytes = (size_t)k->n * (size_t)h->notes_dim * sizeof(float);
  pdt_cuda_ok(k->c, pdt_cuda_transfer(k->c, k->note, room->note, bytes, cudaMemcpyDeviceToHost),
              "notes");
}

/* What the note asks of the window, beside what the last state does. */
static void ask_of_note(const closing *k) {
  const pdt_block_heads *h = k->heads;
  int64_t part = (int64_t)k->n * h->agree_dim;
  float *query = k->room.parts + 4 * part, *more = query + part;
  if (!h->note_query) return;
  multiply(k, &h->agree_note_query, k->room.note, more);
  pdt_cuda_ok(k->c,
              pdt_launch_add(query, more, h->agree_dim, NULL, 1, k->n, h->agree_dim, &k->c->queue),
              "queries of blocks");
}

static void judge(const closing *k) {
  const pdt_block_heads *h = k->heads;
  const block_room *room = &k->room;
  int64_t part = (int64_t)k->n * h->agree_dim;
  multiply(k, &h->coverage_block, room->summary, room->projected);
  pdt_cuda_ok(k->c,
              pdt_launch_cover(k->blocks, k->ids, k->n, h->slots, h->coverage_dim, room->projected,
                               h->coverage_bias, k->coverage, room->covered, &k->c->queue),
              "coverage");
  multiply(k, &h->agree_hidden, room->last, room->parts);
  multiply(k, &h->agree_pool, room->summary, room->parts + part);
  multiply(k, &h->agree_note, room->note, room->parts + 2 * part);
  multiply(k, &h->agree_coverage, room->covered, room->parts + 3 * part);
  multiply(k, &h->agree_query, room->last, room->parts + 4 * part);
  ask_of_note(k);
  pdt_cuda_ok(k->c,
              pdt_launch_agree(k->blocks, k->n, k->most_notes, h->agree_dim, room->parts,
                               h->agree_bias.at, h->agree_out.at, h->agree_out_bias, k->readiness,
                               &k->c->queue),
              "readiness");
}

void pdt_cuda_reserve_blocks(pdt_cuda *c, const pdt_room *most) {
  const pdt_block_heads *h = most->block_heads;
  if (most->blocks < 1) return;
  const closing k = {.heads = h, .n = most->blocks, .n_all = most->blocks * most->block_tokens};
  block_room room;
  pdt_cuda_grow(c, &c->blocks, lay_out(&k, NULL, &room) * (pdt_bytes)sizeof(float),
                "room for closing blocks");
  pdt_cuda_results(c, (pdt_bytes)k.n * (h->notes_dim + h->slots + 1) * (pdt_bytes)sizeof(float));
  /* Plans are read there, too. */
  pdt_cuda_grow(c, &c->blocks, (pdt_bytes)(1 + h->slots) * h->width * (pdt_bytes)sizeof(double),
                "room for plans");
}

void pdt_cuda_close_blocks(pdt_device *dev, const pdt_block_heads *heads, const pdt_block *blocks,
                           int32_t n) {
  closing k = {.c = pdt_cuda_of(dev), .heads = heads, .n = n};
  if (n < 1) return;
  bool done = false;
  if (pdt_cuda_begin(dev) && set_up(&k, blocks)) {
    summarize(&k);
    speculate(&k);
    judge(&k);
    done = pdt_cuda_wait(k.c, "closing blocks");
  }
  size_t note = (size_t)heads->notes_dim, slots = (size_t)heads->slots;
  for (int32_t i = 0; i < n; i++) {
    if (done) {
      memcpy(blocks[i].note, k.note + (size_t)i * note, note * sizeof(float));
      memcpy(blocks[i].coverage, k.coverage + (size_t)i * slots, slots * sizeof(float));
    } else {
      memset(blocks[i].note, 0, note * sizeof(float));
      memset(blocks[i].coverage, 0, slots * sizeof(float));
    }
    *blocks[i].readiness = done ? k.readiness[i] : 0;
  }
}

/* The launches of plan_read: `sums` and, with orders, the line of marks behind them, whose first
 * number arrives with the sums and whose last one becomes it. */
static bool read_plan(pdt_cuda *c, const pdt_cuda_places *p, pdt_array states, pdt_array read,
                      int32_t n, int32_t first, double *sums) {
  double *line = sums + (int64_t)(1 + p->slots) * p->width;
  const char *what = "reading a prompt";
  return (p->orders == 0 ||
          pdt_cuda_ok(c, pdt_launch_plan_line(p, read.at, n, line, &c->queue), what)) &&
         pdt_cuda_ok(
             c, pdt_launch_plan_read(p, states.at, read.at, n, first, line, sums, &c->queue), what);
}

void pdt_cuda_plan_read(pdt_device *dev, const pdt_plan_places *places, pdt_array states,
                        pdt_array read, int32_t n, int32_t first, double *sums) {
  pdt_cuda *c = pdt_cuda_of(dev);
  bool apart = places->n_places > 0 || places->n_orders > 0;
  const pdt_cuda_places p = {.width = places->width,
                             .slots = apart ? places->slots : 0,
                             .places = places->n_places,
                             .orders = places->n_orders,
                             .weights = places->weights.at,
                             .mark = places->mark.at,
                             .order_weights = places->orders.at,
                             .mark_bias = places->mark_bias};
  size_t rows = (size_t)(1 + p.slots) * (size_t)p.width, marks = p.orders > 0 ? 1 : 0;
  size_t bytes = (rows + marks) * sizeof *sums, line = marks * (size_t)n * sizeof *sums;
  if (n < 1 || !pdt_cuda_begin(dev)) return;
  void *stage = pdt_cuda_lend(c, (pdt_bytes)bytes);
  double *device = pdt_cuda_grow(c, &c->blocks, (pdt_bytes)(bytes + line), "room for plans");
  double *results = pdt_cuda_results(c, (pdt_bytes)(bytes + line));
  if (!stage || !device || !results) return;
  memcpy(stage, sums, bytes);
  if (pdt_cuda_ok(c, pdt_cuda_transfer(c, device, stage, bytes, cudaMemcpyHostToDevice),
                  "reading a prompt") &&
      read_plan(c, &p, states, read, n, first, device) &&
      pdt_cuda_ok(c, pdt_cuda_transfer(c, results, device, bytes + line, cudaMemcpyDeviceToHost),
                  "reading a prompt") &&
      pdt_cuda_wait(c, "reading a prompt")) {
    memcpy(sums, results, bytes);
    if (marks) sums[rows] = results[rows + (size_t)n];
  }
}

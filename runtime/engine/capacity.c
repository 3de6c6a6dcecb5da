#include "engine/capacity.h"

#include <stdlib.h>

#include "base/memory.h"

pdt_load pdt_load_of(const pdt_request *r, pdt_spread spread) {
  int64_t block = pdt_settings_block(&r->settings);
  int32_t K = r->settings.streams; /* the first rank and the first group have the most streams */
  pdt_load load = {.lanes = K,
                   .group_lanes = pdt_streams_among(K, 0, spread.group_size, spread.ranks),
                   .own_lanes = pdt_streams_among(K, 0, 1, spread.ranks),
                   .tokens = K * block};
  load.own_tokens = load.own_lanes * block;
  for (pdt_rank begin = 0; begin < spread.ranks && begin < K; begin += spread.group_size) {
    int64_t pages = pdt_running_pages(r, begin, begin + spread.group_size, spread.ranks);
    if (pages > load.pages) load.pages = pages;
  }
  return load;
}

/* ---- the capacity for given requests ---- */

pdt_capacity_maker pdt_capacity_maker_of(int32_t max_sessions, pdt_spread spread) {
  pdt_capacity_maker m = {.spread = spread};
  for (int i = 0; i < PDT_LOAD_KINDS; i++) m.kinds[i].most = max_sessions;
  return m;
}

void pdt_capacity_maker_free(pdt_capacity_maker *m) {
  for (int i = 0; i < PDT_LOAD_KINDS; i++) pdt_largest_free(&m->kinds[i]);
}

static int32_t larger(int32_t a, int32_t b) {
  return a > b ? a : b;
}

int pdt_capacity_maker_add(pdt_capacity_maker *m, const pdt_request *request, pdt_error *err) {
  pdt_load load = pdt_load_of(request, m->spread);
  const int64_t kinds[PDT_LOAD_KINDS] = {load.lanes,  load.group_lanes, load.own_lanes,
                                         load.tokens, load.own_tokens,  load.pages};
  for (int i = 0; i < PDT_LOAD_KINDS; i++)
    if (pdt_largest_add(&m->kinds[i], kinds[i], err)) return -1;
  m->positions = larger(m->positions, pdt_request_positions(request));
  m->block_tokens = larger(m->block_tokens, pdt_settings_block(&request->settings));
  m->window = larger(m->window, pdt_settings_window(&request->settings));
  return 0;
}

pdt_capacity pdt_capacity_made(const pdt_capacity_maker *m) {
  const pdt_largest *k = m->kinds;
  return (pdt_capacity){.sessions = k[0].n > 0 ? k[0].n : 1,
                        .load = {k[0].sum, k[1].sum, k[2].sum, k[3].sum, k[4].sum, k[5].sum},
                        .positions = m->positions,
                        .block_tokens = m->block_tokens,
                        .window = m->window};
}

int pdt_capacity_check(const pdt_capacity *c, const pdt_request *request, pdt_spread spread,
                       pdt_error *err) {
  pdt_load load = pdt_load_of(request, spread);
  const struct {
    const char *what;
    int64_t needs, has;
  } limits[] = {
      {"streams", load.lanes, c->load.lanes},
      {"streams of one shard group", load.group_lanes, c->load.group_lanes},
      {"streams of one rank", load.own_lanes, c->load.own_lanes},
      {"tokens of its blocks together", load.tokens, c->load.tokens},
      {"tokens of one rank's blocks together", load.own_tokens, c->load.own_tokens},
      {"pages of the key/value cache", load.pages, c->load.pages},
      {"positions of a sequence", pdt_request_positions(request), c->positions},
      {"tokens of a block", pdt_settings_block(&request->settings), c->block_tokens},
      {"notes of a window", pdt_settings_window(&request->settings), c->window},
  };
  for (size_t i = 0; i < sizeof limits / sizeof *limits; i++)
    if (limits[i].needs > limits[i].has)
      return pdt_fail(err, PDT_ERROR_USAGE, "%s: it needs %lld, this run was made for %lld",
                      limits[i].what, (long long)limits[i].needs, (long long)limits[i].has);
  return 0;
}

/* ---- what is in flight ---- */

int pdt_ledger_new(pdt_ledger *l, pdt_spread spread, pdt_error *err) {
  *l = (pdt_ledger){.spread = spread};
  if (PDT_NEW(&l->rank_lanes, spread.ranks, "capacity", err) ||
      PDT_NEW(&l->rank_tokens, spread.ranks, "capacity", err) ||
      PDT_NEW(&l->group_pages, spread.ranks / spread.group_size, "capacity", err)) {
    pdt_ledger_free(l);
    return -1;
  }
  return 0;
}

void pdt_ledger_free(pdt_ledger *l) {
  free(l->rank_lanes);
  free(l->rank_tokens);
  free(l->group_pages);
  *l = (pdt_ledger){0};
}

/* Adds (sign 1) or takes away (-1) a request. */
static void change(pdt_ledger *l, const pdt_request *r, int64_t sign) {
  int64_t block = pdt_settings_block(&r->settings);
  pdt_spread s = l->spread;
  int32_t K = r->settings.streams;
  l->sessions += (int32_t)sign;
  l->lanes += sign * K;
  l->tokens += sign * K * block;
  for (pdt_stream k = 0; k < K; k++) {
    l->rank_lanes[pdt_owner_of(k, s.ranks)] += sign;
    l->rank_tokens[pdt_owner_of(k, s.ranks)] += sign * block;
  }
  for (pdt_rank begin = 0; begin < s.ranks && begin < K; begin += s.group_size)
    l->group_pages[begin / s.group_size] +=
        sign * pdt_running_pages(r, begin, begin + s.group_size, s.ranks);
}

static bool fits(const pdt_ledger *l, const pdt_capacity *c) {
  bool good =
      l->sessions <= c->sessions && l->lanes <= c->load.lanes && l->tokens <= c->load.tokens;
  for (pdt_rank group = 0; group < l->spread.ranks / l->spread.group_size && good; group++) {
    int64_t lanes = 0;
    for (pdt_rank r = group * l->spread.group_size; r < (group + 1) * l->spread.group_size; r++) {
      lanes += l->rank_lanes[r];
      good =
          good && l->rank_lanes[r] <= c->load.own_lanes && l->rank_tokens[r] <= c->load.own_tokens;
    }
    good = good && lanes <= c->load.group_lanes && l->group_pages[group] <= c->load.pages;
  }
  return good;
}

bool pdt_ledger_add(pdt_ledger *l, const pdt_capacity *capacity, const pdt_request *request) {
  change(l, request, 1);
  if (fits(l, capacity)) return true;
  change(l, request, -1);
  return false;
}

void pdt_ledger_remove(pdt_ledger *l, const pdt_request *request) {
  change(l, request, -1);
}

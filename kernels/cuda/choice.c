/* Choice of tokens, and how likely they are. */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "kernels/cuda/backend.h"

void pdt_cuda_reserve_choice(pdt_cuda *c, const pdt_room *most) {
  if (most->sampled_rows < 1 || most->sampled_width < 1) return;
  int64_t parts = (int64_t)most->sampled_rows * pdt_cuda_argmax_parts(most->sampled_width);
  pdt_cuda_grow(c, &c->choice, parts * (pdt_bytes)sizeof(pdt_cuda_best), "room for choices");
}

void pdt_cuda_argmax_rows(pdt_device *dev, pdt_array logits, int32_t width, const int32_t *rows,
                          int32_t n, int32_t first_id, pdt_candidate *best) {
  pdt_cuda *c = pdt_cuda_of(dev);
  if (n < 1) return;
  memset(best, 0, (size_t)n * sizeof *best);
  if (!pdt_cuda_begin(dev)) return;
  int64_t parts = (int64_t)n * pdt_cuda_argmax_parts(width);
  pdt_cuda_best *room =
      pdt_cuda_grow(c, &c->choice, parts * (pdt_bytes)sizeof *room, "room for choices");
  /* The list lies behind the results, where the next step finds it too. */
  pdt_cuda_best *results = pdt_cuda_results(c, n * (pdt_bytes)(sizeof *results + sizeof *rows));
  if (!room || !results) return;
  int32_t *list = (int32_t *)(void *)(results + n);
  if (rows) memcpy(list, rows, (size_t)n * sizeof *rows);
  if (!pdt_cuda_ok(c,
                   pdt_launch_argmax(logits.at, width, rows ? list : NULL, n, first_id, room,
                                     results, &c->queue),
                   "largest logits") ||
      !pdt_cuda_wait(c, "largest logits"))
    return;
  for (int32_t i = 0; i < n; i++) best[i] = (pdt_candidate){results[i].logit, results[i].id};
}

/* Room for n draws: bests of parts of rows, bests of rows, and what draws need. */
static bool find_room(pdt_cuda *c, int32_t width, int32_t n, pdt_cuda_best **parts,
                      pdt_cuda_best **best, pdt_cuda_draw_room *room) {
  int64_t bests = (int64_t)n * (pdt_cuda_argmax_parts(width) + 1);
  int64_t ties = (int64_t)n * pdt_cuda_draw_parts(width);
  *parts = pdt_cuda_grow(c, &c->choice,
                         bests * (pdt_bytes)sizeof **parts + ties * (pdt_bytes)sizeof *room->ties,
                         "room for choices");
  *room = (pdt_cuda_draw_room){
      .rows = pdt_cuda_grow_zeroed(c, &c->draws, n * pdt_cuda_draw_bytes(), "room for draws")};
  if (!*parts || !room->rows) return false;
  *best = *parts + (bests - n);
  room->best = *best;
  room->ties = (int32_t *)(void *)(*best + n);
  return true;
}

/* Most goals of a row (draws.cu): the k-th best, the end of a list, the token. */
static int32_t goals_of(const pdt_row_draw *draws, int32_t width, int32_t n) {
  int32_t most = 0;
  for (int32_t i = 0; i < n; i++) {
    const pdt_sampling *how = &draws[i].how;
    int32_t goals = 1 + (how->top_k > 0 && how->top_k < width) + (how->top_p < 1);
    if (how->temperature != 0 && goals > most) most = goals;
  }
  return most;
}

/* Launches the choice of n tokens. rows, to: NULL counts 0, 1, 2 .. */
static bool choose(pdt_cuda *c, const float *logits, int32_t width, const int32_t *rows, int32_t n,
                   const pdt_row_draw *draws, const int32_t *to, const pdt_cuda_drawn *drawn) {
  pdt_cuda_best *parts, *best;
  pdt_cuda_draw_room room;
  if (!find_room(c, width, n, &parts, &best, &room)) return false;
  pdt_cuda_draw *list = pdt_cuda_lend(c, n * (pdt_bytes)(sizeof *list + sizeof *rows));
  if (!list) return false;
  int32_t *row_list = (int32_t *)(void *)(list + n);
  for (int32_t i = 0; i < n; i++) {
    row_list[i] = rows ? rows[i] : i;
    list[i] = (pdt_cuda_draw){.temperature = draws[i].how.temperature,
                              .top_p = draws[i].how.top_p,
                              .u = draws[i].u,
                              .top_k = draws[i].how.top_k,
                              .row = row_list[i],
                              .to = to ? to[i] : i};
  }
  /* Every block of argmax would read the list over the bus. */
  const int32_t *some = rows ? row_list : NULL;
  return pdt_cuda_ok(c, pdt_launch_argmax(logits, width, some, n, 0, parts, best, &c->queue),
                     "largest logits") &&
         pdt_cuda_ok(c,
                     pdt_launch_draws(logits, width, list, n, goals_of(draws, width, n), &room,
                                      drawn, &c->queue),
                     "draws");
}

void pdt_cuda_sample_rows(pdt_device *dev, pdt_array logits, int32_t width, const int32_t *rows,
                          int32_t n, const pdt_row_draw *draws, pdt_token *tokens) {
  pdt_cuda *c = pdt_cuda_of(dev);
  if (n < 1) return;
  memset(tokens, 0, (size_t)n * sizeof *tokens);
  if (!pdt_cuda_begin(dev)) return;
  int32_t *told = pdt_cuda_results(c, n * (pdt_bytes)sizeof *told);
  const pdt_cuda_drawn drawn = {NULL, told};
  if (told && choose(c, logits.at, width, rows, n, draws, NULL, &drawn) &&
      pdt_cuda_wait(c, "draws"))
    memcpy(tokens, told, (size_t)n * sizeof *tokens);
}

/* ---- how likely tokens are ---- */

/* Room for what the device tells of n rows, with their tokens in it: sums first, which are the
 * widest. */
static bool find_likely(pdt_cuda *c, int32_t width, int32_t n, int32_t few, const pdt_token *tokens,
                        pdt_cuda_likely *told) {
  int64_t sums = (int64_t)n * pdt_cuda_likely_parts(width), best = (int64_t)n * few;
  pdt_bytes bytes = sums * (pdt_bytes)sizeof *told->sums + best * (pdt_bytes)sizeof *told->best +
                    n * (pdt_bytes)(sizeof *told->own + sizeof *tokens);
  told->sums = pdt_cuda_results(c, bytes);
  if (!told->sums) return false;
  told->best = (pdt_cuda_best *)(void *)(told->sums + sums);
  told->own = (float *)(void *)(told->best + best);
  told->tokens = memcpy(told->own + n, tokens, (size_t)n * sizeof *tokens);
  return true;
}

/* Row i of what the device has told, as the host ends it. */
static void end_likely(const pdt_cuda_likely *told, int32_t i, int32_t width, int32_t top,
                       pdt_logprob *out) {
  pdt_candidate best[PDT_MOST_LOGPROBS + 1];
  int32_t few = top > 0 ? top : 1, parts = pdt_cuda_likely_parts(width);
  pdt_weight total = 0;
  for (int32_t k = 0; k < few; k++) {
    const pdt_cuda_best *b = &told->best[(int64_t)i * few + k];
    best[k] = (pdt_candidate){b->logit, b->id};
  }
  for (int32_t p = 0; p < parts; p++) {
    const pdt_cuda_weight *w = &told->sums[(int64_t)i * parts + p];
    total += ((pdt_weight)w->high << (PDT_WEIGHT_BITS / 2)) + w->low;
  }
  pdt_logprobs_of((pdt_candidate){told->own[i], told->tokens[i]}, best, top, total, out);
}

void pdt_cuda_logprobs_rows(pdt_device *dev, pdt_array logits, int32_t width, int32_t n,
                            const pdt_token *tokens, int32_t top, pdt_logprob *out) {
  pdt_cuda *c = pdt_cuda_of(dev);
  pdt_cuda_likely told;
  int32_t few = top > 0 ? top : 1;
  if (n < 1) return;
  memset(out, 0, (size_t)n * (size_t)(1 + top) * sizeof *out);
  if (!pdt_cuda_begin(dev)) return;
  void *room =
      pdt_cuda_grow(c, &c->choice, pdt_cuda_likely_bytes(width, n, few), "room for logprobs");
  if (!room || !find_likely(c, width, n, few, tokens, &told)) return;
  if (!pdt_cuda_ok(c, pdt_launch_logprobs(logits.at, width, n, few, room, &told, &c->queue),
                   "logprobs") ||
      !pdt_cuda_wait(c, "logprobs"))
    return;
  for (int32_t i = 0; i < n; i++) end_likely(&told, i, width, top, out + (int64_t)i * (1 + top));
}

/* ---- tokens that stay on the device ---- */

struct pdt_chosen {
  int32_t *ids;        /* device [n] */
  int32_t *told;       /* host [n], pinned: the same, as soon as they are known */
  cudaEvent_t done[2]; /* of calls of choose_rows, in turn */
  int64_t calls;
};

void pdt_cuda_chosen_free(pdt_device *dev, pdt_chosen *chosen) {
  if (!chosen) return;
  pdt_cuda_free(dev, chosen->ids); /* waits until nothing uses them */
  if (chosen->told) cudaFreeHost(chosen->told);
  for (int i = 0; i < 2; i++)
    if (chosen->done[i]) cudaEventDestroy(chosen->done[i]);
  free(chosen);
}

int pdt_cuda_chosen_new(pdt_device *dev, int32_t n, pdt_chosen **out, pdt_error *err) {
  pdt_chosen *made;
  pdt_array ids;
  size_t bytes = ((size_t)n + 1) * sizeof *made->told;
  *out = NULL;
  if (PDT_NEW(&made, 1, "chosen tokens", err)) return -1;
  if (pdt_cuda_alloc(dev, n, "chosen tokens", &ids, err)) {
    free(made);
    return -1;
  }
  made->ids = (int32_t *)(void *)ids.at;
  cudaError_t code = cudaMallocHost((void **)&made->told, bytes);
  for (int i = 0; i < 2 && code == cudaSuccess; i++)
    code = cudaEventCreateWithFlags(&made->done[i], cudaEventDisableTiming);
  if (code != cudaSuccess) {
    cudaGetLastError();
    pdt_cuda_chosen_free(dev, made);
    return pdt_fail(err, code == cudaErrorMemoryAllocation ? PDT_ERROR_MEMORY : PDT_ERROR_RUNTIME,
                    "GPU %d: chosen tokens: %zu bytes of pinned host memory: %s (CUDA error %d)",
                    pdt_cuda_of(dev)->index, bytes, cudaGetErrorString(code), (int)code);
  }
  memset(made->told, 0, bytes);
  *out = made;
  return 0;
}

void pdt_cuda_choose_rows(pdt_device *dev, pdt_array logits, int32_t width, int32_t n,
                          const pdt_row_draw *draws, const int32_t *to, pdt_chosen *chosen) {
  pdt_cuda *c = pdt_cuda_of(dev);
  const pdt_cuda_drawn drawn = {chosen->ids, chosen->told};
  if (n < 1 || !pdt_cuda_begin(dev)) return;
  if (choose(c, logits.at, width, NULL, n, draws, to, &drawn) &&
      pdt_cuda_ok(c, pdt_cuda_flush(&c->queue), "a step"))
    pdt_cuda_ok(c, cudaEventRecord(chosen->done[chosen->calls++ % 2], c->queue.stream), "event");
}

void pdt_cuda_gather_chosen(pdt_device *dev, const pdt_matrix *w, const pdt_chosen *chosen,
                            const int32_t *from, int32_t n, pdt_array y) {
  pdt_cuda *c = pdt_cuda_of(dev);
  if (n < 1 || !pdt_cuda_begin(dev)) return;
  int32_t *list = pdt_cuda_lend(c, n * (pdt_bytes)sizeof *from);
  if (!list) return;
  memcpy(list, from, (size_t)n * sizeof *from);
  pdt_cuda_ok(c, pdt_launch_gather(pdt_cuda_weights_of(w), chosen->ids, list, n, y.at, &c->queue),
              "rows of an embedding");
}

void pdt_cuda_chosen_read(pdt_device *dev, pdt_chosen *chosen, const int32_t *from, int32_t n,
                          bool but_last, pdt_token *tokens) {
  pdt_cuda *c = pdt_cuda_of(dev);
  int64_t call = chosen->calls - 1 - but_last;
  memset(tokens, 0, (size_t)n * sizeof *tokens);
  if (n < 1 || call < 0 || c->failure.code != PDT_ERROR_NONE ||
      !pdt_cuda_ok(c, cudaEventSynchronize(chosen->done[call % 2]), "waiting for tokens"))
    return;
  for (int32_t i = 0; i < n; i++) tokens[i] = chosen->told[from[i]];
}

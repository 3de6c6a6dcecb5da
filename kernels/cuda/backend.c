#include "kernels/cuda/backend.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "kernels/cuda/bulk.h"
#include "kernels/cuda/device.h"

bool pdt_cuda_ok(pdt_cuda *c, cudaError_t code, const char *what) {
  if (code == cudaSuccess) return c->failure.code == PDT_ERROR_NONE;
  if (c->failure.code == PDT_ERROR_NONE)
    pdt_fail(&c->failure, code == cudaErrorMemoryAllocation ? PDT_ERROR_MEMORY : PDT_ERROR_RUNTIME,
             "GPU %d: %s: %s (CUDA error %d)", c->index, what, cudaGetErrorString(code), (int)code);
  pdt_cuda_exchange_abort(c); /* what is freed from here on must not wait for others */
  return false;
}

/* Makes the next stage the one in use, when nothing reads it any more. */
static bool turn_stage(pdt_cuda *c, pdt_bytes bytes) {
  pdt_cuda_stage *old = &c->stages[c->stage];
  if (!pdt_cuda_ok(c, pdt_cuda_flush(&c->queue), "launches") ||
      !pdt_cuda_ok(c, cudaEventRecord(old->done, c->queue.stream), "event"))
    return false;
  old->waiting = true;
  c->stage = (c->stage + 1) % PDT_CUDA_STAGES;
  c->staged = 0;
  pdt_cuda_stage *s = &c->stages[c->stage];
  if (s->waiting && !pdt_cuda_await(c, s->done, "waiting for uploads")) return false;
  s->waiting = false;
  if (bytes <= s->bytes) return true;
  if (s->at) cudaFreeHost(s->at);
  *s = (pdt_cuda_stage){.done = s->done};
  if (!pdt_cuda_ok(c, cudaMallocHost((void **)&s->at, (size_t)bytes), "pinned host memory"))
    return false;
  s->bytes = bytes;
  return true;
}

void pdt_cuda_hold(pdt_cuda *c) {
  if (c->exchange) return; /* see exchange.c */
  pdt_cuda_stage *s = &c->held[c->holding];
  if (s->waiting) { /* what the last sequence reads there may not have been read yet */
    if (!pdt_cuda_ok(c, cudaEventRecord(s->done, c->queue.stream), "event")) return;
    c->holding = 1 - c->holding;
    s = &c->held[c->holding];
    if (s->waiting && !pdt_cuda_ok(c, cudaEventSynchronize(s->done), "waiting for a step")) return;
    s->waiting = false;
  }
  c->held_used = 0;
  c->queue.holds = true;
}

void *pdt_cuda_lend(pdt_cuda *c, pdt_bytes bytes) {
  enum { LINE = 256 };
  pdt_bytes whole = (bytes + LINE - 1) / LINE * LINE;
  if (c->failure.code != PDT_ERROR_NONE) return NULL;
  pdt_cuda_stage *held = &c->held[c->holding];
  if (c->queue.holds && c->held_used + whole <= held->bytes) {
    void *at = held->at + c->held_used;
    c->held_used += whole;
    held->waiting = true;
    return at;
  }
  if (c->staged + whole > c->stages[c->stage].bytes &&
      !turn_stage(c, whole > PDT_CUDA_STAGE_BYTES ? whole : PDT_CUDA_STAGE_BYTES))
    return NULL;
  void *at = c->stages[c->stage].at + c->staged;
  c->staged += whole;
  return at;
}

int pdt_cuda_take(pdt_cuda *c, void **at, pdt_bytes bytes, const char *what, pdt_error *err) {
  size_t left = 0, whole = 0;
  cudaError_t code =
      c->failure.code == PDT_ERROR_NONE ? cudaMalloc(at, (size_t)bytes) : cudaErrorUnknown;
  if (code != cudaErrorMemoryAllocation) {
    if (pdt_cuda_ok(c, code, what)) return 0;
    if (err) *err = c->failure;
    return -1;
  }
  cudaGetLastError(); /* this one does not stick */
  cudaMemGetInfo(&left, &whole);
  return pdt_fail(err, PDT_ERROR_MEMORY,
                  "GPU %d: %s: %.1f MiB are needed, %.1f of its %.1f MiB are free (hint: more GPUs "
                  "with a larger --tp, fewer --max-sessions, or --device cpu)",
                  c->index, what, pdt_mebibytes(bytes), pdt_mebibytes((pdt_bytes)left),
                  pdt_mebibytes((pdt_bytes)whole));
}

void *pdt_cuda_grow(pdt_cuda *c, pdt_cuda_buffer *buffer, pdt_bytes bytes, const char *what) {
  if (c->failure.code != PDT_ERROR_NONE) return NULL;
  if (bytes <= buffer->bytes) return buffer->at;
  /* Freeing waits until nothing uses it any more, and knows no deadline. */
  bool ok =
      (c->exchange ? pdt_cuda_wait(c, what) : pdt_cuda_ok(c, pdt_cuda_flush(&c->queue), what)) &&
      pdt_cuda_ok(c, cudaFree(buffer->at), what);
  *buffer = (pdt_cuda_buffer){0};
  if (!ok || pdt_cuda_take(c, &buffer->at, bytes, what, &c->failure)) return NULL;
  buffer->bytes = bytes;
  return buffer->at;
}

void *pdt_cuda_grow_zeroed(pdt_cuda *c, pdt_cuda_buffer *buffer, pdt_bytes bytes,
                           const char *what) {
  pdt_bytes before = buffer->bytes;
  void *at = pdt_cuda_grow(c, buffer, bytes, what);
  if (at && buffer->bytes != before &&
      !pdt_cuda_ok(c, cudaMemsetAsync(at, 0, (size_t)bytes, c->queue.stream), what))
    return NULL;
  return at;
}

void *pdt_cuda_results(pdt_cuda *c, pdt_bytes bytes) {
  if (c->failure.code != PDT_ERROR_NONE) return NULL;
  if (bytes <= c->results_bytes) return c->results;
  if (c->results) cudaFreeHost(c->results);
  c->results = NULL;
  c->results_bytes = 0;
  if (!pdt_cuda_ok(c, cudaMallocHost((void **)&c->results, (size_t)bytes), "pinned host memory"))
    return NULL;
  c->results_bytes = bytes;
  return c->results;
}

bool pdt_cuda_wait(pdt_cuda *c, const char *what) {
  if (!pdt_cuda_ok(c, pdt_cuda_flush(&c->queue), what) || !pdt_cuda_await(c, NULL, what))
    return false;
  c->held[0].waiting = c->held[1].waiting = false;
  c->holding = 0;
  return true;
}

cudaError_t pdt_cuda_transfer(pdt_cuda *c, void *to, const void *from, size_t bytes,
                              enum cudaMemcpyKind kind) {
  cudaError_t code = pdt_cuda_flush(&c->queue);
  return code == cudaSuccess ? cudaMemcpyAsync(to, from, bytes, kind, c->queue.stream) : code;
}

void pdt_cuda_free(pdt_device *dev, void *p) {
  pdt_cuda *c = pdt_cuda_of(dev);
  if (!p) return;
  pdt_cuda_begin(dev); /* what is pending may use it */
  if (c->exchange)
    pdt_cuda_wait(c, "freeing memory");
  else
    pdt_cuda_ok(c, pdt_cuda_flush(&c->queue), "launches");
  cudaFree(p); /* waits until nothing uses it */
}

static int sync_device(pdt_device *dev, pdt_error *err) {
  pdt_cuda *c = pdt_cuda_of(dev);
  if (pdt_cuda_begin(dev)) pdt_cuda_wait(c, "computing");
  if (c->failure.code == PDT_ERROR_NONE) return 0;
  if (err) *err = c->failure;
  return -1;
}

static pdt_bytes available(pdt_device *dev, int32_t sharing) {
  pdt_cuda *c = pdt_cuda_of(dev);
  size_t left = 0, whole = 0;
  if (!pdt_cuda_ok(c, cudaMemGetInfo(&left, &whole), "free memory")) return 0;
  return (pdt_bytes)left / sharing;
}

/* Rooms grow with what is asked of them; here to the most that will be, so that the memory that
 * `available` tells of afterwards is what is left. */
static int reserve(pdt_device *dev, const pdt_room *most, pdt_error *err) {
  pdt_cuda *c = pdt_cuda_of(dev);
  pdt_cuda_reserve_products(c, most);
  pdt_cuda_reserve_attention(c, most);
  pdt_cuda_reserve_blocks(c, most);
  pdt_cuda_reserve_choice(c, most);
  if (c->failure.code == PDT_ERROR_NONE) return 0;
  if (err) *err = c->failure;
  return -1;
}

static void close_device(pdt_device *dev) {
  pdt_cuda *c = pdt_cuda_of(dev);
  if (c) {
    pdt_cuda_buffer *buffers[] = {&c->packing,   &c->prepared, &c->partial, &c->arrived,
                                  &c->attention, &c->choice,   &c->draws,   &c->blocks};
    pdt_cuda_exchange_close(c);
    if (c->queue.stream) cudaStreamSynchronize(c->queue.stream);
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++) cudaFree(buffers[i]->at);
    pdt_cuda_bulk_close(c);
    for (int i = 0; i < PDT_CUDA_STAGES; i++) {
      if (c->stages[i].done) cudaEventDestroy(c->stages[i].done);
      if (c->stages[i].at) cudaFreeHost(c->stages[i].at);
    }
    if (c->results) cudaFreeHost(c->results);
    for (int i = 0; i < 2; i++) {
      if (c->held[i].done) cudaEventDestroy(c->held[i].done);
      if (c->held[i].at) cudaFreeHost(c->held[i].at);
    }
    cudaStream_t stream = c->queue.stream;
    pdt_cuda_queue_free(&c->queue);
    if (stream) cudaStreamDestroy(stream);
  }
  free(c);
  *dev = (pdt_device){0};
}

static const pdt_kernels operations = {
    .close = close_device,
    .sync = sync_device,
    .available = available,
    .reserve = reserve,
    .alloc = pdt_cuda_alloc,
    .release = pdt_cuda_release,
    .upload = pdt_cuda_upload,
    .download = pdt_cuda_download,
    .copy_rows = pdt_cuda_copy_rows,
    .move_rows = pdt_cuda_move_rows,
    .matrix_new = pdt_cuda_matrix_new,
    .matrix_free = pdt_cuda_matrix_free,
    .matrix_pack = pdt_cuda_matrix_pack,
    .rows_new = pdt_cuda_rows_new,
    .rows_free = pdt_cuda_rows_free,
    .rows_write = pdt_cuda_rows_write,
    .rows_read = pdt_cuda_rows_read,
    .matmul = pdt_cuda_matmul,
    .matmul_bulk = pdt_cuda_matmul_bulk,
    .gather_rows = pdt_cuda_gather_rows,
    .rows_product = pdt_cuda_rows_product,
    .norm_rows = pdt_cuda_norm_rows,
    .add_bias = pdt_cuda_add_bias,
    .add = pdt_cuda_add,
    .sum_shares = pdt_cuda_sum_shares,
    .swiglu = pdt_cuda_swiglu,
    .batch_new = pdt_cuda_batch_new,
    .batch_free = pdt_cuda_batch_free,
    .batch_set = pdt_cuda_batch_set,
    .rotate_and_store = pdt_cuda_rotate_and_store,
    .attention = pdt_cuda_attend,
    .conditions_new = pdt_cuda_conditions_new,
    .conditions_free = pdt_cuda_conditions_free,
    .conditions_set = pdt_cuda_conditions_set,
    .store_notes = pdt_cuda_store_notes,
    .note_attention = pdt_cuda_note_attention,
    .add_noted = pdt_cuda_add_noted,
    .adapt = pdt_cuda_adapt,
    .close_blocks = pdt_cuda_close_blocks,
    .plan_read = pdt_cuda_plan_read,
    .argmax_rows = pdt_cuda_argmax_rows,
    .sample_rows = pdt_cuda_sample_rows,
    .logprobs_rows = pdt_cuda_logprobs_rows,
    .chosen_new = pdt_cuda_chosen_new,
    .chosen_free = pdt_cuda_chosen_free,
    .choose_rows = pdt_cuda_choose_rows,
    .gather_chosen = pdt_cuda_gather_chosen,
    .chosen_read = pdt_cuda_chosen_read,
    .exchange_id = pdt_cuda_exchange_id,
    .exchange_join = pdt_cuda_exchange_join,
    .all_gather = pdt_cuda_all_gather,
    .all_to_all = pdt_cuda_all_to_all,
};

/* The stream, the stages and the name. */
static bool open_device(pdt_cuda *c) {
  struct cudaDeviceProp p;
  if (!pdt_cuda_ok(c, cudaSetDevice(c->index), "choosing it") ||
      !pdt_cuda_ok(c, cudaGetDeviceProperties(&p, c->index), "its properties") ||
      !pdt_cuda_ok(c, cudaStreamCreateWithFlags(&c->queue.stream, cudaStreamNonBlocking),
                   "a stream"))
    return false;
  if (p.major < PDT_CUDA_LEAST_MAJOR) {
    pdt_fail(&c->failure, PDT_ERROR_RUNTIME,
             "GPU %d: expected compute capability %d.0 or later, found %d.%d (%s)", c->index,
             PDT_CUDA_LEAST_MAJOR, p.major, p.minor, p.name);
    return false;
  }
  c->clusters = c->queue.ahead = p.major >= 9;
  snprintf(c->name, sizeof c->name, "cuda sm_%d%d", p.major, p.minor);
  for (int i = 0; i < 2; i++) {
    pdt_cuda_stage *s = &c->held[i];
    if (!pdt_cuda_ok(c, cudaMallocHost((void **)&s->at, PDT_CUDA_HELD_BYTES), "host memory") ||
        !pdt_cuda_ok(c, cudaEventCreateWithFlags(&s->done, cudaEventDisableTiming), "an event"))
      return false;
    s->bytes = PDT_CUDA_HELD_BYTES;
  }
  for (int i = 0; i < PDT_CUDA_STAGES; i++)
    if (!pdt_cuda_ok(c, cudaEventCreateWithFlags(&c->stages[i].done, cudaEventDisableTiming),
                     "an event"))
      return false;
  return pdt_cuda_bulk_open(c);
}

int pdt_cuda_device_new(pdt_device *dev, int index, pdt_error *err) {
  pdt_cuda *c;
  *dev = (pdt_device){0};
  if (PDT_NEW(&c, 1, "GPU", err)) return -1;
  c->index = index;
  *dev = (pdt_device){.ops = &operations,
                      .name = c->name,
                      .threads = 1,
                      .runs_ahead = true,
                      .bulk_rows = pdt_cuda_bulk_rows(),
                      .state = c};
  if (open_device(c)) return 0;
  if (err) *err = c->failure;
  close_device(dev);
  return -1;
}

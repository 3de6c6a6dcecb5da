#include "kernels/cuda/queue.h"

#include <stdlib.h>
#include <string.h>

/* A launch as it is held back: this, then n sizes, then the arguments, each at a multiple of 16. */
typedef struct held {
  pdt_cuda_launch launch;
  size_t bytes; /* of it all */
  int32_t n;
} held;

enum { LINE = 16, MOST_ARGUMENTS = 16 };

static size_t line_up(size_t bytes) {
  return (bytes + LINE - 1) / LINE * LINE;
}

/* Blocks with more than 48 KiB of shared memory have to be asked for. */
static cudaError_t start(const pdt_cuda_queue *queue, const pdt_cuda_launch *l, void **arguments) {
  enum { PLAIN_SHARED = 48 << 10 };
  cudaLaunchAttribute attributes[2] = {0};
  unsigned n = 0;
  if (queue->ahead) {
    attributes[n].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[n++].val.programmaticStreamSerializationAllowed = 1;
  }
  if (l->cluster.x * l->cluster.y * l->cluster.z > 1) {
    attributes[n].id = cudaLaunchAttributeClusterDimension;
    attributes[n].val.clusterDim.x = l->cluster.x;
    attributes[n].val.clusterDim.y = l->cluster.y;
    attributes[n++].val.clusterDim.z = l->cluster.z;
  }
  cudaLaunchConfig_t config = {.gridDim = l->grid,
                               .blockDim = l->block,
                               .dynamicSmemBytes = l->shared_bytes,
                               .stream = queue->stream,
                               .attrs = attributes,
                               .numAttrs = n};
  if (l->shared_bytes > PLAIN_SHARED) {
    cudaError_t code = cudaFuncSetAttribute(l->kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                            (int)l->shared_bytes);
    if (code != cudaSuccess) return code;
  }
  return cudaLaunchKernelExC(&config, l->kernel, arguments);
}

/* Room for one more launch of so many bytes; NULL without memory. */
static void *take(pdt_cuda_queue *queue, size_t bytes) {
  if (queue->bytes + bytes > queue->room) {
    size_t room = 2 * queue->room + bytes + 65536;
    unsigned char *more = realloc(queue->launches, room);
    if (!more) return NULL;
    queue->launches = more;
    queue->room = room;
  }
  void *at = queue->launches + queue->bytes;
  queue->bytes += bytes;
  return at;
}

cudaError_t pdt_cuda_enqueue(pdt_cuda_queue *queue, const pdt_cuda_launch *launch, int32_t n,
                             void *const *arguments, const size_t *sizes) {
  if (n > MOST_ARGUMENTS) return cudaErrorInvalidValue;
  if (!queue->holds) return start(queue, launch, (void **)(uintptr_t)arguments);
  size_t head = line_up(sizeof(held)) + line_up((size_t)n * sizeof *sizes), bytes = head;
  for (int32_t i = 0; i < n; i++) bytes += line_up(sizes[i]);
  unsigned char *at = take(queue, bytes);
  if (!at) return cudaErrorMemoryAllocation;
  memset(at, 0, bytes); /* gaps are compared, too */
  held *h = (held *)(void *)at;
  h->launch.kernel = launch->kernel;
  h->launch.grid = launch->grid;
  h->launch.block = launch->block;
  h->launch.cluster = launch->cluster;
  h->launch.shared_bytes = launch->shared_bytes;
  h->bytes = bytes;
  h->n = n;
  memcpy(at + line_up(sizeof *h), sizes, (size_t)n * sizeof *sizes);
  at += head;
  for (int32_t i = 0; i < n; i++) {
    memcpy(at, arguments[i], sizes[i]);
    at += line_up(sizes[i]);
  }
  return cudaSuccess;
}

/* Launches everything that is held back. */
static cudaError_t start_all(const pdt_cuda_queue *queue) {
  cudaError_t code = cudaSuccess;
  for (size_t at = 0; at < queue->bytes && code == cudaSuccess;) {
    unsigned char *launch = queue->launches + at;
    const held *h = (const held *)(const void *)launch;
    const size_t *sizes = (const size_t *)(const void *)(launch + line_up(sizeof *h));
    void *arguments[MOST_ARGUMENTS];
    launch += line_up(sizeof *h) + line_up((size_t)h->n * sizeof *sizes);
    for (int32_t i = 0; i < h->n; i++) {
      arguments[i] = launch;
      launch += line_up(sizes[i]);
    }
    code = start(queue, &h->launch, arguments);
    at += h->bytes;
  }
  return code;
}

/* Of whole words, as launches are. */
static uint64_t hash_of(const unsigned char *bytes, size_t n) {
  uint64_t hash = n;
  for (size_t i = 0; i < n; i += sizeof hash) {
    uint64_t word;
    memcpy(&word, bytes + i, sizeof word);
    hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
    hash ^= hash >> 29;
  }
  return hash;
}

static bool came_before(pdt_cuda_queue *queue, uint64_t hash) {
  for (int i = 0; i < PDT_CUDA_SEEN; i++)
    if (queue->seen[i] == hash) return true;
  queue->seen[queue->flushes % PDT_CUDA_SEEN] = hash;
  return false;
}

static pdt_cuda_graph *find_graph(pdt_cuda_queue *queue, uint64_t hash) {
  for (int i = 0; i < PDT_CUDA_GRAPHS; i++) {
    pdt_cuda_graph *g = &queue->graphs[i];
    if (g->ready && g->hash == hash && g->bytes == queue->bytes &&
        memcmp(g->launches, queue->launches, g->bytes) == 0)
      return g;
  }
  return NULL;
}

static void free_graph(pdt_cuda_graph *g) {
  if (g->ready) cudaGraphExecDestroy(g->ready);
  free(g->launches);
  *g = (pdt_cuda_graph){0};
}

/* Records what is held back in place of the graph that was used longest ago. */
static cudaError_t make_graph(pdt_cuda_queue *queue, uint64_t hash, pdt_cuda_graph **out) {
  pdt_cuda_graph *g = &queue->graphs[0];
  cudaGraph_t graph = NULL;
  for (int i = 1; i < PDT_CUDA_GRAPHS; i++)
    if (queue->graphs[i].used < g->used) g = &queue->graphs[i];
  free_graph(g);
  cudaError_t code = cudaStreamBeginCapture(queue->stream, cudaStreamCaptureModeThreadLocal);
  if (code != cudaSuccess) return code;
  code = start_all(queue);
  cudaError_t ended = cudaStreamEndCapture(queue->stream, &graph);
  if (code == cudaSuccess) code = ended;
  if (code == cudaSuccess) code = cudaGraphInstantiate(&g->ready, graph, 0);
  if (graph) cudaGraphDestroy(graph);
  if (code != cudaSuccess) return code;
  g->launches = malloc(queue->bytes);
  if (!g->launches) return cudaErrorMemoryAllocation;
  memcpy(g->launches, queue->launches, queue->bytes);
  g->bytes = queue->bytes;
  g->hash = hash;
  *out = g;
  return cudaSuccess;
}

cudaError_t pdt_cuda_flush(pdt_cuda_queue *queue) {
  cudaError_t code = cudaSuccess;
  queue->holds = false;
  if (queue->bytes == 0) return code;
  uint64_t hash = hash_of(queue->launches, queue->bytes);
  queue->flushes++;
  pdt_cuda_graph *g = find_graph(queue, hash);
  if (!g && came_before(queue, hash)) code = make_graph(queue, hash, &g);
  if (g) {
    g->used = queue->flushes;
    code = cudaGraphLaunch(g->ready, queue->stream);
  } else if (code == cudaSuccess) {
    code = start_all(queue);
  }
  queue->bytes = 0;
  return code;
}

void pdt_cuda_queue_free(pdt_cuda_queue *queue) {
  for (int i = 0; i < PDT_CUDA_GRAPHS; i++) free_graph(&queue->graphs[i]);
  free(queue->launches);
  *queue = (pdt_cuda_queue){0};
}

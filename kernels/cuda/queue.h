/* Launches of kernels on one stream. They go to the device one by one, or are held back and go
 * together: a sequence of launches that comes again, the same to the byte, is kept as a graph,
 * which costs the host one call. Not for several threads. */
#ifndef PDT_KERNELS_CUDA_QUEUE_H
#define PDT_KERNELS_CUDA_QUEUE_H

#ifdef __cplusplus
extern "C" {
#endif

#include <cuda_runtime_api.h>

#include "base/types.h"

enum { PDT_CUDA_GRAPHS = 16, PDT_CUDA_SEEN = 64 };

/* A sequence of launches that came twice. */
typedef struct pdt_cuda_graph {
  cudaGraphExec_t ready;
  unsigned char *launches; /* [bytes], owned */
  size_t bytes;
  uint64_t hash, used; /* used: when last, counted in flushes */
} pdt_cuda_graph;

/* Zeroed but for the stream, it launches at once; only one that is to hold launches back has to be
 * freed. */
typedef struct pdt_cuda_queue {
  cudaStream_t stream;
  bool ahead;              /* kernels may begin before those ahead have ended: sm_90 */
  bool holds;              /* launches back, until the next flush */
  unsigned char *launches; /* [room], the first `bytes` in use */
  size_t bytes, room;
  uint64_t flushes;
  uint64_t seen[PDT_CUDA_SEEN]; /* hashes of sequences that came, in turn */
  pdt_cuda_graph graphs[PDT_CUDA_GRAPHS];
} pdt_cuda_queue;

/* One launch. Blocks of a cluster: 1 where there is none. It may begin before the kernels ahead of
 * it have ended (see launch_ahead in instructions.cuh). */
typedef struct pdt_cuda_launch {
  const void *kernel;
  struct dim3 grid, block, cluster;
  size_t shared_bytes;
} pdt_cuda_launch;

/* Launches, or holds back, a kernel with arguments of those sizes, which are copied. */
cudaError_t pdt_cuda_enqueue(pdt_cuda_queue *queue, const pdt_cuda_launch *launch, int32_t n,
                             void *const *arguments, const size_t *sizes);

/* Gives everything that was held back to the stream, and holds nothing more back. To be called
 * before anything else is put on the stream, and before memory that launches use is freed. */
cudaError_t pdt_cuda_flush(pdt_cuda_queue *queue);

/* Frees what is kept; what is held back is lost. */
void pdt_cuda_queue_free(pdt_cuda_queue *queue);

#ifdef __cplusplus
}
#endif
#endif

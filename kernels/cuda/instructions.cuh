/* The instructions that kernels use beyond plain CUDA C, each as one function. Compiled by nvcc
 * they are inline PTX; compiled for the CPU (PDT_CUDA_ON_HOST, see tests/cuda_on_host/) each has a
 * twin there with the same name, so that kernels are written once. */
#ifndef PDT_KERNELS_CUDA_INSTRUCTIONS_CUH
#define PDT_KERNELS_CUDA_INSTRUCTIONS_CUH

#ifdef PDT_CUDA_ON_HOST
#include "cuda_on_host.h"
#else

#include <cuda_runtime.h>
#include <stdint.h>

#include "kernels/cuda/queue.h"

#define SHARED_ARRAY(type, name, count) __shared__ type name[count]
#define DYNAMIC_SHARED(type, name)                                                                 \
  extern __shared__ __align__(128) unsigned char raw_##name[];                                     \
  type *name = reinterpret_cast<type *>(raw_##name)

/* Puts a kernel on a queue. It may begin before the kernels ahead of it have ended: everything it
 * reads or writes that others of the queue write or read has to wait for grid_wait. Clusters of
 * blocks need sm_90; a cluster of one is none. */
template <class... Parameters, class... Arguments>
cudaError_t launch_clusters(void (*kernel)(Parameters...), dim3 grid, dim3 block, dim3 cluster,
                            size_t shared_bytes, pdt_cuda_queue *queue, Arguments... arguments) {
  const pdt_cuda_launch launch = {reinterpret_cast<const void *>(kernel), grid, block, cluster,
                                  (shared_bytes + 15) / 16 * 16};
  auto enqueue = [&](Parameters... values) {
    void *at[] = {const_cast<void *>(static_cast<const void *>(&values))...};
    const size_t sizes[] = {sizeof values...};
    return pdt_cuda_enqueue(queue, &launch, sizeof...(Parameters), at, sizes);
  };
  return enqueue(arguments...);
}

template <class... Parameters, class... Arguments>
cudaError_t launch_ahead(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes,
                         pdt_cuda_queue *queue, Arguments... arguments) {
  return launch_clusters(kernel, grid, block, dim3(1), shared_bytes, queue, arguments...);
}

/* Waits until all kernels ahead in the stream have ended and what they wrote can be read. */
__device__ inline void grid_wait() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/* Lets the next kernel of the stream begin, up to its own grid_wait. */
__device__ inline void grid_release() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

/* 16 bytes of weights: read once, so they need no place in the first cache. 16-byte aligned. */
__device__ inline uint4 load_once(const uint4 *p) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(p));
  return v;
}

/* Copies 16 bytes from global to shared memory in the background; of the source only the first
 * `bytes` (0..16) are read, the rest of the target is zero. Both 16-byte aligned. */
__device__ inline void copy_ahead(void *shared, const void *global, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(
                   (unsigned)__cvta_generic_to_shared(shared)),
               "l"(global), "r"(bytes)
               : "memory");
}

/* Waits for all copies that this thread began. */
__device__ inline void copies_wait() {
  asm volatile("cp.async.wait_all;" ::: "memory");
}

/* d [16, 8] += a [16, 16] b [16, 8] of one warp, bf16 in, f32 out; fragments as in the PTX manual.
 */
__device__ inline void mma_m16n8k16_bf16(float d[4], const unsigned a[4], const unsigned b[2]) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
               "{%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* Barriers in shared memory. A phase ends when `count` arrivals and all bytes that were announced
 * have come; whoever waits names the parity of the phase, 0 first. */
__device__ inline unsigned shared_address(const void *p) {
  return (unsigned)__cvta_generic_to_shared(p);
}

__device__ inline void barrier_init(uint64_t *barrier, unsigned count) {
  asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(count)
               : "memory");
}

/* Makes initialised barriers known to the copy engine. */
__device__ inline void barrier_fence() {
#if __CUDA_ARCH__ >= 900
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
}

__device__ inline void barrier_arrive(uint64_t *barrier) {
  asm volatile(
      "{ .reg .b64 state; mbarrier.arrive.shared.b64 state, [%0]; }" ::"r"(shared_address(barrier))
      : "memory");
}

__device__ inline void barrier_wait(uint64_t *barrier, unsigned parity) {
  unsigned done;
  do {
#if __CUDA_ARCH__ >= 900
    asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared.b64 p, [%1], %2;"
                 " selp.u32 %0, 1, 0, p; }"
                 : "=r"(done)
                 : "r"(shared_address(barrier)), "r"(parity)
                 : "memory");
#else
    asm volatile("{ .reg .pred p; mbarrier.test_wait.parity.shared.b64 p, [%1], %2;"
                 " selp.u32 %0, 1, 0, p; }"
                 : "=r"(done)
                 : "r"(shared_address(barrier)), "r"(parity)
                 : "memory");
#endif
  } while (!done);
}

/* Copies in the background that a barrier waits for, made by a whole warp: the barrier is one of
 * `copy_arrivals()` arrivals, `copies_announce` says how many bytes will come in its phase, before
 * they are copied, and `copies_end` closes the list. On sm_90 the bulk copy engine copies, before
 * that each thread of the warp a part. Addresses and bytes are multiples of 16. */
__host__ __device__ constexpr unsigned copy_arrivals() {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  return 1;
#else
  return 32;
#endif
}

__device__ inline void copies_announce(uint64_t *barrier, unsigned bytes) {
#if __CUDA_ARCH__ >= 900
  if (threadIdx.x % 32 == 0)
    asm volatile("{ .reg .b64 state; mbarrier.arrive.expect_tx.shared.b64 state, [%0], %1; }" ::"r"(
                     shared_address(barrier)),
                 "r"(bytes)
                 : "memory");
#else
  (void)barrier, (void)bytes;
#endif
}

__device__ inline void copy_block(void *shared, const void *global, unsigned bytes,
                                  uint64_t *barrier) {
#if __CUDA_ARCH__ >= 900
  if (threadIdx.x % 32 == 0)
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, "
        "[%3];" ::"r"(shared_address(shared)),
        "l"(global), "r"(bytes), "r"(shared_address(barrier))
        : "memory");
#else
  (void)barrier;
  for (unsigned i = threadIdx.x % 32 * 16; i < bytes; i += 32 * 16)
    copy_ahead(static_cast<char *>(shared) + i, static_cast<const char *>(global) + i, 16);
#endif
}

__device__ inline void copies_end(uint64_t *barrier) {
#if __CUDA_ARCH__ >= 900
  (void)barrier;
#else
  asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(shared_address(barrier))
               : "memory");
#endif
}

/* Asks for bytes to come into the second cache. One thread calls it. */
__device__ inline void prefetch_block(const void *global, unsigned bytes) {
#if __CUDA_ARCH__ >= 900
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(global), "r"(bytes));
#else
  (void)global, (void)bytes;
#endif
}

/* The same for the line of 128 bytes in which p lies; any thread, any compute capability. */
__device__ inline void prefetch_line(const void *p) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
}

/* Blocks of a cluster reach each other's shared memory (sm_90). */
__device__ inline void cluster_sync() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
#endif
}

/* What stands at this block's shared address p, a multiple of 8, in the block of that rank in the
 * cluster. */
__device__ inline float2 cluster_read_pair(const float *p, unsigned rank) {
  float2 v = {};
#if __CUDA_ARCH__ >= 900
  unsigned theirs;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;"
               : "=r"(theirs)
               : "r"(shared_address(p)), "r"(rank));
  asm volatile("ld.shared::cluster.v2.f32 {%0, %1}, [%2];"
               : "=f"(v.x), "=f"(v.y)
               : "r"(theirs)
               : "memory");
#else
  (void)p, (void)rank;
#endif
  return v;
}

#endif /* PDT_CUDA_ON_HOST */
#endif

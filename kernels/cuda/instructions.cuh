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

#define SHARED_ARRAY(type, name, count) __shared__ type name[count]
#define DYNAMIC_SHARED(type, name)                                                                 \
  extern __shared__ __align__(128) unsigned char raw_##name[];                                     \
  type *name = reinterpret_cast<type *>(raw_##name)

/* Starts a kernel on a stream. It may begin before the kernels ahead of it in the stream have
 * ended: everything it reads or writes that others of the stream write or read has to wait for
 * grid_wait. Blocks with more than 48 KiB of shared memory are asked for here. */
template <class... Parameters, class... Arguments>
cudaError_t launch_ahead(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes,
                         cudaStream_t stream, Arguments... arguments) {
  if (shared_bytes > 48 << 10) {
    cudaError_t code =
        cudaFuncSetAttribute(reinterpret_cast<const void *>(kernel),
                             cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared_bytes);
    if (code != cudaSuccess) return code;
  }
  cudaLaunchAttribute ahead;
  ahead.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  ahead.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = &ahead;
  config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...);
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

/* A barrier in shared memory that background copies complete. */
__device__ inline void barrier_init(uint64_t *barrier) {
  asm volatile(
      "mbarrier.init.shared.b64 [%0], 1;" ::"r"((unsigned)__cvta_generic_to_shared(barrier))
      : "memory");
}

/* Makes initialised barriers known to the copy engine. */
__device__ inline void barrier_fence() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

/* Copies `bytes` (a multiple of 16) in the background and lets the barrier's present phase end when
 * they are there. One thread calls it. sm_90. */
__device__ inline void copy_block(void *shared, const void *global, unsigned bytes,
                                  uint64_t *barrier) {
#if __CUDA_ARCH__ >= 900
  unsigned b = (unsigned)__cvta_generic_to_shared(barrier);
  asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(b), "r"(bytes) : "memory");
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"((unsigned)__cvta_generic_to_shared(shared)),
      "l"(global), "r"(bytes), "r"(b)
      : "memory");
#else
  (void)shared, (void)global, (void)bytes, (void)barrier;
  __trap();
#endif
}

/* Waits until the phase of that parity has ended. */
__device__ inline void barrier_wait(uint64_t *barrier, unsigned parity) {
#if __CUDA_ARCH__ >= 900
  asm volatile("{\n"
               ".reg .pred done;\n"
               "again:\n"
               "mbarrier.try_wait.parity.shared.b64 done, [%0], %1;\n"
               "@!done bra again;\n"
               "}" ::"r"((unsigned)__cvta_generic_to_shared(barrier)),
               "r"(parity)
               : "memory");
#else
  (void)barrier, (void)parity;
#endif
}

#endif /* PDT_CUDA_ON_HOST */
#endif

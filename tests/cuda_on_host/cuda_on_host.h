// Run CUDA kernels on the CPU: the same .cu source, compiled by a C++17 compiler instead of nvcc.
//
//   nvcc:  nvcc -I. -c kernels.cu
//   host:  g++ -std=c++17 -x c++ -fsanitize=address,undefined -I. -I$CUDA/include -c kernels.cu
//
// One block runs at a time; its threads are fibers that switch only at barriers, shuffles, votes
// and mma. The order in which threads run between two of those is shuffled by cuda_on_host::seed,
// so a missing barrier shows as a result that changes with the seed. Shared memory is filled with
// NaN patterns before each block, so reading what was not written shows too. Waiting for ever is an
// error with the waiting threads' numbers, not a hang.
//
// Write kernels with LAUNCH and SHARED_ARRAY / DYNAMIC_SHARED, and keep inline PTX behind functions
// that have a host twin here (mma_m16n8k16_bf16 is the example).
#pragma once
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <vector>

#undef __global__
#undef __device__
#undef __host__
#undef __forceinline__
#undef __launch_bounds__
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

namespace cuda_on_host {

inline unsigned long long seed = 1;

enum class Wait { none, block, warp, done };

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  dim3 thread;
  Wait wait = Wait::none;
  unsigned mask = 0; // lanes awaited at a warp barrier
};

struct Block {
  ucontext_t scheduler;
  std::vector<Fiber> fibers;
  std::vector<unsigned long long> exchange; // one word a thread, for shuffles
  std::vector<unsigned> fragment;           // six words a thread, for mma
  std::vector<unsigned char> dynamic_shared;
  std::vector<std::pair<void *, size_t>> shared;
  const std::function<void()> *body = nullptr;
  size_t current = 0;
};

inline Block *now = nullptr;
inline dim3 grid_dim, block_dim, block_idx, thread_idx;

inline unsigned lane() {
  return now->current % 32;
}

inline void pause(Wait why, unsigned mask = 0) {
  Fiber &f = now->fibers[now->current];
  f.wait = why;
  f.mask = mask;
  swapcontext(&f.context, &now->scheduler);
}

inline void enter() {
  (*now->body)();
  now->fibers[now->current].wait = Wait::done;
  swapcontext(&now->fibers[now->current].context, &now->scheduler);
}

// Lets those go on whose barrier is complete; returns how many.
inline size_t release(Block &b) {
  auto ready = [](const Fiber &f, Wait w) { return f.wait == w || f.wait == Wait::done; };
  size_t n = 0;
  if (std::all_of(b.fibers.begin(), b.fibers.end(),
                  [&](const Fiber &f) { return ready(f, Wait::block); }))
    for (Fiber &f : b.fibers)
      if (f.wait == Wait::block) f.wait = Wait::none, n++;
  for (size_t w = 0; w < b.fibers.size(); w += 32) {
    size_t end = std::min(w + 32, b.fibers.size());
    for (size_t i = w; i < end; i++) {
      if (b.fibers[i].wait != Wait::warp) continue;
      unsigned mask = b.fibers[i].mask;
      bool all = true;
      for (size_t j = w; j < end; j++)
        if (mask >> (j - w) & 1)
          all = all && b.fibers[j].wait == Wait::warp && b.fibers[j].mask == mask;
      if (!all) continue;
      for (size_t j = w; j < end; j++)
        if (mask >> (j - w) & 1) b.fibers[j].wait = Wait::none, n++;
    }
  }
  return n;
}

inline void run_block(Block &b, std::mt19937_64 &random) {
  const size_t stack_bytes = 256 << 10;
  for (auto [p, n] : b.shared) memset(p, 0xff, n);
  std::fill(b.dynamic_shared.begin(), b.dynamic_shared.end(), 0xff);
  std::vector<size_t> order(b.fibers.size());
  for (size_t i = 0; i < b.fibers.size(); i++) {
    Fiber &f = b.fibers[i];
    order[i] = i;
    f.wait = Wait::none;
    f.thread =
        dim3(i % block_dim.x, i / block_dim.x % block_dim.y, i / (block_dim.x * block_dim.y));
    if (!f.stack) f.stack.reset(new char[stack_bytes]);
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = f.stack.get();
    f.context.uc_stack.ss_size = stack_bytes;
    makecontext(&f.context, enter, 0);
  }
  for (size_t done = 0; done < b.fibers.size();) {
    if (seed) std::shuffle(order.begin(), order.end(), random);
    size_t ran = 0;
    for (size_t i : order) {
      Fiber &f = b.fibers[i];
      if (f.wait != Wait::none) continue;
      b.current = i;
      thread_idx = f.thread;
      swapcontext(&b.scheduler, &f.context);
      ran++;
      done += f.wait == Wait::done;
    }
    if (!ran && !release(b) && done < b.fibers.size()) {
      for (size_t i = 0; i < b.fibers.size(); i++)
        if (b.fibers[i].wait != Wait::done)
          fprintf(stderr,
                  "thread %zu of block (%u,%u,%u) waits at a %s barrier that others never reach\n",
                  i, block_idx.x, block_idx.y, block_idx.z,
                  b.fibers[i].wait == Wait::block ? "block" : "warp");
      abort();
    }
  }
}

inline void launch(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()> &body) {
  if (block.x * block.y * block.z > 1024 || shared_bytes > (227 << 10))
    fprintf(stderr, "launch beyond the device's limits\n"), abort();
  Block b;
  b.fibers.resize(block.x * block.y * block.z);
  b.exchange.resize(b.fibers.size());
  b.fragment.resize(b.fibers.size() * 6);
  b.dynamic_shared.resize(shared_bytes + 16);
  b.body = &body;
  grid_dim = grid, block_dim = block, now = &b;
  std::mt19937_64 random(seed);
  for (unsigned z = 0; z < grid.z; z++)
    for (unsigned y = 0; y < grid.y; y++)
      for (unsigned x = 0; x < grid.x; x++) block_idx = dim3(x, y, z), run_block(b, random);
  now = nullptr;
}

inline void warp_barrier(unsigned mask) {
  pause(Wait::warp, mask & (now->fibers.size() - now->current / 32 * 32 >= 32
                                ? ~0u
                                : (1u << (now->fibers.size() % 32)) - 1));
}

template <class T> T shuffle(unsigned mask, T value, unsigned from) {
  static_assert(sizeof(T) <= 8, "shuffle moves at most 8 bytes");
  size_t me = now->current, warp = me / 32 * 32;
  memcpy(&now->exchange[me], &value, sizeof value);
  warp_barrier(mask);
  if (from < 32 && (mask >> from & 1) && warp + from < now->exchange.size())
    memcpy(&value, &now->exchange[warp + from], sizeof value);
  warp_barrier(mask);
  return value;
}

// Shared arrays are function statics: register them once so that each block finds them poisoned.
template <class T, size_t N> T *shared_array(T (&storage)[N]) {
  auto &all = now->shared;
  if (std::none_of(all.begin(), all.end(), [&](auto &s) { return s.first == (void *)storage; })) {
    all.push_back({storage, sizeof storage});
    memset(storage, 0xff, sizeof storage);
  }
  return storage;
}

} // namespace cuda_on_host

#define gridDim   cuda_on_host::grid_dim
#define blockDim  cuda_on_host::block_dim
#define blockIdx  cuda_on_host::block_idx
#define threadIdx cuda_on_host::now->fibers[cuda_on_host::now->current].thread
#define LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                     \
  ((void)(stream), cuda_on_host::launch(grid, block, shared_bytes, [&] { kernel(__VA_ARGS__); }))
#define SHARED_ARRAY(type, name, count)                                                            \
  static type storage_##name[count];                                                               \
  type *name = cuda_on_host::shared_array(storage_##name)
#define DYNAMIC_SHARED(type, name)                                                                 \
  type *name =                                                                                     \
      reinterpret_cast<type *>(((size_t)cuda_on_host::now->dynamic_shared.data() + 15) / 16 * 16)

inline void __syncthreads() {
  cuda_on_host::pause(cuda_on_host::Wait::block);
}
inline void __syncwarp(unsigned mask = ~0u) {
  cuda_on_host::warp_barrier(mask);
}
template <class T> T __shfl_sync(unsigned mask, T v, int from, int width = 32) {
  return cuda_on_host::shuffle(mask, v, cuda_on_host::lane() / width * width + from % width);
}
template <class T> T __shfl_xor_sync(unsigned mask, T v, int bits, int = 32) {
  return cuda_on_host::shuffle(mask, v, cuda_on_host::lane() ^ bits);
}
template <class T> T __shfl_down_sync(unsigned mask, T v, unsigned by, int width = 32) {
  unsigned l = cuda_on_host::lane();
  return cuda_on_host::shuffle(mask, v, l % width + by < (unsigned)width ? l + by : l);
}
template <class T> T __shfl_up_sync(unsigned mask, T v, unsigned by, int width = 32) {
  unsigned l = cuda_on_host::lane();
  return cuda_on_host::shuffle(mask, v, l % width >= by ? l - by : l);
}
inline unsigned __ballot_sync(unsigned mask, bool predicate) {
  unsigned votes = 0;
  for (unsigned i = 0; i < 32; i++)
    votes |= (unsigned)(cuda_on_host::shuffle(mask, (unsigned)predicate, i) && (mask >> i & 1))
             << i;
  return votes;
}
template <class T> T atomicAdd(T *p, T v) {
  T old = *p;
  *p += v;
  return old;
}
template <class T> T atomicMax(T *p, T v) {
  T old = *p;
  *p = std::max(*p, v);
  return old;
}
template <class T> T __ldg(const T *p) {
  return *p;
}

inline void mma_m16n8k16_bf16(float d[4], const unsigned a[4], const unsigned b[2]) {
  using namespace cuda_on_host;
  size_t me = now->current, warp = me / 32 * 32;
  memcpy(&now->fragment[me * 6], a, 16);
  memcpy(&now->fragment[me * 6 + 4], b, 8);
  warp_barrier(~0u);
  auto bf16 = [&](size_t thread, int word, int half) {
    unsigned u = (now->fragment[(warp + thread) * 6 + word] >> (16 * half) & 0xffff) << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
  };
  auto A = [&](int row, int k) {
    return bf16(row % 8 * 4 + k % 8 / 2, (k / 8) * 2 + row / 8, k & 1);
  };
  auto B = [&](int k, int col) { return bf16(col * 4 + k % 8 / 2, 4 + k / 8, k & 1); };
  int l = (int)lane();
  for (int i = 0; i < 4; i++) {
    float sum = d[i];
    for (int k = 0; k < 16; k++) sum += A(l / 4 + i / 2 * 8, k) * B(k, l % 4 * 2 + i % 2);
    d[i] = sum;
  }
  warp_barrier(~0u);
}

template <class T> T __ldcg(const T *p) {
  return *p;
}
inline void __threadfence() {}
inline void __threadfence_block() {}
inline unsigned __float_as_uint(float f) {
  unsigned u;
  memcpy(&u, &f, 4);
  return u;
}
inline float __uint_as_float(unsigned u) {
  float f;
  memcpy(&f, &u, 4);
  return f;
}

template <class... Parameters, class... Arguments>
cudaError_t launch_ahead(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes,
                         cudaStream_t, Arguments... arguments) {
  cuda_on_host::launch(grid, block, shared_bytes, [&] { kernel(Parameters(arguments)...); });
  return cudaSuccess;
}
inline void grid_wait() {}
inline void grid_release() {}
inline uint4 load_once(const uint4 *p) {
  return *p;
}
inline void copy_ahead(void *shared, const void *global, int bytes) {
  if (bytes < 0 || bytes > 16 || (size_t)shared % 16 || (size_t)global % 16)
    fprintf(stderr, "copy_ahead of %d bytes from %p to %p\n", bytes, global, shared), abort();
  char whole[16] = {0};
  memcpy(whole, global, bytes);
  memcpy(shared, whole, 16);
}
inline void copies_wait() {}
inline void barrier_init(uint64_t *barrier) {
  *barrier = 0;
}
inline void barrier_fence() {}
inline void copy_block(void *shared, const void *global, unsigned bytes, uint64_t *barrier) {
  if (bytes % 16 || (size_t)shared % 16 || (size_t)global % 16)
    fprintf(stderr, "copy_block of %u bytes\n", bytes), abort();
  memcpy(shared, global, bytes);
  ++*barrier;
}
inline void barrier_wait(uint64_t *barrier, unsigned parity) {
  while (*barrier % 2 == parity) __syncwarp();
}

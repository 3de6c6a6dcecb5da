/* Runs CUDA kernels on the CPU: the same .cu source, compiled as C++17 for the host with
 * PDT_CUDA_ON_HOST defined, under the sanitizers.
 *
 * One block runs at a time. Its threads are fibers that switch only at barriers, shuffles, votes,
 * tensor-core products and waits for copies; the order in which they run between two of those is
 * shuffled by cuda_on_host::seed, and so is the order of blocks, so that a missing barrier and a
 * sum whose order nobody holds show as results that change with the seed. Shared memory is filled
 * with NaN patterns before each block: reading what was not written shows too. Waiting for ever is
 * an error that names the threads, not a hang.
 *
 * Here stand the twins of CUDA C's own words, and of the functions of
 * kernels/cuda/instructions.cuh, under the same names. */
#ifndef PDT_TESTS_CUDA_ON_HOST_H
#define PDT_TESTS_CUDA_ON_HOST_H

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <type_traits>
#include <utility>
#include <vector>

#include "kernels/cuda/queue.h"

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

/* 0: threads and blocks in their order; else shuffled, differently for each number. */
inline unsigned long long seed = 1;

enum class wait { none, block, warp, other, done };

/* Puts this thread of control aside, its stack pointer into *from, and goes on where `to` was put
 * aside: registers that a callee keeps lie on the stack, under the address to go on at. */
extern "C" void cuda_on_host_switch(void **from, void *to);
__asm__(".text\n"
        ".weak cuda_on_host_switch\n"
        ".type cuda_on_host_switch, @function\n"
        "cuda_on_host_switch:\n"
        "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
        "  movq %rsp, (%rdi)\n"
        "  movq %rsi, %rsp\n"
        "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n"
        "  ret\n"
        ".size cuda_on_host_switch, . - cuda_on_host_switch\n");

struct fiber {
  void *pointer = nullptr; /* of its stack, when it is put aside */
  std::unique_ptr<char[]> stack;
  dim3 thread;
  wait waits = wait::none;
  unsigned mask = 0;           /* lanes awaited at a warp's barrier */
  std::function<bool()> ready; /* with wait::other: may it go on? */
};

struct block {
  void *scheduler = nullptr; /* likewise */
  std::vector<fiber> fibers;
  std::vector<unsigned long long> exchange; /* a word a thread, for shuffles */
  std::vector<unsigned> fragment;           /* six words a thread, for tensor-core products */
  std::vector<unsigned char> dynamic_shared;
  std::vector<std::pair<void *, size_t>> shared;
  const std::function<void()> *body = nullptr;
  size_t current = 0;
};

inline block *now = nullptr;
inline dim3 grid_dim, block_dim, block_idx;

[[noreturn]] inline void stop(const char *what) {
  fprintf(stderr, "cuda_on_host: block (%u, %u, %u), thread %zu: %s\n", block_idx.x, block_idx.y,
          block_idx.z, now ? now->current : 0, what);
  abort();
}

inline unsigned lane() {
  return (unsigned)(now->current % 32);
}

inline void pause(wait why, unsigned mask = 0) {
  fiber &f = now->fibers[now->current];
  f.waits = why;
  f.mask = mask;
  cuda_on_host_switch(&f.pointer, now->scheduler);
}

inline void enter() {
  (*now->body)();
  pause(wait::done); /* for good */
}

/* Lets those go on whose barrier is complete; returns how many. */
inline size_t release(block &b) {
  size_t n = 0;
  bool all_at_block = std::all_of(b.fibers.begin(), b.fibers.end(), [](const fiber &f) {
    return f.waits == wait::block || f.waits == wait::done;
  });
  for (fiber &f : b.fibers)
    if ((f.waits == wait::block && all_at_block) || (f.waits == wait::other && f.ready()))
      f.waits = wait::none, n++;
  for (size_t w = 0; w < b.fibers.size(); w += 32) {
    size_t end = std::min(w + 32, b.fibers.size());
    for (size_t i = w; i < end; i++) {
      if (b.fibers[i].waits != wait::warp) continue;
      unsigned mask = b.fibers[i].mask;
      bool all = true;
      for (size_t j = w; j < end; j++)
        if (mask >> (j - w) & 1)
          all = all && b.fibers[j].waits == wait::warp && b.fibers[j].mask == mask;
      for (size_t j = w; all && j < end; j++)
        if (mask >> (j - w) & 1) b.fibers[j].waits = wait::none, n++;
    }
  }
  return n;
}

inline void start_fibers(block &b) {
  const size_t stack_bytes = 64 << 10;
  for (auto [p, n] : b.shared) memset(p, 0xff, n);
  std::fill(b.dynamic_shared.begin(), b.dynamic_shared.end(), (unsigned char)0xff);
  for (size_t i = 0; i < b.fibers.size(); i++) {
    fiber &f = b.fibers[i];
    unsigned at = (unsigned)i;
    f.waits = wait::none;
    f.thread =
        dim3(at % block_dim.x, at / block_dim.x % block_dim.y, at / (block_dim.x * block_dim.y));
    if (!f.stack) f.stack.reset(new char[stack_bytes]);
    /* As a call of enter would find it: 16-byte aligned but for the return address. */
    size_t top = ((size_t)f.stack.get() + stack_bytes) / 16 * 16 - 8;
    void **frame = reinterpret_cast<void **>(top) - 7;
    memset(frame, 0, 6 * sizeof *frame);
    frame[6] = reinterpret_cast<void *>(enter);
    frame[7] = nullptr;
    f.pointer = frame;
  }
}

inline void run_block(block &b, std::mt19937_64 &random) {
  std::vector<size_t> order(b.fibers.size());
  for (size_t i = 0; i < order.size(); i++) order[i] = i;
  start_fibers(b);
  for (size_t done = 0; done < b.fibers.size();) {
    if (seed) std::shuffle(order.begin(), order.end(), random);
    size_t ran = 0;
    for (size_t i : order) {
      if (b.fibers[i].waits != wait::none) continue;
      b.current = i;
      cuda_on_host_switch(&b.scheduler, b.fibers[i].pointer);
      ran++;
      done += b.fibers[i].waits == wait::done;
    }
    if (ran || release(b) || done == b.fibers.size()) continue;
    for (size_t i = 0; i < b.fibers.size(); i++)
      if (b.fibers[i].waits != wait::done)
        fprintf(stderr, "cuda_on_host: thread %zu waits at a barrier of its %s\n", i,
                b.fibers[i].waits == wait::block  ? "block"
                : b.fibers[i].waits == wait::warp ? "warp"
                                                  : "copies");
    stop("others never reach a barrier");
  }
}

inline void launch(dim3 grid, dim3 threads, size_t shared_bytes,
                   const std::function<void()> &body) {
  if (threads.x * threads.y * threads.z > 1024 || shared_bytes > (227 << 10) || grid.y > 65535 ||
      grid.z > 65535 || grid.x * grid.y * grid.z == 0)
    stop("a launch beyond a device's limits");
  block b;
  b.fibers.resize(threads.x * threads.y * threads.z);
  b.exchange.resize(b.fibers.size());
  b.fragment.resize(b.fibers.size() * 6);
  b.dynamic_shared.resize(shared_bytes + 128);
  b.body = &body;
  grid_dim = grid, block_dim = threads, now = &b;
  std::mt19937_64 random(seed);
  std::vector<dim3> order;
  for (unsigned z = 0; z < grid.z; z++)
    for (unsigned y = 0; y < grid.y; y++)
      for (unsigned x = 0; x < grid.x; x++) order.push_back(dim3(x, y, z));
  if (seed) std::shuffle(order.begin(), order.end(), random);
  for (dim3 at : order) block_idx = at, run_block(b, random);
  now = nullptr;
}

/* A kernel as the runtime's twin launches it: pointers to its arguments, and their sizes. */
struct kernel {
  std::function<void(void **)> run;
  std::vector<size_t> sizes;
};

template <class... Parameters, size_t... I>
void call(void (*f)(Parameters...), void **arguments, std::index_sequence<I...>) {
  f(*static_cast<std::remove_const_t<Parameters> *>(arguments[I])...);
}

template <class... Parameters> const kernel *kernel_of(void (*f)(Parameters...)) {
  static std::map<void (*)(Parameters...), kernel> known;
  kernel &k = known[f];
  if (!k.run) {
    k.run = [f](void **arguments) { call(f, arguments, std::index_sequence_for<Parameters...>()); };
    k.sizes = {sizeof(Parameters)...};
  }
  return &k;
}

inline void warp_barrier(unsigned mask) {
  size_t left = now->fibers.size() - now->current / 32 * 32;
  pause(wait::warp, left >= 32 ? mask : mask & ((1u << left) - 1));
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

/* Shared arrays are statics of their functions: told here once a launch, so that each block finds
 * them poisoned. */
template <class T, size_t N> T *shared_array(T (&storage)[N]) {
  auto &all = now->shared;
  if (std::none_of(all.begin(), all.end(), [&](auto &s) { return s.first == (void *)storage; })) {
    all.push_back({storage, sizeof storage});
    memset(storage, 0xff, sizeof storage);
  }
  return storage;
}

/* What a 64-bit barrier holds. */
struct barrier_state {
  int bytes;              /* announced and not yet there */
  unsigned short pending; /* arrivals that are missing */
  unsigned short count : 15, phase : 1;
};
static_assert(sizeof(barrier_state) == sizeof(uint64_t), "a barrier is 64 bits");

inline void change(uint64_t *barrier, int bytes, int arrivals) {
  barrier_state s;
  memcpy(&s, barrier, sizeof s);
  if (s.pending < arrivals) stop("more arrivals at a barrier than it counts");
  s.bytes += bytes;
  s.pending = (unsigned short)(s.pending - arrivals);
  if (s.pending == 0 && s.bytes == 0) {
    s.pending = s.count;
    s.phase ^= 1;
  }
  memcpy(barrier, &s, sizeof s);
}

} // namespace cuda_on_host

#define gridDim   cuda_on_host::grid_dim
#define blockDim  cuda_on_host::block_dim
#define blockIdx  cuda_on_host::block_idx
#define threadIdx cuda_on_host::now->fibers[cuda_on_host::now->current].thread
#define SHARED_ARRAY(type, name, count)                                                            \
  static type storage_##name[count];                                                               \
  type *name = cuda_on_host::shared_array(storage_##name)
#define DYNAMIC_SHARED(type, name)                                                                 \
  type *name = reinterpret_cast<type *>(((size_t)cuda_on_host::now->dynamic_shared.data() + 127) / \
                                        128 * 128)

/* ---- CUDA C ---- */

inline void __syncthreads() {
  cuda_on_host::pause(cuda_on_host::wait::block);
}
inline void __syncwarp(unsigned mask = ~0u) {
  cuda_on_host::warp_barrier(mask);
}
template <class T> T __shfl_sync(unsigned mask, T v, int from) {
  return cuda_on_host::shuffle(mask, v, (unsigned)from);
}
template <class T> T __shfl_xor_sync(unsigned mask, T v, int bits) {
  return cuda_on_host::shuffle(mask, v, cuda_on_host::lane() ^ (unsigned)bits);
}
inline int __any_sync(unsigned mask, int v) {
  for (int bits = 16; bits; bits >>= 1) v |= __shfl_xor_sync(mask, v, bits);
  return v != 0;
}
template <class T> T atomicAdd(T *p, T v) {
  T old = *p;
  *p += v;
  return old;
}
template <class T> T __ldcg(const T *p) {
  return *p;
}
inline void __threadfence() {}
inline unsigned __float_as_uint(float f) {
  unsigned u;
  memcpy(&u, &f, sizeof u);
  return u;
}
inline float __uint_as_float(unsigned u) {
  float f;
  memcpy(&f, &u, sizeof f);
  return f;
}
inline int min(int a, int b) {
  return b < a ? b : a;
}
inline int max(int a, int b) {
  return a < b ? b : a;
}

/* ---- instructions.cuh ---- */

template <class... Parameters, class... Arguments>
cudaError_t launch_clusters(void (*kernel)(Parameters...), dim3 grid, dim3 block, dim3 cluster,
                            size_t shared_bytes, pdt_cuda_queue *queue, Arguments... arguments) {
  pdt_cuda_launch l = {cuda_on_host::kernel_of(kernel), grid, block, cluster,
                       (shared_bytes + 15) / 16 * 16};
  auto enqueue = [&](Parameters... values) {
    void *at[] = {const_cast<void *>(static_cast<const void *>(&values))...};
    const size_t sizes[] = {sizeof values...};
    return pdt_cuda_enqueue(queue, &l, sizeof...(Parameters), at, sizes);
  };
  return enqueue(arguments...);
}
template <class... Parameters, class... Arguments>
cudaError_t launch_ahead(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes,
                         pdt_cuda_queue *queue, Arguments... arguments) {
  return launch_clusters(kernel, grid, block, dim3(1), shared_bytes, queue, arguments...);
}
inline void grid_wait() {}
inline void grid_release() {}
inline uint4 load_once(const uint4 *p) {
  return *p;
}
inline void copy_ahead(void *shared, const void *global, int bytes) {
  char whole[16] = {0};
  if (bytes < 0 || bytes > 16 || (size_t)shared % 16 || (size_t)global % 16)
    cuda_on_host::stop("a copy of 16 bytes that are not aligned");
  memcpy(whole, global, (size_t)bytes);
  memcpy(shared, whole, sizeof whole);
}
inline void copies_wait() {}
inline void mma_m16n8k16_bf16(float d[4], const unsigned a[4], const unsigned b[2]) {
  using namespace cuda_on_host;
  size_t me = now->current, warp = me / 32 * 32;
  memcpy(&now->fragment[me * 6], a, 16);
  memcpy(&now->fragment[me * 6 + 4], b, 8);
  warp_barrier(~0u);
  auto bf16 = [&](int thread, int word, int half) {
    return __uint_as_float(
        (now->fragment[(warp + (size_t)thread) * 6 + (size_t)word] >> (16 * half) & 0xffff) << 16);
  };
  int l = (int)lane();
  for (int i = 0; i < 4; i++) {
    int row = l / 4 + i / 2 * 8, column = l % 4 * 2 + i % 2;
    for (int k = 0; k < 16; k++)
      d[i] += bf16(row % 8 * 4 + k % 8 / 2, k / 8 * 2 + row / 8, k & 1) *
              bf16(column * 4 + k % 8 / 2, 4 + k / 8, k & 1);
  }
  warp_barrier(~0u);
}
inline void barrier_init(uint64_t *barrier, unsigned count) {
  cuda_on_host::barrier_state s = {};
  s.pending = (unsigned short)count;
  s.count = count & 0x7fff;
  memcpy(barrier, &s, sizeof s);
}
inline void barrier_fence() {}
inline void barrier_arrive(uint64_t *barrier) {
  cuda_on_host::change(barrier, 0, 1);
}
inline void barrier_wait(uint64_t *barrier, unsigned parity) {
  auto ended = [=] {
    cuda_on_host::barrier_state s;
    memcpy(&s, barrier, sizeof s);
    return s.phase != parity;
  };
  if (ended()) return;
  cuda_on_host::now->fibers[cuda_on_host::now->current].ready = ended;
  cuda_on_host::pause(cuda_on_host::wait::other);
}
constexpr unsigned copy_arrivals() {
  return 1;
}
inline void copies_announce(uint64_t *barrier, unsigned bytes) {
  if (cuda_on_host::lane() == 0) cuda_on_host::change(barrier, (int)bytes, 1);
}
inline void copy_block(void *shared, const void *global, unsigned bytes, uint64_t *barrier) {
  if (bytes % 16 || (size_t)shared % 16 || (size_t)global % 16)
    cuda_on_host::stop("a bulk copy that is not aligned");
  if (cuda_on_host::lane() != 0) return;
  memcpy(shared, global, bytes);
  cuda_on_host::change(barrier, -(int)bytes, 0);
}
inline void copies_end(uint64_t *) {}
inline void prefetch_block(const void *, unsigned) {}
inline void prefetch_line(const void *) {}
inline void cluster_sync() {}
inline float2 cluster_read_pair(const float *p, unsigned) {
  return *reinterpret_cast<const float2 *>(p);
}

#endif

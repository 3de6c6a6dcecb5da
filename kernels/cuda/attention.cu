/* Attention over pieces of pages, on tensor cores.
 *
 * A block has up to 64 queries of one kv head, in tiles of 16, and goes over pieces of a page a
 * warp. Keys and values are right operands: each is read and split by one thread of the block only,
 * straight from its page. The left ones, queries and then weights, are what all warps share: they
 * stand in shared memory as the tensor cores want them. Every float is a pair of bf16 numbers, and
 * of the product of two pairs only low by low is left out.
 *
 * A sum goes over head_dim, and over the positions of a piece, from first to last by 16; pieces are
 * added up one after another. So it is the same whichever rows share the block. */
#include <math.h>

#include "kernels/cuda/instructions.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/pairs.cuh"
#include "kernels/cuda/sums.cuh"

namespace {

enum {
  PAGE_TOKENS = 16,
  PIECE = PDT_CUDA_PIECE,
  WARPS = PIECE / PAGE_TOKENS,
  THREADS = 32 * WARPS
};
/* Of one product of tensor cores: inner elements, and queries. Queries of a block's pass. */
enum { STEP = 16, TILE = 16, MOST_TILES = 4, MOST_QUERIES = MOST_TILES * TILE };
static_assert((int)STEP == (int)PAGE_TOKENS, "a page is a step of the sum over positions");
static_assert(WARPS == 2 * MOST_TILES, "a warp weighs half a tile");

/* A query of a block's pass. */
struct attend_query {
  float *result;      /* where its values go; NULL: it has none of the piece */
  int begin, end;     /* what it sees of the list */
  float2 scale;       /* of the values before a piece, of the piece's */
  float largest, sum; /* exponent so far, and of the weights */
};

/* Shared memory. Left operands are [step][tile][half][lane]: for step and half a tile, elements of
 * query lane / 4 of the half that the lane's place in its quad says. */
struct attend_room {
  uint4 *left;    /* queries, [steps of head_dim] */
  uint4 *weights; /* [WARPS]: floats at first, the scores */
  float4 *values; /* sums of earlier pieces, [groups of 16 columns][tile][half][lane] */
  attend_query *queries;
};

__host__ __device__ inline int steps_of(int head_dim) {
  return (head_dim + STEP - 1) / STEP;
}

__device__ attend_room lay_out(uint4 *shared, int hd, int queries) {
  attend_room r;
  r.left = shared;
  r.weights = r.left + steps_of(hd) * queries * 4;
  r.queries = reinterpret_cast<attend_query *>(r.weights + WARPS * queries * 4);
  r.values = reinterpret_cast<float4 *>(r.queries + queries);
  return r;
}

/* What a block does: some queries of a tile of rows, by the query heads of a kv head. */
struct attend_work {
  const pdt_cuda_attention &a;
  const pdt_cuda_rows &rows;
  const pdt_cuda_pages &pages;
  const pdt_cuda_heads &heads;
  const pdt_cuda_piece &piece;
  const float *base; /* of the kv head in pages */
  int head, n_heads; /* the kv head's first query head on this rank, and how many */
  int low, end;      /* positions of the list that any of the tile's rows sees */
  int first, n;      /* queries of the pass: number `first` on, row by row */

  __device__ const pdt_cuda_seen &row(int query) const {
    return a.seen[piece.first_row + (first + query) / n_heads];
  }
  __device__ int head_of(int query) const {
    return head + (first + query) % n_heads;
  }
  /* The kv head's keys in the page that a position lies in; its values follow. */
  __device__ const float *page(int position) const {
    return base + a.page_lists[piece.pages + position / PAGE_TOKENS] * pages.page_elems;
  }
  __device__ bool is_read(int position) const {
    return position >= low && position < end;
  }
  __device__ bool is_page_read(int position) const {
    return position + PAGE_TOKENS > low && position < end;
  }
};

/* Steps for which a thread has loads in flight: as many as registers allow. */
template <int TILES> struct loads {
  enum { STEPS = TILES < MOST_TILES ? 4 : 2 };
};

/* Four elements of a head of which `left` are left, 0 beyond. Heads begin at multiples of 8 bytes,
 * and of 16 where their size is one. */
__device__ inline float4 load_four(const float *x, int left, bool aligned) {
  float4 v = make_float4(0, 0, 0, 0);
  if (aligned) return left > 0 ? *reinterpret_cast<const float4 *>(x) : v;
  float2 a = left > 0 ? *reinterpret_cast<const float2 *>(x) : make_float2(0, 0);
  float2 b = left > 2 ? *reinterpret_cast<const float2 *>(x + 2) : make_float2(0, 0);
  return make_float4(a.x, a.y, b.x, b.y);
}

/* sums[tile] += left right: 16 queries by two times 8 columns. `left` is the step's, at this lane.
 * Two tiles at a time, so that products do not wait for those before, and registers suffice. */
template <int TILES>
__device__ void add_products(const uint4 *left, const uint4 right[2], float sums[TILES][2][4]) {
  enum { AT_A_TIME = TILES < 2 ? TILES : 2 };
  const unsigned right_high[2][2] = {{right[0].x, right[0].y}, {right[1].x, right[1].y}};
  const unsigned right_low[2][2] = {{right[0].z, right[0].w}, {right[1].z, right[1].w}};
#pragma unroll
  for (int first = 0; first < TILES; first += AT_A_TIME) {
    unsigned high[AT_A_TIME][4], low[AT_A_TIME][4];
#pragma unroll
    for (int m = 0; m < AT_A_TIME; m++) {
      uint4 top = left[(first + m) * 64], bottom = left[(first + m) * 64 + 32];
      high[m][0] = top.x, high[m][1] = bottom.x, high[m][2] = top.y, high[m][3] = bottom.y;
      low[m][0] = top.z, low[m][1] = bottom.z, low[m][2] = top.w, low[m][3] = bottom.w;
    }
#pragma unroll
    for (int i = 0; i < 2 * AT_A_TIME; i++)
      mma_m16n8k16_bf16(sums[first + i / 2][i % 2], high[i / 2], right_high[i % 2]);
#pragma unroll
    for (int i = 0; i < 2 * AT_A_TIME; i++)
      mma_m16n8k16_bf16(sums[first + i / 2][i % 2], high[i / 2], right_low[i % 2]);
#pragma unroll
    for (int i = 0; i < 2 * AT_A_TIME; i++)
      mma_m16n8k16_bf16(sums[first + i / 2][i % 2], low[i / 2], right_high[i % 2]);
  }
}

/* Queries as left operands, so scaled that scores are exponents of 2. */
template <int TILES>
__device__ void load_queries(const attend_work &w, const attend_room &r, const float *qkv) {
  int lane = threadIdx.x % 32, hd = w.pages.head_dim;
  int half = threadIdx.x / 32 % (2 * TILES), query = half * 8 + lane / 4;
  float scale = 1.44269504f / sqrtf((float)hd);
  const float *from = qkv;
  if (query < w.n)
    from +=
        ((int64_t)w.row(query).row * (w.heads.n_heads + 2 * w.pages.heads) + w.head_of(query)) * hd;
  for (int i = threadIdx.x / 32 / (2 * TILES); i < steps_of(hd); i += WARPS / (2 * TILES)) {
    int column = i * STEP + lane % 4 * 4;
    float4 v = load_four(from + column, query < w.n ? hd - column : 0, hd % 4 == 0);
    r.left[(i * 2 * TILES + half) * 32 + lane] =
        split_four(v.x * scale, v.y * scale, v.z * scale, v.w * scale);
  }
}

/* Scores of the queries at the 16 positions of this warp's page of a piece. Of a page that nobody
 * sees there are none. */
template <int TILES> __device__ void score(const attend_work &w, const attend_room &r, int begin) {
  enum { BATCH = loads<TILES>::STEPS };
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32, hd = w.pages.head_dim;
  int position = begin + warp * PAGE_TOKENS, steps = steps_of(hd), column = lane % 4 * 4;
  if (!w.is_page_read(position)) return;
  const float *keys = w.page(position) + lane / 4 * hd + column;
  const int left[2] = {w.is_read(position + lane / 4) ? hd - column : 0,
                       w.is_read(position + lane / 4 + 8) ? hd - column : 0};
  float sums[TILES][2][4] = {};
  for (int first = 0; first < steps; first += BATCH) {
    float4 key[BATCH][2];
#pragma unroll
    for (int i = 0; i < 2 * BATCH; i++) {
      int at = (first + i / 2) * STEP;
      key[i / 2][i % 2] = load_four(keys + i % 2 * 8 * hd + at, left[i % 2] - at, hd % 4 == 0);
    }
#pragma unroll
    for (int i = 0; i < BATCH; i++) {
      if (first + i >= steps) break;
      const float4 *k = key[i];
      const uint4 right[2] = {split_four(k[0].x, k[0].y, k[0].z, k[0].w),
                              split_four(k[1].x, k[1].y, k[1].z, k[1].w)};
      add_products<TILES>(r.left + (first + i) * TILES * 64 + lane, right, sums);
    }
  }
  float4 *to = reinterpret_cast<float4 *>(r.weights) + warp * TILES * 64 + lane;
#pragma unroll
  for (int m = 0; m < TILES; m++) {
    const float(*s)[4] = sums[m];
    to[m * 64] = make_float4(s[0][0], s[0][1], s[1][0], s[1][1]);
    to[m * 64 + 32] = make_float4(s[0][2], s[0][3], s[1][2], s[1][3]);
  }
}

/* What a query sees of the list, and where its values go. */
__device__ attend_query begin_query(const attend_work &w, int query, float *out) {
  attend_query q = {nullptr, 0, 0, make_float2(0, 0), -INFINITY, 0};
  if (query >= w.n) return q;
  const pdt_cuda_seen &row = w.row(query);
  int64_t hd = w.pages.head_dim, head = w.head_of(query);
  if (w.a.window > 0) q.begin = w.rows.position[row.row] + 1 - w.a.window - row.before;
  q.end = row.seen;
  if (w.piece.whole)
    q.result = out + ((int64_t)row.row * w.heads.n_heads + head) * hd;
  else if (row.seen > w.piece.begin)
    q.result = w.a.room + 2 +
               ((int64_t)(row.place + w.piece.begin / PIECE) * w.heads.n_heads + head) * (2 + hd);
  return q;
}

/* Turns scores at a piece into weights beside the largest of them: left operands. A quad of lanes
 * takes a query. What is not seen weighs 0. */
template <int TILES> __device__ void weigh(const attend_room &r, int begin) {
  int lane = threadIdx.x % 32;
  attend_query *q = &r.queries[threadIdx.x / 4];
  uint4 *at = r.weights + threadIdx.x / 32 * 32 + lane;
  float x[WARPS][4], largest = -INFINITY, sum = 0;
#pragma unroll
  for (int s = 0; s < WARPS; s++) {
    float4 v = *reinterpret_cast<const float4 *>(at + s * TILES * 64);
    x[s][0] = v.x, x[s][1] = v.y, x[s][2] = v.z, x[s][3] = v.w;
#pragma unroll
    for (int i = 0; i < 4; i++) {
      int position = begin + s * STEP + i / 2 * 8 + lane % 4 * 2 + i % 2;
      if (position < q->begin || position >= q->end) x[s][i] = -INFINITY;
      largest = fmaxf(largest, x[s][i]);
    }
  }
  for (int o = 1; o < 4; o *= 2) largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, o));
  float from = largest == -INFINITY ? 0 : largest; /* nothing is seen, or no number */
#pragma unroll
  for (int s = 0; s < WARPS; s++) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      x[s][i] = exp2f(x[s][i] - from);
      sum += x[s][i];
    }
    at[s * TILES * 64] = split_four(x[s][0], x[s][1], x[s][2], x[s][3]);
  }
  for (int o = 1; o < 4; o *= 2) sum += __shfl_xor_sync(~0u, sum, o);
  float before = q->largest, top = fmaxf(before, largest);
  float2 scale = make_float2(weight_beside(before, top), weight_beside(largest, top));
  sum = fmaf(sum, scale.y, q->sum * scale.x);
  __syncwarp(); /* the others of the quad have read */
  if (lane % 4 != 0) return;
  q->scale = scale;
  q->largest = top;
  q->sum = sum;
}

__device__ inline bool is_number(float x) {
  return fabsf(x) <= 3.3895314e38f; /* the largest of bf16 */
}

/* How values go into a product. What a row does not see must not be multiplied with, even by 0,
 * when it is no number: then values are taken twice, 1 for what is no number and 0 for the others,
 * which tells who sees such, and 0 for what is no number. */
template <bool ALL_NUMBERS> __device__ inline float take(float x, bool find) {
  if (ALL_NUMBERS) return x;
  float number = find ? 0 : x, none = find ? 1 : 0;
  return is_number(x) ? number : none;
}

/* sums = weights times the values of a group of 16 columns at a piece. Column c of product n is
 * column 2 c + n of the group. True when all values of this lane are numbers. */
template <int TILES, bool ALL_NUMBERS>
__device__ bool mix(const attend_work &w, const attend_room &r, int begin, int group, bool find,
                    float sums[TILES][2][4]) {
  enum { BATCH = loads<TILES>::STEPS };
  int lane = threadIdx.x % 32, hd = w.pages.head_dim;
  int column = group * 16 + lane / 4 * 2, place = lane % 4 * 2;
  bool numbers = true;
#pragma unroll
  for (int i = 0; i < TILES * 8; i++) sums[i / 8][i / 4 % 2][i % 4] = 0;
#pragma unroll 1
  for (int first = 0; first < WARPS; first += BATCH) {
    float2 v[BATCH][4];
#pragma unroll
    for (int s = 0; s < BATCH; s++) {
      int position = begin + (first + s) * PAGE_TOKENS;
      bool read = w.is_page_read(position) && column < hd;
      const float *values = read ? w.page(position) + PAGE_TOKENS * hd + column : nullptr;
#pragma unroll
      for (int i = 0; i < 4; i++) {
        int at = i / 2 * 8 + place + i % 2;
        v[s][i] = read && w.is_read(position + at)
                      ? *reinterpret_cast<const float2 *>(values + at * hd)
                      : make_float2(0, 0);
        numbers = numbers && is_number(v[s][i].x) && is_number(v[s][i].y);
      }
    }
#pragma unroll
    for (int s = 0; s < BATCH; s++) {
      if (!w.is_page_read(begin + (first + s) * PAGE_TOKENS)) continue;
      const float2 *u = v[s];
      const uint4 right[2] = {
          split_four(take<ALL_NUMBERS>(u[0].x, find), take<ALL_NUMBERS>(u[1].x, find),
                     take<ALL_NUMBERS>(u[2].x, find), take<ALL_NUMBERS>(u[3].x, find)),
          split_four(take<ALL_NUMBERS>(u[0].y, find), take<ALL_NUMBERS>(u[1].y, find),
                     take<ALL_NUMBERS>(u[2].y, find), take<ALL_NUMBERS>(u[3].y, find))};
      add_products<TILES>(r.weights + (first + s) * TILES * 64 + lane, right, sums);
    }
  }
  return numbers;
}

/* The same where values are not all numbers: NaN for who sees such. */
template <int TILES>
__device__ void mix_numbers(const attend_work &w, const attend_room &r, int begin, int group,
                            float sums[TILES][2][4]) {
  unsigned spoilt = 0; /* a bit for each sum */
#pragma unroll 1
  for (int find = 1; find >= 0; find--) {
    mix<TILES, false>(w, r, begin, group, find, sums);
#pragma unroll
    for (int i = 0; i < TILES * 8; i++) {
      float *sum = &sums[i / 8][i / 4 % 2][i % 4];
      if (find && *sum != 0) spoilt |= 1u << i;
      if (spoilt >> i & 1) *sum = NAN;
    }
  }
}

/* Adds a piece's values to those of the pieces before; after the last one they go to memory. */
template <int TILES>
__device__ void put_values(const attend_work &w, const attend_room &r, int group, bool is_first,
                           bool is_last, const float sums[TILES][2][4]) {
  int lane = threadIdx.x % 32, column = group * 16 + lane % 4 * 4, hd = w.pages.head_dim;
#pragma unroll
  for (int m = 0; m < 2 * TILES; m++) {
    int query = m * 8 + lane / 4;
    const float(*s)[4] = sums[m / 2];
    const attend_query &q = r.queries[query];
    float2 scale = q.scale;
    float4 *kept = r.values + (group * 2 * TILES + m) * 32 + lane;
    float4 v = is_first ? make_float4(0, 0, 0, 0) : *kept;
    v.x = fmaf(s[0][m % 2 * 2], scale.y, v.x * scale.x);
    v.y = fmaf(s[1][m % 2 * 2], scale.y, v.y * scale.x);
    v.z = fmaf(s[0][m % 2 * 2 + 1], scale.y, v.z * scale.x);
    v.w = fmaf(s[1][m % 2 * 2 + 1], scale.y, v.w * scale.x);
    if (!is_last) {
      *kept = v;
      continue;
    }
    float *to = q.result;
    if (!to) continue;
    if (w.piece.whole) v = make_float4(v.x / q.sum, v.y / q.sum, v.z / q.sum, v.w / q.sum);
    if (column < hd) *reinterpret_cast<float2 *>(to + column) = make_float2(v.x, v.y);
    if (column + 2 < hd) *reinterpret_cast<float2 *>(to + column + 2) = make_float2(v.z, v.w);
  }
}

/* The queries of one pass over a piece, or over all pieces up to its end. */
template <int TILES>
__device__ void attend_pass(const attend_work &w, const attend_room &r, const float *qkv,
                            float *out) {
  int warp = threadIdx.x / 32, begin = w.piece.begin, end = begin + 1;
  if (w.piece.whole) begin = w.low / PIECE * PIECE, end = w.end;
  load_queries<TILES>(w, r, qkv);
  if (threadIdx.x < TILES * TILE) r.queries[threadIdx.x] = begin_query(w, threadIdx.x, out);
  for (int at = begin; at < end; at += PIECE) {
    __syncthreads();
    score<TILES>(w, r, at);
    __syncthreads();
    if (warp < 2 * TILES) weigh<TILES>(r, at);
    __syncthreads();
    for (int group = warp; group < steps_of(w.pages.head_dim); group += WARPS) {
      float sums[TILES][2][4];
      if (__any_sync(~0u, !mix<TILES, true>(w, r, at, group, false, sums)))
        mix_numbers<TILES>(w, r, at, group, sums);
      put_values<TILES>(w, r, group, at == begin, at + PIECE >= end, sums);
    }
  }
  if (w.piece.whole || threadIdx.x >= TILES * TILE) return;
  const attend_query &q = r.queries[threadIdx.x];
  if (!q.result) return;
  q.result[-2] = q.largest;
  q.result[-1] = q.sum;
}

/* Block x: a kv head of a piece, and of a large piece some of its queries. */
__global__ void __launch_bounds__(THREADS, 2)
    attend(const pdt_cuda_attention a, const pdt_cuda_rows rows, const pdt_cuda_pages pages,
           const pdt_cuda_heads heads, const float *qkv, float *out) {
  DYNAMIC_SHARED(uint4, shared);
  grid_release();
  int block = blockIdx.x / pages.heads, kv = blockIdx.x % pages.heads;
  bool large = block < a.n_large * a.passes;
  int first = large ? block % a.passes * a.queries : 0;
  const pdt_cuda_piece &piece =
      a.pieces[large ? block / a.passes : block - a.n_large * (a.passes - 1)];
  int head = max(0, kv * heads.per_kv - heads.first);
  int n = min(heads.n_heads, (kv + 1) * heads.per_kv - heads.first) - head;
  const attend_work w = {a,         rows,  pages,
                         heads,     piece, pages.base + kv * pages.head_elems,
                         head,      n,     a.window > 0 ? max(0, piece.low - a.window) : 0,
                         piece.end, first, min(a.queries, piece.n_rows * n - first)};
  /* What an earlier batch has stored need not wait for the kernels ahead. */
  int position = piece.begin + threadIdx.x / 32 * PAGE_TOKENS;
  if (piece.settled && threadIdx.x % 32 == 0 && w.is_page_read(position))
    prefetch_block(w.page(position), 2 * PAGE_TOKENS * pages.head_dim * 4);
  grid_wait();
  if (w.n < 1) return;
  const attend_room r = lay_out(shared, pages.head_dim, a.queries);
  if (w.n <= TILE)
    attend_pass<1>(w, r, qkv, out);
  else if (w.n <= 2 * TILE)
    attend_pass<2>(w, r, qkv, out);
  else
    attend_pass<4>(w, r, qkv, out);
}

} // namespace

int64_t pdt_cuda_attention_shared(int32_t head_dim, int32_t queries, bool whole) {
  int64_t operand = 4 * STEP; /* bytes of a step of a query */
  return queries *
         (operand * (steps_of(head_dim) * (whole ? 2 : 1) + WARPS) + (int64_t)sizeof(attend_query));
}

int32_t pdt_cuda_attention_queries(int32_t rows, int32_t per_kv) {
  int32_t n = TILE;
  while (n < rows * per_kv && n < MOST_QUERIES) n *= 2;
  return n;
}

cudaError_t pdt_launch_attend(const pdt_cuda_attention *a, const pdt_cuda_rows *rows,
                              const pdt_cuda_pages *pages, const pdt_cuda_heads *heads,
                              const float *qkv, float *out, pdt_cuda_queue *queue) {
  int64_t blocks = ((int64_t)a->n_large * (a->passes - 1) + a->n_pieces) * pages->heads;
  if (blocks < 1) return cudaSuccess;
  size_t shared = (size_t)pdt_cuda_attention_shared(pages->head_dim, a->queries, a->whole);
  return launch_ahead(attend, dim3((unsigned)blocks), dim3(THREADS), shared, queue, *a, *rows,
                      *pages, *heads, qkv, out);
}

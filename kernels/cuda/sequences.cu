/* Rotary embedding and attention over pages of keys and values. */
#include <math.h>

#include "kernels/cuda/instructions.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/prepared.cuh"
#include "kernels/cuda/sums.cuh"

namespace {

enum { PAGE_TOKENS = 16, WARPS = 4 };
enum { PIECE = PDT_CUDA_PIECE, TILE = PDT_CUDA_TILE };
enum { THREADS = 256, GROUPS = THREADS / PIECE };
/* Elements of a half of a head that a lane holds. */
enum { HALF = PDT_CUDA_MOST_HEAD / 64 };
/* Of the merging kernel: groups of threads, the most pairs of elements of each, and pieces that a
 * thread reads at once. */
enum { MERGE_GROUPS = 8, MERGE_PAIRS = 64, MERGE_RUN = 6 };
/* Queries of one pass over a piece, and floats between the scores of two of them. */
enum { QUERIES = 32, SCORE_STRIDE = PIECE + 4 };

__global__ void rope_angles(const int32_t *position, int32_t n, const double *inv_freq,
                            int32_t half, double scale, float *rope) {
  grid_release();
  grid_wait();
  int32_t i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n * half) return;
  int32_t r = i / half, j = i % half;
  double angle = position[r] * inv_freq[j];
  rope[(int64_t)r * 2 * half + j] = (float)(cos(angle) * scale);
  rope[(int64_t)r * 2 * half + half + j] = (float)(sin(angle) * scale);
}

/* A head as the lanes of a warp hold it: elements lane, lane + 32 .. of its halves. */
struct head_halves {
  float first[HALF], second[HALF];

  __device__ void load(const float *from, int lane, int half) {
#pragma unroll
    for (int e = 0; e < HALF; e++) {
      int j = lane + 32 * e;
      first[e] = j < half ? from[j] : 0;
      second[e] = j < half ? from[half + j] : 0;
    }
  }

  __device__ void store(float *to, int lane, int half) const {
#pragma unroll
    for (int e = 0; e < HALF; e++) {
      int j = lane + 32 * e;
      if (j < half) to[j] = first[e], to[half + j] = second[e];
    }
  }

  __device__ float squares() const {
    float sum = 0;
#pragma unroll
    for (int e = 0; e < HALF; e++) sum = fmaf(second[e], second[e], fmaf(first[e], first[e], sum));
    return sum;
  }

  __device__ void scale(float by, const head_halves &weights) {
#pragma unroll
    for (int e = 0; e < HALF; e++) {
      first[e] *= by * weights.first[e];
      second[e] *= by * weights.second[e];
    }
  }

  /* angles: cosines, then sines. */
  __device__ void rotate(const head_halves &angles) {
#pragma unroll
    for (int e = 0; e < HALF; e++) {
      float a = first[e], b = second[e], c = angles.first[e], s = angles.second[e];
      first[e] = fmaf(a, c, -b * s);
      second[e] = fmaf(b, c, a * s);
    }
  }
};

/* One warp for every head of every row: queries, then keys, then values. All that it reads is asked
 * for before any of it is used. */
__global__ void __launch_bounds__(32 * WARPS)
    rotate_and_store(const pdt_cuda_rows rows, const pdt_cuda_pages pages,
                     const pdt_cuda_heads heads, float *qkv) {
  grid_release();
  grid_wait();
  int lane = threadIdx.x % 32, all = heads.n_heads + 2 * pages.heads;
  int64_t item = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
  if (item >= rows.n * all) return;
  int r = (int)(item / all), h = (int)(item % all), hd = pages.head_dim, half = hd / 2;
  bool key = h >= heads.n_heads, value = h >= heads.n_heads + pages.heads;
  const float *weight = key ? heads.k_norm : heads.q_norm;
  head_halves x, angles, weights;
  x.load(qkv + item * hd, lane, half);
  if (!value) angles.load(rows.rope + (int64_t)r * hd, lane, half);
  if (!value && weight) weights.load(weight, lane, half);
  float *stored = nullptr;
  if (key) {
    int kv = (h - heads.n_heads) % pages.heads;
    stored = pages.base + rows.page[r] * pages.page_elems + kv * pages.head_elems +
             (int64_t)(value * PAGE_TOKENS + rows.lane[r]) * hd;
  }
  if (!value) {
    if (weight) x.scale(1 / sqrtf(warp_sum(x.squares()) / (float)hd + heads.eps), weights);
    x.rotate(angles);
    x.store(qkv + item * hd, lane, half);
  }
  if (key) x.store(stored, lane, half);
}

/* What a block of the attention kernel works with. */
struct piece_room {
  float *keys, *values, *queries, *scores;
  int hd, stride; /* of keys and queries: hd in whole fours, and a gap */
};

/* With room for so many queries of a pass. */
__device__ piece_room lay_out(float *shared, int hd, int queries) {
  piece_room room;
  room.hd = hd;
  room.stride = (hd + 3) / 4 * 4 + 4;
  room.keys = shared;
  room.queries = room.keys + PIECE * room.stride;
  room.scores = room.queries + queries * room.stride;
  room.values = room.scores + queries * SCORE_STRIDE;
  return room;
}

/* Begins to bring the keys and values of positions begin .. begin+n-1 of a page list. */
__device__ void load_piece(const piece_room &room, const pdt_cuda_pages &pages, const int32_t *list,
                           int begin, int n, int head) {
  int hd = room.hd, quads = (hd + 3) / 4;
  for (int i = threadIdx.x; i < n * quads; i += THREADS) {
    int at = i / quads, j = i % quads * 4, position = begin + at;
    const float *key = pages.base + list[position / PAGE_TOKENS] * pages.page_elems +
                       head * pages.head_elems + position % PAGE_TOKENS * hd + j;
    const float *value = key + PAGE_TOKENS * hd;
    if (hd % 4 == 0) {
      copy_ahead(room.keys + at * room.stride + j, key, 16);
      copy_ahead(room.values + at * hd + j, value, 16);
    } else {
      for (int k = 0; k < 4; k++) {
        room.keys[at * room.stride + j + k] = j + k < hd ? key[k] : 0;
        if (j + k < hd) room.values[at * hd + j + k] = value[k];
      }
    }
  }
}

/* The queries of one pass: number `first` on of a tile's rows by the kv head's query heads. */
struct pass {
  const pdt_cuda_seen *seen; /* the tile's */
  int first, n;              /* n <= QUERIES */
  int head, n_heads;         /* the kv head's first query head, and how many it has */

  __device__ const pdt_cuda_seen &row(int query) const {
    return seen[(first + query) / n_heads];
  }
  __device__ int head_of(int query) const {
    return head + (first + query) % n_heads;
  }
};

__device__ void load_queries(const piece_room &room, const pass &p, const float *qkv,
                             int row_heads) {
  for (int i = threadIdx.x; i < p.n * room.stride; i += THREADS) {
    int query = i / room.stride, j = i % room.stride;
    room.queries[i] =
        j < room.hd ? qkv[((int64_t)p.row(query).row * row_heads + p.head_of(query)) * room.hd + j]
                    : 0;
  }
}

/* Scores of every query and position: thread (position, group) takes Q queries. */
template <int Q> __device__ void score(const piece_room &room) {
  int position = threadIdx.x % PIECE, first = threadIdx.x / PIECE * Q;
  const float *key = room.keys + position * room.stride;
  const float *query = room.queries + first * room.stride;
  float sums[Q] = {};
  for (int j = 0; j < room.hd; j += 4) {
    float4 k = *reinterpret_cast<const float4 *>(key + j);
#pragma unroll
    for (int q = 0; q < Q; q++) {
      float4 v = *reinterpret_cast<const float4 *>(query + q * room.stride + j);
      sums[q] = fmaf(v.w, k.w, fmaf(v.z, k.z, fmaf(v.y, k.y, fmaf(v.x, k.x, sums[q]))));
    }
  }
#pragma unroll
  for (int q = 0; q < Q; q++) room.scores[(first + q) * SCORE_STRIDE + position] = sums[q];
}

/* What a row sees of a piece: places begin .. end-1 of it; nothing when end <= begin. */
struct sight {
  int begin, end;
};

__device__ sight sight_of(const pdt_cuda_seen &row, int piece_begin, int position, int window) {
  int first = window > 0 ? position + 1 - window - row.before : 0;
  sight s = {first - piece_begin, row.seen - piece_begin};
  if (s.begin < 0) s.begin = 0;
  if (s.end > PIECE) s.end = PIECE;
  return s;
}

/* Turns the scores of each query into weights: exp(score - largest); what is not seen weighs 0. A
 * warp takes a query at a time. Keeps the largest and the sum of weights. */
__device__ void weigh(const piece_room &room, const pass &p, const pdt_cuda_attention &a,
                      const pdt_cuda_rows &rows, int piece_begin, int all_heads) {
  int lane = threadIdx.x % 32;
  float root = 1 / sqrtf((float)room.hd);
  for (int q = threadIdx.x / 32; q < p.n; q += THREADS / 32) {
    const pdt_cuda_seen &row = p.row(q);
    sight s = sight_of(row, piece_begin, rows.position[row.row], a.window);
    float *scores = room.scores + q * SCORE_STRIDE, largest = -INFINITY, sum = 0;
    for (int i = lane; i < PIECE; i += 32)
      if (i >= s.begin && i < s.end) largest = fmaxf(largest, scores[i] * root);
    largest = warp_max(largest);
    for (int i = lane; i < PIECE; i += 32) {
      bool sees = i >= s.begin && i < s.end;
      scores[i] = sees ? expf(scores[i] * root - largest) : 0;
      sum += scores[i];
    }
    sum = warp_sum(sum);
    if (lane == 0) {
      int64_t place = row.place + piece_begin / PIECE;
      float *to = a.room + (place * all_heads + p.head_of(q)) * (2 + room.hd);
      to[0] = largest;
      to[1] = sum;
    }
  }
}

/* Weighted sums of the values of n positions, from the first on: a thread takes Q queries of one
 * element. What weighs nothing is left out and not multiplied: it may be another row's, and none.
 */
template <int Q>
__device__ void weigh_values(const piece_room &room, const pass &p, const pdt_cuda_attention &a,
                             int piece_begin, int n, int all_heads) {
  int hd = room.hd;
  for (int item = threadIdx.x; item < GROUPS * hd; item += THREADS) {
    int j = item % hd, first = item / hd * Q;
    if (first >= p.n) continue;
    const float *weights = room.scores + first * SCORE_STRIDE;
    float sums[Q] = {};
#pragma unroll 4
    for (int i = 0; i < n; i++) {
      float v = room.values[i * hd + j];
#pragma unroll
      for (int q = 0; q < Q; q++) {
        float w = weights[q * SCORE_STRIDE + i];
        sums[q] = w == 0 ? sums[q] : fmaf(w, v, sums[q]);
      }
    }
#pragma unroll
    for (int q = 0; q < Q; q++) {
      if (first + q >= p.n) break;
      int64_t place = p.row(first + q).place + piece_begin / PIECE;
      a.room[(place * all_heads + p.head_of(first + q)) * (2 + hd) + 2 + j] = sums[q];
    }
  }
}

template <int Q>
__device__ void attend(const piece_room &room, const pass &p, const pdt_cuda_attention &a,
                       const pdt_cuda_rows &rows, int piece_begin, int n, int all_heads) {
  score<Q>(room);
  __syncthreads();
  weigh(room, p, a, rows, piece_begin, all_heads);
  __syncthreads();
  weigh_values<Q>(room, p, a, piece_begin, n, all_heads);
}

/* Block (piece, kv head): what the rows of a tile see of a piece. */
__global__ void __launch_bounds__(THREADS)
    attend_piece(const pdt_cuda_attention a, const pdt_cuda_rows rows, const pdt_cuda_pages pages,
                 const pdt_cuda_heads heads, const float *qkv) {
  DYNAMIC_SHARED(float, shared);
  grid_release();
  const pdt_cuda_piece piece = a.pieces[blockIdx.x];
  if (piece.n_rows == 0) { /* to fill up */
    grid_wait();
    return;
  }
  const piece_room room = lay_out(shared, pages.head_dim, a.queries);
  const pdt_cuda_seen *seen = a.seen + piece.first_row;
  int kv = blockIdx.y, n = 0;
  for (int i = 0; i < piece.n_rows; i++) n = max(n, seen[i].seen - piece.begin);
  n = min(n, PIECE);
  int head = max(0, kv * heads.per_kv - heads.first);
  int end = min(heads.n_heads, (kv + 1) * heads.per_kv - heads.first);
  int queries = piece.n_rows * (end - head), row_heads = heads.n_heads + 2 * pages.heads;
  const int32_t *list = a.page_lists + piece.pages;
  /* What an earlier batch has stored need not wait for the kernels ahead. */
  if (piece.settled) load_piece(room, pages, list, piece.begin, n, kv);
  grid_wait();
  if (!piece.settled) load_piece(room, pages, list, piece.begin, n, kv);
  for (int first = 0; first < queries; first += a.queries) {
    const pass p = {seen, first, min(a.queries, queries - first), head, end - head};
    __syncthreads(); /* the pass before has been read */
    load_queries(room, p, qkv, row_heads);
    copies_wait();
    __syncthreads();
    if (p.n <= GROUPS)
      attend<1>(room, p, a, rows, piece.begin, n, heads.n_heads);
    else if (p.n <= 2 * GROUPS)
      attend<2>(room, p, a, rows, piece.begin, n, heads.n_heads);
    else if (p.n <= 4 * GROUPS)
      attend<4>(room, p, a, rows, piece.begin, n, heads.n_heads);
    else
      attend<8>(room, p, a, rows, piece.begin, n, heads.n_heads);
  }
}

/* What some pieces of a row give for a head: their largest scores and sums of weights, and two
 * elements of their values; pieces that are not there weigh nothing. */
struct merged_run {
  float2 scores[MERGE_RUN], values[MERGE_RUN];

  __device__ void load(const float *parts, int64_t next, int n, int element) {
#pragma unroll
    for (int i = 0; i < MERGE_RUN; i++) {
      const float *part = parts + i * next;
      scores[i] = i < n ? *reinterpret_cast<const float2 *>(part) : float2{-INFINITY, 0};
      values[i] = i < n ? *reinterpret_cast<const float2 *>(part + 2 + element) : float2{};
    }
  }

  /* to += what they weigh, from the first on; z: the sum of weights. */
  __device__ void add(float largest, float3 *to) const {
#pragma unroll
    for (int i = 0; i < MERGE_RUN; i++) {
      float weight = expf(scores[i].x - largest);
      to->x = fmaf(weight, values[i].x, to->x);
      to->y = fmaf(weight, values[i].y, to->y);
      to->z = fmaf(weight, scores[i].y, to->z);
    }
  }
};

/* The largest score of n pieces, to all lanes. */
__device__ float largest_of(const float *parts, int64_t next, int n) {
  float largest = -INFINITY;
  for (int i = threadIdx.x % 32; i < n; i += 32) largest = fmaxf(largest, parts[i * next]);
  return warp_max(largest);
}

/* Pieces begin .. end-1 of n: the first of them are on their way while the largest score of all is
 * found. All lanes of a warp call it. */
__device__ float3 merge_run(const float *parts, int64_t next, int n, int begin, int end,
                            int element) {
  float3 sum = {};
  float largest = 0;
  for (int i = begin; i == begin || i < end; i += MERGE_RUN) {
    merged_run run;
    run.load(parts + i * next, next, end - i, element);
    if (i == begin) largest = largest_of(parts, next, n);
    run.add(largest, &sum);
  }
  return sum;
}

/* Block (row, query head): the results of its pieces, each by its weight beside the largest score
 * of all. A group of threads, two elements each, adds up an equal run of the pieces, from the first
 * on, and then the groups are added up: how many pieces a row has is all that shapes the sums. */
__global__ void __launch_bounds__(MERGE_GROUPS *MERGE_PAIRS, 2)
    merge_pieces(const pdt_cuda_attention a, int n_heads, int hd, float *out,
                 const pdt_cuda_prepared prepared) {
  SHARED_ARRAY(float3, sums, MERGE_GROUPS * MERGE_PAIRS);
  grid_release();
  const int row = a.first_row + blockIdx.x, head = blockIdx.y, pairs = blockDim.x / MERGE_GROUPS;
  const int group = threadIdx.x / pairs, pair = threadIdx.x % pairs, width = n_heads * hd;
  /* A batch comes by a copy, which kernels behind it have waited for. */
  const int place = a.places[2 * row], n = a.places[2 * row + 1] - place;
  const int begin = (int)((int64_t)n * group / MERGE_GROUPS);
  const int end = (int)((int64_t)n * (group + 1) / MERGE_GROUPS);
  const int64_t next = (int64_t)n_heads * (2 + hd); /* place */
  const float *parts = a.room + place * next + head * (2 + hd);
  grid_wait();
  for (int first = 0; first < hd; first += 2 * pairs) {
    int element = first + 2 * pair;
    __syncthreads(); /* the sums before have been read */
    sums[threadIdx.x] = merge_run(parts, next, n, begin, element < hd ? end : begin, element);
    __syncthreads();
    if (group > 0 || element >= hd) continue;
    float3 sum = sums[pair];
    for (int g = 1; g < MERGE_GROUPS; g++) {
      const float3 more = sums[g * pairs + pair];
      sum = make_float3(sum.x + more.x, sum.y + more.y, sum.z + more.z);
    }
    float2 result = {sum.x / sum.z, sum.y / sum.z};
    int column = head * hd + element;
    out[(int64_t)row * width + column] = result.x;
    out[(int64_t)row * width + column + 1] = result.y;
    if (prepared.at) put_pair(prepared, row, column, result.x, result.y);
  }
  if (!prepared.at || head + 1 < n_heads) return;
  int whole = 4 * prepared_quads(prepared, width);
  for (int c = width + 2 * threadIdx.x; c < whole; c += 2 * blockDim.x)
    put_pair(prepared, row, c, 0, 0);
}

} // namespace

cudaError_t pdt_launch_rope(const int32_t *position, int32_t n, const double *inv_freq,
                            int32_t half, double scale, float *rope, pdt_cuda_queue *queue) {
  if (n < 1) return cudaSuccess;
  return launch_ahead(rope_angles, dim3((n * half + 127) / 128), dim3(128), 0, queue, position, n,
                      inv_freq, half, scale, rope);
}

cudaError_t pdt_launch_rotate_and_store(const pdt_cuda_rows *rows, const pdt_cuda_pages *pages,
                                        const pdt_cuda_heads *heads, float *qkv,
                                        pdt_cuda_queue *queue) {
  int64_t items = rows->n * (heads->n_heads + 2 * pages->heads);
  if (items < 1) return cudaSuccess;
  return launch_ahead(rotate_and_store, dim3((unsigned)((items + WARPS - 1) / WARPS)),
                      dim3(32 * WARPS), 0, queue, *rows, *pages, *heads, qkv);
}

int64_t pdt_cuda_attention_shared(int32_t head_dim, int32_t queries) {
  int64_t stride = (head_dim + 3) / 4 * 4 + 4;
  return 4 * ((PIECE + queries) * stride + queries * SCORE_STRIDE + (int64_t)PIECE * head_dim);
}

int32_t pdt_cuda_attention_queries(int32_t rows, int32_t per_kv) {
  int32_t n = GROUPS; /* and the double of it, as often as need be: what a pass takes */
  while (n < rows * per_kv && n < QUERIES) n *= 2;
  return n;
}

cudaError_t pdt_launch_attention(const pdt_cuda_attention *a, const pdt_cuda_rows *rows,
                                 const pdt_cuda_pages *pages, const pdt_cuda_heads *heads,
                                 const float *qkv, pdt_cuda_queue *queue) {
  if (a->n_pieces < 1 || a->n_rows < 1) return cudaSuccess;
  size_t shared = (size_t)pdt_cuda_attention_shared(pages->head_dim, a->queries);
  return launch_ahead(attend_piece, dim3(a->n_pieces, pages->heads), dim3(THREADS), shared, queue,
                      *a, *rows, *pages, *heads, qkv);
}

cudaError_t pdt_launch_merge(const pdt_cuda_attention *a, int32_t n_heads, int32_t head_dim,
                             float *out, const pdt_cuda_prepared *prepared, pdt_cuda_queue *queue) {
  int pairs = (head_dim / 2 + 31) / 32 * 32;
  if (pairs > MERGE_PAIRS) pairs = MERGE_PAIRS;
  if (a->n_rows < 1) return cudaSuccess;
  return launch_ahead(merge_pieces, dim3(a->n_rows, n_heads), dim3(MERGE_GROUPS * pairs), 0, queue,
                      *a, n_heads, head_dim, out, *prepared);
}

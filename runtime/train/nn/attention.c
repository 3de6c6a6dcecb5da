#include "train/nn/attention.h"

#include <math.h>
#include <string.h>

#include "train/nn/ops.h"

/* Queries of one product: half of a square of scores is masked, and blocks skip most of that. */
enum { QUERY_BLOCK = 64 };

int32_t pdt_nn_longest(const pdt_nn_sequences *s) {
  int32_t most = 0;
  for (int32_t i = 0; i < s->n; i++) {
    int32_t length = s->begin[i + 1] - s->begin[i];
    most = length > most ? length : most;
  }
  return most;
}

void pdt_nn_rope_angles(const double *inv_freq, double scale, int32_t head_dim, int32_t n,
                        pdt_real *angles) {
  int32_t half = head_dim / 2;
  for (int32_t p = 0; p < n; p++)
    for (int32_t j = 0; j < half; j++) {
      double angle = p * inv_freq[j];
      angles[(int64_t)p * head_dim + j] = (pdt_real)(cos(angle) * scale);
      angles[(int64_t)p * head_dim + half + j] = (pdt_real)(sin(angle) * scale);
    }
}

void pdt_nn_rope(const pdt_nn_sequences *s, int32_t heads, int32_t head_dim, const pdt_real *angles,
                 int sign, pdt_real *x) {
  int32_t half = head_dim / 2;
  for (int32_t i = 0; i < s->n; i++)
    for (int32_t row = s->begin[i]; row < s->begin[i + 1]; row++) {
      const pdt_real *cosine = angles + (int64_t)(row - s->begin[i]) * head_dim;
      const pdt_real *sine = cosine + half;
      for (int32_t h = 0; h < heads; h++) {
        pdt_real *a = x + ((int64_t)row * heads + h) * head_dim, *b = a + half;
        for (int32_t j = 0; j < half; j++) {
          pdt_real first = a[j], second = b[j], turn = (pdt_real)sign * sine[j];
          a[j] = first * cosine[j] - second * turn;
          b[j] = second * cosine[j] + first * turn;
        }
      }
    }
}

/* One head of one sequence. */
typedef struct head_view {
  int64_t q, k; /* where the head starts in q, out and in k, v */
  int64_t q_stride, k_stride;
  int64_t lse, lse_stride;
  int32_t rows, head_dim, window;
  pdt_real scale;
} head_view;

static head_view look_at(const pdt_nn_sequences *s, pdt_nn_heads n, int32_t i, int32_t h) {
  int64_t first = s->begin[i], q_stride = (int64_t)n.heads * n.head_dim,
          k_stride = (int64_t)n.kv_heads * n.head_dim;
  int32_t group = n.heads / n.kv_heads;
  return (head_view){.q = first * q_stride + (int64_t)h * n.head_dim,
                     .k = first * k_stride + (int64_t)(h / group) * n.head_dim,
                     .q_stride = q_stride,
                     .k_stride = k_stride,
                     .lse = first * n.heads + h,
                     .lse_stride = n.heads,
                     .rows = s->begin[i + 1] - s->begin[i],
                     .head_dim = n.head_dim,
                     .window = n.window,
                     .scale = (pdt_real)(1 / sqrt((double)n.head_dim))};
}

/* The first key that a query sees; its own is the last. */
static int32_t first_seen(const head_view *v, int32_t query) {
  return v->window && query >= v->window ? query - v->window + 1 : 0;
}

/* Nothing for the keys that a query does not see: before and behind those it sees. */
static void clear_unseen(pdt_real *row, int32_t from, int32_t seen, int32_t keys) {
  for (int32_t j = 0; j < from; j++) row[j] = 0;
  for (int32_t j = seen; j < keys; j++) row[j] = 0;
}

/* scores [m, keys] of queries first .. first+m-1 over all keys that any of them may see. */
static void score_block(const head_view *v, int32_t first, int32_t m, const pdt_real *q,
                        const pdt_real *k, pdt_real *scores) {
  pdt_nn_gemm(PDT_NN_NT, m, first + m, v->head_dim, v->scale, q + v->q + first * v->q_stride,
              v->q_stride, k + v->k, v->k_stride, 0, scores, first + m);
}

static void causal_head(const head_view *v, const pdt_real *q, const pdt_real *k,
                        const pdt_real *values, pdt_real *out, pdt_real *lse, pdt_real *scores) {
  for (int32_t first = 0; first < v->rows; first += QUERY_BLOCK) {
    int32_t m = v->rows - first < QUERY_BLOCK ? v->rows - first : QUERY_BLOCK, keys = first + m;
    score_block(v, first, m, q, k, scores);
    for (int32_t r = 0; r < m; r++) {
      int32_t seen = first + r + 1, from = first_seen(v, first + r);
      pdt_real *row = scores + (int64_t)r * keys, most = row[from];
      for (int32_t j = from + 1; j < seen; j++) most = row[j] > most ? row[j] : most;
      double sum = pdt_nn_exp_row(row + from, seen - from, most);
      pdt_real scale = (pdt_real)(1 / sum);
      for (int32_t j = from; j < seen; j++) row[j] *= scale;
      clear_unseen(row, from, seen, keys);
      lse[v->lse + (first + r) * v->lse_stride] = (pdt_real)((double)most + log(sum));
    }
    pdt_nn_gemm(PDT_NN_NN, m, v->head_dim, keys, 1, scores, keys, values + v->k, v->k_stride, 0,
                out + v->q + first * v->q_stride, v->q_stride);
  }
}

int pdt_nn_causal(const pdt_nn_sequences *s, pdt_nn_heads n, const pdt_real *q, const pdt_real *k,
                  const pdt_real *v, pdt_real *out, pdt_real *lse, pdt_arena *arena,
                  pdt_error *err) {
  pdt_real *scores;
  if (PDT_TAKE(arena, &scores, (int64_t)QUERY_BLOCK * pdt_nn_longest(s), err)) return -1;
  for (int32_t i = 0; i < s->n; i++)
    for (int32_t h = 0; h < n.heads; h++) {
      head_view view = look_at(s, n, i, h);
      causal_head(&view, q, k, v, out, lse, scores);
    }
  return 0;
}

/* Gradients of one head, of which backward has these in hand. */
typedef struct head_gradients {
  const pdt_real *q, *k, *v, *out, *lse, *dout;
  pdt_real *dq, *dk, *dv;
  pdt_real *p, *dp; /* [QUERY_BLOCK, longest] */
} head_gradients;

/* With D the sum of dout * out over a row, which is that of p * dp: dscore = p (dp - D). */
PDT_NN_VECTOR
static void score_gradients(const head_view *v, int32_t first, int32_t m, const head_gradients *g) {
  int32_t keys = first + m;
  for (int32_t r = 0; r < m; r++) {
    pdt_real *p = g->p + (int64_t)r * keys, *dp = g->dp + (int64_t)r * keys;
    int64_t at = v->q + (first + r) * v->q_stride;
    int32_t seen = first + r + 1, from = first_seen(v, first + r);
    pdt_real mean = (pdt_real)pdt_nn_dot(g->dout + at, g->out + at, v->head_dim);
    pdt_real lse = g->lse[v->lse + (first + r) * v->lse_stride];
    for (int32_t j = from; j < seen; j++) {
      p[j] = pdt_nn_exp(p[j] - lse);
      dp[j] = p[j] * (dp[j] - mean);
    }
    clear_unseen(p, from, seen, keys);
    clear_unseen(dp, from, seen, keys);
  }
}

static void causal_head_back(const head_view *v, const head_gradients *g) {
  for (int32_t first = 0; first < v->rows; first += QUERY_BLOCK) {
    int32_t m = v->rows - first < QUERY_BLOCK ? v->rows - first : QUERY_BLOCK, keys = first + m;
    int64_t at = v->q + first * v->q_stride;
    score_block(v, first, m, g->q, g->k, g->p);
    pdt_nn_gemm(PDT_NN_NT, m, keys, v->head_dim, 1, g->dout + at, v->q_stride, g->v + v->k,
                v->k_stride, 0, g->dp, keys);
    score_gradients(v, first, m, g);
    pdt_nn_gemm(PDT_NN_NN, m, v->head_dim, keys, v->scale, g->dp, keys, g->k + v->k, v->k_stride, 0,
                g->dq + at, v->q_stride);
    pdt_nn_gemm(PDT_NN_TN, keys, v->head_dim, m, v->scale, g->dp, keys, g->q + at, v->q_stride, 1,
                g->dk + v->k, v->k_stride);
    pdt_nn_gemm(PDT_NN_TN, keys, v->head_dim, m, 1, g->p, keys, g->dout + at, v->q_stride, 1,
                g->dv + v->k, v->k_stride);
  }
}

int pdt_nn_causal_back(const pdt_nn_sequences *s, pdt_nn_heads n, const pdt_real *q,
                       const pdt_real *k, const pdt_real *v, const pdt_real *out,
                       const pdt_real *lse, const pdt_real *dout, pdt_real *dq, pdt_real *dk,
                       pdt_real *dv, pdt_arena *arena, pdt_error *err) {
  head_gradients g = {
      .q = q, .k = k, .v = v, .out = out, .lse = lse, .dout = dout, .dq = dq, .dk = dk, .dv = dv};
  int64_t room = (int64_t)QUERY_BLOCK * pdt_nn_longest(s);
  if (PDT_TAKE(arena, &g.p, room, err) || PDT_TAKE(arena, &g.dp, room, err)) return -1;
  size_t bytes = (size_t)s->begin[s->n] * (size_t)n.kv_heads * (size_t)n.head_dim * sizeof *dk;
  memset(dk, 0, bytes);
  memset(dv, 0, bytes);
  for (int32_t i = 0; i < s->n; i++)
    for (int32_t h = 0; h < n.heads; h++) {
      head_view view = look_at(s, n, i, h);
      causal_head_back(&view, &g);
    }
  return 0;
}

/* ---- windows of notes ---- */

int32_t pdt_nn_widest(const pdt_nn_windows *w) {
  int32_t most = 0;
  for (int32_t i = 0; i < w->n; i++) {
    int32_t notes = w->first[i + 1] - w->first[i];
    most = notes > most ? notes : most;
  }
  return most;
}

/* A window's keys and values side by side, and room for its scores. */
typedef struct window_room {
  pdt_real *k, *v, *dk, *dv; /* [widest, width] */
  pdt_real *p, *dp;          /* [rows, widest] */
} window_room;

static int make_room(const pdt_nn_windows *w, int64_t width, bool back, window_room *room,
                     pdt_arena *arena, pdt_error *err) {
  int64_t notes = pdt_nn_widest(w), rows = 0;
  for (int32_t i = 0; i < w->n; i++) {
    int32_t n = w->begin[i + 1] - w->begin[i];
    rows = n > rows ? n : rows;
  }
  *room = (window_room){0};
  if (PDT_TAKE(arena, &room->k, notes * width, err) ||
      PDT_TAKE(arena, &room->v, notes * width, err) || PDT_TAKE(arena, &room->p, rows * notes, err))
    return -1;
  if (!back) return 0;
  return PDT_TAKE(arena, &room->dk, notes * width, err) ||
                 PDT_TAKE(arena, &room->dv, notes * width, err) ||
                 PDT_TAKE(arena, &room->dp, rows * notes, err)
             ? -1
             : 0;
}

int pdt_nn_window_attention(const pdt_nn_windows *w, int32_t heads, int32_t head_dim,
                            const pdt_real *q, const pdt_real *k, const pdt_real *v, pdt_real *out,
                            pdt_arena *arena, pdt_error *err) {
  int64_t width = (int64_t)heads * head_dim;
  pdt_real scale = (pdt_real)(1 / sqrt((double)head_dim));
  window_room room;
  if (make_room(w, width, false, &room, arena, err)) return -1;
  for (int32_t i = 0; i < w->n; i++) {
    int64_t rows = w->begin[i + 1] - w->begin[i], notes = w->first[i + 1] - w->first[i];
    int64_t at = w->begin[i] * width;
    pdt_nn_gather(k, w->items + w->first[i], notes, width, room.k);
    pdt_nn_gather(v, w->items + w->first[i], notes, width, room.v);
    for (int32_t h = 0; h < heads; h++) {
      int64_t head = (int64_t)h * head_dim;
      pdt_nn_gemm(PDT_NN_NT, rows, notes, head_dim, scale, q + at + head, width, room.k + head,
                  width, 0, room.p, notes);
      pdt_nn_softmax(room.p, rows, notes, notes);
      pdt_nn_gemm(PDT_NN_NN, rows, head_dim, notes, 1, room.p, notes, room.v + head, width, 0,
                  out + at + head, width);
    }
  }
  return 0;
}

/* One head of one window; everything points at the head's first element. */
static void window_head_back(int64_t rows, int64_t notes, int32_t head_dim, int64_t width,
                             const pdt_real *q, const pdt_real *dout, pdt_real *dq, int64_t head,
                             const window_room *room) {
  pdt_real scale = (pdt_real)(1 / sqrt((double)head_dim));
  pdt_nn_gemm(PDT_NN_NT, rows, notes, head_dim, scale, q, width, room->k + head, width, 0, room->p,
              notes);
  pdt_nn_softmax(room->p, rows, notes, notes);
  pdt_nn_gemm(PDT_NN_NT, rows, notes, head_dim, 1, dout, width, room->v + head, width, 0, room->dp,
              notes);
  pdt_nn_gemm(PDT_NN_TN, notes, head_dim, rows, 1, room->p, notes, dout, width, 0, room->dv + head,
              width);
  pdt_nn_softmax_back(room->p, rows, notes, notes, room->dp);
  pdt_nn_gemm(PDT_NN_NN, rows, head_dim, notes, scale, room->dp, notes, room->k + head, width, 0,
              dq, width);
  pdt_nn_gemm(PDT_NN_TN, notes, head_dim, rows, scale, room->dp, notes, q, width, 0,
              room->dk + head, width);
}

int pdt_nn_window_attention_back(const pdt_nn_windows *w, int32_t heads, int32_t head_dim,
                                 const pdt_real *q, const pdt_real *k, const pdt_real *v,
                                 const pdt_real *dout, pdt_real *dq, pdt_real *dk, pdt_real *dv,
                                 pdt_arena *arena, pdt_error *err) {
  int64_t width = (int64_t)heads * head_dim;
  window_room room;
  if (make_room(w, width, true, &room, arena, err)) return -1;
  for (int32_t i = 0; i < w->n; i++) {
    const int32_t *items = w->items + w->first[i];
    int64_t rows = w->begin[i + 1] - w->begin[i], notes = w->first[i + 1] - w->first[i];
    int64_t at = w->begin[i] * width;
    pdt_nn_gather(k, items, notes, width, room.k);
    pdt_nn_gather(v, items, notes, width, room.v);
    for (int32_t h = 0; h < heads; h++) {
      int64_t head = (int64_t)h * head_dim;
      window_head_back(rows, notes, head_dim, width, q + at + head, dout + at + head,
                       dq + at + head, head, &room);
    }
    pdt_nn_scatter_add(1, room.dk, items, notes, width, dk);
    pdt_nn_scatter_add(1, room.dv, items, notes, width, dv);
  }
  return 0;
}

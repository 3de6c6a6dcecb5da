#include "train/nn/losses.h"

#include <math.h>
#include <string.h>

enum { LOGITS_AT_ONCE = 1 << 22, LEAST_ROWS = 16 };

/* Logits to log-probabilities in place; returns the index of the largest. */
static int64_t log_softmax(pdt_real *x, int64_t n, pdt_real *probabilities) {
  int64_t best = 0;
  for (int64_t i = 1; i < n; i++)
    if (x[i] > x[best]) best = i;
  pdt_real most = x[best];
  memcpy(probabilities, x, (size_t)n * sizeof *x);
  double sum = pdt_nn_exp_row(probabilities, n, most);
  pdt_real scale = (pdt_real)(1 / sum), shift = (pdt_real)((double)most + log(sum));
  for (int64_t i = 0; i < n; i++) {
    probabilities[i] *= scale;
    x[i] -= shift;
  }
  return best;
}

/* Room of one piece of rows. */
typedef struct head_room {
  int64_t rows;
  pdt_real *hidden, *dhidden;       /* [rows, d] */
  pdt_real *logits, *p;             /* [rows, vocab] log-probabilities and probabilities */
  pdt_real *teacher, *teacher_room; /* [rows, vocab], [vocab] */
} head_room;

static int head_room_new(head_room *room, int32_t vocab, int32_t d, const pdt_nn_targets *t,
                         pdt_arena *arena, pdt_error *err) {
  int64_t rows = LOGITS_AT_ONCE / vocab;
  rows = rows < LEAST_ROWS ? LEAST_ROWS : rows;
  *room = (head_room){.rows = rows < t->n ? rows : t->n};
  if (PDT_TAKE(arena, &room->hidden, room->rows * d, err) ||
      PDT_TAKE(arena, &room->dhidden, room->rows * d, err) ||
      PDT_TAKE(arena, &room->logits, room->rows * vocab, err) ||
      PDT_TAKE(arena, &room->p, room->rows * vocab, err))
    return -1;
  if (!t->teacher) return 0;
  return PDT_TAKE(arena, &room->teacher, room->rows * vocab, err) ||
                 PDT_TAKE(arena, &room->teacher_room, vocab, err)
             ? -1
             : 0;
}

/* Losses of one row; its probabilities become the logits' gradient. */
static void row_loss(const head_room *room, int64_t r, int64_t vocab, const pdt_nn_targets *t,
                     int64_t at, pdt_nn_head_sums *sums) {
  pdt_real *logp = room->logits + r * vocab, *p = room->p + r * vocab;
  pdt_real ce = t->ce_weight[at], kd = t->teacher ? t->kd_weight[at] : 0;
  pdt_token token = t->subset ? t->subset->place[t->tokens[at]] : t->tokens[at];
  uint8_t kind = t->kinds ? t->kinds[at] : PDT_NN_OTHER;
  sums->rows[kind]++;
  if (log_softmax(logp, vocab, p) == token) sums->right[kind]++;
  sums->ce -= (double)ce * (double)logp[token];
  sums->nats[kind] -= (double)logp[token];
  if (kd == 0) {
    for (int64_t i = 0; i < vocab; i++) p[i] *= ce;
    p[token] -= ce;
    return;
  }
  pdt_real *logt = room->teacher + r * vocab;
  log_softmax(logt, vocab, room->teacher_room);
  double kl = 0;
  for (int64_t i = 0; i < vocab; i++) kl += (double)p[i] * (double)(logp[i] - logt[i]);
  sums->kd += (double)kd * kl;
  for (int64_t i = 0; i < vocab; i++) p[i] *= ce + kd * (logp[i] - logt[i] - (pdt_real)kl);
  p[token] -= ce;
}

/* The rows of the head that a subset has. */
static int take_subset(pdt_nn_weight *head, int32_t *vocab, int32_t d, const pdt_nn_subset *subset,
                       pdt_arena *arena, pdt_error *err) {
  pdt_real *rows;
  if (PDT_TAKE(arena, &rows, (int64_t)subset->n * d, err)) return -1;
  pdt_nn_gather(head->w, subset->ids, subset->n, d, rows);
  *head = (pdt_nn_weight){rows, NULL};
  *vocab = subset->n;
  return 0;
}

int pdt_nn_head_loss(pdt_nn_weight head, int32_t vocab, int32_t d, const pdt_real *hidden,
                     const pdt_nn_targets *t, pdt_real *dhidden, pdt_nn_head_sums *sums,
                     pdt_arena *arena, pdt_error *err) {
  head_room room;
  *sums = (pdt_nn_head_sums){0};
  if (t->subset && take_subset(&head, &vocab, d, t->subset, arena, err)) return -1;
  const pdt_nn_affine map = {.w = head, .in = d, .out = vocab};
  if (head_room_new(&room, vocab, d, t, arena, err)) return -1;
  for (int64_t first = 0; first < t->n; first += room.rows) {
    int64_t m = t->n - first < room.rows ? t->n - first : room.rows;
    const int32_t *rows = t->rows + first;
    pdt_nn_gather(hidden, rows, m, d, room.hidden);
    pdt_nn_linear(&map, room.hidden, m, false, room.logits);
    if (t->teacher) pdt_nn_linear(&map, t->teacher + first * d, m, false, room.teacher);
    for (int64_t r = 0; t->subset && r < m; r++)
      pdt_nn_axpy(1, t->subset->shift, vocab, room.logits + r * vocab);
    for (int64_t r = 0; r < m; r++) row_loss(&room, r, vocab, t, first + r, sums);
    if (!dhidden && !head.g) continue;
    pdt_nn_linear_back(&map, room.hidden, m, room.p, false, dhidden ? room.dhidden : NULL);
    if (dhidden) pdt_nn_scatter_add(1, room.dhidden, rows, m, d, dhidden);
  }
  return 0;
}

double pdt_nn_mse(const pdt_real *x, const pdt_real *y, const pdt_real *weight, int64_t rows,
                  int64_t width, pdt_real *dx) {
  double sum = 0;
  for (int64_t r = 0; r < rows; r++) {
    if (weight[r] == 0) continue;
    pdt_real scale = weight[r] / (pdt_real)width;
    for (int64_t i = r * width; i < (r + 1) * width; i++) {
      pdt_real difference = x[i] - y[i];
      sum += (double)scale * (double)difference * (double)difference;
      if (dx) dx[i] += 2 * scale * difference;
    }
  }
  return sum;
}

double pdt_nn_bce(const pdt_real *logits, const pdt_real *target, const pdt_real *weight, int64_t n,
                  pdt_real *dlogits) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++) {
    if (weight[i] == 0) continue;
    double z = (double)logits[i], t = (double)target[i], w = (double)weight[i];
    sum += w * ((z > 0 ? z : 0) - z * t + log1p(exp(-fabs(z))));
    if (dlogits) dlogits[i] += (pdt_real)(w * (1 / (1 + exp(-z)) - t));
  }
  return sum;
}

double pdt_nn_softmax_ce(pdt_real *logits, const int32_t *target, int64_t rows, int64_t n,
                         pdt_real weight, bool gradient, int64_t *right) {
  double sum = 0;
  for (int64_t r = 0; r < rows; r++, logits += n) {
    pdt_real *x = logits;
    if (target[r] < 0) {
      if (gradient) memset(x, 0, (size_t)n * sizeof *x);
      continue;
    }
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
      if (x[i] > x[best]) best = i;
    if (right && best == target[r]) ++*right;
    pdt_real most = x[best], wanted = x[target[r]];
    double total = pdt_nn_exp_row(x, n, most);
    sum += (double)weight * ((double)most + log(total) - (double)wanted);
    pdt_real scale = (pdt_real)((gradient ? (double)weight : 1.0) / total);
    for (int64_t i = 0; i < n; i++) x[i] *= scale;
    if (gradient) x[target[r]] -= weight;
  }
  return sum;
}

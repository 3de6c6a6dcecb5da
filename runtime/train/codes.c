#include "train/codes.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/normal.h"

enum { NAME_BYTES = 160, USED = -1 };
static const uint64_t code_seed = 3; /* codes are part of what a sidecar learns: never changed */
static const double eps = 1e-6;

void pdt_coder_normalize(float *x, int64_t n) {
  pdt_nn_rms_norm((pdt_nn_weight){0}, eps, n, x, 1, x);
}

int pdt_coder_check_ids(const pdt_coder *c, const pdt_token *ids, int32_t n, pdt_error *err) {
  int32_t most = c->trunk->config.vocab_size;
  for (int32_t i = 0; i < n; i++)
    if (ids[i] < 0 || ids[i] >= most)
      return pdt_fail(err, PDT_ERROR_INPUT,
                      "id %d is not in the model's vocabulary of %d (hint: is the tokenizer of "
                      "another model?)",
                      ids[i], most);
  return 0;
}

/* The mean of the embedding's rows, and how far their elements are from it. */
static void measure_embedding(pdt_coder *c) {
  int64_t d = c->trunk->config.hidden_size, rows = c->trunk->config.vocab_size;
  const float *E = c->trunk->embedding.w;
  double square = 0;
  for (int64_t i = 0; i < d; i++) c->mean[i] = 0;
  for (int64_t r = 0; r < rows; r++)
    for (int64_t i = 0; i < d; i++) c->mean[i] += (double)E[r * d + i] / (double)rows;
  for (int64_t r = 0; r < rows; r++)
    for (int64_t i = 0; i < d; i++) square += pow((double)E[r * d + i] - c->mean[i], 2);
  c->deviation = sqrt(square / (double)(rows * d)) + 1e-12;
}

/* P of the token-th token of a block's place-th value. */
static void project(int32_t place, int32_t token, int64_t dn, int64_t d, float *out) {
  char name[NAME_BYTES];
  snprintf(name, sizeof name, "teacher/projection/%d/%d", place, token);
  pdt_normal_fill(code_seed, name, 0, dn * d, 0, (float)(1 / sqrt((double)d)), out);
}

void pdt_coder_projection(int32_t notes_dim, int32_t hidden_size, float *out) {
  project(0, 0, notes_dim, hidden_size, out);
}

int pdt_coder_init(pdt_coder *c, const pdt_nn_trunk *trunk, const pdt_tokenizer *tokenizer,
                   int32_t notes_dim, const pdt_teacher *teacher, pdt_arena *arena,
                   pdt_error *err) {
  int64_t d = trunk->config.hidden_size, dn = notes_dim;
  *c = (pdt_coder){.trunk = trunk, .tokenizer = tokenizer, .dim = dn, .teacher = *teacher};
  if (PDT_TAKE(arena, &c->mean, d, err)) return -1;
  measure_embedding(c);
  for (int i = 0; i < PDT_CODE_PLACES * PDT_CODE_TOKENS; i++) {
    float **out = &c->projections[i / PDT_CODE_TOKENS][i % PDT_CODE_TOKENS];
    if (PDT_TAKE(arena, out, dn * d, err)) return -1;
    project(i / PDT_CODE_TOKENS, i % PDT_CODE_TOKENS, dn, d, *out);
  }
  return 0;
}

/* What a note is written with. */
typedef struct writing {
  const pdt_coder *c;
  const pdt_data_entry *e;
  float *code, *projected; /* [dn] */
  float *row;              /* [d] */
} writing;

/* projected[dn] = Norm(sum_j P_j (E[t_j] - mean E) / std E) over the tokens of a value, P those of
 * a place. */
static int project_value(const writing *w, const char *value, int32_t place, pdt_error *err) {
  const pdt_coder *c = w->c;
  int64_t d = c->trunk->config.hidden_size, dn = c->dim;
  pdt_token *ids;
  int32_t n;
  if (pdt_tokenizer_encode(c->tokenizer, value, strlen(value), false, &ids, &n, err)) return -1;
  if (pdt_coder_check_ids(c, ids, n, err)) {
    free(ids);
    return -1;
  }
  memset(w->projected, 0, (size_t)dn * sizeof *w->projected);
  for (int32_t j = 0; j < n; j++) {
    const float *E = c->trunk->embedding.w + ids[j] * d;
    const float *P = c->projections[place][j < PDT_CODE_TOKENS ? j : PDT_CODE_TOKENS - 1];
    for (int64_t i = 0; i < d; i++) w->row[i] = (float)(((double)E[i] - c->mean[i]) / c->deviation);
    pdt_nn_gemm(PDT_NN_NT, 1, dn, d, 1, w->row, d, P, d, 1, w->projected, dn);
  }
  free(ids);
  pdt_coder_normalize(w->projected, dn);
  return 0;
}

/* Adds `share` times the code of a fact that a block states as its place-th, or USED. */
static int add_code(const writing *w, const pdt_data_fact *fact, int32_t place, double share,
                    float *note, pdt_error *err) {
  const pdt_coder *c = w->c;
  char name[NAME_BYTES], value[512];
  if (c->teacher.codes == PDT_CODES_RANDOM) {
    snprintf(name, sizeof name, "teacher/value/%.50s/%.80s", fact->type, fact->value);
    pdt_normal_fill(code_seed, name, 0, c->dim, 0, 1, w->code);
  } else {
    snprintf(value, sizeof value, " %.500s", fact->value);
    if (project_value(w, value, place == USED ? 0 : place, err)) return -1;
    snprintf(name, sizeof name, "teacher/type/%d/%.60s", place, fact->type);
    pdt_normal_fill(code_seed, name, 0, c->dim, 0, 1, w->code);
    pdt_nn_axpy(1, w->projected, c->dim, w->code);
  }
  pdt_coder_normalize(w->code, c->dim);
  pdt_nn_axpy((float)share, w->code, c->dim, note);
  return 0;
}

/* Adds what a block of section s states, in the order of the text. */
static int add_stated(const writing *w, const pdt_data_section *s, uint64_t stated, float *note,
                      pdt_error *err) {
  for (int32_t i = 0, place = 0; i < s->n_mentions; i++) {
    const pdt_data_mention *m = &s->mentions[i];
    uint64_t bit = (uint64_t)1 << m->fact;
    if (m->kind != PDT_STATES || !(stated & bit)) continue;
    stated &= ~bit; /* told twice in a block is told once */
    if (add_code(w, &w->e->facts[m->fact], place, 1, note, err)) return -1;
    if (place < PDT_CODE_PLACES - 1) place++;
  }
  return 0;
}

static int write_note(const writing *w, const pdt_data_section *s, uint64_t stated, uint64_t used,
                      float *note, pdt_error *err) {
  const pdt_coder *c = w->c;
  memset(note, 0, (size_t)c->dim * sizeof *note);
  if (stated == 0)
    pdt_normal_fill(code_seed, "teacher/nothing", 0, c->dim, 0, 1, note);
  else if (add_stated(w, s, stated, note, err))
    return -1;
  pdt_coder_normalize(note, c->dim);
  if (c->teacher.used == 0 || used == 0) return 0;
  for (int32_t f = 0; f < w->e->n_facts; f++)
    if (used >> f & 1 && add_code(w, &w->e->facts[f], USED, c->teacher.used, note, err)) return -1;
  pdt_coder_normalize(note, c->dim);
  return 0;
}

int pdt_coder_write(const pdt_coder *c, const pdt_data_entry *e, const uint64_t *used, float *notes,
                    pdt_arena *scratch, pdt_error *err) {
  writing w = {.c = c, .e = e};
  if (PDT_TAKE(scratch, &w.code, c->dim, err) || PDT_TAKE(scratch, &w.projected, c->dim, err) ||
      PDT_TAKE(scratch, &w.row, c->trunk->config.hidden_size, err))
    return -1;
  for (int32_t k = 0; k < e->n_sections; k++)
    for (int32_t b = 0; b < e->sections[k].n_blocks; b++, notes += c->dim)
      if (write_note(&w, &e->sections[k], e->sections[k].blocks[b].stated, *used++, notes, err))
        return -1;
  return 0;
}

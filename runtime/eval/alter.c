#include "eval/alter.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "protocol/philox.h"

static const char *const names[PDT_ALTER_MODES] = {"plain",  "zero", "sign", "permute",
                                                   "rotate", "swap", "one"};

const char *pdt_alter_name(pdt_alter_mode mode) {
  return names[mode];
}

bool pdt_alter_parse(const char *name, pdt_alter_mode *out) {
  for (int i = 0; i < PDT_ALTER_MODES; i++)
    if (strcmp(name, names[i]) == 0) {
      *out = (pdt_alter_mode)i;
      return true;
    }
  return false;
}

bool pdt_alter_borrows(pdt_alter_mode mode) {
  return mode == PDT_ALTER_SWAP || mode == PDT_ALTER_ONE;
}

/* ---- zeroed and scrambled ---- */

/* Number k of a mode's, in (0, 1). */
static double draw(pdt_alter_mode mode, uint64_t seed, uint64_t of, uint32_t k) {
  return pdt_uniform(seed, k, 0, (int32_t)mode, of);
}

static void permute(pdt_scramble *s, uint64_t seed, int32_t *order) {
  for (int32_t i = 0; i < s->dim; i++) order[i] = i;
  for (int32_t i = s->dim - 1; i > 0; i--) {
    int32_t j = (int32_t)(draw(PDT_ALTER_PERMUTE, seed, 0, (uint32_t)i) * (i + 1));
    int32_t kept = order[i];
    order[i] = order[j];
    order[j] = kept;
  }
  for (int32_t i = 0; i < s->dim; i++) s->matrix[(int64_t)i * s->dim + order[i]] = 1;
}

/* Takes from a row what it has of the ones before it, which are of length 1 and at right angles,
 * and gives it length 1. */
static void straighten(double *rows, int64_t row, int64_t n) {
  double *x = rows + row * n, length = 0;
  for (int64_t r = 0; r < row; r++) {
    double along = 0;
    for (int64_t j = 0; j < n; j++) along += rows[r * n + j] * x[j];
    for (int64_t j = 0; j < n; j++) x[j] -= along * rows[r * n + j];
  }
  for (int64_t j = 0; j < n; j++) length += x[j] * x[j];
  length = sqrt(length);
  for (int64_t j = 0; j < n; j++) x[j] /= length;
}

/* Random rows by Gram and Schmidt. No functions of libm but the square root, which is exact: ranks
 * on other machines have the same matrix. */
static void rotate(pdt_scramble *s, uint64_t seed, double *rows) {
  int64_t n = s->dim;
  for (int64_t i = 0; i < n; i++) {
    for (int64_t j = 0; j < n; j++)
      rows[i * n + j] = draw(PDT_ALTER_ROTATE, seed, (uint64_t)i, (uint32_t)j) - 0.5;
    straighten(rows, i, n);
    straighten(rows, i, n); /* once more: a row that lay near the others' plane has lost digits */
  }
  for (int64_t i = 0; i < n * n; i++) s->matrix[i] = (float)rows[i];
}

int pdt_scramble_new(pdt_scramble *s, pdt_alter_mode mode, int32_t dim, uint64_t seed,
                     pdt_error *err) {
  double *rows;
  int32_t *order;
  *s = (pdt_scramble){.dim = dim};
  if (PDT_NEW(&s->matrix, (int64_t)dim * dim, "scramble", err)) return -1;
  if (mode == PDT_ALTER_NONE || mode == PDT_ALTER_SIGN)
    for (int32_t i = 0; i < dim; i++)
      s->matrix[(int64_t)i * dim + i] =
          mode == PDT_ALTER_SIGN && draw(mode, seed, 0, (uint32_t)i) < 0.5 ? -1 : 1;
  if (mode == PDT_ALTER_PERMUTE) {
    if (PDT_NEW(&order, dim, "scramble", err)) return -1;
    permute(s, seed, order);
    free(order);
  }
  if (mode == PDT_ALTER_ROTATE) {
    if (PDT_NEW(&rows, (int64_t)dim * dim, "scramble", err)) return -1;
    rotate(s, seed, rows);
    free(rows);
  }
  return 0;
}

void pdt_scramble_free(pdt_scramble *s) {
  free(s->matrix);
  *s = (pdt_scramble){0};
}

void pdt_scramble_note(const pdt_scramble *s, const float *note, float *out) {
  for (int32_t i = 0; i < s->dim; i++) {
    const float *row = s->matrix + (int64_t)i * s->dim;
    double sum = 0;
    for (int32_t j = 0; j < s->dim; j++) sum += (double)row[j] * (double)note[j];
    out[i] = (float)sum;
  }
}

/* ---- borrowed ---- */

pdt_alter_facts pdt_alter_no_facts(void) {
  pdt_alter_facts facts = {0};
  for (int32_t t = 0; t < PDT_ATLAS_TYPES; t++) facts.value[t] = -1;
  return facts;
}

pdt_alter_facts pdt_alter_facts_of_entry(const pdt_atlas_world *world, const pdt_data_entry *e) {
  pdt_alter_facts facts = pdt_alter_no_facts();
  for (int32_t f = 0; f < e->n_facts; f++) {
    const pdt_data_fact *fact = &e->facts[f];
    const pdt_data_section *section = &e->sections[fact->stream];
    int32_t type = pdt_atlas_type(world, fact->type), b = 0;
    while (b < section->n_blocks && !(section->blocks[b].stated >> f & 1)) b++;
    if (type < 0 || b == section->n_blocks) continue;
    facts.value[type] = pdt_atlas_value(world, type, fact->value);
    facts.block[type] = b;
  }
  return facts;
}

void pdt_alter_add_facts(pdt_alter_facts *facts, const pdt_rollout_owners *owners, pdt_stream k,
                         const pdt_rollout_text *text, int32_t tau) {
  uint32_t stated = 0;
  for (int32_t i = 0; i < text->n_mentions; i++) {
    const pdt_rollout_mention *m = &text->mentions[i];
    if (m->kind != PDT_STATES || owners->of[m->type] != k || m->open || stated >> m->type & 1)
      continue;
    stated |= 1u << m->type;
    facts->value[m->type] = m->value;
    facts->block[m->type] = (m->last + 1) / tau; /* rollout.h: that which reads its last token */
  }
}

/* Can entry `donor` tell all of these types to entry i, otherwise than its own stream k does? */
static bool will_do(const pdt_alter_entries *e, int64_t i, int64_t donor, pdt_stream k,
                    uint32_t types) {
  for (int32_t t = 0; t < PDT_ATLAS_TYPES; t++) {
    int32_t own = e->facts[i].value[t], other = e->facts[donor].value[t];
    if (!(types >> t & 1)) continue;
    if (e->owners[donor].of[t] != k || own < 0 || other < 0 || own == other) return false;
  }
  return true;
}

pdt_alter_pair pdt_alter_pair_of(const pdt_alter_entries *e, int64_t i, pdt_alter_mode mode,
                                 uint64_t seed) {
  const pdt_rollout_owners *owners = &e->owners[i];
  uint32_t which = (uint32_t)(draw(mode, seed, (uint64_t)i, 1) * 2); /* of a section's two facts */
  pdt_stream first = (pdt_stream)(draw(mode, seed, (uint64_t)i, 0) * owners->streams);
  for (pdt_stream s = 0; s < owners->streams; s++) {
    pdt_stream k = (first + s) % owners->streams;
    uint32_t types = 0;
    for (uint32_t t = 0; t < PDT_ATLAS_TYPES; t++)
      if (owners->of[t] == k && (mode == PDT_ALTER_SWAP || t % 2 == which)) types |= 1u << t;
    for (int64_t j = 1; j < e->n; j++)
      if (will_do(e, i, (i + j) % e->n, k, types))
        return (pdt_alter_pair){(i + j) % e->n, k, types};
  }
  return (pdt_alter_pair){-1, 0, 0};
}

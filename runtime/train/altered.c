#include "train/altered.h"

#include <string.h>

/* An entry, and behind it the one that lends it notes, on their way through the trunk. */
typedef struct reading {
  const pdt_altered_use *use;
  pdt_alter_mode mode;
  const pdt_scramble *scramble;
  pdt_alter_pair pair; /* of a mode that borrows */
  int64_t number;      /* of the entry */
  pdt_nn_sidecar_batch batch;
  int32_t n_streams;  /* of the entry: those of its donor follow */
  int32_t *sequences; /* [Nb] whose blocks they are */
} reading;

static int32_t dim_of(const reading *r) {
  return r->use->sidecar->config.notes_dim;
}

/* The first block of the sequence that stream k has among those from `from` on. */
static int32_t first_block(const reading *r, int32_t from, pdt_stream k) {
  int32_t sequence = from, b = 0;
  while (r->batch.conditioning.run_stream[sequence] != k) sequence++;
  while (r->sequences[b] != sequence) b++;
  return b;
}

/* How many blocks follow one another in the sequence of block b. */
static int32_t count_blocks(const reading *r, int32_t b) {
  int32_t n = 0;
  while (b + n < r->batch.blocks.n && r->sequences[b + n] == r->sequences[b]) n++;
  return n;
}

/* As decoding has it (eval/alter_run.c): note j is the donor's note j, or its last one. */
static void lend(const reading *r, const float *notes, float *altered) {
  const pdt_alter_facts *facts = r->use->entries->facts;
  int32_t own = first_block(r, 0, r->pair.stream), n = count_blocks(r, own);
  int32_t donor = first_block(r, r->n_streams, r->pair.stream), most = count_blocks(r, donor) - 1;
  int32_t type = __builtin_ctz(r->pair.types);
  size_t dn = (size_t)dim_of(r);
  for (int32_t j = 0; j < n; j++) {
    int32_t from = j;
    if (r->mode == PDT_ALTER_ONE) {
      if (j != facts[r->number].block[type]) continue;
      from = facts[r->pair.donor].block[type];
    }
    from = donor + (from < most ? from : most);
    memcpy(altered + (size_t)(own + j) * dn, notes + (size_t)from * dn, dn * sizeof *notes);
  }
}

static void alter(void *context, const pdt_real *notes, pdt_real *altered) {
  const reading *r = context;
  int64_t dn = dim_of(r), blocks = r->batch.blocks.n;
  memcpy(altered, notes, (size_t)(blocks * dn) * sizeof *notes);
  if (pdt_alter_borrows(r->mode)) {
    lend(r, notes, altered);
    return;
  }
  for (int64_t b = 0; b < blocks; b++)
    pdt_scramble_note(r->scramble, notes + b * dn, altered + b * dn);
}

/* Targets of the entry alone, whose rows come first. */
static void drop_donor(reading *r) {
  pdt_nn_targets *t = &r->batch.targets;
  while (t->n > 0 && t->rows[t->n - 1] >= r->batch.sequences.begin[r->n_streams]) t->n--;
}

static int read_entry(reading *r, pdt_altered_nats *out, pdt_arena *arena, pdt_error *err) {
  static const pdt_train_losses losses = {.ce = 1, .use = 1, .later = 1, .unseen = 1};
  const pdt_altered_use *use = r->use;
  const pdt_sidecar_config *config = &use->sidecar->config;
  const uint64_t numbers[] = {(uint64_t)r->number, (uint64_t)r->pair.donor};
  const pdt_nn_step_options options = {
      .student_notes = true, .alter = r->mode == PDT_ALTER_NONE ? NULL : alter, .alter_context = r};
  const pdt_train_entry *entries[2];
  int32_t n = pdt_alter_borrows(r->mode) ? 2 : 1;
  pdt_train_totals totals = {0};
  pdt_nn_step_sums sums;
  for (int32_t i = 0; i < n; i++) {
    entries[i] = use->data->entries[numbers[i]];
    pdt_train_count(entries[i], use->rounds->block_tokens, config->plan_slots, &losses, &totals);
  }
  r->n_streams = entries[0]->n_streams;
  pdt_arena_reset(arena);
  if (pdt_train_batch(&r->batch, entries, numbers, n, config, use->rounds, &losses, &totals, arena,
                      err) ||
      (options.alter && pdt_train_number_altered(&r->batch, &r->sequences, arena, err)))
    return -1;
  drop_donor(r);
  if (pdt_nn_sidecar_step(use->trunk, use->sidecar, &r->batch, &options, false, &sums, NULL, arena,
                          err))
    return -1;
  memcpy(out->nats, sums.nats, sizeof sums.nats);
  memcpy(out->tokens, sums.tokens, sizeof sums.tokens);
  return 0;
}

static void compare(const pdt_altered_nats *altered, const pdt_altered_nats *plain,
                    pdt_altered *out) {
  double change[2] = {0}, under[2] = {0}, tokens[2] = {0};
  for (int kind = 0; kind < PDT_NN_KINDS; kind++) {
    int of = kind == PDT_NN_USE || kind == PDT_NN_LATER;
    change[of] += altered->nats[kind] - plain->nats[kind];
    under[of] += altered->nats[kind];
    tokens[of] += (double)altered->tokens[kind];
  }
  pdt_altered_tokens *const parts[] = {&out->elsewhere, &out->siblings};
  for (int of = 0; of < 2; of++) {
    pdt_ratio_add(&parts[of]->change, change[of], tokens[of]);
    pdt_ratio_add(&parts[of]->under, under[of], tokens[of]);
  }
  out->entries++;
}

/* Who lends entry i notes; a mode that takes none has no donor, and needs none. */
static pdt_alter_pair pair_of(const pdt_altered_use *use, pdt_alter_mode mode, int64_t i) {
  if (pdt_alter_borrows(mode)) return pdt_alter_pair_of(use->entries, i, mode, use->seed);
  return (pdt_alter_pair){.donor = -1};
}

int64_t pdt_altered_donor(const pdt_altered_use *use, pdt_alter_mode mode, int64_t i) {
  return pair_of(use, mode, i).donor;
}

/* Can an entry with such a donor be read in a mode? */
static bool is_read(pdt_alter_mode mode, int64_t donor) {
  return donor >= 0 || !pdt_alter_borrows(mode);
}

int pdt_altered_read(const pdt_altered_use *use, pdt_alter_mode mode, int64_t begin, int64_t end,
                     pdt_altered_nats *nats, pdt_arena *arena, pdt_error *err) {
  pdt_scramble scramble = {0};
  int rc = 0;
  if (mode != PDT_ALTER_NONE && !pdt_alter_borrows(mode))
    rc = pdt_scramble_new(&scramble, mode, use->sidecar->config.notes_dim, use->seed, err);
  for (int64_t i = begin; i < end && !rc; i++) {
    reading r = {.use = use, .mode = mode, .scramble = &scramble, .number = i};
    r.pair = pair_of(use, mode, i);
    if (is_read(mode, r.pair.donor)) rc = read_entry(&r, &nats[i], arena, err);
  }
  pdt_scramble_free(&scramble);
  return rc;
}

pdt_altered pdt_altered_compare(const pdt_altered_use *use, pdt_alter_mode mode,
                                const pdt_altered_nats *plain, const pdt_altered_nats *altered) {
  pdt_altered out = {0};
  for (int64_t i = 0; i < use->n; i++)
    if (is_read(mode, pdt_altered_donor(use, mode, i))) compare(&altered[i], &plain[i], &out);
  return out;
}

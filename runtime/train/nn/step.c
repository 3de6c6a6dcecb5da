#include "train/nn/step.h"

#include <string.h>

static const double eps = 1e-6; /* of Norm */

/* One reading of the batch under some notes, and the gradients that come back to it. */
typedef struct reading {
  const pdt_real *notes; /* [entries + Nb, dn], and [Nb, dn] more where some are altered */
  pdt_nn_condition condition;
  pdt_nn_pass trunk;
  pdt_nn_pool_pass pool;
  pdt_nn_note_pass note;
  const pdt_real *read; /* [R, d] what the pool reads */
  pdt_real *dstates;    /* [R, d] */
  pdt_real *dread;      /* [R, d] the same, or NULL where nothing below it learns */
  pdt_real *dpooled;    /* [Nb, p] */
  pdt_real *dnote;      /* [Nb, dn] */
  pdt_real *dnotes;     /* as notes */
} reading;

typedef struct step {
  const pdt_nn_trunk *trunk;
  const pdt_nn_sidecar *sidecar;
  const pdt_nn_sidecar_batch *batch;
  const pdt_nn_step_options *options;
  bool backward;
  pdt_nn_step_sums *sums;
  pdt_arena *arena;
  int64_t rows, d, dn, p, S, Nb, entries;
  bool below;               /* the pool reads below all that is conditioned: notes come first */
  const pdt_real *lower;    /* [R, d] where passes begin, or NULL: at the embedding */
  const pdt_real *embedded; /* [R, d] what the pool's copies mix; NULL: there are none */
  pdt_nn_plan_note_pass plan_notes;
  pdt_real *first_notes, *second_notes; /* [entries + Nb, dn] */
  pdt_nn_coverage_pass coverage;
  pdt_real *dcoverage; /* [Nb, S] */
  pdt_nn_agree_pass agree;
  reading first, second, *last;
} step;

/* L_plan, forward and backward. */
static int plan_loss(step *s, pdt_error *err) {
  const pdt_nn_sidecar_batch *b = s->batch;
  pdt_nn_planner_pass pass;
  if (b->slot_weight == 0) return 0;
  if (pdt_nn_planner(s->sidecar, &b->prompts, &pass, s->arena, err)) return -1;
  s->sums->plan = pdt_nn_softmax_ce(pass.logits, b->slot_targets, s->entries * s->S,
                                    s->sidecar->config.plan_vocab_size, b->slot_weight, s->backward,
                                    &s->sums->slots_right);
  if (s->sidecar->planner_order.w && b->prompts.mark_weight)
    s->sums->plan += pdt_nn_marks_loss(&b->prompts, &pass.orders, s->backward ? pass.dmarks : NULL);
  if (!s->backward) return 0;
  return pdt_nn_planner_back(s->sidecar, &b->prompts, &pass, pass.logits, s->arena, err);
}

/* Norm of rows for the pool. */
static int norm_read(step *s, const pdt_real *x, const pdt_real **out, pdt_error *err) {
  pdt_real *read;
  if (PDT_TAKE(s->arena, &read, s->rows * s->d, err)) return -1;
  pdt_nn_rms_norm((pdt_nn_weight){0}, eps, s->d, x, s->rows, read);
  *out = read;
  return 0;
}

/* What the pool's copies mix of the tokens that were read. */
static int find_embedded(step *s, pdt_error *err) {
  pdt_real *rows;
  if (s->sidecar->config.pool_copies == 0) return 0;
  if (PDT_TAKE(s->arena, &rows, s->rows * s->d, err)) return -1;
  pdt_nn_gather(s->trunk->embedding.w, s->batch->tokens, s->rows, s->d, rows);
  return norm_read(s, rows, &s->embedded, err);
}

/* Notes from what the pool reads. */
static int write_notes(step *s, reading *r, pdt_error *err) {
  const pdt_nn_pool_input in = {r->read, s->embedded};
  return pdt_nn_pool(s->sidecar, &s->batch->blocks, &in, s->rows, &r->pool, s->arena, err) ||
                 pdt_nn_speculate(s->sidecar, s->Nb, r->pool.pooled, &r->note, s->arena, err)
             ? -1
             : 0;
}

/* Room for the gradients of a reading. */
static int take_gradients(step *s, reading *r, pdt_error *err) {
  if (!s->backward) return 0;
  if (PDT_TAKE_ZEROS(s->arena, &r->dstates, s->rows * s->d, err) ||
      PDT_TAKE_ZEROS(s->arena, &r->dpooled, s->Nb * s->p, err) ||
      PDT_TAKE_ZEROS(s->arena, &r->dnote, s->Nb * s->dn, err) ||
      PDT_TAKE_ZEROS(s->arena, &r->dnotes,
                     (s->entries + (s->options->alter ? 2 : 1) * s->Nb) * s->dn, err))
    return -1;
  if (!s->options->through_trunk || s->below) return 0;
  r->dread = r->dstates;
  return r->read == r->trunk.hidden
             ? 0
             : (PDT_TAKE_ZEROS(s->arena, &r->dread, s->rows * s->d, err) ? -1 : 0);
}

/* Runs the trunk under r->notes. */
static int read_text(step *s, reading *r, pdt_error *err) {
  const pdt_nn_sidecar_batch *b = s->batch;
  if (pdt_nn_condition_begin(&r->condition, s->sidecar, &b->conditioning, r->notes, s->arena, err))
    return -1;
  r->condition.hooks.x = s->lower;
  r->condition.hooks.first = pdt_nn_lower_layers(&s->sidecar->config);
  return pdt_nn_trunk_forward(s->trunk, &r->trunk, &b->sequences, b->tokens, &r->condition.hooks,
                              s->backward && s->options->through_trunk, s->arena, err);
}

/* Reads the batch under r->notes, and writes notes of its own. */
static int read_batch(step *s, reading *r, pdt_error *err) {
  if (read_text(s, r, err)) return -1;
  r->read = r->trunk.hidden;
  if (r->trunk.inner && norm_read(s, r->trunk.inner, &r->read, err)) return -1;
  return write_notes(s, r, err) || take_gradients(s, r, err) ? -1 : 0;
}

/* L_notes and L_spec, against the teacher, on the pass that read the teacher's notes. */
static int note_losses(step *s, pdt_error *err) {
  const pdt_nn_sidecar_batch *b = s->batch;
  reading *r = &s->first;
  if (b->spec_weight)
    s->sums->speculation =
        pdt_nn_mse(r->note.note, b->teacher_notes, b->spec_weight, s->Nb, s->dn, r->dnote);
  if (!b->notes_weight || !s->sidecar->notes.w.w) return 0;
  pdt_nn_note_pass pass;
  pdt_real *dnote = NULL;
  if (pdt_nn_notes(s->sidecar, s->Nb, r->pool.pooled, &pass, s->arena, err) ||
      (s->backward && PDT_TAKE_ZEROS(s->arena, &dnote, s->Nb * s->dn, err)))
    return -1;
  s->sums->notes = pdt_nn_mse(pass.note, b->teacher_notes, b->notes_weight, s->Nb, s->dn, dnote);
  if (!s->backward) return 0;
  return pdt_nn_note_back(s->Nb, r->pool.pooled, &pass, dnote, r->dpooled, s->arena, err);
}

static int token_losses(step *s, pdt_error *err) {
  pdt_nn_head_sums head = {0};
  /* The head is the trunk's: frozen, whatever the trunk was loaded for. */
  const pdt_nn_weight frozen = {s->trunk->head.w, NULL};
  if (s->batch->targets.n > 0 &&
      pdt_nn_head_loss(frozen, s->trunk->config.vocab_size, (int32_t)s->d, s->last->trunk.hidden,
                       &s->batch->targets, s->last->dstates, &head, s->arena, err))
    return -1;
  s->sums->ce = head.ce;
  s->sums->kd = head.kd;
  memcpy(s->sums->right, head.right, sizeof head.right);
  memcpy(s->sums->tokens, head.rows, sizeof head.rows);
  memcpy(s->sums->nats, head.nats, sizeof head.nats);
  return 0;
}

static pdt_nn_agree_input agree_input(const step *s, bool reaches) {
  const reading *r = s->last;
  pdt_nn_agree_input in = {.blocks = &s->batch->blocks,
                           .plans = &s->batch->plans,
                           .windows = &s->batch->conditioning.windows,
                           .states = r->trunk.hidden,
                           .pooled = r->pool.pooled,
                           .note = r->note.note,
                           .coverage = s->coverage.logits,
                           .notes = r->notes,
                           .n_notes = s->batch->conditioning.n_notes,
                           .dcoverage = s->dcoverage};
  if (reaches) {
    in.dstates = r->dstates;
    in.dpooled = r->dpooled;
    in.dnote = r->dnote;
    in.dnotes = r->dnotes;
  }
  return in;
}

/* L_ready, which also reads coverage. */
static int ready_loss(step *s, pdt_error *err) {
  const pdt_nn_sidecar_batch *b = s->batch;
  pdt_nn_agree_input in = agree_input(s, s->backward && s->options->close_reaches);
  pdt_real *dlogits = NULL;
  if (pdt_nn_agree(s->sidecar, &in, &s->agree, s->arena, err) ||
      (s->backward && PDT_TAKE_ZEROS(s->arena, &dlogits, s->Nb, err)))
    return -1;
  s->sums->ready = pdt_nn_bce(s->agree.logits, b->ready_target, b->ready_weight, s->Nb, dlogits);
  if (!s->backward) return 0;
  return pdt_nn_agree_back(s->sidecar, &in, &s->agree, dlogits, s->arena, err);
}

/* L_cov and L_ready on the last pass. */
static int close_losses(step *s, pdt_error *err) {
  const pdt_nn_sidecar_batch *b = s->batch;
  const pdt_real *pooled = s->last->pool.pooled;
  if (!b->coverage_weight && !b->ready_weight) return 0;
  if (pdt_nn_coverage(s->sidecar, &b->blocks, &b->plans, pooled, &s->coverage, s->arena, err) ||
      (s->backward && PDT_TAKE_ZEROS(s->arena, &s->dcoverage, s->Nb * s->S, err)))
    return -1;
  if (b->coverage_weight)
    s->sums->coverage = pdt_nn_bce(s->coverage.logits, b->coverage_target, b->coverage_weight,
                                   s->Nb * s->S, s->dcoverage);
  if (b->ready_weight && ready_loss(s, err)) return -1;
  if (!s->backward) return 0;
  return pdt_nn_coverage_back(s->sidecar, &b->blocks, &b->plans, pooled, &s->coverage, s->dcoverage,
                              s->options->close_reaches ? s->last->dpooled : NULL, s->arena, err);
}

/* From the gradients of a reading's note and summaries to those of what the pool read. */
static int note_back(step *s, reading *r, pdt_error *err) {
  const pdt_nn_pool_input in = {r->read, s->embedded};
  return pdt_nn_note_back(s->Nb, r->pool.pooled, &r->note, r->dnote, r->dpooled, s->arena, err) ||
                 pdt_nn_pool_back(s->sidecar, &s->batch->blocks, &in, s->rows, &r->pool, r->dpooled,
                                  r->dread, s->arena, err)
             ? -1
             : 0;
}

/* From those of its states to those of the notes it read. */
static int text_back(step *s, reading *r, pdt_error *err) {
  pdt_real *dinner;
  r->condition.dnotes = r->dnotes;
  if (!s->options->through_trunk) return 0;
  if (r->dread && r->dread != r->dstates) {
    if (PDT_TAKE_ZEROS(s->arena, &dinner, s->rows * s->d, err)) return -1;
    pdt_nn_rms_norm_back((pdt_nn_weight){0}, eps, s->d, r->trunk.inner, s->rows, r->dread, dinner);
    r->trunk.dinner = dinner;
  }
  return pdt_nn_trunk_backward(s->trunk, &r->trunk, r->dstates, s->arena, err);
}

/* Does a loss ask what the trunk makes of the text? Notes alone do not, where the pool reads below.
 */
static bool is_read(const step *s) {
  const pdt_nn_sidecar_batch *b = s->batch;
  return b->targets.n > 0 || b->coverage_weight || b->ready_weight;
}

/* Of the one reading where notes come before it. */
static int below_back(step *s, pdt_error *err) {
  reading *r = &s->first;
  if (is_read(s) && text_back(s, r, err)) return -1;
  if (s->options->student_notes)
    pdt_nn_axpy(1, r->dnotes + s->entries * s->dn, s->Nb * s->dn, r->dnote);
  return note_back(s, r, err);
}

static int readings_back(step *s, pdt_error *err) {
  int64_t plans = s->entries * s->dn;
  if (s->below) return below_back(s, err);
  if (s->options->student_notes) {
    if (note_back(s, &s->second, err) || text_back(s, &s->second, err)) return -1;
    pdt_nn_axpy(1, s->second.dnotes + plans, s->Nb * s->dn, s->first.dnote);
  }
  if (note_back(s, &s->first, err) || text_back(s, &s->first, err)) return -1;
  if (s->options->student_notes) pdt_nn_axpy(1, s->second.dnotes, plans, s->first.dnotes);
  return 0;
}

static int step_back(step *s, pdt_error *err) {
  if (readings_back(s, err)) return -1;
  return pdt_nn_plan_notes_back(s->sidecar, &s->batch->plans, &s->plan_notes, s->first.dnotes,
                                s->arena, err);
}

/* Notes of a pass: the plans', then `notes` of the blocks, and where some are altered, what
 * siblings read of these: of the first pass, whose plans' are yet to come, the same. */
static int gather_notes(step *s, const pdt_real *plan_notes, const pdt_real *notes, pdt_real **out,
                        pdt_error *err) {
  const pdt_nn_step_options *o = s->options;
  int64_t plans = s->entries * s->dn, blocks = s->Nb * s->dn;
  if (PDT_TAKE(s->arena, out, plans + (o->alter ? 2 : 1) * blocks, err)) return -1;
  pdt_real *own = *out + plans, *read = own + blocks;
  if (plan_notes) memcpy(*out, plan_notes, (size_t)plans * sizeof **out);
  memcpy(own, notes, (size_t)blocks * sizeof **out);
  if (o->alter && (plan_notes || o->alter_always))
    o->alter(o->alter_context, own, read);
  else if (o->alter)
    memcpy(read, notes, (size_t)blocks * sizeof **out);
  return 0;
}

/* Where the passes of this step begin. */
static int find_lower(step *s, pdt_error *err) {
  const pdt_nn_sidecar_batch *b = s->batch;
  int32_t layers = pdt_nn_lower_layers(&s->sidecar->config);
  pdt_real *x;
  s->lower = b->lower;
  if (s->lower || !s->below) return 0;
  if (PDT_TAKE(s->arena, &x, s->rows * s->d, err)) return -1;
  s->lower = x;
  return pdt_nn_trunk_lower(s->trunk, &b->sequences, b->tokens, layers, x, s->arena, err);
}

/* The pool reads where the pass begins: notes are there before anything reads them. */
static int read_below(step *s, pdt_error *err) {
  reading *r = &s->first;
  if (norm_read(s, s->lower, &r->read, err) || write_notes(s, r, err) ||
      take_gradients(s, r, err) || note_losses(s, err))
    return -1;
  if (s->options->student_notes) {
    if (gather_notes(s, s->first_notes, r->note.note, &s->second_notes, err)) return -1;
    r->notes = s->second_notes;
  }
  return is_read(s) ? read_text(s, r, err) : 0;
}

static int read_twice(step *s, pdt_error *err) {
  if (read_batch(s, &s->first, err) || note_losses(s, err)) return -1;
  if (!s->options->student_notes) return 0;
  if (gather_notes(s, s->first_notes, s->first.note.note, &s->second_notes, err)) return -1;
  s->second.notes = s->second_notes;
  s->last = &s->second;
  return read_batch(s, &s->second, err);
}

static int forward(step *s, pdt_error *err) {
  const pdt_nn_sidecar_batch *b = s->batch;
  if (plan_loss(s, err) || gather_notes(s, NULL, b->teacher_notes, &s->first_notes, err) ||
      pdt_nn_plan_notes(s->sidecar, &b->plans, &s->plan_notes, s->first_notes, s->arena, err) ||
      find_embedded(s, err) || find_lower(s, err))
    return -1;
  s->first.notes = s->first_notes;
  s->last = &s->first;
  if (s->below ? read_below(s, err) : read_twice(s, err)) return -1;
  return token_losses(s, err) || close_losses(s, err) ? -1 : 0;
}

int32_t pdt_nn_lower_layers(const pdt_sidecar_config *config) {
  int32_t lowest = config->instrumented[0], pool = config->pool_layers;
  return pool > 0 && pool < lowest ? pool : lowest;
}

int pdt_nn_sidecar_step(const pdt_nn_trunk *trunk, const pdt_nn_sidecar *sidecar,
                        const pdt_nn_sidecar_batch *batch, const pdt_nn_step_options *options,
                        bool backward, pdt_nn_step_sums *sums, pdt_nn_step_results *results,
                        pdt_arena *arena, pdt_error *err) {
  step s = {.trunk = trunk,
            .sidecar = sidecar,
            .batch = batch,
            .options = options,
            .backward = backward,
            .sums = sums,
            .arena = arena,
            .rows = batch->sequences.begin[batch->sequences.n],
            .d = sidecar->config.hidden_size,
            .dn = sidecar->config.notes_dim,
            .p = pdt_sidecar_pooled(&sidecar->config),
            .S = sidecar->config.plan_slots,
            .Nb = batch->blocks.n,
            .entries = batch->plans.n,
            .below = sidecar->config.pool_layers > 0 &&
                     sidecar->config.pool_layers <= sidecar->config.instrumented[0]};
  *sums = (pdt_nn_step_sums){0};
  if (forward(&s, err)) return -1;
  if (results)
    *results = (pdt_nn_step_results){s.last->trunk.hidden, s.last->note.note, s.coverage.logits,
                                     s.agree.logits};
  return backward ? step_back(&s, err) : 0;
}

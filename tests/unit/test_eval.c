/* The ledger of rollouts and the judge: on sessions written by hand, where every label is known,
 * and against the labels of generated data, which are made in another way. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "atlas/generate.h"
#include "atlas/vocabulary.h"
#include "data/tokens.h"
#include "eval/judge.h"

enum { FOUNDER, YEAR, GOOD, COIN, RIVER, TOWER, FESTIVAL, PATRON, DISH, DRINK };
enum { STREAMS = 2, MOST_WINDOW = 512, MOST_WRITTEN = 4096 };

/* A session of two streams, history (founder, year) and trade (good, coin), written block by block.
 */
typedef struct fixture {
  pdt_atlas_world *world;
  pdt_tokenizer *tokenizer;
  uint64_t fingerprint;
  pdt_error err;
  pdt_rollout rollout;
  pdt_bus bus;
  pdt_round round;
  pdt_rollout_block blocks[STREAMS];
  pdt_token *tokens[STREAMS]; /* of this round's blocks */
  pdt_token written[STREAMS][MOST_WRITTEN];
  pdt_rollout_output outputs[STREAMS]; /* after the last decision, in `written` */
} fixture;

static int setup(void **state) {
  fixture *f = calloc(1, sizeof *f);
  if (!f) return -1;
  *state = f;
  return pdt_atlas_world_new(&f->world, PDT_ATLAS_SYLLABLES, &f->err) ||
         pdt_atlas_tokenizer(f->world, &f->tokenizer, &f->fingerprint, &f->err);
}

static int teardown(void **state) {
  fixture *f = *state;
  pdt_rollout_free(&f->rollout);
  pdt_bus_free(&f->bus);
  for (pdt_stream k = 0; k < STREAMS; k++) free(f->tokens[k]);
  pdt_tokenizer_free(f->tokenizer);
  pdt_atlas_world_free(f->world);
  free(f);
  return 0;
}

static void check(const fixture *f, int rc) {
  if (rc) fail_msg("%s", f->err.message);
}

/* ---- a session by hand ---- */

static pdt_rollout_owners two_sections(void) {
  pdt_rollout_owners owners = {.streams = STREAMS};
  for (int32_t t = 0; t < PDT_ATLAS_TYPES; t++) owners.of[t] = t < 4 ? t / 2 : PDT_NO_OWNER;
  return owners;
}

/* Starts one; what was there is forgotten. */
static void begin(fixture *f) {
  static pdt_token *const none[STREAMS] = {NULL};
  static const int32_t zeros[STREAMS] = {0};
  const pdt_rollout_reader reader = {f->world, f->tokenizer};
  const pdt_rollout_owners owners = two_sections();
  pdt_rollout_free(&f->rollout);
  pdt_bus_free(&f->bus);
  check(f, pdt_rollout_new(&f->rollout, &reader, &owners, none, zeros, &f->err));
  check(f, pdt_bus_new(&f->bus, 1, (pdt_window_rule){1, MOST_WINDOW}, MOST_WINDOW, &f->err));
  check(f, pdt_bus_publish(&f->bus, 0, PDT_PLANNER, &f->err));
  f->round = 1;
  for (pdt_stream k = 0; k < STREAMS; k++)
    f->outputs[k] = (pdt_rollout_output){f->written[k], 0, 0};
}

static pdt_token *encode(fixture *f, const char *text, int32_t *n) {
  pdt_token *ids;
  check(f, pdt_tokenizer_encode(f->tokenizer, text, strlen(text), false, &ids, n, &f->err));
  return ids;
}

/* Stream k emits a block in this round; "<|end|>" in it ends the stream. */
static const pdt_rollout_block *emit(fixture *f, pdt_stream k, const char *text) {
  int32_t window[MOST_WINDOW], n;
  pdt_note_name names[MOST_WINDOW];
  int32_t n_window = pdt_bus_window(&f->bus, f->round, window);
  for (int32_t i = 0; i < n_window; i++) names[i] = f->bus.notes[window[i]].name;
  free(f->tokens[k]);
  f->tokens[k] = encode(f, text, &n);
  const pdt_rollout_emission emission = {.stream = k,
                                         .round = f->round,
                                         .tokens = f->tokens[k],
                                         .n = n,
                                         .ended = strstr(text, PDT_ATLAS_END) != NULL,
                                         .window = names,
                                         .n_window = n_window};
  check(f, pdt_rollout_label(&f->rollout, &emission, &f->blocks[k], &f->err));
  return &f->blocks[k];
}

/* Ends the round. */
static void decide(fixture *f, bool gate, pdt_action first, pdt_action second) {
  const pdt_action actions[STREAMS] = {first, second};
  for (pdt_stream k = 0; k < STREAMS; k++) {
    const pdt_rollout_stream *s = &f->rollout.streams[k];
    pdt_round pending = s->n_blocks > s->n_committed ? s->blocks[s->n_committed].round : 0;
    pdt_rollout_output *o = &f->outputs[k];
    bool emitted = actions[k] != PDT_ACTION_NONE;
    if (actions[k] == PDT_ACTION_ROLLBACK)
      o->n = o->n_committed;
    else if (emitted)
      for (int32_t i = 0; i < f->blocks[k].n; i++) f->written[k][o->n++] = f->tokens[k][i];
    if (gate || actions[k] == PDT_ACTION_FORCE) o->n_committed = o->n;
    check(f, pdt_rollout_follow(&f->rollout, k, o, emitted ? &f->blocks[k] : NULL, &f->err));
    if (actions[k] == PDT_ACTION_ROLLBACK && pending > 0) pdt_bus_withdraw(&f->bus, k, pending);
    if (actions[k] != PDT_ACTION_NONE && actions[k] != PDT_ACTION_ROLLBACK)
      check(f, pdt_bus_publish(&f->bus, f->round, k, &f->err));
  }
  f->round++;
}

static void commit(fixture *f) {
  decide(f, true, PDT_ACTION_COMMIT, PDT_ACTION_COMMIT);
}

/* A text with the type's value in place of '_'. */
static const char *with(const fixture *f, const char *form, int32_t type, int32_t value) {
  static char text[8][256];
  static int next;
  char *out = text[next++ % 8];
  const char *hole = strchr(form, '_');
  snprintf(out, sizeof text[0], "%.*s%s%s", (int)(hole - form), form, f->world->names[type][value],
           hole + 1);
  return out;
}

static uint32_t bit(int32_t type) {
  return 1u << type;
}

/* ---- owners ---- */

static void owners_are_read_from_sections(void **state) {
  fixture *f = *state;
  pdt_data_section sections[2] = {{.name = (char[]){"food"}}, {.name = (char[]){"history"}}};
  const pdt_data_entry e = {.n_sections = 2, .sections = sections};
  pdt_rollout_owners owners;
  check(f, pdt_rollout_owners_of(&owners, &e, &f->err));
  assert_int_equal(owners.of[FOUNDER], 1);
  assert_int_equal(owners.of[DRINK], 0);
  assert_int_equal(owners.of[RIVER], PDT_NO_OWNER);
  sections[1].name = sections[0].name;
  assert_int_equal(pdt_rollout_owners_of(&owners, &e, &f->err), -1);
  sections[1].name = (char[]){"weather"};
  assert_int_equal(pdt_rollout_owners_of(&owners, &e, &f->err), -1);
  assert_non_null(strstr(f->err.message, "weather"));
}

/* ---- texts ---- */

static void names_are_found_with_their_tokens(void **state) {
  fixture *f = *state;
  const pdt_rollout_reader reader = {f->world, f->tokenizer};
  pdt_rollout_text text = {0};
  int32_t n, n_prefix;
  pdt_token *prefix = encode(f, "\nHistory:", &n_prefix);
  pdt_token *ids =
      encode(f, with(f, " It was _ who first settled here. Entry costs one", 0, 3), &n);
  check(f, pdt_rollout_read(&text, &reader, prefix, n_prefix, ids, n, false, &f->err));
  assert_int_equal(text.n_tokens, n);
  assert_int_equal(text.text.bytes, text.ends[n - 1]);
  assert_memory_equal(text.text.data, " It was ", 8); /* the prefix is not in it */
  assert_int_equal(text.n_mentions, 1);
  const pdt_rollout_mention *m = &text.mentions[0];
  assert_int_equal(m->kind, PDT_STATES);
  assert_int_equal(m->value, 3);
  assert_int_equal(m->first, 2);
  assert_int_equal(m->last, 2);
  assert_false(m->open);
  assert_true(text.reading.open); /* "Entry costs one" */
  free(prefix);
  free(ids);
  pdt_rollout_text_free(&text);
}

static void names_at_the_end_are_open(void **state) {
  fixture *f = *state;
  const pdt_rollout_reader reader = {f->world, f->tokenizer};
  pdt_rollout_text text = {0};
  int32_t n;
  pdt_token *ids = encode(f, with(f, " Entry costs one _", COIN, 50), &n);
  assert_int_equal(n, 5); /* a name of two tokens */
  for (int32_t some = 4; some <= 5; some++)
    for (int ended = 0; ended < 2; ended++) {
      check(f, pdt_rollout_read(&text, &reader, NULL, 0, ids, some, ended, &f->err));
      assert_int_equal(text.n_mentions, 1);
      assert_int_equal(text.mentions[0].open, !ended);
      assert_int_equal(text.mentions[0].value, some == 5 ? 50 : PDT_UNKNOWN_VALUE);
      assert_int_equal(text.mentions[0].first, 3);
      assert_int_equal(text.mentions[0].last, some - 1);
    }
  check(f, pdt_rollout_read(&text, &reader, NULL, 0, NULL, 0, false, &f->err));
  assert_int_equal(text.n_mentions, 0);
  free(ids);
  pdt_rollout_text_free(&text);
}

/* ---- labels ---- */

/* A name that a block emits last is stated by the next one, which reads it. */
static void a_statement_counts_where_it_is_read(void **state) {
  fixture *f = *state;
  begin(f);
  assert_int_equal(emit(f, 0, with(f, " It was _", FOUNDER, 3))->stated, 0);
  emit(f, 1, " Rain is common");
  commit(f);
  const pdt_rollout_block *b = emit(f, 0, " who first settled");
  assert_int_equal(b->stated, bit(FOUNDER)); /* the sentence is not at its end */
  assert_int_equal(b->value[FOUNDER], 3);
  emit(f, 1, " in spring.");
  commit(f);
  b = emit(f, 0, " here.");
  assert_int_equal(b->stated, 0);
  assert_true(b->ready && b->agrees);
  assert_int_equal(b->begin, 6);
  assert_int_equal(b->n, 2);
}

/* Uses wait for the note, and may be of another name than it says. */
static void a_use_needs_the_note(void **state) {
  fixture *f = *state;
  begin(f);
  emit(f, 0, with(f, " By all accounts the founder was _.", FOUNDER, 3));
  const pdt_rollout_block *b = emit(f, 1, with(f, " A statue of _ stands nearby.", FOUNDER, 3));
  assert_int_equal(b->used, bit(FOUNDER));
  assert_int_equal(b->seen, 0); /* nobody sees a note of the same round */
  assert_true(!b->ready && b->agrees);
  commit(f);
  emit(f, 0, " The roads are good.");
  b = emit(f, 1, with(f, " Children sing of _ and the early days.", FOUNDER, 3));
  assert_int_equal(b->seen, bit(FOUNDER));
  assert_int_equal(b->seen_in[FOUNDER], 1);
  assert_true(b->ready && b->agrees);
  b = emit(f, 1, with(f, " Children sing of _ and the early days.", FOUNDER, 4));
  assert_true(b->ready && !b->agrees);
  b = emit(f, 1, " Children sing of the and the early days.");
  assert_true(b->ready && !b->agrees); /* no name at all */
  b = emit(f, 1, with(f, " It was _ who first settled here.", FOUNDER, 4));
  assert_true(b->ready && !b->agrees); /* told as if it were its own */
  assert_int_equal(b->stated, 0);
  b = emit(f, 1, with(f, " Boys swim in the _ each summer.", RIVER, 4));
  assert_int_equal(b->used, 0); /* nobody's fact needs nothing */
  assert_true(b->ready && b->agrees);
  assert_int_equal(f->rollout.streams[1].n_blocks, 1); /* labels change nothing */
}

/* Who has stated a fact keeps to it, in whatever sentence. */
static void an_owner_keeps_to_its_name(void **state) {
  fixture *f = *state;
  begin(f);
  const pdt_rollout_block *b =
      emit(f, 0, with(f, " By all accounts the founder was _.", FOUNDER, 3));
  assert_true(b->agrees); /* there is nothing to keep to */
  commit(f);
  b = emit(f, 0, with(f, " It was _ who first settled here.", FOUNDER, 3));
  assert_true(b->agrees);
  b = emit(f, 0, with(f, " It was _ who first settled here.", FOUNDER, 4));
  assert_true(b->ready && !b->agrees);
  b = emit(f, 0, with(f, " A statue of _ stands nearby.", FOUNDER, 4));
  assert_true(b->ready && !b->agrees);
  b = emit(f, 0, with(f, " A statue of _ stands nearby.", FOUNDER, 3));
  assert_true(b->agrees);
  emit(f, 0, with(f, " It was _ who first settled here.", FOUNDER, 4));
  commit(f);
  b = emit(f, 0, " The roads are good.");
  assert_true(b->agrees); /* it is not this block that differs */
}

/* A name of two tokens on both sides of a border: used in both blocks, stated in the second. */
static void names_of_two_tokens_may_be_split(void **state) {
  fixture *f = *state;
  const char *name = f->world->names[GOOD][50], *space = strchr(name, ' ');
  char first[64], second[64];
  snprintf(first, sizeof first, " Its main good is %.*s", (int)(space - name), name);
  snprintf(second, sizeof second, "%s.", space);
  begin(f);
  emit(f, 0, " It is a quiet place.");
  assert_int_equal(emit(f, 1, first)->stated, 0);
  commit(f);
  emit(f, 0, " The roads are good.");
  const pdt_rollout_block *b = emit(f, 1, second);
  assert_int_equal(b->stated, bit(GOOD));
  assert_int_equal(b->value[GOOD], 50);
  commit(f);
  snprintf(first, sizeof first, " The smell of %.*s", (int)(space - name), name);
  snprintf(second, sizeof second, "%s is everywhere.", space);
  b = emit(f, 0, first);
  assert_int_equal(b->used, bit(GOOD));
  assert_true(b->ready && b->agrees); /* as far as it goes */
  emit(f, 1, " Rain is common in spring.");
  commit(f);
  b = emit(f, 0, second);
  assert_int_equal(b->used, bit(GOOD));
  assert_true(b->ready && b->agrees);
  b = emit(f, 0, " is everywhere.");
  assert_int_equal(b->used, 0); /* the name is over: its first half is the block's before */
}

/* A held block's note is seen; after the rollback it is not, and the statement made again counts.
 */
static void rollback_takes_statements_back(void **state) {
  fixture *f = *state;
  begin(f);
  emit(f, 0, " It is a quiet place.");
  emit(f, 1, " The roads are good.");
  commit(f);
  emit(f, 0, with(f, " Its charter was sealed in _.", YEAR, 5));
  emit(f, 1, " Rain is common in spring.");
  decide(f, false, PDT_ACTION_HOLD, PDT_ACTION_ROLLBACK);
  assert_int_equal(f->rollout.streams[0].n_blocks, 2);
  assert_int_equal(f->rollout.streams[0].n_committed, 1);
  assert_int_equal(f->rollout.streams[1].n_blocks, 1);
  emit(f, 0, " Winters are long here.");
  const pdt_rollout_block *b = emit(f, 1, with(f, " Little has changed since _.", YEAR, 5));
  assert_int_equal(b->begin, 5); /* behind its first block */
  assert_int_equal(b->seen_in[YEAR], 2);
  assert_true(b->ready && b->agrees);
  decide(f, false, PDT_ACTION_ROLLBACK, PDT_ACTION_HOLD);
  assert_int_equal(f->rollout.streams[0].n_blocks, 1);
  assert_int_equal(f->rollout.streams[0].n_tokens, 6);
  emit(f, 0, with(f, " Its charter was sealed in _.", YEAR, 6));
  b = emit(f, 1, with(f, " Little has changed since _.", YEAR, 5));
  assert_int_equal(b->seen, 0);
  assert_false(b->ready);
  decide(f, false, PDT_ACTION_HOLD, PDT_ACTION_ROLLBACK);
  assert_int_equal(f->rollout.streams[1].n_blocks, 1); /* the held one too */
  b = emit(f, 1, with(f, " Little has changed since _.", YEAR, 5));
  assert_int_equal(b->seen_in[YEAR], 4);
  assert_true(b->ready && !b->agrees);
  decide(f, false, PDT_ACTION_NONE, PDT_ACTION_FORCE);
  assert_int_equal(f->rollout.streams[1].n_committed, 2);
  assert_int_equal(f->rollout.streams[0].n_committed, 1);
  decide(f, true, PDT_ACTION_NONE, PDT_ACTION_NONE);
  assert_int_equal(f->rollout.streams[0].n_committed, 2);
  assert_ptr_equal(pdt_rollout_block_of(&f->rollout.streams[0], 6),
                   &f->rollout.streams[0].blocks[1]);
  assert_null(pdt_rollout_block_of(&f->rollout.streams[0], 99));
}

/* ---- labels of data ---- */

static uint32_t types_of(const fixture *f, const pdt_data_entry *e, uint64_t facts) {
  uint32_t types = 0;
  for (int32_t i = 0; i < e->n_facts; i++)
    if (facts >> i & 1) types |= bit(pdt_atlas_type(f->world, e->facts[i].type));
  return types;
}

/* The text of an entry as a session in lockstep whose streams write just that. */
typedef struct playback {
  const pdt_data_entry *e;
  const pdt_data_rounds *rounds;
  pdt_token *ids[PDT_ATLAS_SECTIONS];
  pdt_rollout rollout;
  pdt_bus bus;
} playback;

static void play_round(fixture *f, playback *p, int32_t b) {
  static pdt_rollout_block blocks[PDT_ATLAS_SECTIONS];
  int32_t window[MOST_WINDOW], tau = p->rounds->block_tokens;
  pdt_note_name names[MOST_WINDOW];
  int32_t n_window = pdt_bus_window(&p->bus, b + 1, window);
  for (int32_t i = 0; i < n_window; i++) names[i] = p->bus.notes[window[i]].name;
  for (pdt_stream k = 0; k < p->e->n_sections; k++) {
    const pdt_data_section *s = &p->e->sections[k];
    if (b >= s->n_blocks) continue;
    int32_t left = s->n_tokens - b * tau, n = left < tau ? left : tau;
    const pdt_rollout_emission emission = {k,     b + 1,   p->ids[k] + b * tau, n, left <= tau,
                                           names, n_window};
    check(f, pdt_rollout_label(&p->rollout, &emission, &blocks[k], &f->err));
    assert_int_equal(blocks[k].stated, types_of(f, p->e, s->blocks[b].stated));
    assert_int_equal(blocks[k].used, types_of(f, p->e, s->blocks[b].used));
    assert_int_equal(blocks[k].ready, s->blocks[b].ready);
    assert_true(blocks[k].agrees);
  }
  for (pdt_stream k = 0; k < p->e->n_sections; k++) {
    if (b >= p->e->sections[k].n_blocks) continue;
    int32_t n = blocks[k].begin + blocks[k].n;
    const pdt_rollout_output output = {p->ids[k], n, n};
    check(f, pdt_rollout_follow(&p->rollout, k, &output, &blocks[k], &f->err));
    check(f, pdt_bus_publish(&p->bus, b + 1, k, &f->err));
  }
}

/* Nothing in what was written contradicts anything, and everything is there. */
static void judge_playback(fixture *f, const playback *p) {
  pdt_rollout_text texts[PDT_ATLAS_SECTIONS] = {{.n_tokens = 0}};
  pdt_judge_section sections[PDT_ATLAS_SECTIONS];
  pdt_judge_counts counts = {0};
  int64_t uses = 0;
  for (pdt_stream k = 0; k < p->e->n_sections; k++) {
    const pdt_rollout_stream *s = &p->rollout.streams[k];
    sections[k] = (pdt_judge_section){.text = &texts[k], .stream = s};
    check(f, pdt_rollout_read(&texts[k], &p->rollout.reader, NULL, 0, s->tokens, s->n_tokens, true,
                              &f->err));
    for (int32_t i = 0; i < p->e->sections[k].n_mentions; i++)
      uses += p->e->sections[k].mentions[i].kind == PDT_USES;
  }
  pdt_judge_entry(f->world, &p->rollout.owners, sections, NULL, &counts);
  assert_int_equal(counts.uses, uses);
  assert_int_equal(counts.contradictions, 0);
  assert_int_equal(counts.missing + counts.duplicates + counts.malformed + counts.unfinished, 0);
  assert_int_equal(counts.facts, p->e->n_facts);
  for (pdt_stream k = 0; k < p->e->n_sections; k++) pdt_rollout_text_free(&texts[k]);
}

static void play(fixture *f, const pdt_data_entry *e, const pdt_data_rounds *rounds) {
  static pdt_token *const none[PDT_ATLAS_SECTIONS] = {NULL};
  static const int32_t zeros[PDT_ATLAS_SECTIONS] = {0};
  const pdt_rollout_reader reader = {f->world, f->tokenizer};
  pdt_token end = pdt_tokenizer_token_id(f->tokenizer, PDT_ATLAS_END);
  playback p = {.e = e, .rounds = rounds};
  pdt_rollout_owners owners;
  int32_t most = 0;
  const pdt_window_rule rule = {rounds->reveal_delay,
                                rounds->window ? rounds->window : MOST_WINDOW};
  check(f, pdt_rollout_owners_of(&owners, e, &f->err));
  check(f, pdt_rollout_new(&p.rollout, &reader, &owners, none, zeros, &f->err));
  check(f, pdt_bus_new(&p.bus, 1, rule, MOST_WINDOW, &f->err));
  check(f, pdt_bus_publish(&p.bus, 0, PDT_PLANNER, &f->err));
  for (pdt_stream k = 0; k < e->n_sections; k++) {
    pdt_data_tokens places;
    check(f, pdt_data_tokenize(f->tokenizer, NULL, e->sections[k].prefix, e->sections[k].text,
                               &places, &p.ids[k], &f->err));
    p.ids[k] = realloc(p.ids[k], ((size_t)places.n + 1) * sizeof *p.ids[k]);
    assert_non_null(p.ids[k]);
    p.ids[k][places.n] = end;
    free(places.ends);
    if (e->sections[k].n_blocks > most) most = e->sections[k].n_blocks;
  }
  for (int32_t b = 0; b < most; b++) play_round(f, &p, b);
  judge_playback(f, &p);
  for (pdt_stream k = 0; k < e->n_sections; k++) free(p.ids[k]);
  pdt_rollout_free(&p.rollout);
  pdt_bus_free(&p.bus);
}

static void labels_are_those_of_data(void **state) {
  static const pdt_data_rounds rounds[] = {{6, 1, 0}, {4, 1, 0},  {8, 2, 0},
                                           {6, 1, 9}, {1, 3, 17}, {64, 1, 4}};
  fixture *f = *state;
  for (size_t i = 0; i < sizeof rounds / sizeof *rounds; i++)
    for (int hard = 0; hard < 2; hard++) {
      pdt_atlas_generator g;
      const pdt_atlas_options options = {.seed = 5,
                                         .hard = hard,
                                         .min_sections = 2,
                                         .max_sections = 6,
                                         .min_tokens = 30,
                                         .max_tokens = 80,
                                         .rounds = rounds[i],
                                         .plan_slots = 16,
                                         .plan_vocab_size = 65536,
                                         .plan_salt = "salt"};
      if (!hard && rounds[i].block_tokens > PDT_ATLAS_MAX_TAU) continue;
      check(f, pdt_atlas_generator_init(&g, f->world, f->tokenizer, &options, &f->err));
      for (uint32_t n = 0; n < 20; n++) {
        pdt_data_entry e = {0};
        check(f, pdt_atlas_generate(&g, n, &e, &f->err));
        play(f, &e, &rounds[i]);
        pdt_data_entry_free(&e);
      }
      pdt_atlas_generator_free(&g);
    }
}

/* ---- the judge ---- */

/* Adds what the fixture's session wrote to counts. */
static void judge_lent(fixture *f, bool unfinished, bool blocks, const pdt_judge_lent *lent,
                       pdt_judge_counts *counts) {
  pdt_rollout_text texts[STREAMS] = {{.n_tokens = 0}};
  pdt_judge_section sections[STREAMS];
  for (pdt_stream k = 0; k < STREAMS; k++) {
    const pdt_rollout_stream *s = &f->rollout.streams[k];
    sections[k] = (pdt_judge_section){
        .text = &texts[k], .stream = blocks ? s : NULL, .unfinished = unfinished};
    check(f, pdt_rollout_read(&texts[k], &f->rollout.reader, NULL, 0, s->tokens, s->n_tokens,
                              !unfinished, &f->err));
  }
  pdt_judge_entry(f->world, &f->rollout.owners, sections, lent, counts);
  for (pdt_stream k = 0; k < STREAMS; k++) pdt_rollout_text_free(&texts[k]);
}

static void judge(fixture *f, bool unfinished, bool blocks, pdt_judge_counts *counts) {
  judge_lent(f, unfinished, blocks, NULL, counts);
}

/* A whole round of committed blocks. */
static void write_round(fixture *f, const char *first, const char *second) {
  emit(f, 0, first);
  emit(f, 1, second);
  commit(f);
}

static void what_is_missing_is_counted(void **state) {
  fixture *f = *state;
  pdt_judge_counts c = {0};
  begin(f);
  write_round(f, with(f, " It was _ who first settled here.", FOUNDER, 1),
              with(f, " Its main good is _.", GOOD, 2));
  write_round(f, with(f, " By all accounts the founder was _.", FOUNDER, 1),
              with(f, " The smell of _ is everywhere.", GOOD, 3)); /* its own: no use */
  write_round(f, " The good roads are.", with(f, " Boys swim in the _ each summer.", RIVER, 1));
  write_round(f, with(f, " Entry costs one _.", COIN, 1), " It is a");
  judge(f, false, true, &c);
  assert_int_equal(c.facts, 4);
  assert_int_equal(c.missing, 2); /* year and coin */
  assert_int_equal(c.duplicates, 1);
  assert_int_equal(c.sentences, 8);
  assert_int_equal(c.malformed, 2); /* one ends in the middle */
  assert_int_equal(c.ownerless, 1);
  assert_int_equal(c.unstated, 1);
  assert_int_equal(c.uses, 0);
  assert_int_equal(c.flawed, 1); /* entries, however much is wrong with one */
  c = (pdt_judge_counts){0};
  judge(f, true, true, &c);
  assert_int_equal(c.unfinished, 2);
  assert_int_equal(c.malformed, 1); /* it might have gone on */
}

/* Every kind of flaw makes an entry count, alone and once; a sound one does not. */
static void entries_with_anything_wrong_are_counted(void **state) {
  fixture *f = *state;
  const char *good = " Its main good is _.", *coin = " The local coin is the _.";
  const char *const flaws[] = {NULL, " The good roads are.",       /* malformed */
                               " The first house was built by _.", /* stated again */
                               " Boys swim in the _ each summer.", /* nobody's */
                               NULL};                              /* unfinished */
  pdt_judge_counts c = {0};
  for (int i = 0; i < 5; i++) {
    begin(f);
    write_round(f, with(f, " It was _ who first settled here.", FOUNDER, 1),
                with(f, good, GOOD, 2));
    write_round(f, with(f, " Its charter was sealed in _.", YEAR, 1), with(f, coin, COIN, 3));
    const char *hole = flaws[i] ? strchr(flaws[i], '_') : NULL;
    if (flaws[i])
      write_round(f, hole ? with(f, flaws[i], i == 2 ? FOUNDER : RIVER, 1) : flaws[i],
                  with(f, " A statue of _ stands nearby.", FOUNDER, 1));
    judge(f, i == 4, true, &c);
    assert_int_equal(c.entries, i + 1);
    assert_int_equal(c.flawed, i);
  }
}

static void contradictions_have_causes(void **state) {
  fixture *f = *state;
  pdt_judge_counts c = {0};
  begin(f);
  write_round(f, with(f, " It was _ who first settled here.", FOUNDER, 1),
              with(f, " A statue of _ stands nearby.", FOUNDER, 2)); /* unseen */
  write_round(f, " The roads are good.", with(f, " A statue of _ stands nearby.", FOUNDER, 2));
  write_round(f, " The roads are good.", with(f, " A statue of _ stands nearby.", FOUNDER, 1));
  write_round(f, " The roads are good.", with(f, " It was _ who first settled here.", FOUNDER, 5));
  judge(f, true, true, &c);
  assert_int_equal(c.uses, 4);
  assert_int_equal(c.contradictions, 3);
  assert_int_equal(c.strays, 1);
  assert_int_equal(c.causes[PDT_CAUSE_UNSEEN], 1);
  assert_int_equal(c.causes[PDT_CAUSE_NAME], 2);
  assert_int_equal(c.mistaken, 3);
  c = (pdt_judge_counts){0};
  judge(f, true, false, &c); /* without blocks, nothing is known of what was visible */
  assert_int_equal(c.contradictions, 3);
  assert_int_equal(c.causes[PDT_CAUSE_NAME], 3);
}

/* In one text what stands before the statement could not know it. */
static void sections_of_one_text_have_an_order(void **state) {
  fixture *f = *state;
  for (int32_t second = 0; second < 2; second++) {
    pdt_rollout_text texts[STREAMS] = {{.n_tokens = 0}};
    pdt_judge_section sections[STREAMS];
    pdt_judge_counts c = {0};
    begin(f);
    write_round(f, with(f, " It was _ who first settled here.", FOUNDER, 1),
                " A statue of the stands nearby."); /* no name at all */
    for (pdt_stream k = 0; k < STREAMS; k++) {
      const pdt_rollout_stream *s = &f->rollout.streams[k];
      sections[k] = (pdt_judge_section){.text = &texts[k], .place = 1 + (k == second ? 40 : 0)};
      check(f, pdt_rollout_read(&texts[k], &f->rollout.reader, NULL, 0, s->tokens, s->n_tokens,
                                true, &f->err));
    }
    pdt_judge_entry(f->world, &f->rollout.owners, sections, NULL, &c);
    assert_int_equal(c.contradictions, 1);
    assert_int_equal(c.mistaken, 0);
    assert_int_equal(c.causes[second == 0 ? PDT_CAUSE_UNSEEN : PDT_CAUSE_OTHER], 1);
    for (pdt_stream k = 0; k < STREAMS; k++) pdt_rollout_text_free(&texts[k]);
  }
}

static void crowded_and_withdrawn(void **state) {
  fixture *f = *state;
  pdt_judge_counts c = {0};
  char text[256];
  begin(f);
  snprintf(text, sizeof text, " Founder %s; year %s. Rain", f->world->names[FOUNDER][1],
           f->world->names[YEAR][1]);
  write_round(f, text, " The roads are good.");
  write_round(f, " is common in spring.", with(f, " A statue of _ stands nearby.", FOUNDER, 2));
  judge(f, true, true, &c);
  assert_int_equal(c.causes[PDT_CAUSE_CROWDED], 1);
  c = (pdt_judge_counts){0};
  begin(f);
  emit(f, 0, with(f, " It was _ who first settled here.", FOUNDER, 1));
  emit(f, 1, " The roads are good.");
  decide(f, false, PDT_ACTION_HOLD, PDT_ACTION_ROLLBACK);
  emit(f, 0, " Rain is common in spring.");
  emit(f, 1, with(f, " A statue of _ stands nearby.", FOUNDER, 1));
  decide(f, false, PDT_ACTION_ROLLBACK, PDT_ACTION_HOLD);
  write_round(f, with(f, " It was _ who first settled here.", FOUNDER, 7),
              " Winters are long here.");
  judge(f, true, true, &c);
  assert_int_equal(c.contradictions, 1);
  assert_int_equal(c.causes[PDT_CAUSE_WITHDRAWN], 1);
}

/* Two values of a type that begin alike. */
static void same_first_half(const fixture *f, int32_t type, int32_t *a, int32_t *b) {
  for (*a = f->world->n_ones[type]; *a < f->world->n_values[type]; ++*a)
    for (*b = *a + 1; *b < f->world->n_values[type]; ++*b)
      if (f->world->name_words[type][*a][0] == f->world->name_words[type][*b][0]) return;
  fail_msg("no two names of type %d begin alike", type);
}

static void split_and_second(void **state) {
  fixture *f = *state;
  int32_t a = 0, b = 0;
  pdt_judge_counts c = {0};
  char first[64];
  same_first_half(f, GOOD, &a, &b);
  const char *name = f->world->names[GOOD][a], *space = strchr(name, ' ');
  begin(f);
  write_round(f, " The roads are good.", with(f, " Its main good is _. The", GOOD, a));
  write_round(f, with(f, " The smell of _ is everywhere.", GOOD, b), " roads are good.");
  judge(f, true, true, &c);
  assert_int_equal(c.causes[PDT_CAUSE_SECOND], 1);
  c = (pdt_judge_counts){0};
  begin(f);
  snprintf(first, sizeof first, " Its main good is %.*s", (int)(space - name), name);
  write_round(f, " The roads are good.", " The roads are good.");
  write_round(f, " The roads are good.", first);
  write_round(f, " The roads are good.", space);
  write_round(f, " The roads are good.", ". Rain is common in spring.");
  write_round(f, with(f, " The smell of _ is everywhere.", GOOD, b), " It is a quiet place.");
  judge(f, true, true, &c);
  assert_int_equal(c.causes[PDT_CAUSE_SPLIT], 1);
}

/* Of uses of a fact that notes told otherwise: the owner's name, what was lent, another; one that
 * was made before any note told it does not count. */
static void uses_of_lent_facts_are_told_apart(void **state) {
  fixture *f = *state;
  const char *use = " By all accounts the founder was _.";
  pdt_judge_lent lent = {.types = bit(FOUNDER)};
  pdt_judge_counts c = {0};
  lent.value[FOUNDER] = 2;
  begin(f);
  write_round(f, with(f, " It was _ who first settled here.", FOUNDER, 1),
              with(f, use, FOUNDER, 2));
  write_round(f, " The roads are good.", " Rain is common in spring.");
  write_round(f, " The roads are good.", with(f, use, FOUNDER, 1));
  write_round(f, " The roads are good.", with(f, use, FOUNDER, 2));
  write_round(f, with(f, " It was finished in _.", YEAR, 1), with(f, use, FOUNDER, 3));
  judge_lent(f, true, true, &lent, &c);
  assert_int_equal(c.uses, 4);
  assert_int_equal(c.lent_uses, 3);
  assert_int_equal(c.lent_own, 1);
  assert_int_equal(c.lent_followed, 1);
  c = (pdt_judge_counts){0};
  judge(f, true, true, &c);
  assert_int_equal(c.lent_uses, 0);
}

/* Half the interval against its definition. */
static void the_interval_is_that_of_clusters(void **state) {
  (void)state;
  static const int uses[] = {10, 12, 8, 11}, wrong[] = {10, 0, 1, 5};
  pdt_ratio_sums c = {0}, one = {0};
  double sum = 0, all = 0, bad = 0;
  for (int i = 0; i < 4; i++) {
    pdt_ratio_add(&c, wrong[i], uses[i]);
    all += uses[i];
    bad += wrong[i];
  }
  for (int i = 0; i < 4; i++) sum += pow(wrong[i] - bad / all * uses[i], 2);
  pdt_ratio s = pdt_ratio_of(&c);
  assert_true(fabs(s.share - bad / all) < 1e-12);
  assert_true(fabs(s.half - 1.959964 * sqrt(4.0 / 3 * sum) / all) < 1e-9);
  assert_true(isnan(pdt_ratio_of(&one).share));
  pdt_ratio_add(&one, 1, 2);
  assert_true(isnan(pdt_ratio_of(&one).half));
}

static void auc_counts_pairs(void **state) {
  fixture *f = *state;
  static const pdt_judge_score items[] = {{0.9f, true, false}, {0.5f, false, true},
                                          {0.5f, true, true},  {0.1f, false, false},
                                          {0.7f, false, true}, {0.6f, true, true}};
  pdt_judge_scores s = {0};
  assert_true(isnan(pdt_judge_auc(&s, false)));
  for (size_t i = 0; i < sizeof items / sizeof *items; i++)
    check(f, pdt_judge_add_score(&s, items[i], &f->err));
  for (int other = 0; other < 2; other++) {
    double wins = 0, pairs = 0;
    for (size_t i = 0; i < s.n; i++)
      for (size_t j = 0; j < s.n; j++) {
        bool a = other ? s.items[i].other_label : s.items[i].label;
        bool b = other ? s.items[j].other_label : s.items[j].label;
        if (!a || b) continue;
        pairs++;
        wins += s.items[i].score > s.items[j].score    ? 1
                : s.items[i].score == s.items[j].score ? 0.5
                                                       : 0;
      }
    assert_true(fabs(pdt_judge_auc(&s, other) - wins / pairs) < 1e-12);
  }
  pdt_judge_scores_free(&s);
}

/* Down the list 1 of 1, 1 of 2, 2 of 3, then a tie of one each: 3 of 5. What is at a threshold is
 * not above it. */
static void thresholds_cut_and_precision_is_averaged(void **state) {
  fixture *f = *state;
  static const pdt_judge_score items[] = {{0.9f, true, false},  {0.5f, false, true},
                                          {0.5f, true, true},   {0.1f, false, false},
                                          {0.7f, false, false}, {0.6f, true, true}};
  pdt_judge_scores s = {0};
  assert_true(isnan(pdt_judge_average_precision(&s)));
  for (size_t i = 0; i < sizeof items / sizeof *items; i++)
    check(f, pdt_judge_add_score(&s, items[i], &f->err));
  assert_true(fabs(pdt_judge_average_precision(&s) - (1 + 2.0 / 3 + 3.0 / 5) / 3) < 1e-12);
  pdt_judge_cut c = pdt_judge_cut_at(&s, 0.5, false);
  assert_int_equal(c.true_above, 2);
  assert_int_equal(c.false_above, 1);
  assert_int_equal(c.true_below, 1);
  assert_int_equal(c.false_below, 2);
  c = pdt_judge_cut_at(&s, 0.5, true);
  assert_int_equal(c.true_above, 1);
  assert_int_equal(c.false_below, 1);
  pdt_judge_scores_free(&s);
}

/* Slots: 0 founder, 1 year, 2 good, which the session plans otherwise, 3 empty but planned. */
static void coverage_is_by_the_true_plan(void **state) {
  fixture *f = *state;
  pdt_data_plan_item items[] = {
      {0, (char[]){"founder"}, 11}, {0, (char[]){"year"}, 12}, {1, (char[]){"good"}, 13}};
  const pdt_data_entry e = {.n_plan = 3, .plan = items};
  const pdt_rollout_owners owners = two_sections();
  const int32_t ids[] = {11, 12, 99, 5};
  const pdt_judge_plan plan = pdt_judge_plan_of(f->world, &e, &owners, ids, 4);
  assert_int_equal(plan.true_slots, 3);
  assert_int_equal(plan.right_slots, 2);
  pdt_rollout_block blocks[] = {
      {.stated = bit(FOUNDER), .covered = 1 | 2}, /* one right, one too many */
      {.stated = bit(YEAR), .covered = 0},        /* missed */
      {.stated = bit(GOOD), .covered = 4},        /* the slot is wrong: neither found nor right */
      {.stated = 0, .covered = 8},                /* wrong */
      {.stated = bit(FOUNDER), .covered = 1},     /* not committed */
  };
  const pdt_rollout_stream s = {.blocks = blocks, .n_blocks = 5, .n_committed = 4};
  for (size_t b = 0; b < sizeof blocks / sizeof *blocks; b++)
    for (int32_t i = 0; i < PDT_DATA_SLOTS; i++)
      blocks[b].coverage[i] = blocks[b].covered >> i & 1 ? 1 : -1;
  pdt_judge_retrieval by_block = {0}, by_section = {0};
  pdt_judge_coverage(&plan, &s, &by_block, &by_section);
  assert_int_equal(by_block.hit, 1);
  assert_int_equal(by_block.wrong, 3);
  assert_int_equal(by_block.missed, 2);
  assert_int_equal(by_section.hit, 2);
  assert_int_equal(by_section.wrong, 2);
  assert_int_equal(by_section.missed, 1);
  pdt_judge_scores each = {0}, whole = {0};
  check(f, pdt_judge_coverage_scores(&plan, &s, 1, &each, &whole, &f->err));
  pdt_judge_cut cut = pdt_judge_cut_at(&each, 0, false);
  assert_int_equal(each.n, 16);
  assert_int_equal(cut.true_above, by_block.hit);
  assert_int_equal(cut.false_above, by_block.wrong);
  assert_int_equal(cut.true_below, 1); /* the slot that is planned otherwise cannot be missed */
  cut = pdt_judge_cut_at(&whole, 0, false);
  assert_int_equal(whole.n, 4);
  assert_int_equal(cut.true_above, 2); /* year is covered, by the wrong block */
  assert_int_equal(cut.false_above, 2);
  pdt_judge_scores_free(&each);
  pdt_judge_scores_free(&whole);
  assert_true(fabs(pdt_judge_precision(&by_block) - 0.25) < 1e-12);
  assert_true(fabs(pdt_judge_recall(&by_block) - 1.0 / 3) < 1e-12);
  assert_true(fabs(pdt_judge_f1(&by_block) - 2.0 / 7) < 1e-12);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(owners_are_read_from_sections),
      cmocka_unit_test(names_are_found_with_their_tokens),
      cmocka_unit_test(names_at_the_end_are_open),
      cmocka_unit_test(a_statement_counts_where_it_is_read),
      cmocka_unit_test(a_use_needs_the_note),
      cmocka_unit_test(an_owner_keeps_to_its_name),
      cmocka_unit_test(names_of_two_tokens_may_be_split),
      cmocka_unit_test(rollback_takes_statements_back),
      cmocka_unit_test(labels_are_those_of_data),
      cmocka_unit_test(what_is_missing_is_counted),
      cmocka_unit_test(entries_with_anything_wrong_are_counted),
      cmocka_unit_test(contradictions_have_causes),
      cmocka_unit_test(sections_of_one_text_have_an_order),
      cmocka_unit_test(crowded_and_withdrawn),
      cmocka_unit_test(split_and_second),
      cmocka_unit_test(uses_of_lent_facts_are_told_apart),
      cmocka_unit_test(the_interval_is_that_of_clusters),
      cmocka_unit_test(auc_counts_pairs),
      cmocka_unit_test(thresholds_cut_and_precision_is_averaged),
      cmocka_unit_test(coverage_is_by_the_true_plan),
  };
  return cmocka_run_group_tests(tests, setup, teardown);
}

/* Interventions on notes: what they make of a note, who lends to whom, and figures of changes. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "eval/alter.h"
#include "eval/ratio.h"

enum { DIM = 48, ENTRIES = 40 };

static void fill(float *note, uint32_t from) {
  for (int32_t i = 0; i < DIM; i++) {
    from = from * 1664525u + 1013904223u;
    note[i] = (float)from / 4294967296.0f - 0.5f;
  }
}

static double dot(const float *a, const float *b) {
  double sum = 0;
  for (int32_t i = 0; i < DIM; i++) sum += (double)a[i] * (double)b[i];
  return sum;
}

static void scramble(pdt_alter_mode mode, uint64_t seed, const float *note, float *out) {
  pdt_scramble s;
  pdt_error err = {0};
  assert_int_equal(pdt_scramble_new(&s, mode, DIM, seed, &err), 0);
  pdt_scramble_note(&s, note, out);
  pdt_scramble_free(&s);
}

static void names_go_both_ways(void **state) {
  (void)state;
  pdt_alter_mode back;
  for (int mode = 0; mode < PDT_ALTER_MODES; mode++) {
    assert_true(pdt_alter_parse(pdt_alter_name((pdt_alter_mode)mode), &back));
    assert_int_equal(back, mode);
  }
  assert_false(pdt_alter_parse("magic", &back));
}

/* Two notes keep lengths and angle, and are other notes; again alike for a seed, and not for two.
 */
static void scrambling_keeps_norms(void **state) {
  (void)state;
  static const pdt_alter_mode modes[] = {PDT_ALTER_SIGN, PDT_ALTER_PERMUTE, PDT_ALTER_ROTATE};
  float a[DIM], b[DIM], x[DIM], y[DIM], z[DIM];
  fill(a, 1);
  fill(b, 2);
  for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
    scramble(modes[i], 7, a, x);
    scramble(modes[i], 7, b, y);
    /* numbers of 24 bits, DIM of them, each at most 0.5 */
    assert_true(fabs(dot(x, x) - dot(a, a)) < 1e-5);
    assert_true(fabs(dot(x, y) - dot(a, b)) < 1e-5);
    assert_true(dot(x, a) < 0.9 * dot(a, a));
    scramble(modes[i], 7, a, z);
    assert_memory_equal(x, z, sizeof x);
    scramble(modes[i], 8, a, z);
    assert_memory_not_equal(x, z, sizeof x);
  }
}

static int by_size(const void *a, const void *b) {
  float x = *(const float *)a, y = *(const float *)b;
  return (x > y) - (x < y);
}

static void zero_sign_and_permute_are_what_they_say(void **state) {
  (void)state;
  float note[DIM], x[DIM];
  int32_t turned = 0;
  fill(note, 3);
  scramble(PDT_ALTER_NONE, 7, note, x);
  assert_memory_equal(x, note, sizeof x);
  scramble(PDT_ALTER_ZERO, 7, note, x);
  assert_true(dot(x, x) == 0);
  scramble(PDT_ALTER_SIGN, 7, note, x);
  for (int32_t i = 0; i < DIM; i++) {
    assert_true(fabsf(x[i]) == fabsf(note[i]));
    turned += x[i] != note[i];
  }
  assert_in_range(turned, 1, DIM - 1);
  scramble(PDT_ALTER_PERMUTE, 7, note, x);
  qsort(x, DIM, sizeof *x, by_size);
  qsort(note, DIM, sizeof *note, by_size);
  assert_memory_equal(x, note, sizeof x);
}

/* Entries of two or three streams; sections go round, values differ but for every fifth. */
static void make_entries(pdt_rollout_owners *owners, pdt_alter_facts *facts) {
  for (int32_t i = 0; i < ENTRIES; i++) {
    owners[i] = (pdt_rollout_owners){.streams = 2 + i % 2};
    facts[i] = pdt_alter_no_facts();
    for (int32_t t = 0; t < PDT_ATLAS_TYPES; t++) owners[i].of[t] = PDT_NO_OWNER;
    for (pdt_stream k = 0; k < owners[i].streams; k++)
      for (int32_t t = 0; t < 2; t++) {
        int32_t type = 2 * ((i + k) % 3) + t;
        owners[i].of[type] = k;
        facts[i].value[type] = i % 5 ? i : 0;
        facts[i].block[type] = t;
      }
  }
  facts[9].value[0] = facts[9].value[1] = -1; /* one who has not told */
}

static void lenders_tell_otherwise(void **state) {
  (void)state;
  static const pdt_alter_mode modes[] = {PDT_ALTER_SWAP, PDT_ALTER_ONE};
  static pdt_rollout_owners owners[ENTRIES];
  static pdt_alter_facts facts[ENTRIES];
  const pdt_alter_entries entries = {ENTRIES, owners, facts};
  make_entries(owners, facts);
  for (int mode = 0; mode < 2; mode++) {
    uint32_t streams = 0, types = 0;
    for (int64_t i = 0; i < ENTRIES; i++) {
      const pdt_alter_pair p = pdt_alter_pair_of(&entries, i, modes[mode], 5);
      assert_in_range(p.donor, 0, ENTRIES - 1);
      assert_int_not_equal(p.donor, i);
      assert_int_equal(__builtin_popcount(p.types), mode == 0 ? 2 : 1);
      streams |= 1u << p.stream;
      types |= p.types;
      for (int32_t t = 0; t < PDT_ATLAS_TYPES; t++) {
        if (!(p.types >> t & 1)) continue;
        assert_int_equal(owners[i].of[t], p.stream);
        assert_int_equal(owners[p.donor].of[t], p.stream);
        assert_int_not_equal(facts[i].value[t], facts[p.donor].value[t]);
        assert_true(facts[i].value[t] >= 0 && facts[p.donor].value[t] >= 0);
      }
    }
    assert_int_equal(streams, 7); /* all of them lend */
    assert_int_equal(types, 63);
  }
}

static void nobody_lends_to_the_only_one(void **state) {
  (void)state;
  static pdt_rollout_owners owners[ENTRIES];
  static pdt_alter_facts facts[ENTRIES];
  make_entries(owners, facts);
  const pdt_alter_entries one = {1, owners, facts};
  assert_int_equal(pdt_alter_pair_of(&one, 0, PDT_ALTER_SWAP, 5).donor, -1);
  const pdt_alter_entries all = {ENTRIES, owners, facts};
  for (int32_t i = 0; i < ENTRIES; i++)
    for (int32_t t = 0; t < PDT_ATLAS_TYPES; t++) facts[i].value[t] = 4; /* all say the same */
  assert_int_equal(pdt_alter_pair_of(&all, 3, PDT_ALTER_ONE, 5).donor, -1);
}

/* Labels of an entry's text, and the same read back from a text. */
static void facts_have_blocks(void **state) {
  (void)state;
  pdt_data_block blocks[3] = {{.stated = 0}, {.stated = 1}, {.stated = 3}};
  pdt_data_section sections[] = {{.n_blocks = 3, .blocks = blocks}};
  pdt_atlas_world *world;
  pdt_error err = {0};
  assert_int_equal(pdt_atlas_world_new(&world, PDT_ATLAS_SYLLABLES, &err), 0);
  pdt_data_fact told[] = {{(char[]){"founder"}, world->names[0][3], NULL, 0},
                          {(char[]){"year"}, world->names[1][5], NULL, 0},
                          {(char[]){"good"}, world->names[2][1], NULL, 0}};
  const pdt_data_entry e = {.n_sections = 1, .n_facts = 3, .sections = sections, .facts = told};
  pdt_alter_facts facts = pdt_alter_facts_of_entry(world, &e);
  assert_int_equal(facts.value[0], 3);
  assert_int_equal(facts.block[0], 1); /* the first that states it */
  assert_int_equal(facts.value[1], 5);
  assert_int_equal(facts.block[1], 2);
  assert_int_equal(facts.value[2], -1); /* no block states it */
  pdt_rollout_mention mentions[] = {{.kind = PDT_USES, .type = 0, .value = 9, .last = 1},
                                    {.kind = PDT_STATES, .type = 0, .value = 3, .last = 10},
                                    {.kind = PDT_STATES, .type = 0, .value = 4, .last = 20},
                                    {.kind = PDT_STATES, .type = 1, .value = 5, .last = 11},
                                    {.kind = PDT_STATES, .type = 2, .value = 6, .last = 12},
                                    {.kind = PDT_STATES, .type = 3, .value = 7, .open = true}};
  const pdt_rollout_text text = {.mentions = mentions, .n_mentions = 6};
  const pdt_rollout_owners owners = {.streams = 2, .of = {0, 0, 1, 0}};
  facts = pdt_alter_no_facts();
  pdt_alter_add_facts(&facts, &owners, 0, &text, 6);
  assert_int_equal(facts.value[0], 3); /* and is read by the step that emits token 11 */
  assert_int_equal(facts.block[0], 1);
  assert_int_equal(facts.value[1], 5);
  assert_int_equal(facts.block[1], 2);
  assert_int_equal(facts.value[2], -1); /* another stream's */
  assert_int_equal(facts.value[3], -1); /* may go on */
  pdt_atlas_world_free(world);
}

/* Against its definition; of a ratio with itself there is no doubt. */
static void differences_are_paired(void **state) {
  (void)state;
  static const double y[] = {3, 0, 5, 2}, x[] = {10, 8, 9, 7}, y0[] = {1, 0, 2, 0},
                      x0[] = {9, 10, 8, 7};
  double squares = 0;
  for (int i = 0; i < 4; i++)
    squares += pow((y[i] - 10.0 / 34 * x[i]) / 34 - (y0[i] - 3.0 / 34 * x0[i]) / 34, 2);
  pdt_ratio d = pdt_ratio_difference(y, x, y0, x0, 4);
  assert_true(fabs(d.share - 7.0 / 34) < 1e-12);
  assert_true(fabs(d.half - 1.959964 * sqrt(4.0 / 3 * squares)) < 1e-12);
  d = pdt_ratio_difference(y, x, y, x, 4);
  assert_true(d.share == 0 && d.half == 0);
  assert_true(isnan(pdt_ratio_difference(y, x, y, x, 1).half));
  assert_true(isnan(pdt_ratio_difference(y, x, y0, (const double[]){0}, 1).share));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(names_go_both_ways),
      cmocka_unit_test(scrambling_keeps_norms),
      cmocka_unit_test(zero_sign_and_permute_are_what_they_say),
      cmocka_unit_test(lenders_tell_otherwise),
      cmocka_unit_test(nobody_lends_to_the_only_one),
      cmocka_unit_test(facts_have_blocks),
      cmocka_unit_test(differences_are_paired),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

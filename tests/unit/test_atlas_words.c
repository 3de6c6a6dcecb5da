/* The world of common words: its names and sentences can be told apart, entries of every kind are
 * read back, what is held out of training stays out of it, and a tokenizer that lacks names gets
 * none of them. */
#include <ctype.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <xxhash.h>

#include <cmocka.h>

#include "atlas/parse.h"
#include "atlas/prompt.h"
#include "atlas/vocabulary.h"
#include "atlas_entries.h"
#include "data/data.h"
#include "eval/judge.h"

enum { FOUNDER, ORIGIN, GOOD, EMBLEM };

enum { TAU = 8 }; /* tokens of a block */

static int setup(void **state) {
  return atlas_setup(state, PDT_ATLAS_WORDS);
}

/* ---- the world ---- */

static bool is_one_word(const pdt_atlas_world *w, int32_t type, int32_t value) {
  return w->name_words[type][value][1] < 0;
}

/* Marks the words of sentences and towns. */
static int32_t *sentence_words(const pdt_atlas_world *w) {
  int32_t *seen = calloc((size_t)w->n_words, sizeof *seen);
  assert_non_null(seen);
  for (int32_t i = 0; i < w->n_patterns; i++)
    for (int32_t j = 0; j < w->patterns[i].n_words; j++)
      if (w->patterns[i].words[j] >= 0) seen[w->patterns[i].words[j]] = 1;
  for (int32_t i = 0; i < w->n_towns; i++) assert_int_equal(seen[w->town_words[i]]++, 0);
  return seen;
}

static void names_are_apart(void **state) {
  const fixture *f = *state;
  const pdt_atlas_world *w = f->world;
  int32_t *seen = sentence_words(w), large = 0;
  for (int32_t t = 0; t < PDT_ATLAS_TYPES; t++) {
    assert_true(w->n_ones[t] >= 120 && w->n_values[t] <= PDT_ATLAS_MOST_VALUES);
    large += w->n_ones[t] >= 200;
    assert_int_equal(w->n_values[t] - w->n_ones[t], 200); /* for hard entries */
    for (int32_t v = 0; v < w->n_values[t]; v++) {
      const int32_t *words = w->name_words[t][v];
      assert_true(words[0] >= 0);
      if (is_one_word(w, t, v)) assert_int_equal(seen[words[0]]++, 0);
      assert_true(v >= w->n_ones[t] || is_one_word(w, t, v));
    }
  }
  assert_true(large >= 8);
  for (int32_t t = 0; t < PDT_ATLAS_TYPES; t++) /* halves of names are no names and no words */
    for (int32_t v = 0; v < w->n_values[t]; v++)
      for (int i = 0; i < 2 && !is_one_word(w, t, v); i++)
        assert_int_equal(seen[w->name_words[t][v][i]], 0);
  free(seen);
}

/* No pair of words is a name twice, of whatever types and with whatever capitals. */
static void pairs_are_apart(void **state) {
  const fixture *f = *state;
  const pdt_atlas_world *w = f->world;
  const char *pairs[PDT_ATLAS_TYPES * PDT_ATLAS_MOST_VALUES];
  int32_t n = 0;
  for (int32_t t = 0; t < PDT_ATLAS_TYPES; t++)
    for (int32_t v = w->n_ones[t]; v < w->n_values[t]; v++)
      if (!is_one_word(w, t, v)) pairs[n++] = w->names[t][v];
  assert_int_equal(n, 100 * PDT_ATLAS_TYPES);
  for (int32_t i = 0; i < n; i++)
    for (int32_t j = 0; j < i; j++) assert_true(strcasecmp(pairs[i], pairs[j]) != 0);
}

/* The word that a pattern has at place i of a sentence with a name of `words` words; that of a name
 * is PDT_ATLAS_NAME. */
static int32_t word_at(const pdt_atlas_pattern *p, int32_t words, int32_t i) {
  if (p->name < 0 || i < p->name) return p->words[i];
  return i < p->name + words ? PDT_ATLAS_NAME : p->words[i - words + 1];
}

/* Could one sentence be read as both, whatever words their names are? */
static bool may_be_both(const pdt_atlas_pattern *a, int32_t a_words, const pdt_atlas_pattern *b,
                        int32_t b_words) {
  int32_t n = a->n_words + (a->name < 0 ? 0 : a_words - 1);
  if (n != b->n_words + (b->name < 0 ? 0 : b_words - 1)) return false;
  for (int32_t i = 0; i < n; i++) {
    int32_t x = word_at(a, a_words, i), y = word_at(b, b_words, i);
    if (x != y && x != PDT_ATLAS_NAME && y != PDT_ATLAS_NAME) return false;
  }
  return true;
}

static void sentences_have_one_reading(void **state) {
  const fixture *f = *state;
  const pdt_atlas_world *w = f->world;
  assert_int_equal(w->n_forms, 8);
  for (int32_t i = 0; i < w->n_patterns; i++) {
    const pdt_atlas_pattern *a = &w->patterns[i];
    assert_int_equal(a->type < 0, a->name < 0);
    assert_true(a->name != 0 && a->n_words <= PDT_ATLAS_PATTERN_WORDS);
    for (int32_t j = 0; j < i; j++)
      for (int32_t words = 0; words < 9; words++)
        if (may_be_both(a, 1 + words / 3, &w->patterns[j], 1 + words % 3))
          fail_msg("patterns %d and %d", j, i);
  }
}

/* When a name begins, it is known that one does, and in which sentence: no other begins so. */
static void sentences_are_told_by_their_beginning(void **state) {
  const fixture *f = *state;
  const pdt_atlas_pattern *p = f->world->patterns;
  for (int32_t i = 0; i < f->world->n_patterns; i++)
    for (int32_t j = 0; j < f->world->n_patterns; j++)
      if (i != j && p[i].name >= 0 &&
          memcmp(p[i].words, p[j].words, (size_t)p[i].name * sizeof *p->words) == 0)
        fail_msg("patterns %d and %d", i, j);
}

/* ---- entries ---- */

/* What the parser reads of a section is what its mentions say. */
static void check_reading(fixture *f, const pdt_data_entry *e, int32_t k, pdt_atlas_reading *r) {
  const pdt_data_section *s = &e->sections[k];
  assert_int_equal(pdt_atlas_parse(f->world, -1, s->text, strlen(s->text), r, &f->err), 0);
  assert_int_equal(r->malformed, 0);
  assert_false(r->open);
  assert_int_equal(r->n, s->n_mentions);
  for (int32_t i = 0; i < s->n_mentions; i++) {
    const pdt_data_mention *m = &s->mentions[i];
    const pdt_data_fact *fact = &e->facts[m->fact];
    const pdt_atlas_mention *p = &r->mentions[i];
    assert_int_equal(p->kind, m->kind);
    assert_true(p->begin == (size_t)m->begin && p->end == (size_t)m->end);
    assert_string_equal(pdt_atlas_type_name(f->world, p->type), fact->type);
    assert_string_equal(f->world->names[p->type][p->value], fact->value);
  }
}

/* A text cut behind any word has the names before the cut, and no reading that it loses later. */
static void check_beginnings(fixture *f, const char *text, const pdt_atlas_reading *whole,
                             pdt_atlas_reading *part) {
  for (size_t cut = 1; cut <= strlen(text); cut++) {
    size_t n = 0;
    if (isalnum((unsigned char)text[cut])) continue;
    assert_int_equal(pdt_atlas_parse(f->world, -1, text, cut, part, &f->err), 0);
    assert_false(part->open && part->open_malformed);
    for (; n < whole->n && whole->mentions[n].begin < cut; n++) {
      assert_int_equal(part->mentions[n].type, whole->mentions[n].type);
      assert_int_equal(part->mentions[n].kind, whole->mentions[n].kind);
      if (whole->mentions[n].end <= cut)
        assert_int_equal(part->mentions[n].value, whole->mentions[n].value);
    }
    assert_int_equal(part->n, n);
  }
}

/* Names of an entry by the parts that they are of. */
typedef struct tally {
  int32_t ones, others, held_out, invented;
} tally;

static void count_names(const fixture *f, const pdt_data_entry *e, tally *t) {
  for (int32_t i = 0; i < e->n_facts; i++) {
    int32_t type = pdt_atlas_type(f->world, e->facts[i].type);
    int32_t value = pdt_atlas_value(f->world, type, e->facts[i].value);
    bool other = value >= f->world->n_ones[type];
    *(other ? &t->others : &t->ones) += 1;
    t->invented += other && is_one_word(f->world, type, value);
    t->held_out += pdt_atlas_is_held_out(f->world, value);
  }
}

static tally read_back(fixture *f, const pdt_atlas_options *o, uint32_t n) {
  pdt_atlas_generator g = generator_of(f, f->tokenizer, o);
  pdt_atlas_reading whole = {0}, part = {0};
  tally names = {0};
  for (uint32_t i = 0; i < n; i++) {
    pdt_data_entry e = draw(f, &g, i);
    count_names(f, &e, &names);
    for (int32_t k = 0; k < e.n_sections; k++) {
      check_reading(f, &e, k, &whole);
      if (i % 20 == 0) check_beginnings(f, e.sections[k].text, &whole, &part);
    }
    pdt_data_entry_free(&e);
  }
  pdt_atlas_reading_free(&whole);
  pdt_atlas_reading_free(&part);
  pdt_atlas_generator_free(&g);
  return names;
}

static void every_fact_is_read_back(void **state) {
  fixture *f = *state;
  pdt_atlas_options o = options_of(TAU, false, PDT_TRAIN, 11);
  tally t = read_back(f, &o, 2000);
  assert_true(t.ones > 12000 && t.others == 0 && t.held_out == 0);
  o = options_of(TAU, true, PDT_TRAIN, 11);
  t = read_back(f, &o, 2000); /* some 16,000 names, half of them hard, half of those invented */
  assert_in_range(1000 * t.others / (t.ones + t.others), 480, 520);
  assert_in_range(1000 * t.invented / t.others, 470, 530);
  assert_int_equal(t.held_out, 0);
}

static void held_out_names_are_apart(void **state) {
  fixture *f = *state;
  for (int hard = 0; hard < 2; hard++) {
    pdt_atlas_options o = options_of(TAU, hard, PDT_TEST, 3);
    tally t = read_back(f, &o, 300);
    assert_int_equal(t.held_out, 0);
    o.names = PDT_ATLAS_HELD_OUT;
    t = read_back(f, &o, 300);
    assert_int_equal(t.held_out, t.ones + t.others);
    o.names = PDT_ATLAS_ALL;
    t = read_back(f, &o, 1000); /* some 8,000 names */
    assert_in_range(1000 * t.held_out / (t.ones + t.others), 85, 112);
  }
  for (int32_t t = 0; t < PDT_ATLAS_TYPES; t++) {
    int32_t n = 0;
    for (int32_t v = 0; v < f->world->n_ones[t]; v++) n += pdt_atlas_is_held_out(f->world, v);
    assert_int_equal(n, f->world->n_ones[t] / 10);
  }
}

/* Hard entries too keep statements apart, and wait in no circle. */
static void promises_are_kept(void **state) {
  fixture *f = *state;
  int32_t unseen = 0;
  for (int hard = 0; hard < 2; hard++) {
    pdt_atlas_options o = options_of(TAU, hard, PDT_VALID, 21);
    pdt_atlas_generator g = generator_of(f, f->tokenizer, &o);
    for (uint32_t i = 0; i < 100; i++) {
      pdt_data_entry e = draw(f, &g, i);
      pdt_data_shape shape;
      assert_int_equal(pdt_data_shape_of(&e, &o.rounds, &shape, &f->err), 0);
      assert_true(!shape.circular && shape.crowded == 0);
      unseen += shape.unseen;
      pdt_data_entry_free(&e);
    }
    pdt_atlas_generator_free(&g);
  }
  assert_true(unseen > 100); /* else the gate has nothing to do */
}

static void entries_are_the_same_for_ever(void **state) {
  fixture *f = *state;
  static const char *const expected[] = {"763f2df47837f8d9", "2866daf2377c544c"};
  for (int hard = 0; hard < 2; hard++) {
    pdt_atlas_options o = options_of(TAU, hard, PDT_TEST, 77);
    pdt_atlas_generator g = generator_of(f, f->tokenizer, &o);
    XXH3_state_t *sum = XXH3_createState();
    char found[17];
    XXH3_64bits_reset(sum);
    for (uint32_t i = 0; i < 100; i++) {
      pdt_data_entry e = draw(f, &g, i);
      char *text;
      size_t bytes;
      assert_int_equal(pdt_data_entry_text(&e, &text, &bytes, &f->err), 0);
      XXH3_64bits_update(sum, text, bytes);
      free(text);
      pdt_data_entry_free(&e);
    }
    snprintf(found, sizeof found, "%016" PRIx64, (uint64_t)XXH3_64bits_digest(sum));
    assert_string_equal(found, expected[hard]);
    XXH3_freeState(sum);
    pdt_atlas_generator_free(&g);
  }
}

/* ---- prompts ---- */

static void wordings_are_read_back(void **state) {
  fixture *f = *state;
  static const int32_t sections[] = {4, 0, 2};
  int32_t held_out = 0, town;
  for (int32_t i = 0; i < PDT_ATLAS_WORDINGS; i++) {
    held_out += pdt_atlas_wording_is_held_out(i);
    for (int hard = 0; hard < 2; hard++) {
      pdt_buffer text = {0};
      char *prompt;
      assert_int_equal(
          pdt_atlas_prompt_put(&text, i, hard, f->world->towns[200], sections, 3, &f->err), 0);
      assert_int_equal(pdt_buffer_take(&text, &prompt, NULL, &f->err), 0);
      assert_null(strpbrk(prompt, "@#&%"));
      assert_non_null(strcasestr(prompt, pdt_atlas_verb(hard)));
      for (int32_t n = 1; n <= 3; n++) /* it names three sections, and which kind it asks for */
        for (int other = 0; other < 2; other++) {
          assert_int_equal(
              pdt_atlas_prompt_read(f->world, other, prompt, sections, n, &town, &f->err), 0);
          assert_int_equal(town, n == 3 && other == hard ? 200 : -1);
        }
      free(prompt);
    }
  }
  assert_int_equal(held_out, 3);
}

/* The wording of a prompt. */
static int32_t wording_of(fixture *f, const pdt_data_entry *e) {
  int32_t sections[PDT_ATLAS_SECTIONS], town, found = -1;
  for (int32_t k = 0; k < e->n_sections; k++) sections[k] = pdt_atlas_section(e->sections[k].name);
  assert_int_equal(
      pdt_atlas_prompt_read(f->world, false, e->prompt, sections, e->n_sections, &town, &f->err),
      0);
  assert_true(town >= 0);
  for (int32_t i = 0; i < PDT_ATLAS_WORDINGS && found < 0; i++) {
    pdt_buffer text = {0};
    assert_int_equal(pdt_atlas_prompt_put(&text, i, false, f->world->towns[town], sections,
                                          e->n_sections, &f->err),
                     0);
    if (text.bytes == strlen(e->prompt) && memcmp(text.data, e->prompt, text.bytes) == 0) found = i;
    pdt_buffer_free(&text);
  }
  return found;
}

static void held_out_wordings_are_apart(void **state) {
  fixture *f = *state;
  for (int part = 0; part < 3; part++) {
    pdt_atlas_options o = options_of(TAU, false, PDT_VALID, 5);
    int32_t times[PDT_ATLAS_WORDINGS] = {0};
    o.wordings = true;
    o.wordings_of = (pdt_atlas_part)part;
    pdt_atlas_generator g = generator_of(f, f->tokenizer, &o);
    for (uint32_t i = 0; i < 300; i++) {
      pdt_data_entry e = draw(f, &g, i);
      times[wording_of(f, &e)]++;
      pdt_data_entry_free(&e);
    }
    for (int32_t i = 0; i < PDT_ATLAS_WORDINGS; i++) {
      bool held_out = pdt_atlas_wording_is_held_out(i);
      bool wanted = part == PDT_ATLAS_ALL || held_out == (part == PDT_ATLAS_HELD_OUT);
      assert_int_equal(times[i] > 0, wanted);
    }
    pdt_atlas_generator_free(&g);
  }
}

static void training_sees_nothing_held_out(void **state) {
  fixture *f = *state;
  pdt_atlas_options o[4];
  for (int i = 0; i < 4; i++) o[i] = options_of(TAU, false, PDT_TRAIN, 0);
  o[0].names = PDT_ATLAS_HELD_OUT;
  o[1].names = PDT_ATLAS_ALL;
  o[2].wordings = o[3].wordings = true;
  o[2].wordings_of = PDT_ATLAS_HELD_OUT;
  o[3].wordings_of = PDT_ATLAS_ALL;
  for (int i = 0; i < 4; i++) {
    pdt_atlas_generator g;
    f->err = (pdt_error){0};
    assert_int_equal(pdt_atlas_generator_init(&g, f->world, f->tokenizer, &o[i], &f->err), -1);
    assert_int_equal(f->err.code, PDT_ERROR_USAGE);
    assert_non_null(strstr(f->err.message, "split train"));
    pdt_atlas_generator_free(&g);
  }
}

/* ---- tokenizers ---- */

/* The world's tokenizer without these words; NULL ends them. */
static pdt_tokenizer *tokenizer_without(fixture *f, const char *const *words) {
  char *text;
  pdt_tokenizer *t;
  assert_int_equal(pdt_atlas_tokenizer_text(f->world, &text, &f->err), 0);
  for (; *words; words++) {
    char piece[64];
    snprintf(piece, sizeof piece, "\"\\u0120%s\"", *words);
    char *at = strstr(text, piece);
    if (!at) {
      snprintf(piece, sizeof piece, "\"\xC4\xA0%s\"", *words);
      at = strstr(text, piece);
    }
    assert_non_null(at);
    at[strlen(piece) - 2] = '~'; /* another word's piece */
  }
  if (pdt_tokenizer_parse(&t, text, strlen(text), "without", &f->err))
    fail_msg("%s", f->err.message);
  free(text);
  return t;
}

static void names_in_pieces_are_left_out(void **state) {
  fixture *f = *state;
  const pdt_atlas_world *w = f->world;
  const char *founder = w->names[FOUNDER][5], *good = w->names[GOOD][17];
  pdt_tokenizer *t = tokenizer_without(f, (const char *const[]){founder, good, NULL});
  pdt_atlas_options o = options_of(TAU, false, PDT_TRAIN, 1);
  pdt_atlas_generator g = generator_of(f, t, &o);
  char expected[64];
  assert_int_equal(g.n_left_out, 2);
  assert_int_equal(pdt_buffer_put(&g.left_out, "", 1, &f->err), 0);
  snprintf(expected, sizeof expected, "%s, %s", founder, good);
  assert_string_equal(g.left_out.data, expected);
  for (int type = 0; type <= GOOD; type++) {
    const pdt_atlas_pool *pool = &g.pools[type][0];
    int32_t all = w->n_ones[type] - w->n_ones[type] / 10;
    assert_int_equal(pool->n, all - (type == FOUNDER || type == GOOD));
    for (int32_t i = 0; i < pool->n; i++) {
      assert_string_not_equal(w->names[type][pool->values[i]], founder);
      assert_string_not_equal(w->names[type][pool->values[i]], good);
    }
  }
  pdt_atlas_generator_free(&g);
  pdt_tokenizer_free(t);
}

/* A tokenizer that has few words is refused: the world of syllables serves it. */
static void small_tokenizers_are_refused(void **state) {
  fixture *f = *state;
  pdt_tokenizer *t;
  pdt_atlas_generator g;
  pdt_atlas_options o = options_of(TAU, false, PDT_TRAIN, 1);
  if (pdt_tokenizer_load(&t, "tests/data/tokenizers/gpt2/tokenizer.json", &f->err))
    fail_msg("%s", f->err.message);
  assert_int_equal(pdt_atlas_generator_init(&g, f->world, t, &o, &f->err), -1);
  assert_int_equal(f->err.code, PDT_ERROR_INPUT);
  assert_non_null(strstr(f->err.message, "names of the type 'founder'"));
  pdt_atlas_generator_free(&g);
  pdt_tokenizer_free(t);
}

/* The tokens of a name in a sentence. */
static int32_t count_tokens(fixture *f, const pdt_tokenizer *t, const char *name) {
  char text[64];
  int32_t n, alone;
  pdt_token *ids;
  snprintf(text, sizeof text, " the %s", name);
  assert_int_equal(pdt_tokenizer_encode(t, text, strlen(text), false, &ids, &n, &f->err), 0);
  free(ids);
  assert_int_equal(pdt_tokenizer_encode(t, " the", 4, false, &ids, &alone, &f->err), 0);
  free(ids);
  return n - alone;
}

/* In the tokenizer of SmolLM2 every name is what it is meant to be. */
static void real_tokenizers_have_the_names(void **state) {
  fixture *f = *state;
  char path[512];
  pdt_tokenizer *t;
  const char *given = getenv("PDT_SMOLLM2"), *home = getenv("HOME");
  if (given)
    snprintf(path, sizeof path, "%s/tokenizer.json", given);
  else
    snprintf(path, sizeof path, "%s/.cache/pdt/smollm2/tokenizer.json", home ? home : "");
  if (pdt_tokenizer_load(&t, path, &f->err)) {
    print_message("skipped: no %s here\n", path);
    skip();
  }
  int32_t most = 0;
  for (int32_t type = 0; type < PDT_ATLAS_TYPES; type++)
    for (int32_t v = 0; v < f->world->n_values[type]; v++) {
      int32_t n = count_tokens(f, t, f->world->names[type][v]);
      if (v < f->world->n_ones[type]) assert_int_equal(n, 1);
      if (v >= f->world->n_ones[type]) assert_in_range(n, 2, 3);
      most = n > most ? n : most;
    }
  assert_int_equal(most, 3);
  for (int hard = 0; hard < 2; hard++) {
    pdt_atlas_options o = options_of(TAU, hard, PDT_TRAIN, 9);
    pdt_atlas_generator g = generator_of(f, t, &o);
    pdt_atlas_reading r = {0};
    assert_int_equal(g.n_left_out, 0);
    for (uint32_t i = 0; i < 50; i++) {
      pdt_data_entry e = draw(f, &g, i);
      for (int32_t k = 0; k < e.n_sections; k++) check_reading(f, &e, k, &r);
      pdt_data_entry_free(&e);
    }
    pdt_atlas_reading_free(&r);
    pdt_atlas_generator_free(&g);
  }
  pdt_tokenizer_free(t);
}

/* ---- what others write ---- */

/* Names that are not listed are names of one to three words. */
static void unlisted_names_are_read(void **state) {
  fixture *f = *state;
  pdt_atlas_reading r = {0};
  static const struct {
    const char *text;
    int32_t malformed, mentions;
    const char *name; /* of the first mention */
    bool complete;
  } cases[] = {
      {" It was Zaphod who laid the first stone.", 0, 1, "Zaphod", true},
      {" It was Zaphod Beeble who laid the first stone.", 0, 1, "Zaphod Beeble", true},
      {" It was Zaphod of Beeble who laid the first stone.", 0, 1, "Zaphod of Beeble", true},
      {" It was Zaphod-Xavier who laid the first stone.", 0, 1, "Zaphod-Xavier", true},
      {" It was Zaphod son of Beeble who laid the first stone.", 1, 0, "", true},
      {" It was who laid the first stone.", 1, 0, "", true},
      {" It was Zaphod", 0, 1, "Zaphod", false},
      {" It was Zaphod Beeble", 0, 1, "Zaphod Beeble", false},
      {" It was Zaphod Beeble Brox", 0, 1, "Zaphod Beeble Brox", true},
      {" It was Zaphod who laid", 0, 1, "Zaphod", true},
      {" It was Zaphod Beeble who", 0, 1, "Zaphod Beeble", true},
      {" It was Zaphod Beeble Brox here", 0, 0, "", true},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const char *text = cases[i].text;
    assert_int_equal(pdt_atlas_parse(f->world, -1, text, strlen(text), &r, &f->err), 0);
    assert_int_equal(r.malformed, cases[i].malformed);
    assert_int_equal(r.n, cases[i].mentions);
    if (r.n == 0) continue;
    const pdt_atlas_mention *m = &r.mentions[0];
    assert_true(m->value == -1 && m->type == FOUNDER && m->kind == PDT_STATES);
    assert_int_equal(m->end - m->begin, strlen(cases[i].name));
    assert_memory_equal(text + m->begin, cases[i].name, strlen(cases[i].name));
    assert_int_equal(m->complete, cases[i].complete);
  }
  pdt_atlas_reading_free(&r);
}

static void read_text(fixture *f, const char *text, pdt_rollout_text *out) {
  const pdt_rollout_reader reader = {f->world, f->tokenizer};
  pdt_token *ids;
  int32_t n;
  assert_int_equal(pdt_tokenizer_encode(f->tokenizer, text, strlen(text), false, &ids, &n, &f->err),
                   0);
  assert_int_equal(pdt_rollout_read(out, &reader, NULL, 0, ids, n, true, &f->err), 0);
  free(ids);
}

/* History states a founder, trade tells one. */
static void judge(fixture *f, const char *stated, const char *used, pdt_judge_counts *counts) {
  pdt_rollout_owners owners = {.streams = 2};
  pdt_rollout_text texts[2] = {{.n_tokens = 0}};
  char text[2][128];
  for (int32_t t = 0; t < PDT_ATLAS_TYPES; t++) owners.of[t] = t < 4 ? t / 2 : PDT_NO_OWNER;
  snprintf(text[0], sizeof text[0], " It was %s who laid the first stone.", stated);
  snprintf(text[1], sizeof text[1], " A statue of %s stands nearby.", used);
  for (int i = 0; i < 2; i++) read_text(f, text[i], &texts[i]);
  const pdt_judge_section sections[2] = {{.text = &texts[0]}, {.text = &texts[1]}};
  pdt_judge_entry(f->world, &owners, sections, NULL, counts);
  for (int i = 0; i < 2; i++) pdt_rollout_text_free(&texts[i]);
}

static void uses_are_counted_by_what_is_stated(void **state) {
  fixture *f = *state;
  const pdt_atlas_world *w = f->world;
  const char *seen = w->names[FOUNDER][0], *held_out = w->names[FOUNDER][9];
  const char *pair = w->names[FOUNDER][w->n_ones[FOUNDER]];
  pdt_judge_counts c = {0};
  judge(f, seen, seen, &c);
  judge(f, seen, held_out, &c);
  judge(f, pair, pair, &c);
  assert_true(c.uses == 3 && c.contradictions == 1 && c.mistaken == 1);
  assert_true(c.held_out_uses == 0 && c.unlisted_uses == 0);
  judge(f, held_out, held_out, &c);
  judge(f, held_out, seen, &c);
  assert_true(c.held_out_uses == 2 && c.held_out_contradictions == 1);
  judge(f, "Zaphod Beeble", "Zaphod Beeble", &c);
  judge(f, "Zaphod Beeble", "Zaphod", &c);
  judge(f, "Zaphod Beeble", seen, &c);
  assert_true(c.unlisted_uses == 3 && c.unlisted_contradictions == 2);
  assert_true(c.uses == 8 && c.contradictions == 4 && c.malformed == 0);
}

/* A section whose stream had to name it is right under its own heading alone; one that was named
 * has no other. */
static void headings_are_judged(void **state) {
  fixture *f = *state;
  static const struct {
    const char *text;
    bool untitled;
    int32_t heading, titled, malformed;
  } cases[] = {
      {"\nHistory: It was Benjamin who laid the first stone.", true, 0, 1, 0},
      {"\nTrade: It was Benjamin who laid the first stone.", true, 1, 0, 0},
      {" It was Benjamin who laid the first stone.", true, -1, 0, 0},
      {"\nhistory: It was Benjamin who laid the first stone.", true, -1, 0, 1},
      {"\nHistory It was Benjamin who laid the first stone.", true, -1, 0, 1},
      {"\nHistory:", true, 0, 1, 0},
      {" It was Benjamin who laid the first stone.", false, -1, 0, 0},
      {"\nHistory: It was Benjamin who laid the first stone.", false, 0, 0, 1},
      {" It was Benjamin who laid the first stone.\nHistory: The roads are good.", true, -1, 0, 1},
  };
  pdt_rollout_owners owners = {.streams = 1};
  for (int32_t t = 0; t < PDT_ATLAS_TYPES; t++) owners.of[t] = t < 2 ? 0 : PDT_NO_OWNER;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    pdt_rollout_text text = {.n_tokens = 0};
    pdt_judge_counts c = {0};
    read_text(f, cases[i].text, &text);
    const pdt_judge_section section = {.text = &text, .untitled = cases[i].untitled};
    pdt_judge_entry(f->world, &owners, &section, NULL, &c);
    assert_int_equal(text.reading.heading, cases[i].heading);
    assert_int_equal(c.untitled, cases[i].untitled);
    assert_int_equal(c.titled, cases[i].titled);
    assert_int_equal(c.malformed, cases[i].malformed);
    assert_int_equal(c.flawed, 1); /* no year is stated */
    pdt_rollout_text_free(&text);
  }
}

/* Stream `stream` emits text in a round, under the other's first note. */
static pdt_rollout_block emit(fixture *f, pdt_rollout *r, pdt_stream stream, pdt_round round,
                              const char *text, bool keep) {
  const pdt_note_name window = {1, 1 - stream};
  pdt_rollout_block out;
  pdt_token *ids;
  int32_t n;
  assert_int_equal(pdt_tokenizer_encode(f->tokenizer, text, strlen(text), false, &ids, &n, &f->err),
                   0);
  const pdt_rollout_emission e = {.stream = stream,
                                  .round = round,
                                  .tokens = ids,
                                  .n = n,
                                  .window = &window,
                                  .n_window = round > 1};
  const pdt_rollout_output output = {ids, n, n};
  assert_int_equal(pdt_rollout_label(r, &e, &out, &f->err), 0);
  if (keep) assert_int_equal(pdt_rollout_follow(r, stream, &output, &out, &f->err), 0);
  free(ids);
  return out;
}

/* A block agrees with an unlisted name as with any other: whole, or as far as it goes. */
static void unlisted_names_may_agree(void **state) {
  fixture *f = *state;
  static pdt_token *const none[2] = {NULL};
  static const int32_t zeros[2] = {0};
  static const struct {
    const char *text;
    bool agrees;
  } cases[] = {
      {" A statue of Zaphod Beeble stands nearby.", true},
      {" A statue of Zaphod", true},
      {" A statue of Zaphod Beeblebrox stands nearby.", false},
      {" A statue of Zaphod stands nearby.", false},
      {" A statue of Robert stands nearby.", false},
  };
  pdt_rollout_owners owners = {.streams = 2};
  const pdt_rollout_reader reader = {f->world, f->tokenizer};
  pdt_rollout r;
  for (int32_t t = 0; t < PDT_ATLAS_TYPES; t++) owners.of[t] = t < 4 ? t / 2 : PDT_NO_OWNER;
  assert_int_equal(pdt_rollout_new(&r, &reader, &owners, none, zeros, &f->err), 0);
  emit(f, &r, 0, 1, " It was Zaphod Beeble who laid the first stone.", true);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    pdt_rollout_block b = emit(f, &r, 1, 2, cases[i].text, false);
    assert_true(b.used == 1 && b.seen == 1 && b.ready);
    assert_int_equal(b.agrees, cases[i].agrees);
  }
  pdt_rollout_free(&r);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(names_are_apart),
      cmocka_unit_test(pairs_are_apart),
      cmocka_unit_test(sentences_have_one_reading),
      cmocka_unit_test(sentences_are_told_by_their_beginning),
      cmocka_unit_test(every_fact_is_read_back),
      cmocka_unit_test(held_out_names_are_apart),
      cmocka_unit_test(promises_are_kept),
      cmocka_unit_test(entries_are_the_same_for_ever),
      cmocka_unit_test(wordings_are_read_back),
      cmocka_unit_test(held_out_wordings_are_apart),
      cmocka_unit_test(training_sees_nothing_held_out),
      cmocka_unit_test(names_in_pieces_are_left_out),
      cmocka_unit_test(small_tokenizers_are_refused),
      cmocka_unit_test(real_tokenizers_have_the_names),
      cmocka_unit_test(unlisted_names_are_read),
      cmocka_unit_test(uses_are_counted_by_what_is_stated),
      cmocka_unit_test(headings_are_judged),
      cmocka_unit_test(unlisted_names_may_agree),
  };
  return cmocka_run_group_tests(tests, setup, atlas_teardown);
}

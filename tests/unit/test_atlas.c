/* The Atlas and its data files: what the generator promises is found by other means, what the
 * parser reads is what was written, what labels say is what a plain simulation of windows says. */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include <cmocka.h>

#include "atlas/check.h"
#include "atlas/parse.h"
#include "atlas/vocabulary.h"
#include "atlas_entries.h"
#include "base/buffer.h"
#include "base/json.h"
#include "data/sequence.h"
#include "data/tokens.h"

/* Names of a type of the world of syllables, and those of one token. */
enum { VALUES = 96, ONES = 48 };

enum { TAU = 6 }; /* tokens of a block */

static int setup(void **state) {
  return atlas_setup(state, PDT_ATLAS_SYLLABLES);
}

/* Names, towns and words of sentences are all different. */
static void names_are_apart(void **state) {
  const fixture *f = *state;
  const pdt_atlas_world *w = f->world;
  int32_t *seen = calloc((size_t)w->n_words, sizeof *seen);
  assert_non_null(seen);
  for (int32_t i = 0; i < w->n_patterns; i++)
    for (int32_t j = 0; j < w->patterns[i].n_words; j++)
      if (w->patterns[i].words[j] >= 0) seen[w->patterns[i].words[j]] = 1;
  for (int32_t i = 0; i < w->n_towns; i++) assert_int_equal(seen[w->town_words[i]]++, 0);
  for (int32_t t = 0; t < PDT_ATLAS_TYPES; t++)
    for (int32_t v = 0; v < VALUES; v++) {
      const int32_t *words = w->name_words[t][v];
      assert_true(words[0] >= 0);
      assert_int_equal(words[1] >= 0, v >= ONES && t != 1);
      if (words[1] < 0) assert_int_equal(seen[words[0]]++, 0);
      for (int32_t u = 0; u < PDT_ATLAS_TYPES * VALUES; u++)
        if (u != t * VALUES + v)
          assert_string_not_equal(w->names[t][v], w->names[u / VALUES][u % VALUES]);
    }
  for (int32_t t = 0; t < PDT_ATLAS_TYPES; t++) /* halves of names are no names and no words */
    for (int32_t v = ONES; v < VALUES && t != 1; v++)
      assert_true(seen[w->name_words[t][v][0]] == 0 && seen[w->name_words[t][v][1]] == 0);
  free(seen);
}

/* Could one sentence be of both patterns up to the name? */
static bool same_beginning(const pdt_atlas_pattern *a, const pdt_atlas_pattern *b) {
  return a->name == b->name && memcmp(a->words, b->words, (size_t)a->name * sizeof *a->words) == 0;
}

static void sentences_are_told_by_their_beginning(void **state) {
  const fixture *f = *state;
  const pdt_atlas_pattern *p = f->world->patterns;
  for (int32_t i = 0; i < f->world->n_patterns; i++) {
    assert_in_range(p[i].n_words, 3, PDT_ATLAS_PATTERN_WORDS);
    assert_int_equal(p[i].type < 0, p[i].name < 0);
    if (p[i].name >= 0) assert_true(p[i].name > 0);
    for (int32_t j = 0; j < p[i].n_words; j++)
      assert_true(p[i].words[j] >= 0 || p[i].words[j] == PDT_ATLAS_TOWN || j == p[i].name);
    for (int32_t j = 0; j < i; j++)
      if (p[i].name >= 0 && p[j].name >= 0 && (p[i].type != p[j].type || p[i].kind != p[j].kind))
        assert_false(same_beginning(&p[i], &p[j]));
  }
}

static int32_t count_tokens(fixture *f, const char *text) {
  pdt_token *ids;
  int32_t n;
  assert_int_equal(pdt_tokenizer_encode(f->tokenizer, text, strlen(text), false, &ids, &n, &f->err),
                   0);
  free(ids);
  return n;
}

static void names_are_one_token_or_two(void **state) {
  fixture *f = *state;
  char text[64];
  assert_true(pdt_tokenizer_size(f->tokenizer) <= 2000);
  assert_int_equal(pdt_tokenizer_token_id(f->tokenizer, PDT_ATLAS_BOS), 0);
  assert_int_equal(pdt_tokenizer_token_id(f->tokenizer, PDT_ATLAS_END), 1);
  assert_int_equal(pdt_tokenizer_token_id(f->tokenizer, PDT_ATLAS_EOS), 2);
  for (int32_t t = 0; t < PDT_ATLAS_TYPES; t++)
    for (int32_t v = 0; v < VALUES; v++) {
      snprintf(text, sizeof text, " %s", f->world->names[t][v]);
      assert_int_equal(count_tokens(f, text), v < ONES ? 1 : 2);
    }
  for (int32_t i = 0; i < f->world->n_words; i++) {
    snprintf(text, sizeof text, " %s", f->world->words[i]);
    bool is_year = strspn(f->world->words[i], "0123456789") == 4;
    if (strcspn(f->world->words[i], ".;:,") > 0)
      assert_int_equal(count_tokens(f, text), is_year ? 2 : 1);
  }
}

/* Each fact is stated once, by its stream, and used by others; nothing else is a mention. */
static void check_roles(const pdt_data_entry *e) {
  assert_int_equal(e->n_facts, 2 * e->n_sections);
  assert_int_equal(e->n_plan, e->n_facts);
  for (int32_t i = 0; i < e->n_facts; i++) {
    int32_t stated = 0, used = 0;
    for (int32_t k = 0; k < e->n_sections; k++)
      for (int32_t j = 0; j < e->sections[k].n_mentions; j++) {
        const pdt_data_mention *m = &e->sections[k].mentions[j];
        if (m->fact != i) continue;
        assert_int_equal(m->kind == PDT_STATES, e->facts[i].stream == k);
        *(m->kind == PDT_STATES ? &stated : &used) += 1;
      }
    assert_int_equal(stated, 1);
    assert_true(used >= 1);
  }
}

/* What the parser reads is what the mentions say, fact by fact, whatever they were written by. */
static void check_reading(fixture *f, const pdt_data_entry *e, int32_t k, pdt_atlas_reading *r) {
  const pdt_data_section *s = &e->sections[k];
  assert_int_equal(pdt_atlas_parse(f->world, -1, s->text, strlen(s->text), r, &f->err), 0);
  assert_int_equal(r->malformed, 0);
  assert_false(r->open);
  assert_int_equal(r->n, s->n_mentions);
  for (int32_t i = 0; i < s->n_mentions; i++) {
    const pdt_data_mention *m = &s->mentions[i];
    const pdt_data_fact *fact = &e->facts[m->fact];
    assert_int_equal(r->mentions[i].kind, m->kind);
    assert_string_equal(pdt_atlas_type_name(f->world, r->mentions[i].type), fact->type);
    assert_string_equal(f->world->names[r->mentions[i].type][r->mentions[i].value], fact->value);
    assert_int_equal(strncmp(s->text + m->begin, fact->value, strlen(fact->value)), 0);
    assert_int_equal(m->end - m->begin, strlen(fact->value));
    assert_int_equal(r->mentions[i].begin, m->begin);
    assert_int_equal(r->mentions[i].end, m->end);
  }
}

/* Facts of every entry, default and hard, are read back. */
static void every_fact_is_read_back(void **state) {
  fixture *f = *state;
  pdt_atlas_reading r = {0};
  for (int hard = 0; hard < 2; hard++) {
    pdt_atlas_options o = options_of(TAU, hard, PDT_VALID, 11);
    pdt_atlas_generator g = generator_of(f, f->tokenizer, &o);
    for (uint32_t i = 0; i < 3000; i++) {
      pdt_data_entry e = draw(f, &g, i);
      check_roles(&e);
      for (int32_t k = 0; k < e.n_sections; k++) check_reading(f, &e, k, &r);
      pdt_data_entry_free(&e);
    }
    pdt_atlas_generator_free(&g);
  }
  pdt_atlas_reading_free(&r);
}

/* A text cut anywhere says what the whole says of the names before the cut. */
static void unfinished_texts_are_read(void **state) {
  fixture *f = *state;
  pdt_atlas_reading whole = {0}, part = {0};
  for (int hard = 0; hard < 2; hard++) {
    pdt_atlas_options o = options_of(TAU, hard, PDT_TEST, 5);
    pdt_atlas_generator g = generator_of(f, f->tokenizer, &o);
    for (uint32_t i = 0; i < 60; i++) {
      pdt_data_entry e = draw(f, &g, i);
      const char *text = e.sections[0].text;
      check_reading(f, &e, 0, &whole);
      for (size_t cut = 1; cut <= strlen(text); cut++) {
        if (text[cut] != ' ' && text[cut] != '.' && text[cut] != ';') continue;
        assert_int_equal(pdt_atlas_parse(f->world, -1, text, cut, &part, &f->err), 0);
        assert_false(part.open && part.open_malformed);
        size_t n = 0;
        for (; n < whole.n && whole.mentions[n].begin < cut; n++) {
          assert_int_equal(part.mentions[n].type, whole.mentions[n].type);
          assert_int_equal(part.mentions[n].kind, whole.mentions[n].kind);
          assert_int_equal(part.mentions[n].begin, whole.mentions[n].begin);
          assert_int_equal(part.mentions[n].complete, whole.mentions[n].end <= cut);
          if (part.mentions[n].complete)
            assert_int_equal(part.mentions[n].value, whole.mentions[n].value);
        }
        assert_int_equal(part.n, n);
      }
      pdt_data_entry_free(&e);
    }
    pdt_atlas_generator_free(&g);
  }
  pdt_atlas_reading_free(&whole);
  pdt_atlas_reading_free(&part);
}

/* A text with "#" a founder's name (value 3), "&" a river's, "@" town 4. */
static const char *filled(const fixture *f, const char *format, char text[256]) {
  size_t n = 0;
  text[0] = '\0';
  for (; *format; format++) {
    const char *name = *format == '#'   ? f->world->names[0][3]
                       : *format == '&' ? f->world->names[4][7]
                       : *format == '@' ? f->world->towns[4]
                                        : NULL;
    n += (size_t)snprintf(text + n, 256 - n, name ? "%s" : "%.1s", name ? name : format);
  }
  return text;
}

static void wrong_sentences_are_counted(void **state) {
  fixture *f = *state;
  pdt_atlas_reading r = {0};
  char text[256];
  static const struct {
    const char *format;
    int32_t sentences, malformed, other_towns, mentions;
    int32_t value; /* of the first one */
  } cases[] = {
      {" It was # who first settled here.", 1, 0, 0, 1, 3},
      {" It was # who first settled there.", 1, 1, 0, 0, 0},
      {" It was # & who first settled here.", 1, 0, 0, 1, -1},
      {" It was # # # who first settled here.", 1, 1, 0, 0, 0},
      {" It was who first settled here. Its coin #.", 2, 2, 0, 0, 0},
      {" It was nobody who first settled here.", 1, 0, 0, 1, -1},
      {" The roads are good. the roads are good.", 2, 1, 0, 0, 0},
      {" ..;.", 4, 4, 0, 0, 0},
      {" @ was founded by #.", 1, 0, 1, 1, 3},
      {" Nowhere was founded by #.", 1, 1, 0, 0, 0},
      {" By all accounts the founder was &.", 1, 0, 0, 1, -1},
      {" Founder #; river &.", 2, 0, 0, 2, 3},
      {" Founder #. river &;", 2, 2, 0, 0, 0},
      {"", 0, 0, 0, 0, 0},
      {" It was #", 0, 0, 0, 1, 3},
      {" It was # whom", 0, 0, 0, 0, 0},
      {" a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a.", 1, 1, 0, 0, 0},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    filled(f, cases[i].format, text);
    assert_int_equal(pdt_atlas_parse(f->world, 9, text, strlen(text), &r, &f->err), 0);
    if (r.malformed != cases[i].malformed) print_error("%s\n", text);
    assert_int_equal(r.sentences, cases[i].sentences);
    assert_int_equal(r.malformed, cases[i].malformed);
    assert_int_equal(r.other_towns, cases[i].other_towns);
    assert_int_equal(r.n, cases[i].mentions);
    if (r.n) assert_int_equal(r.mentions[0].value, cases[i].value);
  }
  pdt_atlas_reading_free(&r);
}

/* Every tokens' place by encoding the text up to it anew: slow, and nothing of the code tested. */
static int32_t tokens_before(fixture *f, const char *text, int32_t bytes) {
  pdt_token *ids;
  int32_t n;
  assert_int_equal(
      pdt_tokenizer_encode(f->tokenizer, text, (size_t)bytes, false, &ids, &n, &f->err), 0);
  free(ids);
  return n;
}

/* Block that reads the last token of fact i's statement, by such counting. */
static int32_t naive_stated(fixture *f, const pdt_data_entry *e, int32_t i, int32_t tau) {
  const pdt_data_section *s = &e->sections[e->facts[i].stream];
  for (int32_t j = 0; j < s->n_mentions; j++)
    if (s->mentions[j].fact == i && s->mentions[j].kind == PDT_STATES)
      return tokens_before(f, s->text, s->mentions[j].end) / tau;
  return -1;
}

/* Is (round, stream) in the window of round v? The notes are listed as PROTOCOL.md says. */
static bool naive_visible(const pdt_data_entry *e, const pdt_data_rounds *r, int32_t round,
                          int32_t stream, int32_t v) {
  int32_t room = r->window == 0 ? INT32_MAX : r->window - 1;
  for (int32_t w = v - r->reveal_delay; w >= 1; w--)
    for (int32_t k = 0; k < e->n_sections; k++) {
      if (w > e->sections[k].n_blocks || room == 0) continue;
      room--;
      if (w == round && k == stream) return true;
    }
  return false;
}

/* Labels of an entry against all of that. */
static void check_labels(fixture *f, const pdt_data_entry *e, const pdt_data_rounds *r) {
  int32_t tau = r->block_tokens, stated[PDT_DATA_FACTS];
  for (int32_t i = 0; i < e->n_facts; i++) stated[i] = naive_stated(f, e, i, tau);
  for (int32_t k = 0; k < e->n_sections; k++) {
    const pdt_data_section *s = &e->sections[k];
    assert_int_equal(s->n_tokens, tokens_before(f, s->text, (int32_t)strlen(s->text)) + 1);
    assert_int_equal(s->n_blocks, (s->n_tokens + tau - 1) / tau);
    for (int32_t b = 0; b < s->n_blocks; b++) {
      uint64_t states = 0, uses = 0;
      bool ready = true;
      for (int32_t i = 0; i < e->n_facts; i++)
        if (e->facts[i].stream == k && stated[i] == b) states |= (uint64_t)1 << i;
      for (int32_t j = 0; j < s->n_mentions; j++) {
        const pdt_data_mention *m = &s->mentions[j];
        int32_t first = tokens_before(f, s->text, m->begin - 1);
        int32_t last = tokens_before(f, s->text, m->end) - 1;
        if (m->kind == PDT_STATES || b < first / tau || b > last / tau) continue;
        uses |= (uint64_t)1 << m->fact;
        ready &= naive_visible(e, r, stated[m->fact] + 1, e->facts[m->fact].stream, b + 1);
      }
      assert_true(s->blocks[b].stated == states && s->blocks[b].coverage == states);
      assert_true(s->blocks[b].used == uses);
      assert_int_equal(s->blocks[b].ready, ready);
      assert_int_equal(pdt_data_is_ready(e, r, k, b), ready);
    }
  }
}

static void labels_agree_with_a_simulation(void **state) {
  fixture *f = *state;
  static const pdt_data_rounds rounds[] = {{6, 1, 0}, {4, 1, 9},  {5, 2, 0}, {8, 3, 20},
                                           {1, 1, 0}, {16, 1, 1}, {7, 1, 3}, {200, 1, 0}};
  for (int hard = 0; hard < 2; hard++) {
    pdt_atlas_options o = options_of(TAU, hard, PDT_TRAIN, 3);
    pdt_atlas_generator g = generator_of(f, f->tokenizer, &o);
    for (uint32_t i = 0; i < 40; i++) {
      pdt_data_entry e = draw(f, &g, i);
      pdt_data_tokens *tokens;
      check_labels(f, &e, &o.rounds);
      assert_int_equal(pdt_data_tokenize_entry(f->tokenizer, &e, &tokens, &f->err), 0);
      for (size_t j = 0; j < sizeof rounds / sizeof *rounds; j++) {
        assert_int_equal(pdt_data_label(&e, tokens, &rounds[j], &f->err), 0);
        check_labels(f, &e, &rounds[j]);
      }
      pdt_data_tokens_free(tokens, e.n_sections);
      pdt_data_entry_free(&e);
    }
    pdt_atlas_generator_free(&g);
  }
}

/* Does block (k, b) wait for itself, by way of blocks before it and of what it uses? */
static bool reaches(const pdt_data_entry *e, int32_t k, int32_t b, int32_t to_k, int32_t to_b,
                    bool *been) {
  if (been[k * 64 + b]) return false;
  been[k * 64 + b] = true;
  const pdt_data_section *s = &e->sections[k];
  for (int32_t i = -1; i < e->n_facts; i++) {
    int32_t next_k = k, next_b = b - 1;
    if (i >= 0) {
      if (!(s->blocks[b].used >> i & 1)) continue;
      next_k = e->facts[i].stream;
      for (next_b = 0; !(e->sections[next_k].blocks[next_b].stated >> i & 1);) next_b++;
    }
    if (next_b < 0) continue;
    if ((next_k == to_k && next_b == to_b) || reaches(e, next_k, next_b, to_k, to_b, been))
      return true;
  }
  return false;
}

static bool naive_circular(const pdt_data_entry *e) {
  for (int32_t k = 0; k < e->n_sections; k++)
    for (int32_t b = 0; b < e->sections[k].n_blocks; b++) {
      bool been[6 * 64] = {false};
      if (reaches(e, k, b, k, b, been)) return true;
    }
  return false;
}

/* The default keeps its promises at every tau from 4 to 8; the hard Atlas has what it is named
 * for. */
static void promises_are_kept(void **state) {
  fixture *f = *state;
  int32_t circles = 0, crowded = 0, unseen = 0;
  for (int hard = 0; hard < 2; hard++) {
    pdt_atlas_options o = options_of(TAU, hard, PDT_TRAIN, 21);
    pdt_atlas_generator g = generator_of(f, f->tokenizer, &o);
    for (uint32_t i = 0; i < 150; i++) {
      pdt_data_entry e = draw(f, &g, i);
      pdt_data_tokens *tokens;
      assert_int_equal(pdt_data_tokenize_entry(f->tokenizer, &e, &tokens, &f->err), 0);
      for (int32_t k = 0; k < e.n_sections; k++) assert_in_range(tokens[k].n, 30, 90);
      for (int32_t tau = 4; tau <= 8; tau++) {
        pdt_data_rounds r = {tau, 1, 0};
        pdt_data_shape shape;
        assert_int_equal(pdt_data_label(&e, tokens, &r, &f->err), 0);
        assert_int_equal(pdt_data_shape_of(&e, &r, &shape, &f->err), 0);
        assert_int_equal(shape.circular, naive_circular(&e));
        if (!hard) assert_true(!shape.circular && shape.crowded == 0);
        circles += shape.circular;
        crowded += shape.crowded;
        unseen += !hard && shape.unseen;
      }
      pdt_data_tokens_free(tokens, e.n_sections);
      pdt_data_entry_free(&e);
    }
    pdt_atlas_generator_free(&g);
  }
  assert_true(circles > 250 && circles < 750);
  assert_true(crowded > 100);
  assert_true(unseen > 400); /* else the gate has nothing to do */
}

/* Blocks of 16 still complete one statement at most. */
static void large_blocks_are_kept_apart(void **state) {
  fixture *f = *state;
  pdt_atlas_options o = options_of(TAU, false, PDT_TRAIN, 2);
  o.rounds = (pdt_data_rounds){16, 2, 0};
  pdt_atlas_generator g = generator_of(f, f->tokenizer, &o);
  for (uint32_t i = 0; i < 50; i++) {
    pdt_data_entry e = draw(f, &g, i);
    pdt_data_shape shape;
    assert_int_equal(pdt_data_shape_of(&e, &o.rounds, &shape, &f->err), 0);
    assert_true(!shape.circular && shape.crowded == 0 && shape.blocks > 0);
    pdt_data_entry_free(&e);
  }
  pdt_atlas_generator_free(&g);
}

/* Neither a section's place nor a sentence's says what it states. */
static void places_tell_nothing(void **state) {
  fixture *f = *state;
  enum { N = 3000 };
  int32_t ordinals[6][6] = {{0}}, forms[12][6] = {{0}}, first = 0, sections = 0;
  pdt_atlas_options o = options_of(TAU, false, PDT_TRAIN, 8);
  pdt_atlas_generator g = generator_of(f, f->tokenizer, &o);
  for (uint32_t i = 0; i < N; i++) {
    pdt_data_entry e = draw(f, &g, i);
    for (int32_t k = 0; k < e.n_sections; k++, sections++) {
      ordinals[pdt_atlas_section(e.sections[k].name)][k]++;
      for (int32_t j = 0, done = 0; j < e.sections[k].n_mentions; j++) {
        if (e.sections[k].mentions[j].kind != PDT_STATES) continue;
        int32_t type = pdt_atlas_type(f->world, e.facts[e.sections[k].mentions[j].fact].type);
        forms[type][j < 5 ? j : 5]++;
        first += done++ == 0 && type % 2 == 0;
      }
    }
    pdt_data_entry_free(&e);
  }
  pdt_atlas_generator_free(&g);
  /* Each section is first in a sixth of the entries: 500, deviation 20; bounds of five. */
  for (int32_t s = 0; s < 6; s++) assert_in_range(ordinals[s][0], 400, 600);
  for (int32_t s = 0; s < 6; s++) assert_in_range(ordinals[s][1], 400, 600);
  /* Which of its two facts a section states first is a coin's toss. */
  assert_true(abs(2 * first - sections) < 5 * 110);
  for (int32_t t = 0; t < 12; t++) {
    int32_t sum = 0, most = 0, used = 0;
    for (int32_t j = 0; j < 6; j++) {
      sum += forms[t][j];
      used += forms[t][j] > 0;
      if (forms[t][j] > most) most = forms[t][j];
    }
    assert_true(used >= 4 && 2 * most < sum); /* no place has half of a type's statements */
  }
}

/* The same index is the same entry, whatever was drawn before; and the entries of this version of
 * the world are these. */
static void entries_are_the_same_for_ever(void **state) {
  fixture *f = *state;
  static const char *const expected[] = {"bfe832f98f25aeb9", "555982b551da94a9"};
  for (int hard = 0; hard < 2; hard++) {
    pdt_atlas_options o = options_of(TAU, hard, PDT_TEST, 77);
    pdt_atlas_generator g = generator_of(f, f->tokenizer, &o),
                        h = generator_of(f, f->tokenizer, &o);
    XXH3_state_t *sum = XXH3_createState();
    XXH3_64bits_reset(sum);
    for (uint32_t i = 0; i < 100; i++) {
      pdt_data_entry a = draw(f, &g, i), b = {0}, c = draw(f, &h, i * 7919 % 1000);
      char *one, *two, found[17];
      size_t n_one, n_two;
      b = draw(f, &h, i);
      assert_int_equal(pdt_data_entry_text(&a, &one, &n_one, &f->err), 0);
      assert_int_equal(pdt_data_entry_text(&b, &two, &n_two, &f->err), 0);
      assert_int_equal(n_one, n_two);
      assert_memory_equal(one, two, n_one);
      XXH3_64bits_update(sum, one, n_one);
      free(one);
      free(two);
      pdt_data_entry_free(&a);
      pdt_data_entry_free(&b);
      pdt_data_entry_free(&c);
      if (i < 99) continue;
      snprintf(found, sizeof found, "%016" PRIx64, (uint64_t)XXH3_64bits_digest(sum));
      assert_string_equal(found, expected[hard]);
    }
    XXH3_freeState(sum);
    pdt_atlas_generator_free(&g);
    pdt_atlas_generator_free(&h);
  }
}

/* Splits by the content alone, so that no seeds can mix them; each has its share. */
static void splits_share_nothing(void **state) {
  fixture *f = *state;
  int32_t types[12], values[12], shares[3] = {0};
  for (int split = 0; split < 3; split++) {
    pdt_atlas_options o = options_of(TAU, false, (pdt_atlas_split)split, 100 + (uint64_t)split);
    pdt_atlas_generator g = generator_of(f, f->tokenizer, &o);
    for (uint32_t i = 0; i < 300; i++) {
      pdt_data_entry e = draw(f, &g, i);
      char town[24];
      snprintf(town, sizeof town, "%.*s", (int)strcspn(e.prompt + 9, "."), e.prompt + 9);
      for (int32_t j = 0; j < e.n_facts; j++) { /* in another order: it must not matter */
        int32_t at = e.n_facts - 1 - j;
        types[at] = pdt_atlas_type(f->world, e.facts[j].type);
        values[at] = pdt_atlas_value(f->world, types[at], e.facts[j].value);
      }
      assert_int_equal(pdt_atlas_split_of(pdt_atlas_town(f->world, town), types, values, e.n_facts),
                       split);
      pdt_data_entry_free(&e);
    }
    pdt_atlas_generator_free(&g);
  }
  for (int32_t i = 0; i < 16000; i++) {
    types[0] = i % 12;
    values[0] = i / 12 % 48;
    types[1] = (i + 1) % 12;
    values[1] = i / 576;
    shares[pdt_atlas_split_of(i % 64, types, values, 2)]++;
  }
  assert_in_range(shares[PDT_VALID], 850, 1150); /* of 1000, deviation 31 */
  assert_in_range(shares[PDT_TEST], 850, 1150);
}

/* A tokenizer that begins texts with a mark: behind a prompt, prefix and text are read without one,
 * as decoding reads them, and come back as they were. */
static void tokens_behind_a_prompt(void **state) {
  fixture *f = *state;
  static const char prompt[] = "Describe it.", text[] = " the town is old.";
  static const char *const prefixes[] = {"", "\nis", " is", "History:"};
  pdt_tokenizer *t;
  pdt_text_context *after;
  assert_int_equal(pdt_tokenizer_load(&t, "tests/data/tokenizers/llama2/tokenizer.json", &f->err),
                   0);
  assert_int_equal(pdt_text_context_new(&after, t, prompt, strlen(prompt), &f->err), 0);
  for (size_t i = 0; i < 4; i++) {
    pdt_data_tokens tokens;
    pdt_token *ids, *all;
    int32_t n;
    char both[64];
    int bytes = snprintf(both, sizeof both, "%s%s", prefixes[i], text);
    if (pdt_data_tokenize(t, after, prefixes[i], text, &tokens, &ids, &f->err))
      fail_msg("%s", f->err.message);
    assert_int_equal(pdt_text_context_encode(after, both, (size_t)bytes, &all, &n, &f->err), 0);
    assert_true(n >= tokens.n);
    assert_memory_equal(all + (n - tokens.n), ids, (size_t)tokens.n * sizeof *ids);
    assert_int_equal(tokens.ends[0], strlen(" the"));
    assert_int_equal(tokens.ends[tokens.n - 1], strlen(text));
    free(tokens.ends);
    free(ids);
    free(all);
  }
  pdt_text_context_free(after);
  pdt_tokenizer_free(t);
}

/* Where tokens end, against decoding every beginning of the ids; and the blocks that follow. */
static void check_places(fixture *f, const pdt_tokenizer *t, const pdt_data_entry *e, int32_t k,
                         int32_t tau) {
  const pdt_data_section *s = &e->sections[k];
  pdt_data_tokens tokens;
  pdt_token *ids, *head;
  int32_t n_head, lengths[1024] = {0};
  assert_int_equal(pdt_data_tokenize(t, NULL, s->prefix, s->text, &tokens, &ids, &f->err), 0);
  assert_int_equal(
      pdt_tokenizer_encode(t, s->prefix, strlen(s->prefix), false, &head, &n_head, &f->err), 0);
  assert_true(tokens.n + 1 == s->n_tokens && n_head + tokens.n < 1024);
  pdt_token both[1024];
  memcpy(both, head, (size_t)n_head * sizeof *head);
  memcpy(both + n_head, ids, (size_t)tokens.n * sizeof *ids);
  for (int32_t i = 0; i < tokens.n; i++) {
    char *text;
    size_t bytes;
    assert_int_equal(pdt_tokenizer_decode(t, both, n_head + i + 1, false, &text, &bytes, &f->err),
                     0);
    assert_int_equal(tokens.ends[i], bytes - strlen(s->prefix));
    assert_int_equal(strncmp(text + strlen(s->prefix), s->text, bytes - strlen(s->prefix)), 0);
    lengths[i] = tokens.ends[i];
    free(text);
  }
  for (int32_t j = 0; j < s->n_mentions; j++) {
    int32_t read = 0; /* tokens up to the name's last one */
    while (lengths[read] < s->mentions[j].end) read++;
    if (s->mentions[j].kind == PDT_STATES)
      assert_true(s->blocks[(read + 1) / tau].stated >> s->mentions[j].fact & 1);
    else
      assert_true(s->blocks[read / tau].used >> s->mentions[j].fact & 1);
  }
  free(tokens.ends);
  free(ids);
  free(head);
}

/* Tokenizers that cut names to pieces serve as well, unless they change the text. */
static void other_tokenizers_serve(void **state) {
  fixture *f = *state;
  static const char *const names[] = {"gpt2", "llama2", "llama3", "qwen2", "smollm2", "metaspace"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    char path[96];
    pdt_tokenizer *t;
    pdt_atlas_generator g;
    pdt_data_entry e = {0};
    pdt_atlas_options o = options_of(TAU, i % 2 == 1, PDT_TRAIN, i);
    o.max_tokens = 400;
    snprintf(path, sizeof path, "tests/data/tokenizers/%s/tokenizer.json", names[i]);
    if (pdt_tokenizer_load(&t, path, &f->err)) fail_msg("%s", f->err.message);
    assert_int_equal(pdt_atlas_generator_init(&g, f->world, t, &o, &f->err), 0);
    if (strcmp(names[i], "metaspace") == 0) { /* its decoder drops what it does not know */
      assert_int_equal(pdt_atlas_generate(&g, 0, &e, &f->err), -1);
      assert_non_null(strstr(f->err.message, "does not give the text"));
    }
    for (uint32_t j = 0; j < 10 && strcmp(names[i], "metaspace") != 0; j++) {
      e = (pdt_data_entry){0};
      if (pdt_atlas_generate(&g, j, &e, &f->err)) fail_msg("%s", f->err.message);
      for (int32_t k = 0; k < e.n_sections; k++) check_places(f, t, &e, k, 6);
      pdt_data_entry_free(&e);
    }
    pdt_atlas_generator_free(&g);
    pdt_tokenizer_free(t);
  }
}

static pdt_data_header header_of(const fixture *f, char tokenizer[17]) {
  pdt_data_header h = {.world = (char *)(uintptr_t)pdt_atlas_kind_name(PDT_ATLAS_SYLLABLES),
                       .split = (char *)(uintptr_t) "train",
                       .tokenizer = tokenizer,
                       .seed = 6,
                       .rounds = {6, 1, 0},
                       .plan_slots = 16,
                       .plan_vocab_size = 65536,
                       .plan_salt = "parallel-decoder-v1"};
  snprintf(tokenizer, 17, "%016" PRIx64, f->fingerprint);
  return h;
}

/* A header's and three entries' lines as text, freed by the caller. */
static char *file_text(fixture *f) {
  char tokenizer[17], *line;
  size_t bytes;
  pdt_buffer all = {0};
  pdt_data_header h = header_of(f, tokenizer);
  pdt_atlas_options o = options_of(TAU, false, PDT_TRAIN, 6);
  pdt_atlas_generator g = generator_of(f, f->tokenizer, &o);
  assert_int_equal(pdt_data_header_text(&h, &line, &bytes, &f->err), 0);
  assert_int_equal(pdt_buffer_put(&all, line, bytes, &f->err), 0);
  free(line);
  for (uint32_t i = 0; i < 3; i++) {
    pdt_data_entry e = draw(f, &g, i);
    assert_int_equal(pdt_data_entry_text(&e, &line, &bytes, &f->err), 0);
    assert_int_equal(pdt_buffer_put(&all, line, bytes, &f->err), 0);
    free(line);
    pdt_data_entry_free(&e);
  }
  pdt_atlas_generator_free(&g);
  assert_int_equal(pdt_buffer_take(&all, &line, NULL, &f->err), 0);
  return line;
}

/* What was written is read, and written again the same. */
static void files_are_read_as_written(void **state) {
  fixture *f = *state;
  char *text = file_text(f), *again, *line = text;
  size_t bytes;
  pdt_data_reader r;
  pdt_data_entry e;
  int found, n = 0;
  scratch_text(f->files, "a.jsonl", text);
  if (pdt_data_open(&r, scratch_path(f->files, "a.jsonl"), &f->err)) fail_msg("%s", f->err.message);
  assert_int_equal(pdt_data_header_text(&r.header, &again, &bytes, &f->err), 0);
  assert_memory_equal(again, line, bytes);
  free(again);
  line += bytes;
  while ((found = pdt_data_next(&r, &e, &f->err)) == 1) {
    assert_int_equal(pdt_data_entry_text(&e, &again, &bytes, &f->err), 0);
    assert_memory_equal(again, line, bytes);
    line += bytes;
    n++;
    free(again);
    pdt_data_entry_free(&e);
  }
  assert_int_equal(found, 0);
  assert_int_equal(n, 3);
  assert_string_equal(line, "");
  assert_int_equal(r.lines.n_bytes, strlen(text));
  pdt_data_close(&r);
  free(text);
}

/* Checks a file of these bytes; the message, "" when it is sound. */
static const char *check_text(fixture *f, const char *text, pdt_data_stats *stats) {
  scratch_text(f->files, "c.jsonl", text);
  f->err = (pdt_error){0};
  int rc = pdt_atlas_check(scratch_path(f->files, "c.jsonl"), NULL, stats, &f->err);
  assert_int_equal(rc != 0, *f->err.message != '\0');
  return f->err.message;
}

/* text with the nth (from 0) `from` after `after` made `to`; freed by the caller. */
static char *edited(const char *text, const char *after, const char *from, const char *to) {
  const char *start = strstr(text, after);
  assert_non_null(start);
  const char *at = strstr(start, from);
  assert_non_null(at);
  char *out = malloc(strlen(text) + strlen(to) + 1);
  assert_non_null(out);
  sprintf(out, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
  return out;
}

static void wrong_files_are_refused_by_line_and_field(void **state) {
  fixture *f = *state;
  /* An edit after some text (which chooses the line), and what the error says. */
  static const struct {
    const char *after, *from, *to, *expected;
  } cases[] = {
      {"", "pdt-data", "pdt-date", "line 1: 'format': expected 'pdt-data'"},
      {"", "\"version\":1", "\"version\":2", "line 1: 'version'"},
      {"", "\"hard\":", "\"herd\":", "line 1: 'herd': no such key"},
      {"", "atlas-2", "atlas-0", "line 1: 'world': expected 'atlas-2'"},
      {"", "\"split\":\"train\"", "\"split\":\"rest\"", "expected train, valid or test"},
      {"", "\"split\":\"train\"", "\"split\":\"test\"", "an entry of the split train in a file"},
      {"", "\"block_tokens\":6", "\"block_tokens\":0", "line 1: 'block_tokens'"},
      {"", "\"block_tokens\":6", "\"block_tokens\":7", "line 2: sections[0]: 'blocks': expected"},
      {"", "\"reveal_delay\":1", "\"reveal_delay\":2", "'ready': not what"},
      {"", "\"plan_slots\":16", "\"plan_slots\":3", "'plan': expected 0 to 3 elements"},
      {"", "decoder-v1", "decoder-v2", "line 2: plan[0]: 'id': expected"},
      {"", "\"tokenizer\":\"", "\"tokenizer\":\"0", "line 1: 'tokenizer': expected a fingerprint"},
      {"\n", "\"id\":\"atlas", "\"id\":7,\"x\":\"atlas", "line 2: 'x': no such key"},
      {"\n", "\"id\":\"atlas", "\"ids\":\"atlas", "line 2: 'ids': no such key"},
      {"\n", "\"stream\":0", "\"stream\":6", "line 2: facts[0]: 'stream': expected an integer"},
      {"\n", "\"stream\":0", "\"stream\":\"0\"", "line 2: facts[0]: 'stream': expected an integer"},
      {"\n", "\"type\":\"", "\"type\":\"x", "facts[0]: 'type'"},
      {"\n", "\"value\":\"", "\"value\":\"x", "facts[0]: 'value'"},
      {"\"plan\":", "\"id\":", "\"id\":1", "plan[0]: 'id'"},
      {"\n", "Describe ", "Describe X", "line 2: 'prompt': expected 'Describe TOWN."},
      {"/1\",", "Describe ", "Describe X", "line 3: 'prompt': expected 'Describe TOWN."},
      {"/2\",", "\"tokens\":", "\"tokens\":1", "line 4: sections[0]: 'blocks': expected"},
      {"\n", "\"kind\":\"uses\"", "\"kind\":\"use\"",
       "'kind': expected 'states', 'uses' or 'misreads'"},
      {"\n", "\"kind\":\"uses\"", "\"kind\":\"states\"", "the text uses a"},
      {"\n", "\"bytes\":[", "\"bytes\":[1", "mentions[0]: bytes: '[1]': expected an integer from"},
      {"\n", "\"bytes\":[", "\"bytes\":[0,",
       "mentions[0]: 'bytes': expected begin and end, found 3"},
      {"\n", "\"ready\":true", "\"ready\":false", "'ready': not what mentions and tokens say"},
      {"\n", "\"ready\":true", "\"ready\":1", "'ready': expected true or false, found 1"},
      {"\n", "\"ready\":true", "\"x\":true", "'x': no such key"},
      {"\n", "\"stated\":[0]", "\"stated\":[0,0]", "stated: [1]: 0 for the second time"},
      {"\n", "\"stated\":[0]", "\"stated\":[40]", "stated: '[0]': expected an integer from 0 to"},
      {"\n", "\"stated\":[0],", "", "'stated': not what mentions and tokens say"},
      {"\n", "\"coverage\":[0],", "", "'coverage': not what mentions and tokens say"},
      {"\n", "\"ready\":true", "\"note\":1,\"ready\":true", "'note': the header names no file"},
      {"\n", "\"text\":\" ", "\"text\":\" Well. ", "sections[0]: 'text': 1 malformed"},
      {"\n", "\"prefix\":\"\\n", "\"prefix\":\"\\u0000", "line 2: line 1, column"},
      {"\n", "\"facts\":[", "\"facts\":[],\"facts\":[", "duplicate"},
      {"\n", "{", "[", "line 2: line 1, column"},
  };
  char *text = file_text(f);
  pdt_data_stats stats;
  assert_string_equal(check_text(f, text, &stats), "");
  assert_int_equal(stats.entries, 3);
  assert_true(stats.recut && stats.read_back);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char *wrong = edited(text, cases[i].after, cases[i].from, cases[i].to);
    const char *message = check_text(f, wrong, &stats);
    if (!strstr(message, cases[i].expected))
      print_error("case %zu: expected '%s', found '%s'\n", i, cases[i].expected, message);
    assert_non_null(strstr(message, cases[i].expected));
    assert_non_null(strstr(message, "c.jsonl: line "));
    free(wrong);
  }
  assert_non_null(strstr(check_text(f, "", &stats), "expected a header in line 1"));
  *(strchr(text, '\n') + 1) = '\0';
  assert_non_null(strstr(check_text(f, text, &stats), "expected an entry"));
  free(text);
}

/* The file beside FORMAT.md is sound, and is what the generator writes. */
static void the_example_is_sound(void **state) {
  fixture *f = *state;
  static const char path[] = "tests/data/atlas/example.jsonl";
  pdt_data_stats stats;
  pdt_data_reader r;
  pdt_data_entry e;
  pdt_atlas_options o = options_of(TAU, false, PDT_TEST, 77);
  pdt_atlas_generator g = generator_of(f, f->tokenizer, &o);
  if (pdt_atlas_check(path, NULL, &stats, &f->err)) fail_msg("%s", f->err.message);
  assert_true(stats.recut && stats.read_back);
  assert_int_equal(pdt_data_open(&r, path, &f->err), 0);
  for (uint32_t i = 0; pdt_data_next(&r, &e, &f->err) == 1; i++) {
    pdt_data_entry drawn = draw(f, &g, i);
    char *text;
    size_t bytes;
    assert_int_equal(pdt_data_entry_text(&drawn, &text, &bytes, &f->err), 0);
    assert_memory_equal(r.lines.text, text, bytes - 1); /* without the newline */
    free(text);
    pdt_data_entry_free(&drawn);
    pdt_data_entry_free(&e);
  }
  assert_int_equal(r.lines.number, 4);
  pdt_data_close(&r);
  pdt_atlas_generator_free(&g);
}

/* A safetensors file with a tensor "notes" of 2 rows of 2 numbers. */
static void write_notes(fixture *f, float last) {
  static const char header[] =
      "{\"notes\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]}} ";
  char file[8 + sizeof header + 16];
  uint64_t n = sizeof header - 1;
  float notes[4] = {1, 2, 3, last};
  memcpy(file, &n, 8);
  memcpy(file + 8, header, n);
  memcpy(file + 8 + n, notes, 16);
  scratch_write(f->files, "notes.safetensors", file, 8 + n + 16);
}

/* Other people's data: any text, teacher notes in place of facts. */
static void notes_may_stand_for_facts(void **state) {
  fixture *f = *state;
  static const char text[] =
      "{\"format\":\"pdt-data\",\"version\":1,\"block_tokens\":4,\"reveal_delay\":1,\"window\":8,"
      "\"plan_slots\":2,\"plan_vocab_size\":100,\"plan_hash_salt\":\"s\","
      "\"notes\":{\"file\":\"notes.safetensors\",\"dim\":2}}\n\n"
      "{\"id\":\"a\",\"prompt\":\"Gr\xC3\xBC\xC3\x9F.\",\"facts\":[],\"plan\":[],\"sections\":["
      "{\"name\":\"one\",\"prefix\":\"\",\"text\":\" any text\",\"tokens\":5,\"mentions\":[],"
      "\"blocks\":[{\"ready\":true,\"note\":0},{\"ready\":false,\"note\":1}]}],\"meta\":{}}\n";
  pdt_data_stats stats;
  write_notes(f, 4);
  assert_string_equal(check_text(f, text, &stats), "");
  assert_true(stats.entries == 1 && stats.blocks == 2 && !stats.recut && !stats.read_back);
  char *wrong = edited(text, "", "\"note\":1", "\"note\":2");
  assert_non_null(strstr(check_text(f, wrong, &stats), "line 3: sections[0]: blocks[1]: 'note'"));
  free(wrong);
  wrong = edited(text, "", ",\"note\":1", "");
  assert_non_null(strstr(check_text(f, wrong, &stats), "blocks[1]: 'note': expected an integer"));
  free(wrong);
  wrong = edited(text, "", "\"dim\":2", "\"dim\":3");
  assert_non_null(strstr(check_text(f, wrong, &stats), "line 1: notes: 'file': expected a tensor"));
  free(wrong);
  wrong = edited(text, "", "notes.safe", "../notes.safe");
  assert_non_null(strstr(check_text(f, wrong, &stats), "the name of a file beside the data"));
  free(wrong);
  wrong = edited(text, "", "notes.safe", "other.safe");
  assert_non_null(strstr(check_text(f, wrong, &stats), "line 1: notes: 'file'"));
  free(wrong);
  write_notes(f, 0.0f / 0.0f);
  assert_non_null(strstr(check_text(f, text, &stats), "row 1 has a NaN"));
}

static void impossible_options_are_refused(void **state) {
  fixture *f = *state;
  pdt_atlas_options o[9];
  for (int i = 0; i < 9; i++) o[i] = options_of(TAU, false, PDT_TRAIN, 0);
  o[0].min_sections = 1;
  o[1].max_sections = 7;
  o[2].min_sections = 5;
  o[2].max_sections = 4;
  o[3].rounds.block_tokens = 17;
  o[4].rounds.reveal_delay = 0;
  o[5].plan_slots = 11;
  o[6].plan_vocab_size = 1;
  o[7].rounds.window = -1;
  o[8].min_tokens = 91;
  for (int i = 0; i < 9; i++) {
    pdt_atlas_generator g;
    f->err = (pdt_error){0};
    assert_int_equal(pdt_atlas_generator_init(&g, f->world, f->tokenizer, &o[i], &f->err), -1);
    assert_int_equal(f->err.code, PDT_ERROR_USAGE);
    pdt_atlas_generator_free(&g);
  }
}

/* Decodes ids[*at ..] up to the next `end` token and passes over it. */
static char *next_section(fixture *f, const json_t *ids, pdt_token end, size_t *at) {
  pdt_token found[1024];
  int32_t n = 0;
  char *text;
  size_t bytes;
  while (*at < json_array_size(ids) && n < 1024) {
    found[n] = (pdt_token)json_integer_value(json_array_get(ids, (*at)++));
    if (found[n] == end) break;
    n++;
  }
  assert_int_equal(pdt_tokenizer_decode(f->tokenizer, found, n, true, &text, &bytes, &f->err), 0);
  return text;
}

/* A line of an entry: prompt and sections in their order, each ended by `end`, all by `eos`; every
 * fact's first name weighs 0.3, later ones 3, all else 1. A name is one token in the default Atlas.
 */
static void check_sequence(fixture *f, const pdt_data_entry *e, const int32_t *order,
                           const char *line) {
  const pdt_token end = 1, eos = 2;
  json_t *json = json_loads(line, 0, NULL);
  const json_t *ids = json_object_get(json, "ids"), *weights = json_object_get(json, "weights");
  size_t n = json_array_size(ids), at = 0;
  assert_true(json && n > 0 && json_array_size(weights) == n);
  int32_t names = 0;
  for (int32_t k = 0; k < e->n_sections; k++) {
    const pdt_data_section *s = &e->sections[order[k]];
    char expected[4096], *text = next_section(f, ids, end, &at);
    snprintf(expected, sizeof expected, "%s%s%s", k == 0 ? e->prompt : "", s->prefix, s->text);
    assert_string_equal(text, expected);
    free(text);
    names += s->n_mentions;
  }
  assert_true(at == n - 1 && json_integer_value(json_array_get(ids, at)) == eos);
  int32_t first = 0, later = 0, plain = 0;
  for (size_t i = 0; i < n; i++) {
    double weight = json_number_value(json_array_get(weights, i));
    first += weight == 0.3;
    later += weight == 3;
    plain += weight == 1;
  }
  assert_int_equal(first, e->n_facts); /* all are stated */
  assert_int_equal(later, names - e->n_facts);
  assert_int_equal(plain, (int32_t)n - names);
  json_decref(json);
}

/* Entries as one text: every section once, in the order drawn; first names weigh little, later
 * ones much. */
static void sequences_say_everything_once(void **state) {
  fixture *f = *state;
  pdt_atlas_generator g;
  const pdt_atlas_options o = options_of(TAU, false, PDT_TRAIN, 5);
  const pdt_sequence_weights weights = pdt_sequence_weights_default();
  int straight = 0;
  assert_int_equal(pdt_atlas_generator_init(&g, f->world, f->tokenizer, &o, &f->err), 0);
  for (uint32_t j = 0; j < 60; j++) {
    pdt_data_entry e = {0};
    pdt_buffer out = {0};
    int32_t order[PDT_DATA_SECTIONS], seen = 0;
    if (pdt_atlas_generate(&g, j, &e, &f->err)) fail_msg("%s", f->err.message);
    pdt_sequence_order(9, j, e.n_sections, order);
    bool sorted = true;
    for (int32_t k = 0; k < e.n_sections; k++) {
      assert_in_range(order[k], 0, e.n_sections - 1);
      seen |= 1 << order[k];
      sorted = sorted && order[k] == k;
    }
    assert_int_equal(seen, (1 << e.n_sections) - 1);
    straight += sorted;
    if (pdt_sequence_put(&e, f->tokenizer, order, 1, 2, &weights, &out, &f->err))
      fail_msg("%s", f->err.message);
    assert_int_equal(out.data[out.bytes - 1], '\n');
    out.data[out.bytes - 1] = 0;
    check_sequence(f, &e, order, out.data);
    pdt_buffer_free(&out);
    pdt_data_entry_free(&e);
  }
  assert_in_range(straight, 20, 55); /* half, and the permutations that are none */
  pdt_atlas_generator_free(&g);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(sequences_say_everything_once),
      cmocka_unit_test(names_are_apart),
      cmocka_unit_test(sentences_are_told_by_their_beginning),
      cmocka_unit_test(names_are_one_token_or_two),
      cmocka_unit_test(every_fact_is_read_back),
      cmocka_unit_test(unfinished_texts_are_read),
      cmocka_unit_test(wrong_sentences_are_counted),
      cmocka_unit_test(labels_agree_with_a_simulation),
      cmocka_unit_test(promises_are_kept),
      cmocka_unit_test(large_blocks_are_kept_apart),
      cmocka_unit_test(places_tell_nothing),
      cmocka_unit_test(entries_are_the_same_for_ever),
      cmocka_unit_test(splits_share_nothing),
      cmocka_unit_test(other_tokenizers_serve),
      cmocka_unit_test(files_are_read_as_written),
      cmocka_unit_test(wrong_files_are_refused_by_line_and_field),
      cmocka_unit_test(tokens_behind_a_prompt),
      cmocka_unit_test(the_example_is_sound),
      cmocka_unit_test(notes_may_stand_for_facts),
      cmocka_unit_test(impossible_options_are_refused),
  };
  return cmocka_run_group_tests(tests, setup, atlas_teardown);
}

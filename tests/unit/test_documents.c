/* Documents of anyone's as entries: names are found where a reader would find them and nowhere
 * else, spans mean what they say, and what is wrong is refused by its place. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "data/documents.h"
#include "run/documents.h"

static pdt_sidecar_config plan_of(int32_t slots) {
  return (pdt_sidecar_config){
      .plan_slots = slots, .plan_vocab_size = 65536, .plan_hash_salt = "parallel-decoder-v1"};
}

/* Reads a document; `find`: with names found, by the usual stop words. */
static int parse(pdt_data_entry *e, const char *text, bool find, pdt_error *err) {
  const pdt_sidecar_config plan = plan_of(4);
  pdt_data_stop_words stop;
  assert_int_equal(pdt_data_stop_words_new(&stop, err), 0);
  const pdt_document_rules rules = {&plan, find ? &stop : NULL};
  int rc = pdt_document_parse(e, &rules, text, strlen(text), "docs: line 1", err);
  pdt_data_stop_words_free(&stop);
  return rc;
}

static pdt_data_entry sound(const char *text, bool find) {
  pdt_data_entry e;
  pdt_error err = {0};
  if (parse(&e, text, find, &err)) fail_msg("%s", err.message);
  return e;
}

/* Mentions as text: a line for each, "k:fact:s|u:text". */
static void show(const pdt_data_entry *e, char *out, size_t room) {
  size_t at = 0;
  *out = '\0';
  for (int32_t k = 0; k < e->n_sections; k++)
    for (int32_t i = 0; i < e->sections[k].n_mentions; i++) {
      const pdt_data_mention *m = &e->sections[k].mentions[i];
      at += (size_t)snprintf(out + at, room - at, "%d:%s:%c:%.*s\n", k, e->facts[m->fact].value,
                             m->kind == PDT_STATES ? 's' : 'u', m->end - m->begin,
                             e->sections[k].text + m->begin);
      assert_true(at < room);
    }
}

static void expect_mentions(const char *document, bool find, const char *wanted) {
  char found[2000];
  pdt_data_entry e = sound(document, find);
  show(&e, found, sizeof found);
  assert_string_equal(found, wanted);
  pdt_data_entry_free(&e);
}

#define TWO(first, second, rest)                                                                   \
  "{\"prompt\": \"P.\", \"sections\": [{\"prefix\": \"\\nA:\", \"text\": \"" first                 \
  "\"}, {\"prefix\": \"\\nB:\", \"text\": \"" second "\"}]" rest "}"

static void borders_are_between_words(void **state) {
  (void)state;
  static const struct {
    const char *text, *value;
    int begin; /* -1: nowhere */
  } cases[] = {
      {"Zn", "Zn", 0},
      {"aZn Zn", "Zn", 4},
      {"Zn2 (Zn)", "Zn", 5},
      {"Zn's", "Zn", 0},
      {"Zn_x", "Zn", -1},
      {"12.5", "12", -1},
      {"12. 5", "12", 0},
      {"1,200 200", "200", 6},
      {"x12", "12", -1},
      {"\xc3\xa9Zn", "Zn", -1},
      {"Zn\xe2\x80\x94", "Zn", 0},
      {"Zn\xcc\x81 Zn", "Zn", 5},
      {"a-b", "b", 2},
      {"(+)", "+", 1},
      {"New York", "New York", 0},
      {"New  York", "New York", -1},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    size_t at = 0;
    bool found = pdt_data_find(cases[i].text, strlen(cases[i].text), cases[i].value,
                               strlen(cases[i].value), &at);
    if (found != (cases[i].begin >= 0) || (found && (int)at != cases[i].begin))
      fail_msg("'%s' in '%s': %d, %zu", cases[i].value, cases[i].text, found, at);
  }
}

static void values_are_found(void **state) {
  (void)state;
  expect_mentions(
      TWO(" Zn is Zn.", " Of Zn, not Znx.", ", \"facts\": [{\"stream\": 0, \"value\": \"Zn\"}]"),
      false, "0:Zn:s:Zn\n0:Zn:u:Zn\n1:Zn:u:Zn\n");
  /* a use may come before; the longer value is found first, whatever the order of facts */
  expect_mentions(TWO(" In York and New York.", " New York. York.",
                      ", \"facts\": [{\"stream\": 0, \"value\": \"York\"}, {\"stream\": 1, "
                      "\"value\": \"New York\"}]"),
                  false,
                  "0:York:s:York\n0:New York:u:New York\n1:New York:s:New York\n1:York:u:York\n");
}

static void spans_say_where(void **state) {
  (void)state;
  expect_mentions(TWO(" Found in 1746.", " A use of the year.",
                      ", \"facts\": [{\"stream\": 0, \"begin\": 10, \"end\": 14, \"uses\": "
                      "[{\"stream\": 1, \"begin\": 10, \"end\": 18}]}]"),
                  false, "0:1746:s:1746\n1:1746:u:the year\n");
  /* a second place is stated where the span says so */
  expect_mentions(
      TWO(" Zn. Zn.", " Zn.",
          ", \"facts\": [{\"stream\": 0, \"value\": \"Zn\", \"begin\": 5, \"end\": 7}]"),
      false, "0:Zn:u:Zn\n0:Zn:s:Zn\n1:Zn:u:Zn\n");
  /* twins, told apart by spans */
  expect_mentions(TWO(" Zn.", " Zn.",
                      ", \"facts\": [{\"stream\": 0, \"begin\": 1, \"end\": 3, \"uses\": []}, "
                      "{\"stream\": 1, \"begin\": 1, \"end\": 3, \"uses\": []}]"),
                  false, "0:Zn:s:Zn\n1:Zn:s:Zn\n");
}

static void names_are_found(void **state) {
  (void)state;
  /* the earliest place states; runs before their parts; numbers of two digits; no stop words */
  expect_mentions(TWO(" The river Elbe meets Bad Aussig at 1,250 m. It is 5 km.",
                      " By Elbe one comes to Bad Aussig; The 1,250 m are 5 km off. Aussig.", ""),
                  true,
                  "0:Elbe:u:Elbe\n0:Bad Aussig:s:Bad Aussig\n0:1,250:s:1,250\n"
                  "1:Elbe:s:Elbe\n1:Bad Aussig:u:Bad Aussig\n1:1,250:u:1,250\n");
  /* what only begins sentences is no name; a possessive is one; hyphens belong to it */
  expect_mentions(TWO(" Roofs leak. See Porto-Novo's roofs.", " Roofs. In Porto-Novo. Porto.", ""),
                  true, "0:Porto-Novo:u:Porto-Novo\n1:Porto-Novo:s:Porto-Novo\n");
  /* two uses, three sections' worth of capitals in one: the prompt and prefixes tell */
  pdt_data_entry e =
      sound("{\"prompt\": \"About the ELBE.\", \"sections\": [{\"prefix\": \"\\nPrag:\", "
            "\"text\": \" an Elbe, a Prag, a Melk\"}, {\"prefix\": \"\\nB:\", "
            "\"text\": \" an Elbe, a Prag\"}]}",
            true);
  assert_int_equal(e.n_facts, 0);
  pdt_data_entry_free(&e);
}

/* Of random texts: what is found is in both, is stated once, where it stands first, and overlaps
 * nothing. */
static void found_names_are_shared(void **state) {
  (void)state;
  static const char *const words[] = {"Elbe", "Melk", "ox", "1746", "the", "Bad", "Ybbs", "."};
  enum { N = sizeof words / sizeof *words, LENGTH = 12 };
  uint32_t seed = 1;
  for (int round = 0; round < 300; round++) {
    char texts[2][200] = {"", ""}, document[600];
    for (int k = 0; k < 2; k++)
      for (int i = 0; i < LENGTH; i++) {
        seed = seed * 1664525 + 1013904223;
        snprintf(texts[k] + strlen(texts[k]), sizeof texts[k] - strlen(texts[k]), " %s",
                 words[seed >> 16 & (N - 1)]);
      }
    snprintf(document, sizeof document, TWO("%s", "%s", ""), texts[0], texts[1]);
    pdt_data_entry e = sound(document, true);
    for (int32_t i = 0; i < e.n_facts; i++) {
      int in[2] = {0, 0}, stated = 0;
      int32_t first[2] = {INT32_MAX, INT32_MAX};
      for (int32_t k = 0; k < 2; k++)
        for (int32_t j = 0; j < e.sections[k].n_mentions; j++) {
          const pdt_data_mention *m = &e.sections[k].mentions[j];
          if (j > 0) assert_true(m->begin >= e.sections[k].mentions[j - 1].end);
          if (m->fact != i) continue;
          assert_memory_equal(e.sections[k].text + m->begin, e.facts[i].value,
                              strlen(e.facts[i].value));
          in[k]++;
          stated += m->kind == PDT_STATES;
          if (m->kind == PDT_STATES) assert_int_equal(k, e.facts[i].stream);
          if (m->begin < first[k]) first[k] = m->begin;
        }
      assert_true(in[0] > 0 && in[1] > 0);
      assert_int_equal(stated, 1);
      assert_true(first[e.facts[i].stream] <= first[1 - e.facts[i].stream]);
    }
    pdt_data_entry_free(&e);
  }
}

static void plans_are_types(void **state) {
  (void)state;
  pdt_data_entry e =
      sound(TWO(" Zn, Fe and 12.", " Zn of Linz.",
                ", \"facts\": [{\"stream\": 1, \"value\": \"Linz\"}, {\"stream\": 0, \"type\": "
                "\"symbol\", \"value\": \"Zn\"}, {\"stream\": 0, \"type\": \"symbol\", \"value\": "
                "\"Fe\"}, {\"stream\": 0, \"type\": \"year\", \"value\": \"12\"}]"),
            false);
  static const struct {
    int32_t stream;
    const char *text;
  } wanted[] = {{0, "symbol"}, {0, "year"}, {1, "name"}};
  assert_int_equal(e.n_plan, 3);
  for (int32_t i = 0; i < 3; i++) {
    assert_int_equal(e.plan[i].stream, wanted[i].stream);
    assert_string_equal(e.plan[i].text, wanted[i].text);
    assert_true(e.plan[i].id > 0 && e.plan[i].id < 65536);
  }
  assert_string_equal(e.id, "docs: line 1");
  assert_string_equal(e.sections[1].name, "B");
  pdt_data_entry_free(&e);
  e = sound(TWO(" Zn.", " Zn.",
                ", \"id\": \"x\", \"plan\": [{\"stream\": 1, \"text\": \"\"}], \"facts\": "
                "[{\"stream\": 0, \"value\": \"Zn\"}]"),
            false);
  assert_int_equal(e.n_plan, 1);
  assert_int_equal(e.plan[0].id, 0);
  assert_string_equal(e.id, "x");
  pdt_data_entry_free(&e);
}

static void bad_documents_are_refused(void **state) {
  (void)state;
  static const struct {
    const char *document, *part;
  } cases[] = {
      {"[]", "docs: line 1: expected a JSON object"},
      {TWO(" Zn.", " Zn.", ""), "'facts': expected a list, found nothing (hint: --find"},
      {TWO(" Zn.", " Zn.", ", \"facts\": []"), "'facts': expected 1 to 64"},
      {TWO(" Zn.", "", ", \"facts\": [{\"stream\": 0, \"value\": \"Zn\"}]"),
       "sections[1]: 'text': expected what the stream writes"},
      {TWO(" Zn.", " Zn.", ", \"facts\": [{\"stream\": 2, \"value\": \"Zn\"}]"),
       "facts[0]: 'stream'"},
      {TWO(" Zn.", " Zn.", ", \"facts\": [{\"stream\": 0}]"), "expected 'value', or 'begin'"},
      {TWO(" Zn.", " Zn.", ", \"facts\": [{\"stream\": 0, \"value\": \" Zn\"}]"),
       "without white space at its ends"},
      {TWO(" Zn.", " Zn.", ", \"facts\": [{\"stream\": 0, \"value\": \"\"}]"),
       "without white space at its ends"},
      {TWO(" Znx.", " Zn.", ", \"facts\": [{\"stream\": 0, \"value\": \"Zn\"}]"),
       "facts[0]: expected 'Zn' in section 0, between word borders"},
      {TWO(" New Zn.", " Zn.",
           ", \"facts\": [{\"stream\": 0, \"value\": \"New Zn\"}, {\"stream\": 0, \"value\": "
           "\"Zn\"}]"),
       "facts[1]: expected 'Zn' in section 0"},
      {TWO(" Zn.", " Zn.",
           ", \"facts\": [{\"stream\": 0, \"value\": \"Zn\"}, {\"stream\": 1, \"value\": \"Zn\"}]"),
       "facts[1]: 'value': expected another value than that of facts[0]"},
      {TWO(" Zn.", " Zn.",
           ", \"facts\": [{\"stream\": 0, \"value\": \"Fe\", \"begin\": 1, \"end\": 3}]"),
       "facts[0]: 'value': expected 'Zn', bytes 1 to 3 of section 0, found 'Fe'"},
      {TWO(" Zn.", " Zn.", ", \"facts\": [{\"stream\": 0, \"begin\": 1}]"), "facts[0]: 'end'"},
      {TWO(" Zn.", " Zn.", ", \"facts\": [{\"stream\": 0, \"begin\": 3, \"end\": 2}]"),
       "facts[0]: 'end'"},
      {TWO(" Zn.", " Zn.", ", \"facts\": [{\"stream\": 0, \"begin\": 1, \"end\": 9}]"),
       "facts[0]: 'end'"},
      {TWO(" \\u00e9.", " Zn.", ", \"facts\": [{\"stream\": 0, \"begin\": 2, \"end\": 4}]"),
       "a place inside a character"},
      {TWO(" Zn Fe.", " Zn.",
           ", \"facts\": [{\"stream\": 0, \"begin\": 1, \"end\": 6}, {\"stream\": 0, \"begin\": 4, "
           "\"end\": 6}]"),
       "facts[1]: 'begin' and 'end': expected bytes that no other span has, found 4 to 6"},
      {TWO(" Zn.", " Zn.",
           ", \"facts\": [{\"stream\": 0, \"begin\": 1, \"end\": 3, \"uses\": [{\"stream\": 0, "
           "\"begin\": 0, \"end\": 1}]}]"),
       "facts[0]: uses[0]: 'stream': expected another section than 0"},
      {TWO(" Zn.", " Zn.", ", \"facts\": [{\"stream\": 0, \"value\": \"Zn\", \"uses\": []}]"),
       "facts[0]: expected 'begin' and 'end' beside 'uses'"},
      {TWO(" Zn.", " Zn.",
           ", \"facts\": [{\"stream\": 0, \"value\": \"Zn\"}], \"plan\": [{\"stream\": 2, "
           "\"text\": \"a\"}]"),
       "plan[0]: 'stream'"},
      {TWO(" Zn.", " Zn.", ", \"labels\": 1"), "labels"},
      {TWO(" a b c d e.", " Zn.",
           ", \"facts\": [{\"stream\": 0, \"type\": \"1\", \"value\": \"a\"}, {\"stream\": 0, "
           "\"type\": \"2\", \"value\": \"b\"}, {\"stream\": 0, \"type\": \"3\", \"value\": "
           "\"c\"}, {\"stream\": 0, \"type\": \"4\", \"value\": \"d\"}, {\"stream\": 0, \"type\": "
           "\"5\", \"value\": \"e\"}]"),
       "expected at most 4 types of facts in sections"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    pdt_data_entry e;
    pdt_error err = {0};
    if (!parse(&e, cases[i].document, false, &err)) fail_msg("taken: %s", cases[i].document);
    if (!strstr(err.message, cases[i].part) || !strstr(err.message, "docs: line 1"))
      fail_msg("%s: '%s'", cases[i].document, err.message);
    assert_int_equal(err.code, PDT_ERROR_INPUT);
    assert_null(e.sections);
  }
}

/* 14, 1 and 1 of 16, to within five standard deviations. */
static void splits_have_their_shares(void **state) {
  (void)state;
  enum { N = 16000 };
  int n[3] = {0};
  for (int i = 0; i < N; i++) {
    char prompt[40];
    snprintf(prompt, sizeof prompt, "Describe %d.", i);
    n[pdt_documents_split_of(prompt)]++;
  }
  assert_int_equal(n[PDT_TRAIN] + n[PDT_VALID] + n[PDT_TEST], N);
  assert_in_range(n[PDT_VALID], 1000 - 153, 1000 + 153); /* sqrt(16000 * 15) / 16 = 30.6 */
  assert_in_range(n[PDT_TEST], 1000 - 153, 1000 + 153);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(borders_are_between_words), cmocka_unit_test(values_are_found),
      cmocka_unit_test(spans_say_where),           cmocka_unit_test(names_are_found),
      cmocka_unit_test(found_names_are_shared),    cmocka_unit_test(plans_are_types),
      cmocka_unit_test(bad_documents_are_refused), cmocka_unit_test(splits_have_their_shares),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

/* What a sidecar was trained with: read with every key checked, gathered from data and added up;
 * and requests that are far from it, told once a kind. */
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
#include "base/json.h"
#include "data/lessons.h"
#include "request/familiar.h"

static json_t *parse(const char *text) {
  json_t *json;
  pdt_error err = {0};
  if (pdt_json_parse(&json, text, strlen(text), "test", &err)) fail_msg("%s", err.message);
  return json;
}

static void expect_text(const json_t *json, const char *expected) {
  char *text = json_dumps(json, JSON_COMPACT);
  assert_string_equal(text, expected);
  free(text);
}

/* ---- the object ---- */

static void every_key_is_checked(void **state) {
  (void)state;
  static const char *const sound[] = {
      "{}", "{\"other\": [1]}", "{\"headings\": null, \"plan_ids\": null}",
      "{\"block_tokens\": [4, 8], \"plan_ids\": [0, 7], \"headings\": [\"\"], \"temperature\": 0}"};
  static const char *const wrong[][2] = {
      {"[]", "object"},
      {"{\"block_tokens\": 6}", "block_tokens"},
      {"{\"block_tokens\": [6]}", "least, most"},
      {"{\"streams\": [6, 2]}", "streams"},
      {"{\"reveal_delay\": [0, 2]}", "reveal_delay"},
      {"{\"prompt_tokens\": [1, 2.5]}", "prompt_tokens"},
      {"{\"window\": -1}", "window"},
      {"{\"notes\": \"many\"}", "notes"},
      {"{\"temperature\": -0.5}", "temperature"},
      {"{\"headings\": \"History:\"}", "headings"},
      {"{\"headings\": [1]}", "a text"},
      {"{\"stages\": [null]}", "stages"},
      {"{\"plan_ids\": [2, 2]}", "plan_ids"},
      {"{\"prompt_ids\": [3, 1]}", "prompt_ids"},
      {"{\"prompt\": 3}", "prompt"},
  };
  for (size_t i = 0; i < sizeof sound / sizeof *sound; i++) {
    pdt_error err = {0};
    json_t *json = parse(sound[i]);
    if (pdt_trained_check(json, "trained", &err)) fail_msg("%s: %s", sound[i], err.message);
    json_decref(json);
  }
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    pdt_error err = {0};
    json_t *json = parse(wrong[i][0]);
    assert_int_equal(pdt_trained_check(json, "trained", &err), -1);
    assert_int_equal(err.code, PDT_ERROR_INPUT);
    if (!strstr(err.message, wrong[i][1])) fail_msg("%s: %s", wrong[i][0], err.message);
    json_decref(json);
  }
}

static void lists_have_a_limit(void **state) {
  (void)state;
  pdt_error err = {0};
  json_t *few = json_object(), *list = json_array();
  for (int i = 0; i <= PDT_TRAINED_PROMPT_IDS; i++) json_array_append_new(list, json_integer(i));
  json_object_set_new(few, "prompt_ids", list);
  assert_int_equal(pdt_trained_check(few, "trained", &err), -1);
  json_array_remove(list, 0);
  err = (pdt_error){0};
  assert_int_equal(pdt_trained_check(few, "trained", &err), 0);
  json_t *one = parse("{\"prompt_ids\": [1000]}");
  assert_int_equal(pdt_trained_add(few, one, &err), 0);
  assert_true(json_is_null(json_object_get(few, "prompt_ids"))); /* too many to list */
  assert_true(pdt_trained_has_id(few, "prompt_ids", 77777));
  assert_int_equal(pdt_trained_add(few, one, &err), 0);
  assert_true(json_is_null(json_object_get(few, "prompt_ids")));
  json_t *long_text = json_pack("{s:[s]}", "headings", "");
  char text[PDT_TRAINED_TEXT_BYTES + 2];
  memset(text, 'a', sizeof text - 1);
  text[sizeof text - 1] = '\0';
  json_array_set_new(json_object_get(long_text, "headings"), 0, json_string(text));
  assert_int_equal(pdt_trained_check(long_text, "trained", &err), -1);
  json_decref(few);
  json_decref(one);
  json_decref(long_text);
}

static void objects_add_up(void **state) {
  (void)state;
  pdt_error err = {0};
  json_t *all = json_object();
  json_t *a = parse("{\"block_tokens\": [6, 6], \"window\": 9, \"notes\": 8, \"headings\": [\"b\", "
                    "\"a\"], \"plan_ids\": [3, 9], \"prompt\": \"p\"}");
  json_t *b =
      parse("{\"block_tokens\": [4, 7], \"window\": 12, \"notes\": 7, \"headings\": [\"a\", "
            "\"c\"], \"plan_ids\": [1, 3, 10], \"prompt\": \"q\", \"temperature\": 0.5}");
  json_t *c = parse("{\"window\": 0, \"plan_ids\": null}");
  assert_int_equal(pdt_trained_add_stage(all, a, "1", &err), 0);
  assert_int_equal(pdt_trained_add_stage(all, b, "2", &err), 0);
  const char *expected =
      "{\"stages\":[\"1\",\"2\"],\"block_tokens\":[4,7],\"window\":12,\"notes\":8,\"temperature\":"
      "0.5,\"headings\":[\"b\",\"a\",\"c\"],\"plan_ids\":[1,3,9,10],\"prompt\":\"p\"}";
  expect_text(all, expected);
  assert_int_equal(pdt_trained_add_stage(all, a, "1", &err), 0); /* again: nothing new */
  expect_text(all, expected);
  assert_int_equal(pdt_trained_add_stage(all, c, "2", &err), 0);
  assert_int_equal(pdt_trained_add_stage(all, b, "2", &err), 0);
  expect_text(all,
              "{\"stages\":[\"1\",\"2\"],\"block_tokens\":[4,7],\"window\":0,\"notes\":8,"
              "\"temperature\":0.5,\"headings\":[\"b\",\"a\",\"c\"],\"plan_ids\":null,\"prompt\":"
              "\"p\"}");
  json_decref(all);
  json_decref(a);
  json_decref(b);
  json_decref(c);
}

static void data_says_what_it_teaches(void **state) {
  (void)state;
  pdt_error err = {0};
  pdt_atlas_world *world;
  pdt_tokenizer *tokenizer;
  uint64_t fingerprint;
  pdt_atlas_generator g;
  pdt_lessons lessons;
  const pdt_atlas_options options = {.min_sections = 3,
                                     .max_sections = 4,
                                     .min_tokens = 30,
                                     .max_tokens = 80,
                                     .rounds = {6, 2, 0},
                                     .plan_slots = 16,
                                     .plan_vocab_size = 1024,
                                     .plan_salt = "salt"};
  const pdt_data_header header = {.rounds = {6, 2, 0}};
  if (pdt_atlas_world_new(&world, PDT_ATLAS_SYLLABLES, &err) ||
      pdt_atlas_tokenizer(world, &tokenizer, &fingerprint, &err) ||
      pdt_atlas_generator_init(&g, world, tokenizer, &options, &err) ||
      pdt_lessons_new(&lessons, tokenizer, 1024, pdt_tokenizer_size(tokenizer), &err))
    fail_msg("%s", err.message);
  for (uint32_t i = 0; i < 60; i++) {
    pdt_data_entry e = {0};
    assert_int_equal(pdt_atlas_generate(&g, i, &e, &err), 0);
    assert_int_equal(pdt_lessons_add(&lessons, &header, &e, &err), 0);
    for (int32_t k = 0; k < e.n_plan; k++) assert_true(lessons.plan_ids[e.plan[k].id]);
    pdt_data_entry_free(&e);
  }
  json_t *said = pdt_lessons_take(&lessons, &err);
  assert_non_null(said);
  assert_int_equal(pdt_trained_check(said, "trained", &err), 0);
  int64_t low, high;
  assert_true(pdt_trained_range(said, "streams", &low, &high));
  assert_int_equal(low * 10 + high, 34);
  assert_true(pdt_trained_range(said, "reveal_delay", &low, &high));
  assert_int_equal(low * 10 + high, 22);
  assert_int_equal(json_array_size(json_object_get(said, "headings")), PDT_ATLAS_SECTIONS);
  assert_int_equal(json_array_size(json_object_get(said, "plan_texts")), PDT_ATLAS_TYPES);
  assert_true(pdt_trained_has_text(said, "headings", "\nHistory:"));
  assert_false(pdt_trained_has_text(said, "headings", "History:"));
  json_decref(said);
  pdt_lessons_free(&lessons);
  pdt_atlas_generator_free(&g);
  pdt_tokenizer_free(tokenizer);
  pdt_atlas_world_free(world);
}

/* ---- requests ---- */

static const char trained_text[] =
    "{\"stages\":[\"1\"],\"block_tokens\":[6,6],\"reveal_delay\":[1,1],\"streams\":[2,3],"
    "\"prompt_tokens\":[3,5],\"window\":0,\"notes\":40,\"temperature\":0.8,\"headings\":"
    "[\"\\nA:\",\"\\nB:\"],\"plan_texts\":[\"one\"],\"plan_ids\":[5,9],\"prompt\":\"as such\","
    "\"prompt_ids\":[1,2,3]}";

/* A request like those of training, in numbers. */
typedef struct wish {
  pdt_token prompt[8], *prefix[4];
  int32_t n_prefix[4], plan_ids[3];
  pdt_request r;
} wish;

static pdt_request *usual(wish *w) {
  *w = (wish){.prompt = {1, 2, 3, 3, 1, 1, 1, 1}, .plan_ids = {5, 0, 9}};
  w->r = (pdt_request){.prompt = w->prompt,
                       .n_prompt = 4,
                       .prefix = w->prefix,
                       .n_prefix = w->n_prefix,
                       .plan_ids = w->plan_ids,
                       .settings = {.streams = 2,
                                    .reveal_delay = 1,
                                    .window = 128,
                                    .max_attempts = 4,
                                    .max_rounds = 1000,
                                    .gamma = 0.5,
                                    .sampling = {0.8, 0, 1},
                                    .limits = {.block_tokens = 6,
                                               .horizon = 24,
                                               .max_tokens = 300,
                                               .slots = 3,
                                               .policy = PDT_SELECTIVE}}};
  return &w->r;
}

/* What is told of a request; sections NULL: the usual ones. */
static pdt_notices tell(const char *trained, const pdt_request *r, const char *json,
                        uint32_t *told) {
  pdt_sidecar_config sidecar = {.trained = trained ? parse(trained) : NULL};
  const pdt_request_context context = {.sidecar = &sidecar};
  pdt_notices notices = {0};
  uint32_t none = 0;
  json_t *texts = parse(json ? json : "{\"sections\": [\"\\nA:\", \"\\nB:\", \"\\nA:\"]}");
  pdt_request_compare(r, texts, "in.jsonl: line 3", &context, told ? told : &none, &notices);
  json_decref(texts);
  json_decref(sidecar.trained);
  return notices;
}

static void expect_one(const pdt_request *r, const char *json, const char *part) {
  pdt_notices n = tell(trained_text, r, json, NULL);
  if (n.n != 1 || n.kept[0].kind != PDT_NOTICE_WARNING || !strstr(n.kept[0].text, part) ||
      !strstr(n.kept[0].text, "in.jsonl: line 3: "))
    fail_msg("expected '%s', found %d: %s", part, n.n, n.kept[0].text);
}

static void the_usual_is_no_news(void **state) {
  (void)state;
  wish w;
  assert_int_equal(tell(trained_text, usual(&w), NULL, NULL).n, 0);
  assert_int_equal(tell(NULL, usual(&w), "{\"sections\": [\"x\", \"y\"]}", NULL).n, 0);
  static const struct {
    int32_t tau, delay, window, streams, n_prompt;
    double temperature;
  } near[] = {{3, 1, 128, 2, 3, 1}, {9, 4, 16, 3, 5, 0}, {6, 1, 1000, 2, 4, 0.9}};
  for (size_t i = 0; i < sizeof near / sizeof *near; i++) {
    pdt_request *r = usual(&w);
    r->settings.limits.block_tokens = near[i].tau;
    r->settings.reveal_delay = near[i].delay;
    r->settings.window = near[i].window;
    r->settings.streams = near[i].streams;
    r->settings.sampling.temperature = near[i].temperature;
    r->n_prompt = near[i].n_prompt;
    assert_int_equal(tell(trained_text, r, NULL, NULL).n, 0);
  }
  pdt_request *r = usual(&w); /* a small window, in which all fit */
  r->settings.window = 5;
  r->settings.limits.max_tokens = 12;
  assert_int_equal(tell(trained_text, r, NULL, NULL).n, 0);
}

static void what_is_far_is_told(void **state) {
  (void)state;
  wish w;
  usual(&w)->settings.limits.block_tokens = 10;
  expect_one(&w.r, NULL, "block_tokens is 10");
  usual(&w)->settings.limits.block_tokens = 2;
  expect_one(&w.r, NULL, "trained with, 6");
  usual(&w)->settings.reveal_delay = 5;
  expect_one(&w.r, NULL, "reveal_delay is 5");
  usual(&w)->settings.streams = 1;
  expect_one(&w.r, NULL, "streams is 1, far from what the sidecar was trained with, 2 to 3");
  usual(&w)->settings.window = 15;
  expect_one(&w.r, NULL, "window is 15 notes");
  usual(&w)->settings.sampling.temperature = 1.1;
  expect_one(&w.r, NULL, "temperature is 1.1");
  usual(&w)->settings.gamma = 0.999;
  expect_one(&w.r, NULL, "gamma is 0.999: ");
  usual(&w)->settings.gamma = 0.998;
  assert_int_equal(tell(trained_text, &w.r, NULL, NULL).n, 0);
  usual(&w)->n_prompt = 2;
  expect_one(&w.r, NULL,
             "prompt, 2 tokens, is unlike those that the sidecar was trained with: "
             "they have 3 to 5; one of them: 'as such'");
  usual(&w)->prompt[1] = 4;
  expect_one(&w.r, NULL, "words that none of them has");
  usual(&w)->plan_ids[1] = 6;
  expect_one(&w.r, NULL, "plan item 1, id 6, is none");
  expect_one(&w.r, "{\"sections\": [\"\\nA:\", \"\\nB:\"], \"plan\": [{}, {\"text\": \"two\"}]}",
             "plan item 1, 'two', is none that the sidecar was trained with for its stream (known: "
             "'one')");
  usual(&w);
  expect_one(&w.r, "{\"sections\": [\"\\nA:\", \"C\\u001b:\"]}",
             "section 1, 'C\\x1b:', is none that the sidecar was trained with (known: '\\nA:', "
             "'\\nB:')");
  expect_one(&w.r, "{\"sections\": [\"\\nA:\", \"B: \"]}", "$'\\nB:' in bash");
  expect_one(&w.r, "{}", "section 0, empty, is none");
}

static void once_a_kind_and_run(void **state) {
  (void)state;
  wish w;
  uint32_t told = 0;
  pdt_request *r = usual(&w);
  r->settings.limits.block_tokens = 100;
  r->settings.window = 2;
  assert_int_equal(tell(trained_text, r, "{\"sections\": [\"x\", \"y\"]}", &told).n, 3);
  assert_int_equal(tell(trained_text, r, "{\"sections\": [\"z\", \"y\"]}", &told).n, 0);
  r->settings.reveal_delay = 1000;
  assert_int_equal(tell(trained_text, r, "{\"sections\": [\"z\", \"y\"]}", &told).n, 1);
}

static void limited_windows_are_a_limit(void **state) {
  (void)state;
  wish w;
  static const char limited[] = "{\"stages\":[\"all\"],\"window\":8,\"notes\":8}";
  usual(&w)->settings.window = 16;
  assert_int_equal(tell(limited, &w.r, NULL, NULL).n, 0);
  usual(&w)->settings.window = 17;
  assert_int_equal(tell(limited, &w.r, NULL, NULL).n, 1);
  usual(&w)->settings.limits.max_tokens = 24; /* four blocks of two streams, and the plan */
  assert_int_equal(tell(limited, &w.r, NULL, NULL).n, 0);
}

static void untrained_sidecars_say_so(void **state) {
  (void)state;
  wish w;
  static const char *const untrained[] = {"{}", "{\"stages\":[\"0\"]}",
                                          "{\"stages\":[\"0\",\"3\",\"rollouts\"]}"};
  usual(&w);
  for (int i = 0; i < 3; i++) {
    pdt_notices n = tell(untrained[i], &w.r, NULL, NULL);
    assert_int_equal(n.n, 1);
    assert_non_null(strstr(n.kept[0].text, "not learned to read notes"));
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_key_is_checked),
      cmocka_unit_test(lists_have_a_limit),
      cmocka_unit_test(objects_add_up),
      cmocka_unit_test(data_says_what_it_teaches),
      cmocka_unit_test(the_usual_is_no_news),
      cmocka_unit_test(what_is_far_is_told),
      cmocka_unit_test(once_a_kind_and_run),
      cmocka_unit_test(limited_windows_are_a_limit),
      cmocka_unit_test(untrained_sidecars_say_so),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

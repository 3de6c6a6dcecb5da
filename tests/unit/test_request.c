/* Requests: every field and every bad value, texts through a tokenizer, hashed plans as Python
 * makes them, and the way to JSON and back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"
#include "base/json_text.h"
#include "engine/running.h"
#include "numbers.h"
#include "oracle_cases.h"
#include "request/message.h"
#include "request/plan_hash.h"
#include "request/setting_table.h"
#include "sidecar/sidecar.h"

static const pdt_model_config model = {.vocab_size = 100, .max_positions = 200};
static const pdt_sidecar_config sidecar = {
    .streams = 4,
    .plan_slots = 3,
    .plan_vocab_size = 65536,
    .plan_hash_salt = "parallel-decoder-v1",
    .defaults = {
        .block_tokens = 16, .reveal_delay = 2, .window = 12, .horizon = 48, .gamma = 0.625}};
static const pdt_request_context ids_only = {&model, &sidecar, NULL};

/* a, b, ab, a space, and <s> which the post-processor puts first; z is more than the model has. */
static const char tokenizer_json[] =
    "{\"added_tokens\":[{\"id\":4,\"content\":\"<s>\",\"special\":true,\"single_word\":false,"
    "\"lstrip\":false,\"rstrip\":false,\"normalized\":false}],"
    "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,"
    "\"use_regex\":true},"
    "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":"
    "\"<s>\",\"type_id\":0}},{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],\"pair\":[],"
    "\"special_tokens\":{\"<s>\":{\"id\":\"<s>\",\"ids\":[4],\"tokens\":[\"<s>\"]}}},"
    "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"\\u0120\":3,\"<s>\":4,\"z\":"
    "100},"
    "\"merges\":[\"a b\"]}}";

static pdt_tokenizer *new_tokenizer(void) {
  pdt_tokenizer *t;
  pdt_error err = {0};
  if (pdt_tokenizer_parse(&t, tokenizer_json, strlen(tokenizer_json), "tokenizer.json", &err))
    fail_msg("%s", err.message);
  return t;
}

/* Parses text whose ' stand for ". */
static int parse(pdt_request *r, const char *text, const pdt_request_context *context,
                 pdt_error *err) {
  char *quoted = strdup(text);
  json_t *json;
  assert_non_null(quoted);
  for (char *c = quoted; *c; c++)
    if (*c == '\'') *c = '"';
  *err = (pdt_error){0};
  assert_int_equal(pdt_json_parse(&json, quoted, strlen(quoted), "test", err), 0);
  int rc = pdt_request_parse(r, json, "r.json", 7, context, err);
  json_decref(json);
  free(quoted);
  return rc;
}

static pdt_request accept(const char *text, const pdt_request_context *context) {
  pdt_request r;
  pdt_error err;
  if (parse(&r, text, context, &err)) fail_msg("%s: %s", text, err.message);
  return r;
}

static void expect_ids(const int32_t *ids, int32_t n, int32_t n_expected, const int32_t *expected) {
  assert_int_equal(n, n_expected);
  for (int32_t i = 0; i < n; i++) assert_int_equal(ids[i], expected[i]);
}

static void defaults(void **state) {
  (void)state;
  pdt_request r = accept("{'prompt_ids':[5]}", &ids_only);
  const pdt_settings *s = &r.settings;
  expect_ids(r.prompt, r.n_prompt, 1, (int32_t[]){5});
  assert_int_equal(r.session, 7);
  assert_null(r.plan_ids);
  assert_int_equal(s->streams, 4);
  for (int k = 0; k < 4; k++) assert_int_equal(r.n_prefix[k], 0);
  assert_int_equal(s->reveal_delay, 2);
  assert_int_equal(s->window, 12);
  assert_int_equal(s->max_attempts, 4);
  assert_int_equal(s->max_rounds, 100000);
  assert_true(s->gamma == 0.625 && s->seed == 0);
  assert_true(s->sampling.temperature == 0 && s->sampling.top_k == 0 && s->sampling.top_p == 1);
  assert_true(s->retry_temperature == 0);
  assert_int_equal(s->limits.block_tokens, 16);
  assert_int_equal(s->limits.horizon, 48);
  assert_int_equal(s->limits.max_tokens, 64);
  assert_int_equal(s->limits.slots, 3);
  assert_int_equal(s->limits.policy, PDT_SELECTIVE);
  pdt_request_free(&r);
  assert_null(r.prompt);
  pdt_request_free(&r); /* safe on what was freed */
}

static const char everything[] =
    "{'prompt_ids':[0,99,5],'prefix_ids':[[],[1,2,3]],'plan_ids':[0,65535,1],'session':4294967295,"
    "'settings':{'streams':2,'block_tokens':5,'reveal_delay':3,'window':7,'horizon':9,"
    "'gamma':0.1,'policy':'global','max_attempts':6,'max_tokens':21,'max_rounds':2147483647,"
    "'temperature':0.3,'top_k':40,'top_p':0.95,'seed':-9223372036854775808,"
    "'min_tokens':11,'retry_temperature':1.5,'keep_order':1,'part_slots':2}}";

static void every_field(void **state) {
  (void)state;
  pdt_request r = accept(everything, &ids_only);
  const pdt_settings *s = &r.settings;
  expect_ids(r.prompt, r.n_prompt, 3, (int32_t[]){0, 99, 5});
  assert_int_equal(r.n_prefix[0], 0);
  expect_ids(r.prefix[1], r.n_prefix[1], 3, (int32_t[]){1, 2, 3});
  expect_ids(r.plan_ids, 3, 3, (int32_t[]){0, 65535, 1});
  assert_true(r.session == UINT32_MAX && s->seed == 1ULL << 63);
  assert_int_equal(s->streams, 2);
  assert_int_equal(s->reveal_delay, 3);
  assert_int_equal(s->window, 7);
  assert_int_equal(s->max_attempts, 6);
  assert_int_equal(s->max_rounds, INT32_MAX);
  assert_int_equal(s->min_tokens, 11);
  assert_true(s->retry_temperature == 1.5);
  assert_int_equal(s->keep_order, 1);
  assert_int_equal(s->part_slots, 2);
  assert_true(s->gamma == 0.1 && s->sampling.temperature == 0.3 && s->sampling.top_p == 0.95);
  assert_int_equal(s->sampling.top_k, 40);
  assert_int_equal(s->limits.block_tokens, 5);
  assert_int_equal(s->limits.horizon, 9);
  assert_int_equal(s->limits.max_tokens, 21);
  assert_int_equal(s->limits.policy, PDT_GLOBAL);
  assert_int_equal(pdt_request_own_tokens(&r, 0), 21);
  assert_int_equal(pdt_request_own_tokens(&r, 1), 24);
  assert_int_equal(pdt_request_positions(&r), 3 - 1 + 24);
  pdt_request_free(&r);
}

/* The table has every field of the message, under its name and in its place. */
static void a_table_of_all_settings(void **state) {
  (void)state;
  const ProtobufCMessageDescriptor *message = &pdt__settings__descriptor;
  assert_int_equal(message->n_fields, PDT_SETTINGS);
  for (unsigned i = 0; i < message->n_fields; i++) {
    const pdt_setting *setting = &pdt_setting_table[i];
    assert_string_equal(setting->key, message->fields[i].name);
    assert_int_equal(setting->message_place, message->fields[i].offset);
    assert_ptr_equal(pdt_setting_find(setting->key), setting);
    assert_true(*setting->argument && *setting->help);
  }
  assert_null(pdt_setting_find("slots"));
  static const char *const usual[][2] = {{"streams", "one a section, or all that the sidecar has"},
                                         {"gamma", "sidecar's"},
                                         {"policy", "selective"},
                                         {"max_rounds", "100000"},
                                         {"top_p", "1"}};
  for (size_t i = 0; i < sizeof usual / sizeof *usual; i++) {
    char text[64];
    pdt_setting_default(pdt_setting_find(usual[i][0]), text, sizeof text);
    assert_string_equal(text, usual[i][1]);
  }
}

/* What is written of every setting: in the message, field by field, and as an object. */
static void settings_are_written(void **state) {
  (void)state;
  pdt_request r = accept(everything, &ids_only);
  pdt_request_message m;
  assert_int_equal(pdt_request_message_new(&m, &r, NULL), 0);
  const Pdt__Settings *s = &m.settings;
  assert_true(s->streams == 2 && s->block_tokens == 5 && s->reveal_delay == 3 && s->window == 7 &&
              s->horizon == 9 && s->gamma == 0.1 && s->policy == PDT__POLICY__POLICY_GLOBAL);
  assert_true(s->max_attempts == 6 && s->max_tokens == 21 && s->max_rounds == INT32_MAX &&
              s->temperature == 0.3 && s->top_k == 40 && s->top_p == 0.95 &&
              s->seed == 1ULL << 63 && s->retry_temperature == 1.5);
  pdt_request_message_free(&m);
  json_t *json = pdt_settings_json(&r.settings);
  char *text = json_dumps(json, JSON_COMPACT | JSON_REAL_PRECISION(9));
  assert_string_equal(
      text, "{\"streams\":2,\"block_tokens\":5,\"reveal_delay\":3,\"window\":7,\"horizon\":"
            "9,\"gamma\":0.1,\"policy\":\"global\",\"max_attempts\":6,\"max_tokens\":21,"
            "\"max_rounds\":2147483647,\"temperature\":0.3,\"top_k\":40,\"top_p\":0.95,"
            "\"seed\":\"9223372036854775808\",\"min_tokens\":11,\"retry_temperature\":1.5,"
            "\"keep_order\":1,\"part_slots\":2}");
  free(text);
  json_decref(json);
  pdt_request_free(&r);
}

static void null_is_absent(void **state) {
  (void)state;
  pdt_request r = accept("{'prompt':null,'prompt_ids':[1],'sections':null,'prefix_ids':null,"
                         "'plan':null,'plan_ids':null,'session':null,'settings':{'streams':null,"
                         "'gamma':null,'policy':null,'seed':null,'top_k':null,'horizon':null}}",
                         &ids_only);
  assert_true(r.session == 7 && r.settings.streams == 4 && r.settings.gamma == 0.625);
  assert_null(r.plan_ids);
  pdt_request_free(&r);
  r = accept("{'prompt_ids':[1],'settings':null}", &ids_only);
  pdt_request_free(&r);
}

static void streams_are_as_many_as_prefixes(void **state) {
  (void)state;
  pdt_request r = accept("{'prompt_ids':[1],'prefix_ids':[[1],[2],[]]}", &ids_only);
  assert_int_equal(r.settings.streams, 3);
  pdt_request_free(&r);
}

static void a_default_horizon_holds_a_block(void **state) {
  (void)state;
  pdt_request r = accept("{'prompt_ids':[1],'settings':{'block_tokens':50}}", &ids_only);
  assert_int_equal(r.settings.limits.horizon, 50);
  pdt_request_free(&r);
}

static void texts(void **state) {
  (void)state;
  pdt_tokenizer *t = new_tokenizer();
  const pdt_request_context context = {&model, &sidecar, t};
  pdt_request r = accept("{'prompt':'ab a<s>','sections':['b','', ' ab']}", &context);
  expect_ids(r.prompt, r.n_prompt, 5, (int32_t[]){4, 2, 3, 0, 4});
  assert_int_equal(r.settings.streams, 3);
  expect_ids(r.prefix[0], r.n_prefix[0], 1, (int32_t[]){1}); /* no special tokens in between */
  assert_int_equal(r.n_prefix[1], 0);
  expect_ids(r.prefix[2], r.n_prefix[2], 2, (int32_t[]){3, 2});
  pdt_request_free(&r);
  r = accept("{'prompt':''}", &context); /* the special token alone is a prompt */
  expect_ids(r.prompt, r.n_prompt, 1, (int32_t[]){4});
  pdt_request_free(&r);
  pdt_error err;
  assert_int_equal(parse(&r, "{'prompt':'az'}", &context, &err), -1);
  assert_string_equal(err.message,
                      "r.json: prompt: the tokenizer gives token 100, but the model's vocabulary "
                      "has 100 (hint: tokenizer.json is another model's)");
  assert_int_equal(parse(&r, "{'prompt':'a','sections':['a',5]}", &context, &err), -1);
  assert_string_equal(err.message, "r.json: sections: expected a text, found integer");
  pdt_tokenizer_free(t);
}

/* Sections go on with the prompt: no mark before a word in the middle of a text. */
static void sections_go_on(void **state) {
  (void)state;
  static const char *const before[] = {
      "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":"
      "\"_\"},{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"_\"}]}",
      "\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":"
      "\"always\"}",
      "\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":"
      "\"first\"}"};
  for (size_t i = 0; i < sizeof before / sizeof *before; i++) {
    char json[1024];
    pdt_tokenizer *t;
    pdt_error err = {0};
    int n = snprintf(json, sizeof json,
                     "{%s,\"model\":{\"type\":\"BPE\",\"vocab\":{\"_\":0,\"a\":1,\"_a\":2,"
                     "\"\\n\":3},\"merges\":[\"_ a\"]}}",
                     before[i]);
    if (pdt_tokenizer_parse(&t, json, (size_t)n, "tokenizer.json", &err))
      fail_msg("%s", err.message);
    const pdt_request_context context = {&model, &sidecar, t};
    pdt_request r = accept("{'prompt':'a a','sections':['a','\\na',' a','']}", &context);
    expect_ids(r.prompt, r.n_prompt, 2, (int32_t[]){2, 2});
    expect_ids(r.prefix[0], r.n_prefix[0], 1, (int32_t[]){1});
    expect_ids(r.prefix[1], r.n_prefix[1], 2, (int32_t[]){3, 1});
    expect_ids(r.prefix[2], r.n_prefix[2], 1, (int32_t[]){2});
    assert_int_equal(r.n_prefix[3], 0);
    pdt_request_free(&r);
    r = accept("{'prompt_ids':[2,1],'sections':['a']}", &context);
    expect_ids(r.prefix[0], r.n_prefix[0], 1, (int32_t[]){1});
    pdt_request_free(&r);
    pdt_tokenizer_free(t);
  }
}

/* A request that must be refused, with a part of the message it must be refused with. */
typedef struct refusal {
  pdt_error_code code;
  const char *text, *message;
} refusal;

static void refuse(const refusal *cases, size_t n) {
  for (size_t i = 0; i < n; i++) {
    pdt_request r;
    pdt_error err;
    if (parse(&r, cases[i].text, &ids_only, &err) == 0) fail_msg("accepted: %s", cases[i].text);
    if (err.code != cases[i].code || !strstr(err.message, cases[i].message))
      fail_msg("%s:\nexpected code %d, '%s'\nfound    code %d, '%s'", cases[i].text, cases[i].code,
               cases[i].message, err.code, err.message);
    assert_null(r.prompt);
    assert_null(r.prefix);
    assert_null(r.plan_ids);
  }
}

#define REFUSE(cases) refuse(cases, sizeof(cases) / sizeof *(cases))

static void bad_requests(void **state) {
  (void)state;
  const refusal cases[] = {
      {PDT_ERROR_INPUT, "[]", "r.json: expected a JSON object, found array"},
      {PDT_ERROR_INPUT, "'x'", "found string"},
      {PDT_ERROR_INPUT, "{}", "r.json: expected a prompt or prompt_ids, found neither"},
      {PDT_ERROR_INPUT, "{'promt':'x'}", "'promt': no such key is known"},
      {PDT_ERROR_INPUT, "{'prompt':'x','prompt_ids':[1]}", "expected prompt or prompt_ids, found"},
      {PDT_ERROR_INPUT, "{'prompt':'x'}", "prompt: a text needs the model's tokenizer.json"},
      {PDT_ERROR_INPUT, "{'prompt':['x']}", "prompt: expected a text, found array"},
      {PDT_ERROR_INPUT, "{'prompt_ids':[]}", "prompt_ids: expected at least one token"},
      {PDT_ERROR_INPUT, "{'prompt_ids':5}", "prompt_ids: expected a list of token ids, found int"},
      {PDT_ERROR_INPUT, "{'prompt_ids':[1,100]}",
       "r.json: prompt_ids: '[1]': expected an integer "
       "from 0 to 99, found 100"},
      {PDT_ERROR_INPUT, "{'prompt_ids':[-1]}", "found -1"},
      {PDT_ERROR_INPUT, "{'prompt_ids':[1.0]}", "found 1"},
      {PDT_ERROR_INPUT, "{'prompt_ids':['1']}", "found '1'"},
      {PDT_ERROR_INPUT, "{'prompt_ids':[null]}", "found null"},
      {PDT_ERROR_INPUT, "{'prompt_ids':[true]}", "found true"},
      {PDT_ERROR_INPUT, "{'prompt_ids':[9223372036854775807]}", "found 9223372036854775807"},
      {PDT_ERROR_INPUT, "{'prompt_ids':[1],'session':-1}", "'session': expected an integer from 0"},
      {PDT_ERROR_INPUT, "{'prompt_ids':[1],'session':4294967296}", "to 4294967295, found 42949"},
      {PDT_ERROR_INPUT, "{'prompt_ids':[1],'session':'a'}", "found 'a'"},
      {PDT_ERROR_INPUT, "{'prompt_ids':[1],'settings':[]}", "'settings': expected an object"},
      {PDT_ERROR_INPUT, "{'prompt_ids':[1],'sections':['a'],'prefix_ids':[[1]]}", "found both"},
      {PDT_ERROR_INPUT, "{'prompt_ids':[1],'sections':['a']}", "sections: a text needs"},
      {PDT_ERROR_INPUT, "{'prompt_ids':[1],'sections':'a'}", "one entry a stream, 4, found string"},
      {PDT_ERROR_INPUT, "{'prompt_ids':[1],'prefix_ids':[]}",
       "one entry a stream, 4, found array "
       "of 0"},
      {PDT_ERROR_INPUT, "{'prompt_ids':[1],'prefix_ids':[[1],[1]],'settings':{'streams':3}}",
       "expected a list with one entry a stream, 3, found array of 2"},
      {PDT_ERROR_INPUT, "{'prompt_ids':[1],'prefix_ids':[1]}", "expected a list of token ids"},
      {PDT_ERROR_INPUT, "{'prompt_ids':[1],'prefix_ids':[[1],[100]]}", "found 100"},
      {PDT_ERROR_USAGE, "{'prompt_ids':[1],'prefix_ids':[[],[],[],[],[]]}",
       "streams: expected at most 4, as many as the sidecar has adapters for, found 5"},
      {PDT_ERROR_INPUT, "{'prompt_ids':[1],'settings':{'max_tokens':201}}",
       "prompt of 1 tokens, prefix and max_tokens 201 need 201 positions; max_position_embeddings "
       "is 200"},
      {PDT_ERROR_INPUT, "{'prompt_ids':[1,1],'prefix_ids':[[],[1]],'settings':{'max_tokens':199}}",
       "need 201 positions"}};
  REFUSE(cases);
}

static void bad_plans(void **state) {
  (void)state;
  const refusal cases[] = {
      {PDT_ERROR_INPUT, "{'prompt_ids':[1],'plan':[],'plan_ids':[0,0,0]}", "found both"},
      {PDT_ERROR_INPUT, "{'prompt_ids':[1],'plan_ids':[0,0]}",
       "plan_ids: expected a list of 3 "
       "slots, found array of 2"},
      {PDT_ERROR_INPUT, "{'prompt_ids':[1],'plan_ids':[0,0,0,0]}", "found array of 4"},
      {PDT_ERROR_INPUT, "{'prompt_ids':[1],'plan_ids':{}}", "found object of 0"},
      {PDT_ERROR_INPUT, "{'prompt_ids':[1],'plan_ids':[0,65536,0]}",
       "r.json: plan_ids: '[1]': expected an integer from 0 to 65535, found 65536"},
      {PDT_ERROR_INPUT, "{'prompt_ids':[1],'plan_ids':[0,0,-1]}", "found -1"},
      {PDT_ERROR_INPUT, "{'prompt_ids':[1],'plan':5}", "plan: expected a list of at most 3 slots"},
      {PDT_ERROR_INPUT, "{'prompt_ids':[1],'plan':[{},{},{},{}]}", "found array of 4"},
      {PDT_ERROR_INPUT, "{'prompt_ids':[1],'plan':['a']}", "r.json: plan[0]: expected a JSON obj"},
      {PDT_ERROR_INPUT, "{'prompt_ids':[1],'plan':[{'stream':0,'text':'a'},{}]}",
       "r.json: plan[1]: 'stream': expected an integer from 0 to 3, found nothing"},
      {PDT_ERROR_INPUT, "{'prompt_ids':[1],'plan':[{'stream':4,'text':'a'}]}", "found 4"},
      {PDT_ERROR_INPUT,
       "{'prompt_ids':[1],'plan':[{'stream':1,'text':'a'}],"
       "'settings':{'streams':1}}",
       "expected an integer from 0 to 0, found 1"},
      {PDT_ERROR_INPUT, "{'prompt_ids':[1],'plan':[{'stream':0,'text':7}]}",
       "'text': expected a "
       "string, found 7"},
      {PDT_ERROR_INPUT, "{'prompt_ids':[1],'plan':[{'stream':0,'text':'a','id':1}]}", "'id': no"}};
  REFUSE(cases);
}

/* One setting at a time: what is outside its range, by one, and of another type. */
static void bad_settings(void **state) {
  (void)state;
  static const char *const cases[][3] = {
      {"streams", "0", "from 1 to 65536, found 0"},
      {"streams", "5", "expected at most 4"},
      {"streams", "65537", "from 1 to 65536, found 65537"},
      {"block_tokens", "0", "from 1 to 16777216"},
      {"block_tokens", "16777217", "found 16777217"},
      {"reveal_delay", "0", "from 1 to 1048576"},
      {"reveal_delay", "1048577", "found 1048577"},
      {"window", "0", "from 1 to 1048576"},
      {"window", "-9223372036854775808", "found -9223372036854775808"},
      {"max_attempts", "0", "from 1 to 1048576"},
      {"max_tokens", "0", "from 1 to 16777216"},
      {"max_tokens", "4294967297", "found 4294967297"},
      {"max_rounds", "0", "from 1 to 2147483647"},
      {"max_rounds", "2147483648", "found 2147483648"},
      {"top_k", "-1", "from 0 to 2147483647"},
      {"gamma", "-0.001", "from 0 to 1, found -0.001"},
      {"gamma", "1.001", "found 1.001"},
      {"temperature", "-1", "from 0 to 1e+06"},
      {"temperature", "1e7", "found 1e+07"},
      {"retry_temperature", "-1", "from 0 to 1e+06"},
      {"top_p", "0", "from 1e-09 to 1"},
      {"top_p", "1.5", "found 1.5"},
      {"horizon", "0", "from 1 to 16777216"},
      {"horizon", "15", "expected at least block_tokens, 16, found 15"},
      {"policy", "'none'", "expected selective, stall, global or local, found 'none'"}};
  /* of another type: the range is the setting's, and what was found does not read as an integer */
  static const refusal types[] = {
      {PDT_ERROR_INPUT, "{'prompt_ids':[1],'settings':{'window':64.0}}",
       "'window': expected an integer from 1 to 1048576, found 64.0"},
      {PDT_ERROR_INPUT, "{'prompt_ids':[1],'settings':{'max_tokens':1e3}}",
       "'max_tokens': expected an integer from 1 to 16777216, found 1000.0"},
      {PDT_ERROR_INPUT, "{'prompt_ids':[1],'settings':{'gamma':true}}",
       "'gamma': expected a number from 0 to 1, found true"}};
  static const char *const integers[] = {"streams",      "block_tokens", "reveal_delay", "window",
                                         "max_attempts", "max_tokens",   "max_rounds",   "top_k",
                                         "horizon",      "seed"};
  static const char *const reals[] = {"gamma", "temperature", "top_p", "retry_temperature"};
  char text[256];
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    snprintf(text, sizeof text, "{'prompt_ids':[1],'settings':{'%s':%s}}", cases[i][0],
             cases[i][1]);
    refuse(&(refusal){PDT_ERROR_USAGE, text, cases[i][2]}, 1);
    refuse(&(refusal){PDT_ERROR_USAGE, text, "r.json: settings: "}, 1);
    refuse(&(refusal){PDT_ERROR_USAGE, text, cases[i][0]}, 1);
  }
  REFUSE(types);
  for (size_t i = 0; i < 10; i++) {
    snprintf(text, sizeof text, "{'prompt_ids':[1],'settings':{'%s':2.0}}", integers[i]);
    refuse(&(refusal){PDT_ERROR_INPUT, text, integers[i]}, 1);
    if (i < 9) refuse(&(refusal){PDT_ERROR_INPUT, text, "found 2.0"}, 1);
    snprintf(text, sizeof text, "{'prompt_ids':[1],'settings':{'%s':'2'}}", integers[i]);
    refuse(&(refusal){PDT_ERROR_INPUT, text, "found '2'"}, 1);
  }
  for (size_t i = 0; i < 4; i++) {
    snprintf(text, sizeof text, "{'prompt_ids':[1],'settings':{'%s':'0.5'}}", reals[i]);
    refuse(&(refusal){PDT_ERROR_INPUT, text, reals[i]}, 1);
    snprintf(text, sizeof text, "{'prompt_ids':[1],'settings':{'%s':true}}", reals[i]);
    refuse(&(refusal){PDT_ERROR_INPUT, text, "found true"}, 1);
  }
  const refusal others[] = {
      {PDT_ERROR_INPUT, "{'prompt_ids':[1],'settings':{'policy':1}}", "'policy': expected a str"},
      {PDT_ERROR_INPUT, "{'prompt_ids':[1],'settings':{'Gamma':1}}", "'Gamma': no such key"}};
  REFUSE(others);
}

/* Integers are numbers too where a real one is wanted. */
static void bounds_are_inside(void **state) {
  (void)state;
  pdt_request r = accept("{'prompt_ids':[1],'settings':{'streams':1,'gamma':1,'temperature':"
                         "1000000,'top_p':1e-9,'top_k':2147483647,'window':1048576,'max_attempts':"
                         "1048576,'reveal_delay':1048576,'max_tokens':200,'horizon':16777216,"
                         "'block_tokens':16777216,'seed':9223372036854775807}}",
                         &ids_only);
  assert_true(r.settings.gamma == 1 && r.settings.sampling.top_p == 1e-9);
  pdt_request_free(&r);
  r = accept("{'prompt_ids':[1],'settings':{'gamma':0,'temperature':0.0,'top_k':0,'block_tokens':1,"
             "'horizon':1,'window':1,'reveal_delay':1,'max_rounds':1,'max_tokens':1}}",
             &ids_only);
  assert_int_equal(r.settings.limits.horizon, 1);
  pdt_request_free(&r);
}

/* Are two requests equal to the last bit, but for their lines? */
static void expect_same(const pdt_request *a, const pdt_request *b) {
  pdt_buffer bytes[2] = {{0}, {0}};
  pdt_request without[2] = {*a, *b};
  for (int i = 0; i < 2; i++) {
    without[i].line = 0;
    assert_int_equal(pdt_request_pack(&bytes[i], &without[i], "r", NULL), 0);
  }
  assert_int_equal(bytes[0].bytes, bytes[1].bytes);
  assert_memory_equal(bytes[0].data, bytes[1].data, bytes[0].bytes);
  assert_true(a->session == b->session && a->settings.seed == b->settings.seed);
  assert_int_equal(a->settings.limits.slots, b->settings.limits.slots);
  assert_int_equal(pdt_request_positions(a), pdt_request_positions(b));
  expect_ids(b->prompt, b->n_prompt, a->n_prompt, a->prompt);
  for (int i = 0; i < 2; i++) pdt_buffer_free(&bytes[i]);
}

/* As bytes between two others, and as JSON text: the same request comes back. */
static void check_round_trip(pdt_request *r) {
  pdt_request back;
  pdt_error err = {0};
  pdt_buffer bytes = {0};
  pdt_request_message m;
  json_t *parsed;
  char *text;
  size_t at = 0, length;
  r->line = 77;
  for (int i = 0; i < 3; i++) assert_int_equal(pdt_request_pack(&bytes, r, "r", &err), 0);
  for (int i = 0; i < 3; i++) {
    if (pdt_request_unpack(&back, bytes.data, bytes.bytes, &at, "again", &ids_only, &err))
      fail_msg("%s", err.message);
    expect_same(r, &back);
    assert_int_equal(back.line, 77);
    pdt_request_free(&back);
  }
  assert_int_equal(at, bytes.bytes);
  pdt_buffer_free(&bytes);
  FILE *out = open_memstream(&text, &length);
  assert_int_equal(pdt_request_message_new(&m, r, &err), 0);
  pdt_request_put_json(out, &m.message);
  pdt_request_message_free(&m);
  fclose(out);
  assert_int_equal(pdt_json_parse(&parsed, text, length, "text", &err), 0);
  if (pdt_request_parse(&back, parsed, "again", 12345, &ids_only, &err))
    fail_msg("%s: %s", text, err.message);
  expect_same(r, &back);
  pdt_request_free(&back);
  json_decref(parsed);
  free(text);
}

static void round_trips(void **state) {
  (void)state;
  pdt_tokenizer *t = new_tokenizer();
  const pdt_request_context context = {&model, &sidecar, t};
  const char *const texts[] = {
      "{'prompt_ids':[5]}", everything,
      "{'prompt':'ab ab','sections':['a','b a'],'plan':[{'stream':1,'text':'Overview'}],"
      "'settings':{'policy':'stall'}}"};
  for (size_t i = 0; i < 3; i++) {
    pdt_request r = accept(texts[i], &context);
    check_round_trip(&r);
    pdt_request_free(&r);
  }
  pdt_tokenizer_free(t);
}

static void random_round_trips(void **state) {
  (void)state;
  numbers n = {81};
  for (int trial = 0; trial < 2000; trial++) { /* settings that only doubles of 17 digits keep */
    char text[512];
    snprintf(text, sizeof text,
             "{'prompt_ids':[%d,%d],'session':%u,'settings':{'streams':%d,'gamma':%.17g,"
             "'temperature':%.17g,'top_p':%.17g,'seed':%lld,'max_tokens':%d}}",
             numbers_int(&n, 0, 99), numbers_int(&n, 0, 99), (unsigned)numbers_next(&n),
             numbers_int(&n, 1, 4), numbers_real(&n), 1e3 * numbers_real(&n),
             1e-9 + 0.9 * numbers_real(&n), (long long)numbers_next(&n), numbers_int(&n, 1, 150));
    pdt_request r = accept(text, &ids_only);
    check_round_trip(&r);
    pdt_request_free(&r);
  }
}

/* Settings may allow more than there can ever be; what takes memory goes by these. */
static void the_most_there_can_be(void **state) {
  (void)state;
  pdt_request r = accept("{'prompt_ids':[1],'settings':{'streams':3,'block_tokens':5,"
                         "'max_tokens':21,'window':1048576,'horizon':16777216}}",
                         &ids_only);
  assert_int_equal(pdt_settings_block(&r.settings), 5);
  assert_int_equal(pdt_settings_tokens(&r.settings), 21);
  assert_int_equal(pdt_settings_notes(&r.settings), 1 + 3 * 5);
  assert_int_equal(pdt_settings_window(&r.settings), 16);
  r.settings.window = 15;
  assert_int_equal(pdt_settings_window(&r.settings), 15);
  r.settings.max_rounds = 2; /* two blocks, and a third that does not come to be */
  assert_int_equal(pdt_settings_tokens(&r.settings), 10);
  assert_int_equal(pdt_request_own_tokens(&r, 1), 10);
  assert_int_equal(pdt_settings_notes(&r.settings), 1 + 3 * 2);
  assert_int_equal(pdt_request_positions(&r), 21);
  r.settings.max_rounds = INT32_MAX;
  r.settings.limits.block_tokens = 1 << 24;
  assert_int_equal(pdt_settings_block(&r.settings), 21);
  assert_int_equal(pdt_settings_tokens(&r.settings), 21);
  assert_int_equal(pdt_settings_notes(&r.settings), 1 + 3);
  r.settings.limits.max_tokens = 1 << 24;
  r.settings.limits.block_tokens = 1;
  r.settings.streams = 1 << 16;
  assert_true(pdt_settings_notes(&r.settings) == 1 + ((int64_t)1 << 40));
  assert_int_equal(pdt_settings_window(&r.settings), 15);
  r.settings.streams = 3;
  pdt_request_free(&r);
}

/* What sequences and prompt take, in pages of 16, on the ranks that decode them. */
static void pages_of_a_session(void **state) {
  (void)state;
  pdt_request r = accept("{'prompt_ids':[1,2],'prefix_ids':[[],[1],[],[]],"
                         "'settings':{'max_tokens':32}}",
                         &ids_only);
  assert_int_equal(pdt_running_pages(&r, 0, 1, 1), 1 + 2 + 3 + 2 + 2);
  assert_int_equal(pdt_running_pages(&r, 0, 1, 4), 1 + 2);
  assert_int_equal(pdt_running_pages(&r, 1, 2, 4), 1 + 3);
  assert_int_equal(pdt_running_pages(&r, 4, 6, 6), 0); /* nothing to decode, no prompt either */
  assert_int_equal(pdt_streams_among(4, 0, 2, 3), 3);
  assert_int_equal(pdt_streams_among(4, 2, 3, 3), 1);
  assert_int_equal(pdt_streams_among(4, 5, 8, 8), 0);
  pdt_request_free(&r);
  /* More pages than 32 bits count: 4,096 streams of 16 million tokens. */
  enum { K = 4096 };
  int32_t n_prefix[K] = {0};
  pdt_request huge = {.n_prompt = 1, .n_prefix = n_prefix, .settings = {.streams = K}};
  huge.settings.max_rounds = INT32_MAX;
  huge.settings.limits.max_tokens = 1 << 24;
  huge.settings.limits.block_tokens = 16;
  assert_true(pdt_running_pages(&huge, 0, 1, 1) == ((int64_t)1 << 32) + 1);
}

/* id, stream and text, from Python: int.from_bytes(sha256(f"parallel-decoder-v1::stream_{k}::" +
 * text.strip().lower()), "big") % 65536 or 1, and 0 for an empty one. */
static void hashes_recorded(void **state) {
  (void)state;
  static const struct {
    int32_t id;
    pdt_stream stream;
    const char *text;
  } recorded[] = {
      {56827, 0, "overview"},
      {15579, 7, "  Overview\011\012"},
      {14520, 14, "\303\234berblick \303\204\303\226\303\234"},
      {8826, 21, "\303\200\303\211\303\216\303\225\303\234 \303\247a"},
      {53905, 28, "\320\237\320\240\320\230\320\222\320\225\320\242 \320\274\320\270\321\200"},
      {38488, 0, "\316\221\316\222\316\223 \316\224\316\255\316\273\317\204\316\261"},
      {58492, 7, "\304\260stanbul"},
      {36448, 14, "D\305\275 \307\204 \307\205"},
      {29795, 21, "\341\272\236 STRASSE"},
      {63607, 28, "\342\205\247 \342\222\266"},
      {58034, 0, "\360\220\220\200\360\220\220\201 Deseret"},
      {49052, 7, "\346\227\245\346\234\254\350\252\236 \343\201\256 \350\250\210\347\224\273"},
      {34719, 14, "\302\240\342\200\203x y\343\200\200\342\200\250"},
      {44546, 21, "\034\035a\036\037"},
      {27150, 28, "\342\200\213 zero width"},
      {23971, 0, "a\302\205"},
      {16399, 7, "\360\237\246\211 Owl"},
      {15907, 14, "\341\240\216"},
      {2062, 21, "\357\273\277"},
      {0, 28, " \011\012\302\240"},
      {0, 0, ""},
      {36717, 7, "\310\272\310\276"},
      {13787, 14, "K \303\205 \316\251"},
      {15133, 21, "\341\202\240 \341\262\220 \341\216\240"},
      {33344, 28, "e\314\201\303\211"},
      {43149, 0, "\316\237\316\224\316\237\316\243"},
      {15270, 7, "\316\237\316\224\316\237\316\243 \316\243\316\221\316\243"},
      {26061, 14, "\316\243"},
      {23090, 21, "\316\221\316\243."},
      {202, 28, "\316\221.\316\243"},
      {37496, 0, "\316\221\316\243\316\221"},
      {58315, 7, "a\316\243\314\201"},
      {53468, 14, "'\316\243'"},
      {31820, 21, "\316\221\316\243\302\255\316\221"},
      {23710, 28, "\316\221\316\243'\316\221"},
  };
  for (size_t i = 0; i < sizeof recorded / sizeof *recorded; i++) {
    int32_t id = -1;
    assert_int_equal(pdt_plan_hash(&sidecar, recorded[i].stream, recorded[i].text, &id, NULL), 0);
    if (id != recorded[i].id)
      fail_msg("'%s': expected %d, found %d", recorded[i].text, recorded[i].id, id);
  }
}

static void hashes_as_python(void **state) {
  (void)state;
  FILE *cases = oracle_open("hash", 20000, 82);
  if (!cases) skip();
  int n = 0;
  for (json_t *c; (c = oracle_next(cases)); json_decref(c), n++) {
    pdt_sidecar_config config = {.plan_vocab_size = (int32_t)oracle_int(c, "size")};
    const char *text = oracle_string(c, "text");
    int32_t id = -1;
    snprintf(config.plan_hash_salt, sizeof config.plan_hash_salt, "%s", oracle_string(c, "salt"));
    assert_int_equal(pdt_plan_hash(&config, (pdt_stream)oracle_int(c, "stream"), text, &id, NULL),
                     0);
    if (id != oracle_int(c, "id")) {
      char *shown = json_dumps(json_object_get(c, "text"), JSON_ENCODE_ANY | JSON_ENSURE_ASCII);
      fail_msg("%s: expected %d, found %d", shown, (int)oracle_int(c, "id"), id);
    }
  }
  oracle_close(cases);
  assert_int_equal(n, 20000);
}

static void hashes_refused(void **state) {
  (void)state;
  static const char *const bad[] = {"\xff", "ab\xc3", "\xed\xa0\x80", "\xce\xa3\xf5\x80\x80\x80"};
  for (int i = 0; i < 4; i++) {
    int32_t id;
    pdt_error err = {0};
    assert_int_equal(pdt_plan_hash(&sidecar, 0, bad[i], &id, &err), -1);
    assert_int_equal(err.code, PDT_ERROR_INPUT);
    assert_non_null(strstr(err.message, "not UTF-8 at byte "));
    assert_int_equal(err.message[strlen(err.message) - 1], "0202"[i]);
  }
}

static void plans_in_words(void **state) {
  (void)state;
  pdt_request r = accept("{'prompt_ids':[1],'plan':[{'stream':0,'text':'overview'},"
                         "{'stream':3,'text':'  '}]}",
                         &ids_only);
  int32_t id;
  assert_int_equal(pdt_plan_hash(&sidecar, 0, "overview", &id, NULL), 0);
  assert_true(id > 0);
  expect_ids(r.plan_ids, 3, 3, (int32_t[]){id, 0, 0}); /* an empty text, and a slot not named */
  pdt_request_free(&r);
  r = accept("{'prompt_ids':[1],'plan':[{'stream':0,'text':'overview'},{'stream':0,'text':''},"
             "{'stream':0,'text':' OVERVIEW '}]}",
             &ids_only);
  expect_ids(r.plan_ids, 3, 3, (int32_t[]){id, 0, id}); /* as many items as slots */
  pdt_request_free(&r);
  r = accept("{'prompt_ids':[1],'plan':[]}", &ids_only);
  expect_ids(r.plan_ids, 3, 3, (int32_t[]){0, 0, 0});
  pdt_request_free(&r);
}

/* Bytes of a request cut short anywhere are refused, and none is read past the end. */
static void cut_short(void **state) {
  (void)state;
  pdt_request r = accept(everything, &ids_only), back;
  pdt_buffer bytes = {0};
  assert_int_equal(pdt_request_pack(&bytes, &r, "r", NULL), 0);
  for (size_t n = 0; n < bytes.bytes; n++) {
    char *copy = malloc(n ? n : 1); /* of its own, so that a sanitizer sees its end */
    pdt_error err = {0};
    size_t at = 0;
    assert_non_null(copy);
    memcpy(copy, bytes.data, n);
    assert_int_equal(pdt_request_unpack(&back, copy, n, &at, "r", &ids_only, &err), -1);
    assert_string_equal(err.message, "r: its bytes are cut short");
    free(copy);
  }
  /* what one sidecar has room for, another has not */
  pdt_sidecar_config small = sidecar;
  small.streams = 1;
  const pdt_request_context other = {&model, &small, NULL};
  pdt_error err = {0};
  size_t at = 0;
  assert_int_equal(pdt_request_unpack(&back, bytes.data, bytes.bytes, &at, "r", &other, &err), -1);
  assert_non_null(strstr(err.message, "streams with"));
  pdt_buffer_free(&bytes);
  pdt_request_free(&r);
}

/* Seeds take 64 bits; a negative one is the one with the same bits. */
static void seeds(void **state) {
  (void)state;
  static const struct {
    const char *text;
    uint64_t seed;
  } good[] = {{"0", 0},
              {"9223372036854775807", INT64_MAX},
              {"9223372036854775808", (uint64_t)1 << 63},
              {"18446744073709551615", UINT64_MAX},
              {"\"18446744073709551615\"", UINT64_MAX},
              {"\"9223372036854775808\"", (uint64_t)1 << 63},
              {"-1", UINT64_MAX},
              {"-9223372036854775808", (uint64_t)1 << 63}};
  static const char *const bad[][2] = {
      {"18446744073709551616", "'seed': expected an integer from -2^63 to 2^64 - 1, found 184467"},
      {"-9223372036854775809", "found -9223372036854775809"},
      {"1.5", "found real number"},
      {"\"\"", "found ''"},
      {"\"-1\"", "found '-1'"},
      {"1,\"window\":9223372036854775808",
       "window: expected an integer from 1 to 1048576, found 9"},
      {"1},\"session\":99999999999999999999,\"plan\":null,\"settings\":{", "duplicate object key"},
      {"1},\"session\":99999999999999999999,\"plan\":{", "'session': expected an integer from 0"}};
  for (size_t i = 0; i < sizeof good / sizeof *good + sizeof bad / sizeof *bad; i++) {
    bool sound = i < sizeof good / sizeof *good;
    const char *const *refused = bad[sound ? 0 : i - sizeof good / sizeof *good];
    char text[200];
    pdt_error err = {0};
    pdt_request r;
    json_t *json = NULL;
    snprintf(text, sizeof text, "{\"prompt_ids\":[1],\"settings\":{\"seed\":%s}}",
             sound ? good[i].text : refused[0]);
    int rc = pdt_json_parse_wide(&json, text, strlen(text), "r.json", &err);
    if (!rc) rc = pdt_request_parse(&r, json, "r.json", 7, &ids_only, &err);
    json_decref(json);
    assert_int_equal(rc, sound ? 0 : -1);
    if (!sound && !strstr(err.message, refused[1])) fail_msg("%s: %s", text, err.message);
    if (!sound) continue;
    assert_true(r.settings.seed == good[i].seed);
    check_round_trip(&r);
    pdt_request_free(&r);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(defaults),
      cmocka_unit_test(every_field),
      cmocka_unit_test(a_table_of_all_settings),
      cmocka_unit_test(settings_are_written),
      cmocka_unit_test(null_is_absent),
      cmocka_unit_test(streams_are_as_many_as_prefixes),
      cmocka_unit_test(a_default_horizon_holds_a_block),
      cmocka_unit_test(texts),
      cmocka_unit_test(sections_go_on),
      cmocka_unit_test(bad_requests),
      cmocka_unit_test(bad_plans),
      cmocka_unit_test(bad_settings),
      cmocka_unit_test(bounds_are_inside),
      cmocka_unit_test(round_trips),
      cmocka_unit_test(random_round_trips),
      cmocka_unit_test(cut_short),
      cmocka_unit_test(seeds),
      cmocka_unit_test(the_most_there_can_be),
      cmocka_unit_test(pages_of_a_session),
      cmocka_unit_test(hashes_recorded),
      cmocka_unit_test(hashes_as_python),
      cmocka_unit_test(hashes_refused),
      cmocka_unit_test(plans_in_words),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

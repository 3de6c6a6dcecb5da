/* The coordinator's decision: the rules one by one, all small cases against another writing of
 * them, and random ones against the oracle. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "numbers.h"
#include "oracle_cases.h"
#include "protocol/decide.h"

enum { MOST = 12 }; /* votes of a case */

/* One letter a vote: C, H, R, F; "+" or "-" before them is the gate. */
static const char *decision(const pdt_vote *votes, int32_t n, double gamma, pdt_policy policy,
                            int32_t max_attempts, char text[MOST + 2]) {
  pdt_action actions[MOST];
  text[0] = pdt_decide(votes, n, gamma, policy, max_attempts, actions) ? '+' : '-';
  for (int32_t i = 0; i < n; i++) text[i + 1] = "NCHRF"[actions[i]];
  text[n + 1] = '\0';
  return text;
}

static void rules(void **state) {
  (void)state;
  char t[MOST + 2];
  const pdt_vote strong[] = {{0, 0, 0.9F}, {2, 3, 0.8F}};
  const pdt_vote mixed[] = {{0, 0, 0.9F}, {1, 0, 0.2F}, {5, 1, 0.4F}, {6, 1, 0.7F}};
  assert_string_equal(decision(NULL, 0, 0.5, PDT_SELECTIVE, 4, t), "+");
  for (pdt_policy p = PDT_SELECTIVE; p < PDT_POLICIES; p++) /* the gate passed: attempts or not */
    assert_string_equal(decision(strong, 2, 0.5, p, 1, t), "+CC");
  for (pdt_policy p = PDT_SELECTIVE; p <= PDT_STALL; p++) {
    assert_string_equal(decision(mixed, 4, 0.5, p, 4, t), "-HRRH");
    assert_string_equal(decision(mixed, 4, 0.5, p, 2, t), "-HRFH");
    assert_string_equal(decision(mixed, 4, 0.5, p, 1, t), "-HFFH");
  }
  assert_string_equal(decision(mixed, 4, 0.5, PDT_GLOBAL, 4, t), "-RRRR");
  assert_string_equal(decision(mixed, 4, 0.5, PDT_GLOBAL, 2, t), "-RRFH");
  assert_string_equal(decision(mixed, 4, 0.5, PDT_GLOBAL, 1, t), "-HFFH");
  assert_string_equal(decision(mixed, 4, 0.5, PDT_LOCAL, 4, t), "-CRRC");
  assert_string_equal(decision(mixed, 4, 0.5, PDT_LOCAL, 1, t), "-CFFC");
}

static void the_threshold_itself_is_weak(void **state) {
  (void)state;
  char t[MOST + 2];
  const pdt_vote at[] = {{0, 0, 0.5F}}, none[] = {{0, 0, 0}}, all[] = {{0, 0, 1}};
  const pdt_vote above[] = {{0, 0, nextafterf(0.5F, 1)}}, no_number[] = {{0, 0, NAN}};
  assert_string_equal(decision(at, 1, 0.5, PDT_SELECTIVE, 4, t), "-R");
  assert_string_equal(decision(above, 1, 0.5, PDT_SELECTIVE, 4, t), "+C");
  assert_string_equal(decision(none, 1, 0, PDT_SELECTIVE, 4, t), "-R");
  assert_string_equal(decision(all, 1, 1, PDT_SELECTIVE, 4, t), "-R");
  /* gamma is a double: the float next to 0.7 is below it, and so weak */
  const pdt_vote near[] = {{0, 0, 0.7F}};
  assert_true((double)0.7F < 0.7);
  assert_string_equal(decision(near, 1, 0.7, PDT_SELECTIVE, 4, t), "-R");
  assert_string_equal(decision(no_number, 1, 0, PDT_SELECTIVE, 4, t), "-R");
}

/* The rules as a table: [is weak][has attempts left][policy]. */
static pdt_action by_table(bool gate, bool weak, bool left, pdt_policy policy) {
  enum {
    C = PDT_ACTION_COMMIT,
    H = PDT_ACTION_HOLD,
    R = PDT_ACTION_ROLLBACK,
    F = PDT_ACTION_FORCE
  };
  static const int table[2][2][PDT_POLICIES] = {{{H, H, H, C}, {H, H, R, C}},
                                                {{F, F, F, F}, {R, R, R, R}}};
  return gate ? PDT_ACTION_COMMIT : (pdt_action)table[weak][left][policy];
}

static void random_against_the_table(void **state) {
  (void)state;
  numbers r = {21};
  int gates = 0;
  for (int trial = 0; trial < 50000; trial++) {
    pdt_vote votes[MOST];
    pdt_action actions[MOST];
    int32_t n = numbers_int(&r, 0, MOST), weak = 0, most = numbers_int(&r, 1, 5);
    int32_t gamma = numbers_int(&r, 0, 8); /* in eighths, exact; few weak ones where it is small */
    pdt_policy policy = (pdt_policy)numbers_int(&r, 0, PDT_POLICIES - 1);
    for (int32_t i = 0; i < n; i++) {
      int32_t eighths = numbers_int(&r, 0, 8);
      votes[i] = (pdt_vote){i, numbers_int(&r, 0, 5), (float)eighths / 8};
      weak += eighths <= gamma;
    }
    bool gate = pdt_decide(votes, n, gamma / 8.0, policy, most, actions);
    assert_int_equal(gate, weak == 0);
    gates += gate;
    for (int32_t i = 0; i < n; i++)
      assert_int_equal(actions[i], by_table(gate, votes[i].readiness * 8 <= (float)gamma,
                                            most - votes[i].attempt >= 2, policy));
  }
  assert_in_range(gates, 3000, 25000); /* both sides were seen */
}

static void as_the_oracle(void **state) {
  (void)state;
  FILE *cases = oracle_open("decide", 20000, 22);
  if (!cases) skip();
  int n_cases = 0, seen[5] = {0};
  for (json_t *c; (c = oracle_next(cases)); json_decref(c), n_cases++) {
    const json_t *list = json_object_get(c, "votes");
    int32_t n = (int32_t)json_array_size(list);
    pdt_vote votes[MOST];
    pdt_action actions[MOST];
    pdt_policy policy;
    assert_in_range(n, 0, MOST);
    assert_true(pdt_policy_parse(oracle_string(c, "policy"), &policy));
    for (int32_t i = 0; i < n; i++) {
      const json_t *v = json_array_get(list, (size_t)i);
      votes[i] = (pdt_vote){(pdt_stream)json_integer_value(json_array_get(v, 0)),
                            (int32_t)json_integer_value(json_array_get(v, 1)),
                            (float)json_number_value(json_array_get(v, 2))};
    }
    bool gate = pdt_decide(votes, n, oracle_real(c, "gamma"), policy,
                           (int32_t)oracle_int(c, "max_attempts"), actions);
    assert_int_equal(gate, json_is_true(json_object_get(c, "gate")));
    for (int32_t i = 0; i < n; i++) {
      const json_t *action = json_array_get(json_array_get(list, (size_t)i), 3);
      assert_string_equal(pdt_action_name(actions[i]), json_string_value(action));
      seen[actions[i]]++;
    }
  }
  oracle_close(cases);
  assert_int_equal(n_cases, 20000);
  for (int a = PDT_ACTION_COMMIT; a <= PDT_ACTION_FORCE; a++) assert_true(seen[a] > 1000);
}

static void names(void **state) {
  (void)state;
  static const char *const actions[] = {"none", "commit", "hold", "rollback", "force"};
  static const char *const policies[] = {"selective", "stall", "global", "local"};
  for (int i = 0; i < 5; i++) assert_string_equal(pdt_action_name((pdt_action)i), actions[i]);
  for (int i = 0; i < PDT_POLICIES; i++) {
    pdt_policy p;
    assert_string_equal(pdt_policy_name((pdt_policy)i), policies[i]);
    assert_true(pdt_policy_parse(policies[i], &p));
    assert_int_equal(p, i);
  }
  static const char *const unknown[] = {"", "Global", "globa", "globals", " stall"};
  for (int i = 0; i < 5; i++) {
    pdt_policy p = PDT_STALL;
    assert_false(pdt_policy_parse(unknown[i], &p));
    assert_int_equal(p, PDT_STALL);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(rules),
      cmocka_unit_test(the_threshold_itself_is_weak),
      cmocka_unit_test(random_against_the_table),
      cmocka_unit_test(as_the_oracle),
      cmocka_unit_test(names),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

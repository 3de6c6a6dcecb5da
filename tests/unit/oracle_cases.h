/* Random cases with the oracle's answers, from tests/oracle/protocol_cases.py by a pipe. Tests run
 * in the source folder; without a Python that has numpy they skip. */
#ifndef PDT_TESTS_ORACLE_CASES_H
#define PDT_TESTS_ORACLE_CASES_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* A Python with numpy, or NULL. */
static inline const char *oracle_python(void) {
  static const char *const candidates[] = {"python3", "/usr/bin/python3", "build/venv/bin/python"};
  for (size_t i = 0; i < sizeof candidates / sizeof *candidates; i++) {
    char command[128];
    snprintf(command, sizeof command, "%s -c 'import numpy' >/dev/null 2>&1", candidates[i]);
    if (system(command) == 0) return candidates[i];
  }
  return NULL;
}

/* Starts a stream of `count` cases; NULL when they cannot be had here. */
static inline FILE *oracle_open(const char *kind, int count, int seed) {
  const char *python = oracle_python();
  if (!python) {
    print_message("no Python with numpy: not compared with the oracle\n");
    return NULL;
  }
  char command[256];
  snprintf(command, sizeof command, "%s tests/oracle/protocol_cases.py %s %d %d", python, kind,
           count, seed);
  return popen(command, "r");
}

/* The next case, to be dropped with json_decref; NULL at the end. */
static inline json_t *oracle_next(FILE *cases) {
  char *line = NULL;
  size_t room = 0;
  ssize_t length = getline(&line, &room, cases);
  json_t *json = length > 0 ? json_loadb(line, (size_t)length, 0, NULL) : NULL;
  if (length > 0 && !json) fail_msg("no JSON from the oracle: %.200s", line);
  free(line);
  return json;
}

/* Ends the stream; it must have come to its end by itself. */
static inline void oracle_close(FILE *cases) {
  assert_int_equal(pclose(cases), 0);
}

static inline json_int_t oracle_int(const json_t *object, const char *key) {
  const json_t *value = json_object_get(object, key);
  assert_true(json_is_integer(value));
  return json_integer_value(value);
}

static inline double oracle_real(const json_t *object, const char *key) {
  const json_t *value = json_object_get(object, key);
  assert_true(json_is_number(value));
  return json_number_value(value);
}

static inline const char *oracle_string(const json_t *object, const char *key) {
  const json_t *value = json_object_get(object, key);
  assert_true(json_is_string(value));
  return json_string_value(value);
}

#endif

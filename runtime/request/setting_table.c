#include "request/setting_table.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "pdt.pb-c.h"

/* What a setting is and may be, and where it lies in pdt_settings and in its message: an offset of
 * a member of another type than the kind's does not compile. */
#define OFFSET(object, member, type)                                                               \
  _Generic(((object *)NULL)->member, type : offsetof(object, member))
#define INTEGER(from, to, member, field)                                                           \
  .kind = PDT_SETTING_INTEGER, .low = (from), .high = (to),                                        \
  .place = OFFSET(pdt_settings, member, int32_t),                                                  \
  .message_place = OFFSET(Pdt__Settings, field, uint32_t)
#define REAL(from, to, member, field)                                                              \
  .kind = PDT_SETTING_REAL, .low = (from), .high = (to),                                           \
  .place = OFFSET(pdt_settings, member, double),                                                   \
  .message_place = OFFSET(Pdt__Settings, field, double)
#define POLICY(member, field)                                                                      \
  .kind = PDT_SETTING_POLICY, .place = OFFSET(pdt_settings, member, pdt_policy),                   \
  .message_place = OFFSET(Pdt__Settings, field, Pdt__Policy)
#define SEED(member, field)                                                                        \
  .kind = PDT_SETTING_SEED, .place = OFFSET(pdt_settings, member, uint64_t),                       \
  .message_place = OFFSET(Pdt__Settings, field, uint64_t)
#define SIDECARS .fallback_words = "sidecar's"

const pdt_setting pdt_setting_table[PDT_SETTINGS] = {
    {"streams", "K", "how many streams write, K",
     .fallback_words = "one a section, or all that the sidecar has",
     INTEGER(1, 1 << 16, streams, streams)},
    {"block_tokens", "TAU", "tokens of a provisional block, tau", SIDECARS,
     INTEGER(1, PDT_MAX_REQUEST_TOKENS, limits.block_tokens, block_tokens)},
    {"reveal_delay", "ROUNDS",
     "rounds until others see a note; from 2 on its exchange overlaps decoding", SIDECARS,
     INTEGER(1, 1 << 20, reveal_delay, reveal_delay)},
    {"window", "NOTES", "most notes a stream sees, the plan's included", SIDECARS,
     INTEGER(1, 1 << 20, window, window)},
    {"horizon", "TOKENS", "most tokens a stream may hold uncommitted", SIDECARS,
     INTEGER(1, PDT_MAX_REQUEST_TOKENS, limits.horizon, horizon)},
    {"gamma", "R", "readiness that the gate asks for, 0 to 1", SIDECARS, REAL(0, 1, gamma, gamma)},
    {"policy", "NAME",
     "when the gate fails: selective holds strong streams, stall makes them wait, global rolls "
     "them back, local commits them",
     .fallback = PDT_SELECTIVE, POLICY(limits.policy, policy)},
    {"max_attempts", "N", "attempts at a block before it is forced", .fallback = 4,
     INTEGER(1, 1 << 20, max_attempts, max_attempts)},
    {"max_tokens", "N", "most tokens of one stream", .fallback = 64,
     INTEGER(1, PDT_MAX_REQUEST_TOKENS, limits.max_tokens, max_tokens)},
    {"max_rounds", "N", "rounds after which a session ends, complete or not", .fallback = 100000,
     INTEGER(1, INT32_MAX, max_rounds, max_rounds)},
    {"temperature", "X", "0 takes the likeliest token", .fallback = 0,
     REAL(0, 1e6, sampling.temperature, temperature)},
    {"top_k", "N", "sample among the N likeliest; 0 is off", .fallback = 0,
     INTEGER(0, INT32_MAX, sampling.top_k, top_k)},
    {"top_p", "P", "sample among the likeliest that make up P; 1 is off", .fallback = 1,
     REAL(1e-9, 1, sampling.top_p, top_p)},
    {"seed", "N", "seed of the random numbers", .fallback = 0, SEED(seed, seed)},
    {"min_tokens", "N",
     "tokens that a stream has before an end-of-sequence token ends it; earlier it goes on behind "
     "one",
     .fallback = 0, INTEGER(0, PDT_MAX_REQUEST_TOKENS, min_tokens, min_tokens)},
    {"retry_temperature", "X", "temperature at which a block that was rolled back is written again",
     .fallback_words = "0: that of the first attempt",
     REAL(0, 1e6, retry_temperature, retry_temperature)},
    {"keep_order", "N",
     "1: the answer has the streams in the order of the request's sections; 0: in that of the plan "
     "slots that they cover",
     .fallback = 0, INTEGER(0, 1, keep_order, keep_order)},
    {"part_slots", "N",
     "plan slots that are one stream's part: a stream whose part is empty does not write; 0: all "
     "write",
     .fallback_words = "sidecar's, and 0 where streams are counted or named",
     INTEGER(0, 1 << 16, part_slots, part_slots)},
};

const pdt_setting *pdt_setting_find(const char *key) {
  for (int i = 0; i < PDT_SETTINGS; i++)
    if (strcmp(pdt_setting_table[i].key, key) == 0) return &pdt_setting_table[i];
  return NULL;
}

void pdt_setting_default(const pdt_setting *setting, char *text, size_t room) {
  if (setting->fallback_words)
    snprintf(text, room, "%s", setting->fallback_words);
  else if (setting->kind == PDT_SETTING_POLICY)
    snprintf(text, room, "%s", pdt_policy_name((pdt_policy)setting->fallback));
  else
    snprintf(text, room, "%.15g", setting->fallback);
}

static json_t *value_json(const pdt_setting *setting, const pdt_settings *s) {
  const void *value = (const char *)s + setting->place;
  switch (setting->kind) {
  case PDT_SETTING_INTEGER:
    return json_integer(*(const int32_t *)value);
  case PDT_SETTING_REAL:
    return json_real(*(const double *)value);
  case PDT_SETTING_POLICY:
    return json_string(pdt_policy_name(*(const pdt_policy *)value));
  default:
    return pdt_json_u64(*(const uint64_t *)value);
  }
}

json_t *pdt_settings_json(const pdt_settings *s) {
  json_t *object = json_object();
  for (int i = 0; i < PDT_SETTINGS && object; i++) {
    const pdt_setting *setting = &pdt_setting_table[i];
    json_t *value = value_json(setting, s);
    if (json_object_set_new(object, setting->key, value) == 0) continue;
    json_decref(object);
    object = NULL;
  }
  return object;
}

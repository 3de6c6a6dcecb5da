#include "protocol/decide.h"

#include <string.h>

bool pdt_is_ready(float readiness, double gamma) {
  return (double)readiness > gamma;
}

pdt_action pdt_decide_block(const pdt_vote *vote, bool gate, double gamma, pdt_policy policy,
                            int32_t max_attempts) {
  bool exhausted = vote->attempt + 1 >= max_attempts;
  if (gate) return PDT_ACTION_COMMIT;
  if (!pdt_is_ready(vote->readiness, gamma))
    return exhausted ? PDT_ACTION_FORCE : PDT_ACTION_ROLLBACK;
  if (policy == PDT_LOCAL) return PDT_ACTION_COMMIT;
  return policy == PDT_GLOBAL && !exhausted ? PDT_ACTION_ROLLBACK : PDT_ACTION_HOLD;
}

bool pdt_decide(const pdt_vote *votes, int32_t n, double gamma, pdt_policy policy,
                int32_t max_attempts, pdt_action *actions) {
  bool gate = true;
  for (int32_t i = 0; i < n; i++) gate = gate && pdt_is_ready(votes[i].readiness, gamma);
  for (int32_t i = 0; i < n; i++)
    actions[i] = pdt_decide_block(&votes[i], gate, gamma, policy, max_attempts);
  return gate;
}

const char *pdt_action_name(pdt_action action) {
  static const char *const names[] = {"none", "commit", "hold", "rollback", "force"};
  return names[action];
}

const char *pdt_fault_name(pdt_fault fault) {
  static const char *const names[] = {"none", "logits",   "readiness",
                                      "note", "coverage", "withdrawn"};
  return names[fault];
}

static const char *const policy_names[] = {"selective", "stall", "global", "local"};

const char *pdt_policy_name(pdt_policy policy) {
  return policy_names[policy];
}

bool pdt_policy_parse(const char *name, pdt_policy *out) {
  for (int i = 0; i < PDT_POLICIES; i++)
    if (strcmp(name, policy_names[i]) == 0) {
      *out = (pdt_policy)i;
      return true;
    }
  return false;
}

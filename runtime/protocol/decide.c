#include "protocol/decide.h"

#include <string.h>

bool pdt_decide(const pdt_vote *votes, int32_t n, double gamma, pdt_policy policy,
                int32_t max_attempts, pdt_action *actions) {
  bool gate = true;
  for (int32_t i = 0; i < n; i++) gate = gate && votes[i].readiness > gamma;
  for (int32_t i = 0; i < n; i++) {
    bool weak = !(votes[i].readiness > gamma);
    bool exhausted = votes[i].attempt + 1 >= max_attempts;
    if (gate)
      actions[i] = PDT_ACTION_COMMIT;
    else if (weak)
      actions[i] = exhausted ? PDT_ACTION_FORCE : PDT_ACTION_ROLLBACK;
    else
      actions[i] = policy == PDT_GLOBAL && !exhausted ? PDT_ACTION_ROLLBACK : PDT_ACTION_HOLD;
  }
  return gate;
}

const char *pdt_action_name(pdt_action action) {
  static const char *const names[] = {"none", "commit", "hold", "rollback", "force"};
  return names[action];
}

static const char *const policy_names[] = {"selective", "stall", "global"};

const char *pdt_policy_name(pdt_policy policy) {
  return policy_names[policy];
}

bool pdt_policy_parse(const char *name, pdt_policy *out) {
  for (int i = 0; i < 3; i++)
    if (strcmp(name, policy_names[i]) == 0) {
      *out = (pdt_policy)i;
      return true;
    }
  return false;
}

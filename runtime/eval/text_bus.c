#include "eval/internal.h"
int pdt_eval_run_text_bus(pdt_eval_trial *t, pdt_error *err) {
  (void)t;
  return pdt_fail(err, PDT_ERROR_USAGE, "not there yet");
}

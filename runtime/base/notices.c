#include "base/notices.h"

#include <stdarg.h>
#include <string.h>

#include "base/text_safe.h"

void pdt_notice(pdt_notices *notices, pdt_notice_kind kind, const char *format, ...) {
  if (!notices) return;
  struct pdt_notice said = {.kind = kind};
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(said.text, sizeof said.text, format, arguments);
  va_end(arguments);
  for (int32_t i = 0; i < notices->n; i++)
    if (notices->kept[i].kind == kind && strcmp(notices->kept[i].text, said.text) == 0) return;
  if (notices->n < PDT_MAX_NOTICES)
    notices->kept[notices->n++] = said;
  else
    notices->n_more++;
}

void pdt_notices_print(const pdt_notices *notices, FILE *out, const char *name, bool details) {
  for (int32_t i = 0; i < notices->n; i++) {
    const struct pdt_notice *said = &notices->kept[i];
    bool warning = said->kind == PDT_NOTICE_WARNING;
    if (warning || details)
      pdt_say(out, "%s: %s: %s", name, warning ? "warning" : "note", said->text);
  }
  if (notices->n_more > 0)
    fprintf(out, "%s: warning: %d more were left out\n", name, notices->n_more);
}

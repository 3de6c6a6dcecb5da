#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

int pdt_fail(pdt_error *err, pdt_error_code code, const char *format, ...) {
  if (!err) return -1;
  err->code = code;
  va_list args;
  va_start(args, format);
  vsnprintf(err->message, sizeof err->message, format, args);
  va_end(args);
  return -1;
}

int pdt_fail_in(pdt_error *err, const char *format, ...) {
  if (!err) return -1;
  char text[sizeof err->message], prefix[640];
  va_list args;
  va_start(args, format);
  vsnprintf(prefix, sizeof prefix, format, args);
  va_end(args);
  memcpy(text, err->message, sizeof text);
  int at = snprintf(err->message, sizeof err->message, "%s: ", prefix);
  snprintf(err->message + at, sizeof err->message - (size_t)at, "%.*s",
           (int)sizeof err->message - at - 1, text);
  return -1;
}

int pdt_fail_hint(pdt_error *err, const char *format, ...) {
  if (!err) return -1;
  char hint[512];
  va_list args;
  va_start(args, format);
  vsnprintf(hint, sizeof hint, format, args);
  va_end(args);
  size_t at = strlen(err->message);
  snprintf(err->message + at, sizeof err->message - at, " (hint: %s)", hint);
  return -1;
}

int pdt_exit_status(pdt_error_code code) {
  if (code == PDT_ERROR_NONE) return 0;
  if (code == PDT_ERROR_STOPPED) return EX_TEMPFAIL;
  return code == PDT_ERROR_USAGE ? 2 : 1;
}

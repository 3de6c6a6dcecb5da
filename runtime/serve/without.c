/* In builds that found no libmicrohttpd, in place of the files that need it. */
#include <stdio.h>

#include "serve/serve.h"

void pdt_serve_library(char *text, size_t bytes) {
  snprintf(text, bytes, "not built in");
}

int pdt_serve_run(const pdt_comm *world, const char *name, const pdt_serve_options *given,
                  pdt_error *err) {
  (void)world;
  (void)name;
  (void)given;
  return pdt_fail(
      err, PDT_ERROR_USAGE,
      "it needs libmicrohttpd, without which this program was built (hint: launch/setup "
      "--for demo installs it, then launch/build)");
}

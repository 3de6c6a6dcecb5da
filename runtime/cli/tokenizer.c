#include "cli/tokenizer.h"

#include <stdlib.h>

#include "base/path.h"

int pdt_cli_tokenizer_if_any(const char *directory, pdt_tokenizer **out, pdt_error *err) {
  char *path;
  *out = NULL;
  if (pdt_path_join(&path, directory, "tokenizer.json", err)) return -1;
  int status = pdt_path_is_there(path) ? pdt_tokenizer_load_folder(out, directory, NULL, err) : 0;
  free(path);
  return status;
}

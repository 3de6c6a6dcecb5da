#include "cli/tokenizer.h"

#include <stdlib.h>
#include <unistd.h>

#include "atlas/vocabulary.h"
#include "base/file.h"
#include "base/path.h"

static const pdt_bytes max_tokenizer_bytes = 512 << 20;

int pdt_cli_tokenizer(const char *directory, pdt_tokenizer **out, uint64_t *fingerprint,
                      pdt_error *err) {
  char *path, *text = NULL;
  pdt_bytes bytes = 0;
  if (pdt_path_join(&path, directory, "tokenizer.json", err)) return -1;
  int rc = pdt_file_read(&text, &bytes, path, max_tokenizer_bytes, err);
  if (!rc) rc = pdt_tokenizer_parse(out, text, (size_t)bytes, path, err);
  if (!rc) *fingerprint = pdt_tokenizer_fingerprint(text, (size_t)bytes);
  free(text);
  free(path);
  return rc;
}

int pdt_cli_tokenizer_if_any(const char *directory, pdt_tokenizer **out, pdt_error *err) {
  char *path;
  *out = NULL;
  if (pdt_path_join(&path, directory, "tokenizer.json", err)) return -1;
  int status = access(path, F_OK) == 0 ? pdt_tokenizer_load(out, path, err) : 0;
  free(path);
  return status;
}

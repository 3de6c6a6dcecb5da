#include "run/fingerprints.h"

#include <inttypes.h>

#include "store/checkpoint.h"

int pdt_fingerprint_model(const char *path, uint64_t *out, pdt_error *err) {
  pdt_checkpoint *checkpoint;
  if (pdt_checkpoint_open(&checkpoint, path, NULL, err)) return -1;
  int status = pdt_checkpoint_fingerprint(checkpoint, PDT_FINGERPRINT_QUICK, out, err);
  pdt_checkpoint_close(checkpoint);
  return status;
}

int pdt_fingerprint_sidecar(const char *path, uint64_t *out, pdt_error *err) {
  pdt_safetensors *file;
  if (pdt_safetensors_open(&file, path, err)) return -1;
  int status = pdt_safetensors_fingerprint(file, PDT_FINGERPRINT_QUICK, out, err);
  pdt_safetensors_close(file);
  return status;
}

int pdt_fingerprint_check(const char *journal, const char *what, uint64_t recorded,
                          const char *path, uint64_t found, pdt_error *err) {
  if (recorded == found) return 0;
  return pdt_fail(err, PDT_ERROR_INPUT,
                  "%s: journal: expected the %s that it was written with, of fingerprint "
                  "%016" PRIx64 ", found %s, of %016" PRIx64,
                  journal, what, recorded, path, found);
}

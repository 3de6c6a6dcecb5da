/* Any text as a model's config.json, as an index of shards, or as a sidecar's config: what is
 * accepted keeps its promises. The first byte chooses. */
#include <fcntl.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/json.h"
#include "model/config.h"
#include "model/tensors.h"
#include "sidecar/config.h"
#include "store/checkpoint.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_model(const char *text, size_t length) {
  json_t *config;
  pdt_error err = {0};
  pdt_model_config c;
  bool is_json = !pdt_json_parse(&config, text, length, "fuzz", &err);
  json_decref(config);
  if (pdt_json_parse_python(&config, text, length, "fuzz", &err)) {
    if (is_json || !*err.message) abort(); /* what everybody reads, Python reads */
    return;
  }
  if (!pdt_model_config_parse(&c, config, config, "fuzz", NULL, &err)) {
    double f[PDT_MAX_HEAD_DIM / 2];
    if (c.head_dim < 2 || c.head_dim > PDT_MAX_HEAD_DIM || c.head_dim % 2 || c.layers < 1 ||
        c.kv_heads < 1 || c.heads % c.kv_heads || c.n_eos > PDT_MAX_EOS || c.bos >= c.vocab_size)
      abort();
    for (int32_t i = 0; i < c.n_eos; i++)
      if (c.eos[i] < 0 || c.eos[i] >= c.vocab_size || (i > 0 && c.eos[i] <= c.eos[i - 1])) abort();
    bool slides = false;
    for (pdt_layer l = 0; l < c.layers; l++) {
      int32_t window = pdt_model_window(&c, l);
      if (window != 0 && window != c.window) abort();
      slides = slides || window > 0;
    }
    if (c.window < 0 || slides != (c.window > 0)) abort();
    if (!(c.rope.scale > 0) || !isfinite(c.rope.scale)) abort();
    pdt_rope_frequencies(&c.rope, c.head_dim, f);
    for (int32_t i = 0; i < c.head_dim / 2; i++)
      if (!isfinite(f[i]) || f[i] < 0) abort();
    pdt_wanted_tensor t;
    pdt_model_tensor_at(&c, pdt_model_tensor_count(&c) - 1, &t);
    if (strcmp(t.name, PDT_TENSOR_HEAD) != 0) abort();
  } else if (err.code != PDT_ERROR_INPUT || !*err.message) {
    abort();
  }
  json_decref(config);
}

static void fuzz_sidecar(const char *text) {
  pdt_sidecar_config c, back;
  pdt_error err = {0};
  if (pdt_sidecar_config_parse(&c, text, "fuzz", NULL, &err)) return;
  for (int32_t i = 0; i < pdt_sidecar_tensor_count(&c); i++) {
    pdt_wanted_tensor t;
    pdt_sidecar_tensor_at(&c, i, &t);
    for (int32_t d = 0; d < t.n_dims; d++)
      if (t.shape[d] < 1) abort();
  }
  char *again = pdt_sidecar_config_text(&c); /* what was read can be written and read again */
  if (!again || pdt_sidecar_config_parse(&back, again, "fuzz", NULL, &err)) abort();
  if (back.n_instrumented != c.n_instrumented || back.defaults.gamma != c.defaults.gamma) abort();
  if (c.trained) { /* sums of sound ones are sound */
    json_t *sum = json_object();
    if (!json_equal(c.trained, back.trained) || pdt_trained_add_stage(sum, c.trained, "1", &err) ||
        pdt_trained_add(sum, back.trained, &err) || pdt_trained_check(sum, "fuzz", &err))
      abort();
    json_decref(sum);
  }
  pdt_sidecar_config_free(&back);
  pdt_sidecar_config_free(&c);
  free(again);
}

/* The index goes through a file, for that is how it is read. */
static void fuzz_index(const char *text, size_t length) {
  char folder[64], path[128];
  snprintf(folder, sizeof folder, "/tmp/pdt-fuzz-%ld", (long)getpid());
  snprintf(path, sizeof path, "%s/model.safetensors.index.json", folder);
  mkdir(folder, 0700);
  int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  if (fd < 0 || write(fd, text, length) != (ssize_t)length) abort();
  close(fd);
  pdt_checkpoint *c;
  pdt_error err = {0};
  if (!pdt_checkpoint_open(&c, folder, NULL, &err)) {
    if (c->n_files > 0) abort(); /* there is no shard to be found */
    pdt_checkpoint_close(c);
  } else if (!*err.message) {
    abort();
  }
  unlink(path);
  rmdir(folder);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 1) return 0;
  char *text = malloc(size);
  if (!text) return 0;
  memcpy(text, data + 1, size - 1);
  text[size - 1] = '\0';
  switch (data[0] % 8) {
  case 0:
    fuzz_index(text, size - 1);
    break;
  case 1:
  case 2:
  case 3:
    fuzz_sidecar(text);
    break;
  default:
    fuzz_model(text, size - 1);
  }
  free(text);
  return 0;
}

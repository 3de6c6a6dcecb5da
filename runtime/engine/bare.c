#include "engine/bare.h"

#include "model/tensors.h"

static int load(pdt_bare_model *m, pdt_machine *machine, pdt_checkpoint **checkpoint,
                const char *path, pdt_dtype quantize, pdt_notices *notices, pdt_error *err) {
  const pdt_trunk_load how = {machine->group.rank, machine->group.size, quantize};
  return pdt_checkpoint_open(checkpoint, path, notices, err) ||
         pdt_model_tensors_check(&m->config, *checkpoint, notices, err) ||
         pdt_checkpoint_fingerprint(*checkpoint, PDT_FINGERPRINT_QUICK, &m->fingerprint, err) ||
         pdt_trunk_weights_load(&m->weights, &machine->device, &m->config, *checkpoint, &how,
                                err) ||
         machine->device.ops->sync(&machine->device, err) ||
         pdt_checkpoint_unchanged(*checkpoint, err);
}

int pdt_bare_model_load(pdt_bare_model *m, pdt_machine *machine, const char *path,
                        int32_t vocabulary, pdt_dtype quantize, pdt_notices *notices,
                        pdt_error *err) {
  pdt_checkpoint *checkpoint = NULL;
  *m = (pdt_bare_model){0};
  if (pdt_model_config_load(&m->config, path, notices, err)) return -1;
  if (vocabulary > 0 && m->config.vocab_size != vocabulary)
    return pdt_fail(
        err, PDT_ERROR_INPUT,
        "%s: vocab_size: expected the model's, %d, found %d (hint: models of one family)", path,
        vocabulary, m->config.vocab_size);
  int status = load(m, machine, &checkpoint, path, quantize, notices, err);
  pdt_checkpoint_close(checkpoint);
  return status ? -1 : 0;
}

void pdt_bare_model_free(pdt_bare_model *m) {
  pdt_trunk_weights_free(&m->weights);
  *m = (pdt_bare_model){0};
}

pdt_kv_shape pdt_bare_kv_shape(const pdt_bare_model *m) {
  const pdt_range *heads = &m->weights.shard.kv_heads;
  return (pdt_kv_shape){m->config.layers, heads->end - heads->begin, m->config.head_dim};
}

#include "engine/loaded.h"

#include "base/clock.h"
#include "model/tensors.h"

int pdt_loaded_unchanged(const pdt_loaded *l, pdt_error *err) {
  return pdt_checkpoint_unchanged(l->checkpoint, err) ||
                 pdt_safetensors_unchanged(l->sidecar_file, err)
             ? -1
             : 0;
}

/* Fingerprints of what was loaded: taken from the same open files, and believed only when none of
 * them was written to since they were opened; config.json, which is read anew, must be what it was.
 */
static int fingerprint(pdt_loaded *l, const char *model, pdt_error *err) {
  uint64_t now;
  if (pdt_checkpoint_fingerprint(l->checkpoint, PDT_FINGERPRINT_QUICK, &l->fingerprints.model,
                                 err) ||
      pdt_safetensors_fingerprint(l->sidecar_file, PDT_FINGERPRINT_QUICK, &l->fingerprints.sidecar,
                                  err) ||
      pdt_config_hash(model, &now, err))
    return -1;
  if (now != l->fingerprints.config)
    return pdt_fail(err, PDT_ERROR_IO, "%s: config.json changed while the model was being read",
                    model);
  return pdt_loaded_unchanged(l, err);
}

/* This rank's share of the trunk, onto its device. */
static int load_weights(pdt_loaded *l, pdt_machine *m, pdt_dtype quantize, pdt_error *err) {
  const pdt_trunk_load how = {m->group.rank, m->group.size, quantize};
  double start = pdt_seconds();
  if (pdt_trunk_weights_load(&l->weights, &m->device, &l->model, l->checkpoint, &how, err) ||
      m->device.ops->sync(&m->device, err))
    return -1;
  l->weights_seconds = pdt_seconds() - start;
  return 0;
}

static int load(pdt_loaded *l, pdt_machine *m, const pdt_loaded_files *files, pdt_notices *notices,
                pdt_error *err) {
  const char *model = files->model;
  l->drafts = files->draft != NULL;
  if (pdt_config_hash(model, &l->fingerprints.config, err) ||
      pdt_model_config_load(&l->model, model, notices, err) ||
      pdt_checkpoint_open(&l->checkpoint, model, notices, err) ||
      pdt_model_tensors_check(&l->model, l->checkpoint, notices, err) ||
      pdt_safetensors_open(&l->sidecar_file, files->sidecar, err) ||
      pdt_sidecar_load(&l->sidecar, &m->device, l->sidecar_file, &l->model, m->place.rank,
                       m->place.ranks, err) ||
      load_weights(l, m, files->quantize, err) ||
      (l->drafts && pdt_bare_model_load(&l->draft, m, files->draft, l->model.vocab_size,
                                        files->quantize, notices, err)))
    return -1;
  return fingerprint(l, model, err);
}

/* All ranks quantize, or none does. Collective over the world. */
static int compare_types(const pdt_comm *world, pdt_dtype quantize, pdt_error *err) {
  int64_t ends[2] = {quantize, -(int64_t)quantize};
  pdt_comm_all_reduce_i64(world, ends, 2, PDT_COMM_MIN);
  if (ends[0] != -ends[1])
    pdt_fail(err, PDT_ERROR_USAGE, "--quantize: expected the same on every rank");
  return pdt_comm_agree(world, err);
}

/* Every rank opened the files by itself, perhaps on another machine or a moment later: they must
 * have been the same. Collective over the world. */
static int compare_files(const pdt_loaded *l, const pdt_comm *world, const pdt_loaded_files *given,
                         pdt_error *err) {
  const struct {
    uint64_t value;
    const char *path;
  } files[] = {{l->fingerprints.model, given->model},
               {l->fingerprints.sidecar, given->sidecar},
               {l->draft.fingerprint, given->draft}};
  for (int i = 0; i < (l->drafts ? 3 : 2); i++) {
    int64_t half = (int64_t)(files[i].value >> 1), ends[2] = {half, -half};
    pdt_comm_all_reduce_i64(world, ends, 2, PDT_COMM_MIN);
    if (ends[0] != -ends[1] && err->code == PDT_ERROR_NONE)
      pdt_fail(err, PDT_ERROR_INPUT,
               "%s: is not the same on every rank (hint: machines with files of their own, or one "
               "that was replaced just now)",
               files[i].path);
  }
  return pdt_comm_agree(world, err);
}

int pdt_loaded_new(pdt_loaded *l, pdt_machine *machine, const pdt_loaded_files *files,
                   pdt_notices *notices, pdt_error *err) {
  *l = (pdt_loaded){0};
  if (compare_types(machine->world, files->quantize, err)) return -1;
  if (load(l, machine, files, notices, err)) pdt_machine_fail_in(machine, err);
  if (pdt_comm_agree(machine->world, err)) return -1;
  return compare_files(l, machine->world, files, err);
}

void pdt_loaded_free(pdt_loaded *l) {
  pdt_trunk_weights_free(&l->weights);
  pdt_bare_model_free(&l->draft);
  pdt_sidecar_free(&l->sidecar);
  pdt_safetensors_close(l->sidecar_file);
  pdt_checkpoint_close(l->checkpoint);
  *l = (pdt_loaded){0};
}

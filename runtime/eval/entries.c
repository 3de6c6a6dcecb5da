#include "eval/entries.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/file_state.h"

static int check_header(const pdt_data_header *h, const char *path,
                        const pdt_sidecar_config *sidecar, uint64_t tokenizer, pdt_atlas_kind *kind,
                        pdt_error *err) {
  char expected[17];
  snprintf(expected, sizeof expected, "%016" PRIx64, tokenizer);
  if (!h->world || !pdt_atlas_kind_named(h->world, kind))
    return pdt_fail(err, PDT_ERROR_INPUT,
                    "%s: world: expected '%s' or '%s', whose sentences can be read back, found "
                    "'%.40s' (hint: pdt data atlas --split test)",
                    path, pdt_atlas_kind_name(PDT_ATLAS_SYLLABLES),
                    pdt_atlas_kind_name(PDT_ATLAS_WORDS), h->world ? h->world : "none");
  if (pdt_data_header_fits(h, path, sidecar, err)) return -1;
  if (h->tokenizer && strcmp(h->tokenizer, expected) != 0)
    return pdt_fail(err, PDT_ERROR_INPUT,
                    "%s: its blocks were cut by tokenizer %s; the model's is %s (hint: pdt data "
                    "atlas --model)",
                    path, h->tokenizer, expected);
  return 0;
}

static int add(pdt_eval_entries *out, pdt_data_entry *e, pdt_error *err) {
  pdt_rollout_owners owners;
  if (pdt_rollout_owners_of(&owners, e, err) ||
      PDT_GROW(&out->entries, (size_t)out->n, &out->room, err) ||
      PDT_GROW(&out->owners, (size_t)out->n, &out->owners_room, err))
    return -1;
  out->owners[out->n] = owners;
  out->entries[out->n++] = *e;
  *e = (pdt_data_entry){0};
  return 0;
}

static int read_all(pdt_eval_entries *out, pdt_data_reader *reader, int64_t most, pdt_error *err) {
  while (out->n < most) {
    pdt_data_entry e;
    int more = pdt_data_next(reader, &e, err);
    if (more < 0) return -1;
    if (more == 0) break;
    int rc = add(out, &e, err);
    pdt_data_entry_free(&e);
    if (rc) return pdt_fail_in(err, "%s: line %lld", reader->path, (long long)reader->lines.number);
  }
  if (out->n > 0) return 0;
  return pdt_fail(err, PDT_ERROR_INPUT, "%s: expected entries, found none", reader->path);
}

int pdt_eval_entries_read(pdt_eval_entries *out, const char *path, int64_t most,
                          const pdt_sidecar_config *sidecar, uint64_t tokenizer, pdt_error *err) {
  pdt_data_reader reader = {0};
  pdt_file_state state; /* the file is read twice, and must not change in between */
  *out = (pdt_eval_entries){0};
  int rc = pdt_file_state_of(&state, path, err) || pdt_file_hash(&out->fingerprint, path, err) ||
           pdt_data_open(&reader, path, err) ||
           check_header(&reader.header, path, sidecar, tokenizer, &out->kind, err) ||
           read_all(out, &reader, most, err) || pdt_file_unchanged(&state, path, err);
  if (!rc) {
    out->header = reader.header;
    reader.header = (pdt_data_header){0};
  }
  pdt_data_close(&reader);
  return rc ? -1 : 0;
}

void pdt_eval_entries_free(pdt_eval_entries *e) {
  for (int64_t i = 0; i < e->n; i++) pdt_data_entry_free(&e->entries[i]);
  free(e->entries);
  free(e->owners);
  pdt_data_header_free(&e->header);
  *e = (pdt_eval_entries){0};
}

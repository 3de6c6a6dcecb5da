#include "text/postprocessor.h"

#include <stdlib.h>
#include <string.h>

#include "text/component.h"

/* The ids of one special token of a template. */
static int add_special(pdt_postprocessor *p, const json_t *piece, const json_t *specials,
                       const char *where, pdt_error *err) {
  const char *name;
  const json_t *special, *ids;
  if (pdt_json_string(piece, where, "id", &name, err) ||
      pdt_json_object(specials, where, name, &special, err) ||
      pdt_json_array(special, where, "ids", &ids, err))
    return -1;
  for (size_t i = 0; i < json_array_size(ids); i++) {
    int64_t id;
    if (pdt_json_element_integer(ids, where, i, 0, PDT_MAX_TOKEN_ID, &id, err) ||
        pdt_ids_add(&p->template, (pdt_token)id, err))
      return -1;
  }
  return 0;
}

static int load_template(pdt_postprocessor *p, const json_t *object, const char *where,
                         pdt_error *err) {
  const json_t *single, *specials;
  if (pdt_json_array(object, where, "single", &single, err) ||
      pdt_json_object(object, where, "special_tokens", &specials, err))
    return -1;
  for (size_t i = 0; i < json_array_size(single); i++) {
    const json_t *element = json_array_get(single, i);
    const json_t *special = pdt_json_get(element, "SpecialToken");
    const json_t *sequence = pdt_json_get(element, "Sequence");
    const char *id = json_string_value(pdt_json_get(sequence, "id"));
    int rc;
    if (special)
      rc = add_special(p, special, specials, where, err);
    else if (id && strcmp(id, "A") == 0)
      rc = pdt_ids_add(&p->template, -1, err);
    else
      rc = pdt_fail(err, PDT_ERROR_INPUT,
                    "%s: 'single': element %zu: expected a SpecialToken or the Sequence A", where,
                    i);
    if (rc) return -1;
  }
  return 0;
}

/* ["<s>", 0]: the id. */
static int named_id(const json_t *object, const char *where, const char *key, pdt_token *out,
                    pdt_error *err) {
  const json_t *pair;
  int64_t id = 0;
  if (pdt_json_array(object, where, key, &pair, err) ||
      pdt_json_element_integer(pair, where, 1, 0, PDT_MAX_TOKEN_ID, &id, err))
    return -1;
  *out = (pdt_token)id;
  return 0;
}

static int load_frame(pdt_postprocessor *p, const json_t *object, const char *where,
                      pdt_error *err) {
  pdt_token first, last;
  if (named_id(object, where, "cls", &first, err) || named_id(object, where, "sep", &last, err) ||
      pdt_ids_add(&p->template, first, err) || pdt_ids_add(&p->template, -1, err))
    return -1;
  return pdt_ids_add(&p->template, last, err);
}

static int load_step(void *context, const json_t *object, const char *type, const char *where,
                     pdt_error *err) {
  pdt_postprocessor *p = context;
  bool template = strcmp(type, "TemplateProcessing") == 0;
  if (strcmp(type, "ByteLevel") == 0) return 0; /* changes offsets only */
  if (!template && strcmp(type, "RobertaProcessing") != 0 && strcmp(type, "BertProcessing") != 0)
    return pdt_component_refuse(where, type,
                                "Sequence, TemplateProcessing, RobertaProcessing, BertProcessing, "
                                "ByteLevel",
                                err);
  if (p->has_template)
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: more than one that adds tokens", where);
  p->has_template = true;
  return template ? load_template(p, object, where, err) : load_frame(p, object, where, err);
}

int pdt_postprocessor_load(pdt_postprocessor *p, const json_t *value, const char *where,
                           pdt_error *err) {
  return pdt_components(value, "processors", where, load_step, p, err);
}

void pdt_postprocessor_free(pdt_postprocessor *p) {
  free(p->template.items);
  *p = (pdt_postprocessor){0};
}

int pdt_postprocessor_apply(const pdt_postprocessor *p, const pdt_ids *ids, bool add_special,
                            pdt_ids *out, pdt_error *err) {
  static const pdt_token text_alone = -1;
  const pdt_token *template = p->has_template ? p->template.items : &text_alone;
  size_t n = p->has_template ? p->template.n : 1;
  for (size_t i = 0; i < n; i++) {
    if (template[i] >= 0 && add_special && pdt_ids_add(out, template[i], err)) return -1;
    for (size_t k = 0; template[i] < 0 && k < ids->n; k++)
      if (pdt_ids_add(out, ids->items[k], err)) return -1;
  }
  return 0;
}

#include "request/parse.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "request/plan_hash.h"
#include "request/settings.h"
#include "text/context.h"

/* What the readers of one request share. */
typedef struct reader {
  pdt_request *r;
  const json_t *json, *settings;
  const char *where;
  const pdt_request_context *context;
  pdt_error *err;
} reader;

/* Streams the request speaks of by its sections or prefixes; 0 when it does not. */
static int32_t spoken_streams(const reader *in) {
  const json_t *lists = pdt_json_get(in->json, "sections");
  if (!lists) lists = pdt_json_get(in->json, "prefix_ids");
  return json_is_array(lists) ? (int32_t)json_array_size(lists) : 0;
}

/* A list of token ids. */
static int read_ids(const reader *in, const json_t *list, const char *name, pdt_token **ids,
                    int32_t *n) {
  char where[400];
  snprintf(where, sizeof where, "%s: %s", in->where, name);
  if (!json_is_array(list))
    return pdt_fail(in->err, PDT_ERROR_INPUT, "%s: expected a list of token ids, found %s", where,
                    pdt_json_type_name(list));
  size_t count = json_array_size(list);
  if (count > PDT_MAX_REQUEST_TOKENS)
    return pdt_fail(in->err, PDT_ERROR_INPUT, "%s: expected at most %d tokens, found %zu", where,
                    PDT_MAX_REQUEST_TOKENS, count);
  if (PDT_NEW(ids, count, name, in->err)) return -1;
  *n = (int32_t)count;
  for (size_t i = 0; i < count; i++) {
    int64_t id;
    if (pdt_json_element_integer(list, where, i, 0, in->context->model->vocab_size - 1, &id,
                                 in->err))
      return -1;
    (*ids)[i] = (pdt_token)id;
  }
  return 0;
}

/* The ids of a text: of one that stands alone, with special tokens, or of one behind `after`. */
static int encode_text(const reader *in, const json_t *text, const char *name,
                       const pdt_text_context *after, pdt_token **ids, int32_t *n) {
  if (!json_is_string(text))
    return pdt_fail(in->err, PDT_ERROR_INPUT, "%s: %s: expected a text, found %s", in->where, name,
                    pdt_json_type_name(text));
  if (!in->context->tokenizer)
    return pdt_fail(in->err, PDT_ERROR_INPUT,
                    "%s: %s: a text needs the model's tokenizer.json (hint: or give token ids)",
                    in->where, name);
  const char *words = json_string_value(text);
  size_t bytes = json_string_length(text);
  if (after ? pdt_text_context_encode(after, words, bytes, ids, n, in->err)
            : pdt_tokenizer_encode(in->context->tokenizer, words, bytes, true, ids, n, in->err))
    return pdt_fail_in(in->err, "%s: %s", in->where, name);
  for (int32_t i = 0; i < *n; i++)
    if ((*ids)[i] >= in->context->model->vocab_size)
      return pdt_fail(in->err, PDT_ERROR_INPUT,
                      "%s: %s: the tokenizer gives token %d, but the model's vocabulary has %d "
                      "(hint: tokenizer.json is another model's)",
                      in->where, name, (*ids)[i], in->context->model->vocab_size);
  return 0;
}

/* One of two keys, not both. Sets the one that is there, or NULL. */
static int one_of(const reader *in, const char *text_key, const char *ids_key, const json_t **text,
                  const json_t **ids) {
  *text = pdt_json_get(in->json, text_key);
  *ids = pdt_json_get(in->json, ids_key);
  if (*text && *ids)
    return pdt_fail(in->err, PDT_ERROR_INPUT, "%s: expected %s or %s, found both", in->where,
                    text_key, ids_key);
  return 0;
}

static int read_prompt(const reader *in) {
  pdt_request *r = in->r;
  const json_t *text, *ids;
  if (one_of(in, "prompt", "prompt_ids", &text, &ids)) return -1;
  if (!text && !ids)
    return pdt_fail(in->err, PDT_ERROR_INPUT, "%s: expected a prompt or prompt_ids, found neither",
                    in->where);
  if (text ? encode_text(in, text, "prompt", NULL, &r->prompt, &r->n_prompt)
           : read_ids(in, ids, "prompt_ids", &r->prompt, &r->n_prompt))
    return -1;
  if (r->n_prompt == 0)
    return pdt_fail(in->err, PDT_ERROR_INPUT, "%s: %s: expected at least one token, found none",
                    in->where, text ? "prompt" : "prompt_ids");
  return 0;
}

/* What the sections are read behind: the prompt; NULL without a tokenizer. */
static int read_context(const reader *in, pdt_text_context **after) {
  const pdt_tokenizer *t = in->context->tokenizer;
  const json_t *text = pdt_json_get(in->json, "prompt");
  *after = NULL;
  if (!t) return 0;
  if (text ? pdt_text_context_new(after, t, json_string_value(text), json_string_length(text),
                                  in->err)
           : pdt_text_context_from_ids(after, t, in->r->prompt, in->r->n_prompt, in->err))
    return pdt_fail_in(in->err, "%s: prompt", in->where);
  return 0;
}

/* What every stream reads after the prompt: sections, as texts, or ids. */
static int read_prefix_list(const reader *in, const json_t *list, const char *name, bool texts) {
  pdt_request *r = in->r;
  pdt_text_context *after = NULL;
  int rc = texts ? read_context(in, &after) : 0;
  for (pdt_stream k = 0; k < r->settings.streams && !rc; k++) {
    const json_t *entry = json_array_get(list, (size_t)k);
    rc = texts ? encode_text(in, entry, name, after, &r->prefix[k], &r->n_prefix[k])
               : read_ids(in, entry, name, &r->prefix[k], &r->n_prefix[k]);
  }
  pdt_text_context_free(after);
  return rc;
}

static int read_prefixes(const reader *in) {
  pdt_request *r = in->r;
  const json_t *texts, *ids;
  if (one_of(in, "sections", "prefix_ids", &texts, &ids)) return -1;
  const char *name = texts ? "sections" : "prefix_ids";
  const json_t *list = texts ? texts : ids;
  int32_t K = r->settings.streams;
  if (PDT_NEW(&r->prefix, K, name, in->err) || PDT_NEW(&r->n_prefix, K, name, in->err)) return -1;
  if (!list) return 0;
  if (!json_is_array(list) || json_array_size(list) != (size_t)K)
    return pdt_fail(in->err, PDT_ERROR_INPUT,
                    "%s: %s: expected a list with one entry a stream, %d, found %s of %zu",
                    in->where, name, K, pdt_json_type_name(list), json_array_size(list));
  return read_prefix_list(in, list, name, texts);
}

/* One item {stream, text} of a plan in words. */
static int read_plan_item(const reader *in, const json_t *item, int32_t slot) {
  static const char *const keys[] = {"stream", "text"};
  char where[400];
  int64_t stream;
  const char *text;
  snprintf(where, sizeof where, "%s: plan[%d]", in->where, slot);
  if (pdt_json_expect_object(item, where, in->err) ||
      pdt_json_only_keys(item, where, keys, 2, in->err) ||
      pdt_json_integer(item, where, "stream", 0, in->r->settings.streams - 1, &stream, in->err) ||
      pdt_json_string(item, where, "text", &text, in->err))
    return -1;
  if (pdt_plan_hash(in->context->sidecar, (pdt_stream)stream, text, &in->r->plan_ids[slot],
                    in->err))
    return pdt_fail_in(in->err, "%s", where);
  return 0;
}

static int read_plan(const reader *in) {
  const json_t *items, *ids;
  int32_t S = in->context->sidecar->plan_slots;
  if (one_of(in, "plan", "plan_ids", &items, &ids)) return -1;
  const json_t *list = items ? items : ids;
  if (!list) return 0;
  const char *name = items ? "plan" : "plan_ids";
  size_t n = json_array_size(list);
  if (!json_is_array(list) || (items ? n > (size_t)S : n != (size_t)S))
    return pdt_fail(in->err, PDT_ERROR_INPUT,
                    "%s: %s: expected a list of %s%d slots, found %s of %zu", in->where, name,
                    items ? "at most " : "", S, pdt_json_type_name(list), n);
  if (PDT_NEW(&in->r->plan_ids, S, name, in->err)) return -1;
  char where[400];
  snprintf(where, sizeof where, "%s: %s", in->where, name);
  for (size_t i = 0; i < n; i++) {
    int64_t id = 0;
    if (items ? read_plan_item(in, json_array_get(items, i), (int32_t)i)
              : pdt_json_element_integer(ids, where, i, 0,
                                         in->context->sidecar->plan_vocab_size - 1, &id, in->err))
      return -1;
    if (ids) in->r->plan_ids[i] = (int32_t)id;
  }
  return 0;
}

static int check_positions(const reader *in) {
  int32_t most = in->context->model->max_positions, need = pdt_request_positions(in->r);
  if (need <= most) return 0;
  return pdt_fail(in->err, PDT_ERROR_INPUT,
                  "%s: prompt of %d tokens, prefix and max_tokens %d need %d positions; "
                  "max_position_embeddings is %d (hint: a shorter prompt, or fewer max_tokens)",
                  in->where, in->r->n_prompt, in->r->settings.limits.max_tokens, need, most);
}

int pdt_request_parse(pdt_request *r, const json_t *json, const char *where, uint64_t session,
                      const pdt_request_context *context, pdt_error *err) {
  static const char *const keys[] = {"prompt", "prompt_ids", "sections", "prefix_ids",
                                     "plan",   "plan_ids",   "session",  "settings"};
  char settings_where[400];
  *r = (pdt_request){0};
  reader in = {.r = r, .json = json, .where = where, .context = context, .err = err};
  snprintf(settings_where, sizeof settings_where, "%.380s: settings", where);
  int64_t number = (int64_t)session;
  if (pdt_json_expect_object(json, where, err) ||
      pdt_json_only_keys(json, where, keys, sizeof keys / sizeof *keys, err) ||
      pdt_json_object_or(json, where, "settings", &in.settings, err) ||
      pdt_json_integer_or(json, where, "session", 0, UINT32_MAX, &number, err) ||
      pdt_settings_read(&r->settings, in.settings, settings_where, spoken_streams(&in),
                        context->sidecar, err) ||
      read_prompt(&in) || read_prefixes(&in) || read_plan(&in) || check_positions(&in)) {
    pdt_request_free(r);
    return -1;
  }
  r->session = (uint64_t)number;
  return 0;
}

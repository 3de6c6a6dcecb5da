/* From entries to requests: what an arm asks the engine for. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "eval/internal.h"
#include "request/familiar.h"

enum { SECTION_TOKENS = 128, SEQUENCE_TOKENS = 700 };

static const pdt_eval_rules all_rules[PDT_EVAL_ARMS] = {
    [PDT_EVAL_SEQUENTIAL] = {"sequential", .plain = true, .one_stream = true, .no_plan = true,
                             .no_notes = true, .no_gate = true},
    [PDT_EVAL_ONE_STREAM] = {"one-stream", .one_stream = true, .no_plan = true, .no_notes = true,
                             .no_gate = true},
    [PDT_EVAL_BLIND] = {"blind", .no_plan = true, .no_notes = true, .no_gate = true},
    [PDT_EVAL_PLAN_ONLY] = {"plan-only", .no_notes = true, .no_gate = true},
    [PDT_EVAL_NOTES] = {"notes", .no_gate = true},
    [PDT_EVAL_SYSTEM] = {.name = "system"},
    [PDT_EVAL_NO_SNC] = {"no-snc", .no_snc = true},
    [PDT_EVAL_TEXT_BUS] = {"text-bus", .plain = true, .no_plan = true, .no_notes = true,
                           .no_gate = true},
    [PDT_EVAL_PARSER_GATE] = {"parser-gate", .parser_gate = true},
    [PDT_EVAL_AGREE_GATE] = {"agree-gate", .parser_gate = true, .agree_gate = true},
};

const pdt_eval_rules *pdt_eval_rules_of(pdt_eval_arm arm) {
  return &all_rules[arm];
}

const char *pdt_eval_arm_name(pdt_eval_arm arm) {
  return all_rules[arm].name;
}

bool pdt_eval_arm_parse(const char *name, pdt_eval_arm *out) {
  for (int i = 0; i < PDT_EVAL_ARMS; i++)
    if (strcmp(name, all_rules[i].name) == 0) {
      *out = (pdt_eval_arm)i;
      return true;
    }
  return false;
}

bool pdt_eval_arm_has_notes(pdt_eval_arm arm) {
  const pdt_eval_rules *r = &all_rules[arm];
  return !r->plain && !r->no_notes;
}

bool pdt_eval_arm_is_trained(pdt_eval_arm arm) {
  return pdt_eval_arm_has_notes(arm) && !all_rules[arm].no_snc;
}

/* The request's JSON; NULL without memory. */
static json_t *request_json(const pdt_eval_trial *t, const pdt_data_entry *e, int64_t session) {
  json_t *settings = json_deep_copy(t->setup->settings), *json = json_object();
  int bad = json_object_set_new(json, "prompt", json_string(e->prompt)) |
            json_object_set_new(json, "session", json_integer(session));
  if (!json_object_get(settings, "max_tokens")) /* until it is known how many there is room for */
    bad |= json_object_set_new(settings, "max_tokens", json_integer(1));
  if (t->rules->one_stream) {
    bad |= json_object_set_new(settings, "streams", json_integer(1));
  } else {
    json_t *sections = json_array();
    for (pdt_stream k = 0; k < e->n_sections; k++)
      bad |= json_array_append_new(sections, json_string(e->sections[k].prefix));
    bad |= json_object_set_new(json, "sections", sections);
  }
  bad |= json_object_set_new(json, "settings", settings);
  if (!bad) return json;
  json_decref(json);
  return NULL;
}

/* Limits that nobody asked for: enough for any entry, as far as the model's positions go. */
static void limit_tokens(const pdt_eval_trial *t, pdt_request *r) {
  if (json_object_get(t->setup->settings, "max_tokens")) return;
  int32_t most = pdt_engine_loaded(t->eval->engine)->model.max_positions;
  int32_t room = most - (pdt_request_positions(r) - r->settings.limits.max_tokens);
  int32_t wanted = t->rules->one_stream ? SEQUENCE_TOKENS : SECTION_TOKENS;
  r->settings.limits.max_tokens = wanted < room ? wanted : room;
}

static int make_request(const pdt_eval_trial *t, int32_t i, pdt_error *err) {
  const pdt_engine *engine = t->eval->engine;
  const pdt_request_context context = {&pdt_engine_loaded(engine)->model,
                                       &pdt_engine_loaded(engine)->sidecar.config,
                                       t->eval->tokenizer};
  const pdt_data_entry *e = &t->eval->data->entries[t->entries[i]];
  pdt_request *r = &t->requests[i];
  char where[128];
  snprintf(where, sizeof where, "entry '%.80s'", e->id);
  json_t *json = request_json(t, e, t->entries[i]);
  if (!json) return pdt_fail(err, PDT_ERROR_MEMORY, "%s: no memory", where);
  int rc = (t->eval->chat && pdt_request_chat_apply(t->eval->chat, json, where, err)) ||
           pdt_request_parse(r, json, where, (uint64_t)t->entries[i], &context, err);
  if (!rc && !t->rules->plain && t->eval->notices && t->eval->world->rank == 0)
    pdt_request_compare(r, json, where, &context, t->eval->told, t->eval->notices);
  json_decref(json);
  if (rc) return -1;
  limit_tokens(t, r);
  r->settings.seed += (uint64_t)t->seed << 32;    /* a text bus counts its rounds below that */
  if (t->rules->no_gate) r->settings.gamma = 0;   /* and every block is called ready */
  if (t->rules->no_notes) r->settings.window = 1; /* the plan's note alone */
  if (!t->rules->no_plan) return 0;
  return PDT_NEW(&r->plan_ids, pdt_engine_loaded(engine)->sidecar.config.plan_slots, "plan", err);
}

int pdt_eval_make_requests(pdt_eval_trial *t, pdt_error *err) {
  const pdt_eval_entries *data = t->eval->data;
  int32_t wanted = t->setup->streams;
  if (PDT_NEW(&t->entries, data->n, "entries", err) ||
      PDT_NEW(&t->requests, data->n, "requests", err) ||
      PDT_NEW(&t->sessions, data->n, "sessions", err))
    return -1;
  for (int64_t i = 0; i < data->n; i++) {
    if (wanted > 0 && data->entries[i].n_sections != wanted) continue;
    t->entries[t->n++] = (int32_t)i;
    if (make_request(t, t->n - 1, err)) return -1;
  }
  if (t->n > 0) return 0;
  return pdt_fail(err, PDT_ERROR_USAGE,
                  "no entry has %d sections (hint: pdt data atlas --min-sections %d "
                  "--max-sections %d)",
                  wanted, wanted, wanted);
}

void pdt_eval_free_requests(pdt_eval_trial *t) {
  for (int32_t i = 0; t->requests && i < t->n; i++) pdt_request_free(&t->requests[i]);
  for (int32_t i = 0; t->sessions && i < t->n; i++) pdt_eval_session_free(&t->sessions[i]);
  free(t->entries);
  free(t->requests);
  free(t->sessions);
}

#include "cli/decode_input.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "engine/familiar.h"

enum { MAX_REQUEST_BYTES = 256 << 20, MAX_REQUESTS_BYTES = 1 << 30 };

/* Puts what flags say over a request: settings one by one, sections, plan and session whole. */
static int override(json_t *request, const pdt_decode_options *o, json_t *plan, pdt_error *err) {
  json_t *settings = json_object_get(request, "settings");
  int bad = 0;
  if (!json_is_object(settings) && json_object_size(o->settings) > 0) {
    if (settings && !json_is_null(settings)) return 0; /* the parser tells what is wrong with it */
    settings = json_object();
    bad |= json_object_set_new(request, "settings", settings);
  }
  if (json_object_size(o->settings) > 0) bad |= json_object_update(settings, o->settings);
  if (o->sections) {
    json_object_del(request, "prefix_ids");
    bad |= json_object_set(request, "sections", o->sections);
  }
  if (plan) {
    json_object_del(request, "plan_ids");
    bad |= json_object_set(request, "plan", plan);
  }
  if (o->session >= 0) bad |= json_object_set_new(request, "session", json_integer(o->session));
  return bad ? pdt_fail(err, PDT_ERROR_MEMORY, "request: no memory") : 0;
}

/* Parses one request of rank 0 and adds it to the list. */
static int add_request(pdt_decode_input *in, json_t *json, const char *where,
                       const pdt_decode_options *o, json_t *plan, pdt_error *err) {
  const pdt_request_context context = {&in->model, &in->sidecar, in->tokenizer};
  pdt_request request;
  char with_flags[512];
  uint64_t session = json_array_size(in->resolved);
  bool flags = !o->prompt && json_object_size(o->settings) > 0;
  snprintf(with_flags, sizeof with_flags, "%.480s%s", where, flags ? " and flags" : "");
  if (pdt_json_expect_object(json, where, err) || override(json, o, plan, err) ||
      pdt_request_parse(&request, json, with_flags, session, &context, err))
    return -1;
  pdt_request_compare(&request, json, where, &context, &in->told, o->engine.notices);
  int bad = json_array_append_new(in->resolved, pdt_request_json(&request));
  pdt_request_free(&request);
  return bad ? pdt_fail(err, PDT_ERROR_MEMORY, "%s: no memory", where) : 0;
}

static int read_lines(pdt_decode_input *in, const pdt_decode_options *o, pdt_error *err) {
  char *text, where[512];
  pdt_bytes bytes;
  if (pdt_file_read(&text, &bytes, o->requests, MAX_REQUESTS_BYTES, err)) return -1;
  int status = 0, number = 1;
  for (pdt_bytes at = 0; at < bytes && !status; number++) {
    const char *line = text + at, *newline = memchr(line, '\n', (size_t)(bytes - at));
    size_t length = newline ? (size_t)(newline - line) : (size_t)(bytes - at);
    at += (pdt_bytes)length + 1;
    if (strspn(line, " \t\r") >= length) continue;
    json_t *json = NULL;
    snprintf(where, sizeof where, "%.400s: line %d", o->requests, number);
    status = pdt_json_parse(&json, line, length, where, err);
    if (!status) status = add_request(in, json, where, o, NULL, err);
    json_decref(json);
  }
  free(text);
  if (!status && json_array_size(in->resolved) == 0)
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: expected one request a line, found none",
                    o->requests);
  return status;
}

static int read_one(pdt_decode_input *in, const pdt_decode_options *o, pdt_error *err) {
  json_t *json = NULL, *plan = NULL;
  const char *where = o->prompt ? "command line" : o->request;
  if (o->plan && pdt_json_load(&plan, o->plan, MAX_REQUEST_BYTES, err)) return -1;
  int status = 0;
  if (o->prompt) {
    json = json_pack("{s:s}", "prompt", o->prompt);
    if (!json) status = pdt_fail(err, PDT_ERROR_USAGE, "--prompt: the text is not UTF-8");
  } else {
    status = pdt_json_load(&json, o->request, MAX_REQUEST_BYTES, err);
  }
  if (!status) status = add_request(in, json, where, o, plan, err);
  json_decref(json);
  json_decref(plan);
  return status;
}

/* The model's tokenizer where it has one; a model without serves requests in ids. */
static int load_tokenizer(pdt_decode_input *in, const char *model, pdt_error *err) {
  char *path;
  if (pdt_path_join(&path, model, "tokenizer.json", err)) return -1;
  int status = access(path, F_OK) == 0 ? pdt_tokenizer_load(&in->tokenizer, path, err) : 0;
  free(path);
  return status;
}

static int load_configs(pdt_decode_input *in, const pdt_decode_options *o, pdt_error *err) {
  pdt_safetensors *file;
  if (pdt_model_config_load(&in->model, o->engine.model, o->engine.notices, err) ||
      pdt_safetensors_open(&file, o->engine.sidecar, err))
    return -1;
  int status = pdt_sidecar_config_load(&in->sidecar, file, &in->model, err);
  pdt_safetensors_close(file);
  return status;
}

/* Rank 0's part: everything but the parsing of what it resolved. */
static int resolve(pdt_decode_input *in, const pdt_decode_options *o, pdt_error *err) {
  in->resolved = json_array();
  if (!in->resolved) return pdt_fail(err, PDT_ERROR_MEMORY, "requests: no memory");
  if (load_tokenizer(in, o->engine.model, err)) return -1;
  return o->requests ? read_lines(in, o, err) : read_one(in, o, err);
}

/* Rank 0's list, as text, on every rank; *text is the caller's. */
static int share_text(const pdt_comm *world, const json_t *list, char **text, int64_t *length,
                      pdt_error *err) {
  *text = world->rank == 0 ? json_dumps(list, JSON_COMPACT) : NULL;
  *length = *text ? (int64_t)strlen(*text) : 0;
  pdt_comm_broadcast(world, length, sizeof *length, 0);
  if (world->rank == 0 && !*text) pdt_fail(err, PDT_ERROR_MEMORY, "requests: no memory");
  if (world->rank != 0) PDT_NEW(text, *length + 1, "requests", err);
  if (pdt_comm_agree(world, err)) return -1;
  pdt_comm_broadcast(world, *text, *length, 0);
  return 0;
}

/* Every rank parses the resolved list, rank 0 too: what it means is decided in one place. */
static int parse_resolved(pdt_decode_input *in, const char *text, int64_t length, pdt_error *err) {
  const pdt_request_context context = {&in->model, &in->sidecar, NULL};
  json_t *list = NULL;
  int status = pdt_json_parse(&list, text, (size_t)length, "resolved requests", err);
  size_t n = json_array_size(list);
  if (!status) status = PDT_NEW(&in->requests, n, "requests", err);
  for (size_t i = 0; i < n && !status; i++) {
    char where[64];
    snprintf(where, sizeof where, "request %zu", i);
    status = pdt_request_parse(&in->requests[i], json_array_get(list, i), where, i, &context, err);
    in->n += !status;
  }
  json_decref(list);
  return status;
}

int pdt_decode_input_read(pdt_decode_input *in, const pdt_comm *world,
                          const pdt_decode_options *options, pdt_error *err) {
  *in = (pdt_decode_input){0};
  if (!load_configs(in, options, err) && world->rank == 0) resolve(in, options, err);
  if (pdt_comm_agree(world, err)) {
    pdt_decode_input_free(in);
    return -1;
  }
  char *text = NULL;
  int64_t length;
  int status = share_text(world, in->resolved, &text, &length, err);
  if (!status) {
    parse_resolved(in, text, length, err);
    status = pdt_comm_agree(world, err);
  }
  free(text);
  if (status) pdt_decode_input_free(in);
  return status;
}

void pdt_decode_input_free(pdt_decode_input *in) {
  for (int32_t i = 0; i < in->n; i++) pdt_request_free(&in->requests[i]);
  free(in->requests);
  json_decref(in->resolved);
  pdt_tokenizer_free(in->tokenizer);
  pdt_sidecar_config_free(&in->sidecar);
  *in = (pdt_decode_input){0};
}

#include "run/request_reader.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "request/familiar.h"

enum { MAX_REQUEST_BYTES = 256 << 20 };

int pdt_request_reader_open(pdt_request_reader *s, const pdt_decode_options *options,
                            const pdt_request_context *context, pdt_error *err) {
  *s = (pdt_request_reader){.options = options, .context = *context};
  if (pdt_request_chat_new(&s->chat, options->engine.model, context->tokenizer, &options->chat,
                           err))
    return -1;
  return options->requests
             ? pdt_lines_open_once(&s->lines, options->requests, MAX_REQUEST_BYTES, err)
             : 0;
}

void pdt_request_reader_close(pdt_request_reader *s) {
  pdt_lines_close(&s->lines);
  pdt_request_chat_free(&s->chat);
  *s = (pdt_request_reader){0};
}

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

/* Resolves a request: 1, or -1. */
static int resolve(pdt_request_reader *s, json_t *json, json_t *plan, pdt_request *r,
                   pdt_error *err) {
  const pdt_decode_options *o = s->options;
  char with_flags[PDT_WHERE_BYTES + 16];
  bool flags = !o->prompt && json_object_size(o->settings) > 0;
  snprintf(with_flags, sizeof with_flags, "%s%s", s->where, flags ? " and flags" : "");
  if (pdt_json_expect_object(json, s->where, err) || override(json, o, plan, err) ||
      pdt_request_chat_apply(&s->chat, json, s->where, err) ||
      pdt_request_parse(r, json, with_flags, (uint64_t)s->n, &s->context, err))
    return -1;
  pdt_request_compare(r, json, s->where, &s->context, &s->told, o->engine.notices);
  r->line = (int32_t)s->lines.number;
  s->n++;
  return 1;
}

static int next_line(pdt_request_reader *s, pdt_request *r, pdt_error *err) {
  json_t *json = NULL;
  int more = pdt_lines_next_filled(&s->lines, err);
  pdt_where(s->where, s->options->requests, s->lines.number);
  if (more < 0 || (more == 0 && s->n > 0)) return more;
  if (more == 0)
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: expected one request a line, found none",
                    s->options->requests);
  int status = pdt_json_parse_wide(&json, s->lines.text, s->lines.bytes, s->where, err);
  if (!status) status = resolve(s, json, NULL, r, err);
  json_decref(json);
  if (status > 0 || (err->code != PDT_ERROR_INPUT && err->code != PDT_ERROR_USAGE)) return status;
  s->n++;
  return PDT_READER_WRONG;
}

static int load_request(json_t **json, const char *path, const char *where, pdt_error *err) {
  char *text;
  pdt_bytes length;
  if (pdt_file_read(&text, &length, path, MAX_REQUEST_BYTES, err)) return -1;
  int status = pdt_json_parse_wide(json, text, (size_t)length, where, err);
  free(text);
  return status;
}

/* The only request. */
static int single(pdt_request_reader *s, pdt_request *r, pdt_error *err) {
  const pdt_decode_options *o = s->options;
  json_t *json = NULL, *plan = NULL;
  if (s->n > 0) return 0;
  pdt_where(s->where, o->prompt ? "command line" : o->request, 0);
  if (o->plan && pdt_json_load(&plan, o->plan, MAX_REQUEST_BYTES, err)) return -1;
  int status = 0;
  if (o->prompt) {
    json = json_pack("{s:s}", "prompt", o->prompt);
    if (!json) status = pdt_fail(err, PDT_ERROR_USAGE, "--prompt: the text is not UTF-8");
  } else {
    status = load_request(&json, o->request, s->where, err);
  }
  if (!status) status = resolve(s, json, plan, r, err);
  json_decref(json);
  json_decref(plan);
  return status;
}

int pdt_request_reader_next(pdt_request_reader *s, pdt_request *r, pdt_error *err) {
  return s->options->requests ? next_line(s, r, err) : single(s, r, err);
}

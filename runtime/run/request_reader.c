#include "run/request_reader.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "request/familiar.h"

enum { MAX_REQUEST_BYTES = 256 << 20, READ_BYTES = 1 << 18, SHOWN_PATH_BYTES = 200 };

void pdt_where(char where[PDT_WHERE_BYTES], const char *path, int32_t line) {
  size_t length = strlen(path);
  bool cut = length > SHOWN_PATH_BYTES;
  if (cut) path += length - SHOWN_PATH_BYTES;
  while (cut && (*path & 0xC0) == 0x80) path++;
  int n = snprintf(where, PDT_WHERE_BYTES, "%s%s", cut ? "..." : "", path);
  if (line > 0) snprintf(where + n, PDT_WHERE_BYTES - (size_t)n, ": line %d", line);
}

/* A file that is read once, from front to back: a pipe will do. */
static int open_lines(FILE **file, const char *path, pdt_error *err) {
  struct stat status;
  int fd = strcmp(path, "-") == 0 ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC);
  *file = NULL;
  if (fd < 0 || fstat(fd, &status))
    pdt_fail(err, PDT_ERROR_IO, "%s: cannot open: %s", path, strerror(errno));
  else if (S_ISDIR(status.st_mode))
    pdt_fail(err, PDT_ERROR_INPUT, "%s: expected a file, found a folder", path);
  else if (!(*file = fdopen(fd, "r")))
    pdt_fail(err, PDT_ERROR_MEMORY, "%s: no memory", path);
  if (!*file && fd >= 0) close(fd);
  return *file ? 0 : -1;
}

int pdt_request_reader_open(pdt_request_reader *s, const pdt_decode_options *options,
                            const pdt_request_context *context, pdt_error *err) {
  *s = (pdt_request_reader){.options = options, .context = *context};
  return options->requests ? open_lines(&s->file, options->requests, err) : 0;
}

void pdt_request_reader_close(pdt_request_reader *s) {
  if (s->file) (void)fclose(s->file);
  pdt_buffer_free(&s->read);
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
      pdt_request_parse(r, json, with_flags, (uint64_t)s->n, &s->context, err))
    return -1;
  pdt_request_compare(r, json, s->where, &s->context, &s->told, o->engine.notices);
  r->line = s->line;
  s->n++;
  return 1;
}

/* Reads on, behind the line that begins what is kept. */
static int read_more(pdt_request_reader *s, pdt_error *err) {
  size_t kept = s->read.bytes - s->begin;
  if (kept > MAX_REQUEST_BYTES)
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: expected a line of at most %d bytes", s->where,
                    MAX_REQUEST_BYTES);
  if (pdt_buffer_reserve(&s->read, READ_BYTES, err)) return -1;
  if (s->begin > 0) memmove(s->read.data, s->read.data + s->begin, kept);
  s->begin = 0;
  size_t n = fread(s->read.data + kept, 1, READ_BYTES, s->file);
  s->read.bytes = kept + n;
  s->ended = n == 0;
  if (!ferror(s->file)) return 0;
  return pdt_fail(err, PDT_ERROR_IO, "%s: cannot read: %s", s->options->requests, strerror(errno));
}

/* Finds the next line, without its end: 1; 0 at the end of the file. */
static int read_line(pdt_request_reader *s, pdt_error *err) {
  for (size_t looked = 0;;) {
    const char *line = s->read.data + s->begin;
    size_t kept = s->read.bytes - s->begin;
    const char *newline = kept > looked ? memchr(line + looked, '\n', kept - looked) : NULL;
    s->line_bytes = newline ? (size_t)(newline - line) : kept;
    if (newline) return 1;
    if (s->ended) return kept > 0;
    looked = kept;
    if (read_more(s, err)) return -1;
  }
}

/* Goes on behind the line in work. */
static void drop_line(pdt_request_reader *s) {
  s->begin += s->line_bytes + 1;
  if (s->begin > s->read.bytes) s->begin = s->read.bytes; /* the last one had no end */
}

static bool is_blank(const char *text, size_t bytes) {
  for (size_t i = 0; i < bytes; i++)
    if (text[i] != ' ' && text[i] != '\t' && text[i] != '\r') return false;
  return true;
}

/* Goes to the next line that is not blank: 1; 0 at the end of the file. */
static int find_line(pdt_request_reader *s, pdt_error *err) {
  for (int more;; drop_line(s)) {
    s->line++;
    pdt_where(s->where, s->options->requests, s->line);
    more = read_line(s, err);
    if (more <= 0 || !is_blank(s->read.data + s->begin, s->line_bytes)) return more;
  }
}

static int next_line(pdt_request_reader *s, pdt_request *r, pdt_error *err) {
  json_t *json = NULL;
  int more = find_line(s, err);
  if (more < 0 || (more == 0 && s->n > 0)) return more;
  if (more == 0)
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: expected one request a line, found none",
                    s->options->requests);
  int status = pdt_json_parse_wide(&json, s->read.data + s->begin, s->line_bytes, s->where, err);
  if (!status) status = resolve(s, json, NULL, r, err);
  json_decref(json);
  drop_line(s);
  return status;
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

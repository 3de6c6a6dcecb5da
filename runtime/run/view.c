#include "run/view.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json_text.h"
#include "base/text_safe.h"
#include "journal/journal.h"
#include "journal/sink.h"
#include "run/outputs.h"
#include "run/view_parts.h"

void pdt_view_stories_free(pdt_view_stories *s) {
  for (size_t i = 0; i < s->n; i++) pdt_story_free(s->list[i]);
  free((void *)s->list);
  pdt_tokenizer_free(s->tokenizer);
  *s = (pdt_view_stories){0};
}

/* A trace is told by how it begins. */
static int check_kind(const char *path, pdt_error *err) {
  static const char begins[] = "{\"plan_ids\":[";
  char head[sizeof begins] = "";
  pdt_bytes size;
  FILE *file;
  if (pdt_file_stream(&file, &size, path, err)) return -1;
  size_t n = fread(head, 1, sizeof begins - 1, file);
  (void)fclose(file);
  if (n == sizeof begins - 1 && strcmp(head, begins) == 0) return 0;
  return pdt_fail(err, PDT_ERROR_INPUT,
                  "%s: expected a journal or a trace, found neither (hint: pdt decode --journal or "
                  "--trace writes one)",
                  path);
}

static int read_stories(pdt_view_stories *s, const pdt_view_options *o, pdt_error *err) {
  bool is_journal = pdt_is_journal(o->path);
  if (is_journal && o->gamma >= 0)
    return pdt_fail(err, PDT_ERROR_USAGE,
                    "--gamma belongs to a trace: %s is a journal, which has "
                    "it",
                    o->path);
  if (is_journal ? pdt_view_journal(s, o, err)
                 : check_kind(o->path, err) || pdt_view_trace(s, o, err))
    return -1;
  if (o->request < 0 || (o->request < (int64_t)s->n && s->list[o->request])) return 0;
  return pdt_fail(err, PDT_ERROR_USAGE, "--request: expected one that %s has, found %lld", o->path,
                  (long long)o->request);
}

/* What the page is given. */
static int put_data(char **json, size_t *bytes, const pdt_view_stories *s, const char *path,
                    pdt_error *err) {
  FILE *out = open_memstream(json, bytes);
  char *name = pdt_escaped(path);
  bool good = out && name, some = false;
  if (good) (void)fputs("{\"source\":", out);
  good = good && pdt_json_put_string(out, name, strlen(name));
  if (good) (void)fprintf(out, ",\"texts\":%s,\"sessions\":[", s->tokenizer ? "true" : "false");
  for (size_t i = 0; good && i < s->n; i++) {
    size_t n;
    if (!s->list[i]) continue;
    const char *story = pdt_story_json(s->list[i], &n);
    if (some) (void)fputc(',', out);
    (void)fwrite(story, 1, n, out);
    some = true;
  }
  if (good) (void)fputs("]}", out);
  free(name);
  good = good && !ferror(out);
  good = (!out || fclose(out) == 0) && good;
  if (good) return 0;
  if (out) free(*json);
  *json = NULL;
  return pdt_fail(err, PDT_ERROR_MEMORY, "page: no memory");
}

static int write_page(const char *path, const char *html, size_t bytes, pdt_error *err) {
  pdt_sink sink;
  if (!pdt_sink_open(&sink, path, err) && !pdt_sink_write(&sink, html, (pdt_bytes)bytes, err))
    return pdt_sink_commit(&sink, err);
  pdt_sink_discard(&sink);
  return -1;
}

static int check_files(const pdt_view_options *o, pdt_error *err) {
  pdt_named_files outputs = {0}, inputs = {0};
  pdt_files_add(&outputs, "--out", o->out);
  pdt_files_add(&inputs, "PATH", o->path);
  if (o->model) pdt_files_add_model(&inputs, "--model", o->model);
  return pdt_outputs_check(&outputs, &inputs, err) ||
                 pdt_output_may_replace("--out", o->out, PDT_KIND_OTHER, true, err)
             ? -1
             : 0;
}

int pdt_view(const pdt_view_options *o, pdt_error *err) {
  pdt_view_stories stories = {0};
  char *json = NULL, *html = NULL;
  size_t bytes = 0, html_bytes = 0;
  int status = check_files(o, err) || read_stories(&stories, o, err) ||
               put_data(&json, &bytes, &stories, o->path, err) ||
               pdt_page_make(&html, &html_bytes, PDT_PAGE_FILE, json, bytes, err) ||
               write_page(o->out, html, html_bytes, err);
  free(html);
  free(json);
  pdt_view_stories_free(&stories);
  return status ? -1 : 0;
}

#include "serve/live_page.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json_text.h"
#include "page/page.h"
#include "request/setting_table.h"

/* What the form needs to know of a setting. */
static void put_setting(FILE *out, const pdt_setting *s) {
  static const char largest_whole[] = "9007199254740991"; /* of JavaScript's numbers */
  char fallback[64];
  pdt_setting_default(s, fallback, sizeof fallback);
  fprintf(out, "{\"key\":\"%s\",\"help\":", s->key);
  pdt_json_put_string(out, s->help, strlen(s->help));
  fputs(",\"fallback\":", out);
  pdt_json_put_string(out, fallback, strlen(fallback));
  if (s->kind == PDT_SETTING_POLICY) {
    fputs(",\"values\":[", out);
    for (int i = PDT_SELECTIVE; i < PDT_POLICIES; i++)
      fprintf(out, "%s\"%s\"", i > PDT_SELECTIVE ? "," : "", pdt_policy_name((pdt_policy)i));
    fputs("]}", out);
    return;
  }
  fprintf(out, ",\"whole\":%s,\"low\":", s->kind == PDT_SETTING_REAL ? "false" : "true");
  pdt_json_put_double(out, s->low);
  fputs(",\"high\":", out);
  if (s->kind == PDT_SETTING_SEED)
    fputs(largest_whole, out);
  else
    pdt_json_put_double(out, s->high);
  fputc('}', out);
}

/* What the page is told: the model's name, and what may be set. */
static int put_data(char **json, size_t *bytes, const char *name, pdt_error *err) {
  FILE *out = open_memstream(json, bytes);
  if (!out) return pdt_fail(err, PDT_ERROR_MEMORY, "page: no memory");
  fputs("{\"model\":", out);
  bool good = pdt_json_put_string(out, name, strlen(name));
  if (!good) fputs("\"\"", out); /* a path that is no UTF-8 */
  fputs(",\"settings\":[", out);
  for (int i = 0; i < PDT_SETTINGS; i++) {
    if (i > 0) fputc(',', out);
    put_setting(out, &pdt_setting_table[i]);
  }
  fputs("]}", out);
  good = !ferror(out);
  if (fclose(out) == 0 && good) return 0;
  free(*json);
  *json = NULL;
  return pdt_fail(err, PDT_ERROR_MEMORY, "page: no memory");
}

int pdt_live_page_make(pdt_live_page *page, const char *name, pdt_error *err) {
  char *json, *policy = pdt_page_policy(PDT_PAGE_LIVE);
  size_t bytes;
  *page = (pdt_live_page){0};
  /* Not in the page's own, where browsers do not read it. */
  if (!policy || asprintf(&page->policy, "%s; frame-ancestors 'none'", policy) < 0) {
    free(policy);
    page->policy = NULL;
    return pdt_fail(err, PDT_ERROR_MEMORY, "page: no memory");
  }
  free(policy);
  if (put_data(&json, &bytes, name, err)) return -1;
  int status = pdt_page_make(&page->html, &page->bytes, PDT_PAGE_LIVE, json, bytes, err);
  free(json);
  return status;
}

void pdt_live_page_free(pdt_live_page *page) {
  free(page->html);
  free(page->policy);
  *page = (pdt_live_page){0};
}

enum MHD_Result pdt_live_page_answer(const pdt_live_page *page, struct MHD_Connection *connection) {
  struct MHD_Response *r =
      MHD_create_response_from_buffer(page->bytes, page->html, MHD_RESPMEM_PERSISTENT);
  if (!r) return MHD_NO;
  MHD_add_response_header(r, "Content-Type", "text/html; charset=utf-8");
  MHD_add_response_header(r, "Content-Security-Policy", page->policy);
  MHD_add_response_header(r, "X-Content-Type-Options", "nosniff");
  MHD_add_response_header(r, "Referrer-Policy", "no-referrer");
  MHD_add_response_header(r, "Cache-Control", "no-cache");
  enum MHD_Result result = MHD_queue_response(connection, 200, r);
  MHD_destroy_response(r);
  return result;
}

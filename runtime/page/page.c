#include "page/page.h"

#include <openssl/evp.h>
#include <openssl/sha.h>
#include <stdlib.h>
#include <string.h>

#include "base/json_text.h"
#include "page_files.h"

enum { BASE64_BYTES = 4 * ((SHA256_DIGEST_LENGTH + 2) / 3) + 1 };

/* ---- data ---- */

/* The characters U+2028 and U+2029 end a line of a script in some readers. */
static bool is_separator(const char *at, size_t left) {
  return left >= 3 && memcmp(at, "\xE2\x80", 2) == 0 && (at[2] == '\xA8' || at[2] == '\xA9');
}

void pdt_page_put_data(FILE *out, const char *json, size_t bytes) {
  for (size_t i = 0; i < bytes; i++) {
    const char c = json[i];
    if (is_separator(json + i, bytes - i)) {
      (void)fputs(json[i + 2] == '\xA8' ? "\\u2028" : "\\u2029", out);
      i += 2;
    } else if (c == '<' || c == '>' || c == '&') {
      (void)fprintf(out, "\\u%04x", (unsigned)c);
    } else {
      (void)fputc(c, out);
    }
  }
}

/* ---- the page ---- */

static void hash(char text[BASE64_BYTES], const unsigned char *data, size_t bytes) {
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256(data, bytes, digest);
  EVP_EncodeBlock((unsigned char *)text, digest, sizeof digest);
}

char *pdt_page_policy(pdt_page_kind kind) {
  char style[BASE64_BYTES], script[BASE64_BYTES], *text;
  hash(style, page_css, sizeof page_css);
  hash(script, page_js, sizeof page_js);
  int n = asprintf(&text,
                   "default-src 'none'; style-src 'sha256-%s'; script-src 'sha256-%s'; "
                   "img-src data:; connect-src %s; base-uri 'none'; form-action 'none'",
                   style, script, kind == PDT_PAGE_LIVE ? "'self'" : "'none'");
  return n < 0 ? NULL : text;
}

/* What stands in place of a mark of page.html. */
typedef struct part {
  const char *mark, *text;
  size_t bytes;
  bool is_data; /* JSON */
} part;

/* Writes page.html with its marks filled in; they stand there in the order of the parts. */
static void put_page(FILE *out, const part *parts, size_t n) {
  const char *at = (const char *)page_html, *end = at + sizeof page_html;
  for (size_t i = 0; i < n; i++) {
    size_t length = strlen(parts[i].mark);
    const char *mark = memmem(at, (size_t)(end - at), parts[i].mark, length);
    if (!mark) abort(); /* page.html is built in */
    (void)fwrite(at, 1, (size_t)(mark - at), out);
    if (parts[i].is_data)
      pdt_page_put_data(out, parts[i].text, parts[i].bytes);
    else
      (void)fwrite(parts[i].text, 1, parts[i].bytes, out);
    at = mark + length;
  }
  (void)fwrite(at, 1, (size_t)(end - at), out);
}

int pdt_page_make(char **html, size_t *html_bytes, pdt_page_kind kind, const char *json,
                  size_t bytes, pdt_error *err) {
  char *policy = pdt_page_policy(kind);
  FILE *out = policy ? open_memstream(html, html_bytes) : NULL;
  if (!out) {
    free(policy);
    return pdt_fail(err, PDT_ERROR_MEMORY, "page: no memory");
  }
  const part parts[] = {
      {"@POLICY@", policy, strlen(policy), false},
      {"@STYLE@", (const char *)page_css, sizeof page_css, false},
      {"@DATA@", json, bytes, true},
      {"@SCRIPT@", (const char *)page_js, sizeof page_js, false},
  };
  put_page(out, parts, sizeof parts / sizeof *parts);
  bool good = !ferror(out);
  good = fclose(out) == 0 && good;
  free(policy);
  if (good) return 0;
  free(*html);
  *html = NULL;
  return pdt_fail(err, PDT_ERROR_MEMORY, "page: no memory");
}

/* ---- rounds ---- */

void pdt_page_round_begin(FILE *out, const pdt_page_round *r) {
  (void)fprintf(out, "{\"round\":%d,\"gate\":%s,\"window\":[", r->round,
                r->gate ? "true" : "false");
  for (int32_t i = 0; i < r->n_window; i++)
    (void)fprintf(out, "%s[%d,%d]", i ? "," : "", r->window[i].round, r->window[i].stream);
  (void)fputs("],\"blocks\":[", out);
}

bool pdt_page_round_block(FILE *out, int32_t i, const pdt_page_block *b) {
  (void)fprintf(out,
                "%s{\"stream\":%d,\"action\":\"%s\",\"attempt\":%d,\"readiness\":", i ? "," : "",
                b->stream, pdt_action_name(b->action), b->attempt);
  pdt_json_put_float(out, b->readiness);
  (void)fprintf(out, ",\"tokens\":%d,\"text\":", b->n_tokens);
  bool good = pdt_json_put_string(out, b->text, b->bytes);
  (void)fputc('}', out);
  return good;
}

void pdt_page_round_end(FILE *out) {
  (void)fputs("]}", out);
}

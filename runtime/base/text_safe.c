#include "base/text_safe.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* The character at text, and how many bytes it has; 1 with -1 where they are no UTF-8. */
static size_t next(const char *text, size_t bytes, int32_t *c) {
  if ((unsigned char)*text < 0x80) {
    *c = (unsigned char)*text;
    return 1;
  }
  utf8proc_ssize_t n =
      utf8proc_iterate((const utf8proc_uint8_t *)text, bytes < 4 ? (utf8proc_ssize_t)bytes : 4, c);
  if (n > 0) return (size_t)n;
  *c = -1;
  return 1;
}

/* Signs that Unicode counts among the invisible ones, though they are drawn around digits. */
static bool is_number_sign(int32_t c) {
  return (c >= 0x600 && c <= 0x605) || c == 0x6DD || c == 0x70F || c == 0x890 || c == 0x891 ||
         c == 0x8E2 || c == 0x110BD || c == 0x110CD;
}

/* Bytes that are no UTF-8, controls, separators of lines, and what is there and not seen. */
static bool is_unsafe(int32_t c) {
  if (c >= 0x20 && c < 0x7F) return false;
  if (c < 0) return true;
  utf8proc_category_t category = utf8proc_category(c);
  return category == UTF8PROC_CATEGORY_CC || category == UTF8PROC_CATEGORY_ZL ||
         category == UTF8PROC_CATEGORY_ZP ||
         (category == UTF8PROC_CATEGORY_CF && !is_number_sign(c));
}

/* What is written in place of a character, at most 16 bytes with the zero behind; "" for the
 * character itself. `byte` is its first. */
typedef void spelling(int32_t c, unsigned byte, char out[16]);

/* Writes a text, every character as it is spelled. Errors stay in the stream. */
static void write_spelled(FILE *out, const char *text, size_t bytes, spelling *spell) {
  size_t written = 0;
  for (size_t at = 0; at < bytes;) {
    int32_t c;
    char other[16] = "";
    size_t n = next(text + at, bytes - at, &c);
    if (is_unsafe(c)) spell(c, (unsigned char)text[at], other);
    if (*other) {
      (void)fwrite(text + written, 1, at - written, out);
      (void)fputs(other, out);
      written = at + n;
    }
    at += n;
  }
  if (bytes > written) (void)fwrite(text + written, 1, bytes - written, out);
}

static void escape(int32_t c, unsigned byte, char out[16]) {
  if (c == '\n' || c == '\t')
    snprintf(out, 16, c == '\n' ? "\\n" : "\\t");
  else if (c < 0x100)
    snprintf(out, 16, "\\x%02x", c < 0 ? byte : (unsigned)c);
  else
    snprintf(out, 16, c > 0xFFFF ? "\\U%08x" : "\\u%04x", (unsigned)c);
}

static void escape_within_lines(int32_t c, unsigned byte, char out[16]) {
  if (c != '\n' && c != '\t') escape(c, byte, out);
}

/* Joiners of letters and pictures and a soft hyphen belong to the text. */
static void show(int32_t c, unsigned byte, char out[16]) {
  (void)byte;
  bool stays = c == '\n' || c == '\t' || c == 0xAD || c == 0x200C || c == 0x200D;
  if (!stays) snprintf(out, 16, "\xEF\xBF\xBD");
}

/* In what jansson writes, such characters are inside of strings only, and those below a space are
 * escaped already, but for the layout's own. */
static void escape_json(int32_t c, unsigned byte, char out[16]) {
  (void)byte;
  if (c > 0xFFFF)
    snprintf(out, 16, "\\u%04x\\u%04x", 0xD7C0u + ((unsigned)c >> 10),
             0xDC00u + ((unsigned)c & 0x3FF));
  else if (c > ' ')
    snprintf(out, 16, "\\u%04x", (unsigned)c);
}

void pdt_put_escaped(FILE *out, const char *text, size_t bytes, bool lines) {
  write_spelled(out, text, bytes, lines ? escape_within_lines : escape);
}

bool pdt_put_shown(FILE *out, const char *text, size_t bytes) {
  write_spelled(out, text, bytes, show);
  return !ferror(out);
}

/* The same in memory, freed by the caller; NULL without memory. */
static char *spelled(const char *text, size_t bytes, spelling *spell) {
  char *out = NULL;
  size_t n = 0;
  FILE *stream = open_memstream(&out, &n);
  if (!stream) return NULL;
  write_spelled(stream, text, bytes, spell);
  bool good = !ferror(stream);
  if (fclose(stream) == 0 && good) return out;
  free(out);
  return NULL;
}

char *pdt_escaped(const char *text) {
  return spelled(text, strlen(text), escape);
}

void pdt_say(FILE *out, const char *format, ...) {
  char *text = NULL;
  va_list arguments;
  va_start(arguments, format);
  int n = vasprintf(&text, format, arguments);
  va_end(arguments);
  char *shown = n < 0 ? NULL : pdt_escaped(text);
  (void)fprintf(out, "%s\n", shown ? shown : "no memory for a message");
  if (n >= 0) free(text);
  free(shown);
}

char *pdt_json_text(const json_t *json, size_t flags) {
  char *plain = json_dumps(json, flags);
  char *text = plain ? spelled(plain, strlen(plain), escape_json) : NULL;
  free(plain);
  return text;
}

int pdt_json_print(const json_t *json, FILE *out, size_t flags) {
  char *text = pdt_json_text(json, flags);
  int rc = text && fputs(text, out) != EOF ? 0 : -1;
  free(text);
  return rc;
}

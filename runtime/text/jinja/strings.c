/* What filters and methods do with strings, as Python's str has it. */
#include <utf8proc.h>

#include "base/utf8.h"
#include "text/jinja/run.h"

size_t pdt_jinja_length(pdt_jinja_text text) {
  size_t n = 0;
  for (size_t i = 0; i < text.n; i++) n += ((unsigned char)text.at[i] & 0xC0) != 0x80;
  return n;
}

size_t pdt_jinja_find(pdt_jinja_text text, pdt_jinja_text needle, size_t from) {
  if (from > text.n || needle.n > text.n - from) return text.n;
  if (needle.n == 0) return from;
  const char *at = memmem(text.at + from, text.n - from, needle.at, needle.n);
  return at ? (size_t)(at - text.at) : text.n;
}

/* ---- strip ---- */

static bool is_stripped(int32_t c, const pdt_jinja_text *chars) {
  if (!chars) return pdt_jinja_is_space(c);
  for (size_t at = 0; at < chars->n;)
    if (pdt_utf8_next(chars->at, &at) == c) return true;
  return false;
}

int pdt_jinja_strip(pdt_jinja_run *r, pdt_jinja_text text, const pdt_jinja_value *chars, bool left,
                    bool right, pdt_jinja_value *out) {
  pdt_jinja_text set, *of = NULL;
  if (chars && chars->kind != PDT_JINJA_NONE) {
    if (pdt_jinja_expect_string(r, chars, "characters to strip", &set)) return -1;
    of = &set;
  }
  size_t begin = 0, end = text.n;
  while (left && begin < end) {
    size_t next = begin;
    if (!is_stripped(pdt_utf8_next(text.at, &next), of)) break;
    begin = next;
    if (pdt_jinja_work(r, of ? of->n : 0)) return -1;
  }
  while (right && end > begin) {
    size_t before = pdt_utf8_back(text.at, end), at = before;
    if (!is_stripped(pdt_utf8_next(text.at, &at), of)) break;
    end = before;
    if (pdt_jinja_work(r, of ? of->n : 0)) return -1;
  }
  *out = pdt_jinja_string(text.at + begin, end - begin);
  return 0;
}

/* ---- case ---- */

static bool is_upper(char c) {
  return c >= 'A' && c <= 'Z';
}

static bool is_lower(char c) {
  return c >= 'a' && c <= 'z';
}

/* Beyond ASCII, some letters become two, or go by what is around them. */
static int refuse_other_letters(pdt_jinja_run *r, pdt_jinja_text text) {
  for (size_t at = 0; at < text.n;) {
    size_t from = at;
    int32_t c = pdt_utf8_next(text.at, &at);
    if (c < 0x80) continue;
    utf8proc_category_t k = utf8proc_category(c);
    bool cased = k == UTF8PROC_CATEGORY_LU || k == UTF8PROC_CATEGORY_LL ||
                 k == UTF8PROC_CATEGORY_LT || utf8proc_tolower(c) != c || utf8proc_toupper(c) != c;
    if (cased)
      return pdt_jinja_fail(r, "changing the case of '%.*s', which is not ASCII, is not supported",
                            (int)(at - from), text.at + from);
  }
  return 0;
}

int pdt_jinja_change_case(pdt_jinja_run *r, pdt_jinja_text text, pdt_jinja_case to,
                          pdt_jinja_value *out) {
  char *changed = pdt_jinja_room(r, text.n, 1);
  bool inside = false; /* of a word, or behind the first character */
  if (!changed || refuse_other_letters(r, text)) return -1;
  for (size_t i = 0; i < text.n; i++) {
    char c = text.at[i];
    bool letter = is_upper(c) || is_lower(c);
    bool upper = to == PDT_JINJA_UPPER || (to != PDT_JINJA_LOWER && !inside);
    changed[i] = (char)(!letter ? c : upper ? c & ~0x20 : c | 0x20);
    inside = to == PDT_JINJA_CAPITALIZED || letter;
  }
  *out = pdt_jinja_string(changed, text.n);
  return 0;
}

/* ---- replace, join ---- */

size_t pdt_jinja_count(pdt_jinja_text text, pdt_jinja_text needle, size_t most) {
  size_t n = 0;
  if (needle.n == 0) {
    n = pdt_jinja_length(text) + 1;
    return n < most ? n : most;
  }
  for (size_t at = 0; n < most; n++) {
    at = pdt_jinja_find(text, needle, at);
    if (at == text.n) break;
    at += needle.n;
  }
  return n;
}

/* Copies `n` bytes behind *to. */
static void copy(char **to, const char *from, size_t n) {
  if (n) memcpy(*to, from, n);
  *to += n;
}

int pdt_jinja_replace(pdt_jinja_run *r, pdt_jinja_text text, const pdt_jinja_text *from_to,
                      int64_t most, pdt_jinja_value *out) {
  pdt_jinja_text from = from_to[0], to = from_to[1];
  if (pdt_jinja_work(r, text.n)) return -1;
  size_t n = pdt_jinja_count(text, from, most < 0 ? SIZE_MAX : (size_t)most);
  if (to.n && n > SIZE_MAX / 4 / to.n) return pdt_jinja_fail(r, "a text is too long");
  size_t bytes = text.n - n * from.n + n * to.n, at = 0;
  char *replaced = pdt_jinja_room(r, bytes, 1), *end = replaced;
  if (!replaced) return -1;
  for (size_t i = 0; i < n; i++) {
    size_t next = at;
    if (from.n)
      next = pdt_jinja_find(text, from, at);
    else if (i > 0)
      pdt_utf8_next(text.at, &next); /* before every character, and at the end */
    copy(&end, text.at + at, next - at);
    copy(&end, to.at, to.n);
    at = next + from.n;
  }
  copy(&end, text.at + at, text.n - at);
  *out = pdt_jinja_string(replaced, bytes);
  return 0;
}

/* The text of an item: of strings alone where `any` does not take others, too. */
static int item_text(pdt_jinja_run *r, const pdt_jinja_value *v, bool any, pdt_jinja_text *out) {
  return any ? pdt_jinja_str(r, v, out) : pdt_jinja_expect_string(r, v, "join", out);
}

int pdt_jinja_join(pdt_jinja_run *r, const pdt_jinja_list *items, pdt_jinja_text between, bool any,
                   pdt_jinja_value *out) {
  pdt_jinja_text *texts = pdt_jinja_room(r, items->n, sizeof *texts);
  size_t bytes = 0;
  if (!texts) return -1;
  for (size_t i = 0; i < items->n; i++) {
    if (item_text(r, &items->items[i], any, &texts[i]) || pdt_jinja_work(r, texts[i].n + between.n))
      return -1;
    bytes += texts[i].n + (i ? between.n : 0);
  }
  char *joined = pdt_jinja_room(r, bytes, 1), *end = joined;
  if (!joined) return -1;
  for (size_t i = 0; i < items->n; i++) {
    if (i) copy(&end, between.at, between.n);
    copy(&end, texts[i].at, texts[i].n);
  }
  *out = pdt_jinja_string(joined, bytes);
  return 0;
}

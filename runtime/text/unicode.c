#include "text/unicode.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* A value for the characters first..last. */
typedef struct range {
  int32_t first, last, value;
} range;

/* The range that holds c, NULL when none does. Ranges ascend. */
static const range *find_range(const range *ranges, size_t n, int32_t c) {
  size_t low = 0, high = n;
  while (low < high) {
    size_t middle = (low + high) / 2;
    if (ranges[middle].last < c)
      low = middle + 1;
    else
      high = middle;
  }
  return low < n && ranges[low].first <= c ? &ranges[low] : NULL;
}

#define FIND(table, c) find_range(table, sizeof table / sizeof *table, c)

bool pdt_is_white_space(int32_t c) {
  return (c >= 9 && c <= 13) || c == ' ' || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f ||
         c == 0x3000;
}

static bool category_between(int32_t c, utf8proc_category_t first, utf8proc_category_t last) {
  utf8proc_category_t category = utf8proc_category(c);
  return category >= first && category <= last;
}

bool pdt_is_numeric(int32_t c) {
  /* Unicode 16 and 17, which utf8proc may not know yet. */
  static const range table[] = {
      {0x10d40, 0x10d49, true}, {0x116d0, 0x116e3, true}, {0x11bf0, 0x11bf9, true},
      {0x11de0, 0x11de9, true}, {0x16130, 0x16139, true}, {0x16d70, 0x16d79, true},
      {0x16ff4, 0x16ff6, true}, {0x1ccf0, 0x1ccf9, true}, {0x1e5f1, 0x1e5fa, true}};
  const range *r = FIND(table, c);
  return r ? r->value : category_between(c, UTF8PROC_CATEGORY_ND, UTF8PROC_CATEGORY_NO);
}

bool pdt_is_punctuation(int32_t c) {
  if (c < 0x80)
    return (c > ' ' && c < '0') || (c > '9' && c < 'A') || (c > 'Z' && c < 'a') ||
           (c > 'z' && c < 0x7f);
  /* What became punctuation, or ceased to be, after Unicode 8. */
  static const range table[] = {
      {0x61d, 0x61d, false},     {0x9fd, 0x9fd, false},     {0xa76, 0xa76, false},
      {0xc77, 0xc77, false},     {0xc84, 0xc84, false},     {0x166d, 0x166d, true},
      {0x1b4e, 0x1b4f, false},   {0x1b7d, 0x1b7e, false},   {0x1b7f, 0x1b7f, false},
      {0x2e43, 0x2e4f, false},   {0x2e52, 0x2e5d, false},   {0x10d6e, 0x10d6e, false},
      {0x10ead, 0x10ead, false}, {0x10f55, 0x10f59, false}, {0x10f86, 0x10f89, false},
      {0x111c9, 0x111c9, true},  {0x113d4, 0x113d5, false}, {0x113d7, 0x113d8, false},
      {0x1144b, 0x1144f, false}, {0x1145a, 0x1145b, false}, {0x1145d, 0x1145d, false},
      {0x11660, 0x1166c, false}, {0x116b9, 0x116b9, false}, {0x1183b, 0x1183b, false},
      {0x11944, 0x11946, false}, {0x119e2, 0x119e2, false}, {0x11a3f, 0x11a46, false},
      {0x11a9a, 0x11a9c, false}, {0x11a9e, 0x11aa2, false}, {0x11b00, 0x11b09, false},
      {0x11be1, 0x11be1, false}, {0x11c41, 0x11c45, false}, {0x11c70, 0x11c71, false},
      {0x11ef7, 0x11ef8, false}, {0x11f43, 0x11f4f, false}, {0x11fff, 0x11fff, false},
      {0x12ff1, 0x12ff2, false}, {0x16d6d, 0x16d6f, false}, {0x16e97, 0x16e9a, false},
      {0x16fe2, 0x16fe2, false}, {0x1e5ff, 0x1e5ff, false}, {0x1e95e, 0x1e95f, false}};
  const range *r = FIND(table, c);
  return r ? r->value : category_between(c, UTF8PROC_CATEGORY_PC, UTF8PROC_CATEGORY_PO);
}

bool pdt_is_combining_mark(int32_t c) {
  /* Marks that came after Unicode 9. */
  static const range table[] = {
      {0x7fd, 0x7fd, false},     {0x897, 0x897, false},     {0x898, 0x89f, false},
      {0x8ca, 0x8d3, false},     {0x9fe, 0x9fe, false},     {0xafa, 0xaff, false},
      {0xb55, 0xb55, false},     {0xc04, 0xc04, false},     {0xc3c, 0xc3c, false},
      {0xcf3, 0xcf3, false},     {0xd00, 0xd00, false},     {0xd3b, 0xd3c, false},
      {0xd81, 0xd81, false},     {0xeba, 0xeba, false},     {0xece, 0xece, false},
      {0x1715, 0x1715, false},   {0x180f, 0x180f, false},   {0x1abf, 0x1ace, false},
      {0x1cf2, 0x1cf3, true},    {0x1cf7, 0x1cf7, false},   {0x1df6, 0x1dfa, false},
      {0xa82c, 0xa82c, false},   {0xa8ff, 0xa8ff, false},   {0x10d24, 0x10d27, false},
      {0x10d69, 0x10d6d, false}, {0x10eab, 0x10eac, false}, {0x10efd, 0x10eff, false},
      {0x10f46, 0x10f50, false}, {0x10f82, 0x10f85, false}, {0x11070, 0x11070, false},
      {0x11073, 0x11074, false}, {0x110c2, 0x110c2, false}, {0x11145, 0x11146, false},
      {0x111c9, 0x111c9, false}, {0x111ce, 0x111cf, false}, {0x11241, 0x11241, false},
      {0x1133b, 0x1133b, false}, {0x113b8, 0x113e2, false}, {0x1145e, 0x1145e, false},
      {0x1182c, 0x1183a, false}, {0x11930, 0x11935, false}, {0x11937, 0x11938, false},
      {0x1193b, 0x1193e, false}, {0x11940, 0x11940, false}, {0x11942, 0x11943, false},
      {0x119d1, 0x119d7, false}, {0x119da, 0x119e0, false}, {0x119e4, 0x119e4, false},
      {0x11a01, 0x11a0a, false}, {0x11a33, 0x11a39, false}, {0x11a3b, 0x11a3e, false},
      {0x11a47, 0x11a47, false}, {0x11a51, 0x11a5b, false}, {0x11a8a, 0x11a99, false},
      {0x11d31, 0x11d36, false}, {0x11d3a, 0x11d3a, false}, {0x11d3c, 0x11d3d, false},
      {0x11d3f, 0x11d45, false}, {0x11d47, 0x11d47, false}, {0x11d8a, 0x11d8e, false},
      {0x11d90, 0x11d91, false}, {0x11d93, 0x11d97, false}, {0x11ef3, 0x11ef6, false},
      {0x11f00, 0x11f01, false}, {0x11f03, 0x11f03, false}, {0x11f34, 0x11f3a, false},
      {0x11f3e, 0x11f42, false}, {0x13440, 0x13440, false}, {0x13447, 0x13455, false},
      {0x1611e, 0x1612f, false}, {0x16f4f, 0x16f4f, false}, {0x16f7f, 0x16f87, false},
      {0x16fe4, 0x16fe4, false}, {0x16ff0, 0x16ff1, false}, {0x1cf00, 0x1cf2d, false},
      {0x1cf30, 0x1cf46, false}, {0x1e08f, 0x1e08f, false}, {0x1e130, 0x1e136, false},
      {0x1e2ae, 0x1e2ae, false}, {0x1e2ec, 0x1e2ef, false}, {0x1e4ec, 0x1e4ef, false},
      {0x1e5ee, 0x1e5ef, false}};
  const range *r = FIND(table, c);
  return r ? r->value : category_between(c, UTF8PROC_CATEGORY_MN, UTF8PROC_CATEGORY_ME);
}

int pdt_lowercase(int32_t c, int32_t out[2]) {
  /* Unicode 16 and 17; the value is what to add. */
  static const range table[] = {
      {0x1c89, 0x1c89, 1},      {0xa7cb, 0xa7cb, 0x264 - 0xa7cb},
      {0xa7cc, 0xa7cc, 1},      {0xa7ce, 0xa7ce, 1},
      {0xa7d2, 0xa7d2, 1},      {0xa7d4, 0xa7d4, 1},
      {0xa7da, 0xa7da, 1},      {0xa7dc, 0xa7dc, 0x19b - 0xa7dc},
      {0x10d50, 0x10d65, 0x20}, {0x16ea0, 0x16eb8, 0x1b},
  };
  if (c == 0x130) { /* the only one whose lowercase is two characters */
    out[0] = 'i';
    out[1] = 0x307;
    return 2;
  }
  const range *r = FIND(table, c);
  out[0] = r ? c + r->value : utf8proc_tolower(c);
  return 1;
}

/* Characters of Unicode 15 and 16, each with one of 14 that stands for it. */
static const range stand_ins[] = {
    {0x897, 0x897, 0x898},       {0xcf3, 0xcf3, 0xcd6},       {0xece, 0xece, 0xecd},
    {0x1b4e, 0x1b4f, 0x1b5a},    {0x1b7f, 0x1b7f, 0x1b7e},    {0x1c89, 0x1c89, 0xa640},
    {0x1c8a, 0x1c8a, 0x1c88},    {0x2427, 0x2429, 0x2426},    {0x2ffc, 0x2fff, 0x2ffb},
    {0x31e4, 0x31e5, 0x31e3},    {0x31ef, 0x31ef, 0x31e3},    {0xa7cb, 0xa7cc, 0xa7c9},
    {0xa7cd, 0xa7cd, 0xa7ca},    {0xa7da, 0xa7da, 0xa7d8},    {0xa7db, 0xa7db, 0xa7d9},
    {0xa7dc, 0xa7dc, 0xa7d8},    {0x105c0, 0x105f3, 0x10600}, {0x10d40, 0x10d49, 0x10d39},
    {0x10d4a, 0x10d4d, 0x10d23}, {0x10d4e, 0x10d4e, 0x16b40}, {0x10d4f, 0x10d4f, 0x10d23},
    {0x10d50, 0x10d65, 0x10cb2}, {0x10d69, 0x10d6d, 0x10d27}, {0x10d6e, 0x10d6e, 0x10ead},
    {0x10d6f, 0x10d6f, 0x16b40}, {0x10d70, 0x10d85, 0x10cf2}, {0x10d8e, 0x10d8f, 0x1d6c1},
    {0x10ec2, 0x10ec4, 0x1ee00}, {0x10efc, 0x10eff, 0x10f46}, {0x1123f, 0x11240, 0x1122b},
    {0x11241, 0x11241, 0x1123e}, {0x11380, 0x11389, 0x11361}, {0x1138b, 0x1138b, 0x11361},
    {0x1138e, 0x1138e, 0x11361}, {0x11390, 0x113b5, 0x11361}, {0x113b7, 0x113b7, 0x11400},
    {0x113b8, 0x113ba, 0x11363}, {0x113bb, 0x113c0, 0x11374}, {0x113c2, 0x113c2, 0x11363},
    {0x113c5, 0x113c5, 0x11363}, {0x113c7, 0x113ca, 0x11363}, {0x113cc, 0x113cd, 0x11435},
    {0x113ce, 0x113ce, 0x11374}, {0x113cf, 0x113cf, 0x11435}, {0x113d0, 0x113d0, 0x11374},
    {0x113d1, 0x113d1, 0x11400}, {0x113d2, 0x113d2, 0x11374}, {0x113d3, 0x113d3, 0x11400},
    {0x113d4, 0x113d5, 0x1144b}, {0x113d7, 0x113d8, 0x1144b}, {0x113e1, 0x113e2, 0x11438},
    {0x116d0, 0x116e3, 0x116c9}, {0x1171e, 0x1171e, 0x11720}, {0x11b00, 0x11b09, 0x11aa2},
    {0x11bc0, 0x11be0, 0x11c00}, {0x11be1, 0x11be1, 0x11c41}, {0x11bf0, 0x11bf9, 0x11c50},
    {0x11f00, 0x11f01, 0x11ef4}, {0x11f02, 0x11f02, 0x11ef2}, {0x11f03, 0x11f03, 0x11ef6},
    {0x11f04, 0x11f10, 0x11ef2}, {0x11f12, 0x11f33, 0x11ef2}, {0x11f34, 0x11f35, 0x11ef6},
    {0x11f36, 0x11f3a, 0x11ef4}, {0x11f3e, 0x11f3f, 0x11ef6}, {0x11f40, 0x11f40, 0x11ef4},
    {0x11f41, 0x11f41, 0x11ef6}, {0x11f42, 0x11f42, 0x11ef4}, {0x11f43, 0x11f4f, 0x11ef8},
    {0x11f50, 0x11f59, 0x11da9}, {0x11f5a, 0x11f5a, 0x11ef4}, {0x1342f, 0x1342f, 0x1342e},
    {0x13439, 0x1343f, 0x13438}, {0x13440, 0x13440, 0x11ef4}, {0x13441, 0x13446, 0x1342e},
    {0x13447, 0x13455, 0x11ef4}, {0x13460, 0x143fa, 0x14400}, {0x16100, 0x1611d, 0x16800},
    {0x1611e, 0x16129, 0x16af0}, {0x1612a, 0x1612c, 0x16f51}, {0x1612d, 0x1612f, 0x16af0},
    {0x16130, 0x16139, 0x16a60}, {0x16d40, 0x16d42, 0x16b43}, {0x16d43, 0x16d6a, 0x16f00},
    {0x16d6b, 0x16d6c, 0x16f93}, {0x16d6d, 0x16d6f, 0x16e97}, {0x16d70, 0x16d79, 0x16b59},
    {0x18cff, 0x18cff, 0x18d00}, {0x1b132, 0x1b132, 0x1b11f}, {0x1b155, 0x1b155, 0x1b164},
    {0x1cc00, 0x1ccef, 0x1cf50}, {0x1ccf0, 0x1ccf9, 0x1d7ce}, {0x1cd00, 0x1ceb3, 0x1cf50},
    {0x1d2c0, 0x1d2d3, 0x1d2e0}, {0x1df25, 0x1df2a, 0x1df1e}, {0x1e030, 0x1e06d, 0x1e137},
    {0x1e08f, 0x1e08f, 0x1e02a}, {0x1e4d0, 0x1e4ea, 0x1e2eb}, {0x1e4eb, 0x1e4eb, 0x1e13d},
    {0x1e4ec, 0x1e4ef, 0x1e2ef}, {0x1e4f0, 0x1e4f9, 0x1e2f9}, {0x1e5d0, 0x1e5ed, 0x1e800},
    {0x1e5ee, 0x1e5ef, 0x1e8d0}, {0x1e5f0, 0x1e5f0, 0x1e800}, {0x1e5f1, 0x1e5fa, 0x1e2f9},
    {0x1e5ff, 0x1e5ff, 0x1e95e}, {0x1f6dc, 0x1f6dc, 0x1f6dd}, {0x1f774, 0x1f776, 0x1f773},
    {0x1f77b, 0x1f77f, 0x1f780}, {0x1f7d9, 0x1f7d9, 0x1f7d8}, {0x1f8b2, 0x1f8bb, 0x1f8b1},
    {0x1f8c0, 0x1f8c1, 0x1f8b1}, {0x1fa75, 0x1fa77, 0x1fa74}, {0x1fa87, 0x1fa89, 0x1fa86},
    {0x1fa8f, 0x1fa8f, 0x1fa90}, {0x1faad, 0x1faaf, 0x1faac}, {0x1fabb, 0x1fabf, 0x1faba},
    {0x1fac6, 0x1fac6, 0x1fac5}, {0x1face, 0x1facf, 0x1fad0}, {0x1fada, 0x1fadc, 0x1fad9},
    {0x1fadf, 0x1fadf, 0x1fae0}, {0x1fae8, 0x1fae9, 0x1fae7}, {0x1faf7, 0x1faf8, 0x1faf6},
    {0x1fbcb, 0x1fbef, 0x1fbca}, {0x2b739, 0x2b739, 0x2b738}, {0x2ebf0, 0x2ee5d, 0x2ebe0},
    {0x31350, 0x323af, 0x3134a}};

int32_t pdt_stand_in(int32_t c) {
  if (c < stand_ins[0].first) return c;
  const range *r = FIND(stand_ins, c);
  return r ? r->value : c;
}

int32_t pdt_byte_to_char(unsigned char byte) {
  if ((byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte != 0xad)) return byte;
  if (byte <= ' ') return 0x100 + byte;
  return byte == 0xad ? 0x143 : 0x121 + byte - 0x7f;
}

int pdt_char_to_byte(int32_t c) {
  if (c < 0 || c > 0x143) return -1;
  if (c < 0x100) return pdt_byte_to_char((unsigned char)c) == c ? c : -1;
  if (c <= 0x120) return c - 0x100;
  return c == 0x143 ? 0xad : c - 0x121 + 0x7f;
}

/* Characters that are plain to the normal forms of Unicode 9: of combining class 0, decomposing to
 * nothing and composing with nothing, because they came later. */
static bool is_inert(int32_t c) {
  static const range table[] = {
      {0x7fd, 0x7fd, 0},     {0x897, 0x89f, 0},     {0x8ca, 0x8d3, 0},     {0x9fe, 0x9fe, 0},
      {0xc3c, 0xc3c, 0},     {0xd3b, 0xd3c, 0},     {0xeba, 0xeba, 0},     {0x1715, 0x1715, 0},
      {0x1abf, 0x1aeb, 0},   {0x1df6, 0x1dfa, 0},   {0x32ff, 0x32ff, 0},   {0xa7f1, 0xa7f4, 0},
      {0xa82c, 0xa82c, 0},   {0xab69, 0xab69, 0},   {0x105c9, 0x105c9, 0}, {0x105d2, 0x105d2, 0},
      {0x105da, 0x105da, 0}, {0x105e4, 0x105e4, 0}, {0x10781, 0x10785, 0}, {0x10787, 0x107b0, 0},
      {0x107b2, 0x107ba, 0}, {0x10d24, 0x10d27, 0}, {0x10d69, 0x10d6d, 0}, {0x10eab, 0x10eac, 0},
      {0x10efa, 0x10efb, 0}, {0x10efd, 0x10eff, 0}, {0x10f46, 0x10f50, 0}, {0x10f82, 0x10f85, 0},
      {0x11070, 0x11070, 0}, {0x1133b, 0x1133b, 0}, {0x11382, 0x11385, 0}, {0x1138b, 0x1138b, 0},
      {0x1138e, 0x1138e, 0}, {0x11390, 0x11391, 0}, {0x113b8, 0x113e2, 0}, {0x1145e, 0x1145e, 0},
      {0x11839, 0x1183a, 0}, {0x11930, 0x11930, 0}, {0x11935, 0x11935, 0}, {0x11938, 0x11938, 0},
      {0x1193d, 0x1193e, 0}, {0x11943, 0x11943, 0}, {0x119e0, 0x119e0, 0}, {0x11a34, 0x11a34, 0},
      {0x11a47, 0x11a47, 0}, {0x11a99, 0x11a99, 0}, {0x11d42, 0x11d42, 0}, {0x11d44, 0x11d45, 0},
      {0x11d97, 0x11d97, 0}, {0x11f41, 0x11f42, 0}, {0x1611e, 0x1612f, 0}, {0x16d63, 0x16d63, 0},
      {0x16d67, 0x16d6a, 0}, {0x16ff0, 0x16ff1, 0}, {0x1ccd6, 0x1ccf9, 0}, {0x1e030, 0x1e06d, 0},
      {0x1e08f, 0x1e08f, 0}, {0x1e130, 0x1e136, 0}, {0x1e2ae, 0x1e2ae, 0}, {0x1e2ec, 0x1e2ef, 0},
      {0x1e4ec, 0x1e4ef, 0}, {0x1e5ee, 0x1e5ef, 0}, {0x1f16c, 0x1f16c, 0}, {0x1fbf0, 0x1fbf9, 0}};
  return c >= table[0].first && FIND(table, c);
}

/* No character before this one is changed by the form, and none composes with it. */
static int32_t first_changing(pdt_normal_form form) {
  return form == PDT_NFC ? 0x300 : form == PDT_NFD ? 0xc0 : 0xa0;
}

/* The bit that marks the first part of a character while it is decomposed. */
#define FIRST_PART ((int32_t)1 << 24)

/* The characters of `text`; those that are inert (and U+FFFF itself) as U+FFFF, which normal forms
 * leave alone and keep in order, with the originals in `kept`. */
static int32_t *read_chars(const char *text, size_t bytes, size_t *n, int32_t *kept) {
  int32_t *chars = malloc((bytes + 1) * sizeof *chars);
  if (!chars) return NULL;
  *n = 0;
  size_t n_kept = 0;
  for (size_t at = 0; at < bytes;) {
    int32_t c = pdt_utf8_next(text, &at);
    if (c == 0xffff || is_inert(c)) {
      kept[n_kept++] = c;
      c = 0xffff;
    }
    chars[(*n)++] = c;
  }
  return chars;
}

/* Decomposes n characters into a new array, which has one element to spare; NULL without memory.
 * The first part of each character is marked by FIRST_PART. */
static int32_t *decompose(const int32_t *chars, size_t n, utf8proc_option_t options,
                          utf8proc_ssize_t *n_out) {
  size_t room = n + n / 2 + 32;
  int32_t *out = malloc(room * sizeof *out);
  int boundary = 0;
  *n_out = 0;
  for (size_t i = 0; out && i < n; i++) {
    for (;;) {
      size_t left = room - (size_t)*n_out - 1;
      utf8proc_ssize_t got = utf8proc_decompose_char(chars[i], out + *n_out, (utf8proc_ssize_t)left,
                                                     options, &boundary);
      if (got >= 0 && (size_t)got <= left) {
        if (got > 0) out[*n_out] |= FIRST_PART;
        *n_out += got;
        break;
      }
      room += room / 2 + 32;
      int32_t *grown = got < 0 ? NULL : realloc(out, room * sizeof *out);
      if (!grown) {
        free(out);
        return NULL;
      }
      out = grown;
    }
  }
  return out;
}

static int combining_class(int32_t part) {
  return utf8proc_get_property(part & ~FIRST_PART)->combining_class;
}

/* Stable sort by combining class of every run of characters that have one, by counting. */
static void order_marks(int32_t *chars, size_t n, int32_t *scratch) {
  for (size_t i = 0; i < n; i++) {
    size_t end = i;
    while (end < n && combining_class(chars[end])) end++;
    if (end - i < 2) {
      i = end;
      continue;
    }
    size_t starts[257] = {0};
    for (size_t k = i; k < end; k++) starts[combining_class(chars[k]) + 1]++;
    for (int class = 1; class < 257; class ++) starts[class] += starts[class - 1];
    for (size_t k = i; k < end; k++) scratch[starts[combining_class(chars[k])]++] = chars[k];
    memcpy(chars + i, scratch, (end - i) * sizeof *chars);
    i = end;
  }
}

/* Writes the characters, U+FFFF replaced by the next of `kept`. */
static int write_chars(const int32_t *chars, size_t n, const int32_t *kept, pdt_buffer *out,
                       pdt_error *err) {
  for (size_t i = 0; i < n; i++) {
    char utf8[4];
    int32_t c = chars[i] == 0xffff ? *kept++ : chars[i];
    if (pdt_buffer_put(out, utf8, pdt_utf8_encode(c, utf8), err)) return -1;
  }
  return 0;
}

/* ---- what stems from the first characters of a text ----
 *
 * Hugging Face's library knows of every byte which characters of the text it stems from, as
 * follows: the first part of a character, or what parts of several were composed to, takes the
 * place of as many characters as it has first parts; every other part stems from the character
 * before the place that was reached. Where marks were reordered that need not be the character that
 * they came from. */

/* One character of the result. */
typedef struct part {
  int32_t c;
  int32_t firsts; /* first parts in it */
} part;

typedef struct tracker {
  const char *text;
  const int32_t *kept;
  size_t leading; /* bytes of the text in question */
  size_t at;      /* place in the text that was reached */
  size_t bytes;   /* of the result that stem from those, so far */
  bool ended;     /* one did not */
  part *marks;    /* that wait behind a character that may still be composed */
  size_t n_marks, room;
} tracker;

static void emit(tracker *t, part p) {
  char utf8[4];
  size_t from = p.firsts ? t->at : t->at ? t->at - 1 : 0;
  t->ended = t->ended || from >= t->leading;
  if (t->ended) return;
  t->bytes += pdt_utf8_encode(p.c == 0xffff ? *t->kept++ : p.c, utf8);
  for (int32_t i = 0; i < p.firsts; i++) pdt_utf8_next(t->text, &t->at);
}

/* Writes a character and the marks behind it. */
static void emit_all(tracker *t, part head) {
  emit(t, head);
  for (size_t i = 0; i < t->n_marks; i++) emit(t, t->marks[i]);
  t->n_marks = 0;
}

/* Composes `mark` into `head` if the two have a common form. */
static bool compose(part *head, part mark) {
  int32_t pair[3] = {head->c, mark.c}; /* one more, as the function asks for */
  if (utf8proc_normalize_utf32(pair, 2, UTF8PROC_STABLE | UTF8PROC_COMPOSE) != 1) return false;
  head->c = pair[0];
  head->firsts += mark.firsts;
  return true;
}

/* Follows ordered parts (with their marks of first ones) to the result, as far as needed. */
static int track(tracker *t, const int32_t *parts, size_t n, bool composes, pdt_error *err) {
  part head = {-1, 0};
  int last = -1; /* class of the last mark that was not composed */
  for (size_t i = 0; i < n && !t->ended; i++) {
    part p = {parts[i] & ~FIRST_PART, (parts[i] & FIRST_PART) != 0};
    int class = combining_class(p.c);
    if (!composes || (head.c < 0 && class)) {
      emit(t, p);
    } else if (head.c < 0) {
      head = p;
    } else if (last < class && compose(&head, p)) {
      continue;
    } else if (class) {
      if (PDT_GROW(&t->marks, t->n_marks, &t->room, err)) return -1;
      t->marks[t->n_marks++] = p;
      last = class;
    } else {
      emit_all(t, head);
      head = p;
      last = -1;
    }
  }
  if (head.c >= 0) emit_all(t, head);
  return 0;
}

static int count_leading(const int32_t *parts, size_t n, bool composes, const char *text,
                         const int32_t *kept, size_t *leading, pdt_error *err) {
  if (!*leading) return 0;
  tracker t = {.text = text, .kept = kept, .leading = *leading};
  int rc = track(&t, parts, n, composes, err);
  *leading = t.bytes;
  free(t.marks);
  return rc;
}

static int normalize(utf8proc_option_t options, const char *text, size_t bytes, int32_t *kept,
                     size_t *leading, pdt_buffer *out, pdt_error *err) {
  size_t n = 0;
  utf8proc_ssize_t n_out = 0;
  int32_t *chars = read_chars(text, bytes, &n, kept);
  int32_t *parts = chars ? decompose(chars, n, options, &n_out) : NULL;
  int32_t *scratch = parts ? malloc(((size_t)n_out + 1) * sizeof *scratch) : NULL;
  int rc = -1;
  if (scratch) {
    bool composes = options & UTF8PROC_COMPOSE;
    order_marks(parts, (size_t)n_out, scratch);
    rc = count_leading(parts, (size_t)n_out, composes, text, kept, leading, err);
    for (utf8proc_ssize_t i = 0; i < n_out; i++) parts[i] &= ~FIRST_PART;
    if (composes) n_out = utf8proc_normalize_utf32(parts, n_out, options);
    if (!rc) rc = write_chars(parts, (size_t)n_out, kept, out, err);
  } else {
    pdt_fail(err, PDT_ERROR_MEMORY, "text: no memory to normalize %zu bytes", bytes);
  }
  free(scratch);
  free(parts);
  free(chars);
  return rc;
}

int pdt_normalize(pdt_normal_form form, const char *text, size_t bytes, size_t *leading,
                  pdt_buffer *out, pdt_error *err) {
  if (bytes > INT32_MAX / 16)
    return pdt_fail(err, PDT_ERROR_INPUT,
                    "text: at most %d bytes can be normalized at once, found "
                    "%zu",
                    INT32_MAX / 16, bytes);
  int32_t from = first_changing(form);
  size_t at = 0;
  while (at < bytes) {
    size_t next = at;
    if (pdt_utf8_next(text, &next) >= from) break;
    at = next;
  }
  if (at == bytes) return pdt_buffer_put(out, text, bytes, err);
  static const utf8proc_option_t options[] = {
      [PDT_NFC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE,
      [PDT_NFD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE,
      [PDT_NFKC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT,
      [PDT_NFKD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT,
  };
  int32_t *kept = malloc((bytes + 1) * sizeof *kept);
  if (!kept)
    return pdt_fail(err, PDT_ERROR_MEMORY, "text: no memory to normalize %zu bytes", bytes);
  int rc = normalize(options[form], text, bytes, kept, leading, out, err);
  free(kept);
  return rc;
}

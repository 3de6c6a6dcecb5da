#include "base/utf8.h"

#include <utf8proc.h>

size_t pdt_utf8_valid(const char *text, size_t bytes) {
  size_t at = 0;
  while (at < bytes) {
    if ((unsigned char)text[at] < 0x80) {
      at++;
      continue;
    }
    utf8proc_int32_t c;
    size_t left = bytes - at < 4 ? bytes - at : 4;
    utf8proc_ssize_t n =
        utf8proc_iterate((const utf8proc_uint8_t *)text + at, (utf8proc_ssize_t)left, &c);
    if (n <= 0) return at;
    at += (size_t)n;
  }
  return at;
}

bool pdt_is_utf8(const char *text, size_t bytes) {
  return pdt_utf8_valid(text, bytes) == bytes;
}

int32_t pdt_utf8_next(const char *text, size_t *at) {
  const unsigned char *s = (const unsigned char *)text + *at;
  if (s[0] < 0x80) {
    *at += 1;
    return s[0];
  }
  if (s[0] < 0xe0) {
    *at += 2;
    return (s[0] & 0x1f) << 6 | (s[1] & 0x3f);
  }
  if (s[0] < 0xf0) {
    *at += 3;
    return (s[0] & 0x0f) << 12 | (s[1] & 0x3f) << 6 | (s[2] & 0x3f);
  }
  *at += 4;
  return (s[0] & 0x07) << 18 | (s[1] & 0x3f) << 12 | (s[2] & 0x3f) << 6 | (s[3] & 0x3f);
}

size_t pdt_utf8_back(const char *text, size_t end) {
  do end--;
  while (end > 0 && ((unsigned char)text[end] & 0xc0) == 0x80);
  return end;
}

size_t pdt_utf8_encode(int32_t c, char out[4]) {
  return (size_t)utf8proc_encode_char(c, (utf8proc_uint8_t *)out);
}

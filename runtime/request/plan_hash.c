#include "request/plan_hash.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/memory.h"
#include "text/regex.h"
#include "text/unicode.h"

/* White space as text.strip() sees it: the Unicode separators and the control characters that
 * Unicode counts as white space. */
static bool is_space(utf8proc_int32_t c) {
  if ((c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x1F) || c == 0x85) return true;
  utf8proc_category_t category = utf8proc_category(c);
  return category == UTF8PROC_CATEGORY_ZS || category == UTF8PROC_CATEGORY_ZL ||
         category == UTF8PROC_CATEGORY_ZP;
}

/* Appends the lower case of one character as UTF-8. U+0130 alone becomes two characters. */
static size_t put_lower(utf8proc_int32_t c, unsigned char *to) {
  if (c == 0x130) {
    memcpy(to, "i\xCC\x87", 3);
    return 3;
  }
  return (size_t)utf8proc_encode_char(utf8proc_tolower(c), to);
}

/* Cuts the text at the sigmas that end a word, which have a lower case of their own: those behind a
 * letter and before none, whatever case-ignorable characters are between (Final_Sigma of the
 * Unicode standard, 3.13). Each is the last character of a match. */
static int find_final_sigmas(const char *text, size_t bytes, pdt_cuts *cuts, pdt_error *err) {
  static const char pattern[] = "(?!\\p{Case_Ignorable})\\p{Cased}\\p{Case_Ignorable}*+"
                                "\\x{3A3}(?!\\p{Case_Ignorable}*+\\p{Cased})";
  pdt_regex *re;
  if (!strstr(text, "\xCE\xA3")) return 0;
  if (pdt_regex_new_native(&re, pattern, "plan item", err)) return -1;
  int rc = pdt_regex_cut(re, text, bytes, cuts, err);
  pdt_regex_free(re);
  return rc;
}

/* Lowercases valid UTF-8 into `lower` and strips it. */
static void put_item(const char *text, size_t bytes, const pdt_cuts *cuts, unsigned char *lower) {
  size_t n = 0, kept = 0, cut = 0;
  for (size_t at = 0; at < bytes;) {
    utf8proc_int32_t c;
    at += (size_t)utf8proc_iterate((const unsigned char *)text + at, (utf8proc_ssize_t)(bytes - at),
                                   &c);
    while (cut < cuts->n && cuts->items[cut].end < at) cut++;
    bool ends_match = cut < cuts->n && cuts->items[cut].match && cuts->items[cut].end == at;
    if (is_space(c) && n == 0) continue;
    n += put_lower(c == 0x3A3 && ends_match ? 0x3C2 : c, lower + n);
    if (!is_space(c)) kept = n;
  }
  lower[kept] = '\0';
}

/* Strips and lowercases as Python's str does; *out is freed by the caller. */
static int normalize_item(const char *text, char **out, pdt_error *err) {
  size_t bytes = strlen(text), valid = pdt_utf8_valid(text, bytes);
  pdt_cuts cuts = {0};
  *out = NULL;
  if (valid < bytes)
    return pdt_fail(err, PDT_ERROR_INPUT, "plan item: not UTF-8 at byte %zu", valid);
  if (PDT_NEW(out, (int64_t)bytes * 2 + 8, "plan item", err)) return -1;
  int rc = find_final_sigmas(text, bytes, &cuts, err);
  if (!rc) put_item(text, bytes, &cuts, (unsigned char *)*out);
  pdt_cuts_free(&cuts);
  if (!rc) return 0;
  free(*out);
  *out = NULL;
  return -1;
}

int pdt_plan_hash(const pdt_sidecar_config *config, pdt_stream stream, const char *text,
                  int32_t *id, pdt_error *err) {
  char *item = NULL, prefix[PDT_SALT_BYTES + 32];
  if (normalize_item(text, &item, err)) return -1;
  *id = 0;
  if (*item) {
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned length = 0;
    int n = snprintf(prefix, sizeof prefix, "%s::stream_%d::", config->plan_hash_salt, stream);
    EVP_MD_CTX *hash = EVP_MD_CTX_new();
    bool ok = hash && EVP_DigestInit_ex(hash, EVP_sha256(), NULL) &&
              EVP_DigestUpdate(hash, prefix, (size_t)n) &&
              EVP_DigestUpdate(hash, item, strlen(item)) &&
              EVP_DigestFinal_ex(hash, digest, &length);
    EVP_MD_CTX_free(hash);
    if (!ok) {
      free(item);
      return pdt_fail(err, PDT_ERROR_RUNTIME, "plan item: SHA-256 is not available");
    }
    uint64_t remainder = 0;
    for (unsigned i = 0; i < length; i++)
      remainder = (remainder << 8 | digest[i]) % (uint64_t)config->plan_vocab_size;
    *id = remainder ? (int32_t)remainder : 1;
  }
  free(item);
  return 0;
}

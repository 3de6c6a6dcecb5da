#include "text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "text/pattern.h"
#include "text/unicode.h"

/* For the rare pattern that needs more of JIT's stack than the 32 KiB it has by itself. */
#define JIT_STACK_BYTES ((size_t)64 << 20)

struct pdt_regex {
  pcre2_code *code;
  bool literal;
};

static int compile(pdt_regex **out, const char *pattern, size_t bytes, uint32_t options,
                   const char *where, pdt_error *err) {
  *out = NULL;
  pdt_regex *re = calloc(1, sizeof *re);
  pcre2_compile_context *context = pcre2_compile_context_create(NULL);
  int code = 0;
  PCRE2_SIZE at = 0;
  if (re && context) {
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    re->literal = options & PCRE2_LITERAL;
    re->code = pcre2_compile((PCRE2_SPTR)pattern, bytes, options, &code, &at, context);
  }
  pcre2_compile_context_free(context);
  if (re && re->code) {
    pcre2_jit_compile(re->code, PCRE2_JIT_COMPLETE); /* without it matching is slower, not other */
    *out = re;
    return 0;
  }
  free(re);
  PCRE2_UCHAR message[160] = "";
  if (!code) return pdt_fail(err, PDT_ERROR_MEMORY, "%s: no memory for a pattern", where);
  pcre2_get_error_message(code, message, sizeof message);
  return pdt_fail(err, PDT_ERROR_INPUT, "%s: pattern '%.200s': at byte %zu: %s", where, pattern,
                  (size_t)at, (const char *)message);
}

int pdt_regex_new(pdt_regex **out, const char *pattern, size_t bytes, bool literal,
                  const char *where, pdt_error *err) {
  *out = NULL;
  if (literal) return compile(out, pattern, bytes, PCRE2_UTF | PCRE2_LITERAL, where, err);
  pdt_buffer text = {0};
  int rc = pdt_pattern_translate(&text, pattern, bytes, where, err);
  if (!rc) rc = pdt_buffer_put(&text, "", 1, err);
  if (!rc)
    rc = compile(out, text.data, text.bytes - 1,
                 PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, where, err);
  pdt_buffer_free(&text);
  return rc;
}

int pdt_regex_new_native(pdt_regex **out, const char *pattern, const char *where, pdt_error *err) {
  return compile(out, pattern, strlen(pattern), PCRE2_UTF | PCRE2_UCP, where, err);
}

void pdt_regex_free(pdt_regex *re) {
  if (!re) return;
  pcre2_code_free(re->code);
  free(re);
}

/* Writes the text into `out` with stand-ins for characters that PCRE2's tables may not know; leaves
 * `out` empty when there are none. */
static int stand_in(const char *text, size_t bytes, pdt_buffer *out, pdt_error *err) {
  for (size_t at = 0; at < bytes;) {
    size_t start = at;
    if ((unsigned char)text[at] < 0xe0) { /* stand-ins begin at U+0897 */
      at++;
      continue;
    }
    int32_t c = pdt_utf8_next(text, &at), other = pdt_stand_in(c);
    if (other == c) continue;
    if (!out->bytes && pdt_buffer_put(out, text, bytes, err)) return -1;
    pdt_utf8_encode(other, out->data + start);
  }
  return 0;
}

/* A match again, with a large stack; what JIT cannot do is left to the interpreter. */
static int match_hard(const pdt_regex *re, const char *text, size_t bytes, size_t from,
                      uint32_t options, pcre2_match_data *data) {
  int rc = PCRE2_ERROR_NOMEMORY;
  pcre2_match_context *context = pcre2_match_context_create(NULL);
  pcre2_jit_stack *stack = pcre2_jit_stack_create((size_t)64 << 10, JIT_STACK_BYTES, NULL);
  if (context && stack) {
    pcre2_jit_stack_assign(context, NULL, stack);
    rc = pcre2_match(re->code, (PCRE2_SPTR)text, bytes, from, options, data, context);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
      rc = pcre2_match(re->code, (PCRE2_SPTR)text, bytes, from, options | PCRE2_NO_JIT, data,
                       context);
  }
  pcre2_jit_stack_free(stack);
  pcre2_match_context_free(context);
  return rc;
}

/* The first match from `from` on: 1 when there is one, 0 when not, -1 with an error. */
static int match(const pdt_regex *re, const char *text, size_t bytes, size_t from, uint32_t options,
                 pcre2_match_data *data, pdt_error *err) {
  options |= PCRE2_NO_UTF_CHECK;
  int rc = pcre2_match(re->code, (PCRE2_SPTR)text, bytes, from, options, data, NULL);
  if (rc == PCRE2_ERROR_JIT_STACKLIMIT) rc = match_hard(re, text, bytes, from, options, data);
  if (rc >= 0) return 1;
  if (rc == PCRE2_ERROR_NOMATCH) return 0;
  PCRE2_UCHAR message[160] = "";
  pcre2_get_error_message(rc, message, sizeof message);
  return pdt_fail(err, PDT_ERROR_INPUT,
                  "tokenizer: matching a pattern from byte %zu of a text of %zu: %s", from, bytes,
                  (const char *)message);
}

/* All matches. One that is empty where the last one ended does not count: the search goes on one
 * character further. */
static int cut_all(const pdt_regex *re, const char *text, size_t bytes, pcre2_match_data *data,
                   pdt_cuts *cuts, pdt_error *err) {
  const PCRE2_SIZE *span = pcre2_get_ovector_pointer(data);
  size_t done = 0, from = 0;
  bool any = false;
  while (from <= bytes) {
    int rc = match(re, text, bytes, from, 0, data, err);
    if (rc < 0) return -1;
    if (!rc) break;
    size_t start = span[0], end = span[1];
    if (start == end && any && end == done) {
      if (from == bytes) break;
      pdt_utf8_next(text, &from);
      continue;
    }
    if (done < start && pdt_cuts_add(cuts, done, start, false, err)) return -1;
    if (pdt_cuts_add(cuts, start, end, true, err)) return -1;
    any = true;
    done = from = end;
  }
  return done < bytes ? pdt_cuts_add(cuts, done, bytes, false, err) : 0;
}

int pdt_regex_cut(const pdt_regex *re, const char *text, size_t bytes, pdt_cuts *cuts,
                  pdt_error *err) {
  if (!bytes) return 0;
  pdt_buffer known = {0};
  if (!re->literal && stand_in(text, bytes, &known, err)) return -1;
  pcre2_match_data *data = pcre2_match_data_create(1, NULL);
  int rc = data ? cut_all(re, known.bytes ? known.data : text, bytes, data, cuts, err)
                : pdt_fail(err, PDT_ERROR_MEMORY, "tokenizer: no memory to match");
  pcre2_match_data_free(data);
  pdt_buffer_free(&known);
  return rc;
}

int pdt_regex_matches(const pdt_regex *re, const char *text, size_t bytes, bool *out,
                      pdt_error *err) {
  *out = false;
  if (!bytes) return 0;
  pdt_buffer known = {0};
  if (!re->literal && stand_in(text, bytes, &known, err)) return -1;
  pcre2_match_data *data = pcre2_match_data_create(1, NULL);
  int rc = data ? match(re, known.bytes ? known.data : text, bytes, 0, PCRE2_ANCHORED, data, err)
                : pdt_fail(err, PDT_ERROR_MEMORY, "tokenizer: no memory to match");
  *out = rc > 0;
  pcre2_match_data_free(data);
  pdt_buffer_free(&known);
  return rc < 0 ? -1 : 0;
}

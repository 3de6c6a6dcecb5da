#include "text/decoder.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "text/component.h"
#include "text/unicode.h"

#define REPLACEMENT "\xef\xbf\xbd" /* U+FFFD */

typedef struct step {
  enum kind { JOIN, BYTE_LEVEL, BYTE_FALLBACK, FUSE, STRIP, REPLACE, METASPACE } kind;
  int32_t character;   /* of STRIP and METASPACE */
  int64_t start, stop; /* of STRIP: how many at most */
  bool drop_first;     /* of METASPACE: none in the first token */
  pdt_regex *pattern;  /* of REPLACE, like the rest */
  char *content;
  size_t content_bytes;
} step;

struct pdt_decoder {
  step steps[PDT_MAX_COMPONENTS];
  int n;
};

static int load_strip(step *s, const json_t *object, const char *where, pdt_error *err) {
  if (pdt_component_char(object, where, "content", &s->character, err) ||
      pdt_json_integer(object, where, "start", 0, INT32_MAX, &s->start, err))
    return -1;
  return pdt_json_integer(object, where, "stop", 0, INT32_MAX, &s->stop, err);
}

static int load_metaspace(step *s, const json_t *object, const char *where, pdt_error *err) {
  const char *scheme = NULL;
  bool prefix = true;
  if (pdt_component_char(object, where, "replacement", &s->character, err) ||
      pdt_json_string_or(object, where, "prepend_scheme", &scheme, err) ||
      pdt_json_bool_or(object, where, "add_prefix_space", &prefix, err))
    return -1;
  s->drop_first = scheme ? strcmp(scheme, "never") != 0 : prefix;
  if (!scheme || !s->drop_first ||
      (prefix && (!strcmp(scheme, "always") || !strcmp(scheme, "first"))))
    return 0;
  return pdt_fail(err, PDT_ERROR_INPUT, "%s: 'prepend_scheme': expected %s, found '%.40s'", where,
                  prefix ? "always, first or never" : "never, since add_prefix_space is false",
                  scheme);
}

static int load_step(void *context, const json_t *object, const char *type, const char *where,
                     pdt_error *err) {
  static const struct {
    const char *name;
    enum kind kind;
  } types[] = {
      {"ByteLevel", BYTE_LEVEL}, {"ByteFallback", BYTE_FALLBACK}, {"Fuse", FUSE}, {"Strip", STRIP},
      {"Replace", REPLACE},      {"Metaspace", METASPACE}};
  pdt_decoder *d = context;
  size_t i = 0;
  while (i < sizeof types / sizeof *types && strcmp(type, types[i].name) != 0) i++;
  if (i == sizeof types / sizeof *types)
    return pdt_component_refuse(
        where, type, "Sequence, ByteLevel, ByteFallback, Fuse, Strip, Replace, Metaspace", err);
  step *s = &d->steps[d->n++];
  *s = (step){.kind = types[i].kind};
  switch (s->kind) {
  case STRIP:
    return load_strip(s, object, where, err);
  case METASPACE:
    return load_metaspace(s, object, where, err);
  case REPLACE:
    if (pdt_component_string(object, where, "content", &s->content, &s->content_bytes, err))
      return -1;
    return pdt_component_pattern(&s->pattern, object, where, err);
  default:
    return 0;
  }
}

int pdt_decoder_load(pdt_decoder **out, const json_t *value, const char *where, pdt_error *err) {
  if (PDT_NEW(out, 1, "decoder", err)) return -1;
  if (!pdt_components(value, "decoders", where, load_step, *out, err)) {
    bool absent = !value || json_is_null(value);
    if (absent) (*out)->steps[(*out)->n++] = (step){.kind = JOIN};
    return 0;
  }
  pdt_decoder_free(*out);
  *out = NULL;
  return -1;
}

void pdt_decoder_free(pdt_decoder *d) {
  for (int i = 0; d && i < d->n; i++) {
    pdt_regex_free(d->steps[i].pattern);
    free(d->steps[i].content);
  }
  free(d);
}

/* What a step remembers. */
typedef struct state {
  pdt_buffer token; /* the token so far, in steps that need all of it */
  pdt_buffer bytes; /* of BYTE_FALLBACK, the run of byte tokens; of BYTE_LEVEL, an unfinished
                       character */
  pdt_buffer out;   /* scratch */
  int64_t n_tokens; /* begun so far */
  int64_t stripped; /* of STRIP: characters cut off the token's start; -1 once one was not */
  int64_t held;     /* of STRIP: characters that are cut off if the token ends here */
  bool begun;       /* of BYTE_LEVEL and FUSE: their one token */
} state;

struct pdt_decoding {
  const pdt_decoder *decoder;
  state states[PDT_MAX_COMPONENTS];
  pdt_buffer *out; /* while a call lasts */
  pdt_error *err;
};

/* Steps pass tokens on in parts, each of whole characters: these say which ends it holds. */
enum { BEGIN = 1, END = 2 };

static int pass(pdt_decoding *d, int k, const char *text, size_t bytes, int ends);

/* Replaces what is no UTF-8, in the way that Unicode recommends: one U+FFFD for every part that
 * could have begun a character. An unfinished character at the end is left in `bytes`. */
static int decode_lossily(pdt_buffer *bytes, bool at_end, pdt_buffer *out, pdt_error *err) {
  size_t at = 0;
  while (at < bytes->bytes) {
    const unsigned char *s = (const unsigned char *)bytes->data + at;
    size_t left = bytes->bytes - at, good = pdt_utf8_valid(bytes->data + at, left);
    if (pdt_buffer_put(out, s, good, err)) return -1;
    at += good;
    if (good == left) break;
    s += good;
    left -= good;
    size_t wanted = s[0] >= 0xf0 && s[0] <= 0xf4 ? 4 : s[0] >= 0xe0 ? 3 : 2, n = 1;
    unsigned low = s[0] == 0xe0 ? 0xa0 : s[0] == 0xf0 ? 0x90 : 0x80;
    unsigned high = s[0] == 0xed ? 0x9f : s[0] == 0xf4 ? 0x8f : 0xbf;
    if (s[0] < 0xc2 || s[0] > 0xf4) wanted = 1;
    while (n < wanted && n < left && s[n] >= low && s[n] <= high) {
      n++;
      low = 0x80;
      high = 0xbf;
    }
    if (n == left && n < wanted && !at_end) break;
    if (pdt_buffer_put(out, REPLACEMENT, 3, err)) return -1;
    at += n;
  }
  if (at) memmove(bytes->data, bytes->data + at, bytes->bytes - at);
  bytes->bytes -= at;
  return 0;
}

/* A token of the byte-level alphabet gives its bytes; any other stands for itself. */
static int byte_level(pdt_decoding *d, int k, const char *token, size_t bytes) {
  state *s = &d->states[k];
  size_t before = s->bytes.bytes;
  for (size_t at = 0; at < bytes;) {
    int byte = pdt_char_to_byte(pdt_utf8_next(token, &at));
    char c = (char)byte;
    if (byte >= 0) {
      if (pdt_buffer_put(&s->bytes, &c, 1, d->err)) return -1;
      continue;
    }
    s->bytes.bytes = before;
    if (pdt_buffer_put(&s->bytes, token, bytes, d->err)) return -1;
    break;
  }
  s->out.bytes = 0;
  if (decode_lossily(&s->bytes, false, &s->out, d->err)) return -1;
  int ends = s->begun ? 0 : BEGIN;
  s->begun = true;
  return pass(d, k + 1, s->out.data, s->out.bytes, ends);
}

/* The byte of a token "<0xHH>", -1 for others. One digit after a plus sign counts, as it does for
 * the parser of Rust. */
static int byte_of(const char *token, size_t bytes) {
  if (bytes != 6 || memcmp(token, "<0x", 3) != 0 || token[5] != '>') return -1;
  if (!isxdigit((unsigned char)token[4])) return -1;
  if (!isxdigit((unsigned char)token[3]) && token[3] != '+') return -1;
  char digits[3] = {token[3] == '+' ? '0' : token[3], token[4], 0};
  return (int)strtol(digits, NULL, 16);
}

/* A run of byte tokens has ended: text when it is UTF-8, one U+FFFD a byte when not. */
static int end_run(pdt_decoding *d, int k) {
  state *s = &d->states[k];
  size_t n = s->bytes.bytes;
  s->bytes.bytes = 0;
  if (!n) return 0;
  if (pdt_utf8_valid(s->bytes.data, n) == n) return pass(d, k + 1, s->bytes.data, n, BEGIN | END);
  for (size_t i = 0; i < n; i++)
    if (pass(d, k + 1, REPLACEMENT, 3, BEGIN | END)) return -1;
  return 0;
}

static int byte_fallback(pdt_decoding *d, int k, const char *token, size_t bytes) {
  int byte = byte_of(token, bytes);
  char c = (char)byte;
  if (byte >= 0) return pdt_buffer_put(&d->states[k].bytes, &c, 1, d->err);
  return end_run(d, k) ? -1 : pass(d, k + 1, token, bytes, BEGIN | END);
}

static int replace(pdt_decoding *d, int k, const char *token, size_t bytes) {
  const step *p = &d->decoder->steps[k];
  state *s = &d->states[k];
  pdt_cuts cuts = {0};
  int rc = pdt_regex_cut(p->pattern, token, bytes, &cuts, d->err);
  s->out.bytes = 0;
  for (size_t i = 0; !rc && i < cuts.n; i++) {
    const pdt_cut *cut = &cuts.items[i];
    rc = cut->match ? pdt_buffer_put(&s->out, p->content, p->content_bytes, d->err)
                    : pdt_buffer_put(&s->out, token + cut->start, cut->end - cut->start, d->err);
  }
  pdt_cuts_free(&cuts);
  return rc ? -1 : pass(d, k + 1, s->out.data, s->out.bytes, BEGIN | END);
}

/* Steps that need a token as a whole. */
static int whole(pdt_decoding *d, int k, const char *text, size_t bytes, int ends) {
  state *s = &d->states[k];
  if (ends != (BEGIN | END)) {
    if (ends & BEGIN) s->token.bytes = 0;
    if (pdt_buffer_put(&s->token, text, bytes, d->err)) return -1;
    if (!(ends & END)) return 0;
    text = s->token.data;
    bytes = s->token.bytes;
  }
  switch (d->decoder->steps[k].kind) {
  case BYTE_LEVEL:
    return byte_level(d, k, text, bytes);
  case BYTE_FALLBACK:
    return byte_fallback(d, k, text, bytes);
  default:
    return replace(d, k, text, bytes);
  }
}

/* Cuts characters off both ends of a token: those at its start at once, while those that may be at
 * its end wait. */
static int strip(pdt_decoding *d, int k, const char *text, size_t bytes, int ends) {
  const step *p = &d->decoder->steps[k];
  state *s = &d->states[k];
  char utf8[4];
  size_t n = pdt_utf8_encode(p->character, utf8);
  s->out.bytes = 0;
  if (ends & BEGIN) s->stripped = s->held = 0;
  for (size_t at = 0; at < bytes;) {
    size_t from = at;
    bool same = pdt_utf8_next(text, &at) == p->character;
    if (same && s->stripped >= 0 && s->stripped < p->start) {
      s->stripped++;
      continue;
    }
    s->stripped = -1;
    if (same && s->held < p->stop) {
      s->held++;
      continue;
    }
    for (; !same && s->held; s->held--)
      if (pdt_buffer_put(&s->out, utf8, n, d->err)) return -1;
    if (pdt_buffer_put(&s->out, text + from, at - from, d->err)) return -1;
  }
  return pass(d, k + 1, s->out.data, s->out.bytes, ends);
}

static int metaspace(pdt_decoding *d, int k, const char *text, size_t bytes, int ends) {
  const step *p = &d->decoder->steps[k];
  state *s = &d->states[k];
  bool drop = p->drop_first && s->n_tokens == 1;
  s->out.bytes = 0;
  for (size_t at = 0; at < bytes;) {
    size_t from = at;
    bool space = pdt_utf8_next(text, &at) == p->character;
    if (space && drop) continue;
    if (space ? pdt_buffer_put(&s->out, " ", 1, d->err)
              : pdt_buffer_put(&s->out, text + from, at - from, d->err))
      return -1;
  }
  return pass(d, k + 1, s->out.data, s->out.bytes, ends);
}

/* Hands a part of a token to step k. */
static int pass(pdt_decoding *d, int k, const char *text, size_t bytes, int ends) {
  if (k == d->decoder->n) return pdt_buffer_put(d->out, text, bytes, d->err);
  state *s = &d->states[k];
  if (ends & BEGIN) s->n_tokens++;
  bool first = !s->begun;
  switch (d->decoder->steps[k].kind) {
  case JOIN:
    if ((ends & BEGIN) && s->n_tokens > 1 && pass(d, k + 1, " ", 1, 0)) return -1;
    return pass(d, k + 1, text, bytes, ends);
  case FUSE:
    s->begun = true;
    return pass(d, k + 1, text, bytes, first ? BEGIN : 0);
  case STRIP:
    return strip(d, k, text, bytes, ends);
  case METASPACE:
    return metaspace(d, k, text, bytes, ends);
  default:
    return whole(d, k, text, bytes, ends);
  }
}

/* Ends the text in step k; the steps before it have ended. */
static int finish(pdt_decoding *d, int k) {
  state *s = &d->states[k];
  enum kind kind = d->decoder->steps[k].kind;
  if (kind == BYTE_FALLBACK) return end_run(d, k);
  if (kind != BYTE_LEVEL && kind != FUSE) return 0;
  s->out.bytes = 0;
  if (kind == BYTE_LEVEL && decode_lossily(&s->bytes, true, &s->out, d->err)) return -1;
  return pass(d, k + 1, s->out.data, s->out.bytes, s->begun ? END : BEGIN | END);
}

int pdt_decoding_new(pdt_decoding **out, const pdt_decoder *d, pdt_error *err) {
  if (PDT_NEW(out, 1, "decoder", err)) return -1;
  (*out)->decoder = d;
  return 0;
}

void pdt_decoding_free(pdt_decoding *d) {
  for (int i = 0; d && i < d->decoder->n; i++) {
    pdt_buffer_free(&d->states[i].token);
    pdt_buffer_free(&d->states[i].bytes);
    pdt_buffer_free(&d->states[i].out);
  }
  free(d);
}

int pdt_decoding_push(pdt_decoding *d, const char *token, size_t bytes, pdt_buffer *out,
                      pdt_error *err) {
  d->out = out;
  d->err = err;
  return pass(d, 0, token, bytes, BEGIN | END);
}

int pdt_decoding_finish(pdt_decoding *d, pdt_buffer *out, pdt_error *err) {
  d->out = out;
  d->err = err;
  for (int k = 0; k < d->decoder->n; k++)
    if (finish(d, k)) return -1;
  return 0;
}

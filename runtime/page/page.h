/* The page that shows a decode: streams side by side, round by round. It is one file of HTML that
 * needs nothing from anywhere; what it shows stands in it as JSON, or comes to it by the events of
 * pdt serve. page.html, page.css and page.js are built in. No communication. */
#ifndef PDT_PAGE_PAGE_H
#define PDT_PAGE_PAGE_H

#include <stdio.h>

#include "base/error.h"
#include "protocol/decide.h"
#include "protocol/window.h"

typedef enum pdt_page_kind {
  PDT_PAGE_LIVE, /* may ask the server that it came from */
  PDT_PAGE_FILE, /* may ask nobody */
} pdt_page_kind;

/* The page with `json` [bytes], a JSON value, in it: sets *html [*html_bytes], freed by the caller.
 * Errors: MEMORY. */
int pdt_page_make(char **html, size_t *html_bytes, pdt_page_kind kind, const char *json,
                  size_t bytes, pdt_error *err);

/* The Content-Security-Policy that the page names, a text of its own: nothing but its own style and
 * script, by their hashes. Freed by the caller; NULL without memory. */
char *pdt_page_policy(pdt_page_kind kind);

/* Writes a JSON value so that it can stand in an element of HTML, and means the same: what could
 * end the element, or a line, is written as \uXXXX. Such characters stand in texts of JSON only.
 * Errors stay in the stream (ferror). */
void pdt_page_put_data(FILE *out, const char *json, size_t bytes);

/* One stream's block of a round, and what became of it. */
typedef struct pdt_page_block {
  pdt_stream stream;
  int32_t attempt; /* earlier attempts since the commit point */
  pdt_action action;
  float readiness;
  int32_t n_tokens;
  const char *text; /* [bytes], UTF-8: what the block adds to its stream's part of the answer */
  size_t bytes;
} pdt_page_block;

/* One round of a session, but for its blocks. */
typedef struct pdt_page_round {
  pdt_round round;
  bool gate;
  const pdt_note_name *window; /* [n_window], the caller's */
  int32_t n_window;
} pdt_page_round;

/* Writes a round as the page reads it, in three steps: its beginning, each of its blocks (i: from
 * 0), its end:
 *   {"round":,"gate":,"window":[[round,stream],...],"blocks":[
 *     {"stream":,"action":"","attempt":,"readiness":,"tokens":,"text":""},...]}
 * the plan's note being [0,-1]. False: a text that is no UTF-8, or no memory to quote it. Other
 * errors stay in the stream. */
void pdt_page_round_begin(FILE *out, const pdt_page_round *round);
bool pdt_page_round_block(FILE *out, int32_t i, const pdt_page_block *block);
void pdt_page_round_end(FILE *out);

#endif

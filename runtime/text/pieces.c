#include "text/pieces.h"

#include <stdlib.h>
#include <string.h>

#include "text/unicode.h"

pdt_origin pdt_origin_from(pdt_origin origin, size_t start) {
  return (pdt_origin){origin.leading > start ? origin.leading - start : 0,
                      origin.middle && start == 0};
}

int pdt_pieces_add(pdt_pieces *p, const char *text, size_t bytes, pdt_origin origin, pdt_token id,
                   pdt_error *err) {
  if (!bytes && id < 0) return 0;
  if (PDT_GROW(&p->items, p->n, &p->room, err)) return -1;
  size_t at = p->text.bytes;
  if (pdt_buffer_put(&p->text, text, bytes, err)) return -1;
  if (origin.leading > bytes) origin.leading = bytes;
  p->items[p->n++] = (pdt_piece){at, bytes, origin, id};
  return 0;
}

int pdt_pieces_copy(pdt_pieces *p, const pdt_pieces *from, size_t i, pdt_error *err) {
  const pdt_piece *piece = &from->items[i];
  return pdt_pieces_add(p, from->text.data + piece->at, piece->bytes, piece->origin, piece->id,
                        err);
}

void pdt_pieces_clear(pdt_pieces *p) {
  p->text.bytes = 0;
  p->n = 0;
}

void pdt_pieces_free(pdt_pieces *p) {
  pdt_buffer_free(&p->text);
  free(p->items);
  *p = (pdt_pieces){0};
}

int pdt_cuts_add(pdt_cuts *cuts, size_t start, size_t end, bool match, pdt_error *err) {
  if (PDT_GROW(&cuts->items, cuts->n, &cuts->room, err)) return -1;
  cuts->items[cuts->n++] = (pdt_cut){start, end, match};
  return 0;
}

int pdt_cuts_by_char(pdt_cuts *cuts, const char *text, size_t bytes,
                     bool (*matches)(int32_t c, int32_t argument), int32_t argument,
                     pdt_error *err) {
  size_t done = 0;
  for (size_t at = 0; at < bytes;) {
    size_t start = at;
    if (!matches(pdt_utf8_next(text, &at), argument)) continue;
    if (done < start && pdt_cuts_add(cuts, done, start, false, err)) return -1;
    if (pdt_cuts_add(cuts, start, at, true, err)) return -1;
    done = at;
  }
  return done < bytes ? pdt_cuts_add(cuts, done, bytes, false, err) : 0;
}

void pdt_cuts_free(pdt_cuts *cuts) {
  free(cuts->items);
  *cuts = (pdt_cuts){0};
}

bool pdt_behavior_parse(const char *name, pdt_behavior *out) {
  static const char *const names[] = {
      [PDT_REMOVED] = "Removed",
      [PDT_ISOLATED] = "Isolated",
      [PDT_MERGED_WITH_PREVIOUS] = "MergedWithPrevious",
      [PDT_MERGED_WITH_NEXT] = "MergedWithNext",
      [PDT_CONTIGUOUS] = "Contiguous",
  };
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    if (strcmp(name, names[i]) != 0) continue;
    *out = (pdt_behavior)i;
    return true;
  }
  return false;
}

/* Does a cut join the one before it (in the order of going through them)? A match joins what is not
 * a match; contiguous cuts join their like. The first of all joins a match that is not there. */
static bool joins(pdt_behavior behavior, bool match, bool previous) {
  return behavior == PDT_CONTIGUOUS ? match == previous : match && !previous;
}

/* Joins cuts from left to right. */
static void join_forward(pdt_cuts *cuts, pdt_behavior behavior) {
  size_t n = 0;
  bool previous = false;
  for (size_t i = 0; i < cuts->n; i++) {
    pdt_cut cut = cuts->items[i];
    if (n && joins(behavior, cut.match, previous))
      cuts->items[n - 1].end = cut.end;
    else
      cuts->items[n++] = cut;
    previous = cut.match;
  }
  cuts->n = n;
}

/* Joins cuts from right to left; the result stands at the end of the array, from *first. */
static void join_backward(pdt_cuts *cuts, size_t *first) {
  size_t to = cuts->n;
  bool previous = false;
  for (size_t i = cuts->n; i-- > 0;) {
    pdt_cut cut = cuts->items[i];
    if (to < cuts->n && joins(PDT_MERGED_WITH_NEXT, cut.match, previous))
      cuts->items[to].start = cut.start;
    else
      cuts->items[--to] = cut;
    previous = cut.match;
  }
  *first = to;
}

int pdt_pieces_split(pdt_pieces *out, const pdt_pieces *from, size_t i, pdt_cuts *cuts,
                     pdt_behavior behavior, pdt_error *err) {
  size_t first = 0;
  if (behavior == PDT_MERGED_WITH_NEXT)
    join_backward(cuts, &first);
  else if (behavior == PDT_MERGED_WITH_PREVIOUS || behavior == PDT_CONTIGUOUS)
    join_forward(cuts, behavior);
  const pdt_piece *piece = &from->items[i];
  for (size_t k = first; k < cuts->n; k++) {
    const pdt_cut *cut = &cuts->items[k];
    if (behavior == PDT_REMOVED && cut->match) continue;
    if (pdt_pieces_add(out, from->text.data + piece->at + cut->start, cut->end - cut->start,
                       pdt_origin_from(piece->origin, cut->start), -1, err))
      return -1;
  }
  return 0;
}

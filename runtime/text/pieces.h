/* The text on its way to ids: a list of pieces, which normalizers change and pre-tokenizers split;
 * and the cuts a pattern makes in a piece. */
#ifndef PDT_TEXT_PIECES_H
#define PDT_TEXT_PIECES_H

#include "base/buffer.h"

/* Where a piece of text comes from. */
typedef struct pdt_origin {
  size_t leading; /* how many of its first bytes stem from the first character of the input */
  bool middle; /* it goes on with a text that stands before the input: nothing is put before it */
} pdt_origin;

/* The origin of what is left of a piece from byte `start` on. */
pdt_origin pdt_origin_from(pdt_origin origin, size_t start);

/* A piece of text, or an added token that was found in it. */
typedef struct pdt_piece {
  size_t at, bytes; /* in pdt_pieces.text */
  pdt_origin origin;
  pdt_token id; /* -1 for text that is still to be split and encoded */
} pdt_piece;

/* A zeroed pdt_pieces is an empty list. */
typedef struct pdt_pieces {
  pdt_buffer text;
  pdt_piece *items;
  size_t n, room;
} pdt_pieces;

/* Appends a piece and its text, which must not lie in this list; nothing when the piece is empty
 * text. Errors: MEMORY. */
int pdt_pieces_add(pdt_pieces *p, const char *text, size_t bytes, pdt_origin origin, pdt_token id,
                   pdt_error *err);

/* Appends a copy of piece i of another list. Errors: MEMORY. */
int pdt_pieces_copy(pdt_pieces *p, const pdt_pieces *from, size_t i, pdt_error *err);

/* Empties the list, keeping its memory. */
void pdt_pieces_clear(pdt_pieces *p);
void pdt_pieces_free(pdt_pieces *p);

/* A span of a text, and whether the pattern matched it. Cuts cover their text without gaps. */
typedef struct pdt_cut {
  size_t start, end;
  bool match;
} pdt_cut;

/* A zeroed pdt_cuts is an empty list. */
typedef struct pdt_cuts {
  pdt_cut *items;
  size_t n, room;
} pdt_cuts;

/* Appends a cut. Errors: MEMORY. */
int pdt_cuts_add(pdt_cuts *cuts, size_t start, size_t end, bool match, pdt_error *err);

/* Cuts the text into single characters that match and the runs between them. Errors: MEMORY. */
int pdt_cuts_by_char(pdt_cuts *cuts, const char *text, size_t bytes,
                     bool (*matches)(int32_t c, int32_t argument), int32_t argument,
                     pdt_error *err);

void pdt_cuts_free(pdt_cuts *cuts);

/* What becomes of matches when a piece is split ("behavior" in tokenizer.json). */
typedef enum pdt_behavior {
  PDT_REMOVED,
  PDT_ISOLATED,
  PDT_MERGED_WITH_PREVIOUS,
  PDT_MERGED_WITH_NEXT,
  PDT_CONTIGUOUS,
} pdt_behavior;

/* Parses a name as tokenizer.json has it ("MergedWithNext"); false when it is another. */
bool pdt_behavior_parse(const char *name, pdt_behavior *out);

/* Appends to `out` the pieces that cuts make of piece i of `from`. The cuts are changed. Errors:
 * MEMORY. */
int pdt_pieces_split(pdt_pieces *out, const pdt_pieces *from, size_t i, pdt_cuts *cuts,
                     pdt_behavior behavior, pdt_error *err);

#endif

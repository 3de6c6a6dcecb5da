/* Facts read back from text, exactly: whatever wrote it, a sentence is one of the world's or it is
 * malformed. */
#ifndef PDT_ATLAS_PARSE_H
#define PDT_ATLAS_PARSE_H

#include "atlas/world.h"

/* A name in its sentence. Bytes are those of the text, the space before the name not included. */
typedef struct pdt_atlas_mention {
  pdt_mention_kind kind;
  int32_t type;
  int32_t value; /* -1: none of this type's names */
  size_t begin, end;
  bool complete; /* no later word can belong to the name */
  bool closed;   /* its sentence has ended */
} pdt_atlas_mention;

/* What a text says. A zeroed one is empty and may be parsed into again and again. */
typedef struct pdt_atlas_reading {
  pdt_atlas_mention *mentions; /* in the order of the text */
  size_t n, room;
  int32_t sentences;   /* that have ended; the malformed among them */
  int32_t malformed;   /* ended, and no sentence of the world */
  int32_t other_towns; /* naming another town than the one expected */
  bool open;           /* words follow the last sentence's end */
  bool open_malformed; /* and no sentence of the world begins so */
  int32_t heading;     /* the section whose heading begins the text; -1: none does */
} pdt_atlas_reading;

/* Parses text[0, bytes), which need not be UTF-8, and may begin with a heading. town: index of the
 * town it is about; -1 when unknown, any is right then. A semicolon ends a sentence as a full stop
 * does. Of a last sentence that has no end, the name is a mention as soon as its first word is
 * there. Errors: MEMORY. */
int pdt_atlas_parse(const pdt_atlas_world *world, int32_t town, const char *text, size_t bytes,
                    pdt_atlas_reading *out, pdt_error *err);

void pdt_atlas_reading_free(pdt_atlas_reading *r);

#endif

/* Which notes a stream sees in a round (3.3, eq. 4). Decoding, training, labelling of data and
 * evaluation all ask here. Pure functions over the names of notes. */
#ifndef PDT_PROTOCOL_WINDOW_H
#define PDT_PROTOCOL_WINDOW_H

#include "base/types.h"

enum { PDT_PLANNER = -1 }; /* the stream of the plan's note, which is of round 0 */

/* What names a note: the round in which it was emitted, and who emitted it. */
typedef struct pdt_note_name {
  pdt_round round;
  pdt_stream stream;
} pdt_note_name;

/* Delta and B of eq. 4. */
typedef struct pdt_window_rule {
  int32_t delay;  /* rounds until a note is revealed, >= 1; the plan's is revealed at once */
  int32_t budget; /* most notes of a window, the plan's included, >= 0 */
} pdt_window_rule;

/* May streams see the note in this round, as far as its age goes? */
bool pdt_note_is_revealed(pdt_note_name note, pdt_round round, int32_t delay);

/* The order of notes in every window: the plan's, then the newest round first, streams ascending.
 * Negative when a comes before b, 0 when they are the same. */
int pdt_note_order(pdt_note_name a, pdt_note_name b);

/* Names in an array of whatever: the i-th stands i * stride bytes behind the first. Rounds ascend,
 * and streams within a round, so that the plan's note, where there is one, is the first. */
typedef struct pdt_note_names {
  const pdt_note_name *first;
  size_t stride;
  int32_t n;
} pdt_note_names;

/* W_v: the revealed notes in their order, cut to the budget. Fills window[min(n, budget)] with
 * their indices and returns how many they are. */
int32_t pdt_window_notes(pdt_note_names notes, pdt_round round, pdt_window_rule rule,
                         int32_t *window);

#endif

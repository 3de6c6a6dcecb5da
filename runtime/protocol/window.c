#include "protocol/window.h"

bool pdt_note_is_revealed(pdt_note_name note, pdt_round round, int32_t delay) {
  return note.stream == PDT_PLANNER || (int64_t)note.round <= (int64_t)round - delay;
}

int pdt_note_order(pdt_note_name a, pdt_note_name b) {
  bool a_plan = a.stream == PDT_PLANNER, b_plan = b.stream == PDT_PLANNER;
  if (a_plan != b_plan) return a_plan ? -1 : 1;
  if (a.round != b.round) return a.round > b.round ? -1 : 1;
  return (a.stream > b.stream) - (a.stream < b.stream);
}

static pdt_note_name name_at(const pdt_note_names *notes, int32_t i) {
  return *(const pdt_note_name *)(const void *)((const char *)notes->first +
                                                (size_t)i * notes->stride);
}

/* Where the run of notes of one round begins that ends before `end`. */
static int32_t begin_of_round(const pdt_note_names *notes, int32_t end) {
  int32_t begin = end - 1;
  while (begin > 0 && name_at(notes, begin - 1).round == name_at(notes, end - 1).round) begin--;
  return begin;
}

int32_t pdt_window_notes(pdt_note_names notes, pdt_round round, pdt_window_rule rule,
                         int32_t *window) {
  int32_t n = 0, first = notes.n > 0 && name_at(&notes, 0).stream == PDT_PLANNER;
  if (first && rule.budget > 0) window[n++] = 0;
  for (int32_t end = notes.n; end > first && n < rule.budget;) {
    int32_t begin = begin_of_round(&notes, end);
    if (begin < first) begin = first;
    bool revealed = pdt_note_is_revealed(name_at(&notes, begin), round, rule.delay);
    for (int32_t i = begin; i < end && n < rule.budget && revealed; i++) window[n++] = i;
    end = begin;
  }
  return n;
}

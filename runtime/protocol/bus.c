#include "protocol/bus.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/memory.h"

int pdt_bus_new(pdt_bus *bus, int32_t dim, int32_t delay, int32_t budget, int32_t capacity,
                pdt_error *err) {
  *bus = (pdt_bus){.dim = dim, .delay = delay, .budget = budget, .capacity = capacity};
  if (PDT_NEW(&bus->notes, capacity, "notes bus", err) ||
      PDT_NEW(&bus->vectors, (int64_t)capacity * dim, "notes bus", err) ||
      PDT_NEW(&bus->free_slots, capacity, "notes bus", err)) {
    pdt_bus_free(bus);
    return -1;
  }
  for (int32_t i = 0; i < capacity; i++) bus->free_slots[i] = capacity - 1 - i;
  bus->n_free = capacity;
  return 0;
}

void pdt_bus_free(pdt_bus *bus) {
  free(bus->notes);
  free(bus->vectors);
  free(bus->free_slots);
  *bus = (pdt_bus){0};
}

int pdt_bus_publish(pdt_bus *bus, pdt_round round, pdt_stream stream, pdt_error *err) {
  if (bus->count == bus->capacity)
    return pdt_fail(err, PDT_ERROR_RUNTIME, "notes bus: full with %d notes at round %d, stream %d",
                    bus->count, round, stream);
  if (bus->count > 0) {
    const pdt_note *last = &bus->notes[bus->count - 1];
    if (last->round > round || (last->round == round && last->stream >= stream))
      return pdt_fail(err, PDT_ERROR_RUNTIME,
                      "notes bus: note (%d, %d) published after (%d, %d): out of order", round,
                      stream, last->round, last->stream);
  }
  int32_t slot = bus->free_slots[--bus->n_free];
  bus->notes[bus->count++] = (pdt_note){
      .round = round, .stream = stream, .vector = bus->vectors + (int64_t)slot * bus->dim};
  return 0;
}

bool pdt_bus_fill(pdt_bus *bus, pdt_round round, pdt_stream stream, const float *vector) {
  for (int32_t i = bus->count - 1; i >= 0 && bus->notes[i].round >= round; i--) {
    pdt_note *note = &bus->notes[i];
    if (note->round != round || note->stream != stream) continue;
    memcpy(note->vector, vector, (size_t)bus->dim * sizeof *vector);
    note->hash = XXH3_64bits(note->vector, (size_t)bus->dim * sizeof *vector);
    note->filled = true;
    return true;
  }
  return false;
}

void pdt_bus_withdraw(pdt_bus *bus, pdt_stream stream, pdt_round first_round) {
  int32_t kept = 0;
  for (int32_t i = 0; i < bus->count; i++) {
    const pdt_note *note = &bus->notes[i];
    if (note->stream == stream && note->round >= first_round)
      bus->free_slots[bus->n_free++] = (int32_t)((note->vector - bus->vectors) / bus->dim);
    else
      bus->notes[kept++] = *note;
  }
  bus->count = kept;
}

int32_t pdt_bus_window(const pdt_bus *bus, pdt_round round, int32_t *window) {
  int32_t n = 0, end = bus->count;
  if (bus->count > 0 && bus->notes[0].stream == PDT_PLANNER && bus->budget > 0) window[n++] = 0;
  while (end > 0 && n < bus->budget) { /* one round's run of notes at a time, newest first */
    int32_t begin = end - 1;
    while (begin > 0 && bus->notes[begin - 1].round == bus->notes[end - 1].round) begin--;
    bool visible = bus->notes[begin].round <= round - bus->delay;
    for (int32_t i = begin; i < end && n < bus->budget && visible; i++)
      if (bus->notes[i].stream != PDT_PLANNER) window[n++] = i;
    end = begin;
  }
  return n;
}

uint64_t pdt_bus_hash(const pdt_bus *bus) {
  uint64_t hash = 0;
  for (int32_t i = 0; i < bus->count; i++) {
    const pdt_note *note = &bus->notes[i];
    const uint64_t words[3] = {(uint64_t)(uint32_t)note->round << 32 | (uint32_t)note->stream,
                               note->filled, note->hash};
    hash = XXH3_64bits_withSeed(words, sizeof words, hash);
  }
  return hash;
}

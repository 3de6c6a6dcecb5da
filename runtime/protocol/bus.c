#include "protocol/bus.h"

#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__) && __has_include(<xxh_x86dispatch.h>)
#include <xxh_x86dispatch.h> /* the same hashes by the machine's widest vectors */
#else
#include <xxhash.h>
#endif

#include "base/memory.h"

int pdt_bus_new(pdt_bus *bus, int32_t dim, pdt_window_rule rule, int32_t capacity, pdt_error *err) {
  *bus = (pdt_bus){.dim = dim, .rule = rule};
  return pdt_bus_reserve(bus, capacity, err);
}

/* Takes the notes and their vectors to the larger arrays. */
static void move_notes(pdt_bus *bus, pdt_note *notes, float *vectors) {
  for (int32_t i = 0; i < bus->count; i++) {
    notes[i] = bus->notes[i];
    notes[i].vector = vectors + (int64_t)notes[i].slot * bus->dim;
    if (bus->dim > 0)
      memcpy(notes[i].vector, bus->notes[i].vector, (size_t)bus->dim * sizeof *vectors);
  }
}

int pdt_bus_reserve(pdt_bus *bus, int32_t n, pdt_error *err) {
  int64_t wanted = (int64_t)bus->count + n, larger = 2 * (int64_t)bus->capacity;
  if (wanted <= bus->capacity && bus->notes) return 0;
  if (larger < wanted) larger = wanted;
  pdt_note *notes = NULL;
  float *vectors = NULL;
  int32_t *free_slots = NULL;
  bool *seen = NULL;
  if (larger > INT32_MAX)
    return pdt_fail(err, PDT_ERROR_MEMORY, "notes bus: room for %lld notes is too much",
                    (long long)larger);
  if (PDT_NEW(&notes, larger, "notes bus", err) ||
      PDT_NEW(&vectors, larger * bus->dim, "notes bus", err) ||
      PDT_NEW(&free_slots, larger, "notes bus", err) || PDT_NEW(&seen, larger, "notes bus", err)) {
    free(notes);
    free(vectors);
    free(free_slots);
    return -1;
  }
  for (int32_t slot = (int32_t)larger; slot > bus->capacity; slot--)
    free_slots[larger - slot] = slot - 1;
  int32_t fresh = (int32_t)larger - bus->capacity;
  if (bus->n_free > 0)
    memcpy(free_slots + fresh, bus->free_slots, (size_t)bus->n_free * sizeof *free_slots);
  move_notes(bus, notes, vectors);
  free(bus->notes);
  free(bus->vectors);
  free(bus->free_slots);
  free(bus->seen);
  bus->seen = seen;
  bus->notes = notes;
  bus->vectors = vectors;
  bus->free_slots = free_slots;
  bus->n_free += fresh;
  bus->capacity = (int32_t)larger;
  return 0;
}

void pdt_bus_free(pdt_bus *bus) {
  free(bus->notes);
  free(bus->vectors);
  free(bus->free_slots);
  free(bus->seen);
  *bus = (pdt_bus){0};
}

int pdt_bus_publish(pdt_bus *bus, pdt_round round, pdt_stream stream, pdt_error *err) {
  if (bus->count == bus->capacity)
    return pdt_fail(err, PDT_ERROR_RUNTIME, "notes bus: full with %d notes at round %d, stream %d",
                    bus->count, round, stream);
  if (bus->count > 0) {
    pdt_note_name last = bus->notes[bus->count - 1].name;
    if (last.round > round || (last.round == round && last.stream >= stream))
      return pdt_fail(err, PDT_ERROR_RUNTIME,
                      "notes bus: note (%d, %d) published after (%d, %d): out of order", round,
                      stream, last.round, last.stream);
  }
  int32_t slot = bus->free_slots[--bus->n_free];
  bus->notes[bus->count++] = (pdt_note){
      .name = {round, stream}, .slot = slot, .vector = bus->vectors + (int64_t)slot * bus->dim};
  return 0;
}

bool pdt_bus_fill(pdt_bus *bus, pdt_round round, pdt_stream stream, const float *vector) {
  for (int32_t i = bus->count - 1; i >= 0 && bus->notes[i].name.round >= round; i--) {
    pdt_note *note = &bus->notes[i];
    if (note->name.round != round || note->name.stream != stream) continue;
    memcpy(note->vector, vector, (size_t)bus->dim * sizeof *vector);
    note->hash = XXH3_64bits(note->vector, (size_t)bus->dim * sizeof *vector);
    note->filled = true;
    if (i < bus->summed) bus->summed = i;
    return true;
  }
  return false;
}

void pdt_bus_withdraw(pdt_bus *bus, pdt_stream stream, pdt_round first_round) {
  int32_t kept = 0;
  for (int32_t i = 0; i < bus->count; i++) {
    const pdt_note *note = &bus->notes[i];
    if (note->name.stream != stream || note->name.round < first_round) {
      bus->notes[kept++] = *note;
      continue;
    }
    bus->free_slots[bus->n_free++] = note->slot;
    if (kept < bus->summed) bus->summed = kept;
  }
  bus->count = kept;
}

int32_t pdt_bus_window(const pdt_bus *bus, pdt_round round, int32_t *window) {
  const pdt_note_names names = {bus->count > 0 ? &bus->notes[0].name : NULL, sizeof *bus->notes,
                                bus->count};
  return pdt_window_notes(names, round, bus->rule, window);
}

static uint64_t hash_vector(const pdt_bus *bus, const pdt_note *note) {
  return XXH3_64bits(note->vector, (size_t)bus->dim * sizeof *note->vector);
}

/* The hash of notes that have one, and of one more whose vector has hash `own`. */
static uint64_t add_note(uint64_t hash, const pdt_note *note, uint64_t own) {
  const uint64_t words[3] = {
      (uint64_t)(uint32_t)note->name.round << 32 | (uint32_t)note->name.stream, note->filled, own};
  return XXH3_64bits_withSeed(words, sizeof words, hash);
}

/* Marks a slot as seen; false where it is none, or was seen before. */
static bool see(const pdt_bus *bus, int32_t slot) {
  if (slot < 0 || slot >= bus->capacity || bus->seen[slot]) return false;
  return bus->seen[slot] = true;
}

static bool note_is_valid(const pdt_bus *bus, const pdt_note *note) {
  bool of_plan = note->name.stream == PDT_PLANNER, in_round_0 = note->name.round == 0;
  if (note->name.round < 0 || note->name.stream < PDT_PLANNER || of_plan != in_round_0)
    return false;
  if (note->vector != bus->vectors + (int64_t)note->slot * bus->dim) return false;
  size_t bytes = (size_t)bus->dim * sizeof *note->vector;
  return note->hash == (note->filled ? XXH3_64bits(note->vector, bytes) : 0);
}

/* Are the sums that are there those of the notes? */
static bool sums_are_valid(const pdt_bus *bus) {
  uint64_t sum = 0;
  for (int32_t i = 0; i < bus->summed; i++) {
    sum = add_note(sum, &bus->notes[i], bus->notes[i].hash);
    if (sum != bus->notes[i].sum) return false;
  }
  return true;
}

bool pdt_bus_is_valid(const pdt_bus *bus) {
  if (bus->summed < 0 || bus->summed > bus->count || !sums_are_valid(bus)) return false;
  if (bus->count < 0 || bus->n_free < 0 || bus->count + (int64_t)bus->n_free != bus->capacity)
    return false;
  if (bus->capacity > 0) memset(bus->seen, 0, (size_t)bus->capacity * sizeof *bus->seen);
  for (int32_t i = 0; i < bus->n_free; i++)
    if (!see(bus, bus->free_slots[i])) return false;
  for (int32_t i = 0; i < bus->count; i++) {
    const pdt_note_name *name = &bus->notes[i].name, *before = i ? &bus->notes[i - 1].name : NULL;
    bool ascends = !before || before->round < name->round ||
                   (before->round == name->round && before->stream < name->stream);
    if (!ascends || !see(bus, bus->notes[i].slot) || !note_is_valid(bus, &bus->notes[i]))
      return false;
  }
  return true;
}

/* The first of the notes that the next window may show, but for the plan's. */
static int32_t first_shown(const pdt_bus *bus) {
  int32_t i = bus->count, shown = 0;
  while (i > 0 && shown < bus->rule.budget)
    shown += pdt_note_is_revealed(bus->notes[--i].name, bus->notes[bus->count - 1].name.round + 1,
                                  bus->rule.delay);
  return i;
}

uint64_t pdt_bus_hash(const pdt_bus *bus) {
  int32_t shown = first_shown(bus), from = bus->summed < shown ? bus->summed : shown;
  uint64_t hash = from > 0 ? bus->notes[from - 1].sum : 0;
  for (int32_t i = from; i < bus->count; i++) {
    const pdt_note *note = &bus->notes[i];
    hash = add_note(hash, note, i >= shown && note->filled ? hash_vector(bus, note) : note->hash);
  }
  /* the plan's is always shown; nothing is changed where its vector is what it was */
  if (shown > 0 && bus->notes[0].filled)
    hash ^= hash_vector(bus, &bus->notes[0]) ^ bus->notes[0].hash;
  return hash;
}

void pdt_bus_sum(pdt_bus *bus) {
  uint64_t sum = bus->summed > 0 ? bus->notes[bus->summed - 1].sum : 0;
  for (; bus->summed < bus->count; bus->summed++) {
    pdt_note *note = &bus->notes[bus->summed];
    sum = note->sum = add_note(sum, note, note->hash);
  }
}

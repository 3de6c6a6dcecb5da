/* The notes bus of one session (3.3): a versioned store of notes, replicated on every rank. It has
 * no communication in it: replicas stay equal because they apply the same decisions to the same
 * vectors, and pdt_bus_hash lets the coordinator check that they did. */
#ifndef PDT_PROTOCOL_BUS_H
#define PDT_PROTOCOL_BUS_H

#include "base/error.h"
#include "base/types.h"
#include "protocol/window.h"

typedef struct pdt_note {
  pdt_note_name name;
  int32_t slot;  /* of its vector */
  bool filled;   /* its vector has arrived */
  uint64_t hash; /* of the vector, once filled */
  uint64_t sum;  /* of all notes up to this one, where bus->summed says so */
  float *vector; /* [dim], inside the bus */
} pdt_note;

typedef struct pdt_bus {
  int32_t dim; /* width of a note; 0 for a bus of names alone */
  pdt_window_rule rule;
  int32_t count, capacity;
  int32_t summed;  /* notes whose sum is that of the notes before and their own */
  pdt_note *notes; /* [capacity], by (round, stream) ascending: the order of publishing */
  float *vectors;  /* [capacity, dim], handed out by slot */
  int32_t *free_slots;
  int32_t n_free;
  bool *seen; /* [capacity]: of pdt_bus_is_valid alone */
} pdt_bus;

/* An empty bus with room for capacity notes of dim floats. Errors: MEMORY. */
int pdt_bus_new(pdt_bus *bus, int32_t dim, pdt_window_rule rule, int32_t capacity, pdt_error *err);
void pdt_bus_free(pdt_bus *bus);

/* Makes room for n more notes, where a bus was made with less. Errors: MEMORY. */
int pdt_bus_reserve(pdt_bus *bus, int32_t n, pdt_error *err);

/* Adds a note of this round and stream. Its vector may come later (pdt_bus_fill), but before a
 * window shows it. Rounds must not decrease, nor streams within a round. Errors: RUNTIME when full
 * or out of order. */
int pdt_bus_publish(pdt_bus *bus, pdt_round round, pdt_stream stream, pdt_error *err);

/* Gives the note of (round, stream) its vector [dim], copied. False when there is no such note. */
bool pdt_bus_fill(pdt_bus *bus, pdt_round round, pdt_stream stream, const float *vector);

/* Takes back the notes of a stream from first_round on: those of its pending blocks. */
void pdt_bus_withdraw(pdt_bus *bus, pdt_stream stream, pdt_round first_round);

/* W_v (eq. 4, protocol/window.h): fills window[budget] with indices into bus->notes and returns how
 * many. Pure. */
int32_t pdt_bus_window(const pdt_bus *bus, pdt_round round, int32_t *window);

/* Do the notes ascend, the plan's alone in round 0; is every slot free or one note's, and in one
 * place only; do hashes belong to the vectors that have arrived? For PDT_INVARIANT; not for two
 * threads at once. */
bool pdt_bus_is_valid(const pdt_bus *bus);

/* XXH3-64 over rounds, streams and vectors of all notes, in order. The vectors that the next window
 * may show are read anew, so that memory which changed by itself is noticed; of older ones the hash
 * counts that they had when they came. Pure. */
uint64_t pdt_bus_hash(const pdt_bus *bus);

/* Lets later hashes begin behind the notes that are there now, as far as they do not change. */
void pdt_bus_sum(pdt_bus *bus);

/* The hash of several buses: of those so far (0: none), and of the next one. Pure. */
static inline uint64_t pdt_bus_hash_add(uint64_t all, uint64_t next) {
  return (all * 0x9E3779B97F4A7C15U) ^ next;
}

#endif

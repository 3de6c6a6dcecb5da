#include "journal/turns.h"

#include <stddef.h>
#include <stdlib.h>

#include "base/memory.h"
#include "base/spill.h"

enum { COPY_BYTES = 1 << 16, NONE = -1 };

/* Where a text's pieces wait. In the file each is preceded by a head that tells its length and
 * where the text's next one is. */
typedef struct waiting {
  int64_t first, last; /* of the pieces' heads in the file; NONE: there are none */
  bool ended;
} waiting;

typedef struct head {
  int64_t next, bytes;
} head;

struct pdt_turns {
  int32_t n, next;
  waiting *texts; /* [n] */
  int32_t n_waiting;
  pdt_spill file;
  int64_t end; /* of what is in it */
  pdt_turns_writer write;
  void *context;
};

int pdt_turns_new(pdt_turns **turns, int32_t n, const char *folder, pdt_turns_writer write,
                  void *context, pdt_error *err) {
  if (PDT_NEW(turns, 1, "results", err)) return -1;
  **turns = (pdt_turns){.n = n, .write = write, .context = context};
  if (pdt_spill_new(&(*turns)->file, folder, "results that wait for their turn", err) ||
      PDT_NEW(&(*turns)->texts, n, "results", err)) {
    pdt_turns_free(*turns);
    *turns = NULL;
    return pdt_fail(err, PDT_ERROR_MEMORY, "results: no memory for %d sessions", n);
  }
  for (int32_t i = 0; i < n; i++) (*turns)->texts[i] = (waiting){.first = NONE, .last = NONE};
  return 0;
}

void pdt_turns_free(pdt_turns *turns) {
  if (!turns) return;
  pdt_spill_free(&turns->file);
  free(turns->texts);
  free(turns);
}

int32_t pdt_turns_next(const pdt_turns *turns) {
  return turns->next;
}

/* Appends a piece to the waiting file and chains it to the text's others. */
static int keep(pdt_turns *t, waiting *w, const void *data, pdt_bytes bytes, pdt_error *err) {
  const head h = {.next = NONE, .bytes = bytes};
  int64_t at = t->end;
  pdt_spill *file = &t->file;
  if (pdt_spill_put(file, &h, sizeof h, at, err) ||
      pdt_spill_put(file, data, bytes, at + (int64_t)sizeof h, err) ||
      (w->last != NONE &&
       pdt_spill_put(file, &at, sizeof at, w->last + (int64_t)offsetof(head, next), err)))
    return -1;
  if (w->first == NONE) {
    w->first = at;
    t->n_waiting++;
  }
  w->last = at;
  t->end = at + (int64_t)sizeof h + bytes;
  return 0;
}

/* Passes one waiting piece on and gives its room back; *next: the text's next one. */
static int pass_piece(pdt_turns *t, int64_t at, int64_t *next, char *buffer, pdt_error *err) {
  head h;
  if (pdt_spill_get(&t->file, &h, sizeof h, at, err)) return -1;
  int64_t from = at + (int64_t)sizeof h;
  for (int64_t done = 0; done < h.bytes;) {
    int64_t n = h.bytes - done < COPY_BYTES ? h.bytes - done : COPY_BYTES;
    if (pdt_spill_get(&t->file, buffer, n, from + done, err) ||
        t->write(t->context, buffer, n, err))
      return -1;
    done += n;
  }
  pdt_spill_release(&t->file, at, (int64_t)sizeof h + h.bytes);
  *next = h.next;
  return 0;
}

/* Passes on all that waits of a text. */
static int pass_on(pdt_turns *t, waiting *w, pdt_error *err) {
  char *buffer;
  if (w->first == NONE) return 0;
  if (PDT_NEW(&buffer, COPY_BYTES, "results", err)) return -1;
  int rc = 0;
  for (int64_t at = w->first; at != NONE && !rc;) rc = pass_piece(t, at, &at, buffer, err);
  free(buffer);
  w->first = w->last = NONE;
  if (--t->n_waiting == 0 && !rc) {
    t->end = 0;
    rc = pdt_spill_clear(&t->file, err);
  }
  return rc;
}

static int check(const pdt_turns *t, int32_t text, pdt_error *err) {
  if (text >= t->next && text < t->n && !t->texts[text].ended) return 0;
  return pdt_fail(err, PDT_ERROR_RUNTIME, "results: request %d: expected one that has not ended",
                  text);
}

int pdt_turns_put(pdt_turns *turns, int32_t text, const void *data, pdt_bytes bytes,
                  pdt_error *err) {
  if (check(turns, text, err)) return -1;
  if (text == turns->next) return turns->write(turns->context, data, bytes, err);
  return keep(turns, &turns->texts[text], data, bytes, err);
}

int pdt_turns_end(pdt_turns *turns, int32_t text, pdt_error *err) {
  if (check(turns, text, err)) return -1;
  turns->texts[text].ended = true;
  while (turns->next < turns->n && turns->texts[turns->next].ended) {
    turns->next++;
    if (turns->next < turns->n && pass_on(turns, &turns->texts[turns->next], err)) return -1;
  }
  return 0;
}

/* Texts that grow at the same time and are passed on one after another. Of the text whose turn it
 * is every piece goes on at once; the pieces of those behind it wait in a file without a name, not
 * in memory, which holds a few bytes a text. No communication. */
#ifndef PDT_JOURNAL_TURNS_H
#define PDT_JOURNAL_TURNS_H

#include "base/error.h"
#include "base/types.h"

typedef struct pdt_turns pdt_turns;

/* Gets the pieces in their final order, cut as they happen to come. Returns 0, or -1 with err. */
typedef int (*pdt_turns_writer)(void *context, const void *data, pdt_bytes bytes, pdt_error *err);

/* n texts, 0 to n - 1, all empty. The waiting file is made when it is needed: in `folder`, or in
 * memory where that takes none. Sets *turns. Errors: MEMORY. */
int pdt_turns_new(pdt_turns **turns, int32_t n, const char *folder, pdt_turns_writer write,
                  void *context, pdt_error *err);

/* Adds a piece to a text that has not ended. Errors: RUNTIME (it has, or there is none of that
 * number), IO, MEMORY, and those of the writer. */
int pdt_turns_put(pdt_turns *turns, int32_t text, const void *data, pdt_bytes bytes,
                  pdt_error *err);

/* Ends a text; when it was its turn, what waits behind it goes on, up to the first that has not
 * ended. Errors: as put. */
int pdt_turns_end(pdt_turns *turns, int32_t text, pdt_error *err);

/* Whose turn it is: the first text that has not ended; n when all have. */
int32_t pdt_turns_next(const pdt_turns *turns);

/* NULL is fine. What waits is lost. */
void pdt_turns_free(pdt_turns *turns);

#endif

/* The two ways to read what pdt view shows. */
#ifndef PDT_RUN_VIEW_PARTS_H
#define PDT_RUN_VIEW_PARTS_H

#include "run/story.h"
#include "run/view.h"

/* The stories of a run, by request. Zeroed there are none. */
typedef struct pdt_view_stories {
  pdt_story **list; /* [n]; NULL: of a request that nobody asked for */
  size_t n, room;
  pdt_tokenizer *tokenizer; /* owned; NULL: none */
} pdt_view_stories;

void pdt_view_stories_free(pdt_view_stories *s);

/* Read the file at options->path into *s, zeroed before, to be freed also after an error. Errors:
 * INPUT, IO, MEMORY. */
int pdt_view_journal(pdt_view_stories *s, const pdt_view_options *options, pdt_error *err);
int pdt_view_trace(pdt_view_stories *s, const pdt_view_options *options, pdt_error *err);

/* Of the bytes of a trace's line [bytes], request `index`, called `where` in errors: its story,
 * finished. Sets *out. Errors: INPUT, MEMORY. */
int pdt_view_trace_line(pdt_story **out, const char *text, size_t bytes, int32_t index,
                        const char *where, const pdt_view_options *options,
                        const pdt_tokenizer *tokenizer, pdt_error *err);

#endif

/* A session as the page tells it (page/page.h), from whatever tells of its rounds: JSON that grows
 * round by round, with the texts of all blocks, also of those that were dropped:
 *   {"name":"","prompt":,"sections":,"gamma":,"streams":,"rounds":[...],"order":,"text":,"ended_by":,
 *    "error":}
 * What is not known is null. */
#ifndef PDT_RUN_STORY_H
#define PDT_RUN_STORY_H

#include "page/page.h"
#include "protocol/stream.h"
#include "request/request.h"
#include "text/tokenizer.h"

typedef struct pdt_story pdt_story;

/* What is known of a session before its first round. Pointers are the caller's: request and
 * tokenizer must stay until the story is finished. */
typedef struct pdt_story_head {
  const char *name;
  const pdt_request *request;     /* of whose settings `streams` counts here */
  const pdt_tokenizer *tokenizer; /* NULL: ids stand where texts would */
  bool has_texts;                 /* the request has prompt and sections */
  double gamma;                   /* NaN: not known */
} pdt_story_head;

/* A story without rounds. Sets *out. Errors: those of pdt_result_part, MEMORY. */
int pdt_story_new(pdt_story **out, const pdt_story_head *head, pdt_error *err);
void pdt_story_free(pdt_story *s);

/* The next round: blocks [n], streams ascending and below the request's. The same rule as
 * pdt_stream_apply's says what is committed. Errors: those of pdt_result_growth, MEMORY. */
int pdt_story_round(pdt_story *s, const pdt_page_round *round, const pdt_block_verdict *blocks,
                    int32_t n, pdt_error *err);

/* What a stream has committed: its tokens [returned number], the story's. */
int32_t pdt_story_committed(const pdt_story *s, pdt_stream k, const pdt_token **tokens);

/* How a story ends. Pointers are the caller's. */
typedef struct pdt_story_end {
  const pdt_stream *order; /* [K], each stream once: of the answer; NULL: there is none */
  const char *ended_by;    /* one of our words; NULL: nothing known */
  const char *error;       /* [error_bytes], UTF-8: why there is no answer, or not all; NULL */
  size_t error_bytes;
} pdt_story_end;

/* Once, after the last round. Errors: those of pdt_result_part, MEMORY. */
int pdt_story_finish(pdt_story *s, const pdt_story_end *end, pdt_error *err);

/* The JSON of a finished one [*bytes]; the story's. */
const char *pdt_story_json(const pdt_story *s, size_t *bytes);

#endif

/* From the body of a request over HTTP to a request that can be decoded, and to how it is to be
 * answered. Everything is judged here; no thread but that of HTTP comes here. */
#ifndef PDT_SERVE_ASK_H
#define PDT_SERVE_ASK_H

#include <jansson.h>

#include "request/chat.h"
#include "request/parse.h"

/* In what order the texts of a stream of chunks come. */
typedef enum pdt_ask_order {
  PDT_ORDER_MERGED,      /* as in the answer, as far as it is known */
  PDT_ORDER_STREAMS,     /* by stream */
  PDT_ORDER_INTERLEAVED, /* as blocks are committed */
} pdt_ask_order;

typedef enum pdt_ask_form {
  PDT_ASK_COMPLETION, /* POST /v1/completions */
  PDT_ASK_CHAT,       /* POST /v1/chat/completions */
  PDT_ASK_DECODE,     /* POST /v1/pdt/decode */
} pdt_ask_form;

enum { PDT_ASK_STOPS = 16, PDT_ASK_CHOICES = 16 }; /* most texts to stop at; most choices */

typedef struct pdt_ask {
  pdt_ask_form form;
  pdt_request request;
  int32_t n;          /* choices: sessions of the request, each with a seed one above the last's */
  int32_t n_logprobs; /* of every token: its own, and of the likeliest; 0: none */
  bool stream, usage; /* chunks; the last of them with the usage */
  bool rounds;        /* and one for every round that is decided */
  bool packed;        /* of PDT_ASK_DECODE: protobuf in place of JSON lines; whoever asks says so */
  pdt_ask_order order;
  json_t *sections; /* texts, one a stream; NULL: none were given */
  json_t *stops;    /* texts that end a stream's part; NULL: none */
} pdt_ask;

/* Why a request is not served, as OpenAI's clients read it. */
typedef struct pdt_refusal {
  int status;       /* of HTTP */
  const char *code; /* a word for it; NULL: none */
  char field[64];   /* which the request has wrong; "": none in particular */
  char message[1024];
} pdt_refusal;

/* Fills a refusal in; -1. field: NULL: none in particular. */
int pdt_refuse(pdt_refusal *why, int status, const char *code, const char *field,
               const char *format, ...) __attribute__((format(printf, 5, 6)));

/* What a request is read against. */
typedef struct pdt_ask_context {
  pdt_request_context request;
  const char *model;      /* the name that a request may give */
  pdt_request_chat *chat; /* of conversations */
} pdt_ask_context;

/* Reads a body of a form. Freed by pdt_ask_free, which a failed one needs not. */
int pdt_ask_read(pdt_ask *ask, pdt_ask_form form, const char *body, size_t bytes,
                 const pdt_ask_context *context, pdt_refusal *why);
void pdt_ask_free(pdt_ask *ask);

/* Messages of a chat completion with contents that are texts, as a new list: of one in parts, their
 * texts, a line break between them. NULL where a part is none, or without memory. */
json_t *pdt_ask_with_texts(const json_t *messages, pdt_refusal *why);

#endif

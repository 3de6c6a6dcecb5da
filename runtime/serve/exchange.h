/* One request of HTTP and its answer. */
#ifndef PDT_SERVE_EXCHANGE_H
#define PDT_SERVE_EXCHANGE_H

#include <microhttpd.h>

#include "serve/hub.h"
#include "serve/reply.h"

typedef struct pdt_exchange {
  struct pdt_http *http;
  struct MHD_Connection *connection;
  double began; /* seconds */
  bool is_post;
  pdt_ask_form form;
  pdt_buffer body; /* of the request */
  bool refused;    /* whatever it is: it is read, so that the answer can be, and forgotten */
  pdt_refusal refusal;
  bool has_ask, has_reply;
  pdt_ask ask;
  pdt_job *jobs[PDT_ASK_CHOICES]; /* of its choices; */
  int32_t n_jobs;                 /* 0: it asks for none, or not yet */
  pdt_reply reply;
  pdt_buffer out; /* of a stream of chunks: what is yet to be sent, from `sent` on */
  size_t sent;
  /* with the hub's lock: */
  bool sleeps;  /* its connection is suspended */
  bool stirred; /* there is something new */
  bool pings;   /* it has been silent for long */
  bool gone;    /* its client has */
  double last;  /* seconds: when it last sent something */
  struct pdt_exchange *next;
} pdt_exchange;

/* Answers with a text, which it takes over. */
enum MHD_Result pdt_exchange_respond(const pdt_exchange *e, int status, const char *type,
                                     char *text, size_t bytes);

/* Answers that it is not served. */
enum MHD_Result pdt_exchange_refuse(const pdt_exchange *e, const pdt_refusal *why);

/* The body is there: its jobs go into the hub, and it is answered when there is something to tell.
 */
enum MHD_Result pdt_exchange_ask(pdt_exchange *e);

/* It was woken: answers, or sleeps on. */
enum MHD_Result pdt_exchange_go_on(pdt_exchange *e);

/* With the hub's lock: there is something new, and its connection is looked after again. */
void pdt_exchange_wake(void *exchange);

/* Lets go of its body. */
void pdt_exchange_drop_body(pdt_exchange *e);

/* Lets go of all it has, its jobs included. */
void pdt_exchange_free(pdt_exchange *e);

#endif

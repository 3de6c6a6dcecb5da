/* Short messages between the ranks of a job beside MPI: by UDP over IPv4, so that they pass while
 * MPI stands still, and that a rank which takes part in nothing any more is told from one that
 * computes. They may get lost. Private to comm/; a pdt_beats is used by one thread at a time. */
#ifndef PDT_COMM_BEATS_H
#define PDT_COMM_BEATS_H

#include <netinet/in.h>

#include "base/error.h"
#include "base/types.h"

enum { PDT_BEAT_ADDRESSES = 6, PDT_BEAT_HOST_BYTES = 64, PDT_BEAT_CALL_BYTES = 24 };

/* What a rank says of itself. Ranks of a job run the same program, so it travels as it is. */
typedef struct pdt_beat {
  uint64_t job;                   /* others' messages are not listened to */
  uint64_t round, exchanges;      /* it is in the round (0: in none), and has begun so many */
  pdt_rank rank;                  /* who says it */
  int32_t ends, status;           /* all are to end, with this exit status */
  int32_t armed;                  /* deadlines hold */
  char call[PDT_BEAT_CALL_BYTES]; /* the exchange that it is in; "": it computes */
} pdt_beat;

/* Where a rank can be reached; ranks tell each other before they use it. */
typedef struct pdt_beat_place {
  uint64_t job;                          /* rank 0's holds */
  struct in_addr at[PDT_BEAT_ADDRESSES]; /* [n]: of its interfaces */
  int32_t n;
  in_port_t port; /* 0: nowhere */
  char host[PDT_BEAT_HOST_BYTES];
} pdt_beat_place;

typedef struct pdt_beats {
  int socket; /* -1: this process may have none */
  pdt_rank rank, size;
  pdt_beat_place *places;    /* [size], owned */
  struct sockaddr_in *heard; /* [size]: where a rank's last message came from; port 0: none came */
} pdt_beats;

/* Opens this rank's end; places[rank] is then to be told to all others, and the other places to be
 * filled in. Only interfaces are named that OMPI_MCA_btl_tcp_if_include allows, where it is set.
 * Without a socket the place has no port. Not collective. Errors: MEMORY; safe to close then. */
int pdt_beats_open(pdt_beats *b, pdt_rank rank, pdt_rank size, pdt_error *err);
void pdt_beats_close(pdt_beats *b);

/* Sends to one rank: there where it was heard from, else to all of its addresses. Does not block;
 * what cannot be sent is lost. */
void pdt_beats_send(pdt_beats *b, pdt_rank to, const pdt_beat *beat);

/* The next message of this job, whose rank is one of it; false: none is there. Does not block. */
bool pdt_beats_next(pdt_beats *b, pdt_beat *out);

/* A rank that was heard before and whose machine says now that nobody listens there any more; -1:
 * none. */
pdt_rank pdt_beats_refused(pdt_beats *b);

#endif

#include "comm/beats.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <linux/errqueue.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/memory.h"
#include "comm/comm.h"

enum { ROOM_BYTES = 4 << 20 }; /* for messages of many ranks at once, as far as the system allows */

/* Is the interface, or its address, what one item of a list names: "eth0", "10.1.0.0/16"? */
static bool is_named(const char *item, size_t bytes, const struct ifaddrs *i, struct in_addr at) {
  char text[64];
  struct in_addr net;
  if (bytes >= sizeof text) return false;
  memcpy(text, item, bytes);
  text[bytes] = '\0';
  char *slash = strchr(text, '/');
  if (!slash) return strcmp(text, i->ifa_name) == 0;
  *slash = '\0';
  long bits = strtol(slash + 1, NULL, 10);
  if (bits < 1 || bits > 32 || inet_pton(AF_INET, text, &net) != 1) return false;
  return (ntohl(net.s_addr) ^ ntohl(at.s_addr)) >> (32 - bits) == 0;
}

static bool is_allowed(const char *list, const struct ifaddrs *i, struct in_addr at) {
  if (!list || !*list) return true;
  for (const char *item = list; *item;) {
    size_t bytes = strcspn(item, ",");
    if (is_named(item, bytes, i, at)) return true;
    item += bytes;
    item += *item == ',';
  }
  return false;
}

static bool is_network(const struct ifaddrs *i) {
  return i->ifa_addr && i->ifa_addr->sa_family == AF_INET && (i->ifa_flags & IFF_UP) &&
         !(i->ifa_flags & IFF_LOOPBACK);
}

/* This machine's addresses, the loopback's not: who shares the machine knows that one. */
static void list_addresses(pdt_beat_place *place) {
  const char *list = getenv("OMPI_MCA_btl_tcp_if_include");
  struct ifaddrs *all = NULL;
  if (getifaddrs(&all)) return;
  for (const struct ifaddrs *i = all; i && place->n < PDT_BEAT_ADDRESSES; i = i->ifa_next) {
    struct sockaddr_in address;
    if (!is_network(i)) continue;
    memcpy(&address, i->ifa_addr, sizeof address);
    if (is_allowed(list, i, address.sin_addr)) place->at[place->n++] = address.sin_addr;
  }
  freeifaddrs(all);
}

void pdt_comm_interfaces(char *text, size_t bytes) {
  struct ifaddrs *all = NULL;
  size_t at = 0;
  snprintf(text, bytes, "-");
  if (getifaddrs(&all)) return;
  for (const struct ifaddrs *i = all; i && at < bytes; i = i->ifa_next) {
    struct sockaddr_in address;
    char numbers[INET_ADDRSTRLEN];
    if (!is_network(i)) continue;
    memcpy(&address, i->ifa_addr, sizeof address);
    inet_ntop(AF_INET, &address.sin_addr, numbers, sizeof numbers);
    at += (size_t)snprintf(text + at, bytes - at, "%s%s %s", at ? ", " : "", i->ifa_name, numbers);
  }
  freeifaddrs(all);
}

/* A socket of a free port, which does not block and is told of refusals; -1: there is none. */
static int open_socket(in_port_t *port) {
  struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_ANY)};
  socklen_t bytes = sizeof any;
  int one = 1, room = ROOM_BYTES, s = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (s < 0) return -1;
  (void)setsockopt(s, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
  (void)setsockopt(s, IPPROTO_IP, IP_RECVERR, &one, sizeof one);
  if (bind(s, (struct sockaddr *)&any, sizeof any) ||
      getsockname(s, (struct sockaddr *)&any, &bytes)) {
    close(s);
    return -1;
  }
  *port = any.sin_port;
  return s;
}

int pdt_beats_open(pdt_beats *b, pdt_rank rank, pdt_rank size, pdt_error *err) {
  *b = (pdt_beats){.socket = -1, .rank = rank, .size = size};
  if (PDT_NEW(&b->places, size, "watch", err) || PDT_NEW(&b->heard, size, "watch", err)) return -1;
  pdt_beat_place *own = &b->places[rank];
  if (getrandom(&own->job, sizeof own->job, GRND_NONBLOCK) < 0) own->job = (uint64_t)getpid();
  if (gethostname(own->host, sizeof own->host - 1)) strcpy(own->host, "?");
  b->socket = open_socket(&own->port);
  list_addresses(own);
  return 0;
}

void pdt_beats_close(pdt_beats *b) {
  if (b->socket >= 0) close(b->socket);
  free(b->places);
  free(b->heard);
  *b = (pdt_beats){.socket = -1};
}

/* A refusal of an earlier message may be told in place of sending this one: then once more. */
static void send_to(const pdt_beats *b, const struct sockaddr_in *to, const pdt_beat *beat) {
  for (int i = 0; i < 2; i++)
    if (sendto(b->socket, beat, sizeof *beat, 0, (const struct sockaddr *)to, sizeof *to) >= 0)
      return;
}

void pdt_beats_send(pdt_beats *b, pdt_rank to, const pdt_beat *beat) {
  const pdt_beat_place *place = &b->places[to];
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = place->port};
  pdt_beat out = *beat;
  out.job = b->places[0].job;
  if (b->socket < 0 || place->port == 0) return;
  if (b->heard[to].sin_port != 0) {
    send_to(b, &b->heard[to], &out);
    return;
  }
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (strcmp(place->host, b->places[b->rank].host) == 0) send_to(b, &address, &out);
  for (int32_t i = 0; i < place->n; i++) {
    address.sin_addr = place->at[i];
    send_to(b, &address, &out);
  }
}

static bool is_loopback(const struct sockaddr_in *address) {
  return address->sin_port != 0 && address->sin_addr.s_addr == htonl(INADDR_LOOPBACK);
}

bool pdt_beats_next(pdt_beats *b, pdt_beat *out) {
  while (b->socket >= 0) {
    struct sockaddr_in from;
    socklen_t bytes = sizeof from;
    ssize_t n = recvfrom(b->socket, out, sizeof *out, 0, (struct sockaddr *)&from, &bytes);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return false;
    if (n < 0 && errno != ECONNREFUSED && errno != EHOSTUNREACH && errno != ENETUNREACH &&
        errno != EINTR)
      return false;
    if (n != (ssize_t)sizeof *out || out->job != b->places[0].job || out->rank < 0 ||
        out->rank >= b->size)
      continue;
    out->call[sizeof out->call - 1] = '\0';
    /* That one stays, whatever becomes of the machine's networks. */
    if (!is_loopback(&b->heard[out->rank])) b->heard[out->rank] = from;
    return true;
  }
  return false;
}

/* The rank that was heard from an address; -1: none. */
static pdt_rank rank_at(const pdt_beats *b, const struct sockaddr_in *address) {
  for (pdt_rank r = 0; r < b->size; r++)
    if (b->heard[r].sin_port != 0 && b->heard[r].sin_port == address->sin_port &&
        b->heard[r].sin_addr.s_addr == address->sin_addr.s_addr)
      return r;
  return -1;
}

pdt_rank pdt_beats_refused(pdt_beats *b) {
  while (b->socket >= 0) {
    char control[256], data[sizeof(pdt_beat)];
    struct sockaddr_in to = {0};
    struct iovec part = {data, sizeof data};
    struct msghdr message = {.msg_name = &to,
                             .msg_namelen = sizeof to,
                             .msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof control};
    struct sock_extended_err what = {0};
    if (recvmsg(b->socket, &message, MSG_ERRQUEUE) < 0) return -1;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c))
      if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_RECVERR)
        memcpy(&what, CMSG_DATA(c), sizeof what);
    pdt_rank r = what.ee_errno == ECONNREFUSED ? rank_at(b, &to) : -1;
    if (r >= 0) return r;
  }
  return -1;
}

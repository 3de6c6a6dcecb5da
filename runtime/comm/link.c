#include "comm/link.h"

#include <stdlib.h>

#include "base/memory.h"

static const pdt_bytes FLOAT = sizeof(float);

int pdt_link_new(pdt_link *link, const pdt_comm *comm, pdt_device *device, int64_t most_sent,
                 int64_t most_received, pdt_error *err) {
  *link = (pdt_link){.comm = comm, .device = device};
  int status = PDT_NEW(&link->bytes, 4 * (int64_t)comm->size, "exchange", err);
  if (!status && pdt_link_is_staged(link))
    status = PDT_NEW(&link->sent, most_sent, "exchange", err) ||
             PDT_NEW(&link->received, most_received, "exchange", err);
  if (status) pdt_link_free(link);
  return status ? -1 : 0;
}

void pdt_link_free(pdt_link *link) {
  free(link->bytes);
  free(link->sent);
  free(link->received);
  *link = (pdt_link){0};
}

/* Do the devices exchange themselves? */
static bool is_direct(const pdt_link *link) {
  return link->comm->size > 1 && link->device->joined == link->comm->size;
}

bool pdt_link_is_staged(const pdt_link *link) {
  return link->comm->size > 1 && !link->device->host_memory && !is_direct(link);
}

/* On one rank an exchange is a copy; one call of the device's copies rows of an int32 width. */
static void copy(pdt_device *dev, pdt_array dst, pdt_array src, int64_t elems) {
  const int64_t most = 1 << 30;
  for (int64_t done = 0; done < elems && dst.at != src.at; done += most)
    dev->ops->copy_rows(dev, pdt_array_at(dst, done), 0, pdt_array_at(src, done), 0, 1,
                        (int32_t)(elems - done < most ? elems - done : most));
}

/* The sum of n counts. */
static int64_t sum_of(const int64_t *counts, int32_t n) {
  int64_t sum = 0;
  for (int32_t i = 0; i < n; i++) sum += counts[i];
  return sum;
}

void pdt_link_all_gather(const pdt_link *link, pdt_array send, pdt_array recv,
                         const int64_t *elems) {
  const pdt_comm *comm = link->comm;
  pdt_device *dev = link->device;
  int64_t own = elems[comm->rank], all = sum_of(elems, comm->size);
  if (comm->size == 1) {
    copy(dev, recv, send, own);
    return;
  }
  if (is_direct(link)) {
    dev->ops->all_gather(dev, send, recv, elems);
    return;
  }
  for (pdt_rank r = 0; r < comm->size; r++) link->bytes[r] = elems[r] * FLOAT;
  if (!pdt_link_is_staged(link)) {
    pdt_comm_all_gather(comm, send.at, recv.at, link->bytes);
    return;
  }
  dev->ops->download(dev, link->sent, send, own);
  pdt_comm_all_gather(comm, link->sent, link->received, link->bytes);
  dev->ops->upload(dev, recv, link->received, all);
}

/* Where the last of what a side names ends. */
static int64_t end_of(const pdt_link_side *side, pdt_rank size) {
  int64_t end = 0;
  for (pdt_rank r = 0; r < size; r++)
    if (side->elems[r] > 0 && side->at[r] + side->elems[r] > end)
      end = side->at[r] + side->elems[r];
  return end;
}

void pdt_link_all_to_all(const pdt_link *link, pdt_array send, const pdt_link_side *out,
                         pdt_array recv, const pdt_link_side *in) {
  const pdt_comm *comm = link->comm;
  pdt_device *dev = link->device;
  pdt_rank T = comm->size;
  bool staged = pdt_link_is_staged(link);
  if (T == 1) {
    copy(dev, pdt_array_at(recv, in->at[0]), pdt_array_at(send, out->at[0]), out->elems[0]);
    return;
  }
  if (is_direct(link)) {
    dev->ops->all_to_all(dev, send, out->elems, out->at, recv, in->elems, in->at);
    return;
  }
  pdt_bytes *bytes = link->bytes;
  for (pdt_rank r = 0; r < T; r++) {
    bytes[r] = out->elems[r] * FLOAT;
    bytes[T + r] = out->at[r] * FLOAT;
    bytes[2 * T + r] = in->elems[r] * FLOAT;
    bytes[3 * T + r] = in->at[r] * FLOAT;
  }
  if (staged) dev->ops->download(dev, link->sent, send, end_of(out, T));
  pdt_comm_all_to_all(comm, staged ? link->sent : send.at, bytes, bytes + T,
                      staged ? link->received : recv.at, bytes + 2 * T, bytes + 3 * T);
  for (pdt_rank r = 0; r < T && staged; r++)
    dev->ops->upload(dev, pdt_array_at(recv, in->at[r]), link->received + in->at[r], in->elems[r]);
}

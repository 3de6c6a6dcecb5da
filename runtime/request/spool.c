#include "request/spool.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/memory.h"
#include "base/spill.h"
#include "request/message.h"

enum { KEPT_BYTES = 1 << 20 }; /* of requests in memory, before they go into the file */
static const uint32_t failure_bit = 1U << 31; /* of a length, which never is so large */

struct pdt_request_spool {
  int32_t n;
  XXH3_state_t *hash;
  pdt_spill file;
  pdt_bytes file_bytes; /* of the whole requests in the file */
  pdt_buffer kept;      /* those behind them */
  pdt_bytes at;         /* of the next request to be taken, over both */
  pdt_buffer taken;     /* one from the file */
};

int pdt_request_spool_new(pdt_request_spool **spool, const char *folder, pdt_error *err) {
  pdt_request_spool *s = NULL;
  *spool = NULL;
  if (PDT_NEW(&s, 1, "requests", err)) return -1;
  s->hash = XXH3_createState();
  if (!s->hash || pdt_spill_new(&s->file, folder, "requests that wait for their turn", err)) {
    pdt_request_spool_free(s);
    return pdt_fail(err, PDT_ERROR_MEMORY, "requests: no memory");
  }
  (void)XXH3_64bits_reset(s->hash);
  *spool = s;
  return 0;
}

void pdt_request_spool_free(pdt_request_spool *spool) {
  if (!spool) return;
  (void)XXH3_freeState(spool->hash);
  pdt_spill_free(&spool->file);
  pdt_buffer_free(&spool->kept);
  pdt_buffer_free(&spool->taken);
  free(spool);
}

/* Empties a buffer, whose room is kept unless a long request has made it large. */
static void drop(pdt_buffer *b) {
  b->bytes = 0;
  if (b->room > 4 * KEPT_BYTES) pdt_buffer_free(b);
}

/* Counts what was put behind the first `before` bytes in memory; when they are many, they go into
 * the file. */
static int take_in(pdt_request_spool *spool, size_t before, pdt_error *err) {
  pdt_buffer *kept = &spool->kept;
  (void)XXH3_64bits_update(spool->hash, kept->data + before, kept->bytes - before);
  spool->n++;
  if (kept->bytes < KEPT_BYTES) return 0;
  pdt_bytes bytes = (pdt_bytes)kept->bytes;
  if (pdt_spill_put(&spool->file, kept->data, bytes, spool->file_bytes, err)) return -1;
  spool->file_bytes += bytes;
  drop(kept);
  return 0;
}

static int check_room(const pdt_request_spool *spool, pdt_error *err) {
  return spool->n < INT32_MAX - 1 ? 0 : pdt_fail(err, PDT_ERROR_INPUT, "too many requests");
}

int pdt_request_spool_put(pdt_request_spool *spool, const pdt_request *r, const char *where,
                          pdt_error *err) {
  size_t before = spool->kept.bytes;
  if (check_room(spool, err)) return pdt_fail_in(err, "%s", where);
  if (pdt_request_pack(&spool->kept, r, where, err)) return -1;
  return take_in(spool, before, err);
}

int pdt_request_spool_put_failure(pdt_request_spool *spool, uint64_t session, int32_t line,
                                  const char *why, pdt_error *err) {
  pdt_buffer *kept = &spool->kept;
  size_t before = kept->bytes;
  Pdt__RequestFailure m = PDT__REQUEST_FAILURE__INIT;
  m.session = session;
  m.line = (uint32_t)line;
  m.error = (ProtobufCBinaryData){strlen(why), (uint8_t *)(uintptr_t)why};
  size_t bytes = pdt__request_failure__get_packed_size(&m);
  uint32_t length = (uint32_t)bytes | failure_bit;
  if (check_room(spool, err) || pdt_buffer_reserve(kept, sizeof length + bytes, err)) return -1;
  memcpy(kept->data + before, &length, sizeof length);
  pdt__request_failure__pack(&m, (uint8_t *)kept->data + before + sizeof length);
  kept->bytes += sizeof length + bytes;
  return take_in(spool, before, err);
}

int32_t pdt_request_spool_count(const pdt_request_spool *spool) {
  return spool->n;
}

uint64_t pdt_request_spool_fingerprint(const pdt_request_spool *spool) {
  return XXH3_64bits_digest(spool->hash);
}

void pdt_request_spool_rewind(pdt_request_spool *spool) {
  spool->at = 0;
}

/* Reads `bytes` of the file, behind what was taken of it already. */
static int read_on(pdt_request_spool *s, size_t bytes, pdt_error *err) {
  pdt_buffer *to = &s->taken;
  if (pdt_buffer_reserve(to, bytes, err) ||
      pdt_spill_get(&s->file, to->data + to->bytes, (pdt_bytes)bytes, s->at + (pdt_bytes)to->bytes,
                    err))
    return -1;
  to->bytes += bytes;
  return 0;
}

int pdt_request_spool_next(pdt_request_spool *spool, const char **bytes, size_t *n,
                           pdt_error *err) {
  pdt_request_spool *s = spool;
  uint32_t length;
  if (s->at == s->file_bytes + (pdt_bytes)s->kept.bytes) return 0;
  bool filed = s->at < s->file_bytes;
  const char *from = filed ? NULL : s->kept.data + (s->at - s->file_bytes);
  drop(&s->taken);
  if (filed && read_on(s, sizeof length, err)) return -1;
  memcpy(&length, filed ? s->taken.data : from, sizeof length);
  bool failure = length & failure_bit;
  length &= ~failure_bit;
  if (filed && read_on(s, length, err)) return -1;
  *bytes = filed ? s->taken.data : from;
  *n = sizeof length + length;
  s->at += (pdt_bytes)*n;
  if (!failure) return 1;
  *bytes += sizeof length;
  *n -= sizeof length;
  return PDT_SPOOL_FAILURE;
}

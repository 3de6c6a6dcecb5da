#include "request/spool.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/memory.h"
#include "base/spill.h"
#include "request/message.h"

enum { KEPT_BYTES = 1 << 20 }; /* of requests in memory, before they go into the file */

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

int pdt_request_spool_put(pdt_request_spool *spool, const pdt_request *r, const char *where,
                          pdt_error *err) {
  pdt_buffer *kept = &spool->kept;
  size_t before = kept->bytes;
  if (spool->n == INT32_MAX - 1)
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: too many requests", where);
  if (pdt_request_pack(kept, r, where, err)) return -1;
  (void)XXH3_64bits_update(spool->hash, kept->data + before, kept->bytes - before);
  spool->n++;
  if (kept->bytes < KEPT_BYTES) return 0;
  pdt_bytes bytes = (pdt_bytes)kept->bytes;
  if (pdt_spill_put(&spool->file, kept->data, bytes, spool->file_bytes, err)) return -1;
  spool->file_bytes += bytes;
  drop(kept);
  return 0;
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
  if (filed && read_on(s, length, err)) return -1;
  *bytes = filed ? s->taken.data : from;
  *n = sizeof length + length;
  s->at += (pdt_bytes)*n;
  return 1;
}

#include "run/decode_input.h"

#include <stdlib.h>

#include "journal/sink.h"
#include "request/message.h"
#include "run/decode_journal.h"
#include "run/request_reader.h"

enum {
  PIECE_BYTES = 1 << 20,  /* of requests that are sent together */
  MESSAGE_BYTES = 1 << 28 /* of one broadcast */
};

static int load_configs(pdt_decode_input *in, const pdt_decode_options *o, pdt_error *err) {
  pdt_safetensors *file;
  if (pdt_config_hash(o->engine.model, &in->config_hash, err) ||
      pdt_model_config_load(&in->model, o->engine.model, o->engine.notices, err) ||
      pdt_safetensors_open(&file, o->engine.sidecar, err))
    return -1;
  int status = pdt_sidecar_config_load(&in->sidecar, file, &in->model, err);
  in->sidecar_state = file->state;
  pdt_safetensors_close(file);
  return status;
}

int pdt_decode_input_check(const pdt_decode_input *in, const pdt_engine *engine, pdt_error *err) {
  const pdt_safetensors *sidecar = pdt_engine_sidecar_file(engine);
  if (in->config_hash == pdt_engine_fingerprints_of(engine).config)
    return pdt_file_unchanged_open(&in->sidecar_state, sidecar->fd, sidecar->path, err);
  return pdt_fail(err, PDT_ERROR_IO, "%s: config.json changed while the model was being read",
                  pdt_engine_checkpoint(engine)->directory);
}

/* ---- rank 0 reads, resolves and checks ---- */

/* Takes one resolved request. */
static int put_request(pdt_decode_input *in, const pdt_request_reader *reader, const pdt_request *r,
                       pdt_largest *decisions, pdt_error *err) {
  int32_t index = pdt_request_spool_count(in->spool);
  if (reader->options->journal && pdt_decode_journal_check(in, r, index, decisions, err)) return -1;
  return pdt_request_spool_put(in->spool, r, reader->where, err);
}

static int put_all(pdt_decode_input *in, pdt_request_reader *reader, pdt_error *err) {
  pdt_largest decisions = {.most = reader->options->engine.max_sessions};
  pdt_request r;
  int more;
  while ((more = pdt_request_reader_next(reader, &r, err)) > 0) {
    int status = put_request(in, reader, &r, &decisions, err);
    pdt_request_free(&r);
    if (status) break;
  }
  pdt_largest_free(&decisions);
  return more == 0 ? 0 : -1;
}

/* All requests, from the first to the last. */
static int resolve_all(pdt_decode_input *in, const pdt_decode_options *o, pdt_error *err) {
  pdt_request_reader reader;
  if (pdt_request_spool_new(&in->spool, pdt_temporary_folder(), err) ||
      pdt_tokenizer_load_if_any(&in->tokenizer, o->engine.model, err))
    return -1;
  const pdt_request_context context = {&in->model, &in->sidecar, in->tokenizer};
  int status = pdt_request_reader_open(&reader, o, &context, err);
  if (!status) status = put_all(in, &reader, err);
  pdt_request_reader_close(&reader);
  return status;
}

/* ---- every rank gets them ---- */

/* Requests on their way to every rank. */
typedef struct exchange {
  const pdt_comm *world;
  pdt_buffer piece;
  size_t room; /* of the list of requests */
} exchange;

/* What is told of a piece before it is sent. */
typedef struct piece_head {
  int64_t bytes;
  int32_t n;    /* requests; -1: rank 0 failed */
  int32_t last; /* no piece follows */
} piece_head;

/* Rank 0: the next requests, packed one behind another. */
static void fill_piece(pdt_decode_input *in, exchange *x, piece_head *head, pdt_error *err) {
  const char *bytes;
  size_t n;
  int more = 1;
  x->piece.bytes = 0;
  *head = (piece_head){0};
  while (x->piece.bytes < PIECE_BYTES && more > 0) {
    more = pdt_request_spool_next(in->spool, &bytes, &n, err);
    if (more > 0 && pdt_buffer_put(&x->piece, bytes, n, err)) more = -1;
    head->n += more > 0;
  }
  head->last = more == 0;
  head->bytes = (int64_t)x->piece.bytes;
  if (more < 0) *head = (piece_head){.n = -1};
}

/* Every rank adds the requests of a piece to its list. */
static int take_piece(pdt_decode_input *in, exchange *x, int32_t n, pdt_error *err) {
  const pdt_request_context context = {&in->model, &in->sidecar, NULL};
  size_t at = 0;
  for (int32_t i = 0; i < n; i++) {
    char where[64];
    snprintf(where, sizeof where, "request %d", in->n);
    if (PDT_GROW(&in->requests, (size_t)in->n, &x->room, err) ||
        pdt_request_unpack(&in->requests[in->n], x->piece.data, x->piece.bytes, &at, where,
                           &context, err))
      return -1;
    in->n++;
  }
  return 0;
}

/* One piece from rank 0 to all; sets *last. All ranks fail alike. */
static int share_piece(pdt_decode_input *in, exchange *x, bool *last, pdt_error *err) {
  piece_head head = {0};
  if (x->world->rank == 0) fill_piece(in, x, &head, err);
  pdt_comm_broadcast(x->world, &head, sizeof head, 0);
  *last = head.last;
  if (head.n > 0 && x->world->rank != 0) {
    x->piece.bytes = 0;
    if (!pdt_buffer_reserve(&x->piece, (size_t)head.bytes, err))
      x->piece.bytes = (size_t)head.bytes;
  }
  if (pdt_comm_agree(x->world, err)) return -1;
  for (int64_t at = 0; at < head.bytes; at += MESSAGE_BYTES) {
    int64_t n = head.bytes - at < MESSAGE_BYTES ? head.bytes - at : MESSAGE_BYTES;
    pdt_comm_broadcast(x->world, x->piece.data + at, n, 0);
  }
  take_piece(in, x, head.n, err);
  return pdt_comm_agree(x->world, err);
}

int pdt_decode_input_read(pdt_decode_input *in, const pdt_comm *world,
                          const pdt_decode_options *options, pdt_error *err) {
  exchange x = {.world = world};
  bool last = false;
  *in = (pdt_decode_input){0};
  if (!load_configs(in, options, err) && world->rank == 0) resolve_all(in, options, err);
  int status = pdt_comm_agree(world, err);
  while (!status && !last) status = share_piece(in, &x, &last, err);
  if (!status && world->rank == 0) in->fingerprint = pdt_request_spool_fingerprint(in->spool);
  pdt_buffer_free(&x.piece);
  if (status) pdt_decode_input_free(in);
  return status;
}

void pdt_decode_input_free(pdt_decode_input *in) {
  for (int32_t i = 0; i < in->n; i++) pdt_request_free(&in->requests[i]);
  free(in->requests);
  pdt_request_spool_free(in->spool);
  pdt_tokenizer_free(in->tokenizer);
  pdt_sidecar_config_free(&in->sidecar);
  *in = (pdt_decode_input){0};
}

#include "run/decode_input.h"

#include <stdlib.h>

#include "base/text_safe.h"
#include "journal/sink.h"
#include "request/message.h"
#include "run/decode_journal.h"
#include "run/request_reader.h"

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
  const pdt_safetensors *sidecar = pdt_engine_loaded(engine)->sidecar_file;
  if (in->config_hash == pdt_engine_loaded(engine)->fingerprints.config)
    return pdt_file_unchanged_open(&in->sidecar_state, sidecar->fd, sidecar->path, err);
  return pdt_fail(err, PDT_ERROR_IO, "%s: config.json changed while the model was being read",
                  pdt_engine_loaded(engine)->checkpoint->directory);
}

/* ---- rank 0 reads, resolves and checks ---- */

/* Takes one resolved request. */
static int put_request(pdt_decode_input *in, const pdt_request_reader *reader, const pdt_request *r,
                       pdt_largest *decisions, pdt_error *err) {
  int32_t index = pdt_request_spool_count(in->spool);
  if (reader->options->journal && pdt_decode_journal_check(in, r, index, decisions, err)) return -1;
  return pdt_request_spool_put(in->spool, r, reader->where, err);
}

/* Takes one that is wrong, where it is to be passed over: *err says why, and is then empty. */
static int put_failure(pdt_decode_input *in, const pdt_request_reader *reader, pdt_error *err) {
  if (!reader->options->skip_errors) return -1;
  char *why = pdt_escaped(err->message);
  *err = (pdt_error){0};
  int32_t index = pdt_request_spool_count(in->spool);
  int status = why ? pdt_request_spool_put_failure(in->spool, (uint64_t)index,
                                                   (int32_t)reader->lines.number, why, err)
                   : pdt_fail(err, PDT_ERROR_MEMORY, "%s: no memory", reader->where);
  free(why);
  return status;
}

static int put_all(pdt_decode_input *in, pdt_request_reader *reader, pdt_error *err) {
  pdt_largest decisions = {.most = reader->options->engine.max_sessions};
  pdt_request r;
  int more;
  while ((more = pdt_request_reader_next(reader, &r, err)) > 0) {
    bool wrong = more == PDT_READER_WRONG;
    int status =
        wrong ? put_failure(in, reader, err) : put_request(in, reader, &r, &decisions, err);
    if (!wrong) pdt_request_free(&r);
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

/* ---- the run takes them ---- */

int pdt_decode_input_read(pdt_decode_input *in, const pdt_comm *world,
                          const pdt_decode_options *options, pdt_error *err) {
  *in = (pdt_decode_input){0};
  if (!load_configs(in, options, err) && world->rank == 0) resolve_all(in, options, err);
  int status = pdt_comm_agree(world, err);
  if (!status && world->rank == 0) {
    in->n = pdt_request_spool_count(in->spool);
    in->fingerprint = pdt_request_spool_fingerprint(in->spool);
  }
  if (status) pdt_decode_input_free(in);
  return status;
}

static void free_failure(pdt_decode_input *in) {
  if (in->failure) pdt__request_failure__free_unpacked(in->failure, NULL);
  in->failure = NULL;
}

/* The next request of the spool, into in->request: 1, or 0 after the last; PDT_SPOOL_FAILURE, and
 * in->failure has the reason. */
static int next_request(pdt_decode_input *in, pdt_error *err) {
  const pdt_request_context context = {&in->model, &in->sidecar, NULL};
  const char *bytes;
  size_t n, at = 0;
  pdt_request_free(&in->request);
  free_failure(in);
  int more = pdt_request_spool_next(in->spool, &bytes, &n, err);
  if (more == PDT_SPOOL_FAILURE) {
    in->failure = pdt__request_failure__unpack(NULL, n, (const uint8_t *)bytes);
    return in->failure ? more : pdt_fail(err, PDT_ERROR_MEMORY, "request: no memory");
  }
  if (more > 0 && pdt_request_unpack(&in->request, bytes, n, &at, "request", &context, err))
    return -1;
  return more;
}

int pdt_decode_input_capacity(pdt_decode_input *in, int32_t max_sessions, pdt_spread spread,
                              pdt_capacity *out, pdt_error *err) {
  pdt_capacity_maker maker = pdt_capacity_maker_of(max_sessions, spread);
  int more, status = 0;
  pdt_request_spool_rewind(in->spool);
  while (!status && (more = next_request(in, err)) != 0)
    if (more != PDT_SPOOL_FAILURE)
      status = more < 0 ? -1 : pdt_capacity_maker_add(&maker, &in->request, err);
  *out = pdt_capacity_made(&maker);
  pdt_capacity_maker_free(&maker);
  pdt_request_spool_rewind(in->spool);
  return status ? -1 : 0;
}

static pdt_next hand_out(void *context, bool may_wait, const pdt_request **request,
                         pdt_error *err) {
  pdt_decode_input *in = context;
  (void)may_wait;
  int more = next_request(in, err);
  *request = &in->request;
  if (more == PDT_SPOOL_FAILURE) return PDT_NEXT_PASSED;
  return more > 0 ? PDT_NEXT_REQUEST : more == 0 ? PDT_NEXT_END : PDT_NEXT_FAILED;
}

pdt_request_source pdt_decode_input_source(pdt_decode_input *in) {
  return (pdt_request_source){in, hand_out};
}

void pdt_decode_input_free(pdt_decode_input *in) {
  free_failure(in);
  pdt_request_free(&in->request);
  pdt_request_spool_free(in->spool);
  pdt_tokenizer_free(in->tokenizer);
  pdt_sidecar_config_free(&in->sidecar);
  *in = (pdt_decode_input){0};
}

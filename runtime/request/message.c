#include "request/message.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/json_text.h"
#include "base/memory.h"
#include "request/settings.h"

enum { MAX_PACKED_BYTES = 1 << 30 };

static_assert(sizeof(pdt_policy) == 4 && sizeof(Pdt__Policy) == 4 && sizeof(double) == 8,
              "settings have the same bits in both");
static_assert(PDT__POLICY__POLICY_SELECTIVE == (int)PDT_SELECTIVE, "policies share their values");
static_assert(PDT__POLICY__POLICY_STALL == (int)PDT_STALL, "policies share their values");
static_assert(PDT__POLICY__POLICY_GLOBAL == (int)PDT_GLOBAL, "policies share their values");
static_assert(PDT__POLICY__POLICY_LOCAL == (int)PDT_LOCAL, "policies share their values");

/* Numbers of one size have the same bits in both: an integer above 2^31 in a message becomes a
 * negative one, which no setting may be. */
static size_t setting_bytes(const pdt_setting *setting) {
  bool wide = setting->kind == PDT_SETTING_REAL || setting->kind == PDT_SETTING_SEED;
  return wide ? sizeof(uint64_t) : sizeof(uint32_t);
}

static void put_settings(Pdt__Settings *m, const pdt_settings *s) {
  pdt__settings__init(m);
  for (const pdt_setting *i = pdt_setting_table; i < pdt_setting_table + PDT_SETTINGS; i++)
    memcpy((char *)m + i->message_place, (const char *)s + i->place, setting_bytes(i));
}

static pdt_settings settings_of(const Pdt__Settings *m, int32_t slots) {
  pdt_settings s = {.limits = {.slots = slots}};
  for (const pdt_setting *i = pdt_setting_table; i < pdt_setting_table + PDT_SETTINGS; i++)
    memcpy((char *)&s + i->place, (const char *)m + i->message_place, setting_bytes(i));
  return s;
}

int pdt_request_message_new(pdt_request_message *m, const pdt_request *r, pdt_error *err) {
  int32_t K = r->settings.streams;
  *m = (pdt_request_message){.message = PDT__REQUEST__INIT};
  if (PDT_NEW(&m->prefixes, K, "request", err) || PDT_NEW(&m->list, K, "request", err)) return -1;
  put_settings(&m->settings, &r->settings);
  m->message.session = r->session;
  m->message.n_prompt_ids = (size_t)r->n_prompt;
  m->message.prompt_ids = r->prompt;
  m->message.n_prefix_ids = (size_t)K;
  m->message.prefix_ids = m->list;
  for (pdt_stream k = 0; k < K; k++) {
    m->list[k] = &m->prefixes[k];
    pdt__token_ids__init(m->list[k]);
    m->list[k]->n_ids = (size_t)r->n_prefix[k];
    m->list[k]->ids = r->prefix[k];
  }
  m->message.n_plan_ids = r->plan_ids ? (size_t)r->settings.limits.slots : 0;
  m->message.plan_ids = r->plan_ids;
  m->message.settings = &m->settings;
  m->message.line = (uint32_t)r->line;
  return 0;
}

void pdt_request_message_free(pdt_request_message *m) {
  free(m->prefixes);
  free(m->list);
  *m = (pdt_request_message){.message = PDT__REQUEST__INIT};
}

/* How large things may be. */
typedef struct bounds {
  int32_t vocabulary, positions, streams, plan_vocabulary;
} bounds;

static bounds bounds_of(const pdt_request_context *context) {
  if (!context) return (bounds){INT32_MAX, INT32_MAX, INT32_MAX, INT32_MAX};
  return (bounds){context->model->vocab_size, context->model->max_positions,
                  context->sidecar->streams, context->sidecar->plan_vocab_size};
}

static int check_ids(const int32_t *ids, size_t n, int32_t end, const char *where, const char *name,
                     pdt_error *err) {
  if (n > PDT_MAX_REQUEST_TOKENS)
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: %s: expected at most %d, found %zu", where, name,
                    PDT_MAX_REQUEST_TOKENS, n);
  for (size_t i = 0; i < n; i++)
    if (ids[i] < 0 || ids[i] >= end)
      return pdt_fail(err, PDT_ERROR_INPUT, "%s: %s: [%zu]: expected an id from 0 to %d, found %d",
                      where, name, i, end - 1, ids[i]);
  return 0;
}

/* Counts and ids; what the settings are has been checked. */
static int check_lists(const Pdt__Request *m, const pdt_settings *s, const bounds *b,
                       const char *where, pdt_error *err) {
  if (s->streams > b->streams || m->n_prefix_ids != (size_t)s->streams)
    return pdt_fail(err, PDT_ERROR_INPUT,
                    "%s: %d streams with %zu prefixes: expected as many, at most %d", where,
                    s->streams, m->n_prefix_ids, b->streams);
  if (m->n_prompt_ids == 0 || m->session > UINT32_MAX || m->line > INT32_MAX ||
      (m->n_plan_ids > 0 && m->n_plan_ids != (size_t)s->limits.slots))
    return pdt_fail(err, PDT_ERROR_INPUT,
                    "%s: %zu prompt tokens, %zu plan slots, session %llu: this cannot be", where,
                    m->n_prompt_ids, m->n_plan_ids, (unsigned long long)m->session);
  if (check_ids(m->prompt_ids, m->n_prompt_ids, b->vocabulary, where, "prompt_ids", err) ||
      check_ids(m->plan_ids, m->n_plan_ids, b->plan_vocabulary, where, "plan_ids", err))
    return -1;
  for (size_t k = 0; k < m->n_prefix_ids; k++)
    if (check_ids(m->prefix_ids[k]->ids, m->prefix_ids[k]->n_ids, b->vocabulary, where,
                  "prefix_ids", err))
      return -1;
  return 0;
}

/* Takes the next n numbers of a request's room, and fills them. */
static int32_t *take(int32_t **room, const int32_t *from, size_t n) {
  int32_t *to = *room;
  if (n > 0) memcpy(to, from, n * sizeof *from);
  *room += n;
  return to;
}

/* Copies the lists into one allocation: the pointers first, then everything else. */
static int copy_lists(pdt_request *r, const Pdt__Request *m, pdt_error *err) {
  size_t K = m->n_prefix_ids, numbers = m->n_prompt_ids + m->n_plan_ids + K;
  for (size_t k = 0; k < K; k++) numbers += m->prefix_ids[k]->n_ids;
  size_t bytes = K * sizeof *r->prefix + numbers * sizeof(int32_t);
  char *block = malloc(bytes); /* aligned for pointers: there may be very many small requests */
  if (!block) return pdt_fail(err, PDT_ERROR_MEMORY, "request: no memory for %zu bytes", bytes);
  int32_t *room = (int32_t *)(void *)(block + K * sizeof *r->prefix);
  r->block = block;
  r->prefix = (pdt_token **)(void *)block;
  r->prompt = take(&room, m->prompt_ids, m->n_prompt_ids);
  r->n_prompt = (int32_t)m->n_prompt_ids;
  if (m->n_plan_ids > 0) r->plan_ids = take(&room, m->plan_ids, m->n_plan_ids);
  r->n_prefix = room;
  room += K;
  for (size_t k = 0; k < K; k++) {
    r->n_prefix[k] = (int32_t)m->prefix_ids[k]->n_ids;
    r->prefix[k] = take(&room, m->prefix_ids[k]->ids, m->prefix_ids[k]->n_ids);
  }
  return 0;
}

int pdt_request_from_message(pdt_request *r, const Pdt__Request *m, const char *where,
                             const pdt_request_context *context, pdt_error *err) {
  const bounds b = bounds_of(context);
  *r = (pdt_request){0};
  if (!m->settings)
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: expected settings, found none", where);
  int32_t slots = context ? context->sidecar->plan_slots : (int32_t)m->n_plan_ids;
  const pdt_settings settings = settings_of(m->settings, slots);
  if (pdt_settings_check(&settings, where, err) || check_lists(m, &settings, &b, where, err) ||
      copy_lists(r, m, err))
    return -1;
  r->session = m->session;
  r->settings = settings;
  r->line = (int32_t)m->line;
  int32_t positions = pdt_request_positions(r);
  if (positions <= b.positions) return 0;
  pdt_request_free(r);
  return pdt_fail(err, PDT_ERROR_INPUT, "%s: expected at most %d positions, found %d", where,
                  b.positions, positions);
}

int pdt_request_copy(pdt_request *copy, const pdt_request *r, const pdt_request_context *context,
                     pdt_error *err) {
  pdt_request_message m;
  *copy = (pdt_request){0};
  int status = pdt_request_message_new(&m, r, err) ||
               pdt_request_from_message(copy, &m.message, "request", context, err);
  pdt_request_message_free(&m);
  return status ? -1 : 0;
}

int pdt_request_pack(pdt_buffer *to, const pdt_request *r, const char *where, pdt_error *err) {
  pdt_request_message m;
  int status = pdt_request_message_new(&m, r, err);
  size_t bytes = status ? 0 : pdt__request__get_packed_size(&m.message);
  if (bytes > MAX_PACKED_BYTES)
    status = pdt_fail(err, PDT_ERROR_INPUT, "%s: a request of %zu bytes: expected at most %d",
                      where, bytes, MAX_PACKED_BYTES);
  uint32_t length = (uint32_t)bytes;
  if (!status) status = pdt_buffer_reserve(to, sizeof length + bytes, err);
  if (!status) {
    memcpy(to->data + to->bytes, &length, sizeof length);
    pdt__request__pack(&m.message, (uint8_t *)to->data + to->bytes + sizeof length);
    to->bytes += sizeof length + bytes;
  }
  pdt_request_message_free(&m);
  return status ? -1 : 0;
}

int pdt_request_unpack(pdt_request *r, const char *bytes, size_t n, size_t *at, const char *where,
                       const pdt_request_context *context, pdt_error *err) {
  uint32_t length = 0;
  *r = (pdt_request){0};
  bool whole = n - *at >= sizeof length;
  if (whole) memcpy(&length, bytes + *at, sizeof length);
  if (!whole || length > n - *at - sizeof length)
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: its bytes are cut short", where);
  Pdt__Request *message =
      pdt__request__unpack(NULL, length, (const uint8_t *)bytes + *at + sizeof length);
  if (!message)
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: its bytes are no request (hint: out of memory?)",
                    where);
  int status = pdt_request_from_message(r, message, where, context, err);
  pdt__request__free_unpacked(message, NULL);
  *at += sizeof length + length;
  return status;
}

/* ---- compared ---- */

static bool same_ids(const int32_t *a, size_t n_a, const int32_t *b, size_t n_b) {
  return n_a == n_b && (n_a == 0 || memcmp(a, b, n_a * sizeof *a) == 0);
}

static bool same_prefixes(const Pdt__Request *a, const Pdt__Request *b) {
  bool same = a->n_prefix_ids == b->n_prefix_ids;
  for (size_t k = 0; same && k < a->n_prefix_ids; k++)
    same = same_ids(a->prefix_ids[k]->ids, a->prefix_ids[k]->n_ids, b->prefix_ids[k]->ids,
                    b->prefix_ids[k]->n_ids);
  return same;
}

const char *pdt_request_difference(const Pdt__Request *a, const Pdt__Request *b) {
  if (!a->settings || !b->settings) return "settings";
  for (const pdt_setting *i = pdt_setting_table; i < pdt_setting_table + PDT_SETTINGS; i++)
    if (memcmp((const char *)a->settings + i->message_place,
               (const char *)b->settings + i->message_place, setting_bytes(i)) != 0)
      return i->key;
  if (!same_ids(a->prompt_ids, a->n_prompt_ids, b->prompt_ids, b->n_prompt_ids)) return "prompt";
  if (!same_prefixes(a, b)) return "sections";
  if (!same_ids(a->plan_ids, a->n_plan_ids, b->plan_ids, b->n_plan_ids)) return "plan";
  if (a->session != b->session) return "session";
  return a->line == b->line ? NULL : "line";
}

/* ---- as JSON ---- */

static void put_json_setting(FILE *out, const pdt_setting *setting, const Pdt__Settings *s) {
  const void *value = (const char *)s + setting->message_place;
  (void)fprintf(out, "\"%s\":", setting->key);
  switch (setting->kind) {
  case PDT_SETTING_INTEGER:
    (void)fprintf(out, "%" PRIu32, *(const uint32_t *)value);
    break;
  case PDT_SETTING_REAL:
    pdt_json_put_double(out, *(const double *)value);
    break;
  case PDT_SETTING_POLICY:
    (void)fprintf(out, "\"%s\"", pdt_policy_name((pdt_policy) * (const Pdt__Policy *)value));
    break;
  default:
    pdt_json_put_u64(out, *(const uint64_t *)value);
    break;
  }
}

void pdt_request_put_json(FILE *out, const Pdt__Request *r) {
  (void)fputs("{\"session\":", out);
  pdt_json_put_u64(out, r->session);
  (void)fputs(",\"prompt_ids\":", out);
  pdt_json_put_i32s(out, r->prompt_ids, r->n_prompt_ids);
  (void)fputs(",\"prefix_ids\":[", out);
  for (size_t k = 0; k < r->n_prefix_ids; k++) {
    if (k) (void)fputc(',', out);
    pdt_json_put_i32s(out, r->prefix_ids[k]->ids, r->prefix_ids[k]->n_ids);
  }
  (void)fputc(']', out);
  if (r->n_plan_ids > 0) {
    (void)fputs(",\"plan_ids\":", out);
    pdt_json_put_i32s(out, r->plan_ids, r->n_plan_ids);
  }
  (void)fputs(",\"settings\":{", out);
  for (int i = 0; i < PDT_SETTINGS; i++) {
    if (i) (void)fputc(',', out);
    put_json_setting(out, &pdt_setting_table[i], r->settings);
  }
  (void)fputs("}}", out);
}

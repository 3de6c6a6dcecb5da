#include "serve/http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/json_text.h"
#include "base/memory.h"

enum {
  IDLE_SECONDS = 30,          /* of a connection on which nothing moves */
  BODY_SECONDS = 60,          /* in which a request must be there */
  OTHER_DESCRIPTORS = 128,    /* of this process, beside connections */
  HEADER_BYTES = 32 << 10,    /* of one request; more is answered with 431 */
  MOST_READ_BYTES = 64 << 20, /* of a body that is refused: of a longer one nothing is read */
  MAX_SECRET_BYTES = 1 << 20,
  MOST_BODIES =
      64, /* of the largest size, that all requests together may hold while they are read */
};

/* ---- what needs no job ---- */

static enum MHD_Result respond_json(const pdt_exchange *e, int status, FILE *out, char **text,
                                    size_t *bytes) {
  if (fclose(out) == 0) return pdt_exchange_respond(e, status, "application/json", *text, *bytes);
  free(*text);
  return MHD_NO;
}

/* How the server is. With the hub's lock. */
typedef struct health {
  const char *status;
  char reason[160]; /* "": it is well */
  double since;     /* seconds without progress, while there is any to make */
} health;

static health look_at(const pdt_http *http) {
  const pdt_hub *hub = http->hub;
  double since = hub->n_running > 0 ? pdt_seconds() - hub->progress : 0;
  health h = {.status = "ok", .since = since};
  if (hub->phase == PDT_HUB_LOADS) {
    h.status = "loading";
    snprintf(h.reason, sizeof h.reason, "the model is being loaded");
  } else if (hub->phase == PDT_HUB_DRAINS) {
    h.status = "draining";
    snprintf(h.reason, sizeof h.reason, "the server is shutting down");
  } else if (since > http->options->stuck_seconds) {
    h.status = "stuck";
    snprintf(h.reason, sizeof h.reason,
             "%d requests are in flight, and no round has ended for %.1f s: expected one within "
             "%g s (--stuck)",
             hub->n_running, since, http->options->stuck_seconds);
  }
  return h;
}

/* 200 where it serves and gets on. */
static enum MHD_Result answer_health(const pdt_exchange *e) {
  pdt_hub *hub = e->http->hub;
  char *text;
  size_t bytes;
  FILE *out = open_memstream(&text, &bytes);
  if (!out) return MHD_NO;
  pthread_mutex_lock(&hub->lock);
  const health h = look_at(e->http);
  fprintf(out, "{\"status\":\"%s\",\"reason\":", h.status);
  if (*h.reason)
    fprintf(out, "\"%s\"", h.reason);
  else
    fputs("null", out);
  fprintf(out, ",\"running\":%d,\"waiting\":%d,\"seconds_since_progress\":%.1f}\n", hub->n_running,
          hub->n_queued, h.since);
  pthread_mutex_unlock(&hub->lock);
  return respond_json(e, *h.reason ? 503 : 200, out, &text, &bytes);
}

static enum MHD_Result answer_metrics(const pdt_exchange *e) {
  char *text;
  size_t bytes;
  FILE *out = open_memstream(&text, &bytes);
  if (!out) return MHD_NO;
  pdt_metrics_put(out, e->http->hub, &e->http->capacity);
  if (fclose(out) == 0)
    return pdt_exchange_respond(e, 200, "text/plain; version=0.0.4; charset=utf-8", text, bytes);
  free(text);
  return MHD_NO;
}

/* The model, alone or in a list of one. */
static enum MHD_Result answer_models(const pdt_exchange *e, bool list) {
  const pdt_http *http = e->http;
  const char *name = http->context.model;
  char *text;
  size_t bytes;
  FILE *out = open_memstream(&text, &bytes);
  if (!out) return MHD_NO;
  if (list) fputs("{\"object\":\"list\",\"data\":[", out);
  fputs("{\"id\":", out);
  pdt_json_put_string(out, name, strlen(name));
  fprintf(out, ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"pdt\",\"max_model_len\":%d}",
          (long long)http->started, http->capacity.positions);
  fputs(list ? "]}\n" : "\n", out);
  return respond_json(e, 200, out, &text, &bytes);
}

/* ---- which is which ---- */

/* What is there, by method. */
typedef struct place {
  const char *path;
  bool is_post, open; /* open: whoever asks */
} place;

enum { PAGE, HEALTH, METRICS, MODELS, COMPLETION, CHAT, DECODE, ROUTES, MODEL = ROUTES };
static const place routes[ROUTES] = {
    [PAGE] = {"/", false, true},
    [HEALTH] = {"/health", false, true},
    [METRICS] = {"/metrics", false, true},
    [MODELS] = {"/v1/models", false, false},
    [COMPLETION] = {"/v1/completions", true, false},
    [CHAT] = {"/v1/chat/completions", true, false},
    [DECODE] = {"/v1/pdt/decode", true, false},
};

/* The route of a path; MODEL for one model's; -1 for none. */
static int route_of(const char *url) {
  int i = 0;
  while (i < ROUTES && strcmp(routes[i].path, url) != 0) i++;
  if (i < ROUTES) return i;
  return strncmp(url, "/v1/models/", 11) == 0 ? MODEL : -1;
}

/* Does the request have the key? Hashes are compared, in a time that tells nothing of where they
 * differ. */
static bool has_key(const pdt_http *http, struct MHD_Connection *connection) {
  const char *given =
      MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_AUTHORIZATION);
  uint8_t hash[PDT_KEY_BYTES];
  if (!http->has_key) return true;
  if (!given || strncasecmp(given, "Bearer ", 7) != 0) return false;
  SHA256((const unsigned char *)given + 7, strlen(given + 7), hash);
  return CRYPTO_memcmp(hash, http->key, sizeof hash) == 0;
}

/* May this be asked, and here? */
static int check_route(const pdt_exchange *e, int route, const char *method, pdt_refusal *why) {
  bool is_post = strcmp(method, "POST") == 0;
  bool is_get = strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0;
  bool wants_post = route >= 0 && route < ROUTES && routes[route].is_post;
  if (route < 0)
    return pdt_refuse(
        why, 404, "not_found", NULL,
        "there is no such path (hint: /, /v1/completions, /v1/pdt/decode, /v1/models, "
        "/health, /metrics)");
  if (!(wants_post ? is_post : is_get))
    return pdt_refuse(why, 405, "method_not_allowed", NULL, "expected %s",
                      wants_post ? "POST" : "GET");
  if ((route == MODEL || !routes[route].open) && !has_key(e->http, e->connection))
    return pdt_refuse(why, 401, "invalid_api_key", NULL,
                      "expected the header 'Authorization: Bearer KEY' with this server's key");
  return 0;
}

/* Is there somebody to ask? */
static int check_phase(const pdt_exchange *e, int route, pdt_refusal *why) {
  if (route == HEALTH || route == PAGE) return 0;
  pthread_mutex_lock(&e->http->hub->lock);
  pdt_hub_phase phase = e->http->hub->phase;
  pthread_mutex_unlock(&e->http->hub->lock);
  if (phase == PDT_HUB_LOADS)
    return pdt_refuse(why, 503, "loading", NULL, "the model is being loaded");
  if (phase == PDT_HUB_DRAINS && routes[route % ROUTES].is_post)
    return pdt_refuse(why, 503, "shutting_down", NULL, "the server is shutting down");
  return 0;
}

static int refuse_length(const pdt_exchange *e, pdt_refusal *why) {
  return pdt_refuse(why, 413, "too_large", NULL, "body: expected at most %lld bytes",
                    (long long)e->http->options->max_body);
}

/* The length that a request gives its body; 0 where it gives none. */
static long long body_length(const pdt_exchange *e) {
  const char *text =
      MHD_lookup_connection_value(e->connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);
  return text ? strtoll(text, NULL, 10) : 0;
}

/* ---- from the first line of a request to its end ---- */

static enum MHD_Result begin(pdt_http *http, struct MHD_Connection *connection, const char *url,
                             const char *method, void **exchange) {
  pdt_exchange *e = NULL;
  int route = route_of(url);
  if (PDT_NEW(&e, 1, "request", NULL)) return MHD_NO;
  *e = (pdt_exchange){.http = http, .connection = connection, .began = pdt_seconds()};
  *exchange = e;
  pthread_mutex_lock(&http->hub->lock);
  e->last = e->began;
  e->next = http->exchanges;
  http->exchanges = e;
  http->n_exchanges++;
  pthread_mutex_unlock(&http->hub->lock);
  e->is_post = strcmp(method, "POST") == 0;
  e->form = route == COMPLETION ? PDT_ASK_COMPLETION
            : route == CHAT     ? PDT_ASK_CHAT
                                : PDT_ASK_DECODE;
  e->refused = check_route(e, route, method, &e->refusal) || check_phase(e, route, &e->refusal);
  if (body_length(e) <= MOST_READ_BYTES) return MHD_YES;
  if (!e->refused) refuse_length(e, &e->refusal);
  return pdt_exchange_refuse(e, &e->refusal);
}

/* Is there room for n more bytes of the body? All bodies that are being read share it. */
static bool has_room(pdt_exchange *e, size_t n) {
  pdt_bytes most = e->http->options->max_body;
  if ((pdt_bytes)(e->body.bytes + n) > most)
    refuse_length(e, &e->refusal);
  else if (e->http->body_bytes + (pdt_bytes)n > MOST_BODIES * most)
    pdt_refuse(&e->refusal, 503, "busy", NULL, "too many large requests are being read");
  else
    return true;
  return false;
}

/* Takes a piece of the body. */
static enum MHD_Result take_body(pdt_exchange *e, const char *data, size_t *bytes) {
  size_t n = *bytes;
  *bytes = 0;
  if (pdt_seconds() - e->began > BODY_SECONDS) return MHD_NO;
  if (e->refused || !e->is_post) return MHD_YES;
  e->refused = !has_room(e, n);
  if (e->refused) {
    pdt_exchange_drop_body(e);
    return MHD_YES;
  }
  if (pdt_buffer_put(&e->body, data, n, NULL)) return MHD_NO;
  e->http->body_bytes += (pdt_bytes)n;
  return MHD_YES;
}

static enum MHD_Result answer_get(const pdt_exchange *e, const char *url) {
  pdt_refusal why;
  switch (route_of(url)) {
  case PAGE:
    return pdt_live_page_answer(&e->http->page, e->connection);
  case HEALTH:
    return answer_health(e);
  case METRICS:
    return answer_metrics(e);
  case MODELS:
    return answer_models(e, true);
  default:
    if (strcmp(url + 11, e->http->context.model) == 0) return answer_models(e, false);
    pdt_refuse(&why, 404, "model_not_found", NULL, "this server has '%s'", e->http->context.model);
    return pdt_exchange_refuse(e, &why);
  }
}

static enum MHD_Result on_request(void *context, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *data,
                                  size_t *bytes, void **exchange) {
  pdt_exchange *e = *exchange;
  (void)version;
  if (!e) return begin(context, connection, url, method, exchange);
  if (*bytes > 0) return take_body(e, data, bytes);
  if (e->refused) return pdt_exchange_refuse(e, &e->refusal);
  if (!e->is_post) return answer_get(e, url);
  return e->n_jobs > 0 ? pdt_exchange_go_on(e) : pdt_exchange_ask(e);
}

static void on_completed(void *context, struct MHD_Connection *connection, void **exchange,
                         enum MHD_RequestTerminationCode code) {
  pdt_http *http = context;
  pdt_exchange *e = *exchange, **at = &http->exchanges;
  (void)connection;
  (void)code;
  if (!e) return;
  *exchange = NULL;
  pthread_mutex_lock(&http->hub->lock);
  while (*at && *at != e) at = &(*at)->next;
  if (*at) *at = e->next;
  http->n_exchanges--;
  pthread_mutex_unlock(&http->hub->lock);
  pdt_exchange_free(e);
}

/* ---- the daemon ---- */

/* The key that requests must have, if any. */
static int read_key(pdt_http *http, pdt_error *err) {
  const char *path = http->options->api_key_file, *key = getenv("PDT_API_KEY");
  char *text = NULL;
  pdt_bytes bytes = 0;
  if (path) {
    if (pdt_file_read(&text, &bytes, path, MAX_SECRET_BYTES, err)) return -1;
    text[strcspn(text, "\r\n")] = '\0';
    key = text;
  }
  http->has_key = key != NULL;
  int status = 0;
  if (key && !*key)
    status = pdt_fail(err, PDT_ERROR_INPUT, "%s: expected a key in its first line, found none",
                      path ? path : "PDT_API_KEY");
  else if (key)
    SHA256((const unsigned char *)key, strlen(key), http->key);
  free(text);
  return status;
}

static int read_certificate(pdt_http *http, pdt_error *err) {
  const pdt_serve_options *o = http->options;
  pdt_bytes bytes;
  if (!o->certificate) return 0;
  if (MHD_is_feature_supported(MHD_FEATURE_TLS) != MHD_YES)
    return pdt_fail(err, PDT_ERROR_USAGE, "--tls-certificate: this libmicrohttpd has no TLS");
  return pdt_file_read(&http->certificate, &bytes, o->certificate, MAX_SECRET_BYTES, err) ||
                 pdt_file_read(&http->private_key, &bytes, o->private_key, MAX_SECRET_BYTES, err)
             ? -1
             : 0;
}

/* As many connections as asked for, and as this process may have open files. */
static unsigned most_connections(const pdt_serve_options *o) {
  struct rlimit limit;
  unsigned most = (unsigned)o->max_connections;
  if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur == RLIM_INFINITY) return most;
  rlim_t room = limit.rlim_cur > 2 * OTHER_DESCRIPTORS ? limit.rlim_cur - OTHER_DESCRIPTORS
                                                       : limit.rlim_cur / 2;
  return room < most ? (unsigned)room : most;
}

static void say_nothing(void *context, const char *format, va_list arguments) {
  (void)context;
  (void)format;
  (void)arguments;
}

static int listen_at(pdt_http *http, const struct addrinfo *at, pdt_error *err) {
  const pdt_serve_options *o = http->options;
  /* by poll: with epoll, 0.9.75 now and then misses that a client has closed, until it is idle */
  unsigned flags = MHD_USE_POLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG;
  if (at->ai_family == AF_INET6) flags |= MHD_USE_IPv6;
  if (http->certificate) flags |= MHD_USE_TLS;
  const struct MHD_OptionItem tls[] = {
      {MHD_OPTION_HTTPS_MEM_CERT, 0, http->certificate},
      {MHD_OPTION_HTTPS_MEM_KEY, 0, http->private_key},
      {MHD_OPTION_END, 0, NULL},
  };
  errno = 0;
  http->daemon = MHD_start_daemon(
      flags, (uint16_t)o->port, NULL, NULL, on_request, http, MHD_OPTION_EXTERNAL_LOGGER,
      say_nothing, NULL, MHD_OPTION_SOCK_ADDR, at->ai_addr, MHD_OPTION_NOTIFY_COMPLETED,
      on_completed, http, MHD_OPTION_CONNECTION_LIMIT, most_connections(o),
      MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_SECONDS, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
      (size_t)HEADER_BYTES, MHD_OPTION_ARRAY, http->certificate ? tls : &tls[2], MHD_OPTION_END);
  if (http->daemon) return 0;
  return pdt_fail(err, PDT_ERROR_IO, "%s, port %d: cannot listen there: %s", o->host, o->port,
                  errno               ? strerror(errno)
                  : http->certificate ? "are certificate and key good?"
                                      : "libmicrohttpd does not say why");
}

int pdt_http_start(pdt_http *http, const pdt_serve_options *options, pdt_hub *hub, const char *name,
                   pdt_error *err) {
  const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
  struct addrinfo *at = NULL;
  char port[16];
  *http = (pdt_http){.options = options, .hub = hub, .started = (int64_t)time(NULL)};
  http->context.model = name;
  if (pdt_live_page_make(&http->page, name, err) || read_key(http, err) ||
      read_certificate(http, err))
    return -1;
  snprintf(port, sizeof port, "%d", options->port);
  int found = getaddrinfo(options->host, port, &hints, &at);
  if (found)
    return pdt_fail(err, PDT_ERROR_USAGE, "--host: '%s': %s", options->host, gai_strerror(found));
  int status = listen_at(http, at, err);
  freeaddrinfo(at);
  return status;
}

int pdt_http_port(const pdt_http *http) {
  const union MHD_DaemonInfo *info = MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_BIND_PORT);
  return info ? info->port : http->options->port;
}

void pdt_http_stop(pdt_http *http) {
  if (http->daemon) {
    pthread_mutex_lock(&http->hub->lock);
    for (pdt_exchange *e = http->exchanges; e; e = e->next) {
      e->gone = true;
      pdt_exchange_wake(e);
    }
    pthread_mutex_unlock(&http->hub->lock);
    MHD_stop_daemon(http->daemon);
  }
  if (http->private_key) OPENSSL_cleanse(http->private_key, strlen(http->private_key));
  free(http->certificate);
  free(http->private_key);
  pdt_live_page_free(&http->page);
  *http = (pdt_http){0};
}

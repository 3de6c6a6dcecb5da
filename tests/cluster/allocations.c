#include "allocations.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include <jansson.h>
#include <openssl/evp.h>
#include <protobuf-c/protobuf-c.h>

/* The wrapped functions have no argument to carry it. */
static _Thread_local allocations *mine;

void allocations_count(allocations *of) {
  mine = of;
}

/* One more; must it fail? */
static bool runs_out(const void *caller) {
  allocations *a = mine;
  if (!a || __atomic_fetch_add(&a->count, 1, __ATOMIC_RELAXED) != a->failing) return false;
  a->caller = caller;
  errno = ENOMEM;
  return true;
}

#define RUNS_OUT() runs_out(__builtin_return_address(0))

/* A function of the program's own that the linker wraps, as it names it and the original. */
#define WRAPPED(type, name, parameters)                                                            \
  type __real_##name parameters;                                                                   \
  type __wrap_##name parameters;                                                                   \
  type __wrap_##name parameters

WRAPPED(void *, malloc, (size_t bytes)) {
  return RUNS_OUT() ? NULL : __real_malloc(bytes);
}

WRAPPED(void *, calloc, (size_t n, size_t bytes)) {
  return RUNS_OUT() ? NULL : __real_calloc(n, bytes);
}

WRAPPED(void *, realloc, (void *p, size_t bytes)) {
  return RUNS_OUT() ? NULL : __real_realloc(p, bytes);
}

WRAPPED(void *, aligned_alloc, (size_t alignment, size_t bytes)) {
  return RUNS_OUT() ? NULL : __real_aligned_alloc(alignment, bytes);
}

WRAPPED(char *, strdup, (const char *text)) {
  return RUNS_OUT() ? NULL : __real_strdup(text);
}

WRAPPED(char *, strndup, (const char *text, size_t n)) {
  return RUNS_OUT() ? NULL : __real_strndup(text, n);
}

WRAPPED(int, vasprintf, (char **text, const char *format, va_list arguments)) {
  return RUNS_OUT() ? -1 : __real_vasprintf(text, format, arguments);
}

int __wrap_asprintf(char **text, const char *format, ...) __attribute__((format(printf, 2, 3)));
int __wrap_asprintf(char **text, const char *format, ...) {
  va_list arguments;
  if (RUNS_OUT()) return -1;
  va_start(arguments, format);
  int n = __real_vasprintf(text, format, arguments);
  va_end(arguments);
  return n;
}

WRAPPED(ssize_t, getline, (char **line, size_t *room, FILE *f)) {
  return RUNS_OUT() ? -1 : __real_getline(line, room, f);
}

WRAPPED(FILE *, fopen, (const char *path, const char *mode)) {
  return RUNS_OUT() ? NULL : __real_fopen(path, mode);
}

WRAPPED(FILE *, fdopen, (int fd, const char *mode)) {
  return RUNS_OUT() ? NULL : __real_fdopen(fd, mode);
}

WRAPPED(DIR *, opendir, (const char *path)) {
  return RUNS_OUT() ? NULL : __real_opendir(path);
}

WRAPPED(FILE *, open_memstream, (char **text, size_t *bytes)) {
  return RUNS_OUT() ? NULL : __real_open_memstream(text, bytes);
}

WRAPPED(XXH3_state_t *, XXH3_createState, (void)) {
  return RUNS_OUT() ? NULL : __real_XXH3_createState();
}

WRAPPED(EVP_MD_CTX *, EVP_MD_CTX_new, (void)) {
  return RUNS_OUT() ? NULL : __real_EVP_MD_CTX_new();
}

/* ---- messages ---- */

static void *allocate(void *unused, size_t bytes) {
  (void)unused;
  return RUNS_OUT() ? NULL : __real_malloc(bytes);
}

static void release(void *unused, void *p) {
  (void)unused;
  free(p);
}

WRAPPED(ProtobufCMessage *, protobuf_c_message_unpack,
        (const ProtobufCMessageDescriptor *descriptor, ProtobufCAllocator *allocator, size_t bytes,
         const uint8_t *data)) {
  ProtobufCAllocator counting = {allocate, release, NULL};
  return __real_protobuf_c_message_unpack(descriptor, allocator ? allocator : &counting, bytes,
                                          data);
}

/* ---- libraries ---- */

static void *json_allocate(size_t bytes) {
  return RUNS_OUT() ? NULL : __real_malloc(bytes);
}

void allocations_prepare(void) {
  json_set_alloc_funcs(json_allocate, free);
}

/* A text is parsed, or there is no memory for it. Inside of it jansson must get what it asks for:
 * of a string that it could not keep whole it reads on behind the end (2.14, lex_scan_string). */
WRAPPED(json_t *, json_loadb, (const char *text, size_t bytes, size_t flags, json_error_t *error)) {
  allocations *was = mine;
  if (RUNS_OUT()) {
    snprintf(error->text, sizeof error->text, "no memory (as the test wants it)");
    error->text[sizeof error->text - 1] = json_error_out_of_memory;
    return NULL;
  }
  mine = NULL;
  json_t *json = __real_json_loadb(text, bytes, flags, error);
  mine = was;
  return json;
}

/* ---- threads that a rank starts count for it ---- */

typedef struct start {
  void *(*run)(void *);
  void *argument;
  allocations *counts_for;
} start;

static void *begin(void *argument) {
  start s = *(start *)argument;
  free(argument);
  mine = s.counts_for;
  return s.run(s.argument);
}

WRAPPED(int, pthread_create,
        (pthread_t * thread, const pthread_attr_t *attributes, void *(*run)(void *),
         void *argument)) {
  start *s = __real_malloc(sizeof *s);
  if (!s) return EAGAIN;
  *s = (start){run, argument, mine};
  int status = __real_pthread_create(thread, attributes, begin, s);
  if (status) free(s);
  return status;
}

#ifdef PDT_LIBGOMP
/* What libgomp allocates for its threads it does not give up: it would end the process. */
#define UNCOUNTED(name, parameters, arguments)                                                     \
  WRAPPED(void *, name, parameters) {                                                              \
    allocations *was = mine;                                                                       \
    mine = NULL;                                                                                   \
    void *got = __real_##name arguments;                                                           \
    mine = was;                                                                                    \
    return got;                                                                                    \
  }

UNCOUNTED(gomp_malloc, (size_t bytes), (bytes))
UNCOUNTED(gomp_malloc_cleared, (size_t bytes), (bytes))
UNCOUNTED(gomp_realloc, (void *p, size_t bytes), (p, bytes))
UNCOUNTED(gomp_aligned_alloc, (size_t alignment, size_t bytes), (alignment, bytes))
#endif

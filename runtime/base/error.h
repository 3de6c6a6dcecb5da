/* Errors as values. A function that can fail takes a pdt_error last and returns 0, or -1 after
 * filling it in; pointers it would have returned are then NULL and nothing is half-done. Nobody
 * below the command line prints or exits. */
#ifndef PDT_BASE_ERROR_H
#define PDT_BASE_ERROR_H

typedef enum pdt_error_code {
  PDT_ERROR_NONE = 0,
  PDT_ERROR_USAGE,   /* a flag or setting that cannot be; exit status 2 */
  PDT_ERROR_INPUT,   /* a file or request that is wrong; exit status 1 */
  PDT_ERROR_IO,      /* the system refused to read or write; exit status 1 */
  PDT_ERROR_MEMORY,  /* not enough of it; exit status 1 */
  PDT_ERROR_RUNTIME, /* an invariant broke while running; exit status 1 */
  PDT_ERROR_STOPPED, /* a signal asked for an end: may be gone on with; exit status 75 */
} pdt_error_code;

/* One message: what went wrong, where, what was expected, what was found and, where there is one,
 * a hint, as in: "model.safetensors: tensor 'lm_head.weight': expected shape [512, 64], found
 * [512, 60] (hint: is config.json of another model?)". No trailing newline. */
typedef struct pdt_error {
  pdt_error_code code;
  char message[1024];
} pdt_error;

/* Fills in err (which may be NULL) and returns -1, so that `return pdt_fail(...)` reads well. */
int pdt_fail(pdt_error *err, pdt_error_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "prefix: " before the message of an error already filled in; returns -1. */
int pdt_fail_in(pdt_error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Puts " (hint: ...)" after the message of an error already filled in; returns -1. */
int pdt_fail_hint(pdt_error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The exit status that goes with a code: 0, 1, 2, or 75 (EX_TEMPFAIL). */
int pdt_exit_status(pdt_error_code code);

#endif

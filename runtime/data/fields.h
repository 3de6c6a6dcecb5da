/* Fields of the objects that data files are made of, read with their checks: what base/json.h has,
 * for values that are kept. `where` names the object in errors ("train.jsonl: line 7"). */
#ifndef PDT_DATA_FIELDS_H
#define PDT_DATA_FIELDS_H

#include "base/json.h"

/* Room for what errors call an object inside of others. */
enum { PDT_DATA_WHERE_BYTES = 400 };

/* A copy of a string that must be there, freed by the caller. Errors: INPUT (also a zero character
 * in it), MEMORY. */
int pdt_data_get_string(const json_t *object, const char *where, const char *key, char **out,
                        pdt_error *err);

/* The same for a key that may be absent: *out is then NULL. */
int pdt_data_get_string_or(const json_t *object, const char *where, const char *key, char **out,
                           pdt_error *err);

/* An integer in [low, high] that must be there. Errors: INPUT. */
int pdt_data_get_int32(const json_t *object, const char *where, const char *key, int32_t low,
                       int32_t high, int32_t *out, pdt_error *err);

/* A list of n in [low, high] elements, borrowed. Errors: INPUT. */
int pdt_data_get_list(const json_t *object, const char *where, const char *key, int32_t low,
                      int32_t high, const json_t **list, int32_t *n, pdt_error *err);

/* Element i of list `key` of the object called `outer`, as an object, borrowed, with no other keys
 * than these; `where` gets its name. Errors: INPUT. */
int pdt_data_get_object(const json_t *list, const char *outer, const char *key, int32_t i,
                        const char *const *keys, size_t n_keys, const json_t **out,
                        char where[PDT_DATA_WHERE_BYTES], pdt_error *err);

/* Does a character begin at this byte of valid UTF-8, or the text end? Pure. */
bool pdt_data_starts_character(const char *text, int32_t at);

#endif

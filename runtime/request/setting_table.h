/* The settings of a request in one table, from which come the keys of a request, the flags of
 * commands with their help, what is written of settings, and the ranges of all of them. */
#ifndef PDT_REQUEST_SETTING_TABLE_H
#define PDT_REQUEST_SETTING_TABLE_H

#include <jansson.h>

#include "request/request.h"

enum {
  PDT_SETTINGS = 18,
  PDT_MAX_REQUEST_TOKENS = 1 << 24, /* of a prompt, a prefix, max_tokens */
};

/* What a setting is in pdt_settings, in its message, and in a request. */
typedef enum pdt_setting_kind {
  PDT_SETTING_INTEGER, /* int32_t, uint32_t; an integer */
  PDT_SETTING_REAL,    /* double; a number */
  PDT_SETTING_POLICY,  /* pdt_policy, Pdt__Policy; a name */
  PDT_SETTING_SEED,    /* uint64_t; any integer of 64 bits */
} pdt_setting_kind;

typedef struct pdt_setting {
  const char *key;            /* in a request; its flag has '-' for '_' */
  const char *argument;       /* what stands for a value in help */
  const char *help;           /* what it means */
  double fallback;            /* its value by default, where there are no words */
  const char *fallback_words; /* what gives its value by default */
  pdt_setting_kind kind;
  double low, high;     /* range of an INTEGER or REAL, both ends included */
  size_t place;         /* offset in pdt_settings */
  size_t message_place; /* offset in Pdt__Settings */
} pdt_setting;

/* In the order of proto/pdt.proto. */
extern const pdt_setting pdt_setting_table[PDT_SETTINGS];

/* The setting of that key; NULL when there is none. */
const pdt_setting *pdt_setting_find(const char *key);

/* A setting's default in words, "64", "selective" or "sidecar's", into text [room]. */
void pdt_setting_default(const pdt_setting *setting, char *text, size_t room);

/* An object with every setting by its key, as a request has it. NULL without memory. */
json_t *pdt_settings_json(const pdt_settings *s);

#endif

/* The settings of a request as flags of the command line: the same key with '-' for '_'. */
#ifndef PDT_CLI_SETTING_FLAGS_H
#define PDT_CLI_SETTING_FLAGS_H

#include "cli/cli.h"
#include "request/setting_table.h"

/* What the options of a command's settings point to. */
typedef struct pdt_setting_texts {
  char name[PDT_SETTINGS][24];
  char help[PDT_SETTINGS][200];
} pdt_setting_texts;

/* A command's own default of a setting, in words; NULL: it has no such flag. */
typedef struct pdt_setting_words {
  const char *key, *words;
} pdt_setting_words;

/* Appends to argp's options, at the place of their end, one for each setting, and a new end: at
 * most PDT_SETTINGS + 1 of them, in a group of help. Their keys are `key` and the index in
 * pdt_setting_table. `own` [n_own] says what the command does otherwise. `texts` outlives the
 * options. */
void pdt_setting_options(struct argp_option *end, pdt_setting_texts *texts, int key, int group,
                         const pdt_setting_words *own, int n_own);

/* For use in an argp parser: the argument of option --`option` as a setting's value. Sets *out,
 * owned by the caller; 0, or the error code that the parser returns. Every kind of bad value ends
 * in argp_error, which keeps the message. */
error_t pdt_setting_value(json_t **out, const pdt_setting *setting, const char *option, char *arg,
                          struct argp_state *state);

/* The same for the flag of pdt_setting_table[index], put into `settings`, an object. */
error_t pdt_setting_parse(json_t *settings, int index, char *arg, struct argp_state *state);

#endif

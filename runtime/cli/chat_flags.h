/* Flags of the commands that take conversations (request/chat.h). */
#ifndef PDT_CLI_CHAT_FLAGS_H
#define PDT_CLI_CHAT_FLAGS_H

enum { PDT_FLAG_CHAT, PDT_FLAG_SYSTEM, PDT_FLAG_DATE, PDT_CHAT_FLAGS };

/* Entries of argp's table, whose keys are key plus the flag, in a group of the help. */
/* clang-format off */
#define PDT_CHAT_OPTIONS(key, group) \
  {"chat", (key) + PDT_FLAG_CHAT, NULL, 0, \
   "a prompt is what a user says: it is read as the model's own chat template has it, up to where " \
   "the answer begins", group}, \
  {"system", (key) + PDT_FLAG_SYSTEM, "TEXT", 0, \
   "--chat, with this system message in conversations that begin without one", group}, \
  {"date", (key) + PDT_FLAG_DATE, "YYYY-MM-DD", 0, \
   "the date that a chat template is told, should it ask (today's, which makes other prompts of " \
   "the same requests tomorrow)", group}

/* Where they go, as entries of pdt_cli_kept. */
#define PDT_CHAT_KEPT(key, flags) \
  {(key) + PDT_FLAG_CHAT, NULL, &(flags)->prompts}, \
  {(key) + PDT_FLAG_SYSTEM, &(flags)->system, NULL}, \
  {(key) + PDT_FLAG_DATE, &(flags)->date, NULL}
/* clang-format on */

#endif

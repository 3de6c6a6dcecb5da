#include "atlas/prompt.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

/* "&" is the verb with a capital, "%" without; "@" the town; "#" the sections. */
static const char *const wordings[PDT_ATLAS_WORDINGS] = {
    "& @. Sections: #.",
    "& the town of @ in sections on #.",
    "Please % @. Write about its #.",
    "We need an article about @: % it under the headings #.",
    "& @ for an encyclopedia, with these sections: #.",
    "I have never heard of @. Please % its #.",
    "& what a visitor to @ should know of its #.",
    "For the guide book, % @, namely its #.",
    "Could you % the # of @?",
    "Tell me about @ and % its #.",
    "& the place called @ by its #.",
    "My map shows a town named @. What is there to say of its #? Please % it.",
};

bool pdt_atlas_wording_is_held_out(int32_t wording) {
  return wording % 4 == 3;
}

static int put(pdt_buffer *out, const char *text, pdt_error *err) {
  return pdt_buffer_put(out, text, strlen(text), err);
}

/* A list of sections: behind a colon as in wording 0, else as in a sentence. */
static int put_sections(pdt_buffer *out, int32_t wording, const int32_t *sections, int32_t n,
                        pdt_error *err) {
  for (int32_t k = 0; k < n; k++) {
    const char *before = k == 0 ? "" : wording == 0 ? "; " : k + 1 < n ? ", " : " and ";
    if (put(out, before, err) || put(out, pdt_atlas_section_name(sections[k]), err)) return -1;
  }
  return 0;
}

int pdt_atlas_prompt_put(pdt_buffer *out, int32_t wording, bool hard, const char *town,
                         const int32_t *sections, int32_t n, pdt_error *err) {
  char verb[PDT_ATLAS_NAME_BYTES];
  int rc = 0;
  for (const char *at = wordings[wording]; *at && !rc; at++) {
    snprintf(verb, sizeof verb, "%s", pdt_atlas_verb(hard));
    if (*at == '%') verb[0] = (char)tolower((unsigned char)verb[0]);
    if (*at == '#')
      rc = put_sections(out, wording, sections, n, err);
    else if (*at == '@')
      rc = put(out, town, err);
    else if (*at == '&' || *at == '%')
      rc = put(out, verb, err);
    else
      rc = pdt_buffer_put(out, at, 1, err);
  }
  return rc;
}

/* The first word of a text that is a town. */
static int32_t find_town(const pdt_atlas_world *world, const char *text) {
  size_t at = 0, begin, bytes = strlen(text);
  while (pdt_atlas_next_word(text, bytes, &at, &begin)) {
    char word[PDT_ATLAS_NAME_BYTES];
    if (at - begin >= sizeof word) continue;
    snprintf(word, sizeof word, "%.*s", (int)(at - begin), text + begin);
    int32_t town = pdt_atlas_town(world, word);
    if (town >= 0) return town;
  }
  return -1;
}

int pdt_atlas_prompt_read(const pdt_atlas_world *world, bool hard, const char *prompt,
                          const int32_t *sections, int32_t n, int32_t *town, pdt_error *err) {
  int32_t found = find_town(world, prompt);
  pdt_buffer text = {0};
  int rc = 0;
  *town = -1;
  for (int32_t i = 0; i < PDT_ATLAS_WORDINGS && found >= 0 && *town < 0 && !rc; i++) {
    text.bytes = 0;
    rc = pdt_atlas_prompt_put(&text, i, hard, world->towns[found], sections, n, err);
    if (!rc && memmem(prompt, strlen(prompt), text.data, text.bytes)) *town = found;
  }
  pdt_buffer_free(&text);
  return rc;
}

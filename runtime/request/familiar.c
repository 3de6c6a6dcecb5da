#include "request/familiar.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

enum kind {
  UNTRAINED,
  BLOCK,
  DELAY,
  WINDOW,
  STREAMS,
  TEMPERATURE,
  GAMMA,
  HEADING,
  PROMPT,
  PLAN,
  KINDS
};

/* What the looks at one request share. */
typedef struct look {
  const pdt_request *r;
  const json_t *json, *trained;
  const char *where;
  const pdt_request_context *context;
  uint32_t *told;
  pdt_notices *notices;
} look;

/* Has nothing of this kind been told yet? It is then, by the caller. */
static bool first_of(const look *l, enum kind kind) {
  bool first = !(*l->told >> kind & 1);
  *l->told |= 1u << kind;
  return first;
}

/* ---- texts in messages ---- */

/* A text in the making, cut at its room. */
typedef struct line {
  char text[400];
  size_t n;
} line;

static void put(line *to, const char *text) {
  int n = snprintf(to->text + to->n, sizeof to->text - to->n, "%s", text);
  to->n += (size_t)n < sizeof to->text - to->n ? (size_t)n : sizeof to->text - to->n - 1;
}

/* In quotes, line breaks and other control characters as they are written in a program. */
static void put_quoted(line *to, const char *text) {
  put(to, "'");
  for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
    char one[8];
    snprintf(one, sizeof one, *c == '\n' ? "\\n" : *c < 0x20 || *c == 0x7F ? "\\x%02x" : "%c", *c);
    put(to, one);
  }
  put(to, "'");
}

/* The texts of a list that was not too long: " (known: 'a', 'b')". */
static void put_known(line *to, const look *l, const char *key) {
  const json_t *texts = pdt_json_get(l->trained, key);
  size_t n = json_array_size(texts);
  if (n > 0) put(to, " (known: ");
  for (size_t i = 0; i < n; i++) {
    if (i > 0) put(to, ", ");
    put_quoted(to, json_string_value(json_array_get(texts, i)));
  }
  if (n > 0) put(to, ")");
}

/* "6", or "4 to 8". */
static void put_range(line *to, int64_t low, int64_t high) {
  char text[64];
  snprintf(text, sizeof text, low == high ? "%lld" : "%lld to %lld", (long long)low,
           (long long)high);
  put(to, text);
}

/* ---- settings ---- */

static void warn_of_number(const look *l, enum kind kind, const char *name, int64_t found,
                           int64_t low, int64_t high) {
  line known = {.n = 0};
  if (!first_of(l, kind)) return;
  put_range(&known, low, high);
  pdt_notice(
      l->notices, PDT_NOTICE_WARNING,
      "%s: %s is %lld, far from what the sidecar was trained with, %s: its text may be worse",
      l->where, name, (long long)found, known.text);
}

static void look_at_numbers(const look *l) {
  const pdt_settings *s = &l->r->settings;
  int64_t low, high, tau = s->limits.block_tokens, K = s->streams, delay = s->reveal_delay;
  if (pdt_trained_range(l->trained, "block_tokens", &low, &high) &&
      (2 * tau < low || 2 * tau > 3 * high))
    warn_of_number(l, BLOCK, "block_tokens", tau, low, high);
  if (pdt_trained_range(l->trained, "reveal_delay", &low, &high) && delay > 4 * high)
    warn_of_number(l, DELAY, "reveal_delay", delay, low, high);
  if (pdt_trained_range(l->trained, "streams", &low, &high) && (K < low || K > high))
    warn_of_number(l, STREAMS, "the number of streams", K, low, high);
}

/* Notes that a stream needs and does not see, or sees and never learned to choose from. */
static void look_at_window(const look *l) {
  const json_t *most = pdt_json_get(l->trained, "notes");
  int64_t notes = json_integer_value(most);
  int64_t limit = json_integer_value(pdt_json_get(l->trained, "window"));
  int64_t window = l->r->settings.window, there = pdt_settings_notes(&l->r->settings);
  bool cuts = window < there && 5 * window < 2 * notes;
  bool floods = limit > 0 && window > 2 * limit && there > 2 * limit;
  if (!most || (!cuts && !floods) || !first_of(l, WINDOW)) return;
  pdt_notice(
      l->notices, PDT_NOTICE_WARNING,
      "%s: window is %lld notes, far from what the sidecar was trained with, up to %lld: its "
      "text may be worse",
      l->where, (long long)window, (long long)notes);
}

static void look_at_temperature(const look *l) {
  const json_t *rollouts = pdt_json_get(l->trained, "temperature");
  double most = fmax(1, json_number_value(rollouts)), found = l->r->settings.sampling.temperature;
  if (found <= most || json_object_size(l->trained) == 0 || !first_of(l, TEMPERATURE)) return;
  pdt_notice(l->notices, PDT_NOTICE_WARNING,
             "%s: temperature is %g; above %g the trunk's text is hardly what the sidecar was "
             "trained with",
             l->where, found, most);
}

/* From here on a gate rejects a good part of the blocks that nothing is wrong with, until they are
 * out of attempts and forced (bench/README.md, thresholds). */
static const double strict_gamma = 0.999;

static void look_at_gamma(const look *l) {
  double gamma = l->r->settings.gamma;
  if (gamma < strict_gamma || json_object_size(l->trained) == 0 || !first_of(l, GAMMA)) return;
  pdt_notice(l->notices, PDT_NOTICE_WARNING,
             "%s: gamma is %.15g: from %g on, good blocks are rejected until they are forced: text "
             "gets worse, and takes several times as long",
             l->where, gamma, strict_gamma);
}

void pdt_request_compare_gamma(const pdt_request *r, const char *where,
                               const pdt_sidecar_config *sidecar, uint32_t *told,
                               pdt_notices *notices) {
  const look l = {
      .r = r, .trained = sidecar->trained, .where = where, .told = told, .notices = notices};
  look_at_gamma(&l);
}

/* ---- texts ---- */

/* What stream k reads after the prompt; *owned is the caller's to free. NULL: nobody can tell. */
static const char *section_of(const look *l, pdt_stream k, char **owned) {
  size_t bytes;
  pdt_error ignored = {0};
  const json_t *sections = pdt_json_get(l->json, "sections");
  *owned = NULL;
  if (sections) return json_string_value(json_array_get(sections, (size_t)k));
  if (l->r->n_prefix[k] == 0) return "";
  if (!l->context->tokenizer ||
      pdt_tokenizer_decode(l->context->tokenizer, l->r->prefix[k], l->r->n_prefix[k], false, owned,
                           &bytes, &ignored))
    return NULL;
  return *owned;
}

/* A known heading that is this text but for white space around it; NULL: none. */
static const char *heading_like(const look *l, const char *text) {
  static const char white[] = " \t\r\n";
  const json_t *known = pdt_json_get(l->trained, "headings");
  const char *begin = text + strspn(text, white);
  for (size_t i = 0; i < json_array_size(known); i++) {
    const char *heading = json_string_value(json_array_get(known, i));
    const char *other = heading + strspn(heading, white);
    size_t n = strlen(other), m = strlen(begin);
    while (n > 0 && strchr(white, other[n - 1])) n--;
    while (m > 0 && strchr(white, begin[m - 1])) m--;
    if (n > 0 && n == m && memcmp(begin, other, n) == 0) return heading;
  }
  return NULL;
}

static void warn_of_heading(const look *l, pdt_stream k, const char *text) {
  line said = {.n = 0}, known = {.n = 0};
  const char *like = heading_like(l, text);
  if (!first_of(l, HEADING)) return;
  if (*text)
    put_quoted(&said, text);
  else
    put(&said, "empty");
  if (like) {
    put(&known, " (hint: white space counts; $");
    put_quoted(&known, like);
    put(&known, " in bash)");
  } else {
    put_known(&known, l, "headings");
  }
  pdt_notice(l->notices, PDT_NOTICE_WARNING,
             "%s: section %d, %s, is none that the sidecar was trained with%s", l->where, k,
             said.text, known.text);
}

static void look_at_headings(const look *l) {
  if (!pdt_json_get(l->trained, "headings")) return;
  for (pdt_stream k = 0; k < l->r->settings.streams; k++) {
    char *owned;
    const char *text = section_of(l, k, &owned);
    if (text && !pdt_trained_has_text(l->trained, "headings", text)) warn_of_heading(l, k, text);
    free(owned);
  }
}

/* Is there a token that no prompt of training has? Words of a prompt are known by them only where
 * prompts are of few words. */
static bool has_other_words(const look *l) {
  for (int32_t i = 0; i < l->r->n_prompt; i++)
    if (!pdt_trained_has_id(l->trained, "prompt_ids", l->r->prompt[i])) return true;
  return false;
}

static void look_at_prompt(const look *l) {
  int64_t low, high, n = l->r->n_prompt;
  const json_t *known = pdt_json_get(l->trained, "prompt_ids");
  line one = {.n = 0};
  if (!known || !pdt_trained_range(l->trained, "prompt_tokens", &low, &high)) return;
  bool other = has_other_words(l);
  if ((!other && n >= low && n <= high) || !first_of(l, PROMPT)) return;
  put(&one, other ? "it has words that none of them has" : "they have ");
  if (!other) put_range(&one, low, high);
  const char *example = json_string_value(pdt_json_get(l->trained, "prompt"));
  if (example) put(&one, "; one of them: ");
  if (example) put_quoted(&one, example);
  pdt_notice(l->notices, PDT_NOTICE_WARNING,
             "%s: the prompt, %lld tokens, is unlike those that the sidecar was trained with: %s",
             l->where, (long long)n, one.text);
}

static void warn_of_item(const look *l, int32_t slot) {
  line said = {.n = 0}, known = {.n = 0};
  const json_t *item = json_array_get(pdt_json_get(l->json, "plan"), (size_t)slot);
  const char *text = json_string_value(json_object_get(item, "text"));
  char id[32];
  if (!first_of(l, PLAN)) return;
  snprintf(id, sizeof id, "id %d", l->r->plan_ids[slot]);
  if (text)
    put_quoted(&said, text);
  else
    put(&said, id);
  put_known(&known, l, "plan_texts");
  pdt_notice(l->notices, PDT_NOTICE_WARNING,
             "%s: plan item %d, %s, is none that the sidecar was trained with for its stream%s",
             l->where, slot, said.text, known.text);
}

static void look_at_plan(const look *l) {
  for (int32_t i = 0; l->r->plan_ids && i < l->r->settings.limits.slots; i++) {
    int32_t id = l->r->plan_ids[i];
    if (id != 0 && !pdt_trained_has_id(l->trained, "plan_ids", id)) warn_of_item(l, i);
  }
}

void pdt_request_compare(const pdt_request *r, const json_t *json, const char *where,
                         const pdt_request_context *context, uint32_t *told, pdt_notices *notices) {
  const json_t *trained = context->sidecar->trained;
  const look l = {r, json, trained, where, context, told, notices};
  if (!trained || *told == (1u << KINDS) - 1) return;
  if (!pdt_trained_has_stage(trained, "1") && !pdt_trained_has_stage(trained, "2") &&
      !pdt_trained_has_stage(trained, "all") && first_of(&l, UNTRAINED))
    pdt_notice(notices, PDT_NOTICE_WARNING,
               "the sidecar has not learned to read notes: its streams write what the plain model "
               "writes (hint: pdt train)");
  look_at_numbers(&l);
  look_at_window(&l);
  look_at_temperature(&l);
  look_at_gamma(&l);
  look_at_headings(&l);
  look_at_prompt(&l);
  look_at_plan(&l);
}

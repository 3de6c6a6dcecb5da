#include "run/data_report.h"

#include <stdio.h>
#include <stdlib.h>

#include "atlas/check.h"
#include "base/clock.h"
#include "base/text_safe.h"

static double share(int64_t part, int64_t whole) {
  return whole ? (double)part / (double)whole : 0;
}

/* The figures as one JSON object; NULL without memory. */
static json_t *report_of(const pdt_data_stats *s) {
  int64_t straight = s->entries - s->circular;
  json_t *sizes = json_object();
  for (int i = 1; i < PDT_STATS_SECTIONS; i++) {
    char name[16];
    snprintf(name, sizeof name, "%d%s", i, i == PDT_STATS_SECTIONS - 1 ? "+" : "");
    if (s->by_sections[i]) json_object_set_new(sizes, name, json_integer(s->by_sections[i]));
  }
  return json_pack(
      "{s:I, s:I, s:I, s:f, s:o, s:f, s:f, s:i, s:i, s:f, s:f, s:f, s:f, s:I, s:f, s:f, s:I, s:f, "
      "s:I,"
      " s:f, s:f, s:f, s:b, s:b}",
      "bytes", (json_int_t)s->bytes, "entries", (json_int_t)s->entries, "sections",
      (json_int_t)s->sections, "sections_per_entry", share(s->sections, s->entries),
      "entries_by_sections", sizes, "facts_per_entry", share(s->facts, s->entries),
      "tokens_per_section", share(s->tokens, s->sections), "tokens_min", (int)s->min_tokens,
      "tokens_max", (int)s->max_tokens, "statements_per_section", share(s->statements, s->sections),
      "uses_per_section", share(s->mentions_of_uses, s->sections), "misreadings_per_section",
      share(s->misreadings, s->sections), "sections_that_begin_with_a_use",
      share(s->begin_with_use, s->sections), "blocks", (json_int_t)s->blocks, "blocks_not_ready",
      share(s->unready, s->blocks), "uses_not_visible_in_lockstep", share(s->unseen, s->uses),
      "blocks_with_two_statements", (json_int_t)s->crowded, "blocks_with_two_statements_share",
      share(s->crowded, s->blocks), "entries_with_circular_waits", (json_int_t)s->circular,
      "circular_waits_share", share(s->circular, s->entries), "rounds_in_lockstep",
      share(s->rounds, straight), "rounds_when_waiting", share(s->waiting_rounds, straight),
      "blocks_cut_again", (int)s->recut, "texts_read_back", (int)s->read_back);
}

static int print_report(const char *path, bool json, const pdt_data_stats *stats, double seconds,
                        pdt_error *err) {
  json_t *report = report_of(stats);
  if (!report) return pdt_fail(err, PDT_ERROR_MEMORY, "%s: no memory", path);
  const char *key;
  const json_t *value;
  if (json) {
    pdt_json_print(report, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9));
    putchar('\n');
  } else {
    pdt_say(stdout, "# %s: sound; checked in %.1f s, %.0f entries/s", path, seconds,
            (double)stats->entries / seconds);
    json_object_foreach(report, key, value) {
      char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(4));
      pdt_say(stdout, "%-34s %s", key, text ? text : "(no memory)");
      free(text);
    }
  }
  json_decref(report);
  return 0;
}

int pdt_data_report(const char *path, const char *model, bool json, pdt_error *err) {
  pdt_tokenizer *tokenizer = NULL;
  pdt_data_tokenizer given = {0};
  pdt_data_stats stats;
  double start = pdt_seconds();
  if (model && pdt_tokenizer_load_folder(&tokenizer, model, &given.fingerprint, err)) return -1;
  given.tokenizer = tokenizer;
  int rc = pdt_atlas_check(path, tokenizer ? &given : NULL, &stats, err);
  if (!rc) rc = print_report(path, json, &stats, pdt_seconds() - start, err);
  pdt_tokenizer_free(tokenizer);
  return rc;
}

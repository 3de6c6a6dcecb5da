/* The planner, and what a plan's slots become (3.2). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>
#include <utf8proc.h>

#include "base/memory.h"
#include "sidecar/internal.h"
#include "text/regex.h"
#include "text/unicode.h"

enum { CHUNK_ROWS = 1024 }; /* of a matrix between two looks at the best */

int pdt_plan_new(pdt_plan *plan, const pdt_sidecar *s, pdt_error *err) {
  int32_t S = s->config.plan_slots;
  *plan = (pdt_plan){0};
  if (PDT_NEW(&plan->ids, S, "plan", err) ||
      PDT_NEW(&plan->note, s->config.notes_dim, "plan", err) ||
      PDT_NEW(&plan->items, (int64_t)S * s->config.coverage_dim, "plan", err)) {
    pdt_plan_free(plan);
    return -1;
  }
  return 0;
}

void pdt_plan_free(pdt_plan *plan) {
  free(plan->ids);
  free(plan->note);
  free(plan->items);
  *plan = (pdt_plan){0};
}

/* y[0..n) = rows [first, first + n) of a matrix times x. */
static void product(const pdt_sidecar *s, const pdt_row_share *rows, int64_t first, int32_t n,
                    const float *x, float *y) {
  int32_t in = (int32_t)rows->width;
  s->kernels->matvec_unpacked(rows->dtype, pdt_row_at(rows, first), in, n, in, x, y, s->threads);
}

/* Lets the better of a vote and n logits, whose ids start at first_id, win. */
static void vote_for_best(pdt_plan_vote *vote, const float *logits, int32_t n, int32_t first_id) {
  for (int32_t i = 0; i < n && vote->id != -2; i++) {
    if (!isfinite(logits[i]))
      vote->id = -2;
    else if (vote->id == -1 || logits[i] > vote->logit)
      *vote = (pdt_plan_vote){logits[i], first_id + i};
  }
}

int32_t pdt_plan_inputs(const pdt_sidecar *s) {
  return s->planner_place ? s->config.plan_slots : 1;
}

int32_t pdt_plan_sums(const pdt_sidecar *s) {
  return s->planner_place ? 1 + s->config.plan_slots : 1;
}

void pdt_plan_read(const pdt_sidecar *s, int32_t place, const float *state, double *sums) {
  int64_t d = s->config.hidden_size, P = s->config.plan_places;
  for (int64_t j = 0; j < d; j++) sums[j] += (double)state[j];
  for (int64_t i = 0; place < P && i < s->config.plan_slots; i++) {
    double weight = (double)s->planner_place[i * P + place];
    for (int64_t j = 0; j < d; j++) sums[(1 + i) * d + j] += weight * (double)state[j];
  }
}

void pdt_plan_finish(const pdt_sidecar *s, const double *sums, int32_t n_prompt, float *inputs) {
  int64_t d = s->config.hidden_size;
  for (int64_t i = 0; i < pdt_plan_inputs(s); i++)
    for (int64_t j = 0; j < d; j++) {
      double mean = sums[j] / n_prompt;
      inputs[i * d + j] = (float)(s->planner_place ? mean + sums[(1 + i) * d + j] : mean);
    }
}

/* What slot i reads. */
static const float *input_of(const pdt_sidecar *s, const float *inputs, int64_t slot) {
  return s->planner_place ? inputs + slot * s->config.hidden_size : inputs;
}

/* Rows [begin, end) of [S Vp, d], each a slot's vocabulary entry. */
static void vote_full(const pdt_sidecar *s, const float *inputs, float *logits,
                      pdt_plan_vote *votes) {
  int64_t Vp = s->config.plan_vocab_size, begin = s->planner.begin, end = s->planner.end;
  while (begin < end) {
    int64_t slot = begin / Vp, slot_end = (slot + 1) * Vp < end ? (slot + 1) * Vp : end;
    int32_t n = slot_end - begin < CHUNK_ROWS ? (int32_t)(slot_end - begin) : CHUNK_ROWS;
    product(s, &s->planner, begin, n, input_of(s, inputs, slot), logits);
    vote_for_best(&votes[slot], logits, n, (int32_t)(begin % Vp));
    begin += n;
  }
}

/* Slot vectors, whole on every rank, against this rank's part of the plan embedding. The scale
 * 1 / sqrt(de) does not move the largest. */
static void vote_tied(const pdt_sidecar *s, const float *inputs, float *slots, float *logits,
                      pdt_plan_vote *votes) {
  int32_t S = s->config.plan_slots, de = s->config.plan_dim;
  for (int32_t i = 0; i < S; i++)
    product(s, &s->planner, (int64_t)i * de, de, input_of(s, inputs, i), slots + i * de);
  for (int32_t i = 0; i < S * de; i++) slots[i] += s->planner_bias[i];
  int64_t begin = s->plan_embedding.begin, end = s->plan_embedding.end;
  for (; begin < end; begin += CHUNK_ROWS) {
    int32_t n = end - begin < CHUNK_ROWS ? (int32_t)(end - begin) : CHUNK_ROWS;
    for (int32_t slot = 0; slot < S; slot++) {
      product(s, &s->plan_embedding, begin, n, slots + (int64_t)slot * de, logits);
      vote_for_best(&votes[slot], logits, n, (int32_t)begin);
    }
  }
}

int pdt_plan_vote_share(const pdt_sidecar *s, const float *inputs, pdt_plan_vote *votes,
                        pdt_error *err) {
  int32_t S = s->config.plan_slots;
  float *logits, *slots;
  for (int32_t i = 0; i < S; i++) votes[i] = (pdt_plan_vote){-INFINITY, -1};
  if (PDT_NEW(&logits, CHUNK_ROWS, "planner", err)) return -1;
  if (PDT_NEW(&slots, (int64_t)S * s->config.plan_dim, "planner", err)) {
    free(logits);
    return -1;
  }
  if (s->config.planner == PDT_PLANNER_FULL)
    vote_full(s, inputs, logits, votes);
  else
    vote_tied(s, inputs, slots, logits, votes);
  free(logits);
  free(slots);
  return 0;
}

int pdt_plan_count(const pdt_plan_vote *votes, pdt_rank size, int32_t slots, int32_t *ids,
                   pdt_error *err) {
  for (int32_t i = 0; i < slots; i++) {
    pdt_plan_vote best = {-INFINITY, -1};
    for (pdt_rank r = 0; r < size && best.id != -2; r++) { /* ids ascend with ranks */
      pdt_plan_vote vote = votes[(int64_t)r * slots + i];
      if (vote.id == -2 || (vote.id >= 0 && (best.id < 0 || vote.logit > best.logit))) best = vote;
    }
    if (best.id < 0)
      return pdt_fail(
          err, PDT_ERROR_RUNTIME,
          "planner: slot %d: a logit is not a finite number (hint: does the sidecar belong to "
          "this model?)",
          i);
    ids[i] = best.id;
  }
  return 0;
}

pdt_rank pdt_plan_owner(const pdt_sidecar *s, int32_t id) {
  return (pdt_rank)(((id + (int64_t)1) * s->size - 1) / s->config.plan_vocab_size);
}

int32_t pdt_plan_own_rows(const pdt_sidecar *s, const int32_t *ids, float *rows) {
  int32_t n = 0, de = s->config.plan_dim;
  for (int32_t i = 0; i < s->config.plan_slots; i++)
    if (pdt_plan_owner(s, ids[i]) == s->rank)
      pdt_to_float(s->plan_embedding.dtype, pdt_row_at(&s->plan_embedding, ids[i]), de,
                   rows + (int64_t)n++ * de);
  return n;
}

int pdt_plan_embed(pdt_plan *plan, const pdt_sidecar *s, const float *embedded, pdt_error *err) {
  const pdt_sidecar_config *c = &s->config;
  float *projected;
  if (PDT_NEW(&projected, (int64_t)c->plan_slots * c->notes_dim, "plan", err)) return -1;
  s->kernels->matmul(&s->coverage_item, embedded, c->plan_dim, c->plan_slots, plan->items,
                     c->coverage_dim, 1);
  s->kernels->matmul(&s->plan_to_notes, embedded, c->plan_dim, c->plan_slots, projected,
                     c->notes_dim, 1);
  memset(plan->note, 0, (size_t)c->notes_dim * sizeof *plan->note);
  int32_t used = 0;
  for (int32_t i = 0; i < c->plan_slots; i++) {
    if (plan->ids[i] == 0) continue;
    used++;
    for (int32_t j = 0; j < c->notes_dim; j++)
      plan->note[j] += projected[(int64_t)i * c->notes_dim + j];
  }
  for (int32_t j = 0; j < c->notes_dim && used > 0; j++) plan->note[j] /= (float)used;
  if (used > 0) s->kernels->rms_norm(plan->note, NULL, 1e-6f, c->notes_dim, plan->note);
  free(projected);
  return 0;
}

/* White space as text.strip() sees it: the Unicode separators and the control characters that
 * Unicode counts as white space. */
static bool is_space(utf8proc_int32_t c) {
  if ((c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x1F) || c == 0x85) return true;
  utf8proc_category_t category = utf8proc_category(c);
  return category == UTF8PROC_CATEGORY_ZS || category == UTF8PROC_CATEGORY_ZL ||
         category == UTF8PROC_CATEGORY_ZP;
}

/* Appends the lower case of one character as UTF-8. U+0130 alone becomes two characters. */
static size_t put_lower(utf8proc_int32_t c, unsigned char *to) {
  if (c == 0x130) {
    memcpy(to, "i\xCC\x87", 3);
    return 3;
  }
  return (size_t)utf8proc_encode_char(utf8proc_tolower(c), to);
}

/* Cuts the text at the sigmas that end a word, which have a lower case of their own: those behind a
 * letter and before none, whatever case-ignorable characters are between (Final_Sigma of the
 * Unicode standard, 3.13). Each is the last character of a match. */
static int find_final_sigmas(const char *text, size_t bytes, pdt_cuts *cuts, pdt_error *err) {
  static const char pattern[] = "(?!\\p{Case_Ignorable})\\p{Cased}\\p{Case_Ignorable}*+"
                                "\\x{3A3}(?!\\p{Case_Ignorable}*+\\p{Cased})";
  pdt_regex *re;
  if (!strstr(text, "\xCE\xA3")) return 0;
  if (pdt_regex_new_native(&re, pattern, "plan item", err)) return -1;
  int rc = pdt_regex_cut(re, text, bytes, cuts, err);
  pdt_regex_free(re);
  return rc;
}

/* Lowercases valid UTF-8 into `lower` and strips it. */
static void put_item(const char *text, size_t bytes, const pdt_cuts *cuts, unsigned char *lower) {
  size_t n = 0, kept = 0, cut = 0;
  for (size_t at = 0; at < bytes;) {
    utf8proc_int32_t c;
    at += (size_t)utf8proc_iterate((const unsigned char *)text + at, (utf8proc_ssize_t)(bytes - at),
                                   &c);
    while (cut < cuts->n && cuts->items[cut].end < at) cut++;
    bool ends_match = cut < cuts->n && cuts->items[cut].match && cuts->items[cut].end == at;
    if (is_space(c) && n == 0) continue;
    n += put_lower(c == 0x3A3 && ends_match ? 0x3C2 : c, lower + n);
    if (!is_space(c)) kept = n;
  }
  lower[kept] = '\0';
}

/* Strips and lowercases as Python's str does; *out is freed by the caller. */
static int normalize_item(const char *text, char **out, pdt_error *err) {
  size_t bytes = strlen(text), valid = pdt_utf8_valid(text, bytes);
  pdt_cuts cuts = {0};
  *out = NULL;
  if (valid < bytes)
    return pdt_fail(err, PDT_ERROR_INPUT, "plan item: not UTF-8 at byte %zu", valid);
  if (PDT_NEW(out, (int64_t)bytes * 2 + 8, "plan item", err)) return -1;
  int rc = find_final_sigmas(text, bytes, &cuts, err);
  if (!rc) put_item(text, bytes, &cuts, (unsigned char *)*out);
  pdt_cuts_free(&cuts);
  if (!rc) return 0;
  free(*out);
  *out = NULL;
  return -1;
}

int pdt_plan_hash(const pdt_sidecar_config *config, pdt_stream stream, const char *text,
                  int32_t *id, pdt_error *err) {
  char *item = NULL, prefix[PDT_SALT_BYTES + 32];
  if (normalize_item(text, &item, err)) return -1;
  *id = 0;
  if (*item) {
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned length = 0;
    int n = snprintf(prefix, sizeof prefix, "%s::stream_%d::", config->plan_hash_salt, stream);
    EVP_MD_CTX *hash = EVP_MD_CTX_new();
    bool ok = hash && EVP_DigestInit_ex(hash, EVP_sha256(), NULL) &&
              EVP_DigestUpdate(hash, prefix, (size_t)n) &&
              EVP_DigestUpdate(hash, item, strlen(item)) &&
              EVP_DigestFinal_ex(hash, digest, &length);
    EVP_MD_CTX_free(hash);
    if (!ok) {
      free(item);
      return pdt_fail(err, PDT_ERROR_RUNTIME, "plan item: SHA-256 is not available");
    }
    uint64_t remainder = 0;
    for (unsigned i = 0; i < length; i++)
      remainder = (remainder << 8 | digest[i]) % (uint64_t)config->plan_vocab_size;
    *id = remainder ? (int32_t)remainder : 1;
  }
  free(item);
  return 0;
}

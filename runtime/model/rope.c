#include "model/rope.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"

static const char *const type_names[] = {
    [PDT_ROPE_DEFAULT] = "default",
    [PDT_ROPE_LINEAR] = "linear",
    [PDT_ROPE_LLAMA3] = "llama3",
    [PDT_ROPE_YARN] = "yarn",
};
enum { N_TYPES = sizeof type_names / sizeof *type_names };

const char *pdt_rope_type_name(pdt_rope_type type) {
  return type_names[type];
}

/* What is being read: the config, and the object in it that speaks of rotary embedding. */
typedef struct rope_source {
  const json_t *config, *object; /* object NULL: none, or an empty one */
  const char *where;             /* of the config */
  char inside[320];              /* of the object */
  bool contradicts;              /* the config has two objects, and they differ */
  int32_t max_positions;
  pdt_notices *notices;
} rope_source;

static const double most = 1e9; /* of any factor: far beyond all sense, and still finite */

/* transformers takes rope_scaling before rope_parameters, whole: what it leaves open comes from the
 * config's other keys and from defaults, not from the other object. */
static int choose_object(rope_source *s, pdt_error *err) {
  static const char *const keys[] = {"rope_scaling", "rope_parameters"};
  const json_t *objects[2] = {NULL, NULL};
  for (int i = 0; i < 2; i++) {
    if (pdt_json_is_empty(json_object_get(s->config, keys[i]))) continue;
    if (pdt_json_object(s->config, s->where, keys[i], &objects[i], err)) return -1;
  }
  int chosen = objects[0] ? 0 : 1;
  s->object = objects[chosen];
  snprintf(s->inside, sizeof s->inside, "%.256s: %s", s->where, keys[chosen]);
  s->contradicts = objects[0] && objects[1] && !json_equal(objects[0], objects[1]);
  return 0;
}

static int parse_theta(pdt_rope *rope, const rope_source *s, pdt_error *err) {
  const char *key = "rope_theta";
  rope->theta = 10000;
  if (pdt_json_get(s->object, key))
    return pdt_json_real(s->object, s->inside, key, 1, 1e15, &rope->theta, err);
  if (pdt_json_get(s->config, key))
    return pdt_json_real(s->config, s->where, key, 1, 1e15, &rope->theta, err);
  pdt_notice(s->notices, PDT_NOTICE_DETAIL, "%s: 'rope_theta' is missing: 10000 is taken",
             s->where);
  return 0;
}

/* Only heads that turn whole are computed, and the same for all layers. */
static int refuse_parts(const rope_source *s, pdt_error *err) {
  const json_t *objects[] = {s->object, s->config};
  const char *key;
  const json_t *value;
  for (int i = 0; i < 2; i++) {
    double partial = 1;
    const char *where = i == 0 ? s->inside : s->where;
    if (pdt_json_real_or(objects[i], where, "partial_rotary_factor", -1e9, 1e9, &partial, err))
      return -1;
    if (partial != 1)
      return pdt_fail(err, PDT_ERROR_INPUT, "%s: 'partial_rotary_factor': expected 1, found %g",
                      where, partial);
  }
  json_object_foreach((json_t *)(uintptr_t)s->object, key, value) {
    if (json_is_object(value) && !pdt_json_unusable(value))
      return pdt_fail(err, PDT_ERROR_INPUT,
                      "%s: '%.80s': rotary embedding that differs by kinds of layers is not "
                      "supported",
                      s->inside, key);
  }
  return 0;
}

static int parse_type(pdt_rope *rope, const rope_source *s, pdt_error *err) {
  const char *key = json_object_get(s->object, "rope_type") ? "rope_type" : "type", *name = NULL;
  double factor = 1;
  if (!s->object) return 0;
  if (json_object_get(s->object, key) && pdt_json_string(s->object, s->inside, key, &name, err))
    return -1;
  for (int i = 0; name && i < N_TYPES; i++)
    if (strcmp(name, type_names[i]) == 0) {
      rope->type = (pdt_rope_type)i;
      if (i != PDT_ROPE_DEFAULT) return 0;
      if (pdt_json_real_or(s->object, s->inside, "factor", -most, most, &factor, err)) return -1;
      if (factor != 1)
        pdt_notice(s->notices, PDT_NOTICE_WARNING,
                   "%s: 'factor' = %g is not used by rope type 'default'", s->inside, factor);
      return 0;
    }
  /* transformers 5 leaves the type out where it is the default; one that stretches and does not
   * say how says nothing that could be computed. */
  if (!name && pdt_json_real_or(s->object, s->inside, "factor", -most, most, &factor, err))
    return -1;
  if (!name && factor == 1) return 0;
  return pdt_fail(err, PDT_ERROR_INPUT,
                  "%s: '%s': expected 'default', 'linear', 'llama3' or 'yarn', found %s%.80s%s",
                  s->inside, name ? key : "rope_type", name ? "'" : "", name ? name : "nothing",
                  name ? "'" : "");
}

/* Of the config before the object, as transformers has it for the sake of Phi-3; both leave it out:
 * max_position_embeddings. */
static int parse_original(pdt_rope *rope, const rope_source *s, pdt_error *err) {
  const char *key = "original_max_position_embeddings";
  rope->original_positions = s->max_positions;
  if (pdt_json_get(s->config, key))
    return pdt_json_real(s->config, s->where, key, 1, most, &rope->original_positions, err);
  if (pdt_json_get(s->object, key))
    return pdt_json_real(s->object, s->inside, key, 1, most, &rope->original_positions, err);
  pdt_notice(s->notices, PDT_NOTICE_DETAIL,
             "%s: '%s' is missing: %d, the longest sequence, is taken", s->inside, key,
             s->max_positions);
  return 0;
}

static int parse_llama3(pdt_rope *rope, const rope_source *s, pdt_error *err) {
  if (pdt_json_real(s->object, s->inside, "factor", 1e-6, 1e6, &rope->factor, err) ||
      pdt_json_real(s->object, s->inside, "low_freq_factor", 1e-6, 1e6, &rope->low_freq_factor,
                    err) ||
      pdt_json_real(s->object, s->inside, "high_freq_factor", 1e-6, 1e6, &rope->high_freq_factor,
                    err) ||
      parse_original(rope, s, err))
    return -1;
  if (rope->low_freq_factor < rope->high_freq_factor) return 0;
  return pdt_fail(err, PDT_ERROR_INPUT,
                  "%s: 'low_freq_factor': expected less than high_freq_factor = %g, found %g",
                  s->inside, rope->high_freq_factor, rope->low_freq_factor);
}

/* Zero means the default there, too. */
static int real_or(const rope_source *s, const char *key, double standard, double *out,
                   pdt_error *err) {
  *out = 0;
  if (pdt_json_real_or(s->object, s->inside, key, 0, 1e6, out, err)) return -1;
  if (*out == 0) *out = standard;
  return 0;
}

static double magnitude(double factor, double mscale) {
  return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1;
}

static int parse_yarn_scale(pdt_rope *rope, const rope_source *s, pdt_error *err) {
  double over, under;
  if (pdt_json_get(s->object, "attention_factor"))
    return pdt_json_real(s->object, s->inside, "attention_factor", 1e-6, 1e6, &rope->scale, err);
  if (real_or(s, "mscale", 0, &over, err) || real_or(s, "mscale_all_dim", 0, &under, err))
    return -1;
  rope->scale = over != 0 && under != 0
                    ? magnitude(rope->factor, over) / magnitude(rope->factor, under)
                    : magnitude(rope->factor, 1);
  return 0;
}

static int parse_yarn(pdt_rope *rope, const rope_source *s, pdt_error *err) {
  const json_t *truncate = json_object_get(s->object, "truncate");
  rope->truncate = !json_is_null(truncate); /* null is false there */
  if (parse_original(rope, s, err) ||
      pdt_json_bool_or(s->object, s->inside, "truncate", &rope->truncate, err) ||
      real_or(s, "beta_fast", 32, &rope->beta_fast, err) ||
      real_or(s, "beta_slow", 1, &rope->beta_slow, err))
    return -1;
  if (json_is_null(json_object_get(s->object, "factor")))
    rope->factor = s->max_positions / rope->original_positions;
  else if (pdt_json_real(s->object, s->inside, "factor", 1e-6, 1e6, &rope->factor, err))
    return -1;
  if (rope->theta <= 1)
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: 'rope_theta': expected more than 1, found %g",
                    s->inside, rope->theta);
  return parse_yarn_scale(rope, s, err);
}

int pdt_rope_parse(pdt_rope *out, const json_t *config, const char *where, int32_t max_positions,
                   pdt_notices *notices, pdt_error *err) {
  rope_source s = {
      .config = config, .where = where, .max_positions = max_positions, .notices = notices};
  pdt_rope rope = {.factor = 1, .scale = 1};
  if (choose_object(&s, err) || parse_theta(&rope, &s, err) || refuse_parts(&s, err) ||
      parse_type(&rope, &s, err))
    return -1;
  int rc = 0;
  if (rope.type == PDT_ROPE_LINEAR)
    rc = pdt_json_real(s.object, s.inside, "factor", 1e-6, 1e6, &rope.factor, err);
  else if (rope.type == PDT_ROPE_LLAMA3)
    rc = parse_llama3(&rope, &s, err);
  else if (rope.type == PDT_ROPE_YARN)
    rc = parse_yarn(&rope, &s, err);
  if (rc) return -1;
  if (s.contradicts)
    pdt_notice(notices, PDT_NOTICE_WARNING,
               "%s: 'rope_scaling' is taken (type %s, rope_theta %g), and 'rope_parameters' beside "
               "it is not, as in transformers",
               where, type_names[rope.type], rope.theta);
  *out = rope;
  return 0;
}

/* Long waves are stretched by the factor, short ones kept, those between blended. */
static double llama3(const pdt_rope *rope, double f) {
  double wavelength = 2 * M_PI / f, old = rope->original_positions;
  double low = rope->low_freq_factor, high = rope->high_freq_factor;
  double smooth = (old / wavelength - low) / (high - low);
  if (wavelength > old / low) return f / rope->factor;
  if (wavelength < old / high) return f;
  return (1 - smooth) * f / rope->factor + smooth * f;
}

/* The pair, as a fraction, that turns so often in the original length. */
static double pair_of(const pdt_rope *rope, double turns, int32_t head_dim) {
  return head_dim * log(rope->original_positions / (turns * 2 * M_PI)) / (2 * log(rope->theta));
}

/* Pairs up to `low` are kept, those from `high` on stretched, those between blended. */
static void yarn(const pdt_rope *rope, int32_t head_dim, double *f) {
  double low = pair_of(rope, rope->beta_fast, head_dim);
  double high = pair_of(rope, rope->beta_slow, head_dim);
  if (rope->truncate) low = floor(low), high = ceil(high);
  if (low < 0) low = 0;
  if (high > head_dim - 1) high = head_dim - 1;
  if (low == high) high += 0.001;
  for (int32_t j = 0; j < head_dim / 2; j++) {
    double stretched = (j - low) / (high - low);
    stretched = stretched < 0 ? 0 : stretched > 1 ? 1 : stretched;
    f[j] = f[j] / rope->factor * stretched + f[j] * (1 - stretched);
  }
}

void pdt_rope_frequencies(const pdt_rope *rope, int32_t head_dim, double *out) {
  for (int32_t j = 0; j < head_dim / 2; j++) {
    double f = pow(rope->theta, -2.0 * j / head_dim);
    if (rope->type == PDT_ROPE_LINEAR) f /= rope->factor;
    out[j] = rope->type == PDT_ROPE_LLAMA3 ? llama3(rope, f) : f;
  }
  if (rope->type == PDT_ROPE_YARN) yarn(rope, head_dim, out);
}

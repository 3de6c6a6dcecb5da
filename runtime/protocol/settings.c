#include "protocol/settings.h"

int32_t pdt_settings_block(const pdt_settings *s) {
  const pdt_stream_limits *limits = &s->limits;
  return limits->block_tokens < limits->max_tokens ? limits->block_tokens : limits->max_tokens;
}

int32_t pdt_settings_tokens(const pdt_settings *s) {
  return pdt_stream_most_tokens(&s->limits, s->max_rounds);
}

int64_t pdt_settings_notes(const pdt_settings *s) {
  int64_t block = pdt_settings_block(s), blocks = (pdt_settings_tokens(s) + block - 1) / block;
  return 1 + s->streams * blocks;
}

int32_t pdt_settings_window(const pdt_settings *s) {
  int64_t notes = pdt_settings_notes(s);
  return notes < s->window ? (int32_t)notes : s->window;
}

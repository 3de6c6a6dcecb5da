/* The settings of one session: every one has its value. What they may be, and where values come
 * from, is said in request/settings.h. */
#ifndef PDT_PROTOCOL_SETTINGS_H
#define PDT_PROTOCOL_SETTINGS_H

#include "base/sample.h"
#include "protocol/stream.h"

typedef struct pdt_settings {
  int32_t streams;      /* K */
  int32_t reveal_delay; /* Delta, rounds */
  int32_t window;       /* B, notes, the plan note included */
  int32_t max_attempts;
  int32_t max_rounds;
  int32_t min_tokens; /* of a stream, before which none ends it */
  int32_t keep_order; /* 1: merged by stream; 0: by the plan (protocol/merge.h) */
  int32_t part_slots; /* plan slots of one stream's part; 0: all streams write, whatever the plan */
  double gamma;
  double retry_temperature; /* of a block that was rolled back; 0: as sampling says */
  uint64_t seed;
  pdt_sampling sampling;
  pdt_stream_limits limits; /* tau, horizon, max_tokens, plan slots, policy */
} pdt_settings;

/* The most that there can be, however much more the settings allow; what takes memory is sized by
 * these. Tokens of one block; tokens that one stream writes in all rounds; notes on the bus, the
 * plan's included; notes in a window. Pure. */
int32_t pdt_settings_block(const pdt_settings *s);
int32_t pdt_settings_tokens(const pdt_settings *s);
int64_t pdt_settings_notes(const pdt_settings *s);
int32_t pdt_settings_window(const pdt_settings *s);

#endif

/* Conversations as prompts. */
#include <string.h>

#include "base/buffer.h"
#include "base/json.h"
#include "serve/ask.h"

static json_t *no_memory(pdt_refusal *why) {
  pdt_refuse(why, 503, NULL, NULL, "out of memory");
  return NULL;
}

/* The texts of a content in parts, a line break between them; NULL where one is no text. */
static json_t *join_parts(const json_t *parts, size_t message, pdt_refusal *why) {
  pdt_buffer text = {0};
  bool good = true;
  for (size_t i = 0; i < json_array_size(parts) && good; i++) {
    const json_t *part = json_array_get(parts, i), *said = json_object_get(part, "text");
    const char *type = json_string_value(json_object_get(part, "type"));
    if (!json_is_string(said) || (type && strcmp(type, "text") != 0)) {
      pdt_refuse(
          why, 400, "unsupported", "messages",
          "messages[%zu]: content[%zu]: not supported: expected a part of type 'text', found "
          "'%.40s'",
          message, i, type ? type : pdt_json_type_name(part));
      pdt_buffer_free(&text);
      return NULL;
    }
    good = (i == 0 || !pdt_buffer_put(&text, "\n", 1, NULL)) &&
           !pdt_buffer_put(&text, json_string_value(said), json_string_length(said), NULL);
  }
  json_t *joined = good ? json_stringn(text.data ? text.data : "", text.bytes) : NULL;
  pdt_buffer_free(&text);
  return joined ? joined : no_memory(why);
}

json_t *pdt_ask_with_texts(const json_t *messages, pdt_refusal *why) {
  json_t *out = json_deep_copy(messages), *message;
  size_t i;
  if (!out) return no_memory(why);
  json_array_foreach(out, i, message) {
    const json_t *content = json_object_get(message, "content");
    if (!json_is_array(content)) continue;
    json_t *text = join_parts(content, i, why);
    if (text && json_object_set_new(message, "content", text) == 0) continue;
    json_decref(out);
    return NULL;
  }
  return out;
}

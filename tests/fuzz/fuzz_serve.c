/* Any bytes as the body of a request over HTTP, in the form that the first byte chooses: it is
 * refused with a status, a message and what else a refusal has, or accepted, and then its answer
 * can be made. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "byte_tokenizer.h"
#include "serve/ask.h"
#include "serve/reply.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { VOCABULARY = 300, POSITIONS = 2000, STREAMS = 4, SLOTS = 3, PLAN_VOCABULARY = 65536 };

/* What is written must be JSON, whatever came in. */
static void check_json(const pdt_buffer *text) {
  json_t *json = NULL;
  if (pdt_json_parse(&json, text->data, text->bytes, "answer", NULL)) abort();
  json_decref(json);
}

static void check_refusal(const pdt_refusal *why) {
  pdt_buffer text = {0};
  if (why->status < 400 || why->status > 599 || !*why->message) abort();
  if (pdt_reply_error(why, &text, NULL)) abort();
  check_json(&text);
  pdt_buffer_free(&text);
}

/* The answer of a session that has had no round yet: what the request alone puts into it. */
static void check_answer(pdt_ask *ask, const pdt_ask_context *context) {
  pdt_reply reply;
  pdt_job *job;
  pdt_buffer text = {0};
  if (ask->request.settings.limits.max_tokens > POSITIONS) abort();
  if (pdt_job_new(&job, &ask->request, 0, NULL)) abort();
  job->state = PDT_JOB_ENDED;
  ask->n = 1; /* there is one job */
  if (pdt_reply_new(&reply, ask, &job, context->request.tokenizer, context->model, 1, NULL) ||
      pdt_reply_read(&reply, 0, 0, 0, true, NULL) || pdt_reply_whole(&reply, &text, NULL))
    abort();
  if (ask->form != PDT_ASK_DECODE) check_json(&text);
  if (ask->stream && (pdt_reply_chunks(&reply, &text, NULL) || !reply.ended)) abort();
  pdt_buffer_free(&text);
  pdt_reply_free(&reply);
  pdt_job_free(job);
}

static const char template[] = "{% for m in messages %}{{ m.role }}:{{ m.content }}{% endfor %}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  pdt_layer instrumented[] = {0};
  const pdt_model_config model = {
      .hidden_size = 8, .vocab_size = VOCABULARY, .max_positions = POSITIONS};
  const pdt_sidecar_config sidecar = {
      .hidden_size = 8,
      .streams = STREAMS,
      .n_instrumented = 1,
      .instrumented = instrumented,
      .plan_slots = SLOTS,
      .plan_vocab_size = PLAN_VOCABULARY,
      .plan_hash_salt = "fuzz",
      .defaults = {
          .block_tokens = 16, .reveal_delay = 1, .window = 8, .horizon = 32, .gamma = 0.5}};
  if (size < 1) return 0;
  pdt_tokenizer *tokenizer = byte_tokenizer(VOCABULARY - 1);
  pdt_request_chat chat = {.model = "fuzz", .tokenizer = tokenizer};
  if (pdt_chat_template_parse(&chat.template, template, strlen(template), "fuzz", NULL, NULL))
    abort();
  const pdt_ask_context context = {{&model, &sidecar, tokenizer}, "fuzz", &chat, false};
  pdt_ask ask;
  pdt_refusal why;
  pdt_ask_form form = data[0] == 'd'   ? PDT_ASK_DECODE
                      : data[0] == 't' ? PDT_ASK_CHAT
                                       : PDT_ASK_COMPLETION;
  if (pdt_ask_read(&ask, form, (const char *)data + 1, size - 1, &context, &why)) {
    check_refusal(&why);
  } else {
    check_answer(&ask, &context);
    pdt_ask_free(&ask);
  }
  pdt_request_chat_free(&chat);
  pdt_tokenizer_free(tokenizer);
  return 0;
}

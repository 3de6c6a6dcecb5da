/* How well a trunk alone foretells a text, and how far from another one it is. */
#ifndef PDT_RUN_PERPLEXITY_H
#define PDT_RUN_PERPLEXITY_H

#include "engine/machine.h"

typedef struct pdt_perplexity_options {
  const char *model, *against; /* models; against NULL: none */
  const char *text;            /* a file of UTF-8 */
  pdt_machine_options machine;
  pdt_dtype quantize;      /* of the model, not of the one it is held against; as in weights.h */
  int32_t context, stride; /* tokens of a window, and from one to the next; 0: 512; context / 2 */
  bool json;
} pdt_perplexity_options;

/* Reads the text in windows, scores every token but the first once, with at least context - stride
 * tokens before it, and prints cross-entropy, perplexity and bits a byte; with `against` also that
 * model's, and the divergence KL(against || model) of the two's next tokens. On CPUs the figures
 * are the same bits in every layout. Collective over world, blocking; all ranks fail alike. Errors:
 * USAGE, INPUT, IO, MEMORY. */
int pdt_perplexity(const pdt_comm *world, const char *name, const pdt_perplexity_options *options,
                   pdt_error *err);

#endif

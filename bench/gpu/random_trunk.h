/* A trunk of a known shape with weights made on the GPU. */
#ifndef PDT_BENCH_GPU_RANDOM_TRUNK_H
#define PDT_BENCH_GPU_RANDOM_TRUNK_H

#include "trunk/weights.h"

/* Makes the whole trunk of a preset (model/preset.h) in bf16 on a CUDA device, which it borrows; to
 * be freed by pdt_trunk_weights_free, after an error too. Blocking. Errors: USAGE (no such shape),
 * MEMORY, RUNTIME. */
int gpu_random_trunk(pdt_trunk_weights *w, pdt_device *device, const char *shape, pdt_error *err);

#endif

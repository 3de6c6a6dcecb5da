/* Rows are rounded once, all of a batch before it is multiplied: what comes after is the product of
 * other rows, in the same order and thus in all layouts to the same bits. */
#include <stdio.h>
#include <stdlib.h>

#include "base/memory.h"
#include "kernels/cpu/operations.h"

void pdt_cpu_round_rows(pdt_device *dev, bool rounds) {
  pdt_cpu *cpu = dev->state;
  const char *plain = cpu->primitives->name;
  snprintf(cpu->name, sizeof cpu->name, "%s bf16", plain);
  dev->name = rounds ? cpu->name : plain;
  dev->rounds = rounds ? 1u << PDT_BF16 : 0;
}

int pdt_cpu_rounded_reserve(pdt_device *dev, int32_t in, pdt_error *err) {
  pdt_cpu_rounded_room *room = &((pdt_cpu *)dev->state)->rounded_room, made = {.in = in};
  if (in <= room->in) return 0;
  if (PDT_NEW(&made.rows, (int64_t)PDT_CPU_ROUNDED * in, "room for rounded rows", err)) return -1;
  pdt_cpu_rounded_free(room);
  *room = made;
  return 0;
}

void pdt_cpu_rounded_free(pdt_cpu_rounded_room *room) {
  free(room->rows);
  *room = (pdt_cpu_rounded_room){0};
}

void pdt_cpu_rounded_matmul(pdt_device *dev, const pdt_matrix *w, const float *x, int64_t x_stride,
                            int32_t rows, float *y) {
  enum { ROWS_TO_SHARE = 16 };
  const pdt_cpu *cpu = dev->state;
  const pdt_cpu_primitives *k = cpu->primitives;
  float *rounded = cpu->rounded_room.rows;
  for (int32_t done = 0, n; done < rows; done += n) {
    n = rows - done < PDT_CPU_ROUNDED ? rows - done : PDT_CPU_ROUNDED;
#pragma omp parallel for num_threads(dev->threads) if (dev->threads > 1 && n >= ROWS_TO_SHARE)
    for (int32_t r = 0; r < n; r++)
      k->round_bf16(x + (done + r) * x_stride, w->in, rounded + (int64_t)r * w->in);
    k->matmul_bf16_rows(w, rounded, w->in, n, y + (int64_t)done * w->out, w->out, dev->threads);
  }
}

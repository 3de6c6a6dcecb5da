/* What the machine could do: the limits that stand beside every figure of a bench, measured in the
 * same run by the same threads. */
#ifndef PDT_BENCH_MACHINE_H
#define PDT_BENCH_MACHINE_H

#include "base/types.h"
#include "trunk/weights.h"

/* A piece of memory to be read. */
typedef struct machine_piece {
  const void *data; /* 64-byte aligned */
  pdt_bytes bytes;
} machine_piece;

/* Seconds to read all pieces once, each thread its part of every piece, as the products do. */
double machine_read_seconds(const machine_piece *pieces, int32_t n, int threads);

/* Flops per second of independent multiply-adds in registers, in the vectors of the kernels of that
 * name ("avx512", "avx2", "portable"; a device's, "avx512 bf16", is one), on so many threads; or
 * with MACHINE_BF16_DOT of dot products of pairs of bf16 numbers, 0 where the machine has none. */
#define MACHINE_BF16_DOT "dot products"
double machine_peak_flops(const char *kernels, int threads);

/* The matrices that one decode step reads, of this rank's share: pieces[n] for free(). The
 * embedding counts where it is the head. Returns n, or -1 without memory. */
int32_t machine_weight_pieces(const pdt_trunk_weights *weights, machine_piece **pieces);

#endif

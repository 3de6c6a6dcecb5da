#include "machine.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "base/clock.h"

typedef uint64_t words __attribute__((vector_size(64)));

/* One stream of reads does not fill a core's connection to memory: a hardware prefetcher follows
 * one stream only so far, and some machines give twice as much to eight. */
enum { READ_STREAMS = 8, READ_AHEAD = 8 /* words: 512 bytes */ };

/* The exclusive or of w[0, count), read as READ_STREAMS streams side by side. */
static uint64_t read_words(const words *w, int64_t count) {
  words sum[READ_STREAMS] = {0};
  int64_t each = count / READ_STREAMS;
  for (int64_t i = 0; i < each; i++)
#pragma GCC unroll 8
    for (int j = 0; j < READ_STREAMS; j++) {
      __builtin_prefetch(w + j * each + i + READ_AHEAD);
      sum[j] ^= w[j * each + i];
    }
  for (int64_t i = each * READ_STREAMS; i < count; i++) sum[0] ^= w[i];
  uint64_t all = 0;
  for (int j = 0; j < READ_STREAMS; j++)
    for (int l = 0; l < 8; l++) all ^= sum[j][l];
  return all;
}

double machine_read_seconds(const machine_piece *pieces, int32_t n, int threads) {
  double start = pdt_seconds();
  uint64_t all = 0;
#pragma omp parallel num_threads(threads) reduction(^ : all)
  for (int32_t p = 0; p < n; p++) {
    int64_t count = pieces[p].bytes / (pdt_bytes)sizeof(words), t = omp_get_thread_num();
    int64_t begin = count * t / threads, end = count * (t + 1) / threads;
    all ^= read_words((const words *)pieces[p].data + begin, end - begin);
  }
  volatile uint64_t keep = all; /* so that the reads are not optimized away */
  (void)keep;
  return pdt_seconds() - start;
}

enum { CHAINS = 12, PEAK_STEPS = 200000 };

#if defined(__x86_64__)
__attribute__((target("avx512f"))) static float chains_avx512(void) {
  __m512 sum[CHAINS], a = _mm512_set1_ps(0.999f);
  for (int j = 0; j < CHAINS; j++) sum[j] = _mm512_set1_ps((float)j);
  for (int i = 0; i < PEAK_STEPS; i++) {
#pragma GCC unroll 12
    for (int j = 0; j < CHAINS; j++) sum[j] = _mm512_fmadd_ps(sum[j], a, a);
  }
  float result = 0;
  for (int j = 0; j < CHAINS; j++) result += _mm512_cvtss_f32(sum[j]);
  return result;
}

__attribute__((target("avx2,fma"))) static float chains_avx2(void) {
  __m256 sum[CHAINS], a = _mm256_set1_ps(0.999f);
  for (int j = 0; j < CHAINS; j++) sum[j] = _mm256_set1_ps((float)j);
  for (int i = 0; i < PEAK_STEPS; i++) {
#pragma GCC unroll 12
    for (int j = 0; j < CHAINS; j++) sum[j] = _mm256_fmadd_ps(sum[j], a, a);
  }
  float result = 0;
  for (int j = 0; j < CHAINS; j++) result += _mm256_cvtss_f32(sum[j]);
  return result;
}

/* Products of pairs of bf16 numbers: two multiplications and additions a lane. */
__attribute__((target("avx512f,avx512bf16"))) static float chains_bf16(void) {
  __m512 sum[CHAINS];
  __m512bh a = (__m512bh)_mm512_set1_epi32(0x3b803b80);
  for (int j = 0; j < CHAINS; j++) sum[j] = _mm512_set1_ps((float)j);
  for (int i = 0; i < PEAK_STEPS; i++) {
#pragma GCC unroll 12
    for (int j = 0; j < CHAINS; j++) sum[j] = _mm512_dpbf16_ps(sum[j], a, a);
  }
  float result = 0;
  for (int j = 0; j < CHAINS; j++) result += _mm512_cvtss_f32(sum[j]);
  return result;
}
#endif

static float chains_portable(void) {
  typedef float four __attribute__((vector_size(16)));
  four sum[CHAINS], a = {0.999f, 0.999f, 0.999f, 0.999f};
  for (int j = 0; j < CHAINS; j++) sum[j] = a * (float)j;
  for (int i = 0; i < PEAK_STEPS; i++) {
#pragma GCC unroll 12
    for (int j = 0; j < CHAINS; j++) sum[j] = sum[j] * a + a;
  }
  float result = 0;
  for (int j = 0; j < CHAINS; j++) result += sum[j][0];
  return result;
}

/* Is that the set of the kernels of a device's name? */
static bool are_of(const char *kernels, const char *set) {
  size_t n = strlen(set);
  return strncmp(kernels, set, n) == 0 && (kernels[n] == 0 || kernels[n] == ' ');
}

double machine_peak_flops(const char *kernels, int threads) {
  float (*run)(void) = chains_portable;
  double lanes = 4;
#if defined(__x86_64__)
  if (are_of(kernels, "avx512") || are_of(kernels, "amx")) run = chains_avx512, lanes = 16;
  if (are_of(kernels, "avx2")) run = chains_avx2, lanes = 8;
  if (strcmp(kernels, MACHINE_BF16_DOT) == 0) {
    if (!__builtin_cpu_supports("avx512bf16")) return 0;
    run = chains_bf16, lanes = 32;
  }
#else
  (void)are_of, (void)kernels;
#endif
  double start = pdt_seconds();
  float total = 0;
#pragma omp parallel num_threads(threads) reduction(+ : total)
  total += run();
  volatile float keep = total;
  (void)keep;
  return 2.0 * CHAINS * PEAK_STEPS * lanes * threads / (pdt_seconds() - start);
}

static int32_t add_piece(machine_piece *pieces, int32_t n, const pdt_matrix *m) {
  if (m->data) pieces[n++] = (machine_piece){m->data, m->bytes};
  return n;
}

int32_t machine_weight_pieces(const pdt_trunk_weights *weights, machine_piece **pieces) {
  int32_t n = 0;
  *pieces = malloc(((size_t)weights->config.layers * 7 + 1) * sizeof **pieces);
  if (!*pieces) return -1;
  for (pdt_layer l = 0; l < weights->config.layers; l++) {
    const pdt_layer_weights *layer = &weights->layers[l];
    n = add_piece(*pieces, n, &layer->qkv);
    for (int i = 0; i < 2; i++) n = add_piece(*pieces, n, &layer->qkv_rest[i]);
    n = add_piece(*pieces, n, &layer->attention_out);
    n = add_piece(*pieces, n, &layer->gate_up);
    n = add_piece(*pieces, n, &layer->gate_up_rest[0]);
    n = add_piece(*pieces, n, &layer->down);
  }
  return add_piece(*pieces, n, pdt_trunk_head(weights));
}

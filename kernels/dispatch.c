/* Which CPU kernels this build holds and this machine runs. */
#include <string.h>

#include "kernels/kernels.h"

extern const pdt_kernels pdt_cpu_portable_kernels;
#ifdef PDT_X86
extern const pdt_kernels pdt_cpu_avx2_kernels;
extern const pdt_kernels pdt_cpu_avx512_kernels;
#endif

static bool runs_here(pdt_cpu_isa isa) {
#ifdef PDT_X86
  /* Every processor with AVX2 converts half precision too, so that F16C needs no question. */
  bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  if (isa == PDT_CPU_AVX512) return avx2 && avx512;
  if (isa == PDT_CPU_AVX2) return avx2;
#endif
  return isa == PDT_CPU_PORTABLE;
}

const pdt_kernels *pdt_cpu_kernels(pdt_cpu_isa isa) {
  if (!runs_here(isa)) return NULL;
#ifdef PDT_X86
  if (isa == PDT_CPU_AVX512) return &pdt_cpu_avx512_kernels;
  if (isa == PDT_CPU_AVX2) return &pdt_cpu_avx2_kernels;
#endif
  return &pdt_cpu_portable_kernels;
}

pdt_cpu_isa pdt_cpu_best_isa(void) {
  if (runs_here(PDT_CPU_AVX512)) return PDT_CPU_AVX512;
  return runs_here(PDT_CPU_AVX2) ? PDT_CPU_AVX2 : PDT_CPU_PORTABLE;
}

bool pdt_cpu_isa_parse(const char *name, pdt_cpu_isa *out) {
  static const char *const names[] = {"portable", "avx2", "avx512"};
  for (int i = 0; i < 3; i++)
    if (strcmp(name, names[i]) == 0) {
      *out = (pdt_cpu_isa)i;
      return true;
    }
  return false;
}

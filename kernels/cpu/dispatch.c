/* Which CPU kernels this build holds and this machine runs. */
#include <string.h>

#include "kernels/cpu/amx/amx.h"
#include "kernels/cpu/primitives.h"

extern const pdt_cpu_primitives pdt_cpu_portable_primitives;
#ifdef PDT_X86
extern const pdt_cpu_primitives pdt_cpu_avx2_primitives;
extern const pdt_cpu_primitives pdt_cpu_avx512_primitives;
extern const pdt_cpu_primitives pdt_cpu_amx_primitives;
#endif

bool pdt_cpu_has(pdt_cpu_isa isa) {
#ifdef PDT_X86
  /* Every processor with AVX2 converts half precision too, so that F16C needs no question. */
  bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  if (isa == PDT_CPU_AMX) return avx2 && avx512 && pdt_cpu_amx_works();
  if (isa == PDT_CPU_AVX512) return avx2 && avx512;
  if (isa == PDT_CPU_AVX2) return avx2;
#endif
  return isa == PDT_CPU_PORTABLE;
}

const pdt_cpu_primitives *pdt_cpu_primitives_of(pdt_cpu_isa isa) {
  if (!pdt_cpu_has(isa)) return NULL;
#ifdef PDT_X86
  if (isa == PDT_CPU_AMX) return &pdt_cpu_amx_primitives;
  if (isa == PDT_CPU_AVX512) return &pdt_cpu_avx512_primitives;
  if (isa == PDT_CPU_AVX2) return &pdt_cpu_avx2_primitives;
#endif
  return &pdt_cpu_portable_primitives;
}

pdt_cpu_isa pdt_cpu_best_isa(void) {
  /* AMX where it is asked for: from 16 rows on it is faster, below 8 slower, and a row's bits may
   * not depend on how many there are, so that steps of all sizes take the same. */
  int best = PDT_CPU_AVX512;
  while (best > PDT_CPU_PORTABLE && !pdt_cpu_has((pdt_cpu_isa)best)) best--;
  return (pdt_cpu_isa)best;
}

static const char *const names[PDT_CPU_ISAS] = {"portable", "avx2", "avx512", "amx"};

const char *pdt_cpu_isa_name(pdt_cpu_isa isa) {
  return names[isa];
}

bool pdt_cpu_isa_parse(const char *name, pdt_cpu_isa *out) {
  for (int i = 0; i < PDT_CPU_ISAS; i++)
    if (strcmp(name, names[i]) == 0) {
      *out = (pdt_cpu_isa)i;
      return true;
    }
  return false;
}

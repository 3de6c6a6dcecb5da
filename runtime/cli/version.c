#include "cli/version.h"

#include <jansson.h>
#include <openssl/crypto.h>
#include <protobuf-c/protobuf-c.h>
#include <utf8proc.h>
#include <xxhash.h>

#include "comm/comm.h"
#include "kernels/cuda/device.h"
#include "kernels/kernels.h"
#include "pdt_version.h"
#include "serve/serve.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

static void print_build(FILE *out) {
  fprintf(out, "pdt %s%s%s%s\n", PDT_VERSION, *PDT_GIT ? " (" : "", PDT_GIT, *PDT_GIT ? ")" : "");
  fprintf(out, "build       %s, %s%s%s\n", PDT_BUILD_TYPE, PDT_COMPILER,
          *PDT_SANITIZERS ? ", sanitizers: " : "", PDT_SANITIZERS);
}

/* _OPENMP is the date of the standard that the compiler follows. */
static const char *openmp_version(void) {
  static const struct {
    long date;
    const char *version;
  } known[] = {{201811, "5.0"}, {201511, "4.5"}, {201307, "4.0"}, {201107, "3.1"}};
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (_OPENMP >= known[i].date) return known[i].version;
  return "before 3.1";
}

static void print_compute(FILE *out) {
  fprintf(out, "kernels     %s\n", pdt_cpu_isa_name(pdt_cpu_best_isa()));
  fprintf(out, "OpenMP      %s or later (%ld)\n", openmp_version(), (long)_OPENMP);
}

static void print_libraries(FILE *out) {
  char text[256];
  pdt_comm_library(text, sizeof text);
  fprintf(out, "MPI         %s\n", text);
  fprintf(out, "protobuf-c  %s\n", protobuf_c_version());
  fprintf(out, "jansson     %s\n", jansson_version_str());
  int needed = pcre2_config(PCRE2_CONFIG_VERSION, NULL); /* code units, the end's included */
  if (needed < 0 || needed > (int)sizeof text || pcre2_config(PCRE2_CONFIG_VERSION, text) < 0)
    snprintf(text, sizeof text, "of unknown version");
  fprintf(out, "pcre2       %s\n", text);
  fprintf(out, "utf8proc    %s, Unicode %s\n", utf8proc_version(), utf8proc_unicode_version());
  unsigned xxh = XXH_versionNumber();
  fprintf(out, "xxhash      %u.%u.%u\n", xxh / 10000, xxh / 100 % 100, xxh % 100);
  fprintf(out, "OpenSSL     %s\n", OpenSSL_version(OPENSSL_VERSION_STRING));
  pdt_serve_library(text, sizeof text);
  fprintf(out, "microhttpd  %s\n", text);
}

static void print_cuda(FILE *out) {
  pdt_cuda_info info;
  pdt_cuda_describe(&info);
  if (!info.built_in) {
    fprintf(out, "CUDA        %s\nNCCL        not built in\n", info.why_none);
    return;
  }
  fprintf(out, "CUDA        toolkit %d.%d, ", info.toolkit_version / 1000,
          info.toolkit_version % 1000 / 10);
  if (info.devices)
    fprintf(out, "%d device%s\n", info.devices, info.devices > 1 ? "s" : "");
  else
    fprintf(out, "no device: %s\n", info.why_none);
  for (int i = 0; i < info.devices && i < PDT_CUDA_LISTED; i++) {
    const pdt_cuda_device *d = &info.listed[i];
    fprintf(out, "            %d: %s, compute capability %d.%d, %.1f GiB\n", i, d->name, d->major,
            d->minor, (double)d->memory_bytes / (1024.0 * 1024 * 1024));
  }
  if (info.nccl_version)
    fprintf(out, "NCCL        %d.%d.%d\n", info.nccl_version / 10000, info.nccl_version / 100 % 100,
            info.nccl_version % 100);
  else
    fprintf(out, "NCCL        built in, its library does not tell its version\n");
}

void pdt_version_print(FILE *out) {
  print_build(out);
  print_compute(out);
  print_libraries(out);
  print_cuda(out);
}

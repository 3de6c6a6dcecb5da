#include "kernels/cuda/cublaslt.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

int pdt_cublaslt_load(pdt_cublaslt *lt, pdt_error *err) {
  char name[64], why[256];
  snprintf(name, sizeof name, "libcublasLt.so.%d", CUBLAS_VER_MAJOR);
  void *library = dlopen(name, RTLD_NOW | RTLD_NODELETE);
  if (!library) {
    snprintf(why, sizeof why, "%s", dlerror());
    library = dlopen(PDT_CUBLASLT_PATH, RTLD_NOW | RTLD_NODELETE);
  }
  if (!library)
    return pdt_fail(err, PDT_ERROR_RUNTIME,
                    "%s, nor is it %s (hint: it comes with the CUDA toolkit; LD_LIBRARY_PATH)", why,
                    PDT_CUBLASLT_PATH);
  const struct {
    const char *name;
    void *pointer; /* to where the call's address goes */
  } calls[] = {
#define ENTRY(name) {"cublasLt" #name, (void *)&lt->name},
      PDT_CUBLASLT_CALLS(ENTRY)
#undef ENTRY
  };
  for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
    void *address = dlsym(library, calls[i].name);
    if (!address) return pdt_fail(err, PDT_ERROR_RUNTIME, "%s has no %s", name, calls[i].name);
    memcpy(calls[i].pointer, &address, sizeof address);
  }
  return 0;
}

#include "kernels/cuda/device.h"

#include <stdio.h>
#include <string.h>

#ifndef PDT_HAVE_CUDA

void pdt_cuda_describe(pdt_cuda_info *info) {
  *info = (pdt_cuda_info){0};
  snprintf(info->why_none, sizeof info->why_none, "not built in");
}

int pdt_cuda_device_new(pdt_device *dev, int index, pdt_error *err) {
  *dev = (pdt_device){0};
  return pdt_fail(err, PDT_ERROR_RUNTIME, "GPU %d: this program was built without CUDA", index);
}

uint64_t pdt_cuda_identity(const pdt_device *dev) {
  (void)dev;
  return 0;
}

#else

#include <cuda_runtime_api.h>
#include <nccl.h>

/* Device i's entry; false, with the reason noted, when the runtime does not answer. */
static bool describe_device(int i, pdt_cuda_device *out, char *why, size_t why_bytes) {
  struct cudaDeviceProp properties;
  cudaError_t code = cudaGetDeviceProperties(&properties, i);
  if (code != cudaSuccess) {
    snprintf(why, why_bytes, "device %d: %s (error %d)", i, cudaGetErrorString(code), (int)code);
    return false;
  }
  snprintf(out->name, sizeof out->name, "%.*s", (int)sizeof out->name - 1, properties.name);
  out->major = properties.major;
  out->minor = properties.minor;
  out->memory_bytes = (pdt_bytes)properties.totalGlobalMem;
  return true;
}

void pdt_cuda_describe(pdt_cuda_info *info) {
  *info = (pdt_cuda_info){.built_in = true, .toolkit_version = CUDART_VERSION};
  if (ncclGetVersion(&info->nccl_version) != ncclSuccess) info->nccl_version = 0;
  int count = 0;
  cudaError_t code = cudaGetDeviceCount(&count);
  if (code != cudaSuccess || count < 1) {
    snprintf(info->why_none, sizeof info->why_none, "%s (error %d)",
             code == cudaSuccess ? "the driver lists no device" : cudaGetErrorString(code),
             (int)code);
    return;
  }
  for (int i = 0; i < count && i < PDT_CUDA_LISTED; i++)
    if (!describe_device(i, &info->listed[i], info->why_none, sizeof info->why_none)) return;
  info->devices = count;
}

#endif

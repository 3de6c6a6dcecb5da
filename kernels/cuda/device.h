/* What this build and this machine offer of CUDA and NCCL. Plain C against the CUDA runtime; the
 * driver's library is never linked, so the program starts on machines without one. */
#ifndef PDT_KERNELS_CUDA_DEVICE_H
#define PDT_KERNELS_CUDA_DEVICE_H

#include "kernels/kernels.h"

enum { PDT_CUDA_NAME_BYTES = 256, PDT_CUDA_LISTED = 16 };
/* The kernels are made for this compute capability and later ones. */
enum { PDT_CUDA_LEAST_MAJOR = 8 };

typedef struct pdt_cuda_device {
  char name[PDT_CUDA_NAME_BYTES];
  int major, minor; /* compute capability */
  pdt_bytes memory_bytes;
  unsigned char uuid[16]; /* of it, or of the part of it that the process may use */
  int domain, bus, slot;  /* its place on the PCI bus */
} pdt_cuda_device;

typedef struct pdt_cuda_info {
  bool built_in;
  int toolkit_version; /* of the headers: 1000 * major + 10 * minor */
  int nccl_version; /* of the library: 10000 * major + 100 * minor + patch; 0 if it cannot tell */
  int devices;      /* that this process may use, 0 when there is none */
  char why_none[PDT_CUDA_NAME_BYTES];      /* why devices is 0: "not built in", or the runtime's
                                              words and error number (35 without a driver) */
  pdt_cuda_device listed[PDT_CUDA_LISTED]; /* the first min(devices, PDT_CUDA_LISTED) */
} pdt_cuda_info;

/* Fills in *info. Having no device is an answer, not an error. Creates no context on any device.
 * Not collective; every rank may see other devices. */
void pdt_cuda_describe(pdt_cuda_info *info);

/* Fills in *out for one of the devices; false, with the reason in `why`, when there is none of that
 * number. Creates no context either. */
bool pdt_cuda_describe_device(int index, pdt_cuda_device *out, char *why, size_t why_bytes);

/* A device of this process (kernels.h): the GPU of that number among those that the process may
 * use, with memory, a stream and results of its own. Every call comes from the thread that made it.
 * Errors: RUNTIME where there is none, saying why; MEMORY. */
int pdt_cuda_device_new(pdt_device *dev, int index, pdt_error *err);

/* Should matmul_bulk round rows to bf16 where weights are in half precision? That halves its
 * arithmetic, and is what PyTorch does, but for F16 weights, which it rounds rows to F16 for. By
 * default it takes rows as they are, to 2^-17. Holds for what follows; the device's name tells. */
void pdt_cuda_round_rows(pdt_device *dev, bool rounds);

#endif

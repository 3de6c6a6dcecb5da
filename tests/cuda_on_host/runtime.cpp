/* Twins of the calls of the CUDA runtime that the backend and its tests make: device memory is
 * ordinary memory. What goes to a stream is done as late as it may be, when somebody waits for it:
 * host memory that is used again too early shows as other results. The environment says what the
 * device is like:
 *
 *   CUDA_ON_HOST_DEVICE   "no-driver", "none", "old" (compute capability 7.5), "busy" (it cannot be
 *                         chosen): a machine without a GPU to use
 *   CUDA_ON_HOST_MEMORY   bytes that there are; 1 GiB if it does not say
 *   CUDA_ON_HOST_LOST     the device is lost at its n-th call, frees not counted: that one and all
 *                         that come later fail, as after an error that sticks to a context
 *   CUDA_ON_HOST_RANK     MPI's rank that LOST holds for; all if it does not say
 *   CUDA_ON_HOST_REPORT   a file that gets a line at the end: calls, most bytes in use
 */
#include "cuda_on_host.h"

#undef gridDim /* fields of a launch have the names */
#undef blockDim

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

namespace {

const char *setting(const char *name) {
  const char *text = getenv(name);
  return text ? text : "";
}

bool device_is(const char *what) {
  return strcmp(setting("CUDA_ON_HOST_DEVICE"), what) == 0;
}

/* The device's memory, and how often it was asked for something. */
struct twin {
  size_t whole = 1 << 30, used = 0, most = 0;
  std::map<void *, size_t> pieces;
  long calls = 0, lost = 0; /* lost: at which call, 0: never */

  twin() {
    const char *mine = setting("OMPI_COMM_WORLD_RANK"), *rank = setting("CUDA_ON_HOST_RANK");
    if (*setting("CUDA_ON_HOST_MEMORY")) whole = strtoull(setting("CUDA_ON_HOST_MEMORY"), NULL, 10);
    if (!*rank || strcmp(rank, mine) == 0) lost = atol(setting("CUDA_ON_HOST_LOST"));
  }
  bool is_lost() const {
    return lost > 0 && calls >= lost;
  }
  ~twin() {
    FILE *report =
        *setting("CUDA_ON_HOST_REPORT") ? fopen(setting("CUDA_ON_HOST_REPORT"), "w") : nullptr;
    if (!report) return;
    fprintf(report, "{\"calls\": %ld, \"most_bytes\": %zu}\n", calls, most);
    fclose(report);
  }
};

twin &the_twin() {
  static twin one;
  return one;
}

/* What a call that works on the device says: nothing works on one that is lost. */
cudaError_t answer() {
  twin &t = the_twin();
  t.calls++;
  return t.is_lost() ? cudaErrorLaunchFailure : cudaSuccess;
}

/* Filled with NaN patterns, so that reading what was not written shows. */
cudaError_t take(void **p, size_t bytes) {
  *p = aligned_alloc(256, (bytes + 255) / 256 * 256 + 256);
  if (!*p) return cudaErrorMemoryAllocation;
  memset(*p, 0xff, bytes);
  return cudaSuccess;
}

/* A kernel with its arguments, as a graph keeps it. */
struct call_of_kernel {
  const cuda_on_host::kernel *kernel;
  dim3 grid, block;
  size_t shared_bytes;
  std::vector<std::vector<char>> arguments;
};

/* The devices that PDT_TWIN_GPUS lists, as BUS:MAJOR.MINOR,BUS:MAJOR.MINOR..: where each is on the
 * PCI bus and its compute capability. One of 8.0 where it is not set, none where it is empty. */
struct gpu {
  int bus, major, minor;
};
std::vector<gpu> gpus() {
  const char *text = getenv("PDT_TWIN_GPUS");
  std::vector<gpu> all;
  gpu g;
  int used = 0;
  for (text = text ? text : "1:8.0";
       sscanf(text, "%d:%d.%d%n", &g.bus, &g.major, &g.minor, &used) == 3; text += *text == ',') {
    all.push_back(g);
    text += used;
  }
  return all;
}

typedef std::vector<call_of_kernel> graph;
graph *recording = nullptr;

/* What the streams have to do yet, in order; an event is how much there was when it was recorded.
 */
std::vector<std::function<void()>> &to_do() {
  static std::vector<std::function<void()>> list;
  return list;
}
unsigned long long done; /* of all that ever was to be done */

void later(std::function<void()> what) {
  to_do().push_back(std::move(what));
}

void catch_up(unsigned long long until) {
  std::vector<std::function<void()>> &list = to_do();
  size_t n = 0;
  while (done < until && n < list.size()) list[n++](), done++;
  list.erase(list.begin(), list.begin() + (long)n);
}

void catch_up() {
  catch_up(done + to_do().size());
}

struct event {
  unsigned long long after;
};

void run(const call_of_kernel &c) {
  std::vector<void *> at;
  for (const std::vector<char> &a : c.arguments) at.push_back(const_cast<char *>(a.data()));
  cuda_on_host::launch(c.grid, c.block, c.shared_bytes, [&] { c.kernel->run(at.data()); });
}

} // namespace

extern "C" {

cudaError_t cudaFuncSetAttribute(const void *, cudaFuncAttribute, int) {
  return cudaSuccess;
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *config, const void *kernel,
                                void **arguments) {
  if (config->numAttrs != 0) return cudaErrorNotSupported; /* of compute capability 8.0 */
  if (answer() != cudaSuccess) return cudaErrorLaunchFailure;
  const auto *k = static_cast<const cuda_on_host::kernel *>(kernel);
  call_of_kernel c = {k, config->gridDim, config->blockDim, config->dynamicSmemBytes, {}};
  for (size_t i = 0; i < k->sizes.size(); i++) {
    const char *from = static_cast<const char *>(arguments[i]);
    c.arguments.emplace_back(from, from + k->sizes[i]);
  }
  if (recording)
    recording->push_back(c);
  else
    later([c] { run(c); });
  return cudaSuccess;
}
cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode) {
  recording = new graph;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t *out) {
  *out = reinterpret_cast<cudaGraph_t>(recording);
  recording = nullptr;
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t from, unsigned long long) {
  *out = reinterpret_cast<cudaGraphExec_t>(new graph(*reinterpret_cast<graph *>(from)));
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t ready, cudaStream_t) {
  if (answer() != cudaSuccess) return cudaErrorLaunchFailure;
  graph calls = *reinterpret_cast<graph *>(ready);
  later([calls] {
    for (const call_of_kernel &c : calls) run(c);
  });
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t g) {
  delete reinterpret_cast<graph *>(g);
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t g) {
  delete reinterpret_cast<graph *>(g);
  return cudaSuccess;
}

cudaError_t cudaMalloc(void **p, size_t bytes) {
  twin &t = the_twin();
  if (answer() != cudaSuccess) return cudaErrorLaunchFailure;
  cudaError_t code = bytes <= t.whole - t.used ? take(p, bytes) : cudaErrorMemoryAllocation;
  if (code != cudaSuccess) return code;
  t.pieces[*p] = bytes;
  t.used += bytes;
  if (t.used > t.most) t.most = t.used;
  return cudaSuccess;
}
cudaError_t cudaFree(void *p) {
  twin &t = the_twin();
  auto piece = t.pieces.find(p);
  if (piece != t.pieces.end()) {
    t.used -= piece->second;
    t.pieces.erase(piece);
  }
  catch_up();
  free(p);
  return t.is_lost() ? cudaErrorLaunchFailure : cudaSuccess;
}
cudaError_t cudaMallocHost(void **p, size_t bytes) {
  return answer() == cudaSuccess ? take(p, bytes) : cudaErrorLaunchFailure;
}
cudaError_t cudaFreeHost(void *p) {
  catch_up();
  free(p);
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t *left, size_t *whole) {
  *whole = the_twin().whole;
  *left = *whole - the_twin().used;
  return answer();
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind,
                            cudaStream_t) {
  if (answer() != cudaSuccess) return cudaErrorLaunchFailure;
  later([=] { memmove(to, from, bytes); });
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t) {
  if (answer() != cudaSuccess) return cudaErrorLaunchFailure;
  later([=] { memset(p, value, bytes); });
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned) {
  if (answer() != cudaSuccess) return cudaErrorLaunchFailure;
  *stream = reinterpret_cast<cudaStream_t>(new char);
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete reinterpret_cast<char *>(stream);
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t) {
  catch_up();
  return answer();
}
cudaError_t cudaStreamQuery(cudaStream_t) {
  catch_up();
  return answer();
}
cudaError_t cudaEventQuery(cudaEvent_t e) {
  catch_up(reinterpret_cast<event *>(e)->after);
  return answer();
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned) {
  if (answer() != cudaSuccess) return cudaErrorLaunchFailure;
  *out = reinterpret_cast<cudaEvent_t>(new event{0});
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t e) {
  delete reinterpret_cast<event *>(e);
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t) {
  reinterpret_cast<event *>(e)->after = done + to_do().size();
  return answer();
}
cudaError_t cudaEventSynchronize(cudaEvent_t e) {
  catch_up(reinterpret_cast<event *>(e)->after);
  return answer();
}
cudaError_t cudaGetDeviceCount(int *count) {
  *count = device_is("no-driver") || device_is("none") ? 0 : (int)gpus().size();
  return device_is("no-driver") ? cudaErrorInsufficientDriver
         : *count < 1           ? cudaErrorNoDevice
                                : cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= (int)gpus().size()) return cudaErrorInvalidDevice;
  return device_is("busy") ? cudaErrorDevicesUnavailable : answer();
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int device) {
  const std::vector<gpu> all = gpus();
  if (device < 0 || device >= (int)all.size()) return cudaErrorInvalidDevice;
  memset(p, 0, sizeof *p);
  snprintf(p->name, sizeof p->name, "the CPU, as a GPU");
  p->major = device_is("old") ? 7 : all[device].major;
  p->minor = device_is("old") ? 5 : all[device].minor;
  p->pciBusID = all[device].bus;
  p->uuid.bytes[0] = (char)all[device].bus;
  p->totalGlobalMem = the_twin().whole;
  p->multiProcessorCount = 1;
  return cudaSuccess;
}
cudaError_t cudaGetLastError() {
  return cudaSuccess;
}
const char *cudaGetErrorString(cudaError_t code) {
  switch (code) {
  case cudaErrorMemoryAllocation:
    return "out of memory";
  case cudaErrorInvalidDevice:
    return "invalid device ordinal";
  case cudaErrorLaunchFailure:
    return "unspecified launch failure";
  case cudaErrorInsufficientDriver:
    return "CUDA driver version is insufficient for CUDA runtime version";
  case cudaErrorNoDevice:
    return "no CUDA-capable device is detected";
  case cudaErrorDevicesUnavailable:
    return "CUDA-capable device(s) is/are busy or unavailable";
  default:
    return "an error";
  }
}
}

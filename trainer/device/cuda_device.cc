// The profile cuda: GPUs by the CUDA runtime, streams, allocator and graphs of LibTorch.
#include <ATen/Context.h>
#include <ATen/cuda/CUDAGeneratorImpl.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstdlib>
#include <deque>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

#include "trainer/device/device.h"

namespace lockstep::trainer {
namespace {

void Check(cudaError_t error, const char* doing) {
  if (error == cudaSuccess) return;
  throw std::runtime_error(std::string(doing) + ": " + cudaGetErrorString(error));
}

cudaStream_t Stream(StreamHandle handle) {
  return static_cast<cudaStream_t>(handle);
}
cudaEvent_t Event(EventHandle handle) {
  return static_cast<cudaEvent_t>(handle);
}

class CapturedGraph : public StepGraph {
 public:
  explicit CapturedGraph(const std::function<void()>& step) : graph_(/*keep_graph=*/true) {
    // The default generator, which dropout draws from, is part of every graph: the seed that is set
    // before a replay is an input of it. Thread-local: other threads (loaders, the checkpoint
    // writer) may go on using the device.
    graph_.capture_begin({0, 0}, cudaStreamCaptureModeThreadLocal);
    try {
      step();
    } catch (...) {
      // Ends the capture, so that the stream is usable again; its own complaint says less.
      try {
        graph_.capture_end();
      } catch (...) {
        (void)cudaGetLastError();
      }
      throw;
    }
    graph_.capture_end();
    try {
      FindStamps();
    } catch (const std::runtime_error&) {
      stamps_.clear();  // The graph is worth more than its times; Restamp() tells.
    }
    graph_.instantiate();
  }
  void Replay() override { graph_.replay(); }
  void Restamp(EventHandle captured, EventHandle now) override {
    const auto stamp = stamps_.find(Event(captured));
    if (stamp == stamps_.end()) throw std::runtime_error("the graph has no such timed event");
    Check(cudaGraphExecEventRecordNodeSetEvent(graph_.raw_cuda_graph_exec(), stamp->second,
                                               Event(now)),
          "changing a timed event of the graph");
  }

 private:
  // The nodes that record an event: streams that wait for each other leave none.
  void FindStamps() {
    size_t count = 0;
    Check(cudaGraphGetNodes(graph_.raw_cuda_graph(), nullptr, &count), "reading the graph");
    std::vector<cudaGraphNode_t> nodes(count);
    Check(cudaGraphGetNodes(graph_.raw_cuda_graph(), nodes.data(), &count), "reading the graph");
    for (const cudaGraphNode_t node : nodes) {
      cudaGraphNodeType type{};
      Check(cudaGraphNodeGetType(node, &type), "reading the graph");
      if (type != cudaGraphNodeTypeEventRecord) continue;
      cudaEvent_t event = nullptr;
      Check(cudaGraphEventRecordNodeGetEvent(node, &event), "reading the graph");
      stamps_[event] = node;
    }
  }

  at::cuda::CUDAGraph graph_;
  std::unordered_map<cudaEvent_t, cudaGraphNode_t> stamps_;
};

class CudaDevice : public Device {
 public:
  CudaDevice(int index, const DeviceOptions& options) : index_(index) {
    c10::cuda::set_device(static_cast<c10::DeviceIndex>(index));
    Check(cudaGetDeviceProperties(&properties_, index), "asking for the GPU's properties");
    // The default stream cannot be captured; and autograd's nodes belong to the stream they were
    // made on, so this comes before any of them.
    compute_ = c10::cuda::getStreamFromPool(/*isHighPriority=*/false, index);
    c10::cuda::setCurrentCUDAStream(*compute_);
    int least = 0;
    int greatest = 0;
    Check(cudaDeviceGetStreamPriorityRange(&least, &greatest), "asking for stream priorities");
    Check(cudaStreamCreateWithPriority(&side_, cudaStreamNonBlocking, greatest),
          "making a stream for the collectives");
    // cuBLAS reads this when its first handle is made.
    if (options.deterministic) setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*overwrite=*/0);
    at::Context& context = at::globalContext();
    const auto fp32 = options.tf32 ? at::Float32Precision::TF32 : at::Float32Precision::IEEE;
    for (const at::Float32Op op : {at::Float32Op::CONV, at::Float32Op::MATMUL}) {
      context.setFloat32Precision(at::Float32Backend::CUDA, op, fp32);
    }
    // Warns rather than refuses: LibTorch counts every max pool among what has no such algorithm,
    // although windows that do not overlap, as ours, give the same bits.
    context.setDeterministicAlgorithms(options.deterministic, /*warn_only=*/true);
    context.setDeterministicFillUninitializedMemory(false);
    context.setDeterministicCuDNN(options.deterministic);
    context.setBenchmarkCuDNN(!options.deterministic);
  }
  ~CudaDevice() override {
    // Errors here have nobody to go to; the process ends soon after.
    for (const cudaEvent_t event : events_) (void)cudaEventDestroy(event);
    (void)cudaStreamDestroy(side_);
  }

  at::Device torch() const override { return {at::kCUDA, static_cast<c10::DeviceIndex>(index_)}; }

  std::string Describe() const override {
    char text[320];
    std::snprintf(text, sizeof(text), "%s, %.1f GiB (GPU %d)", properties_.name,
                  static_cast<double>(properties_.totalGlobalMem) / (1 << 30), index_);
    return text;
  }

  std::string Name() const override { return properties_.name; }

  // In groups, as NVML and CUDA_VISIBLE_DEVICES have it: the coordinator compares it with theirs.
  std::string Uuid() const override {
    std::string text = "GPU";
    for (int i = 0; i < 16; ++i) {
      const bool begins_group = i == 0 || i == 4 || i == 6 || i == 8 || i == 10;
      char hex[4];
      std::snprintf(hex, sizeof(hex), "%s%02x", begins_group ? "-" : "",
                    static_cast<unsigned char>(properties_.uuid.bytes[i]));
      text += hex;
    }
    return text;
  }

  int64_t FreeBytes() const override {
    size_t free = 0;
    size_t total = 0;
    Check(cudaMemGetInfo(&free, &total), "asking for the GPU's free memory");
    return static_cast<int64_t>(free);
  }

  StreamHandle CurrentStream() override {
    return c10::cuda::getCurrentCUDAStream(static_cast<c10::DeviceIndex>(index_)).stream();
  }
  StreamHandle SideStream() override { return side_; }

  EventHandle NewEvent() override { return MakeEvent(cudaEventDisableTiming); }
  void Record(EventHandle event, StreamHandle stream) override {
    Check(cudaEventRecord(Event(event), Stream(stream)), "recording an event");
  }
  void StreamWait(StreamHandle stream, EventHandle event) override {
    Check(cudaStreamWaitEvent(Stream(stream), Event(event), 0), "making a stream wait");
  }
  bool Done(EventHandle event) override {
    const cudaError_t state = cudaEventQuery(Event(event));
    if (state == cudaErrorNotReady) return false;
    Check(state, "running the step's kernels");
    return true;
  }

  EventHandle NewTimedEvent() override { return MakeEvent(cudaEventDefault); }
  void Stamp(EventHandle event) override {
    const cudaStream_t stream = Stream(CurrentStream());
    cudaStreamCaptureStatus capture{};
    Check(cudaStreamIsCapturing(stream, &capture), "asking whether a step is captured");
    // In a capture an event is an edge between streams, unless it is said to be for those outside.
    const unsigned flags =
        capture == cudaStreamCaptureStatusActive ? cudaEventRecordExternal : cudaEventRecordDefault;
    Check(cudaEventRecordWithFlags(Event(event), stream, flags), "stamping an event");
  }
  double SecondsBetween(EventHandle from, EventHandle to) override {
    float milliseconds = 0;
    const cudaError_t state = cudaEventElapsedTime(&milliseconds, Event(from), Event(to));
    if (state != cudaSuccess) (void)cudaGetLastError();  // Or the next kernel is blamed for it.
    Check(state, "reading a GPU's times");
    return milliseconds / 1e3;
  }

  std::unique_ptr<StepGraph> Capture(const std::function<void()>& step) override {
    // The graph allocates from a pool of its own; what the warm-up steps left in the allocator
    // would only stand beside it.
    Check(cudaDeviceSynchronize(), "waiting for the GPU before a capture");
    c10::cuda::CUDACachingAllocator::emptyCache();
    try {
      return std::make_unique<CapturedGraph>(step);
    } catch (const c10::Error& error) {
      (void)cudaGetLastError();
      throw std::runtime_error(error.what_without_backtrace());
    }
  }

 private:
  EventHandle MakeEvent(unsigned flags) {
    const std::lock_guard lock(mutex_);
    cudaEvent_t event = nullptr;
    Check(cudaEventCreateWithFlags(&event, flags), "making an event");
    events_.push_back(event);
    return event;
  }

  const int index_;
  cudaDeviceProp properties_{};
  std::optional<c10::cuda::CUDAStream> compute_;
  cudaStream_t side_ = nullptr;
  std::mutex mutex_;
  std::deque<cudaEvent_t> events_;  // Guarded by mutex_.
};

}  // namespace

int GpuCount() {
  int count = 0;
  const cudaError_t state = cudaGetDeviceCount(&count);
  (void)cudaGetLastError();
  return state == cudaSuccess ? count : 0;
}

std::string WhyNoGpu() {
  int count = 0;
  const cudaError_t state = cudaGetDeviceCount(&count);
  (void)cudaGetLastError();
  if (state == cudaSuccess) return "CUDA shows no GPU (CUDA_VISIBLE_DEVICES?)";
  return std::string("CUDA: ") + cudaGetErrorString(state) +
         "; `lockstep doctor` says what is missing";
}

std::unique_ptr<Device> OpenGpu(int index, const DeviceOptions& options) {
  return std::make_unique<CudaDevice>(index, options);
}

}  // namespace lockstep::trainer

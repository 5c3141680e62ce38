// What a rank computes on: the host's CPU, or one GPU.
//
// The step loop, the arena and the communicator ask only this for what ATen does not give alike on
// both: streams and events (as opaque handles, so that no header of ours needs CUDA's), the capture
// of a step as a graph, memory that is free. Which GPUs there are is decided by the file that is
// compiled: cuda_device.cc in the profile cuda, no_gpu.cc in the profile cpu.
//
// A GPU's kernels run behind the host, in the order of one stream that the Device made and that
// belongs to the thread that opened it. Used by that thread and, for CurrentStream(), Record() and
// StreamWait(), by autograd's.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace lockstep::trainer {

using StreamHandle = void*;  // A cudaStream_t.
using EventHandle = void*;   // A cudaEvent_t.

// A step captured once, to be run again and again.
class StepGraph {
 public:
  virtual ~StepGraph() = default;
  virtual void Replay() = 0;  // Enqueues the whole step; does not wait.
  /// From the next replay on `now` is stamped where `captured` was at the capture; both are timed
  /// events. Throws std::runtime_error.
  virtual void Restamp(EventHandle captured, EventHandle now) = 0;
};

class Device {
 public:
  virtual ~Device() = default;

  virtual at::Device torch() const = 0;  // Where tensors live.
  bool is_gpu() const { return !torch().is_cpu(); }
  virtual std::string Describe() const = 0;  // "CPU", "NVIDIA H200, 139.8 GiB (GPU 0)"
  virtual std::string Name() const = 0;      // Of the GPU, as its driver says it; "" for the CPU.
  virtual std::string Uuid() const = 0;   // Likewise: "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6".
  virtual int64_t FreeBytes() const = 0;  // Of a GPU's memory now; 0 for the CPU.

  // Streams and events. Events belong to the Device and live as long as it does.
  virtual StreamHandle CurrentStream() = 0;
  virtual StreamHandle SideStream() = 0;  // One of high priority, for collectives.
  virtual EventHandle NewEvent() = 0;
  virtual void Record(EventHandle event, StreamHandle stream) = 0;
  virtual void StreamWait(StreamHandle stream, EventHandle event) = 0;
  virtual bool Done(EventHandle event) = 0;  // Never waits; an event never recorded is done.

  // Timed events, which a GPU stamps with its time when it comes to them; not on the CPU. They may
  // be stamped while a step is captured: each replay stamps them then. Throw std::runtime_error.
  virtual EventHandle NewTimedEvent() = 0;
  virtual void Stamp(EventHandle event) = 0;                            // On CurrentStream().
  virtual double SecondsBetween(EventHandle from, EventHandle to) = 0;  // The GPU has passed both.

  /// Runs `step` in capture mode: its kernels are recorded, not run, and nothing in it may wait for
  /// the device. Throws std::runtime_error with the reason when it cannot be captured; the device
  /// is usable afterwards.
  virtual std::unique_ptr<StepGraph> Capture(const std::function<void()>& step) = 0;
};

struct DeviceOptions {
  bool tf32 = true;
  bool deterministic = false;
};

std::unique_ptr<Device> OpenCpu();

/// GPUs this process may use; 0 in the profile cpu, and where no driver is.
int GpuCount();
/// Why GpuCount() is 0: "this is the profile cpu", "no NVIDIA driver", …
std::string WhyNoGpu();
/// Makes GPU `index` the one this thread computes on. Throws std::runtime_error.
std::unique_ptr<Device> OpenGpu(int index, const DeviceOptions& options);

}  // namespace lockstep::trainer

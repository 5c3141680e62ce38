#include <stdexcept>

#include "trainer/device/device.h"

namespace lockstep::trainer {
namespace {

// Everything is done when the call that does it returns, so there is nothing to wait for.
class CpuDevice : public Device {
 public:
  at::Device torch() const override { return at::kCPU; }
  std::string Describe() const override { return "CPU"; }
  std::string Name() const override { return ""; }
  std::string Uuid() const override { return ""; }
  int64_t FreeBytes() const override { return 0; }
  StreamHandle CurrentStream() override { return nullptr; }
  StreamHandle SideStream() override { return nullptr; }
  EventHandle NewEvent() override { return nullptr; }
  void Record(EventHandle event, StreamHandle stream) override {}
  void StreamWait(StreamHandle stream, EventHandle event) override {}
  bool Done(EventHandle event) override { return true; }
  EventHandle NewTimedEvent() override { return nullptr; }
  void Stamp(EventHandle event) override {}
  double SecondsBetween(EventHandle from, EventHandle to) override {
    throw std::runtime_error("a CPU stamps no events");
  }
  std::unique_ptr<StepGraph> Capture(const std::function<void()>& step) override {
    throw std::runtime_error("a CPU has no graphs");
  }
};

}  // namespace

std::unique_ptr<Device> OpenCpu() {
  return std::make_unique<CpuDevice>();
}

}  // namespace lockstep::trainer

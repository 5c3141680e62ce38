#include "trainer/step/step_runner.h"

#include <stdexcept>
#include <utility>

namespace lockstep::trainer {
namespace {

// The first sees what cuDNN is fastest with, the arena learns the order of its buckets in it, and
// NCCL makes its connections; the others let the allocator settle.
constexpr int kWarmSteps = 3;

}  // namespace

StepRunner::StepRunner(Device& device, StepTimer& timer, config::Use graph,
                       std::function<void(const std::string&)> say)
    : device_(device),
      timer_(timer),
      may_graph_(device.is_gpu() && graph != config::Use::kNever),
      try_graph_(may_graph_),
      insist_(graph == config::Use::kAlways),
      say_(std::move(say)) {}

void StepRunner::Run(const std::function<void()>& step) {
  const auto timed_step = [&] {
    step();
    timer_.Mark(config::Phase::kOther);
  };
  if (graph_ == nullptr && try_graph_ && warm_steps_++ >= kWarmSteps) {
    try_graph_ = false;
    timer_.BeginCapture();
    try {
      graph_ = device_.Capture(timed_step);
      say_("each step runs as one CUDA graph");
    } catch (const std::runtime_error& error) {
      if (insist_) {
        throw std::runtime_error(
            std::string("training.cuda_graph is always, but the step cannot be captured: ") +
            error.what());
      }
      say_(std::string("each step runs kernel by kernel; it cannot be captured as a CUDA graph: ") +
           error.what());
    }
    timer_.EndCapture();
  }
  if (graph_ != nullptr) {
    timer_.Replay(*graph_);
  } else {
    timed_step();
  }
}

void StepRunner::Restart() {
  graph_.reset();
  try_graph_ = may_graph_;
  warm_steps_ = 0;
}

}  // namespace lockstep::trainer

#include "trainer/step/step_runner.h"

#include <stdexcept>
#include <utility>

namespace lockstep::trainer {
namespace {

// The first sees what cuDNN is fastest with, the arena learns the order of its buckets in it, and
// NCCL makes its connections; the others let the allocator settle.
constexpr int kWarmSteps = 3;

}  // namespace

StepRunner::StepRunner(Device& device, config::Use graph,
                       std::function<void(const std::string&)> say)
    : device_(device),
      may_graph_(device.is_gpu() && graph != config::Use::kNever),
      try_graph_(may_graph_),
      insist_(graph == config::Use::kAlways),
      say_(std::move(say)) {}

void StepRunner::Run(const std::function<void()>& step) {
  if (graph_ == nullptr && try_graph_ && warm_steps_++ >= kWarmSteps) {
    try_graph_ = false;
    try {
      graph_ = device_.Capture(step);
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
  }
  if (graph_ != nullptr) {
    graph_->Replay();
  } else {
    step();
  }
}

void StepRunner::Restart() {
  graph_.reset();
  try_graph_ = may_graph_;
  warm_steps_ = 0;
}

}  // namespace lockstep::trainer

// Runs the body of a step: on the CPU as it stands; on a GPU, after some steps that warm up, as one
// CUDA graph, so that the host launches one thing instead of some hundreds of kernels.
//
// The body must be the same work on the same tensors each time: what changes from step to step
// (batch, learning rate, votes, seeds) is written into tensors, or set, before Run().
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "config/run_config.h"
#include "trainer/device/device.h"
#include "trainer/step/step_timer.h"

namespace lockstep::trainer {

class StepRunner {
 public:
  /// `say` is told once how the steps run, where there is something to tell.
  StepRunner(Device& device, StepTimer& timer, config::Use graph,
             std::function<void(const std::string&)> say);

  /// Throws std::runtime_error when a graph must be used and the step cannot be captured.
  void Run(const std::function<void()>& step);

  /// The step is about to work on other tensors: warms up and captures anew.
  void Restart();

 private:
  Device& device_;
  StepTimer& timer_;
  const bool may_graph_;
  bool try_graph_;
  const bool insist_;
  const std::function<void(const std::string&)> say_;
  int warm_steps_ = 0;
  std::unique_ptr<StepGraph> graph_;
};

}  // namespace lockstep::trainer

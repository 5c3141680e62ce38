// SGD, Adam and AdamW as ATen's fused kernels over the arena's slices: one pass over a flat array
// per slice.
//
// Same update rules as torch::optim (momentum without dampening; Adam without AMSGrad; AdamW
// decoupled). Learning rate and "not finite" come as tensors, so nothing waits for the host: a step
// whose found_nonfinite is 1 changes nothing.
#pragma once

#include <memory>

#include "config/run_config.h"
#include "trainer/step/gradient_arena.h"

namespace lockstep::trainer {

class Optimizer {
 public:
  Optimizer(const config::OptimizerConfig& config, GradientArena& arena);
  ~Optimizer();

  /// `learning_rate`: 0-dim float32; the trunk's slices learn at backbone_ratio of it.
  void Step(const at::Tensor& learning_rate, const at::Tensor& found_nonfinite);

  /// Views of the state, one per parameter ("momentum.NAME", "exp_avg.NAME", "exp_avg_sq.NAME") and
  /// "steps" (float32 scalar): what a checkpoint holds. Writing into the views restores it.
  NamedTensors State() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lockstep::trainer

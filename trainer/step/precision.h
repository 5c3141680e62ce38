// The number format of forward and backward: float32, or by autocast bfloat16 or float16, with
// float32 master weights in the arena.
#pragma once

#include <ATen/core/Tensor.h>

#include "config/run_config.h"
#include "trainer/step/named_tensor.h"

namespace lockstep::trainer {

// Autocast for a scope, on this thread. The cast copies of the weights are dropped at its end,
// since the next step changes the weights.
class PrecisionScope {
 public:
  PrecisionScope(config::Precision precision, at::DeviceType device);
  ~PrecisionScope();
  PrecisionScope(const PrecisionScope&) = delete;
  PrecisionScope& operator=(const PrecisionScope&) = delete;

 private:
  bool active_;
  at::DeviceType device_;
  bool before_ = false;
};

// Keeps the gradients of float16 in its range: the loss is multiplied by a scale that halves when a
// gradient overflows and doubles after 2,000 steps without (Micikevicius et al. 2018, "Mixed
// Precision Training"). All of it is on the device and a function of reduced values, so all ranks
// have the same scale. For other formats there is none, and nothing happens.
class LossScale {
 public:
  LossScale(config::Precision precision, at::Device device);

  at::Tensor Apply(const at::Tensor& loss) const;
  at::Tensor Inverse() const;  // 0-dim float32; undefined without a scale.
  /// After each step; 0-dim float32.
  void Update(const at::Tensor& found_nonfinite);

  NamedTensors State() const;  // For checkpoints: "loss_scale", "loss_scale_steps".

 private:
  at::Tensor scale_;  // [1] float32.
  at::Tensor steps_;  // [1] int32: since the last change.
};

}  // namespace lockstep::trainer

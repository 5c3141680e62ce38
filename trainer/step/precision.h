// The number format of forward and backward: float32, or bfloat16 by autocast with float32 master
// weights in the arena.
#pragma once

#include "config/run_config.h"

namespace lockstep::trainer {

// Autocast for a scope, on this thread. The cast copies of the weights are dropped at its end,
// since the next step changes the weights.
class PrecisionScope {
 public:
  explicit PrecisionScope(config::Precision precision);
  ~PrecisionScope();
  PrecisionScope(const PrecisionScope&) = delete;
  PrecisionScope& operator=(const PrecisionScope&) = delete;

 private:
  bool active_;
  bool before_ = false;
};

}  // namespace lockstep::trainer

// One copy of the model with everything that belongs to it: parameters and gradients in the arena,
// the optimizer's state.
#pragma once

#include <memory>

#include "config/run_config.h"
#include "trainer/comm/communicator.h"
#include "trainer/device/device.h"
#include "trainer/models/model.h"
#include "trainer/step/agreement.h"
#include "trainer/step/gradient_arena.h"
#include "trainer/step/optimizer.h"
#include "trainer/step/precision.h"

namespace lockstep::trainer {

class Replica {
 public:
  /// Collective: rank 0's names, shapes and weights become everyone's. Throws std::runtime_error
  /// naming the first tensor that has another name or shape on another rank.
  Replica(const config::RunConfig& config, const InputShape& input, const Device& device,
          Communicator& communicator);

  Model& model() { return *model_; }
  GradientArena& arena() { return *arena_; }
  Optimizer& optimizer() { return *optimizer_; }
  LossScale& loss_scale() { return loss_scale_; }

  NamedTensors Weights() const;  // Parameters and all buffers, as a checkpoint names them.
  NamedTensors OptimizerState() const;

  /// Rank 0's weights, buffers and optimizer state to all. Collective.
  void Broadcast(Communicator& communicator);

 private:
  std::unique_ptr<Model> model_;
  std::unique_ptr<GradientArena> arena_;
  std::unique_ptr<Optimizer> optimizer_;
  LossScale loss_scale_;
};

}  // namespace lockstep::trainer

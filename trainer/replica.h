// One copy of the model with everything that belongs to it: parameters and gradients in the arena,
// the optimizer's state, the average of the weights.
//
// Frozen parameters lie outside of the arena: no gradient, no optimizer state, no all-reduce, and
// their norms' statistics stand still. Unfreeze() brings them in; the optimizer then starts anew,
// because moments of half a model would move that half and not the other.
//
// With training.ema_decay the average is what the run is judged by and what it leaves behind: a
// checkpoint's weights are the average, and the weights that training goes on with are kept beside
// the optimizer's state as "raw.NAME".
#pragma once

#include <memory>
#include <string>
#include <unordered_set>

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
  /// Collective: rank 0's names, shapes and weights become everyone's. `frozen`: how many
  /// operations of the graph do not train. Throws std::runtime_error naming the first tensor that
  /// has another name or shape on another rank.
  Replica(const config::RunConfig& config, const InputShape& input, int frozen,
          const Device& device, Communicator& communicator);

  Model& model() { return *model_; }
  GradientArena& arena() { return *arena_; }
  Optimizer& optimizer() { return *optimizer_; }
  LossScale& loss_scale() { return loss_scale_; }

  /// From here on everything trains. Collective; references to arena and optimizer end.
  void Unfreeze();

  /// Moves the average after an optimizer step; `weight` (0-dim float32) is the share of the new
  /// weights. Nothing without an average.
  void Average(const at::Tensor& weight);
  bool averages() const { return average_.defined(); }

  NamedTensors Weights() const;  // Parameters and all buffers, as a checkpoint names them.
  NamedTensors OptimizerState() const;

  /// After weights were written into the model's own tensors: the average begins there.
  void RestartAverage();

  /// Rank 0's weights, buffers and optimizer state to all. Collective.
  void Broadcast();

 private:
  friend class AveragedWeights;
  void MakeArena();
  std::unordered_set<std::string> TrunkNames() const;

  const config::RunConfig& config_;
  const at::Device device_;
  const bool overlap_;
  Communicator& communicator_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<GradientArena> arena_;
  std::unique_ptr<Optimizer> optimizer_;
  LossScale loss_scale_;
  at::Tensor average_;  // Flat, laid out as the arena's parameters; undefined without one.
};

// For its lifetime the model's weights are the average, where there is one.
class AveragedWeights {
 public:
  explicit AveragedWeights(Replica& replica);
  ~AveragedWeights();
  AveragedWeights(const AveragedWeights&) = delete;
  AveragedWeights& operator=(const AveragedWeights&) = delete;

 private:
  Replica& replica_;
  at::Tensor trained_;
};

}  // namespace lockstep::trainer

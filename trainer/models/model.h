// A network behind a few calls, without torch/nn in the header (that header alone costs 12 s a
// source).
//
// The table of models is in zoo.cc: to add one, write the function that builds its graph and add a
// row. One class (graph_model.h) runs them all. Parameter and buffer names are torchvision's where
// torchvision has the model. Initialisation is a function of the seed only.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>

#include "config/run_config.h"
#include "trainer/comm/communicator.h"
#include "trainer/models/graph.h"
#include "trainer/step/named_tensor.h"

namespace lockstep::trainer {

struct ModelOutput {
  at::Tensor logits;     // float [n, outputs]
  at::Tensor auxiliary;  // The same from the auxiliary head; undefined outside of training, where
                         // the model has none, where it is frozen and for features as input.
};

class Model {
 public:
  virtual ~Model() = default;
  /// input: float [n, channels, height, width]; or [n, features], what Features() gave, which goes
  /// through the head only.
  virtual ModelOutput Forward(const at::Tensor& input) = 0;
  /// The trunk's output, flat: float [n, features]. As in evaluation for what is frozen.
  virtual at::Tensor Features(const at::Tensor& images) = 0;
  virtual const Graph& graph() const = 0;
  virtual void SetTraining(bool training) = 0;  // Dropout and batch norm.
  /// Freezes operations [0, count): their parameters stop to require grad, their norms use running
  /// statistics and leave them alone, their dropouts do nothing. The others are (again) as new.
  virtual void Freeze(int count) = 0;
  virtual NamedTensors Parameters() const = 0;  // In forward order; leaf tensors. Those that
                                                // require grad are what trains.
  virtual NamedTensors Buffers()
      const = 0;  // Running statistics (float32) and num_batches_tracked (int64).
};

/// Throws std::invalid_argument with a message for the user when the model cannot take this input
/// (a picture too small for its pools, say). num_classes must be resolved (> 0). With
/// config.sync_batch_norm, and a communicator of several ranks that outlives the model, Forward()
/// in training and its backward are collective. The auxiliary head is there when
/// auxiliary_loss_weight > 0. Neither `pretrained` nor `freeze` is looked at.
std::unique_ptr<Model> MakeModel(const config::ModelConfig& config, const InputShape& input,
                                 uint64_t seed, Communicator* communicator = nullptr);

}  // namespace lockstep::trainer

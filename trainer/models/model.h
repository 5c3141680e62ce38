// A network behind four calls, without torch/nn in the header (that header alone costs 12 s a
// source).
//
// The table of models is in model.cc: to add one, write its module and add a row. Parameter and
// buffer names are torchvision's where torchvision has the model. Initialisation is a function of
// the seed only.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>

#include "config/run_config.h"
#include "trainer/comm/communicator.h"
#include "trainer/step/named_tensor.h"

namespace lockstep::trainer {

struct InputShape {
  int channels = 3;
  int height = 32;
  int width = 32;
};

class Model {
 public:
  virtual ~Model() = default;
  /// images: float [n, channels, height, width]; returns logits float [n, classes].
  virtual at::Tensor Forward(const at::Tensor& images) = 0;
  virtual void SetTraining(bool training) = 0;  // Dropout and batch norm.
  virtual NamedTensors Parameters() const = 0;  // In forward order; leaf tensors that require grad.
  virtual NamedTensors Buffers()
      const = 0;  // Running statistics (float32) and num_batches_tracked (int64).
};

/// Throws std::invalid_argument with a message for the user when the model cannot take this input
/// (a picture too small for its pools, say). num_classes must be resolved (> 0). With
/// config.sync_batch_norm, and a communicator of several ranks that outlives the model, Forward()
/// in training and its backward are collective.
std::unique_ptr<Model> MakeModel(const config::ModelConfig& config, const InputShape& input,
                                 uint64_t seed, Communicator* communicator = nullptr);

}  // namespace lockstep::trainer

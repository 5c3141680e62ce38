// The layers that models are built from: tensors with names, and the ATen op each of them runs.
//
// Why not torch::nn: its modules draw their first values from the process-wide generator, so a
// model's initial weights would depend on what ran before, and building one would disturb the
// dropout of the step loop; and its headers cost 12 s a source. Here a ModelTensors owns a
// generator of its own, so the initial values are a function of the seed and of the order of the
// layers only.
//
// Layers are values that share storage with the ModelTensors they came from. Whoever moves a
// parameter's storage (the arena does) must keep the tensor object, as Tensor::set_data() does.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "config/run_config.h"
#include "trainer/models/model.h"

namespace lockstep::trainer {

struct Conv2d {
  at::Tensor weight;  // [out, in, kernel, kernel]
  at::Tensor bias;    // Undefined = none.
  int stride = 1;
  int padding = 0;
  at::Tensor operator()(const at::Tensor& input) const;
};

struct BatchNorm2d {
  Communicator* communicator = nullptr;  // Of the ranks whose samples are normalized together.
  at::Tensor weight;
  at::Tensor bias;
  at::Tensor running_mean;
  at::Tensor running_var;
  at::Tensor num_batches_tracked;
  /// Statistics of the batch when training (and the running ones move by a tenth), else the running
  /// ones. Throws std::invalid_argument when training on one value per channel, which has no
  /// variance. With a communicator training is collective (trainer/models/sync_batch_norm.h).
  at::Tensor operator()(const at::Tensor& input, bool training) const;
};

struct Linear {
  at::Tensor weight;  // [out, in]
  at::Tensor bias;
  at::Tensor operator()(const at::Tensor& input) const;
};

struct ConvShape {
  int in = 0;
  int out = 0;
  int kernel = 3;
  int stride = 1;
  int padding = 0;
  bool bias = false;
};

struct LinearShape {
  int64_t in = 0;
  int64_t out = 0;
};

// How a weight's first values are drawn.
struct WeightInit {
  enum class Kind {
    kNormalFanOut,   // Normal, variance gain^2 / (out channels x kernel^2): He et al. 2015,
                     // "Delving Deep into Rectifiers", backward form.
    kNormalFanIn,    // Normal, variance gain^2 / (in channels x kernel^2): the forward form.
    kUniformLinear,  // Uniform within 1 / sqrt(in): what torch.nn.Linear does.
  };
  Kind kind = Kind::kUniformLinear;
  double gain = 1.0;
};

// Makes layers and keeps their tensors in the order they were made.
class ModelTensors {
 public:
  /// With a communicator, which outlives the layers, batch norm is over the samples of all ranks.
  explicit ModelTensors(uint64_t seed, Communicator* communicator = nullptr);

  /// The bias, if there is one, is drawn uniformly within 1 / sqrt(fan in).
  Conv2d AddConv2d(const std::string& name, const ConvShape& shape, WeightInit init);
  BatchNorm2d AddBatchNorm2d(const std::string& name, int channels);
  Linear AddLinear(const std::string& name, LinearShape shape, WeightInit init);

  const NamedTensors& parameters() const { return parameters_; }
  const NamedTensors& buffers() const { return buffers_; }

 private:
  at::Tensor AddWeight(const std::string& name, at::IntArrayRef sizes, WeightInit init);
  at::Tensor AddBias(const std::string& name, int64_t size, int64_t fan_in);
  at::Tensor AddParameter(const std::string& name, at::Tensor values);
  at::Tensor AddBuffer(const std::string& name, at::Tensor values);

  at::Generator generator_;
  Communicator* communicator_;
  NamedTensors parameters_;
  NamedTensors buffers_;
};

at::Tensor Activate(config::Activation activation, const at::Tensor& input);
/// The factor that keeps a signal's variance through the activation.
double ActivationGain(config::Activation activation);

// What every model of layers shares.
class LayeredModel : public Model {
 public:
  explicit LayeredModel(uint64_t seed, Communicator* communicator = nullptr)
      : tensors_(seed, communicator) {}
  void SetTraining(bool training) override { training_ = training; }
  NamedTensors Parameters() const override { return tensors_.parameters(); }
  NamedTensors Buffers() const override { return tensors_.buffers(); }

 protected:
  ModelTensors tensors_;
  bool training_ = true;
};

}  // namespace lockstep::trainer

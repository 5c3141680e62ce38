#include "trainer/models/layers.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/batch_norm.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/leaky_relu.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <optional>
#include <stdexcept>
#include <utility>

#include "trainer/models/sync_batch_norm.h"

namespace lockstep::trainer {
namespace {

constexpr double kMomentum = 0.1;  // Of batch norm's running statistics.
constexpr double kEpsilon = 1e-5;

}  // namespace

at::Tensor Conv2d::operator()(const at::Tensor& input) const {
  return at::conv2d(input, weight, bias.defined() ? std::optional(bias) : std::nullopt, stride,
                    padding);
}

at::Tensor BatchNorm2d::operator()(const at::Tensor& input, bool training) const {
  if (training && communicator != nullptr) {
    num_batches_tracked.add_(1);
    return SyncBatchNorm(input, weight, bias, running_mean, running_var, *communicator,
                         {.momentum = kMomentum, .epsilon = kEpsilon});
  }
  if (training) {
    if (input.numel() <= input.size(1)) {
      throw std::invalid_argument(
          "Batch norm cannot train on a single value per channel (one picture, 1x1 pixels left): "
          "use a larger micro-batch or larger pictures.");
    }
    num_batches_tracked.add_(1);
  }
  return at::batch_norm(input, weight, bias, running_mean, running_var, training, kMomentum,
                        kEpsilon, /*cudnn_enabled=*/true);
}

at::Tensor Linear::operator()(const at::Tensor& input) const {
  return at::linear(input, weight, bias);
}

ModelTensors::ModelTensors(uint64_t seed, Communicator* communicator)
    : generator_(at::make_generator<at::CPUGeneratorImpl>(seed)), communicator_(communicator) {}

Conv2d ModelTensors::AddConv2d(const std::string& name, const ConvShape& shape, WeightInit init) {
  Conv2d layer;
  layer.weight =
      AddWeight(name + ".weight", {shape.out, shape.in, shape.kernel, shape.kernel}, init);
  if (shape.bias) {
    layer.bias = AddBias(name + ".bias", shape.out,
                         static_cast<int64_t>(shape.in) * shape.kernel * shape.kernel);
  }
  layer.stride = shape.stride;
  layer.padding = shape.padding;
  return layer;
}

BatchNorm2d ModelTensors::AddBatchNorm2d(const std::string& name, int channels) {
  BatchNorm2d layer;
  layer.communicator = communicator_;
  layer.weight = AddParameter(name + ".weight", at::ones({channels}));
  layer.bias = AddParameter(name + ".bias", at::zeros({channels}));
  layer.running_mean = AddBuffer(name + ".running_mean", at::zeros({channels}));
  layer.running_var = AddBuffer(name + ".running_var", at::ones({channels}));
  layer.num_batches_tracked =
      AddBuffer(name + ".num_batches_tracked", at::zeros({}, at::TensorOptions().dtype(at::kLong)));
  return layer;
}

Linear ModelTensors::AddLinear(const std::string& name, LinearShape shape, WeightInit init) {
  Linear layer;
  layer.weight = AddWeight(name + ".weight", {shape.out, shape.in}, init);
  layer.bias = AddBias(name + ".bias", shape.out, shape.in);
  return layer;
}

at::Tensor ModelTensors::AddWeight(const std::string& name, at::IntArrayRef sizes,
                                   WeightInit init) {
  at::Tensor values = at::empty(sizes);
  // numel is out x in x kernel area.
  const auto fan_in = static_cast<double>(values.numel()) / static_cast<double>(sizes[0]);
  const auto fan_out = static_cast<double>(values.numel()) / static_cast<double>(sizes[1]);
  switch (init.kind) {
    case WeightInit::Kind::kNormalFanOut:
      values.normal_(0.0, init.gain / std::sqrt(fan_out), generator_);
      break;
    case WeightInit::Kind::kNormalFanIn:
      values.normal_(0.0, init.gain / std::sqrt(fan_in), generator_);
      break;
    case WeightInit::Kind::kUniformLinear:
      values.uniform_(-1.0 / std::sqrt(fan_in), 1.0 / std::sqrt(fan_in), generator_);
      break;
  }
  return AddParameter(name, std::move(values));
}

at::Tensor ModelTensors::AddBias(const std::string& name, int64_t size, int64_t fan_in) {
  const double bound = 1.0 / std::sqrt(static_cast<double>(fan_in));
  return AddParameter(name, at::empty({size}).uniform_(-bound, bound, generator_));
}

at::Tensor ModelTensors::AddParameter(const std::string& name, at::Tensor values) {
  values.set_requires_grad(true);
  parameters_.push_back({name, values});
  return values;
}

at::Tensor ModelTensors::AddBuffer(const std::string& name, at::Tensor values) {
  buffers_.push_back({name, values});
  return values;
}

at::Tensor Activate(config::Activation activation, const at::Tensor& input) {
  switch (activation) {
    case config::Activation::kRelu:
      return at::relu(input);
    case config::Activation::kLeakyRelu:
      return at::leaky_relu(input);
    case config::Activation::kGelu:
      return at::gelu(input);
    case config::Activation::kSilu:
      return at::silu(input);
    case config::Activation::kTanh:
      return at::tanh(input);
  }
  throw std::invalid_argument("Unknown activation.");
}

double ActivationGain(config::Activation activation) {
  switch (activation) {
    case config::Activation::kTanh:
      return 5.0 / 3.0;
    case config::Activation::kLeakyRelu:
      return std::sqrt(2.0 / (1.0 + 0.01 * 0.01));
    case config::Activation::kRelu:
    case config::Activation::kGelu:  // No closed form; ReLU's is close and is what is usual.
    case config::Activation::kSilu:
      return std::sqrt(2.0);
  }
  return 1.0;
}

}  // namespace lockstep::trainer

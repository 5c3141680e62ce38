#include "trainer/models/graph_model.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/adaptive_avg_pool2d.h>
#include <ATen/ops/add.h>
#include <ATen/ops/avg_pool2d.h>
#include <ATen/ops/batch_norm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/dropout.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/hardtanh.h>
#include <ATen/ops/leaky_relu.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/max_pool2d.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <stdexcept>
#include <utility>

#include "trainer/models/sync_batch_norm.h"

namespace lockstep::trainer {
namespace {

std::vector<int64_t> Sizes(const Extent2d& extent) {
  return {extent.height, extent.width};
}

at::Tensor InitialValues(const Operation& operation, const TensorSpec& spec, double fan_in,
                         at::Generator& generator) {
  using Role = TensorSpec::Role;
  const double bound = 1.0 / std::sqrt(fan_in);
  const bool norm = operation.kind == OpKind::kBatchNorm;
  switch (spec.role) {
    case Role::kWeight:
      if (norm) return at::ones(spec.shape);
      if (operation.initial_deviation > 0) {
        return at::empty(spec.shape).normal_(0.0, operation.initial_deviation, generator);
      }
      return at::empty(spec.shape).uniform_(-bound, bound, generator);
    case Role::kBias:
      if (norm || operation.zero_bias) return at::zeros(spec.shape);
      return at::empty(spec.shape).uniform_(-bound, bound, generator);
    case Role::kRunningMean:
      return at::zeros(spec.shape);
    case Role::kRunningVar:
      return at::ones(spec.shape);
    case Role::kNumBatchesTracked:
      return at::zeros({}, at::TensorOptions().dtype(at::kLong));
  }
  throw std::invalid_argument("Unknown role of a tensor.");
}

}  // namespace

GraphModel::GraphModel(Graph graph, uint64_t seed, Communicator* communicator)
    : graph_(std::move(graph)), communicator_(communicator), tensors_(graph_.operations.size()) {
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  for (int i = 0; i < static_cast<int>(graph_.operations.size()); ++i) Make(i, generator);
  whole_ = PlanFor({graph_.output}, 0);
  if (graph_.auxiliary >= 0) {
    whole_with_auxiliary_ = PlanFor({graph_.output, graph_.auxiliary}, 0);
  }
  trunk_ = PlanFor({graph_.features}, 0);
  head_ = PlanFor({graph_.output}, graph_.features);
}

void GraphModel::Make(int operation, at::Generator& generator) {
  using Role = TensorSpec::Role;
  const Operation& op = graph_.operations[static_cast<size_t>(operation)];
  Tensors& tensors = tensors_[static_cast<size_t>(operation)];
  double fan_in = 1;
  for (const TensorSpec& spec : TensorsOf(graph_, operation)) {
    if (spec.role == Role::kWeight) {
      fan_in = static_cast<double>(spec.numel()) / static_cast<double>(spec.shape[0]);
    }
    at::Tensor values = InitialValues(op, spec, fan_in, generator);
    if (spec.is_parameter()) values.set_requires_grad(true);
    (spec.is_parameter() ? parameters_ : buffers_).push_back({spec.name, values});
    switch (spec.role) {
      case Role::kWeight:
        tensors.weight = values;
        break;
      case Role::kBias:
        tensors.bias = values;
        break;
      case Role::kRunningMean:
        tensors.running_mean = values;
        break;
      case Role::kRunningVar:
        tensors.running_var = values;
        break;
      case Role::kNumBatchesTracked:
        tensors.num_batches_tracked = values;
        break;
    }
  }
}

GraphModel::Plan GraphModel::PlanFor(const std::vector<int>& targets, int given) const {
  Plan plan;
  plan.operations = Needed(graph_, targets, given + 1);
  plan.last_used.resize(plan.operations.size());
  std::vector<bool> used_later(graph_.operations.size(), false);
  for (const int target : targets) used_later[static_cast<size_t>(target)] = true;
  for (size_t i = plan.operations.size(); i-- > 0;) {
    for (const int input : graph_.operations[static_cast<size_t>(plan.operations[i])].inputs) {
      if (used_later[static_cast<size_t>(input)]) continue;
      used_later[static_cast<size_t>(input)] = true;
      plan.last_used[i].push_back(input);
    }
  }
  return plan;
}

void GraphModel::Freeze(int count) {
  frozen_ = count;
  for (size_t i = 0; i < tensors_.size(); ++i) {
    const bool trains = static_cast<int>(i) >= count;
    if (tensors_[i].weight.defined()) tensors_[i].weight.set_requires_grad(trains);
    if (tensors_[i].bias.defined()) tensors_[i].bias.set_requires_grad(trains);
  }
}

ModelOutput GraphModel::Forward(const at::Tensor& input) {
  if (input.dim() == 2) return {Run(head_, graph_.features, input)[graph_.output], {}};
  const bool auxiliary = UsesAuxiliary();
  const std::vector<at::Tensor> values = Run(auxiliary ? whole_with_auxiliary_ : whole_, 0, input);
  return {values[graph_.output], auxiliary ? values[graph_.auxiliary] : at::Tensor()};
}

at::Tensor GraphModel::Features(const at::Tensor& images) {
  return Run(trunk_, 0, images)[graph_.features];
}

std::vector<at::Tensor> GraphModel::Run(const Plan& plan, int given, const at::Tensor& value) {
  const bool grad = at::GradMode::is_enabled();
  std::vector<at::Tensor> values(graph_.operations.size());
  values[static_cast<size_t>(given)] = value;
  for (size_t i = 0; i < plan.operations.size(); ++i) {
    const int operation = plan.operations[i];
    const at::AutoGradMode mode(grad && operation >= frozen_);
    values[static_cast<size_t>(operation)] =
        RunOperation(operation, values, MayOverwrite(operation, plan.last_used[i]));
    for (const int last : plan.last_used[i]) values[static_cast<size_t>(last)].reset();
  }
  return values;
}

// The first input of an addition is overwritten where nobody needs it: not another operation, nor
// the backward pass, which takes from convolutions and norms their inputs, not what they gave.
bool GraphModel::MayOverwrite(int operation, const std::vector<int>& last_used) const {
  const Operation& op = graph_.operations[static_cast<size_t>(operation)];
  if (op.kind != OpKind::kAdd) return false;
  const OpKind producer = graph_.operations[static_cast<size_t>(op.inputs[0])].kind;
  return (producer == OpKind::kBatchNorm || producer == OpKind::kConv2d) &&
         std::find(last_used.begin(), last_used.end(), op.inputs[0]) != last_used.end();
}

at::Tensor GraphModel::RunOperation(int operation, const std::vector<at::Tensor>& values,
                                    bool may_overwrite) {
  const Operation& op = graph_.operations[static_cast<size_t>(operation)];
  const Tensors& tensors = tensors_[static_cast<size_t>(operation)];
  const at::Tensor& x = values[static_cast<size_t>(op.inputs[0])];
  const bool training = training_ && operation >= frozen_;
  switch (op.kind) {
    case OpKind::kInput:
      break;
    case OpKind::kConv2d:
      return at::conv2d(x, tensors.weight, op.bias ? std::optional(tensors.bias) : std::nullopt,
                        Sizes(op.stride), Sizes(op.padding), /*dilation=*/1, op.groups);
    case OpKind::kBatchNorm:
      return BatchNorm(op, tensors, x, training);
    case OpKind::kLinear:
      return at::linear(x, tensors.weight, tensors.bias);
    case OpKind::kRelu:
      return at::relu(x);
    case OpKind::kRelu6:
      return at::hardtanh(x, 0, 6);
    case OpKind::kLeakyRelu:
      return at::leaky_relu(x);
    case OpKind::kGelu:
      return at::gelu(x);
    case OpKind::kSilu:
      return at::silu(x);
    case OpKind::kTanh:
      return at::tanh(x);
    case OpKind::kMaxPool:
      return at::max_pool2d(x, Sizes(op.kernel), Sizes(op.stride), Sizes(op.padding));
    case OpKind::kAvgPool:
      return at::avg_pool2d(x, Sizes(op.kernel), Sizes(op.stride), Sizes(op.padding));
    case OpKind::kAdaptiveAvgPool:
      return at::adaptive_avg_pool2d(x, Sizes(op.pool_to));
    case OpKind::kFlatten:
      return x.flatten(1);
    case OpKind::kDropout:
      return training ? at::dropout(x, op.dropout, true) : x;
    case OpKind::kAdd: {
      const at::Tensor& other = values[static_cast<size_t>(op.inputs[1])];
      return may_overwrite ? x.add_(other) : at::add(x, other);
    }
    case OpKind::kConcat: {
      std::vector<at::Tensor> parts;
      for (const int input : op.inputs) parts.push_back(values[static_cast<size_t>(input)]);
      return at::cat(parts, 1);
    }
  }
  throw std::invalid_argument("The input of a graph is given, not run.");
}

at::Tensor GraphModel::BatchNorm(const Operation& operation, const Tensors& tensors,
                                 const at::Tensor& input, bool training) {
  if (training && communicator_ != nullptr) {
    tensors.num_batches_tracked.add_(1);
    return SyncBatchNorm(input, tensors.weight, tensors.bias, tensors.running_mean,
                         tensors.running_var, *communicator_,
                         {.momentum = operation.momentum, .epsilon = operation.epsilon});
  }
  if (training) {
    if (input.numel() <= input.size(1)) {
      throw std::invalid_argument(
          "Batch norm cannot train on a single value per channel (one picture, 1x1 pixels left): "
          "use a larger micro-batch or larger pictures.");
    }
    tensors.num_batches_tracked.add_(1);
  }
  return at::batch_norm(input, tensors.weight, tensors.bias, tensors.running_mean,
                        tensors.running_var, training, operation.momentum, operation.epsilon,
                        /*cudnn_enabled=*/true);
}

}  // namespace lockstep::trainer

#include "trainer/objective/loss.h"

#include <ATen/core/Reduction.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/binary_cross_entropy_with_logits.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/huber_loss.h>
#include <ATen/ops/l1_loss.h>
#include <ATen/ops/mse_loss.h>
#include <ATen/ops/tensor.h>

#include <numeric>
#include <stdexcept>
#include <utility>

#include "absl/strings/str_cat.h"

namespace lockstep::trainer {

using config::LossKind;

namespace {

std::vector<double> BalancedWeights(const std::vector<int64_t>& counts) {
  const auto samples = static_cast<double>(std::accumulate(counts.begin(), counts.end(), 0LL));
  std::vector<double> weights;
  for (const int64_t count : counts) {
    weights.push_back(
        count == 0 ? 0.0
                   : samples / (static_cast<double>(counts.size()) * static_cast<double>(count)));
  }
  return weights;
}

}  // namespace

LossKind LossKindOf(const config::RunConfig& config) {
  if (config.training.loss.kind != LossKind::kAuto) return config.training.loss.kind;
  if (config.data.kind == config::DatasetKind::kCsvRegression) return LossKind::kMse;
  if (config.data.kind == config::DatasetKind::kCsvMultilabel) return LossKind::kBinaryCrossEntropy;
  return LossKind::kCrossEntropy;
}

Task TaskOf(LossKind loss) {
  switch (loss) {
    case LossKind::kAuto:
    case LossKind::kCrossEntropy:
      return Task::kClasses;
    case LossKind::kBinaryCrossEntropy:
      return Task::kLabels;
    case LossKind::kMse:
    case LossKind::kMae:
    case LossKind::kHuber:
      break;
  }
  return Task::kNumbers;
}

const char* ScoreName(Task task) {
  switch (task) {
    case Task::kClasses:
      return "top1";
    case Task::kLabels:
      return "label_accuracy";
    case Task::kNumbers:
      break;
  }
  return "mae";
}

LossOptions LossOptionsOf(const config::RunConfig& config, const std::vector<Target>& targets,
                          const std::vector<int64_t>& counts) {
  const config::LossConfig& loss = config.training.loss;
  LossOptions options;
  options.kind = LossKindOf(config);
  options.label_smoothing = config.training.label_smoothing;
  options.huber_delta = loss.huber_delta;
  options.weights = loss.balance_classes ? BalancedWeights(counts) : loss.class_weights;
  options.auxiliary_weight = config.model.auxiliary_loss_weight;
  options.targets = targets;
  // More outputs than classes is allowed; those that the data set does not know weigh 1.
  const auto outputs = static_cast<size_t>(config.model.num_classes);
  if (loss.balance_classes) options.weights.resize(outputs, 1.0);
  if (!options.weights.empty() && options.weights.size() != outputs) {
    throw std::invalid_argument(absl::StrCat("training.loss.weights has ", options.weights.size(),
                                             " numbers, but the model has ", outputs,
                                             " outputs; give one for each"));
  }
  return options;
}

Loss::Loss(const LossOptions& options, at::Device device) : options_(options) {
  const auto on_device = [&](const std::vector<double>& values) {
    return at::tensor(values, at::kDouble).to(at::kFloat).to(device);
  };
  if (!options.weights.empty()) weights_ = on_device(options.weights);
  if (task() != Task::kNumbers) return;
  std::vector<double> units;
  for (const Target& target : options.targets) units.push_back(target.std);
  units_ = on_device(units);
}

Objective Loss::operator()(const ModelOutput& output, const Targets& targets) const {
  Objective result;
  // In float32 whatever the model computed in: sums over a large batch lose too much in bfloat16.
  const at::Tensor scores = output.logits.to(at::kFloat);
  result.loss_sum = Sum(scores, targets);
  if (output.auxiliary.defined()) {
    result.loss_sum = result.loss_sum.add(Sum(output.auxiliary.to(at::kFloat), targets),
                                          options_.auxiliary_weight);
  }
  at::NoGradGuard no_grad;
  result.score_sum = Score(scores, targets.values);
  return result;
}

at::Tensor Loss::Sum(const at::Tensor& scores, const Targets& targets) const {
  if (!targets.mixed_with.defined()) {
    const at::Tensor sum = Elementwise(scores, targets.values, at::Reduction::Sum);
    return task() == Task::kClasses ? sum : sum.div(static_cast<double>(scores.size(1)));
  }
  const at::Tensor own = PerSample(scores, targets.values);
  const at::Tensor other = PerSample(scores, targets.mixed_with);
  return other.add(own.sub(other).mul(targets.share)).sum();
}

at::Tensor Loss::PerSample(const at::Tensor& logits, const at::Tensor& values) const {
  const at::Tensor losses = Elementwise(logits.to(at::kFloat), values, at::Reduction::None);
  return task() == Task::kClasses ? losses : losses.mean(1);
}

at::Tensor Loss::Elementwise(const at::Tensor& scores, const at::Tensor& values,
                             int64_t reduction) const {
  switch (options_.kind) {
    case LossKind::kAuto:
      break;
    case LossKind::kCrossEntropy:
      return at::cross_entropy_loss(scores, values, weights_, reduction, -100,
                                    options_.label_smoothing);
    case LossKind::kBinaryCrossEntropy: {
      const double smoothing = options_.label_smoothing;
      const at::Tensor wanted =
          smoothing > 0 ? values.mul(1 - smoothing).add(smoothing / 2) : values;
      return at::binary_cross_entropy_with_logits(scores, wanted, weights_, {}, reduction);
    }
    case LossKind::kMse:
      return at::mse_loss(scores, values, reduction);
    case LossKind::kMae:
      return at::l1_loss(scores, values, reduction);
    case LossKind::kHuber:
      return at::huber_loss(scores, values, reduction, options_.huber_delta);
  }
  throw std::logic_error("a loss that was not closed");
}

at::Tensor Loss::Score(const at::Tensor& scores, const at::Tensor& values) const {
  switch (task()) {
    case Task::kClasses:
      return scores.argmax(1).eq(values).sum().to(at::kFloat);
    case Task::kLabels:
      return scores.gt(0).eq(values.gt(0.5)).to(at::kFloat).mean(1).sum();
    case Task::kNumbers:
      break;
  }
  return scores.sub(values).abs().mul(units_).mean(1).sum();
}

}  // namespace lockstep::trainer

// What training makes small, and the score that people watch beside it: sums over samples, ready to
// be added up over micro-batches and ranks.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "config/run_config.h"
#include "trainer/batches/batches.h"
#include "trainer/data/dataset.h"
#include "trainer/models/model.h"

namespace lockstep::trainer {

// What a model answers, which decides how it is judged.
enum class Task {
  kClasses,  // One class per sample. Score: top1.
  kLabels,   // Yes or no to each of several labels. Score: label_accuracy.
  kNumbers,  // One or more numbers. Score: mae, in the targets' own units.
};

/// Closes `auto`: cross-entropy for classes, binary cross-entropy for yes-or-no targets, else MSE.
config::LossKind LossKindOf(const config::RunConfig& config);
Task TaskOf(config::LossKind loss);
const char* ScoreName(Task task);

struct LossOptions {
  config::LossKind kind = config::LossKind::kCrossEntropy;  // Never kAuto.
  double label_smoothing = 0;     // In [0, 1): share of the target spread evenly over the answers.
  double huber_delta = 1;         // In standard deviations of the target.
  std::vector<double> weights{};  // One per class or label; empty = all weigh 1.
  double auxiliary_weight = 0;    // Of the auxiliary head's loss.
  std::vector<Target> targets{};  // Of kNumbers: their units, for the score.
};

/// The options that a run asks for. `counts`: training samples of each class, looked at for
/// `class_weights: balanced`: weight = samples / (classes x samples of the class), so that the mean
/// weight of a sample is 1. Throws std::invalid_argument when the weights given are not one per
/// output.
LossOptions LossOptionsOf(const config::RunConfig& config, const std::vector<Target>& targets,
                          const std::vector<int64_t>& counts);

struct Objective {
  at::Tensor loss_sum;   // 0-dim float32, with grad: the loss summed over the samples.
  at::Tensor score_sum;  // 0-dim float32, without: see Task. A mixed sample is judged by `values`.
};

class Loss {
 public:
  Loss(const LossOptions& options, at::Device device);

  Task task() const { return TaskOf(options_.kind); }

  /// n > 0. The model's output may have any floating type; loss and score are computed in float32.
  Objective operator()(const ModelOutput& output, const Targets& targets) const;

  /// float32 [n]: the loss of each sample. logits [n, outputs]; values int64 [n] or float32 [n,
  /// outputs].
  at::Tensor PerSample(const at::Tensor& logits, const at::Tensor& values) const;

 private:
  at::Tensor Sum(const at::Tensor& scores, const Targets& targets) const;
  at::Tensor Elementwise(const at::Tensor& scores, const at::Tensor& values,
                         int64_t reduction) const;
  at::Tensor Score(const at::Tensor& scores, const at::Tensor& values) const;

  LossOptions options_;
  at::Tensor weights_;  // float32 [outputs], or undefined.
  at::Tensor units_;    // float32 [targets]: standard deviation of each target.
};

}  // namespace lockstep::trainer

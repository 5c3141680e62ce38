// How good a model's answers are, over a set of samples: added up batch by batch without waiting
// for the device, summed over the ranks, then turned into numbers for people.
//
// With classes: top-1 and top-5 accuracy, per class precision, recall and F1, the confusion matrix.
// With labels: the share of labels that are right, the share of samples whose labels are all right,
// precision, recall and F1 of each. With numbers: mean squared and absolute error in the target's
// own units, and R2 = 1 - squared error / squared distance from the mean, for each target.
// Formulas: Sokolova and Lapalme 2009, "A systematic analysis of performance measures for
// classification tasks"; a ratio of 0 to 0 is 0.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "trainer/objective/loss.h"

namespace lockstep::trainer {

inline constexpr int64_t kMostConfusionClasses = 1000;  // More: no confusion matrix, only its sums.

struct ClassMeasures {
  int64_t support = 0;    // Samples that are of the class.
  int64_t predicted = 0;  // Samples that the model takes for it.
  int64_t right = 0;      // Samples that are both.
  double precision = 0;   // right / predicted
  double recall = 0;      // right / support
  double f1 = 0;          // Harmonic mean of the two.
};

struct NumberMeasures {
  double mse = 0;  // In the target's own units, squared.
  double mae = 0;  // In the target's own units.
  double r2 = 0;
};

struct MeasureResult {
  int64_t samples = 0;
  double loss = 0;  // Mean per sample.
  /// Names and values; the first is the task's score. Classes: top1, top5 (with more than five
  /// classes), macro_f1 (mean over classes with support). Labels: label_accuracy, exact_match,
  /// macro_f1. Numbers: mae, mse, r2, means over the targets.
  std::vector<std::pair<std::string, double>> scores;
  std::vector<ClassMeasures> classes;   // Per class or label.
  std::vector<int64_t> confusion;       // [true class][predicted class], or empty.
  std::vector<NumberMeasures> numbers;  // Per target.

  double Score(const std::string& name) const;  // NaN when there is none of that name.
};

class Measures {
 public:
  /// outputs: classes, labels or targets. `targets` gives the units of numbers.
  Measures(Task task, int64_t outputs, std::vector<Target> targets, at::Device device);

  /// logits [n, outputs] of any floating type, values as in Targets, loss_sum a 0-dim tensor.
  void Add(const at::Tensor& logits, const at::Tensor& values, const at::Tensor& loss_sum);

  /// float64 on the host: what the ranks sum up, in place or not; Result() of the sum.
  at::Tensor Sums() const;
  MeasureResult Result(const at::Tensor& sums) const;

 private:
  void AddClasses(const at::Tensor& scores, const at::Tensor& values);
  void AddLabels(const at::Tensor& scores, const at::Tensor& values);
  void AddNumbers(const at::Tensor& scores, const at::Tensor& values);
  void ClassScores(const double* sums, MeasureResult& result) const;
  void LabelScores(const double* sums, MeasureResult& result) const;
  void NumberScores(const double* sums, MeasureResult& result) const;
  at::Tensor Part(int64_t index, int64_t count) const;
  bool has_confusion() const { return outputs_ <= kMostConfusionClasses; }

  Task task_;
  int64_t outputs_;
  std::vector<Target> targets_;
  int64_t samples_ = 0;
  at::Tensor sums_;  // float64, on the device; the layout is in measures.cc.
};

}  // namespace lockstep::trainer

#include "trainer/objective/measures.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <limits>
#include <utility>

namespace lockstep::trainer {
namespace {

// The sums: [samples, loss, first score, second score], then by task, for outputs o:
// classes: confusion [o * o], true class major, or right [o], predicted [o], support [o];
// labels:  right [o], predicted [o], support [o];
// numbers: squared error [o], absolute error [o], value [o], squared value [o], all normalized.
constexpr int64_t kHead = 4;
constexpr int64_t kTop = 5;

int64_t TailOf(Task task, int64_t outputs) {
  switch (task) {
    case Task::kClasses:
      return outputs <= kMostConfusionClasses ? outputs * outputs : 3 * outputs;
    case Task::kLabels:
      return 3 * outputs;
    case Task::kNumbers:
      break;
  }
  return 4 * outputs;
}

double Ratio(double a, double b) {
  return b > 0 ? a / b : 0;
}

ClassMeasures MeasuresOf(double right, double predicted, double support) {
  ClassMeasures m;
  m.right = std::llround(right);
  m.predicted = std::llround(predicted);
  m.support = std::llround(support);
  m.precision = Ratio(right, predicted);
  m.recall = Ratio(right, support);
  m.f1 = Ratio(2 * m.precision * m.recall, m.precision + m.recall);
  return m;
}

// A class that no sample is of says nothing about the model.
double MacroF1(const std::vector<ClassMeasures>& classes) {
  double sum = 0, present = 0;
  for (const ClassMeasures& c : classes) {
    if (c.support == 0) continue;
    sum += c.f1;
    ++present;
  }
  return Ratio(sum, present);
}

}  // namespace

double MeasureResult::Score(const std::string& name) const {
  if (name == "loss") return loss;
  for (const auto& [known, value] : scores) {
    if (known == name) return value;
  }
  return std::numeric_limits<double>::quiet_NaN();
}

Measures::Measures(Task task, int64_t outputs, std::vector<Target> targets, at::Device device)
    : task_(task),
      outputs_(outputs),
      targets_(std::move(targets)),
      sums_(at::zeros({kHead + TailOf(task, outputs)},
                      at::TensorOptions().dtype(at::kDouble).device(device))) {}

at::Tensor Measures::Part(int64_t index, int64_t count) const {
  return sums_.narrow(0, kHead + index * outputs_, count);
}

void Measures::Add(const at::Tensor& logits, const at::Tensor& values, const at::Tensor& loss_sum) {
  const at::NoGradGuard no_grad;
  if (values.size(0) == 0) return;
  samples_ += values.size(0);
  sums_[1].add_(loss_sum.detach());
  const at::Tensor scores = logits.detach().to(at::kFloat);
  switch (task_) {
    case Task::kClasses:
      return AddClasses(scores, values);
    case Task::kLabels:
      return AddLabels(scores, values);
    case Task::kNumbers:
      return AddNumbers(scores, values);
  }
}

void Measures::AddClasses(const at::Tensor& scores, const at::Tensor& values) {
  const at::Tensor answers = scores.argmax(1);
  const at::Tensor right = answers.eq(values);
  sums_[2].add_(right.sum());
  // How many outputs are not below the right one, itself included. A NaN is not below anything, so
  // it never counts for the model.
  const at::Tensor own = scores.gather(1, values.unsqueeze(1));
  sums_[3].add_(scores.lt(own).logical_not().sum(1).le(kTop).sum());
  const auto count = [](const at::Tensor& into, const at::Tensor& which, const at::Tensor& ones) {
    into.scatter_add_(0, which, ones.to(at::kDouble));
  };
  const at::Tensor ones = at::ones_like(values);
  if (has_confusion()) {
    count(Part(0, outputs_ * outputs_), values.mul(outputs_).add(answers), ones);
    return;
  }
  count(Part(0, outputs_), values, right);
  count(Part(1, outputs_), answers, ones);
  count(Part(2, outputs_), values, ones);
}

void Measures::AddLabels(const at::Tensor& scores, const at::Tensor& values) {
  const at::Tensor said = scores.gt(0);
  const at::Tensor is = values.gt(0.5);
  const at::Tensor same = said.eq(is);
  sums_[2].add_(same.to(at::kDouble).mean(1).sum());
  sums_[3].add_(same.all(1).sum());
  Part(0, outputs_).add_(said.logical_and(is).sum(0));
  Part(1, outputs_).add_(said.sum(0));
  Part(2, outputs_).add_(is.sum(0));
}

void Measures::AddNumbers(const at::Tensor& scores, const at::Tensor& values) {
  const at::Tensor wanted = values.to(at::kDouble);
  const at::Tensor error = scores.to(at::kDouble).sub(wanted);
  Part(0, outputs_).add_(error.square().sum(0));
  Part(1, outputs_).add_(error.abs().sum(0));
  Part(2, outputs_).add_(wanted.sum(0));
  Part(3, outputs_).add_(wanted.square().sum(0));
}

at::Tensor Measures::Sums() const {
  at::Tensor sums = sums_.cpu().clone();
  sums.mutable_data_ptr<double>()[0] = static_cast<double>(samples_);
  return sums;
}

MeasureResult Measures::Result(const at::Tensor& sums) const {
  const auto* all = sums.const_data_ptr<double>();
  MeasureResult result;
  result.samples = std::llround(all[0]);
  result.loss = Ratio(all[1], all[0]);
  switch (task_) {
    case Task::kClasses:
      ClassScores(all, result);
      break;
    case Task::kLabels:
      LabelScores(all, result);
      break;
    case Task::kNumbers:
      NumberScores(all, result);
      break;
  }
  return result;
}

void Measures::ClassScores(const double* sums, MeasureResult& result) const {
  const double* tail = sums + kHead;
  const auto n = static_cast<size_t>(outputs_);
  std::vector<double> right(n), predicted(n), support(n);
  if (has_confusion()) {
    for (size_t is = 0; is < n; ++is) {
      for (size_t said = 0; said < n; ++said) {
        const double count = tail[is * n + said];
        result.confusion.push_back(std::llround(count));
        support[is] += count;
        predicted[said] += count;
        if (is == said) right[is] = count;
      }
    }
  } else {
    right.assign(tail, tail + n);
    predicted.assign(tail + n, tail + 2 * n);
    support.assign(tail + 2 * n, tail + 3 * n);
  }
  for (size_t i = 0; i < n; ++i) {
    result.classes.push_back(MeasuresOf(right[i], predicted[i], support[i]));
  }
  result.scores.emplace_back("top1", Ratio(sums[2], sums[0]));
  if (outputs_ > kTop) result.scores.emplace_back("top5", Ratio(sums[3], sums[0]));
  result.scores.emplace_back("macro_f1", MacroF1(result.classes));
}

void Measures::LabelScores(const double* sums, MeasureResult& result) const {
  const double* tail = sums + kHead;
  const auto n = static_cast<size_t>(outputs_);
  for (size_t i = 0; i < n; ++i) {
    result.classes.push_back(MeasuresOf(tail[i], tail[n + i], tail[2 * n + i]));
  }
  result.scores.emplace_back("label_accuracy", Ratio(sums[2], sums[0]));
  result.scores.emplace_back("exact_match", Ratio(sums[3], sums[0]));
  result.scores.emplace_back("macro_f1", MacroF1(result.classes));
}

void Measures::NumberScores(const double* sums, MeasureResult& result) const {
  const double* tail = sums + kHead;
  const auto n = static_cast<size_t>(outputs_);
  NumberMeasures mean;
  for (size_t i = 0; i < n; ++i) {
    const double unit = targets_.at(i).std;
    NumberMeasures m;
    m.mse = Ratio(tail[i], sums[0]) * unit * unit;
    m.mae = Ratio(tail[n + i], sums[0]) * unit;
    const double value = tail[2 * n + i], squares = tail[3 * n + i];
    const double spread = squares - Ratio(value * value, sums[0]);
    m.r2 = spread > 0 ? 1 - tail[i] / spread : 0;
    result.numbers.push_back(m);
    mean.mse += m.mse / static_cast<double>(n);
    mean.mae += m.mae / static_cast<double>(n);
    mean.r2 += m.r2 / static_cast<double>(n);
  }
  result.scores = {{"mae", mean.mae}, {"mse", mean.mse}, {"r2", mean.r2}};
}

}  // namespace lockstep::trainer

#include "trainer/objective/measures.h"

#include <ATen/ops/eye.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace lockstep::trainer {
namespace {

using testing::ElementsAre;

at::Tensor Row(const std::vector<double>& values, int64_t width) {
  return at::tensor(values, at::kDouble).to(at::kFloat).view({-1, width});
}

at::Tensor Labels(std::vector<int64_t> labels) {
  return at::tensor(labels);
}

// Logits that answer with these classes.
at::Tensor Answers(const std::vector<int64_t>& classes, int64_t count) {
  return at::eye(count).index_select(0, at::tensor(classes)).to(at::kFloat);
}

const at::Tensor& NoLoss() {
  static const at::Tensor zero = at::zeros({});
  return zero;
}

TEST(MeasuresTest, ConfusionHasTheTrueClassFirst) {
  Measures measures(Task::kClasses, 3, {}, at::kCPU);
  measures.Add(Answers({0, 1, 1, 2}, 3), Labels({0, 0, 1, 1}), at::full({}, 3.0));
  measures.Add(Answers({2}, 3), Labels({2}), at::full({}, 2.0));
  const MeasureResult result = measures.Result(measures.Sums());
  EXPECT_EQ(result.samples, 5);
  EXPECT_DOUBLE_EQ(result.loss, 1.0);
  EXPECT_THAT(result.confusion, ElementsAre(1, 1, 0, 0, 1, 1, 0, 0, 1));
  EXPECT_DOUBLE_EQ(result.Score("top1"), 0.6);
  EXPECT_DOUBLE_EQ(result.classes[1].precision, 0.5);
  EXPECT_DOUBLE_EQ(result.classes[1].recall, 0.5);
  EXPECT_DOUBLE_EQ(result.classes[2].precision, 0.5);
  EXPECT_DOUBLE_EQ(result.classes[2].recall, 1.0);
  EXPECT_DOUBLE_EQ(result.classes[2].f1, 2.0 / 3);
  EXPECT_EQ(result.classes[2].support, 1);
  EXPECT_EQ(result.scores.front().first, "top1");
}

TEST(MeasuresTest, RanksAddUpToTheWhole) {
  Measures all(Task::kClasses, 4, {}, at::kCPU), a(Task::kClasses, 4, {}, at::kCPU),
      b(Task::kClasses, 4, {}, at::kCPU);
  const at::Tensor logits = Answers({0, 3, 2, 1, 0}, 4);
  const at::Tensor labels = Labels({0, 1, 2, 1, 3});
  all.Add(logits, labels, at::full({}, 5.0));
  a.Add(logits.narrow(0, 0, 2), labels.narrow(0, 0, 2), at::full({}, 2.0));
  b.Add(logits.narrow(0, 2, 3), labels.narrow(0, 2, 3), at::full({}, 3.0));
  const MeasureResult whole = all.Result(all.Sums());
  const MeasureResult summed = all.Result(a.Sums().add(b.Sums()));
  EXPECT_EQ(summed.confusion, whole.confusion);
  EXPECT_EQ(summed.scores, whole.scores);
  EXPECT_EQ(summed.loss, whole.loss);
}

TEST(MeasuresTest, Top5IsThereWithMoreThanFiveClasses) {
  Measures measures(Task::kClasses, 7, {}, at::kCPU);
  // The right class is the fifth and the sixth best.
  measures.Add(Row({7, 6, 5, 4, 3, 2, 1, 7, 6, 5, 4, 3, 2, 1}, 7), Labels({4, 5}), NoLoss());
  EXPECT_DOUBLE_EQ(measures.Result(measures.Sums()).Score("top5"), 0.5);
  Measures few(Task::kClasses, 5, {}, at::kCPU);
  few.Add(Answers({0}, 5), Labels({0}), NoLoss());
  EXPECT_TRUE(std::isnan(few.Result(few.Sums()).Score("top5")));
}

TEST(MeasuresTest, LogitsThatAreNotNumbersAreNeverAmongTheTop5) {
  Measures measures(Task::kClasses, 7, {}, at::kCPU);
  measures.Add(at::full({1, 7}, std::numeric_limits<float>::quiet_NaN()), Labels({3}), NoLoss());
  EXPECT_DOUBLE_EQ(measures.Result(measures.Sums()).Score("top5"), 0);
}

TEST(MeasuresTest, ManyClassesHaveNoConfusionMatrixButTheSameMeasures) {
  constexpr int64_t kClasses = kMostConfusionClasses + 1;
  Measures measures(Task::kClasses, kClasses, {}, at::kCPU);
  measures.Add(Answers({0, 1, 1, kClasses - 1}, kClasses), Labels({0, 0, 1, kClasses - 1}),
               NoLoss());
  const MeasureResult result = measures.Result(measures.Sums());
  EXPECT_TRUE(result.confusion.empty());
  EXPECT_DOUBLE_EQ(result.classes[0].recall, 0.5);
  EXPECT_DOUBLE_EQ(result.classes[1].precision, 0.5);
  EXPECT_DOUBLE_EQ(result.classes[kClasses - 1].f1, 1);
  EXPECT_DOUBLE_EQ(result.Score("top1"), 0.75);
}

TEST(MeasuresTest, ClassesWithoutSamplesDoNotLowerMacroF1) {
  Measures measures(Task::kClasses, 3, {}, at::kCPU);
  measures.Add(Answers({0, 1}, 3), Labels({0, 1}), NoLoss());
  EXPECT_DOUBLE_EQ(measures.Result(measures.Sums()).Score("macro_f1"), 1);
}

TEST(MeasuresTest, LabelsAreJudgedOneByOneAndTogether) {
  Measures measures(Task::kLabels, 3, {}, at::kCPU);
  measures.Add(Row({1, -1, 1, -1, -1, 1}, 3), Row({1, 0, 0, 0, 0, 1}, 3), at::full({}, 1.0));
  const MeasureResult result = measures.Result(measures.Sums());
  EXPECT_DOUBLE_EQ(result.Score("label_accuracy"), (2.0 / 3 + 1) / 2);
  EXPECT_DOUBLE_EQ(result.Score("exact_match"), 0.5);
  EXPECT_EQ(result.classes[2].predicted, 2);
  EXPECT_DOUBLE_EQ(result.classes[2].precision, 0.5);
  EXPECT_DOUBLE_EQ(result.classes[2].recall, 1);
}

TEST(MeasuresTest, NumbersAreToldInTheirOwnUnits) {
  // Metres: mean 100, standard deviation 10. True 90, 100, 110; answers 95, 100, 105.
  Measures measures(Task::kNumbers, 1, {{"metres", 100, 10}}, at::kCPU);
  measures.Add(Row({-0.5, 0}, 1), Row({-1, 0}, 1), at::full({}, 0.5));
  measures.Add(Row({0.5}, 1), Row({1}, 1), at::full({}, 0.25));
  const MeasureResult result = measures.Result(measures.Sums());
  EXPECT_NEAR(result.Score("mae"), 10.0 / 3, 1e-9);
  EXPECT_NEAR(result.Score("mse"), 50.0 / 3, 1e-9);
  EXPECT_NEAR(result.Score("r2"), 1 - 50.0 / 200, 1e-9);
  EXPECT_EQ(result.scores.front().first, "mae");
  ASSERT_EQ(result.numbers.size(), 1u);
  EXPECT_NEAR(result.numbers[0].mae, 10.0 / 3, 1e-9);
}

TEST(MeasuresTest, OfNothingEverythingIsZero) {
  const Measures measures(Task::kClasses, 3, {}, at::kCPU);
  const MeasureResult result = measures.Result(measures.Sums());
  EXPECT_EQ(result.samples, 0);
  EXPECT_EQ(result.loss, 0);
  EXPECT_EQ(result.Score("top1"), 0);
}

}  // namespace
}  // namespace lockstep::trainer

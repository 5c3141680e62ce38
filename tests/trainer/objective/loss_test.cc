// Losses against their formulas, written out in doubles.
#include "trainer/objective/loss.h"

#include <ATen/ops/allclose.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <stdexcept>

namespace lockstep::trainer {
namespace {

using config::LossKind;
using testing::DoubleNear;
using testing::ElementsAre;
using testing::HasSubstr;

const at::Tensor& Logits() {
  static const at::Tensor logits =
      at::tensor({1.0, -0.5, 2.0, 0.25, 0.5, -1.0}, at::kDouble).to(at::kFloat).view({2, 3});
  return logits;
}

Targets Classes(std::vector<int64_t> classes) {
  return {.values = at::tensor(classes)};
}

Targets Numbers(const std::vector<double>& values, int64_t width) {
  return {.values = at::tensor(values, at::kDouble).to(at::kFloat).view({-1, width})};
}

// -log softmax(row)[label]
double CrossEntropy(const at::Tensor& row, int64_t label) {
  const at::Tensor x = row.to(at::kDouble);
  return x.exp().sum().log().item<double>() - x[label].item<double>();
}

double SumOf(const LossOptions& options, const at::Tensor& logits, const Targets& targets) {
  return Loss(options, at::kCPU)({logits, {}}, targets).loss_sum.item<double>();
}

TEST(LossTest, CrossEntropyIsTheSumOverTheSamples) {
  const double wanted = CrossEntropy(Logits()[0], 2) + CrossEntropy(Logits()[1], 0);
  EXPECT_NEAR(SumOf({}, Logits(), Classes({2, 0})), wanted, 1e-5);
}

TEST(LossTest, ClassWeightsMultiplyEachSamplesLoss) {
  LossOptions options;
  options.weights = {0.5, 1, 4};
  const double wanted = 4 * CrossEntropy(Logits()[0], 2) + 0.5 * CrossEntropy(Logits()[1], 0);
  EXPECT_NEAR(SumOf(options, Logits(), Classes({2, 0})), wanted, 1e-5);
}

TEST(LossTest, SmoothingSharesTheTargetOut) {
  LossOptions options;
  options.label_smoothing = 0.3;
  double wanted = 0;
  for (int64_t label = 0; label < 3; ++label) {
    wanted += 0.1 * CrossEntropy(Logits()[0], label);
  }
  wanted += 0.7 * CrossEntropy(Logits()[0], 1);
  EXPECT_NEAR(SumOf(options, Logits().narrow(0, 0, 1), Classes({1})), wanted, 1e-5);
}

TEST(LossTest, AMixedSampleHasBothLossesByShare) {
  Targets targets = Classes({2, 0});
  targets.mixed_with = at::tensor({0, 1}, at::kLong);
  targets.share = at::tensor({0.75, 1.0}, at::kDouble).to(at::kFloat);
  const double wanted = 0.75 * CrossEntropy(Logits()[0], 2) + 0.25 * CrossEntropy(Logits()[0], 0) +
                        CrossEntropy(Logits()[1], 0);
  EXPECT_NEAR(SumOf({}, Logits(), targets), wanted, 1e-5);
}

TEST(LossTest, TheAuxiliaryHeadCountsByItsWeight) {
  LossOptions options;
  options.auxiliary_weight = 0.4;
  const Loss loss(options, at::kCPU);
  const Targets targets = Classes({2, 0});
  const double wanted = (CrossEntropy(Logits()[0], 2) + CrossEntropy(Logits()[1], 0)) * 1.4;
  EXPECT_NEAR(loss({Logits(), Logits()}, targets).loss_sum.item<double>(), wanted, 1e-5);
}

TEST(LossTest, BinaryCrossEntropyIsTheMeanOverTheLabels) {
  LossOptions options;
  options.kind = LossKind::kBinaryCrossEntropy;
  const auto one = [](double x, double y) {
    const double p = 1 / (1 + std::exp(-x));
    return -(y * std::log(p) + (1 - y) * std::log(1 - p));
  };
  const double wanted = (one(1.0, 1) + one(-0.5, 0) + one(2.0, 0)) / 3 +
                        (one(0.25, 1) + one(0.5, 1) + one(-1.0, 0)) / 3;
  EXPECT_NEAR(SumOf(options, Logits(), Numbers({1, 0, 0, 1, 1, 0}, 3)), wanted, 1e-5);
}

TEST(LossTest, ErrorsOfNumbersAreMeansOverTheTargets) {
  LossOptions options;
  options.targets = {{"a", 0, 1}, {"b", 0, 1}, {"c", 0, 1}};
  const Targets targets = Numbers({0, 0, 0, 0, 0, 0}, 3);
  options.kind = LossKind::kMse;
  EXPECT_NEAR(SumOf(options, Logits(), targets), (1 + 0.25 + 4) / 3.0 + (0.0625 + 0.25 + 1) / 3.0,
              1e-5);
  options.kind = LossKind::kMae;
  EXPECT_NEAR(SumOf(options, Logits(), targets), (1 + 0.5 + 2) / 3.0 + (0.25 + 0.5 + 1) / 3.0,
              1e-5);
  options.kind = LossKind::kHuber;
  options.huber_delta = 0.5;
  const auto huber = [](double e) { return e <= 0.5 ? e * e / 2 : 0.5 * (e - 0.25); };
  EXPECT_NEAR(SumOf(options, Logits(), targets),
              (huber(1) + huber(0.5) + huber(2)) / 3 + (huber(0.25) + huber(0.5) + huber(1)) / 3,
              1e-5);
}

TEST(LossTest, PerSampleAddsUpToTheSum) {
  for (const LossKind kind : {LossKind::kMse, LossKind::kMae, LossKind::kHuber}) {
    LossOptions options;
    options.kind = kind;
    options.targets = {{"a", 0, 1}, {"b", 0, 1}, {"c", 0, 1}};
    const Targets targets = Numbers({0.5, 0, 0, 0, 3, 0}, 3);
    const Loss loss(options, at::kCPU);
    EXPECT_NEAR(loss.PerSample(Logits(), targets.values).sum().item<double>(),
                loss({Logits(), {}}, targets).loss_sum.item<double>(), 1e-5);
  }
}

TEST(LossTest, ScoresAreWhatPeopleWatch) {
  EXPECT_EQ(Loss({}, at::kCPU)({Logits(), {}}, Classes({2, 0})).score_sum.item<float>(), 1);
  LossOptions labels;
  labels.kind = LossKind::kBinaryCrossEntropy;
  EXPECT_FLOAT_EQ(Loss(labels, at::kCPU)({Logits(), {}}, Numbers({1, 0, 0, 1, 1, 0}, 3))
                      .score_sum.item<float>(),
                  2.0f / 3 + 1);
  LossOptions numbers;
  numbers.kind = LossKind::kMse;
  numbers.targets = {{"metres", 5, 10}, {"grams", 0, 2}, {"seconds", 0, 1}};
  EXPECT_FLOAT_EQ(Loss(numbers, at::kCPU)({Logits(), {}}, Numbers({0, 0, 0, 0, 0, 0}, 3))
                      .score_sum.item<float>(),
                  (10 + 1 + 2) / 3.0f + (2.5f + 1 + 1) / 3.0f);
}

TEST(LossTest, LossIsComputedInFloat32FromAnyFormat) {
  const at::Tensor halves = Logits().to(at::kBFloat16);
  const Objective objective = Loss({}, at::kCPU)({halves, {}}, Classes({2, 0}));
  EXPECT_EQ(objective.loss_sum.scalar_type(), at::kFloat);
  EXPECT_NEAR(objective.loss_sum.item<double>(),
              CrossEntropy(halves[0], 2) + CrossEntropy(halves[1], 0), 1e-5);
}

TEST(LossOptionsTest, BalancedWeightsMakeTheMeanSampleWeighOne) {
  config::RunConfig config;
  config.training.loss.balance_classes = true;
  config.model.num_classes = 3;
  const LossOptions options = LossOptionsOf(config, {}, {10, 30, 60});
  EXPECT_THAT(options.weights,
              ElementsAre(DoubleNear(100.0 / 30, 1e-12), DoubleNear(100.0 / 90, 1e-12),
                          DoubleNear(100.0 / 180, 1e-12)));
}

TEST(LossOptionsTest, WeightsMustBeOnePerOutput) {
  config::RunConfig config;
  config.training.loss.class_weights = {1, 2};
  config.model.num_classes = 3;
  try {
    LossOptionsOf(config, {}, {1, 1, 1});
    FAIL() << "two weights for three classes were taken";
  } catch (const std::invalid_argument& error) {
    EXPECT_THAT(error.what(), HasSubstr("has 2 numbers, but the model has 3 outputs"));
  }
}

TEST(LossOptionsTest, AutoFollowsTheData) {
  config::RunConfig config;
  EXPECT_EQ(LossKindOf(config), LossKind::kCrossEntropy);
  config.data.kind = config::DatasetKind::kCsvRegression;
  EXPECT_EQ(LossKindOf(config), LossKind::kMse);
  config.data.kind = config::DatasetKind::kCsvMultilabel;
  EXPECT_EQ(LossKindOf(config), LossKind::kBinaryCrossEntropy);
  config.training.loss.kind = LossKind::kHuber;
  EXPECT_EQ(LossKindOf(config), LossKind::kHuber);
}

}  // namespace
}  // namespace lockstep::trainer

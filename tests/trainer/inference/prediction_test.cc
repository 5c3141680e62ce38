// Logits to answers.
#include "trainer/inference/prediction.h"

#include <gtest/gtest.h>

#include <cmath>

namespace lockstep::trainer {
namespace {

ModelCard Card(config::LossKind loss) {
  ModelCard card;
  card.loss = loss;
  if (loss == config::LossKind::kCrossEntropy) {
    card.classes = {"cat", "dog", "emu"};
  } else {
    card.targets = {{"price", 100, 20}, {"age", 5, 2}};
  }
  return card;
}

TEST(PredictionTest, ClassesComeMostProbableFirstAndSumToOne) {
  const std::vector<float> logits = {1.0f, 3.0f, 2.0f};
  const Prediction all = Interpret(logits, Card(config::LossKind::kCrossEntropy), 5);
  ASSERT_EQ(all.labels.size(), 3u);
  EXPECT_EQ(all.labels[0].first, "dog");
  EXPECT_EQ(all.labels[1].first, "emu");
  EXPECT_EQ(all.labels[2].first, "cat");
  EXPECT_NEAR(all.labels[0].second, 0.66524095577, 1e-9);
  EXPECT_NEAR(all.labels[0].second + all.labels[1].second + all.labels[2].second, 1, 1e-12);
  EXPECT_EQ(Interpret(logits, Card(config::LossKind::kCrossEntropy), 1).labels.size(), 1u);
}

TEST(PredictionTest, LargeLogitsDoNotOverflowAndEqualOnesKeepTheirOrder) {
  const std::vector<float> logits = {5000.0f, 5000.0f, -5000.0f};
  const Prediction prediction = Interpret(logits, Card(config::LossKind::kCrossEntropy), 2);
  EXPECT_EQ(prediction.labels[0].first, "cat");
  EXPECT_EQ(prediction.labels[0].second, 0.5);
}

TEST(PredictionTest, LabelsAreEachOnTheirOwnAndInTheDatasOrder) {
  const std::vector<float> logits = {0.0f, 2.0f};
  const Prediction prediction = Interpret(logits, Card(config::LossKind::kBinaryCrossEntropy), 1);
  ASSERT_EQ(prediction.labels.size(), 2u);
  EXPECT_EQ(prediction.labels[0], (std::pair<std::string, double>("price", 0.5)));
  EXPECT_NEAR(prediction.labels[1].second, 0.88079707798, 1e-9);
}

TEST(PredictionTest, NumbersAreInTheDatasUnits) {
  const std::vector<float> logits = {1.5f, -1.0f};
  const Prediction prediction = Interpret(logits, Card(config::LossKind::kMse), 1);
  EXPECT_EQ(prediction.numbers[0], (std::pair<std::string, double>("price", 130)));
  EXPECT_EQ(prediction.numbers[1], (std::pair<std::string, double>("age", 3)));
  EXPECT_EQ(ToText(prediction), "price 130, age 3");
}

}  // namespace
}  // namespace lockstep::trainer

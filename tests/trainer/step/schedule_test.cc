#include "trainer/step/schedule.h"

#include <gtest/gtest.h>

#include <cmath>
#include <stdexcept>

namespace lockstep::trainer {
namespace {

using config::Duration;
using config::ScheduleConfig;
using config::ScheduleKind;

ScheduleConfig Kind(ScheduleKind kind) {
  ScheduleConfig config;
  config.kind = kind;
  return config;
}

TEST(StepsOfTest, RoundsUpAndIsAtLeastOne) {
  EXPECT_EQ(StepsOf(Duration::Epochs(2), 12.5), 25);
  EXPECT_EQ(StepsOf(Duration::Epochs(1), 12.5), 13);
  EXPECT_EQ(StepsOf(Duration::Epochs(0.001), 12.5), 1);
  EXPECT_EQ(StepsOf(Duration::Steps(5000), 12.5), 5000);
  EXPECT_EQ(StepsOf(Duration::Epochs(30), 3.3), 99) << "30 * 3.3 is a little more in binary";
}

TEST(StepsOfTest, IsZeroForWallTimesAndNothing) {
  EXPECT_EQ(StepsOf(Duration::Seconds(3600), 12.5), 0);
  EXPECT_EQ(StepsOf(Duration(), 12.5), 0);
  EXPECT_EQ(StepsOf(Duration::Epochs(0), 12.5), 0);
}

TEST(ScheduleTest, ConstantStays) {
  const Schedule schedule(Kind(ScheduleKind::kConstant), 0.4, 0, 10);
  for (const int64_t step : {0, 1, 1000000}) EXPECT_EQ(schedule.LearningRate(step), 0.4);
}

TEST(ScheduleTest, WarmupRisesLinearlyToTheBase) {
  for (const auto kind : {ScheduleKind::kConstant, ScheduleKind::kStep, ScheduleKind::kCosine}) {
    ScheduleConfig config = Kind(kind);
    config.warmup = Duration::Epochs(2);
    const Schedule schedule(config, 0.8, 100, 2.0);
    EXPECT_DOUBLE_EQ(schedule.LearningRate(0), 0.2);
    EXPECT_DOUBLE_EQ(schedule.LearningRate(1), 0.4);
    EXPECT_DOUBLE_EQ(schedule.LearningRate(2), 0.6);
    EXPECT_DOUBLE_EQ(schedule.LearningRate(3), 0.8);
    EXPECT_DOUBLE_EQ(schedule.LearningRate(4), 0.8);
  }
}

TEST(ScheduleTest, StepFallsByGammaAfterEachPeriod) {
  ScheduleConfig config = Kind(ScheduleKind::kStep);
  config.step_every = Duration::Epochs(3);
  config.gamma = 0.5;
  const Schedule schedule(config, 1.0, 100, 3.3);  // Periods of 9.9 steps.
  EXPECT_DOUBLE_EQ(schedule.LearningRate(9), 1.0);
  EXPECT_DOUBLE_EQ(schedule.LearningRate(10), 0.5);
  EXPECT_DOUBLE_EQ(schedule.LearningRate(19), 0.5);
  EXPECT_DOUBLE_EQ(schedule.LearningRate(20), 0.25);
  // Ten periods are 99 steps exactly.
  EXPECT_DOUBLE_EQ(schedule.LearningRate(98), std::pow(0.5, 9));
  EXPECT_DOUBLE_EQ(schedule.LearningRate(99), std::pow(0.5, 10));
}

TEST(ScheduleTest, StepCountsInStepsToo) {
  ScheduleConfig config = Kind(ScheduleKind::kStep);
  config.step_every = Duration::Steps(7);
  const Schedule schedule(config, 1.0, 0, 3.0);
  EXPECT_DOUBLE_EQ(schedule.LearningRate(6), 1.0);
  EXPECT_DOUBLE_EQ(schedule.LearningRate(7), 0.1);
  EXPECT_DOUBLE_EQ(schedule.LearningRate(14), 0.1 * 0.1);
}

TEST(ScheduleTest, CosineFallsFromBaseToTheFinalRatio) {
  ScheduleConfig config = Kind(ScheduleKind::kCosine);
  config.final_ratio = 0.1;
  config.warmup = Duration::Steps(20);
  const Schedule schedule(config, 2.0, 120, 10);
  EXPECT_DOUBLE_EQ(schedule.LearningRate(20), 2.0);
  EXPECT_NEAR(schedule.LearningRate(70), 1.1, 1e-12) << "half way";
  EXPECT_NEAR(schedule.LearningRate(45), 0.2 + 1.8 * 0.5 * (1 + std::sqrt(0.5)), 1e-12);
  EXPECT_GT(schedule.LearningRate(119), 0.2);
  EXPECT_NEAR(schedule.LearningRate(119), 0.2, 1e-3);
  EXPECT_DOUBLE_EQ(schedule.LearningRate(120), 0.2);
  EXPECT_DOUBLE_EQ(schedule.LearningRate(500), 0.2) << "stays there";
}

TEST(ScheduleTest, CosineNeedsALength) {
  EXPECT_THROW(Schedule(Kind(ScheduleKind::kCosine), 1.0, 0, 10), std::invalid_argument);
}

TEST(ScheduleTest, WarmupLongerThanTheRunIsAllThereIs) {
  ScheduleConfig config = Kind(ScheduleKind::kCosine);
  config.warmup = Duration::Steps(50);
  const Schedule schedule(config, 1.0, 10, 10);
  EXPECT_DOUBLE_EQ(schedule.LearningRate(9), 0.2);
}

}  // namespace
}  // namespace lockstep::trainer

#include "launch/plan/time_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/status/status.h"

namespace lockstep::plan {
namespace {

using ::testing::HasSubstr;

TEST(TimeModelTest, FindsRateAndOverheadOfStepsThatFollowThem) {
  // 1,000 samples/s and 4 ms a step.
  const auto model = FitStepTime({{8, 0, 0.012}, {16, 0, 0.020}, {64, 0, 0.068}});
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_NEAR(model->seconds_per_sample, 1e-3, 1e-9);
  EXPECT_NEAR(model->seconds_per_step, 4e-3, 1e-9);
  EXPECT_NEAR(model->Seconds(32), 0.036, 1e-9);
  EXPECT_LT(model->worst_error, 1e-6);
}

TEST(TimeModelTest, CountsRelativeErrorsSoThatLargeBatchesDoNotDrownSmallOnes) {
  // The large batch is 1 % off: by absolute error the small ones would be tens of per cent off.
  const auto model = FitStepTime({{1, 0, 0.003}, {2, 0, 0.004}, {1000, 0, 1.012}});
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_NEAR(model->Seconds(1) / 0.003, 1, 0.02);
  EXPECT_NEAR(model->Seconds(2) / 0.004, 1, 0.02);
}

TEST(TimeModelTest, NeverGivesANegativeOverhead) {
  // Larger steps are relatively dearer (they fall out of a cache): the line's foot would be below
  // 0.
  const auto model = FitStepTime({{8, 0, 0.008}, {16, 0, 0.017}, {64, 0, 0.080}});
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_GE(model->seconds_per_step, 0);
  EXPECT_GT(model->seconds_per_sample, 0);
  EXPECT_GT(model->worst_error, 0.02);
}

TEST(TimeModelTest, TellsTheAllReduceFromTheRest) {
  // t = b ms + 2 ms + 0.5 A
  const auto model =
      FitStepTime({{10, 0, 0.012}, {10, 0.010, 0.017}, {40, 0.020, 0.052}, {20, 0.020, 0.032}});
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_NEAR(model->reduce_factor, 0.5, 1e-6);
  EXPECT_NEAR(model->Seconds(30, 0.04), 0.052, 1e-6);
}

TEST(TimeModelTest, OneDisturbedStepAmongFiveHardlyCounts) {
  std::vector<StepObservation> steps = {
      {8, 0, 0.012}, {16, 0, 0.020}, {32, 0, 0.036}, {48, 0, 0.052}, {64, 0, 0.068}};
  steps[2].step_seconds *= 2;
  const auto model = FitStepTime(steps);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_NEAR(model->Seconds(32) / 0.036, 1, 0.05);
  EXPECT_NEAR(model->worst_error, 0.5, 0.05);
  EXPECT_LT(model->median_error, 0.05);
}

TEST(TimeModelTest, RefusesWhatGivesNoLine) {
  const auto few = FitStepTime({{8, 0, 0.01}, {16, 0, 0.02}});
  EXPECT_TRUE(absl::IsInvalidArgument(few.status()));
  EXPECT_THAT(std::string(few.status().message()), HasSubstr("there are 2 of 2"));
  EXPECT_FALSE(FitStepTime({{8, 0, 0.01}, {8, 0, 0.011}, {8, 0, 0.012}}).ok());
  EXPECT_FALSE(FitStepTime({{8, 0, 0.01}, {16, 0, 0}, {32, 0, 0.03}}).ok());
  EXPECT_FALSE(FitStepTime({{0, 0, 0.01}, {16, 0, 0.02}, {32, 0, 0.03}}).ok());
}

}  // namespace
}  // namespace lockstep::plan

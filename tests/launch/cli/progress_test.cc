#include "launch/cli/progress.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "launch/cli/format.h"

namespace lockstep::cli {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

v1::Run Training() {
  v1::Run run;
  run.set_run_id("3fa1c2");
  run.set_name("cifar10-resnet18");
  run.set_state(v1::RUN_STATE_RUNNING);
  run.set_cost(0.5);
  run.set_currency("EUR");
  v1::Progress* progress = run.mutable_progress();
  progress->set_step(1234);
  progress->set_total_steps(5000);
  progress->set_epoch(3.24);
  progress->set_loss(0.41234);
  progress->mutable_score()->set_name("top1");
  progress->mutable_score()->set_value(0.871);
  progress->set_samples_per_second(1234.4);
  progress->set_eta_seconds(192);
  return run;
}

TEST(BarTest, FillsInProportion) {
  EXPECT_EQ(Bar(0, 10, {}), "[          ]");
  EXPECT_EQ(Bar(0.5, 10, {}), "[=====>    ]");
  EXPECT_EQ(Bar(0.99, 10, {}), "[=========>]");
  EXPECT_EQ(Bar(1, 10, {}), "[==========]");
}

TEST(BarTest, StaysInsideItsWidthForAnyRatio) {
  for (double ratio : {-1.0, 1.5, std::nan(""), 1e300}) {
    EXPECT_EQ(DisplayWidth(Bar(ratio, 10, {})), 12) << ratio;
    EXPECT_EQ(DisplayWidth(Bar(ratio, 10, {.unicode = true, .color = true})), 12) << ratio;
  }
}

TEST(ProgressLineTest, ShowsEverythingWhereThereIsRoom) {
  EXPECT_EQ(ProgressLine(Training(), {.columns = 160}),
            "3fa1c2 cifar10-resnet18 [=======>                      ]  24% 1,234/5,000 epoch 3.2 "
            "loss 0.4123 top1 87.1% 1,234/s ETA 3m12s 0.5000 EUR");
}

TEST(ProgressLineTest, NeverIsWiderThanTheTerminal) {
  for (int columns = 1; columns <= 200; ++columns) {
    for (bool unicode : {false, true}) {
      const std::string line =
          ProgressLine(Training(), {.columns = columns, .unicode = unicode, .color = unicode}, 20);
      EXPECT_LE(DisplayWidth(line), columns) << line;
    }
  }
}

TEST(ProgressLineTest, LeavesOutWhatMattersLeastFirst) {
  const std::string line = ProgressLine(Training(), {.columns = 79});
  EXPECT_THAT(line, StartsWith("3fa1c2 "));
  EXPECT_THAT(line, HasSubstr("24%"));
  EXPECT_THAT(line, HasSubstr("loss 0.4123"));
  EXPECT_THAT(line, HasSubstr("ETA 3m12s"));
  EXPECT_THAT(line, Not(HasSubstr("EUR")));
}

TEST(ProgressLineTest, HundredPercentOnlyAtTheEnd) {
  v1::Run run = Training();
  run.mutable_progress()->set_step(4999);
  EXPECT_THAT(ProgressLine(run, {.columns = 160}), HasSubstr(" 99%"));
  run.mutable_progress()->set_step(5000);
  EXPECT_THAT(ProgressLine(run, {.columns = 160}), HasSubstr("100%"));
}

TEST(ProgressLineTest, AQueuedRunShowsItsPlaceAndNoBar) {
  v1::Run run = Training();
  run.clear_progress();
  run.clear_cost();
  run.set_state(v1::RUN_STATE_QUEUED);
  run.set_queue_position(3);
  EXPECT_EQ(ProgressLine(run, {.columns = 160}), "3fa1c2 cifar10-resnet18 QUEUED position 3");
}

TEST(ProgressLineTest, ARunThatHasNotMadeAStepShowsItsState) {
  v1::Run run = Training();
  run.mutable_progress()->set_step(0);
  EXPECT_EQ(ProgressLine(run, {.columns = 160}), "3fa1c2 cifar10-resnet18 RUNNING");
}

TEST(ProgressLineTest, APausedRunHasNoRateAndNoTimeToGo) {
  v1::Run run = Training();
  run.set_state(v1::RUN_STATE_PAUSED);
  const std::string line = ProgressLine(run, {.columns = 160});
  EXPECT_THAT(line, HasSubstr("PAUSED"));
  EXPECT_THAT(line, Not(HasSubstr("ETA")));
  EXPECT_THAT(line, Not(HasSubstr("/s")));
}

TEST(ProgressLineTest, SilenceIsTold) {
  EXPECT_THAT(ProgressLine(Training(), {.columns = 160}, 14), Not(HasSubstr("no news")));
  EXPECT_THAT(ProgressLine(Training(), {.columns = 160}, 20), EndsWith("(no news for 20s)"));
}

TEST(ProgressLineTest, ALengthInTimeIsMeasuredInTime) {
  v1::Run run = Training();
  run.mutable_progress()->set_total_steps(0);
  run.mutable_progress()->set_wall_seconds(64);
  EXPECT_DOUBLE_EQ(DoneRatio(run), 0.25);
  run.mutable_progress()->set_eta_seconds(-1);
  EXPECT_LT(DoneRatio(run), 0);
  EXPECT_THAT(ProgressLine(run, {.columns = 160}), Not(HasSubstr("%  ")));
}

TEST(PlainProgressTest, IsOneLineWithEveryFigure) {
  EXPECT_EQ(PlainProgress(Training()),
            "step 1,234/5,000 (24.7%)  epoch 3.2  loss 0.4123  top1 87.1%  1,234 samples/s  ETA "
            "3m12s  cost 0.5000 EUR");
}

TEST(DescribeTest, AFailedCheckpointSaysWhy) {
  v1::CheckpointEvent checkpoint;
  checkpoint.set_step(1200);
  checkpoint.set_error("weights.safetensors: No space left on device");
  EXPECT_EQ(
      DescribeCheckpoint(checkpoint),
      "checkpoint of step 1,200 was NOT written: weights.safetensors: No space left on device");
}

TEST(DescribeTest, AStateComesWithItsReasonAndAttempt) {
  v1::Run run = Training();
  run.set_state(v1::RUN_STATE_RECOVERING);
  run.set_reason("rank 1 was killed by signal 9");
  run.set_attempt(2);
  EXPECT_EQ(DescribeState(run, false), "RECOVERING: rank 1 was killed by signal 9 (attempt 2)");
}

TEST(DescribeTest, AnAttemptIsToldOnce) {
  v1::Run run = Training();
  run.set_state(v1::RUN_STATE_STARTING);
  run.set_reason("attempt 2");
  run.set_attempt(2);
  EXPECT_EQ(DescribeState(run, false), "STARTING: attempt 2");
}

TEST(DescribeTest, ANameIsNotSaidTwice) {
  v1::Run run = Training();
  EXPECT_EQ(Label(run), "3fa1c2 (cifar10-resnet18)");
  run.set_run_id("cifar10-resnet18-8qk2");
  EXPECT_EQ(Label(run), "cifar10-resnet18-8qk2");
}

TEST(ProgressLineTest, FiguresThatAreNotThereYetAreNotShown) {
  v1::Run run = Training();
  run.mutable_progress()->set_loss(0);
  run.mutable_progress()->set_samples_per_second(0);
  const std::string line = ProgressLine(run, {.columns = 160});
  EXPECT_THAT(line, Not(HasSubstr("loss")));
  EXPECT_THAT(line, HasSubstr("1,234/5,000"));
}

TEST(DescribeTest, AUsedUpBudgetIsToldFromOtherEnds) {
  v1::Run run = Training();
  run.set_state(v1::RUN_STATE_STOPPED);
  run.set_reason("stopped by ann");
  EXPECT_FALSE(OutOfBudget(run));
  EXPECT_TRUE(IsOver(run));
  run.set_reason("budget: cost 5.0100 EUR, cost.max_cost is 5.0000");
  EXPECT_TRUE(OutOfBudget(run));
  run.set_state(v1::RUN_STATE_PAUSED);
  EXPECT_TRUE(IsOver(run));
  run.set_state(v1::RUN_STATE_PAUSING);
  EXPECT_FALSE(IsOver(run));
  run.set_state(v1::RUN_STATE_PAUSED);
  run.set_reason("pause asked for by ann");
  EXPECT_FALSE(IsOver(run));
}

}  // namespace
}  // namespace lockstep::cli

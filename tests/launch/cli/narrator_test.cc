#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "launch/cli/follow.h"

namespace lockstep::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

v1::Run Running() {
  v1::Run run;
  run.set_run_id("a1");
  run.set_state(v1::RUN_STATE_RUNNING);
  run.set_attempt(1);
  run.mutable_progress()->set_step(10);
  run.mutable_progress()->set_samples_per_second(100);
  return run;
}

TEST(NarratorTest, TellsAStateOnce) {
  Narrator narrator({});
  EXPECT_THAT(narrator.Tell(Running(), 0, "10:00:00"), ElementsAre("10:00:00  RUNNING"));
  EXPECT_THAT(narrator.Tell(Running(), 1, "10:00:01"), IsEmpty());
}

TEST(NarratorTest, TellsANewReasonOfTheSameState) {
  Narrator narrator({});
  v1::Run run = Running();
  run.set_state(v1::RUN_STATE_RECOVERING);
  run.set_reason("rank 1 was killed by signal 9");
  narrator.Tell(run, 0, "");
  run.set_reason("rank 0 was killed by signal 9");
  EXPECT_THAT(narrator.Tell(run, 0, "t"),
              ElementsAre("t  RECOVERING: rank 0 was killed by signal 9"));
}

TEST(NarratorTest, TellsNewEvaluationsAndCheckpointsButNotThoseFromBefore) {
  Narrator narrator({});
  v1::Run run = Running();
  run.mutable_progress()->mutable_last_evaluation()->set_step(5);
  run.mutable_last_checkpoint()->set_step(5);
  run.mutable_last_checkpoint()->set_ok(true);
  EXPECT_THAT(narrator.Tell(run, 0, "t"), ElementsAre("t  RUNNING"));
  run.mutable_progress()->mutable_last_evaluation()->set_step(10);
  v1::Score* score = run.mutable_progress()->mutable_last_evaluation()->add_scores();
  score->set_name("top1");
  score->set_value(0.5);
  run.mutable_last_checkpoint()->set_step(10);
  EXPECT_THAT(narrator.Tell(run, 0, "t"),
              ElementsAre(HasSubstr("held-out top1 50.0%"), HasSubstr("checkpoint of step 10")));
}

TEST(NarratorTest, TellsThatTheSameCheckpointFailedAfterAll) {
  Narrator narrator({});
  v1::Run run = Running();
  narrator.Tell(run, 0, "t");
  run.mutable_last_checkpoint()->set_step(10);
  run.mutable_last_checkpoint()->set_error("disk full");
  EXPECT_THAT(narrator.Tell(run, 0, "t"), ElementsAre(HasSubstr("NOT written: disk full")));
  EXPECT_THAT(narrator.Tell(run, 0, "t"), IsEmpty());
}

TEST(NarratorTest, PlainProgressComesAtMostEveryFiveSeconds) {
  Narrator narrator({.plain_progress = true});
  v1::Run run = Running();
  EXPECT_THAT(narrator.Tell(run, 0, "t"), ElementsAre("t  RUNNING", HasSubstr("step 10")));
  run.mutable_progress()->set_step(20);
  EXPECT_THAT(narrator.Tell(run, 4.9, "t"), IsEmpty());
  EXPECT_THAT(narrator.Tell(run, 5, "t"), ElementsAre(HasSubstr("step 20")));
  EXPECT_THAT(narrator.Tell(run, 50, "t"), IsEmpty());  // Nothing new.
}

TEST(NarratorTest, SeveralRunsAreNamed) {
  Narrator narrator({.name_runs = true});
  EXPECT_THAT(narrator.Tell(Running(), 0, "t"), ElementsAre("t  a1  RUNNING"));
}

TEST(OutcomeTest, EachEndHasItsExitCode) {
  v1::Run run = Running();
  run.set_state(v1::RUN_STATE_COMPLETED);
  EXPECT_EQ(Outcome(run), config::ExitCode::kOk);
  run.set_state(v1::RUN_STATE_FAILED);
  EXPECT_EQ(Outcome(run), config::ExitCode::kRunFailed);
  run.set_state(v1::RUN_STATE_STOPPED);
  EXPECT_EQ(Outcome(run), config::ExitCode::kStopped);
  run.set_reason("budget: ran for 20 s, cost.max_time is 20 s");
  EXPECT_EQ(Outcome(run), config::ExitCode::kBudget);
}

}  // namespace
}  // namespace lockstep::cli

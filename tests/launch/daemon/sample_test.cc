// What a scrape shows of runs that real messages have moved.
#include <gtest/gtest.h>

#include "service_fixture.h"

namespace lockstep::launch {
namespace {

using config::TrainerExit;

TEST_F(ServiceTest, PhasesSumToTheWallTimeAndTheirCostToTheCost) {
  const std::string id = SubmitOk();
  auto rank = Rank(id);
  rank->Progress(5);
  ASSERT_TRUE(Pause(id).ok());
  ASSERT_TRUE(Resume(id).ok());
  auto second = Rank(id, 2);
  second->Progress(8);
  second->End(TrainerExit::kCompleted, "");
  const v1::Run run = AwaitState(id, v1::RUN_STATE_COMPLETED);
  const metrics::Snapshot snapshot = AwaitSample();
  ASSERT_EQ(snapshot.runs.size(), 1u);
  const metrics::RunSample& sample = snapshot.runs[0];
  const double wall = static_cast<double>(run.ended().seconds() - run.started().seconds()) +
                      1e-9 * (run.ended().nanos() - run.started().nanos());
  double sum = 0;
  double cost = 0;
  for (const double seconds : sample.spent.seconds) sum += seconds;
  for (const metrics::Money& money : sample.spent.money) {
    cost += 1e-6 * static_cast<double>(money.total());
  }
  EXPECT_NEAR(sum, wall, 0.01 * wall + 0.002);
  EXPECT_NEAR(run.cost(), cost, 1e-9);
  EXPECT_GT(cost, 0);
  EXPECT_EQ(sample.steps, 13);
  EXPECT_EQ(sample.samples, 8 * 13);
  EXPECT_EQ(snapshot.runs_by_state.at("completed"), 1);
  EXPECT_EQ(snapshot.runs_by_state.size(), 10u);
  EXPECT_EQ((snapshot.transitions.at({"running", "pausing"})), 1);
}

TEST_F(ServiceTest, WhatANewAttemptDoesNotKnowYetStaysAndNothingIsCountedTwice) {
  const std::string id = SubmitOk();
  auto rank = Rank(id);
  v1::AttachRequest learnt;
  v1::Progress& progress = *learnt.mutable_progress();
  progress.set_step(5);
  progress.set_steps(5);
  progress.set_samples(40);
  progress.set_wall_seconds(1);
  progress.set_eta_seconds(60);
  progress.set_loss(0.5);
  progress.set_learning_rate(0.1);
  progress.mutable_score()->set_name("mae");
  rank->Write(learnt);
  AwaitRun(id, [](const v1::Run& run) { return run.progress().step() == 5; });
  EXPECT_GT(AwaitSample().runs.at(0).eta_timestamp_seconds, 0);
  launcher_.End(id, 1, {1, "crashed"});
  auto second = Rank(id, 2);
  EXPECT_EQ(AwaitSample().runs.at(0).eta_timestamp_seconds, 0) << "of the attempt before";
  v1::AttachRequest evaluated;
  evaluated.mutable_evaluation()->set_step(5);
  second->Write(evaluated);
  // Is handled after it.
  v1::AttachRequest saved;
  saved.mutable_checkpoint()->set_step(6);
  saved.mutable_checkpoint()->set_ok(true);
  second->Write(saved);
  AwaitRun(id, [](const v1::Run& run) { return run.last_checkpoint().step() == 6; });
  EXPECT_EQ(AwaitSample().runs.at(0).steps, 5);

  v1::AttachRequest started;
  started.mutable_progress()->set_step(5);
  started.mutable_progress()->set_wall_seconds(0.5);
  second->Write(started);
  saved.mutable_checkpoint()->set_step(7);
  second->Write(saved);
  AwaitRun(id, [](const v1::Run& run) { return run.last_checkpoint().step() == 7; });
  const metrics::RunSample sample = AwaitSample().runs.at(0);
  EXPECT_EQ(sample.steps, 5);
  EXPECT_EQ(sample.train_loss, 0.5) << "0 would be read as a loss";
  EXPECT_EQ(sample.learning_rate, 0.1);
  EXPECT_TRUE(sample.has_train);
  EXPECT_FALSE(sample.has_accuracy) << "it learns numbers, as before";
}

TEST_F(ServiceTest, EveryChangeOfStateIsThereFromTheStart) {
  const metrics::Snapshot snapshot = AwaitSample();
  EXPECT_EQ((snapshot.transitions.at({"running", "recovering"})), 0);
  EXPECT_FALSE(snapshot.transitions.contains({"completed", "running"}));
}

}  // namespace
}  // namespace lockstep::launch

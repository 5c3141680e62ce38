#include "launch/plan/planner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lockstep::plan {
namespace {

using config::Duration;
using config::ProbeReport;
using ::testing::AllOf;
using ::testing::HasSubstr;

// A CPU probe of exact lines: `per_sample` a sample and `per_step` a step.
ProbeReport Probe(int ranks, double per_sample, double per_step, std::vector<int64_t> batches) {
  ProbeReport probe;
  probe.ranks = ranks;
  probe.device = "cpu";
  probe.train_samples = 1000;
  probe.eval_samples = 100;
  probe.available_bytes = int64_t{1} << 30;
  probe.first.reduced_bytes = 1000000;
  for (const int64_t batch : batches) {
    probe.first.steps.push_back({.local_batch = batch,
                                 .timed = 10,
                                 .seconds = static_cast<double>(batch) * per_sample + per_step,
                                 .phase_seconds = {},
                                 .peak_bytes = 100000000 + batch * 1000000});
  }
  if (ranks > 1) probe.all_reduces = {{1000, 1e-5}, {1000000, 1.009e-3}};  // 9 us + 1 ns a byte.
  return probe;
}

PlanRequest Request() {
  PlanRequest request;
  request.config.name = "planned";
  request.config.training.duration = Duration::Epochs(2);
  request.config.training.global_batch_size = 50;
  request.config.training.eval_every = Duration{};
  request.config.checkpoint.every = Duration{};
  request.ranks = {1};
  request.probes = {Probe(1, 1e-3, 10e-3, {12, 25, 50})};
  return request;
}

PlanRow OnlyRow(const PlanRequest& request) {
  const auto plan = MakePlan(request);
  EXPECT_TRUE(plan.ok()) << plan.status();
  if (!plan.ok() || plan->rows.size() != 1) return {};
  return plan->rows[0];
}

TEST(PlannerTest, AnEpochIsItsStepsAndTheRunItsEpochs) {
  const PlanRow row = OnlyRow(Request());
  EXPECT_NEAR(row.step_seconds, 0.060, 1e-9);
  EXPECT_NEAR(row.samples_per_second, 50 / 0.060, 1e-6);
  EXPECT_EQ(row.steps, 40);
  EXPECT_NEAR(row.epoch.seconds, 20 * 0.060, 1e-9);
  EXPECT_NEAR(row.run.seconds, 40 * 0.060, 1e-9);
  EXPECT_FALSE(row.extrapolated);
}

TEST(PlannerTest, StartEvaluationsAndCheckpointsCount) {
  PlanRequest request = Request();
  ProbeReport& probe = request.probes[0];
  probe.startup_seconds = 3;
  probe.first.evaluated_samples = 20;  // A fifth of them, in 0.1 s.
  probe.first.evaluation_seconds = 0.1;
  probe.first.checkpoint_bytes = 1;
  probe.first.checkpoint_stall_seconds = 0.01;
  probe.first.checkpoint_write_seconds = 0.2;
  request.config.training.eval_every = Duration::Epochs(1);
  request.config.checkpoint.every = Duration::Steps(10);
  const PlanRow row = OnlyRow(request);
  EXPECT_NEAR(row.evaluation_seconds, 0.5, 1e-9);
  // 2 evaluations, checkpoints after steps 10, 20 and 30, and the last one waited for.
  EXPECT_NEAR(row.run.seconds, 3 + 40 * 0.060 + 2 * 0.5 + 3 * 0.01 + 0.2, 1e-9);
  EXPECT_NEAR(row.epoch.seconds, 20 * 0.060 + 0.5 + 2 * 0.01, 1e-9);
}

TEST(PlannerTest, ThereIsAnEvaluationAtTheEndThatNoPeriodAsksFor) {
  PlanRequest request = Request();
  request.probes[0].first.evaluated_samples = 100;
  request.probes[0].first.evaluation_seconds = 0.5;
  request.config.training.eval_every = Duration::Steps(15);  // After 15, 30 and at 40.
  EXPECT_NEAR(OnlyRow(request).run.seconds, 40 * 0.060 + 3 * 0.5, 1e-9);
}

TEST(PlannerTest, AnEvaluationWithTheLastStepIsTheOneAtTheEnd) {
  PlanRequest request = Request();
  request.probes[0].first.evaluated_samples = 100;
  request.probes[0].first.evaluation_seconds = 0.5;
  request.config.training.eval_every = Duration::Epochs(1);
  request.config.training.global_batch_size = 30;  // 33.3 steps an epoch, 67 in all: at 34 and 67.
  EXPECT_NEAR(OnlyRow(request).run.seconds, 67 * 0.040 + 2 * 0.5, 1e-9);
}

TEST(PlannerTest, ADataSetSmallerThanTheBatchIsEvaluatedOnceAStepAtMost) {
  PlanRequest request = Request();
  request.probes[0].train_samples = 25;  // Two epochs a step.
  request.probes[0].first.evaluated_samples = 100;
  request.probes[0].first.evaluation_seconds = 0.5;
  request.probes[0].first.checkpoint_stall_seconds = 0.01;
  request.config.training.eval_every = Duration::Epochs(1);
  request.config.checkpoint.every = Duration::Epochs(1);
  request.config.training.duration = Duration::Epochs(4);
  const PlanRow row = OnlyRow(request);
  EXPECT_EQ(row.steps, 2);
  EXPECT_NEAR(row.run.seconds, 2 * 0.060 + 2 * 0.5 + 0.01, 1e-9);
  EXPECT_NEAR(row.epoch.seconds, 0.5 * (0.060 + 0.5 + 0.01), 1e-9);
}

TEST(PlannerTest, AGlobalBatchIsSharedAndABatchPerRankAddsUp) {
  PlanRequest request = Request();
  request.ranks = {2};
  request.probes = {Probe(2, 1e-3, 10e-3, {6, 12, 25, 50})};
  const PlanRow shared = OnlyRow(request);
  EXPECT_EQ(shared.local_batch, 25);
  EXPECT_EQ(shared.global_batch, 50);
  EXPECT_NEAR(shared.steps_per_epoch, 20, 1e-9);

  request.config.training.global_batch_size = 0;
  request.config.training.batch_size_per_rank = 50;
  const PlanRow added = OnlyRow(request);
  EXPECT_EQ(added.local_batch, 50);
  EXPECT_EQ(added.global_batch, 100);
  EXPECT_NEAR(added.steps_per_epoch, 10, 1e-9);
  EXPECT_EQ(added.steps, 20);
}

TEST(PlannerTest, TheRankWithTheMostSamplesSetsThePace) {
  PlanRequest request = Request();
  request.config.training.global_batch_size = 51;
  request.ranks = {2};
  request.probes = {Probe(2, 1e-3, 10e-3, {6, 12, 26})};
  EXPECT_EQ(OnlyRow(request).local_batch, 26);
  EXPECT_NEAR(OnlyRow(request).step_seconds, 0.036, 1e-9);
}

TEST(PlannerTest, ARunOfAWallTimeSaysHowFarItComes) {
  PlanRequest request = Request();
  request.config.training.duration = Duration::Seconds(120);
  const PlanRow row = OnlyRow(request);
  EXPECT_EQ(row.run.seconds, 120);
  EXPECT_NEAR(row.steps, 2000, 1e-6);
  EXPECT_NEAR(row.epochs, 100, 1e-6);
}

TEST(PlannerTest, AWallTimeIsFollowedByTheLastEvaluationAndCheckpoint) {
  PlanRequest request = Request();
  request.config.training.duration = Duration::Seconds(120);
  request.probes[0].first.evaluated_samples = 100;
  request.probes[0].first.evaluation_seconds = 0.5;
  request.probes[0].first.checkpoint_write_seconds = 0.2;
  EXPECT_NEAR(OnlyRow(request).run.seconds, 120.7, 1e-9);
}

TEST(PlannerTest, MoneyIsHardwareTimeAndEnergy) {
  PlanRequest request = Request();
  request.ranks = {2};
  request.probes = {Probe(2, 1e-3, 10e-3, {6, 12, 25})};
  request.config.training.duration = Duration::Seconds(3600);
  request.prices = [](double seconds) {
    return Prices{true, "EUR", seconds > 3000 ? 2.0 : 9.0, 0.30, 500};
  };
  const PlanRow row = OnlyRow(request);
  EXPECT_NEAR(row.run.hardware_cost, 4.0, 1e-9);  // 2 ranks x 1 h x 2.00
  EXPECT_NEAR(row.run.energy_kwh, 1.0, 1e-9);     // 2 x 500 W x 1 h
  EXPECT_NEAR(row.run.energy_cost, 0.30, 1e-9);
  EXPECT_NEAR(row.run.cost(), 4.30, 1e-9);
}

TEST(PlannerTest, BytesMovedAreCountedAsTheLedgerDoes) {
  PlanRequest request = Request();
  request.ranks = {2};
  ProbeReport probe = Probe(2, 1e-3, 10e-3, {6, 12, 25});
  probe.first.checkpoint_bytes = 500;
  probe.opened_bytes = 64;
  probe.sample_bytes = probe.sample_bytes_again = 10;
  probe.first.evaluated_samples = 100;
  request.probes = {probe};
  request.config.checkpoint.every = Duration::Steps(10);  // After 10, 20, 30, and the last, 40.
  request.config.training.eval_every = Duration::Epochs(1);
  request.prices = [](double) {
    Prices prices;
    prices.known = true;
    prices.dataset_per_gb = 1;
    prices.checkpoint_per_gb = 1e3;
    prices.allreduce_per_gb = 1e6;
    return prices;
  };
  const PlanRow row = OnlyRow(request);
  EXPECT_NEAR(row.moved.allreduce, 2 * 40 * 1e6, 1e-6);
  EXPECT_NEAR(row.moved.checkpoint, 4 * 500, 1e-6);
  EXPECT_NEAR(row.moved.dataset, 64 + 2 * 1000 * 10 + 2 * 100 * 10, 1e-6);
  EXPECT_NEAR(row.run.cost(), (80e6 * 1e6 + 2000 * 1e3 + 22064) / 1e9, 1e-9);
  EXPECT_NEAR(row.epoch.cost(), row.run.cost() / 2, 1e-9);
}

TEST(PlannerTest, OneRankGivesNothingToAllReduce) {
  EXPECT_EQ(OnlyRow(Request()).moved.allreduce, 0);
}

TEST(PlannerTest, PicturesThatAreKeptAreReadOnceByEachRank) {
  PlanRequest request = Request();
  request.ranks = {2};
  request.probes = {Probe(2, 1e-3, 10e-3, {6, 12, 25})};
  request.probes[0].sample_bytes = 10;
  request.config.training.duration = Duration::Epochs(30);
  request.probes[0].eval_samples = 0;
  EXPECT_NEAR(OnlyRow(request).moved.dataset, 2 * 1000 * 10, 1e-3);
  request.config.data.cache = config::PictureCacheKind::kDisk;  // Which the ranks share.
  EXPECT_NEAR(OnlyRow(request).moved.dataset, 1000 * 10, 1e-6);
}

TEST(PlannerTest, PicturesThatAreKeptTakeLongerOnceByEachRank) {
  PlanRequest request = Request();
  request.ranks = {2};
  request.probes = {Probe(2, 1e-3, 10e-3, {6, 12, 25})};
  ProbeReport& probe = request.probes[0];
  request.config.training.duration = Duration::Epochs(2);
  probe.first.evaluated_samples = 50;
  probe.first.evaluation_seconds = 0.1;  // 0.2 s all of them,
  const double before = OnlyRow(request).run.seconds;
  probe.first.first_evaluation_seconds = 0.4;  // and 0.8 s the first time.
  EXPECT_NEAR(OnlyRow(request).run.seconds, before + 0.6, 1e-9);
  probe.first.first_evaluation_seconds = 0;
  probe.first.first_read_seconds = 2e-3;
  // Of 1,000 pictures each rank has met half after one epoch, and three quarters after two.
  EXPECT_NEAR(OnlyRow(request).run.seconds, before + 750 * 2e-3, 1e-9);
  EXPECT_NEAR(OnlyRow(request).epoch.seconds, 20 * 0.035, 1e-9) << "one of the later ones";
  request.config.data.cache = config::PictureCacheKind::kDisk;
  EXPECT_NEAR(OnlyRow(request).run.seconds, before + 500 * 2e-3, 1e-9);
}

TEST(PlannerTest, ARunOfGivenLengthComesLessFarForItsNewPictures) {
  PlanRequest request = Request();
  request.config.training.duration = Duration::Seconds(60);
  EXPECT_NEAR(OnlyRow(request).steps, 60 / 0.060, 1e-6);
  request.probes[0].first.first_read_seconds = 6e-3;  // 1,000 of them.
  EXPECT_NEAR(OnlyRow(request).steps, 54 / 0.060, 1e-4);
  request.config.training.duration = Duration::Seconds(3.6);  // Half an epoch of new ones.
  EXPECT_NEAR(OnlyRow(request).steps, 3.6 / (0.060 + 50 * 6e-3), 1e-4);
}

TEST(PlannerTest, FeaturesLeaveThePicturesNewUntilTheTrunkTrains) {
  PlanRequest request = Request();
  request.config.training.duration = Duration::Epochs(10);
  ProbeReport& probe = request.probes[0];
  probe.cached_samples = 110;
  probe.unfrozen = probe.first;
  probe.unfrozen.first_read_seconds = 5e-3;
  const double before = OnlyRow(request).run.seconds;
  request.config.model.unfreeze_after = Duration::Epochs(8);
  EXPECT_NEAR(OnlyRow(request).run.seconds, before + 1000 * 5e-3, 1e-9);
}

TEST(PlannerTest, PicturesThatWillBeKeptTakeMemory) {
  PlanRequest request = Request();
  const int64_t before = OnlyRow(request).memory_bytes;
  request.probes[0].kept_bytes = 300'000'000;
  EXPECT_EQ(OnlyRow(request).memory_bytes, before + 300'000'000);
  request.probes[0].kept_bytes = int64_t{1} << 30;
  EXPECT_FALSE(OnlyRow(request).fits);
}

TEST(PlannerTest, WithoutPricesThereIsNoMoney) {
  EXPECT_EQ(OnlyRow(Request()).run.cost(), 0);
}

TEST(PlannerTest, MoreRanksThanProbedAreExtrapolatedOverTheMeasuredLink) {
  PlanRequest request = Request();
  request.ranks = {4};
  request.ranks_per_host = 2;
  request.probes = {Probe(2, 1e-3, 10e-3, {6, 12, 25})};
  const PlanRow row = OnlyRow(request);
  EXPECT_TRUE(row.extrapolated);
  EXPECT_THAT(row.basis, AllOf(HasSubstr("extrapolated from 2 ranks of 1 thread"),
                               HasSubstr("measured interconnect")));
  // The probe's ring of 1 MB: 2 messages of 4.5 us and 1 MB at 1 GB/s, 1.009 ms. With four ranks
  // 6 messages and 1.5 MB, 1.527 ms; the rest of the step stays.
  EXPECT_NEAR(row.exposed_reduce_seconds, 1.527e-3, 1e-8);
  EXPECT_NEAR(row.step_seconds, 13e-3 + 10e-3 - 1.009e-3 + 1.527e-3, 1e-8);
}

TEST(PlannerTest, ANamedNetworkIsBetweenMachinesLikeThisOne) {
  PlanRequest request = Request();
  request.ranks = {4};
  request.ranks_per_host = 2;
  request.probes = {Probe(2, 1e-3, 10e-3, {6, 12, 25})};
  request.interconnect = Link{"wire", 100e-6, 1e8, true, ""};
  const PlanRow row = OnlyRow(request);
  EXPECT_THAT(row.basis, HasSubstr("over wire between 2 machines like this one"));
  EXPECT_NEAR(row.exposed_reduce_seconds, 1.009e-3 + 200e-6 + 10e-3, 1e-8);
}

TEST(PlannerTest, OneProbedRankIsExtrapolatedOverTenGigabitEthernet) {
  PlanRequest request = Request();
  request.ranks = {2};
  const PlanRow row = OnlyRow(request);
  EXPECT_THAT(row.basis, HasSubstr("over 10GbE between 2 machines"));
  EXPECT_NEAR(row.step_seconds, 35e-3 + row.exposed_reduce_seconds, 1e-9);
}

TEST(PlannerTest, OnAGpuWhatTravelsBehindTheBackwardPassIsNotWaitedFor) {
  PlanRequest request = Request();
  request.ranks = {4};
  request.probes = {Probe(2, 1e-3, 10e-3, {6, 12, 25})};
  request.probes[0].gpu = true;
  request.probes[0].first.reduced_bytes = 250 << 20;
  request.interconnect = Link{"fast", 0, 1e11, false, ""};
  const PlanRow row = OnlyRow(request);
  // 1.5 x 262 MB at 100 GB/s are 3.9 ms; nine tenths hide behind 8.7 ms of backward.
  EXPECT_NEAR(row.exposed_reduce_seconds, 0.1 * 1.5 * (250 << 20) / 1e11, 1e-9);
}

TEST(PlannerTest, WhatTakesMoreThanThereIsDoesNotFitAndGetsAMicroBatch) {
  PlanRequest request = Request();
  request.probes[0].available_bytes = 150000000;  // 100 MB and 1 MB a sample; 95 % of it: 42.
  const PlanRow row = OnlyRow(request);
  EXPECT_FALSE(row.fits);
  EXPECT_NEAR(static_cast<double>(row.memory_bytes), 150e6, 1e3);
  EXPECT_EQ(row.micro_batch_size, 42);
}

TEST(PlannerTest, AMicroBatchIsWhatMemoryIsCountedFor) {
  PlanRequest request = Request();
  request.probes[0].available_bytes = 150000000;
  request.probes[0].micro_batch_size = 25;
  for (auto& step : request.probes[0].first.steps) {
    step.peak_bytes = 100000000 + std::min<int64_t>(step.local_batch, 25) * 1000000;
  }
  const PlanRow row = OnlyRow(request);
  EXPECT_TRUE(row.fits);
  EXPECT_NEAR(static_cast<double>(row.memory_bytes), 125e6, 1e3);
}

TEST(PlannerTest, WhatTheProbeFoundTooLargeDoesNotFit) {
  PlanRequest request = Request();
  request.probes = {Probe(1, 1e-3, 10e-3, {6, 12, 25})};
  request.probes[0].does_not_fit = 50;
  const PlanRow row = OnlyRow(request);
  EXPECT_FALSE(row.fits);
  EXPECT_EQ(row.micro_batch_size, 25);
}

TEST(PlannerTest, WhatDidNotFitInMicroBatchesDoesNotFit) {
  PlanRequest request = Request();
  request.probes = {Probe(1, 1e-3, 10e-3, {6, 12, 25})};
  request.probes[0].micro_batch_size = 25;
  request.probes[0].does_not_fit = 50;
  EXPECT_FALSE(OnlyRow(request).fits);
}

TEST(PlannerTest, FeaturesCachedFirstAreCountedForAllSamples) {
  PlanRequest request = Request();
  request.config.model.feature_views = 2;
  request.probes[0].cached_samples = 210;  // A tenth of 2 x 1,000 + 100, in 0.7 s.
  request.probes[0].cache_seconds = 0.7;
  EXPECT_NEAR(OnlyRow(request).run.seconds, 7 + 40 * 0.060, 1e-9);
}

TEST(PlannerTest, CachedFeaturesReadEachPictureOnceUntilTheTrunkTrains) {
  PlanRequest request = Request();
  request.config.training.duration = Duration::Epochs(10);
  request.config.model.unfreeze_after = Duration::Epochs(8);
  request.config.training.eval_every = Duration::Epochs(1);
  ProbeReport& probe = request.probes[0];
  probe.unfrozen = probe.first;
  probe.cached_samples = 110;
  probe.sample_bytes = probe.sample_bytes_again = 10;
  EXPECT_NEAR(OnlyRow(request).moved.dataset, 1100 * 10 + 2 * 1000 * 10 + 2 * 100 * 10, 1e-6);
}

TEST(PlannerTest, SeveralMachinesDoNotCacheFeaturesAndTheRowSaysSo) {
  PlanRequest request = Request();
  request.ranks = {2};
  request.probes[0].cached_samples = 110;
  EXPECT_THAT(OnlyRow(request).basis, HasSubstr("do not cache features"));
}

TEST(PlannerTest, EachStageHasItsOwnEvaluationsCheckpointsAndAllReduce) {
  PlanRequest request = Request();
  request.ranks = {4};
  request.probes = {Probe(2, 1e-3, 10e-3, {6, 12, 25})};
  request.interconnect = Link{"wire", 0, 1e8, false, ""};
  request.config.model.unfreeze_after = Duration::Epochs(1);
  request.config.training.eval_every = Duration::Epochs(0.5);
  request.config.checkpoint.every = Duration::Epochs(1);
  ProbeReport& probe = request.probes[0];
  probe.unfrozen = probe.first;  // The same arithmetic, so that what differs is told below.
  probe.first.reduced_bytes = 1000;
  probe.first.evaluated_samples = probe.unfrozen.evaluated_samples = 100;
  probe.first.evaluation_seconds = 0.2;
  probe.unfrozen.evaluation_seconds = 2;
  probe.first.checkpoint_bytes = 10;
  probe.unfrozen.checkpoint_bytes = 1000;
  const PlanRow row = OnlyRow(request);
  // A ring of four: 1.5 x 1 kB, later 1 MB, at 100 MB/s.
  EXPECT_NEAR(row.exposed_reduce_seconds, 15e-6, 1e-9);
  const double alone = 13e-3 + 10e-3;
  const double first = alone - (9e-6 + 1e-6) + 15e-6;  // The probe's own took 9 us and 1 ns a byte.
  const double unfrozen = alone - 1.009e-3 + 15e-3;
  EXPECT_NEAR(row.step_seconds, first, 1e-8);
  // Two evaluations in each epoch, shared by twice the ranks.
  EXPECT_NEAR(row.run.seconds, 20 * first + 20 * unfrozen + 2 * 0.1 + 2 * 1, 1e-6);
  EXPECT_NEAR(row.moved.checkpoint, 10 + 1000, 1e-9);
  EXPECT_NEAR(row.moved.allreduce, 4 * (20 * 1e3 + 20 * 1e6), 1e-3);
}

TEST(PlannerTest, StepsAfterUnfreezingTakeTheirOwnTime) {
  PlanRequest request = Request();
  request.config.model.unfreeze_after = Duration::Epochs(0.5);
  request.probes[0].unfrozen = Probe(1, 3e-3, 20e-3, {12, 25, 50}).first;
  EXPECT_NEAR(OnlyRow(request).run.seconds, 10 * 0.060 + 30 * 0.170, 1e-9);
}

TEST(PlannerTest, LimitsOfTheRunAreHeldAgainstEachRow) {
  PlanRequest request = Request();
  request.config.cost.max_time = Duration::Seconds(2);
  EXPECT_TRUE(OnlyRow(request).over_max_time);
  request.config.cost.max_time = Duration::Seconds(3);
  EXPECT_FALSE(OnlyRow(request).over_max_time);
  request.config.cost.max_energy = 1e-4;
  request.prices = [](double) { return Prices{true, "EUR", 0, 0, 1000}; };
  EXPECT_TRUE(OnlyRow(request).over_max_energy);  // 2.4 s at 1 kW are 6.7e-4 kWh.
  request.config.cost.max_energy = 1e-3;
  EXPECT_FALSE(OnlyRow(request).over_max_energy);
  request.config.cost.max_cost = 0.001;
  request.prices = [](double) { return Prices{true, "EUR", 3.6, 0, 0}; };  // 0.001 a second.
  EXPECT_TRUE(OnlyRow(request).over_max_cost);
}

TEST(PlannerTest, RefusesWhatCannotBePlanned) {
  PlanRequest request = Request();
  request.probes.clear();
  EXPECT_FALSE(MakePlan(request).ok());
  request = Request();
  request.ranks = {51};
  EXPECT_THAT(std::string(MakePlan(request).status().message()),
              HasSubstr("training.global_batch_size is 50, which 51 ranks cannot share"));
  request = Request();
  request.ranks = {1, 3};
  request.config.model.sync_batch_norm = true;
  EXPECT_THAT(std::string(MakePlan(request).status().message()),
              HasSubstr("which 3 ranks cannot share equally"));
  request = Request();
  request.probes[0].first.steps.resize(2);
  EXPECT_THAT(std::string(MakePlan(request).status().message()),
              HasSubstr("the probe with 1 rank: "));
}

}  // namespace
}  // namespace lockstep::plan

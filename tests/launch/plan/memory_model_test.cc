#include "launch/plan/memory_model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace lockstep::plan {
namespace {

// 100 MB and 1 MB a sample of a micro-batch.
config::ProbeReport Probe(const std::vector<int64_t>& batches, int64_t micro_batch = 0) {
  config::ProbeReport probe;
  probe.available_bytes = 150'000'000;
  probe.micro_batch_size = micro_batch;
  for (const int64_t batch : batches) {
    const int64_t at_once = micro_batch > 0 ? std::min(batch, micro_batch) : batch;
    probe.first.steps.push_back({.local_batch = batch,
                                 .timed = 10,
                                 .seconds = 1,
                                 .phase_seconds = {},
                                 .peak_bytes = 100'000'000 + at_once * 1'000'000});
  }
  return probe;
}

TEST(MemoryModelTest, ALineThroughThePeaksAndNinetyFivePercentOfWhatThereIs) {
  const MemoryPlan fits = PlanMemory(Probe({12, 25, 50}), 40);
  EXPECT_NEAR(static_cast<double>(fits.bytes), 140e6, 1e3);
  EXPECT_TRUE(fits.fits);
  EXPECT_EQ(fits.micro_batch_size, 0);
  const MemoryPlan too_much = PlanMemory(Probe({12, 25, 50}), 50);
  EXPECT_FALSE(too_much.fits);
  EXPECT_EQ(too_much.micro_batch_size, 42);
}

TEST(MemoryModelTest, AMicroBatchIsWhatMemoryIsCountedFor) {
  const MemoryPlan plan = PlanMemory(Probe({12, 25, 50}, 25), 50);
  EXPECT_TRUE(plan.fits);
  EXPECT_NEAR(static_cast<double>(plan.bytes), 125e6, 1e3);
}

TEST(MemoryModelTest, WhatTheProbeFoundTooLargeDoesNotFit) {
  config::ProbeReport probe = Probe({6, 12, 25});
  probe.does_not_fit = 50;
  EXPECT_FALSE(PlanMemory(probe, 50).fits);
  EXPECT_EQ(PlanMemory(probe, 50).micro_batch_size, 25);
  EXPECT_TRUE(PlanMemory(probe, 30).fits);
  probe = Probe({6, 12, 25}, 25);  // Nor in micro-batches.
  probe.does_not_fit = 50;
  EXPECT_FALSE(PlanMemory(probe, 50).fits);
}

TEST(MemoryModelTest, PicturesThatWillBeKeptTakeTheirPart) {
  config::ProbeReport probe = Probe({12, 25, 50});
  probe.kept_bytes = 20'000'000;
  const MemoryPlan plan = PlanMemory(probe, 50);
  EXPECT_NEAR(static_cast<double>(plan.bytes), 170e6, 1e3);
  EXPECT_EQ(plan.micro_batch_size, 22);
  probe.kept_bytes = 60'000'000;  // Not even one sample fits beside them.
  EXPECT_EQ(PlanMemory(probe, 50).micro_batch_size, 0);
}

TEST(MemoryModelTest, WithoutPeaksNothingIsKnown) {
  config::ProbeReport probe;
  probe.kept_bytes = 1;
  EXPECT_EQ(PlanMemory(probe, 50).bytes, 0);
  EXPECT_TRUE(PlanMemory(probe, 50).fits);
}

}  // namespace
}  // namespace lockstep::plan

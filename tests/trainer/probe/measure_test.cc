#include "trainer/probe/measure.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "trainer/comm/threads.h"

namespace lockstep::trainer {
namespace {

TEST(MeasureTest, TheMiddleMeanLeavesOutStepsThatWereDisturbed) {
  EXPECT_NEAR(MiddleMean({1, 1.1, 0.9, 1, 1.05, 0.95, 50, 1}), 1.0, 0.03);
}

TEST(MeasureTest, TheMiddleMeanOfAlternatingStepsIsTheirMean) {
  // A loader with two threads: every other batch is there at once. A median would give 1 or 3.
  EXPECT_NEAR(MiddleMean({1, 3, 1, 3, 1, 3, 1, 3}), 2.0, 1e-12);
}

TEST(MeasureTest, FewValuesAreAllCounted) {
  EXPECT_EQ(MiddleMean({}), 0);
  EXPECT_EQ(MiddleMean({2}), 2);
  EXPECT_EQ(MiddleMean({2, 4}), 3);
}

TEST(MeasureTest, AllReducesAreTimedFromFourKibUpToTheGradient) {
  constexpr int kRanks = 2;
  std::vector<std::unique_ptr<Communicator>> ranks = MakeThreadCommunicators(kRanks);
  std::vector<std::vector<config::ProbedAllReduce>> timed(kRanks);
  {
    std::vector<std::jthread> threads;
    for (size_t rank = 0; rank < kRanks; ++rank) {
      threads.emplace_back([&, rank] {
        const std::unique_ptr<Device> device = OpenCpu();
        timed[rank] = TimeAllReduces(*ranks[rank], *device, 1 << 20);
      });
    }
  }
  for (const auto& one : timed) {
    ASSERT_EQ(one.size(), 4u);
    EXPECT_EQ(one[0].bytes, 4 << 10);
    EXPECT_EQ(one[1].bytes, 32 << 10);
    EXPECT_EQ(one[2].bytes, 256 << 10);
    EXPECT_EQ(one[3].bytes, 1 << 20);
    for (const auto& size : one) EXPECT_GT(size.seconds, 0);
  }
}

TEST(MeasureTest, OneRankTimesNoAllReduce) {
  const auto ranks = MakeThreadCommunicators(1);
  EXPECT_TRUE(TimeAllReduces(*ranks[0], *OpenCpu(), 1 << 20).empty());
}

TEST(MeasureTest, MemoryOfThisProcessAndHostIsRead) {
  EXPECT_GT(PeakHostBytes(), 1 << 20);
  EXPECT_GT(AvailableHostBytes(), 1 << 20);
}

}  // namespace
}  // namespace lockstep::trainer

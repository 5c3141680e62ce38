#include "launch/plan/collective_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/status/status.h"

namespace lockstep::plan {
namespace {

using ::testing::HasSubstr;

const Link kLink{"link", 10e-6, 1e9, false, ""};

TEST(CollectiveModelTest, ARingSendsTwiceItsShareOfTheBytes) {
  // 4 ranks, 1 MB: 6 messages of 10 us, and 1.5 MB out of each rank at 1 GB/s.
  EXPECT_NEAR(RingAllReduceSeconds(kLink, 4, 1e6), 60e-6 + 1.5e-3, 1e-12);
}

TEST(CollectiveModelTest, ATreeHasFewMessagesAndSendsEverythingTwice) {
  // 8 ranks: 2 x 3 messages, 2 MB. 5 ranks need as many levels.
  EXPECT_NEAR(TreeAllReduceSeconds(kLink, 8, 1e6), 60e-6 + 2e-3, 1e-12);
  EXPECT_NEAR(TreeAllReduceSeconds(kLink, 5, 1e6), 60e-6 + 2e-3, 1e-12);
}

TEST(CollectiveModelTest, OneRankReducesForNothing) {
  EXPECT_EQ(RingAllReduceSeconds(kLink, 1, 1e6), 0);
  EXPECT_EQ(TreeAllReduceSeconds(kLink, 1, 1e6), 0);
  EXPECT_EQ(BestAllReduce(kLink, 1, 1e6).algorithm, Algorithm::kNone);
}

TEST(CollectiveModelTest, LargeMessagesTakeTheRingAndManyRanksTheTree) {
  EXPECT_EQ(BestAllReduce(kLink, 8, 100e6).algorithm, Algorithm::kRing);
  EXPECT_EQ(BestAllReduce(kLink, 1024, 1e6).algorithm, Algorithm::kTree);
}

TEST(CollectiveModelTest, HostsAddWhatHappensInsideAndBetween) {
  const Link slow{"slow", 50e-6, 1e8, true, ""};
  const Cluster cluster{kLink, slow, 4, 2};
  const double expected = RingAllReduceSeconds(kLink, 4, 1e6) + BestAllReduce(slow, 2, 1e6).seconds;
  EXPECT_NEAR(ClusterAllReduce(cluster, 1e6).seconds, expected, 1e-12);
  const Cluster one_host{kLink, slow, 4, 1};
  EXPECT_NEAR(ClusterAllReduce(one_host, 1e6).seconds, RingAllReduceSeconds(kLink, 4, 1e6), 1e-12);
  EXPECT_EQ(ClusterAllReduce(one_host, 1e6).algorithm, Algorithm::kRing);
}

TEST(CollectiveModelTest, HidesAtMostTheShareThatMayOverlapAndTheBackwardPass) {
  EXPECT_NEAR(ExposedSeconds(0.010, 0.1, 0.0), 0.010, 1e-12);  // The CPU: nothing hides.
  EXPECT_NEAR(ExposedSeconds(0.010, 0.1, 0.8), 0.002, 1e-12);  // The last bucket never does.
  EXPECT_NEAR(ExposedSeconds(0.010, 0.003, 0.8), 0.007, 1e-12);
  EXPECT_NEAR(ExposedSeconds(0.010, 0, 1), 0.010, 1e-12);
}

TEST(CollectiveModelTest, FindsAlphaAndBetaOfTimedAllReduces) {
  std::vector<TimedAllReduce> timed;
  for (const double bytes : {4e3, 1e6, 25e6}) {
    timed.push_back({bytes, RingAllReduceSeconds(kLink, 4, bytes)});
  }
  const auto link = FitLink(timed, 4, "measured");
  ASSERT_TRUE(link.ok()) << link.status();
  EXPECT_NEAR(link->latency_seconds / kLink.latency_seconds, 1, 1e-6);
  EXPECT_NEAR(link->bytes_per_second / kLink.bytes_per_second, 1, 1e-6);
}

TEST(CollectiveModelTest, AMeasuredLinkIsNeverNegativeWhateverTheNoise) {
  const auto falling = FitLink({{1e3, 2e-3}, {1e6, 1e-3}}, 2, "measured");
  ASSERT_TRUE(falling.ok()) << falling.status();
  EXPECT_GE(falling->latency_seconds, 0);
  EXPECT_GT(falling->bytes_per_second, 0);
  const auto steep = FitLink({{1e6, 1e-3}, {2e6, 4e-3}}, 2, "measured");
  ASSERT_TRUE(steep.ok()) << steep.status();
  EXPECT_GE(steep->latency_seconds, 0);
  EXPECT_GT(steep->bytes_per_second, 0);
}

TEST(CollectiveModelTest, RefusesToFitALinkToOneSizeOrOneRank) {
  EXPECT_FALSE(FitLink({{1e6, 1e-3}, {1e6, 1.1e-3}}, 2, "measured").ok());
  EXPECT_FALSE(FitLink({{1e3, 1e-4}, {1e6, 1e-3}}, 1, "measured").ok());
}

TEST(CollectiveModelTest, NamedLinksAreFoundInAnyCaseAndOthersAreListed) {
  EXPECT_TRUE(FindLink("NVLink4").ok());
  EXPECT_TRUE(FindLink("10gbe")->between_hosts);
  EXPECT_FALSE(FindLink("pcie4")->between_hosts);
  EXPECT_GT(FindLink("nvlink4")->bytes_per_second, FindLink("pcie5")->bytes_per_second);
  const auto none = FindLink("string");
  EXPECT_TRUE(absl::IsNotFound(none.status()));
  EXPECT_THAT(std::string(none.status().message()), HasSubstr("25GbE"));
}

}  // namespace
}  // namespace lockstep::plan

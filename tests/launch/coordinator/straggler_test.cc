#include "launch/coordinator/straggler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lockstep::launch {
namespace {

using config::Phase;
using ::testing::HasSubstr;

constexpr int64_t kSteps = 600;
constexpr double kSeconds = 60;

double& In(RankWindow& rank, Phase phase) {
  return rank.phase_seconds[static_cast<size_t>(phase)];
}

// `size` ranks that each make a step of 100 ms in the same way; the last steps are shared evenly.
StragglerWindow Even(int size, bool with_gpu = false) {
  StragglerWindow window{kSeconds, kSteps, {}};
  for (int i = 0; i < size; ++i) {
    RankWindow rank;
    rank.rank = i;
    rank.slowest_steps = kSteps / size;
    In(rank, Phase::kDataWait) = 0.6;
    In(rank, with_gpu ? Phase::kDevice : Phase::kForward) = 20;
    In(rank, Phase::kBackward) = 35;
    In(rank, Phase::kOptimizer) = 1.4;
    In(rank, Phase::kAllreduceExposed) = 2.5;
    In(rank, Phase::kStragglerWait) = 0.5;
    rank.cpu_seconds = 57;
    rank.looks = 60;
    if (with_gpu) rank.gpu = GpuWindow{{{"power", 0}, {"thermal", 0}}, 16, 16};
    window.ranks.push_back(rank);
  }
  return window;
}

// The same, but everyone waits `seconds` a step for `rank`, which is last in `share` of the steps.
// `phase` is where the late one spends them. The window is as long as before: fewer steps.
StragglerWindow Late(StragglerWindow window, int rank, double share, double milliseconds,
                     Phase phase) {
  const double more = milliseconds * 1e-3 * kSteps;
  window.seconds += more;
  for (RankWindow& one : window.ranks) {
    const bool late = one.rank == rank;
    one.slowest_steps = static_cast<int64_t>(
        kSteps * (late ? share : (1 - share) / (static_cast<double>(window.ranks.size()) - 1)));
    In(one, late ? phase : Phase::kStragglerWait) += more;
    // Whoever waits sleeps; whoever computes longer uses the CPU.
    if (late && phase != Phase::kDataWait) *one.cpu_seconds += more;
  }
  return window;
}

TEST(StragglerTest, EqualRanksHaveNone) {
  EXPECT_EQ(FindStraggler(Even(2)).rank, -1);
  EXPECT_EQ(FindStraggler(Even(8)).rank, -1);
}

TEST(StragglerTest, ASlowDataLoaderIsNamed) {
  const Straggler found = FindStraggler(Late(Even(4), 3, 0.92, 41, Phase::kDataWait));
  EXPECT_EQ(found.rank, 3);
  EXPECT_NEAR(found.share, 0.92, 0.001);
  EXPECT_NEAR(found.seconds_per_step, 0.041, 1e-6);
  EXPECT_EQ(found.cause, StragglerCause::kDataLoader);
  EXPECT_EQ(found.text,
            "rank 3 is the slowest in 92 % of the steps and costs 41 ms a step: its data loader is "
            "slow (42 ms a step waiting for data, the others 1.0 ms)");
}

TEST(StragglerTest, SlowerComputationIsNamedWhereNothingElseExplainsIt) {
  const Straggler found = FindStraggler(Late(Even(2), 0, 0.99, 50, Phase::kForward));
  EXPECT_EQ(found.rank, 0);
  EXPECT_EQ(found.cause, StragglerCause::kCompute);
  EXPECT_THAT(found.text, HasSubstr("it computes slower (144 ms a step, the others 94 ms)"));
}

TEST(StragglerTest, AProcessThatIsStoppedOrStarvedIsNotRunning) {
  StragglerWindow window = Late(Even(2), 1, 0.97, 100, Phase::kBackward);
  window.ranks[1].cpu_seconds = 57;  // As much as before, in twice the time.
  const Straggler starved = FindStraggler(window);
  EXPECT_EQ(starved.cause, StragglerCause::kNotRunning);
  EXPECT_THAT(starved.text, HasSubstr("gets no CPU in 51 % of the time it has work, the others "));
  window.ranks[1].stopped_looks = 30;
  const Straggler stopped = FindStraggler(window);
  EXPECT_EQ(stopped.cause, StragglerCause::kNotRunning);
  EXPECT_THAT(stopped.text, HasSubstr("its process is stopped (SIGSTOP or a debugger) 50 %"));
}

TEST(StragglerTest, AStarvedProcessIsNamedAlsoWhereItsSlotHasAGpuThatItDoesNotUse) {
  StragglerWindow window = Late(Even(2), 1, 0.9, 100, Phase::kForward);
  window.ranks[1].cpu_seconds = 57;  // As much as before, in twice the time.
  for (RankWindow& rank : window.ranks) rank.gpu = GpuWindow{{}, 16, 16};
  EXPECT_EQ(FindStraggler(window).cause, StragglerCause::kNotRunning);
}

TEST(StragglerTest, ARankThatSleepsForDataIsNotTakenForAStoppedOne) {
  StragglerWindow window = Late(Even(2), 1, 0.97, 100, Phase::kDataWait);
  EXPECT_EQ(FindStraggler(window).cause, StragglerCause::kDataLoader);
}

TEST(StragglerTest, OthersThatSpinWhileTheyWaitDoNotMakeItLookIdle) {
  StragglerWindow window = Late(Even(2), 1, 0.97, 100, Phase::kForward);
  window.ranks[0].cpu_seconds = window.seconds;
  EXPECT_EQ(FindStraggler(window).cause, StragglerCause::kCompute);
}

TEST(StragglerTest, WithoutCpuSecondsTheRestIsStillTold) {
  StragglerWindow window = Late(Even(2), 1, 0.97, 100, Phase::kDataWait);
  for (RankWindow& rank : window.ranks) rank.cpu_seconds.reset();
  EXPECT_EQ(FindStraggler(window).cause, StragglerCause::kDataLoader);
}

TEST(StragglerTest, AThrottledGpuIsNamedWithItsReason) {
  StragglerWindow window = Late(Even(8, true), 5, 0.8, 30, Phase::kDevice);
  window.ranks[5].gpu->throttle_seconds = {{"power", 3}, {"thermal", 60}};
  const Straggler found = FindStraggler(window);
  EXPECT_EQ(found.rank, 5);
  EXPECT_EQ(found.cause, StragglerCause::kGpuThrottled);
  EXPECT_THAT(found.text, HasSubstr("its GPU is slowed down by heat in 77 % of the time, the "
                                    "others' in 0 %"));
}

TEST(StragglerTest, AGpuThatComputesSlowerIsNotTakenForAProcessWithoutACpu) {
  StragglerWindow window = Late(Even(4, true), 2, 0.8, 60, Phase::kBackward);
  for (RankWindow& rank : window.ranks) rank.cpu_seconds = 30;  // To launch kernels, all alike.
  const Straggler straggler = FindStraggler(window);
  EXPECT_EQ(straggler.rank, 2);
  EXPECT_EQ(straggler.cause, StragglerCause::kCompute) << straggler.text;
}

TEST(StragglerTest, GpusThatAreAllAtTheirPowerLimitExplainNothing) {
  StragglerWindow window = Late(Even(4, true), 2, 0.8, 30, Phase::kDevice);
  for (RankWindow& rank : window.ranks) rank.gpu->throttle_seconds["power"] = 70;
  EXPECT_EQ(FindStraggler(window).cause, StragglerCause::kCompute);
}

TEST(StragglerTest, ANarrowPcieLinkIsNamed) {
  StragglerWindow window = Late(Even(4, true), 2, 0.8, 30, Phase::kDevice);
  window.ranks[2].gpu->pcie_width = 4;
  const Straggler found = FindStraggler(window);
  EXPECT_EQ(found.cause, StragglerCause::kPcieLink);
  EXPECT_THAT(found.text, HasSubstr("PCIe link has 4 lanes of 16, the others' 16"));
  // In a slot that is narrow by itself its own greatest width says nothing; the others' does.
  window.ranks[2].gpu->pcie_width_max = 4;
  EXPECT_EQ(FindStraggler(window).cause, StragglerCause::kPcieLink);
}

TEST(StragglerTest, ALinkAsNarrowAsTheOthersExplainsNothing) {
  StragglerWindow window = Late(Even(4, true), 2, 0.8, 30, Phase::kDevice);
  for (RankWindow& rank : window.ranks) rank.gpu->pcie_width = 8;
  EXPECT_EQ(FindStraggler(window).cause, StragglerCause::kCompute);
}

TEST(StragglerTest, WhereTheOthersTellNoLinkAGpuIsComparedWithItself) {
  StragglerWindow window = Late(Even(4, true), 2, 0.8, 30, Phase::kDevice);
  for (RankWindow& rank : window.ranks) rank.gpu->pcie_width = 0;
  window.ranks[2].gpu->pcie_width = 8;
  const Straggler found = FindStraggler(window);
  EXPECT_EQ(found.cause, StragglerCause::kPcieLink);
  EXPECT_TRUE(found.text.ends_with("its GPU's PCIe link has 8 lanes of 16")) << found.text;
}

TEST(StragglerTest, ASlowLoaderIsTheCauseAlsoOfAGpuWhoseLinkIsNarrow) {
  StragglerWindow window = Late(Even(4, true), 2, 0.8, 30, Phase::kDataWait);
  window.ranks[2].gpu->pcie_width = 4;
  EXPECT_EQ(FindStraggler(window).cause, StragglerCause::kDataLoader);
}

TEST(StragglerTest, BeingLastMostlyButByNextToNothingIsNoStraggler) {
  EXPECT_EQ(FindStraggler(Late(Even(2), 1, 0.95, 3, Phase::kForward)).rank, -1);
  EXPECT_EQ(FindStraggler(Late(Even(2), 1, 0.95, 8, Phase::kForward)).rank, 1);
}

TEST(StragglerTest, OneThatIsLateSometimesIsNoStraggler) {
  EXPECT_EQ(FindStraggler(Late(Even(2), 1, 0.59, 50, Phase::kForward)).rank, -1);
  EXPECT_EQ(FindStraggler(Late(Even(2), 1, 0.61, 50, Phase::kForward)).rank, 1);
}

TEST(StragglerTest, OfTwoSlowRanksOneCostsNoMoreThanItsLead) {
  // Ranks 0 and 1 are both slow, rank 0 by a little more: without it the step gains that little.
  StragglerWindow window = Late(Even(4), 0, 0.9, 20, Phase::kForward);
  In(window.ranks[1], Phase::kStragglerWait) -= 0.010 * kSteps;
  In(window.ranks[1], Phase::kForward) += 0.010 * kSteps;
  EXPECT_NEAR(FindStraggler(window).seconds_per_step, 0.010, 1e-6);
}

TEST(StragglerTest, FewStepsAndLoneRanksTellNothing) {
  StragglerWindow window = Late(Even(2), 1, 0.95, 50, Phase::kForward);
  window.ranks.resize(1);
  EXPECT_EQ(FindStraggler(window).rank, -1);
  EXPECT_EQ(FindStraggler({}).rank, -1);
  window = Late(Even(2), 1, 0.95, 50, Phase::kForward);
  window.steps = kStragglerSteps - 1;
  EXPECT_EQ(FindStraggler(window).rank, -1);
}

}  // namespace
}  // namespace lockstep::launch

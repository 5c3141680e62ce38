// Where the wall time goes.
#include "launch/run_clock.h"

#include <gtest/gtest.h>

namespace lockstep::launch {
namespace {

using config::Phase;
using Interval = RunClock::Interval;

PhaseSeconds Phases(std::initializer_list<std::pair<Phase, double>> values) {
  PhaseSeconds phases{};
  for (const auto& [phase, seconds] : values) phases[static_cast<size_t>(phase)] = seconds;
  return phases;
}
double Get(const PhaseSeconds& phases, Phase phase) {
  return phases[static_cast<size_t>(phase)];
}

TEST(RunClockTest, TheTimeBeforeTheRanksCountIsStartup) {
  RunClock clock;
  clock.Switch(Interval::kAttempt, 100);
  // mpirun needed 2 s; the ranks have counted 3 s.
  clock.Report(Phases({{Phase::kStartup, 1}, {Phase::kForward, 2}}), 105);
  EXPECT_DOUBLE_EQ(Get(clock.Phases(105), Phase::kStartup), 3);
  EXPECT_DOUBLE_EQ(Sum(clock.Phases(105)), 5);
}

TEST(RunClockTest, TheUnreportedRestIsRecoveryAfterACrashAndOtherAfterAnOrderlyEnd) {
  for (const bool crashed : {false, true}) {
    RunClock clock;
    clock.Switch(Interval::kAttempt, 0);
    clock.Report(Phases({{Phase::kForward, 10}}), 10);
    clock.Switch(Interval::kIdle, 13, crashed);
    EXPECT_DOUBLE_EQ(Get(clock.Phases(50), crashed ? Phase::kRecovery : Phase::kOther), 3);
    EXPECT_DOUBLE_EQ(Sum(clock.Phases(50)), 13);
  }
}

TEST(RunClockTest, APauseWithoutProcessesIsWallTimeThatCostsNothing) {
  RunClock clock;
  clock.Switch(Interval::kAttempt, 0);
  clock.Report(Phases({{Phase::kForward, 8}, {Phase::kPaused, 2}}), 10);  // Held for two.
  clock.Switch(Interval::kPausedFree, 10);
  EXPECT_DOUBLE_EQ(Get(clock.Phases(110), Phase::kPaused), 102);
  EXPECT_DOUBLE_EQ(clock.UnpaidSeconds(110), 100);
  EXPECT_DOUBLE_EQ(clock.PaidSeconds(110), 10);
  clock.Switch(Interval::kAttempt, 110);
  clock.Switch(Interval::kRecovery, 115, true);
  EXPECT_DOUBLE_EQ(clock.PaidSeconds(118), 18);
  EXPECT_DOUBLE_EQ(Sum(clock.Phases(118)), 118);
}

TEST(RunClockTest, TotalsNeverFallNotEvenWhenTheRanksCountMoreThanWeDo) {
  RunClock clock;
  clock.Switch(Interval::kAttempt, 0);
  clock.Report(Phases({{Phase::kForward, 1}}), 2);
  clock.Report(Phases({{Phase::kForward, 9.5}}), 10);
  const PhaseSeconds before = clock.Phases(10);
  clock.Switch(Interval::kIdle, 10);
  const PhaseSeconds after = clock.Phases(10);
  for (size_t i = 0; i < before.size(); ++i) EXPECT_GE(after[i], before[i]);
}

TEST(RunClockTest, ASavedClockGoesOnAndAShiftMovesItWithTheOtherClock) {
  RunClock clock;
  clock.Switch(Interval::kAttempt, 1000);
  clock.Report(Phases({{Phase::kForward, 4}}), 1005);
  clock.Switch(Interval::kRecovery, 1006, true);
  const RunClock moved = RunClock::Load(clock.Save(), -900);
  EXPECT_EQ(moved.Phases(110), clock.Phases(1010));
  EXPECT_EQ(moved.PaidSeconds(110), clock.PaidSeconds(1010));
}

TEST(RunClockTest, AReportOutsideOfAnAttemptIsIgnored) {
  RunClock clock;
  clock.Switch(Interval::kPausedFree, 0);
  clock.Report(Phases({{Phase::kForward, 4}}), 5);
  EXPECT_EQ(Get(clock.Phases(10), Phase::kForward), 0);
}

}  // namespace
}  // namespace lockstep::launch

#include "launch/supervisor/rank_watch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lockstep::launch {
namespace {

using config::Phase;

double& In(config::RankState& slot, Phase phase) {
  return slot.phase_seconds[static_cast<size_t>(phase)];
}

// Two ranks that live second by second. Rank 1 spends `late_` of each step more than rank 0.
class RankWatchTest : public ::testing::Test {
 protected:
  RankWatchTest() : board_(2), counts_{0, {0, 0}} {
    for (int rank = 0; rank < 2; ++rank) {
      board_[static_cast<size_t>(rank)].rank = rank;
      board_[static_cast<size_t>(rank)].pid = 100 + rank;
      stats_[100 + rank] = ProcessStat{};
    }
  }

  // A second of ten steps: 50 ms of work in each, and what rank 1 needs beyond it in `where`.
  void Second(double late_seconds, Phase where, bool stopped = false) {
    now_ += 1;
    for (auto& slot : board_) {
      In(slot, Phase::kForward) += 0.5;
      stats_[slot.pid].cpu_seconds += 0.5;
    }
    In(board_[0], Phase::kStragglerWait) += late_seconds;
    In(board_[1], where) += late_seconds;
    stats_[101].state = stopped ? 'T' : 'R';
    counts_.steps += 10;
    counts_.slowest_steps[late_seconds > 0 ? 1 : 0] += 10;
    Look();
  }
  void Look() { watch_.Look(now_, attempt_, board_, counts_, gpus_); }

  double now_ = 1000;
  int attempt_ = 1;
  std::vector<config::RankState> board_;
  std::map<int64_t, ProcessStat> stats_;
  std::map<int, metrics::GpuReading> gpus_;
  ArrivalCounts counts_;
  RankWatch watch_{[this](int64_t pid, uint64_t) -> std::optional<ProcessStat> {
    const auto found = stats_.find(pid);
    return found == stats_.end() ? std::nullopt : std::optional(found->second);
  }};
};

TEST_F(RankWatchTest, NamesARankAfterTenSecondsAndForgetsItAMinuteAfterItRecovered) {
  for (int i = 0; i < 10; ++i) Second(0.5, Phase::kDataWait);
  EXPECT_EQ(watch_.straggler().rank, -1) << "nine seconds of steps";
  Second(0.5, Phase::kDataWait);
  EXPECT_EQ(watch_.straggler().rank, 1);
  EXPECT_EQ(watch_.straggler().cause, StragglerCause::kDataLoader);
  EXPECT_NEAR(watch_.straggler().seconds_per_step, 0.05, 1e-9);
  EXPECT_DOUBLE_EQ(watch_.straggler().share, 1);
  for (int i = 0; i < 61; ++i) Second(0, Phase::kDataWait);
  EXPECT_EQ(watch_.straggler().rank, -1);
}

TEST_F(RankWatchTest, TheWindowIsTheLastMinute) {
  for (int i = 0; i < 300; ++i) Second(0, Phase::kForward);
  for (int i = 0; i < 59; ++i) Second(0.5, Phase::kDataWait);
  EXPECT_NEAR(watch_.straggler().share, 59 / 60.0, 1e-9);
}

TEST_F(RankWatchTest, AStoppedProcessIsSeenInItsState) {
  for (int i = 0; i < 20; ++i) Second(0.5, Phase::kForward, i % 2 == 0);
  EXPECT_EQ(watch_.straggler().cause, StragglerCause::kNotRunning);
  EXPECT_NE(watch_.straggler().text.find("is stopped"), std::string::npos)
      << watch_.straggler().text;
}

TEST_F(RankWatchTest, AStarvedProcessIsSeenInItsCpuTime) {
  // Its forward pass takes twice as long with the CPU time of before.
  for (int i = 0; i < 20; ++i) Second(0.5, Phase::kForward);
  EXPECT_EQ(watch_.straggler().cause, StragglerCause::kNotRunning);
  EXPECT_NE(watch_.straggler().text.find("no CPU in 50 %"), std::string::npos)
      << watch_.straggler().text;
}

TEST_F(RankWatchTest, TheOpenPhaseCounts) {
  for (int i = 0; i < 12; ++i) {
    Second(0.5, Phase::kOther);
    // One endless wait for data, of which the finished phases say nothing.
    board_[1].open_phase = Phase::kDataWait;
    board_[1].entered_seconds = 1000;
  }
  EXPECT_EQ(watch_.straggler().cause, StragglerCause::kDataLoader);
}

TEST_F(RankWatchTest, ThrottlingInTheWindowIsTheGpusGrowth) {
  for (int rank = 0; rank < 2; ++rank) gpus_[rank].throttle_seconds["thermal"] = 5000;
  for (int i = 0; i < 20; ++i) {
    stats_[101].cpu_seconds += 0.5;
    gpus_[1].throttle_seconds["thermal"] += 1;
    Second(0.5, Phase::kDevice);
  }
  EXPECT_EQ(watch_.straggler().cause, StragglerCause::kGpuThrottled) << watch_.straggler().text;
}

TEST_F(RankWatchTest, AnotherAttemptBeginsAnew) {
  for (int i = 0; i < 20; ++i) Second(0.5, Phase::kDataWait);
  ASSERT_EQ(watch_.straggler().rank, 1);
  attempt_ = 2;
  counts_ = {0, {0, 0}};
  Look();
  EXPECT_EQ(watch_.straggler().rank, -1);
  Second(0.5, Phase::kDataWait);
  EXPECT_EQ(watch_.straggler().rank, -1) << "too short again";
}

TEST_F(RankWatchTest, SlowStepsGetALongerWindow) {
  // A step in 10 s: a minute holds 6 of them, too few to tell.
  const auto step = [&] {
    now_ += 10;
    In(board_[0], Phase::kForward) += 5;
    In(board_[0], Phase::kStragglerWait) += 5;
    In(board_[1], Phase::kForward) += 5;
    In(board_[1], Phase::kDataWait) += 5;
    counts_.steps += 1;
    counts_.slowest_steps[1] += 1;
    Look();
  };
  for (int i = 0; i < 20; ++i) step();
  EXPECT_EQ(watch_.straggler().rank, -1) << "19 steps in the window";
  step();
  EXPECT_EQ(watch_.straggler().rank, 1);
}

TEST_F(RankWatchTest, AProcessThatCannotBeReadIsStillCompared) {
  stats_.erase(100);
  for (int i = 0; i < 20; ++i) Second(0.5, Phase::kDataWait);
  EXPECT_EQ(watch_.straggler().cause, StragglerCause::kDataLoader);
}

}  // namespace
}  // namespace lockstep::launch

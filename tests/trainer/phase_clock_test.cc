// Every moment of a rank belongs to one phase, on the clock and on the board.
#include "trainer/phase_clock.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <numeric>
#include <thread>

namespace lockstep::trainer {
namespace {

using config::Phase;

class PhaseClockTest : public ::testing::Test {
 protected:
  PhaseClockTest()
      : path_(std::filesystem::temp_directory_path() /
              ("phase-clock-" + std::to_string(getpid()) + ".board")),
        board_(*config::RankBoard::Open(path_, 2)) {
    board_.Claim(1);
  }
  ~PhaseClockTest() override { std::filesystem::remove(path_); }

  static double Pass(int milliseconds) {
    const double before = MonotonicSeconds();
    std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
    return MonotonicSeconds() - before;
  }
  static double Get(const std::array<double, config::kPhaseCount>& seconds, Phase phase) {
    return seconds[static_cast<size_t>(phase)];
  }
  config::RankState OnBoard() const { return (*config::RankBoard::Read(path_))[1]; }

  const std::filesystem::path path_;
  config::RankBoard board_;
};

constexpr double kClose = 2e-3;  // Between two readings of the clock, on a busy machine.

TEST_F(PhaseClockTest, PhasesAddUpToTheTimeSinceTheProcessBegan) {
  PhaseClock clock(&board_, 1);
  clock.SetStep(0);
  clock.Enter(Phase::kForward);
  const double forward = Pass(20);
  clock.Enter(Phase::kOther);
  EXPECT_NEAR(Get(clock.Seconds(), Phase::kForward), forward, kClose);
  EXPECT_NEAR(clock.WallSeconds(), MonotonicSeconds() - ProcessStartSeconds(), kClose);
  const config::RankState shown = OnBoard();
  EXPECT_EQ(Get(shown.phase_seconds, Phase::kForward), Get(clock.Seconds(), Phase::kForward));
  EXPECT_EQ(shown.open_phase, Phase::kOther);
  const double told = std::accumulate(shown.phase_seconds.begin(), shown.phase_seconds.end(), 0.0);
  EXPECT_NEAR(told + ProcessStartSeconds(), shown.entered_seconds, 1e-5);
}

TEST_F(PhaseClockTest, TheWaitForTheSlowestIsTakenOutOfTheReduceOfItsStep) {
  PhaseClock clock(&board_, 1);
  double reduce[3] = {};
  for (int step = 0; step < 3; ++step) {
    clock.SetStep(step);
    clock.Enter(Phase::kAllreduceExposed);
    reduce[step] = Pass(10 * (step + 1));
    clock.Enter(Phase::kOther);
  }
  const double all = reduce[0] + reduce[1] + reduce[2];
  EXPECT_NEAR(OnBoard().unsettled_seconds, all, kClose);
  EXPECT_EQ(Get(OnBoard().phase_seconds, Phase::kAllreduceExposed), 0);
  EXPECT_NEAR(Get(clock.Seconds(), Phase::kAllreduceExposed), all, kClose);
  const double wall = clock.WallSeconds();
  clock.SettleReduce(1, 0.005);  // And of the step before it nobody spoke.
  EXPECT_NEAR(Get(clock.Seconds(), Phase::kStragglerWait), 0.005, 1e-9);
  EXPECT_NEAR(clock.WallSeconds(), wall, kClose) << "moved, not made";
  clock.SettleReduce(2, 1000);  // No more than there was.
  EXPECT_NEAR(Get(clock.Seconds(), Phase::kStragglerWait), 0.005 + reduce[2], kClose);
  clock.SettleAll();
  EXPECT_EQ(OnBoard().unsettled_seconds, 0);
  EXPECT_NEAR(Get(OnBoard().phase_seconds, Phase::kAllreduceExposed), reduce[0] + reduce[1] - 0.005,
              kClose);
}

// A GPU's host waits for a step's kernels while the next step is open already: the wait of one step
// lies in the other one's time.
TEST_F(PhaseClockTest, TheGpusOwnTimesTellWhatItWasWaitedFor) {
  PhaseClock clock(&board_, 1);
  std::array<double, config::kPhaseCount> times{};
  clock.SetStep(0);
  clock.Enter(Phase::kDevice);
  double waited = Pass(2);
  clock.Enter(Phase::kOther);
  clock.SetStep(1);
  clock.Enter(Phase::kDevice);  // Step 0's kernels: a tenth forward, half of it reducing.
  waited += Pass(30);
  times[static_cast<size_t>(Phase::kForward)] = 0.1;
  times[static_cast<size_t>(Phase::kBackward)] = 0.4;
  times[static_cast<size_t>(Phase::kAllreduceExposed)] = 0.5;
  clock.TellDevice(0, times);
  clock.Enter(Phase::kOther);
  EXPECT_NEAR(OnBoard().unsettled_seconds, waited, 2 * kClose);

  clock.SetStep(2);
  clock.Enter(Phase::kDevice);  // Step 1's: nobody knows.
  const double unknown = Pass(10);
  clock.TellDevice(1, {});
  clock.Enter(Phase::kOther);

  const double wall = clock.WallSeconds();
  clock.SettleReduce(0, 0.004);
  EXPECT_NEAR(Get(clock.Seconds(), Phase::kStragglerWait), 0.004, 1e-9);
  EXPECT_NEAR(Get(clock.Seconds(), Phase::kAllreduceExposed), waited * 0.5 - 0.004, 2 * kClose);
  EXPECT_NEAR(Get(clock.Seconds(), Phase::kBackward), waited * 0.4, 2 * kClose);
  EXPECT_NEAR(Get(clock.Seconds(), Phase::kForward), waited * 0.1, 2 * kClose);
  clock.SettleReduce(1, 1000);  // What is not known to be a reduce is no wait for anybody.
  EXPECT_NEAR(Get(clock.Seconds(), Phase::kStragglerWait), 0.004, 1e-9);
  EXPECT_NEAR(Get(OnBoard().phase_seconds, Phase::kForward), waited * 0.1, 2 * kClose);
  EXPECT_NEAR(Get(clock.Seconds(), Phase::kDevice), unknown, 2 * kClose);
  EXPECT_NEAR(clock.WallSeconds(), wall, kClose) << "moved, not made";
  EXPECT_EQ(clock.phase(), Phase::kOther);
}

TEST_F(PhaseClockTest, StepsThatWereMadeBeforeAreRedone) {
  PhaseClock clock(&board_, 1, nullptr, /*redone_until=*/2);
  clock.Enter(Phase::kOther);
  const double before = Pass(5);
  double redone = 0;
  double made = 0;
  double saved = 0;
  for (int step = 1; step < 3; ++step) {
    clock.SetStep(step);
    double& counted = step < 2 ? redone : made;
    clock.Enter(Phase::kBackward);
    counted += Pass(10);
    clock.Enter(Phase::kAllreduceExposed);
    counted += Pass(10);
    clock.Enter(Phase::kCheckpointStall);
    saved += Pass(5);
  }
  clock.SettleAll();
  const auto seconds = clock.Seconds();
  EXPECT_NEAR(Get(seconds, Phase::kRedone), redone, kClose);
  EXPECT_NEAR(Get(seconds, Phase::kBackward) + Get(seconds, Phase::kAllreduceExposed), made,
              kClose);
  EXPECT_NEAR(Get(seconds, Phase::kCheckpointStall), saved, kClose);
  EXPECT_NEAR(Get(seconds, Phase::kOther), before, kClose);
}

}  // namespace
}  // namespace lockstep::trainer

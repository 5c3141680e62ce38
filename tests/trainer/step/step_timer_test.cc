#include "trainer/step/step_timer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/trainer/step/fake_graphs.h"
#include "trainer/step/step_runner.h"

namespace lockstep::trainer {
namespace {

using config::Phase;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// A step as Train() makes it: the GPU needs 1 s a micro-batch forward, 2 s back, 4 s to reduce,
// 8 s to optimize, `idle` before it begins.
class Steps {
 public:
  explicit Steps(FakeGraphs& gpu, int micro_batches = 1)
      : gpu_(gpu),
        micro_batches_(micro_batches),
        timer_(gpu, [this](const std::string& line) { said_.push_back(line); }),
        runner_(gpu, timer_, config::Use::kAuto, [](const std::string&) {}) {}

  void Run(int64_t step) {
    timer_.Begin(step);
    gpu_.Work(idle);
    runner_.Run([this] {
      for (int i = 0; i < micro_batches_; ++i) {
        timer_.Mark(Phase::kForward);
        gpu_.Work(forward);
        timer_.Mark(Phase::kBackward);
        gpu_.Work(backward);
      }
      timer_.Mark(Phase::kAllreduceExposed);
      gpu_.Work(reduce);
      timer_.Mark(Phase::kOptimizer);
      gpu_.Work(optimizer);
    });
  }
  std::optional<DeviceTimes> Read(int64_t step) { return timer_.Read(step); }
  StepRunner& runner() { return runner_; }
  const std::vector<std::string>& said() const { return said_; }

  double idle = 0, forward = 1, backward = 2, reduce = 4, optimizer = 8;

 private:
  FakeGraphs& gpu_;
  const int micro_batches_;
  std::vector<std::string> said_;
  StepTimer timer_;
  StepRunner runner_;
};

double Get(const std::optional<DeviceTimes>& times, Phase phase) {
  return times ? times->phase_seconds[static_cast<size_t>(phase)] : -1;
}
double Arrival(const std::optional<DeviceTimes>& times) {
  return times ? times->arrival_seconds : -1;
}

TEST(StepTimer, TellsPhasesAndTheWayToTheReduce) {
  FakeGraphs gpu("kernel by kernel");
  Steps steps(gpu);
  steps.Run(0);
  EXPECT_EQ(Get(steps.Read(0), Phase::kForward), 1);
  EXPECT_EQ(Get(steps.Read(0), Phase::kBackward), 2);
  EXPECT_EQ(Get(steps.Read(0), Phase::kAllreduceExposed), 4);
  EXPECT_EQ(Get(steps.Read(0), Phase::kOptimizer), 8);
  EXPECT_EQ(Arrival(steps.Read(0)), 1 + 2) << "there is no step before it";
  steps.idle = 16;
  steps.Run(1);
  EXPECT_EQ(Arrival(steps.Read(1)), 8 + 16 + 1 + 2);
  EXPECT_EQ(Get(steps.Read(1), Phase::kOther), 0);
}

TEST(StepTimer, MicroBatchesAddUp) {
  FakeGraphs gpu;
  Steps steps(gpu, 3);
  for (int64_t step = 0; step < 8; ++step) steps.Run(step);
  EXPECT_GT(gpu.replays, 0);
  EXPECT_EQ(Get(steps.Read(7), Phase::kForward), 3);
  EXPECT_EQ(Get(steps.Read(7), Phase::kBackward), 6);
}

// As in training: a step's times are read when the next one has been enqueued.
TEST(StepTimer, EachReplayHasTimesOfItsOwn) {
  FakeGraphs gpu;
  Steps steps(gpu);
  for (int64_t step = 100; step < 120; ++step) {
    steps.forward = static_cast<double>(step);
    steps.reduce = 2 * static_cast<double>(step);
    steps.Run(step);
    if (step == 100) continue;
    const double before = static_cast<double>(step - 1);
    EXPECT_EQ(Get(steps.Read(step - 1), Phase::kForward), before);
    EXPECT_EQ(Get(steps.Read(step - 1), Phase::kAllreduceExposed), 2 * before);
    EXPECT_EQ(Arrival(steps.Read(step - 1)), before + 2 + (step == 101 ? 0 : 8)) << step;
  }
  EXPECT_GT(gpu.replays, 10);
  EXPECT_EQ(Get(steps.Read(119), Phase::kForward), 119);
  EXPECT_FALSE(steps.Read(50)) << "never made";
  EXPECT_FALSE(steps.Read(-1));
}

TEST(StepTimer, ABodyThatIsCapturedAnewIsTimedAnew) {
  FakeGraphs gpu;
  Steps steps(gpu);
  for (int64_t step = 0; step < 10; ++step) steps.Run(step);
  steps.runner().Restart();
  for (int64_t step = 10; step < 20; ++step) {
    steps.backward = 3;
    steps.Run(step);
    EXPECT_EQ(Get(steps.Read(step), Phase::kBackward), 3);
    EXPECT_EQ(Arrival(steps.Read(step)), 8 + 1 + 3);
  }
  EXPECT_EQ(gpu.captures, 2);
}

TEST(StepTimer, AStepThatCannotBeCapturedIsTimedAsItRuns) {
  FakeGraphs gpu("operation not permitted");
  Steps steps(gpu);
  for (int64_t step = 0; step < 10; ++step) {
    steps.Run(step);
    EXPECT_EQ(Get(steps.Read(step), Phase::kBackward), 2) << step;
  }
  EXPECT_EQ(gpu.captures, 1);
}

TEST(StepTimer, WithoutTimesTheStepsGoOnAndThatIsSaidOnce) {
  for (const bool at_first : {false, true}) {
    FakeGraphs gpu;
    gpu.stamps_fail = at_first;
    gpu.restamps_fail = !at_first;
    Steps steps(gpu);
    for (int64_t step = 0; step < 10; ++step) steps.Run(step);
    EXPECT_GT(gpu.replays, 5);
    EXPECT_FALSE(steps.Read(9));
    EXPECT_THAT(steps.said(), ElementsAre(HasSubstr(at_first ? "no stamps" : "no other event")));
  }
}

TEST(StepTimer, TheCpuIsLeftAlone) {
  const auto cpu = OpenCpu();
  std::vector<std::string> said;
  StepTimer timer(*cpu, [&](const std::string& line) { said.push_back(line); });
  timer.Begin(0);
  for (const Phase phase : {Phase::kForward, Phase::kAllreduceExposed, Phase::kOptimizer}) {
    timer.Mark(phase);
  }
  EXPECT_FALSE(timer.Read(0));
  EXPECT_THAT(said, IsEmpty());
}

}  // namespace
}  // namespace lockstep::trainer

#include "trainer/step/step_runner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "tests/trainer/step/fake_graphs.h"

namespace lockstep::trainer {
namespace {

using config::Use;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct Ran {
  int bodies = 0;  // Run, or captured.
  std::vector<std::string> said;
};

Ran RunTen(Device& device, Use use) {
  Ran ran;
  StepTimer timer(device, [](const std::string&) {});
  StepRunner runner(device, timer, use, [&](const std::string& line) { ran.said.push_back(line); });
  for (int i = 0; i < 10; ++i) {
    timer.Begin(i);
    runner.Run([&] { ++ran.bodies; });
  }
  return ran;
}

TEST(StepRunnerTest, OnTheCpuTheStepRunsAsItStands) {
  const auto cpu = OpenCpu();
  const Ran ran = RunTen(*cpu, Use::kAlways);
  EXPECT_EQ(ran.bodies, 10);
  EXPECT_TRUE(ran.said.empty());
}

TEST(StepRunnerTest, AGraphTakesOverAfterTheWarmUp) {
  FakeGraphs gpu;
  const Ran ran = RunTen(gpu, Use::kAuto);
  EXPECT_EQ(gpu.captures, 1);
  EXPECT_EQ(ran.bodies, gpu.captures + 10 - gpu.replays) << "each step once";
  EXPECT_GE(ran.bodies, 3);
  EXPECT_GE(gpu.replays, 5);
  EXPECT_THAT(ran.said, ElementsAre(HasSubstr("one CUDA graph")));
}

TEST(StepRunnerTest, FallsBackOnceAndSaysWhy) {
  FakeGraphs gpu("operation not permitted when stream is capturing");
  const Ran ran = RunTen(gpu, Use::kAuto);
  EXPECT_EQ(gpu.captures, 1);
  EXPECT_EQ(ran.bodies, gpu.captures + 10);
  EXPECT_THAT(ran.said, ElementsAre(HasSubstr("operation not permitted")));
}

TEST(StepRunnerTest, NeverMeansNever) {
  FakeGraphs gpu;
  EXPECT_EQ(RunTen(gpu, Use::kNever).bodies, 10);
  EXPECT_EQ(gpu.captures, 0);
}

TEST(StepRunnerTest, AlwaysRefusesToFallBack) {
  FakeGraphs gpu("no");
  EXPECT_THROW(RunTen(gpu, Use::kAlways), std::runtime_error);
}

}  // namespace
}  // namespace lockstep::trainer

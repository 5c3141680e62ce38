#include "trainer/step/step_runner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <stdexcept>
#include <vector>

namespace lockstep::trainer {
namespace {

using config::Use;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A "GPU" that can capture, or refuses to. Its graph runs the step it captured.
class CapturingDevice : public Device {
 public:
  explicit CapturingDevice(std::string refusal = "") : refusal_(std::move(refusal)) {}
  at::Device torch() const override { return at::Device(at::kCUDA, 0); }
  std::string Describe() const override { return "a stand-in"; }
  std::string Name() const override { return "a stand-in"; }
  std::string Uuid() const override { return "GPU-0"; }
  int64_t FreeBytes() const override { return 0; }
  StreamHandle CurrentStream() override { return nullptr; }
  StreamHandle SideStream() override { return nullptr; }
  EventHandle NewEvent() override { return nullptr; }
  void Record(EventHandle event, StreamHandle stream) override {}
  void StreamWait(StreamHandle stream, EventHandle event) override {}
  bool Done(EventHandle event) override { return true; }
  std::unique_ptr<StepGraph> Capture(const std::function<void()>& step) override {
    ++captures;
    if (!refusal_.empty()) throw std::runtime_error(refusal_);
    struct Graph : StepGraph {
      explicit Graph(int& replays) : replays(replays) {}
      void Replay() override { ++replays; }
      int& replays;
    };
    return std::make_unique<Graph>(replays);
  }
  int captures = 0;
  int replays = 0;

 private:
  std::string refusal_;
};

struct Ran {
  int eager = 0;
  std::vector<std::string> said;
};

Ran RunTen(Device& device, Use use) {
  Ran ran;
  StepRunner runner(device, use, [&](const std::string& line) { ran.said.push_back(line); });
  for (int i = 0; i < 10; ++i) runner.Run([&] { ++ran.eager; });
  return ran;
}

TEST(StepRunnerTest, OnTheCpuTheStepRunsAsItStands) {
  const auto cpu = OpenCpu();
  const Ran ran = RunTen(*cpu, Use::kAlways);
  EXPECT_EQ(ran.eager, 10);
  EXPECT_TRUE(ran.said.empty());
}

TEST(StepRunnerTest, AGraphTakesOverAfterTheWarmUp) {
  CapturingDevice gpu;
  const Ran ran = RunTen(gpu, Use::kAuto);
  EXPECT_EQ(gpu.captures, 1);
  EXPECT_EQ(ran.eager + gpu.replays, 10) << "each step once";
  EXPECT_GE(ran.eager, 2);
  EXPECT_GE(gpu.replays, 5);
  EXPECT_THAT(ran.said, ElementsAre(HasSubstr("one CUDA graph")));
}

TEST(StepRunnerTest, FallsBackOnceAndSaysWhy) {
  CapturingDevice gpu("operation not permitted when stream is capturing");
  const Ran ran = RunTen(gpu, Use::kAuto);
  EXPECT_EQ(gpu.captures, 1);
  EXPECT_EQ(ran.eager, 10);
  EXPECT_THAT(ran.said, ElementsAre(HasSubstr("operation not permitted")));
}

TEST(StepRunnerTest, NeverMeansNever) {
  CapturingDevice gpu;
  EXPECT_EQ(RunTen(gpu, Use::kNever).eager, 10);
  EXPECT_EQ(gpu.captures, 0);
}

TEST(StepRunnerTest, AlwaysRefusesToFallBack) {
  CapturingDevice gpu("no");
  EXPECT_THROW(RunTen(gpu, Use::kAlways), std::runtime_error);
}

}  // namespace
}  // namespace lockstep::trainer

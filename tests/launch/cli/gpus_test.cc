// A driver that is asked directly, as `lockstep doctor` does: it may be sick.
#include "launch/cli/gpus.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/metrics/devices/scenario.h"

namespace lockstep::cli {
namespace {

using ::testing::HasSubstr;

TEST(GpusTest, ADriverThatHangsIsNotWaitedForLong) {
  metrics::Scenario scenario("gpus 2\n1.hang 1\n");
  const auto hung = AskNvml(FAKE_NVML, std::chrono::milliseconds(100));
  EXPECT_EQ(hung.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(hung.status().message()), HasSubstr("not answered for 0.1 s"));
  scenario.Set("gpus 2\n");  // Lets it go.
  const auto well = AskNvml(FAKE_NVML);
  ASSERT_TRUE(well.ok()) << well.status();
  EXPECT_EQ(well->gpus.size(), 2u);
}

TEST(GpusTest, NamesTheGpuThatDoesNotAnswer) {
  const metrics::Scenario scenario("gpus 2\n1.fail 15\n");
  EXPECT_EQ(AskNvml(FAKE_NVML).status().message(), "GPU 1: GPU is lost");
}

}  // namespace
}  // namespace lockstep::cli

// The monitor against an NVML that hangs, fails and comes back: it never blocks, and says what is
// the matter. Time passes for real here, in small pieces; nothing depends on how fast.
#include "metrics/devices/device_monitor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <thread>

#include "tests/metrics/devices/scenario.h"

namespace lockstep::metrics {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;
using Clock = std::chrono::steady_clock;

constexpr milliseconds kDeadline{20000};
// Of a call; a busy machine keeps a call that does not hang from its answer for less.
constexpr milliseconds kTimeout{500};

class DeviceMonitorTest : public ::testing::Test {
 protected:
  std::unique_ptr<DeviceMonitor> Start(const std::string& text,
                                       const std::string& library = FAKE_NVML) {
    scenario_.Set(text);
    DeviceMonitor::Options options;
    options.nvml_library = library;
    options.powercap = "/none";
    options.period = milliseconds(5);
    options.timeout = kTimeout;
    return DeviceMonitor::Start(options);
  }

  // The first readings that are so.
  static DeviceReadings WaitUntil(const DeviceMonitor& monitor,
                                  const std::function<bool(const DeviceReadings&)>& so) {
    const auto deadline = Clock::now() + kDeadline;
    DeviceReadings readings = monitor.Newest();
    while (!so(readings) && Clock::now() < deadline) {
      std::this_thread::sleep_for(milliseconds(2));
      readings = monitor.Newest();
    }
    EXPECT_TRUE(so(readings)) << readings.nvml_trouble;
    return readings;
  }

  Scenario scenario_;
};

TEST_F(DeviceMonitorTest, ShowsTheNewestRound) {
  const auto monitor = Start("gpus 2\nutilization 50\n");
  ASSERT_TRUE(monitor->WaitForRounds(1, kDeadline));
  const DeviceReadings first = monitor->Newest();
  ASSERT_EQ(first.gpus.size(), 2u);
  EXPECT_EQ(first.gpus[0].utilization_ratio, 0.5);
  EXPECT_GT(first.read_seconds, 0);
  EXPECT_EQ(first.failed_rounds, 0);
  EXPECT_FALSE(first.stale);
  EXPECT_EQ(first.nvml_trouble, "");
  scenario_.Set("gpus 2\nutilization 80\n");
  const DeviceReadings later = WaitUntil(*monitor, [](const DeviceReadings& readings) {
    return readings.gpus[1].utilization_ratio == 0.8;
  });
  EXPECT_GT(later.gpus[1].energy_joules, 0);
  EXPECT_FALSE(later.gpus[1].energy_estimated);
}

TEST_F(DeviceMonitorTest, ACallThatHangsMakesAllStaleAndGoesOnWhenItReturns) {
  const auto monitor = Start("gpus 2\n");
  ASSERT_TRUE(monitor->WaitForRounds(3, kDeadline));
  const auto begin = Clock::now();
  scenario_.Set("gpus 2\n1.hang 1\n");
  const DeviceReadings hung =
      WaitUntil(*monitor, [](const DeviceReadings& readings) { return readings.stale; });
  // The round that hangs may have begun a moment before.
  EXPECT_GE(Clock::now() - begin, kTimeout / 2) << "not before its timeout";
  EXPECT_EQ(hung.gpus.size(), 2u) << "the last word stays";
  EXPECT_GE(hung.failed_rounds, 1);
  for (const GpuReading& gpu : hung.gpus) {
    EXPECT_FALSE(gpu.healthy);
    EXPECT_THAT(gpu.trouble, HasSubstr("NVML has not answered for"));
    EXPECT_THAT(gpu.trouble, HasSubstr("GPU 1"));
    EXPECT_TRUE(gpu.energy_estimated);
  }
  scenario_.Set("gpus 2\n");
  const DeviceReadings back = WaitUntil(*monitor, [&](const DeviceReadings& readings) {
    EXPECT_GE(readings.failed_rounds, hung.failed_rounds) << "a round that was late has failed";
    return !readings.stale && readings.rounds > hung.rounds;
  });
  EXPECT_TRUE(back.gpus[0].healthy) << back.gpus[0].trouble;
  EXPECT_FALSE(back.gpus[0].energy_estimated) << "the counter covers the gap";
  EXPECT_GE(back.gpus[0].energy_joules, hung.gpus[0].energy_joules);
}

TEST_F(DeviceMonitorTest, NobodyWaitsForAHungCall) {
  auto monitor = Start("gpus 2\nhang 1\n");
  WaitUntil(*monitor, [](const DeviceReadings& readings) { return readings.stale; });
  EXPECT_FALSE(monitor->WaitForRounds(1, milliseconds(1)));
  const auto begin = Clock::now();
  monitor.reset();
  EXPECT_LT(Clock::now() - begin, std::chrono::seconds(5));
  // The thread comes home into a world without its monitor, and another one works.
  scenario_.Set("gpus 1\n");
  monitor = Start("gpus 1\n");
  ASSERT_TRUE(monitor->WaitForRounds(2, kDeadline));
  EXPECT_EQ(monitor->Newest().gpus.size(), 1u);
}

TEST_F(DeviceMonitorTest, NvmlThatHangsAtItsStartIsStaleWithoutGpus) {
  const auto monitor = Start("gpus 1\nhang_init 1\n");
  const DeviceReadings hung =
      WaitUntil(*monitor, [](const DeviceReadings& readings) { return readings.stale; });
  EXPECT_TRUE(hung.gpus.empty());
  EXPECT_THAT(hung.nvml_trouble, HasSubstr("not answered"));
  scenario_.Set("gpus 1\n");
  WaitUntil(*monitor, [](const DeviceReadings& readings) { return readings.gpus.size() == 1; });
}

TEST_F(DeviceMonitorTest, ADriverThatIsLoadedLaterIsFound) {
  const auto monitor = Start("gpus 1\ninit 9\n");
  ASSERT_TRUE(monitor->WaitForRounds(1, kDeadline));
  const DeviceReadings without = monitor->Newest();
  EXPECT_EQ(without.nvml_trouble, "Driver Not Loaded");
  EXPECT_EQ(without.failed_rounds, without.rounds);
  scenario_.Set("gpus 1\n");
  const DeviceReadings with =
      WaitUntil(*monitor, [](const DeviceReadings& readings) { return readings.gpus.size() == 1; });
  EXPECT_EQ(with.nvml_trouble, "");
}

TEST_F(DeviceMonitorTest, ADriverThatWasTakenAwayIsFoundAgain) {
  const auto monitor = Start("gpus 1\n");
  ASSERT_TRUE(monitor->WaitForRounds(2, kDeadline));
  // Every call fails until NVML is started anew, which fails too.
  scenario_.Set("gpus 1\nfail 999\ninit 9\n");
  const DeviceReadings gone = WaitUntil(*monitor, [](const DeviceReadings& readings) {
    return readings.nvml_trouble == "Driver Not Loaded";
  });
  ASSERT_EQ(gone.gpus.size(), 1u);
  EXPECT_FALSE(gone.gpus[0].healthy);
  EXPECT_TRUE(gone.gpus[0].energy_estimated);
  scenario_.Set("gpus 1\n");
  const DeviceReadings back =
      WaitUntil(*monitor, [](const DeviceReadings& readings) { return readings.gpus[0].healthy; });
  EXPECT_GE(back.gpus[0].energy_joules, gone.gpus[0].energy_joules);
}

TEST_F(DeviceMonitorTest, AHostWithoutTheLibraryHasNoGpusAndSaysWhy) {
  const auto monitor = Start("", "libnvidia-ml-none.so.1");
  EXPECT_FALSE(monitor->WaitForRounds(1, kDeadline));
  const DeviceReadings readings = monitor->Newest();
  EXPECT_TRUE(readings.gpus.empty());
  EXPECT_FALSE(readings.stale);
  EXPECT_EQ(readings.failed_rounds, 0);
  EXPECT_THAT(readings.nvml_trouble, HasSubstr("libnvidia-ml-none.so.1"));
}

TEST_F(DeviceMonitorTest, WithoutRaplSaysWhy) {
  const auto monitor = Start("gpus 0\n");
  const DeviceReadings readings = WaitUntil(
      *monitor, [](const DeviceReadings& now) { return now.cpu_energy_trouble != "not read yet"; });
  EXPECT_EQ(readings.cpu_energy_joules, std::nullopt);
  EXPECT_THAT(readings.cpu_energy_trouble, HasSubstr("/none"));
}

}  // namespace
}  // namespace lockstep::metrics

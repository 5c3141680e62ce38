// Rounds over the fake NVML at chosen times: what is read, what adds up, and what goes missing.
#include "metrics/devices/gpu_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "metrics/devices/xid.h"
#include "tests/metrics/devices/scenario.h"

namespace lockstep::metrics {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class GpuReaderTest : public ::testing::Test {
 protected:
  void Open(const std::string& text, const char* library = FAKE_NVML) {
    scenario_.Set(text);
    reader_ = std::make_unique<GpuReader>(library);
    ASSERT_TRUE(reader_->Open().ok());
  }
  // A round at `now`; the readings after it.
  std::vector<GpuReading> Round(double now, const std::string& text) {
    scenario_.Set(text);
    reader_->Read(now, [](int) {});
    return reader_->readings();
  }

  Scenario scenario_;
  std::unique_ptr<GpuReader> reader_;
};

TEST_F(GpuReaderTest, ReadsEveryFieldInBaseUnits) {
  const std::string text =
      "gpus 2\n1.name NVIDIA A2\nutilization 97\nmemory_used 2000000000\nmemory_total 8000000000\n"
      "temperature 71\npower 345.5\npower_limit 700\nsm_clock 1755\nmemory_clock 2619\n"
      "1.pcie_width 8\npcie_generation 4\n";
  Open(text);
  const std::vector<GpuReading> gpus = Round(1, text);
  ASSERT_EQ(gpus.size(), 2u);
  EXPECT_EQ(gpus[0].name, "NVIDIA H100 80GB HBM3");
  EXPECT_EQ(gpus[1].name, "NVIDIA A2");
  EXPECT_EQ(gpus[1].index, 1);
  EXPECT_EQ(gpus[1].uuid, "GPU-00000000-0000-0000-0000-000000000001");
  EXPECT_EQ(gpus[1].pci_bus_id, "00000000:3C:00.0");
  EXPECT_DOUBLE_EQ(gpus[0].utilization_ratio.value(), 0.97);
  EXPECT_EQ(gpus[0].memory_used_bytes, 2e9);
  EXPECT_EQ(gpus[0].memory_total_bytes, 8e9);
  EXPECT_EQ(gpus[0].temperature_celsius, 71);
  EXPECT_DOUBLE_EQ(gpus[0].power_watts.value(), 345.5);
  EXPECT_EQ(gpus[0].power_limit_watts, 700);
  EXPECT_EQ(gpus[0].sm_clock_hertz, 1755e6);
  EXPECT_EQ(gpus[0].memory_clock_hertz, 2619e6);
  EXPECT_EQ(gpus[1].pcie_width, 8);
  EXPECT_EQ(gpus[1].pcie_width_max, 16);
  EXPECT_EQ(gpus[1].pcie_generation, 4);
  EXPECT_EQ(gpus[1].pcie_generation_max, 5);
  EXPECT_TRUE(gpus[0].healthy) << gpus[0].trouble;
}

TEST_F(GpuReaderTest, EnergyIsTheCounterSinceTheBeginning) {
  Open("gpus 1\nenergy 5000000\n");
  EXPECT_EQ(Round(1, "gpus 1\nenergy 5000000\n")[0].energy_joules, 0);
  EXPECT_DOUBLE_EQ(Round(2, "gpus 1\nenergy 5300000\n")[0].energy_joules, 300);
  const GpuReading gpu = Round(500, "gpus 1\nenergy 6000000\n")[0];
  EXPECT_DOUBLE_EQ(gpu.energy_joules, 1000) << "a gap is counted too";
  EXPECT_FALSE(gpu.energy_estimated);
}

TEST_F(GpuReaderTest, ACounterThatRunsBackwardsNeverTakesEnergyAway) {
  Open("gpus 1\nenergy 5000000\n");
  Round(1, "gpus 1\nenergy 5000000\n");
  Round(2, "gpus 1\nenergy 6000000\n");
  const GpuReading reset = Round(3, "gpus 1\npower 200\nenergy 1000\n")[0];
  EXPECT_DOUBLE_EQ(reset.energy_joules, 1200) << "a second at 200 W";
  EXPECT_TRUE(reset.energy_estimated);
  EXPECT_DOUBLE_EQ(Round(4, "gpus 1\nenergy 151000\n")[0].energy_joules, 1350);
}

TEST_F(GpuReaderTest, ACounterThatComesBackMakesTheGapGood) {
  Open("gpus 1\nenergy 5000000\n");
  Round(1, "gpus 1\nenergy 5000000\n");
  Round(2, "gpus 1\nfail 15\n");
  EXPECT_EQ(Round(62, "gpus 1\nfail 15\n")[0].energy_joules, 0) << "nobody knows";
  EXPECT_DOUBLE_EQ(Round(63, "gpus 1\nenergy 23600000\n")[0].energy_joules, 18600);
  // What was estimated meanwhile is not counted again, and not taken back where it was too much.
  EXPECT_DOUBLE_EQ(Round(64, "gpus 1\npower 300\nenergy none\n")[0].energy_joules, 18900);
  EXPECT_DOUBLE_EQ(Round(65, "gpus 1\nenergy 24250000\n")[0].energy_joules, 19250);
  EXPECT_DOUBLE_EQ(Round(66, "gpus 1\npower 300\nenergy none\n")[0].energy_joules, 19550);
  EXPECT_DOUBLE_EQ(Round(67, "gpus 1\nenergy 24300000\n")[0].energy_joules, 19550);
}

TEST_F(GpuReaderTest, ANumberThatBecomesAnotherCardsTakesNothingOver) {
  // A card is lost, and a new session numbers the next one in its place.
  Open("gpus 2\n0.uuid GPU-a\n1.uuid GPU-b\n0.energy 1000\n1.energy 900000\n");
  Round(1, "gpus 2\n0.uuid GPU-a\n1.uuid GPU-b\n0.energy 1000\n1.energy 900000\n0.xid 79\n");
  reader_->Close();
  const std::string text = "gpus 1\n0.uuid GPU-b\n0.energy 900000\n0.xid 79\n";
  scenario_.Set(text);
  ASSERT_TRUE(reader_->Open().ok());
  std::vector<GpuReading> gpus = Round(2, text);
  ASSERT_EQ(gpus.size(), 2u);
  EXPECT_EQ(gpus[0].uuid, "GPU-b");
  EXPECT_EQ(gpus[0].energy_joules, 0) << "two cards' counters have no difference";
  EXPECT_TRUE(gpus[0].healthy) << gpus[0].trouble;
  EXPECT_FALSE(gpus[1].healthy) << "there is no second one any more";
  EXPECT_DOUBLE_EQ(Round(3, "gpus 1\n0.uuid GPU-b\n0.energy 902000\n")[0].energy_joules, 2);
}

TEST_F(GpuReaderTest, WithoutACounterPowerIsIntegrated) {
  const std::string text = "gpus 1\nenergy none\npower 250\n";
  Open(text);
  EXPECT_EQ(Round(10, text)[0].energy_joules, 0);
  Round(11, text);
  const GpuReading gpu = Round(12.5, text)[0];
  EXPECT_DOUBLE_EQ(gpu.energy_joules, 625);
  EXPECT_TRUE(gpu.energy_estimated);
  EXPECT_DOUBLE_EQ(Round(1012.5, text)[0].energy_joules, 625 + 2500) << "a gap counts 10 s";
}

TEST_F(GpuReaderTest, WithoutCounterAndPowerEnergyIsNotKnown) {
  const std::string text = "gpus 1\nenergy none\npower none\n";
  Open(text);
  Round(1, text);
  const GpuReading gpu = Round(2, text)[0];
  EXPECT_EQ(gpu.energy_joules, 0);
  EXPECT_TRUE(gpu.energy_estimated);
  EXPECT_EQ(gpu.power_watts, std::nullopt);
  EXPECT_TRUE(gpu.healthy);
}

TEST_F(GpuReaderTest, SecondsOfThrottlingGoToTheirReasons) {
  Open("gpus 1\n");
  GpuReading gpu = Round(1, "gpus 1\nthrottle 0x4\n")[0];
  for (const char* reason : kThrottleReasons) EXPECT_EQ(gpu.throttle_seconds.at(reason), 0);
  Round(2, "gpus 1\nthrottle 0x4\n");     // Power cap.
  Round(4, "gpus 1\nthrottle 0x48\n");    // Heat, which sets hardware slowdown too.
  Round(5, "gpus 1\nthrottle 0x3\n");     // Idle, and clocks somebody chose: no throttling.
  Round(8, "gpus 1\nthrottle 0x8\n");     // Hardware slowdown alone.
  Round(12, "gpus 1\nthrottle 0x110\n");  // Sync boost, and a bit of no other name.
  gpu = Round(17, "gpus 1\nthrottle 0x80\n")[0];
  EXPECT_EQ(gpu.throttle_seconds, (std::map<std::string, double>{{"power", 1},
                                                                 {"thermal", 2},
                                                                 {"hardware_slowdown", 3},
                                                                 {"sync_boost", 4},
                                                                 {"other", 4},
                                                                 {"power_brake", 5}}));
  EXPECT_THAT(gpu.throttled_by, ElementsAre("power_brake"));
}

TEST_F(GpuReaderTest, WhatIsNotSupportedIsLeftOutAndNothingElse) {
  // A GPU that is divided by MIG tells no utilisation; a laptop's no power limit; a virtual one no
  // memory, clock or link.
  const std::string text =
      "gpus 1\nutilization none\npower_limit none\nmemory_total none\nsm_clock none\n"
      "pcie_width none\nthrottle none\ntemperature none\nxid none\n";
  Open(text);
  const GpuReading gpu = Round(1, text)[0];
  EXPECT_EQ(gpu.utilization_ratio, std::nullopt);
  EXPECT_EQ(gpu.power_limit_watts, std::nullopt);
  EXPECT_EQ(gpu.memory_total_bytes, std::nullopt);
  EXPECT_EQ(gpu.sm_clock_hertz, std::nullopt);
  EXPECT_EQ(gpu.temperature_celsius, std::nullopt);
  EXPECT_EQ(gpu.pcie_width, 0);
  EXPECT_EQ(gpu.memory_clock_hertz, 2619e6);
  EXPECT_EQ(gpu.power_watts, 300);
  EXPECT_TRUE(gpu.healthy);
}

TEST_F(GpuReaderTest, AnOldDriverLacksFunctions) {
  const std::string text = "gpus 1\nthrottle 0x4\nxid 31\n";
  Open(text, FAKE_NVML_OLD);
  Round(1, text);
  const GpuReading gpu = Round(2, text)[0];
  EXPECT_DOUBLE_EQ(gpu.energy_joules, 300);
  EXPECT_TRUE(gpu.energy_estimated);
  EXPECT_EQ(gpu.throttle_seconds.at("power"), 1);
  EXPECT_EQ(gpu.xid_errors, 1);
}

TEST_F(GpuReaderTest, ALostGpuIsUnhealthyUntilItAnswersAndTheOthersGoOn) {
  Open("gpus 3\nenergy 0\n");
  Round(1, "gpus 3\nenergy 0\n");
  std::vector<GpuReading> gpus = Round(2, "gpus 3\nenergy 1000\n1.fail 15\n");
  EXPECT_FALSE(gpus[1].healthy);
  EXPECT_EQ(gpus[1].trouble, "NVML: GPU is lost");
  EXPECT_EQ(gpus[1].power_watts, std::nullopt);
  EXPECT_EQ(gpus[1].name, "NVIDIA H100 80GB HBM3") << "it is still known by name";
  EXPECT_TRUE(gpus[0].healthy && gpus[2].healthy);
  EXPECT_EQ(gpus[2].energy_joules, 1);
  EXPECT_TRUE(gpus[1].energy_estimated);
  EXPECT_FALSE(gpus[0].energy_estimated);
  gpus = Round(3, "gpus 3\nenergy 1000\n");
  EXPECT_TRUE(gpus[1].healthy) << gpus[1].trouble;
  EXPECT_EQ(gpus[1].power_watts, 300);
}

TEST_F(GpuReaderTest, AGpuThatIsLostFromTheBeginningIsShownAsSuch) {
  Open("gpus 2\n0.fail 15\n");
  std::vector<GpuReading> gpus = Round(1, "gpus 2\n0.fail 15\n");
  ASSERT_EQ(gpus.size(), 2u);
  EXPECT_FALSE(gpus[0].healthy);
  EXPECT_TRUE(gpus[1].healthy);
  EXPECT_EQ(Round(2, "gpus 2\n")[0].name, "NVIDIA H100 80GB HBM3");
}

TEST_F(GpuReaderTest, XidsAreCountedAndFatalOnesStay) {
  Open("gpus 2\n");
  std::vector<GpuReading> gpus = Round(1, "gpus 2\n1.xid 31\n1.xid 43\n");
  EXPECT_EQ(gpus[1].xid_errors, 2);
  EXPECT_EQ(gpus[1].last_xid, 43);
  EXPECT_TRUE(gpus[1].healthy) << "a program's bug";
  EXPECT_EQ(gpus[0].xid_errors, 0);
  const std::string fatal = "gpus 2\n1.xid 31\n1.xid 43\n1.xid 79\n";
  gpus = Round(2, fatal);
  EXPECT_EQ(gpus[1].xid_errors, 3);
  EXPECT_FALSE(gpus[1].healthy);
  EXPECT_THAT(gpus[1].trouble, HasSubstr("XID 79: it has fallen off the bus"));
  EXPECT_TRUE(gpus[0].healthy);
  gpus = Round(3, fatal);
  EXPECT_FALSE(gpus[1].healthy) << "only a reset ends it";
  EXPECT_EQ(gpus[1].xid_errors, 3) << "each is told once";
}

TEST(XidTest, ThoseThatNeedAResetAreFatal) {
  for (const int fatal : {46, 48, 62, 64, 74, 79, 95, 110, 119, 120, 136, 140, 143, 158}) {
    EXPECT_NE(FatalXid(fatal), nullptr) << fatal;
  }
  // A program's bugs, contained errors, news.
  for (const int harmless : {0, 13, 31, 43, 45, 63, 68, 92, 94, 109, 154, 155, 156}) {
    EXPECT_EQ(FatalXid(harmless), nullptr) << harmless;
  }
}

TEST_F(GpuReaderTest, WhatHasAddedUpOutlivesASession) {
  Open("gpus 1\nenergy 1000\n");
  Round(1, "gpus 1\nenergy 1000\n");
  Round(2, "gpus 1\nenergy 9000\n");
  reader_->Close();
  ASSERT_TRUE(reader_->Open().ok());
  EXPECT_DOUBLE_EQ(Round(3, "gpus 1\nenergy 10000\n")[0].energy_joules, 9);
}

TEST_F(GpuReaderTest, SaysWhyThereIsNoNvml) {
  EXPECT_TRUE(absl::IsNotFound(GpuReader("/none/libnvidia-ml.so.1").Open()));
  scenario_.Set("init 9\n");
  const absl::Status status = GpuReader(FAKE_NVML).Open();
  EXPECT_TRUE(absl::IsUnavailable(status));
  EXPECT_EQ(status.message(), "Driver Not Loaded");
}

}  // namespace
}  // namespace lockstep::metrics

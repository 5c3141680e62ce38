// Runs that a person started under mpirun on GPUs, over the fake NVML: they cost what the daemon's
// own runs on those GPUs cost.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "metrics/devices/device_monitor.h"
#include "service_fixture.h"
#include "tests/metrics/devices/scenario.h"

namespace lockstep::launch {
namespace {

using ::testing::ElementsAre;

constexpr const char* kGpu1 = "GPU-00000000-0000-0000-0000-000000000001";

class ExternalGpuTest : public ServiceTest {
 protected:
  ExternalGpuTest() : scenario_("gpus 2\nname NVIDIA H200\n1.name NVIDIA A100\npower 5000\n") {
    metrics::DeviceMonitor::Options monitoring;
    monitoring.nvml_library = FAKE_NVML;
    monitoring.powercap = folder_.path() / "no-powercap";
    monitoring.period = std::chrono::milliseconds(20);
    monitor_ = metrics::DeviceMonitor::Start(monitoring);
    EXPECT_TRUE(monitor_->WaitForRounds(1, std::chrono::seconds(20)));
    options_.devices = [this] {
      metrics::DeviceReadings readings = monitor_->Newest();
      const auto now = std::chrono::steady_clock::now();
      const double seconds = std::chrono::duration<double>(now - began_).count();
      readings.cpu_energy_joules = kHostCpuWatts * seconds;
      for (metrics::GpuReading& gpu : readings.gpus) gpu.energy_joules += kUsedBefore;
      return readings;
    };
    // For one rank a second.
    options_.coordinator.price.devices = {
        {.device = "*A100*", .host = "*", .hours = "", .per_hour = 2 * 3600.0},
        {.device = "*GH200*", .host = "*", .hours = "", .per_hour = 3 * 3600.0},
        {.device = "cpu", .host = "*", .hours = "", .per_hour = 5 * 3600.0}};
    options_.coordinator.price.power = {.cpu_rank_watts = 1, .gpu_watts = 30};
  }
  ~ExternalGpuTest() override { StopDaemon(); }  // Before the monitor goes.

  // Of ranks on these hosts; their processes live as long as this one.
  static v1::Hello HelloFrom(const std::vector<std::string>& hosts) {
    v1::Hello hello;
    hello.set_run_dir("/tmp/by-hand");
    hello.set_world_size(static_cast<int>(hosts.size()));
    for (const std::string& host : hosts) {
      hello.add_pids(getpid());
      hello.add_hosts(host);
    }
    hello.set_config_yaml(kYaml);
    return hello;
  }
  static void AddDevice(v1::Hello& hello, const std::string& name, const std::string& uuid) {
    v1::RankDevice* device = hello.add_devices();
    device->set_name(name);
    device->set_uuid(uuid);
  }
  v1::GetCostResponse CostByRank(const std::string& run) {
    v1::GetCostRequest request;
    request.set_by(v1::COST_GROUPING_RANK);
    v1::GetCostResponse response;
    EXPECT_TRUE(Call(&v1::ControlService::Stub::GetCost, request, run, response).ok());
    return response;
  }
  static double PricePerSecond(const v1::CostLine& line) {
    return static_cast<double>(line.hardware_micros()) /
           static_cast<double>(line.rank_microseconds());
  }

  static constexpr double kHostCpuWatts = 400;
  static constexpr double kUsedBefore = 1e9;  // Joules of each GPU, since the daemon started.
  const std::chrono::steady_clock::time_point began_ = std::chrono::steady_clock::now();
  metrics::Scenario scenario_;
  std::unique_ptr<metrics::DeviceMonitor> monitor_;
};

TEST_F(ExternalGpuTest, ARankHasThePriceAndTheMeterOfTheGpuItToldOf) {
  v1::Hello hello = HelloFrom({"here"});
  AddDevice(hello, "a name of its own", kGpu1);
  FakeRank rank(channel_, hello, nullptr);
  ASSERT_TRUE(rank.AwaitWelcome());
  // An estimate is 30 W; what is metered comes at the second look.
  const v1::Run run =
      AwaitRun(rank.run(), [](const v1::Run& seen) { return seen.spending().watts() > 1000; });
  EXPECT_THAT(run.devices(), ElementsAre("NVIDIA A100"));
  EXPECT_NEAR(run.spending().cost_per_hour(), 2 * 3600, 1e-6);
  const v1::GetCostResponse cost = CostByRank(rank.run());
  ASSERT_EQ(cost.lines_size(), 1);
  EXPECT_NEAR(PricePerSecond(cost.lines(0)), 2, 0.01);
  grpc::ClientContext context;
  Limit(context);
  v1::GetStatusResponse status;
  ASSERT_TRUE(stub_->GetStatus(&context, {}, &status).ok());
  ASSERT_EQ(status.gpus_size(), 2);
  EXPECT_EQ(status.gpus(0).run(), "") << "nobody told of it";
  EXPECT_EQ(status.gpus(1).run(), rank.run());
}

TEST_F(ExternalGpuTest, RanksOfOtherHostsCountByTheNameTheyTellAndAreNotMeteredHere) {
  v1::Hello hello = HelloFrom({"here", "there", "there"});
  AddDevice(hello, "NVIDIA A100", kGpu1);
  AddDevice(hello, "NVIDIA \x07GH200", "GPU-12345678-0000-0000-0000-000000000000");
  AddDevice(hello, "", "");
  FakeRank rank(channel_, hello, nullptr);
  ASSERT_TRUE(rank.AwaitWelcome());
  const v1::Run run =
      AwaitRun(rank.run(), [](const v1::Run& seen) { return seen.spending().watts() > 1000; });
  EXPECT_THAT(run.devices(), ElementsAre("NVIDIA A100", "NVIDIA  GH200", "cpu"));
  const v1::GetCostResponse cost = CostByRank(rank.run());
  ASSERT_EQ(cost.lines_size(), 3);
  EXPECT_NEAR(PricePerSecond(cost.lines(0)), 2, 0.01);
  EXPECT_NEAR(PricePerSecond(cost.lines(1)), 3, 0.01);
  EXPECT_NEAR(PricePerSecond(cost.lines(2)), 5, 0.01);
  for (const int other : {1, 2}) {
    const v1::CostLine& line = cost.lines(other);
    const double seconds = 1e-6 * static_cast<double>(line.rank_microseconds());
    EXPECT_TRUE(line.energy_estimated());
    EXPECT_NEAR(1e-6 * static_cast<double>(line.microjoules()), (other == 1 ? 30 : 1) * seconds,
                0.1 * seconds);
  }
}

TEST_F(ExternalGpuTest, ATrainerThatDoesNotTellIsPricedAsBefore) {
  FakeRank rank(channel_, HelloFrom({"here"}), nullptr);
  ASSERT_TRUE(rank.AwaitWelcome());
  const v1::Run run = AwaitRun(rank.run(), [](const v1::Run& seen) { return seen.cost() > 0; });
  EXPECT_THAT(run.devices(), ElementsAre("cpu"));
  EXPECT_NEAR(PricePerSecond(CostByRank(rank.run()).lines(0)), 5, 0.01);
}

TEST_F(ExternalGpuTest, ARunOfTheDaemonOnSlotsThatAreNoGpusHasTheGpusItsRanksToldOf) {
  const std::string id = SubmitOk();
  const auto spec = launcher_.AwaitLaunch(id, 1);
  ASSERT_TRUE(spec.has_value());
  v1::Hello hello = FakeRank::HelloOf(*spec);
  AddDevice(hello, "NVIDIA A100", kGpu1);
  AddDevice(hello, "", "");
  FakeRank rank(channel_, hello, &launcher_);
  ASSERT_TRUE(rank.AwaitWelcome());
  const v1::Run run = AwaitRun(id, [](const v1::Run& seen) {
    return seen.spending().watts() > 1000 && seen.devices_size() == 2 &&
           seen.devices(0) == "NVIDIA A100" && seen.devices(1) == "cpu";
  });
  EXPECT_LT(run.spending().energy_joules(), kUsedBefore / 100) << "from when it was known on";
}

}  // namespace
}  // namespace lockstep::launch

#include "config/coordinator_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

namespace lockstep::config {
namespace {

TEST(CoordinatorConfig, NothingIsAValidConfig) {
  for (const char* text : {"", "# nothing\n", "{}", "---\n"}) {
    const auto loaded = LoadCoordinatorConfig(text, "lockstepd.yaml");
    EXPECT_TRUE(loaded.ok()) << loaded.Report();
    EXPECT_EQ(loaded.config, CoordinatorConfig());
  }
}

TEST(CoordinatorConfig, IsTheSameAfterBeingWrittenAndRead) {
  CoordinatorConfig config;
  config.state_dir = "/var/lib/lock step";
  config.socket = "/run/lockstepd.sock";
  config.tcp_address = "[::1]:7461";
  config.metrics_address = "";
  config.allowed_roots = {"/data", "/home/no one"};
  config.slots = 4;
  config.trainer = "/opt/lockstep-trainer";
  config.allow_root_mpirun = true;
  config.oversubscribe = true;
  config.log_limit_bytes = 1 << 20;
  config.price = {.currency = "EUR", .per_rank_hour = 0.125, .per_kwh = 0.31};
  config.price.devices = {{"*H200*", "node-*", "22:00-06:00", 1.5}, {"cpu", "*", "", 0.02}};
  config.price.energy = {{"*", "22:00-06:00", 0.19}};
  config.price.transfers = {{TransferSource::kCheckpoint, 0.02}, {TransferSource::kAllreduce, 1}};
  config.price.power = {.cpu_rank_watts = 9, .gpu_watts = 700};
  config.budget = {.monthly = 250, .at_limit = LimitAction::kStop};
  const auto loaded = LoadCoordinatorConfig(ToYaml(config), "lockstepd.yaml");
  ASSERT_TRUE(loaded.ok()) << loaded.Report();
  EXPECT_EQ(loaded.config, config);
}

TEST(CoordinatorConfig, PricesAreStrictAndOnlyPricesCanBePassedOn) {
  const auto loaded = LoadCoordinatorConfig(
      "price:\n"
      "  devices:\n"
      "    - {device: cpu}\n"
      "    - {device: cpu, per_hour: 1, hours: 6-22}\n"
      "    - {device: cpu, per_hour: 1, hours: \"06:00-24:00\"}\n"
      "  transfers:\n"
      "    - {source: internet, per_gb: 1}\n",
      "lockstepd.yaml");
  EXPECT_EQ(loaded.problems.size(), 3u) << loaded.Report();
  EXPECT_THAT(loaded.Report(), testing::HasSubstr("3:7: price.devices[0].per_hour"));
  EXPECT_THAT(loaded.Report(), testing::HasSubstr("hours such as 22:00-06:00"));
  EXPECT_THAT(loaded.Report(), testing::HasSubstr("price.transfers[0].source"));

  PriceConfig prices;
  prices.per_rank_hour = 0.25;
  prices.devices = {{"*A100*", "*", "", 2}};
  const std::string yaml = PriceYaml(prices);
  const auto back = LoadCoordinatorConfig(yaml, "prices");
  ASSERT_TRUE(back.ok()) << back.Report() << yaml;
  EXPECT_EQ(back.config.price, prices);
  EXPECT_EQ(yaml.find("state_dir"), std::string::npos) << yaml;
}

TEST(CoordinatorConfig, TcpIsLoopbackOnly) {
  for (const char* good : {"127.0.0.1:7461", "127.1.2.3:0", "localhost:80", "'[::1]:65535'"}) {
    const auto loaded =
        LoadCoordinatorConfig("tcp_address: " + std::string(good) + "\n", "lockstepd.yaml");
    EXPECT_TRUE(loaded.ok()) << loaded.Report();
  }
  for (const char* bad : {"0.0.0.0:7461", "192.168.1.2:7461", "'[::]:7461'", "'[fe80::1]:1'"}) {
    const auto loaded =
        LoadCoordinatorConfig("tcp_address: " + std::string(bad) + "\n", "lockstepd.yaml");
    ASSERT_EQ(loaded.problems.size(), 1u) << bad;
    EXPECT_THAT(loaded.Report(), testing::HasSubstr("lockstepd.yaml:1:1: tcp_address:"));
    EXPECT_THAT(loaded.Report(), testing::HasSubstr("loopback")) << bad;
  }
}

TEST(CoordinatorConfig, AddressesNeedAHostAndAPort) {
  for (const char* bad : {"7461", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536",
                          "127.0.0.1:-1", "127.0.0.256:1", "127.0.0.1.example.com:1", ":1",
                          "'::1:80'", "example.com:80", "127.1:80", "http://127.0.0.1:80"}) {
    for (const char* key : {"tcp_address", "metrics_address"}) {
      const std::string text = std::string(key) + ": \"" + bad + "\"\n";
      const auto loaded = LoadCoordinatorConfig(text, "lockstepd.yaml");
      EXPECT_FALSE(loaded.ok()) << text;
      EXPECT_THAT(loaded.Report(), testing::HasSubstr("127.0.0.1:PORT")) << text;
    }
  }
  EXPECT_TRUE(LoadCoordinatorConfig("metrics_address: 0.0.0.0:9464\n", "l").ok());
}

TEST(CoordinatorConfig, RefusesWithPlaceAndHint) {
  const auto loaded = LoadCoordinatorConfig(
      "slot: 4\n"
      "slots: 0\n"
      "allowed_roots: [/data, data]\n"
      "log_limit_bytes: 10\n"
      "price:\n"
      "  currency: euro\n"
      "  per_rank_hour: -1\n"
      "oversubscribe: yes\n",
      "lockstepd.yaml");
  std::vector<std::string> places;
  for (const Problem& problem : loaded.problems) {
    places.push_back(std::to_string(problem.line) + ":" + std::to_string(problem.column) + " " +
                     problem.path);
    EXPECT_FALSE(problem.hint.empty()) << problem.ToString();
  }
  EXPECT_THAT(places, testing::ElementsAre("1:1 slot", "2:8 slots", "3:1 allowed_roots[1]",
                                           "4:18 log_limit_bytes", "6:13 price.currency",
                                           "7:18 price.per_rank_hour", "8:16 oversubscribe"));
}

TEST(CoordinatorConfig, ASocketPathMustFitTheKernel) {
  EXPECT_TRUE(LoadCoordinatorConfig("socket: /" + std::string(106, 's') + "\n", "l").ok());
  EXPECT_FALSE(LoadCoordinatorConfig("socket: /" + std::string(107, 's') + "\n", "l").ok());
}

TEST(CoordinatorConfig, TakesOverrides) {
  const auto loaded = LoadCoordinatorConfig(
      "slots: 2\n", "lockstepd.yaml",
      {{"slots", "8", "--set"}, {"price.per_rank_hour", "0.5", "environment"}});
  ASSERT_TRUE(loaded.ok()) << loaded.Report();
  EXPECT_EQ(loaded.config.slots, 8);
  EXPECT_EQ(loaded.config.price.per_rank_hour, 0.5);
}

class Environment : public testing::Test {
 protected:
  void SetUp() override {
    for (const char* name : {"LOCKSTEP_STATE_DIR", "LOCKSTEP_SOCKET", "XDG_STATE_HOME"}) {
      unsetenv(name);
    }
    setenv("HOME", "/home/me", 1);
  }
};

TEST_F(Environment, TheStateFolderFollowsTheVariables) {
  EXPECT_EQ(DefaultStateDir(), "/home/me/.local/state/lockstep");
  EXPECT_EQ(DefaultSocket(), "/home/me/.local/state/lockstep/lockstepd.sock");
  setenv("XDG_STATE_HOME", "relative", 1);
  EXPECT_EQ(DefaultStateDir(), "/home/me/.local/state/lockstep");
  setenv("XDG_STATE_HOME", "/xdg", 1);
  EXPECT_EQ(DefaultStateDir(), "/xdg/lockstep");
  setenv("LOCKSTEP_STATE_DIR", "/own", 1);
  EXPECT_EQ(DefaultStateDir(), "/own");
  EXPECT_EQ(DefaultSocket(), "/own/lockstepd.sock");
  setenv("LOCKSTEP_SOCKET", "/run/l.sock", 1);
  EXPECT_EQ(DefaultSocket(), "/run/l.sock");
}

}  // namespace
}  // namespace lockstep::config

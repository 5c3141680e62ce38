// A run directory in a temporary folder and a launcher for the fake trainer in it. Whatever a test
// leaves running is killed at its end.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <thread>

#include "config/rank_board.h"
#include "config/run_directory.h"
#include "launch/launcher/mpirun.h"
#include "launch/launcher/process.h"

namespace lockstep::launch {

// Looks again every few milliseconds: processes end when they end.
inline bool Eventually(const std::function<bool()>& condition,
                       std::chrono::seconds limit = std::chrono::seconds(60)) {
  const auto deadline = std::chrono::steady_clock::now() + limit;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return true;
}

class GangTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string path = testing::TempDir() + "launcher-XXXXXX";
    ASSERT_NE(mkdtemp(path.data()), nullptr);
    dir_ = std::filesystem::canonical(path);
    WriteOrders("");
    Remake();
  }

  void TearDown() override {
    if (gang_.pid > 1) {
      launcher_->Kill(gang_, dir_, 1);
      EXPECT_TRUE(Eventually([&] { return launcher_->Poll(gang_, dir_, 1).has_value(); }));
    }
    std::filesystem::remove_all(dir_);
  }

  static MpirunOptions Options() {
    MpirunOptions options;
    options.trainer = std::getenv("LOCKSTEP_FAKE_TRAINER");
    options.allow_root = geteuid() == 0;
    options.oversubscribe = true;
    options.orphan_grace = std::chrono::milliseconds(300);
    return options;
  }

  // A launcher that has seen nothing yet, as after a restart of the coordinator.
  void Remake(MpirunOptions options = Options()) {
    launcher_ = std::make_unique<MpirunLauncher>(std::move(options));
  }

  void WriteOrders(const std::string& orders) {
    std::ofstream(config::RunDirectory(dir_).run_yaml()) << orders;
  }

  LaunchSpec Spec(int ranks = 2) const {
    LaunchSpec spec;
    spec.run_id = "run-1";
    spec.attempt = 1;
    spec.ranks = ranks;
    spec.run_dir = dir_;
    spec.token = "secret";
    spec.coordinator_socket = "/tmp/nobody.sock";
    return spec;
  }

  void Start(int ranks = 2) {
    absl::StatusOr<Gang> gang = launcher_->Start(Spec(ranks));
    ASSERT_TRUE(gang.ok()) << gang.status();
    gang_ = *gang;
  }

  // Starts, and returns when every rank has noted what it saw and is on the board.
  void StartAndWait(int ranks = 2) {
    Start(ranks);
    ASSERT_TRUE(Eventually([&] { return Board().size() == static_cast<size_t>(ranks); })) << Log();
  }

  std::vector<config::RankState> Board() const {
    std::vector<config::RankState> claimed;
    const auto slots = config::RankBoard::Read(Attempt() / "board");
    if (!slots.ok()) return claimed;
    for (const config::RankState& slot : *slots) {
      if (slot.pid > 0 && slot.step == 7) claimed.push_back(slot);
    }
    return claimed;
  }

  GangEnd AwaitEnd() {
    std::optional<GangEnd> end;
    EXPECT_TRUE(Eventually([&] {
      end = launcher_->Poll(gang_, dir_, 1);
      return end.has_value();
    })) << Log();
    gang_over_ = gang_;
    gang_ = {};
    return end.value_or(GangEnd{-99, "never ended"});
  }

  void Go() { std::ofstream(Attempt() / "go") << "go"; }

  std::vector<std::string> SeenEnvironment(int rank) const {
    return Seen(rank)["environment"].get<std::vector<std::string>>();
  }

  nlohmann::json Seen(int rank) const {
    std::ifstream file(Attempt() / ("seen-" + std::to_string(rank) + ".json"));
    return nlohmann::json::parse(file);
  }

  std::string Log() const {
    std::ifstream file(Attempt() / "trainer.log");
    return {std::istreambuf_iterator<char>(file), {}};
  }

  std::filesystem::path Attempt() const { return dir_ / "attempt-1"; }

  std::filesystem::path dir_;
  std::unique_ptr<MpirunLauncher> launcher_;
  Gang gang_;
  Gang gang_over_;  // After AwaitEnd().
};

}  // namespace lockstep::launch

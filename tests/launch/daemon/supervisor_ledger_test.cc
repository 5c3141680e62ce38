// What a daemon makes of the accounts it finds in its store: after a reboot, and from before there
// was a ledger.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <ctime>
#include <future>
#include <thread>

#include "config/rank_board.h"
#include "config/run_directory.h"
#include "fake_launcher.h"
#include "launch/supervisor/supervisor.h"
#include "tests/launch/temporary_folder.h"

namespace lockstep::launch {
namespace {

using config::Phase;

double UnixNow() {
  return static_cast<double>(std::time(nullptr));
}

class SupervisorLedgerTest : public ::testing::Test {
 protected:
  absl::StatusOr<std::unique_ptr<Supervisor>> Open(const std::string& currency = "USD") {
    auto store = RunStore::Open(folder_.path() / "lockstep.db", folder_.path() / "backup");
    if (!store.ok()) return store.status();
    SupervisorOptions options;
    options.coordinator.slots = 2;
    options.coordinator.price.currency = currency;
    options.coordinator.price.per_rank_hour = 3600;
    options.state_dir = folder_.path();
    options.tick = std::chrono::milliseconds(5);
    auto supervisor = Supervisor::Open(std::move(options), launcher_, *std::move(store));
    if (supervisor.ok()) (*supervisor)->Begin();
    return supervisor;
  }

  launch::Run Stored(const std::string& id, RunState state) const {
    launch::Run run;
    run.spec.id = run.spec.name = id;
    run.spec.run_dir = (folder_.path() / id).string();
    run.spec.restart.backoff_seconds = run.spec.restart.max_backoff_seconds = 10'000;
    run.state = state;
    run.attempt = 1;
    return run;
  }
  void Store(const launch::Run& run, const Clocks& clocks) {
    auto store = RunStore::Open(folder_.path() / "lockstep.db", folder_.path() / "backup");
    ASSERT_TRUE(store.ok()) << store.status();
    RunStore::Batch batch;
    batch.runs.push_back({run, "", ""});
    batch.clocks = clocks;
    ASSERT_TRUE((*store)->Commit(batch).ok());
  }

  static std::vector<StoredLine> Lines(Supervisor& supervisor, double since_unix) {
    std::promise<std::vector<StoredLine>> promise;
    supervisor.Ledger("", since_unix, [&](absl::StatusOr<std::vector<StoredLine>> lines) {
      promise.set_value(lines.ok() ? *std::move(lines) : std::vector<StoredLine>());
    });
    return promise.get_future().get();
  }
  static double CostOf(const std::vector<StoredLine>& lines) {
    int64_t micros = 0;
    for (const StoredLine& stored : lines) micros += stored.line.money.total();
    return 1e-6 * static_cast<double>(micros);
  }

  TemporaryFolder folder_;
  FakeLauncher launcher_;
};

TEST_F(SupervisorLedgerTest, ARunThatEndedWithItsHostCostsWhatItsRanksTold) {
  // The host went down a day ago, when its clock stood at 900,000 seconds.
  constexpr double kDay = 86400;
  constexpr double kWentDown = 900'000;
  const double unix_then = UnixNow() - kDay;
  launch::Run run = Stored("a", RunState::kRunning);
  run.has_processes = true;
  run.gang = {999'999'999, 7};
  run.slots = {0};
  run.started_unix = unix_then - 60;
  const metrics::Pricing pricing({.per_rank_hour = 3600}, "host");
  run.account.Switch(metrics::Account::Interval::kAttempt, 1, 1, {kWentDown - 60, unix_then - 60},
                     pricing);
  metrics::RankUsage usage;
  usage.known = true;
  usage.phase_seconds[static_cast<size_t>(Phase::kForward)] = 40;
  run.account.Observe({usage}, {kWentDown - 20, unix_then - 20}, pricing);
  Store(run, {kWentDown - 20, unix_then - 20, "another boot"});
  // It trained for another twenty seconds, which the board has and the store has not.
  const config::RunDirectory directory(run.spec.run_dir);
  std::filesystem::create_directories(directory.attempt(1));
  auto board = config::RankBoard::Open(directory.board(1), 1);
  ASSERT_TRUE(board.ok()) << board.status();
  const pid_t rank = fork();
  if (rank == 0) {
    board->Claim(0);
    config::RankTime time;
    time.open_phase = Phase::kAllreduceExposed;
    time.entered_seconds = kWentDown;
    time.phase_seconds[static_cast<size_t>(Phase::kForward)] = 60;
    board->SetTime(0, time);
    _exit(0);
  }
  ASSERT_EQ(waitpid(rank, nullptr, 0), rank);

  auto supervisor = Open();
  ASSERT_TRUE(supervisor.ok()) << supervisor.status();
  while ((*(*supervisor)->Find("a"))->state() != v1::RUN_STATE_RECOVERING) {
    std::this_thread::yield();
  }
  const std::vector<StoredLine> lines = Lines(**supervisor, 0);
  EXPECT_GE(CostOf(lines), 60 - 1e-3);
  EXPECT_LT(CostOf(lines), 600) << "and the wait for the next attempt, which has only begun";
  double forward = 0;
  double away = 0;
  for (const StoredLine& stored : lines) {
    const double seconds = 1e-6 * static_cast<double>(stored.line.microseconds);
    if (stored.line.phase == Phase::kForward) forward += seconds;
    if (stored.line.phase == Phase::kPaused) away += seconds;
    if (stored.line.phase != Phase::kForward) continue;
    EXPECT_LT(stored.line.to_unix, unix_then + 10) << "when it was spent, not when it was found";
  }
  EXPECT_NEAR(forward, 60, 1e-3);
  EXPECT_NEAR(away, kDay, 600);
}

TEST_F(SupervisorLedgerTest, WhatARunFromBeforeTheLedgerCostIsPricedOnceAndStays) {
  constexpr double kEnded = 1.7e9;
  launch::Run run = Stored("a", RunState::kCompleted);
  run.started_unix = kEnded - 50;
  run.ended_unix = kEnded;
  metrics::Account::State state;
  state.ranks.resize(1);
  state.ranks[0].open[static_cast<size_t>(Phase::kForward)].microseconds = 50'000'000;
  run.account = metrics::Account::Load(state, 0);
  Store(run, {100, kEnded, "boot"});
  for (int start = 0; start < 3; ++start) {
    auto supervisor = Open();
    ASSERT_TRUE(supervisor.ok()) << supervisor.status();
    EXPECT_DOUBLE_EQ((*(*supervisor)->Find("a"))->cost(), 50) << start;
    EXPECT_DOUBLE_EQ(CostOf(Lines(**supervisor, kEnded - 1)), 50);
    EXPECT_DOUBLE_EQ(CostOf(Lines(**supervisor, kEnded)), 0) << "it was spent then";
    EXPECT_EQ((*supervisor)->overview().month_micros, 0) << "and not this month";
  }
  EXPECT_EQ(Open("EUR").status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(SupervisorLedgerTest, TheCurrencyMayChangeUntilSomethingIsSpent) {
  ASSERT_TRUE(Open("USD").ok());
  EXPECT_TRUE(Open("EUR").ok());
}

}  // namespace
}  // namespace lockstep::launch

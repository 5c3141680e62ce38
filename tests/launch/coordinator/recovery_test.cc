// Crashes, restarts, fencing, and the watchdog.
#include "config/exit_code.h"
#include "machine.h"

namespace lockstep::launch {
namespace {

using config::Phase;
using config::TrainerExit;

RunSpec Restarting(int max_restarts) {
  RunSpec spec = Machine::Spec("a");
  spec.restart.max_restarts = max_restarts;
  return spec;
}

TEST(RecoveryTest, BackoffDoublesWithJitterUpToTheBound) {
  Machine m;
  m.Run(Restarting(10));
  double expected = 1;
  for (int crash = 1; crash <= 10; ++crash, expected *= 2) {
    m.End("a", 137, "rank 1 was killed by signal 9");
    ASSERT_EQ(m.state("a"), RunState::kRecovering);
    const double wait = m.run("a").retry_at - m.now().monotonic;
    EXPECT_GE(wait, std::min(0.75 * expected, 60.0));
    EXPECT_LE(wait, std::min(1.25 * expected, 60.0));
    m.Pass(std::max(0.0, wait - 0.4), 0.2);
    EXPECT_EQ(m.state("a"), RunState::kRecovering) << "crash " << crash;
    m.Pass(0.8, 0.2);
    EXPECT_EQ(m.state("a"), RunState::kStarting) << "crash " << crash;
    EXPECT_EQ(m.run("a").attempt, crash + 1);
    ASSERT_TRUE(m.Hello("a").ok());
  }
}

// What is stored while 10 s of the run's only attempt were counted, as the next boot reads it 5,000
// seconds later.
launch::Run AfterAReboot(Machine& m) {
  m.Pass(10);
  metrics::RankUsage usage;
  usage.known = true;
  usage.phase_seconds[static_cast<size_t>(Phase::kForward)] = 10;
  m->Used("a", 1, {usage}, m.now());
  m.Settle();
  return RunFromJson(ToJson(m.run("a")), -5000);
}

double Seconds(const Machine& m, Phase phase) {
  return m.run("a").account.totals().seconds[static_cast<size_t>(phase)];
}

double Cost(const Machine& m) {
  return 1e-6 * static_cast<double>(m.run("a").account.cost().total());
}

TEST(RecoveryTest, TheTimeInWhichTheHostWasOffIsNotPaidFor) {
  Machine m;
  m.Run(Restarting(3));
  m.Restart({AfterAReboot(m)});
  GangEnd end{-1, "the host went down"};
  end.ended_at = m.run("a").account.counted_until();
  ASSERT_LT(*end.ended_at, 0);
  m->GangEnded("a", 1, end, 0, m.now());
  m.Settle();
  ASSERT_EQ(m.state("a"), RunState::kRecovering);
  EXPECT_NEAR(Cost(m), 10, 1e-3);
  m.Tick();
  EXPECT_NEAR(Seconds(m, Phase::kPaused), 5000, 1e-3);
  EXPECT_NEAR(m.run("a").account.HeldSeconds(m.now().monotonic), 10, 1e-3);
  const double wait = m.run("a").retry_at - m.now().monotonic;
  m.Pass(wait, 0.1);
  EXPECT_NEAR(Cost(m), 10 + wait, 1e-3) << "from here on its slots are held again";
}

TEST(RecoveryTest, NobodyHoldsTheSlotsOfARunThatRecoversWhileThereIsNoDaemon) {
  Machine m;
  m.Run(Restarting(3));
  m.End("a", 137, "rank 1 was killed by signal 9");
  m.Tick();
  const double before = Cost(m);
  m.Restart({RunFromJson(ToJson(m.run("a")), -5000)});
  EXPECT_EQ(m.state("a"), RunState::kRecovering);
  m.Tick();
  EXPECT_NEAR(Cost(m), before, 1e-3);
  EXPECT_NEAR(Seconds(m, Phase::kPaused), 5000, 1e-3);
}

TEST(RecoveryTest, AnEndThatLooksEarlierThanWhatWasCountedCountsNothingTwice) {
  Machine m;
  m.Run(Restarting(3));
  m.Restart({AfterAReboot(m)});
  GangEnd end{137, "killed"};
  end.ended_at = -4'000'000;
  m->GangEnded("a", 1, end, 0, m.now());
  m.Settle();
  EXPECT_NEAR(Cost(m), 10, 1e-3);
  EXPECT_NEAR(metrics::Sum(m.run("a").account.totals().seconds), 5010, 1e-3);
}

TEST(RecoveryTest, ACheckpointThatIsToldAgainAfterTheDaemonRestartedIsCountedOnce) {
  Machine m;
  m.Run(Restarting(3));
  m.Pass(5);
  m.Checkpoint("a", 10);
  m.Checkpoint("a", 20);
  m.Restart({RunFromJson(ToJson(m.run("a")), 0)});
  m.Checkpoint("a", 10);
  m.Checkpoint("a", 20);
  EXPECT_EQ(m.run("a").checkpoints_ok, 2);
  m.End("a", 137);
  m.Pass(5);
  ASSERT_TRUE(m.Hello("a").ok());
  m.Checkpoint("a", 20);
  EXPECT_EQ(m.run("a").checkpoints_ok, 3) << "another attempt writes it again";
}

TEST(RecoveryTest, AnOrderForACheckpointKeepsWhenItWasWrittenAndWhatItHadCost) {
  Machine m;
  m.Run("a");
  m.Pass(7);
  const auto order = m.Command("a", OrderKind::kCheckpoint);
  ASSERT_TRUE(order.ok());
  m.Checkpoint("a", 10);
  const double written = m.now().unix;
  m.Pass(1);
  m.Done("a", *order, "", 10);
  EXPECT_EQ(m.run("a").last_checkpoint.at_unix, written);
  EXPECT_NEAR(1e-6 * static_cast<double>(m.run("a").last_checkpoint.cost_micros), 7, 1e-3);
}

TEST(RecoveryTest, TooManyCrashesInARowFailWithTheLastReason) {
  Machine m;
  m.Run(Restarting(3));
  for (int crash = 0; crash < 3; ++crash) {
    m.End("a", 137, "rank 1 was killed by signal 9");
    m.Pass(30);
    ASSERT_TRUE(m.Hello("a").ok());
  }
  m.End("a", 137, "rank 1 was killed by signal 9");
  EXPECT_EQ(m.state("a"), RunState::kFailed);
  EXPECT_NE(m.run("a").reason.find("rank 1 was killed by signal 9"), std::string::npos);
  EXPECT_NE(m.run("a").reason.find("max_restarts is 3"), std::string::npos);
  EXPECT_EQ(m.run("a").restarts, 3);
  EXPECT_EQ(m.run("a").restarts_by_reason.at("rank_crash"), 3);
  EXPECT_EQ(m->free_slots(), 4);
}

TEST(RecoveryTest, ANewerCheckpointResetsTheCountAnOldOneDoesNot) {
  Machine m;
  m.Run(Restarting(1));
  m.Checkpoint("a", 10);
  for (int step = 20; step < 60; step += 10) {
    m.End("a", 137);
    m.Pass(5);
    ASSERT_TRUE(m.Hello("a").ok());
    EXPECT_EQ(m.run("a").crashes_in_a_row, 1);
    m.Checkpoint("a", step);
    EXPECT_EQ(m.run("a").crashes_in_a_row, 0);
  }
  m.End("a", 137);
  m.Pass(5);
  ASSERT_TRUE(m.Hello("a").ok());
  m.Checkpoint("a", 50);
  EXPECT_EQ(m.run("a").crashes_in_a_row, 1) << "that step was saved before";
  m.End("a", 137);
  EXPECT_EQ(m.state("a"), RunState::kFailed);
}

TEST(RecoveryTest, ACheckpointFoundOnDiskCountsWhenItsReportWasLost) {
  Machine m;
  m.Run(Restarting(0));
  m.End("a", 137, "rank 0 was killed", /*newest_checkpoint=*/0);
  EXPECT_EQ(m.state("a"), RunState::kFailed);
  Machine n;
  n.Run(Restarting(1));
  n.End("a", 137);
  n.Pass(5);
  n.End("a", 137, "", /*newest_checkpoint=*/8);
  EXPECT_EQ(n.state("a"), RunState::kRecovering);
  EXPECT_EQ(n.run("a").crashes_in_a_row, 1);
  EXPECT_EQ(n.run("a").last_checkpoint.step, 8);
}

TEST(RecoveryTest, EveryAttemptHasANewTokenAndTheOldOneIsRefused) {
  Machine m;
  m.Run("a");
  const std::string old_token = m.run("a").token;
  EXPECT_EQ(old_token.size(), 32u);
  m.End("a", 137);
  m.Pass(5);
  EXPECT_NE(m.run("a").token, old_token);
  EXPECT_EQ(m->Hello({"a", 1, old_token, {}, false}, m.now()).code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(m->Hello({"a", 2, old_token, {}, false}, m.now()).code(),
            absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(m->Hello({"b", 1, "", {}, false}, m.now()).code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(m.Hello("a").ok());
  m->GangEnded("a", 1, {0, ""}, 0, m.now());
  m.Settle();
  EXPECT_EQ(m.state("a"), RunState::kRunning);
}

TEST(RecoveryTest, AGoodbyeSaysHowTheRunEndedWhateverHappensToTheProcessesAfterIt) {
  Machine m;
  m.Run("a");
  m->Goodbye("a", 1, 0, "trained for its whole duration", m.now());
  m.End("a", 1, "rank 1 failed in MPI_Finalize");
  EXPECT_EQ(m.state("a"), RunState::kCompleted);
}

TEST(RecoveryTest, ProcessesThatStayAfterTheirGoodbyeAreKilledAndTheRunIsCompleted) {
  Machine m;
  m.Run("a");
  m->Goodbye("a", 1, 0, "trained", m.now());
  m.Pass(29);
  EXPECT_TRUE(m.killed.empty());
  m.Pass(2);
  EXPECT_EQ(m.killed.size(), 1u);
  m.End("a", 137, "killed");
  EXPECT_EQ(m.state("a"), RunState::kCompleted);
}

TEST(RecoveryTest, ALauncherThatIsRefusedForGoodFailsTheRunAtOnce) {
  for (const absl::Status& status :
       {absl::NotFoundError("no mpirun"), absl::PermissionDeniedError("root without the opt-in"),
        absl::InvalidArgumentError("a socket path that is too long")}) {
    Machine m;
    m.launch_status = status;
    m.Submit("a");
    EXPECT_EQ(m.state("a"), RunState::kFailed);
    EXPECT_NE(m.run("a").reason.find(std::string(status.message())), std::string::npos);
  }
  Machine m;
  m.launch_status = absl::ResourceExhaustedError("too many processes");
  m.Submit(Restarting(2));
  EXPECT_EQ(m.state("a"), RunState::kRecovering);
  m.Pass(60);
  EXPECT_EQ(m.state("a"), RunState::kFailed);
  EXPECT_EQ(m.launched.size(), 3u);
}

TEST(RecoveryTest, LostStepsAreThoseDoneAgain) {
  Machine m;
  m.Run("a");
  m.Progress("a", 50);
  m.End("a", 137);
  m.Pass(5);
  ASSERT_TRUE(m.Hello("a").ok());
  ProgressFacts progress;
  progress.step = 41;
  progress.first_step = 40;
  m->Progressed("a", 2, progress, m.now());
  EXPECT_EQ(m.run("a").lost_steps, 10);
  progress.step = 60;
  m->Progressed("a", 2, progress, m.now());
  EXPECT_EQ(m.run("a").lost_steps, 10);
}

// --- The watchdog.

// Seconds until somebody asks who hangs, at most `limit`.
double TimeToHang(Machine& m, double limit) {
  for (double waited = 0; waited <= limit; waited += 1) {
    if (!m.hangs.empty()) return waited;
    m.Pass(1);
  }
  return -1;
}

TEST(WatchdogTest, AStallIsSeenAfterAMinuteOrTwentyOfTheSlowestSteps) {
  for (const auto& [p99, expected] :
       std::vector<std::pair<double, double>>{{0.01, 60}, {10, 200}}) {
    Machine m;
    m.Run("a");
    m.Progress("a", 5, p99);
    EXPECT_NEAR(TimeToHang(m, 1000), expected, 2) << p99;
  }
}

TEST(WatchdogTest, AHangIsNamedKilledAndRecovered) {
  Machine m;
  RunSpec spec = Machine::Spec("a");
  spec.restart.stall_timeout_seconds = 4;
  m.Run(spec);
  m.Progress("a", 5);
  EXPECT_NEAR(TimeToHang(m, 100), 4, 2);
  m->HangDescribed("a", 1, {1, "forward", "rank 1 (pid 4711) is stopped (state T) in forward"},
                   m.now());
  m.Settle();
  EXPECT_EQ(m.state("a"), RunState::kRecovering);
  EXPECT_NE(m.run("a").reason.find("rank 1 (pid 4711)"), std::string::npos);
  EXPECT_EQ(m.killed, std::vector<std::string>{"a/1"});
  m.Pass(3);
  EXPECT_EQ(m.run("a").attempt, 1) << "not before the old processes are gone";
  m.End("a", 137);
  EXPECT_NE(m.run("a").reason.find("rank 1 (pid 4711)"), std::string::npos);
  m.Pass(3);
  EXPECT_EQ(m.run("a").attempt, 2);
  EXPECT_EQ(m.run("a").restarts_by_reason.at("hang"), 1);
  EXPECT_EQ(m->watchdog_fired().at("hang"), 1);
}

TEST(WatchdogTest, ASlowRunThatWentOnWhileItWasLookedAtIsLeftAlone) {
  Machine m;
  m.Run("a");
  m.Progress("a", 5, 0.01);
  ASSERT_GT(TimeToHang(m, 100), 0);
  m.Progress("a", 6, 0.01);
  m->HangDescribed("a", 1, {1, "forward", "rank 1 is slow"}, m.now());
  m.Settle();
  EXPECT_EQ(m.state("a"), RunState::kRunning);
  EXPECT_TRUE(m.killed.empty());
  m.hangs.clear();
  EXPECT_NEAR(TimeToHang(m, 100), 60, 2) << "it is judged again";
}

TEST(WatchdogTest, ReportsWithoutProgressDoNotKeepAHangAlive) {
  Machine m;
  m.Run("a");
  for (int second = 0; second < 70 && m.hangs.empty(); ++second) {
    m.Progress("a", 5, 0.01);
    m.Pass(1);
  }
  EXPECT_FALSE(m.hangs.empty());
}

TEST(WatchdogTest, StartupEvaluationAndCheckpointHaveTheirOwnAllowance) {
  for (const Phase phase : {Phase::kStartup, Phase::kEval, Phase::kCheckpointStall}) {
    Machine m;
    m.Run("a");
    m.Progress("a", 5, 0.01);
    m->Observed("a", 1, {5, phase, 0}, m.now());
    EXPECT_NEAR(TimeToHang(m, 1000), 600, 3) << config::PhaseName(phase);
  }
  Machine m;
  m.Submit("a");
  EXPECT_NEAR(TimeToHang(m, 1000), 600, 3) << "no hello";
}

TEST(WatchdogTest, TheBoardShowsProgressWithoutALink) {
  Machine m;
  m.Run("a");
  m.Progress("a", 1, 0.01);
  m->Detached("a", 1);
  for (int step = 2; step < 600; ++step) {
    m->Observed("a", 1, {step, Phase::kForward, 0}, m.now());
    m.Pass(1);
  }
  EXPECT_TRUE(m.hangs.empty());
  uint64_t collectives = 0;
  for (int i = 0; i < 2000; ++i) {
    m->Observed("a", 1, {600, Phase::kEval, ++collectives}, m.now());
    m.Pass(1);
  }
  EXPECT_TRUE(m.hangs.empty()) << "an evaluation that goes on is alive";
}

TEST(WatchdogTest, ASuspendedHostIsNoHang) {
  Machine m;
  m.Run("a");
  m.Progress("a", 5, 0.01);
  m.Pass(30);
  m.Skip(36000);
  m.Tick();
  m.Pass(20);
  EXPECT_TRUE(m.hangs.empty());
  EXPECT_NEAR(TimeToHang(m, 100), 10, 5) << "what was seen before still counts";
}

TEST(WatchdogTest, AJumpOfTheCalendarChangesNothing) {
  Machine m;
  m.Run("a");
  m.Progress("a", 5, 0.01);
  for (const double jump : {3600.0, -3600.0, 3e8, -3e8}) {
    Now now = m.now();
    now.unix += jump;
    m->Tick(now);
    m.Settle();
    EXPECT_TRUE(m.hangs.empty());
  }
  EXPECT_NEAR(m->Cost(m.run("a"), m.now()), 0, 0.1);
}

// --- After a restart of the daemon.

TEST(RestoreTest, ARunThatDiedMeanwhileIsRecovered) {
  Machine before;
  before.Run("a");
  before.Progress("a", 30);
  Machine after;
  after->Restore({before.run("a")}, after.now());
  after.Settle();
  EXPECT_EQ(after.state("a"), RunState::kRunning) << "alive until somebody says otherwise";
  after.End("a", -1);
  EXPECT_EQ(after.state("a"), RunState::kRecovering);
  EXPECT_EQ(after.run("a").restarts_by_reason.at("coordinator"), 1);
}

TEST(RestoreTest, WithoutAnyTraceOfItsProcessesAnAttemptIsGivenAFewSecondsToCall) {
  Machine before;
  before.hold_launches = true;
  before.Submit("a");
  Machine silent;
  silent->Restore({before.run("a")}, silent.now());
  silent.Settle();
  silent.Pass(4);
  EXPECT_EQ(silent.state("a"), RunState::kStarting);
  silent.Pass(2);
  EXPECT_EQ(silent.killed, std::vector<std::string>{"a/1"});
  EXPECT_EQ(silent.run("a").crashes_in_a_row, 1);
  silent.Pass(3);
  EXPECT_EQ(silent.run("a").attempt, 2);

  Machine alive;
  alive->Restore({before.run("a")}, alive.now());
  alive.Settle();
  alive.Pass(2);
  HelloFacts hello{"a", 1, before.run("a").token, {4711, 9}, false};
  EXPECT_TRUE(alive->Hello(hello, alive.now()).ok());
  alive.Settle();
  alive.Pass(20);
  EXPECT_EQ(alive.state("a"), RunState::kRunning);
  EXPECT_EQ(alive.run("a").gang.pid, 4711);
  EXPECT_TRUE(alive.killed.empty());
}

TEST(RestoreTest, AnOrderThatWasUnderWayIsSentAgainAndFinished) {
  Machine before;
  before.Run("a");
  const auto order = before.Command("a", OrderKind::kPause);
  Machine after;
  after->Restore({before.run("a")}, after.now());
  after.Settle();
  ASSERT_TRUE(after.Hello("a").ok());
  ASSERT_EQ(after.sent.size(), 1u);
  EXPECT_EQ(after.sent[0].id, *order);
  after.Done("a", *order);
  after.End("a", TrainerExit::kPaused);
  EXPECT_TRUE(after.finished.at(*order).ok());
}

}  // namespace
}  // namespace lockstep::launch

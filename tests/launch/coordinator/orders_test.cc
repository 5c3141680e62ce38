// Orders from the asking to the answer, where the table of transitions is not enough.
#include "config/exit_code.h"
#include "machine.h"

namespace lockstep::launch {
namespace {

using config::TrainerExit;

TEST(OrdersTest, APauseIsDoneWhenTheProcessesAreGone) {
  Machine m;
  m.Run("a");
  const auto order = m.Command("a", OrderKind::kPause);
  m.Done("a", *order, "", 42);
  EXPECT_TRUE(m.finished.empty()) << "the slots are not free yet";
  m.End("a", TrainerExit::kPaused);
  EXPECT_TRUE(m.finished.at(*order).ok());
  EXPECT_EQ(m.run("a").settled_step, 42);
  EXPECT_EQ(m->free_slots(), 4);
}

TEST(OrdersTest, AnOrderThatTheRanksCannotCarryOutLeavesTheRunRunningAndSaysWhy) {
  Machine m;
  m.Run("a");
  for (const OrderKind kind : {OrderKind::kPause, OrderKind::kHold, OrderKind::kStop}) {
    const auto order = m.Command("a", kind);
    m.Done("a", *order, "No space left on device");
    EXPECT_EQ(m.state("a"), RunState::kRunning);
    EXPECT_NE(m.finished.at(*order).message().find("No space left"), std::string::npos);
  }
}

TEST(OrdersTest, ADiskFullHoldPausesWithTheReasonAndKeepsTheSlots) {
  Machine m;
  m.Run(Machine::Spec("a", 3));
  m.Hold("a", true, "disk full: 0 bytes free in /runs/a");
  EXPECT_EQ(m.state("a"), RunState::kPaused);
  EXPECT_NE(m.run("a").reason.find("disk full"), std::string::npos);
  EXPECT_EQ(m->free_slots(), 1);
  m.Pass(10000);
  EXPECT_EQ(m.state("a"), RunState::kPaused) << "a held run is not judged";
  const auto order = m.Command("a", OrderKind::kResume);
  EXPECT_EQ(m.sent.back().kind, OrderKind::kResume);
  m.Hold("a", false);
  EXPECT_EQ(m.state("a"), RunState::kRunning);
  EXPECT_TRUE(m.finished.at(*order).ok());
}

TEST(OrdersTest, AStopWhileTheDiskIsFullKeepsTheOnlyCopyInMemory) {
  Machine m;
  m.Run("a");
  const auto order = m.Command("a", OrderKind::kStop);
  m.Hold("a", true, "disk full");
  EXPECT_EQ(m.state("a"), RunState::kPaused);
  EXPECT_FALSE(m.finished.at(*order).ok());
  m.Pass(100000);
  EXPECT_TRUE(m.killed.empty());
  EXPECT_TRUE(m.run("a").has_processes);
}

TEST(OrdersTest, APauseOfAHeldRunEndsItsProcesses) {
  Machine m;
  m.Run("a");
  m.Hold("a", true, "disk full");
  const auto order = m.Command("a", OrderKind::kPause);
  EXPECT_EQ(m.state("a"), RunState::kPausing);
  EXPECT_EQ(m.sent.back().kind, OrderKind::kPause);
  m.End("a", TrainerExit::kPaused);
  EXPECT_EQ(m.state("a"), RunState::kPaused);
  EXPECT_TRUE(m.finished.at(*order).ok());
  EXPECT_EQ(m->free_slots(), 4);
}

TEST(OrdersTest, AStartingRunIsPausedOrStoppedByEndingItsProcesses) {
  for (const OrderKind kind : {OrderKind::kPause, OrderKind::kStop, OrderKind::kKill}) {
    Machine m;
    m.Submit("a");
    const auto order = m.Command("a", kind);
    EXPECT_EQ(m.killed, std::vector<std::string>{"a/1"});
    EXPECT_TRUE(m.sent.empty());
    m.End("a", 137, "killed");
    EXPECT_EQ(m.state("a"), kind == OrderKind::kPause ? RunState::kPaused : RunState::kStopped);
    EXPECT_TRUE(m.finished.at(*order).ok());
    EXPECT_EQ(m.run("a").crashes_in_a_row, 0);
  }
}

TEST(OrdersTest, AKillThatComesWhileTheLauncherIsStartingStillEndsTheProcesses) {
  Machine m;
  m.hold_launches = true;
  m.Submit("a");
  const auto order = m.Command("a", OrderKind::kKill);
  EXPECT_EQ(m.state("a"), RunState::kStopping);
  m->Launched("a", 1, Gang{55, 1}, m.now());
  m.Settle();
  EXPECT_EQ(m.run("a").gang.pid, 55);
  m.Pass(6);
  EXPECT_GE(m.killed.size(), 2u) << "it is killed again until it is gone";
  m.End("a", 137);
  EXPECT_EQ(m.state("a"), RunState::kStopped);
  EXPECT_TRUE(m.finished.at(*order).ok());
}

TEST(OrdersTest, AStopBeatsAPauseThatIsUnderWay) {
  Machine m;
  m.Run("a");
  const auto pause = m.Command("a", OrderKind::kPause);
  const auto stop = m.Command("a", OrderKind::kStop);
  m.Done("a", *pause);
  m.End("a", TrainerExit::kPaused);
  EXPECT_EQ(m.state("a"), RunState::kStopped);
  EXPECT_TRUE(m.finished.at(*stop).ok());
  EXPECT_EQ(m.finished.at(*pause).code(), absl::StatusCode::kFailedPrecondition);
}

TEST(OrdersTest, RanksThatDoNotCarryOutAnOrderAreKilledAfterTheDeadline) {
  for (const OrderKind kind : {OrderKind::kPause, OrderKind::kStop}) {
    Machine m;
    m.Run("a");
    m.Progress("a", 5, 0.01);
    const auto order = m.Command("a", kind);
    for (int step = 6; m.hangs.empty() && step < 1000; ++step) {
      m.Progress("a", step, 0.01);  // They go on as if nobody had spoken.
      m.Pass(1);
    }
    ASSERT_EQ(m.hangs.size(), 1u);
    m->HangDescribed("a", 1, {1, "forward", "rank 1 is stopped"}, m.now());
    m.Settle();
    EXPECT_EQ(m.killed.size(), 1u);
    m.End("a", 137);
    EXPECT_EQ(m.state("a"), kind == OrderKind::kPause ? RunState::kPaused : RunState::kStopped);
    EXPECT_TRUE(m.finished.at(*order).ok());
    EXPECT_NE(m.run("a").reason.find("rank 1 is stopped"), std::string::npos);
  }
}

TEST(OrdersTest, OrdersAreRepeatedToARankThatAttachesAgain) {
  Machine m;
  m.Run("a");
  const auto order = m.Command("a", OrderKind::kCheckpoint);
  m->Detached("a", 1);
  m.sent.clear();
  EXPECT_TRUE(m.Hello("a").ok());
  ASSERT_EQ(m.sent.size(), 1u);
  EXPECT_EQ(m.sent[0].id, *order);
  m.Done("a", *order);
  m.sent.clear();
  EXPECT_TRUE(m.Hello("a").ok());
  EXPECT_TRUE(m.sent.empty());
}

TEST(OrdersTest, TheTimeLimitPausesWithABudgetReasonAndResumeIsRefused) {
  Machine m;
  RunSpec spec = Machine::Spec("a");
  spec.limits.max_seconds = 100;
  m.Run(spec);
  for (int i = 0; i < 98; ++i) {
    m.Pass(1);
    m.Progress("a", i);
  }
  EXPECT_EQ(m.state("a"), RunState::kRunning);
  m.Pass(2);  // The last second is for the end of the processes.
  EXPECT_EQ(m.state("a"), RunState::kPausing);
  ASSERT_EQ(m.sent.size(), 1u);
  m.Done("a", m.sent[0].id);
  m.End("a", TrainerExit::kPaused);
  EXPECT_EQ(m.run("a").reason.rfind("budget: ", 0), 0u) << m.run("a").reason;
  m.Pass(1000);
  EXPECT_EQ(m.Command("a", OrderKind::kResume).status().code(),
            absl::StatusCode::kResourceExhausted);
}

TEST(OrdersTest, TheCostLimitCountsTheSlotsHeldAndNotThePause) {
  Machine m;
  RunSpec spec = Machine::Spec("a", 2);
  spec.limits.max_cost = 40;  // Twenty seconds of two ranks, at one a rank and second.
  m.Run(spec);
  m.Pass(10);
  const auto pause = m.Command("a", OrderKind::kPause);
  m.Done("a", *pause);
  m.End("a", TrainerExit::kPaused);
  m.Pass(10000);
  EXPECT_NEAR(m->Cost(m.run("a"), m.now()), 20, 0.1);
  ASSERT_TRUE(m.Command("a", OrderKind::kResume).ok());
  ASSERT_TRUE(m.Hello("a").ok());
  m.Pass(8);
  EXPECT_EQ(m.state("a"), RunState::kRunning);
  m.Pass(3);
  EXPECT_EQ(m.state("a"), RunState::kPausing);
}

TEST(OrdersTest, AnExternalRunEndsWithItsGoodbyeAndIsNeverRestarted) {
  Machine m;
  const auto start = [&](const std::string& id) {
    const absl::Status status = m->RegisterExternal(
        Machine::Spec(id, 8), {id, 1, "", {77, 1}, false}, {{78, 1}}, 5, m.now());
    ASSERT_TRUE(status.ok()) << status;
    m.Settle();
  };
  start("a");
  EXPECT_EQ(m.state("a"), RunState::kRunning);
  EXPECT_EQ(m->free_slots(), 4) << "it has no slots of ours";
  m->Goodbye("a", 1, 0, "trained", m.now());
  m.Settle();
  EXPECT_EQ(m.state("a"), RunState::kCompleted);
  start("b");
  m.End("b", -1);
  EXPECT_EQ(m.state("b"), RunState::kFailed);
  start("c");
  (void)m.Command("c", OrderKind::kPause);
  m->Goodbye("c", 1, static_cast<int>(TrainerExit::kPaused), "", m.now());
  m.Settle();
  EXPECT_EQ(m.state("c"), RunState::kStopped);
  EXPECT_NE(m.run("c").reason.find("--run-dir /runs/c"), std::string::npos);
  start("d");
  m.Progress("d", 1);
  m.Pass(1000);
  ASSERT_FALSE(m.hangs.empty());
  m->HangDescribed("d", 1, {1, "forward", "rank 1 is stopped"}, m.now());
  m.Settle();
  EXPECT_TRUE(m.killed.empty()) << "what a user started is not ours to kill";
  EXPECT_NE(m.run("d").reason.find("rank 1 is stopped"), std::string::npos);
  EXPECT_TRUE(m.launched.empty());
}

}  // namespace
}  // namespace lockstep::launch

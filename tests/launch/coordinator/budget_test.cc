// Limits in money, energy and time; the month; whether more training is worth it.
#include <gtest/gtest.h>

#include "config/exit_code.h"
#include "machine.h"

namespace lockstep::launch {
namespace {

using config::TrainerExit;

// Rank-seconds that cost one each, and draw so many watts.
std::vector<metrics::RankUsage> Usage(int ranks, double joules) {
  std::vector<metrics::RankUsage> usage(static_cast<size_t>(ranks));
  for (metrics::RankUsage& rank : usage) rank.joules = joules;
  return usage;
}

TEST(BudgetTest, TheCostLimitLeavesRoomForAStepACheckpointAndTheEnd) {
  Machine m;
  RunSpec spec = Machine::Spec("a");
  spec.limits.max_cost = 100;
  m.Run(spec);
  CheckpointFacts checkpoint;
  checkpoint.step = 1;
  checkpoint.write_seconds = 4;
  checkpoint.ok = true;
  m->CheckpointWritten("a", 1, checkpoint, m.now());
  ProgressFacts progress{.step = 2, .attempt_steps = 2, .mean_step_seconds = 6};
  m->Progressed("a", 1, progress, m.now());
  m.Settle();
  m.Pass(88, 0.1);
  EXPECT_EQ(m.state("a"), RunState::kRunning);
  m.Pass(1.5, 0.1);
  EXPECT_EQ(m.state("a"), RunState::kPausing) << "eleven seconds before: " << m.run("a").reason;
}

TEST(BudgetTest, AtALimitTheRunStopsIfItIsToldTo) {
  Machine m;
  RunSpec spec = Machine::Spec("a");
  spec.limits.max_cost = 10;
  spec.limits.stop = true;
  m.Run(spec);
  m.Pass(11);
  EXPECT_EQ(m.state("a"), RunState::kStopping);
  m.Done("a", m.sent.back().id);
  m.End("a", TrainerExit::kStopped);
  EXPECT_EQ(m.state("a"), RunState::kStopped);
  EXPECT_EQ(m.run("a").reason.rfind("budget: ", 0), 0u) << m.run("a").reason;
}

TEST(BudgetTest, AHigherLimitLetsARunGoOnThatHadReachedItsOwn) {
  Machine m;
  RunSpec spec = Machine::Spec("a");
  spec.limits.max_cost = 10;
  spec.limits.max_seconds = 12;
  m.Run(spec);
  m.Pass(10);
  ASSERT_EQ(m.state("a"), RunState::kPausing);
  m.Done("a", m.sent.back().id);
  m.End("a", TrainerExit::kPaused);
  ASSERT_EQ(m.state("a"), RunState::kPaused);
  const auto refused = m.Command("a", OrderKind::kResume, {.max_cost = 9}).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(refused.message().find("lockstep resume a --max-cost"), std::string::npos) << refused;
  EXPECT_EQ(m.run("a").spec.limits.max_cost, 10) << "what is refused changes nothing";

  ASSERT_TRUE(m.Command("a", OrderKind::kResume, {.max_cost = 100}).ok());
  m.Tick();
  EXPECT_TRUE(m.Hello("a").ok());
  EXPECT_EQ(m.state("a"), RunState::kRunning);
  // The next limit is near; it is raised while the run goes on, another is taken away.
  const auto raised = m.Command("a", OrderKind::kResume, {.max_seconds = 50, .max_cost = 0});
  ASSERT_TRUE(raised.ok()) << raised.status();
  EXPECT_EQ(*raised, "") << "nothing to wait for";
  m.Pass(30);
  EXPECT_EQ(m.state("a"), RunState::kRunning);
  m.Pass(12);
  EXPECT_EQ(m.state("a"), RunState::kPausing);
  EXPECT_NE(m.run("a").reason.find("cost.max_time is 50 s"), std::string::npos)
      << m.run("a").reason;
}

TEST(BudgetTest, TheEnergyLimitGoesByWhatWasMetered) {
  Machine m;
  RunSpec spec = Machine::Spec("a", 2);
  spec.limits.max_joules = 10000;
  m.Run(spec);
  for (int second = 0; second < 9; ++second) {
    m.Pass(1);
    m->Used("a", 1, Usage(2, 500), m.now());
    EXPECT_EQ(m.state("a"), RunState::kRunning) << second;
  }
  m.Pass(1);
  m->Used("a", 1, Usage(2, 500), m.now());
  m.Pass(1);
  EXPECT_EQ(m.state("a"), RunState::kPausing);
  EXPECT_NE(m.run("a").reason.find("cost.max_energy"), std::string::npos) << m.run("a").reason;
}

TEST(BudgetTest, AWarningComesOnceAtEightyAndOnceAtNinetyFivePercent) {
  Machine m;
  RunSpec spec = Machine::Spec("a");
  spec.limits.max_cost = 100;
  m.Run(spec);
  m.Pass(79);
  EXPECT_TRUE(m.warnings.empty());
  m.Pass(10);
  ASSERT_EQ(m.warnings.size(), 1u);
  EXPECT_NE(m.warnings[0].find("cost.max_cost 100.00 USD"), std::string::npos) << m.warnings[0];
  m.Pass(8);
  EXPECT_EQ(m.warnings.size(), 2u);
  EXPECT_NEAR(m->NearestLimit(m.run("a"), m.now()).first, 0.97, 0.01);
}

TEST(BudgetTest, ALimitThatCannotBeReachedForWantOfPricesSaysSo) {
  CoordinatorOptions options;
  options.random = [] { return uint64_t{1}; };
  RunSpec spec = Machine::Spec("a");
  spec.limits.max_cost = 5;
  for (const double price : {0.0, 1.0}) {
    options.price.devices.resize(1);
    options.price.devices[0].per_hour = price;
    Coordinator coordinator(options);
    ASSERT_TRUE(coordinator.Submit(spec, {1, 1e9}).ok());
    const std::string limit = coordinator.NearestLimit(*coordinator.Find("a"), {1, 1e9}).second;
    EXPECT_EQ(limit.find("sets no price") != std::string::npos, price == 0) << limit;
  }
}

TEST(BudgetTest, AMonthThatIsSpentPausesEveryRunAndNothingStartsUntilTheNext) {
  Machine m(4, 1, {.monthly = 50, .at_limit = config::LimitAction::kPause});
  m.Run("a");
  m.Run(Machine::Spec("b", 2));
  m.Pass(18);
  EXPECT_EQ(m.state("a"), RunState::kPausing) << "three ranks cost three a second";
  EXPECT_EQ(m.state("b"), RunState::kPausing);
  for (const char* id : {"a", "b"}) {
    for (const Order& order : m.sent) m->OrderDone(id, 1, {order.id, 5, "", {}}, m.now());
    m.End(id, TrainerExit::kPaused);
    EXPECT_EQ(m.state(id), RunState::kPaused);
  }
  EXPECT_EQ(m.Command("a", OrderKind::kResume).status().code(),
            absl::StatusCode::kResourceExhausted);
  m.Submit("c");
  m.Pass(10);
  EXPECT_EQ(m.state("c"), RunState::kQueued);
  EXPECT_NE(m.run("c").reason.find("the next month begins on 2001-10-01"), std::string::npos)
      << m.run("c").reason;
  m.Skip(23 * 86400);  // It was the ninth of September.
  m.Tick();
  EXPECT_EQ(m.state("c"), RunState::kStarting);
  EXPECT_TRUE(m.Command("a", OrderKind::kResume).ok());
}

TEST(BudgetTest, TheMonthIsRememberedOverARestartOfTheDaemon) {
  Machine m(4, 1, {.monthly = 50, .at_limit = config::LimitAction::kPause});
  m.Run("a");
  m.Pass(30);
  m->Used("a", 1, Usage(1, 1), m.now());
  m.Settle();
  const int64_t spent = m->MonthMicros();
  EXPECT_NEAR(1e-6 * static_cast<double>(spent), 30, 0.1);
  m.Restart({RunFromJson(ToJson(m.run("a")), 0)});
  m->SetMonth(m.line_micros(), m.now());
  EXPECT_EQ(m->MonthMicros(), spent);
}

TEST(BudgetTest, AClockThatIsSetToAnotherMonthAsksForThatMonthsLines) {
  Machine m(4, 1, {.monthly = 50, .at_limit = config::LimitAction::kPause});
  m.Run("a");
  m.Pass(1);
  EXPECT_FALSE(m->MonthHasChanged(m.now()));
  const Now before{m.now().monotonic, 0};  // A host that comes up in 1970.
  EXPECT_TRUE(m->MonthHasChanged(before));
  m->SetMonth(0, before);
  EXPECT_TRUE(m->MonthHasChanged(m.now()));
  m->SetMonth(60'000'000, m.now());
  m.Pass(1);
  EXPECT_EQ(m.state("a"), RunState::kPausing) << "the month was spent, whatever the clock said";
}

TEST(BudgetTest, TheMonthLeavesRoomForEveryRunToEnd) {
  Machine m(4, 1, {.monthly = 100, .at_limit = config::LimitAction::kPause});
  for (const char* id : {"a", "b"}) {
    m.Run(id);
    CheckpointFacts checkpoint;
    checkpoint.step = 1;
    checkpoint.write_seconds = 10;
    checkpoint.ok = true;
    m->CheckpointWritten(id, 1, checkpoint, m.now());
    m.Settle();
  }
  m.Pass(38, 0.1);  // Two a second; eleven seconds of both are 22 more.
  EXPECT_EQ(m.state("a"), RunState::kRunning);
  m.Pass(1.5, 0.1);
  EXPECT_EQ(m.state("a"), RunState::kPausing);
  EXPECT_EQ(m.state("b"), RunState::kPausing);
}

TEST(BudgetTest, WhoWaitsForSlotsAfterTheMonthBeganSaysSo) {
  Machine m(1, 1, {.monthly = 50, .at_limit = config::LimitAction::kPause});
  m.Tick();
  m->SetMonth(60'000'000, m.now());
  m.Submit("first");
  m.Submit("second");
  m.Submit("third");
  for (const char* id : {"first", "second", "third"}) {
    EXPECT_EQ(m.run(id).reason.rfind("budget: ", 0), 0u) << m.run(id).reason;
  }
  m.Skip(23 * 86400);
  m.Tick();
  EXPECT_EQ(m.state("first"), RunState::kStarting);
  EXPECT_EQ(m.run("second").reason, "waits for slots");
  EXPECT_EQ(m.run("third").reason, "waits for slots");
}

TEST(BudgetTest, ARunEndsWhenTheNextPercentWouldCostTooMuch) {
  Machine m;
  RunSpec spec = Machine::Spec("a");
  spec.limits.gain_per_cost = 0.05;  // A percent may cost 20.
  spec.limits.metric = "top1";
  m.Run(spec);
  const double values[] = {0.50, 0.60, 0.65, 0.68, 0.682};
  int64_t step = 0;
  for (const double value : values) {
    m.Pass(10);
    m->Evaluated("a", 1, step += 10, value, m.now());
    m.Settle();
    EXPECT_EQ(m.state("a"), RunState::kRunning) << value;
  }
  // Repeated after a reconnect: not another evaluation.
  m->Evaluated("a", 1, step, 0.682, m.now());
  m.Settle();
  EXPECT_EQ(m.run("a").metric_points.size(), 5u);
  m.Pass(10);
  m->Evaluated("a", 1, step += 10, 0.681, m.now());
  m.Settle();
  EXPECT_EQ(m.state("a"), RunState::kRunning) << "3.2 points for 30 are enough";
  m.Pass(10);
  m->Evaluated("a", 1, step += 10, 0.683, m.now());
  m.Settle();
  EXPECT_EQ(m.state("a"), RunState::kStopping) << "0.3 points for 30 are not";
  EXPECT_NE(m.run("a").reason.find("the next 1 % would cost 100"), std::string::npos)
      << m.run("a").reason;
}

TEST(BudgetTest, AnErrorGetsBetterByFalling) {
  for (const bool falls : {true, false}) {
    Machine m;
    RunSpec spec = Machine::Spec("a");
    spec.limits.gain_per_cost = 0.1;
    spec.limits.metric = "loss";
    m.Run(spec);
    double loss = 2;
    for (int i = 1; i <= 6; ++i) {
      m.Pass(10);
      loss *= falls ? 0.9 : 1.1;
      m->Evaluated("a", 1, 10 * i, loss, m.now());
      m.Settle();
    }
    EXPECT_EQ(m.state("a"), falls ? RunState::kRunning : RunState::kStopping);
  }
}

TEST(BudgetTest, ABadSlotIsGivenToNobody) {
  Machine m(2);
  m.SetBadSlots({{0, "GPU 0: XID 79"}});
  EXPECT_EQ(m->free_slots(), 1);
  m.Submit(Machine::Spec("both", 2));
  m.Pass(1);
  EXPECT_EQ(m.state("both"), RunState::kQueued);
  EXPECT_NE(m.run("both").reason.find("1 of 2 are good: slot 0: GPU 0: XID 79"), std::string::npos)
      << m.run("both").reason;
  m.SetBadSlots({});
  m.Tick();
  EXPECT_EQ(m.state("both"), RunState::kStarting);
  ASSERT_TRUE(m.Hello("both").ok());
  m.SetBadSlots({{1, "GPU 1: lost"}});
  m.End("both", 137);
  EXPECT_EQ(m.run("both").restarts_by_reason.at("gpu_fault"), 1);
  m.Pass(10);
  EXPECT_EQ(m.state("both"), RunState::kPaused) << m.run("both").reason;
}

}  // namespace
}  // namespace lockstep::launch

// Who starts when.
#include "config/exit_code.h"
#include "machine.h"

namespace lockstep::launch {
namespace {

using Ids = std::vector<std::string>;

TEST(QueueTest, RunsStartInOrderOfSubmissionWithinAPriority) {
  Machine m(1);
  m.Run("first");
  m.Submit(Machine::Spec("b"));
  m.Submit(Machine::Spec("a"));
  m.Submit(Machine::Spec("urgent", 1, 5));
  m.Submit(Machine::Spec("more-urgent", 1, 9));
  EXPECT_EQ(m->Queue(), (Ids{"more-urgent", "urgent", "b", "a"}));
  Ids order;
  for (std::string id = "first";;) {
    m.launched.clear();
    m.End(id, config::TrainerExit::kCompleted);
    if (m.launched.empty()) break;
    id = m.launched[0].substr(0, m.launched[0].find('/'));
    order.push_back(id);
  }
  EXPECT_EQ(order, (Ids{"more-urgent", "urgent", "b", "a"}));
}

TEST(QueueTest, NobodyOvertakesTheHeadThatWaitsForMoreSlots) {
  Machine m(4);
  m.Run(Machine::Spec("running", 2));
  m.Submit(Machine::Spec("large", 4));
  m.Submit(Machine::Spec("small", 1));
  EXPECT_EQ(m.state("small"), RunState::kQueued) << "two slots are free, but large is first";
  m.End("running", config::TrainerExit::kCompleted);
  EXPECT_EQ(m.state("large"), RunState::kStarting);
  EXPECT_EQ(m.state("small"), RunState::kQueued);
  (void)m.Command("large", OrderKind::kKill);
  m.End("large", 137);
  EXPECT_EQ(m.state("small"), RunState::kStarting);
}

TEST(QueueTest, AHeadThatIsStoppedOrPausedLetsTheNextOneStart) {
  for (const OrderKind kind : {OrderKind::kStop, OrderKind::kPause, OrderKind::kKill}) {
    Machine m(4);
    m.Run(Machine::Spec("running", 2));
    m.Submit(Machine::Spec("large", 4));
    m.Submit(Machine::Spec("small", 2));
    (void)m.Command("large", kind);
    EXPECT_EQ(m.state("small"), RunState::kStarting) << OrderName(kind);
  }
}

TEST(QueueTest, ARunThatIsResumedGoesToTheEndOfItsPriority) {
  Machine m(1);
  m.Run("a");
  m.Submit("b");
  m.Submit("c");
  const auto pause = m.Command("b", OrderKind::kPause);
  ASSERT_TRUE(pause.ok());
  ASSERT_TRUE(m.Command("b", OrderKind::kResume).ok());
  EXPECT_EQ(m->Queue(), (Ids{"c", "b"}));
}

TEST(QueueTest, ARecoveringRunKeepsItsSlots) {
  Machine m(2);
  m.Run(Machine::Spec("a", 2));
  m.Submit(Machine::Spec("b", 2));
  m.End("a", 137);
  EXPECT_EQ(m.state("b"), RunState::kQueued);
  m.Pass(3);
  EXPECT_EQ(m.state("a"), RunState::kStarting);
}

TEST(QueueTest, ARunThatCanNeverStartIsRefused) {
  Machine m(4);
  const absl::Status status = m->Submit(Machine::Spec("a", 5), m.now());
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(status.message().find("resources.ranks"), std::string::npos);
  EXPECT_EQ(m->Submit(Machine::Spec("b", 4), m.now()), absl::OkStatus());
  EXPECT_EQ(m->Submit(Machine::Spec("b", 4), m.now()).code(), absl::StatusCode::kAlreadyExists);
}

TEST(QueueTest, AfterARestartWithFewerSlotsARunThatIsTooLargeDoesNotBlockTheOthers) {
  Machine before(4);
  before.Run(Machine::Spec("running", 4));
  before.Submit(Machine::Spec("large", 4));
  before.Submit(Machine::Spec("small", 1));
  std::vector<launch::Run> stored;
  for (const auto& [id, run] : before->runs()) {
    if (id != "running") stored.push_back(run);
  }
  Machine after(2);
  after->Restore(stored, after.now());
  after.Tick();
  EXPECT_EQ(after.state("large"), RunState::kQueued);
  EXPECT_NE(after.run("large").reason.find("needs 4 slots"), std::string::npos);
  EXPECT_EQ(after.state("small"), RunState::kStarting);
}

TEST(QueueTest, TheOrderSurvivesARestart) {
  Machine before(1);
  before.Run("running");
  for (const char* id : {"z", "m", "a"}) before.Submit(id);
  before.Submit(Machine::Spec("urgent", 1, 1));
  std::vector<launch::Run> stored;
  for (const auto& [id, run] : before->runs()) stored.push_back(run);
  Machine after(1);
  after->Restore(stored, after.now());
  after.Settle();
  EXPECT_EQ(after->Queue(), before->Queue());
  after.Submit("late");
  EXPECT_EQ(after->Queue(), (Ids{"urgent", "z", "m", "a", "late"}));
}

TEST(QueueTest, ADrainingCoordinatorLaunchesNothing) {
  Machine m(1);
  m.Run("a");
  m.Submit("b");
  m->Drain();
  m.End("a", 137);
  m.Pass(100);
  EXPECT_EQ(m.state("a"), RunState::kRecovering);
  EXPECT_EQ(m.state("b"), RunState::kQueued);
  EXPECT_EQ(m.launched.size(), 1u);
}

}  // namespace
}  // namespace lockstep::launch

// 10,000 sequences of 50 random events each, against the invariants (machine.h checks them after
// every event): slots never oversubscribed, no illegal transition, an attempt launched once, an
// order finished once, totals that never fall. At the end every run can still be brought to an end.
#include <set>

#include "config/exit_code.h"
#include "machine.h"

namespace lockstep::launch {
namespace {

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr int kSequences = 1'000;
#else
constexpr int kSequences = 10'000;
#endif
constexpr int kEvents = 50;

class Walk {
 public:
  explicit Walk(uint64_t seed) : machine_(1 + static_cast<int>(seed % 5), seed), random_(seed) {}

  void Run() {
    for (int i = 0; i < kEvents && !::testing::Test::HasFailure(); ++i) Event();
    Finish();
  }
  const auto& transitions() const { return machine_.transitions; }

 private:
  uint64_t Pick(uint64_t n) { return random_() % n; }

  void Submit() {
    RunSpec spec = Machine::Spec("run-" + std::to_string(ids_.size()),
                                 1 + static_cast<int>(Pick(3)), static_cast<int>(Pick(3)));
    spec.restart.max_restarts = static_cast<int>(Pick(3));
    spec.restart.backoff_seconds = 0.1;
    if (Pick(8) == 0) spec.limits.max_seconds = 20;
    if (Pick(8) == 0) spec.limits.max_cost = 30;
    if (Pick(2) == 0) spec.limits.stop = true;
    if (Pick(2) == 0) spec.restart.stall_timeout_seconds = 3;
    if (machine_->Submit(spec, machine_.now()).ok()) ids_.push_back(spec.id);
    machine_.Settle();
  }

  void Order(const std::string& id) {
    const auto kind = static_cast<OrderKind>(Pick(6));
    const auto first = machine_.Command(id, kind);
    if (!first.ok()) return;
    const RunState state = machine_.state(id);
    const auto again = machine_.Command(id, kind);
    // A resumed run may have started meanwhile; otherwise the second is the first.
    if (machine_.state(id) == state) {
      EXPECT_TRUE(again.ok()) << OrderName(kind) << ": " << again.status();
      if (again.ok()) {
        EXPECT_EQ(*again, *first) << OrderName(kind);
      }
    }
  }

  // What the ranks might tell: now and then too much, too little or nothing.
  std::vector<metrics::RankUsage> Usage(const launch::Run& run) {
    std::vector<metrics::RankUsage> ranks(static_cast<size_t>(run.spec.ranks));
    const double passed = machine_.now().monotonic - run.account.state().interval_began;
    for (metrics::RankUsage& rank : ranks) {
      rank.known = Pick(4) != 0;
      rank.phase_seconds[0] = 0.25 * passed;
      rank.phase_seconds[3] = (Pick(8) == 0 ? 2 : 0.5) * passed;
      rank.unsettled_seconds = Pick(2) == 0 ? 0.1 : 0;
      rank.allreduce_bytes = static_cast<int64_t>(1000 * passed);
      if (Pick(3) == 0) rank.joules = static_cast<double>(Pick(1000));
    }
    return ranks;
  }

  void Event() {
    const uint64_t what = Pick(16);
    if (ids_.empty() || (what == 0 && ids_.size() < 6)) return Submit();
    const std::string& id = ids_[Pick(ids_.size())];
    const launch::Run& run = machine_.run(id);
    // Sometimes the message of an older attempt.
    const int attempt = Pick(10) == 0 ? run.attempt - 1 : run.attempt;
    switch (what) {
      case 1:
        machine_.Pass(static_cast<double>(Pick(40)), 1);
        [[fallthrough]];
      case 11:
        for (const std::string& stalled : std::exchange(machine_.hangs, {})) {
          const int asked = machine_.run(stalled).attempt;
          machine_->HangDescribed(stalled, asked, {1, "forward", "rank 1 hangs"}, machine_.now());
          // What it had said before it was killed may arrive after it.
          if (Pick(4) == 0) machine_->Goodbye(stalled, asked, 0, "bye", machine_.now());
        }
        break;
      case 2:
        machine_.Pass(static_cast<double>(Pick(3)) + 0.1, 0.1);
        break;
      case 3:
      case 4:
      case 5:
        (void)machine_->Hello({id, attempt, run.token, {5, 5}, Pick(12) == 0}, machine_.now());
        break;
      case 6: {
        static constexpr int kEnds[] = {0, 1, 2, 9, 10, 20, 21, 22, 23, 24, 25, 26, 137, -1};
        machine_->GangEnded(id, attempt, {kEnds[Pick(14)], "ended"}, static_cast<int64_t>(Pick(50)),
                            machine_.now());
        break;
      }
      case 7: {
        ProgressFacts progress;
        progress.step = run.step + static_cast<int64_t>(Pick(3));
        progress.attempt_steps = 1;
        machine_->Progressed(id, attempt, progress, machine_.now());
        machine_->Used(id, attempt, Usage(run), machine_.now());
        break;
      }
      case 8: {
        if (run.orders.empty()) break;
        const std::string order = run.orders[Pick(run.orders.size())].id;
        machine_->OrderDone(id, attempt, {order, run.step, Pick(4) == 0 ? "no" : "", {}},
                            machine_.now());
        break;
      }
      case 9:
        machine_->HoldChanged(id, attempt, Pick(2) == 0, run.step, Pick(2) == 0 ? "disk full" : "",
                              machine_.now());
        break;
      case 10: {
        static constexpr int kSaid[] = {0, 9, 10, 1, 21, 23};
        machine_->Goodbye(id, attempt, kSaid[Pick(6)], "bye", machine_.now());
        break;
      }
      case 12:
        if (Pick(3) == 0) Restart();
        break;
      default:
        Order(id);
        break;
    }
    machine_.Settle();
  }

  // The daemon dies and comes back with what it stored.
  void Restart() {
    std::vector<launch::Run> stored;
    for (const auto& [id, run] : machine_->runs()) {
      launch::Run copy = RunFromJson(ToJson(run), 0);
      copy.spec.config_yaml = run.spec.config_yaml;
      stored.push_back(std::move(copy));
    }
    machine_.Restart(std::move(stored));
  }

  // Whatever happened: a kill ends every run, and frees every slot.
  void Finish() {
    for (const std::string& id : ids_) (void)machine_.Command(id, OrderKind::kKill);
    for (const std::string& id : ids_) {
      if (machine_.run(id).has_processes) machine_.End(id, 137);
      EXPECT_TRUE(IsTerminal(machine_.state(id))) << StateName(machine_.state(id));
    }
    EXPECT_EQ(machine_->free_slots(), machine_->slots());
  }

  Machine machine_;
  std::mt19937_64 random_;
  std::vector<std::string> ids_;
};

TEST(RandomTest, NoSequenceOfEventsBreaksAnInvariant) {
  std::set<std::pair<RunState, RunState>> seen;
  for (uint64_t seed = 1; seed <= kSequences; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Walk walk(seed);
    walk.Run();
    seen.insert(walk.transitions().begin(), walk.transitions().end());
    if (HasFailure()) return;
  }
  if (kSequences < 10'000) return;
  // The walk gets everywhere, and the table allows nothing that cannot happen.
  for (int from = 0; from < kRunStateCount; ++from) {
    for (int to = 0; to < kRunStateCount; ++to) {
      const auto change = std::make_pair(static_cast<RunState>(from), static_cast<RunState>(to));
      EXPECT_EQ(seen.count(change) > 0, IsLegal(change.first, change.second))
          << StateName(change.first) << " -> " << StateName(change.second);
    }
  }
}

}  // namespace
}  // namespace lockstep::launch

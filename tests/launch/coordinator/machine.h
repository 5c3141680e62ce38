// A coordinator in a test: a clock the test turns, a fixed random generator, and actions sorted by
// what they do. It launches at once unless told otherwise, and checks the invariants after every
// event.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "launch/coordinator/coordinator.h"

namespace lockstep::launch {

class Machine {
 public:
  explicit Machine(int slots = 4, uint64_t seed = 1, config::BudgetConfig budget = {})
      : random_(seed),
        budget_(budget),
        coordinator_(std::make_unique<Coordinator>(Options(slots))) {}

  Coordinator* operator->() { return coordinator_.get(); }
  Now now() const { return {now_, 1e9 + now_}; }
  const launch::Run& run(const std::string& id) const { return *coordinator_->Find(id); }
  RunState state(const std::string& id) const { return run(id).state; }

  static RunSpec Spec(const std::string& id, int ranks = 1, int priority = 0) {
    RunSpec spec;
    spec.id = id;
    spec.name = id;
    spec.run_dir = "/runs/" + id;
    spec.ranks = ranks;
    spec.priority = priority;
    return spec;
  }
  /// Queues a run of one rank; it starts at once when there is a slot.
  void Submit(const RunSpec& spec) {
    const absl::Status status = coordinator_->Submit(spec, now());
    ASSERT_TRUE(status.ok()) << status;
    Settle();
  }
  void Submit(const std::string& id) { Submit(Spec(id)); }

  absl::Status Hello(const std::string& id) {
    HelloFacts hello{id, run(id).attempt, run(id).token, {}, false};
    const absl::Status status = coordinator_->Hello(hello, now());
    Settle();
    return status;
  }
  /// Submits and says hello: the run is running.
  void Run(const RunSpec& spec) {
    Submit(spec);
    ASSERT_TRUE(Hello(spec.id).ok());
  }
  void Run(const std::string& id) { Run(Spec(id)); }

  absl::StatusOr<std::string> Command(const std::string& id, OrderKind kind,
                                      const LimitChanges& limits = {}) {
    auto order = coordinator_->Command(id, kind, "asked for", now(), limits);
    Settle();
    return order;
  }
  void Done(const std::string& id, const std::string& order, const std::string& error = "",
            int64_t step = 10) {
    CheckpointFacts checkpoint;
    checkpoint.ok = error.empty();
    checkpoint.step = step;
    coordinator_->OrderDone(id, run(id).attempt, {order, step, error, checkpoint}, now());
    Settle();
  }
  void Hold(const std::string& id, bool held, const std::string& reason = "") {
    coordinator_->HoldChanged(id, run(id).attempt, held, 10, reason, now());
    Settle();
  }
  void Progress(const std::string& id, int64_t step, double p99 = 0) {
    ProgressFacts progress;
    progress.step = step;
    progress.attempt_steps = step;
    progress.p99_step_seconds = p99;
    coordinator_->Progressed(id, run(id).attempt, progress, now());
    Settle();
  }
  void Checkpoint(const std::string& id, int64_t step) {
    CheckpointFacts checkpoint;
    checkpoint.step = step;
    checkpoint.ok = true;
    coordinator_->CheckpointWritten(id, run(id).attempt, checkpoint, now());
    Settle();
  }
  void End(const std::string& id, int exit_code, const std::string& reason = "",
           int64_t newest_checkpoint = 0) {
    coordinator_->GangEnded(id, run(id).attempt, {exit_code, reason}, newest_checkpoint, now());
    Settle();
  }
  void End(const std::string& id, config::TrainerExit exit, const std::string& reason = "") {
    End(id, static_cast<int>(exit), reason);
  }

  /// Time passes, ticked as a supervisor does.
  void Pass(double seconds, double tick = 0.5) {
    const double until = now_ + seconds;
    while (now_ < until) {
      now_ = std::min(until, now_ + tick);
      Tick();
    }
  }
  void SetBadSlots(std::map<int, std::string> slots) {
    bad_slots_.clear();
    for (const auto& [number, why] : slots) bad_slots_.insert(number);
    coordinator_->SetBadSlots(std::move(slots));
  }

  /// Time passes and nobody ticks.
  void Skip(double seconds) { now_ += seconds; }
  void Tick() {
    if (coordinator_->MonthHasChanged(now())) coordinator_->SetMonth(0, now());
    coordinator_->Tick(now());
    Settle();
  }

  /// A new coordinator with what the old one stored.
  void Restart(std::vector<launch::Run> stored) {
    coordinator_ = std::make_unique<Coordinator>(Options(coordinator_->slots()));
    coordinator_->Restore(std::move(stored), now());
    Settle();
  }

  /// What the lines of the ledger cost, those handed out so far and the open ones.
  int64_t line_micros() const {
    int64_t micros = 0;
    for (const auto& [id, books] : books_) micros += books.money.total();
    for (const auto& [id, run] : coordinator_->runs()) {
      for (const auto& line : run.account.OpenLines()) micros += line.money.total();
    }
    return micros;
  }

  /// Takes the actions, and answers launches as `launch_ok` says.
  void Settle() {
    for (;;) {
      const std::vector<Action> actions = coordinator_->TakeActions();
      if (actions.empty()) break;
      for (const Action& action : actions) Take(action);
    }
    CheckInvariants();
  }

  // What came out since the test last cleared it.
  std::vector<std::string> launched;             // "id/attempt"
  std::vector<Order> sent;                       // To ranks.
  std::vector<std::string> killed;               // "id/attempt"
  std::vector<std::string> hangs;                // Ids of runs to look at.
  std::map<std::string, absl::Status> finished;  // By order id.
  std::vector<std::pair<RunState, RunState>> transitions;
  std::vector<std::string> warnings;
  absl::Status launch_status;  // What the launcher says.
  bool hold_launches = false;  // The launcher does not answer.

 private:
  CoordinatorOptions Options(int slots) {
    CoordinatorOptions options;
    options.slots = slots;
    options.random = [this] { return random_(); };
    options.price.per_rank_hour = 3600;
    options.budget = budget_;
    return options;
  }

  void Take(const Action& action) {
    const std::string name = action.run + "/" + std::to_string(action.attempt);
    switch (action.kind) {
      case Action::Kind::kLaunch:
        EXPECT_TRUE(launched_ever_.insert(name).second) << name << " was launched twice";
        launched.push_back(name);
        if (hold_launches) break;
        if (launch_status.ok()) {
          coordinator_->Launched(action.run, action.attempt, Gang{++pid_, 1}, now());
        } else {
          coordinator_->Launched(action.run, action.attempt, launch_status, now());
        }
        break;
      case Action::Kind::kSendOrder:
        sent.push_back(action.order);
        break;
      case Action::Kind::kKill:
        killed.push_back(name);
        break;
      case Action::Kind::kDescribeHang:
        hangs.push_back(action.run);
        break;
      case Action::Kind::kFinishOrder:
        EXPECT_TRUE(finished.emplace(action.order.id, action.status).second)
            << "an order was finished twice";
        break;
      case Action::Kind::kWarn:
        warnings.push_back(action.reason);
        break;
      case Action::Kind::kTransition:
        EXPECT_TRUE(IsLegal(action.from, action.to));
        transitions.emplace_back(action.from, action.to);
        break;
      default:
        break;
    }
  }

  void CheckInvariants() {
    int used = 0;
    std::set<int> numbers;
    for (const auto& [id, line] : coordinator_->TakeLines()) {
      books_[id].money += line.money;
      books_[id].microseconds[line.rank] += line.microseconds;
    }
    for (const auto& [id, run] : coordinator_->runs()) {
      if (run.holds_slots()) used += run.spec.ranks;
      if (run.has_processes && !run.spec.external) {
        EXPECT_EQ(run.slots.size(), static_cast<size_t>(run.spec.ranks));
        for (const int slot : run.slots) {
          EXPECT_TRUE(numbers.insert(slot).second) << "slot " << slot << " was given twice";
          EXPECT_LT(slot, coordinator_->slots());
        }
      }
      if (IsTerminal(run.state)) {
        EXPECT_FALSE(run.has_processes) << id;
        EXPECT_TRUE(run.orders.empty()) << id;
      }
      if (run.state == RunState::kQueued) {
        EXPECT_FALSE(run.has_processes) << id;
      }
      if (run.state == RunState::kStarting || run.state == RunState::kRunning) {
        EXPECT_TRUE(run.has_processes) << id;
      }
      EXPECT_GE(run.sequence, sequences_[id]) << id;
      sequences_[id] = run.sequence;
      CheckAccount(run);
    }
    EXPECT_LE(used, coordinator_->slots());
    for (const int bad : bad_slots_) used += numbers.count(bad) == 0 ? 1 : 0;
    EXPECT_EQ(coordinator_->free_slots(), std::max(0, coordinator_->slots() - used));
  }

  // What was posted and what is open add up to the cost, exactly; nothing falls; and each rank's
  // time is the wall time since the first launch.
  void CheckAccount(const launch::Run& run) {
    const std::string& id = run.spec.id;
    Books& books = books_[id];
    metrics::Money sum = books.money;
    std::map<int, int64_t> microseconds = books.microseconds;
    for (const metrics::LedgerLine& line : run.account.OpenLines()) {
      sum += line.money;
      microseconds[line.rank] += line.microseconds;
    }
    EXPECT_EQ(sum, run.account.cost()) << id;
    EXPECT_GE(sum.total(), books.shown) << id << ": the cost must not fall";
    books.shown = sum.total();
    const metrics::PhaseSeconds seconds = run.account.totals().seconds;
    for (size_t i = 0; i < seconds.size(); ++i) {
      EXPECT_GE(seconds[i], books.seconds[i] - 1e-6) << id << ": totals must not fall";
    }
    books.seconds = seconds;
    if (run.started_unix == 0) return;
    if (books.started == 0) books.started = run.spec.external ? now_ - 5 : now_;
    if (!IsTerminal(run.state) || run.attempt == 0) return;
    const double wall = run.ended_unix - 1e9 - books.started;
    for (int rank = 0; rank < run.spec.ranks; ++rank) {
      EXPECT_NEAR(1e-6 * static_cast<double>(microseconds[rank]), wall, 1e-3) << id << " " << rank;
    }
  }

  struct Books {
    metrics::Money money;                 // Posted.
    std::map<int, int64_t> microseconds;  // By rank, posted.
    int64_t shown = 0;
    metrics::PhaseSeconds seconds{};
    double started = 0;
  };

  std::mt19937_64 random_;
  const config::BudgetConfig budget_;
  std::set<int> bad_slots_;
  double now_ = 1000;
  int64_t pid_ = 100;
  std::unique_ptr<Coordinator> coordinator_;
  std::set<std::string> launched_ever_;
  std::map<std::string, int64_t> sequences_;
  std::map<std::string, Books> books_;
};

}  // namespace lockstep::launch

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

#include "launch/coordinator.h"

namespace lockstep::launch {

class Machine {
 public:
  explicit Machine(int slots = 4, uint64_t seed = 1)
      : random_(seed), coordinator_(std::make_unique<Coordinator>(Options(slots))) {}

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

  absl::StatusOr<std::string> Command(const std::string& id, OrderKind kind) {
    auto order = coordinator_->Command(id, kind, "asked for", now());
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
      coordinator_->Tick(now());
      Settle();
    }
  }
  /// Time passes and nobody ticks.
  void Skip(double seconds) { now_ += seconds; }
  void Tick() {
    coordinator_->Tick(now());
    Settle();
  }

  /// A new coordinator with what the old one stored.
  void Restart(std::vector<launch::Run> stored) {
    coordinator_ = std::make_unique<Coordinator>(Options(coordinator_->slots()));
    coordinator_->Restore(std::move(stored), now());
    Settle();
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
  absl::Status launch_status;  // What the launcher says.
  bool hold_launches = false;  // The launcher does not answer.

 private:
  CoordinatorOptions Options(int slots) {
    CoordinatorOptions options;
    options.slots = slots;
    options.random = [this] { return random_(); };
    options.price.per_rank_hour = 3600;
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
      const double sum = Sum(run.clock.Phases(now_));
      EXPECT_GE(sum, phase_sums_[id] - 1e-9) << id << ": totals must not fall";
      phase_sums_[id] = sum;
    }
    EXPECT_LE(used, coordinator_->slots());
    EXPECT_EQ(coordinator_->free_slots(), coordinator_->slots() - used);
  }

  std::mt19937_64 random_;
  double now_ = 1000;
  int64_t pid_ = 100;
  std::unique_ptr<Coordinator> coordinator_;
  std::set<std::string> launched_ever_;
  std::map<std::string, int64_t> sequences_;
  std::map<std::string, double> phase_sums_;
};

}  // namespace lockstep::launch

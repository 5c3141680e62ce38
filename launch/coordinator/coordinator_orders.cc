// The coordinator's answers to people's orders, and to the ranks' reports on them.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "launch/coordinator/coordinator.h"

namespace lockstep::launch {
namespace {

absl::Status WrongState(const Run& run, OrderKind kind, const std::string& hint = {}) {
  return absl::FailedPreconditionError(absl::StrCat("cannot ", OrderName(kind), " run ",
                                                    run.spec.id, ": it is ", StateName(run.state),
                                                    hint.empty() ? std::string() : "; " + hint));
}

absl::Status Superseded(OrderKind by) {
  return absl::FailedPreconditionError(
      absl::StrCat("another order came after it: ", OrderName(by)));
}

}  // namespace

std::string Coordinator::AddOrder(Run& run, OrderKind kind, const std::string& reason,
                                  bool to_ranks, Now now) {
  Order order{RandomHex(8), kind, reason, to_ranks, now.monotonic};
  run.orders.push_back(order);
  Persist(run);
  if (to_ranks) Emit(Action::Kind::kSendOrder, run).order = order;
  return order.id;
}

std::string Coordinator::Outstanding(const Run& run, OrderKind kind) const {
  for (const Order& order : run.orders) {
    if (order.kind == kind) return order.id;
  }
  return {};
}

void Coordinator::FinishOrder(Run& run, const std::string& id, const absl::Status& status,
                              int64_t step, const CheckpointFacts& checkpoint) {
  const auto it = std::find_if(run.orders.begin(), run.orders.end(),
                               [&](const Order& order) { return order.id == id; });
  if (it == run.orders.end()) return;
  Action& action = Emit(Action::Kind::kFinishOrder, run);
  action.order = *it;
  action.status = status;
  action.step = step;
  action.checkpoint = checkpoint;
  run.orders.erase(it);
  Persist(run);
}

void Coordinator::FinishOrders(Run& run, std::initializer_list<OrderKind> kinds,
                               const absl::Status& status) {
  for (const OrderKind kind : kinds) {
    for (std::string id = Outstanding(run, kind); !id.empty(); id = Outstanding(run, kind)) {
      FinishOrder(run, id, status, run.settled_step, run.last_checkpoint);
    }
  }
}

absl::StatusOr<std::string> Coordinator::Command(const std::string& id, OrderKind kind,
                                                 const std::string& reason, Now now,
                                                 const LimitChanges& limits) {
  const auto it = runs_.find(id);
  if (it == runs_.end()) return absl::NotFoundError(absl::StrCat("there is no run ", id));
  Run& run = it->second;
  absl::StatusOr<std::string> order = [&]() -> absl::StatusOr<std::string> {
    switch (kind) {
      case OrderKind::kPause:
        return Pause(run, false, reason, now);
      case OrderKind::kHold:
        return Pause(run, true, reason, now);
      case OrderKind::kResume:
        return Resume(run, limits, now);
      case OrderKind::kCheckpoint:
        return Checkpoint(run, now);
      case OrderKind::kStop:
        return Stop(run, reason, now);
      case OrderKind::kKill:
        return Kill(run, reason, now);
    }
    return absl::InternalError("unknown order");
  }();
  Schedule(now);
  return order;
}

absl::StatusOr<std::string> Coordinator::Pause(Run& run, bool hold, const std::string& reason,
                                               Now now) {
  const OrderKind kind = hold ? OrderKind::kHold : OrderKind::kPause;
  switch (run.state) {
    case RunState::kQueued:
      Enter(run, RunState::kPaused, reason, now);
      return std::string();
    case RunState::kStarting: {
      Enter(run, RunState::kPausing, reason, now);
      if (hold) return AddOrder(run, kind, reason, true, now);
      // Nothing was trained yet that a checkpoint does not have: ending the processes is enough.
      std::string order = AddOrder(run, kind, reason, false, now);
      KillGang(run, reason, now);
      return order;
    }
    case RunState::kRunning:
      Enter(run, RunState::kPausing, reason, now);
      return AddOrder(run, kind, reason, true, now);
    case RunState::kPausing: {
      const std::string same = Outstanding(run, kind);
      if (!same.empty()) return same;
      if (hold) return WrongState(run, kind, "its processes are about to end");
      return AddOrder(run, kind, reason, run.kill_reason.empty(), now);
    }
    case RunState::kPaused:
      if (!run.has_processes || hold) return std::string();
      FinishOrders(run, {OrderKind::kResume}, Superseded(OrderKind::kPause));
      Enter(run, RunState::kPausing, reason, now);
      return AddOrder(run, kind, reason, true, now);
    case RunState::kRecovering: {
      if (!run.has_processes) {
        Paused(run, absl::StrCat(reason, " (after: ", run.reason, ")"), now);
        return std::string();
      }
      Enter(run, RunState::kPausing, reason, now);  // The gang is being killed already.
      return AddOrder(run, kind, reason, false, now);
    }
    default:
      return WrongState(run, kind);
  }
}

absl::StatusOr<std::string> Coordinator::Resume(Run& run, const LimitChanges& changes, Now now) {
  switch (run.state) {
    case RunState::kQueued:
    case RunState::kStarting:
    case RunState::kRunning:
    case RunState::kRecovering: {
      if (changes.empty()) return std::string();
      if (absl::Status status = ChangeLimits(run, changes, now); !status.ok()) return status;
      return std::string();
    }
    case RunState::kPaused: {
      if (MonthIsSpent(0)) {
        return absl::ResourceExhaustedError(
            absl::StrCat("cannot resume run ", run.spec.id, ": ", MonthReason(now)));
      }
      if (absl::Status status = ChangeLimits(run, changes, now); !status.ok()) return status;
      if (!run.has_processes) {
        Enter(run, RunState::kQueued, "resumed; waits for slots", now);
        return std::string();
      }
      const std::string same = Outstanding(run, OrderKind::kResume);
      if (!same.empty()) return same;
      return AddOrder(run, OrderKind::kResume, "resumed", true, now);
    }
    case RunState::kPausing:
    case RunState::kStopping:
      return WrongState(run, OrderKind::kResume, "wait until that is done");
    default:
      return WrongState(run, OrderKind::kResume,
                        absl::StrCat("its checkpoints are in ", run.spec.run_dir));
  }
}

absl::StatusOr<std::string> Coordinator::Checkpoint(Run& run, Now now) {
  const bool held = run.state == RunState::kPaused && run.has_processes;
  if (run.state != RunState::kRunning && !held) return WrongState(run, OrderKind::kCheckpoint);
  const std::string same = Outstanding(run, OrderKind::kCheckpoint);
  if (!same.empty()) return same;
  return AddOrder(run, OrderKind::kCheckpoint, "asked for", true, now);
}

absl::StatusOr<std::string> Coordinator::Stop(Run& run, const std::string& reason, Now now) {
  switch (run.state) {
    case RunState::kStopping: {
      const std::string same = Outstanding(run, OrderKind::kStop);
      return !same.empty() ? same : AddOrder(run, OrderKind::kStop, reason, false, now);
    }
    case RunState::kStopped:
      return std::string();
    case RunState::kCompleted:
    case RunState::kFailed:
      return WrongState(run, OrderKind::kStop);
    default:
      break;
  }
  if (!run.has_processes) {
    Enter(run, RunState::kStopped, reason, now);
    return std::string();
  }
  const bool being_killed = !run.kill_reason.empty();
  const bool not_trained_yet = run.state == RunState::kStarting;
  FinishOrders(run, {OrderKind::kPause, OrderKind::kHold, OrderKind::kResume},
               Superseded(OrderKind::kStop));
  Enter(run, RunState::kStopping, reason, now);
  std::string order =
      AddOrder(run, OrderKind::kStop, reason, !being_killed && !not_trained_yet, now);
  if (not_trained_yet) KillGang(run, reason, now);
  return order;
}

absl::StatusOr<std::string> Coordinator::Kill(Run& run, const std::string& reason, Now now) {
  switch (run.state) {
    case RunState::kStopped:
      return std::string();
    case RunState::kCompleted:
    case RunState::kFailed:
      return WrongState(run, OrderKind::kKill);
    default:
      break;
  }
  if (!run.has_processes) {
    Enter(run, RunState::kStopped, reason, now);
    return std::string();
  }
  const std::string same = Outstanding(run, OrderKind::kKill);
  if (!same.empty()) return same;
  FinishOrders(run, {OrderKind::kPause, OrderKind::kHold, OrderKind::kResume},
               Superseded(OrderKind::kKill));
  if (run.state != RunState::kStopping) Enter(run, RunState::kStopping, reason, now);
  std::string order = AddOrder(run, OrderKind::kKill, reason, false, now);
  KillGang(run, reason, now);
  return order;
}

void Coordinator::KillGang(Run& run, std::string why, Now now) {
  run.kill_reason = std::move(why);
  LiveOf(run).killed_at = now.monotonic;
  Persist(run);
  Emit(Action::Kind::kKill, run);
}

// --- What the ranks say of orders.

void Coordinator::OrderDone(const std::string& id, int attempt, const OrderOutcome& outcome,
                            Now now) {
  Run* run = Current(id, attempt);
  if (run == nullptr) return;
  CheckpointFacts checkpoint = outcome.checkpoint;
  if (checkpoint.ok) {
    // Most were reported when they were written.
    if (checkpoint.step > run->last_checkpoint.step) NoteCheckpoint(*run, checkpoint, now);
    if (checkpoint.step == run->last_checkpoint.step) checkpoint = run->last_checkpoint;
  }
  const auto it = std::find_if(run->orders.begin(), run->orders.end(),
                               [&](const Order& order) { return order.id == outcome.order_id; });
  if (it == run->orders.end()) return;
  const Order order = *it;
  if (!outcome.error.empty()) {
    OrderFailed(*run, order.kind, outcome.error, now);
    return;
  }
  switch (order.kind) {
    case OrderKind::kPause:
    case OrderKind::kStop:
      run->settled_step = outcome.step;  // Finished when the processes are gone.
      Persist(*run);
      break;
    case OrderKind::kHold:
      run->settled_step = outcome.step;
      run->held = true;
      if (run->state == RunState::kPausing && Outstanding(*run, OrderKind::kPause).empty()) {
        Paused(*run, order.reason, now);
      } else {
        FinishOrder(*run, order.id, absl::OkStatus(), outcome.step, checkpoint);
      }
      break;
    case OrderKind::kResume:
      run->held = false;
      LiveOf(*run).changed_at = now.monotonic;
      if (run->state == RunState::kPaused) Enter(*run, RunState::kRunning, "resumed", now);
      FinishOrder(*run, order.id, absl::OkStatus(), outcome.step, {});
      break;
    case OrderKind::kCheckpoint:
      FinishOrder(*run, order.id, absl::OkStatus(), outcome.step, checkpoint);
      break;
    case OrderKind::kKill:
      break;
  }
}

void Coordinator::OrderFailed(Run& run, OrderKind kind, const std::string& error, Now now) {
  const std::string what = absl::StrCat(OrderName(kind), " failed: ", error);
  FinishOrders(run, {kind}, absl::FailedPreconditionError(what));
  const bool leaves_pausing = run.state == RunState::kPausing && run.kill_reason.empty() &&
                              Outstanding(run, OrderKind::kPause).empty() &&
                              Outstanding(run, OrderKind::kHold).empty();
  const bool leaves_stopping =
      run.state == RunState::kStopping && kind == OrderKind::kStop && run.kill_reason.empty();
  if (leaves_pausing || leaves_stopping) {
    // The ranks go on as they were: held when something must be mended first, else running.
    Enter(run, run.held ? RunState::kPaused : RunState::kRunning, what, now);
  }
}

void Coordinator::HoldChanged(const std::string& id, int attempt, bool held, int64_t step,
                              const std::string& reason, Now now) {
  Run* run = Current(id, attempt);
  if (run == nullptr) return;
  run->held = held;
  LiveOf(*run).changed_at = now.monotonic;
  if (held) {
    run->settled_step = step;
    const bool ordered = run->state == RunState::kPausing || run->state == RunState::kStopping;
    if (ordered && !reason.empty() && run->kill_reason.empty()) {
      // Nothing can be saved now; their memory is the only copy, so no deadline may end them.
      Enter(*run, RunState::kPaused, absl::StrCat("held by the run: ", reason), now);
      FinishOrders(*run, {OrderKind::kPause, OrderKind::kHold, OrderKind::kStop},
                   absl::FailedPreconditionError(run->reason));
    } else if (run->state == RunState::kRunning || run->state == RunState::kStarting) {
      Enter(*run, RunState::kPaused,
            reason.empty() ? "held" : absl::StrCat("held by the run: ", reason), now);
    } else if (run->state == RunState::kPaused && !reason.empty()) {
      run->reason = absl::StrCat("held by the run: ", reason);
    }
  } else if (run->state == RunState::kPaused) {
    Enter(*run, RunState::kRunning, "resumed", now);
    FinishOrders(*run, {OrderKind::kResume}, absl::OkStatus());
  }
  Notify(*run);
}

}  // namespace lockstep::launch

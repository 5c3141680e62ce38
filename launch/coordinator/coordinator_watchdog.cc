// The coordinator's deadlines: stalls, orders nobody carries out, limits, backoff.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "launch/coordinator/coordinator.h"

namespace lockstep::launch {
namespace {

// A tick that comes later than this was kept from coming (a suspended host, a stopped daemon): the
// time in between says nothing about the ranks.
constexpr double kTickGapSeconds = 3;
constexpr double kKillAgainSeconds = 5;

// What a rank is allowed to take long for.
enum class Work { kStartup, kEvaluation, kCheckpoint, kHeld, kTraining };

Work WorkOf(config::Phase phase) {
  switch (phase) {
    case config::Phase::kStartup:
    case config::Phase::kRecovery:
      return Work::kStartup;
    case config::Phase::kEval:
      return Work::kEvaluation;
    case config::Phase::kCheckpointStall:
      return Work::kCheckpoint;
    case config::Phase::kPaused:
      return Work::kHeld;
    default:
      return Work::kTraining;
  }
}

}  // namespace

void Coordinator::Observed(const std::string& id, int attempt, const BoardFacts& board, Now now) {
  Run* run = Current(id, attempt);
  if (run == nullptr) return;
  Live& live = LiveOf(*run);
  const Work before = WorkOf(live.board.phase);
  const Work work = WorkOf(board.phase);
  const bool advanced = !live.has_board || board.step != live.board.step || work != before;
  // Outside of training there are no steps to count; a collective is the sign of life there.
  const bool active = work != Work::kTraining && board.activity != live.board.activity;
  if (advanced || active) live.changed_at = now.monotonic;
  live.has_board = true;
  live.board = board;
}

std::pair<double, const char*> Coordinator::StallLimit(const Run& run, const Live& live) const {
  const double set = run.spec.restart.stall_timeout_seconds;
  const double usual =
      set > 0 ? set : std::max(options_.min_stall_seconds, 20 * live.p99_step_seconds);
  Work work = Work::kTraining;
  if (live.has_board) {
    work = WorkOf(live.board.phase);
  } else if (run.state == RunState::kStarting || live.attempt_steps == 0) {
    work = Work::kStartup;
  }
  // The first step of an attempt has no usual length yet.
  if (work == Work::kTraining && live.attempt_steps == 0 && set <= 0) work = Work::kStartup;
  switch (work) {
    case Work::kStartup:
      return {std::max(usual, options_.startup_allowance_seconds), "startup"};
    case Work::kEvaluation:
      return {std::max(usual, live.evaluation_seconds > 0 ? 20 * live.evaluation_seconds
                                                          : options_.phase_allowance_seconds),
              "evaluation"};
    case Work::kCheckpoint:
      return {std::max(usual, run.last_checkpoint.write_seconds > 0
                                  ? 20 * run.last_checkpoint.write_seconds
                                  : options_.phase_allowance_seconds),
              "checkpoint"};
    default:
      return {usual, "training"};
  }
}

double Coordinator::StallLimitSeconds(const std::string& id) const {
  const auto live = live_.find(id);
  return live == live_.end() ? 0 : StallLimit(runs_.at(id), live->second).first;
}

void Coordinator::Tick(Now now) {
  const double gap = now.monotonic - last_tick_;
  if (last_tick_ != 0 && gap > kTickGapSeconds) {
    for (auto& [id, live] : live_) {
      live.changed_at += gap;
      live.attached_at += gap;
      for (Order& order : At(id).orders) order.issued_at += gap;
    }
  }
  last_tick_ = now.monotonic;
  WarnOfMonth();

  std::vector<std::string> ids;
  ids.reserve(live_.size());
  for (const auto& [id, live] : live_) ids.push_back(id);
  for (const std::string& id : ids) {
    Run& run = At(id);
    if (run.has_processes) {
      Watch(run, live_[id], now);
    } else if (run.state == RunState::kRecovering && !draining_ && now.monotonic >= run.retry_at) {
      const std::string why = WhyItWaits(run);
      if (!why.empty()) {
        // A GPU went bad under it: it waits for it, or for a person, with what it has saved.
        Paused(run, why, now);
      } else if (run.spec.ranks <= options_.slots) {
        Start(run, now);
      } else {
        Enter(run, RunState::kFailed,
              absl::StrCat("needs ", run.spec.ranks, " slots, the daemon has ", options_.slots),
              now);
      }
    }
    if (IsTerminal(run.state)) continue;
    run.account.Advance({now.monotonic, now.unix}, pricing_);
    CheckLimits(run, live_[id], now);
  }
  Schedule(now);
}

void Coordinator::Watch(Run& run, Live& live, Now now) {
  const double at = now.monotonic;
  if (!run.kill_reason.empty()) {
    if (at - live.killed_at > kKillAgainSeconds) {
      live.killed_at = at;
      Emit(Action::Kind::kKill, run);
    }
    return;
  }
  if (live.hello_deadline != 0 && run.gang.pid == 0) {
    // The daemon died between launching and noting the processes, and none has called since.
    if (at > live.hello_deadline) {
      run.kill_reason = "the coordinator ended while it started the attempt";
      Emit(Action::Kind::kKill, run);
      CloseAccount(run, -1, run.account.counted_until(), now);
      EndAttempt(run, -1, run.kill_reason, now);
    }
    return;
  }
  if (run.has_goodbye) {
    if (!run.spec.external && at - live.goodbye_at > options_.goodbye_allowance_seconds) {
      KillGang(run, "the processes did not end after their goodbye", now);
    }
    return;
  }
  const bool board_says_held = live.has_board && WorkOf(live.board.phase) == Work::kHeld;
  if (run.held || (board_says_held && run.state == RunState::kPaused)) live.changed_at = at;

  if (live.hang_asked) return;
  const auto [limit, doing] = StallLimit(run, live);
  const bool ordered = run.state == RunState::kPausing || run.state == RunState::kStopping;
  if (ordered && !run.spec.external) {
    double since = 0;
    for (const Order& order : run.orders) {
      if (order.to_ranks) since = std::max(since, std::max(order.issued_at, live.attached_at));
    }
    const double deadline = std::max(options_.min_order_seconds, 2 * limit);
    if (since != 0 && at - since > deadline) {
      AskWhoHangs(run, live,
                  absl::StrFormat("the ranks did not carry out the order within %.0f s", deadline));
      return;
    }
  }
  if (at - live.changed_at > limit) {
    AskWhoHangs(run, live, absl::StrFormat("no progress in %s for %.0f s", doing, limit));
  }
}

void Coordinator::AskWhoHangs(Run& run, Live& live, std::string why) {
  live.hang_asked = true;
  live.hang_why = std::move(why);
  Emit(Action::Kind::kDescribeHang, run).reason = live.hang_why;
}

void Coordinator::HangDescribed(const std::string& id, int attempt, const HangReport& report,
                                Now now) {
  Run* run = Current(id, attempt);
  if (run == nullptr || !LiveOf(*run).hang_asked || !run->kill_reason.empty()) return;
  Live& live = LiveOf(*run);
  const double limit = StallLimit(*run, live).first;
  const bool ordered = run->state == RunState::kPausing || run->state == RunState::kStopping;
  if (!ordered && now.monotonic - live.changed_at <= limit) {
    live.hang_asked = false;  // It went on while the ranks were looked at: slow, not hanging.
    return;
  }
  std::string why = live.hang_why;
  if (!report.reason.empty()) {
    absl::StrAppend(&why, ": ", report.reason);
  } else if (report.rank >= 0) {
    absl::StrAppend(&why, ": rank ", report.rank, " in ", report.phase);
  }
  ++watchdog_fired_["hang"];
  if (run->spec.external) {
    // The user's own processes: name the trouble, leave the decision to them.
    run->reason = absl::StrCat("stalled: ", why);
    live.changed_at = now.monotonic;
    live.hang_asked = false;
    Notify(*run);
    return;
  }
  run->hang = true;
  if (run->state == RunState::kRunning || run->state == RunState::kStarting) {
    run->recovery_began_at = now.monotonic;
    Enter(*run, RunState::kRecovering, why, now);
  }
  KillGang(*run, why, now);
}

}  // namespace lockstep::launch

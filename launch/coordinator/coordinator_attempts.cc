// The life of an attempt: launched, attached, reporting, ended; and what follows from how it ended.
#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "config/exit_code.h"
#include "launch/coordinator/coordinator.h"
#include "metrics/snapshot.h"

namespace lockstep::launch {
namespace {

using config::TrainerExit;

void Count(std::vector<uint64_t>& counts, double& sum, double seconds) {
  counts.resize(metrics::kStepBuckets.size() + 1);
  const auto bucket =
      std::lower_bound(metrics::kStepBuckets.begin(), metrics::kStepBuckets.end(), seconds) -
      metrics::kStepBuckets.begin();
  ++counts[static_cast<size_t>(bucket)];
  sum += seconds;
}

constexpr double kLongestLeave = 5;

// So many checkpoints are remembered with what they had cost.
constexpr size_t kMostCheckpointCosts = 1000;

void NoteCheckpointCost(Run& run, int64_t step, int64_t micros) {
  std::vector<CheckpointCost>& costs = run.checkpoint_costs;
  // A step that is saved again after a crash has cost more since.
  std::erase_if(costs, [&](const CheckpointCost& cost) { return cost.step >= step; });
  costs.push_back({step, micros});
  if (costs.size() > kMostCheckpointCosts) costs.erase(costs.begin());
}

// Ends that another attempt would only repeat.
bool IsFinal(int exit_code) {
  switch (static_cast<TrainerExit>(exit_code)) {
    case TrainerExit::kBadConfig:
    case TrainerExit::kData:
    case TrainerExit::kCheckpointFailed:
    case TrainerExit::kNonFinite:
    case TrainerExit::kOutOfMemory:
      return true;
    default:
      return false;
  }
}

bool IsOrderly(int exit_code) {
  switch (static_cast<TrainerExit>(exit_code)) {
    case TrainerExit::kCompleted:
    case TrainerExit::kStopped:
    case TrainerExit::kPaused:
      return true;
    default:
      return false;
  }
}

std::string DescribeEnd(int exit_code, const std::string& reason) {
  if (!reason.empty()) return reason;
  if (exit_code < 0) return "the processes ended and nobody can say how";
  if (exit_code > 128) return absl::StrCat("killed by signal ", exit_code - 128);
  if (exit_code >= 1 && exit_code <= 26) {
    return config::Describe(static_cast<TrainerExit>(exit_code));
  }
  return absl::StrCat("ended with code ", exit_code);
}

}  // namespace

void Coordinator::Launched(const std::string& id, int attempt, const absl::StatusOr<Gang>& gang,
                           Now now) {
  Run* run = Current(id, attempt);
  if (run == nullptr) return;
  if (gang.ok()) {
    run->gang = *gang;
    Persist(*run);
    return;
  }
  const std::string reason = absl::StrCat("cannot start: ", gang.status().message());
  const absl::StatusCode code = gang.status().code();
  const bool passing = code == absl::StatusCode::kUnavailable ||
                       code == absl::StatusCode::kResourceExhausted ||
                       code == absl::StatusCode::kInternal || code == absl::StatusCode::kUnknown ||
                       code == absl::StatusCode::kAborted;
  // A missing program or a refused user will be so the next time too.
  EndAttempt(*run, passing ? -1 : static_cast<int>(TrainerExit::kBadConfig), reason, now);
  Schedule(now);
}

absl::Status Coordinator::Hello(const HelloFacts& hello, Now now) {
  const auto it = runs_.find(hello.run_id);
  if (it == runs_.end()) return absl::NotFoundError(absl::StrCat("no run ", hello.run_id));
  Run& run = it->second;
  if (hello.attempt != run.attempt || !run.has_processes || !run.kill_reason.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("stale attempt ", hello.attempt, " of run ", hello.run_id, ": the run is ",
                     StateName(run.state), " at attempt ", run.attempt));
  }
  if (hello.token != run.token) {
    return absl::PermissionDeniedError(
        absl::StrCat("wrong token for attempt ", hello.attempt, " of run ", hello.run_id));
  }
  Live& live = LiveOf(run);
  live.attached = true;
  live.attached_at = now.monotonic;
  live.changed_at = now.monotonic;
  if (run.gang.pid == 0) run.gang = hello.gang;
  if (!hello.devices.empty()) run.rank_devices = hello.devices;
  if (run.state == RunState::kStarting) {
    if (run.recovery_began_at != 0) {
      Count(run.recovery_counts, run.recovery_sum,
            std::max(0.0, now.monotonic - run.recovery_began_at));
      run.recovery_began_at = 0;
    }
    Enter(run, RunState::kRunning, "", now);
  }
  // A hold that began while nobody listened. Its end is not read from here: this report may be
  // older than the hold, and the rank keeps word of both for us.
  if (hello.held && !run.held) {
    HoldChanged(hello.run_id, hello.attempt, true, run.step, "", now);
  }
  for (const Order& order : run.orders) {
    if (order.to_ranks) Emit(Action::Kind::kSendOrder, run).order = order;
  }
  Persist(run);
  return absl::OkStatus();
}

absl::Status Coordinator::RegisterExternal(RunSpec spec, const HelloFacts& hello,
                                           std::vector<RankProcess> processes, double age_seconds,
                                           Now now) {
  spec.external = true;
  const auto [it, inserted] = runs_.try_emplace(spec.id);
  if (!inserted) return absl::AlreadyExistsError(absl::StrCat("run ", spec.id, " exists"));
  Run& run = it->second;
  run.spec = std::move(spec);
  run.number = next_number_++;
  run.attempt = std::max(1, hello.attempt);
  run.token = hello.token;
  run.has_processes = true;
  run.gang = hello.gang;
  run.rank_processes = std::move(processes);
  run.rank_devices = hello.devices;
  run.started_unix = now.unix - age_seconds;
  Live& live = live_[run.spec.id];
  live.attached = true;
  live.attached_at = now.monotonic;
  live.changed_at = now.monotonic;
  Now began = now;
  began.monotonic -= age_seconds;
  Enter(run, RunState::kStarting, "started under mpirun", began);
  Enter(run, RunState::kRunning, "started under mpirun", now);
  return absl::OkStatus();
}

void Coordinator::Used(const std::string& id, int attempt,
                       const std::vector<metrics::RankUsage>& ranks, Now now) {
  Run* run = Current(id, attempt);
  if (run == nullptr) return;
  run->account.Observe(ranks, {now.monotonic, now.unix}, pricing_);
  Notify(*run);
}

void Coordinator::DataWasRead(const std::string& id, int attempt, const DataRead& read) {
  Run* run = Current(id, attempt);
  if (run == nullptr) return;
  if (run->read_attempt != attempt) {
    run->read_before.samples += run->read.samples;
    run->read_before.replaced += run->read.replaced;
    run->read = {};
    run->read_attempt = attempt;
  }
  // A board that cannot be read tells of nothing; what it told before stands.
  run->read.samples = std::max(run->read.samples, read.samples);
  run->read.replaced = std::max(run->read.replaced, read.replaced);
}

// The processes ended while nobody watched: what came after was no part of the attempt, and nobody
// held slots. The host may even have been off.
void Coordinator::CloseAccount(Run& run, int exit_code, double ended_at, Now now) {
  using Interval = metrics::Account::Interval;
  const int code = run.has_goodbye ? run.goodbye_exit : exit_code;
  const bool over = IsOrderly(code) && code != static_cast<int>(TrainerExit::kPaused);
  const double at = std::min(now.monotonic, std::max(ended_at, run.account.counted_until()));
  run.account.Switch(over ? Interval::kIdle : Interval::kPausedFree, run.attempt, run.spec.ranks,
                     {at, now.unix - (now.monotonic - at)}, pricing_, !IsOrderly(code));
}

void Coordinator::Detached(const std::string& id, int attempt) {
  if (Run* run = Current(id, attempt)) LiveOf(*run).attached = false;
}

void Coordinator::Progressed(const std::string& id, int attempt, const ProgressFacts& progress,
                             Now now) {
  Run* run = Current(id, attempt);
  if (run == nullptr) return;
  Live& live = LiveOf(*run);
  if (progress.step != live.step) {
    live.step = progress.step;
    live.changed_at = now.monotonic;
  }
  live.attempt_steps = progress.attempt_steps;
  if (progress.p99_step_seconds > 0) live.p99_step_seconds = progress.p99_step_seconds;
  if (progress.evaluation_seconds > 0) live.evaluation_seconds = progress.evaluation_seconds;
  if (run->failed_step > 0) {
    // The first report of an attempt after a crash: what it starts from again was lost.
    run->lost_steps += std::max<int64_t>(0, run->failed_step - progress.first_step);
    run->failed_step = 0;
  }
  run->step = progress.step;
  run->progress_attempt = attempt;
  live.mean_step_seconds = progress.mean_step_seconds;
  live.eta_seconds = progress.eta_seconds;
  Notify(*run);
}

void Coordinator::NoteCheckpoint(Run& run, const CheckpointFacts& checkpoint, Now now) {
  if (checkpoint.step > run.last_checkpoint.step) run.crashes_in_a_row = 0;
  if (checkpoint.step < run.last_checkpoint.step) return;
  run.last_checkpoint = checkpoint;
  run.last_checkpoint.at_unix = now.unix;
  run.last_checkpoint.cost_micros = std::llround(Cost(run, now) * metrics::kMicrosPerUnit);
}

void Coordinator::CheckpointWritten(const std::string& id, int attempt,
                                    const CheckpointFacts& checkpoint, Now now) {
  Run* run = Current(id, attempt);
  if (run == nullptr) return;
  // What was sent shortly before a stream broke comes again on the next one.
  const std::pair<int64_t, bool> told{checkpoint.step, checkpoint.ok};
  if (told <= run->told_checkpoint) return;
  run->told_checkpoint = told;
  if (checkpoint.ok) {
    ++run->checkpoints_ok;
    Count(run->checkpoint_write_counts, run->checkpoint_write_sum, checkpoint.write_seconds);
    run->account.AddCheckpointBytes(checkpoint.bytes, pricing_);
    NoteCheckpoint(*run, checkpoint, now);
    NoteCheckpointCost(*run, checkpoint.step,
                       std::llround(Cost(*run, now) * metrics::kMicrosPerUnit));
  } else {
    ++run->checkpoints_failed;
  }
  Persist(*run);
}

void Coordinator::Goodbye(const std::string& id, int attempt, int exit_code,
                          const std::string& reason, Now now) {
  Run* run = Current(id, attempt);
  if (run == nullptr) return;
  run->has_goodbye = true;
  run->goodbye_exit = exit_code;
  run->goodbye_reason = reason;
  LiveOf(*run).goodbye_at = now.monotonic;
  Persist(*run);
  if (run->spec.external) {
    EndAttempt(*run, exit_code, reason, now);
    Schedule(now);
  }
}

void Coordinator::GangEnded(const std::string& id, int attempt, const GangEnd& end,
                            int64_t newest_checkpoint, Now now) {
  Run* run = Current(id, attempt);
  if (run == nullptr) return;
  if (newest_checkpoint > run->last_checkpoint.step) {
    // Its report was lost with the link; the files are the truth.
    CheckpointFacts found;
    found.step = newest_checkpoint;
    found.ok = true;
    found.write_seconds = run->last_checkpoint.write_seconds;
    NoteCheckpoint(*run, found, now);
  }
  int code = end.exit_code;
  std::string reason = end.reason;
  if (end.ended_at) CloseAccount(*run, end.exit_code, *end.ended_at, now);
  if (run->has_goodbye && (IsOrderly(run->goodbye_exit) || code < 0 || reason.empty())) {
    // Rank 0 says it last of all, when everything is durable: what happens to the processes after
    // that does not count.
    code = run->goodbye_exit;
    reason = run->goodbye_reason;
  }
  EndAttempt(*run, code, reason, now);
  Schedule(now);
}

void Coordinator::EndAttempt(Run& run, int exit_code, const std::string& said, Now now) {
  const bool restored = LiveOf(run).restored && !LiveOf(run).attached;
  if (run.has_goodbye && !run.spec.external && !restored) {
    leave_seconds_ = std::clamp(now.monotonic - LiveOf(run).goodbye_at, 0.0, kLongestLeave);
  }
  run.has_processes = false;
  run.gang = {};
  run.held = false;
  LiveOf(run).attached = false;
  const bool killed = !run.kill_reason.empty() && !(run.has_goodbye && IsOrderly(exit_code));
  const std::string reason = killed ? run.kill_reason : DescribeEnd(exit_code, said);
  const auto code = static_cast<TrainerExit>(exit_code);

  if (!killed && code == TrainerExit::kCompleted) {
    Enter(run, RunState::kCompleted, said, now);
  } else if (!killed && code == TrainerExit::kStopped) {
    Enter(run, RunState::kStopped, run.state == RunState::kStopping ? run.reason : reason, now);
  } else if (!killed && code == TrainerExit::kPaused) {
    if (run.state == RunState::kStopping) {
      Enter(run, RunState::kStopped, run.reason, now);
    } else if (run.spec.external) {
      Enter(run, RunState::kStopped,
            absl::StrCat("paused; start it again under mpirun with --run-dir ", run.spec.run_dir),
            now);
    } else {
      Paused(run, run.state == RunState::kPausing ? run.reason : reason, now);
    }
  } else if ((!killed && IsFinal(exit_code)) ||
             (run.spec.external && run.state != RunState::kStopping)) {
    Enter(run, RunState::kFailed, reason, now, true);
  } else if (run.state == RunState::kStopping) {
    Enter(run, RunState::kStopped, reason, now, true);
  } else if (run.state == RunState::kPausing || run.state == RunState::kPaused) {
    // The person wants the slots, not a restart; what was not saved is lost either way.
    run.failed_step = run.step;
    Paused(run,
           killed && !run.hang
               ? run.reason
               : absl::StrCat(reason, "; goes on from its last checkpoint when resumed"),
           now, true);
  } else {
    run.failed_step = run.step;
    const bool bad_gpu = std::any_of(run.slots.begin(), run.slots.end(),
                                     [&](int slot) { return bad_slots_.count(slot) > 0; });
    const char* label = bad_gpu    ? "gpu_fault"
                        : run.hang ? "hang"
                        : restored ? "coordinator"
                                   : "rank_crash";
    Crash(run, label, reason, now);
  }
}

void Coordinator::Paused(Run& run, const std::string& reason, Now now, bool crashed) {
  if (run.state == RunState::kPaused) {
    // Held processes ended: still paused, but without slots now.
    run.reason = reason;
    run.account.Switch(metrics::Account::Interval::kPausedFree, run.attempt, run.spec.ranks,
                       {now.monotonic, now.unix}, pricing_, crashed);
    Persist(run);
  } else {
    Enter(run, RunState::kPaused, reason, now, crashed);
  }
  run.recovery_began_at = 0;
  FinishOrders(run, {OrderKind::kPause, OrderKind::kHold}, absl::OkStatus());
  if (!run.has_processes) {
    const absl::Status gone =
        absl::FailedPreconditionError(absl::StrCat("the run paused: ", reason));
    FinishOrders(run, {OrderKind::kResume, OrderKind::kCheckpoint}, gone);
  }
}

void Coordinator::Crash(Run& run, const char* label, const std::string& reason, Now now) {
  const RestartPolicy& policy = run.spec.restart;
  FinishOrders(run, {OrderKind::kCheckpoint},
               absl::AbortedError(absl::StrCat("the attempt ended: ", reason)));
  ++run.crashes_in_a_row;
  if (run.crashes_in_a_row > policy.max_restarts) {
    Enter(run, RunState::kFailed,
          absl::StrCat(reason, " (crash ", run.crashes_in_a_row,
                       " in a row without a newer checkpoint; restart.max_restarts is ",
                       policy.max_restarts, ")"),
          now, true);
    return;
  }
  // 1, 2, 4, … times the base, a quarter more or less so that runs do not return in lockstep.
  const double doubled =
      policy.backoff_seconds * std::pow(2.0, std::min(run.crashes_in_a_row - 1, 30));
  const double jitter = 0.75 + 0.5 * static_cast<double>(options_.random() >> 11) / 0x1p53;
  const double wait = std::min(doubled * jitter, policy.max_backoff_seconds);
  run.retry_at = now.monotonic + wait;
  ++run.restarts;
  ++run.restarts_by_reason[label];
  if (run.recovery_began_at == 0) run.recovery_began_at = now.monotonic;
  const std::string text =
      absl::StrFormat("%s; starts again in %.1f s (crash %d in a row, %d restarts allowed)", reason,
                      wait, run.crashes_in_a_row, policy.max_restarts);
  if (run.state == RunState::kRecovering) {
    run.reason = text;
    Persist(run);
  } else {
    Enter(run, RunState::kRecovering, text, now);
  }
}

}  // namespace lockstep::launch

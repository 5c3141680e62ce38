#include "launch/coordinator/coordinator.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <set>

#include "absl/strings/str_cat.h"

namespace lockstep::launch {
namespace {

// A run that waits behind a restart must not have its watchers believe they saw everything: numbers
// handed out in the last second before a crash may not be stored.
constexpr int64_t kSequenceGap = 1000;

constexpr size_t kMaxReasonBytes = 2000;

constexpr const char* kWaits = "waits for slots";

std::string Bounded(std::string text) {
  if (text.size() > kMaxReasonBytes) text.resize(kMaxReasonBytes);
  return text;
}

}  // namespace

Coordinator::Coordinator(CoordinatorOptions options)
    : options_(std::move(options)), pricing_(options_.price, options_.host) {}

std::string Coordinator::RandomHex(int bytes) {
  std::string hex;
  while (static_cast<int>(hex.size()) < 2 * bytes) {
    absl::StrAppend(&hex, absl::Hex(options_.random(), absl::kZeroPad16));
  }
  hex.resize(size_t{2} * static_cast<size_t>(bytes));
  return hex;
}

const Run* Coordinator::Find(const std::string& id) const {
  const auto it = runs_.find(id);
  return it == runs_.end() ? nullptr : &it->second;
}

Run* Coordinator::Current(const std::string& id, int attempt) {
  const auto it = runs_.find(id);
  if (it == runs_.end()) return nullptr;
  Run& run = it->second;
  return run.attempt == attempt && run.has_processes ? &run : nullptr;
}

// --- What comes out.

Action& Coordinator::Emit(Action::Kind kind, const Run& run) {
  Action action;
  action.kind = kind;
  action.run = run.spec.id;
  action.attempt = run.attempt;
  actions_.push_back(std::move(action));
  return actions_.back();
}

std::vector<Action> Coordinator::TakeActions() {
  return std::exchange(actions_, {});
}

void Coordinator::Persist(Run& run) {
  ++run.sequence;
  Emit(Action::Kind::kPersist, run);
}

void Coordinator::Notify(Run& run) {
  ++run.sequence;
  Emit(Action::Kind::kNotify, run);
}

void Coordinator::Enter(Run& run, RunState to, std::string reason, Now now, bool crashed) {
  const RunState from = run.state;
  if (!IsLegal(from, to)) {
    std::fprintf(stderr, "coordinator: run %s may not go from %s to %s (%s)\n", run.spec.id.c_str(),
                 StateName(from), StateName(to), reason.c_str());
    std::abort();
  }
  run.state = to;
  run.reason = Bounded(std::move(reason));
  ++transitions_[{from, to}];
  using Interval = metrics::Account::Interval;
  const auto account = [&](Interval next) {
    run.account.Switch(next, run.attempt, run.spec.ranks, {now.monotonic, now.unix}, pricing_,
                       crashed);
  };
  switch (to) {
    case RunState::kStarting:
      account(Interval::kAttempt);
      break;
    case RunState::kRecovering:
      crashed = true;
      account(Interval::kRecovery);
      break;
    case RunState::kPaused:
      if (!run.has_processes && run.started_unix != 0) account(Interval::kPausedFree);
      break;
    case RunState::kQueued:
      run.queue_order = next_queue_order_++;
      run.queued_at = now.monotonic;
      break;
    case RunState::kCompleted:
    case RunState::kStopped:
    case RunState::kFailed:
      account(Interval::kIdle);
      ended_micros_ += run.account.cost().total();
      run.ended_unix = now.unix;
      run.recovery_began_at = 0;
      live_.erase(run.spec.id);
      break;
    default:
      break;
  }
  Action& action = Emit(Action::Kind::kTransition, run);
  action.from = from;
  action.to = to;
  action.reason = run.reason;
  Persist(run);
  if (IsTerminal(to)) {
    const absl::Status ended = absl::FailedPreconditionError(
        absl::StrCat("the run ", StateName(to), run.reason.empty() ? "" : ": ", run.reason));
    FinishOrders(run, {OrderKind::kStop, OrderKind::kKill}, absl::OkStatus());
    FinishOrders(run,
                 {OrderKind::kPause, OrderKind::kHold, OrderKind::kResume, OrderKind::kCheckpoint},
                 ended);
  }
}

// --- The queue.

absl::Status Coordinator::Submit(RunSpec spec, Now now) {
  if (spec.ranks < 1 || spec.ranks > options_.slots) {
    return absl::ResourceExhaustedError(absl::StrCat("resources.ranks: the run needs ", spec.ranks,
                                                     " slots, the daemon has ", options_.slots));
  }
  const auto [it, inserted] = runs_.try_emplace(spec.id);
  if (!inserted) return absl::AlreadyExistsError(absl::StrCat("run ", spec.id, " exists"));
  Run& run = it->second;
  run.spec = std::move(spec);
  run.reason = kWaits;
  run.number = next_number_++;
  run.queue_order = next_queue_order_++;
  run.queued_at = now.monotonic;
  live_[run.spec.id];
  Persist(run);
  Schedule(now);
  return absl::OkStatus();
}

int Coordinator::free_slots() const {
  int used = 0;
  for (const auto& [id, live] : live_) {
    const Run& run = runs_.at(id);
    if (run.holds_slots()) used += run.spec.ranks;
  }
  // A bad slot that a run holds is counted once; what goes wrong there, that run will tell.
  for (const auto& bad : bad_slots_) {
    const int number = bad.first;
    const bool held = std::any_of(live_.begin(), live_.end(), [&](const auto& entry) {
      const Run& run = runs_.at(entry.first);
      return run.holds_slots() && run.has_processes &&
             std::find(run.slots.begin(), run.slots.end(), number) != run.slots.end();
    });
    if (!held && number < options_.slots) ++used;
  }
  return std::max(0, options_.slots - used);
}

std::vector<int> Coordinator::FreeSlotNumbers(int count) const {
  std::set<int> taken;
  for (const auto& [id, live] : live_) {
    const Run& run = runs_.at(id);
    if (run.holds_slots() && run.has_processes) taken.insert(run.slots.begin(), run.slots.end());
  }
  for (const auto& [number, why] : bad_slots_) taken.insert(number);
  std::vector<int> numbers;
  for (int number = 0; number < options_.slots && static_cast<int>(numbers.size()) < count;
       ++number) {
    if (taken.count(number) == 0) numbers.push_back(number);
  }
  return numbers;
}

std::vector<std::string> Coordinator::Queue() const {
  std::vector<const Run*> queued;
  for (const auto& [id, live] : live_) {
    const Run& run = runs_.at(id);
    if (run.state == RunState::kQueued) queued.push_back(&run);
  }
  std::sort(queued.begin(), queued.end(), [](const Run* a, const Run* b) {
    return std::make_pair(-a->spec.priority, a->queue_order) <
           std::make_pair(-b->spec.priority, b->queue_order);
  });
  std::vector<std::string> ids;
  ids.reserve(queued.size());
  for (const Run* run : queued) ids.push_back(run->spec.id);
  return ids;
}

void Coordinator::Schedule(Now now) {
  if (draining_) return;
  int free = free_slots();
  const std::string unaffordable = MonthIsSpent(0) ? MonthReason(now) : std::string();
  bool blocked = false;  // By one before it in the queue.
  for (const std::string& id : Queue()) {
    Run& run = At(id);
    std::string why;
    if (run.spec.ranks > options_.slots) {
      // The daemon came back with fewer slots: this run cannot start, and must not block the rest.
      why = absl::StrCat("needs ", run.spec.ranks, " slots, the daemon has ", options_.slots);
    } else if (!unaffordable.empty()) {
      why = unaffordable;
    } else if (blocked || run.spec.ranks > free) {
      blocked = true;
      why = WhyItWaits(run);
      // What kept it from starting before may be over.
      if (why.empty()) why = run.reason.ends_with(kWaits) ? run.reason : kWaits;
    } else {
      free -= run.spec.ranks;
      Start(run, now);
      continue;
    }
    if (run.reason == why) continue;
    run.reason = std::move(why);
    Persist(run);
  }
}

// Bad slots keep even an idle daemon from starting this run; empty = others hold what it needs.
std::string Coordinator::WhyItWaits(const Run& run) const {
  const int good = options_.slots - static_cast<int>(bad_slots_.size());
  if (bad_slots_.empty() || run.spec.ranks <= good) return {};
  std::string why = absl::StrCat("needs ", run.spec.ranks, " slots; ", good, " of ", options_.slots,
                                 " are good:");
  for (const auto& [number, trouble] : bad_slots_) {
    absl::StrAppend(&why, " slot ", number, ": ", trouble, ";");
  }
  why.pop_back();
  return why;
}

void Coordinator::Start(Run& run, Now now) {
  ++run.attempt;
  run.token = RandomHex(16);
  run.slots = FreeSlotNumbers(run.spec.ranks);
  run.rank_devices.clear();
  run.has_processes = true;
  run.gang = {};
  run.held = false;
  run.has_goodbye = false;
  run.goodbye_exit = 0;
  run.goodbye_reason.clear();
  run.kill_reason.clear();
  run.hang = false;
  run.told_checkpoint = {-1, false};
  run.retry_at = 0;
  if (run.started_unix == 0) run.started_unix = now.unix;
  Live& live = LiveOf(run);
  live = Live{};
  live.changed_at = now.monotonic;
  Enter(run, RunState::kStarting, absl::StrCat("attempt ", run.attempt), now);
  Emit(Action::Kind::kLaunch, run);
}

// --- After a restart of the daemon.

void Coordinator::Restore(std::vector<Run> runs, Now now) {
  for (Run& stored : runs) {
    const std::string id = stored.spec.id;
    Run& run = runs_.emplace(id, std::move(stored)).first->second;
    next_number_ = std::max(next_number_, run.number + 1);
    next_queue_order_ = std::max(next_queue_order_, run.queue_order + 1);
    if (IsTerminal(run.state)) {
      ended_micros_ += run.account.cost().total();
      continue;
    }
    run.sequence += kSequenceGap;
    Live& live = live_[id];
    live.changed_at = now.monotonic;
    live.restored = true;
    if (run.has_processes && run.gang.pid == 0) {
      live.hello_deadline = now.monotonic + options_.reattach_seconds;
    }
    if (run.has_goodbye) live.goodbye_at = now.monotonic;
    using Interval = metrics::Account::Interval;
    if (run.account.interval() == Interval::kRecovery) {
      // Nobody held its slots while there was no daemon.
      const metrics::AccountTime left = run.account.state().counted;
      run.account.Switch(Interval::kPausedFree, run.attempt, run.spec.ranks, left, pricing_);
      run.account.Switch(Interval::kRecovery, run.attempt, run.spec.ranks,
                         {now.monotonic, now.unix}, pricing_);
    }
    if (!run.kill_reason.empty() && run.has_processes) KillGang(run, run.kill_reason, now);
    Persist(run);
  }
  last_tick_ = now.monotonic;
}

}  // namespace lockstep::launch

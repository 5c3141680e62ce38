// What the supervisor does with decisions: store them, carry them out, show them.
#include <signal.h>
#include <spdlog/spdlog.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "config/rank_board.h"
#include "config/run_directory.h"
#include "launch/launcher/process.h"
#include "launch/supervisor/run_view.h"
#include "launch/supervisor/supervisor.h"

namespace lockstep::launch {
namespace {

constexpr double kCommitAgainSeconds = 1;
constexpr int kMaxRounds = 1000;
// Ended runs that the metrics still show.
constexpr size_t kShownEndedRuns = 5;

v1::Order ToProto(const Order& order) {
  v1::Order proto;
  proto.set_order_id(order.id);
  proto.set_reason(order.reason);
  switch (order.kind) {
    case OrderKind::kPause:
      proto.set_kind(v1::Order::KIND_PAUSE);
      break;
    case OrderKind::kHold:
      proto.set_kind(v1::Order::KIND_HOLD);
      break;
    case OrderKind::kResume:
      proto.set_kind(v1::Order::KIND_RESUME);
      break;
    case OrderKind::kCheckpoint:
      proto.set_kind(v1::Order::KIND_CHECKPOINT);
      break;
    case OrderKind::kStop:
    case OrderKind::kKill:
      proto.set_kind(v1::Order::KIND_STOP);
      break;
  }
  return proto;
}

}  // namespace

void Supervisor::RunActions() {
  for (int round = 0; round < kMaxRounds; ++round) {
    Absorb(coordinator_.TakeActions());
    const double now = ReadClocks().monotonic;
    const bool progress_due =
        !progress_dirty_.empty() &&
        now - committed_at_ >= std::chrono::duration<double>(options_.progress_commit).count();
    const bool decided = !dirty_.empty() || !new_requests_.empty() || !new_transitions_.empty();
    if (decided || progress_due) {
      if (commit_failed_at_ != 0 && now - commit_failed_at_ < kCommitAgainSeconds) return;
      if (!Commit(progress_due)) return;
    }
    const std::vector<Action> actions = std::exchange(pending_, {});
    for (const Action& action : actions) Carry(action);
    Publish();
    for (const auto& answer : std::exchange(answers_, {})) answer();
    if (actions.empty()) break;
  }
  if (all_stopped_ &&
      std::none_of(coordinator_.runs().begin(), coordinator_.runs().end(), [](const auto& entry) {
        return entry.second.has_processes && !entry.second.spec.external;
      })) {
    std::exchange(all_stopped_, {})();
  }
}

void Supervisor::Absorb(std::vector<Action> actions) {
  for (Action& action : actions) {
    changed_.insert(action.run);
    switch (action.kind) {
      case Action::Kind::kPersist:
        dirty_.insert(action.run);
        break;
      case Action::Kind::kNotify:
        progress_dirty_.insert(action.run);
        break;
      case Action::Kind::kTransition:
        spdlog::info("run {}: {} -> {}{}{}", action.run, StateName(action.from),
                     StateName(action.to), action.reason.empty() ? "" : ": ", action.reason);
        new_transitions_.push_back(
            {action.run, action.from, action.to, action.reason, ReadClocks().unix});
        break;
      case Action::Kind::kFinishOrder:
        FinishRequests(action);
        break;
      case Action::Kind::kWarn:
        spdlog::warn("{}{}{}", action.run.empty() ? "" : "run ", action.run,
                     action.run.empty() ? action.reason : ": " + action.reason);
        break;
      default:
        pending_.push_back(std::move(action));
        break;
    }
  }
}

void Supervisor::FinishRequests(const Action& action) {
  Answer answer;
  answer.status = action.status;
  answer.step = action.step;
  answer.checkpoint = launch::ToProto(action.checkpoint);
  if (const Run* run = coordinator_.Find(action.run)) answer.run = ViewOf(*run, 0, ReadClocks());

  std::vector<StoredRequest> requests;
  for (const StoredRequest& request : new_requests_) {
    if (request.order_id == action.order.id) requests.push_back(request);
  }
  if (auto stored = store_->FindRequestsOfOrder(action.order.id); stored.ok()) {
    requests.insert(requests.end(), stored->begin(), stored->end());
  }
  for (StoredRequest& request : requests) {
    request.done = true;
    request.code = static_cast<int>(action.status.code());
    request.message = std::string(action.status.message());
    request.step = answer.step;
    request.run_bytes = answer.run.SerializeAsString();
    request.checkpoint_bytes = answer.checkpoint.SerializeAsString();
    new_requests_.push_back(std::move(request));
  }
  const auto [begin, end] = waiters_.equal_range(action.order.id);
  for (auto it = begin; it != end; ++it) {
    answers_.push_back([done = it->second.done, answer] { done(answer); });
  }
  waiters_.erase(begin, end);
}

bool Supervisor::Commit(bool progress_due) {
  RunStore::Batch batch;
  for (auto& [run, line] : coordinator_.TakeLines()) new_lines_.push_back({run, line});
  // A line and the account that handed it out belong together.
  for (const StoredLine& stored : new_lines_) dirty_.insert(stored.run);
  std::set<std::string> ids = dirty_;
  if (progress_due) ids.insert(progress_dirty_.begin(), progress_dirty_.end());
  for (const std::string& id : ids) {
    const Run* run = coordinator_.Find(id);
    if (run == nullptr) continue;
    const Detail& detail = details_[id];
    batch.runs.push_back(
        {*run, detail.progress.SerializeAsString(), detail.totals.SerializeAsString()});
  }
  batch.transitions = new_transitions_;
  batch.requests = new_requests_;
  batch.lines = new_lines_;
  const Now now = ReadClocks();
  batch.clocks = {now.monotonic, now.unix, boot_id_};
  const auto began = std::chrono::steady_clock::now();
  const absl::Status status = store_->Commit(batch);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
  metrics::Observe(store_seconds_, metrics::kServiceBuckets, took.count());
  {
    const std::lock_guard lock(queue_mutex_);
    store_broken_ = !status.ok();
  }
  if (!status.ok()) {
    ++store_errors_;
    commit_failed_at_ = now.monotonic;
    spdlog::error("{}; nothing is launched, ordered or answered until it can be written",
                  std::string(status.message()));
    return false;
  }
  if (commit_failed_at_ != 0) spdlog::info("the run store can be written again");
  commit_failed_at_ = 0;
  committed_at_ = now.monotonic;
  dirty_.clear();
  if (progress_due) progress_dirty_.clear();
  new_transitions_.clear();
  new_requests_.clear();
  new_lines_.clear();
  return true;
}

void Supervisor::Carry(const Action& action) {
  switch (action.kind) {
    case Action::Kind::kLaunch:
      Launch(action);
      break;
    case Action::Kind::kSendOrder:
      for (const auto& [stream, session] : sessions_) {
        if (session.run == action.run && session.attempt == action.attempt) {
          answers_.push_back(
              [stream = stream, order = ToProto(action.order)] { stream->Send(order); });
        }
      }
      break;
    case Action::Kind::kKill:
      KillProcesses(action);
      break;
    case Action::Kind::kDescribeHang:
      AskWhoHangs(action);
      break;
    default:
      break;
  }
}

void Supervisor::Launch(const Action& action) {
  const Run* run = coordinator_.Find(action.run);
  if (run == nullptr || run->attempt != action.attempt || !run->has_processes) return;
  LaunchSpec spec;
  spec.run_id = run->spec.id;
  spec.attempt = run->attempt;
  spec.ranks = run->spec.ranks;
  for (const int slot : run->slots) {
    if (static_cast<size_t>(slot) < options_.gpus.size()) spec.gpus.push_back(options_.gpus[slot]);
  }
  spec.run_dir = run->spec.run_dir;
  spec.token = run->token;
  spec.coordinator_socket = options_.socket;
  const absl::StatusOr<Gang> gang = launcher_.Start(spec);
  if (!gang.ok()) {
    spdlog::error("run {}: {}", action.run, std::string(gang.status().message()));
  }
  NoteMeters(*run, Devices());
  coordinator_.Launched(action.run, action.attempt, gang, ReadClocks());
}

void Supervisor::KillProcesses(const Action& action) {
  const Run* run = coordinator_.Find(action.run);
  if (run == nullptr) return;
  if (run->spec.external) {
    // Exactly the processes that said hello: the session they run in is the user's own.
    for (const RankProcess& rank : run->rank_processes) {
      SignalProcess(rank.pid, rank.start_time_ticks, SIGKILL);
    }
    if (run->gang.pid > 0) SignalProcess(run->gang.pid, run->gang.start_time_ticks, SIGKILL);
    return;
  }
  if (run->attempt == action.attempt && run->gang.pid > 0) {
    launcher_.Kill(run->gang, run->spec.run_dir, action.attempt);
    return;
  }
  // Nobody knows mpirun's pid; the ranks that came up have left theirs.
  const config::RunDirectory directory(run->spec.run_dir);
  if (const auto ranks = config::RankBoard::Read(directory.board(action.attempt)); ranks.ok()) {
    for (const config::RankState& rank : *ranks) {
      if (rank.pid > 0) SignalProcess(rank.pid, rank.start_time_ticks, SIGKILL);
    }
  }
}

// --- What readers see.

v1::Run Supervisor::ViewOf(const Run& run, int queue_position, Now now) const {
  const auto detail = details_.find(run.spec.id);
  static const v1::Progress kNone;
  const v1::Progress& progress = detail == details_.end() ? kNone : detail->second.progress;
  v1::Run view = launch::ToProto(run, progress, {coordinator_, now, queue_position});
  const auto watch = watches_.find(run.spec.id);
  if (watch != watches_.end() && watch->second.straggler().rank >= 0) {
    const Straggler& straggler = watch->second.straggler();
    v1::Straggler& proto = *view.mutable_straggler();
    proto.set_rank(straggler.rank);
    proto.set_share(straggler.share);
    proto.set_seconds_per_step(straggler.seconds_per_step);
    proto.set_cause(StragglerCauseName(straggler.cause));
    proto.set_text(straggler.text);
  }
  return view;
}

Supervisor::Overview Supervisor::MakeOverview() const {
  Overview overview;
  overview.free_slots = coordinator_.free_slots();
  overview.month_micros = coordinator_.MonthMicros();
  overview.devices = Devices();
  overview.cpu_watts = cpu_watts_;
  for (const auto& [id, run] : coordinator_.runs()) {
    if (!run.has_processes) continue;
    for (size_t rank = 0; rank < static_cast<size_t>(run.spec.ranks); ++rank) {
      const std::string gpu = GpuOf(run, rank);
      if (!gpu.empty()) overview.gpu_holders[gpu] = {id, static_cast<int>(rank)};
    }
  }
  return overview;
}

void Supervisor::Publish() {
  std::vector<std::string> queued = coordinator_.Queue();
  if (queued != queued_) {
    // A new place in the queue is a change, too.
    for (const std::string& id : queued) coordinator_.Touch(id);
    changed_.insert(queued.begin(), queued.end());
    queued_ = std::move(queued);
  }
  const Now now = ReadClocks();
  std::vector<std::pair<std::shared_ptr<RunWatcher>, std::shared_ptr<const v1::Run>>> told;
  {
    const std::lock_guard lock(view_mutex_);
    overview_ = MakeOverview();
    for (const std::string& id : changed_) {
      const Run* run = coordinator_.Find(id);
      if (run == nullptr) continue;
      const auto place = std::find(queued_.begin(), queued_.end(), id);
      const int position =
          place == queued_.end() ? 0 : static_cast<int>(place - queued_.begin()) + 1;
      View& view = views_[id];
      view.number = run->number;
      if (view.config_yaml.empty()) view.config_yaml = run->spec.config_yaml;
      const int64_t shown = view.run ? view.run->sequence() : -1;
      view.run = std::make_shared<const v1::Run>(ViewOf(*run, position, now));
      if (run->sequence == shown) continue;
      const auto watchers = watchers_.find(id);
      if (watchers == watchers_.end()) continue;
      for (const auto& watcher : watchers->second) told.emplace_back(watcher, view.run);
      if (IsTerminal(run->state)) watchers_.erase(watchers);
    }
  }
  changed_.clear();
  for (const auto& [watcher, run] : told) {
    watcher->Changed(run);
    if (run->state() >= v1::RUN_STATE_COMPLETED) watcher->Close(absl::OkStatus());
  }
}

metrics::Snapshot Supervisor::MakeSample(Now now) const {
  metrics::Snapshot snapshot;
  snapshot.build = options_.build;
  snapshot.start_time_seconds = started_unix_;
  snapshot.currency = options_.coordinator.price.currency;
  snapshot.store_errors = store_errors_;
  snapshot.store_seconds = store_seconds_;
  snapshot.slots = coordinator_.slots();
  snapshot.free_slots = coordinator_.free_slots();
  snapshot.monthly_budget = options_.coordinator.budget.monthly;
  snapshot.month_cost = static_cast<double>(coordinator_.MonthMicros()) / metrics::kMicrosPerUnit;
  snapshot.price_per_joule = coordinator_.pricing().EnergyPerKwh(now.unix) / metrics::kJoulesPerKwh;
  snapshot.devices = Devices();
  snapshot.gpu_holders = GpuHolders(snapshot.devices);
  snapshot.watchdog_fired = coordinator_.watchdog_fired();
  for (int i = 0; i < kRunStateCount; ++i) {
    snapshot.runs_by_state[StateName(static_cast<RunState>(i))] = 0;
  }
  for (int from = 0; from < kRunStateCount; ++from) {
    for (int to = 0; to < kRunStateCount; ++to) {
      const auto [left, entered] = std::make_pair(RunState(from), RunState(to));
      if (IsLegal(left, entered)) snapshot.transitions[{StateName(left), StateName(entered)}] = 0;
    }
  }
  for (const auto& [change, count] : coordinator_.transitions()) {
    snapshot.transitions[{StateName(change.first), StateName(change.second)}] = count;
  }
  const std::vector<std::string> queue = coordinator_.Queue();
  snapshot.queue_depth = static_cast<int64_t>(queue.size());
  for (const std::string& id : queue) {
    snapshot.queue_oldest_wait_seconds = std::max(snapshot.queue_oldest_wait_seconds,
                                                  now.monotonic - coordinator_.Find(id)->queued_at);
  }
  std::vector<const Run*> shown;
  std::vector<const Run*> ended;
  for (const auto& [id, run] : coordinator_.runs()) {
    ++snapshot.runs_by_state[StateName(run.state)];
    (IsTerminal(run.state) ? ended : shown).push_back(&run);
  }
  std::sort(ended.begin(), ended.end(),
            [](const Run* a, const Run* b) { return a->ended_unix > b->ended_unix; });
  if (ended.size() > kShownEndedRuns) ended.resize(kShownEndedRuns);
  shown.insert(shown.end(), ended.begin(), ended.end());
  for (const Run* run : shown) {
    const Detail& detail = details_.at(run->spec.id);
    metrics::RunSample& sample = snapshot.runs.emplace_back(
        ToSample(*run, detail.totals, detail.progress,
                 {coordinator_, now, detail.last_report_unix, detail.last_step_unix,
                  run->has_processes && !run->held && run->progress_attempt == run->attempt}));
    for (size_t rank = 0; rank < std::min(sample.ranks.size(), detail.heard.size()); ++rank) {
      if (detail.heard[rank] <= 0) continue;
      const double heard = now.unix - (now.monotonic - detail.heard[rank]);
      double& shown = sample.ranks[rank].last_heartbeat_timestamp_seconds;
      // Rank 0 also tells of itself over its link.
      shown = rank == 0 ? std::max(shown, heard) : heard;
    }
    const auto watch = watches_.find(run->spec.id);
    if (watch != watches_.end() && watch->second.straggler().rank >= 0) {
      const Straggler& straggler = watch->second.straggler();
      sample.straggler = {straggler.rank, straggler.share, StragglerCauseName(straggler.cause)};
    }
  }
  return snapshot;
}

}  // namespace lockstep::launch

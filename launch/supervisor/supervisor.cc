// The supervisor's life and its loop.
#include "launch/supervisor/supervisor.h"

#include <spdlog/spdlog.h>
#include <sys/random.h>
#include <time.h>

#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "config/rank_board.h"
#include "config/run_directory.h"
#include "launch/launcher/gang_files.h"
#include "launch/launcher/mpirun.h"
#include "launch/launcher/process.h"
#include "launch/supervisor/checkpoint_reader.h"
#include "launch/supervisor/run_view.h"

namespace lockstep::launch {
namespace {

// More than the ranks and people of one host can cause; beyond it, whoever posts is refused.
constexpr size_t kMaxQueuedEvents = 20'000;
constexpr double kMaxBatchSeconds = 0.05;
constexpr double kPollSeconds = 0.1;
constexpr int kKeptBackups = 3;

double Seconds(clockid_t clock) {
  timespec time{};
  clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

CoordinatorOptions WithRandom(CoordinatorOptions options, std::function<uint64_t()> random) {
  if (!options.random) options.random = std::move(random);
  return options;
}

}  // namespace

Now Supervisor::ReadClocks() {
  return {Seconds(CLOCK_MONOTONIC), Seconds(CLOCK_REALTIME)};
}

uint64_t Supervisor::RandomWord() {
  uint64_t word = 0;
  if (getrandom(&word, sizeof(word), 0) != sizeof(word)) std::abort();
  return word;
}

Supervisor::Supervisor(SupervisorOptions options, Launcher& launcher,
                       std::unique_ptr<RunStore> store)
    : options_(std::move(options)),
      launcher_(launcher),
      store_(std::move(store)),
      coordinator_(WithRandom(options_.coordinator, RandomWord)),
      boot_id_(BootId()) {}

absl::StatusOr<std::unique_ptr<Supervisor>> Supervisor::Open(SupervisorOptions options,
                                                             Launcher& launcher,
                                                             std::unique_ptr<RunStore> store) {
  std::unique_ptr<Supervisor> supervisor(
      new Supervisor(std::move(options), launcher, std::move(store)));
  if (absl::Status status = supervisor->Load(); !status.ok()) return status;
  return supervisor;
}

void Supervisor::Begin() {
  thread_ = std::thread([this] { Loop(); });
  hang_thread_ = std::thread([this] { LookAtHangs(); });
}

Supervisor::~Supervisor() {
  Shutdown();
}

absl::Status Supervisor::Load() {
  const Now now = ReadClocks();
  started_unix_ = now.unix;
  absl::StatusOr<std::vector<StoredRun>> stored =
      store_->LoadRuns({now.monotonic, now.unix, boot_id_});
  if (!stored.ok()) return stored.status();
  auto transitions = store_->CountTransitions();
  if (!transitions.ok()) return transitions.status();
  coordinator_.RestoreTransitions(*std::move(transitions));
  std::vector<Run> runs;
  for (StoredRun& one : *stored) {
    Run& run = one.run;
    Detail& detail = details_[run.spec.id];
    if (!detail.progress.ParseFromString(one.progress) ||
        !detail.totals.ParseFromString(one.totals)) {
      return absl::DataLossError(
          absl::StrCat("run store: the progress of run ", run.spec.id, " cannot be read"));
    }
    if (run.has_processes && run.gang.pid == 0 && !run.spec.external) {
      // Launched, and the daemon died before it could note the processes.
      run.gang = MpirunLauncher::Find(run.spec.run_dir, run.attempt).value_or(Gang{});
    }
    changed_.insert(run.spec.id);
    runs.push_back(std::move(run));
  }
  if (absl::Status status = LoadLedger(runs, now); !status.ok()) return status;
  coordinator_.Restore(std::move(runs), now);
  if (absl::Status status = LoadMonth(now); !status.ok()) return status;
  Publish();
  return absl::OkStatus();
}

void Supervisor::Shutdown() {
  {
    const std::lock_guard lock(queue_mutex_);
    stopping_ = true;
  }
  queue_changed_.notify_all();
  if (thread_.joinable()) thread_.join();
  {
    const std::lock_guard lock(hang_mutex_);
    hang_stopping_ = true;
  }
  hang_changed_.notify_all();
  if (hang_thread_.joinable()) hang_thread_.join();
}

bool Supervisor::Post(std::function<void(Now)> handle, std::function<void()> refuse) {
  {
    const std::lock_guard lock(queue_mutex_);
    if (stopping_ || queue_.size() >= kMaxQueuedEvents) return false;
    queue_.push_back({std::move(handle), std::move(refuse)});
  }
  queue_changed_.notify_one();
  return true;
}

void Supervisor::Loop() {
  // A look at the runs comes first: whoever asks after a restart must not hear of less than before.
  do {
    const Now now = ReadClocks();
    if (now.monotonic - polled_at_ >= kPollSeconds) {
      polled_at_ = now.monotonic;
      PollGangs(now);
      ReadBoards(now);
      DropCancelled();
      if (coordinator_.MonthHasChanged(now)) NewMonth(now);
      coordinator_.Tick(now);
      Backup();
    }
    RunActions();
  } while (HandleEvents());
  Finish();
}

// Waits for events, at most a tick, and handles what is there: for a bounded time, so that under a
// flood of orders those before are answered, and the ranks are still looked after. False when the
// supervisor is to end.
bool Supervisor::HandleEvents() {
  const double began = ReadClocks().monotonic;
  std::unique_lock lock(queue_mutex_);
  queue_changed_.wait_for(lock, options_.tick, [&] { return stopping_ || !queue_.empty(); });
  bool first = true;
  while (!stopping_ && !queue_.empty()) {
    const Event event = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    const Now now = ReadClocks();
    event.handle(now);
    lock.lock();
    if (!first && now.monotonic - began > kMaxBatchSeconds) break;
    first = false;
  }
  return !stopping_;
}

void Supervisor::Finish() {
  std::deque<Event> unhandled;
  {
    const std::lock_guard lock(queue_mutex_);
    unhandled.swap(queue_);
  }
  for (const Event& event : unhandled) {
    if (event.refuse) event.refuse();
  }
  // What was decided is stored; what is not carried out yet is taken up at the next start.
  progress_dirty_.clear();
  for (const auto& [id, detail] : details_) {
    const Run* run = coordinator_.Find(id);
    if (run != nullptr && !IsTerminal(run->state)) progress_dirty_.insert(id);
  }
  Absorb(coordinator_.TakeActions());
  if (!Commit(true)) spdlog::error("the last changes could not be stored");
  Publish();
  for (const auto& answer : std::exchange(answers_, {})) answer();
  const absl::Status down = absl::UnavailableError("the coordinator is shutting down");
  Answer unavailable;
  unavailable.status = down;
  for (auto& [order, waiter] : std::exchange(waiters_, {})) waiter.done(unavailable);
  if (all_stopped_) all_stopped_();
  for (auto& [stream, session] : std::exchange(sessions_, {})) stream->Close(down);
  for (auto& [id, list] : std::exchange(watchers_, {})) {
    for (auto& watcher : list) watcher->Close(down);
  }
}

void Supervisor::PollGangs(Now now) {
  struct Ended {
    std::string run;
    int attempt;
    std::string run_dir;
    GangEnd end;
  };
  std::vector<Ended> ended;
  for (const auto& [id, run] : coordinator_.runs()) {
    if (!run.has_processes) continue;
    if (run.spec.external) {
      bool alive = false;
      for (const RankProcess& rank : run.rank_processes) {
        alive = alive || IsAlive(rank.pid, rank.start_time_ticks);
      }
      if (!alive) {
        ended.push_back(
            {id, run.attempt, run.spec.run_dir, ExplainEnd(run.spec.run_dir, run.attempt, {})});
      }
    } else if (run.gang.pid > 0) {
      std::optional<GangEnd> end = launcher_.Poll(run.gang, run.spec.run_dir, run.attempt);
      if (end) ended.push_back({id, run.attempt, run.spec.run_dir, *std::move(end)});
    }
  }
  for (const Ended& one : ended) {
    spdlog::info("run {} attempt {} ended: code {} {}", one.run, one.attempt, one.end.exit_code,
                 one.end.reason);
    const config::RunDirectory directory(one.run_dir);
    GangEnd end = one.end;
    end.ended_at = LastLook(one.run, one.attempt, now);
    coordinator_.GangEnded(one.run, one.attempt, end, NewestCheckpointStep(directory.checkpoints()),
                           now);
  }
  polled_first_ = false;
}

void Supervisor::DropCancelled() {
  for (auto it = waiters_.begin(); it != waiters_.end();) {
    if (it->second.cancelled && it->second.cancelled()) {
      Answer answer;
      answer.status = absl::CancelledError("the caller went away; the order stands");
      it->second.done(answer);
      it = waiters_.erase(it);
    } else {
      ++it;
    }
  }
}

void Supervisor::Backup() {
  const time_t seconds = static_cast<time_t>(ReadClocks().unix);
  tm date{};
  gmtime_r(&seconds, &date);
  char day[16];
  strftime(day, sizeof(day), "%Y-%m-%d", &date);
  if (backup_day_ == day) return;
  backup_day_ = day;
  if (absl::Status status = store_->Backup(day, kKeptBackups); !status.ok()) {
    ++store_errors_;
    spdlog::warn("{}", std::string(status.message()));
  }
}

// --- Hanging gangs.

void Supervisor::LookAtHangs() {
  for (;;) {
    std::function<void()> work;
    {
      std::unique_lock lock(hang_mutex_);
      hang_changed_.wait(lock, [&] { return hang_stopping_ || !hang_work_.empty(); });
      if (hang_stopping_) return;
      work = std::move(hang_work_.front());
      hang_work_.pop_front();
    }
    work();
  }
}

void Supervisor::AskWhoHangs(const Action& action) {
  const Run* run = coordinator_.Find(action.run);
  if (run == nullptr || run->attempt != action.attempt) return;
  spdlog::warn("run {}: {}", action.run, action.reason);
  const std::string id = action.run;
  const int attempt = action.attempt;
  auto work = [this, id, attempt, gang = run->gang, run_dir = run->spec.run_dir] {
    HangReport report = launcher_.DescribeHang(gang, run_dir, attempt);
    Post([this, id, attempt, report = std::move(report)](Now now) {
      coordinator_.HangDescribed(id, attempt, report, now);
    });
  };
  {
    const std::lock_guard lock(hang_mutex_);
    hang_work_.push_back(std::move(work));
  }
  hang_changed_.notify_one();
}

}  // namespace lockstep::launch

// The coordinator's hands: one thread that feeds events to the state machine
// (launch/coordinator/coordinator.h) and carries out what it decides.
//
// Services post events from any thread; each is handled in order on the supervisor's thread. What a
// batch of events changed is committed to the store in one transaction before anything of it is
// acted on or answered, so an answer is never ahead of the disk. When the store cannot be written,
// everything waits (runs go on) and new orders are refused with UNAVAILABLE.
//
// Callbacks (answers, watchers, rank streams) run on the supervisor's thread and must not block.
// Reading (Find, List, Sample) takes a short lock and never waits for the supervisor's work.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "config/rank_board.h"
#include "launch/coordinator/coordinator.h"
#include "launch/coordinator/run_store.h"
#include "launch/launcher/launcher.h"
#include "launch/supervisor/rank_watch.h"
#include "lockstep/v1/rank.pb.h"
#include "lockstep/v1/run.pb.h"
#include "metrics/snapshot.h"

namespace lockstep::launch {

// A mutating request's identity. An empty id means that a repetition is a new request.
struct RequestKey {
  std::string id;
  std::string method;
  std::string digest;
};

struct Answer {
  absl::Status status;
  v1::Run run;
  int64_t step = 0;
  v1::CheckpointEvent checkpoint;
};
using AnswerCallback = std::function<void(const Answer&)>;

// One Attach stream of rank 0. Methods do not block and may be called after the stream ended.
class RankStream {
 public:
  virtual ~RankStream() = default;
  virtual void Welcome(const std::string& run_id) = 0;
  virtual void Send(const v1::Order& order) = 0;
  virtual void Close(const absl::Status& status) = 0;
};

// Gets the views of one run as they change, each newer than the one before.
class RunWatcher {
 public:
  virtual ~RunWatcher() = default;
  virtual void Changed(const std::shared_ptr<const v1::Run>& run) = 0;
  virtual void Close(const absl::Status& status) = 0;
};

struct SupervisorOptions {
  CoordinatorOptions coordinator;
  std::vector<std::string> gpus;    // By slot number; empty = ranks see what the coordinator sees.
  std::filesystem::path state_dir;  // Runs are made in state_dir/runs/ID.
  std::string socket;               // Where ranks find the coordinator.
  metrics::BuildInfo build;
  std::function<metrics::DeviceReadings()> devices;  // May be empty; must not block.
  std::chrono::milliseconds tick{100};
  std::chrono::milliseconds progress_commit{1000};  // Progress is stored at most so often.
};

class Supervisor {
 public:
  /// Reads the store and takes up the runs it holds; nothing happens to them before Begin().
  /// `launcher` must outlive the supervisor.
  static absl::StatusOr<std::unique_ptr<Supervisor>> Open(SupervisorOptions options,
                                                          Launcher& launcher,
                                                          std::unique_ptr<RunStore> store);
  ~Supervisor();

  /// Starts the thread. Once.
  void Begin();

  /// Answers everyone who waits with UNAVAILABLE, closes streams and watchers, stores the rest and
  /// ends the thread. Processes of runs go on. Idempotent.
  void Shutdown();

  // --- Orders. The callback is called exactly once.
  /// `spec.id` and `spec.run_dir` are chosen here.
  void Submit(const RequestKey& key, RunSpec spec, const AnswerCallback& done);
  /// `limits` are a resume's. `cancelled` is asked now and then; once it is true the caller no
  /// longer waits (the order stands).
  void Command(const RequestKey& key, const std::string& run, OrderKind kind,
               const std::string& reason, const LimitChanges& limits,
               std::function<bool()> cancelled, const AnswerCallback& done);
  /// Stops (saves and ends) every run that has processes and launches no other; `done` once they
  /// are gone.
  void StopAll(const std::function<void()>& done);

  // --- Looking.
  /// By id, unique prefix of an id, or name (the newest). NOT_FOUND; INVALID_ARGUMENT when several
  /// ids begin so. Without config_yaml.
  absl::StatusOr<std::shared_ptr<const v1::Run>> Find(const std::string& text) const;
  std::string ConfigOf(const std::string& id) const;
  struct Listed {
    uint64_t number = 0;
    std::shared_ptr<const v1::Run> run;
  };
  /// Newest first.
  std::vector<Listed> List() const;
  /// The ledger's lines, posted (summed up by day) and open, of a run by its id or of all (empty).
  /// `done` is called once, on the supervisor's thread.
  using LedgerCallback = std::function<void(absl::StatusOr<std::vector<StoredLine>>)>;
  void Ledger(const std::string& run, double since_unix, const LedgerCallback& done);
  /// What the run's checkpoints had cost. Likewise.
  void CheckpointCosts(const std::string& id,
                       const std::function<void(const std::vector<CheckpointCost>&)>& done);
  // What of the daemon is no run.
  struct Overview {
    int free_slots = 0;
    int64_t month_micros = 0;  // Cost of all runs since the month began.
    double cpu_watts = -1;     // Of the host's CPUs, lately; negative = unknown.
    metrics::DeviceReadings devices;
    std::map<std::string, std::pair<std::string, int>> gpu_holders;  // By GPU: run and rank.
  };
  Overview overview() const;
  /// Everything for a scrape but the RPC counts; waits for the supervisor's thread, briefly.
  /// nullopt when that has no time (a disk that takes long) or has ended.
  std::optional<metrics::Snapshot> Sample();

  /// Tells the watcher the run as it is (if newer than `after_sequence`) and every change, until
  /// the run has ended or RemoveWatcher().
  void AddWatcher(const std::string& id, int64_t after_sequence,
                  const std::shared_ptr<RunWatcher>& watcher);
  void RemoveWatcher(const std::string& id, const RunWatcher* watcher);

  // --- Ranks.
  /// `external` is the spec of a run that names no id.
  void Attach(const v1::Hello& hello, RunSpec external, const std::shared_ptr<RankStream>& stream);
  void FromRank(const std::shared_ptr<RankStream>& stream, v1::AttachRequest message);
  void Detach(const std::shared_ptr<RankStream>& stream);

 private:
  struct Detail {
    v1::Progress totals;    // Of earlier attempts.
    v1::Progress progress;  // Newest of attempt Run::progress_attempt.
    double last_report_unix = 0;
    double last_step_unix = 0;
    std::vector<double> heard;  // By rank: its last sign of life (monotonic); 0 = none yet.
  };
  // What the devices of each rank had used when they were last looked at.
  struct Meters {
    int attempt = 0;
    std::vector<std::optional<double>> joules;
    std::vector<std::string> gpus;  // That were among them; a rank may tell of its GPU later.
  };
  struct Waiter {
    AnswerCallback done;
    std::function<bool()> cancelled;
  };
  struct Session {
    std::string run;
    int attempt = 0;
  };
  struct View {
    uint64_t number = 0;
    std::shared_ptr<const v1::Run> run;
    std::string config_yaml;
  };
  struct Event {
    std::function<void(Now)> handle;
    std::function<void()> refuse;  // In place of `handle` when the supervisor ends; may be empty.
  };

  Supervisor(SupervisorOptions options, Launcher& launcher, std::unique_ptr<RunStore> store);
  absl::Status Load();

  static Now ReadClocks();
  static uint64_t RandomWord();
  /// False (and neither is called) when the supervisor ends or too much waits already.
  bool Post(std::function<void(Now)> handle, std::function<void()> refuse = {});
  absl::Status MayOrder();
  void PostOrder(std::function<void(Now)> handle, const AnswerCallback& done);
  void Loop();
  bool HandleEvents();
  void Finish();
  void LookAtHangs();
  void PollGangs(Now now);
  void ReadBoards(Now now);
  void ReadBoard(const std::string& id, int attempt, Now now);
  void WatchRanks(const Run& run, const std::vector<config::RankState>& board, Now now);
  std::optional<double> LastLook(const std::string& id, int attempt, Now now);
  static std::vector<config::RankState> BoardOf(const Run& run);
  std::vector<metrics::RankUsage> UsageOf(const Run& run,
                                          const std::vector<config::RankState>& board, Now now);
  std::string GpuOf(const Run& run, size_t rank) const;
  static std::string NameOfGpu(const Run& run, size_t rank, const metrics::GpuReading* reading);
  std::optional<double> MeterOf(const Run& run, size_t rank,
                                const metrics::DeviceReadings& readings) const;
  std::vector<metrics::GpuHolder> GpuHolders(const metrics::DeviceReadings& readings) const;
  void NoteMeters(const Run& run, const metrics::DeviceReadings& readings);
  metrics::DeviceReadings Devices() const;
  void MeasureCpu(double seconds);
  void LookAtGpus();
  absl::Status LoadLedger(std::vector<Run>& runs, Now now);
  absl::Status LoadMonth(Now now);
  void NewMonth(Now now);
  absl::StatusOr<std::vector<StoredLine>> AllLines(const std::string& run, double since_unix);
  void DropCancelled();

  // Carrying out.
  void RunActions();
  bool Commit(bool progress_due);
  void Absorb(std::vector<Action> actions);
  void FinishRequests(const Action& action);
  void Carry(const Action& action);
  void Launch(const Action& action);
  void KillProcesses(const Action& action);
  void AskWhoHangs(const Action& action);
  void Publish();
  Overview MakeOverview() const;
  metrics::Snapshot MakeSample(Now now) const;
  void Backup();

  // On the supervisor's thread.
  void DoSubmit(const RequestKey& key, RunSpec spec, const AnswerCallback& done, Now now);
  void DoCommand(const RequestKey& key, const std::string& id, OrderKind kind,
                 const std::string& reason, const LimitChanges& limits, Waiter waiter, Now now);
  /// True when the request was seen before: it is answered, or waits for the first one's answer.
  bool Repeated(const RequestKey& key, const Waiter& waiter);
  void Remember(const RequestKey& key, const std::string& run, const std::string& order_id,
                const Answer& answer);
  void Reply(const AnswerCallback& done, Answer answer);
  void DoAttach(const v1::Hello& hello, RunSpec external, std::shared_ptr<RankStream> stream,
                Now now);
  absl::StatusOr<Session> Accept(const v1::Hello& hello, RunSpec external, Now now);
  void DoRankMessage(const std::shared_ptr<RankStream>& stream, const v1::AttachRequest& message,
                     Now now);
  void TakeProgress(const Session& session, const v1::Progress& progress, Now now);

  v1::Run ViewOf(const Run& run, int queue_position, Now now) const;
  std::string NewRunId(const std::string& name);

  const SupervisorOptions options_;
  Launcher& launcher_;

  // Events on their way in.
  std::mutex queue_mutex_;
  std::condition_variable queue_changed_;
  std::deque<Event> queue_;
  bool stopping_ = false;
  bool store_broken_ = false;

  // The supervisor thread's own.
  std::unique_ptr<RunStore> store_;
  Coordinator coordinator_;
  std::map<std::string, Detail> details_;
  std::map<std::string, Meters> meters_;
  std::map<std::string, RankWatch> watches_;    // Of live runs.
  std::multimap<std::string, Waiter> waiters_;  // By order id.
  std::map<std::shared_ptr<RankStream>, Session> sessions_;
  std::unordered_map<std::string, std::vector<std::shared_ptr<RunWatcher>>> watchers_;
  std::vector<Action> pending_;                 // Decided, not yet committed.
  std::vector<StoredRequest> new_requests_;     // Likewise.
  std::vector<StoredLine> new_lines_;           // Likewise.
  std::vector<std::function<void()>> answers_;  // To be called after the commit.
  std::vector<StoredTransition> new_transitions_;
  std::set<std::string> dirty_;           // To be stored before anything else is done.
  std::set<std::string> progress_dirty_;  // To be stored soon.
  std::set<std::string> changed_;         // Since the last publication.
  std::vector<std::string> queued_;       // As last published.
  std::function<void()> all_stopped_;
  double committed_at_ = 0;
  double commit_failed_at_ = 0;
  double boards_at_ = 0;
  double polled_at_ = 0;
  std::optional<double> cpu_joules_;  // Of the host, when it was last looked at.
  double cpu_watts_ = -1;             // Since then; negative = unknown.
  std::map<int, std::string> bad_slots_;
  std::map<int, int64_t> xids_told_;  // By GPU.
  bool polled_first_ = true;          // The next poll is the first one.
  std::string backup_day_;
  const std::string boot_id_;
  double started_unix_ = 0;
  int64_t store_errors_ = 0;
  metrics::Histogram store_seconds_;  // Of commits, in metrics::kServiceBuckets.

  // What readers see.
  mutable std::mutex view_mutex_;
  std::unordered_map<std::string, View> views_;
  Overview overview_;

  // Looks at hanging gangs, which takes seconds.
  std::mutex hang_mutex_;
  std::condition_variable hang_changed_;
  std::deque<std::function<void()>> hang_work_;
  bool hang_stopping_ = false;

  std::thread hang_thread_;
  std::thread thread_;
};

}  // namespace lockstep::launch

// What happens to runs: a pure state machine. Events go in with the time they happened at, actions
// come out; no gRPC, threads, clock or files inside.
//
//   queued -> starting -> running -> completed | stopped | failed
//               ^  |         |  \-> pausing -> paused -> queued | running
//               |  v         v
//               recovering <-+          stopping -> stopped (launch/coordinator/run_state.h has
//               all)
//
// Rules it keeps:
//  - Slots: a run holds `ranks` of them from its launch until its processes are gone, also while it
//    recovers or is held. The queue is strict: by priority, then in order of submission; the head
//    waits and nobody overtakes it.
//  - Fencing: each attempt has a number and a secret token. Whatever comes from another attempt
//    than the current one is refused or ignored.
//  - Liveness is the step number advancing, judged per phase, not a heartbeat; gaps in the caller's
//    own ticks (a suspended host) do not count.
//  - Every order is finished exactly once, by kFinishOrder; asking again for the same joins it.
//
// Not thread-safe. Every event function appends to the actions; the caller takes them with
// TakeActions() and carries them out in order, everything persistent first. An illegal transition
// is a bug of ours and aborts.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "config/coordinator_config.h"
#include "launch/coordinator/run_record.h"

namespace lockstep::launch {

struct Now {
  double monotonic = 0;  // Seconds of CLOCK_MONOTONIC: every decision.
  double unix = 0;       // Seconds since 1970: only shown.
};

struct Action {
  enum class Kind {
    kPersist,       // Store the run before anything else in the batch is done.
    kNotify,        // The run changed; may be stored later.
    kTransition,    // from -> to, with a reason, for the history.
    kLaunch,        // Start attempt `attempt`; answer with Launched().
    kSendOrder,     // Send `order` to rank 0, if it is attached.
    kKill,          // Kill the processes of the attempt.
    kDescribeHang,  // Find out who hangs; answer with HangDescribed().
    kFinishOrder,   // Order `order.id` ended with `status`, after `step`.
    kWarn,          // Something a person should know of: `reason`.
  };
  Kind kind = Kind::kNotify;
  std::string run;
  int attempt = 0;
  Order order;
  absl::Status status;
  int64_t step = 0;
  CheckpointFacts checkpoint;
  RunState from = RunState::kQueued;
  RunState to = RunState::kQueued;
  std::string reason;
};

struct HelloFacts {
  std::string run_id;
  int attempt = 0;
  std::string token;
  Gang gang;  // Of mpirun as the rank sees it.
  bool held = false;
  std::vector<RankDevice> devices;  // By rank; empty = not told.
};

struct ProgressFacts {
  int64_t step = 0;        // Done in the run.
  int64_t first_step = 0;  // The attempt started from.
  int64_t attempt_steps = 0;
  double mean_step_seconds = 0;  // 0 = unknown, likewise below.
  double p99_step_seconds = 0;
  double eta_seconds = -1;        // Negative = unknown.
  double evaluation_seconds = 0;  // Of the last one.
  bool held = false;
};

// What the rank board shows (config/rank_board.h).
struct BoardFacts {
  int64_t step = 0;  // Of the rank that is furthest behind.
  config::Phase phase = config::Phase::kStartup;
  uint64_t activity = 0;  // Grows with each collective of any rank.
};

struct OrderOutcome {
  std::string order_id;
  int64_t step = 0;
  std::string error;
  CheckpointFacts checkpoint;
};

struct CoordinatorOptions {
  int slots = 1;
  config::PriceConfig price;
  std::string host;  // Name of this machine, for the prices.
  config::BudgetConfig budget;
  std::function<uint64_t()> random;  // Tokens, order ids and jitter; required.
  double min_stall_seconds = 60;     // When the run sets no timeout.
  double startup_allowance_seconds = 600;
  double phase_allowance_seconds = 600;   // Evaluation and checkpoint, before one was seen to end.
  double min_order_seconds = 60;          // For a pause or stop to be carried out.
  double goodbye_allowance_seconds = 30;  // From the goodbye to the end of the processes.
  double reattach_seconds = 5;            // For a hello after a restart, when in doubt.
};

class Coordinator {
 public:
  explicit Coordinator(CoordinatorOptions options);

  // --- What a person asks for.
  /// RESOURCE_EXHAUSTED: more ranks than there are slots. ALREADY_EXISTS: the id.
  absl::Status Submit(RunSpec spec, Now now);
  /// The id of the order that will finish; empty = it is so already. NOT_FOUND,
  /// FAILED_PRECONDITION (wrong state), RESOURCE_EXHAUSTED (resume past a limit). `limits` are a
  /// resume's; they are taken over only when it succeeds.
  absl::StatusOr<std::string> Command(const std::string& run, OrderKind kind,
                                      const std::string& reason, Now now,
                                      const LimitChanges& limits = {});

  // --- What the launcher and the ranks say. An attempt that is not the current one is ignored.
  void Launched(const std::string& run, int attempt, const absl::StatusOr<Gang>& gang, Now now);
  /// NOT_FOUND, FAILED_PRECONDITION ("stale attempt"), PERMISSION_DENIED (token).
  absl::Status Hello(const HelloFacts& hello, Now now);
  /// A run that a user started: it is running already, since `age_seconds`.
  absl::Status RegisterExternal(RunSpec spec, const HelloFacts& hello,
                                std::vector<RankProcess> processes, double age_seconds, Now now);
  void Detached(const std::string& run, int attempt);
  void Progressed(const std::string& run, int attempt, const ProgressFacts& progress, Now now);
  void Observed(const std::string& run, int attempt, const BoardFacts& board, Now now);
  /// What the attempt has read from the data set so far.
  void DataWasRead(const std::string& run, int attempt, const DataRead& read);
  /// What the ranks have spent so far, for the ledger. Call it about once a second for each run
  /// that has processes, and a last time before GangEnded().
  void Used(const std::string& run, int attempt, const std::vector<metrics::RankUsage>& ranks,
            Now now);
  /// An evaluation: the value of the metric named in the run's limits.
  void Evaluated(const std::string& run, int attempt, int64_t step, double value, Now now);
  void CheckpointWritten(const std::string& run, int attempt, const CheckpointFacts& checkpoint,
                         Now now);
  void OrderDone(const std::string& run, int attempt, const OrderOutcome& outcome, Now now);
  void HoldChanged(const std::string& run, int attempt, bool held, int64_t step,
                   const std::string& reason, Now now);
  void Goodbye(const std::string& run, int attempt, int exit_code, const std::string& reason,
               Now now);
  /// `newest_checkpoint`: step of the newest committed one in the run directory; 0 = none.
  void GangEnded(const std::string& run, int attempt, const GangEnd& end, int64_t newest_checkpoint,
                 Now now);
  void HangDescribed(const std::string& run, int attempt, const HangReport& report, Now now);

  /// Slots that are given to no new attempt (their GPU is bad), by number, each with why.
  void SetBadSlots(std::map<int, std::string> slots) { bad_slots_ = std::move(slots); }

  /// Deadlines, backoff, limits, the queue. Call it several times a second.
  void Tick(Now now);
  /// No attempt is launched any more; for a daemon that is about to end.
  void Drain() { draining_ = true; }
  /// Puts stored runs back, once, before any event. Processes are taken to be alive until
  /// GangEnded() says otherwise; what is queued starts with the first Tick().
  void Restore(std::vector<Run> runs, Now now);
  /// Counts of the past, so that transitions() goes on from them.
  void RestoreTransitions(std::map<std::pair<RunState, RunState>, int64_t> counts) {
    transitions_ = std::move(counts);
  }
  /// What the lines of the running month, posted and open, sum up to. Call it after Restore() and
  /// before a Tick() when MonthHasChanged(): a clock that was set may go back to an earlier one.
  void SetMonth(int64_t spent_micros, Now now);
  bool MonthHasChanged(Now now) const;

  /// The run changed in the eyes of others: a new sequence number, nothing else.
  void Touch(const std::string& run) { ++runs_.at(run).sequence; }

  std::vector<Action> TakeActions();
  /// Lines of the ledger to be stored with their runs, by run.
  std::vector<std::pair<std::string, metrics::LedgerLine>> TakeLines();

  // --- Looking.
  const std::map<std::string, Run>& runs() const { return runs_; }
  const Run* Find(const std::string& id) const;
  int slots() const { return options_.slots; }
  int free_slots() const;
  /// The lowest numbers of good slots that no run holds, `count` of them where there are so many. A
  /// run that recovers holds its slots, but not their numbers.
  std::vector<int> FreeSlotNumbers(int count) const;
  /// Ids in the order they will start.
  std::vector<std::string> Queue() const;
  const metrics::Pricing& pricing() const { return pricing_; }
  /// In the currency, until now: what is counted and what has passed since.
  double Cost(const Run& run, Now now) const;
  /// At the end of the run, from how far it is; negative = unknown.
  double ProjectedCost(const Run& run, Now now) const;
  /// The limit of the run that is nearest to being used up: which share, and its name; 0 = none.
  std::pair<double, std::string> NearestLimit(const Run& run, Now now) const;
  /// All runs since the month began (UTC), millionths.
  int64_t MonthMicros() const;
  double StallLimitSeconds(const std::string& run) const;
  const std::map<std::pair<RunState, RunState>, int64_t>& transitions() const {
    return transitions_;
  }
  const std::map<std::string, int64_t>& watchdog_fired() const { return watchdog_fired_; }

 private:
  // What is known of a live attempt only while the coordinator runs.
  struct Live {
    bool attached = false;
    double attached_at = 0;
    double changed_at = 0;  // Last sign of progress.
    int64_t step = -1;
    int64_t attempt_steps = 0;
    double p99_step_seconds = 0;
    double evaluation_seconds = 0;
    double mean_step_seconds = 0;
    double eta_seconds = -1;
    bool has_board = false;
    BoardFacts board;
    bool hang_asked = false;
    std::string hang_why;
    double killed_at = 0;
    double goodbye_at = 0;
    double hello_deadline = 0;  // After a restart with no gang on record.
    double limit_tried_at = 0;
    bool restored = false;
  };

  Run* Current(const std::string& id, int attempt);
  Run& At(const std::string& id) { return runs_.at(id); }
  Live& LiveOf(const Run& run) { return live_[run.spec.id]; }

  void Enter(Run& run, RunState to, std::string reason, Now now, bool crashed = false);
  void Persist(Run& run);
  void Notify(Run& run);
  Action& Emit(Action::Kind kind, const Run& run);

  std::string AddOrder(Run& run, OrderKind kind, const std::string& reason, bool to_ranks, Now now);
  std::string Outstanding(const Run& run, OrderKind kind) const;
  void FinishOrders(Run& run, std::initializer_list<OrderKind> kinds, const absl::Status& status);
  void FinishOrder(Run& run, const std::string& id, const absl::Status& status, int64_t step,
                   const CheckpointFacts& checkpoint);

  absl::StatusOr<std::string> Pause(Run& run, bool hold, const std::string& reason, Now now);
  absl::StatusOr<std::string> Resume(Run& run, const LimitChanges& changes, Now now);
  absl::Status ChangeLimits(Run& run, const LimitChanges& changes, Now now);
  absl::StatusOr<std::string> Checkpoint(Run& run, Now now);
  absl::StatusOr<std::string> Stop(Run& run, const std::string& reason, Now now);
  absl::StatusOr<std::string> Kill(Run& run, const std::string& reason, Now now);
  void KillGang(Run& run, std::string why, Now now);
  void OrderFailed(Run& run, OrderKind kind, const std::string& error, Now now);

  void Schedule(Now now);
  void Start(Run& run, Now now);
  void EndAttempt(Run& run, int exit_code, const std::string& reason, Now now);
  void Paused(Run& run, const std::string& reason, Now now, bool crashed = false);
  void Crash(Run& run, const char* label, const std::string& reason, Now now);
  void NoteCheckpoint(Run& run, const CheckpointFacts& checkpoint, Now now);

  void Watch(Run& run, Live& live, Now now);
  void CheckLimits(Run& run, Live& live, Now now);
  void Warn(Run& run, Now now);
  void WarnOfMonth();
  double UnitsToEnd(Now now) const;
  std::string LimitReached(const Run& run, double ahead_seconds, Now now) const;
  double RanksPerHour(const Run& run, Now now) const;
  double SecondsToEnd(const Run& run) const;
  std::string WhyItWaits(const Run& run) const;
  bool MonthIsSpent(double ahead) const;
  std::string MonthReason(Now now) const;
  int64_t AllMicros() const;
  void Judge(Run& run, Now now);
  void CloseAccount(Run& run, int exit_code, double ended_at, Now now);
  void AskWhoHangs(Run& run, Live& live, std::string why);
  std::pair<double, const char*> StallLimit(const Run& run, const Live& live) const;

  std::string RandomHex(int bytes);

  const CoordinatorOptions options_;
  const metrics::Pricing pricing_;
  std::map<std::string, Run> runs_;
  std::map<std::string, Live> live_;  // Of runs that have not ended.
  uint64_t next_number_ = 1;
  uint64_t next_queue_order_ = 1;
  bool draining_ = false;
  double last_tick_ = 0;
  std::vector<Action> actions_;
  std::map<std::pair<RunState, RunState>, int64_t> transitions_;
  std::map<std::string, int64_t> watchdog_fired_;
  std::map<int, std::string> bad_slots_;

  double leave_seconds_ = 1;         // From the last goodbye to the end of its processes.
  int64_t ended_micros_ = 0;         // Cost of the runs that have ended.
  int month_ = 0;                    // Which one it is, counted from year 0.
  int64_t before_month_micros_ = 0;  // Cost of all runs until it began.
  int month_warned_percent_ = 0;
};

}  // namespace lockstep::launch

// What the coordinator must still know after a restart, in one SQLite file (state_dir/lockstep.db).
//
// Tables, schema version 3 (PRAGMA user_version; version 1 had no ledger, version 2 no ledger_days:
// they are upgraded):
//   runs         id, state, record (JSON, launch/coordinator/run_record.h), config_yaml, progress
//   and totals
//                (serialized lockstep.v1.Progress), checksum (xxh3-64 of the others)
//   transitions  the history: run, from, to, reason, Unix time; the newest 100,000
//   requests     answers by request id, so that a repeated one is answered and not done again; the
//                newest 10,000
//   ledger       posted lines of the runs' accounts (metrics/ledger.h), only ever added to
//   ledger_days  their sums by run, rank, phase and day, kept by a trigger on `ledger`: a run of
//                years is summed up from some rows a day in the place of some thousand lines
//   meta         the clocks at the last commit, which tell how long the host was away; the currency
//                of the ledger
//
// One connection, exclusive lock, synchronous=FULL: what Commit() returned OK for survives a power
// cut. SQLite's own check sees damaged pages; the checksum sees damaged contents. Not thread-safe.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "launch/coordinator/run_record.h"

namespace lockstep::launch {

inline constexpr int kStoreVersion = 3;

struct StoredRun {
  Run run;
  std::string progress;  // Newest of the attempt.
  std::string totals;    // Sum over the earlier attempts.
};

struct StoredTransition {
  std::string run;
  RunState from = RunState::kQueued;
  RunState to = RunState::kQueued;
  std::string reason;
  double at_unix = 0;
};

// A mutating request and, once it is done, its answer.
struct StoredRequest {
  std::string id;
  std::string method;
  std::string digest;  // Of the request: the same id for something else is a mistake.
  std::string run;
  std::string order_id;  // What it waits for; empty = nothing.
  bool done = false;
  int code = 0;  // absl::StatusCode
  std::string message;
  int64_t step = 0;
  std::string run_bytes;         // Serialized lockstep.v1.Run.
  std::string checkpoint_bytes;  // Serialized lockstep.v1.CheckpointEvent.
};

struct StoredLine {
  std::string run;
  metrics::LedgerLine line;
};

// The two clocks and the boot the first belongs to.
struct Clocks {
  double monotonic = 0;
  double unix = 0;
  std::string boot_id;
};

class RunStore {
 public:
  struct Batch {
    std::vector<StoredRun> runs;
    std::vector<StoredTransition> transitions;
    std::vector<StoredRequest> requests;
    std::vector<StoredLine> lines;
    Clocks clocks;
  };

  /// Makes the file when there is none. DATA_LOSS: damaged; the message has the commands that
  /// restore the newest of `backup_dir`. FAILED_PRECONDITION: written by a newer version.
  /// UNAVAILABLE: another process has it open. PERMISSION_DENIED: cannot be read or written.
  static absl::StatusOr<std::unique_ptr<RunStore>> Open(const std::filesystem::path& file,
                                                        const std::filesystem::path& backup_dir);
  ~RunStore();

  /// Every run; times are rebased to `now`'s monotonic clock. DATA_LOSS names the damaged row.
  absl::StatusOr<std::vector<StoredRun>> LoadRuns(const Clocks& now);
  absl::StatusOr<std::map<std::pair<RunState, RunState>, int64_t>> CountTransitions();
  absl::StatusOr<std::optional<StoredRequest>> FindRequest(const std::string& id);
  /// Those that wait for this order.
  absl::StatusOr<std::vector<StoredRequest>> FindRequestsOfOrder(const std::string& order_id);

  /// The currency that the ledger is in from now on. FAILED_PRECONDITION when it was another one,
  /// and not `may_change`.
  absl::Status UseCurrency(const std::string& currency, bool may_change);
  /// Posted lines, summed up by run, rank, phase and day (of their end, UTC): `run` empty = of all
  /// runs; those that ended after `since_unix`, first those of its day. from_unix and to_unix are
  /// the day's first second. Reads lines of that one day only, and a row for each sum.
  absl::StatusOr<std::vector<StoredLine>> SumLines(const std::string& run, double since_unix);

  /// All or nothing; durable on OK. RESOURCE_EXHAUSTED: the disk is full.
  absl::Status Commit(const Batch& batch);

  /// Writes backup_dir/lockstep-YYYY-MM-DD.db unless there is one of that day, and deletes all but
  /// the newest `keep`. `day` is YYYY-MM-DD.
  absl::Status Backup(const std::string& day, int keep);

 private:
  struct Impl;
  explicit RunStore(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace lockstep::launch

// Rank 0's end of the link to the coordinator (RankService in proto/lockstep/v1/rank.proto).
//
// The link never blocks and never fails training: a report is a copy under a mutex, everything else
// happens on a thread of the link's own. Without a coordinator, or while it is away, the run goes
// on and the thread tries again, for ever: every 0.2 s at first, then every 2 s. Whether a socket
// is there is looked at before a connection is tried, so that waiting for a coordinator costs
// nothing.
//
// What arrives: of progress the newest, at most every 100 ms; evaluations, checkpoints, holds and
// done orders each, in order. Those that were sent less than a second before a stream broke are
// sent again on the next one, so the coordinator must take a repeated one for the same one. What is
// kept for a coordinator that is away is bounded: of more than 1000 the oldest are dropped.
//
// Thread-safe. Destroying it takes at most about 0.2 s, whatever the other side does.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "trainer/link/reports.h"

namespace lockstep::trainer {

struct LinkDevice {
  std::string name;  // Of the rank's GPU; empty = the CPU, likewise below.
  std::string uuid;
};

struct LinkOptions {
  std::string socket;  // Unix socket; empty = config::DefaultSocket().
  std::string run_id;  // Empty = started by the user: the coordinator gives the run an id.
  int attempt = 1;
  std::string token;  // Of the attempt; empty when run_id is.
  std::string run_dir;
  int world_size = 1;
  std::vector<int64_t> pids;        // By rank.
  std::vector<std::string> hosts;   // By rank.
  std::vector<LinkDevice> devices;  // By rank.
  std::string config_yaml;          // Resolved.
  int64_t mpirun_pid = 0;           // Parent of the ranks on this host; 0 = none.
};

class CoordinatorLink {
 public:
  explicit CoordinatorLink(LinkOptions options);
  ~CoordinatorLink();
  CoordinatorLink(const CoordinatorLink&) = delete;
  CoordinatorLink& operator=(const CoordinatorLink&) = delete;

  void Report(const ProgressReport& progress);
  void Report(const EvaluationReport& evaluation);
  void Report(const CheckpointReport& checkpoint);

  /// The orders that came since the last call. Each id is handed out once, however often the
  /// coordinator repeats it.
  std::vector<Order> TakeOrders();
  /// All ranks carried out the order after `step`, or could not (`error`). Said again when the
  /// coordinator repeats an order that is done.
  void OrderDone(const std::string& order_id, int64_t step, const std::string& error = "",
                 const std::optional<CheckpointReport>& checkpoint = std::nullopt);
  /// The ranks stand still (or go on again) with their state in memory. `reason` is empty when they
  /// do so by order.
  void Hold(bool held, int64_t step, const std::string& reason = "");

  /// Why the coordinator will not have this attempt any more (a newer one exists, or the token is
  /// wrong); empty otherwise. The run must then end with TrainerExit::kStaleAttempt. Always empty
  /// for a run without run_id: there the link just keeps away.
  std::string rejected() const;
  bool connected() const;      // The coordinator has said welcome on the stream of now.
  std::string run_id() const;  // As given, or from the coordinator; empty before it answered.

  /// Says that the run ends, after all that is queued, and waits until the coordinator has taken
  /// it: at most `timeout`, and not at all when nobody answers. True when it was taken. The last
  /// call; reports after it are dropped. Of `progress` and the last report the further one is sent.
  bool Goodbye(int exit_code, const std::string& reason, const ProgressReport& progress,
               std::chrono::milliseconds timeout);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lockstep::trainer

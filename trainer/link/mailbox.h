// What the step loop has to say and what it was told, between the threads of a CoordinatorLink: the
// step loop's side puts in and takes out without waiting, the link's thread carries it.
//
// Thread-safe. Everything in it is bounded. No gRPC here.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <stop_token>
#include <string>
#include <vector>

#include "lockstep/v1/rank.pb.h"
#include "trainer/link/coordinator_link.h"

namespace lockstep::trainer {

class Mailbox {
 public:
  using Clock = std::chrono::steady_clock;

  explicit Mailbox(LinkOptions options);

  // The step loop's side; see CoordinatorLink for what each means.
  void SetProgress(const ProgressReport& progress);
  void Queue(v1::AttachRequest message);
  void OrderDone(const std::string& order_id, v1::AttachRequest message);
  std::vector<Order> TakeOrders();
  bool Goodbye(v1::AttachRequest message, std::chrono::milliseconds timeout);
  std::string rejected() const;
  bool connected() const;
  std::string run_id() const;

  // The link's thread.
  v1::AttachRequest Hello() const;
  void Welcomed(const std::string& run_id);
  void Receive(const v1::Order& order);
  /// The next message for a stream: new progress when it is due or anything is queued behind it,
  /// then the queued ones in order, then goodbye. What is handed out counts as written from `now`
  /// on.
  std::optional<v1::AttachRequest> Next(bool progress_is_due, Clock::time_point now);
  /// Keeps for the next stream what may not have arrived on this one. True when it had been
  /// welcomed.
  bool StreamBroke(Clock::time_point now);
  /// The coordinator will not have this attempt.
  void Reject(const std::string& reason);
  bool goodbye_wanted() const;
  void EndGoodbye(bool taken);
  /// Waits for so long, or until stop or a goodbye that was not there yet.
  void Wait(const std::stop_token& stop, std::chrono::milliseconds time);

 private:
  struct Written {
    Clock::time_point when;
    v1::AttachRequest message;
  };
  void QueueLocked(v1::AttachRequest message);

  const LinkOptions options_;
  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  // Guarded by mutex_.
  std::optional<ProgressReport> progress_;
  bool progress_is_new_ = false;
  std::deque<v1::AttachRequest> queued_;
  std::deque<Written> unsure_;  // Written so recently that a break may have swallowed them.
  std::vector<Order> orders_;
  std::set<std::string> seen_orders_;
  std::map<std::string, v1::AttachRequest> done_;
  std::optional<v1::AttachRequest> goodbye_;
  bool goodbye_over_ = false;
  bool goodbye_taken_ = false;
  bool connected_ = false;
  std::string rejected_;
  std::string run_id_;
};

}  // namespace lockstep::trainer

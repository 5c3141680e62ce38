// A run's changes, as they come, over coordinator restarts.
//
// RunStream holds WatchRun open on a thread of its own and pushes what it hears into an EventQueue;
// one loop (follow.h) drains the queue of many streams. When the connection breaks it tells once,
// tries again five times a second and goes on after the last change it saw.
#pragma once

#include <grpcpp/client_context.h>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "lockstep/v1/run.pb.h"

namespace lockstep::cli {

struct StreamEvent {
  enum class Kind {
    kRun,    // `run` is what the run looks like now.
    kLost,   // The coordinator went away; the stream keeps trying.
    kBack,   // It is there again.
    kError,  // The last event of its stream: `status` says why there is no more.
    kEnd,    // The last event of its stream: the run is over.
  };
  Kind kind = Kind::kRun;
  std::string run_id;
  v1::Run run;
  absl::Status status;
};

// Bounded; fd() is readable while something is in it, for poll(2). Thread-safe.
class EventQueue {
 public:
  EventQueue();
  ~EventQueue();
  EventQueue(const EventQueue&) = delete;
  EventQueue& operator=(const EventQueue&) = delete;

  /// Waits while the queue is full; drops the event once the queue is closed.
  void Push(StreamEvent event);
  bool TryPop(StreamEvent& event);
  /// Frees those who wait in Push.
  void Close();
  int fd() const { return fd_; }

 private:
  int fd_;
  std::mutex mutex_;
  std::condition_variable room_;
  std::deque<StreamEvent> events_;
  bool closed_ = false;
};

class RunStream {
 public:
  struct Options {
    std::string socket;
    std::string run_id;
    int64_t after_sequence = 0;
    // A restarted coordinator finds its runs again within seconds; after this nobody restarts it.
    std::chrono::seconds reconnect_for{300};
  };
  /// The queue must outlive the stream and be closed, or drained, before the stream is destroyed.
  RunStream(Options options, EventQueue& queue);
  ~RunStream();

 private:
  void Listen();
  // One connection. True = the stream is over, with its last event pushed.
  bool ListenOnce(bool& lost);
  bool Stopping();
  void Emit(StreamEvent::Kind kind, absl::Status status = absl::OkStatus());

  const Options options_;
  EventQueue& queue_;
  int64_t sequence_;
  bool heard_ = false;  // Connected at least once.
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stopping_ = false;                // Guarded by mutex_.
  grpc::ClientContext* call_ = nullptr;  // Guarded by mutex_; set while a call is open.
  std::jthread thread_;
};

}  // namespace lockstep::cli
